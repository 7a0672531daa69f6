//! What an address of ours is, and where ICMP errors come from.

use std::{collections::BTreeMap, net::IpAddr};

use aya::maps::{Array, HashMap, MapData, MapError};
use lbha_common::service::address;

use super::{ApplyError, ignore_absent, map_error_of};
use crate::datapath::{
    desired::{Desired, Masquerade},
    family::Family,
};

pub(super) struct Addresses<A: Family> {
    addresses: HashMap<MapData, A, u32>,
    error_sources: Array<MapData, A>,
    written: BTreeMap<IpAddr, u32>,
    written_sources: [Option<A>; 2],
}

impl<A: Family> Addresses<A> {
    /// Takes over what the map holds.
    pub fn adopt(
        addresses: HashMap<MapData, A, u32>,
        error_sources: Array<MapData, A>,
    ) -> Result<Self, MapError> {
        let mut written = BTreeMap::new();
        for entry in addresses.iter() {
            let (addr, what) = entry?;
            written.insert(addr.ip(), what);
        }
        Ok(Self { addresses, error_sources, written, written_sources: [None, None] })
    }

    /// What becomes ours is so before anything leads to it; what is no longer stays until [`Self::remove`].
    pub fn add(&mut self, desired: &Desired) -> Result<(), ApplyError> {
        for (addr, what) in wanted(desired) {
            self.set(addr, what | self.written.get(&addr).copied().unwrap_or(0))?;
        }
        for (side, sources) in desired.error_sources.iter().enumerate() {
            let wanted = [sources.v4.map(IpAddr::from), sources.v6.map(IpAddr::from)];
            let source = wanted.into_iter().flatten().find_map(A::of).unwrap_or_default();
            if self.written_sources[side] != Some(source) {
                self.error_sources
                    .set(side as u32, source, 0)
                    .map_err(map_error_of::<A, _>("ERROR_SOURCES"))?;
                self.written_sources[side] = Some(source);
            }
        }
        Ok(())
    }

    pub fn remove(&mut self, desired: &Desired) -> Result<(), ApplyError> {
        let wanted = wanted(desired);
        let gone: Vec<IpAddr> =
            self.written.keys().filter(|addr| !wanted.contains_key(addr)).copied().collect();
        for addr in gone {
            if let Some(key) = A::of(addr) {
                ignore_absent(self.addresses.remove(&key))
                    .map_err(map_error_of::<A, _>("ADDRESSES"))?;
            }
            self.written.remove(&addr);
        }
        for (addr, what) in wanted {
            self.set(addr, what)?;
        }
        Ok(())
    }

    fn set(&mut self, addr: IpAddr, what: u32) -> Result<(), ApplyError> {
        if let Some(key) = A::of(addr)
            && self.written.get(&addr) != Some(&what)
        {
            self.addresses.insert(key, what, 0).map_err(map_error_of::<A, _>("ADDRESSES"))?;
            self.written.insert(addr, what);
        }
        Ok(())
    }
}

/// Of both families.
fn wanted(desired: &Desired) -> BTreeMap<IpAddr, u32> {
    let mut wanted = BTreeMap::new();
    let local = desired.local.iter().map(|addr| (*addr, address::LOCAL));
    let vips = desired.services.keys().map(|service| (service.vip, address::VIP));
    let externals = Masquerade::externals_of(&desired.masquerades);
    let externals = externals.into_iter().map(|addr| (addr, address::EXTERNAL));
    for (addr, what) in local.chain(vips).chain(externals) {
        *wanted.entry(addr).or_default() |= what;
    }
    wanted
}
