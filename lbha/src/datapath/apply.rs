//! Writes the difference between what the maps hold and what they should.
//!
//! What a new entry refers to is written before it, and what nothing refers to any more is removed last, so that a packet
//! at any moment sees the old state or the new one, for every connection.

mod adopt;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::Ipv4Addr,
    path::Path,
};

use aya::maps::{Array, MapError, PerCpuValues, lpm_trie::Key};
use lbha_common::{
    addr::{Be16, Be32},
    limits::{MAX_BACKENDS, MAX_NEXT_HOPS, MAX_SERVICES},
    nexthop::{Interface, NextHop4, ON_LINK, Tag, UNREACHABLE, next_hop_flag},
    service::{Backend4, Service, ServiceKey4, Settings, address, backend_flag},
    stats::BackendStats,
    wire::{VLAN_ID, proto},
};

use super::{
    desired::{self, Desired, Hop, Prefix, Route, ServiceId},
    ids::Ids,
    tables::Tables,
};

/// `BPF_F_INNER_MAP`: slot tables of different sizes may stand in one outer map.
const INNER_MAP: u32 = 0x1000;

/// Stands for the protocol of a service whose name is lost.
const ANY_PROTOCOL: u8 = 0;

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot write map {map}")]
    Map { map: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("more than {MAX_SERVICES} services")]
    Services,
    #[error(
        "more than {MAX_BACKENDS} servers over all services, counting those whose connections have not ended yet"
    )]
    Backends,
}

/// Something that was changed, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    ServiceAdded(ServiceId),
    ServiceChanged(ServiceId),
    ServiceRemoved(ServiceId),
    /// The MAC address behind a prefix, `None` when it is not known any more.
    Hop(Prefix, Option<[u8; 6]>),
    Route(Prefix, Option<Route>),
    /// There was no index left for the next hop of this prefix.
    NoRoom(Prefix),
}

/// A server of a service, as flows know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    pub service: ServiceId,
    pub address: Ipv4Addr,
    pub port: u16,
}

/// The writer of the maps: keeps what it has written, so that an unchanged entry costs nothing.
pub struct Applier {
    tables: Tables,
    service_ids: Ids<ServiceId>,
    backend_ids: Ids<BackendKey>,
    hop_ids: Ids<Prefix>,
    services: HashMap<ServiceId, Service>,
    slots: HashMap<u32, Vec<u32>>,
    backends: HashMap<u32, Backend4>,
    hops: HashMap<u32, NextHop4>,
    routes: BTreeMap<Prefix, u32>,
    servers: BTreeSet<(Ipv4Addr, u16, u8)>,
    addresses: BTreeMap<Ipv4Addr, u32>,
    interfaces: [Option<(Interface, u32)>; 2],
    settings: Option<Settings>,
}

/// Indices that flows refer to, as a sweep has found them.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    /// Number of the sweep, from 1.
    pub sweep: u64,
    pub backends: HashSet<u16>,
    pub hops: HashSet<u16>,
}

fn map_error<E: std::error::Error + Send + Sync + 'static>(
    map: &'static str,
) -> impl FnOnce(E) -> ApplyError {
    move |source| ApplyError::Map { map, source: Box::new(source) }
}

impl Applier {
    /// Opens the maps below the directory of a layout version and takes over what they hold.
    pub fn open(root: &Path) -> Result<Self, MapError> {
        let tables = Tables::open(root)?;
        let mut applier = Self {
            tables,
            service_ids: Ids::new(0, MAX_SERVICES as u32),
            backend_ids: Ids::new(0, MAX_BACKENDS as u32),
            // 0 is "unreachable"
            hop_ids: Ids::new(1, MAX_NEXT_HOPS as u32),
            services: HashMap::new(),
            slots: HashMap::new(),
            backends: HashMap::new(),
            hops: HashMap::new(),
            routes: BTreeMap::new(),
            servers: BTreeSet::new(),
            addresses: BTreeMap::new(),
            interfaces: [None, None],
            settings: None,
        };
        applier.adopt()?;
        Ok(applier)
    }

    /// Prefixes that are no longer asked for but that flows may refer to: `Desired::lingering` should say where they lead now.
    pub fn lingering_prefixes(&self) -> Vec<Prefix> {
        self.hop_ids.retired().map(|(prefix, _)| *prefix).collect()
    }

    /// Index of a server of a service, to read its counters by.
    pub fn backend_id(&self, key: &BackendKey) -> Option<u32> {
        self.backend_ids.get(key)
    }

    /// Servers that are no longer configured and whose connections have not ended.
    pub fn retired_backends(&self) -> impl Iterator<Item = (&BackendKey, u32)> {
        self.backend_ids.retired()
    }

    /// Writes what differs.
    pub fn apply(&mut self, desired: &Desired, sweep: u64) -> Result<Vec<Change>, ApplyError> {
        let mut changes = Vec::new();
        self.write_interfaces(desired)?;
        self.write_hops(desired, sweep, &mut changes)?;
        self.write_routes(desired, &mut changes)?;
        self.write_addresses(desired)?;
        self.write_services(desired, &mut changes)?;
        self.remove_services(desired, sweep, &mut changes)?;
        Ok(changes)
    }

    fn write_interfaces(&mut self, desired: &Desired) -> Result<(), ApplyError> {
        let settings = Settings { server_side: desired.server_side.into(), ..Settings::default() };
        if self.settings != Some(settings) {
            self.tables.settings.set(0, settings, 0).map_err(map_error("SETTINGS"))?;
            self.settings = Some(settings);
        }
        for (side, wanted) in desired.interfaces.iter().enumerate() {
            let mut interface = Interface {
                mac: wanted.mac,
                tags: wanted.vlans.len() as u8,
                ..Interface::default()
            };
            for (slot, tag) in interface.vlan.iter_mut().zip(&wanted.vlans) {
                *slot = Be16::from_raw(tag.tci.raw() & VLAN_ID);
            }
            if self.interfaces[side] == Some((interface, wanted.ifindex)) {
                continue;
            }
            // Index 0 empties the slot.
            for (name, devices) in
                [("DEVICES", &mut self.tables.devices), ("DEVICES_MB", &mut self.tables.devices_mb)]
            {
                devices.set(side as u32, wanted.ifindex, None, 0).map_err(map_error(name))?;
            }
            self.tables
                .interfaces
                .set(side as u32, interface, 0)
                .map_err(map_error("INTERFACES"))?;
            self.interfaces[side] = Some((interface, wanted.ifindex));
        }
        Ok(())
    }

    fn write_hops(
        &mut self,
        desired: &Desired,
        sweep: u64,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        self.hop_ids.retain(sweep, |prefix| desired.hops.contains_key(prefix));
        for (prefix, hop) in &desired.hops {
            match self.hop_ids.acquire(prefix) {
                Some((id, _)) => self.write_hop(id, *prefix, hop, changes)?,
                None => changes.push(Change::NoRoom(*prefix)),
            }
        }
        for (prefix, hop) in &desired.lingering {
            if let Some(id) = self.hop_ids.get(prefix) {
                self.write_hop(id, *prefix, hop, changes)?;
            }
        }
        Ok(())
    }

    fn write_hop(
        &mut self,
        id: u32,
        prefix: Prefix,
        hop: &Hop,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        let mut tag = [Tag::default(); 2];
        for (slot, wanted) in tag.iter_mut().zip(&hop.tags) {
            *slot = *wanted;
        }
        let valid = if hop.dmac.is_some() { next_hop_flag::VALID } else { 0 };
        let entry = NextHop4 {
            dmac: hop.dmac.unwrap_or_default(),
            flags: next_hop_flag::USED | valid,
            tags: hop.tags.len() as u8,
            smac: hop.smac,
            mtu: hop.mtu,
            tag,
            dev: hop.side,
            prefix_len: prefix.1,
            _pad: 0,
            prefix: prefix.0.into(),
            _tail: (),
        };
        let before = self.hops.get(&id);
        if before == Some(&entry) {
            return Ok(());
        }
        if before.is_none_or(|before| (before.dmac, before.flags) != (entry.dmac, entry.flags)) {
            changes.push(Change::Hop(prefix, hop.dmac));
        }
        self.tables.next_hops.set(id, entry, 0).map_err(map_error("NEXT_HOPS"))?;
        self.hops.insert(id, entry);
        Ok(())
    }

    fn write_routes(
        &mut self,
        desired: &Desired,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        let wanted: BTreeMap<Prefix, (Route, u32)> = desired
            .routes
            .iter()
            .filter_map(|(prefix, route)| {
                let value = match route {
                    Route::Hop => self.hop_ids.get(prefix)?,
                    Route::OnLink => ON_LINK,
                    Route::Unreachable => UNREACHABLE,
                };
                Some((*prefix, (*route, value)))
            })
            .collect();
        for (prefix, (route, value)) in &wanted {
            if self.routes.get(prefix) != Some(value) {
                self.tables
                    .routes
                    .insert(&lpm_key(prefix), value, 0)
                    .map_err(map_error("ROUTES4"))?;
                changes.push(Change::Route(*prefix, Some(*route)));
            }
        }
        for prefix in self.routes.keys().filter(|prefix| !wanted.contains_key(prefix)) {
            ignore_absent(self.tables.routes.remove(&lpm_key(prefix)))
                .map_err(map_error("ROUTES4"))?;
            changes.push(Change::Route(*prefix, None));
        }
        self.routes = wanted.into_iter().map(|(prefix, (_, value))| (prefix, value)).collect();
        Ok(())
    }

    fn write_addresses(&mut self, desired: &Desired) -> Result<(), ApplyError> {
        let mut wanted: BTreeMap<Ipv4Addr, u32> =
            desired.local.iter().map(|addr| (*addr, address::LOCAL)).collect();
        for service in desired.services.keys() {
            *wanted.entry(service.vip).or_default() |= address::VIP;
        }
        for (addr, what) in &wanted {
            if self.addresses.get(addr) != Some(what) {
                self.tables
                    .addresses
                    .insert(Be32::from(*addr), what, 0)
                    .map_err(map_error("ADDRESSES4"))?;
            }
        }
        for addr in self.addresses.keys().filter(|addr| !wanted.contains_key(addr)) {
            ignore_absent(self.tables.addresses.remove(&Be32::from(*addr)))
                .map_err(map_error("ADDRESSES4"))?;
        }
        self.addresses = wanted;
        Ok(())
    }

    fn write_services(
        &mut self,
        desired: &Desired,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        for (id, service) in &desired.services {
            let (number, new) = self.service_ids.acquire(id).ok_or(ApplyError::Services)?;
            if new {
                self.tables.turns.set(number, 0, 0).map_err(map_error("TURNS"))?;
            }
            let mut backends = Vec::with_capacity(service.servers.len());
            for server in &service.servers {
                backends.push(self.write_backend(id, number as u16, server)?);
            }
            let mut slots = vec![service.slots.len() as u32];
            slots.extend(service.slots.iter().map(|&index| backends[usize::from(index)]));
            let swapped = self.write_slots(number, slots)?;

            let entry =
                Service { id: number as u16, pick: service.pick, _pad: 0, seed: service.seed };
            let before = self.services.get(id);
            if before.is_none() {
                changes.push(Change::ServiceAdded(*id));
            } else if swapped || before != Some(&entry) {
                changes.push(Change::ServiceChanged(*id));
            }
            if before != Some(&entry) {
                self.tables
                    .services
                    .insert(service_key(id), entry, 0)
                    .map_err(map_error("SERVICES4"))?;
                self.services.insert(*id, entry);
            }
        }
        Ok(())
    }

    fn write_backend(
        &mut self,
        id: &ServiceId,
        service: u16,
        server: &desired::Server,
    ) -> Result<u32, ApplyError> {
        let key = BackendKey { service: *id, address: server.address, port: server.port };
        let (number, new) = self.backend_ids.acquire(&key).ok_or(ApplyError::Backends)?;
        let (first, last) = server.source_ports;
        let entry = Backend4 {
            addr: server.address.into(),
            snat: server.source.map(Be32::from).unwrap_or_default(),
            port: Be16::new(server.port),
            next_hop: self.hop_ids.get(&(server.address, 32)).unwrap_or(UNREACHABLE) as u16,
            port_first: first,
            port_count: last.saturating_sub(first).saturating_add(1),
            service,
            flags: backend_flag::VALID
                | if server.keep_client { backend_flag::KEEP_CLIENT } else { 0 },
            _pad: 0,
        };
        if new {
            self.clear_stats(number)?;
        }
        if self.backends.get(&number) != Some(&entry) {
            self.tables.backends.set(number, entry, 0).map_err(map_error("BACKENDS"))?;
            self.backends.insert(number, entry);
        }
        let (addr, port, proto) = (server.address, server.port, id.protocol);
        if self.servers.insert((addr, port, proto)) {
            let key = server_key(addr, port, proto);
            self.tables.servers.insert(key, number, 0).map_err(map_error("SERVERS4"))?;
        }
        Ok(number)
    }

    fn clear_stats(&mut self, number: u32) -> Result<(), ApplyError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| MapError::IoError(error));
        let zero = cpus.and_then(|cpus| {
            PerCpuValues::try_from(vec![BackendStats::default(); cpus]).map_err(MapError::IoError)
        });
        zero.and_then(|zero| self.tables.backend_stats.set(number, zero, 0))
            .map_err(map_error("BACKEND_STATS"))
    }

    /// Swaps a service's slot table: packets see the old one or the new one.
    fn write_slots(&mut self, service: u32, slots: Vec<u32>) -> Result<bool, ApplyError> {
        if self.slots.get(&service) == Some(&slots) {
            return Ok(false);
        }
        let mut write = || {
            let mut table = Array::create(slots.len() as u32, INNER_MAP)?;
            for (index, value) in slots.iter().enumerate() {
                table.set(index as u32, value, 0)?;
            }
            self.tables.slots.set(service, &table, 0)
        };
        write().map_err(map_error("SLOTS"))?;
        self.slots.insert(service, slots);
        Ok(true)
    }

    fn remove_services(
        &mut self,
        desired: &Desired,
        sweep: u64,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        let gone: Vec<ServiceId> =
            self.services.keys().filter(|id| !desired.services.contains_key(id)).copied().collect();
        for id in gone {
            ignore_absent(self.tables.services.remove(&service_key(&id)))
                .map_err(map_error("SERVICES4"))?;
            self.services.remove(&id);
            changes.push(Change::ServiceRemoved(id));
        }
        self.service_ids.retain(sweep, |id| desired.services.contains_key(id));
        let wanted = |key: &BackendKey| {
            desired.services.get(&key.service).is_some_and(|service| {
                service.servers.iter().any(|s| (s.address, s.port) == (key.address, key.port))
            })
        };
        self.backend_ids.retain(sweep, wanted);
        Ok(())
    }

    /// After a sweep of the flow tables: gives back the indices that nothing refers to.
    pub fn release(&mut self, in_use: &InUse) -> Result<(), ApplyError> {
        let used = |set: &HashSet<u16>, id: u32| set.contains(&(id as u16));
        for (_, id) in self.hop_ids.release(in_use.sweep, |id| used(&in_use.hops, id)) {
            self.tables
                .next_hops
                .set(id, NextHop4::default(), 0)
                .map_err(map_error("NEXT_HOPS"))?;
            self.hops.remove(&id);
        }
        for (key, id) in self.backend_ids.release(in_use.sweep, |id| used(&in_use.backends, id)) {
            self.tables.backends.set(id, Backend4::default(), 0).map_err(map_error("BACKENDS"))?;
            self.backends.remove(&id);
            self.forget_server(&key)?;
        }
        let retained: Vec<u32> =
            self.backends.values().map(|backend| backend.service.into()).collect();
        for (_, id) in self.service_ids.release(in_use.sweep, |id| retained.contains(&id)) {
            self.slots.remove(&id);
        }
        Ok(())
    }

    /// The server's tuple is nobody's business any more, unless another service has the same server.
    fn forget_server(&mut self, key: &BackendKey) -> Result<(), ApplyError> {
        let BackendKey { address, port, .. } = *key;
        for protocol in [proto::TCP, proto::UDP] {
            let concerns = |key: &BackendKey| {
                (key.address, key.port) == (address, port)
                    && [protocol, ANY_PROTOCOL].contains(&key.service.protocol)
            };
            if concerns(key)
                && !self.backend_ids.keys().any(concerns)
                && self.servers.remove(&(address, port, protocol))
            {
                ignore_absent(self.tables.servers.remove(&server_key(address, port, protocol)))
                    .map_err(map_error("SERVERS4"))?;
            }
        }
        Ok(())
    }
}

pub fn service_key(id: &ServiceId) -> ServiceKey4 {
    server_key(id.vip, id.port, id.protocol)
}

fn server_key(addr: Ipv4Addr, port: u16, proto: u8) -> ServiceKey4 {
    ServiceKey4 { addr: addr.into(), port: Be16::new(port), proto, _pad: 0 }
}

fn lpm_key(prefix: &Prefix) -> Key<Be32> {
    Key::new(prefix.1.into(), prefix.0.into())
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
