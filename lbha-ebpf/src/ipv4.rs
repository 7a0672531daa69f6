//! The IPv4 header: read, checked, rewritten.

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::programs::XdpContext;
use lbha_common::{
    addr::Be32,
    counter::Counter,
    csum,
    flow::{Flow4, FlowKey4},
    fragment::Fragment4,
    tail,
    wire::{
        ICMP_HEADER, IPV4_FRAGMENT, IPV4_FRAGMENT_OFFSET, IPV4_HEADER, IPV4_MORE_FRAGMENTS,
        UDP_HEADER, proto, tcp,
    },
};

use crate::{
    access::{load, store, within},
    family::V4,
    masquerade::other_protocol,
    parse::{Packet, UpperLayer, available, key_word, truncated},
    verdict::{CONTINUE, Verdict, hand_to, stop},
    workspace::Work,
};

const _: () = {
    assert!(size_of::<FlowKey4>() == 16 && align_of::<FlowKey4>() == 8);
    assert!(offset_of!(FlowKey4, saddr) == 0 && offset_of!(FlowKey4, daddr) == 4);
    assert!(offset_of!(FlowKey4, sport) == 8 && offset_of!(FlowKey4, dport) == 10);
    assert!(offset_of!(FlowKey4, proto) == 12 && offset_of!(FlowKey4, side) == 13);
    assert!(offset_of!(Flow4, saddr) == 0 && offset_of!(Flow4, daddr) == 4);
    assert!(offset_of!(Fragment4, saddr) == 0 && offset_of!(Fragment4, daddr) == 4);
};

/// See [`crate::family::Family::tuple`].
#[inline(always)]
pub fn tuple<const SIDE: u8>(packet: &mut Packet, key: &mut MaybeUninit<FlowKey4>) -> Verdict {
    let (l3, end) = (packet.l3, packet.end);
    if !within(l3, IPV4_HEADER, end) {
        return stop(Counter::PassMalformed);
    }
    // SAFETY: in bounds, checked above.
    let (version_ihl, total_len, fragment, protocol) = unsafe {
        (
            load::<u8>(l3),
            load::<u16>(l3 + 2),
            load::<u16>(l3 + 6) & IPV4_FRAGMENT,
            load::<u8>(l3 + 9),
        )
    };
    let mut l4 = l3 + IPV4_HEADER;
    if version_ihl != 0x45 {
        let header = usize::from(version_ihl & 0x0f) * 4;
        if version_ihl >> 4 != 4 || header < IPV4_HEADER {
            return stop(Counter::PassMalformed);
        }
        l4 = l3 + header;
    }
    packet.l4 = l4;
    packet.total_len = u32::from(u16::from_be(total_len));
    if fragment != 0 {
        return hand_to(tail::FRAGMENT4);
    }

    match protocol {
        proto::TCP => {
            if !within(l4, tcp::HEADER, end) {
                return truncated::<V4>(source(l3), destination(l3), SIDE);
            }
            // SAFETY: in bounds, checked above.
            packet.tcp_flags = unsafe { load::<u8>(l4 + 13) };
        }
        proto::UDP => {
            if !within(l4, UDP_HEADER, end) {
                return truncated::<V4>(source(l3), destination(l3), SIDE);
            }
            packet.tcp_flags = 0;
        }
        proto::ICMP => {
            if !within(l4, ICMP_HEADER, end) {
                return truncated::<V4>(source(l3), destination(l3), SIDE);
            }
            return hand_to(tail::ICMP4);
        }
        _ => return other_protocol::<V4>(source(l3), destination(l3), SIDE),
    }
    // SAFETY: addresses lie in the IPv4 header, ports in the first 8 bytes of layer 4; both checked above. A key is two
    // words without padding.
    unsafe {
        let words = key.as_mut_ptr().cast::<u64>();
        words.write(load(l3 + 12));
        words.add(1).write(key_word(load(l4), protocol, SIDE));
    }
    CONTINUE
}

/// See [`crate::family::Family::part`].
#[inline(always)]
pub fn part(packet: &mut Packet, work: &mut Work<Be32>) -> Verdict {
    let (l3, end) = (packet.l3, packet.end);
    if !within(l3, IPV4_HEADER, end) {
        return stop(Counter::PassMalformed);
    }
    // SAFETY: in bounds, checked above.
    let (version_ihl, total_len, id, fragment, protocol) = unsafe {
        (
            load::<u8>(l3),
            u32::from(u16::from_be(load(l3 + 2))),
            load::<u16>(l3 + 4),
            load::<u16>(l3 + 6),
            load::<u8>(l3 + 9),
        )
    };
    let header = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header < IPV4_HEADER {
        return stop(Counter::PassMalformed);
    }
    packet.l4 = l3 + header;
    packet.total_len = total_len;
    work.key.proto = protocol;
    let datagram = &mut work.datagram;
    datagram.id = id.into();
    datagram.id_at = (l3 + 4 - packet.data) as u32;
    datagram.part.offset = u32::from(u16::from_be(fragment & IPV4_FRAGMENT_OFFSET)) * 8;
    datagram.part.length = total_len.saturating_sub(header as u32);
    datagram.part.more = u32::from(fragment & IPV4_MORE_FRAGMENTS);
    CONTINUE
}

#[inline(always)]
pub fn source(l3: usize) -> Be32 {
    // SAFETY: callers have checked the IPv4 header.
    Be32::from_raw(unsafe { load(l3 + 12) })
}

#[inline(always)]
pub fn destination(l3: usize) -> Be32 {
    // SAFETY: callers have checked the IPv4 header.
    Be32::from_raw(unsafe { load(l3 + 16) })
}

/// See [`crate::family::Family::lengths`]: the lengths agree, and the header checksum is right.
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
    if packet.l4 - packet.l3 == IPV4_HEADER && !header_checksum_holds(packet.l3) {
        return stop(Counter::DropChecksum);
    }
    CONTINUE
}

/// RFC 1812 §5.2.2: a router verifies the header checksum. Headers with options are updated incrementally without, so
/// an error in them stays visible to the receiver.
#[inline(always)]
pub fn header_checksum_holds(l3: usize) -> bool {
    // SAFETY: callers have checked the IPv4 header.
    let sum = unsafe {
        u64::from(load::<u32>(l3))
            + u64::from(load::<u32>(l3 + 4))
            + u64::from(load::<u32>(l3 + 8))
            + u64::from(load::<u32>(l3 + 12))
            + u64::from(load::<u32>(l3 + 16))
    };
    // Folding keeps the remainder. A multiplication is all that LLVM makes of this; and the sum is not 0, there is a version.
    sum.is_multiple_of(0xffff)
}

/// See [`crate::family::Family::rewrite`].
///
/// # Safety
/// The IPv4 header at `l3` is in bounds; `ttl` is not 0.
#[inline(always)]
pub unsafe fn rewrite(l3: usize, ttl: u8, flow: &Flow4) {
    // SAFETY: the caller's, and an entry's first 8 bytes are its addresses.
    unsafe { replace(l3, ttl, core::ptr::from_ref(flow) as usize, flow.l3_delta) }
}

/// See [`crate::family::Family::rewrite_part`].
///
/// # Safety
/// As for [`rewrite`].
#[inline(always)]
pub unsafe fn rewrite_part(l3: usize, ttl: u8, note: &Fragment4) {
    // SAFETY: the caller's, and a note's first 8 bytes are its addresses.
    unsafe { replace(l3, ttl, core::ptr::from_ref(note) as usize, note.l3_delta) }
}

/// # Safety
/// As for [`rewrite`], and `addresses` points to a source and a destination address.
#[inline(always)]
unsafe fn replace(l3: usize, ttl: u8, addresses: usize, delta: u16) {
    // SAFETY: the caller's.
    unsafe {
        store(l3 + 8, ttl - 1);
        store(l3 + 10, csum::apply(load(l3 + 10), delta));
        // Both addresses at once: neighbours in the packet and in the entry.
        store(l3 + 12, load::<u64>(addresses));
    }
}

/// See [`crate::family::Family::total_len`].
#[inline(always)]
pub fn total_len(l3: usize) -> u32 {
    // SAFETY: callers have checked the IPv4 header.
    u32::from(u16::from_be(unsafe { load(l3 + 2) }))
}

/// See [`crate::family::Family::upper_layer`].
#[inline(always)]
pub fn upper_layer(l3: usize, _end: usize) -> Option<UpperLayer> {
    // SAFETY: callers have checked the IPv4 header.
    let (version_ihl, fragment, protocol) =
        unsafe { (load::<u8>(l3), load::<u16>(l3 + 6), load::<u8>(l3 + 9)) };
    let offset = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || offset < IPV4_HEADER || fragment & IPV4_FRAGMENT_OFFSET != 0 {
        return None;
    }
    Some(UpperLayer { offset, protocol })
}

/// See [`crate::family::Family::set_hop_count`].
///
/// # Safety
/// The IPv4 header at `l3` is in bounds.
#[inline(always)]
pub unsafe fn set_hop_count(l3: usize, ttl: u8) {
    // SAFETY: the caller's.
    unsafe {
        let before = load::<u16>(l3 + 8);
        store(l3 + 8, ttl);
        let delta = csum::fold(csum::replace16(before, load(l3 + 8)));
        store(l3 + 10, csum::apply(load(l3 + 10), delta));
    }
}

/// See [`crate::family::Family::write_header`]: identification 0, since it is never fragmented by us, and the precedence of
/// internetwork control (RFC 1812 §4.3.2.5).
///
/// # Safety
/// 20 bytes at `l3` are in bounds.
#[inline(always)]
pub unsafe fn write_header(l3: usize, payload_len: u16, ttl: u8) {
    // SAFETY: the caller's.
    unsafe {
        store(l3, 0x45c0_u16.to_be());
        store(l3 + 2, (payload_len + IPV4_HEADER as u16).to_be());
        store(l3 + 4, 0u32);
        store(l3 + 8, ttl);
        store(l3 + 9, proto::ICMP);
        store(l3 + 10, 0u16);
    }
}

/// See [`crate::family::Family::write_checksum`].
///
/// # Safety
/// The IPv4 header at `l3` is in bounds.
#[inline(always)]
pub unsafe fn write_checksum(l3: usize) {
    // SAFETY: the caller's.
    unsafe {
        let word = |at: usize| csum::replace32(u32::MAX, load(l3 + at));
        let sum = word(0) + word(4) + word(8) + word(12) + word(16);
        store(l3 + 10, !csum::fold(sum));
    }
}

/// 0.0.0.0/8, loopback, link-local, multicast, reserved and broadcast (RFC 6890).
#[inline(always)]
pub fn is_scoped(addr: Be32) -> bool {
    let addr = addr.get();
    let first = addr >> 24;
    first == 0 || first == 127 || first >= 224 || addr >> 16 == 0xa9fe
}
