//! Checks lengths and checksums of a frame the slow, obvious way.

use std::{error::Error, fmt, net::Ipv4Addr};

use super::{
    PROTO_ICMP, PROTO_TCP, PROTO_UDP, be16, is_icmp_error,
    parse::{l3_offset, parse_ip_header},
};

/// What is wrong with a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The name of the part that ends too early.
    Truncated(&'static str),
    /// The Ethernet type or the version that is not IPv4.
    NotIpv4(u16),
    /// A length field that does not fit the bytes there are.
    Length { of: &'static str, says: usize, is: usize },
    /// The checksum in the packet and the right one.
    Checksum { of: &'static str, is: u16, should: u16 },
}

/// Checks the IPv4 packet of a frame: IP header, TCP, UDP or ICMP, and for an ICMP error also the packet inside.
///
/// A UDP checksum of 0 is right. Fragments have only their IP header checked, an embedded packet that was cut off too.
pub fn verify(frame: &[u8]) -> Result<(), Fault> {
    verify_ip(&frame[l3_offset(frame)?..])
}

/// [`verify`] for a packet that starts with its IP header.
pub fn verify_ip(packet: &[u8]) -> Result<(), Fault> {
    verify_packet(packet, ["IPv4 header", "TCP", "UDP", "ICMP"], Whole::Must)
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

/// The bytes that TCP and UDP put before their own for the sum (RFC 9293 §3.1, RFC 768).
pub(super) fn pseudo_header(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: usize) -> [u8; 12] {
    let [s0, s1, s2, s3] = src.octets();
    let [d0, d1, d2, d3] = dst.octets();
    let [l0, l1] = u16::try_from(len).expect("an IPv4 payload fits 16 bits").to_be_bytes();
    [s0, s1, s2, s3, d0, d1, d2, d3, 0, protocol, l0, l1]
}

/// Whether all of a packet has to be there.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Whole {
    Must,
    /// Embedded in an ICMP error: the end may be cut off.
    May,
}

fn verify_packet(packet: &[u8], names: [&'static str; 4], whole: Whole) -> Result<(), Fault> {
    let [ip_name, tcp_name, udp_name, icmp_name] = names;
    let ip = parse_ip_header(packet)?;
    matches(ip_name, be16(packet, 10), &packet[..ip.header_len], 10)?;

    let total = usize::from(ip.total_len);
    if total < ip.header_len || (whole == Whole::Must && packet.len() < total) {
        return Err(Fault::Length { of: ip_name, says: total, is: packet.len() });
    }
    if ip.is_fragment() || packet.len() < total {
        return Ok(());
    }
    let segment = &packet[ip.header_len..total];
    let pseudo = pseudo_header(ip.src, ip.dst, ip.protocol, segment.len());
    let with_pseudo = [&pseudo, segment].concat();
    match ip.protocol {
        PROTO_TCP => {
            if segment.len() < 20 {
                return Err(Fault::Truncated(tcp_name));
            }
            matches(tcp_name, be16(segment, 16), &with_pseudo, pseudo.len() + 16)
        }
        PROTO_UDP => {
            let says = usize::from(be16(segment, 4).ok_or(Fault::Truncated(udp_name))?);
            if says != segment.len() {
                return Err(Fault::Length { of: udp_name, says, is: segment.len() });
            }
            match be16(segment, 6) {
                Some(0) => Ok(()),
                sum => matches(udp_name, sum, &with_pseudo, pseudo.len() + 6),
            }
        }
        PROTO_ICMP => {
            if segment.len() < 8 {
                return Err(Fault::Truncated(icmp_name));
            }
            matches(icmp_name, be16(segment, 2), segment, 2)?;
            // An error about an error is not sent (RFC 1122 §3.2.2), so one level is enough.
            if is_icmp_error(segment[0]) && whole == Whole::Must {
                let names =
                    ["embedded IPv4 header", "embedded TCP", "embedded UDP", "embedded ICMP"];
                verify_packet(&segment[8..], names, Whole::May)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Compares the checksum at `at` in `covered` with the one computed over the same bytes with that field 0.
fn matches(of: &'static str, is: Option<u16>, covered: &[u8], at: usize) -> Result<(), Fault> {
    let is = is.ok_or(Fault::Truncated(of))?;
    let mut zeroed = covered.to_vec();
    zeroed[at..at + 2].fill(0);
    let should = checksum(&zeroed);
    // For UDP, and in principle for all, 0 and 0xffff are the same number in one's complement; only UDP sends the latter.
    let same = is == should || (of.ends_with("UDP") && should == 0 && is == 0xffff);
    if same { Ok(()) } else { Err(Fault::Checksum { of, is, should }) }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(of) => write!(f, "{of} is cut off"),
            Self::NotIpv4(is) => write!(f, "not IPv4 but {is:#06x}"),
            Self::Length { of, says, is } => {
                write!(f, "the length in {of} says {says}, there are {is} bytes")
            }
            Self::Checksum { of, is, should } => {
                write!(f, "the checksum of {of} is {is:#06x} and should be {should:#06x}")
            }
        }
    }
}

impl Error for Fault {}
