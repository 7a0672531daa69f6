//! The way of a packet: parse, flow table, and only for what it does not know the tables behind it.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use aya_log_ebpf::debug;
use lbha_common::{
    conntrack,
    counter::Counter,
    flow::{Flow, FlowKey, side},
    stats::InterfaceStats,
    tail,
    wire::ethertype,
};

use crate::{
    access::load,
    clock,
    family::{Family, V4, V6},
    forward::forward,
    maps::{INTERFACE_STATS, INTERFACES, SCRATCH, TAILS, TAILS_MB},
    parse::{Packet, ethernet},
    track::{self, REOPEN},
    verdict::{self, CONTINUE, Verdict, hand_to, handed_to, stop},
};

/// Handles a packet that has just come in: IPv4 here, IPv6 in a program of its own, so that neither pays for the other.
#[inline(always)]
pub fn run<const SIDE: u8, const MULTI_BUFFER: bool>(ctx: &XdpContext) -> u32 {
    let Some(stats) = INTERFACE_STATS.get_ptr_mut(u32::from(SIDE)) else {
        return xdp_action::XDP_PASS;
    };
    let mut packet = Packet::new();
    let mut verdict = layer2::<SIDE>(ctx, &mut packet);
    if verdict == CONTINUE {
        verdict = if packet.ethertype == ethertype::IPV6 {
            // From here and with a constant, which makes a direct jump of it where indirect ones are guarded.
            let ipv6 = if SIDE == side::PUBLIC { tail::IPV6_PUBLIC } else { tail::IPV6_PRIVATE };
            tail_call::<MULTI_BUFFER>(ctx, ipv6);
            stop(Counter::PassIpv6)
        } else {
            layer3::<V4, SIDE, MULTI_BUFFER>(ctx, packet, stats)
        };
    }
    finish::<V4, MULTI_BUFFER>(ctx, SIDE.into(), verdict, stats)
}

/// Handles an IPv6 packet.
#[inline(always)]
pub fn run_ipv6<const SIDE: u8, const MULTI_BUFFER: bool>(ctx: &XdpContext) -> u32 {
    let Some(stats) = INTERFACE_STATS.get_ptr_mut(u32::from(SIDE)) else {
        return xdp_action::XDP_PASS;
    };
    let verdict = begin::<V6, SIDE, MULTI_BUFFER>(ctx, stats);
    finish::<V6, MULTI_BUFFER>(ctx, SIDE.into(), verdict, stats)
}

/// All but the hand-over to other programs.
#[inline(always)]
pub fn begin<F: Family, const SIDE: u8, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    stats: *mut InterfaceStats,
) -> Verdict {
    let mut packet = Packet::new();
    let verdict = layer2::<SIDE>(ctx, &mut packet);
    if verdict != CONTINUE {
        return verdict;
    }
    if packet.ethertype != F::ETHERTYPE {
        return stop(Counter::PassNotIp);
    }
    layer3::<F, SIDE, MULTI_BUFFER>(ctx, packet, stats)
}

#[inline(always)]
fn layer2<const SIDE: u8>(ctx: &XdpContext, packet: &mut Packet) -> Verdict {
    match INTERFACES.get(u32::from(SIDE)) {
        Some(interface) => ethernet(ctx, interface, packet),
        None => stop(Counter::PassUnmatched),
    }
}

#[inline(always)]
fn layer3<F: Family, const SIDE: u8, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    mut packet: Packet,
    stats: *mut InterfaceStats,
) -> Verdict {
    let mut key = MaybeUninit::<FlowKey<F::Addr>>::uninit();
    let verdict = F::tuple::<SIDE>(&mut packet, &mut key);
    if verdict != CONTINUE {
        return verdict;
    }
    // SAFETY: `tuple` has written the key when it says to continue.
    let key = unsafe { key.assume_init_ref() };
    let now = clock::now();

    let Some(flow) = known::<F>(key, packet.tcp_flags, now) else {
        let Some(work) = F::workspace().get_ptr_mut(0) else {
            return stop(Counter::PassUnmatched);
        };
        let fault = fault::<F, MULTI_BUFFER>(ctx, &packet, key.proto);
        // SAFETY: a per-CPU slot, and XDP programs do not nest: nobody else looks at it during this packet.
        unsafe { (*work).begin(key, now, &packet, fault) };
        return hand_to(F::FIRST_TAIL);
    };
    let verdict = F::lengths::<MULTI_BUFFER>(ctx, &packet, key.proto);
    if verdict != CONTINUE {
        return verdict;
    }
    // SAFETY: a map value of plain integers, of which a concurrent write changes `last_seen` and `state` only, whole words
    // each.
    let flow = unsafe { &*flow };
    forward::<F, MULTI_BUFFER>(ctx, &packet, key.proto, SIDE.into(), flow, stats)
}

/// Counts the verdict, and has another program go on where there is more to do.
#[inline(always)]
pub fn finish<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    side: u32,
    mut verdict: Verdict,
    stats: *mut InterfaceStats,
) -> u32 {
    if let Some(program) = handed_to(verdict) {
        // The program that gets the packet counts it.
        hand_over::<MULTI_BUFFER>(ctx, side, 0u32, program);
        verdict = left_alone::<F>(program);
    }
    count(verdict, stats);
    if verdict::is_drop(verdict) {
        debug!(ctx, "drop, reason {}, side {}", verdict::index(verdict) as u32, side);
        if verdict::is_answered(verdict) {
            hand_over::<MULTI_BUFFER>(ctx, side, verdict as u8, F::ANSWER_TAIL);
        }
    }
    verdict::action(verdict)
}

#[inline(always)]
pub fn count(verdict: Verdict, stats: *mut InterfaceStats) {
    // SAFETY: a per-CPU slot, and XDP programs do not nest; `index` is masked to the array's length.
    unsafe { (*stats).packets[verdict::index(verdict)] += 1 };
}

/// Does not return unless there is no such program.
#[inline(always)]
fn hand_over<const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    side: u32,
    reason: impl Into<u32>,
    program: u32,
) {
    if let Some(scratch) = SCRATCH.get_ptr_mut(0) {
        // SAFETY: a per-CPU slot, and XDP programs do not nest.
        unsafe {
            (*scratch).side = side;
            (*scratch).reason = reason.into();
        }
        tail_call::<MULTI_BUFFER>(ctx, program);
    }
}

/// Does not return unless there is no such program.
#[inline(always)]
fn tail_call<const MULTI_BUFFER: bool>(ctx: &XdpContext, program: u32) {
    // SAFETY: nothing that a program holds needs to be dropped.
    unsafe {
        if MULTI_BUFFER {
            TAILS_MB.tail_call(ctx, program);
        } else {
            TAILS.tail_call(ctx, program);
        }
    }
}

/// The verdict on a packet whose program is missing: open for what may be the host's own.
#[inline(always)]
fn left_alone<F: Family>(program: u32) -> Verdict {
    match program {
        tail::ICMP4 | tail::ICMP6 => stop(Counter::PassIcmp),
        tail::FRAGMENT4 | tail::FRAGMENT6 => stop(Counter::PassFragment),
        _ => stop(Counter::DropInternal),
    }
}

/// A packet of a known connection: one lookup, and a write of `last_seen` once a tick.
#[inline(always)]
pub fn known<F: Family>(
    key: &FlowKey<F::Addr>,
    tcp_flags: u8,
    now: u32,
) -> Option<*const Flow<F::Addr>> {
    let flow = F::flows().get_ptr_mut(key)?;
    // SAFETY: a map value. Both fields are aligned words that other CPUs read or write as a whole.
    unsafe {
        if conntrack::needs_tracking(tcp_flags, (*flow).state)
            && track::track::<F>(key, flow, tcp_flags) == REOPEN
        {
            return None;
        }
        if (*flow).last_seen != now {
            (*flow).last_seen = now;
        }
    }
    Some(flow)
}

/// What will have the packet dropped whatever its connection, found before it opens or confirms one.
#[inline(always)]
pub fn fault<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    protocol: u8,
) -> Verdict {
    // SAFETY: the IP header is in bounds (Family::tuple).
    if unsafe { load::<u8>(packet.l3 + F::HOP_COUNT) } <= 1 {
        return stop(Counter::DropTtl);
    }
    F::lengths::<MULTI_BUFFER>(ctx, packet, protocol)
}
