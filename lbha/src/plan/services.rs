//! The plan's services: those of the configuration, and its forwards, each of which is a service with one server.

use std::net::IpAddr;

use lbha_common::{service::pick, wire::proto};

use super::Planner;
use crate::{
    config::{Forward, Mode, Pool, Protocol, Scheduler, Service as ServiceConfig},
    datapath::desired::{Server, Service, ServiceId},
    lb,
    net::IpPrefix,
};

/// How the datapath knows a service.
pub fn service_id(service: &ServiceConfig) -> ServiceId {
    ServiceId { vip: service.vip, port: service.port, protocol: number(service.protocol) }
}

/// How the datapath knows a forward.
pub fn forward_id(forward: &Forward) -> ServiceId {
    let protocol = number(forward.protocol);
    ServiceId { vip: forward.address.ip(), port: forward.address.port(), protocol }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => proto::TCP,
        Protocol::Udp => proto::UDP,
    }
}

impl Planner<'_> {
    pub(super) fn service(&mut self, service: &ServiceConfig) {
        let Some(pool) = self.config.pool(&service.pool) else { return };
        let mut servers = Vec::new();
        for server in &pool.servers {
            let name = format!("{}/{}", pool.name, server.name);
            self.server_hop(server.address, &format!("server {name}"));
            let port = server.port.unwrap_or(service.port);
            let server = self.server(server.address, port, service.mode == Mode::Nat);
            if server.source.is_none() && !server.keep_client {
                self.warn(format!(
                    "no address of ours on the side of {name}: connections to it are refused"
                ));
            }
            servers.push(server);
        }
        let weights = self.weights(pool, &servers);
        let identities: Vec<u64> =
            pool.servers.iter().map(|server| lb::name_hash(&server.name)).collect();
        let (pick, slots) = match service.scheduler {
            Scheduler::Rr => (pick::COUNTER, lb::round_robin(&weights)),
            Scheduler::Wrr => (pick::COUNTER, lb::weighted_round_robin(&weights)),
            Scheduler::Maglev => (pick::CONNECTION, lb::maglev(&identities, &weights)),
            Scheduler::Source => (pick::SOURCE, lb::maglev(&identities, &weights)),
        };
        let seed = lb::name_hash(&service.name) as u32;
        let id = service_id(service);
        self.plan.desired.services.insert(id, Service { pick, seed, servers, slots });
    }

    /// The host sees the clients' own addresses: it is behind this gateway by definition.
    pub(super) fn forward(&mut self, forward: &Forward) {
        let label = forward.name.clone().unwrap_or_else(|| forward.address.to_string());
        self.server_hop(forward.to.ip(), &format!("the host of forward {label}"));
        let server = self.server(forward.to.ip(), forward.to.port(), true);
        let service =
            Service { pick: pick::COUNTER, seed: 0, servers: vec![server], slots: vec![0] };
        self.plan.desired.services.insert(forward_id(forward), service);
    }

    fn server(&self, address: IpAddr, port: u16, keep_client: bool) -> Server {
        let ports = self.config.datapath.fullnat_ports;
        let source = self.source_for(address);
        Server { address, port, keep_client, source, source_ports: (ports.first, ports.last) }
    }

    /// A server that can't be reached takes no connections from those that can. If none can be, each keeps its part, and
    /// the packets say why they are dropped.
    fn weights(&self, pool: &Pool, servers: &[Server]) -> Vec<u16> {
        let configured = || pool.servers.iter().map(|server| server.weight);
        let reachable: Vec<u16> = configured()
            .zip(servers)
            .map(|(weight, server)| if self.is_reachable(server) { weight } else { 0 })
            .collect();
        if reachable.iter().any(|&weight| weight > 0) { reachable } else { configured().collect() }
    }

    fn is_reachable(&self, server: &Server) -> bool {
        let hop = self.plan.desired.hops.get(&IpPrefix::host(server.address));
        hop.is_some_and(|hop| hop.dmac.is_some()) && (server.source.is_some() || server.keep_client)
    }
}
