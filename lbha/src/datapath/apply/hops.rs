//! Next hops, and the routes that lead to them.

use std::collections::{BTreeMap, HashMap, HashSet};

use aya::maps::{MapData, MapError, lpm_trie::LpmTrie};
use lbha_common::{
    addr::Addr,
    limits::MAX_NEXT_HOPS,
    nexthop::{NextHop, ON_LINK, Tag, UNREACHABLE, next_hop_flag},
};

use super::{ApplyError, Change, ignore_absent, map_error_of};
use crate::{
    datapath::{
        desired::{Desired, Hop, Route},
        family::Family,
        ids::Ids,
        tables::List,
    },
    net::IpPrefix,
};

pub(super) struct Hops<A: Family> {
    next_hops: List<NextHop<A>>,
    routes: LpmTrie<MapData, A, u32>,
    ids: Ids<IpPrefix>,
    written: HashMap<u32, NextHop<A>>,
    written_routes: BTreeMap<IpPrefix, u32>,
}

impl<A: Family> Hops<A> {
    /// Takes over what the maps hold.
    pub fn adopt(
        next_hops: List<NextHop<A>>,
        routes: LpmTrie<MapData, A, u32>,
    ) -> Result<Self, MapError> {
        // 0 is "unreachable"
        let mut ids = Ids::new(UNREACHABLE + 1, MAX_NEXT_HOPS as u32);
        let mut written = HashMap::new();
        for (id, hop) in next_hops.all(|hop| hop.flags & next_hop_flag::USED != 0)? {
            if let Some(prefix) = IpPrefix::new(hop.prefix.ip(), hop.prefix_len) {
                ids.adopt(prefix, id);
                written.insert(id, hop);
            }
        }
        let mut written_routes = BTreeMap::new();
        for entry in routes.iter() {
            let (key, value) = entry?;
            written_routes.extend(A::prefix_of(&key).map(|prefix| (prefix, value)));
        }
        Ok(Self { next_hops, routes, ids, written, written_routes })
    }

    /// Index of the next hop that serves a prefix.
    pub fn id(&self, prefix: &IpPrefix) -> Option<u32> {
        self.ids.get(prefix)
    }

    /// Prefixes that are no longer asked for but still have their index.
    pub fn lingering(&self) -> impl Iterator<Item = IpPrefix> {
        self.ids.retired().map(|(prefix, _)| *prefix)
    }

    pub fn write(
        &mut self,
        desired: &Desired,
        sweep: u64,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        let of_family = |(prefix, _): &(&IpPrefix, &Hop)| A::of(prefix.addr()).is_some();
        self.ids.retain(sweep, |prefix| desired.hops.contains_key(prefix));
        for (prefix, hop) in desired.hops.iter().filter(of_family) {
            match self.ids.acquire(prefix) {
                Some((id, _)) => self.write_hop(id, *prefix, hop, changes)?,
                None => changes.push(Change::NoRoom(*prefix)),
            }
        }
        for (prefix, hop) in desired.lingering.iter().filter(of_family) {
            if let Some(id) = self.ids.get(prefix) {
                self.write_hop(id, *prefix, hop, changes)?;
            }
        }
        Ok(())
    }

    fn write_hop(
        &mut self,
        id: u32,
        prefix: IpPrefix,
        hop: &Hop,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        let mut tag = [Tag::default(); 2];
        for (slot, wanted) in tag.iter_mut().zip(&hop.tags) {
            *slot = *wanted;
        }
        let valid = if hop.dmac.is_some() { next_hop_flag::VALID } else { 0 };
        let entry = NextHop {
            dmac: hop.dmac.unwrap_or_default(),
            flags: next_hop_flag::USED | valid,
            tags: hop.tags.len() as u8,
            smac: hop.smac,
            mtu: hop.mtu,
            tag,
            dev: hop.side,
            prefix_len: prefix.len(),
            _pad: 0,
            prefix: A::of(prefix.addr()).unwrap_or_default(),
            _tail: <A as Addr>::Tail::default(),
        };
        let before = self.written.get(&id);
        if before == Some(&entry) {
            return Ok(());
        }
        if before.is_none_or(|before| (before.dmac, before.flags) != (entry.dmac, entry.flags)) {
            changes.push(Change::Hop(prefix, hop.dmac));
        }
        self.next_hops.entries.set(id, entry, 0).map_err(map_error_of::<A, _>("NEXT_HOPS"))?;
        self.written.insert(id, entry);
        Ok(())
    }

    pub fn write_routes(
        &mut self,
        desired: &Desired,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        let mut wanted = BTreeMap::new();
        for (prefix, route) in &desired.routes {
            let Some(key) = A::key_of(prefix) else { continue };
            let value = match route {
                Route::Hop => match self.ids.get(prefix) {
                    Some(id) => id,
                    None => continue,
                },
                Route::OnLink => ON_LINK,
                Route::Unreachable => UNREACHABLE,
            };
            wanted.insert(*prefix, value);
            if self.written_routes.get(prefix) != Some(&value) {
                self.routes.insert(&key, value, 0).map_err(map_error_of::<A, _>("ROUTES"))?;
                changes.push(Change::Route(*prefix, Some(*route)));
            }
        }
        for prefix in self.written_routes.keys().filter(|prefix| !wanted.contains_key(prefix)) {
            let Some(key) = A::key_of(prefix) else { continue };
            ignore_absent(self.routes.remove(&key)).map_err(map_error_of::<A, _>("ROUTES"))?;
            changes.push(Change::Route(*prefix, None));
        }
        self.written_routes = wanted;
        Ok(())
    }

    /// Gives back the indices that sweep number `sweep` has not found.
    pub fn release(&mut self, sweep: u64, used: &HashSet<u16>) -> Result<(), ApplyError> {
        for (_, id) in self.ids.release(sweep, |id| used.contains(&(id as u16))) {
            self.next_hops
                .entries
                .set(id, NextHop::default(), 0)
                .map_err(map_error_of::<A, _>("NEXT_HOPS"))?;
            self.written.remove(&id);
        }
        Ok(())
    }
}
