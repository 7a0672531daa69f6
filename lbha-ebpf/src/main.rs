//! The XDP program's entry points: one a side, each with and without support for multi-buffer packets, and the programs
//! that they hand packets to.
//!
//! A packet's way is in `datapath.rs`; everything it does that does not touch a packet or a map is in `lbha-common`.
#![no_std]
#![no_main]
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "map methods take values too, but copy them to the stack first"
)]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "atomic.rs says why; the toolchain is pinned")]

mod access;
mod answer;
mod atomic;
#[cfg(feature = "bench")]
mod bench;
mod clock;
mod datapath;
mod echo;
mod family;
mod first;
mod forward;
mod fragment;
mod half_open;
mod icmp;
mod icmp_error;
mod ipv4;
mod ipv6;
mod limit;
mod maps;
mod masquerade;
mod message;
mod mss;
mod note;
mod open;
mod parse;
mod route;
mod track;
mod verdict;
mod workspace;

use aya_ebpf::{macros::xdp, programs::XdpContext};
use lbha_common::flow::side::{PRIVATE, PUBLIC};

use crate::family::{V4, V6};

/// Internet side.
#[xdp]
pub fn lbha_public(ctx: XdpContext) -> u32 {
    datapath::run::<PUBLIC, false>(&ctx)
}

/// Servers' side.
#[xdp]
pub fn lbha_private(ctx: XdpContext) -> u32 {
    datapath::run::<PRIVATE, false>(&ctx)
}

/// Internet side, for interfaces whose MTU needs multi-buffer packets.
#[xdp(frags)]
pub fn lbha_public_mb(ctx: XdpContext) -> u32 {
    datapath::run::<PUBLIC, true>(&ctx)
}

/// Servers' side, for interfaces whose MTU needs multi-buffer packets.
#[xdp(frags)]
pub fn lbha_private_mb(ctx: XdpContext) -> u32 {
    datapath::run::<PRIVATE, true>(&ctx)
}

#[xdp]
pub fn lbha_ipv6_public(ctx: XdpContext) -> u32 {
    datapath::run_ipv6::<PUBLIC, false>(&ctx)
}

#[xdp]
pub fn lbha_ipv6_private(ctx: XdpContext) -> u32 {
    datapath::run_ipv6::<PRIVATE, false>(&ctx)
}

#[xdp(frags)]
pub fn lbha_ipv6_public_mb(ctx: XdpContext) -> u32 {
    datapath::run_ipv6::<PUBLIC, true>(&ctx)
}

#[xdp(frags)]
pub fn lbha_ipv6_private_mb(ctx: XdpContext) -> u32 {
    datapath::run_ipv6::<PRIVATE, true>(&ctx)
}

#[xdp]
pub fn lbha_first4(ctx: XdpContext) -> u32 {
    first::run::<V4, false>(&ctx)
}

#[xdp]
pub fn lbha_first6(ctx: XdpContext) -> u32 {
    first::run::<V6, false>(&ctx)
}

#[xdp(frags)]
pub fn lbha_first4_mb(ctx: XdpContext) -> u32 {
    first::run::<V4, true>(&ctx)
}

#[xdp(frags)]
pub fn lbha_first6_mb(ctx: XdpContext) -> u32 {
    first::run::<V6, true>(&ctx)
}

#[xdp]
pub fn lbha_note4(ctx: XdpContext) -> u32 {
    note::run::<V4, false>(&ctx)
}

#[xdp(frags)]
pub fn lbha_note4_mb(ctx: XdpContext) -> u32 {
    note::run::<V4, true>(&ctx)
}

#[xdp]
pub fn lbha_note6(ctx: XdpContext) -> u32 {
    note::run::<V6, false>(&ctx)
}

#[xdp(frags)]
pub fn lbha_note6_mb(ctx: XdpContext) -> u32 {
    note::run::<V6, true>(&ctx)
}

#[xdp]
pub fn lbha_icmp4(ctx: XdpContext) -> u32 {
    icmp::run::<V4, false>(&ctx)
}

#[xdp(frags)]
pub fn lbha_icmp4_mb(ctx: XdpContext) -> u32 {
    icmp::run::<V4, true>(&ctx)
}

#[xdp]
pub fn lbha_icmp6(ctx: XdpContext) -> u32 {
    icmp::run::<V6, false>(&ctx)
}

#[xdp(frags)]
pub fn lbha_icmp6_mb(ctx: XdpContext) -> u32 {
    icmp::run::<V6, true>(&ctx)
}

#[xdp]
pub fn lbha_fragment4(ctx: XdpContext) -> u32 {
    fragment::run::<V4, false>(&ctx)
}

#[xdp(frags)]
pub fn lbha_fragment4_mb(ctx: XdpContext) -> u32 {
    fragment::run::<V4, true>(&ctx)
}

#[xdp]
pub fn lbha_fragment6(ctx: XdpContext) -> u32 {
    fragment::run::<V6, false>(&ctx)
}

#[xdp(frags)]
pub fn lbha_fragment6_mb(ctx: XdpContext) -> u32 {
    fragment::run::<V6, true>(&ctx)
}

#[xdp]
pub fn lbha_answer4(ctx: XdpContext) -> u32 {
    answer::run::<V4, false>(&ctx)
}

#[xdp(frags)]
pub fn lbha_answer4_mb(ctx: XdpContext) -> u32 {
    answer::run::<V4, true>(&ctx)
}

#[xdp]
pub fn lbha_answer6(ctx: XdpContext) -> u32 {
    answer::run::<V6, false>(&ctx)
}

#[xdp(frags)]
pub fn lbha_answer6_mb(ctx: XdpContext) -> u32 {
    answer::run::<V6, true>(&ctx)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The linker removes every path that gets here: nothing in the program can panic, or it would not load.
    loop {}
}

/// The kernel asks for a GPL-compatible licence before it allows some helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
