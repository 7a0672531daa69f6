//! External ports and addresses of masqueraded connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use lbha::datapath::{
    desired::{Desired, Masquerade, Route, ServiceId},
    expiry::Timeouts,
};
use lbha_common::{
    counter::Counter::*,
    covers,
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
};
use lbha_tests::{
    packet::{Frame, parse, verify},
    prog::*,
};

const LONG: Timeouts = Timeouts::all(Duration::from_secs(3600));
const SHORT: Timeouts = Timeouts::all(Duration::from_secs(10));
/// In ticks: longer than [`SHORT`].
const AGE: u32 = 15;

/// Both families and both protocols.
fn cases() -> impl Iterator<Item = (Ends, u8)> {
    ends().into_iter().flat_map(|net| [(net, TCP), (net, UDP)])
}

/// [`gateway`] with its rule changed.
fn with_rule(change: impl FnOnce(&mut Masquerade)) -> Desired {
    let mut desired = gateway();
    change(&mut desired.masquerades[0]);
    desired
}

#[test]
fn a_port_in_the_range_is_kept_when_it_is_free() {
    let mut prog = Prog::with(&gateway());
    for (net, protocol) in cases() {
        for port in [1024, 5000, 5001, 32767] {
            let connection = prog.leave(protocol, at(net.hosts[0], port), at(net.remotes[0], 80));
            assert_eq!(connection.external, at(net.external, port));
        }
    }
}

#[test]
fn a_port_that_is_not_kept_stays_even_or_odd() {
    covers!("RFC4787 REQ-4");
    let mut prog = Prog::with(&gateway());
    for (net, protocol) in cases() {
        for port in [0, 1, 22, 1023, 32768, 40001, 65534, 65535] {
            for host in net.hosts {
                let connection = prog.leave(protocol, at(host, port), at(net.remotes[0], 80));
                let external = connection.external.port();
                assert!((1024..=32767).contains(&external));
                assert_eq!(external % 2, port % 2, "{port} became {external}");
            }
        }
    }
}

#[test]
fn connections_to_different_hosts_have_the_same_external_port() {
    covers!("RFC7857 3");
    let mut prog = Prog::with(&gateway());
    for (net, protocol) in cases() {
        let inside = at(net.hosts[0], 5000);
        let remotes = [at(net.remotes[0], 80), at(net.remotes[0], 81), at(net.remotes[1], 80)];
        let open = remotes.map(|remote| prog.establish(protocol, inside, remote));
        assert_eq!(open.map(|connection| connection.external), [at(net.external, 5000); 3]);
        // Another host's may too, to where that one has none.
        let other = prog.establish(protocol, at(net.hosts[1], 5000), at(net.remotes[1], 81));
        assert_eq!(other.external, at(net.external, 5000));
        for connection in open.iter().chain([&other]) {
            prog.masquerades(connection);
        }
    }
}

#[test]
fn two_hosts_with_one_port_to_one_remote_get_two() {
    covers!("RFC4787 REQ-3", "RFC5382 REQ-7");
    let mut prog = Prog::with(&gateway());
    for (net, protocol) in cases() {
        let remote = at(net.remotes[0], 80);
        let [a, b] = net.hosts.map(|host| prog.establish(protocol, at(host, 5000), remote));
        assert_eq!(a.external, at(net.external, 5000));
        assert_ne!(a.external, b.external);
        assert_eq!(b.external.ip(), net.external);
        prog.masquerades(&a);
        prog.masquerades(&b);
    }
}

#[test]
fn tcp_and_udp_do_not_take_each_others_ports() {
    covers!("RFC7857 5", "RFC7857 6");
    let mut prog = Prog::with(&with_rule(|rule| rule.ports = (2000, 2000)));
    for net in ends() {
        let remote = at(net.remotes[0], 80);
        let tcp = prog.establish(TCP, at(net.hosts[0], 5000), remote);
        let udp = prog.establish(UDP, at(net.hosts[1], 5000), remote);
        assert_eq!((tcp.external, udp.external), (at(net.external, 2000), at(net.external, 2000)));
        prog.masquerades(&tcp);
        prog.masquerades(&udp);
    }
}

#[test]
fn all_ports_of_a_range_are_found_and_no_other() {
    covers!("RFC6888 REQ-11a", "RFC6888 REQ-11d", "RFC6888 REQ-13", "RFC7857 4a");
    let mut desired = with_rule(|rule| rule.ports = (2001, 2007));
    desired.masquerades[0].externals.push(Ipv4Addr::new(147, 75, 104, 200).into());
    for (net, protocol) in cases() {
        let mut prog = Prog::with(&desired);
        let remote = at(net.remotes[0], 80);
        let open: Vec<Outbound> = (0..7)
            .map(|n| prog.establish(protocol, at(net.hosts[0], 50_000 + n), remote))
            .collect();
        let given: BTreeSet<u16> = open.iter().map(|c| c.external.port()).collect();
        assert_eq!(given, (2001..=2007).collect());
        let addresses: BTreeSet<IpAddr> = open.iter().map(|c| c.external.ip()).collect();
        assert_eq!(addresses.len(), 1, "no other address, though there is one");
        for n in [50_007, 2001] {
            prog.private(first(protocol, at(net.hosts[0], n), remote)).refused(DropNoPort);
        }
        assert_eq!(prog.flow_entries(), 14);
        for connection in &open {
            prog.masquerades(connection);
        }
        prog.leave(protocol, at(net.hosts[0], 50_007), at(net.remotes[1], 80));
    }
}

#[test]
fn ports_of_services_are_their_own() {
    // Two services on the external addresses, within the range, one a protocol.
    let mut desired = with_rule(|rule| rule.ports = (2000, 2002));
    for (net, www) in ends().into_iter().zip([WWW, WWW6]) {
        let service = desired.services[&www].clone();
        for protocol in [TCP, UDP] {
            let id = ServiceId { vip: net.external, port: 2001, protocol };
            desired.services.insert(id, service.clone());
        }
    }
    for endpoint_independent in [false, true] {
        desired.masquerades[0].endpoint_independent = endpoint_independent;
        let mut prog = Prog::with(&desired);
        for (net, protocol) in cases() {
            let remote = at(net.remotes[0], 4000);
            let ports = [2001, 2000, 6000];
            let mut given = BTreeSet::new();
            for port in ports {
                let frame = first(protocol, at(net.hosts[0], port), remote);
                let outcome = prog.private(frame);
                if given.len() == 2 {
                    outcome.refused(DropNoPort);
                } else {
                    given.insert(outcome.forwarded().source().port());
                }
            }
            assert_eq!(given, BTreeSet::from([2000, 2002]));
            // The service is still there for the same remote host.
            let to_service = first(protocol, remote, at(net.external, 2001));
            assert_eq!(prog.public(to_service).forwarded().destination().port(), 80);
        }
    }
}

#[test]
fn a_host_keeps_to_one_of_several_addresses() {
    covers!("RFC4787 REQ-2", "RFC6888 REQ-2", "RFC6888 REQ-3", "RFC7857 4c");
    // Of no one range.
    let externals = [[1, 2, 3, 4], [147, 75, 104, 177], [5, 6, 7, 8], [9, 9, 9, 9], [100, 1, 1, 1]];
    let externals = externals.map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
    let mut desired = with_rule(|rule| rule.externals = externals.into());
    desired.routes.insert(prefix(SOURCES), Route::Hop);
    desired.hops.insert(prefix(SOURCES), private_hop(WEB_MAC[1]));
    let mut hosts_of: BTreeMap<IpAddr, u32> = BTreeMap::new();
    let mut address_of = BTreeMap::new();
    for _ in 0..2 {
        // A second gateway makes the same choice: connections survive a move from one host of a pair to the other.
        let mut prog = Prog::with(&desired);
        for n in 12..=250 {
            let host = Ipv4Addr::new(192, 168, 1, n);
            let to =
                [(TCP, remote()), (UDP, remote()), (TCP, at(CLIENT, 22)), (UDP, at(CLIENT, 53))];
            let addresses: BTreeSet<IpAddr> = to
                .into_iter()
                .enumerate()
                .map(|(i, (protocol, to))| prog.leave(protocol, at(host, 3000 + i as u16), to))
                .map(|connection| connection.external.ip())
                .collect();
            let address = *addresses.first().unwrap();
            assert_eq!(addresses.len(), 1, "{host}");
            assert_eq!(*address_of.entry(host).or_insert(address), address);
            *hosts_of.entry(address).or_default() += 1;
        }
    }
    assert_eq!(hosts_of.keys().copied().collect::<BTreeSet<_>>(), externals.into());
    assert!(hosts_of.values().all(|&hosts| hosts > 40), "evenly: {hosts_of:?}");
}

#[test]
fn a_source_has_no_more_connections_than_its_share() {
    covers!("RFC6888 REQ-4", "RFC6888 REQ-4a", "RFC6888 REQ-5", "RFC6888 REQ-5a");
    for net in ends() {
        let mut prog = Prog::with(&with_rule(|rule| rule.max_ports = 4));
        let remote = at(net.remotes[0], 80);
        let open: Vec<Outbound> = [TCP, UDP, TCP, UDP]
            .into_iter()
            .zip(5000..)
            .map(|(protocol, port)| prog.establish(protocol, at(net.hosts[0], port), remote))
            .collect();
        let fifth = |protocol| first(protocol, at(net.hosts[0], 6000), remote);
        prog.private(fifth(TCP)).refused(DropQuota);
        prog.private(fifth(UDP)).refused(DropQuota);
        assert_eq!(prog.flow_entries(), 8);
        for connection in &open {
            prog.masquerades(connection);
        }
        // Each has its own.
        prog.establish(TCP, at(net.hosts[1], 5000), remote);

        prog.sweep(&LONG, 1);
        prog.private(fifth(TCP)).refused(DropQuota);
        for connection in &open[..2] {
            prog.age(connection, AGE);
        }
        let swept = prog.sweep(&SHORT, 2);
        assert_eq!((swept.expired, swept.connections()), (2, 3));
        for port in [6000, 6001] {
            prog.establish(TCP, at(net.hosts[0], port), remote);
        }
        prog.private(first(TCP, at(net.hosts[0], 6002), remote)).refused(DropQuota);
    }
}

#[test]
fn a_host_that_gets_no_port_is_told() {
    covers!("RFC6888 REQ-11b");
    let mut desired = with_rule(|rule| (rule.ports, rule.max_ports) = ((2000, 2000), 2));
    desired.routes.insert(prefix("198.51.100.64/26"), Route::Unreachable);
    desired.routes.insert(prefix("2001:db8:52::/48"), Route::Unreachable);
    let nowhere: [IpAddr; 2] =
        [Ipv4Addr::new(198, 51, 100, 65).into(), "2001:db8:52::1".parse().unwrap()];
    for (net, nowhere) in ends().into_iter().zip(nowhere) {
        let mut prog = Prog::with(&desired);
        let remote = at(net.remotes[0], 80);
        prog.leave(UDP, at(net.hosts[0], 2000), remote);
        let mut refuses = |reason, to, kind| {
            let sent = Frame::udp(at(net.hosts[0], 3000), to).payload(b"who is there?");
            let outcome = prog.private(sent.clone());
            outcome.refused(reason);
            assert_eq!(outcome.counted.get(AnswerUnreachable.as_str()), Some(&1));
            verify(&outcome.frame).unwrap();
            let error = parse(&outcome.frame).unwrap();
            assert_eq!((error.ip.src, error.ip.dst), (net.private, net.hosts[0]));
            assert_eq!((error.icmp_kind(), error.embedded().destination()), (kind, to));
        };
        // Administratively prohibited, and no route.
        let [prohibited, unrouted] =
            if net.external.is_ipv4() { [(3, 13), (3, 0)] } else { [(1, 1), (1, 0)] };
        refuses(DropNoPort, remote, prohibited);
        refuses(DropNoRoute, at(nowhere, 80), unrouted);
        prog.leave(UDP, at(net.hosts[0], 2000), at(net.remotes[1], 80));
        let sent = Frame::udp(at(net.hosts[0], 3000), at(net.remotes[1], 81));
        let outcome = prog.private(sent);
        outcome.refused(DropQuota);
        assert_eq!(parse(&outcome.frame).unwrap().icmp_kind(), prohibited);
        assert_eq!(prog.flow_entries(), 4);
    }
}

#[test]
fn connections_move_to_a_new_external_address_after_the_sweep() {
    let new: [IpAddr; 2] =
        [Ipv4Addr::new(147, 75, 104, 178).into(), "2001:db8:104::3".parse().unwrap()];
    for endpoint_independent in [false, true] {
        let mut desired = with_rule(|rule| rule.endpoint_independent = endpoint_independent);
        let mut prog = Prog::with(&desired);
        let open: Vec<Outbound> = cases()
            .map(|(net, protocol)| {
                prog.establish(protocol, at(net.hosts[0], 5000), at(net.remotes[0], 80))
            })
            .collect();
        // One of an address that stays ours.
        desired.masquerades[0].externals = new.into();
        prog.apply(&desired);
        let swept = prog.sweep(&LONG, 1);
        assert_eq!((swept.orphaned, prog.flow_entries()), (4, 0));
        for ((net, protocol), old) in cases().zip(&open) {
            let external = new[usize::from(net.external.is_ipv6())];
            if protocol == TCP {
                prog.private(old.from_inside()).dropped(DropNoFlow);
            }
            let connection = prog.establish(protocol, old.inside, old.remote);
            assert_eq!(connection.external, at(external, 5000));
            prog.masquerades(&connection);
            let late = old.from_remote().macs(ROUTER_MAC, PUBLIC_MAC).build();
            prog.run(INTERNET, &late).passed(PassUnmatched, &late);
        }
    }
}

#[test]
fn a_private_host_can_not_shadow_what_others_answer() {
    // As in the kernel's nft_nat.sh: a connection from the service's own port, and answers to the host itself.
    let mut desired = with_rule(|rule| rule.ports = (1024, 32767));
    for (net, www) in ends().into_iter().zip([WWW, WWW6]) {
        let service = desired.services[&www].clone();
        desired
            .services
            .insert(ServiceId { vip: net.external, port: 1405, protocol: TCP }, service);
    }
    let mut prog = Prog::with(&desired);
    for net in ends() {
        let client = at(net.remotes[0], 41404);
        let shadow = prog.establish(TCP, at(net.hosts[1], 1405), client);
        assert_ne!(shadow.external.port(), 1405);
        let served = prog.public(Frame::syn(client, at(net.external, 1405))).forwarded();
        assert_ne!(served.destination(), shadow.inside);
        assert_eq!(served.destination().port(), 80);
        // The host's own ports: below 1024, and those that its kernel gives to its connections.
        for (protocol, port) in [(TCP, 22), (TCP, 179), (UDP, 53), (TCP, 32768), (UDP, 60999)] {
            let connection = prog.leave(protocol, at(net.hosts[0], port), client);
            assert!((1024..=32767).contains(&connection.external.port()));
            let own = Outbound { external: at(net.external, port), ..connection };
            let own = own.from_remote().macs(ROUTER_MAC, PUBLIC_MAC).build();
            prog.run(INTERNET, &own).passed(PassUnmatched, &own);
        }
    }
}

#[test]
fn a_tuple_that_is_taken_the_other_way_round_gets_another_port() {
    // As in the kernel's conntrack_reverse_clash.sh: the remote host has a connection from where this one goes.
    let mut desired = with_rule(|rule| rule.ports = (800, 1000));
    let service = www(&mut desired).clone();
    let vip = ServiceId { vip: PUBLIC.into(), port: 900, protocol: TCP };
    desired.services.insert(vip, service);
    let mut prog = Prog::with(&desired);
    let remote = at(REMOTE, 5000);
    let inward = prog.connect(remote, at(PUBLIC, 900));
    let outward = prog.establish(TCP, at(WEB[0], 900), remote);
    assert_ne!(outward.external.port(), 900);
    prog.carries(&inward);
    prog.masquerades(&outward);
    // And with a masqueraded one in the way of another.
    let first = prog.establish(UDP, at(WEB[0], 5000), remote);
    let second = prog.establish(UDP, at(WEB[1], 5000), remote);
    let third = prog.establish(UDP, at(WEB[1], second.external.port()), remote);
    let externals: BTreeSet<SocketAddr> =
        [first, second, third].iter().map(|connection| connection.external).collect();
    assert_eq!(externals.len(), 3);
    for connection in [first, second, third] {
        prog.masquerades(&connection);
    }
}

#[test]
fn cpus_that_choose_ports_at_once_never_choose_the_same() {
    covers!("RFC4787 REQ-11");
    for endpoint_independent in [false, true] {
        let preferences: [fn(u16) -> u16; 2] = [|n| 40_000 + n, |n| 2000 + n % 100];
        for preferred in preferences {
            let mut desired = with_rule(|rule| {
                (rule.ports, rule.endpoint_independent) = ((2000, 2099), endpoint_independent);
            });
            desired.routes.insert(prefix(SOURCES), Route::Hop);
            desired.hops.insert(prefix(SOURCES), private_hop(WEB_MAC[1]));
            let mut prog = Prog::with(&desired);
            let list = |thread: u8| -> Vec<Vec<u8>> {
                let inside = |n| at(Ipv4Addr::new(192, 168, 1, 20 + thread), preferred(n));
                let frame = |n| Frame::udp(inside(n), remote()).macs(WEB_MAC[1], PRIVATE_MAC);
                (0..40).map(|n| frame(n).build()).collect()
            };
            let lists: Vec<_> = (0..4).map(list).collect();
            let mut given = BTreeSet::new();
            let mut refused = 0;
            for (action, frame) in prog.run_at_once(SERVERS, &lists, |_| ()).into_iter().flatten() {
                if action != action::REDIRECT {
                    refused += 1;
                    continue;
                }
                verify(&frame).unwrap();
                let source = parse(&frame).unwrap().source();
                assert!((2000..=2099).contains(&source.port()) && source.ip() == PUBLIC);
                assert!(given.insert(source), "{source} twice");
            }
            assert_eq!((given.len(), refused), (100, 60), "all there are, and then no more");
            assert_eq!(prog.flow_entries(), 200);
            let stats = prog.interface_stats(SERVERS);
            assert_eq!(stats.packets[DropNoPort as usize], 60);
        }
    }
}

#[test]
fn ports_that_are_not_kept_are_hard_to_guess() {
    covers!("RFC7857 9", "RFC6888 REQ-15");
    let mut prog = Prog::with(&gateway());
    let ports: Vec<u16> = (40_000..40_400)
        .map(|port| prog.leave(UDP, at(WEB[0], port), remote()).external.port())
        .collect();
    // Two neighbours in the order in which they are given are neighbours in value once in 16,000 times.
    let near = ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 16).count();
    assert!(near < 12, "{near} of {}", ports.len());
    // Spread over the whole range: all of its 31 thousands.
    let thousands: BTreeSet<u16> = ports.iter().map(|port| port / 1000).collect();
    assert!(thousands.len() > 29, "{thousands:?}");
    let again: BTreeSet<u16> = ports.iter().copied().collect();
    assert_eq!(again.len(), ports.len(), "no port twice to the same host");
}
