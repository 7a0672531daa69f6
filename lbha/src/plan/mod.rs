//! From the configuration and the state of the network to what the maps should hold. Pure.
//!
//! Here: interfaces, settings, and the order of it. Then [`routes`], [`services`], [`masquerade`].

mod masquerade;
mod routes;
mod services;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lbha_common::{addr::Be16, flow::side, nexthop::Tag};

use crate::{
    config::{Config, Datapath, MssClamp, PortRange},
    datapath::desired::{Desired, ErrorSources, Interface, Settings},
    net::{
        Family, Fib, InterfaceError, IpPrefix, NetState, Port, Side, Watch, forwarding,
        resolve_interface,
    },
};

pub use services::{forward_id, service_id};

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
    /// Those of the warnings that a neighbour's answer may end any moment.
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
/// ([`crate::datapath::apply::Applier::lingering_prefixes`]), `kernel_ports` those that the kernel gives to the host's own
/// connections, where they are known.
pub fn plan(
    config: &Config,
    state: &NetState,
    ports: &Ports,
    lingering: &[IpPrefix],
    kernel_ports: Option<PortRange>,
) -> Plan {
    let fib = forwarding(state, &ports.public, &ports.private);
    let mut planner = Planner { config, state, ports, fib: &fib, plan: Plan::default() };
    planner.interfaces();
    planner.settings(&config.datapath);
    planner.routes();
    for service in &config.services {
        planner.service(service);
    }
    for forward in &config.forwards {
        planner.forward(forward);
    }
    for masquerade in &config.masquerades {
        planner.masquerade(masquerade, kernel_ports);
    }
    for prefix in lingering {
        if let Some(hop) = planner.hop_to(prefix.addr()) {
            planner.plan.desired.lingering.insert(*prefix, hop);
        }
    }
    planner.plan.desired.local = fib.local.clone();
    planner.plan
}

struct Planner<'a> {
    config: &'a Config,
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
        let error_sources = |of| ErrorSources {
            v4: self.fib.primary(self.state, of, Family::V4).and_then(v4),
            v6: self.fib.primary(self.state, of, Family::V6).and_then(v6),
        };
        self.plan.desired.error_sources =
            [error_sources(Side::Public), error_sources(Side::Private)];
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

    fn settings(&mut self, datapath: &Datapath) {
        let (clamp_mss, mss) = match datapath.mss_clamp {
            MssClamp::Auto => (true, 0),
            MssClamp::Off => (false, 0),
            MssClamp::To(mss) => (true, mss),
        };
        self.plan.desired.settings = Settings { ping: datapath.ping, clamp_mss, mss: [mss; 2] };
    }

    /// The families that the configuration speaks of.
    fn families(&self) -> BTreeSet<Family> {
        let services = self.config.services.iter().map(|service| service.vip);
        let forwards = self.config.forwards.iter().map(|forward| forward.address.ip());
        let masquerades = self.config.masquerades.iter().flat_map(|m| &m.source);
        let addresses = services.chain(forwards).chain(masquerades.map(|source| source.addr()));
        addresses.map(Family::of).collect()
    }

    fn await_answer(&mut self, warning: String) {
        self.plan.awaited.insert(warning.clone());
        self.warn(warning);
    }

    fn warn(&mut self, warning: String) {
        if !self.plan.warnings.contains(&warning) {
            self.plan.warnings.push(warning);
        }
    }
}

fn tags(port: &Port) -> Vec<Tag> {
    port.vlan
        .iter()
        .map(|tag| Tag { tpid: Be16::new(tag.protocol), tci: Be16::new(tag.id) })
        .collect()
}

fn v4(addr: IpAddr) -> Option<Ipv4Addr> {
    match addr {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    }
}

fn v6(addr: IpAddr) -> Option<Ipv6Addr> {
    match addr {
        IpAddr::V4(_) => None,
        IpAddr::V6(addr) => Some(addr),
    }
}

/// The device on which a directly connected address would be found, for a connection that waits for it.
pub fn on_link_device(state: &NetState, ports: &Ports, addr: IpAddr) -> Option<u32> {
    let devices: BTreeSet<u32> =
        ports.public.l3_ifindexes.iter().chain(&ports.private.l3_ifindexes).copied().collect();
    devices.into_iter().find(|index| is_connected(state, *index, addr))
}

/// Whether a device has an address whose prefix contains `addr`.
fn is_connected(state: &NetState, device: u32, addr: IpAddr) -> bool {
    let addresses = state.addresses.get(&device);
    addresses.is_some_and(|all| all.iter().any(|own| own.prefix.contains(addr)))
}

#[cfg(test)]
mod tests;
