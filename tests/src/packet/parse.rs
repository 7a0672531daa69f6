//! Takes a frame apart into a plain struct for assertions; checks nothing but that the bytes are there.

use std::net::SocketAddr;

use super::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Fault, Ip, PROTO_TCP,
    PROTO_UDP, be16, be32, header, icmp,
};

/// A frame with an IP packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parsed {
    pub eth_dst: [u8; 6],
    pub eth_src: [u8; 6],
    /// Tag control information, outermost first.
    pub vlans: Vec<u16>,
    pub ip: Ip,
    pub transport: Transport,
    /// What follows the transport's header, up to the end of the IP packet.
    pub payload: Vec<u8>,
    /// Bytes after the IP packet.
    pub padding: usize,
}

/// What an IP packet carries.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Transport {
    Tcp {
        src: u16,
        dst: u16,
        seq: u32,
        ack: u32,
        flags: u8,
        window: u16,
        checksum: u16,
        options: Vec<u8>,
    },
    Udp {
        src: u16,
        dst: u16,
        checksum: u16,
    },
    /// ICMP or ICMPv6, as `ip.protocol` says.
    Icmp {
        kind: u8,
        code: u8,
        checksum: u16,
        rest: [u8; 4],
        /// The packet that an error quotes, as far as it goes.
        embedded: Option<Box<Embedded>>,
    },
    /// Another protocol, a later fragment, or a header that is cut off: all of it is payload.
    Opaque,
}

/// The start of a packet inside an ICMP error: ports or the ICMP identifier, which are always there (RFC 792).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Embedded {
    pub ip: Ip,
    /// Source and destination port for TCP and UDP; not in a later fragment.
    pub ports: Option<(u16, u16)>,
    /// The identifier of an echo request or reply; not in a later fragment.
    pub echo_id: Option<u16>,
    /// What follows the IP header.
    pub payload: Vec<u8>,
}

impl Embedded {
    /// The source of a TCP or UDP packet.
    #[track_caller]
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.ip.src, self.expect_ports().0)
    }

    /// The destination of a TCP or UDP packet.
    #[track_caller]
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.ip.dst, self.expect_ports().1)
    }

    #[track_caller]
    fn expect_ports(&self) -> (u16, u16) {
        self.ports.unwrap_or_else(|| panic!("no ports in {self:?}"))
    }
}

impl Parsed {
    /// The source of a TCP or UDP packet.
    #[track_caller]
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.ip.src, self.ports().0)
    }

    /// The destination of a TCP or UDP packet.
    #[track_caller]
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.ip.dst, self.ports().1)
    }

    /// The packet inside an ICMP error.
    #[track_caller]
    pub fn embedded(&self) -> &Embedded {
        match &self.transport {
            Transport::Icmp { embedded: Some(embedded), .. } => embedded,
            other => panic!("no packet inside {other:?}"),
        }
    }

    /// The TCP flags.
    #[track_caller]
    pub fn flags(&self) -> u8 {
        match self.transport {
            Transport::Tcp { flags, .. } => flags,
            ref other => panic!("no TCP flags in {other:?}"),
        }
    }

    /// The identifier of an ICMP echo request or reply.
    #[track_caller]
    pub fn echo_id(&self) -> u16 {
        match self.transport {
            Transport::Icmp { kind, rest: [high, low, ..], .. }
                if icmp::is_echo(self.ip.protocol, kind) =>
            {
                u16::from_be_bytes([high, low])
            }
            ref other => panic!("no identifier in {other:?}"),
        }
    }

    /// Type and code of an ICMP message.
    #[track_caller]
    pub fn icmp_kind(&self) -> (u8, u8) {
        match self.transport {
            Transport::Icmp { kind, code, .. } => (kind, code),
            ref other => panic!("no ICMP type in {other:?}"),
        }
    }

    /// The MSS option of a TCP header, if there is one.
    #[track_caller]
    pub fn mss(&self) -> Option<u16> {
        let Transport::Tcp { options, .. } = &self.transport else {
            panic!("no TCP options in {:?}", self.transport)
        };
        let mut rest = options.as_slice();
        while let [kind, tail @ ..] = rest {
            rest = match kind {
                0 => return None,
                1 => tail,
                2 => return (tail.first() == Some(&4)).then(|| be16(tail, 1)).flatten(),
                _ => rest.get(usize::from(*tail.first()?).max(2)..)?,
            };
        }
        None
    }

    #[track_caller]
    fn ports(&self) -> (u16, u16) {
        match self.transport {
            Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst, .. } => (src, dst),
            ref other => panic!("no ports in {other:?}"),
        }
    }
}

/// Parses a frame; anything but IP is a fault.
pub fn parse(frame: &[u8]) -> Result<Parsed, Fault> {
    let offset = l3_offset(frame)?;
    let mut parsed = parse_ip(&frame[offset..])?;
    parsed.eth_dst.copy_from_slice(&frame[..6]);
    parsed.eth_src.copy_from_slice(&frame[6..12]);
    parsed.vlans = vlans(frame, offset);
    Ok(parsed)
}

/// [`parse`] for a packet that starts with its IP header; the Ethernet fields are zero.
pub fn parse_ip(packet: &[u8]) -> Result<Parsed, Fault> {
    let ip = header::parse(packet)?;
    let total = ip.total_len;
    if total < ip.header_len || packet.len() < total {
        return Err(Fault::Length { of: "IP header", says: total, is: packet.len() });
    }
    let segment = &packet[ip.header_len..total];
    let (transport, header_len) = match ip.protocol {
        _ if ip.fragment_offset != 0 => None,
        PROTO_TCP => tcp(segment),
        PROTO_UDP => udp(segment),
        _ if ip.carries_icmp() => icmp(ip.protocol, segment),
        _ => None,
    }
    .unwrap_or((Transport::Opaque, 0));
    Ok(Parsed {
        eth_dst: [0; 6],
        eth_src: [0; 6],
        vlans: Vec::new(),
        ip,
        transport,
        payload: segment[header_len..].to_vec(),
        padding: packet.len() - total,
    })
}

/// Where the IP header starts, after the Ethernet header and its tags.
pub(super) fn l3_offset(frame: &[u8]) -> Result<usize, Fault> {
    let mut at = 12;
    loop {
        let version = match be16(frame, at).ok_or(Fault::Truncated("Ethernet header"))? {
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => {
                at += 4;
                continue;
            }
            ETHERTYPE_IPV4 => 4,
            ETHERTYPE_IPV6 => 6,
            other => return Err(Fault::NotIp(other)),
        };
        at += 2;
        return match frame.get(at).map(|first| first >> 4) {
            Some(is) if is != version => Err(Fault::Version { says: version, is }),
            _ => Ok(at),
        };
    }
}

/// The tags of a frame whose IP header starts at `offset`.
pub(super) fn vlans(frame: &[u8], offset: usize) -> Vec<u16> {
    (12..offset - 2).step_by(4).filter_map(|at| be16(frame, at + 2)).collect()
}

fn tcp(segment: &[u8]) -> Option<(Transport, usize)> {
    let header_len = usize::from(*segment.get(12)? >> 4) * 4;
    let options = segment.get(20..header_len)?.to_vec();
    let transport = Transport::Tcp {
        src: be16(segment, 0)?,
        dst: be16(segment, 2)?,
        seq: be32(segment, 4)?,
        ack: be32(segment, 8)?,
        flags: *segment.get(13)?,
        window: be16(segment, 14)?,
        checksum: be16(segment, 16)?,
        options,
    };
    Some((transport, header_len))
}

fn udp(segment: &[u8]) -> Option<(Transport, usize)> {
    let (src, dst) = (be16(segment, 0)?, be16(segment, 2)?);
    Some((Transport::Udp { src, dst, checksum: be16(segment, 6)? }, 8))
}

fn icmp(protocol: u8, segment: &[u8]) -> Option<(Transport, usize)> {
    let rest = segment.get(4..8)?.try_into().ok()?;
    let (kind, code) = (segment[0], segment[1]);
    let quotes = icmp::is_error(protocol, kind);
    let embedded = quotes.then(|| embedded(&segment[8..])).flatten().map(Box::new);
    Some((Transport::Icmp { kind, code, checksum: be16(segment, 2)?, rest, embedded }, 8))
}

fn embedded(packet: &[u8]) -> Option<Embedded> {
    let ip = header::parse(packet).ok()?;
    let payload = packet[ip.header_len..].to_vec();
    let starts = ip.fragment_offset == 0;
    let has_ports = starts && matches!(ip.protocol, PROTO_TCP | PROTO_UDP);
    let ports = be16(&payload, 0).zip(be16(&payload, 2)).filter(|_| has_ports);
    let kind = payload.first().filter(|_| starts && ip.carries_icmp());
    let is_echo = kind.is_some_and(|kind| icmp::is_echo(ip.protocol, *kind));
    let echo_id = be16(&payload, 4).filter(|_| is_echo);
    Some(Embedded { ip, ports, echo_id, payload })
}
