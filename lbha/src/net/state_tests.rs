//! Tests of the state: what each event changes, and that replaying events over a newer snapshot converges.

use proptest::prelude::*;

use super::*;

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn net(s: &str) -> IpPrefix {
    let (addr, len) = s.split_once('/').unwrap();
    IpPrefix::new(ip(addr), len.parse().unwrap()).unwrap()
}

fn link(index: u32, up: bool) -> Link {
    Link { index, name: format!("eth{index}"), up, carrier: up, ..Link::default() }
}

fn address(cidr: &str) -> Address {
    let addr = ip(cidr.split_once('/').unwrap().0);
    let scope = if net("fe80::/10").contains(addr) { Scope::Link } else { Scope::Global };
    Address { addr, prefix: net(cidr), secondary: false, usable: true, scope }
}

fn key(dst: &str, metric: u32) -> RouteKey {
    RouteKey { dst: net(dst), metric }
}

fn via(hops: &[(u32, &str)]) -> Route {
    let next_hops = hops.iter().map(|(ifindex, gateway)| NextHop {
        ifindex: *ifindex,
        gateway: Some(gateway.parse().unwrap()),
        encap: false,
    });
    let next_hops: Vec<NextHop> = next_hops.collect();
    let joins = next_hops[0].gateway.is_some_and(|gateway| gateway.is_ipv6());
    Route { next_hops, joins, ..Route::default() }
}

fn reachable(last: u8) -> Neighbour {
    Neighbour { mac: Some([2, 0, 0, 0, 0, last]), nud: Nud::Reachable }
}

fn routes(state: &NetState, at: RouteKey) -> &[Route] {
    state.routes.get(&at).map_or(&[], Vec::as_slice)
}

#[test]
fn an_event_that_says_nothing_new_changes_nothing() {
    let events = [
        Event::NewLink(link(2, true)),
        Event::NewAddress(2, address("10.0.0.1/24")),
        Event::NewNeighbour(2, ip("10.0.0.2"), reachable(2)),
        Event::NewRoute(key("0.0.0.0/0", 0), via(&[(2, "10.0.0.2")]), Placement::First),
    ];
    let mut state = NetState::default();
    for event in &events {
        assert!(state.apply(event.clone()), "{event:?}");
    }
    let before = state.clone();
    for event in &events {
        assert!(!state.apply(event.clone()), "{event:?}");
    }
    assert_eq!(state, before);
    for gone in [
        Event::DelLink(9),
        Event::DelAddress(2, address("10.0.0.9/24")),
        Event::DelNeighbour(2, ip("10.0.0.9")),
        Event::DelRoute(key("0.0.0.0/0", 7), via(&[(2, "10.0.0.2")])),
        Event::DelRoute(key("0.0.0.0/0", 0), via(&[(2, "10.0.0.3")])),
        Event::NextHopObject,
    ] {
        assert!(!state.apply(gone.clone()), "{gone:?}");
    }
    assert_eq!(state, before);
}

#[test]
fn a_link_that_goes_takes_all_of_its_own_with_it() {
    let mut state = NetState::default();
    for index in [2, 3] {
        state.apply(Event::NewLink(link(index, true)));
        state.apply(Event::NewAddress(index, address("10.0.0.1/24")));
        state.apply(Event::NewNeighbour(index, ip("10.0.0.2"), reachable(2)));
    }
    let (one, both) = (key("1.0.0.0/8", 0), key("2.0.0.0/8", 0));
    state.apply(Event::NewRoute(one, via(&[(2, "10.0.0.2")]), Placement::First));
    let multipath = via(&[(2, "10.0.0.2"), (3, "10.0.0.2")]);
    state.apply(Event::NewRoute(both, multipath.clone(), Placement::First));
    assert!(state.apply(Event::DelLink(2)));
    assert!(!state.links.contains_key(&2) && !state.addresses.contains_key(&2));
    assert_eq!(state.neighbours.keys().collect::<Vec<_>>(), [&(3, ip("10.0.0.2"))]);
    assert!(routes(&state, one).is_empty());
    assert_eq!(routes(&state, both), [multipath], "one next hop is still there");
}

#[test]
fn a_link_that_goes_down_loses_its_routes_but_not_its_addresses() {
    let mut state = NetState::default();
    state.apply(Event::NewLink(link(2, true)));
    state.apply(Event::NewAddress(2, address("10.0.0.1/24")));
    state.apply(Event::NewRoute(key("0.0.0.0/0", 0), via(&[(2, "10.0.0.2")]), Placement::First));
    let down = Event::NewLink(link(2, false));
    assert!(state.routes_may_change_silently(&down));
    assert!(state.apply(down));
    assert!(state.routes.is_empty());
    assert_eq!(state.addresses[&2].len(), 1);
    assert!(!state.routes_may_change_silently(&Event::NewLink(link(2, true))));
}

#[test]
fn a_carrier_that_is_lost_leaves_the_routes() {
    let mut state = NetState::default();
    state.apply(Event::NewLink(link(2, true)));
    state.apply(Event::NewRoute(key("0.0.0.0/0", 0), via(&[(2, "10.0.0.2")]), Placement::First));
    state.apply(Event::NewLink(Link { carrier: false, ..link(2, true) }));
    assert_eq!(state.routes.len(), 1);
}

#[test]
fn the_last_address_takes_the_routes_and_a_source_its_own() {
    let mut state = NetState::default();
    state.apply(Event::NewLink(link(2, true)));
    for cidr in ["10.0.0.1/24", "10.0.0.7/24", "10.0.0.7/32"] {
        state.apply(Event::NewAddress(2, address(cidr)));
    }
    let (plain, sourced) = (key("1.0.0.0/8", 0), key("2.0.0.0/8", 0));
    state.apply(Event::NewRoute(plain, via(&[(2, "10.0.0.2")]), Placement::First));
    let from_7 = Route { preferred_source: Some(ip("10.0.0.7")), ..via(&[(2, "10.0.0.2")]) };
    state.apply(Event::NewRoute(sourced, from_7.clone(), Placement::First));

    state.apply(Event::DelAddress(2, address("10.0.0.7/24")));
    assert_eq!(routes(&state, sourced), [from_7], "the address is still there with another prefix");
    state.apply(Event::DelAddress(2, address("10.0.0.7/32")));
    assert!(routes(&state, sourced).is_empty());
    assert_eq!(routes(&state, plain).len(), 1);
    state.apply(Event::DelAddress(2, address("10.0.0.1/24")));
    assert!(state.routes.is_empty() && state.addresses.is_empty());
}

#[test]
fn an_address_changes_in_place() {
    let mut state = NetState::default();
    state.apply(Event::NewAddress(2, Address { secondary: true, ..address("10.0.0.2/24") }));
    state.apply(Event::NewAddress(2, address("10.0.0.3/24")));
    assert!(state.apply(Event::NewAddress(2, address("10.0.0.2/24"))));
    assert_eq!(state.addresses[&2], [address("10.0.0.2/24"), address("10.0.0.3/24")]);
}

#[test]
fn routes_of_one_prefix_and_metric_stand_where_the_kernel_puts_them() {
    let at = key("1.0.0.0/8", 5);
    let [a, b, c, d] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|g| via(&[(2, g)]));
    let mut state = NetState::default();
    state.apply(Event::NewRoute(at, a.clone(), Placement::First));
    state.apply(Event::NewRoute(at, b.clone(), Placement::Last));
    state.apply(Event::NewRoute(at, c.clone(), Placement::First));
    assert_eq!(routes(&state, at), [c.clone(), a.clone(), b.clone()]);
    state.apply(Event::NewRoute(at, d.clone(), Placement::Replace));
    assert_eq!(routes(&state, at), [d.clone(), a.clone(), b.clone()]);
    state.apply(Event::DelRoute(at, a));
    assert_eq!(routes(&state, at), [d.clone(), b.clone()]);
    // Replayed over a snapshot that has it further down.
    state.apply(Event::NewRoute(at, b.clone(), Placement::Replace));
    assert_eq!(routes(&state, at), std::slice::from_ref(&b));
    state.apply(Event::NewRoute(at, b, Placement::Last));
    assert_eq!(routes(&state, at).len(), 1);
}

#[test]
fn ipv6_addresses_are_the_newest_first_and_global_ones_before_link_local_ones() {
    let mut state = NetState::default();
    for cidr in ["fe80::1/64", "10.0.0.1/24", "2001:db8::1/64", "2001:db8::2/64", "10.0.0.2/24"] {
        state.apply(Event::NewAddress(2, address(cidr)));
    }
    let order: Vec<String> = state.addresses[&2].iter().map(|a| a.addr.to_string()).collect();
    assert_eq!(order, ["10.0.0.1", "10.0.0.2", "2001:db8::2", "2001:db8::1", "fe80::1"]);
}

#[test]
fn an_ipv6_address_is_on_a_device_once() {
    let mut state = NetState::default();
    let far_end = |far| Address { prefix: net(far), ..address("2001:db8::1/128") };
    state.apply(Event::NewAddress(2, far_end("2001:db8::6/128")));
    state.apply(Event::NewAddress(2, far_end("2001:db8::7/128")));
    assert_eq!(state.addresses[&2], [far_end("2001:db8::7/128")]);
    state.apply(Event::DelAddress(2, far_end("2001:db8::7/128")));
    assert!(state.addresses.is_empty());
}

#[test]
fn the_link_local_address_is_one_that_may_be_used() {
    let mut state = NetState::default();
    state.apply(Event::NewAddress(2, address("2001:db8::1/64")));
    state.apply(Event::NewAddress(2, Address { usable: false, ..address("fe80::1/64") }));
    assert_eq!(state.link_local(2), None, "tentative");
    state.apply(Event::NewAddress(2, address("fe80::1/64")));
    assert_eq!(state.link_local(2), Some("fe80::1".parse().unwrap()));
    assert_eq!(state.link_local(3), None);
}

#[test]
fn ipv6_routes_outlive_the_addresses() {
    let mut state = NetState::default();
    state.apply(Event::NewLink(link(2, true)));
    state.apply(Event::NewAddress(2, address("10.0.0.1/24")));
    state.apply(Event::NewAddress(2, address("2001:db8::1/64")));
    let (v4, v6) = (key("1.0.0.0/8", 0), key("2001:db8:1::/48", 1024));
    state.apply(Event::NewRoute(v4, via(&[(2, "10.0.0.2")]), Placement::First));
    let plain = via(&[(2, "2001:db8::2")]);
    let sourced = Route { preferred_source: Some(ip("2001:db8::1")), ..plain.clone() };
    state.apply(Event::NewRoute(v6, sourced, Placement::First));

    state.apply(Event::DelAddress(2, address("10.0.0.1/24")));
    assert!(routes(&state, v4).is_empty(), "the last IPv4 address");
    let gone = Event::DelAddress(2, address("2001:db8::1/64"));
    assert!(state.routes_may_change_silently(&gone));
    state.apply(gone);
    assert_eq!(routes(&state, v6), [plain], "without its source");
    state.apply(Event::NewLink(link(2, false)));
    assert!(routes(&state, v6).is_empty());
}

#[test]
fn ipv6_routes_become_one_multipath_route() {
    let at = key("2001:db8:a::/48", 1024);
    let [a, b, c] = ["fe80::a", "fe80::b", "fe80::c"];
    let mut state = NetState::default();
    // As the kernel says it: the newest first, then the others.
    state.apply(Event::NewRoute(at, via(&[(2, a)]), Placement::Last));
    state.apply(Event::NewRoute(at, via(&[(3, b), (2, a)]), Placement::Last));
    state.apply(Event::NewRoute(at, via(&[(2, c), (2, a), (3, b)]), Placement::First));
    assert_eq!(routes(&state, at), [via(&[(2, a), (3, b), (2, c)])], "the order of a dump");
    // One that another message of the same change has already told of.
    assert!(!state.apply(Event::NewRoute(at, via(&[(2, c), (2, a), (3, b)]), Placement::Last)));
    state.apply(Event::DelRoute(at, via(&[(2, a)])));
    assert_eq!(routes(&state, at), [via(&[(3, b), (2, c)])]);
    state.apply(Event::NewRoute(at, via(&[(2, a)]), Placement::Replace));
    assert_eq!(routes(&state, at), [via(&[(2, a)])], "a replacement is for all of them");
    state.apply(Event::NewRoute(at, via(&[(2, a), (3, b)]), Placement::Replace));
    state.apply(Event::DelRoute(at, via(&[(2, a), (3, b)])));
    assert!(state.routes.is_empty());
}

#[test]
fn what_cannot_join_a_multipath_route_stands_beside_it() {
    let at = key("::/0", 1024);
    let alone = |gateway| Route { joins: false, ..via(&[(2, gateway)]) };
    let (multipath, advertised) = (via(&[(2, "fe80::a"), (3, "fe80::b")]), alone("fe80::c"));
    let unreachable = Route { kind: RouteKind::Unreachable, ..Route::default() };
    let mut state = NetState::default();
    for route in [&multipath, &advertised, &unreachable, &advertised] {
        state.apply(Event::NewRoute(at, route.clone(), Placement::Last));
    }
    assert_eq!(routes(&state, at), [multipath.clone(), advertised, unreachable.clone()]);
    let replaced = alone("fe80::d");
    state.apply(Event::NewRoute(at, replaced.clone(), Placement::Replace));
    assert_eq!(routes(&state, at), [multipath.clone(), replaced.clone(), unreachable.clone()]);
    state.apply(Event::DelRoute(at, unreachable));
    state.apply(Event::DelRoute(at, multipath));
    assert_eq!(routes(&state, at), std::slice::from_ref(&replaced));
    // Its preference may have changed since.
    state.apply(Event::DelRoute(at, Route { preference: Preference::High, ..replaced }));
    assert!(state.routes.is_empty());
}

#[test]
fn the_router_that_is_preferred_comes_first() {
    let at = key("::/0", 1024);
    let from = |gateway, preference| Route { joins: false, preference, ..via(&[(2, gateway)]) };
    let low = from("fe80::1", Preference::Low);
    let medium = from("fe80::2", Preference::Medium);
    let also = from("fe80::3", Preference::Medium);
    let high = from("fe80::4", Preference::High);
    let mut state = NetState::default();
    for route in [&low, &medium, &also, &high] {
        state.apply(Event::NewRoute(at, route.clone(), Placement::Last));
    }
    assert_eq!(routes(&state, at), [high, medium, also, low]);
}

#[test]
fn only_changed_tables_are_copied() {
    let mut state = NetState::default();
    state.apply(Event::NewLink(link(2, true)));
    let published = state.clone();
    state.apply(Event::NewNeighbour(2, ip("10.0.0.2"), reachable(2)));
    assert!(Arc::ptr_eq(&published.links, &state.links));
    assert!(Arc::ptr_eq(&published.routes, &state.routes));
    assert!(!Arc::ptr_eq(&published.neighbours, &state.neighbours));
}

#[test]
fn equal_tables_are_shared_after_a_dump() {
    let mut old = NetState::default();
    old.apply(Event::NewLink(link(2, true)));
    let mut fresh = NetState::default();
    fresh.apply(Event::NewLink(link(2, true)));
    fresh.apply(Event::NewNeighbour(2, ip("10.0.0.2"), reachable(2)));
    fresh.share_equal_tables(&old);
    assert!(Arc::ptr_eq(&fresh.links, &old.links));
    assert!(!Arc::ptr_eq(&fresh.neighbours, &old.neighbours));
}

fn any_event() -> impl Strategy<Value = Event> {
    let index = 2u32..4;
    let neighbour = (index.clone(), 1u8..4, any::<bool>(), 1u8..4).prop_map(|(i, a, new, mac)| {
        let addr = if a < 3 { IpAddr::from([10, 0, 0, a]) } else { ip("fe80::3") };
        if new {
            Event::NewNeighbour(i, addr, reachable(mac))
        } else {
            Event::DelNeighbour(i, addr)
        }
    });
    let links = (index, any::<bool>(), any::<bool>())
        .prop_map(|(i, up, new)| if new { Event::NewLink(link(i, up)) } else { Event::DelLink(i) });
    prop_oneof![neighbour, links]
}

proptest! {
    /// A dump taken between two events, with all events applied again, ends where the events alone end.
    #[test]
    fn replaying_events_over_a_newer_snapshot_converges(
        events in prop::collection::vec(any_event(), 0..30),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut straight = NetState::default();
        let mut snapshot = NetState::default();
        let cut = if events.is_empty() { 0 } else { cut.index(events.len()) };
        for (i, event) in events.iter().enumerate() {
            straight.apply(event.clone());
            if i < cut {
                snapshot.apply(event.clone());
            }
        }
        for event in &events {
            snapshot.apply(event.clone());
        }
        prop_assert_eq!(straight.links, snapshot.links);
        prop_assert_eq!(straight.neighbours, snapshot.neighbours);
    }
}
