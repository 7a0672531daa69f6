//! Changes under open connections: neighbours that move, routes and servers that go, a daemon that starts anew.

use std::{net::Ipv4Addr, time::Duration};

use lbha::datapath::{
    Desired,
    apply::{Applier, BackendKey, Change, InUse},
    desired::{Route, Server, ServiceId},
    expiry::Timeouts,
};
use lbha_common::{counter::Counter, flow::side::PRIVATE as SERVERS, service::pick};
use lbha_tests::{
    packet::{Frame, tcp_flags::*},
    prog::*,
};

const NEAR: &str = "203.0.113.0/24";
const OTHER_ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 3];
const NEW_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];

/// The guide's network, with a way of its own to the clients.
fn with_near_route() -> Desired {
    let mut desired = desired();
    desired.routes.insert(prefix(NEAR), Route::Hop);
    desired.hops.insert(prefix(NEAR), public_hop(OTHER_ROUTER));
    desired
}

/// A new daemon over the same pins.
fn restart(prog: &mut Prog) {
    prog.applier = Applier::open(prog.pins().root()).expect("the maps open");
}

fn apply(prog: &mut Prog, desired: &Desired, sweep: u64) -> Vec<Change> {
    prog.applier.apply(desired, sweep).expect("the maps are written")
}

/// What the flow tables refer to.
fn in_use(prog: &mut Prog, number: u64) -> InUse {
    prog.sweep(&Timeouts::all(Duration::from_secs(3600)), number).in_use
}

fn release(prog: &mut Prog, number: u64) {
    let in_use = in_use(prog, number);
    prog.applier.release(&in_use).expect("the maps are written");
}

fn backend_id(prog: &Prog, address: Ipv4Addr) -> Option<u32> {
    let address = address.into();
    prog.applier.backend_id(&BackendKey { service: WWW, address, port: 80 })
}

fn end(prog: &mut Prog, connection: &Connection) {
    prog.flows.v4.flows.entries.remove(&connection.client_key()).unwrap();
    prog.flows.v4.flows.entries.remove(&connection.server_key()).unwrap();
}

fn server(address: Ipv4Addr) -> Server {
    Server { address: address.into(), ..www(&mut desired()).servers[0].clone() }
}

/// Where a connection's packets go: towards the server, and back to the client.
fn macs(prog: &mut Prog, connection: &Connection) -> ([u8; 6], [u8; 6]) {
    let there = prog.public(connection.from_client()).forwarded().eth_dst;
    (there, prog.private(connection.from_server()).forwarded().eth_dst)
}

#[test]
fn a_new_mac_address_is_followed_by_open_connections() {
    let mut desired = desired();
    let mut prog = Prog::with(&desired);
    let connection = prog.connect(client(0), vip());
    assert_eq!(macs(&mut prog, &connection), (WEB_MAC[0], ROUTER_MAC));
    desired.hops.get_mut(&host(WEB[0])).unwrap().dmac = Some(NEW_MAC);
    assert_eq!(apply(&mut prog, &desired, 0), [Change::Hop(host(WEB[0]), Some(NEW_MAC))]);
    assert_eq!(macs(&mut prog, &connection), (NEW_MAC, ROUTER_MAC));
    desired.hops.get_mut(&IpPrefix::DEFAULT_V4).unwrap().dmac = Some(OTHER_ROUTER);
    apply(&mut prog, &desired, 0);
    assert_eq!(macs(&mut prog, &connection), (NEW_MAC, OTHER_ROUTER));
    // Our own too: the interface's and the one that frames leave with.
    desired.interfaces[usize::from(SERVERS)].mac = NEW_MAC;
    desired.hops.get_mut(&host(WEB[0])).unwrap().smac = NEW_MAC;
    assert_eq!(apply(&mut prog, &desired, 0), []);
    assert_eq!(prog.public(connection.from_client()).forwarded().eth_src, NEW_MAC);
    let to_the_old = connection.from_server().macs(WEB_MAC[0], PRIVATE_MAC).build();
    prog.run(SERVERS, &to_the_old).passed(Counter::PassMac, &to_the_old);
}

#[test]
fn a_route_that_is_gone_is_followed_to_where_it_leads_now() {
    for restarted in [false, true] {
        let mut prog = Prog::with(&with_near_route());
        let connection = prog.connect(client(0), vip());
        assert_eq!(macs(&mut prog, &connection).1, OTHER_ROUTER);
        let mut desired = desired();
        let changes = apply(&mut prog, &desired, 0);
        assert_eq!(changes, [Change::Route(prefix(NEAR), None)]);
        if restarted {
            restart(&mut prog);
            assert_eq!(apply(&mut prog, &desired, 0), []);
        }
        assert_eq!(prog.applier.lingering_prefixes(), [prefix(NEAR)]);
        assert_eq!(macs(&mut prog, &connection).1, OTHER_ROUTER, "nothing better is known");
        desired.lingering.insert(prefix(NEAR), public_hop(ROUTER_MAC));
        assert_eq!(apply(&mut prog, &desired, 0), [Change::Hop(prefix(NEAR), Some(ROUTER_MAC))]);
        assert_eq!(macs(&mut prog, &connection).1, ROUTER_MAC);
        assert_eq!(prog.applier.lingering_prefixes(), [prefix(NEAR)], "it still is in use");
        end(&mut prog, &connection);
        release(&mut prog, 1);
        assert_eq!(prog.applier.lingering_prefixes(), []);
    }
}

#[test]
fn a_next_hops_index_is_not_given_again_while_connections_use_it() {
    let mut prog = Prog::with(&with_near_route());
    let connection = prog.connect(client(0), vip());
    let hop_of = |prog: &Prog, connection: &Connection| {
        prog.flows.v4.flows.entries.get(&connection.server_key(), 0).unwrap().next_hop
    };
    let index = hop_of(&prog, &connection);
    let mut desired = desired();
    apply(&mut prog, &desired, 0);
    release(&mut prog, 1);
    // Another prefix takes another index.
    let far = prefix("198.51.100.0/24");
    desired.routes.insert(far, Route::Hop);
    desired.hops.insert(far, public_hop(NEW_MAC));
    apply(&mut prog, &desired, 1);
    let other = prog.connect(at(Ipv4Addr::new(198, 51, 100, 1), 40000), vip());
    assert_ne!(hop_of(&prog, &other), index);
    assert_eq!(macs(&mut prog, &connection).1, OTHER_ROUTER);
    assert_eq!(macs(&mut prog, &other).1, NEW_MAC);
    // When nothing refers to it any more it is free.
    end(&mut prog, &connection);
    release(&mut prog, 2);
    let third = prefix("192.0.2.0/24");
    desired.routes.insert(third, Route::Hop);
    desired.hops.insert(third, public_hop(NEW_MAC));
    apply(&mut prog, &desired, 2);
    let third = prog.connect(at(Ipv4Addr::new(192, 0, 2, 1), 40000), vip());
    assert_eq!(hop_of(&prog, &third), index);
}

#[test]
fn a_servers_index_is_not_given_again_while_connections_use_it() {
    let mut desired = desired();
    let mut prog = Prog::with(&desired);
    let connection = prog.connect(client(0), vip());
    let id = backend_id(&prog, WEB[0]).unwrap();
    www(&mut desired).servers.remove(0);
    www(&mut desired).slots = vec![0];
    apply(&mut prog, &desired, 0);
    release(&mut prog, 1);
    assert_eq!(backend_id(&prog, WEB[0]), Some(id), "its connection is open");
    let third = Ipv4Addr::new(192, 168, 1, 12);
    www(&mut desired).servers.push(server(third));
    apply(&mut prog, &desired, 1);
    assert_ne!(backend_id(&prog, third), Some(id));
    prog.carries(&connection);
    let packets = prog.counters.backend(id).unwrap().packets_in;
    assert_eq!(packets, 3, "and still counted as its server's");

    end(&mut prog, &connection);
    release(&mut prog, 2);
    assert_eq!(backend_id(&prog, WEB[0]), None);
    let fourth = Ipv4Addr::new(192, 168, 1, 13);
    www(&mut desired).servers.push(server(fourth));
    apply(&mut prog, &desired, 2);
    assert_eq!(backend_id(&prog, fourth), Some(id));
    assert_eq!(prog.counters.backend(id).unwrap(), Default::default(), "counted from 0");
}

#[test]
fn a_sweep_that_began_before_the_removal_frees_nothing() {
    let mut desired = desired();
    let mut prog = Prog::with(&desired);
    www(&mut desired).servers.remove(0);
    www(&mut desired).slots = vec![0];
    let before = in_use(&mut prog, 1);
    apply(&mut prog, &desired, 1);
    prog.applier.release(&before).unwrap();
    assert!(backend_id(&prog, WEB[0]).is_some());
    release(&mut prog, 2);
    assert!(backend_id(&prog, WEB[0]).is_none());
}

#[test]
fn a_server_that_is_gone_may_send_what_it_likes() {
    let stray = Frame::tcp(at(WEB[0], 80), client(0)).macs(WEB_MAC[0], PRIVATE_MAC).build();
    for (whole_service, restarted) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut desired = desired();
        let mut prog = Prog::with(&desired);
        prog.run(SERVERS, &stray).dropped(Counter::DropNoFlow);
        if whole_service {
            desired.services.clear();
        } else {
            www(&mut desired).servers.remove(0);
            www(&mut desired).slots = vec![0];
        }
        apply(&mut prog, &desired, 0);
        prog.run(SERVERS, &stray).dropped(Counter::DropNoFlow);
        if restarted {
            restart(&mut prog);
            apply(&mut prog, &desired, 0);
        }
        release(&mut prog, 1);
        prog.run(SERVERS, &stray).passed(Counter::PassUnmatched, &stray);
        assert_eq!(prog.applier.retired_backends().count(), 0);
    }
}

#[test]
fn a_server_of_two_services_is_known_as_long_as_one_has_it() {
    let stray = Frame::tcp(at(WEB[0], 80), client(0)).macs(WEB_MAC[0], PRIVATE_MAC).build();
    let mut desired = desired();
    let second = ServiceId { port: 8080, ..WWW };
    let service = www(&mut desired).clone();
    desired.services.insert(second, service);
    let mut prog = Prog::with(&desired);
    desired.services.remove(&WWW);
    apply(&mut prog, &desired, 0);
    release(&mut prog, 1);
    prog.run(SERVERS, &stray).dropped(Counter::DropNoFlow);
    desired.services.remove(&second);
    apply(&mut prog, &desired, 1);
    release(&mut prog, 2);
    prog.run(SERVERS, &stray).passed(Counter::PassUnmatched, &stray);
}

#[test]
fn a_new_daemon_finds_everything_as_it_left_it() {
    let mut desired = with_near_route();
    www(&mut desired).slots = vec![0, 1, 1];
    let mut hashed = www(&mut desired).clone();
    hashed.pick = pick::SOURCE;
    desired.services.insert(ServiceId { port: 53, protocol: UDP, ..WWW }, hashed);
    let mut prog = Prog::with(&desired);
    let open: Vec<Connection> = (0..6).map(|n| prog.connect(client(n), vip())).collect();
    let begun = prog.begin(client(9), vip());
    let ids = WEB.map(|server| backend_id(&prog, server));
    let (used, counted) = (in_use(&mut prog, 1), prog.server_stats(WEB[0]));

    restart(&mut prog);
    // Forwarding goes on before anything is applied.
    open.iter().for_each(|connection| prog.carries(connection));
    assert_eq!(apply(&mut prog, &desired, 0), [], "nothing to change");
    assert_eq!(WEB.map(|server| backend_id(&prog, server)), ids);
    assert_eq!(in_use(&mut prog, 2).v4.hops, used.v4.hops);
    open.iter().for_each(|connection| prog.carries(connection));
    prog.private(begun.answer()).forwarded();
    prog.public(begun.from_client()).forwarded();
    assert!(prog.server_stats(WEB[0]).packets_in > counted.packets_in, "counters go on");
    // The turn goes on too: 7 of [0, 1, 1] were taken.
    assert_eq!(prog.begin(client(20), vip()).server.ip(), WEB[1]);

    // What differs is written, and only that.
    www(&mut desired).slots = vec![0];
    restart(&mut prog);
    assert_eq!(apply(&mut prog, &desired, 0), [Change::ServiceChanged(WWW)]);
    assert_eq!(prog.begin(client(21), vip()).server.ip(), WEB[0]);
}

#[test]
fn the_index_of_a_service_that_is_gone_waits_for_its_connections_over_restarts() {
    let mut desired = desired();
    let mut prog = Prog::with(&desired);
    let connection = prog.connect(client(0), vip());
    let service = desired.services.remove(&WWW).unwrap();
    apply(&mut prog, &desired, 0);
    let second = ServiceId { port: 8080, ..WWW };
    desired.services.insert(second, service);
    restart(&mut prog);
    apply(&mut prog, &desired, 0);
    restart(&mut prog);
    apply(&mut prog, &desired, 0);
    let old: Vec<_> = prog.applier.retired_backends().map(|(key, _)| *key).collect();
    assert_eq!(old.len(), 2, "they are not taken for the new service's: {old:?}");
    let syn = prog.public(Frame::syn(client(1), at(VIP, 8080))).forwarded();
    let answer = Frame::tcp(syn.destination(), syn.source()).flags(SYN | ACK);
    prog.private(answer).forwarded();
    prog.carries(&connection);
    release(&mut prog, 1);
    assert_eq!(prog.applier.retired_backends().count(), 1);
    end(&mut prog, &connection);
    release(&mut prog, 2);
    assert_eq!(prog.applier.retired_backends().count(), 0);
}
