//! Fragments.

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use lbha_common::{counter::Counter, flow::side};

use crate::{
    datapath::finish,
    family::Family,
    maps::{INTERFACE_STATS, SCRATCH},
    verdict::stop,
};

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
    finish::<F, MULTI_BUFFER>(ctx, side, stop(Counter::PassFragment), stats)
}
