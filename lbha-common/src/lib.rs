//! What the XDP program and its controller share: map layouts, and the pure logic that both sides run.
//!
//! `no_std`, no allocation, no floating point, no panics on any input: everything here is compiled into the BPF
//! object **and** tested on the host. Map types are `#[repr(C)]` with explicit padding, integers only; their sizes
//! are asserted, and a change of any layout is a new [`ABI_VERSION`].
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(feature = "user"), forbid(unsafe_code))]

pub mod addr;
pub mod conntrack;
pub mod counter;
pub mod covers;
pub mod csum;
pub mod event;
pub mod flow;
pub mod fragment;
pub mod limits;
pub mod masquerade;
pub mod nat;
pub mod nexthop;
pub mod select;
pub mod service;
pub mod stats;
pub mod tail;
pub mod time;
#[cfg(feature = "user")]
mod user;
pub mod wire;

/// Version of the pinned maps' layout; part of the pin path (`…/lbha/v2/`), so that two layouts never meet.
pub const ABI_VERSION: u32 = 2;
