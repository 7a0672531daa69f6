//! Writes the difference between what the maps hold and what they should: the order of it, and what it tells the log.
//!
//! What a new entry refers to is written before it, and what nothing refers to any more is removed last, so that a packet
//! at any moment sees the old state or the new one, for every connection. One file a subject:
//!
//! - [`settings`]: interfaces and settings;
//! - [`hops`]: next hops, and the routes that lead to them;
//! - [`addresses`]: what an address of ours is, and where ICMP errors come from;
//! - [`owners`]: the indices by which flows and counters know servers and masquerade rules;
//! - [`services`]: services and their servers;
//! - [`masquerade`]: masquerade rules and their sources.

mod addresses;
mod hops;
mod masquerade;
mod owners;
mod services;
mod settings;

use std::{collections::HashSet, net::IpAddr, path::Path};

use aya::maps::MapError;
use lbha_common::{
    addr::{Be32, Be128},
    limits::{MAX_BACKENDS, MAX_MASQUERADES, MAX_SERVICES},
};

use self::{
    addresses::Addresses,
    hops::Hops,
    masquerade::Masquerades,
    owners::{Owner, Owners},
    services::{FamilyServices, Services},
    settings::Settings,
};
use super::{
    desired::{Desired, Route, ServiceId},
    family::Family,
    tables::{CommonTables, FamilyTables},
};
use crate::net::IpPrefix;

pub use self::owners::BackendKey;

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot write map {map}")]
    Map { map: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("more than {MAX_SERVICES} services")]
    Services,
    #[error(
        "more than {MAX_BACKENDS} servers over all services, counting those whose connections have not ended yet"
    )]
    Backends,
    #[error(
        "more than {MAX_MASQUERADES} masquerade rules over IPv{0}, counting those whose connections have not ended yet"
    )]
    Masquerades(u8),
    #[error("{vip} and its server {server} are of different families")]
    Families { vip: IpAddr, server: IpAddr },
}

/// Something that was changed, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    ServiceAdded(ServiceId),
    ServiceChanged(ServiceId),
    ServiceRemoved(ServiceId),
    /// A masquerade rule of one family, by its sources, with its external addresses; `None` when it is removed.
    Masquerade(Vec<IpPrefix>, Option<Vec<IpAddr>>),
    /// The MAC address behind a prefix, `None` when it is not known any more.
    Hop(IpPrefix, Option<[u8; 6]>),
    Route(IpPrefix, Option<Route>),
    /// There was no index left for the next hop of this prefix.
    NoRoom(IpPrefix),
}

/// Indices that flows and bindings refer to, as a sweep has found them.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    /// Number of the sweep, from 1.
    pub sweep: u64,
    /// Servers and masquerade rules.
    pub owners: HashSet<u16>,
    pub v4: FamilyInUse,
    pub v6: FamilyInUse,
}

/// The indices of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyInUse {
    pub hops: HashSet<u16>,
    /// Masquerade rules, by bindings.
    pub rules: HashSet<u16>,
}

/// A masquerade rule of one family that flows may refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasqueradeOwner {
    /// Index of its counters.
    pub owner: u32,
    /// Those that it was last asked for with; none when a daemon before has left the rule without.
    pub sources: Vec<IpPrefix>,
    /// No longer configured.
    pub retired: bool,
}

/// The writer of the maps: keeps what it has written, so that an unchanged entry costs nothing.
pub struct Applier {
    settings: Settings,
    owners: Owners,
    services: Services,
    v4: OfFamily<Be32>,
    v6: OfFamily<Be128>,
}

/// The part of one family.
struct OfFamily<A: Family> {
    hops: Hops<A>,
    addresses: Addresses<A>,
    services: FamilyServices<A>,
    masquerades: Masquerades<A>,
}

impl Applier {
    /// Opens the maps below the directory of a layout version and takes over what they hold.
    pub fn open(root: &Path) -> Result<Self, MapError> {
        let CommonTables { slots, turns, devices, devices_mb, interfaces, settings, backend_stats } =
            CommonTables::open(root)?;
        let mut owners = Owners::new(backend_stats);
        let mut services = Services::new(slots, turns);
        Ok(Self {
            settings: Settings::new(devices, devices_mb, interfaces, settings),
            v4: OfFamily::adopt(root, &mut services, &mut owners)?,
            v6: OfFamily::adopt(root, &mut services, &mut owners)?,
            owners,
            services,
        })
    }

    /// Prefixes that are no longer asked for but that flows may refer to: `Desired::lingering` should say where they lead now.
    pub fn lingering_prefixes(&self) -> Vec<IpPrefix> {
        self.v4.hops.lingering().chain(self.v6.hops.lingering()).collect()
    }

    /// Index of a server of a service, to read its counters by.
    pub fn backend_id(&self, key: &BackendKey) -> Option<u32> {
        self.owners.get(&Owner::Server(*key))
    }

    /// Servers that are no longer configured and whose connections have not ended.
    pub fn retired_backends(&self) -> impl Iterator<Item = (&BackendKey, u32)> {
        self.owners.retired_servers()
    }

    /// The masquerade rules, those included whose connections have not ended.
    pub fn masquerade_owners(&self) -> Vec<MasqueradeOwner> {
        self.v4.masquerades.owners().chain(self.v6.masquerades.owners()).collect()
    }

    /// Writes what differs. `sweep` is the number of the sweep that is complete or under way.
    pub fn apply(&mut self, desired: &Desired, sweep: u64) -> Result<Vec<Change>, ApplyError> {
        let mut changes = Vec::new();
        let Self { settings, owners, services, v4, v6 } = self;
        settings.write(desired)?;
        v4.prepare(desired, sweep, &mut changes)?;
        v6.prepare(desired, sweep, &mut changes)?;
        services.write(&mut v4.services, &v4.hops, owners, desired, &mut changes)?;
        services.write(&mut v6.services, &v6.hops, owners, desired, &mut changes)?;
        v4.masquerades.write(desired, sweep, owners, &mut changes)?;
        v6.masquerades.write(desired, sweep, owners, &mut changes)?;

        v4.services.remove(desired, &mut changes)?;
        v6.services.remove(desired, &mut changes)?;
        v4.addresses.remove(desired)?;
        v6.addresses.remove(desired)?;
        settings.finish(desired)?;
        services.retire(desired, sweep);
        owners.retire(sweep, |owner| match owner {
            Owner::Server(key) => desired.services.get(&key.service).is_some_and(|service| {
                service.servers.iter().any(|s| (s.address, s.port) == (key.address, key.port))
            }),
            Owner::Rule4(index) => v4.masquerades.is_wanted(*index),
            Owner::Rule6(index) => v6.masquerades.is_wanted(*index),
        });
        Ok(changes)
    }

    /// After a sweep of the flow tables: gives back the indices that nothing refers to.
    pub fn release(&mut self, in_use: &InUse) -> Result<(), ApplyError> {
        let Self { settings: _, owners, services, v4, v6 } = self;
        v4.hops.release(in_use.sweep, &in_use.v4.hops)?;
        v6.hops.release(in_use.sweep, &in_use.v6.hops)?;
        // A rule refers to its owner, so it goes first; bindings refer to it, and flows to its owner.
        let mut held = v4.masquerades.release(in_use, &in_use.v4.rules)?;
        held.extend(v6.masquerades.release(in_use, &in_use.v6.rules)?);
        let used = |id: u32| in_use.owners.contains(&(id as u16)) || held.contains(&id);
        for (owner, id) in owners.release(in_use.sweep, used) {
            if let Owner::Server(key) = owner {
                v4.services.forget(&key, id, owners)?;
                v6.services.forget(&key, id, owners)?;
            }
        }
        services.release(in_use.sweep, |id| v4.services.uses(id) || v6.services.uses(id));
        Ok(())
    }
}

impl<A: Family> OfFamily<A> {
    /// Opens the family's maps and takes over what a daemon before has left in them.
    fn adopt(root: &Path, common: &mut Services, owners: &mut Owners) -> Result<Self, MapError> {
        let FamilyTables {
            services,
            servers,
            addresses,
            backends,
            next_hops,
            routes,
            masquerade,
            rules,
            error_sources,
        } = FamilyTables::open(root)?;
        Ok(Self {
            hops: Hops::adopt(next_hops, routes)?,
            addresses: Addresses::adopt(addresses, error_sources)?,
            services: FamilyServices::adopt(services, servers, backends, common, owners)?,
            masquerades: Masquerades::adopt(masquerade, rules, owners)?,
        })
    }

    /// What services and masquerade rules refer to.
    fn prepare(
        &mut self,
        desired: &Desired,
        sweep: u64,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        self.hops.write(desired, sweep, changes)?;
        self.hops.write_routes(desired, changes)?;
        self.addresses.add(desired)
    }
}

fn map_error<E: std::error::Error + Send + Sync + 'static>(
    map: &str,
) -> impl FnOnce(E) -> ApplyError {
    move |source| ApplyError::Map { map: map.to_owned(), source: Box::new(source) }
}

/// The same for a map of which each family has one.
fn map_error_of<A: Family, E: std::error::Error + Send + Sync + 'static>(
    map: &str,
) -> impl FnOnce(E) -> ApplyError {
    move |source| ApplyError::Map { map: format!("{map}{}", A::VERSION), source: Box::new(source) }
}

/// Removing what is not there is what was wanted.
fn ignore_absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}
