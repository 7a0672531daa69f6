//! A connection's life: halves that are evicted and come back, resets, closes, and floods that leave it alone.

use std::net::Ipv4Addr;

use lbha::datapath::{desired::ServiceId, loader::Sizes};
use lbha_common::{
    conntrack::state::{self, *},
    counter::Counter,
    flow::{
        Flow4, FlowKey4,
        side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
    },
};
use lbha_tests::{
    packet::{Frame, tcp_flags::*},
    prog::*,
};

fn evict(prog: &mut Prog, key: &FlowKey4) {
    prog.flows.v4.half_open.entries.remove(key).expect("it is there");
}

fn half_open(prog: &Prog, key: &FlowKey4) -> Option<Flow4> {
    prog.flows.v4.half_open.entries.get(key, 0).ok()
}

/// What FIN and RST have left in a confirmed connection's entries: the client's and the server's.
fn marks(prog: &Prog, connection: &Connection) -> (u32, u32) {
    let marks = |key| {
        let entry = prog.flows.v4.flows.entries.get(key, 0).expect("a confirmed connection");
        assert_eq!(entry.state & state::REPLIED, 0);
        entry.state & (state::FINS | state::RSTS)
    };
    (marks(&connection.client_key()), marks(&connection.server_key()))
}

fn confirm(prog: &mut Prog, connection: &Connection) {
    prog.private(connection.answer()).forwarded();
    prog.public(connection.from_client()).forwarded();
    assert_eq!(marks(prog, connection), (0, 0));
    prog.carries(connection);
}

#[test]
fn an_evicted_servers_half_comes_back_with_the_clients_next_try() {
    let mut prog = Prog::new();
    let connection = prog.begin(client(0), vip());
    let before = half_open(&prog, &connection.server_key());
    evict(&mut prog, &connection.server_key());
    // To our own address: for all that is known it answers a health check.
    let answer = connection.answer().macs(WEB_MAC[0], PRIVATE_MAC).build();
    prog.run(SERVERS, &answer).passed(Counter::PassUnmatched, &answer);
    assert_eq!(prog.begin(client(0), vip()), connection);
    let after = half_open(&prog, &connection.server_key()).expect("made again");
    assert_eq!(Some(Flow4 { last_seen: before.unwrap().last_seen, ..after }), before);
    confirm(&mut prog, &connection);
}

#[test]
fn an_evicted_clients_half_comes_back_with_the_servers_answer() {
    let mut prog = Prog::new();
    let connection = prog.begin(client(0), vip());
    evict(&mut prog, &connection.client_key());
    confirm(&mut prog, &connection);
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (2, 0));
}

#[test]
fn a_half_that_is_evicted_after_the_answer_does_not_matter() {
    let mut prog = Prog::new();
    for n in 0..2 {
        let connection = prog.begin(client(n), vip());
        prog.private(connection.answer()).forwarded();
        if n == 0 {
            evict(&mut prog, &connection.server_key());
        } else {
            evict(&mut prog, &connection.client_key());
            // Without it nobody knows the acknowledgement; the server's next try tells it again.
            prog.public(connection.from_client()).dropped(Counter::DropNoFlow);
            prog.private(connection.answer()).forwarded();
        }
        prog.public(connection.from_client()).forwarded();
        prog.carries(&connection);
    }
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (4, 0));
}

#[test]
fn a_datagrams_halves_come_back_too() {
    let mut desired = desired();
    let mut service = www(&mut desired).clone();
    service.slots = vec![0];
    desired.services.insert(ServiceId { port: 53, protocol: UDP, ..WWW }, service);
    let mut prog = Prog::with(&desired);
    let query = Frame::udp(client(0), at(VIP, 53));
    let first = prog.public(query.clone()).forwarded();
    let server_key = key(1, UDP, first.destination(), first.source());
    evict(&mut prog, &server_key);
    assert_eq!(prog.public(query.clone()).forwarded().source(), first.source());
    evict(&mut prog, &key(0, UDP, client(0), at(VIP, 53)));
    prog.private(Frame::udp(first.destination(), first.source())).forwarded();
    assert_eq!(prog.public(query).forwarded().source(), first.source());
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (2, 0));
}

#[test]
fn an_answer_to_a_try_that_was_given_up_does_not_reach_the_client() {
    let mut prog = Prog::new();
    let first = prog.begin(client(0), vip());
    evict(&mut prog, &first.client_key());
    let second = prog.begin(client(0), vip());
    assert_ne!(first.server, second.server);
    prog.private(first.answer().seq(5555)).dropped(Counter::DropConflict);
    assert_eq!(half_open(&prog, &first.server_key()), None);
    confirm(&mut prog, &second);
}

#[test]
fn a_try_whose_port_went_to_another_connection_begins_anew() {
    let mut desired = desired();
    www(&mut desired).slots = vec![0];
    let mut prog = Prog::with(&desired);
    let (ours, theirs) = (at(CLIENT, 5000), at(Ipv4Addr::new(198, 51, 100, 7), 5000));
    for confirmed in [false, true] {
        let loser = prog.begin(ours, vip());
        evict(&mut prog, &loser.server_key());
        let winner = prog.begin(theirs, vip());
        assert_eq!((loser.source, loser.server), (winner.source, winner.server));
        if confirmed {
            confirm(&mut prog, &winner);
        }
        prog.public(Frame::syn(ours, vip())).dropped(Counter::DropConflict);
        let again = prog.begin(ours, vip());
        assert_ne!(again.source, winner.source);
        confirm(&mut prog, &again);
        if !confirmed {
            confirm(&mut prog, &winner);
            for connection in [again, winner] {
                prog.flows.v4.flows.entries.remove(&connection.client_key()).unwrap();
                prog.flows.v4.flows.entries.remove(&connection.server_key()).unwrap();
            }
        }
    }
}

#[test]
fn a_reset_is_noted_and_forgotten_when_its_sender_goes_on() {
    let mut prog = Prog::new();
    let connection = prog.connect(client(0), vip());
    prog.public(connection.from_client().flags(RST)).forwarded();
    assert_eq!(marks(&prog, &connection), (OWN_RST, PEER_RST));
    prog.private(connection.from_server()).forwarded();
    assert_eq!(marks(&prog, &connection), (OWN_RST, PEER_RST), "the other side says nothing");
    prog.public(connection.from_client()).forwarded();
    assert_eq!(marks(&prog, &connection), (0, 0), "it was spoofed");
    prog.carries(&connection);

    prog.private(connection.from_server().flags(RST | ACK)).forwarded();
    assert_eq!(marks(&prog, &connection), (PEER_RST, OWN_RST));
    prog.public(connection.from_client()).forwarded();
    assert_eq!(marks(&prog, &connection), (PEER_RST, OWN_RST));
    prog.private(connection.from_server()).forwarded();
    assert_eq!(marks(&prog, &connection), (0, 0));
    assert_eq!(prog.flow_entries(), 2);
}

#[test]
fn a_spoofed_reset_does_not_end_a_handshake() {
    let mut prog = Prog::new();
    let connection = prog.begin(client(0), vip());
    prog.public(connection.from_client().flags(RST)).forwarded();
    prog.private(connection.answer()).forwarded();
    prog.public(connection.from_client().flags(RST)).forwarded();
    prog.public(connection.from_client()).forwarded();
    assert_eq!(marks(&prog, &connection), (0, 0), "its client goes on");
    prog.carries(&connection);
}

#[test]
fn a_refused_client_may_try_again() {
    let mut prog = Prog::new();
    let connection = prog.begin(client(0), vip());
    let refusal = prog.private(connection.from_server().flags(RST | ACK)).forwarded();
    assert_eq!(refusal.flags(), RST | ACK);
    let entry = half_open(&prog, &connection.client_key()).unwrap();
    assert_eq!(entry.state & state::RSTS, PEER_RST);
    assert_eq!(prog.begin(client(0), vip()), connection);
    let entry = half_open(&prog, &connection.client_key()).unwrap();
    assert_eq!(entry.state & state::RSTS, 0);
    confirm(&mut prog, &connection);
}

#[test]
fn a_close_goes_from_one_side_to_both() {
    let mut prog = Prog::new();
    let connection = prog.connect(client(0), vip());
    prog.private(connection.from_server().flags(FIN | ACK)).forwarded();
    assert_eq!(marks(&prog, &connection), (PEER_FIN, OWN_FIN));
    prog.carries(&connection);
    prog.public(Frame::syn(client(0), vip())).forwarded();
    assert_eq!(prog.flow_entries(), 2, "half closed is open");
    prog.public(connection.from_client().flags(FIN | ACK)).forwarded();
    assert_eq!(marks(&prog, &connection), (FINS, FINS));
    prog.carries(&connection);
    prog.private(connection.from_server().flags(FIN | ACK)).forwarded();
    assert_eq!(marks(&prog, &connection), (FINS, FINS), "a retransmission");
}

#[test]
fn a_close_with_the_first_acknowledgement_is_seen() {
    let mut prog = Prog::new();
    let connection = prog.begin(client(0), vip());
    prog.private(connection.answer()).forwarded();
    prog.public(connection.from_client().flags(FIN | ACK)).forwarded();
    assert_eq!(marks(&prog, &connection), (OWN_FIN, PEER_FIN));
}

#[test]
fn only_a_bare_syn_of_the_client_reopens_a_closing_connection() {
    let mut prog = Prog::new();
    let connection = prog.connect(client(0), vip());
    prog.public(connection.from_client().flags(FIN | ACK)).forwarded();
    prog.private(connection.from_server().flags(FIN | ACK)).forwarded();
    prog.private(connection.from_server().flags(SYN)).forwarded();
    for flags in [SYN | ACK, SYN | FIN, SYN | RST] {
        prog.public(connection.from_client().flags(flags)).forwarded();
    }
    assert_eq!(prog.flow_entries(), 2);
    let again = prog.begin(client(0), vip());
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (0, 2));
    confirm(&mut prog, &again);
    assert_eq!(prog.server_stats(v4(again.server)).established, 1);
}

/// SYN number `n` of a flood from addresses of all kinds.
fn spoofed(n: u32) -> Frame {
    let source = Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b9) | 0x2000_0000);
    Frame::syn(at(source, (n % 60000) as u16 + 1), vip())
}

#[test]
fn spoofed_handshakes_never_reach_the_flow_table() {
    let mut prog = Prog::new();
    for n in 0..500 {
        let syn = prog.public(spoofed(n)).forwarded();
        let from = spoofed(n);
        let ack = Frame::tcp(at(from.src, (n % 60000) as u16 + 1), vip());
        prog.public(ack.clone().ack(n)).dropped(Counter::DropHandshake);
        let answer = Frame::tcp(syn.destination(), syn.source()).flags(SYN | ACK);
        prog.private(answer.seq(n.wrapping_mul(77_777) + 1)).forwarded();
        prog.public(ack.ack(n)).dropped(Counter::DropHandshake);
    }
    assert_eq!(prog.flow_entries(), 0);
    assert_eq!(WEB.map(|server| prog.server_stats(server).established), [0, 0]);
}

#[test]
fn a_flood_leaves_open_connections_alone() {
    let sizes = Sizes { max_connections: 1024, max_connections_v6: 1024, max_half_open: 512 };
    let mut prog = Prog::sized(&desired(), sizes);
    let open: Vec<Connection> = (0..50).map(|n| prog.connect(client(n), vip())).collect();
    for n in 0..20_000 {
        let syn = spoofed(n).macs(ROUTER_MAC, PUBLIC_MAC).build();
        let (action, _) = prog.send(INTERNET, &syn);
        assert_eq!(action, action::REDIRECT);
        if n % 1000 == 0 {
            prog.carries(&open[n as usize / 1000]);
        }
    }
    assert_eq!(prog.flow_entries(), 100);
    assert!(prog.half_open_entries() <= 1024);
    for connection in &open {
        prog.carries(connection);
    }
    prog.connect(client(100), vip());
    assert_eq!(prog.flow_entries(), 102, "and new ones still get in");
}
