//! Kinds of service: UDP, mode `nat`, servers that are clients, one interface; and the source ports of connections.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
};

use lbha::datapath::{
    desired::{Desired, Route, ServiceId},
    loader::Sizes,
};
use lbha_common::{
    counter::Counter,
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
};
use lbha_tests::{
    packet::{Frame, Transport, parse, tcp_flags::*, verify},
    prog::*,
};

const DNS: ServiceId = ServiceId { port: 53, protocol: UDP, ..WWW };

/// The guide's network with a second service on the same servers.
fn with_service(id: ServiceId, server_port: u16) -> Desired {
    let mut desired = desired();
    let mut service = www(&mut desired).clone();
    service.servers.iter_mut().for_each(|server| server.port = server_port);
    desired.services.insert(id, service);
    desired
}

fn dns() -> Prog {
    Prog::with(&with_service(DNS, 53))
}

/// The guide's network, with clients' addresses kept.
fn nat_mode() -> Desired {
    let mut desired = desired();
    www(&mut desired).servers.iter_mut().for_each(|server| server.keep_client = true);
    desired
}

fn udp_checksum(frame: &[u8]) -> u16 {
    match parse(frame).unwrap().transport {
        Transport::Udp { checksum, .. } => checksum,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_datagram_is_answered_and_the_next_one_confirms() {
    let mut prog = dns();
    let query = prog.public(Frame::udp(client(0), at(VIP, 53)).payload(b"query")).forwarded();
    assert_eq!((query.destination(), query.ip.src), (at(WEB[0], 53), PRIVATE.into()));
    assert_eq!(query.payload, b"query");
    let again = prog.public(Frame::udp(client(0), at(VIP, 53))).forwarded();
    assert_eq!((again.source(), again.destination()), (query.source(), query.destination()));
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (0, 2), "no answer, no connection");

    let answer = Frame::udp(query.destination(), query.source()).payload(b"answer");
    let answer = prog.private(answer).forwarded();
    assert_eq!((answer.source(), answer.destination()), (at(VIP, 53), client(0)));
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (0, 2));
    let next = prog.public(Frame::udp(client(0), at(VIP, 53))).forwarded();
    assert_eq!(next.source(), query.source());
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (2, 0));
    let late = prog.private(Frame::udp(query.destination(), query.source())).forwarded();
    assert_eq!((late.source(), late.destination()), (at(VIP, 53), client(0)));
}

#[test]
fn tcp_and_udp_on_the_same_port_are_two_services() {
    let mut prog = Prog::with(&with_service(ServiceId { port: 80, ..DNS }, 80));
    let syn = prog.public(Frame::syn(client(0), vip())).forwarded();
    let datagram = prog.public(Frame::udp(client(0), vip())).forwarded();
    assert_eq!((syn.destination(), datagram.destination()), (at(WEB[0], 80), at(WEB[0], 80)));
    assert_eq!(prog.half_open_entries(), 4);
}

#[test]
fn an_absent_udp_checksum_stays_absent() {
    let mut prog = dns();
    let outcome = prog.public(Frame::udp(client(0), at(VIP, 53)).without_checksum());
    let query = outcome.forwarded();
    assert_eq!(udp_checksum(&outcome.frame), 0);
    let answer = Frame::udp(query.destination(), query.source()).without_checksum();
    let outcome = prog.private(answer);
    outcome.forwarded();
    assert_eq!(udp_checksum(&outcome.frame), 0);
}

#[test]
fn a_udp_checksum_that_comes_to_zero_is_sent_as_all_ones() {
    let mut prog = dns();
    let query = prog.public(Frame::udp(client(0), at(VIP, 53))).forwarded();
    let (source, server) = (query.source(), query.destination());
    // A payload word equal to the checksum without it makes the sum all ones, and its complement 0.
    let frame = |word: u16| Frame::udp(client(0), at(VIP, 53)).payload(&word.to_be_bytes());
    let after = udp_checksum(&translated(&frame(0), source, server).build());
    let outcome = prog.public(frame(after));
    outcome.forwarded();
    assert_eq!(udp_checksum(&outcome.frame), 0xffff);
    // The same on the way in.
    let before = udp_checksum(&frame(0).build());
    assert_eq!(udp_checksum(&frame(before).build()), 0xffff);
    let outcome = prog.public(frame(before));
    outcome.forwarded();
    let expected = translated(&frame(before), source, server).macs(PRIVATE_MAC, WEB_MAC[0]);
    assert_eq!(outcome.frame, expected.build());
}

#[test]
fn nat_mode_keeps_the_clients_address_and_port() {
    let mut prog = Prog::with(&nat_mode());
    for port in [1, 80, 1023, 1024, 40000, 65535] {
        let connection = prog.connect(at(CLIENT, port), vip());
        assert_eq!(connection.source, at(CLIENT, port));
        prog.carries(&connection);
    }
}

#[test]
fn nat_mode_tells_two_services_on_one_server_apart() {
    let mut desired = nat_mode();
    let mut second = www(&mut desired).clone();
    second.slots = vec![0];
    www(&mut desired).slots = vec![0];
    desired.services.insert(ServiceId { port: 8080, ..WWW }, second);
    let mut prog = Prog::with(&desired);
    let first = prog.connect(client(0), vip());
    let second = prog.connect(client(0), at(VIP, 8080));
    assert_eq!(first.server, second.server);
    assert_eq!((first.source, second.source.ip()), (client(0), CLIENT.into()));
    assert_ne!(first.source.port(), second.source.port());
    assert!(second.source.port() >= 1024);
    prog.carries(&first);
    prog.carries(&second);
    assert_eq!(prog.flow_entries(), 4);
}

/// A server opens a connection to the service, and gets to whichever has its turn.
fn hairpin(mut desired: Desired) {
    for server in WEB {
        desired.routes.insert(host(server), Route::Hop);
    }
    let mut prog = Prog::with(&desired);
    for turn in WEB {
        let inside = at(WEB[1], 5000);
        let syn = prog.private(Frame::syn(inside, vip())).sent_back();
        assert_eq!(syn.destination(), at(turn, 80));
        assert_eq!(syn.source(), at(PRIVATE, 5000), "an answer has to come through us");
        let answer = Frame::tcp(syn.destination(), syn.source()).flags(SYN | ACK).seq(9000);
        let answer = prog.private(answer).sent_back();
        assert_eq!((answer.source(), answer.destination()), (vip(), inside));
        assert_eq!((answer.eth_src, answer.eth_dst), (PRIVATE_MAC, WEB_MAC[1]));
        let ack = prog.private(Frame::tcp(inside, vip()).ack(9001)).sent_back();
        assert_eq!((ack.source(), ack.destination()), (syn.source(), syn.destination()));
        assert_eq!(prog.flow_entries(), 2);
        for (from, to) in [(inside, vip()), (syn.destination(), syn.source())] {
            prog.private(Frame::tcp(from, to).flags(FIN | ACK)).sent_back();
        }
    }
}

#[test]
fn a_server_is_a_client_like_any_other() {
    hairpin(desired());
}

#[test]
fn a_server_that_is_a_client_gets_our_address_in_nat_mode_too() {
    hairpin(nat_mode());
}

#[test]
fn one_interface_does_for_both_sides() {
    for mut desired in [desired(), nat_mode()] {
        let kept = www(&mut desired).servers[0].keep_client;
        desired.server_side = INTERNET;
        for hop in desired.hops.values_mut() {
            (hop.side, hop.smac) = (INTERNET, PUBLIC_MAC);
        }
        let mut prog = Prog::with(&desired);
        let syn = prog.public(Frame::syn(client(0), vip())).sent_back();
        assert_eq!((syn.eth_src, syn.eth_dst), (PUBLIC_MAC, WEB_MAC[0]));
        assert_eq!(syn.ip.src, if kept { CLIENT } else { PRIVATE });
        let answer = Frame::tcp(syn.destination(), syn.source()).flags(SYN | ACK).seq(9000);
        let answer = prog.public(answer).sent_back();
        assert_eq!((answer.source(), answer.destination()), (vip(), client(0)));
        prog.public(Frame::tcp(client(0), vip()).ack(9001)).sent_back();
        assert_eq!(prog.flow_entries(), 2);
    }
}

#[test]
fn a_port_in_the_range_is_kept_when_it_is_free() {
    let mut prog = Prog::new();
    for port in [1024, 5000, 32767] {
        assert_eq!(prog.connect(at(CLIENT, port), vip()).source, at(PRIVATE, port));
    }
    for port in [1, 1023, 32768, 65535] {
        let source = prog.connect(at(CLIENT, port), vip()).source;
        assert!((1024..=32767).contains(&source.port()), "{source}");
    }
}

#[test]
fn clients_with_the_same_port_get_different_ones() {
    let mut desired = desired();
    www(&mut desired).slots = vec![0];
    let mut prog = Prog::with(&desired);
    let mut sources = BTreeSet::new();
    for n in 0..50 {
        let client = at(Ipv4Addr::new(198, 51, 100, n), 5000);
        let connection = prog.connect(client, vip());
        assert!(sources.insert(connection.source), "{} twice", connection.source);
        prog.carries(&connection);
    }
    assert!(sources.contains(&at(PRIVATE, 5000)), "the first one kept it");
}

#[test]
fn a_port_of_a_closed_connection_is_given_again_when_ports_are_short() {
    let mut desired = desired();
    www(&mut desired).slots = vec![0];
    www(&mut desired).servers[0].source_ports = (2000, 2000);
    let mut prog = Prog::with(&desired);
    let first = prog.connect(client(0), vip());
    prog.public(Frame::syn(client(1), vip())).dropped(Counter::DropNoPort);
    prog.public(first.from_client().flags(FIN | ACK)).forwarded();
    prog.public(Frame::syn(client(1), vip())).dropped(Counter::DropNoPort);
    prog.private(first.from_server().flags(FIN | ACK)).forwarded();
    let second = prog.connect(client(1), vip());
    assert_eq!(second.source, first.source);
    assert_eq!(prog.flow_entries(), 2);
    prog.public(first.from_client()).dropped(Counter::DropNoFlow);
    prog.carries(&second);
}

#[test]
fn a_port_of_an_old_half_open_connection_is_given_again_when_ports_are_short() {
    let mut desired = desired();
    www(&mut desired).slots = vec![0];
    www(&mut desired).servers[0].source_ports = (2000, 2003);
    let mut prog = Prog::with(&desired);
    let half_open: Vec<_> = (0..4).map(|n| prog.begin(client(n), vip())).collect();
    for one in &half_open {
        prog.private(one.answer()).forwarded();
    }
    let mut started = |one: &Connection, ticks: u32| {
        let table = &mut prog.flows.v4.half_open.entries;
        for key in [one.client_key(), one.server_key()] {
            let mut entry = table.get(&key, 0).unwrap();
            entry.created = entry.created.wrapping_add(ticks);
            table.insert(key, entry, 0).unwrap();
        }
    };
    // However long this test takes, none of them is old.
    half_open.iter().for_each(|one| started(one, 1000));
    // One of them has been waiting for a while: it is the one that gives way.
    let old = &half_open[2];
    started(old, 0_u32.wrapping_sub(1001));
    let new = prog.connect(client(4), vip());
    assert_eq!(new.source, old.source);
    prog.public(old.from_client()).dropped(Counter::DropNoFlow);
    prog.carries(&new);
    // The others are confirmed as if nothing had been.
    for one in half_open.iter().filter(|one| one.source != old.source) {
        prog.public(one.from_client()).forwarded();
        prog.carries(one);
    }
}

#[test]
fn a_client_that_tries_again_leaves_a_server_that_has_gone_before_it_answered() {
    let mut desired = desired();
    www(&mut desired).slots = vec![0, 1];
    let mut prog = Prog::with(&desired);
    let silent = prog.begin(client(0), vip());
    let answered = prog.begin(client(1), vip());
    let gone = [silent.server, answered.server].map(|server| v4(server));
    assert_eq!(gone, WEB, "one each");
    prog.private(answered.answer()).forwarded();

    for web in WEB {
        desired.hops.get_mut(&host(web)).unwrap().dmac = None;
    }
    prog.apply(&desired);
    prog.public(Frame::syn(client(0), vip())).dropped(Counter::DropUnresolved);
    desired.hops.get_mut(&host(WEB[1])).unwrap().dmac = Some(WEB_MAC[1]);
    www(&mut desired).slots = vec![1];
    prog.apply(&desired);
    let again = prog.connect(client(0), vip());
    assert_eq!(again.server.ip(), WEB[1]);
    prog.carries(&again);
    // A server that has answered is the one that the client knows.
    prog.public(answered.from_client()).forwarded();
    prog.carries(&answered);
}

/// SYNs of `count` clients of its own for each of several threads, as the router would send them.
fn crowds(threads: u8, count: u16, port: impl Fn(u16) -> u16) -> Vec<Vec<Vec<u8>>> {
    let syn = |thread: u8, n: u16| {
        let [high, low] = n.to_be_bytes();
        let client = at(Ipv4Addr::new(10 + thread, 0, high, low), port(n));
        Frame::syn(client, vip()).macs(ROUTER_MAC, PUBLIC_MAC).build()
    };
    (0..threads).map(|thread| (0..count).map(|n| syn(thread, n)).collect()).collect()
}

#[test]
fn cpus_that_choose_ports_at_once_never_choose_the_same() {
    let preferences: [fn(u16) -> u16; 3] = [|_| 40000, |_| 2050, |n| 2000 + n % 100];
    for preferred in preferences {
        let mut desired = desired();
        for server in &mut www(&mut desired).servers {
            server.source_ports = (2000, 2099);
        }
        let mut prog = Prog::with(&desired);
        let results = prog.run_at_once(INTERNET, &crowds(4, 75, preferred), |_| ());
        let mut given: BTreeSet<(SocketAddr, SocketAddr)> = BTreeSet::new();
        let mut refused = 0;
        for (action, frame) in results.into_iter().flatten() {
            if action == action::DROP {
                refused += 1;
                continue;
            }
            verify(&frame).unwrap();
            let syn = parse(&frame).unwrap();
            assert!((2000..=2099).contains(&syn.source().port()));
            assert!(given.insert((syn.source(), syn.destination())), "{} twice", syn.source());
        }
        assert_eq!((given.len(), refused), (200, 100), "all there are, and then no more");
        assert_eq!(prog.half_open_entries(), 400);
        let stats = prog.interface_stats(INTERNET);
        assert_eq!(stats.packets[Counter::DropNoPort as usize], 100);
    }
}

#[test]
fn a_first_packet_on_two_cpus_at_once_makes_one_connection() {
    let mut prog = Prog::sized(
        &desired(),
        Sizes { max_connections: 64, max_connections_v6: 64, max_half_open: 4096 },
    );
    // Both threads send the same SYNs.
    let list = crowds(1, 200, |_| 40000).remove(0);
    let results = prog.run_at_once(INTERNET, &[list.clone(), list], |_| ());
    for (first, second) in results[0].iter().zip(&results[1]) {
        assert_eq!(first, second);
        assert_eq!(first.0, action::REDIRECT);
    }
    assert_eq!(prog.half_open_entries(), 400);
    let connections = WEB.map(|server| prog.server_stats(server).connections);
    assert_eq!(connections.iter().sum::<u64>(), 200);
    assert_eq!(prog.interface_stats(SERVERS).packets.iter().sum::<u64>(), 0);
}
