//! Fragments as map entries: what became of a datagram's first fragment, so that the others go the same way.

use crate::addr::{Be32, Be128};

/// A datagram as its fragments name it, as they come in (RFC 791 §3.2, RFC 8200 §4.5).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey<A> {
    pub saddr: A,
    pub daddr: A,
    /// Identification as it stands in the packet; 16 bits of it for IPv4.
    pub id: u32,
    /// IPv4's protocol; 0 for IPv6, whose fragments are told apart without.
    pub proto: u8,
    /// One of [`crate::flow::side`].
    pub side: u8,
    pub _pad: u16,
}

pub type FragmentKey4 = FragmentKey<Be32>;
pub type FragmentKey6 = FragmentKey<Be128>;

/// What becomes of a datagram's fragments.
pub mod fate {
    /// Nothing is known yet: fragments that came before the first are held.
    pub const HELD: u8 = 0;
    /// Translated and sent on.
    pub const FORWARD: u8 = 1;
    /// Left to the kernel, as the first one was.
    pub const PASS: u8 = 2;
    /// Dropped, as the first one was.
    pub const DROP: u8 = 3;
}

/// What the first fragment has decided.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment<A> {
    /// Addresses to write.
    pub saddr: A,
    pub daddr: A,
    /// Identification to write.
    pub id: u32,
    /// Delta of the IPv4 header checksum: addresses, TTL, identification.
    pub l3_delta: u16,
    pub next_hop: u16,
    /// As in [`crate::flow::Flow`].
    pub backend: u16,
    /// One of [`fate`].
    pub fate: u8,
    /// Not 0 for the server-to-client direction.
    pub reply: u8,
    /// First packet, in ticks.
    pub created: u32,
}

pub type Fragment4 = Fragment<Be32>;
pub type Fragment6 = Fragment<Be128>;

const _: () = assert!(
    size_of::<FragmentKey4>() == 16
        && size_of::<FragmentKey6>() == 40
        && size_of::<Fragment4>() == 24
        && size_of::<Fragment6>() == 48
);
