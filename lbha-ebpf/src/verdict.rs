//! A verdict in one register: the XDP action and the counter that names the reason.

use aya_ebpf::bindings::xdp_action;
use lbha_common::counter::{Class, Counter};

/// `action << 8 | counter`. A plain integer, because an enum or `Option` that crosses a function that is not inlined
/// gets spilled in ways that old verifiers refuse.
pub type Verdict = u32;

/// Not a verdict: go on with the packet.
pub const CONTINUE: Verdict = u32::MAX;

/// Not a verdict either: not for whoever was asked.
pub const NOT_MINE: Verdict = u32::MAX - 1;

/// Nor these: the connection is worked out and has to get its port, in the half-open table, in the flow table, or together
/// with a binding. Steps that each have the stack to themselves, see [`crate::first`].
pub const CLAIM_HALF_OPEN: Verdict = u32::MAX - 2;
pub const CLAIM: Verdict = u32::MAX - 3;
pub const CLAIM_BINDING: Verdict = u32::MAX - 4;

/// Nor these: another program goes on with the packet, see [`hand_to`].
const HANDED: Verdict = 0xfffe_0000;

/// The verdict of a counter that is not a forward.
#[inline(always)]
pub const fn stop(counter: Counter) -> Verdict {
    let action = match counter.class() {
        Class::Drop | Class::Hold => xdp_action::XDP_DROP,
        Class::Pass | Class::Forward => xdp_action::XDP_PASS,
        Class::Answer => xdp_action::XDP_TX,
    };
    action << 8 | counter as u32
}

#[inline(always)]
pub const fn forwarded(action: u32, counter: Counter) -> Verdict {
    action << 8 | counter as u32
}

/// Has a program of the program array ([`lbha_common::tail`]) go on with the packet.
#[inline(always)]
pub const fn hand_to(program: u32) -> Verdict {
    HANDED | program
}

/// The program that a packet is handed to.
#[inline(always)]
pub const fn handed_to(verdict: Verdict) -> Option<u32> {
    if verdict & 0xffff_0000 == HANDED { Some(verdict & 0xffff) } else { None }
}

#[inline(always)]
pub const fn action(verdict: Verdict) -> u32 {
    verdict >> 8
}

#[inline(always)]
pub const fn index(verdict: Verdict) -> usize {
    verdict as usize & (Counter::ROOM - 1)
}

#[inline(always)]
pub const fn is_drop(verdict: Verdict) -> bool {
    action(verdict) == xdp_action::XDP_DROP
}

/// Whether the sender of a dropped packet is told why.
#[inline(always)]
pub const fn is_answered(verdict: Verdict) -> bool {
    const ANSWERED: u64 = 1 << Counter::DropTtl as u64
        | 1 << Counter::DropTooBig as u64
        | 1 << Counter::DropNoPort as u64
        | 1 << Counter::DropQuota as u64
        | 1 << Counter::DropNoRoute as u64;
    is_drop(verdict) && ANSWERED >> index(verdict) & 1 != 0
}
