//! Cuts IP packets of both families into fragments, and puts fragments together again.

use super::{
    Extension, Fault, Ip, extension::Fragment, header, parse::l3_offset, verify::checksum,
};

/// The fragments of a frame's IP packet, in their order, none with more than `mtu` bytes of IP. All of them get the
/// identification `id`, of 16 bits for IPv4. A packet that fits is one fragment too: for IPv6 with a fragment header.
#[track_caller]
pub fn fragments(frame: &[u8], mtu: usize, id: u32) -> Vec<Vec<u8>> {
    let offset = l3_offset(frame).expect("a frame with an IP packet");
    let with_ethernet = |fragment: Vec<u8>| [&frame[..offset], &fragment].concat();
    fragments_ip(&frame[offset..], mtu, id).into_iter().map(with_ethernet).collect()
}

/// [`fragments`] of a packet that starts with its IP header.
#[track_caller]
pub fn fragments_ip(packet: &[u8], mtu: usize, id: u32) -> Vec<Vec<u8>> {
    let ip = header::parse(packet).expect("an IP header");
    assert!(!ip.is_fragment(), "a packet that is no fragment itself");
    let packet = &packet[..ip.total_len];
    let start = if ip.is_ipv4() { ip.header_len } else { 40 + per_fragment_len(&ip) };
    let room = |header: usize| (mtu.saturating_sub(header)) / 8 * 8;
    let (mut fragments, mut at) = (Vec::new(), start);
    while at < packet.len() || fragments.is_empty() {
        let fragment = Fragment { offset: units(at - start), more: false, id };
        // The header's length does not depend on the flag.
        let len = room(header_of(&ip, packet, start, fragment).len());
        assert!(len > 0, "an MTU of {mtu} leaves no room");
        let end = packet.len().min(at + len);
        let fragment = Fragment { more: end < packet.len(), ..fragment };
        let whole = [&header_of(&ip, packet, start, fragment), &packet[at..end]].concat();
        fragments.push(with_length(whole));
        at = end;
    }
    fragments
}

/// The frame whose fragments these are, in any order; its Ethernet header is that of the first fragment.
pub fn reassemble<T: AsRef<[u8]>>(fragments: &[T]) -> Result<Vec<u8>, Fault> {
    let mut packets = Vec::new();
    let mut ethernet = None;
    for frame in fragments {
        let (start, packet) = frame.as_ref().split_at(l3_offset(frame.as_ref())?);
        if header::parse(packet)?.fragment_offset == 0 {
            ethernet = Some(start);
        }
        packets.push(packet);
    }
    let packet = reassemble_ip(&packets)?;
    Ok([ethernet.unwrap_or_default(), &packet].concat())
}

/// The packet whose fragments these are, in any order. Not all there, two from the same place, or of different packets:
/// all that is a fault.
pub fn reassemble_ip<T: AsRef<[u8]>>(fragments: &[T]) -> Result<Vec<u8>, Fault> {
    let mut parts = Vec::new();
    for packet in fragments {
        let packet = packet.as_ref();
        let ip = header::parse(packet)?;
        let packet = packet.get(..ip.total_len).ok_or(Fault::Length {
            of: "IP header",
            says: ip.total_len,
            is: packet.len(),
        })?;
        if ip.checksum.is_some() && checksum(&packet[..ip.header_len]) != 0 {
            return Err(Fault::Fragments("a header's checksum is wrong"));
        }
        parts.push((ip, packet));
    }
    parts.sort_by_key(|(ip, _)| ip.fragment_offset);
    let Some((first, packet)) = parts.first().cloned() else {
        return Err(Fault::Fragments("there is none"));
    };
    // Of a later fragment the parser takes nothing after the fragment header for a header, of the first one it does.
    let start = if first.is_ipv4() { first.header_len } else { 40 + per_fragment_len(&first) };
    let mut payload: Vec<u8> = Vec::new();
    for (index, (ip, packet)) in parts.iter().enumerate() {
        if (ip.src, ip.dst, ip.id) != (first.src, first.dst, first.id) {
            return Err(Fault::Fragments("addresses or identifications differ"));
        }
        if usize::from(ip.fragment_offset) * 8 != payload.len() {
            return Err(Fault::Fragments("they overlap, or one is missing"));
        }
        let last = index + 1 == parts.len();
        if ip.more_fragments == last {
            return Err(Fault::Fragments("the last one is missing, or not the last"));
        }
        let from = if ip.is_ipv4() { ip.header_len } else { start + FRAGMENT_HEADER };
        let part = packet.get(from..).ok_or(Fault::Truncated("fragment"))?;
        if !last && part.len() % 8 != 0 {
            return Err(Fault::Fragments("one is not a multiple of 8 bytes long"));
        }
        payload.extend(part);
    }
    let mut whole = packet[..start].to_vec();
    if first.is_ipv4() {
        whole[6..8].fill(0);
    } else {
        let number = *packet.get(start).ok_or(Fault::Truncated("fragment"))?;
        let place = next_header_place(&first, start);
        whole[place] = number;
    }
    if whole.len() + payload.len() > 65535 {
        return Err(Fault::Fragments("together they are longer than a packet can be"));
    }
    whole.extend(payload);
    Ok(with_length(whole))
}

/// The header that a fragment gets. `start` is where the part of the packet begins that is cut.
fn header_of(ip: &Ip, packet: &[u8], start: usize, fragment: Fragment) -> Vec<u8> {
    if ip.is_ipv4() {
        let mut header = packet[..20].to_vec();
        let id = u16::try_from(fragment.id).expect("16 bits of identification");
        header[4..6].copy_from_slice(&id.to_be_bytes());
        let word = u16::from(fragment.more) << 13 | fragment.offset;
        header[6..8].copy_from_slice(&word.to_be_bytes());
        header.extend(if fragment.offset == 0 { ip.options.clone() } else { copied(&ip.options) });
        header[0] = 0x40 | u8::try_from(header.len() / 4).expect("invariant: at most 60 bytes");
        return header;
    }
    let mut header = packet[..start].to_vec();
    let place = next_header_place(ip, start);
    let next = std::mem::replace(&mut header[place], Extension::Fragment.number());
    header.extend(Extension::Fragment.encode(next, fragment));
    header
}

/// Options that every fragment has: those with the highest bit set (RFC 791 §3.1).
fn copied(options: &[u8]) -> Vec<u8> {
    let (mut copied, mut rest) = (Vec::new(), options);
    while let [kind, tail @ ..] = rest {
        let len = match (kind, tail.first()) {
            (0, _) | (2.., None) => break,
            (1, _) => 1,
            (_, Some(len)) => usize::from(*len).clamp(2, rest.len()),
        };
        if kind & 0x80 != 0 {
            copied.extend(&rest[..len]);
        }
        rest = &rest[len..];
    }
    copied.resize(copied.len().next_multiple_of(4), 0);
    copied
}

/// The length of the extension headers that routers on the way look at, and that every fragment has (RFC 8200 §4.5):
/// all up to the routing header, else the hop-by-hop header.
fn per_fragment_len(ip: &Ip) -> usize {
    let before = ip.extensions.iter().take_while(|one| **one != Extension::Fragment);
    let (mut at, mut len) = (0, 0);
    for extension in before {
        at += extension.encode(0, Fragment::default()).len();
        if matches!(extension, Extension::HopByHop(_) | Extension::Routing { .. }) {
            len = at;
        }
    }
    // A fragment has its header right behind them, and what comes before that is whatever its sender left there.
    if ip.extensions.contains(&Extension::Fragment) { at } else { len }
}

/// Where the number of the header at `end` is: in the last header before it.
fn next_header_place(ip: &Ip, end: usize) -> usize {
    let (mut place, mut at) = (6, 40);
    for extension in &ip.extensions {
        if at >= end {
            break;
        }
        place = at;
        at += extension.encode(0, Fragment::default()).len();
    }
    place
}

/// With the length and, for IPv4, the checksum put right.
fn with_length(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        let len = u16::try_from(packet.len()).expect("an IPv4 packet fits 65535 bytes");
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[10..12].fill(0);
        let header_len = usize::from(packet[0] & 0x0f) * 4;
        let sum = checksum(&packet[..header_len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        let len = u16::try_from(packet.len() - 40).expect("an IPv6 packet fits");
        packet[4..6].copy_from_slice(&len.to_be_bytes());
    }
    packet
}

fn units(bytes: usize) -> u16 {
    u16::try_from(bytes / 8).expect("invariant: a packet has less than 2^16 bytes")
}

const FRAGMENT_HEADER: usize = 8;
