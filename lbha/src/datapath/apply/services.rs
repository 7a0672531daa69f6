//! Services and the servers behind them.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use aya::maps::{Array, HashMap as BpfHashMap, MapData, MapError, of_maps::ArrayOfMaps};
use lbha_common::{
    addr::Be16,
    limits::MAX_SERVICES,
    nexthop::UNREACHABLE,
    service::{Backend, Service, ServiceKey, backend_flag},
    wire::proto,
};

use super::{
    ApplyError, BackendKey, Change,
    hops::Hops,
    ignore_absent, map_error, map_error_of,
    owners::{Owner, Owners},
};
use crate::{
    datapath::{
        desired::{self, Desired, ServiceId},
        family::Family,
        ids::Ids,
        tables::List,
    },
    net::IpPrefix,
};

/// `BPF_F_INNER_MAP`: slot tables of different sizes may stand in one outer map.
const INNER_MAP: u32 = 0x1000;

/// Stands for the protocol of a service whose name is lost.
const ANY_PROTOCOL: u8 = 0;

/// What services of both families have in common: indices, slot tables, turns.
pub(super) struct Services {
    slots: ArrayOfMaps<MapData, Array<MapData, u32>>,
    turns: Array<MapData, u64>,
    ids: Ids<ServiceId>,
    written_slots: HashMap<u32, Vec<u32>>,
}

/// Services and servers of one family.
pub(super) struct FamilyServices<A: Family> {
    services: BpfHashMap<MapData, ServiceKey<A>, Service>,
    servers: BpfHashMap<MapData, ServiceKey<A>, u32>,
    backends: List<Backend<A>>,
    written: HashMap<ServiceId, Service>,
    written_servers: BTreeSet<(IpAddr, u16, u8)>,
    written_backends: HashMap<u32, Backend<A>>,
}

impl Services {
    pub fn new(
        slots: ArrayOfMaps<MapData, Array<MapData, u32>>,
        turns: Array<MapData, u64>,
    ) -> Self {
        Self { slots, turns, ids: Ids::new(0, MAX_SERVICES as u32), written_slots: HashMap::new() }
    }

    /// Writes the services of one family. Those that are not asked for any more go with [`FamilyServices::remove`].
    pub fn write<A: Family>(
        &mut self,
        family: &mut FamilyServices<A>,
        hops: &Hops<A>,
        owners: &mut Owners,
        desired: &Desired,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        for (id, service) in &desired.services {
            let Some(key) = service_key::<A>(id) else { continue };
            let (number, new) = self.ids.acquire(id).ok_or(ApplyError::Services)?;
            if new {
                self.turns.set(number, 0, 0).map_err(map_error("TURNS"))?;
            }
            let mut backends = Vec::with_capacity(service.servers.len());
            for server in &service.servers {
                backends.push(family.write_server(id, number as u16, server, hops, owners)?);
            }
            let mut slots = vec![service.slots.len() as u32];
            slots.extend(service.slots.iter().map(|&index| backends[usize::from(index)]));
            let swapped = self.write_slots(number, slots)?;

            let entry =
                Service { id: number as u16, pick: service.pick, _pad: 0, seed: service.seed };
            let before = family.written.get(id);
            if before.is_none() {
                changes.push(Change::ServiceAdded(*id));
            } else if swapped || before != Some(&entry) {
                changes.push(Change::ServiceChanged(*id));
            }
            if before != Some(&entry) {
                family.services.insert(key, entry, 0).map_err(map_error_of::<A, _>("SERVICES"))?;
                family.written.insert(*id, entry);
            }
        }
        Ok(())
    }

    /// Swaps a service's slot table: packets see the old one or the new one.
    fn write_slots(&mut self, service: u32, slots: Vec<u32>) -> Result<bool, ApplyError> {
        if self.written_slots.get(&service) == Some(&slots) {
            return Ok(false);
        }
        let mut write = || {
            let mut table = Array::create(slots.len() as u32, INNER_MAP)?;
            for (index, value) in slots.iter().enumerate() {
                table.set(index as u32, value, 0)?;
            }
            self.slots.set(service, &table, 0)
        };
        write().map_err(map_error("SLOTS"))?;
        self.written_slots.insert(service, slots);
        Ok(true)
    }

    pub fn retire(&mut self, desired: &Desired, sweep: u64) {
        self.ids.retain(sweep, |id| desired.services.contains_key(id));
    }

    /// Gives back the indices of services that are gone, servers and all.
    pub fn release(&mut self, sweep: u64, used: impl Fn(u32) -> bool) {
        for (_, id) in self.ids.release(sweep, used) {
            self.written_slots.remove(&id);
        }
    }
}

impl<A: Family> FamilyServices<A> {
    /// Takes over what the maps hold.
    pub fn adopt(
        services: BpfHashMap<MapData, ServiceKey<A>, Service>,
        servers: BpfHashMap<MapData, ServiceKey<A>, u32>,
        backends: List<Backend<A>>,
        common: &mut Services,
        owners: &mut Owners,
    ) -> Result<Self, MapError> {
        let mut written = HashMap::new();
        let mut service_of = HashMap::new();
        for entry in services.iter() {
            let (key, service) = entry?;
            let id = ServiceId { vip: key.addr.ip(), port: key.port.get(), protocol: key.proto };
            let number = service.id.into();
            common.ids.adopt(id, number);
            service_of.insert(service.id, id);
            written.insert(id, service);
            // Where it can't be read (inner maps are opened by id, which takes CAP_SYS_ADMIN) it is written once more.
            if let Ok(table) = common.slots.get(&number, 0)
                && let Ok(slots) = table.iter().collect()
            {
                common.written_slots.insert(number, slots);
            }
        }
        let mut written_backends = HashMap::new();
        for (id, backend) in backends.all(|backend| backend.flags & backend_flag::VALID != 0)? {
            // A service that is gone leaves servers without a name; a sweep gives their indices back, and then its own.
            let service = *service_of.entry(backend.service).or_insert_with(|| {
                let vip = A::default().ip();
                let gone = ServiceId { vip, port: backend.service, protocol: ANY_PROTOCOL };
                common.ids.adopt(gone, backend.service.into());
                gone
            });
            let address = backend.addr.ip();
            let key = BackendKey { service, address, port: backend.port.get() };
            owners.adopt(Owner::Server(key), id);
            written_backends.insert(id, backend);
        }
        let mut written_servers = BTreeSet::new();
        for key in servers.keys() {
            let key = key?;
            written_servers.insert((key.addr.ip(), key.port.get(), key.proto));
        }
        Ok(Self { services, servers, backends, written, written_servers, written_backends })
    }

    /// Gives the server's index.
    fn write_server(
        &mut self,
        id: &ServiceId,
        service: u16,
        server: &desired::Server,
        hops: &Hops<A>,
        owners: &mut Owners,
    ) -> Result<u32, ApplyError> {
        let (addr, port) = (server.address, server.port);
        let key = server_key::<A>(addr, port, id.protocol)
            .ok_or(ApplyError::Families { vip: id.vip, server: addr })?;
        let owner = Owner::Server(BackendKey { service: *id, address: addr, port });
        let number = owners.acquire(&owner)?;
        let (first, last) = server.source_ports;
        let entry = Backend {
            addr: key.addr,
            snat: server.source.and_then(A::of).unwrap_or_default(),
            port: key.port,
            next_hop: hops.id(&IpPrefix::host(addr)).unwrap_or(UNREACHABLE) as u16,
            port_first: first,
            port_count: last.saturating_sub(first).saturating_add(1),
            service,
            flags: backend_flag::VALID
                | if server.keep_client { backend_flag::KEEP_CLIENT } else { 0 },
            _pad: 0,
        };
        if self.written_backends.get(&number) != Some(&entry) {
            self.backends
                .entries
                .set(number, entry, 0)
                .map_err(map_error_of::<A, _>("BACKENDS"))?;
            self.written_backends.insert(number, entry);
        }
        if self.written_servers.insert((addr, port, id.protocol)) {
            self.servers.insert(key, number, 0).map_err(map_error_of::<A, _>("SERVERS"))?;
        }
        Ok(number)
    }

    /// Removes the services that are not asked for any more. Their servers stay until no connection uses them.
    pub fn remove(
        &mut self,
        desired: &Desired,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        let gone: Vec<ServiceId> =
            self.written.keys().filter(|id| !desired.services.contains_key(id)).copied().collect();
        for id in gone {
            if let Some(key) = service_key::<A>(&id) {
                ignore_absent(self.services.remove(&key))
                    .map_err(map_error_of::<A, _>("SERVICES"))?;
            }
            self.written.remove(&id);
            changes.push(Change::ServiceRemoved(id));
        }
        Ok(())
    }

    /// Whether a server of this service has its index yet.
    pub fn uses(&self, service: u32) -> bool {
        self.written_backends.values().any(|backend| u32::from(backend.service) == service)
    }

    /// A server has lost its index. Its tuple is nobody's business any more, unless another service has the same server.
    pub fn forget(&mut self, key: &BackendKey, id: u32, owners: &Owners) -> Result<(), ApplyError> {
        if self.written_backends.remove(&id).is_none() {
            return Ok(());
        }
        self.backends
            .entries
            .set(id, Backend::default(), 0)
            .map_err(map_error_of::<A, _>("BACKENDS"))?;
        let BackendKey { address, port, .. } = *key;
        for protocol in [proto::TCP, proto::UDP] {
            let concerns = |key: &BackendKey| {
                (key.address, key.port) == (address, port)
                    && [protocol, ANY_PROTOCOL].contains(&key.service.protocol)
            };
            if concerns(key)
                && !owners.servers().any(concerns)
                && self.written_servers.remove(&(address, port, protocol))
                && let Some(key) = server_key::<A>(address, port, protocol)
            {
                ignore_absent(self.servers.remove(&key))
                    .map_err(map_error_of::<A, _>("SERVERS"))?;
            }
        }
        Ok(())
    }
}

fn service_key<A: Family>(id: &ServiceId) -> Option<ServiceKey<A>> {
    server_key(id.vip, id.port, id.protocol)
}

fn server_key<A: Family>(addr: IpAddr, port: u16, proto: u8) -> Option<ServiceKey<A>> {
    Some(ServiceKey::new(A::of(addr)?, Be16::new(port), proto))
}
