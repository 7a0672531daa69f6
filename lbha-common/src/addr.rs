//! Network-order integers as types: a raw value read from a packet can't be mistaken for a number.

use core::fmt::{self, Debug};
use core::hash::Hash;
use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    csum,
    wire::{ICMP_FAMILY, IcmpFamily},
};

/// A 16-bit value in network byte order, as it stands in the packet.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Be16(u16);

/// A 32-bit value in network byte order, as it stands in the packet.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Be32(u32);

/// An IPv6 address as it stands in the packet. In 32-bit words, so that the map types that hold it need no padding.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Be128([u32; 4]);

/// An address of either family: what the map types are generic over. There are two, and their layouts are asserted.
pub trait Addr: Copy + Debug + Default + Eq + Hash + sealed::Sealed + 'static {
    /// Fills the layouts whose size would not be a multiple of 8 with this family's address.
    type Tail: Copy + Debug + Default + Eq + Hash + 'static;

    const BITS: u32;
    /// What the family's ICMP looks like.
    const ICMP: IcmpFamily;
    /// The delta of the L3 header's checksum when its hop count is decremented; 0 for the family without one.
    const HOP_DELTA: u16;
    /// Whether the L3 header has a checksum, which covers the addresses.
    const HEADER_CHECKSUM: bool;

    /// The unfolded checksum delta of replacing this address.
    fn replaced_by(self, new: Self) -> u32;

    /// The address in 32-bit words of host order, the family's own first, 0 behind.
    fn words(self) -> [u32; 4];

    #[inline(always)]
    fn is_unspecified(self) -> bool {
        self == Self::default()
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Be32 {}
    impl Sealed for super::Be128 {}
}

impl Addr for Be32 {
    type Tail = ();

    const BITS: u32 = 32;
    const ICMP: IcmpFamily = ICMP_FAMILY[0];
    const HOP_DELTA: u16 = csum::TTL_DELTA;
    const HEADER_CHECKSUM: bool = true;

    #[inline(always)]
    fn replaced_by(self, new: Self) -> u32 {
        csum::replace32(self.0, new.0)
    }

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [self.get(), 0, 0, 0]
    }
}

impl Addr for Be128 {
    type Tail = u32;

    const BITS: u32 = 128;
    const ICMP: IcmpFamily = ICMP_FAMILY[1];
    const HOP_DELTA: u16 = 0;
    const HEADER_CHECKSUM: bool = false;

    #[inline(always)]
    fn replaced_by(self, new: Self) -> u32 {
        csum::replace32(self.0[0], new.0[0])
            + csum::replace32(self.0[1], new.0[1])
            + csum::replace32(self.0[2], new.0[2])
            + csum::replace32(self.0[3], new.0[3])
    }

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0.map(u32::from_be)
    }
}

impl Be16 {
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// Wraps bytes loaded from a packet as they are.
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

impl Be32 {
    #[inline(always)]
    pub const fn new(host: u32) -> Self {
        Self(host.to_be())
    }

    /// Wraps bytes loaded from a packet as they are.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    #[inline(always)]
    pub const fn get(self) -> u32 {
        u32::from_be(self.0)
    }

    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0
    }
}

impl Be128 {
    /// Wraps words loaded from a packet as they are.
    #[inline(always)]
    pub const fn from_raw(raw: [u32; 4]) -> Self {
        Self(raw)
    }

    #[inline(always)]
    pub const fn raw(self) -> [u32; 4] {
        self.0
    }
}

impl From<Ipv6Addr> for Be128 {
    fn from(addr: Ipv6Addr) -> Self {
        let bytes = addr.octets();
        let word =
            |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Be128> for Ipv6Addr {
    fn from(addr: Be128) -> Self {
        let [a, b, c, d] = addr.words().map(u128::from);
        Self::from_bits(a << 96 | b << 64 | c << 32 | d)
    }
}

impl fmt::Debug for Be128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv6Addr::from(*self), f)
    }
}

impl From<Ipv4Addr> for Be32 {
    fn from(addr: Ipv4Addr) -> Self {
        Self::new(addr.to_bits())
    }
}

impl From<Be32> for Ipv4Addr {
    fn from(addr: Be32) -> Self {
        Self::from_bits(addr.get())
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.get(), f)
    }
}

impl fmt::Debug for Be32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv4Addr::from(*self), f)
    }
}
