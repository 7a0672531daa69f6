//! From a frame to a tuple.

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::{helpers::bpf_xdp_get_buff_len, programs::XdpContext};
use lbha_common::{
    addr::{Be16, Be32},
    counter::Counter,
    flow::FlowKey4,
    nexthop::Interface,
    wire::{
        ETH_HEADER, IPV4_FRAGMENT, IPV4_FRAGMENT_OFFSET, IPV4_HEADER, UDP_HEADER, VLAN_ID,
        VLAN_TAG, ethertype, proto, tcp,
    },
};

use crate::{
    access::{load, within},
    maps::ADDRESSES4,
    verdict::{CONTINUE, Verdict, stop},
};

/// Where the headers of a packet lie, as packet pointers, and what was read on the way.
pub struct Packet {
    pub data: usize,
    /// IPv4 header.
    pub l3: usize,
    /// TCP or UDP header; 20 or 8 bytes of it are in bounds.
    pub l4: usize,
    pub end: usize,
    /// VLAN tags of the frame.
    pub tags: u32,
    /// IPv4 total length, not checked yet (see [`lengths`]).
    pub total_len: u32,
    pub tcp_flags: u8,
    pub fragment: bool,
}

/// Layer 2: whether the frame is for this interface, and where its IPv4 header begins.
#[inline(always)]
pub fn ethernet(ctx: &XdpContext, interface: &Interface, packet: &mut Packet) -> Verdict {
    let (data, end) = (ctx.data(), ctx.data_end());
    if !within(data, ETH_HEADER + IPV4_HEADER, end) {
        return stop(Counter::PassNotIp);
    }
    // SAFETY: in bounds, checked above; an array of bytes is compared as two words.
    let other_mac = unsafe {
        let mac = interface.mac.as_ptr() as usize;
        load::<u32>(data) ^ load::<u32>(mac)
            | u32::from(load::<u16>(data + 4) ^ load::<u16>(mac + 4))
    };
    if other_mac != 0 {
        return stop(Counter::PassMac);
    }
    packet.data = data;
    packet.end = end;
    // SAFETY: in bounds, checked above.
    let kind = unsafe { load::<u16>(data + 12) };
    if kind == ethertype::IPV4 && interface.tags == 0 {
        packet.tags = 0;
        packet.l3 = data + ETH_HEADER;
        return CONTINUE;
    }
    tagged(interface, packet, kind)
}

/// Frames with VLAN tags, and everything that is not IPv4.
#[inline(always)]
fn tagged(interface: &Interface, packet: &mut Packet, mut kind: u16) -> Verdict {
    let (data, end) = (packet.data, packet.end);
    let mut l3 = data + ETH_HEADER;
    let mut tags = 0u32;
    let mut vlan = [Be16::default(); 2];
    if is_tag(kind) {
        if !within(l3, VLAN_TAG, end) {
            return stop(Counter::PassNotIp);
        }
        // SAFETY: in bounds, checked above.
        unsafe {
            vlan[0] = Be16::from_raw(load::<u16>(l3) & VLAN_ID);
            kind = load::<u16>(l3 + 2);
        }
        l3 += VLAN_TAG;
        tags = 1;
        if is_tag(kind) {
            if !within(l3, VLAN_TAG, end) {
                return stop(Counter::PassNotIp);
            }
            // SAFETY: in bounds, checked above.
            unsafe {
                vlan[1] = Be16::from_raw(load::<u16>(l3) & VLAN_ID);
                kind = load::<u16>(l3 + 2);
            }
            l3 += VLAN_TAG;
            tags = 2;
            if is_tag(kind) {
                return stop(Counter::PassVlan);
            }
        }
    }
    if kind == ethertype::IPV6 {
        return stop(Counter::PassIpv6);
    }
    if kind != ethertype::IPV4 {
        return stop(Counter::PassNotIp);
    }
    if tags != u32::from(interface.tags)
        || vlan[0] != interface.vlan[0]
        || vlan[1] != interface.vlan[1]
    {
        return stop(Counter::PassVlan);
    }
    if !within(l3, IPV4_HEADER, end) {
        return stop(Counter::PassMalformed);
    }
    packet.tags = tags;
    packet.l3 = l3;
    CONTINUE
}

#[inline(always)]
const fn is_tag(kind: u16) -> bool {
    kind == ethertype::VLAN || kind == ethertype::QINQ
}

/// Layers 3 and 4: the tuple, written when the answer is to continue.
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
    packet.fragment = fragment != 0;
    if fragment & IPV4_FRAGMENT_OFFSET != 0 {
        // No ports in here. If its first fragment is ours it was dropped, and the kernel has nothing to put together.
        return stop(Counter::PassFragment);
    }

    match protocol {
        proto::TCP => {
            if !within(l4, tcp::HEADER, end) {
                return truncated(l3);
            }
            // SAFETY: in bounds, checked above.
            packet.tcp_flags = unsafe { load::<u8>(l4 + 13) };
        }
        proto::UDP => {
            if !within(l4, UDP_HEADER, end) {
                return truncated(l3);
            }
            packet.tcp_flags = 0;
        }
        proto::ICMP => return stop(Counter::PassIcmp),
        _ => return stop(Counter::PassProtocol),
    }
    // SAFETY: addresses lie in the IPv4 header, ports in the first 8 bytes of layer 4; both checked above. A key is two
    // words without padding.
    unsafe {
        let words = key.as_mut_ptr().cast::<u64>();
        words.write(load(l3 + 12));
        words.add(1).write(second_word(load(l4), protocol, SIDE));
    }
    CONTINUE
}

/// The second half of a [`FlowKey4`]. The key is stored in words: the kernel's hash reads it in larger pieces than its
/// fields at once, and a load that needs several stores waits for all of them to reach the cache.
#[inline(always)]
const fn second_word(ports: u32, protocol: u8, side: u8) -> u64 {
    let (ports, protocol, side) = (ports as u64, protocol as u64, side as u64);
    if cfg!(target_endian = "little") {
        ports | protocol << 32 | side << 40
    } else {
        ports << 32 | protocol << 24 | side << 16
    }
}

const _: () = {
    assert!(size_of::<FlowKey4>() == 16 && align_of::<FlowKey4>() == 8);
    assert!(offset_of!(FlowKey4, saddr) == 0 && offset_of!(FlowKey4, daddr) == 4);
    assert!(offset_of!(FlowKey4, sport) == 8 && offset_of!(FlowKey4, dport) == 10);
    assert!(offset_of!(FlowKey4, proto) == 12 && offset_of!(FlowKey4, side) == 13);
};

/// A header that the packet is too short for: ours to drop when it is to a VIP, else the kernel's to complain about.
#[inline(always)]
fn truncated(l3: usize) -> Verdict {
    // SAFETY: callers have checked the IPv4 header.
    let daddr = Be32::from_raw(unsafe { load(l3 + 16) });
    // SAFETY: the entry is only read, and never removed while its address is ours.
    let what = unsafe { ADDRESSES4.get(daddr) }.copied().unwrap_or(0);
    if what & lbha_common::service::address::VIP != 0 {
        stop(Counter::DropMalformed)
    } else {
        stop(Counter::PassMalformed)
    }
}

/// What must hold before a packet of ours is touched: its lengths agree, and its header checksum is right.
#[inline(always)]
pub fn lengths<const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    protocol: u8,
) -> Verdict {
    let available = if MULTI_BUFFER {
        // data_end covers the first buffer only.
        // SAFETY: a valid context.
        let whole = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
        (whole as usize).wrapping_sub(packet.l3 - packet.data)
    } else {
        packet.end - packet.l3
    };
    let minimum =
        packet.l4 - packet.l3 + if protocol == proto::TCP { tcp::HEADER } else { UDP_HEADER };
    if packet.total_len as usize > available || (packet.total_len as usize) < minimum {
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
fn header_checksum_holds(l3: usize) -> bool {
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
