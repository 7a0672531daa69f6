//! A snapshot of the kernel's links, addresses, neighbours and routes, and the events that change it; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::prefix::{Family, IpPrefix};
use super::routes;

pub type IfIndex = u32;
pub type Mac = [u8; 6];

/// The tables are behind `Arc`s so that publishing a snapshot after each batch of events copies only the tables that
/// changed: a neighbour event must not cost a copy of a full BGP table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetState {
    pub links: Arc<BTreeMap<IfIndex, Link>>,
    /// In the kernel's order, IPv4 first: the first non-secondary IPv4 one is the device's primary address.
    pub addresses: Arc<BTreeMap<IfIndex, Vec<Address>>>,
    pub neighbours: Arc<BTreeMap<(IfIndex, IpAddr), Neighbour>>,
    /// The main table. Routes of the same prefix and metric are in the kernel's order: the first one is used.
    pub routes: Arc<RouteTable>,
}

pub type RouteTable = BTreeMap<RouteKey, Vec<Route>>;

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
    pub addr: IpAddr,
    /// The prefix length, applied to IFA_ADDRESS, which is the far end of a point-to-point address.
    pub prefix: IpPrefix,
    /// IPv4: another address of the same subnet came first. IPv6: it is temporary (RFC 8981), the kernel's flag being the
    /// same.
    pub secondary: bool,
    /// Whether packets may be sent from it. Not from an IPv6 address that is tentative or whose duplicate address
    /// detection has failed (RFC 4862 §5.4), and not from a deprecated one if there is another (§5.5.4).
    pub usable: bool,
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
    pub dst: IpPrefix,
    pub metric: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub kind: RouteKind,
    /// One for a plain route, several for a multipath route, none unless `kind` is `Unicast`.
    pub next_hops: Vec<NextHop>,
    pub preferred_source: Option<IpAddr>,
    /// IPv6: another such route of the same prefix and metric becomes a further next hop of this one
    /// (rt6_qualify_for_ecmp): it has a gateway, and is from neither a router advertisement nor a nexthop object.
    pub joins: bool,
    /// IPv6: decides between routes of the same prefix and metric.
    pub preference: Preference,
}

/// What a router advertisement says of its router (RFC 4191 §2.1); any other route's is `Medium`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preference {
    Low,
    #[default]
    Medium,
    High,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteKind {
    #[default]
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

/// Where RTM_NEWROUTE puts a route among those of the same prefix and metric, from its netlink flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// `ip route add`, `prepend`. IPv6: the same as `Last`.
    First,
    /// `ip route append`, and every route of a dump.
    Last,
    /// `ip route replace`: takes the place of another one.
    Replace,
}

/// What a netlink message says, and nothing that this module does not need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    NewLink(Link),
    DelLink(IfIndex),
    NewAddress(IfIndex, Address),
    DelAddress(IfIndex, Address),
    NewNeighbour(IfIndex, IpAddr, Neighbour),
    DelNeighbour(IfIndex, IpAddr),
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
    /// a route's preferred source goes away (fib_flush in net/ipv4/fib_frontend.c). IPv6 sends a message for every route
    /// that it flushes, unless net.ipv6.route.skip_notify_on_dev_down is set, but takes a preferred source that goes away
    /// out of its routes without one (rt6_remove_prefsrc). To be asked before `apply`, which changes what it can tell; a
    /// new dump of the routes settles the rest.
    ///
    /// A route from a router advertisement ends with a message, too, though up to 30 s after its time
    /// (net.ipv6.route.gc_interval); when it is extended there is none, so its expiry, once read, would be wrong soon.
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

    /// The device's own link-local IPv6 address: what its neighbour discovery is sent from.
    pub fn link_local(&self, index: IfIndex) -> Option<Ipv6Addr> {
        self.addresses.get(&index)?.iter().filter(|address| address.usable).find_map(|address| {
            match address.addr {
                IpAddr::V6(addr) if addr.is_unicast_link_local() => Some(addr),
                _ => None,
            }
        })
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

    /// Takes the IPv6 routes of prefixes and metrics that this snapshot has none of.
    pub(super) fn add_missing_routes(&mut self, other: &RouteTable) {
        let routes = Arc::make_mut(&mut self.routes);
        for (key, list) in other.iter().filter(|(key, _)| !key.dst.is_ipv4()) {
            routes.entry(*key).or_insert_with(|| list.clone());
        }
    }

    fn new_link(&mut self, link: Link) -> bool {
        let old = self.links.get(&link.index);
        if old == Some(&link) {
            return false;
        }
        if old.is_some_and(|old| old.up) && !link.up {
            self.forget_routes_via(link.index, |_| true);
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
        self.forget_routes_via(index, |_| true) || changed
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
            None => list.insert(address.place_in(list), address),
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
        let last_of_ipv4 = address.addr.is_ipv4() && !list.iter().any(|a| a.addr.is_ipv4());
        if list.is_empty() {
            addresses.remove(&index);
        }
        if last_of_ipv4 {
            // fib_inetaddr_event: without its last address a device has no IPv4 routes either.
            self.forget_routes_via(index, |key| key.dst.is_ipv4());
        }
        if !self.is_local(address.addr) {
            self.forget_source(address.addr);
        }
        true
    }

    fn new_route(&mut self, key: RouteKey, route: Route, placement: Placement) -> bool {
        self.change_routes(key, |list| match key.dst.family() {
            Family::V4 => routes::insert_v4(list, route, placement),
            Family::V6 => routes::insert_v6(list, route, placement),
        })
    }

    fn del_route(&mut self, key: RouteKey, route: &Route) -> bool {
        self.change_routes(key, |list| match key.dst.family() {
            Family::V4 => list.retain(|known| known != route),
            Family::V6 => routes::remove_v6(list, route),
        })
    }

    fn change_routes(&mut self, key: RouteKey, change: impl FnOnce(&mut Vec<Route>)) -> bool {
        let known = self.routes.get(&key).map_or(&[][..], Vec::as_slice);
        let mut list = known.to_vec();
        change(&mut list);
        if list == known {
            return false;
        }
        let routes = Arc::make_mut(&mut self.routes);
        if list.is_empty() {
            routes.remove(&key);
        } else {
            routes.insert(key, list);
        }
        true
    }

    fn is_local(&self, addr: IpAddr) -> bool {
        self.addresses.values().flatten().any(|a| a.addr == addr)
    }

    /// A route goes when its last live next hop goes (fib_sync_down_dev, fib6_ifdown).
    fn forget_routes_via(&mut self, index: IfIndex, which: impl Fn(&RouteKey) -> bool) -> bool {
        let alive: BTreeSet<IfIndex> =
            self.links.values().filter(|l| l.up && l.index != index).map(|l| l.index).collect();
        self.retain_routes(|key, route| {
            !which(key)
                || !route.next_hops.iter().any(|hop| hop.ifindex == index)
                || route.next_hops.iter().any(|hop| alive.contains(&hop.ifindex))
        })
    }

    /// An address left this host. An IPv4 route from it goes too (fib_sync_down_addr), an IPv6 one stays without it.
    fn forget_source(&mut self, addr: IpAddr) {
        if addr.is_ipv4() {
            self.retain_routes(|_, route| route.preferred_source != Some(addr));
        } else if self.routes.values().flatten().any(|r| r.preferred_source == Some(addr)) {
            for route in Arc::make_mut(&mut self.routes).values_mut().flatten() {
                route.preferred_source.take_if(|source| *source == addr);
            }
        }
    }

    fn retain_routes(&mut self, keep: impl Fn(&RouteKey, &Route) -> bool) -> bool {
        if self.routes.iter().all(|(key, list)| list.iter().all(|route| keep(key, route))) {
            return false;
        }
        Arc::make_mut(&mut self.routes).retain(|key, list| {
            list.retain(|route| keep(key, route));
            !list.is_empty()
        });
        true
    }
}

impl Address {
    /// The kernel's identity of an address on a device: IPv4 may have the same one with several prefixes
    /// (inet_rtm_deladdr), IPv6 has it once (ipv6_chk_same_addr), and its far end may change.
    fn same_as(&self, other: &Address) -> bool {
        self.addr == other.addr && (self.addr.is_ipv6() || self.prefix == other.prefix)
    }

    /// Where the kernel puts it among a device's addresses: IPv4 at the end; IPv6 before the first of no larger scope,
    /// the newest first (ipv6_link_dev_addr).
    fn place_in(&self, list: &[Address]) -> usize {
        let before = |known: &&Address| match self.addr {
            IpAddr::V4(_) => known.addr.is_ipv4(),
            IpAddr::V6(_) => known.addr.is_ipv4() || known.scope.reach() > self.scope.reach(),
        };
        list.iter().take_while(before).count()
    }
}

impl Scope {
    /// Grows with the scope; rtnetlink's own numbers fall.
    fn reach(self) -> u8 {
        match self {
            Scope::Global => u8::MAX,
            Scope::Site => 55,
            Scope::Link => 2,
            Scope::Host => 1,
            Scope::Other(number) => u8::MAX - number,
        }
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
