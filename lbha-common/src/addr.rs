//! Network-order integers as types: a raw value read from a packet can't be mistaken for a number.

use core::fmt;
use core::net::Ipv4Addr;

/// A 16-bit value in network byte order, as it stands in the packet.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Be16(u16);

/// A 32-bit value in network byte order, as it stands in the packet.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Be32(u32);

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
