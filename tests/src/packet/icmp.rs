//! ICMP of both families: the numbers, and errors about a frame as a router makes them.

use std::net::IpAddr;

use super::{Frame, L4, PROTO_ICMP, PROTO_ICMPV6, header, parse::l3_offset};

/// ICMP types (RFC 792).
pub mod icmp4 {
    pub const ECHO_REPLY: u8 = 0;
    pub const UNREACHABLE: u8 = 3;
    pub const SOURCE_QUENCH: u8 = 4;
    pub const REDIRECT: u8 = 5;
    pub const ECHO_REQUEST: u8 = 8;
    pub const TIME_EXCEEDED: u8 = 11;
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// The code of [`UNREACHABLE`] that says the next hop's MTU.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
}

/// ICMPv6 types (RFC 4443).
pub mod icmp6 {
    pub const UNREACHABLE: u8 = 1;
    pub const PACKET_TOO_BIG: u8 = 2;
    pub const TIME_EXCEEDED: u8 = 3;
    pub const PARAMETER_PROBLEM: u8 = 4;
    pub const ECHO_REQUEST: u8 = 128;
    pub const ECHO_REPLY: u8 = 129;
}

/// How much of the packet an error quotes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Quote {
    /// What a router must (RFC 792): the IP header with options or extension headers, and 8 bytes.
    Least,
    /// What a router should: up to 576 bytes of error for IPv4 (RFC 1812 §4.3.2.3), 1280 for IPv6 (RFC 4443 §2.4).
    Most,
    /// These many bytes of the packet, or all if there are fewer.
    Bytes(usize),
}

/// The error that a router `from` sends about a frame that it got: back to whom the frame came from, with its tags.
/// `rest` is the second word: the MTU, a pointer, or unused.
///
/// The packet is quoted as it is in the frame, with the TTL that it has there.
#[track_caller]
pub fn icmp_error(
    about: &[u8],
    (kind, code): (u8, u8),
    rest: [u8; 4],
    from: impl Into<IpAddr>,
    quote: Quote,
) -> Frame {
    let offset = l3_offset(about).expect("a frame with an IP packet");
    let ip = header::parse(&about[offset..]).expect("an IP header");
    let packet = &about[offset..][..ip.total_len];
    let most = if ip.is_ipv4() { 576 - 28 } else { 1280 - 48 };
    let len = match quote {
        Quote::Least => ip.header_len + 8,
        Quote::Most => most,
        Quote::Bytes(len) => len,
    };
    let quoted = &packet[..len.min(packet.len())];
    let mut error = Frame::icmp_error(from, ip.src, kind, code, quoted).icmp_rest(rest);
    error.eth_dst.copy_from_slice(&about[6..12]);
    error.eth_src.copy_from_slice(&about[..6]);
    error.vlans = super::parse::vlans(about, offset);
    error
}

impl Frame {
    pub fn echo_request(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, id: u16, seq: u16) -> Self {
        Self::echo(src.into(), dst.into(), [icmp4::ECHO_REQUEST, icmp6::ECHO_REQUEST], id, seq)
    }

    pub fn echo_reply(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, id: u16, seq: u16) -> Self {
        Self::echo(src.into(), dst.into(), [icmp4::ECHO_REPLY, icmp6::ECHO_REPLY], id, seq)
    }

    /// An ICMP error about `about`, an IP packet or the start of one ([`Frame::build_ip`], [`Frame::quote`]); see also
    /// [`icmp_error`].
    pub fn icmp_error(
        src: impl Into<IpAddr>,
        dst: impl Into<IpAddr>,
        kind: u8,
        code: u8,
        about: &[u8],
    ) -> Self {
        Self::new(src.into(), dst.into(), L4::Icmp { kind, code, rest: [0; 4] }).payload(about)
    }

    /// "Fragmentation needed" (type 3, code 4) or "packet too big" (type 2) with the MTU of the next hop.
    pub fn too_big(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, mtu: u32, about: &[u8]) -> Self {
        let src = src.into();
        let (kind, code) = match src {
            IpAddr::V4(_) => (icmp4::UNREACHABLE, icmp4::FRAGMENTATION_NEEDED),
            IpAddr::V6(_) => (icmp6::PACKET_TOO_BIG, 0),
        };
        Self::icmp_error(src, dst, kind, code, about).icmp_rest(mtu.to_be_bytes())
    }

    fn echo(src: IpAddr, dst: IpAddr, [v4, v6]: [u8; 2], id: u16, seq: u16) -> Self {
        let kind = if src.is_ipv4() { v4 } else { v6 };
        let ([a, b], [c, d]) = (id.to_be_bytes(), seq.to_be_bytes());
        Self::new(src, dst, L4::Icmp { kind, code: 0, rest: [a, b, c, d] })
    }
}

/// Whether an ICMP message carries the start of another packet.
pub(super) fn is_error(protocol: u8, kind: u8) -> bool {
    match protocol {
        PROTO_ICMP => matches!(
            kind,
            icmp4::UNREACHABLE
                | icmp4::SOURCE_QUENCH
                | icmp4::REDIRECT
                | icmp4::TIME_EXCEEDED
                | icmp4::PARAMETER_PROBLEM
        ),
        // All below 128 (RFC 4443 §2.1), of which only these are in use.
        PROTO_ICMPV6 => (icmp6::UNREACHABLE..=icmp6::PARAMETER_PROBLEM).contains(&kind),
        _ => false,
    }
}

/// Whether an ICMP message is an echo request or its reply.
pub(super) fn is_echo(protocol: u8, kind: u8) -> bool {
    match protocol {
        PROTO_ICMP => matches!(kind, icmp4::ECHO_REQUEST | icmp4::ECHO_REPLY),
        PROTO_ICMPV6 => matches!(kind, icmp6::ECHO_REQUEST | icmp6::ECHO_REPLY),
        _ => false,
    }
}
