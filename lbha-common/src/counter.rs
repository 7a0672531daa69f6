//! Every verdict has a name: the counters of the datapath.
//!
//! Discriminants are append-only, they index pinned maps. The names are the metric labels and the lines of `show drops`.

/// What becomes of the packets that a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Translated and sent on.
    Forward,
    /// Left to the kernel, untouched.
    Pass,
    /// Ours, and dropped.
    Drop,
    /// Kept by the controller for a moment, and counted again when it goes on.
    Hold,
    /// Sent by the program itself, in answer to a packet that has a verdict of its own beside.
    Answer,
}

impl Class {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Hold => "hold",
            Self::Answer => "answer",
        }
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident = $value:literal, $class:ident, $label:literal;)+) => {
        /// A verdict with its reason.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Counter {
            $($(#[doc = $doc])+ $name = $value,)+
        }

        impl Counter {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            pub const fn class(self) -> Class {
                match self {
                    $(Self::$name => Class::$class,)+
                }
            }

            /// The metric label.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }

            /// One line for people: what it means and what to look at.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

counters! {
    /// Translated and sent out of the other interface.
    Forward = 0, Forward, "forward";
    /// Translated and sent out of the interface it came in on.
    ForwardSame = 1, Forward, "forward_same";

    /// To another host's MAC address, or broadcast or multicast.
    PassMac = 2, Pass, "not_our_mac";
    /// Neither IPv4 nor IPv6: ARP and the like.
    PassNotIp = 3, Pass, "not_ip";
    /// IPv6 that can't be read as far as its protocol: left to the kernel.
    PassIpv6 = 4, Pass, "ipv6";
    /// Another VLAN than the interface's, or more than two tags.
    PassVlan = 5, Pass, "other_vlan";
    /// ICMP that is about no connection of ours: left to the kernel.
    PassIcmp = 6, Pass, "icmp";
    /// Neither TCP, UDP nor ICMP: VRRP and the like.
    PassProtocol = 7, Pass, "other_protocol";
    /// A fragment of a datagram that is not ours, or one without ports.
    PassFragment = 8, Pass, "fragment";
    /// Not a packet of ours that can be read: the kernel says what is wrong with it.
    PassMalformed = 9, Pass, "malformed_pass";
    /// No service, no connection: SSH, BGP, health checks and all else that is the host's own.
    PassUnmatched = 10, Pass, "unmatched";

    /// Lengths that contradict each other, in a packet of ours.
    DropMalformed = 16, Drop, "malformed";
    /// IPv4 header checksum wrong.
    DropChecksum = 17, Drop, "bad_ip_checksum";
    /// TTL used up.
    DropTtl = 18, Drop, "ttl_exceeded";
    /// A fragment of a datagram whose first fragment was dropped.
    DropFragment = 19, Drop, "fragment_of_dropped";
    /// Part of no known connection, and not the start of one.
    DropNoFlow = 20, Drop, "no_flow";
    /// The service has no server that takes new connections.
    DropNoServer = 21, Drop, "no_server";
    /// No route back to the client through our interfaces.
    DropNoRoute = 22, Drop, "no_route";
    /// The next hop's MAC address is not known (yet).
    DropUnresolved = 23, Drop, "next_hop_unresolved";
    /// Larger than the next hop's MTU.
    DropTooBig = 24, Drop, "too_big";
    /// The flow table is full: new connections are refused, known ones go on.
    DropTableFull = 25, Drop, "flow_table_full";
    /// No source port is free towards the chosen server.
    DropNoPort = 26, Drop, "no_free_port";
    /// The load balancer has no address on the servers' side to translate to.
    DropNoSource = 27, Drop, "no_source_address";
    /// Not the acknowledgement that would complete the handshake.
    DropHandshake = 28, Drop, "bad_handshake";
    /// The translated tuple belongs to another connection; the client's next try starts anew.
    DropConflict = 29, Drop, "nat_conflict";
    /// The frame could not be given its new layer 2 header.
    DropHeadroom = 30, Drop, "no_headroom";
    /// The outgoing interface is not in the device map.
    DropRedirect = 31, Drop, "redirect_failed";
    /// The half-open table took no entry.
    DropHalfOpen = 32, Drop, "half_open_refused";
    /// The route back to the source leads to the other side: the address is forged, or the routing is not symmetric.
    DropWrongSide = 33, Drop, "source_from_wrong_side";
    /// From a masqueraded source: neither TCP, UDP nor ICMP echo, so there is nothing to tell connections apart by.
    DropProtocol = 34, Drop, "protocol_not_translated";
    /// A masquerade rule has no external address: the interface has none.
    DropNoExternal = 35, Drop, "no_external_address";
    /// A masqueraded source has used up its share of ports.
    DropQuota = 36, Drop, "source_quota";
    /// An ICMP error that is about no connection of ours.
    DropIcmpNoFlow = 37, Drop, "icmp_error_no_flow";
    /// ICMP checksum wrong.
    DropIcmpChecksum = 38, Drop, "bad_icmp_checksum";
    /// Ping to a VIP, while that is switched off.
    DropPing = 39, Drop, "ping_off";
    /// A fragment that can't be of an honest datagram: one that overlaps the ports, or too short for them.
    DropFragmentAttack = 40, Drop, "fragment_attack";
    /// No room to hold a fragment until the first of its datagram comes.
    DropFragmentLimit = 41, Drop, "fragment_limit";
    /// Held until its datagram's first fragment comes.
    HoldFragment = 42, Hold, "fragment_held";
    /// An ICMP error about a connection of ours, translated and sent on.
    ForwardIcmpError = 43, Forward, "icmp_error";
    /// A program that a packet is handed to is missing, or could not work on it.
    DropInternal = 44, Drop, "internal";
    /// A fragment that was held, and the first of its datagram has not come in time.
    DropFragmentExpired = 45, Drop, "fragment_expired";

    /// Echo reply in the name of a VIP. The request has no verdict beside.
    AnswerEcho = 48, Answer, "echo_reply";
    /// ICMP time exceeded, about a packet counted as `ttl_exceeded`.
    AnswerTtl = 49, Answer, "time_exceeded_sent";
    /// ICMP fragmentation needed or packet too big, about a packet counted as `too_big`.
    AnswerTooBig = 50, Answer, "too_big_sent";
    /// ICMP destination unreachable, about a packet counted as `no_free_port`, `source_quota` or `no_route`.
    AnswerUnreachable = 51, Answer, "unreachable_sent";
    /// An ICMP error that was not sent because too many were.
    AnswerLimited = 52, Answer, "icmp_rate_limited";
}

impl Counter {
    /// Length of the arrays in the maps.
    pub const ROOM: usize = 64;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_numbers_are_unique_and_fit() {
        let names: HashSet<_> = Counter::ALL.iter().map(|c| c.as_str()).collect();
        let numbers: HashSet<_> = Counter::ALL.iter().map(|&c| c as u32).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        assert_eq!(numbers.len(), Counter::ALL.len());
        assert!(Counter::ALL.iter().all(|&c| (c as usize) < Counter::ROOM));
    }

    #[test]
    fn helps_are_sentences() {
        for counter in Counter::ALL {
            assert!(
                counter.help().ends_with('.') && !counter.help().starts_with(' '),
                "{counter:?}"
            );
        }
    }
}
