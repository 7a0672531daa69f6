//! Takes a frame apart into a plain struct for assertions; checks nothing but that the bytes are there.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{
    ETHERTYPE_IPV4, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Fault, PROTO_ICMP, PROTO_TCP, PROTO_UDP, be16,
    be32, is_icmp_error,
};

/// A frame with an IPv4 packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parsed {
    pub eth_dst: [u8; 6],
    pub eth_src: [u8; 6],
    /// Tag control information, outermost first.
    pub vlans: Vec<u16>,
    pub ip: Ipv4,
    pub transport: Transport,
    /// What follows the transport's header, up to the end of the IP packet.
    pub payload: Vec<u8>,
    /// Bytes after the IP packet.
    pub padding: usize,
}

/// An IPv4 header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ipv4 {
    pub header_len: usize,
    pub tos: u8,
    pub total_len: u16,
    pub id: u16,
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// In units of 8 bytes.
    pub fragment_offset: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub options: Vec<u8>,
}

/// What an IPv4 packet carries.
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
    pub ip: Ipv4,
    /// The first two 16-bit words after the IP header: source and destination port for TCP and UDP.
    pub ports: Option<(u16, u16)>,
    /// What follows the IP header.
    pub payload: Vec<u8>,
}

impl Ipv4 {
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }
}

impl Parsed {
    /// The source of a TCP or UDP packet.
    #[track_caller]
    pub fn source(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip.src, self.ports().0)
    }

    /// The destination of a TCP or UDP packet.
    #[track_caller]
    pub fn destination(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip.dst, self.ports().1)
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

    #[track_caller]
    fn ports(&self) -> (u16, u16) {
        match self.transport {
            Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst, .. } => (src, dst),
            ref other => panic!("no ports in {other:?}"),
        }
    }
}

/// Parses a frame; anything but IPv4 is a fault.
pub fn parse(frame: &[u8]) -> Result<Parsed, Fault> {
    let offset = l3_offset(frame)?;
    let mut parsed = parse_ip(&frame[offset..])?;
    parsed.eth_dst.copy_from_slice(&frame[..6]);
    parsed.eth_src.copy_from_slice(&frame[6..12]);
    parsed.vlans = (12..offset - 2).step_by(4).filter_map(|at| be16(frame, at + 2)).collect();
    Ok(parsed)
}

/// [`parse`] for a packet that starts with its IP header; the Ethernet fields are zero.
pub fn parse_ip(packet: &[u8]) -> Result<Parsed, Fault> {
    let ip = parse_ip_header(packet)?;
    let total = usize::from(ip.total_len);
    if total < ip.header_len || packet.len() < total {
        return Err(Fault::Length { of: "IPv4 header", says: total, is: packet.len() });
    }
    let segment = &packet[ip.header_len..total];
    let (transport, header_len) = match ip.protocol {
        _ if ip.fragment_offset != 0 => None,
        PROTO_TCP => tcp(segment),
        PROTO_UDP => udp(segment),
        PROTO_ICMP => icmp(segment),
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

/// Where the IPv4 header starts, after the Ethernet header and its tags.
pub(super) fn l3_offset(frame: &[u8]) -> Result<usize, Fault> {
    let mut at = 12;
    loop {
        match be16(frame, at).ok_or(Fault::Truncated("Ethernet header"))? {
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => at += 4,
            ETHERTYPE_IPV4 => return Ok(at + 2),
            other => return Err(Fault::NotIpv4(other)),
        }
    }
}

pub(super) fn parse_ip_header(packet: &[u8]) -> Result<Ipv4, Fault> {
    const CUT: Fault = Fault::Truncated("IPv4 header");
    let first = *packet.first().ok_or(CUT)?;
    if first >> 4 != 4 {
        return Err(Fault::NotIpv4(u16::from(first >> 4)));
    }
    let header_len = usize::from(first & 0x0f) * 4;
    let header = packet.get(..header_len).filter(|header| header.len() >= 20).ok_or(CUT)?;
    let word = |at| be16(header, at).ok_or(CUT);
    let address = |at| be32(header, at).map(Ipv4Addr::from_bits).ok_or(CUT);
    let fragment = word(6)?;
    Ok(Ipv4 {
        header_len,
        tos: header[1],
        total_len: word(2)?,
        id: word(4)?,
        dont_fragment: fragment & 0x4000 != 0,
        more_fragments: fragment & 0x2000 != 0,
        fragment_offset: fragment & 0x1fff,
        ttl: header[8],
        protocol: header[9],
        checksum: word(10)?,
        src: address(12)?,
        dst: address(16)?,
        options: header[20..].to_vec(),
    })
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

fn icmp(segment: &[u8]) -> Option<(Transport, usize)> {
    let rest = segment.get(4..8)?.try_into().ok()?;
    let (kind, code) = (segment[0], segment[1]);
    let embedded = is_icmp_error(kind).then(|| embedded(&segment[8..])).flatten().map(Box::new);
    Some((Transport::Icmp { kind, code, checksum: be16(segment, 2)?, rest, embedded }, 8))
}

fn embedded(packet: &[u8]) -> Option<Embedded> {
    let ip = parse_ip_header(packet).ok()?;
    let payload = packet[ip.header_len..].to_vec();
    let ports = be16(&payload, 0).zip(be16(&payload, 2));
    let ports = ports.filter(|_| matches!(ip.protocol, PROTO_TCP | PROTO_UDP));
    Some(Embedded { ip, ports, payload })
}
