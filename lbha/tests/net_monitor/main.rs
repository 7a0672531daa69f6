//! The netlink side against the real kernel: each test in a network namespace of its own; needs root. What concerns both
//! families, and IPv4; `ipv6` has the rest.

mod ipv6;
mod namespace;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbha::net::state::{NetState, Nud};
use lbha::net::{
    Monitor, MonitorOptions, NeighbourKeeper, RouteTarget, Side, Watch, forwarding,
    resolve_interface,
};
use namespace::{
    FAR, NEAR, in_namespace, index_of, ip, ip_batch, mac_of, near_and_far, net, route_prefixes,
    text, until, until_named,
};

#[test]
fn what_ip_shows_is_in_the_snapshot() {
    in_namespace(async || {
        let far = near_and_far();
        let (_monitor, mut states) = Monitor::start().await.unwrap();
        let state = states.borrow_and_update().clone();
        let link = state.link_by_name("near").expect("the first value is complete");
        let index = link.index;
        assert!(link.ethernet && link.kind == "veth" && link.mtu == 1500 && link.lower.is_none());
        assert_eq!(state.addresses[&index][0].addr, NEAR);
        assert!(route_prefixes(&state).contains(&net("10.9.0.0/24")));

        ip("link set near mtu 1400");
        until(&mut states, |s| s.links[&index].mtu == 1400).await;
        ip("addr add 10.8.0.1/24 dev near");
        let second = IpAddr::from([10, 8, 0, 1]);
        until(&mut states, |s| s.addresses[&index].iter().any(|a| a.addr == second)).await;
        ip("addr add 10.8.0.2/24 dev near");
        until(&mut states, |s| s.addresses[&index].iter().any(|a| a.secondary)).await;
        ip("neigh add 10.8.0.9 lladdr 02:00:00:00:00:99 dev near nud permanent");
        let nine = IpAddr::from([10, 8, 0, 9]);
        until(&mut states, |s| mac_of(s, index, nine) == Some([2, 0, 0, 0, 0, 0x99])).await;
        ip("neigh del 10.8.0.9 dev near");
        until(&mut states, |s| mac_of(s, index, nine).is_none()).await;
        ip("route add blackhole 198.51.100.0/24");
        let blackhole = net("198.51.100.0/24");
        until(&mut states, |s| route_prefixes(s).contains(&blackhole)).await;
        ip("route del blackhole 198.51.100.0/24");
        until(&mut states, |s| !route_prefixes(s).contains(&blackhole)).await;
        far.run("ip link set far down");
        until(&mut states, |s| !s.links[&index].carrier).await;
        ip("link del near");
        until(&mut states, |s| !s.links.contains_key(&index) && !s.addresses.contains_key(&index))
            .await;
    });
}

#[test]
fn a_bridge_port_stays_a_link_when_it_leaves_the_bridge() {
    in_namespace(async || {
        let _far = near_and_far();
        let (_monitor, mut states) = Monitor::start().await.unwrap();
        ip("link add lan0 type bridge");
        let master = |s: &NetState| resolve_interface(s, "near").map(|port| port.master_kind);
        ip("link set near master lan0");
        until(&mut states, |s| master(s) == Ok(Some("bridge".into()))).await;
        ip("link set near nomaster");
        until(&mut states, |s| master(s) == Ok(None)).await;
    });
}

#[test]
fn a_route_change_flips_the_fib() {
    in_namespace(async || {
        let _far = near_and_far();
        ip("link add pub0 type veth peer name pub1");
        ip("link set pub0 up");
        ip("link set pub1 up");
        ip("addr add 192.0.2.5/24 dev pub0");
        let (_monitor, mut states) = Monitor::start().await.unwrap();
        let target = |state: &NetState| {
            let public = resolve_interface(state, "pub0").unwrap();
            let private = resolve_interface(state, "near").unwrap();
            forwarding(state, &public, &private).lookup([8, 8, 8, 8].into())
        };
        let via = |side, gateway: [u8; 4]| {
            let gateway = gateway.into();
            Some(RouteTarget::Gateway { side, gateway })
        };
        for (command, expected) in [
            ("route add default via 192.0.2.1 metric 32", via(Side::Public, [192, 0, 2, 1])),
            ("route add default via 192.0.2.2 metric 10", via(Side::Public, [192, 0, 2, 2])),
            ("route replace default via 10.9.0.2 metric 10", via(Side::Private, [10, 9, 0, 2])),
            ("route append default via 192.0.2.9 metric 10", via(Side::Private, [10, 9, 0, 2])),
            ("route prepend default via 192.0.2.8 metric 10", via(Side::Public, [192, 0, 2, 8])),
            ("route del default via 192.0.2.8 metric 10", via(Side::Private, [10, 9, 0, 2])),
            ("route del default via 10.9.0.2 metric 10", via(Side::Public, [192, 0, 2, 9])),
            ("route del default metric 10", via(Side::Public, [192, 0, 2, 1])),
            ("route add 8.0.0.0/8 via 10.9.0.2", via(Side::Private, [10, 9, 0, 2])),
            // The kernel says nothing about the routes that it removes here.
            ("addr flush dev near", via(Side::Public, [192, 0, 2, 1])),
            ("route add unreachable 8.8.0.0/16", Some(RouteTarget::Unreachable)),
            ("route del unreachable 8.8.0.0/16", via(Side::Public, [192, 0, 2, 1])),
            ("link set pub0 down", None),
        ] {
            ip(command);
            until_named(&mut states, command, |s| target(s) == expected).await;
        }
    });
}

#[test]
fn routes_that_go_without_a_word_are_noticed() {
    in_namespace(async || {
        let _far = near_and_far();
        let (_monitor, mut states) = Monitor::start().await.unwrap();
        let gone = net("198.51.100.0/24");
        let there = |s: &NetState| route_prefixes(s).contains(&gone);
        let routed = "route add 198.51.100.0/24 via 10.9.0.2";

        ip("addr add 10.9.0.7/32 dev near");
        ip(&format!("{routed} src 10.9.0.7"));
        until(&mut states, there).await;
        ip("addr del 10.9.0.7/32 dev near");
        until_named(&mut states, "preferred source", |s| !there(s)).await;

        ip(routed);
        until(&mut states, there).await;
        ip("link set near down");
        until_named(&mut states, "down", |s| !there(s)).await;
        ip("link set near up");
        let connected = net("10.9.0.0/24");
        until(&mut states, |s| route_prefixes(s).contains(&connected)).await;
        assert!(!there(&states.borrow()));

        ip("nexthop add id 7 via 10.9.0.2 dev near");
        ip("route add 198.51.100.0/24 nhid 7");
        until(&mut states, there).await;
        ip("nexthop replace id 7 blackhole");
        let hops = |s: &NetState| {
            let routes = s.routes.iter().filter(|(key, _)| key.dst == gone);
            routes.flat_map(|(_, routes)| routes).map(|r| r.next_hops.len()).sum::<usize>()
        };
        until_named(&mut states, "nexthop replaced", |s| there(s) && hops(s) == 0).await;
        ip("nexthop del id 7");
        until_named(&mut states, "nexthop deleted", |s| !there(s)).await;
    });
}

#[test]
fn a_changed_neighbour_reaches_the_receiver_within_milliseconds() {
    in_namespace(async || {
        let _far = near_and_far();
        let (_monitor, mut states) = Monitor::start().await.unwrap();
        let index = index_of(&states, "near");
        let nine = IpAddr::from([10, 9, 0, 9]);
        let mut times = Vec::new();
        for last in 1..=20u8 {
            let mac = [2, 0, 0, 0, 1, last];
            // Without the command's own time, in which the kernel already queues the event.
            ip(&format!("neigh replace 10.9.0.9 lladdr {} dev near", text(mac)));
            let start = Instant::now();
            until(&mut states, |s| mac_of(s, index, nine) == Some(mac)).await;
            times.push(start.elapsed());
        }
        times.sort();
        eprintln!("neighbour event to receiver: median {:?}, worst {:?}", times[10], times[19]);
        assert!(times[10] < Duration::from_millis(50), "{times:?}");
    });
}

#[test]
fn a_silent_mac_change_is_seen_within_a_second() {
    in_namespace(async || {
        let far = near_and_far();
        let (monitor, mut states) = Monitor::start().await.unwrap();
        let index = index_of(&states, "near");
        let keeper = NeighbourKeeper::spawn(states.clone(), monitor.neighbours()).unwrap();
        for (round, source) in [(1, None), (2, Some(NEAR))] {
            keeper.watch(BTreeSet::from([Watch { ifindex: index, addr: FAR, source }]));
            until_named(&mut states, "resolved", |s| mac_of(s, index, FAR).is_some()).await;
            let mut times = Vec::new();
            for last in 1..=8u8 {
                // Past the kernel's locktime, and at another point of the check interval each time.
                tokio::time::sleep(Duration::from_millis(1100 + 67 * u64::from(last))).await;
                let mac = [2, 0, 0, 0, round, last];
                far.run(&format!("ip link set far address {}", text(mac)));
                let start = Instant::now();
                until_named(&mut states, "new mac", |s| mac_of(s, index, FAR) == Some(mac)).await;
                times.push(start.elapsed());
            }
            eprintln!("silent mac change, asking from {source:?}: {times:?}");
            assert!(times.iter().all(|time| *time < Duration::from_secs(1)), "{times:?}");
        }
    });
}

#[test]
fn a_neighbour_that_was_away_is_back_with_another_mac_within_a_second() {
    in_namespace(async || {
        let far = near_and_far();
        let (monitor, mut states) = Monitor::start().await.unwrap();
        let index = index_of(&states, "near");
        let keeper = NeighbourKeeper::spawn(states.clone(), monitor.neighbours()).unwrap();
        keeper.watch(BTreeSet::from([Watch { ifindex: index, addr: FAR, source: None }]));
        until_named(&mut states, "resolved", |s| mac_of(s, index, FAR).is_some()).await;
        // The link stays up, the host behind it is gone for a while.
        far.run("ip addr flush dev far");
        tokio::time::sleep(Duration::from_secs(4)).await;
        far.run("ip link set far address 02:00:00:00:04:01");
        far.run("ip addr add 10.9.0.2/24 dev far");
        let start = Instant::now();
        let mac = Some([2, 0, 0, 0, 4, 1]);
        until_named(&mut states, "back", |s| mac_of(s, index, FAR) == mac).await;
        eprintln!("back with another mac: {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(1200));
    });
}

#[test]
fn a_gratuitous_arp_is_taken_at_once() {
    in_namespace(async || {
        let far = near_and_far();
        let (monitor, mut states) = Monitor::start().await.unwrap();
        let index = index_of(&states, "near");
        monitor.neighbours().probe(index, FAR).await.unwrap();
        until_named(&mut states, "resolved", |s| mac_of(s, index, FAR).is_some()).await;
        far.set("net/ipv4/conf/far/arp_notify", "1");
        far.run("ip link set far address 02:00:00:00:03:01");
        let start = Instant::now();
        let mac = Some([2, 0, 0, 0, 3, 1]);
        until_named(&mut states, "announced mac", |s| mac_of(s, index, FAR) == mac).await;
        eprintln!("announced mac change, no keeper: {:?}", start.elapsed());
    });
}

#[test]
fn a_host_without_an_address_resolves_its_neighbours() {
    in_namespace(async || {
        let far = near_and_far();
        // As on a Backup whose only private address is with the Active; the server drops what it has no route back to.
        far.set("net/ipv4/conf/far/rp_filter", "1");
        ip("addr flush dev near");
        ip("addr add 203.0.113.1/32 dev lo");
        let (monitor, mut states) = Monitor::start().await.unwrap();
        let index = index_of(&states, "near");
        let keeper = NeighbourKeeper::spawn(states.clone(), monitor.neighbours()).unwrap();
        keeper.watch(BTreeSet::from([Watch { ifindex: index, addr: FAR, source: None }]));
        until_named(&mut states, "resolved", |s| mac_of(s, index, FAR).is_some()).await;
    });
}

#[test]
fn a_probe_resolves_a_neighbour_and_an_absent_one_fails() {
    in_namespace(async || {
        let _far = near_and_far();
        let (monitor, mut states) = Monitor::start().await.unwrap();
        let index = index_of(&states, "near");
        let neighbours = monitor.neighbours();
        let nud = |s: &NetState, addr| s.neighbours.get(&(index, addr)).map(|n| n.nud);
        neighbours.probe(index, FAR).await.unwrap();
        until_named(&mut states, "reachable", |s| nud(s, FAR) == Some(Nud::Reachable)).await;
        let nobody = IpAddr::from([10, 9, 0, 77]);
        neighbours.probe(index, nobody).await.unwrap();
        until_named(&mut states, "incomplete", |s| nud(s, nobody) == Some(Nud::Failed)).await;
        let error = neighbours.probe(9999, FAR).await.unwrap_err();
        assert!(error.to_string().contains("10.9.0.2"), "{error}");
    });
}

#[test]
fn lost_events_are_made_up_for() {
    in_namespace(async || {
        let _far = near_and_far();
        let options = MonitorOptions { receive_buffer: 4096 };
        let (monitor, mut states) = Monitor::start_with(options).await.unwrap();
        // Nothing is read meanwhile: this thread is the monitor's, too.
        let line = |verb: &str, i: u32| {
            format!("route {verb} 100.64.{}.{}/32 via 10.9.0.2\n", i / 250, i % 250)
        };
        let mut batch = String::new();
        batch.extend((0..2000).map(|i| line("add", i)));
        batch.extend((0..1000).map(|i| line("del", i)));
        ip_batch(&batch);
        let ours = |s: &NetState| {
            s.routes.keys().filter(|key| net("100.64.0.0/10").covers(key.dst)).count()
        };
        until_named(&mut states, "resync", |s| ours(s) == 1000).await;
        assert!(monitor.losses() > 0, "this test loses no events");
        // And events go on.
        ip("link set near mtu 1300");
        until(&mut states, |s| s.link_by_name("near").unwrap().mtu == 1300).await;
    });
}

#[test]
fn a_resync_of_what_is_known_publishes_nothing_new() {
    in_namespace(async || {
        let _far = near_and_far();
        let (monitor, mut states) = Monitor::start().await.unwrap();
        let before = states.borrow_and_update().clone();
        monitor.resync();
        // A change after it, to have something to wait for.
        ip("link set near mtu 1300");
        until(&mut states, |s| s.link_by_name("near").unwrap().mtu == 1300).await;
        let after = states.borrow().clone();
        assert!(Arc::ptr_eq(&before.routes, &after.routes), "equal tables are not copied");
        assert_eq!(before.addresses, after.addresses);
    });
}
