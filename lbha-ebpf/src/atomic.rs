//! Atomic read-modify-write on map values.
//!
//! `core` hides these methods on BPF because the target has no compare-and-swap before v3; the instructions are there
//! (Linux 5.12), and the intrinsics behind the methods reach them.

use core::intrinsics::{
    AtomicOrdering::{Relaxed, SeqCst},
    atomic_and, atomic_or, atomic_xadd,
};

/// Adds, and returns the value before.
///
/// # Safety
/// `at` points to a map value.
#[inline(always)]
pub unsafe fn fetch_add(at: *mut u64, value: u64) -> u64 {
    // Sequentially consistent for the instruction's sake: LLVM 22 turns a relaxed fetch into BPF's old `lock +=`, which
    // returns nothing, and takes the operand for the result.
    // SAFETY: an aligned map value.
    unsafe { atomic_xadd::<u64, u64, { SeqCst }>(at, value) }
}

/// # Safety
/// `at` points to a map value.
#[inline(always)]
pub unsafe fn or(at: *mut u32, bits: u32) {
    // SAFETY: an aligned map value.
    unsafe { atomic_or::<u32, u32, { Relaxed }>(at, bits) };
}

/// # Safety
/// `at` points to a map value.
#[inline(always)]
pub unsafe fn and(at: *mut u32, bits: u32) {
    // SAFETY: an aligned map value.
    unsafe { atomic_and::<u32, u32, { Relaxed }>(at, bits) };
}
