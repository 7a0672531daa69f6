//! Checks lengths and checksums of a frame the slow, obvious way.

use std::{error::Error, fmt, net::IpAddr};

use super::{Ip, PROTO_TCP, PROTO_UDP, be16, header, icmp, parse::l3_offset};

/// What is wrong with a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The name of the part that ends too early.
    Truncated(&'static str),
    /// The Ethernet type or the version that is not IP.
    NotIp(u16),
    /// The Ethernet type says one version, the IP header another.
    Version { says: u8, is: u8 },
    /// A length field that does not fit the bytes there are.
    Length { of: &'static str, says: usize, is: usize },
    /// The checksum in the packet and the right one.
    Checksum { of: &'static str, is: u16, should: u16 },
    /// Why packets are not the fragments of one.
    Fragments(&'static str),
}

/// Checks the IP packet of a frame: IP header, TCP, UDP, ICMP or ICMPv6, and for an ICMP error also the packet inside.
///
/// A UDP checksum of 0 is right for IPv4. Fragments have only their IP header checked. Of a quoted packet that was cut off
/// the IP header is checked, and UDP's length as long as it is there; of one that is complete, everything.
pub fn verify(frame: &[u8]) -> Result<(), Fault> {
    verify_ip(&frame[l3_offset(frame)?..])
}

/// [`verify`] for a packet that starts with its IP header.
pub fn verify_ip(packet: &[u8]) -> Result<(), Fault> {
    verify_packet(packet, &OUTER)
}

/// The Internet checksum (RFC 1071): the complement of the sum, with end-around carry, of the 16-bit words.
///
/// Over bytes that contain a right checksum it gives 0.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for word in bytes.chunks(2) {
        let low = word.get(1).copied().unwrap_or(0);
        sum += u64::from(word[0]) * 256 + u64::from(low);
    }
    while sum > 0xffff {
        sum = sum % 0x10000 + sum / 0x10000;
    }
    !u16::try_from(sum).expect("invariant: folded to 16 bits")
}

/// The bytes that TCP, UDP and ICMPv6 put before their own for the sum (RFC 9293 §3.1, RFC 768, RFC 8200 §8.1).
pub(super) fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let len = u16::try_from(len).expect("an IP payload fits 16 bits").to_be_bytes();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            [&src.octets()[..], &dst.octets(), &[0, protocol], &len].concat()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            [&src.octets()[..], &dst.octets(), &[0, 0], &len, &[0, 0, 0, protocol]].concat()
        }
        (src, dst) => panic!("{src} and {dst} are of two families"),
    }
}

/// How the parts of a packet are called in a fault.
struct Names {
    ip: &'static str,
    tcp: &'static str,
    udp: &'static str,
    icmp: &'static str,
    /// Embedded in an ICMP error: the end may be cut off.
    embedded: bool,
}

const OUTER: Names =
    Names { ip: "IP header", tcp: "TCP", udp: "UDP", icmp: "ICMP", embedded: false };
const EMBEDDED: Names = Names {
    ip: "embedded IP header",
    tcp: "embedded TCP",
    udp: "embedded UDP",
    icmp: "embedded ICMP",
    embedded: true,
};

fn verify_packet(packet: &[u8], names: &Names) -> Result<(), Fault> {
    let ip = match header::parse(packet) {
        // The cut may go through the extension headers; nothing before them has a checksum.
        Err(Fault::Truncated("IPv6 extension header")) if names.embedded => return Ok(()),
        parsed => parsed?,
    };
    if ip.checksum.is_some() {
        matches(names.ip, ip.checksum, &packet[..ip.header_len], 10)?;
    }
    let total = ip.total_len;
    if total < ip.header_len || (!names.embedded && packet.len() < total) {
        return Err(Fault::Length { of: names.ip, says: total, is: packet.len() });
    }
    if ip.is_fragment() {
        return Ok(());
    }
    let segment = &packet[ip.header_len..total.min(packet.len())];
    if packet.len() < total {
        return verify_cut(&ip, segment, names);
    }
    let with_pseudo = || {
        let dst = ip.checksum_destination();
        [&pseudo_header(ip.src, dst, ip.protocol, segment.len()), segment].concat()
    };
    let pseudo = with_pseudo().len() - segment.len();
    match ip.protocol {
        PROTO_TCP => {
            if segment.len() < 20 {
                return Err(Fault::Truncated(names.tcp));
            }
            let says = usize::from(segment[12] >> 4) * 4;
            if !(20..=segment.len()).contains(&says) {
                return Err(Fault::Length { of: names.tcp, says, is: segment.len() });
            }
            matches(names.tcp, be16(segment, 16), &with_pseudo(), pseudo + 16)
        }
        PROTO_UDP => {
            udp_length(&ip, segment, names)?;
            match be16(segment, 6) {
                Some(0) if ip.is_ipv4() => Ok(()),
                sum => matches(names.udp, sum, &with_pseudo(), pseudo + 6),
            }
        }
        _ if ip.carries_icmp() => {
            if segment.len() < 8 {
                return Err(Fault::Truncated(names.icmp));
            }
            if ip.is_ipv4() {
                matches(names.icmp, be16(segment, 2), segment, 2)?;
            } else {
                matches(names.icmp, be16(segment, 2), &with_pseudo(), pseudo + 2)?;
            }
            // An error about an error is not sent (RFC 1122 §3.2.2), so one level is enough.
            if icmp::is_error(ip.protocol, segment[0]) && !names.embedded {
                verify_packet(&segment[8..], &EMBEDDED)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What can be checked of a quoted packet whose end is missing.
fn verify_cut(ip: &Ip, segment: &[u8], names: &Names) -> Result<(), Fault> {
    match ip.protocol {
        PROTO_UDP if segment.len() >= 6 => udp_length(ip, segment, names),
        _ => Ok(()),
    }
}

fn udp_length(ip: &Ip, segment: &[u8], names: &Names) -> Result<(), Fault> {
    let says = usize::from(be16(segment, 4).ok_or(Fault::Truncated(names.udp))?);
    let is = ip.total_len - ip.header_len;
    if says == is && is >= 8 { Ok(()) } else { Err(Fault::Length { of: names.udp, says, is }) }
}

/// Compares the checksum at `at` in `covered` with the one computed over the same bytes with that field 0.
fn matches(of: &'static str, is: Option<u16>, covered: &[u8], at: usize) -> Result<(), Fault> {
    let is = is.ok_or(Fault::Truncated(of))?;
    let mut zeroed = covered.to_vec();
    zeroed[at..at + 2].fill(0);
    let should = checksum(&zeroed);
    // In one's complement 0 and 0xffff are the same number. UDP never sends the first, nobody else the second.
    let should = if of.ends_with("UDP") && should == 0 { 0xffff } else { should };
    if is == should { Ok(()) } else { Err(Fault::Checksum { of, is, should }) }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(of) => write!(f, "{of} is cut off"),
            Self::NotIp(is) => write!(f, "not IP but {is:#06x}"),
            Self::Version { says, is } => {
                write!(f, "the Ethernet type is that of IPv{says}, the packet is IPv{is}")
            }
            Self::Length { of, says, is } => {
                write!(f, "the length in {of} says {says}, there are {is} bytes")
            }
            Self::Checksum { of, is, should } => {
                write!(f, "the checksum of {of} is {is:#06x} and should be {should:#06x}")
            }
            Self::Fragments(why) => write!(f, "not the fragments of one packet: {why}"),
        }
    }
}

impl Error for Fault {}
