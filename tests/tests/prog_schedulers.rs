//! Which server a new connection goes to, and what a change of the servers does to the others.

use std::{collections::BTreeMap, net::Ipv4Addr};

use lbha::{
    datapath::{
        Desired,
        desired::{Route, Server, ServiceId},
        loader::Sizes,
    },
    lb,
};
use lbha_common::{counter::Counter, flow::side::PUBLIC as INTERNET, service::pick};
use lbha_tests::{
    packet::{Frame, parse},
    prog::*,
};

/// `www` with `count` servers, 192.168.1.10 and up.
fn servers(count: u8) -> Desired {
    let mut desired = desired();
    let template = www(&mut desired).servers[0].clone();
    www(&mut desired).servers.clear();
    for n in 0..count {
        let address = server(n);
        www(&mut desired).servers.push(Server { address: address.into(), ..template.clone() });
        desired.hops.insert(host(address), private_hop([2, 0, 0, 0, 1, 0x10 + n]));
    }
    desired
}

fn server(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, 10 + n)
}

/// SYNs from clients on many addresses and ports, numbered from `first`.
fn syns(first: u32, count: u32) -> Vec<Vec<u8>> {
    let syn = |n: u32| {
        let client = Ipv4Addr::from_bits(0x0a00_0000 + n / 3);
        Frame::syn(at(client, 40000 + (n % 3) as u16), vip()).macs(ROUTER_MAC, PUBLIC_MAC).build()
    };
    (first..first + count).map(syn).collect()
}

/// The servers that SYNs went to; all of them must have been forwarded.
fn chosen<'a>(results: impl IntoIterator<Item = &'a (u32, Vec<u8>)>) -> Vec<Ipv4Addr> {
    let server = |(action, frame): &(u32, Vec<u8>)| {
        assert_eq!(*action, action::REDIRECT);
        v4(parse(frame).unwrap().destination())
    };
    results.into_iter().map(server).collect()
}

fn choices(prog: &mut Prog, syns: &[Vec<u8>]) -> Vec<Ipv4Addr> {
    let results: Vec<_> = syns.iter().map(|syn| prog.send(INTERNET, syn)).collect();
    chosen(&results)
}

fn tally(servers: &[Ipv4Addr]) -> BTreeMap<Ipv4Addr, usize> {
    let mut tally = BTreeMap::new();
    for server in servers {
        *tally.entry(*server).or_default() += 1;
    }
    tally
}

const LARGE: Sizes = Sizes { max_connections: 64, max_connections_v6: 64, max_half_open: 16384 };

#[test]
fn weights_are_slots_and_slots_are_taken_in_order() {
    let mut desired = desired();
    www(&mut desired).slots = lb::weighted_round_robin(&[3, 1]);
    let mut prog = Prog::with(&desired);
    let got = choices(&mut prog, &syns(0, 40));
    let expected = [WEB[0], WEB[0], WEB[1], WEB[0]].repeat(10);
    assert_eq!(got, expected);
}

#[test]
fn the_turn_is_exact_over_all_cpus() {
    for threads in [2u32, 4] {
        let mut prog = Prog::sized(&desired(), LARGE);
        let lists: Vec<_> = (0..threads).map(|n| syns(n * 1500, 1000 / threads)).collect();
        let results = prog.run_at_once(INTERNET, &lists, |_| ());
        let tally = tally(&chosen(results.iter().flatten()));
        assert_eq!(tally, BTreeMap::from(WEB.map(|server| (server, 500))));
        assert_eq!(WEB.map(|server| prog.server_stats(server).connections), [500, 500]);
    }
}

/// The guide's service with five servers and Maglev's table, in which some of them are weightless.
fn hashed(weights: &[u16]) -> Prog {
    let mut desired = servers(5);
    let identities: Vec<u64> = (0..5).map(|n| u64::from(server(n).to_bits())).collect();
    www(&mut desired).pick = pick::CONNECTION;
    www(&mut desired).slots = lb::maglev(&identities, weights);
    Prog::sized(&desired, LARGE)
}

#[test]
fn a_hashed_connection_stays_with_its_server_and_a_removal_moves_few_others() {
    let syns = syns(0, 4000);
    let before = choices(&mut hashed(&[1; 5]), &syns);
    assert_eq!(before, choices(&mut hashed(&[1; 5]), &syns), "another host agrees");
    for (server, count) in tally(&before) {
        assert!((700..900).contains(&count), "{server} has {count} of 4000");
    }
    let after = choices(&mut hashed(&[1, 1, 0, 1, 1]), &syns);
    assert!(!after.contains(&server(2)));
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    let own = tally(&before)[&server(2)];
    assert!((own..own + 200).contains(&moved), "{moved} moved, of which {own} had to");
}

#[test]
fn a_client_stays_with_its_server_whatever_its_port() {
    let mut desired = servers(5);
    www(&mut desired).pick = pick::SOURCE;
    www(&mut desired).slots = (0..5).collect();
    let mut prog = Prog::sized(&desired, LARGE);
    let mut servers = Vec::new();
    for n in 0..100 {
        let client = Ipv4Addr::new(198, 51, 100, n);
        let first = prog.begin(at(client, 1025), vip()).server;
        for port in 2000..2010 {
            assert_eq!(prog.begin(at(client, port), vip()).server, first);
        }
        servers.push(v4(first));
    }
    assert_eq!(tally(&servers).len(), 5, "clients are spread");
}

#[test]
fn services_do_not_move_in_step() {
    let mut desired = servers(5);
    www(&mut desired).pick = pick::SOURCE;
    www(&mut desired).slots = (0..5).collect();
    let mut other = www(&mut desired).clone();
    other.seed += 1;
    let port = 8080;
    desired.services.insert(ServiceId { port, ..WWW }, other);
    let mut prog = Prog::sized(&desired, LARGE);
    let same = (0..100).filter(|&n| {
        let client = at(Ipv4Addr::new(198, 51, 100, n), 5000);
        prog.begin(client, vip()).server == prog.begin(client, at(VIP, port)).server
    });
    let same = same.count();
    assert!((5..50).contains(&same), "{same} of 100 clients have the same server in both");
}

#[test]
fn a_drained_server_keeps_its_connections_and_gets_no_new_ones() {
    let mut desired = desired();
    let mut prog = Prog::with(&desired);
    let open: Vec<Connection> = (0..10).map(|n| prog.connect(client(n), vip())).collect();
    let half_open: Vec<Connection> = (10..14).map(|n| prog.begin(client(n), vip())).collect();
    www(&mut desired).slots = vec![1];
    prog.apply(&desired);
    for n in 20..40 {
        assert_eq!(prog.connect(client(n), vip()).server.ip(), WEB[1]);
    }
    for connection in half_open {
        prog.private(connection.answer()).forwarded();
        prog.public(connection.from_client()).forwarded();
        prog.carries(&connection);
    }
    for connection in open {
        prog.carries(&connection);
    }
    // Gone from the pool altogether, it still keeps them.
    www(&mut desired).servers.remove(0);
    www(&mut desired).slots = vec![0];
    prog.apply(&desired);
    let kept = prog.connect(client(50), vip());
    assert_eq!(kept.server.ip(), WEB[1]);
}

#[test]
fn connections_of_a_removed_server_and_of_a_removed_service_go_on() {
    let mut desired = desired();
    let mut prog = Prog::with(&desired);
    let open: Vec<Connection> = (0..4).map(|n| prog.connect(client(n), vip())).collect();
    www(&mut desired).servers.remove(0);
    www(&mut desired).slots = vec![0];
    prog.apply(&desired);
    open.iter().for_each(|connection| prog.carries(connection));
    desired.services.clear();
    prog.apply(&desired);
    open.iter().for_each(|connection| prog.carries(connection));
    // The address is no service any more: its port is the host's.
    let syn = Frame::syn(client(9), vip()).macs(ROUTER_MAC, PUBLIC_MAC).build();
    prog.run(INTERNET, &syn).passed(Counter::PassUnmatched, &syn);
}

#[test]
fn a_swap_under_load_loses_nothing() {
    let desired = desired();
    let mut prog = Prog::sized(
        &desired,
        Sizes { max_connections: 64, max_connections_v6: 64, max_half_open: 16384 },
    );
    let open: Vec<Connection> = (0..20).map(|n| prog.connect(client(n), vip())).collect();
    // New connections with packets of the open ones between them.
    let list = |first: u32| {
        let mut frames = Vec::new();
        for (n, syn) in syns(first, 1000).into_iter().enumerate() {
            let data = open[n % open.len()].from_client().payload(b"data");
            frames.extend([syn, data.macs(ROUTER_MAC, PUBLIC_MAC).build()]);
        }
        frames
    };
    let results = prog.run_at_once(INTERNET, &[list(0), list(3000)], |applier| {
        let mut desired = desired.clone();
        for n in 0..60 {
            www(&mut desired).slots = [vec![0, 1], vec![0], vec![1, 1, 0], vec![1]][n % 4].clone();
            applier.apply(&desired, 0).unwrap();
        }
    });
    for list in &results {
        for (n, (action, frame)) in list.iter().enumerate() {
            assert_eq!(*action, action::REDIRECT, "nothing is dropped");
            let packet = parse(frame).unwrap();
            if n % 2 == 1 {
                let connection = open[n / 2 % open.len()];
                assert_eq!(packet.destination(), connection.server);
                assert_eq!(packet.source(), connection.source);
            } else {
                assert!(WEB.contains(&v4(packet.destination())));
            }
        }
    }
    for n in 100..110 {
        assert_eq!(prog.begin(client(n), vip()).server.ip(), WEB[1], "the last table counts");
    }
}

#[test]
fn a_server_that_is_added_gets_its_turn() {
    let mut desired = servers(3);
    www(&mut desired).slots = vec![0, 1];
    let mut prog = Prog::with(&desired);
    desired.routes.insert(host(server(2)), Route::Hop);
    www(&mut desired).slots = vec![0, 1, 2];
    prog.apply(&desired);
    let tally = tally(&choices(&mut prog, &syns(0, 30)));
    assert_eq!(tally, BTreeMap::from([0, 1, 2].map(|n| (server(n), 10))));
}
