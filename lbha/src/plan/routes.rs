//! The plan's routes and next hops, and which neighbours have to be kept resolved for them.

use std::net::IpAddr;

use lbha_common::flow::side;

use super::{Planner, is_connected, tags};
use crate::{
    datapath::desired::{Hop, Route},
    net::{Family, IpPrefix, RouteTarget, Side, Watch},
};

impl Planner<'_> {
    pub(super) fn routes(&mut self) {
        let fib = self.fib;
        for family in self.families() {
            if !fib.routes.contains_key(&family.default_prefix()) {
                let of_family = match family {
                    Family::V4 => "",
                    Family::V6 => "IPv6 ",
                };
                self.warn(format!(
                    "no {of_family}default route through our interfaces: {of_family}connections from and to beyond the \
                     networks that have a route are refused"
                ));
            }
        }
        for (prefix, target) in &fib.routes {
            let route = match target {
                RouteTarget::Gateway { side, gateway } => {
                    let hop = self.hop(*side, *gateway);
                    if hop.dmac.is_none() {
                        self.await_answer(format!(
                            "gateway {gateway} (route {prefix}) does not answer {}",
                            question(*gateway)
                        ));
                    }
                    self.plan.desired.hops.insert(*prefix, hop);
                    self.watch(*side, *gateway);
                    Route::Hop
                }
                RouteTarget::OnLink { .. } => Route::OnLink,
                RouteTarget::Unreachable => Route::Unreachable,
            };
            self.plan.desired.routes.insert(*prefix, route);
        }
        for &(side, addr) in fib.neighbours.keys() {
            // A gateway that no connected prefix covers is reached by its routes only.
            if fib.lookup(addr) == Some(RouteTarget::OnLink { side }) {
                let key = IpPrefix::host(addr);
                self.plan.desired.hops.insert(key, self.hop(side, addr));
                self.plan.desired.routes.insert(key, Route::Hop);
            }
        }
    }

    /// A server has a next hop of its own, resolved or not: a route of its own it gets from its neighbour entry. `name` is
    /// what a warning calls it.
    pub(super) fn server_hop(&mut self, addr: IpAddr, name: &str) {
        let way = self.way_to(addr);
        match way {
            Some((side, via)) => self.watch(side, via),
            None => {
                self.warn(format!("no route to {name} ({addr}) through the servers' interface"));
            }
        }
        let key = IpPrefix::host(addr);
        if self.plan.desired.hops.contains_key(&key) {
            return;
        }
        let hop = way.map(|(side, via)| self.hop(side, via)).unwrap_or_default();
        if way.is_some() && hop.dmac.is_none() {
            self.await_answer(format!("{name} ({addr}) does not answer {}", question(addr)));
        }
        self.plan.desired.hops.insert(key, hop);
    }

    /// Servers are on their own side or nowhere. Where that side has lost its route, a default route would lead to the
    /// internet, and what answered from there would belong to no connection.
    fn way_to(&self, server: IpAddr) -> Option<(Side, IpAddr)> {
        let own = if self.ports.one_armed() { Side::Public } else { Side::Private };
        self.fib.next_hop(server).filter(|(side, _)| *side == own)
    }

    /// Our address that connections to a server come from.
    pub(super) fn source_for(&self, server: IpAddr) -> Option<IpAddr> {
        let (side, _) = self.way_to(server)?;
        self.fib.source_for(self.state, side, server)
    }

    pub(super) fn hop_to(&self, addr: IpAddr) -> Option<Hop> {
        let (side, via) = self.fib.next_hop(addr)?;
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

    fn watch(&mut self, side: Side, addr: IpAddr) {
        let devices = &self.ports.of(side).l3_ifindexes;
        let connected = |index: &&u32| is_connected(self.state, **index, addr);
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
}

/// What neighbours of a family are asked for their MAC addresses with.
fn question(addr: IpAddr) -> &'static str {
    match addr {
        IpAddr::V4(_) => "ARP",
        IpAddr::V6(_) => "neighbour solicitations",
    }
}
