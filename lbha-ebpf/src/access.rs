//! Packet memory: the loads and stores, and why they are sound.
//!
//! `bounds` checks a range against the packet's end in the shape that the verifier understands; what follows may load
//! and store within it. Loads are plain typed ones although packet fields are only 2-byte aligned: LLVM's BPF back end
//! splits `read_unaligned` into bytes, while the kernels that lbha runs on (x86-64, arm64) allow unaligned packet
//! access, and the verifier refuses the program where they do not.

/// Whether `len` bytes at `at` lie before `end`.
#[inline(always)]
pub fn within(at: usize, len: usize, end: usize) -> bool {
    at + len <= end
}

/// # Safety
/// `at .. at + size_of::<T>()` was checked with [`within`] and no helper that moves the packet was called since.
#[inline(always)]
pub unsafe fn load<T: Copy>(at: usize) -> T {
    // SAFETY: the caller checked the range; the verifier proves it again at load time.
    unsafe { *(at as *const T) }
}

/// # Safety
/// As for [`load`].
#[inline(always)]
pub unsafe fn store<T: Copy>(at: usize, value: T) {
    // SAFETY: the caller checked the range; the verifier proves it again at load time.
    unsafe { *(at as *mut T) = value }
}
