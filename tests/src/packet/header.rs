//! Reads the header of an IP packet of either family into one struct.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Extension, Fault, PROTO_ICMP, PROTO_ICMPV6, be16, be32, extension};

/// An IPv4 header with its options, or an IPv6 header with its extension headers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ip {
    /// Where what the packet carries starts: after options and extension headers.
    pub header_len: usize,
    /// The traffic class of IPv6.
    pub tos: u8,
    /// 0 for IPv4.
    pub flow_label: u32,
    /// Of the whole packet, for IPv6 too.
    pub total_len: usize,
    /// Of IPv6, that of the fragment header; 0 without one.
    pub id: u32,
    /// Always true for IPv6.
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// In units of 8 bytes.
    pub fragment_offset: u16,
    /// The hop limit of IPv6.
    pub ttl: u8,
    /// What follows the header: for IPv6 the number in the last extension header.
    pub protocol: u8,
    /// None for IPv6.
    pub checksum: Option<u16>,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// Of IPv4, with their padding.
    pub options: Vec<u8>,
    /// Of IPv6, with their padding.
    pub extensions: Vec<Extension>,
}

impl Ip {
    /// Whether only a part of what was sent is in the packet. IPv6's "atomic" fragments (RFC 6946) are none.
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    pub fn is_ipv4(&self) -> bool {
        self.src.is_ipv4()
    }

    /// Whether it carries the ICMP of its own family.
    pub(super) fn carries_icmp(&self) -> bool {
        self.protocol == if self.is_ipv4() { PROTO_ICMP } else { PROTO_ICMPV6 }
    }

    /// The destination that checksums are computed with.
    pub(super) fn checksum_destination(&self) -> IpAddr {
        match self.dst {
            IpAddr::V4(_) => self.dst,
            IpAddr::V6(dst) => extension::final_destination(dst, &self.extensions).into(),
        }
    }
}

pub(super) fn parse(packet: &[u8]) -> Result<Ip, Fault> {
    match packet.first().ok_or(Fault::Truncated("IP header"))? >> 4 {
        4 => v4(packet),
        6 => v6(packet),
        other => Err(Fault::NotIp(other.into())),
    }
}

fn v4(packet: &[u8]) -> Result<Ip, Fault> {
    const CUT: Fault = Fault::Truncated("IPv4 header");
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    let header = packet.get(..header_len).filter(|header| header.len() >= 20).ok_or(CUT)?;
    let word = |at| be16(header, at).ok_or(CUT);
    let address = |at| be32(header, at).map(Ipv4Addr::from_bits).map(IpAddr::from).ok_or(CUT);
    let fragment = word(6)?;
    Ok(Ip {
        header_len,
        tos: header[1],
        flow_label: 0,
        total_len: word(2)?.into(),
        id: word(4)?.into(),
        dont_fragment: fragment & 0x4000 != 0,
        more_fragments: fragment & 0x2000 != 0,
        fragment_offset: fragment & 0x1fff,
        ttl: header[8],
        protocol: header[9],
        checksum: Some(word(10)?),
        src: address(12)?,
        dst: address(16)?,
        options: header[20..].to_vec(),
        extensions: Vec::new(),
    })
}

fn v6(packet: &[u8]) -> Result<Ip, Fault> {
    const CUT: Fault = Fault::Truncated("IPv6 header");
    let header: &[u8; 40] = packet.first_chunk().ok_or(CUT)?;
    let first = be32(header, 0).ok_or(CUT)?;
    let total_len = 40 + usize::from(be16(header, 4).ok_or(CUT)?);
    let address = |at: usize| -> Result<IpAddr, Fault> {
        let octets: [u8; 16] = header[at..at + 16].try_into().map_err(|_| CUT)?;
        Ok(Ipv6Addr::from(octets).into())
    };
    let chain = extension::parse(header[6], &packet[40..packet.len().min(total_len).max(40)])?;
    Ok(Ip {
        header_len: 40 + chain.len,
        tos: (first >> 20 & 0xff) as u8,
        flow_label: first & 0xf_ffff,
        total_len,
        id: chain.fragment.id,
        dont_fragment: true,
        more_fragments: chain.fragment.more,
        fragment_offset: chain.fragment.offset,
        ttl: header[7],
        protocol: chain.protocol,
        checksum: None,
        src: address(8)?,
        dst: address(24)?,
        options: Vec::new(),
        extensions: chain.extensions,
    })
}
