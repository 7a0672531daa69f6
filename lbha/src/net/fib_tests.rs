//! Tests of the reduction of routes and neighbours to what two ports need.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::net::state::{Address, Event, Link, Neighbour, Placement};

const PUBLIC: u32 = 2;
const PRIVATE: u32 = 3;
const OTHER: u32 = 4;

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn net(s: &str) -> IpPrefix {
    let (addr, len) = s.split_once('/').unwrap();
    IpPrefix::new(ip(addr), len.parse().unwrap()).unwrap()
}

fn port(index: u32) -> Port {
    Port {
        name: format!("eth{index}"),
        attach_ifindex: index,
        attach_name: format!("eth{index}"),
        l3_ifindexes: BTreeSet::from([index]),
        smac: [2, 0, 0, 0, 0, index as u8],
        vlan: vec![],
        mtu: 1500,
        is_bond: false,
        is_bond_member: false,
        master_kind: None,
    }
}

fn link(index: u32) -> Link {
    let name = format!("eth{index}");
    Link { index, name, up: true, carrier: true, ethernet: true, ..Link::default() }
}

fn state() -> NetState {
    let mut state = NetState::default();
    for index in [PUBLIC, PRIVATE, OTHER] {
        state.apply(Event::NewLink(link(index)));
    }
    state
}

fn hop(ifindex: u32, gateway: &str) -> NextHop {
    let gateway = (!gateway.is_empty()).then(|| gateway.parse().unwrap());
    NextHop { ifindex, gateway, encap: false }
}

fn unicast(next_hops: Vec<NextHop>) -> Route {
    Route { next_hops, ..Route::default() }
}

fn add_route(state: &mut NetState, dst: &str, metric: u32, route: Route) {
    let key = RouteKey { dst: net(dst), metric };
    state.apply(Event::NewRoute(key, route, Placement::Last));
}

fn add_address(state: &mut NetState, index: u32, cidr: &str, secondary: bool, scope: Scope) {
    let addr = ip(cidr.split_once('/').unwrap().0);
    state.apply(Event::NewAddress(
        index,
        Address { addr, prefix: net(cidr), secondary, usable: true, scope },
    ));
}

fn fib(state: &NetState) -> Fib {
    forwarding(state, &port(PUBLIC), &port(PRIVATE))
}

fn gateway(side: Side, addr: &str) -> Option<RouteTarget> {
    Some(RouteTarget::Gateway { side, gateway: ip(addr) })
}

#[test]
fn gateways_and_connected_networks_belong_to_their_side() {
    let mut s = state();
    add_route(&mut s, "0.0.0.0/0", 0, unicast(vec![hop(PUBLIC, "192.0.2.1")]));
    add_route(&mut s, "192.168.1.0/24", 0, unicast(vec![hop(PRIVATE, "")]));
    add_route(&mut s, "172.16.0.0/12", 0, unicast(vec![hop(OTHER, "10.9.9.9")]));
    let fib = fib(&s);
    assert_eq!(fib.lookup(ip("8.8.8.8")), gateway(Side::Public, "192.0.2.1"));
    assert_eq!(fib.lookup(ip("192.168.1.9")), Some(RouteTarget::OnLink { side: Side::Private }));
    assert_eq!(fib.lookup(ip("172.16.0.1")), Some(RouteTarget::Unreachable));
    assert_eq!(fib.next_hop(ip("8.8.8.8")), Some((Side::Public, ip("192.0.2.1"))));
    assert_eq!(fib.next_hop(ip("192.168.1.9")), Some((Side::Private, ip("192.168.1.9"))));
    assert_eq!(fib.next_hop(ip("172.16.0.1")), None);
    assert_eq!(fib.gateways(), BTreeSet::from([(Side::Public, ip("192.0.2.1"))]));
}

#[test]
fn without_a_route_there_is_nothing() {
    assert_eq!(fib(&state()).lookup(ip("8.8.8.8")), None);
}

#[test]
fn the_best_metric_wins_and_the_first_of_its_metric() {
    let mut s = state();
    add_route(&mut s, "0.0.0.0/0", 100, unicast(vec![hop(PUBLIC, "192.0.2.1")]));
    add_route(&mut s, "0.0.0.0/0", 32, unicast(vec![hop(PUBLIC, "192.0.2.2")]));
    add_route(&mut s, "0.0.0.0/0", 32, unicast(vec![hop(PUBLIC, "192.0.2.3")]));
    assert_eq!(fib(&s).lookup(ip("8.8.8.8")), gateway(Side::Public, "192.0.2.2"));
}

#[test]
fn a_blackhole_hides_what_covers_it() {
    for kind in [RouteKind::Blackhole, RouteKind::Unreachable, RouteKind::Prohibit] {
        let mut s = state();
        add_route(&mut s, "0.0.0.0/0", 0, unicast(vec![hop(PUBLIC, "192.0.2.1")]));
        let route = Route { kind, ..Route::default() };
        add_route(&mut s, "10.0.0.0/8", 0, route);
        assert_eq!(fib(&s).lookup(ip("10.1.1.1")), Some(RouteTarget::Unreachable));
        assert_eq!(fib(&s).lookup(ip("11.1.1.1")), gateway(Side::Public, "192.0.2.1"));
    }
}

#[test]
fn multipath_takes_the_first_next_hop_that_is_up_and_ours() {
    let mut s = state();
    let hops = vec![hop(OTHER, "10.9.9.9"), hop(PUBLIC, "192.0.2.1"), hop(PRIVATE, "192.168.1.1")];
    add_route(&mut s, "0.0.0.0/0", 0, unicast(hops));
    assert_eq!(fib(&s).lookup(ip("8.8.8.8")), gateway(Side::Public, "192.0.2.1"));
    s.apply(Event::NewLink(Link { carrier: false, ..link(PUBLIC) }));
    assert_eq!(fib(&s).lookup(ip("8.8.8.8")), gateway(Side::Private, "192.168.1.1"));
    s.apply(Event::NewLink(Link { up: false, carrier: false, ..link(PRIVATE) }));
    assert_eq!(
        fib(&s).lookup(ip("8.8.8.8")),
        gateway(Side::Public, "192.0.2.1"),
        "a link without a carrier is better than none"
    );
    s.apply(Event::NewLink(Link { up: false, carrier: false, ..link(PUBLIC) }));
    assert_eq!(fib(&s).lookup(ip("8.8.8.8")), Some(RouteTarget::Unreachable));
}

#[test]
fn a_route_that_the_datapath_cannot_serve_is_unreachable() {
    let mut s = state();
    let encap = NextHop { encap: true, ..hop(PUBLIC, "192.0.2.1") };
    add_route(&mut s, "10.0.0.0/8", 0, unicast(vec![encap]));
    assert_eq!(fib(&s).lookup(ip("10.0.0.1")), Some(RouteTarget::Unreachable));
}

#[test]
fn an_ipv4_route_may_lead_through_an_ipv6_gateway() {
    let mut s = state();
    add_route(&mut s, "10.0.0.0/8", 0, unicast(vec![hop(PUBLIC, "fe80::1")]));
    assert_eq!(fib(&s).lookup(ip("10.0.0.1")), gateway(Side::Public, "fe80::1"));
    assert_eq!(fib(&s).next_hop(ip("10.0.0.1")), Some((Side::Public, ip("fe80::1"))));
}

#[test]
fn a_full_table_through_one_gateway_is_one_entry() {
    let mut s = state();
    for i in 0..2000u32 {
        let dst = format!("{}.{}.0.0/16", 1 + i / 200, i % 200);
        add_route(&mut s, &dst, 0, unicast(vec![hop(PUBLIC, "192.0.2.1")]));
    }
    assert_eq!(fib(&s).routes.len(), 2000, "nothing covers them yet");
    add_route(&mut s, "0.0.0.0/0", 0, unicast(vec![hop(PUBLIC, "192.0.2.1")]));
    assert_eq!(fib(&s).routes.len(), 1);
}

#[test]
fn aggregation_compares_with_the_closest_covering_prefix() {
    let mut s = state();
    add_route(&mut s, "0.0.0.0/0", 0, unicast(vec![hop(PUBLIC, "192.0.2.1")]));
    add_route(&mut s, "10.0.0.0/8", 0, unicast(vec![hop(PUBLIC, "192.0.2.2")]));
    add_route(&mut s, "10.1.0.0/16", 0, unicast(vec![hop(PUBLIC, "192.0.2.2")]));
    add_route(&mut s, "10.1.1.0/24", 0, unicast(vec![hop(PUBLIC, "192.0.2.1")]));
    add_route(&mut s, "11.0.0.0/8", 0, unicast(vec![hop(PUBLIC, "192.0.2.1")]));
    let kept: Vec<String> = fib(&s).routes.keys().map(|p| p.to_string()).collect();
    assert_eq!(kept, ["0.0.0.0/0", "10.0.0.0/8", "10.1.1.0/24"]);
}

#[test]
fn only_neighbours_that_packets_may_be_sent_to_count() {
    let mut s = state();
    let mac = [2, 0, 0, 0, 9, 9];
    for (last, nud) in [
        (1, Nud::Reachable),
        (2, Nud::Stale),
        (3, Nud::Delay),
        (4, Nud::Probe),
        (5, Nud::Permanent),
        (6, Nud::NoArp),
        (7, Nud::Failed),
        (8, Nud::Incomplete),
        (9, Nud::None),
    ] {
        let neighbour = Neighbour { mac: Some(mac), nud };
        s.apply(Event::NewNeighbour(PRIVATE, IpAddr::from([192, 168, 1, last]), neighbour));
    }
    let multicast = Neighbour { mac: Some([1, 0, 0x5e, 0, 0, 1]), nud: Nud::NoArp };
    s.apply(Event::NewNeighbour(PUBLIC, ip("224.0.0.1"), multicast));
    let foreign = Neighbour { mac: Some(mac), nud: Nud::Reachable };
    s.apply(Event::NewNeighbour(OTHER, ip("10.9.9.9"), foreign));
    let fib = fib(&s);
    let expected: BTreeMap<_, _> =
        (1..=6).map(|last| ((Side::Private, IpAddr::from([192, 168, 1, last])), mac)).collect();
    assert_eq!(fib.neighbours, expected);
}

#[test]
fn one_armed_everything_is_public() {
    let mut s = state();
    add_route(&mut s, "0.0.0.0/0", 0, unicast(vec![hop(PUBLIC, "192.0.2.1")]));
    let neighbour = Neighbour { mac: Some([2, 0, 0, 0, 0, 1]), nud: Nud::Reachable };
    s.apply(Event::NewNeighbour(PUBLIC, ip("192.0.2.9"), neighbour));
    add_address(&mut s, PUBLIC, "192.0.2.5/24", false, Scope::Global);
    let fib = forwarding(&s, &port(PUBLIC), &port(PUBLIC));
    assert_eq!(fib.lookup(ip("8.8.8.8")), gateway(Side::Public, "192.0.2.1"));
    assert!(fib.neighbours.contains_key(&(Side::Public, ip("192.0.2.9"))));
    assert_eq!(fib.neighbours.len(), 1);
    for side in [Side::Public, Side::Private] {
        assert_eq!(fib.source_for(&s, side, ip("192.0.2.9")), Some(ip("192.0.2.5")));
    }
}

#[test]
fn the_source_is_of_the_destinations_subnet_or_the_first_global_one() {
    let mut s = state();
    add_address(&mut s, PRIVATE, "169.254.1.1/16", false, Scope::Link);
    add_address(&mut s, PRIVATE, "192.168.1.5/24", false, Scope::Global);
    add_address(&mut s, PRIVATE, "192.168.1.1/24", true, Scope::Global);
    add_address(&mut s, PRIVATE, "10.7.0.1/24", false, Scope::Global);
    add_address(&mut s, PUBLIC, "192.0.2.5/24", false, Scope::Global);
    let fib = fib(&s);
    let source = |side, dst| fib.source_for(&s, side, ip(dst));
    assert_eq!(source(Side::Private, "192.168.1.9"), Some(ip("192.168.1.5")));
    assert_eq!(source(Side::Private, "10.7.0.9"), Some(ip("10.7.0.1")));
    assert_eq!(source(Side::Private, "8.8.8.8"), Some(ip("192.168.1.5")));
    assert_eq!(source(Side::Private, "169.254.2.2"), Some(ip("169.254.1.1")));
    assert_eq!(source(Side::Public, "8.8.8.8"), Some(ip("192.0.2.5")));
    assert_eq!(fib.local.len(), 5);
}

#[test]
fn a_side_without_addresses_has_no_source() {
    let s = state();
    assert_eq!(fib(&s).source_for(&s, Side::Private, ip("192.168.1.9")), None);
}

#[test]
fn both_families_are_kept_apart() {
    let mut s = state();
    add_route(&mut s, "0.0.0.0/0", 0, unicast(vec![hop(PUBLIC, "192.0.2.1")]));
    add_route(&mut s, "::/0", 1024, unicast(vec![hop(PUBLIC, "fe80::1")]));
    add_route(&mut s, "fd00:1::/64", 256, unicast(vec![hop(PRIVATE, "")]));
    let fib = fib(&s);
    assert_eq!(fib.lookup(ip("8.8.8.8")), gateway(Side::Public, "192.0.2.1"));
    assert_eq!(fib.next_hop(ip("2001:db8::1")), Some((Side::Public, ip("fe80::1"))));
    assert_eq!(fib.next_hop(ip("fd00:1::9")), Some((Side::Private, ip("fd00:1::9"))));
    let gateways = [(Side::Public, ip("192.0.2.1")), (Side::Public, ip("fe80::1"))];
    assert_eq!(fib.gateways(), BTreeSet::from(gateways));
}

#[test]
fn link_local_and_multicast_prefixes_are_left_out() {
    let mut s = state();
    add_route(&mut s, "::/0", 1024, unicast(vec![hop(PUBLIC, "fe80::1")]));
    for index in [PUBLIC, PRIVATE] {
        add_route(&mut s, "fe80::/64", 256, unicast(vec![hop(index, "")]));
        add_route(&mut s, "ff00::/8", 256, unicast(vec![hop(index, "")]));
    }
    let fib = fib(&s);
    assert_eq!(fib.routes.keys().copied().collect::<Vec<_>>(), [IpPrefix::DEFAULT_V6]);
    for addr in ["fe80::1", "febf::1", "ff02::1", "ff0e::1"] {
        assert_eq!(fib.lookup(ip(addr)), None, "{addr}");
        assert_eq!(fib.next_hop(ip(addr)), None, "{addr}");
    }
}

#[test]
fn an_ipv6_full_table_through_one_gateway_is_one_entry() {
    let mut s = state();
    add_route(&mut s, "::/0", 1024, unicast(vec![hop(PUBLIC, "fe80::1")]));
    add_route(&mut s, "0.0.0.0/0", 0, unicast(vec![hop(PUBLIC, "192.0.2.1")]));
    for i in 0..1000u32 {
        let dst = format!("2001:{i:x}::/32");
        add_route(&mut s, &dst, 1024, unicast(vec![hop(PUBLIC, "fe80::1")]));
    }
    assert_eq!(fib(&s).routes.len(), 2);
}

#[test]
fn a_gateways_link_local_neighbour_is_found() {
    let mut s = state();
    let mac = [2, 0, 0, 0, 9, 9];
    let neighbour = Neighbour { mac: Some(mac), nud: Nud::Stale };
    s.apply(Event::NewNeighbour(PUBLIC, ip("fe80::1"), neighbour));
    let other = Neighbour { mac: Some([2, 0, 0, 0, 8, 8]), nud: Nud::Reachable };
    s.apply(Event::NewNeighbour(PRIVATE, ip("fe80::1"), other));
    let multicast = Neighbour { mac: Some([0x33, 0x33, 0, 0, 0, 1]), nud: Nud::NoArp };
    s.apply(Event::NewNeighbour(PUBLIC, ip("ff02::1"), multicast));
    let fib = fib(&s);
    assert_eq!(fib.neighbours[&(Side::Public, ip("fe80::1"))], mac);
    assert_eq!(fib.neighbours[&(Side::Private, ip("fe80::1"))], [2, 0, 0, 0, 8, 8]);
    assert_eq!(fib.neighbours.len(), 2);
}

#[test]
fn an_ipv6_source_is_of_the_destinations_subnet_or_the_most_alike() {
    let mut s = state();
    add_address(&mut s, PUBLIC, "fe80::5/64", false, Scope::Link);
    add_address(&mut s, PUBLIC, "fd00::5/64", false, Scope::Global);
    add_address(&mut s, PUBLIC, "2001:db8:1::5/64", false, Scope::Global);
    add_address(&mut s, PUBLIC, "2001:db8:2::5/64", false, Scope::Global);
    add_address(&mut s, PUBLIC, "2001:db8:1::99/64", true, Scope::Global);
    add_address(&mut s, PUBLIC, "2001:db8:1::100/128", false, Scope::Global);
    add_address(&mut s, PUBLIC, "192.0.2.5/24", false, Scope::Global);
    let fib = fib(&s);
    let source = |dst| fib.source_for(&s, Side::Public, ip(dst)).map(|addr| addr.to_string());
    let is = |text: &str| Some(text.to_owned());
    assert_eq!(source("2001:db8:1::9"), is("2001:db8:1::5"), "not a service's address");
    assert_eq!(source("2001:db8:2::9"), is("2001:db8:2::5"));
    assert_eq!(source("2001:db8:2:1::9"), is("2001:db8:2::5"), "the longest common prefix");
    assert_eq!(source("fd00:7::9"), is("fd00::5"));
    assert_eq!(source("fe80::1"), is("fe80::5"));
    assert_eq!(source("192.0.2.9"), is("192.0.2.5"));
    assert_eq!(source("8.8.8.8"), is("192.0.2.5"));
    assert!(fib.local.contains(&ip("fe80::5")) && fib.local.len() == 7);
    assert_eq!(fib.source_for(&s, Side::Private, ip("2001:db8::1")), None);
}

#[test]
fn an_ipv6_source_must_be_usable_and_global() {
    let mut s = state();
    add_address(&mut s, PUBLIC, "fe80::5/64", false, Scope::Link);
    let addr = ip("2001:db8:1::5");
    let tentative = Address {
        addr,
        prefix: net("2001:db8:1::/64"),
        secondary: false,
        usable: false,
        scope: Scope::Global,
    };
    s.apply(Event::NewAddress(PUBLIC, tentative.clone()));
    let source = |s: &NetState| fib(s).source_for(s, Side::Public, ip("2001:db8:1::9"));
    assert_eq!(source(&s), None);
    assert!(fib(&s).local.contains(&addr), "it is here all the same");
    s.apply(Event::NewAddress(PUBLIC, Address { usable: true, ..tentative }));
    assert_eq!(source(&s), Some(addr));
}

#[test]
fn the_primary_address_is_the_one_towards_the_gateway() {
    let mut s = state();
    for cidr in ["10.0.0.5/24", "192.0.2.5/24", "2001:db8:1::5/64", "2001:db8:2::5/64"] {
        add_address(&mut s, PUBLIC, cidr, false, Scope::Global);
    }
    add_address(&mut s, PUBLIC, "169.254.0.5/16", false, Scope::Link);
    let primary = |s: &NetState, side, family| fib(s).primary(s, side, family);
    assert_eq!(primary(&s, Side::Public, Family::V4), Some(ip("10.0.0.5")), "the first");
    assert_eq!(primary(&s, Side::Public, Family::V6), Some(ip("2001:db8:2::5")), "the newest");
    add_route(&mut s, "0.0.0.0/0", 0, unicast(vec![hop(PUBLIC, "192.0.2.1")]));
    add_route(&mut s, "::/0", 1024, unicast(vec![hop(PUBLIC, "2001:db8:1::1")]));
    assert_eq!(primary(&s, Side::Public, Family::V4), Some(ip("192.0.2.5")));
    assert_eq!(primary(&s, Side::Public, Family::V6), Some(ip("2001:db8:1::5")));
    assert_eq!(primary(&s, Side::Private, Family::V4), None);
    // That side's own, whatever the default route of the other.
    add_address(&mut s, PRIVATE, "fe80::6/64", false, Scope::Link);
    assert_eq!(primary(&s, Side::Private, Family::V6), None, "link-local is not global");
    add_address(&mut s, PRIVATE, "fd00::6/64", false, Scope::Global);
    assert_eq!(primary(&s, Side::Private, Family::V6), Some(ip("fd00::6")));
}

#[test]
fn a_gateway_without_a_global_address_does_not_make_a_link_local_one_primary() {
    let mut s = state();
    add_address(&mut s, PUBLIC, "169.254.0.5/16", false, Scope::Link);
    add_address(&mut s, PUBLIC, "192.0.2.5/32", false, Scope::Global);
    add_address(&mut s, PUBLIC, "fe80::5/64", false, Scope::Link);
    add_address(&mut s, PUBLIC, "2001:db8:1::5/64", false, Scope::Global);
    add_address(&mut s, PUBLIC, "fd00::5/64", false, Scope::Global);
    add_route(&mut s, "0.0.0.0/0", 0, unicast(vec![hop(PUBLIC, "169.254.0.1")]));
    add_route(&mut s, "::/0", 1024, unicast(vec![hop(PUBLIC, "fe80::1")]));
    let fib = fib(&s);
    assert_eq!(fib.primary(&s, Side::Public, Family::V4), Some(ip("192.0.2.5")));
    assert_eq!(fib.primary(&s, Side::Public, Family::V6), Some(ip("2001:db8:1::5")));
}

/// Few distinct bits, so that prefixes nest and agree often: at both ends of an address of either family.
fn any_addr() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), any::<u32>()).prop_map(|(v4, bits)| {
        let bits = bits & 0xc300_0003;
        if v4 {
            Ipv4Addr::from(bits).into()
        } else {
            Ipv6Addr::from(u128::from(bits) << 96 | u128::from(bits & 3)).into()
        }
    })
}

fn any_targets() -> impl Strategy<Value = BTreeMap<IpPrefix, RouteTarget>> {
    let prefix = (any_addr(), any::<u8>()).prop_map(|(addr, len)| {
        IpPrefix::new(addr, len % (IpPrefix::host(addr).len() + 1)).unwrap()
    });
    let target = prop_oneof![
        Just(RouteTarget::Unreachable),
        Just(RouteTarget::OnLink { side: Side::Private }),
        (1u8..3).prop_map(|g| RouteTarget::Gateway {
            side: Side::Public,
            gateway: [0, 0, 0, g].into()
        }),
    ];
    prop::collection::btree_map(prefix, target, 0..40)
}

/// The longest prefix by looking at all of them.
fn naive(targets: &BTreeMap<IpPrefix, RouteTarget>, addr: IpAddr) -> Option<RouteTarget> {
    let matching = targets.iter().filter(|(prefix, _)| prefix.contains(addr));
    matching.max_by_key(|(prefix, _)| prefix.len()).map(|(_, target)| *target)
}

/// The first and the last address of a prefix, and the one before it.
fn edges(prefix: IpPrefix) -> [IpAddr; 3] {
    match prefix.addr() {
        IpAddr::V4(addr) => {
            let (first, rest) = (addr.to_bits(), u32::MAX.checked_shr(prefix.len().into()));
            [first, first | rest.unwrap_or(0), first.wrapping_sub(1)]
                .map(|a| Ipv4Addr::from(a).into())
        }
        IpAddr::V6(addr) => {
            let (first, rest) = (addr.to_bits(), u128::MAX.checked_shr(prefix.len().into()));
            [first, first | rest.unwrap_or(0), first.wrapping_sub(1)]
                .map(|a| Ipv6Addr::from(a).into())
        }
    }
}

proptest! {
    #[test]
    fn aggregation_changes_no_lookup(
        targets in any_targets(),
        addrs in prop::collection::vec(any_addr(), 64),
    ) {
        let fib = Fib { routes: aggregate(targets.clone()), ..Fib::default() };
        prop_assert!(fib.routes.len() <= targets.len());
        for addr in addrs.into_iter().chain(targets.keys().copied().flat_map(edges)) {
            let expected = if is_of_the_link(IpPrefix::host(addr)) { None } else { naive(&targets, addr) };
            prop_assert_eq!(fib.lookup(addr), expected, "{}", addr);
        }
    }

    #[test]
    fn nothing_that_is_kept_repeats_what_covers_it(targets in any_targets()) {
        let kept = aggregate(targets);
        for (prefix, target) in &kept {
            let cover = kept.iter().filter(|(p, _)| *p != prefix && p.covers(*prefix));
            if let Some((_, inherited)) = cover.max_by_key(|(p, _)| p.len()) {
                prop_assert_ne!(inherited, target);
            }
        }
    }
}
