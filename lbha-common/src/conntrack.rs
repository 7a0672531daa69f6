//! Connection state: the bits of a flow entry, what a packet does to them, and the timeout class that follows.
//!
//! Every connection has two entries, one a direction, and each carries the state of both: a FIN or a RST is rare, so
//! whoever sees it writes it into its own entry (`OWN_*`) and into the other one (`PEER_*`). A packet without such a
//! flag reads its own entry only.

use crate::wire::{proto, tcp};

/// Bits of [`crate::flow::Flow4::state`].
pub mod state {
    /// A FIN was seen in this entry's direction.
    pub const OWN_FIN: u32 = 1 << 0;
    /// A FIN was seen in the other direction.
    pub const PEER_FIN: u32 = 1 << 1;
    /// A RST was seen in this entry's direction and nothing after it.
    pub const OWN_RST: u32 = 1 << 2;
    /// A RST was seen in the other direction and nothing after it.
    pub const PEER_RST: u32 = 1 << 3;
    /// Entries that are not established yet: the other side has answered.
    pub const REPLIED: u32 = 1 << 4;
    /// The entry is the server-to-client direction.
    pub const REPLY: u32 = 1 << 8;
    /// The other direction's packets come in on the private side.
    pub const PEER_PRIVATE: u32 = 1 << 9;

    /// The connection was opened from the servers' side and leaves masqueraded: the host whose RSTs are believed is the
    /// one that opened it.
    pub const MASQUERADE: u32 = 1 << 10;
    /// Masqueraded connections: not established yet.
    pub const OPENING: u32 = 1 << 11;

    /// Bits that both directions' entries carry alike.
    pub const SHARED: u32 = REPLIED | MASQUERADE | OPENING;
    pub const FINS: u32 = OWN_FIN | PEER_FIN;
    pub const RSTS: u32 = OWN_RST | PEER_RST;
}

/// What a packet changes in its own entry and in the other direction's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub own_set: u32,
    pub own_clear: u32,
    pub peer_set: u32,
    pub peer_clear: u32,
}

/// Whether a hit has to look at the state at all: an opening or closing flag, an entry that a RST has marked, or one
/// that is not established yet.
#[inline(always)]
pub const fn needs_tracking(tcp_flags: u8, entry: u32) -> bool {
    tcp_flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0
        || entry & (state::OWN_RST | state::OPENING) != 0
}

/// The effect of a TCP packet on an established connection.
///
/// A RST marks the connection, it does not end it: it may be spoofed. Any later packet of the same direction takes the
/// mark away, because a host that has sent a real RST is silent from then on (RFC 7857 §2.2 asks for the same patience).
#[inline(always)]
pub const fn on_tcp(tcp_flags: u8, entry: u32) -> Update {
    let mut update = Update { own_set: 0, own_clear: 0, peer_set: 0, peer_clear: 0 };
    if tcp_flags & tcp::RST != 0 {
        update.own_set = state::OWN_RST;
        update.peer_set = state::PEER_RST;
        return update;
    }
    if entry & state::OWN_RST != 0 {
        update.own_clear = state::OWN_RST;
        update.peer_clear = state::PEER_RST;
    }
    if tcp_flags & tcp::FIN != 0 {
        update.own_set = state::OWN_FIN;
        update.peer_set = state::PEER_FIN;
    }
    update
}

/// The effect of a packet on a masqueraded connection that is opening: it is established when the other side has answered
/// and, for TCP, the side that opened it has acknowledged that (RFC 5382 §5: "transitory" until then). A simultaneous open
/// is an answer like any other (RFC 9293 §3.5, figure 7).
#[inline(always)]
pub const fn on_opening(protocol: u8, tcp_flags: u8, entry: u32) -> Update {
    let mut update = Update { own_set: 0, own_clear: 0, peer_set: 0, peer_clear: 0 };
    if entry & state::OPENING == 0 || tcp_flags & tcp::RST != 0 {
        return update;
    }
    let is_tcp = protocol == proto::TCP;
    if entry & state::REPLY != 0 {
        update.own_set = state::REPLIED;
        update.peer_set = state::REPLIED;
        if !is_tcp {
            update.own_clear = state::OPENING;
            update.peer_clear = state::OPENING;
        }
    } else if is_tcp && entry & state::REPLIED != 0 && tcp_flags & (tcp::SYN | tcp::ACK) == tcp::ACK
    {
        update.own_clear = state::OPENING;
        update.peer_clear = state::OPENING;
    }
    update
}

/// Whether a new connection may take the place of this one: both sides have closed, or the host on our side has reset,
/// which is the server of a service and whoever opened a masqueraded connection.
///
/// A client's RST does not count, since anybody on the internet can send one in its name. Its next SYN goes to the same
/// server on the same translation: if the RST was real the server takes the SYN for a new connection, and if it was not,
/// the server answers with a challenge (RFC 5961 §4) and nothing is lost.
#[inline(always)]
pub const fn is_closing(entry: u32) -> bool {
    let inside_is_own = (entry & state::REPLY != 0) != (entry & state::MASQUERADE != 0);
    let inside_rst = if inside_is_own { state::OWN_RST } else { state::PEER_RST };
    entry & state::FINS == state::FINS || entry & inside_rst != 0
}

/// Whether the flags are those of a connection's first packet.
#[inline(always)]
pub const fn opens(tcp_flags: u8) -> bool {
    tcp_flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
}

/// Timeout class of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// TCP, not yet confirmed by the client.
    TcpSyn,
    TcpEstablished,
    /// One side has sent a FIN.
    TcpFinWait,
    /// Both sides have.
    TcpTimeWait,
    /// A RST was the last thing seen in its direction.
    TcpReset,
    /// UDP, nothing but a first exchange so far.
    UdpUnreplied,
    Udp,
    /// Masqueraded TCP, not established yet (RFC 7857 §2.1: the transitory timeout of opening).
    MasqueradeOpening,
    /// Masqueraded TCP, closed by one side or both (RFC 7857 §2.1: the transitory timeout of closing).
    MasqueradeClosing,
    /// ICMP echo.
    Icmp,
}

impl Phase {
    /// The phase of an entry in the flow table (`half_open` = false) or in the half-open table.
    pub const fn of(protocol: u8, entry: u32, half_open: bool) -> Self {
        let opening = half_open || entry & state::OPENING != 0;
        let masquerade = entry & state::MASQUERADE != 0;
        match protocol {
            proto::TCP => {}
            proto::ICMP | proto::ICMPV6 => return Self::Icmp,
            _ => return if opening { Self::UdpUnreplied } else { Self::Udp },
        }
        if entry & state::RSTS != 0 {
            Self::TcpReset
        } else if masquerade && opening {
            Self::MasqueradeOpening
        } else if masquerade && entry & state::FINS != 0 {
            Self::MasqueradeClosing
        } else if half_open {
            Self::TcpSyn
        } else if entry & state::FINS == state::FINS {
            Self::TcpTimeWait
        } else if entry & state::FINS != 0 {
            Self::TcpFinWait
        } else {
            Self::TcpEstablished
        }
    }

    /// Name in `show flows` and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TcpSyn => "syn",
            Self::TcpEstablished => "established",
            Self::TcpFinWait => "fin_wait",
            Self::TcpTimeWait => "time_wait",
            Self::TcpReset => "reset",
            Self::UdpUnreplied => "unreplied",
            Self::Udp => "udp",
            Self::MasqueradeOpening => "opening",
            Self::MasqueradeClosing => "closing",
            Self::Icmp => "icmp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both entries of one connection, driven as the datapath drives them.
    #[derive(Default)]
    struct Connection {
        client: u32,
        server: u32,
    }

    impl Connection {
        fn client(&mut self, flags: u8) {
            Self::step(flags, &mut self.client, &mut self.server);
        }

        fn server(&mut self, flags: u8) {
            Self::step(flags, &mut self.server, &mut self.client);
        }

        fn step(flags: u8, own: &mut u32, peer: &mut u32) {
            if needs_tracking(flags, *own) {
                let update = on_tcp(flags, *own);
                *own = (*own & !update.own_clear) | update.own_set;
                *peer = (*peer & !update.peer_clear) | update.peer_set;
            }
        }

        fn phase(&self) -> Phase {
            let phase = Phase::of(proto::TCP, self.client, false);
            assert_eq!(
                phase,
                Phase::of(proto::TCP, self.server, false),
                "both entries tell the same phase"
            );
            phase
        }
    }

    #[test]
    fn an_orderly_close_goes_through_fin_wait_to_time_wait() {
        let mut c = Connection::default();
        c.client(tcp::ACK);
        assert_eq!(c.phase(), Phase::TcpEstablished);
        c.server(tcp::FIN | tcp::ACK);
        assert_eq!(c.phase(), Phase::TcpFinWait);
        assert!(!is_closing(c.client));
        c.client(tcp::FIN | tcp::ACK);
        assert_eq!(c.phase(), Phase::TcpTimeWait);
        assert!(is_closing(c.client) && is_closing(c.server));
    }

    #[test]
    fn a_spoofed_rst_is_forgotten_when_its_sender_goes_on() {
        let mut c = Connection::default();
        c.client(tcp::RST);
        assert_eq!(c.phase(), Phase::TcpReset);
        c.server(tcp::ACK); // the other side's packets say nothing about it
        assert_eq!(c.phase(), Phase::TcpReset);
        c.client(tcp::ACK);
        assert_eq!(c.phase(), Phase::TcpEstablished);
    }

    #[test]
    fn resets_of_both_sides_are_kept_apart() {
        let mut c = Connection::default();
        c.client(tcp::RST);
        c.server(tcp::RST);
        c.client(tcp::ACK);
        assert_eq!(c.phase(), Phase::TcpReset);
        c.server(tcp::ACK);
        assert_eq!(c.phase(), Phase::TcpEstablished);
    }

    #[test]
    fn only_the_servers_rst_makes_room_for_a_new_connection() {
        let mut c = Connection { client: 0, server: state::REPLY };
        c.client(tcp::RST);
        assert!(!is_closing(c.client) && !is_closing(c.server));
        c.server(tcp::RST);
        assert!(is_closing(c.client) && is_closing(c.server));
    }

    #[test]
    fn a_masqueraded_connection_is_established_by_its_handshake() {
        let new = state::MASQUERADE | state::OPENING;
        let step = |flags, own: &mut u32, peer: &mut u32| {
            assert!(needs_tracking(flags, *own));
            let update = on_opening(proto::TCP, flags, *own);
            *own = (*own & !update.own_clear) | update.own_set;
            *peer = (*peer & !update.peer_clear) | update.peer_set;
        };
        let phase = |entry| Phase::of(proto::TCP, entry, false);
        for answer in [tcp::SYN | tcp::ACK, tcp::SYN] {
            let (mut inside, mut outside) = (new, new | state::REPLY);
            step(tcp::SYN, &mut inside, &mut outside);
            step(tcp::ACK, &mut inside, &mut outside);
            assert_eq!(phase(inside), Phase::MasqueradeOpening, "nobody has answered");
            step(tcp::RST | tcp::ACK, &mut outside, &mut inside);
            assert_eq!(phase(inside), Phase::MasqueradeOpening, "a refusal is no answer");
            step(answer, &mut outside, &mut inside);
            assert_eq!(phase(inside), Phase::MasqueradeOpening);
            assert_eq!(phase(outside), Phase::MasqueradeOpening);
            step(tcp::ACK, &mut inside, &mut outside);
            assert_eq!(phase(inside), Phase::TcpEstablished);
            assert_eq!(phase(outside), Phase::TcpEstablished);
            assert!(!needs_tracking(tcp::ACK, inside) && !needs_tracking(tcp::ACK, outside));
        }
    }

    #[test]
    fn a_masqueraded_exchange_is_confirmed_by_any_answer() {
        let new = state::MASQUERADE | state::OPENING;
        for (protocol, before, after) in
            [(proto::UDP, Phase::UdpUnreplied, Phase::Udp), (proto::ICMP, Phase::Icmp, Phase::Icmp)]
        {
            assert_eq!(Phase::of(protocol, new, false), before);
            assert_eq!(on_opening(protocol, 0, new), Update::default(), "it can't confirm itself");
            let update = on_opening(protocol, 0, new | state::REPLY);
            assert_eq!(update.own_clear, state::OPENING);
            assert_eq!(update.peer_clear, state::OPENING);
            assert_eq!(Phase::of(protocol, new & !state::OPENING, false), after);
        }
    }

    #[test]
    fn only_the_inside_hosts_rst_makes_room_for_a_masqueraded_connection() {
        let (inside, outside) = (state::MASQUERADE, state::MASQUERADE | state::REPLY);
        assert!(is_closing(inside | state::OWN_RST) && is_closing(outside | state::PEER_RST));
        assert!(!is_closing(inside | state::PEER_RST) && !is_closing(outside | state::OWN_RST));
    }

    #[test]
    fn only_a_bare_syn_opens() {
        assert!(opens(tcp::SYN));
        assert!(opens(tcp::SYN | 0xc0), "ECN-setup SYN, RFC 3168 §6.1.1");
        for flags in
            [0, tcp::ACK, tcp::SYN | tcp::ACK, tcp::SYN | tcp::FIN, tcp::SYN | tcp::RST, tcp::RST]
        {
            assert!(!opens(flags), "{flags:#x}");
        }
    }

    #[test]
    fn plain_packets_need_no_tracking() {
        assert!(!needs_tracking(tcp::ACK, 0));
        assert!(!needs_tracking(tcp::ACK, state::PEER_RST));
        assert!(needs_tracking(tcp::ACK, state::OWN_RST));
        assert!(needs_tracking(tcp::FIN | tcp::ACK, 0));
    }
}
