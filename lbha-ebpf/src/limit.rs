//! How many ICMP errors are sent (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)): a token bucket a CPU.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;

use crate::maps::LIMITER;

/// What an error costs: 1000 of them a second.
const COST: u64 = 1_000_000;

/// What is saved up at most: 1000 errors at once.
const BURST: u64 = 1000 * COST;

/// A token bucket that counts in nanoseconds: time is saved up, and errors take from it.
#[repr(C)]
pub struct Limiter {
    /// When `saved` was last looked at.
    at: u64,
    saved: u64,
}

/// Whether another error may be sent; it is then counted.
#[inline(always)]
pub fn allows() -> bool {
    let Some(limiter) = LIMITER.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a per-CPU slot, and XDP programs do not nest. The helper takes no arguments.
    unsafe {
        let now = bpf_ktime_get_coarse_ns();
        let saved = (*limiter).saved.saturating_add(now.saturating_sub((*limiter).at));
        let saved = if saved < BURST { saved } else { BURST };
        (*limiter).at = now;
        (*limiter).saved = if saved < COST { saved } else { saved - COST };
        saved >= COST
    }
}
