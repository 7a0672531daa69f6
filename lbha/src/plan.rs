//! From the configuration and the state of the network to what the maps should hold. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use lbha_common::{addr::Be16, flow::side, nexthop::Tag, service::pick, wire::proto};

use crate::{
    config::{Config, Mode, Pool, Protocol, Scheduler, Service as ServiceConfig},
    datapath::desired::{Desired, Hop, Interface, Prefix, Route, Server, Service, ServiceId},
    lb,
    net::{
        Fib, InterfaceError, IpPrefix, NetState, Port, RouteTarget, Side, Watch, forwarding,
        resolve_interface,
    },
};

/// The interfaces of the configuration, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    pub public: Port,
    /// The same as `public` when there is one interface only.
    pub private: Port,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error(
        "{public} and {private} are the same device ({device}) with different VLANs, which is not supported"
    )]
    SharedDevice { public: String, private: String, device: String },
}

/// What follows from a configuration on this network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub desired: Desired,
    /// Neighbours to keep resolved: servers and gateways.
    pub watched: BTreeSet<Watch>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
    /// Those of the warnings that an answer to ARP may end any moment.
    pub awaited: BTreeSet<String>,
}

impl Ports {
    pub fn find(config: &Config, state: &NetState) -> Result<Self, PlanError> {
        let public = resolve_interface(state, &config.interfaces.public)?;
        let private = resolve_interface(state, &config.interfaces.private)?;
        if public.attach_ifindex == private.attach_ifindex && public.vlan != private.vlan {
            return Err(PlanError::SharedDevice {
                public: public.name,
                private: private.name,
                device: public.attach_name,
            });
        }
        Ok(Self { public, private })
    }

    /// Whether one interface is both sides.
    pub fn one_armed(&self) -> bool {
        self.public.attach_ifindex == self.private.attach_ifindex
    }

    fn of(&self, side: Side) -> &Port {
        match side {
            Side::Public => &self.public,
            Side::Private => &self.private,
        }
    }
}

/// Computes the plan. `lingering` are prefixes that flows still refer to
/// ([`crate::datapath::apply::Applier::lingering_prefixes`]).
pub fn plan(config: &Config, state: &NetState, ports: &Ports, lingering: &[Prefix]) -> Plan {
    let fib = forwarding(state, &ports.public, &ports.private);
    let mut planner = Planner { state, ports, fib: &fib, plan: Plan::default() };
    planner.interfaces();
    planner.routes();
    for service in &config.services {
        planner.service(config, service);
    }
    for &(addr, len) in lingering {
        if let Some(hop) = planner.hop_to(addr) {
            planner.plan.desired.lingering.insert((addr, len), hop);
        }
    }
    planner.plan.desired.local = fib.local.iter().copied().filter_map(v4).collect();
    planner.plan
}

pub fn service_id(service: &ServiceConfig) -> ServiceId {
    let protocol = match service.protocol {
        Protocol::Tcp => proto::TCP,
        Protocol::Udp => proto::UDP,
    };
    ServiceId { vip: service.vip, port: service.port, protocol }
}

struct Planner<'a> {
    state: &'a NetState,
    ports: &'a Ports,
    fib: &'a Fib,
    plan: Plan,
}

impl Planner<'_> {
    fn interfaces(&mut self) {
        let interface = |port: &Port| Interface {
            ifindex: port.attach_ifindex,
            mac: port.smac,
            vlans: tags(port),
        };
        let private = if self.ports.one_armed() {
            Interface::default()
        } else {
            interface(&self.ports.private)
        };
        self.plan.desired.interfaces = [interface(&self.ports.public), private];
        self.plan.desired.server_side =
            if self.ports.one_armed() { side::PUBLIC } else { side::PRIVATE };
        for port in [&self.ports.public, &self.ports.private] {
            if self.state.links.get(&port.attach_ifindex).is_some_and(|link| !link.up) {
                self.warn(format!("{} is down", port.attach_name));
            }
            if let Some(bond) = self.bond_with_more_members(port) {
                self.warn(format!(
                    "{} is one of several members of {bond}: what comes in on the others goes past lbha; \
                     the interface to configure is {bond}",
                    port.attach_name
                ));
            }
        }
    }

    /// The bond that a port is a member of, when it has other members too.
    fn bond_with_more_members(&self, port: &Port) -> Option<String> {
        let links = &self.state.links;
        let master = links.get(&port.attach_ifindex)?.master.filter(|_| port.is_bond_member)?;
        let members = links.values().filter(|link| link.master == Some(master)).count();
        (members > 1).then(|| links.get(&master).map(|bond| bond.name.clone()))?
    }

    fn routes(&mut self) {
        let fib = self.fib;
        if !fib.routes.contains_key(&IpPrefix::DEFAULT_V4) {
            self.warn(
                "no default route through our interfaces: connections from beyond the networks that have a \
                 route are refused"
                    .into(),
            );
        }
        for (prefix, target) in &fib.routes {
            let Some(addr) = v4(prefix.addr()) else { continue };
            let key = (addr, prefix.len());
            let route = match target {
                RouteTarget::Gateway { side, gateway } => {
                    let hop = self.hop(*side, *gateway);
                    if hop.dmac.is_none() {
                        self.await_arp(format!(
                            "gateway {gateway} (route {prefix}) does not answer ARP"
                        ));
                    }
                    self.plan.desired.hops.insert(key, hop);
                    self.watch(*side, *gateway);
                    Route::Hop
                }
                RouteTarget::OnLink { .. } => Route::OnLink,
                RouteTarget::Unreachable => Route::Unreachable,
            };
            self.plan.desired.routes.insert(key, route);
        }
        for &(side, neighbour) in fib.neighbours.keys() {
            let Some(addr) = v4(neighbour) else { continue };
            // A gateway that no connected prefix covers is reached by its routes only.
            if fib.lookup(neighbour) == Some(RouteTarget::OnLink { side }) {
                let key = (addr, 32);
                self.plan.desired.hops.insert(key, self.hop(side, neighbour));
                self.plan.desired.routes.insert(key, Route::Hop);
            }
        }
    }

    fn service(&mut self, config: &Config, service: &ServiceConfig) {
        let id = service_id(service);
        let Some(pool) = config.pool(&service.pool) else { return };
        let ports = config.datapath.fullnat_ports;
        let mut servers = Vec::new();
        for server in &pool.servers {
            let source = self.source_for(server.address);
            self.server_hop(server.address, &format!("{}/{}", pool.name, server.name));
            if source.is_none() && service.mode == Mode::Fullnat {
                self.warn(format!(
                    "no address of ours on the side of {}/{}: connections to it are refused",
                    pool.name, server.name
                ));
            }
            servers.push(Server {
                address: server.address,
                port: server.port.unwrap_or(service.port),
                keep_client: service.mode == Mode::Nat,
                source,
                source_ports: (ports.first, ports.last),
            });
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
        self.plan.desired.services.insert(id, Service { pick, seed, servers, slots });
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
        let hop = self.plan.desired.hops.get(&(server.address, 32));
        hop.is_some_and(|hop| hop.dmac.is_some()) && (server.source.is_some() || server.keep_client)
    }

    /// A server has a next hop of its own, resolved or not: a route of its own it gets from its neighbour entry.
    fn server_hop(&mut self, addr: Ipv4Addr, name: &str) {
        let way = self.way_to(addr);
        match way {
            Some((side, via)) => self.watch(side, via),
            None => {
                self.warn(format!(
                    "no route to server {name} ({addr}) through the servers' interface"
                ));
            }
        }
        if self.plan.desired.hops.contains_key(&(addr, 32)) {
            return;
        }
        let hop = way.map(|(side, via)| self.hop(side, via)).unwrap_or_default();
        if way.is_some() && hop.dmac.is_none() {
            self.await_arp(format!("server {name} ({addr}) does not answer ARP"));
        }
        self.plan.desired.hops.insert((addr, 32), hop);
    }

    /// Servers are on their own side or nowhere. Where that side has lost its route, a default route would lead to the
    /// internet, and what answered from there would belong to no connection.
    fn way_to(&self, server: Ipv4Addr) -> Option<(Side, IpAddr)> {
        let own = if self.ports.one_armed() { Side::Public } else { Side::Private };
        self.fib.next_hop(server.into()).filter(|(side, _)| *side == own)
    }

    fn hop_to(&self, addr: Ipv4Addr) -> Option<Hop> {
        let (side, via) = self.fib.next_hop(addr.into())?;
        Some(self.hop(side, via))
    }

    fn hop(&self, side: Side, via: IpAddr) -> Hop {
        let port = self.ports.of(side);
        Hop {
            side: match side {
                Side::Public => side::PUBLIC,
                Side::Private => side::PRIVATE,
            },
            dmac: self.fib.neighbours.get(&(side, via)).copied(),
            smac: port.smac,
            mtu: port.mtu.min(u32::from(u16::MAX)) as u16,
            tags: tags(port),
        }
    }

    fn source_for(&self, server: Ipv4Addr) -> Option<Ipv4Addr> {
        let (side, _) = self.way_to(server)?;
        self.fib.source_for(self.state, side, server.into()).and_then(v4)
    }

    fn watch(&mut self, side: Side, addr: IpAddr) {
        let devices = &self.ports.of(side).l3_ifindexes;
        let connected = |index: &&u32| {
            self.state
                .addresses
                .get(index)
                .is_some_and(|all| all.iter().any(|own| own.prefix.contains(addr)))
        };
        let device = devices.iter().find(connected).or_else(|| devices.first());
        if let Some(&ifindex) = device {
            // Addresses of the servers' side may move to another host; a request from one that left after it moved
            // would point the neighbour's ARP cache back here. A probe without a source is answered just as well.
            let source = match side {
                Side::Public => self.fib.source_for(self.state, side, addr),
                Side::Private => None,
            };
            self.plan.watched.insert(Watch { ifindex, addr, source });
        }
    }

    fn await_arp(&mut self, warning: String) {
        self.plan.awaited.insert(warning.clone());
        self.warn(warning);
    }

    fn warn(&mut self, warning: String) {
        if !self.plan.warnings.contains(&warning) {
            self.plan.warnings.push(warning);
        }
    }
}

fn v4(addr: IpAddr) -> Option<Ipv4Addr> {
    match addr {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    }
}

fn tags(port: &Port) -> Vec<Tag> {
    port.vlan
        .iter()
        .map(|tag| Tag { tpid: Be16::new(tag.protocol), tci: Be16::new(tag.id) })
        .collect()
}

/// The device on which a directly connected address would be found, for a connection that waits for it.
pub fn on_link_device(state: &NetState, ports: &Ports, addr: Ipv4Addr) -> Option<u32> {
    let devices: BTreeMap<u32, ()> = ports
        .public
        .l3_ifindexes
        .iter()
        .chain(&ports.private.l3_ifindexes)
        .map(|&index| (index, ()))
        .collect();
    devices.into_keys().find(|index| {
        state
            .addresses
            .get(index)
            .is_some_and(|all| all.iter().any(|own| own.prefix.contains(addr.into())))
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
