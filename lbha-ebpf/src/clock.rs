//! The flow tables' clock, read once a jiffy on each CPU.
//!
//! The coarse clock advances by jiffies, so a value of the same jiffy is the same value. The jiffies themselves are a plain
//! load (the verifier puts it in place of the helper), while the clock is three calls deep, and where the kernel
//! guards returns against speculation every return is a misprediction.

use aya_ebpf::{
    btf_maps::PerCpuArray,
    helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
    macros::btf_map,
};
use lbha_common::time::ticks;

/// The last reading.
#[repr(C)]
struct Reading {
    jiffies: u64,
    ticks: u64,
}

#[btf_map]
static CLOCK: PerCpuArray<Reading, 1> = PerCpuArray::new();

/// The time in ticks.
#[inline(always)]
pub fn now() -> u32 {
    let Some(reading) = CLOCK.get_ptr_mut(0) else {
        return read();
    };
    // SAFETY: a per-CPU slot, and XDP programs do not nest. The helper takes no arguments.
    unsafe {
        let jiffies = bpf_jiffies64();
        if (*reading).jiffies != jiffies {
            *reading = Reading { jiffies, ticks: u64::from(read()) };
        }
        (*reading).ticks as u32
    }
}

#[inline(always)]
fn read() -> u32 {
    // SAFETY: no arguments.
    ticks(unsafe { bpf_ktime_get_coarse_ns() })
}
