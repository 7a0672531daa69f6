//! A snapshot of the kernel's links, addresses, neighbours and routes, and the events that change it; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::prefix::Ipv4Prefix;

pub type IfIndex = u32;
pub type Mac = [u8; 6];

/// The tables are behind `Arc`s so that publishing a snapshot after each batch of events copies only the tables that
/// changed: a neighbour event must not cost a copy of a full BGP table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetState {
    pub links: Arc<BTreeMap<IfIndex, Link>>,
    /// In the kernel's order: the first non-secondary one is the device's primary address.
    pub addresses: Arc<BTreeMap<IfIndex, Vec<Address>>>,
    pub neighbours: Arc<BTreeMap<(IfIndex, Ipv4Addr), Neighbour>>,
    /// The main table. Routes of the same prefix and metric are in the kernel's order: the first one is used.
    pub routes: Arc<BTreeMap<RouteKey, Vec<Route>>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: IfIndex,
    pub name: String,
    pub alt_names: Vec<String>,
    /// All zero when the device has no Ethernet address.
    pub mac: Mac,
    pub mtu: u32,
    /// `ip link set up`: IFF_UP.
    pub up: bool,
    /// IFF_LOWER_UP.
    pub carrier: bool,
    pub loopback: bool,
    /// ARPHRD_ETHER: frames start with an Ethernet header.
    pub ethernet: bool,
    /// The bond, bridge or VRF that this device is a port of.
    pub master: Option<IfIndex>,
    /// IFLA_LINK when it is in this network namespace: what a VLAN device is on, or a veth's other end.
    pub lower: Option<IfIndex>,
    pub vlan: Option<VlanTag>,
    /// IFLA_INFO_KIND: `bond`, `vlan`, `veth`…; empty for a physical device.
    pub kind: String,
    pub xdp: Option<XdpAttachment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanTag {
    /// 0x8100 or 0x88a8.
    pub protocol: u16,
    pub id: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpAttachment {
    /// Of the program in `mode`; 0 when several are attached (`Multi`).
    pub prog_id: u32,
    pub mode: XdpMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    Native,
    Generic,
    Offload,
    Multi,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// IFA_LOCAL: the host's own address.
    pub addr: Ipv4Addr,
    /// The prefix length, applied to IFA_ADDRESS, which is the far end of a point-to-point address.
    pub prefix: Ipv4Prefix,
    /// Another address of the same subnet came first.
    pub secondary: bool,
    pub scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Global,
    Site,
    Link,
    Host,
    Other(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// `None` while it was never resolved.
    pub mac: Option<Mac>,
    pub nud: Nud,
}

/// Neighbour unreachability detection state, as in `ip neigh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nud {
    None,
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
    Failed,
    NoArp,
    Permanent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    pub dst: Ipv4Prefix,
    pub metric: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub kind: RouteKind,
    /// One for a plain route, several for a multipath route, none unless `kind` is `Unicast`.
    pub next_hops: Vec<NextHop>,
    pub preferred_source: Option<Ipv4Addr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    Unicast,
    Blackhole,
    Unreachable,
    Prohibit,
    /// `throw`: the lookup goes on in other tables, which are not mirrored.
    Throw,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    pub ifindex: IfIndex,
    /// An IPv6 gateway is possible for an IPv4 route (RTA_VIA).
    pub gateway: Option<IpAddr>,
    /// The packet leaves encapsulated (MPLS, SRv6…), which the datapath cannot do.
    pub encap: bool,
}

/// Where RTM_NEWROUTE puts a route among those of the same prefix and metric, from its netlink flags
/// (net/ipv4/fib_trie.c, fib_table_insert).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// `ip route add`, `prepend`.
    First,
    /// `ip route append`, and every route of a dump.
    Last,
    /// `ip route replace`: takes the place of the first one.
    Replace,
}

/// What a netlink message says, and nothing that this module does not need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    NewLink(Link),
    DelLink(IfIndex),
    NewAddress(IfIndex, Address),
    DelAddress(IfIndex, Address),
    NewNeighbour(IfIndex, Ipv4Addr, Neighbour),
    DelNeighbour(IfIndex, Ipv4Addr),
    NewRoute(RouteKey, Route, Placement),
    DelRoute(RouteKey, Route),
    /// A nexthop object (`ip nexthop`) changed: routes that use it change without a message of their own.
    NextHopObject,
}

impl NetState {
    /// Applies one event; returns whether anything changed. Applying an event twice, or again on a snapshot that is
    /// newer than the event, gives the same result once all later events are applied too: that is what makes it
    /// right to replay queued events over a dump.
    pub fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::NewLink(link) => self.new_link(link),
            Event::DelLink(index) => self.del_link(index),
            Event::NewAddress(index, address) => self.new_address(index, address),
            Event::DelAddress(index, address) => self.del_address(index, &address),
            Event::NewNeighbour(index, addr, neighbour) => {
                if self.neighbours.get(&(index, addr)) == Some(&neighbour) {
                    return false;
                }
                Arc::make_mut(&mut self.neighbours).insert((index, addr), neighbour);
                true
            }
            Event::DelNeighbour(index, addr) => {
                self.neighbours.contains_key(&(index, addr))
                    && Arc::make_mut(&mut self.neighbours).remove(&(index, addr)).is_some()
            }
            Event::NewRoute(key, route, placement) => self.new_route(key, route, placement),
            Event::DelRoute(key, route) => self.del_route(key, &route),
            Event::NextHopObject => false,
        }
    }

    /// Whether routes may have vanished or changed with this event although the kernel sends no message for them:
    /// IPv4 flushes routes silently when a device goes down or leaves, loses its addresses, changes its VRF, or when
    /// a route's preferred source goes away (fib_flush in net/ipv4/fib_frontend.c). To be asked before `apply`, which
    /// removes what it can tell; a new dump of the routes settles the rest.
    pub fn routes_may_change_silently(&self, event: &Event) -> bool {
        match event {
            Event::NewLink(new) => self
                .links
                .get(&new.index)
                .is_some_and(|old| (old.up && !new.up) || old.master != new.master),
            Event::DelLink(_) | Event::DelAddress(..) | Event::NextHopObject => true,
            _ => false,
        }
    }

    /// The link of this name or alternative name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        let by_name = self.links.values().find(|link| link.name == name);
        by_name.or_else(|| self.links.values().find(|l| l.alt_names.iter().any(|alt| alt == name)))
    }

    /// Takes over the tables of `other` that are equal to this one's, so that whoever compares the two later need only
    /// compare pointers.
    pub fn share_equal_tables(&mut self, other: &NetState) {
        fn share<T: PartialEq>(mine: &mut Arc<T>, other: &Arc<T>) {
            if **mine == **other {
                *mine = Arc::clone(other);
            }
        }
        share(&mut self.links, &other.links);
        share(&mut self.addresses, &other.addresses);
        share(&mut self.neighbours, &other.neighbours);
        share(&mut self.routes, &other.routes);
    }

    fn new_link(&mut self, link: Link) -> bool {
        let old = self.links.get(&link.index);
        if old == Some(&link) {
            return false;
        }
        if old.is_some_and(|old| old.up) && !link.up {
            self.forget_routes_via(link.index);
        }
        Arc::make_mut(&mut self.links).insert(link.index, link);
        true
    }

    /// Also for a link that is not known: a replay may bring its other events.
    fn del_link(&mut self, index: IfIndex) -> bool {
        let mut changed = false;
        if self.links.contains_key(&index) {
            Arc::make_mut(&mut self.links).remove(&index);
            changed = true;
        }
        if self.addresses.contains_key(&index) {
            Arc::make_mut(&mut self.addresses).remove(&index);
            changed = true;
        }
        if self.neighbours.keys().any(|key| key.0 == index) {
            Arc::make_mut(&mut self.neighbours).retain(|key, _| key.0 != index);
            changed = true;
        }
        self.forget_routes_via(index) || changed
    }

    fn new_address(&mut self, index: IfIndex, address: Address) -> bool {
        let known = self.addresses.get(&index).map_or(&[][..], Vec::as_slice);
        let place = known.iter().position(|a| a.same_as(&address));
        if place.is_some_and(|i| known[i] == address) {
            return false;
        }
        let list = Arc::make_mut(&mut self.addresses).entry(index).or_default();
        match place {
            Some(i) => list[i] = address,
            None => list.push(address),
        }
        true
    }

    fn del_address(&mut self, index: IfIndex, address: &Address) -> bool {
        if !self.addresses.get(&index).is_some_and(|list| list.iter().any(|a| a.same_as(address))) {
            return false;
        }
        let addresses = Arc::make_mut(&mut self.addresses);
        let list = addresses.get_mut(&index).expect("invariant: looked up above");
        list.retain(|a| !a.same_as(address));
        if list.is_empty() {
            // fib_inetaddr_event: without its last address a device has no IPv4 routes either.
            addresses.remove(&index);
            self.forget_routes_via(index);
        }
        if !self.is_local(address.addr) {
            // fib_sync_down_addr.
            self.retain_routes(|route| route.preferred_source != Some(address.addr));
        }
        true
    }

    fn new_route(&mut self, key: RouteKey, route: Route, placement: Placement) -> bool {
        let known = self.routes.get(&key).map_or(&[][..], Vec::as_slice);
        // The kernel refuses exact duplicates, so this one is a replay.
        if known.contains(&route) && (placement != Placement::Replace || known[0] == route) {
            return false;
        }
        let list = Arc::make_mut(&mut self.routes).entry(key).or_default();
        match (placement, list.first_mut()) {
            (Placement::Replace, Some(first)) => {
                *first = route.clone();
                let mut seen = false;
                list.retain(|r| *r != route || !std::mem::replace(&mut seen, true));
            }
            (Placement::First, _) => list.insert(0, route),
            _ => list.push(route),
        }
        true
    }

    fn del_route(&mut self, key: RouteKey, route: &Route) -> bool {
        if !self.routes.get(&key).is_some_and(|list| list.contains(route)) {
            return false;
        }
        let routes = Arc::make_mut(&mut self.routes);
        let list = routes.get_mut(&key).expect("invariant: looked up above");
        list.retain(|r| r != route);
        if list.is_empty() {
            routes.remove(&key);
        }
        true
    }

    fn is_local(&self, addr: Ipv4Addr) -> bool {
        self.addresses.values().flatten().any(|a| a.addr == addr)
    }

    /// fib_sync_down_dev: a route goes when its last live next hop goes.
    fn forget_routes_via(&mut self, index: IfIndex) -> bool {
        let alive: BTreeSet<IfIndex> =
            self.links.values().filter(|l| l.up && l.index != index).map(|l| l.index).collect();
        self.retain_routes(|route| {
            !route.next_hops.iter().any(|hop| hop.ifindex == index)
                || route.next_hops.iter().any(|hop| alive.contains(&hop.ifindex))
        })
    }

    fn retain_routes(&mut self, keep: impl Fn(&Route) -> bool) -> bool {
        if self.routes.values().flatten().all(&keep) {
            return false;
        }
        Arc::make_mut(&mut self.routes).retain(|_, list| {
            list.retain(&keep);
            !list.is_empty()
        });
        true
    }
}

impl Address {
    /// The kernel's identity of an address: the same local address with the same prefix (inet_rtm_deladdr).
    fn same_as(&self, other: &Address) -> bool {
        self.addr == other.addr && self.prefix == other.prefix
    }
}

impl Nud {
    /// Whether packets may be sent to the entry's MAC address: the kernel's NUD_VALID.
    pub fn is_valid(self) -> bool {
        match self {
            Nud::Reachable | Nud::Stale | Nud::Delay | Nud::Probe | Nud::NoArp | Nud::Permanent => {
                true
            }
            Nud::None | Nud::Incomplete | Nud::Failed => false,
        }
    }
}

impl Neighbour {
    /// The MAC address that packets may be sent to now.
    pub fn usable_mac(&self) -> Option<Mac> {
        self.mac.filter(|_| self.nud.is_valid())
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
