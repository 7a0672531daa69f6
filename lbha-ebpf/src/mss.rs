//! MSS clamping: a SYN never announces segments that a next hop could not take.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_loop, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    programs::XdpContext,
};
use lbha_common::{csum, service::setting, wire::tcp};

use crate::{
    family::Family,
    maps::{SCRATCH, SETTINGS},
};

/// Length of the options of the longest TCP header.
const OPTIONS: u32 = 40;

/// Option kinds (RFC 9293 §3.1).
mod option {
    pub const END: u8 = 0;
    pub const NO_OPERATION: u8 = 1;
    pub const MSS: u8 = 2;
}

/// Lowers the MSS option of the SYN whose TCP header begins `l4` bytes into the frame. Both directions' next hops count:
/// the MSS is for the packets that come back, and a path is seldom wider one way.
///
/// Nothing happens where the option is missing or can't be read; the packet goes on as it is.
#[inline(never)]
pub fn clamp<F: Family>(ctx: &XdpContext, l4: u32, mtu: u16, peer_next_hop: u16) -> u32 {
    let Some(settings) = SETTINGS.get(0) else {
        return 0;
    };
    if settings.flags & setting::CLAMP_MSS == 0 {
        return 0;
    }
    let back = F::next_hops().get(u32::from(peer_next_hop)).map_or(mtu, |hop| hop.mtu);
    let narrow = if back < mtu { back } else { mtu };
    let mut limit = narrow.saturating_sub(F::MSS_HEADERS);
    let configured = settings.mss[F::INDEX];
    if configured != 0 && configured < limit {
        limit = configured;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a per-CPU slot, and XDP programs do not nest.
    let scratch = unsafe { &mut *scratch };
    let bytes = scratch.bytes.as_mut_ptr().cast();
    // SAFETY: a valid context, and room for the byte that holds the header's length.
    if unsafe { bpf_xdp_load_bytes(ctx.ctx, l4 + 12, bytes, 1) } != 0 {
        return 0;
    }
    let header = u32::from(scratch.bytes[0] >> 4) * 4;
    let length = header.wrapping_sub(tcp::HEADER as u32);
    if length == 0 || length > OPTIONS {
        return 0;
    }
    let start = l4 + tcp::HEADER as u32;
    // SAFETY: a valid context, and room for that many bytes.
    if unsafe { bpf_xdp_load_bytes(ctx.ctx, start, bytes, length) } != 0 {
        return 0;
    }
    scratch.at = 0;
    scratch.length = length;
    scratch.found = 0;
    // A loop of its own would be followed option by option, once for each way that leads here.
    // SAFETY: the callback has the signature that the helper asks for, and needs no context.
    unsafe { bpf_loop(OPTIONS, next_option as *mut c_void, core::ptr::null_mut(), 0) };
    let at = scratch.at;
    if scratch.found == 0 || at + 4 > length {
        return 0;
    }
    let i = (at & 63) as usize;
    let announced = u16::from_be_bytes([scratch.bytes[i + 2], scratch.bytes[i + 3]]);
    if scratch.bytes[i + 1] != 4 || announced <= limit {
        return 0;
    }
    write(ctx, l4, start + at + 2, announced, limit)
}

/// Looks at one option; stops at the MSS, or where there is none.
unsafe extern "C" fn next_option(_i: u32, _context: *mut c_void) -> i64 {
    const GO_ON: i64 = 0;
    const STOP: i64 = 1;
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return STOP;
    };
    // SAFETY: this CPU's slot, which `clamp` is waiting on.
    let scratch = unsafe { &mut *scratch };
    if scratch.at >= scratch.length {
        return STOP;
    }
    let i = (scratch.at & 63) as usize;
    match scratch.bytes[i] {
        option::END => return STOP,
        option::NO_OPERATION => scratch.at += 1,
        option::MSS => {
            scratch.found = 1;
            return STOP;
        }
        _ => {
            let size = u32::from(scratch.bytes[i + 1]);
            if size < 2 {
                return STOP;
            }
            scratch.at += size;
        }
    }
    GO_ON
}

/// Writes the MSS at an offset into the frame, which may be odd within the header, and what it makes of the checksum.
#[inline(always)]
fn write(ctx: &XdpContext, l4: u32, at: u32, old: u16, new: u16) -> u32 {
    let mut check = 0u16;
    // SAFETY: a valid context and two bytes of the stack.
    if unsafe { bpf_xdp_load_bytes(ctx.ctx, l4 + 16, (&raw mut check).cast(), 2) } != 0 {
        return 0;
    }
    let (mut from, mut to) = (old.to_be(), new.to_be());
    if (at - l4) & 1 != 0 {
        // Its bytes are in two words; a sum over swapped words is the swapped sum (RFC 1071 §2 (B)).
        from = from.swap_bytes();
        to = to.swap_bytes();
    }
    let mut updated = csum::apply(check, csum::fold(csum::replace16(from, to)));
    let mut value = new.to_be();
    // SAFETY: a valid context and two bytes of the stack each. Both ranges were read before, so neither store fails.
    unsafe {
        bpf_xdp_store_bytes(ctx.ctx, at, (&raw mut value).cast(), 2);
        bpf_xdp_store_bytes(ctx.ctx, l4 + 16, (&raw mut updated).cast(), 2);
    }
    0
}
