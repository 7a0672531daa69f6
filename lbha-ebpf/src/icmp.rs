//! ICMP: who deals with which type.

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use lbha_common::{
    addr::Addr, counter::Counter, flow::side, service::address, stats::InterfaceStats,
    wire::ICMP_HEADER,
};

use crate::{
    access::{load, within},
    datapath::finish,
    echo::echo,
    family::{self, Family},
    icmp_error,
    maps::{INTERFACE_STATS, SCRATCH},
    masquerade,
    parse::{Packet, handed_over, truncated},
    verdict::{Verdict, stop},
};

/// Goes on with the packet that an entry program hands over.
#[inline(always)]
pub fn run<F: Family, const MULTI_BUFFER: bool>(ctx: &XdpContext) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return xdp_action::XDP_PASS;
    };
    // SAFETY: a per-CPU slot, and XDP programs do not nest.
    let side = unsafe { (*scratch).side } & (side::COUNT as u32 - 1);
    let Some(stats) = INTERFACE_STATS.get_ptr_mut(side) else {
        return xdp_action::XDP_PASS;
    };
    let verdict = decide::<F, MULTI_BUFFER>(ctx, side as u8, stats);
    finish::<F, MULTI_BUFFER>(ctx, side, verdict, stats)
}

/// Addresses and side as the packet came are in `work.other_key` from here on: a stack has no room for many addresses.
#[inline(always)]
fn decide<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    side: u8,
    stats: *mut InterfaceStats,
) -> Verdict {
    let mut packet = Packet::new();
    if !handed_over::<F>(ctx, side.into(), &mut packet) {
        return stop(Counter::PassIcmp);
    }
    let l3 = packet.l3;
    let Some(upper) = F::upper_layer(l3, packet.end) else {
        return stop(Counter::PassIcmp);
    };
    packet.l4 = l3 + upper.offset;
    let Some(work) = F::workspace().get_ptr_mut(0) else {
        return stop(Counter::PassIcmp);
    };
    // SAFETY: a per-CPU slot, and XDP programs do not nest: nobody else looks at it during this packet.
    let work = unsafe { &mut *work };
    let came = &mut work.other_key;
    (came.saddr, came.daddr) = family::addresses::<F>(l3);
    came.side = side;
    if !within(packet.l4, ICMP_HEADER, packet.end) {
        return truncated::<F>(came.saddr, came.daddr, side);
    }
    // SAFETY: in bounds, checked above.
    let kind = unsafe { load::<u8>(packet.l4) };
    if F::Addr::ICMP.is_echo(kind) {
        return echo::<F, MULTI_BUFFER>(ctx, &packet, work, kind, stats);
    }
    if F::Addr::ICMP.is_error(kind) {
        return icmp_error::error::<F, MULTI_BUFFER>(ctx, &packet, work, stats);
    }
    if F::Addr::ICMP.redirect == Some(kind)
        && family::address::<F>(came.daddr) & address::LOCAL == 0
    {
        // For a host on its own link (RFC 1812 §4.3.3.2); what one says about a translated connection is of no use to the
        // other end.
        return stop(Counter::DropIcmpNoFlow);
    }
    // Neighbour discovery and the like.
    if masquerade::leaves::<F>(&came.saddr, &came.daddr, side) {
        return stop(Counter::DropProtocol);
    }
    stop(Counter::PassIcmp)
}
