//! Neighbour solicitations and advertisements (RFC 4861 §4.3 and §4.4) over Ethernet; pure. From the IPv6 header on: the
//! packet socket adds the Ethernet header.

use std::net::Ipv6Addr;

use lbha_common::csum;

use super::state::Mac;

/// With a source link-layer address option.
pub const SOLICITATION_LEN: usize = IPV6_LEN + ND_LEN + OPTION_LEN;

/// A solicitation for `target`'s MAC address, to `target` itself or to its [`solicited_node`] address. `source` must not
/// be `::`, from which it would be one for duplicate address detection, without a link-layer address (§4.3).
pub fn solicitation(
    sender: Mac,
    source: Ipv6Addr,
    target: Ipv6Addr,
    destination: Ipv6Addr,
) -> [u8; SOLICITATION_LEN] {
    let mut packet = [0; SOLICITATION_LEN];
    packet[0] = 6 << 4;
    packet[4..6].copy_from_slice(&((ND_LEN + OPTION_LEN) as u16).to_be_bytes());
    packet[6] = NEXT_HEADER_ICMPV6;
    packet[7] = HOP_LIMIT;
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&destination.octets());
    packet[40] = TYPE_SOLICITATION;
    packet[48..64].copy_from_slice(&target.octets());
    packet[64] = OPTION_SOURCE_ADDRESS;
    packet[65] = 1;
    packet[66..72].copy_from_slice(&sender);
    let checksum = !sum(&packet);
    packet[42..44].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The multicast address that everyone with this address in its last 24 bits listens to (RFC 4291 §2.7.1).
pub fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from_bits(PREFIX | addr.to_bits() & 0xff_ffff)
}

/// RFC 2464 §7.
pub fn multicast_mac(addr: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = addr.octets();
    [0x33, 0x33, a, b, c, d]
}

/// A solicited neighbour advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    pub target: Ipv6Addr,
    /// In the target link-layer address option, which an answer to a unicast solicitation may leave out (§7.2.4), and
    /// Linux does.
    pub mac: Option<Mac>,
    /// Whether `mac` is to replace another one that is known.
    pub overrides: bool,
}

/// `None` for anything but a valid advertisement (§7.1.2) in answer to a solicitation. One behind an extension header is
/// not looked for: nobody sends these.
pub fn parse_advertisement(packet: &[u8]) -> Option<Advertisement> {
    let header = packet.first_chunk::<IPV6_LEN>()?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // What follows is Ethernet padding.
    let packet = packet.get(..IPV6_LEN + len)?;
    let message = packet[IPV6_LEN..].first_chunk::<ND_LEN>()?;
    if header[0] >> 4 != 6
        || header[6] != NEXT_HEADER_ICMPV6
        || header[7] != HOP_LIMIT
        || message[..2] != [TYPE_ADVERTISEMENT, 0]
        || message[4] & FLAG_SOLICITED == 0
        || header[24] == MULTICAST
        || message[8] == MULTICAST
        || sum(packet) != 0xffff
    {
        return None;
    }
    let (_, target) = message.split_last_chunk::<16>()?;
    Some(Advertisement {
        target: Ipv6Addr::from(*target),
        mac: target_address(&packet[IPV6_LEN + ND_LEN..])?,
        overrides: message[4] & FLAG_OVERRIDE != 0,
    })
}

/// The MAC address among the options, if there is one. The outer `None` is for options that cannot be told apart.
fn target_address(mut options: &[u8]) -> Option<Option<Mac>> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        if units == 0 {
            return None;
        }
        let (option, rest) = options.split_at_checked(usize::from(units) * OPTION_LEN)?;
        if kind == OPTION_TARGET_ADDRESS && option.len() == OPTION_LEN {
            found = option.last_chunk::<6>().copied();
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

/// The ones' complement sum of a packet's ICMPv6 message and its pseudo-header (RFC 8200 §8.1): all ones when the
/// checksum in it is right.
fn sum(packet: &[u8]) -> u16 {
    let (header, message) = packet.split_at(IPV6_LEN);
    let words = |bytes: &[u8]| -> u32 {
        let pair = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        bytes.chunks(2).map(|chunk| u32::from(pair(chunk))).sum()
    };
    let total =
        words(&header[8..]) + message.len() as u32 + u32::from(NEXT_HEADER_ICMPV6) + words(message);
    csum::fold(total)
}

const IPV6_LEN: usize = 40;
/// Type, code, checksum, flags, target.
const ND_LEN: usize = 24;
/// The unit in which an option gives its length, and the length of one with a MAC address.
const OPTION_LEN: usize = 8;
const NEXT_HEADER_ICMPV6: u8 = 58;
/// A message with another one has come through a router.
const HOP_LIMIT: u8 = 255;
const TYPE_SOLICITATION: u8 = 135;
const TYPE_ADVERTISEMENT: u8 = 136;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_SOURCE_ADDRESS: u8 = 1;
const OPTION_TARGET_ADDRESS: u8 = 2;
/// An address's first byte.
const MULTICAST: u8 = 0xff;

#[cfg(test)]
#[path = "ndp_tests.rs"]
mod tests;
