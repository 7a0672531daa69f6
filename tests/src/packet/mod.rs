//! Frames for `BPF_PROG_TEST_RUN`: a builder, a parser for assertions, and a verifier of lengths and checksums.
//!
//! None of it uses the code under test. The checksums are computed the obvious way, over all bytes, so that an error in an
//! incremental update shows; the crate's own tests compare them with etherparse.

mod build;
mod parse;
mod verify;

pub use build::{Frame, L4, tcp_flags};
pub use parse::{Embedded, Ipv4, Parsed, Transport, parse, parse_ip};
pub use verify::{Fault, checksum, verify, verify_ip};

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_VLAN: u16 = 0x8100;
pub const ETHERTYPE_QINQ: u16 = 0x88a8;
pub const PROTO_ICMP: u8 = 1;
pub const PROTO_TCP: u8 = 6;
pub const PROTO_UDP: u8 = 17;

/// Big-endian integers at an offset; None past the end.
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Whether an ICMP type carries the start of another packet.
fn is_icmp_error(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

#[cfg(test)]
mod tests;
