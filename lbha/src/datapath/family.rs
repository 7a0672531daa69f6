//! An address family, as the code that writes and reads its maps sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::maps::lpm_trie::Key;
use lbha_common::addr::{Addr, Be32, Be128};

use crate::net::IpPrefix;

/// An address as it stands in the maps of its family.
pub trait Family: Addr + aya::Pod {
    /// Last digit of the names of the family's maps.
    const VERSION: u8;

    /// `None` for an address of the other family.
    fn of(addr: IpAddr) -> Option<Self>;

    fn ip(self) -> IpAddr;

    /// A prefix as a key of the family's tries; `None` for one of the other family.
    fn key_of(prefix: &IpPrefix) -> Option<Key<Self>> {
        Some(Key::new(prefix.len().into(), Self::of(prefix.addr())?))
    }

    /// The prefix that a key of one of the family's tries stands for.
    fn prefix_of(key: &Key<Self>) -> Option<IpPrefix> {
        IpPrefix::new(key.data().ip(), key.prefix_len() as u8)
    }
}

impl Family for Be32 {
    const VERSION: u8 = 4;

    fn of(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V4(addr) => Some(addr.into()),
            IpAddr::V6(_) => None,
        }
    }

    fn ip(self) -> IpAddr {
        Ipv4Addr::from(self).into()
    }
}

impl Family for Be128 {
    const VERSION: u8 = 6;

    fn of(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V4(_) => None,
            IpAddr::V6(addr) => Some(addr.into()),
        }
    }

    fn ip(self) -> IpAddr {
        Ipv6Addr::from(self).into()
    }
}
