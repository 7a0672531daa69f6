//! The address families, and a prefix of either: an address whose host bits are zero, and a length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const fn of(addr: IpAddr) -> Family {
        match addr {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// 0.0.0.0/0 or ::/0.
    pub const fn default_prefix(self) -> IpPrefix {
        match self {
            Family::V4 => IpPrefix::DEFAULT_V4,
            Family::V6 => IpPrefix::DEFAULT_V6,
        }
    }
}

/// Ordered by family, address, then length, so that a prefix comes directly before everything that it covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpPrefix {
    addr: IpAddr,
    len: u8,
}

impl IpPrefix {
    pub const DEFAULT_V4: IpPrefix = IpPrefix { addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED), len: 0 };
    pub const DEFAULT_V6: IpPrefix = IpPrefix { addr: IpAddr::V6(Ipv6Addr::UNSPECIFIED), len: 0 };

    /// The prefix of this length that contains `addr`; `None` when `len` is too large for the family.
    pub const fn new(addr: IpAddr, len: u8) -> Option<IpPrefix> {
        if len > bits(addr) {
            return None;
        }
        Some(IpPrefix { addr: masked(addr, len), len })
    }

    /// The /32 or /128 of an address.
    pub const fn host(addr: IpAddr) -> IpPrefix {
        IpPrefix { addr, len: bits(addr) }
    }

    pub const fn addr(self) -> IpAddr {
        self.addr
    }

    #[expect(clippy::len_without_is_empty, reason = "a prefix length; the word is the field's own")]
    pub const fn len(self) -> u8 {
        self.len
    }

    pub const fn family(self) -> Family {
        Family::of(self.addr)
    }

    pub const fn is_ipv4(self) -> bool {
        self.addr.is_ipv4()
    }

    /// Whether it stands for one address.
    pub const fn is_host(self) -> bool {
        self.len == bits(self.addr)
    }

    pub fn contains(self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.is_ipv4() && masked(addr, self.len) == self.addr
    }

    /// Whether every address of `other` is in this prefix; true for the prefix itself.
    pub fn covers(self, other: IpPrefix) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }
}

/// Bits of an address of this family.
const fn bits(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

const fn masked(addr: IpAddr, len: u8) -> IpAddr {
    // A shift by all the bits is undefined, hence the checked ones.
    match addr {
        IpAddr::V4(addr) => {
            let mask = match u32::MAX.checked_shl(32 - len as u32) {
                Some(mask) => mask,
                None => 0,
            };
            IpAddr::V4(Ipv4Addr::from_bits(addr.to_bits() & mask))
        }
        IpAddr::V6(addr) => {
            let mask = match u128::MAX.checked_shl(128 - len as u32) {
                Some(mask) => mask,
                None => 0,
            };
            IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() & mask))
        }
    }
}

/// What is wrong with the text of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    #[error("not an address")]
    Address,
    #[error("the length is not a number from 0 to {0}")]
    Length(u8),
    #[error("host bits are set: the prefix is {0}")]
    HostBits(IpPrefix),
}

impl FromStr for IpPrefix {
    type Err = PrefixError;

    /// `192.168.1.0/24`, `fd00:1::/64`, or an address alone, which is its own prefix.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (addr, len) =
            text.split_once('/').map_or((text, None), |(addr, len)| (addr, Some(len)));
        let addr: IpAddr = addr.parse().map_err(|_| PrefixError::Address)?;
        let Some(len) = len else { return Ok(Self::host(addr)) };
        let digits = !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit());
        let len = len.parse().ok().filter(|_| digits).ok_or(PrefixError::Length(bits(addr)))?;
        let prefix = Self::new(addr, len).ok_or(PrefixError::Length(bits(addr)))?;
        if prefix.addr == addr { Ok(prefix) } else { Err(PrefixError::HostBits(prefix)) }
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(addr: &str, len: u8) -> IpPrefix {
        IpPrefix::new(addr.parse().unwrap(), len).unwrap()
    }

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!(p("10.1.2.3", 8).to_string(), "10.0.0.0/8");
        assert_eq!(p("10.1.2.3", 0), IpPrefix::DEFAULT_V4);
        assert_eq!(p("10.1.2.3", 32).to_string(), "10.1.2.3/32");
        assert_eq!(p("fd00:1::5", 64).to_string(), "fd00:1::/64");
        assert_eq!(p("fd00:1::5", 0), IpPrefix::DEFAULT_V6);
        assert_eq!(IpPrefix::new(Ipv4Addr::LOCALHOST.into(), 33), None);
        assert_eq!(IpPrefix::new(Ipv6Addr::LOCALHOST.into(), 129), None);
    }

    #[test]
    fn covering_is_by_family_bits_and_length() {
        assert!(p("10.0.0.0", 8).covers(p("10.2.0.0", 16)));
        assert!(p("10.0.0.0", 8).covers(p("10.0.0.0", 8)));
        assert!(!p("10.0.0.0", 16).covers(p("10.0.0.0", 8)));
        assert!(!p("10.0.0.0", 8).covers(p("11.0.0.0", 16)));
        assert!(IpPrefix::DEFAULT_V4.covers(p("255.255.255.255", 32)));
        assert!(IpPrefix::DEFAULT_V6.covers(p("2001:db8::1", 128)));
        assert!(!IpPrefix::DEFAULT_V4.covers(p("2001:db8::1", 128)));
        assert!(!IpPrefix::DEFAULT_V6.contains(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_prefix_sorts_before_what_it_covers() {
        let sorted = [
            IpPrefix::DEFAULT_V4,
            p("9.0.0.0", 24),
            p("10.0.0.0", 8),
            p("10.0.0.0", 16),
            IpPrefix::DEFAULT_V6,
            p("2001:db8::", 32),
        ];
        let mut all = sorted;
        all.reverse();
        all.sort();
        assert_eq!(all, sorted);
    }

    #[test]
    fn text_is_read_strictly() {
        assert_eq!("10.0.0.0/8".parse(), Ok(p("10.0.0.0", 8)));
        assert_eq!("fd00::/8".parse(), Ok(p("fd00::", 8)));
        assert_eq!("10.0.0.1".parse(), Ok(p("10.0.0.1", 32)));
        let errors = [
            ("10.0.0/8", PrefixError::Address),
            ("", PrefixError::Address),
            ("10.0.0.0/33", PrefixError::Length(32)),
            ("10.0.0.0/+8", PrefixError::Length(32)),
            ("10.0.0.0/", PrefixError::Length(32)),
            ("::/129", PrefixError::Length(128)),
            ("10.0.0.1/8", PrefixError::HostBits(p("10.0.0.0", 8))),
        ];
        for (text, error) in errors {
            assert_eq!(text.parse::<IpPrefix>(), Err(error), "{text}");
        }
    }
}
