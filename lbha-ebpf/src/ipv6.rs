//! The IPv6 header and its extension headers: read, checked, rewritten.

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::programs::XdpContext;
use lbha_common::{
    addr::Be128,
    counter::Counter,
    flow::{Flow6, FlowKey6},
    fragment::Fragment6,
    tail,
    wire::{FRAGMENT_HEADER, ICMP_HEADER, IPV6_HEADER, UDP_HEADER, proto, tcp},
};

use crate::{
    access::{load, store, within},
    family::V6,
    maps::SCRATCH,
    masquerade::{kept_in, other_protocol},
    parse::{Packet, UpperLayer, available, key_word, truncated},
    verdict::{CONTINUE, Verdict, hand_to, stop},
    workspace::Work,
};

const _: () = {
    assert!(size_of::<FlowKey6>() == 40 && align_of::<FlowKey6>() == 8);
    assert!(offset_of!(FlowKey6, saddr) == 0 && offset_of!(FlowKey6, daddr) == 16);
    assert!(offset_of!(FlowKey6, sport) == 32 && offset_of!(FlowKey6, dport) == 34);
    assert!(offset_of!(FlowKey6, proto) == 36 && offset_of!(FlowKey6, side) == 37);
    assert!(offset_of!(Flow6, saddr) == 0 && offset_of!(Flow6, daddr) == 16);
    assert!(offset_of!(Fragment6, saddr) == 0 && offset_of!(Fragment6, daddr) == 16);
};

/// Extension headers that are followed. RFC 8200 §4.1 has at most six before the upper layer, each once but one.
const MAX_EXTENSIONS: u32 = 7;

/// Bytes that the headers may be, as a mask.
const MAX_HEADERS: u32 = 0x3fff;

/// Where the headers end.
pub struct Headers {
    /// The upper layer's header; not checked to be in bounds.
    pub l4: usize,
    pub protocol: u8,
    /// The fragment header, or 0.
    pub fragment: usize,
}

/// Follows the extension headers; `None` when they can't be followed to an end, or the packet is not at its own.
#[inline(always)]
pub fn headers(l3: usize, end: usize) -> Option<Headers> {
    // SAFETY: callers have checked the IPv6 header.
    let mut protocol = unsafe { load::<u8>(l3 + 6) };
    let mut l4 = l3 + IPV6_HEADER;
    let mut fragment = 0;
    for _ in 0..MAX_EXTENSIONS {
        let length = match protocol {
            proto::HOP_BY_HOP | proto::ROUTING | proto::DESTINATION_OPTIONS => {
                if !within(l4, 8, end) {
                    return None;
                }
                // On its way to somewhere else, which is the address that checksums are made with (RFC 8200 §8.1).
                // SAFETY: in bounds, checked above.
                if protocol == proto::ROUTING && unsafe { load::<u8>(l4 + 3) } != 0 {
                    return None;
                }
                // SAFETY: in bounds, checked above.
                usize::from(unsafe { load::<u8>(l4 + 1) }) * 8 + 8
            }
            proto::FRAGMENT => {
                if !within(l4, FRAGMENT_HEADER, end) {
                    return None;
                }
                // One is all that a sender writes; behind a second the first might be taken for the whole.
                if fragment != 0 {
                    return None;
                }
                fragment = l4;
                // SAFETY: in bounds, checked above.
                let offset = unsafe { load::<u16>(l4 + 2) } & OFFSET;
                if offset != 0 {
                    // What follows is the middle of something.
                    // SAFETY: in bounds, checked above.
                    let protocol = unsafe { load::<u8>(l4) };
                    return Some(Headers { l4: l4 + FRAGMENT_HEADER, protocol, fragment });
                }
                FRAGMENT_HEADER
            }
            _ => return Some(Headers { l4, protocol, fragment }),
        };
        // SAFETY: in bounds, checked above.
        protocol = unsafe { load::<u8>(l4) };
        l4 += length;
    }
    None
}

/// Takes where the headers end through memory, which the verifier does not follow: each way through the headers would be
/// followed on its own from here on.
#[inline(always)]
fn forget_way(l3: usize, headers: &Headers) -> Option<UpperLayer> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a per-CPU slot, and XDP programs do not nest.
    unsafe {
        (&raw mut (*scratch).at).write_volatile((headers.l4 - l3) as u32);
        (&raw mut (*scratch).found).write_volatile(headers.protocol.into());
        let offset = ((&raw const (*scratch).at).read_volatile() & MAX_HEADERS) as usize;
        let protocol = (&raw const (*scratch).found).read_volatile() as u8;
        Some(UpperLayer { offset, protocol })
    }
}

/// Fragment offset, and with it the more-fragments bit, as masks over a raw load (RFC 8200 §4.5).
pub const OFFSET: u16 = 0xfff8_u16.to_be();
pub const OFFSET_OR_MORE: u16 = 0xfff9_u16.to_be();
const MORE: u16 = 1_u16.to_be();

/// See [`crate::family::Family::tuple`].
#[inline(always)]
pub fn tuple<const SIDE: u8>(packet: &mut Packet, key: &mut MaybeUninit<FlowKey6>) -> Verdict {
    let (l3, end) = (packet.l3, packet.end);
    if !within(l3, IPV6_HEADER, end) {
        return stop(Counter::PassMalformed);
    }
    // SAFETY: in bounds, checked above.
    let (version, payload_len, next_header) =
        unsafe { (load::<u8>(l3), load::<u16>(l3 + 4), load::<u8>(l3 + 6)) };
    if version >> 4 != 6 {
        return stop(Counter::PassMalformed);
    }
    packet.total_len = u32::from(u16::from_be(payload_len)) + IPV6_HEADER as u32;
    let mut protocol = next_header;
    let mut l4 = l3 + IPV6_HEADER;
    if protocol != proto::TCP && protocol != proto::UDP {
        let Some(headers) = headers(l3, end) else {
            return kept_in::<V6>(source(l3), destination(l3), SIDE, Counter::PassIpv6);
        };
        if headers.fragment != 0 {
            let fragment = headers.fragment;
            if !within(fragment, FRAGMENT_HEADER, end) {
                return stop(Counter::PassIpv6);
            }
            // SAFETY: in bounds, checked above.
            let offset = unsafe { load::<u16>(fragment + 2) };
            // A fragment that is the whole is none (RFC 6946).
            if offset & OFFSET_OR_MORE != 0 {
                return hand_to(tail::FRAGMENT6);
            }
        }
        let Some(upper) = forget_way(l3, &headers) else {
            return stop(Counter::PassIpv6);
        };
        l4 = l3 + upper.offset;
        protocol = upper.protocol;
    }
    packet.l4 = l4;
    match protocol {
        proto::TCP => {
            if !within(l4, tcp::HEADER, end) {
                return truncated::<V6>(source(l3), destination(l3), SIDE);
            }
            // SAFETY: in bounds, checked above.
            packet.tcp_flags = unsafe { load::<u8>(l4 + 13) };
        }
        proto::UDP => {
            if !within(l4, UDP_HEADER, end) {
                return truncated::<V6>(source(l3), destination(l3), SIDE);
            }
            packet.tcp_flags = 0;
        }
        proto::ICMPV6 => {
            if !within(l4, ICMP_HEADER, end) {
                return truncated::<V6>(source(l3), destination(l3), SIDE);
            }
            return hand_to(tail::ICMP6);
        }
        _ => return other_protocol::<V6>(source(l3), destination(l3), SIDE),
    }
    // SAFETY: addresses lie in the IPv6 header, ports in the first 8 bytes of layer 4; both checked above. A key is five
    // words without padding.
    unsafe {
        let words = key.as_mut_ptr().cast::<u64>();
        words.write(load(l3 + 8));
        words.add(1).write(load(l3 + 16));
        words.add(2).write(load(l3 + 24));
        words.add(3).write(load(l3 + 32));
        words.add(4).write(key_word(load(l4), protocol, SIDE));
    }
    CONTINUE
}

/// See [`crate::family::Family::part`].
#[inline(always)]
pub fn part(packet: &mut Packet, work: &mut Work<Be128>) -> Verdict {
    let (l3, end) = (packet.l3, packet.end);
    if !within(l3, IPV6_HEADER, end) {
        return stop(Counter::PassMalformed);
    }
    let Some(headers) = headers(l3, end) else {
        return stop(Counter::PassIpv6);
    };
    if headers.fragment == 0 {
        return stop(Counter::PassIpv6);
    }
    let datagram = &mut work.datagram;
    // Through memory, as in `tuple`.
    // SAFETY: this CPU's slot.
    let (fragment, l4) = unsafe {
        (&raw mut datagram.id_at).write_volatile((headers.fragment - l3) as u32);
        (&raw mut datagram.part.length).write_volatile((headers.l4 - l3) as u32);
        (&raw mut datagram.part.more).write_volatile(headers.protocol.into());
        work.key.proto = (&raw const datagram.part.more).read_volatile() as u8;
        (
            ((&raw const datagram.id_at).read_volatile() & MAX_HEADERS) as usize,
            ((&raw const datagram.part.length).read_volatile() & MAX_HEADERS) as usize,
        )
    };
    packet.l4 = l3 + l4;
    if !within(l3 + fragment, FRAGMENT_HEADER, end) {
        return stop(Counter::PassIpv6);
    }
    // SAFETY: in bounds, checked above and at the start.
    let (payload_len, position, id) = unsafe {
        (u16::from_be(load(l3 + 4)), load::<u16>(l3 + fragment + 2), load::<u32>(l3 + fragment + 4))
    };
    packet.total_len = u32::from(payload_len) + IPV6_HEADER as u32;
    datagram.id = id;
    datagram.id_at = (l3 - packet.data + fragment + 4) as u32;
    datagram.part.offset = u32::from(u16::from_be(position & OFFSET));
    datagram.part.length = packet.total_len.saturating_sub((fragment + FRAGMENT_HEADER) as u32);
    datagram.part.more = u32::from(position & MORE);
    CONTINUE
}

#[inline(always)]
pub fn source(l3: usize) -> Be128 {
    address_at(l3 + 8)
}

#[inline(always)]
pub fn destination(l3: usize) -> Be128 {
    address_at(l3 + 24)
}

#[inline(always)]
fn address_at(at: usize) -> Be128 {
    // SAFETY: callers have checked the IPv6 header.
    unsafe { Be128::from_raw([load(at), load(at + 4), load(at + 8), load(at + 12)]) }
}

/// See [`crate::family::Family::lengths`].
#[inline(always)]
pub fn lengths<const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    protocol: u8,
) -> Verdict {
    let minimum =
        packet.l4 - packet.l3 + if protocol == proto::TCP { tcp::HEADER } else { UDP_HEADER };
    if packet.total_len as usize > available::<MULTI_BUFFER>(ctx, packet)
        || (packet.total_len as usize) < minimum
    {
        return stop(Counter::DropMalformed);
    }
    CONTINUE
}

/// See [`crate::family::Family::rewrite`].
///
/// # Safety
/// The IPv6 header at `l3` is in bounds; `hop_limit` is not 0.
#[inline(always)]
pub unsafe fn rewrite(l3: usize, hop_limit: u8, flow: &Flow6) {
    // SAFETY: the caller's, and an entry's first 32 bytes are its addresses.
    unsafe { replace(l3, hop_limit, core::ptr::from_ref(flow) as usize) }
}

/// See [`crate::family::Family::rewrite_part`].
///
/// # Safety
/// As for [`rewrite`].
#[inline(always)]
pub unsafe fn rewrite_part(l3: usize, hop_limit: u8, note: &Fragment6) {
    // SAFETY: the caller's, and a note's first 32 bytes are its addresses.
    unsafe { replace(l3, hop_limit, core::ptr::from_ref(note) as usize) }
}

/// # Safety
/// As for [`rewrite`], and `addresses` points to a source and a destination address.
#[inline(always)]
unsafe fn replace(l3: usize, hop_limit: u8, addresses: usize) {
    // SAFETY: the caller's.
    unsafe {
        store(l3 + 7, hop_limit - 1);
        store(l3 + 8, load::<u64>(addresses));
        store(l3 + 16, load::<u64>(addresses + 8));
        store(l3 + 24, load::<u64>(addresses + 16));
        store(l3 + 32, load::<u64>(addresses + 24));
    }
}

/// See [`crate::family::Family::total_len`].
#[inline(always)]
pub fn total_len(l3: usize) -> u32 {
    // SAFETY: callers have checked the IPv6 header.
    u32::from(u16::from_be(unsafe { load(l3 + 4) })) + IPV6_HEADER as u32
}

/// See [`crate::family::Family::upper_layer`].
#[inline(always)]
pub fn upper_layer(l3: usize, end: usize) -> Option<UpperLayer> {
    // SAFETY: callers have checked the IPv6 header.
    if unsafe { load::<u8>(l3) } >> 4 != 6 {
        return None;
    }
    let headers = headers(l3, end)?;
    if headers.fragment != 0 {
        let fragment = headers.fragment;
        if !within(fragment, FRAGMENT_HEADER, end) {
            return None;
        }
        // SAFETY: in bounds, checked above.
        if unsafe { load::<u16>(fragment + 2) } & OFFSET != 0 {
            return None;
        }
    }
    forget_way(l3, &headers)
}

/// See [`crate::family::Family::set_hop_count`].
///
/// # Safety
/// The IPv6 header at `l3` is in bounds.
#[inline(always)]
pub unsafe fn set_hop_count(l3: usize, hop_limit: u8) {
    // SAFETY: the caller's.
    unsafe { store(l3 + 7, hop_limit) };
}

/// See [`crate::family::Family::write_header`].
///
/// # Safety
/// 40 bytes at `l3` are in bounds.
#[inline(always)]
pub unsafe fn write_header(l3: usize, payload_len: u16, hop_limit: u8) {
    // SAFETY: the caller's.
    unsafe {
        store(l3, 0x6000_0000_u32.to_be());
        store(l3 + 4, payload_len.to_be());
        store(l3 + 6, proto::ICMPV6);
        store(l3 + 7, hop_limit);
    }
}

/// Unspecified, loopback and the like, link-local, multicast (RFC 4291 §2.4).
#[inline(always)]
pub fn is_scoped(addr: Be128) -> bool {
    let first = u32::from_be(addr.raw()[0]);
    first == 0 && addr.raw()[1] == 0 || first >> 22 == 0xfe80 >> 6 || first >> 24 == 0xff
}
