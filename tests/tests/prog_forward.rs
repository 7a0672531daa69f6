//! A connection's way through the program, packet by packet, byte for byte.

use std::net::SocketAddr;

use lbha_common::counter::Counter;
use lbha_tests::{
    packet::{Frame, Transport, tcp_flags::*},
    prog::*,
};

/// Opens a connection; gives what the server sees as its client, and the server.
fn open(prog: &mut Prog, client: SocketAddr) -> (SocketAddr, SocketAddr) {
    let syn = prog.public(Frame::syn(client, vip()).seq(1000)).forwarded();
    let (source, server) = (syn.source(), syn.destination());
    prog.private(Frame::tcp(server, source).flags(SYN | ACK).seq(9000).ack(1001)).forwarded();
    prog.public(Frame::tcp(client, vip()).seq(1001).ack(9001)).forwarded();
    (source, server)
}

#[test]
fn a_connection_is_translated_there_and_back() {
    let mut prog = Prog::new();
    let sent = Frame::syn(client(0), vip()).tos(0x2e).id(77).seq(1000);
    let syn = prog.public(sent).forwarded();
    assert_eq!((syn.eth_src, syn.eth_dst), (PRIVATE_MAC, WEB_MAC[0]));
    assert_eq!((syn.ip.tos, syn.ip.id, syn.ip.ttl), (0x2e, 77, 63));
    assert_eq!(syn.destination(), at(WEB[0], 80));
    assert_eq!(syn.ip.src, PRIVATE);
    assert!((1024..=32767).contains(&syn.source().port()));
    let source = syn.source();

    let answer = Frame::tcp(syn.destination(), source).flags(SYN | ACK).seq(9000).ack(1001);
    let answer = prog.private(answer).forwarded();
    assert_eq!((answer.eth_src, answer.eth_dst), (PUBLIC_MAC, ROUTER_MAC));
    assert_eq!((answer.source(), answer.destination()), (vip(), client(0)));
    assert_eq!(answer.flags(), SYN | ACK);
    assert_eq!(prog.flow_entries(), 0, "not confirmed yet");

    let ack = prog.public(Frame::tcp(client(0), vip()).seq(1001).ack(9001)).forwarded();
    assert_eq!(ack.source(), source);
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (2, 0), "confirmed by its client");

    let data = Frame::tcp(client(0), vip()).seq(1001).ack(9001).payload(b"GET / HTTP/1.1\r\n\r\n");
    let data = prog.public(data).forwarded();
    assert_eq!(data.payload, b"GET / HTTP/1.1\r\n\r\n");
    let Transport::Tcp { seq: 1001, ack: 9001, .. } = data.transport else {
        panic!("{:?}", data.transport)
    };
    let data = Frame::tcp(at(WEB[0], 80), source).seq(9001).payload(b"web1\n");
    let data = prog.private(data).forwarded();
    assert_eq!((data.source(), data.destination()), (vip(), client(0)));
    assert_eq!(data.payload, b"web1\n");

    let stats = prog.server_stats(WEB[0]);
    assert_eq!((stats.connections, stats.established), (1, 1));
    assert_eq!((stats.packets_in, stats.packets_out), (3, 2));
    // 20 + 20 + 12 of options; 40; 40 + 18; back: 40; 40 + 5
    assert_eq!((stats.bytes_in, stats.bytes_out), (52 + 40 + 58, 40 + 45));
}

#[test]
fn connections_go_round_and_retransmissions_stay() {
    let mut prog = Prog::new();
    for n in 0..10 {
        let syn = prog.public(Frame::syn(client(n), vip())).forwarded();
        assert_eq!(syn.ip.dst, WEB[usize::from(n % 2)]);
        let again = prog.public(Frame::syn(client(n), vip())).forwarded();
        assert_eq!((again.source(), again.destination()), (syn.source(), syn.destination()));
    }
    assert_eq!(prog.server_stats(WEB[0]).connections, 5);
    assert_eq!(prog.server_stats(WEB[1]).connections, 5);
}

#[test]
fn a_wrong_acknowledgement_confirms_nothing() {
    let mut prog = Prog::new();
    let syn = prog.public(Frame::syn(client(0), vip()).seq(1000)).forwarded();
    let early = prog.public(Frame::tcp(client(0), vip()).seq(1001).ack(1));
    early.dropped(Counter::DropHandshake);
    let answer = Frame::tcp(syn.destination(), syn.source()).flags(SYN | ACK).seq(9000).ack(1001);
    prog.private(answer).forwarded();
    let blind = prog.public(Frame::tcp(client(0), vip()).seq(1001).ack(9002));
    blind.dropped(Counter::DropHandshake);
    assert_eq!(prog.flow_entries(), 0);
    prog.public(Frame::tcp(client(0), vip()).seq(1001).ack(9001)).forwarded();
    assert_eq!(prog.flow_entries(), 2);
}

#[test]
fn a_syn_on_a_closed_connection_makes_a_new_one() {
    let mut prog = Prog::new();
    let (source, server) = open(&mut prog, client(0));
    // on an open connection it is the server's business
    let syn = prog.public(Frame::syn(client(0), vip())).forwarded();
    assert_eq!((syn.source(), syn.destination()), (source, server));

    prog.public(Frame::tcp(client(0), vip()).flags(FIN | ACK)).forwarded();
    prog.private(Frame::tcp(server, source).flags(FIN | ACK)).forwarded();
    prog.public(Frame::tcp(client(0), vip())).forwarded();
    let syn = prog.public(Frame::syn(client(0), vip())).forwarded();
    assert_eq!(syn.ip.dst, WEB[1], "the next server's turn");
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (0, 2));
}

#[test]
fn the_service_refuses_what_does_not_open_a_connection() {
    let mut prog = Prog::new();
    for flags in [ACK, FIN | ACK, RST, SYN | ACK, SYN | FIN, 0] {
        prog.public(Frame::tcp(client(0), vip()).flags(flags)).dropped(Counter::DropNoFlow);
    }
}

#[test]
fn other_ports_of_the_elastic_address_are_the_hosts_own() {
    let mut prog = Prog::new();
    let ssh = Frame::syn(client(0), at(VIP, 22)).macs(ROUTER_MAC, PUBLIC_MAC).build();
    prog.run(0, &ssh).passed(Counter::PassUnmatched, &ssh);
}
