//! A verdict in one register: the XDP action and the counter that names the reason.

use aya_ebpf::bindings::xdp_action;
use lbha_common::counter::{Class, Counter};

/// `action << 8 | counter`. A plain integer, because an enum or `Option` that crosses a function that is not inlined
/// gets spilled in ways that old verifiers refuse.
pub type Verdict = u32;

/// Not a verdict: go on with the packet.
pub const CONTINUE: Verdict = u32::MAX;

/// Not a verdict either: begin again with the packet.
pub const ANEW: Verdict = u32::MAX - 1;

/// The verdict of a counter that is not a forward.
#[inline(always)]
pub const fn stop(counter: Counter) -> Verdict {
    let action = match counter.class() {
        Class::Drop | Class::Hold => xdp_action::XDP_DROP,
        Class::Pass | Class::Forward | Class::Answer => xdp_action::XDP_PASS,
    };
    action << 8 | counter as u32
}

#[inline(always)]
pub const fn forwarded(action: u32, counter: Counter) -> Verdict {
    action << 8 | counter as u32
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
