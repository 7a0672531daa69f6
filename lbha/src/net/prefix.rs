//! An IPv4 prefix: an address whose host bits are zero, and a length.

use std::fmt;
use std::net::Ipv4Addr;

/// Ordered by address, then length, so that a prefix comes directly before everything that it covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Prefix {
    addr: Ipv4Addr,
    len: u8,
}

impl Ipv4Prefix {
    /// 0.0.0.0/0.
    pub const DEFAULT: Ipv4Prefix = Ipv4Prefix { addr: Ipv4Addr::UNSPECIFIED, len: 0 };

    /// The prefix of this length that contains `addr`; `None` when `len` is above 32.
    pub const fn new(addr: Ipv4Addr, len: u8) -> Option<Ipv4Prefix> {
        if len > 32 {
            return None;
        }
        Some(Ipv4Prefix { addr: Ipv4Addr::from_bits(addr.to_bits() & mask(len)), len })
    }

    /// The /32 of an address.
    pub const fn host(addr: Ipv4Addr) -> Ipv4Prefix {
        Ipv4Prefix { addr, len: 32 }
    }

    pub const fn addr(self) -> Ipv4Addr {
        self.addr
    }

    #[expect(clippy::len_without_is_empty, reason = "a prefix length; the word is the field's own")]
    pub const fn len(self) -> u8 {
        self.len
    }

    pub const fn contains(self, addr: Ipv4Addr) -> bool {
        addr.to_bits() & mask(self.len) == self.addr.to_bits()
    }

    /// Whether every address of `other` is in this prefix; true for the prefix itself.
    pub const fn covers(self, other: Ipv4Prefix) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }
}

impl fmt::Display for Ipv4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for Ipv4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const fn mask(len: u8) -> u32 {
    // A shift by 32 is undefined for u32, hence the wider type.
    (u64::MAX << (32 - len)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(a: [u8; 4], len: u8) -> Ipv4Prefix {
        Ipv4Prefix::new(a.into(), len).unwrap()
    }

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!(p([10, 1, 2, 3], 8).to_string(), "10.0.0.0/8");
        assert_eq!(p([10, 1, 2, 3], 0), Ipv4Prefix::DEFAULT);
        assert_eq!(p([10, 1, 2, 3], 32).to_string(), "10.1.2.3/32");
        assert_eq!(Ipv4Prefix::new(Ipv4Addr::LOCALHOST, 33), None);
    }

    #[test]
    fn covering_is_by_bits_and_length() {
        assert!(p([10, 0, 0, 0], 8).covers(p([10, 2, 0, 0], 16)));
        assert!(p([10, 0, 0, 0], 8).covers(p([10, 0, 0, 0], 8)));
        assert!(!p([10, 0, 0, 0], 16).covers(p([10, 0, 0, 0], 8)));
        assert!(!p([10, 0, 0, 0], 8).covers(p([11, 0, 0, 0], 16)));
        assert!(Ipv4Prefix::DEFAULT.covers(p([255, 255, 255, 255], 32)));
    }

    #[test]
    fn a_prefix_sorts_before_what_it_covers() {
        let mut all =
            [p([10, 0, 0, 0], 16), p([10, 0, 0, 0], 8), p([9, 0, 0, 0], 24), Ipv4Prefix::DEFAULT];
        all.sort();
        assert_eq!(
            all,
            [Ipv4Prefix::DEFAULT, p([9, 0, 0, 0], 24), p([10, 0, 0, 0], 8), p([10, 0, 0, 0], 16)]
        );
    }
}
