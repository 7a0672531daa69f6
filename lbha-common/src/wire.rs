//! Header offsets and protocol numbers, in the units in which the datapath uses them.

/// EtherTypes and TPIDs as raw (network-order) 16-bit loads.
pub mod ethertype {
    pub const IPV4: u16 = 0x0800_u16.to_be();
    pub const IPV6: u16 = 0x86dd_u16.to_be();
    /// IEEE 802.1Q.
    pub const VLAN: u16 = 0x8100_u16.to_be();
    /// IEEE 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8_u16.to_be();
}

/// IP protocol numbers.
pub mod proto {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    /// IPv6 extension headers (RFC 8200 §4.1).
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const NO_NEXT_HEADER: u8 = 59;
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// ICMP types and codes (RFC 792, RFC 4443) of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpFamily {
    pub proto: u8,
    pub echo_request: u8,
    pub echo_reply: u8,
    pub unreachable: u8,
    /// Code of `unreachable`: no route.
    pub no_route: u8,
    /// Code of `unreachable`: communication administratively prohibited.
    pub prohibited: u8,
    /// Code of `unreachable`: nobody listens on the port.
    pub port_unreachable: u8,
    pub time_exceeded: u8,
    /// Type and code of "packet too big".
    pub too_big: (u8, u8),
    /// The types that are errors about a packet that they quote, a bit each.
    pub errors: u32,
    /// Type that tells a host of a better router; for IPv6 that is one of neighbour discovery.
    pub redirect: Option<u8>,
    /// Bytes that an error may have in all, its IP header included (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)).
    pub max_error: usize,
}

/// IPv4, then IPv6.
pub const ICMP_FAMILY: [IcmpFamily; 2] = [
    IcmpFamily {
        proto: proto::ICMP,
        echo_request: 8,
        echo_reply: 0,
        unreachable: 3,
        no_route: 0,
        prohibited: 13,
        port_unreachable: 3,
        time_exceeded: 11,
        too_big: (3, 4),
        errors: 1 << 3 | 1 << 4 | 1 << 11 | 1 << 12,
        redirect: Some(5),
        max_error: 576,
    },
    IcmpFamily {
        proto: proto::ICMPV6,
        echo_request: 128,
        echo_reply: 129,
        unreachable: 1,
        no_route: 0,
        prohibited: 1,
        port_unreachable: 4,
        time_exceeded: 3,
        too_big: (2, 0),
        errors: 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4,
        redirect: None,
        max_error: 1280,
    },
];

impl IcmpFamily {
    #[inline(always)]
    pub const fn is_error(&self, kind: u8) -> bool {
        kind < u32::BITS as u8 && self.errors >> kind & 1 != 0
    }

    #[inline(always)]
    pub const fn is_echo(&self, kind: u8) -> bool {
        kind == self.echo_request || kind == self.echo_reply
    }
}

/// TCP flag bits (byte 13 of the header, RFC 9293 §3.1).
pub mod tcp {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
    /// Header length without options.
    pub const HEADER: usize = 20;
}

/// UDP header length.
pub const UDP_HEADER: usize = 8;
/// Ethernet header length without tags.
pub const ETH_HEADER: usize = 14;
/// Length of one VLAN tag.
pub const VLAN_TAG: usize = 4;
/// IPv4 header length without options.
pub const IPV4_HEADER: usize = 20;
/// IPv6 header length without extension headers.
pub const IPV6_HEADER: usize = 40;
/// IPv6 fragment header (RFC 8200 §4.5).
pub const FRAGMENT_HEADER: usize = 8;
/// ICMP header, either family.
pub const ICMP_HEADER: usize = 8;
/// More-fragments bit and fragment offset, as a mask over the raw 16-bit load at offset 6 (RFC 791 §3.1).
pub const IPV4_FRAGMENT: u16 = 0x3fff_u16.to_be();
/// The fragment offset alone, likewise.
pub const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff_u16.to_be();
/// The more-fragments bit alone, likewise.
pub const IPV4_MORE_FRAGMENTS: u16 = 0x2000_u16.to_be();
/// VLAN id within a TCI, as a mask over the raw load.
pub const VLAN_ID: u16 = 0x0fff_u16.to_be();
