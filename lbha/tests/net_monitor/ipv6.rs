//! IPv6: what the kernel does otherwise.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lbha::net::state::{NetState, NextHop, Nud};
use lbha::net::{
    Fib, IpPrefix, Monitor, NeighbourKeeper, RouteTarget, Side, Watch, forwarding,
    resolve_interface,
};

use crate::namespace::{
    Namespace, in_namespace, index_of, ip, ip_batch, mac_of, near_and_far, net, route_prefixes,
    set, text, until, until_named,
};

#[test]
fn what_ip_shows_is_in_the_snapshot() {
    in_namespace(async || {
        let far = near_and_far_v6();
        let (_monitor, mut states) = Monitor::start().await.unwrap();
        let index = index_of(&states, "near");
        assert!(route_prefixes(&states.borrow()).contains(&net("2001:db8::/64")));
        until_named(&mut states, "link-local", |s| s.link_local(index).is_some()).await;

        let usable = |s: &NetState, addr| {
            let all = s.addresses.get(&index)?;
            all.iter().find(|a| a.addr == addr).map(|a| a.usable)
        };
        set("net/ipv6/conf/near/dad_transmits", "1");
        let second = v6("2001:db8:1::1");
        ip("addr add 2001:db8:1::1/64 dev near");
        until_named(&mut states, "tentative", |s| usable(s, second) == Some(false)).await;
        until_named(&mut states, "ready", |s| usable(s, second) == Some(true)).await;
        ip("addr change 2001:db8:1::1/64 dev near preferred_lft 0");
        until_named(&mut states, "deprecated", |s| usable(s, second) == Some(false)).await;
        ip("addr del 2001:db8:1::1/64 dev near");
        until_named(&mut states, "deleted", |s| usable(s, second).is_none()).await;

        ip("neigh add 2001:db8::8 lladdr 02:00:00:00:00:99 dev near nud permanent");
        let eight = v6("2001:db8::8");
        until(&mut states, |s| mac_of(s, index, eight) == Some([2, 0, 0, 0, 0, 0x99])).await;
        ip("neigh del 2001:db8::8 dev near");
        until(&mut states, |s| mac_of(s, index, eight).is_none()).await;
        ip("-6 route add blackhole 2001:db8:f::/48");
        let blackhole = net("2001:db8:f::/48");
        until(&mut states, |s| route_prefixes(s).contains(&blackhole)).await;
        ip("-6 route del blackhole 2001:db8:f::/48");
        until(&mut states, |s| !route_prefixes(s).contains(&blackhole)).await;
        far.run("ip link set far down");
        until(&mut states, |s| !s.links[&index].carrier).await;
        ip("link del near");
        until(&mut states, |s| !s.links.contains_key(&index) && !s.addresses.contains_key(&index))
            .await;
        until(&mut states, |s| !route_prefixes(s).contains(&net("2001:db8::/64"))).await;
    });
}

#[test]
fn a_duplicate_address_is_never_used() {
    in_namespace(async || {
        let far = near_and_far_v6();
        far.run("ip addr add 2001:db8::9/64 dev far nodad");
        let (_monitor, mut states) = Monitor::start().await.unwrap();
        let index = index_of(&states, "near");
        set("net/ipv6/conf/near/dad_transmits", "1");
        ip("addr add 2001:db8::9/64 dev near");
        let nine = v6("2001:db8::9");
        let found =
            |s: &NetState| s.addresses[&index].iter().find(|address| address.addr == nine).cloned();
        // It is tentative at first, and longer than the kernel waits for an objection afterwards.
        until_named(&mut states, "added", |s| found(s).is_some()).await;
        let usable = states.wait_for(|s| found(s).is_some_and(|address| address.usable));
        let waited = tokio::time::timeout(Duration::from_secs(3), usable).await;
        assert!(waited.is_err(), "{waited:?}");
    });
}

#[test]
fn a_route_change_flips_the_fib() {
    in_namespace(async || {
        let _far = near_and_far_v6();
        public();
        let (_monitor, mut states) = Monitor::start().await.unwrap();
        let target = |state: &NetState| fib(state).lookup(v6("2001:db8:8:8::8"));
        let via = |side, gateway: &str| Some(RouteTarget::Gateway { side, gateway: v6(gateway) });
        let (public, private) = (Side::Public, Side::Private);
        for (command, expected) in [
            ("route add default via 2001:db8:2::1 metric 32", via(public, "2001:db8:2::1")),
            ("route add default via fe80::1 dev pub0 metric 10", via(public, "fe80::1")),
            ("route append default via 2001:db8:2::9 metric 10", via(public, "fe80::1")),
            ("route append default via 2001:db8::2 metric 10", via(public, "fe80::1")),
            ("route del default via fe80::1 dev pub0 metric 10", via(public, "2001:db8:2::9")),
            ("route replace default via 2001:db8::2 metric 10", via(private, "2001:db8::2")),
            ("route del default metric 10", via(public, "2001:db8:2::1")),
            ("route add 2001:db8:8::/48 via fe80::2 dev near", via(private, "fe80::2")),
            ("addr del 2001:db8::1/64 dev near", via(private, "fe80::2")),
            ("route del 2001:db8:8::/48", via(public, "2001:db8:2::1")),
            ("route add unreachable 2001:db8:8:8::/64", Some(RouteTarget::Unreachable)),
            ("route del unreachable 2001:db8:8:8::/64", via(public, "2001:db8:2::1")),
            ("link set pub0 down", None),
        ] {
            ip(&format!("-6 {command}"));
            until_named(&mut states, command, |s| target(s) == expected).await;
        }
        let all = route_prefixes(&states.borrow());
        assert!(all.contains(&net("fe80::/64")));
        assert!(!fib(&states.borrow()).routes.contains_key(&net("fe80::/64")));
    });
}

#[test]
fn a_multipath_route_has_the_next_hops_that_the_kernel_has() {
    in_namespace(async || {
        let _far = near_and_far_v6();
        public();
        let (_monitor, mut states) = Monitor::start().await.unwrap();
        let (near, public) = (index_of(&states, "near"), index_of(&states, "pub0"));
        let [a, b, c] = [(near, "2001:db8::a"), (public, "2001:db8:2::b"), (near, "fe80::c")];
        let routed = net("2001:db8:a::/48");
        let ab = "nexthop via 2001:db8::a dev near nexthop via 2001:db8:2::b dev pub0";
        let route = |verb: &str, rest: &str| format!("-6 route {verb} 2001:db8:a::/48 {rest}");
        for (command, expected) in [
            (route("add", ab), vec![a, b]),
            (route("append", "via fe80::c dev near"), vec![a, b, c]),
            (route("del", "via 2001:db8:2::b dev pub0"), vec![a, c]),
            (route("append", "via 2001:db8:2::b dev pub0"), vec![a, c, b]),
            (route("replace", ab), vec![a, b]),
            (route("del", ab), vec![]),
            (route("add", "via 2001:db8::a"), vec![a]),
            (route("append", "via 2001:db8:2::b"), vec![a, b]),
            (route("replace", "via fe80::c dev near"), vec![c]),
            (route("append", ab), vec![c, a, b]),
            // A next hop whose device is down is only dead, and gone with the device.
            ("link set pub0 down".into(), vec![c, a, b]),
            ("link del pub0".into(), vec![c, a]),
            (route("del", "metric 1024"), vec![]),
        ] {
            ip(&command);
            let expected: Vec<NextHop> = expected.into_iter().map(hop).collect();
            until_named(&mut states, &command, |s| hops_of(s, routed) == expected).await;
        }
    });
}

#[test]
fn events_lead_to_what_a_dump_shows() {
    in_namespace(async || {
        let _far = near_and_far_v6();
        public();
        let (_monitor, mut states) = Monitor::start().await.unwrap();
        ip("addr add 10.9.7.1/24 dev near");
        for command in [
            "addr add 2001:db8:1::1/64 dev near nodad",
            "addr add 2001:db8:1::2/64 dev near nodad",
            "route add 2001:db8:a::/48 via 2001:db8::a",
            "route append 2001:db8:a::/48 via 2001:db8:2::a",
            "route append 2001:db8:a::/48 via fe80::a dev near",
            "route del 2001:db8:a::/48 via 2001:db8::a",
            "route append 2001:db8:a::/48 via 2001:db8::b",
            "route append 2001:db8:a::/48 dev near",
            "route append unreachable 2001:db8:a::/48",
            "route add default via fe80::1 dev pub0",
            "route add default via fe80::2 dev pub0 metric 5",
            "nexthop add id 7 via 2001:db8::c dev near",
            "route add 2001:db8:c::/48 nhid 7",
        ] {
            ip(&format!("-6 {command}"));
        }
        let last = net("2001:db8:c::/48");
        until_named(&mut states, "the last route", |s| route_prefixes(s).contains(&last)).await;
        let (_another, mut dumped) = Monitor::start().await.unwrap();
        let (events, dump) =
            (states.borrow_and_update().clone(), dumped.borrow_and_update().clone());
        assert_eq!(events.addresses, dump.addresses);
        assert_eq!(events.routes, dump.routes);
    });
}

#[test]
fn a_dump_amid_changes_misses_no_route() {
    in_namespace(async || {
        let _far = near_and_far_v6();
        let stays = |i: u32| format!("2001:db8:1:{i:x}::/64");
        ip_batch(
            &(0..2000).map(|i| format!("route add {} dev near\n", stays(i))).collect::<String>(),
        );
        let stay: BTreeSet<IpPrefix> = (0..2000).map(|i| net(&stays(i))).collect();
        let (monitor, mut states) = Monitor::start().await.unwrap();
        assert!(route_prefixes(&states.borrow()).is_superset(&stay));
        // Before those that stay, so that a dump has sent them when they go.
        let changes = |verb| -> String {
            (0..50)
                .map(|i| format!("route {verb} 2001:db8:0:{:x}::/64 dev near\n", i + 1))
                .collect()
        };
        let batch: String = ["add", "del"].map(changes).concat();
        for round in 0..20 {
            let last = format!("2001:db8:2:{round:x}::/64");
            let batch = format!("{batch}route add {last} dev near\n");
            // A thread is born into its parent's namespace.
            let churn = std::thread::spawn(move || ip_batch(&batch));
            monitor.resync();
            let mut known = BTreeSet::new();
            while !known.contains(&net(&last)) {
                states.changed().await.unwrap();
                known = route_prefixes(&states.borrow());
                assert_eq!(stay.difference(&known).count(), 0, "missed in round {round}");
            }
            churn.join().unwrap();
        }
    });
}

#[test]
fn what_changes_without_a_word_is_noticed() {
    in_namespace(async || {
        let _far = near_and_far_v6();
        let (_monitor, mut states) = Monitor::start().await.unwrap();
        let routed = net("2001:db8:a::/48");
        let there = |s: &NetState| route_prefixes(s).contains(&routed);
        let source = |s: &NetState| {
            let routes = s.routes.iter().filter(|(key, _)| key.dst == routed);
            routes.flat_map(|(_, routes)| routes).find_map(|route| route.preferred_source)
        };
        ip("addr add 2001:db8::7/128 dev near nodad");
        ip("-6 route add 2001:db8:a::/48 via 2001:db8::2 src 2001:db8::7");
        until(&mut states, |s| source(s) == Some(v6("2001:db8::7"))).await;
        ip("addr del 2001:db8::7/128 dev near");
        until_named(&mut states, "preferred source", |s| there(s) && source(s).is_none()).await;

        set("net/ipv6/route/skip_notify_on_dev_down", "1");
        ip("link set near down");
        until_named(&mut states, "down", |s| !there(s)).await;
        ip("link set near up");
        ip("addr add 2001:db8::1/64 dev near nodad");
        until(&mut states, |s| route_prefixes(s).contains(&net("2001:db8::/64"))).await;
        assert!(!there(&states.borrow()));

        ip("-6 nexthop add id 7 via 2001:db8::2 dev near");
        ip("-6 route add 2001:db8:a::/48 nhid 7");
        until_named(&mut states, "by nexthop", there).await;
        ip("-6 nexthop replace id 7 via 2001:db8::3 dev near");
        let replaced = [hop((index_of(&states, "near"), "2001:db8::3"))];
        until_named(&mut states, "nexthop replaced", |s| hops_of(s, routed) == replaced).await;
        ip("nexthop del id 7");
        until_named(&mut states, "nexthop deleted", |s| !there(s)).await;
    });
}

#[test]
fn a_silent_mac_change_is_seen_within_a_second() {
    in_namespace(async || {
        let far = near_and_far_v6();
        let (monitor, mut states) = Monitor::start().await.unwrap();
        let index = index_of(&states, "near");
        let keeper = NeighbourKeeper::spawn(states.clone(), monitor.neighbours()).unwrap();
        // A server, and a gateway.
        for (round, addr) in [(5, v6("2001:db8::2")), (6, v6("fe80::2"))] {
            keeper.watch(BTreeSet::from([Watch { ifindex: index, addr, source: None }]));
            until_named(&mut states, "resolved", |s| mac_of(s, index, addr).is_some()).await;
            let mut times = Vec::new();
            for last in 1..=8u8 {
                // At another point of the check interval each time.
                tokio::time::sleep(Duration::from_millis(600 + 67 * u64::from(last))).await;
                let mac = [2, 0, 0, 0, round, last];
                far.run(&format!("ip link set far address {}", text(mac)));
                let start = Instant::now();
                until_named(&mut states, "new mac", |s| mac_of(s, index, addr) == Some(mac)).await;
                times.push(start.elapsed());
            }
            eprintln!("silent mac change of {addr}: {times:?}");
            assert!(times.iter().all(|time| *time < Duration::from_secs(1)), "{times:?}");
        }
    });
}

#[test]
fn a_neighbour_that_was_away_is_back_with_another_mac_within_a_second() {
    in_namespace(async || {
        let far = near_and_far_v6();
        let (monitor, mut states) = Monitor::start().await.unwrap();
        let (index, addr) = (index_of(&states, "near"), v6("2001:db8::2"));
        let nud = |s: &NetState| s.neighbours.get(&(index, addr)).map(|n| n.nud);
        let keeper = NeighbourKeeper::spawn(states.clone(), monitor.neighbours()).unwrap();
        keeper.watch(BTreeSet::from([Watch { ifindex: index, addr, source: None }]));
        until_named(&mut states, "resolved", |s| mac_of(s, index, addr).is_some()).await;
        // The link stays up, the host behind it is gone for a while.
        far.run("ip addr del 2001:db8::2/64 dev far");
        until_named(&mut states, "failed", |s| nud(s) == Some(Nud::Failed)).await;
        // Not at the moment at which the keeper asks again.
        tokio::time::sleep(Duration::from_millis(300)).await;
        far.run("ip link set far address 02:00:00:00:04:01");
        far.run("ip addr add 2001:db8::2/64 dev far nodad");
        let start = Instant::now();
        let mac = Some([2, 0, 0, 0, 4, 1]);
        until_named(&mut states, "back", |s| mac_of(s, index, addr) == mac).await;
        eprintln!("back with another mac: {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(1200));
    });
}

#[test]
fn a_probe_resolves_a_neighbour_and_an_absent_one_fails() {
    in_namespace(async || {
        let _far = near_and_far_v6();
        let (monitor, mut states) = Monitor::start().await.unwrap();
        let index = index_of(&states, "near");
        let neighbours = monitor.neighbours();
        let nud = |s: &NetState, addr| s.neighbours.get(&(index, addr)).map(|n| n.nud);
        let addr = v6("2001:db8::2");
        neighbours.probe(index, addr).await.unwrap();
        until_named(&mut states, "reachable", |s| nud(s, addr) == Some(Nud::Reachable)).await;
        let nobody = v6("2001:db8::77");
        neighbours.probe(index, nobody).await.unwrap();
        until_named(&mut states, "failed", |s| nud(s, nobody) == Some(Nud::Failed)).await;
    });
}

// What the tests stand on.

/// As [`near_and_far`], with IPv6 addresses that are usable at once: 2001:db8::1 and fe80::1 here, …2 there.
fn near_and_far_v6() -> Namespace {
    set("net/ipv6/conf/default/dad_transmits", "0");
    let far = near_and_far();
    ip_batch("addr add 2001:db8::1/64 dev near nodad\naddr add fe80::1/64 dev near nodad\n");
    far.run("ip addr add 2001:db8::2/64 dev far nodad");
    far.run("ip addr add fe80::2/64 dev far nodad");
    far
}

fn public() {
    ip("link add pub0 type veth peer name pub1");
    ip("link set pub1 up");
    ip("link set pub0 up");
    ip("addr add 2001:db8:2::5/64 dev pub0 nodad");
}

fn fib(state: &NetState) -> Fib {
    let public = resolve_interface(state, "pub0").unwrap();
    let private = resolve_interface(state, "near").unwrap();
    forwarding(state, &public, &private)
}

fn hops_of(state: &NetState, dst: IpPrefix) -> Vec<NextHop> {
    let routes = state.routes.iter().filter(|(key, _)| key.dst == dst);
    routes.flat_map(|(_, routes)| routes).flat_map(|route| route.next_hops.clone()).collect()
}

fn hop((ifindex, gateway): (u32, &str)) -> NextHop {
    NextHop { ifindex, gateway: Some(v6(gateway)), encap: false }
}

fn v6(text: &str) -> IpAddr {
    text.parse().unwrap()
}
