//! Translates a packet and sends it to its next hop.

use core::mem::offset_of;

use aya_ebpf::{bindings::xdp_action, helpers::bpf_xdp_adjust_head, programs::XdpContext};
use lbha_common::{
    counter::Counter,
    csum,
    flow::{Flow, Flow4, Flow6},
    nexthop::NextHop,
    stats::InterfaceStats,
    wire::{ETH_HEADER, VLAN_TAG, proto, tcp},
};

use crate::{
    access::{load, store, within},
    family::Family,
    maps::{BACKEND_STATS, DEVICES, DEVICES_MB},
    mss,
    parse::Packet,
    route::{is_valid, too_big},
    verdict::{Verdict, forwarded, stop},
};

const _: () = {
    assert!(offset_of!(Flow4, sport) == 8 && offset_of!(Flow4, dport) == 10);
    assert!(offset_of!(Flow6, sport) == 32 && offset_of!(Flow6, dport) == 34);
};

/// Whatever can refuse the packet comes before the first store: a packet leaves translated as a whole or not at all.
#[inline(always)]
pub fn forward<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    protocol: u8,
    side: u32,
    flow: &Flow<F::Addr>,
    stats: *mut InterfaceStats,
) -> Verdict {
    let (hop, hop_count) = match ahead::<F>(packet, flow.next_hop) {
        Ok(ahead) => ahead,
        Err(verdict) => return verdict,
    };
    let (l3, l4) = (packet.l3, packet.l4);
    // The verifier has forgotten by now which protocol the header was checked for.
    let checksum = l4 + if protocol == proto::TCP { 16 } else { 6 };
    if !within(checksum, 2, packet.end) {
        return stop(Counter::DropMalformed);
    }
    if packet.tcp_flags & tcp::SYN != 0 {
        mss::clamp::<F>(ctx, (l4 - packet.data) as u32, hop.mtu, flow.peer_next_hop);
    }
    // SAFETY: the IP header and the ports are in bounds (Family::tuple), the checksum is too (above).
    unsafe {
        F::rewrite(l3, hop_count, flow);
        // Both ports at once: neighbours in the packet and in the entry.
        store(l4, load::<u32>((&raw const flow.sport) as usize));
        let updated = if protocol == proto::TCP {
            csum::apply(load(checksum), flow.l4_delta)
        } else {
            csum::apply_udp(load(checksum), flow.l4_delta)
        };
        store(checksum, updated);
    }
    account(flow.backend, flow.is_reply(), packet.total_len, stats);
    deliver::<F, MULTI_BUFFER>(ctx, packet, side, hop, Counter::Forward)
}

/// A packet's next hop, and its hop count as it came, once nothing speaks against sending it there.
#[inline(always)]
pub fn ahead<F: Family>(
    packet: &Packet,
    next_hop: u16,
) -> Result<(&'static NextHop<F::Addr>, u8), Verdict> {
    let Some(hop) = F::next_hops().get(u32::from(next_hop)) else {
        return Err(stop(Counter::DropUnresolved));
    };
    if !is_valid::<F>(hop) {
        return Err(stop(Counter::DropUnresolved));
    }
    if packet.total_len > u32::from(hop.mtu) {
        return Err(too_big(hop.mtu));
    }
    // SAFETY: the IP header is in bounds (Family::tuple, parse::handed_over).
    let hop_count = unsafe { load::<u8>(packet.l3 + F::HOP_COUNT) };
    if hop_count <= 1 {
        return Err(stop(Counter::DropTtl));
    }
    Ok((hop, hop_count))
}

/// Counts a packet that is sent on.
#[inline(always)]
pub fn account(owner: u16, is_reply: bool, bytes: u32, stats: *mut InterfaceStats) {
    // SAFETY: per-CPU slots, and XDP programs do not nest.
    unsafe {
        (*stats).forwarded_bytes += u64::from(bytes);
        if let Some(stats) = BACKEND_STATS.get_ptr_mut(u32::from(owner)) {
            if is_reply {
                (*stats).packets_out += 1;
                (*stats).bytes_out += u64::from(bytes);
            } else {
                (*stats).packets_in += 1;
                (*stats).bytes_in += u64::from(bytes);
            }
        }
    }
}

/// Gives a translated packet its layer 2 header and sends it.
#[inline(always)]
pub fn deliver<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    side: u32,
    hop: &NextHop<F::Addr>,
    counter: Counter,
) -> Verdict {
    if packet.tags == 0 && hop.tags == 0 {
        // SAFETY: 14 bytes from the start are in bounds (parse::ethernet).
        unsafe { write_macs::<F>(packet.data, hop) };
    } else if !retag::<F>(ctx, packet.tags, hop) {
        return stop(Counter::DropHeadroom);
    }
    send::<F, MULTI_BUFFER>(side, hop, counter)
}

/// # Safety
/// 12 bytes at `data` are in bounds.
#[inline(always)]
unsafe fn write_macs<F: Family>(data: usize, hop: &NextHop<F::Addr>) {
    let (dmac, smac) = (hop.dmac.as_ptr() as usize, hop.smac.as_ptr() as usize);
    // SAFETY: the caller's, and six bytes of an aligned map value.
    unsafe {
        store(data, load::<u32>(dmac));
        store(data + 4, load::<u16>(dmac + 4));
        store(data + 6, load::<u32>(smac));
        store(data + 10, load::<u16>(smac + 4));
    }
}

/// Has a frame go back to where it came from.
///
/// # Safety
/// 12 bytes at `data` are in bounds.
#[inline(always)]
pub unsafe fn swap_macs(data: usize) {
    // SAFETY: the caller's.
    unsafe {
        let (to, to_rest) = (load::<u32>(data), load::<u16>(data + 4));
        store(data, load::<u32>(data + 6));
        store(data + 4, load::<u16>(data + 10));
        store(data + 6, to);
        store(data + 10, to_rest);
    }
}

/// Gives the frame the next hop's tags instead of its own, moving its start when their number differs.
#[inline(always)]
fn retag<F: Family>(ctx: &XdpContext, had: u32, hop: &NextHop<F::Addr>) -> bool {
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
        write_macs::<F>(data, hop);
        match tags {
            0 => store(data + 12, F::ETHERTYPE),
            1 => {
                store(data + 12, hop.tag[0]);
                store(data + 16, F::ETHERTYPE);
            }
            _ => {
                store(data + 12, hop.tag[0]);
                store(data + 16, hop.tag[1]);
                store(data + 20, F::ETHERTYPE);
            }
        }
    }
    true
}

#[inline(always)]
fn send<F: Family, const MULTI_BUFFER: bool>(
    side: u32,
    hop: &NextHop<F::Addr>,
    counter: Counter,
) -> Verdict {
    if u32::from(hop.dev) == side {
        let counter =
            if counter as u32 == Counter::Forward as u32 { Counter::ForwardSame } else { counter };
        return forwarded(xdp_action::XDP_TX, counter);
    }
    let dev = u32::from(hop.dev);
    let otherwise = u64::from(xdp_action::XDP_DROP);
    let redirected = if MULTI_BUFFER {
        DEVICES_MB.redirect(dev, otherwise)
    } else {
        DEVICES.redirect(dev, otherwise)
    };
    match redirected {
        Ok(action) => forwarded(action, counter),
        Err(_) => stop(Counter::DropRedirect),
    }
}
