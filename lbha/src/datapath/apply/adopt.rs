//! Takes over what the maps of a daemon before this one hold.

use std::{collections::HashMap, net::Ipv4Addr};

use aya::maps::MapError;
use lbha_common::{
    limits::{MAX_BACKENDS, MAX_NEXT_HOPS},
    nexthop::next_hop_flag,
    service::backend_flag,
};

use super::{ANY_PROTOCOL, Applier, BackendKey};
use crate::datapath::desired::ServiceId;

impl Applier {
    /// Reads back what a daemon before this one has written.
    pub(super) fn adopt(&mut self) -> Result<(), MapError> {
        let mut service_of = HashMap::new();
        for entry in self.tables.services.iter() {
            let (key, service) = entry?;
            let id = ServiceId { vip: key.addr.into(), port: key.port.get(), protocol: key.proto };
            self.service_ids.adopt(id, service.id.into());
            service_of.insert(service.id, id);
            self.services.insert(id, service);
            // Where it can't be read (inner maps are opened by id, which takes CAP_SYS_ADMIN) it is written once more.
            if let Ok(table) = self.tables.slots.get(&service.id.into(), 0)
                && let Ok(slots) = table.iter().collect()
            {
                self.slots.insert(service.id.into(), slots);
            }
        }
        for id in 0..MAX_BACKENDS as u32 {
            let backend = self.tables.backends.get(&id, 0)?;
            if backend.flags & backend_flag::VALID == 0 {
                continue;
            }
            // A service that is gone leaves servers without a name; a sweep gives their indices back, and then its own.
            let service = service_of.get(&backend.service).copied().unwrap_or_else(|| {
                let gone = ServiceId {
                    vip: Ipv4Addr::UNSPECIFIED,
                    port: backend.service,
                    protocol: ANY_PROTOCOL,
                };
                self.service_ids.adopt(gone, backend.service.into());
                gone
            });
            let key =
                BackendKey { service, address: backend.addr.into(), port: backend.port.get() };
            self.backend_ids.adopt(key, id);
            self.backends.insert(id, backend);
        }
        for id in 1..MAX_NEXT_HOPS as u32 {
            let hop = self.tables.next_hops.get(&id, 0)?;
            if hop.flags & next_hop_flag::USED != 0 {
                self.hop_ids.adopt((hop.prefix.into(), hop.prefix_len), id);
                self.hops.insert(id, hop);
            }
        }
        for entry in self.tables.routes.iter() {
            let (key, value) = entry?;
            self.routes.insert((key.data().into(), key.prefix_len() as u8), value);
        }
        for entry in self.tables.servers.keys() {
            let key = entry?;
            self.servers.insert((key.addr.into(), key.port.get(), key.proto));
        }
        for entry in self.tables.addresses.iter() {
            let (key, value) = entry?;
            self.addresses.insert(key.into(), value);
        }
        Ok(())
    }
}
