//! Translates a packet and sends it to its next hop.

use core::mem::offset_of;

use aya_ebpf::{bindings::xdp_action, helpers::bpf_xdp_adjust_head, programs::XdpContext};
use lbha_common::{
    counter::Counter,
    csum,
    flow::Flow4,
    nexthop::{NextHop4, next_hop_flag},
    stats::InterfaceStats,
    wire::{ETH_HEADER, VLAN_TAG, ethertype, proto},
};

use crate::{
    access::{load, store, within},
    maps::{BACKEND_STATS, DEVICES, DEVICES_MB, NEXT_HOPS},
    parse::Packet,
    verdict::{Verdict, forwarded, stop},
};

const _: () = {
    assert!(offset_of!(Flow4, saddr) == 0 && offset_of!(Flow4, daddr) == 4);
    assert!(offset_of!(Flow4, sport) == 8 && offset_of!(Flow4, dport) == 10);
};

/// Whatever can refuse the packet comes before the first store: a packet leaves translated as a whole or not at all.
#[inline(always)]
pub fn forward<const SIDE: u8, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    protocol: u8,
    flow: &Flow4,
    stats: *mut InterfaceStats,
) -> Verdict {
    let Some(hop) = NEXT_HOPS.get(u32::from(flow.next_hop)) else {
        return stop(Counter::DropUnresolved);
    };
    if hop.flags & next_hop_flag::VALID == 0 {
        return stop(Counter::DropUnresolved);
    }
    if packet.total_len > u32::from(hop.mtu) {
        return stop(Counter::DropTooBig);
    }
    let (l3, l4) = (packet.l3, packet.l4);
    // SAFETY: the IPv4 header is in bounds (parse::tuple).
    let ttl = unsafe { load::<u8>(l3 + 8) };
    if ttl <= 1 {
        return stop(Counter::DropTtl);
    }
    // The verifier has forgotten by now which protocol the header was checked for.
    let checksum = l4 + if protocol == proto::TCP { 16 } else { 6 };
    if !within(checksum, 2, packet.end) {
        return stop(Counter::DropMalformed);
    }
    // SAFETY: the IPv4 header and the ports are in bounds (parse::tuple), the checksum is too (above).
    unsafe {
        store(l3 + 8, ttl - 1);
        store(l3 + 10, csum::apply(load(l3 + 10), flow.l3_delta));
        // Both addresses at once, and both ports: neighbours in the packet and in the entry.
        let entry = core::ptr::from_ref(flow) as usize;
        store(l3 + 12, load::<u64>(entry + offset_of!(Flow4, saddr)));
        store(l4, load::<u32>(entry + offset_of!(Flow4, sport)));
        let updated = if protocol == proto::TCP {
            csum::apply(load(checksum), flow.l4_delta)
        } else {
            csum::apply_udp(load(checksum), flow.l4_delta)
        };
        store(checksum, updated);
    }
    account(flow, packet.total_len, stats);
    if packet.tags == 0 && hop.tags == 0 {
        // SAFETY: 14 bytes from the start are in bounds (parse::ethernet).
        unsafe { write_macs(packet.data, hop) };
    } else if !retag(ctx, packet.tags, hop) {
        return stop(Counter::DropHeadroom);
    }
    send::<SIDE, MULTI_BUFFER>(hop)
}

#[inline(always)]
fn account(flow: &Flow4, bytes: u32, stats: *mut InterfaceStats) {
    // SAFETY: per-CPU slots, and XDP programs do not nest.
    unsafe {
        (*stats).forwarded_bytes += u64::from(bytes);
        if let Some(stats) = BACKEND_STATS.get_ptr_mut(u32::from(flow.backend)) {
            if flow.is_reply() {
                (*stats).packets_out += 1;
                (*stats).bytes_out += u64::from(bytes);
            } else {
                (*stats).packets_in += 1;
                (*stats).bytes_in += u64::from(bytes);
            }
        }
    }
}

/// # Safety
/// 12 bytes at `data` are in bounds.
#[inline(always)]
unsafe fn write_macs(data: usize, hop: &NextHop4) {
    let (dmac, smac) = (hop.dmac.as_ptr() as usize, hop.smac.as_ptr() as usize);
    // SAFETY: the caller's, and six bytes of an aligned map value.
    unsafe {
        store(data, load::<u32>(dmac));
        store(data + 4, load::<u16>(dmac + 4));
        store(data + 6, load::<u32>(smac));
        store(data + 10, load::<u16>(smac + 4));
    }
}

/// Gives the frame the next hop's tags instead of its own, moving its start when their number differs.
#[inline(always)]
fn retag(ctx: &XdpContext, had: u32, hop: &NextHop4) -> bool {
    let tags = u32::from(hop.tags);
    let shift = (had as i32 - tags as i32) * VLAN_TAG as i32;
    // SAFETY: a valid context. Packet pointers are loaded anew below.
    if shift != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, shift) } != 0 {
        return false;
    }
    let (data, end) = (ctx.data(), ctx.data_end());
    if !within(data, ETH_HEADER + 2 * VLAN_TAG, end) {
        return false;
    }
    // SAFETY: in bounds, checked above.
    unsafe {
        write_macs(data, hop);
        match tags {
            0 => store(data + 12, ethertype::IPV4),
            1 => {
                store(data + 12, hop.tag[0]);
                store(data + 16, ethertype::IPV4);
            }
            _ => {
                store(data + 12, hop.tag[0]);
                store(data + 16, hop.tag[1]);
                store(data + 20, ethertype::IPV4);
            }
        }
    }
    true
}

#[inline(always)]
fn send<const SIDE: u8, const MULTI_BUFFER: bool>(hop: &NextHop4) -> Verdict {
    if hop.dev == SIDE {
        return forwarded(xdp_action::XDP_TX, Counter::ForwardSame);
    }
    let dev = u32::from(hop.dev);
    let otherwise = u64::from(xdp_action::XDP_DROP);
    let redirected = if MULTI_BUFFER {
        DEVICES_MB.redirect(dev, otherwise)
    } else {
        DEVICES.redirect(dev, otherwise)
    };
    match redirected {
        Ok(action) => forwarded(action, Counter::Forward),
        Err(_) => stop(Counter::DropRedirect),
    }
}
