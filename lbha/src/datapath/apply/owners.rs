//! The indices by which flows and counters know who a connection belongs to: a server of a service, or a masquerade rule.

use std::net::IpAddr;

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuValues};
use lbha_common::{limits::MAX_BACKENDS, stats::BackendStats};

use super::{ApplyError, map_error};
use crate::datapath::{desired::ServiceId, ids::Ids};

/// A server of a service, as flows know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    pub service: ServiceId,
    pub address: IpAddr,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    Server(BackendKey),
    /// Index of a masquerade rule over IPv4. A rule keeps its owner for as long as it has its index.
    Rule4(u32),
    Rule6(u32),
}

/// One space over both families.
pub(super) struct Owners {
    ids: Ids<Owner>,
    stats: PerCpuArray<MapData, BackendStats>,
}

impl Owners {
    pub fn new(stats: PerCpuArray<MapData, BackendStats>) -> Self {
        Self { ids: Ids::new(0, MAX_BACKENDS as u32), stats }
    }

    pub fn adopt(&mut self, owner: Owner, id: u32) {
        self.ids.adopt(owner, id);
    }

    /// The owner's index. A new one's counters begin at 0.
    pub fn acquire(&mut self, owner: &Owner) -> Result<u32, ApplyError> {
        let (id, new) = self.ids.acquire(owner).ok_or(ApplyError::Backends)?;
        if new {
            self.clear_stats(id)?;
        }
        Ok(id)
    }

    fn clear_stats(&mut self, id: u32) -> Result<(), ApplyError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| MapError::IoError(error));
        let zero = cpus.and_then(|cpus| {
            PerCpuValues::try_from(vec![BackendStats::default(); cpus]).map_err(MapError::IoError)
        });
        zero.and_then(|zero| self.stats.set(id, zero, 0)).map_err(map_error("BACKEND_STATS"))
    }

    pub fn get(&self, owner: &Owner) -> Option<u32> {
        self.ids.get(owner)
    }

    /// Servers that have an index, retired or not.
    pub fn servers(&self) -> impl Iterator<Item = &BackendKey> {
        self.ids.keys().filter_map(as_server)
    }

    pub fn retired_servers(&self) -> impl Iterator<Item = (&BackendKey, u32)> {
        self.ids.retired().filter_map(|(owner, id)| Some((as_server(owner)?, id)))
    }

    /// Retires all that `keep` says no to.
    pub fn retire(&mut self, sweep: u64, keep: impl Fn(&Owner) -> bool) {
        self.ids.retain(sweep, keep);
    }

    /// Gives up what was retired before sweep number `sweep` began and is not `used`.
    pub fn release(&mut self, sweep: u64, used: impl Fn(u32) -> bool) -> Vec<(Owner, u32)> {
        self.ids.release(sweep, used)
    }
}

fn as_server(owner: &Owner) -> Option<&BackendKey> {
    match owner {
        Owner::Server(key) => Some(key),
        Owner::Rule4(_) | Owner::Rule6(_) => None,
    }
}
