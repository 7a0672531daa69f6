//! Frames with IPv4 or IPv6: a builder, a parser for assertions, and a verifier of lengths and checksums.
//!
//! None of it uses the code under test. The checksums are computed the obvious way, over all bytes, so that an error in an
//! incremental update shows; the crate's own tests compare them with etherparse and with packets computed elsewhere.
//!
//! Functions whose names end in `_ip` take and give packets that start with their IP header, the others Ethernet frames.

mod build;
mod encode;
mod extension;
mod fragments;
mod header;
mod icmp;
mod parse;
mod verify;

pub use build::{Frame, L4, tcp_flags};
pub use extension::Extension;
pub use fragments::{fragments, fragments_ip, reassemble, reassemble_ip};
pub use header::Ip;
pub use icmp::{Quote, icmp_error, icmp4, icmp6};
pub use parse::{Embedded, Parsed, Transport, parse, parse_ip};
pub use verify::{Fault, checksum, verify, verify_ip};

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
pub const ETHERTYPE_VLAN: u16 = 0x8100;
pub const ETHERTYPE_QINQ: u16 = 0x88a8;
pub const PROTO_ICMP: u8 = 1;
pub const PROTO_TCP: u8 = 6;
pub const PROTO_UDP: u8 = 17;
pub const PROTO_ICMPV6: u8 = 58;

/// Big-endian integers at an offset; None past the end.
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
