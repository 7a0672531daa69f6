//! The kernel's routes and neighbours reduced to what two ports need; pure. The datapath's maps mirror a [`Fib`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use super::attach::Port;
use super::prefix::{Family, IpPrefix};
use super::state::{
    Address, IfIndex, Mac, NetState, NextHop, Nud, Route, RouteKey, RouteKind, Scope,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Public,
    Private,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// The gateway may be a link-local address, and an IPv6 one also for IPv4 (RFC 8950 calls for it).
    Gateway { side: Side, gateway: IpAddr },
    /// The destination itself is the neighbour.
    OnLink { side: Side },
    /// For the datapath: a blackhole, or a route through a device or tunnel that it does not serve.
    Unreachable,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fib {
    /// Aggregated: a prefix that would go where its closest covering prefix goes is left out, so that a full BGP table
    /// through one gateway is one entry. Use [`Fib::lookup`]. IPv6 link-local and multicast prefixes are left out: a
    /// router forwards neither (RFC 4291 §2.5.6 and §2.7), and which device they mean is not theirs to say.
    pub routes: BTreeMap<IpPrefix, RouteTarget>,
    /// Those that packets may be sent to. A link-local address means a neighbour on one device only: should a side have
    /// several devices, and the same link-local address behind two of them, one of the two is here.
    pub neighbours: BTreeMap<(Side, IpAddr), Mac>,
    /// All addresses of this host, on any device, link-local ones too.
    pub local: BTreeSet<IpAddr>,
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
    /// The target of the longest prefix that contains `addr`; `None` without a route, and for an address that is not
    /// forwarded to.
    pub fn lookup(&self, addr: IpAddr) -> Option<RouteTarget> {
        let host = IpPrefix::host(addr);
        if is_of_the_link(host) {
            return None;
        }
        (0..=host.len())
            .rev()
            .filter_map(|len| IpPrefix::new(addr, len))
            .find_map(|prefix| self.routes.get(&prefix))
            .copied()
    }

    /// The address that a packet to `dst` is sent to on the wire, and on which side; `None` when it cannot be sent.
    pub fn next_hop(&self, dst: IpAddr) -> Option<(Side, IpAddr)> {
        match self.lookup(dst)? {
            RouteTarget::Gateway { side, gateway } => Some((side, gateway)),
            RouteTarget::OnLink { side } => Some((side, dst)),
            RouteTarget::Unreachable => None,
        }
    }

    /// All gateways in use: they need their neighbour entries.
    pub fn gateways(&self) -> BTreeSet<(Side, IpAddr)> {
        self.routes
            .values()
            .filter_map(|target| match target {
                RouteTarget::Gateway { side, gateway } => Some((*side, *gateway)),
                _ => None,
            })
            .collect()
    }

    /// The source address for packets of this host's own, or masqueraded ones, to `dst`, of the same family.
    ///
    /// IPv4: the side's primary address whose subnet contains `dst`, else its first primary global address. This is how
    /// the kernel chooses (inet_select_addr), and so what iptables' MASQUERADE would use.
    ///
    /// IPv6: a link-local address for a link-local `dst`, and otherwise the best global one. Where the kernel's rules
    /// (RFC 6724 §5) leave a choice, an address with a subnet comes before one alone (/128): the latter may be a
    /// service's, which moves to another host. Temporary addresses are never taken.
    pub fn source_for(&self, state: &NetState, side: Side, dst: IpAddr) -> Option<IpAddr> {
        match dst {
            IpAddr::V4(_) => {
                let primary = || self.sources(state, side, Family::V4);
                primary()
                    .find(|address| address.prefix.contains(dst))
                    .or_else(|| primary().find(|address| address.scope == Scope::Global))
                    .map(|address| address.addr)
            }
            IpAddr::V6(to) if to.is_unicast_link_local() => {
                let mut own = self.sources(state, side, Family::V6).map(|address| address.addr);
                own.find(|addr| is_of_the_link(IpPrefix::host(*addr)))
            }
            IpAddr::V6(to) => self.best_v6(state, side, Some(to)),
        }
    }

    /// The side's own global address: the source of ICMP errors, and of connections that are masqueraded to the
    /// interface. It is the one that the kernel would use towards the gateway of the default route, if that is on this
    /// side and has a global address itself.
    pub fn primary(&self, state: &NetState, side: Side, family: Family) -> Option<IpAddr> {
        let gateway = match self.routes.get(&family.default_prefix()) {
            Some(RouteTarget::Gateway { side: of, gateway }) if *of == side => Some(*gateway),
            _ => None,
        };
        match family {
            Family::V4 => {
                let global = || {
                    let primary = self.sources(state, side, Family::V4);
                    primary.filter(|address| address.scope == Scope::Global)
                };
                gateway
                    .and_then(|gateway| global().find(|address| address.prefix.contains(gateway)))
                    .or_else(|| global().next())
                    .map(|address| address.addr)
            }
            Family::V6 => self.best_v6(state, side, gateway.and_then(global_v6)),
        }
    }

    /// The side's addresses of a family that may be sources, in the kernel's order.
    fn sources<'a>(
        &self,
        state: &'a NetState,
        side: Side,
        family: Family,
    ) -> impl Iterator<Item = &'a Address> {
        let devices = match side {
            Side::Public => &self.sides.public,
            Side::Private => &self.sides.private,
        };
        let addresses = devices.iter().filter_map(|index| state.addresses.get(index)).flatten();
        addresses.filter(move |address| {
            Family::of(address.addr) == family && address.usable && !address.secondary
        })
    }

    /// The best global address towards `dst`, or in general.
    fn best_v6(&self, state: &NetState, side: Side, dst: Option<Ipv6Addr>) -> Option<IpAddr> {
        let global = self
            .sources(state, side, Family::V6)
            .filter(|address| address.scope == Scope::Global)
            .filter_map(|address| Some((address.prefix, global_v6(address.addr)?)));
        let best = global.min_by_key(|(prefix, addr)| {
            let contains = dst.is_some_and(|dst| prefix.contains(dst.into()));
            // Rule 6: unique local addresses among themselves, global ones among themselves.
            let same_kind = addr.is_unique_local() == dst.is_some_and(|dst| dst.is_unique_local());
            // Rule 8, the longest common prefix.
            let common = dst.map_or(0, |dst| (addr.to_bits() ^ dst.to_bits()).leading_zeros());
            let common = common.min(prefix.len().into());
            (!contains, !same_kind, prefix.is_host(), Reverse(common))
        });
        best.map(|(_, addr)| addr.into())
    }
}

fn global_v6(addr: IpAddr) -> Option<Ipv6Addr> {
    match addr {
        IpAddr::V6(addr) if !is_of_the_link(IpPrefix::host(addr.into())) => Some(addr),
        _ => None,
    }
}

/// Whether the addresses of a prefix are not forwarded to: IPv6 link-local unicast and multicast.
fn is_of_the_link(prefix: IpPrefix) -> bool {
    LINK_LOCAL.covers(prefix) || MULTICAST.covers(prefix)
}

const LINK_LOCAL: IpPrefix =
    IpPrefix::new(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10)
        .expect("invariant: fe80::/10 is a prefix");
const MULTICAST: IpPrefix =
    IpPrefix::new(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8)
        .expect("invariant: ff00::/8 is a prefix");

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

/// The target of each prefix: the first usable route of the best metric, as fib_table_lookup and fib6_table_lookup do.
fn targets(state: &NetState, sides: &Sides) -> BTreeMap<IpPrefix, RouteTarget> {
    let mut targets = BTreeMap::new();
    for (RouteKey { dst, .. }, routes) in state.routes.iter() {
        // Keys are ordered by prefix, then metric.
        if !is_of_the_link(*dst)
            && !targets.contains_key(dst)
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
        Some(gateway) => RouteTarget::Gateway { side, gateway },
        None => RouteTarget::OnLink { side },
    })
}

/// Drops each prefix whose closest covering prefix has the same target.
fn aggregate(targets: BTreeMap<IpPrefix, RouteTarget>) -> BTreeMap<IpPrefix, RouteTarget> {
    let mut kept = BTreeMap::new();
    // The prefixes that cover the current one, shortest first; in this order a prefix comes before what it covers.
    let mut covering: Vec<(IpPrefix, RouteTarget)> = Vec::new();
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
