//! Answers a packet with an ICMP error.

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};

use crate::family::Family;

/// The packet was counted by whoever hands it over.
#[inline(always)]
pub fn run<F: Family, const MULTI_BUFFER: bool>(_ctx: &XdpContext) -> u32 {
    xdp_action::XDP_DROP
}
