//! The way of a packet: parse, flow table, and only for what it does not know the tables behind it.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use aya_log_ebpf::debug;
use lbha_common::{
    conntrack,
    counter::Counter,
    flow::{Flow4, FlowKey4},
    stats::InterfaceStats,
    wire::{proto, tcp},
};

use crate::{
    access::{load, within},
    clock,
    forward::forward,
    maps::{FLOWS4, INTERFACE_STATS, INTERFACES, WORKSPACE},
    open::{First, first_packet},
    parse::{Packet, ethernet, lengths, tuple},
    track::{self, REOPEN},
    verdict::{self, CONTINUE, Verdict, stop},
};

/// Handles a packet and counts its verdict.
#[inline(always)]
pub fn run<const SIDE: u8, const MULTI_BUFFER: bool>(ctx: &XdpContext) -> u32 {
    let Some(stats) = INTERFACE_STATS.get_ptr_mut(u32::from(SIDE)) else {
        return xdp_action::XDP_PASS;
    };
    let verdict = packet::<SIDE, MULTI_BUFFER>(ctx, stats);
    // SAFETY: a per-CPU slot, and XDP programs do not nest; `index` is masked to the array's length.
    unsafe { (*stats).packets[verdict::index(verdict)] += 1 };
    if verdict::is_drop(verdict) {
        debug!(ctx, "drop, reason {}, side {}", verdict::index(verdict) as u32, SIDE);
    }
    verdict::action(verdict)
}

#[inline(always)]
fn packet<const SIDE: u8, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    stats: *mut InterfaceStats,
) -> Verdict {
    let Some(interface) = INTERFACES.get(u32::from(SIDE)) else {
        return stop(Counter::PassUnmatched);
    };
    let mut packet = Packet {
        data: 0,
        l3: 0,
        l4: 0,
        end: 0,
        tags: 0,
        total_len: 0,
        tcp_flags: 0,
        fragment: false,
    };
    let verdict = ethernet(ctx, interface, &mut packet);
    if verdict != CONTINUE {
        return verdict;
    }
    let mut key = MaybeUninit::<FlowKey4>::uninit();
    let verdict = tuple::<SIDE>(&mut packet, &mut key);
    if verdict != CONTINUE {
        return verdict;
    }
    // SAFETY: `tuple` has written the key when it says to continue.
    let key = unsafe { key.assume_init_ref() };
    let now = clock::now();

    let flow: *const Flow4 = match known(key, packet.tcp_flags, now) {
        Some(flow) => flow,
        None => {
            let Some(first) = WORKSPACE.get_ptr_mut(0) else {
                return stop(Counter::PassUnmatched);
            };
            // SAFETY: a per-CPU slot, and XDP programs do not nest: nobody else looks at it during this packet.
            let first = unsafe { &mut *first };
            let fault = fault::<MULTI_BUFFER>(ctx, &packet, key.proto);
            first.begin(key, now, &packet, fault);
            let verdict = unknown(first, &packet);
            if verdict != CONTINUE {
                return verdict;
            }
            &raw const first.flow
        }
    };
    if packet.fragment {
        return stop(Counter::DropFragment);
    }
    let verdict = lengths::<MULTI_BUFFER>(ctx, &packet, key.proto);
    if verdict != CONTINUE {
        return verdict;
    }
    // SAFETY: a map value or the local entry; values are plain integers, and a concurrent write changes `last_seen` and
    // `state` only, whole words each.
    forward::<SIDE, MULTI_BUFFER>(ctx, &packet, key.proto, unsafe { &*flow }, stats)
}

/// A packet of a known connection: one lookup, and a write of `last_seen` once a tick.
#[inline(always)]
fn known(key: &FlowKey4, tcp_flags: u8, now: u32) -> Option<*const Flow4> {
    let flow = FLOWS4.get_ptr_mut(key)?;
    // SAFETY: a map value. Both fields are aligned words that other CPUs read or write as a whole.
    unsafe {
        if conntrack::needs_tracking(tcp_flags, (*flow).state)
            && track::track(key, flow, tcp_flags) == REOPEN
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
fn fault<const MULTI_BUFFER: bool>(ctx: &XdpContext, packet: &Packet, protocol: u8) -> Verdict {
    if packet.fragment {
        return stop(Counter::DropFragment);
    }
    // SAFETY: the IPv4 header is in bounds (parse::tuple).
    if unsafe { load::<u8>(packet.l3 + 8) } <= 1 {
        return stop(Counter::DropTtl);
    }
    lengths::<MULTI_BUFFER>(ctx, packet, protocol)
}

/// A packet of no confirmed connection; on `CONTINUE`, `first.flow` says how to translate it.
#[inline(always)]
fn unknown(first: &mut First, packet: &Packet) -> Verdict {
    if first.key.proto == proto::TCP {
        // The verifier has forgotten by now that `tuple` checked this.
        if !within(packet.l4, tcp::HEADER, packet.end) {
            return stop(Counter::DropMalformed);
        }
        // SAFETY: in bounds, checked above.
        unsafe {
            first.seq = u32::from_be(load(packet.l4 + 4));
            first.ack = u32::from_be(load(packet.l4 + 8));
        }
    }
    first_packet(first)
}
