//! The kernel side of lbha: loads and attaches the XDP program, fills its maps, expires its flows, reads its counters.
//!
//! The only user of aya. What the maps should hold comes in as a [`Desired`]; [`apply::Applier`] computes the
//! difference and writes it.

pub mod apply;
pub mod attach;
pub mod batch;
pub mod desired;
pub mod expiry;
pub mod family;
pub mod held;
pub mod ids;
pub mod inject;
pub mod loader;
pub mod pins;
pub mod ring;
pub mod stats;
mod sys;
pub mod tables;

pub use desired::Desired;

/// The XDP object that was built with this binary.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lbha-ebpf.o"));
