//! The kernel's routes and neighbours reduced to what two ports need; pure. The datapath's maps mirror a [`Fib`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::attach::Port;
use super::prefix::Ipv4Prefix;
use super::state::{IfIndex, Mac, NetState, NextHop, Nud, Route, RouteKey, RouteKind, Scope};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Public,
    Private,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    Gateway {
        side: Side,
        gateway: Ipv4Addr,
    },
    /// The destination itself is the neighbour.
    OnLink {
        side: Side,
    },
    /// For the datapath: a blackhole, or a route through a device or tunnel that it does not serve.
    Unreachable,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fib {
    /// Aggregated: a prefix that would go where its closest covering prefix goes is left out, so that a full BGP table
    /// through one gateway is one entry. Use [`Fib::lookup`].
    pub routes: BTreeMap<Ipv4Prefix, RouteTarget>,
    /// Those that packets may be sent to.
    pub neighbours: BTreeMap<(Side, Ipv4Addr), Mac>,
    /// All addresses of this host, on any device.
    pub local: BTreeSet<Ipv4Addr>,
    sides: Sides,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sides {
    public: BTreeSet<IfIndex>,
    private: BTreeSet<IfIndex>,
}

/// What packets between these two ports need. When both ports are the same (one-armed), everything is
/// [`Side::Public`].
pub fn forwarding(state: &NetState, public: &Port, private: &Port) -> Fib {
    let sides =
        Sides { public: public.l3_ifindexes.clone(), private: private.l3_ifindexes.clone() };
    let mut fib = Fib { routes: aggregate(targets(state, &sides)), ..Fib::default() };
    for ((ifindex, addr), neighbour) in state.neighbours.iter() {
        if let (Some(side), Some(mac)) = (sides.of(*ifindex), neighbour.usable_mac())
            && is_unicast(mac)
        {
            // Two devices of one side: the one that the kernel confirmed has the last word.
            let confirmed = neighbour.nud == Nud::Reachable || neighbour.nud == Nud::Permanent;
            let slot = fib.neighbours.entry((side, *addr)).or_insert(mac);
            if confirmed {
                *slot = mac;
            }
        }
    }
    fib.local = state.addresses.values().flatten().map(|address| address.addr).collect();
    fib.sides = sides;
    fib
}

impl Fib {
    /// The target of the longest prefix that contains `addr`; `None` without a route.
    pub fn lookup(&self, addr: Ipv4Addr) -> Option<RouteTarget> {
        (0..=32)
            .rev()
            .filter_map(|len| Ipv4Prefix::new(addr, len))
            .find_map(|prefix| self.routes.get(&prefix))
            .copied()
    }

    /// The address that a packet to `dst` is sent to on the wire, and on which side; `None` when it cannot be sent.
    pub fn next_hop(&self, dst: Ipv4Addr) -> Option<(Side, Ipv4Addr)> {
        match self.lookup(dst)? {
            RouteTarget::Gateway { side, gateway } => Some((side, gateway)),
            RouteTarget::OnLink { side } => Some((side, dst)),
            RouteTarget::Unreachable => None,
        }
    }

    /// All gateways in use: they need their neighbour entries.
    pub fn gateways(&self) -> BTreeSet<(Side, Ipv4Addr)> {
        self.routes
            .values()
            .filter_map(|target| match target {
                RouteTarget::Gateway { side, gateway } => Some((*side, *gateway)),
                _ => None,
            })
            .collect()
    }

    /// The source address for packets of this host's own, or masqueraded ones, to `dst`: the side's primary address
    /// whose subnet contains `dst`, else its first primary global address. This is how the kernel chooses
    /// (inet_select_addr), and so what iptables' MASQUERADE would use.
    pub fn source_for(&self, state: &NetState, side: Side, dst: Ipv4Addr) -> Option<Ipv4Addr> {
        let devices = match side {
            Side::Public => &self.sides.public,
            Side::Private => &self.sides.private,
        };
        let primary = || {
            let addresses = devices.iter().filter_map(|index| state.addresses.get(index)).flatten();
            addresses.filter(|address| !address.secondary)
        };
        primary()
            .find(|address| address.prefix.contains(dst))
            .or_else(|| primary().find(|address| address.scope == Scope::Global))
            .map(|address| address.addr)
    }
}

impl Sides {
    fn of(&self, index: IfIndex) -> Option<Side> {
        if self.public.contains(&index) {
            Some(Side::Public)
        } else if self.private.contains(&index) {
            Some(Side::Private)
        } else {
            None
        }
    }
}

/// The target of each prefix: the first usable route of the best metric, as fib_table_lookup does.
fn targets(state: &NetState, sides: &Sides) -> BTreeMap<Ipv4Prefix, RouteTarget> {
    let mut targets = BTreeMap::new();
    for (RouteKey { dst, .. }, routes) in state.routes.iter() {
        // Keys are ordered by prefix, then metric.
        if !targets.contains_key(dst)
            && let Some(target) = routes.iter().find_map(|route| target(state, sides, route))
        {
            targets.insert(*dst, target);
        }
    }
    targets
}

/// `None` when the kernel would not use the route either.
///
/// Of a multipath route the first next hop on one of our sides whose link is up is taken for all packets: the choice
/// must be the same for all packets of a flow, and a second gateway is there for when the first link fails. Links
/// with a carrier come before links without.
fn target(state: &NetState, sides: &Sides, route: &Route) -> Option<RouteTarget> {
    match route.kind {
        RouteKind::Unicast => {}
        RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => {
            return Some(RouteTarget::Unreachable);
        }
        // The kernel would go on in the default table, which nobody fills.
        RouteKind::Throw => return Some(RouteTarget::Unreachable),
    }
    let link = |hop: &NextHop| state.links.get(&hop.ifindex);
    let up: Vec<&NextHop> =
        route.next_hops.iter().filter(|hop| link(hop).is_some_and(|l| l.up)).collect();
    // The kernel removes routes through links that are down; such a one is only not yet gone from the snapshot.
    if up.is_empty() {
        return None;
    }
    let ours = |hop: &&&NextHop| sides.of(hop.ifindex).is_some() && !hop.encap;
    let chosen = up
        .iter()
        .filter(ours)
        .find(|hop| link(hop).is_some_and(|l| l.carrier))
        .or_else(|| up.iter().find(ours));
    let Some((hop, side)) = chosen.and_then(|hop| Some((hop, sides.of(hop.ifindex)?))) else {
        return Some(RouteTarget::Unreachable);
    };
    Some(match hop.gateway {
        Some(IpAddr::V4(gateway)) => RouteTarget::Gateway { side, gateway },
        // A gateway in the other family needs a neighbour entry of that family.
        Some(IpAddr::V6(_)) => RouteTarget::Unreachable,
        None => RouteTarget::OnLink { side },
    })
}

/// Drops each prefix whose closest covering prefix has the same target.
fn aggregate(targets: BTreeMap<Ipv4Prefix, RouteTarget>) -> BTreeMap<Ipv4Prefix, RouteTarget> {
    let mut kept = BTreeMap::new();
    // The prefixes that cover the current one, shortest first; in this order a prefix comes before what it covers.
    let mut covering: Vec<(Ipv4Prefix, RouteTarget)> = Vec::new();
    for (prefix, target) in targets {
        while covering.last().is_some_and(|(cover, _)| !cover.covers(prefix)) {
            covering.pop();
        }
        if covering.last().is_none_or(|(_, inherited)| *inherited != target) {
            kept.insert(prefix, target);
        }
        covering.push((prefix, target));
    }
    kept
}

/// The kernel keeps entries for multicast and broadcast addresses, too (NUD_NOARP).
fn is_unicast(mac: Mac) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

#[cfg(test)]
#[path = "fib_tests.rs"]
mod tests;
