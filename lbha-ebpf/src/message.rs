//! ICMP messages as a whole, for the checksum over all of them.

use core::ptr::null_mut;

use aya_ebpf::{
    helpers::{bpf_csum_diff, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use lbha_common::{addr::Addr, csum, wire::ICMP_HEADER};

use crate::{access::store, maps::SCRATCH, workspace::BYTES};

/// The longest message that is looked at: what a router may send fits well (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)). Room
/// for the zeros that follow it is left.
const MAX: u32 = BYTES as u32 - 4;

/// The helper takes no more than a BPF stack's size at once (before Linux 6.13).
const CHUNK: u32 = 512;

/// The unfolded sum of the ICMP message that begins `at` bytes into the frame; 0 when it can't be read. A message itself
/// never sums up to 0 as long as its type is not.
#[inline(never)]
pub fn sum(ctx: &XdpContext, at: u32, length: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    if length == 0 || length > MAX {
        return 0;
    }
    // SAFETY: a per-CPU slot, and XDP programs do not nest; `MAX` leaves room for four bytes behind the message; the helpers
    // get a valid context, and sizes within the buffer.
    unsafe {
        let bytes = (&raw mut (*scratch).bytes).cast::<u8>();
        if bpf_xdp_load_bytes(ctx.ctx, at, bytes.cast(), length) != 0 {
            return 0;
        }
        store(bytes as usize + length as usize, 0u32);
        let mut rest = (length + 3) & !3;
        let mut sum = 0;
        let mut done = 0;
        while done < BYTES as u32 {
            let size = if rest < CHUNK { rest } else { CHUNK };
            let chunk = bytes.add(done as usize).cast();
            sum = bpf_csum_diff(null_mut(), 0, chunk, size, sum) as u32;
            rest -= size;
            done += CHUNK;
        }
        sum
    }
}

/// Whether the checksum of the IPv4 header holds, `length` bytes long, that is quoted in the message that was summed up
/// last.
#[inline(always)]
pub fn quoted_header_holds(length: u32) -> bool {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a per-CPU slot, and XDP programs do not nest; an IPv4 header is not longer than the mask, and the buffer is.
    let sum = unsafe {
        let header = (&raw mut (*scratch).bytes).cast::<u8>().add(ICMP_HEADER);
        bpf_csum_diff(null_mut(), 0, header.cast(), length & 0x3c, 0) as u32
    };
    csum::fold(sum) == 0xffff
}

/// The unfolded sum of the pseudo header: of ICMPv6 only (RFC 4443 §2.3).
#[inline(always)]
pub fn pseudo_header<A: Addr>(saddr: &A, daddr: &A, length: u32) -> u32 {
    if A::HEADER_CHECKSUM {
        return 0;
    }
    // An address in place of zeros is its sum.
    A::default().replaced_by(*saddr)
        + A::default().replaced_by(*daddr)
        + u32::from((length as u16).to_be())
        + u32::from(u16::from(A::ICMP.proto).to_be())
}

/// Folds a message's and its pseudo header's sum.
#[inline(always)]
pub fn fold(message: u32, pseudo: u32) -> u16 {
    csum::fold(u32::from(csum::fold(message)) + pseudo)
}
