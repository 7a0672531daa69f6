//! One sequence of packets with everything that a load balancer meets, each with what should become of it, and the sums
//! of all counters at the end.
//!
//! The cases are those of Katran's base fixtures and of the kernel's `xdp-lb` benchmark, said anew for NAT: where they
//! expect a packet around the packet, this expects the same packet with other addresses.

use std::{collections::BTreeMap, net::SocketAddr};

use lbha::datapath::{
    apply::BackendKey,
    desired::{Desired, ServiceId},
    loader::Sizes,
};
use lbha_common::{
    counter::Counter::{self, *},
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
    stats::BackendStats,
};
use lbha_tests::{
    packet::{Frame, L4, tcp_flags::*},
    prog::*,
};

const DNS: ServiceId = ServiceId { port: 53, protocol: UDP, ..WWW };

/// What should become of a packet.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// Translated, to this server.
    Server(usize),
    /// Translated, from the service to this client.
    Client(SocketAddr),
    Pass(Counter),
    Drop(Counter),
}
use Expect::{Client, Drop, Pass, Server};

struct Fixture {
    description: &'static str,
    side: u8,
    frame: Frame,
    expect: Expect,
}

/// Clients' ports lie in the range of the load balancer's own, and all are free: each is kept.
fn tcp_client(n: u16) -> SocketAddr {
    at(CLIENT, 5000 + n)
}

fn udp_client(n: u16) -> SocketAddr {
    at(CLIENT, 6000 + n)
}

fn dns() -> SocketAddr {
    at(VIP, 53)
}

fn from(server: usize, service: SocketAddr, client: SocketAddr) -> (SocketAddr, SocketAddr) {
    (at(WEB[server], service.port()), at(PRIVATE, client.port()))
}

#[rustfmt::skip]
fn fixtures() -> Vec<Fixture> {
    let public = |description, frame, expect| Fixture { description, side: INTERNET, frame, expect };
    let private = |description, frame, expect| Fixture { description, side: SERVERS, frame, expect };
    let tcp = |n| Frame::tcp(tcp_client(n), vip()).seq(1001).ack(9001);
    let syn = |n| Frame::syn(tcp_client(n), vip()).seq(1000);
    let answer = |server, n| {
        let (from, to) = from(server, vip(), tcp_client(n));
        Frame::tcp(from, to).flags(SYN | ACK).seq(9000).ack(1001)
    };
    let data = |server, n| answer(server, n).flags(ACK | PSH).seq(9001).payload(b"HTTP/1.1 200 OK\r\n");
    let query = |n| Frame::udp(udp_client(n), dns()).payload(b"question");
    let reply = |server, n| {
        let (from, to) = from(server, dns(), udp_client(n));
        Frame::udp(from, to).payload(b"answer")
    };
    let ssh = || Frame::syn(tcp_client(0), at(VIP, 22));
    vec![
        public("a datagram to a UDP service", query(0), Server(0)),
        public("a SYN to a TCP service", syn(0), Server(0)),
        public("the same SYN again", syn(0), Server(0)),
        public("a SYN with a type of service", syn(1).tos(0x8c), Server(1)),
        public("a SYN without options, with ECN", syn(2).tcp_options(&[]).flags(SYN | 0xc0), Server(0)),
        public("a SYN with early data", syn(3).payload(b"early data"), Server(1)),
        private("the answer of the first server", answer(0, 0), Client(tcp_client(0))),
        private("the answer of the second, with a type of service", answer(1, 1).tos(0x8c), Client(tcp_client(1))),
        public("the acknowledgement that confirms", tcp(0), Server(0)),
        public("data that confirms", tcp(1).payload(b"GET / HTTP/1.1\r\n").flags(ACK | PSH), Server(1)),
        public("a packet of a known TCP connection", tcp(0).payload(b"GET / HTTP/1.1\r\n"), Server(0)),
        public("one with a type of service", tcp(0).tos(0xff), Server(0)),
        public("one with a timestamp option", tcp(0).tcp_options(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]), Server(0)),
        public("one with IP options", tcp(0).ip_options(&[7, 7, 4, 0, 0, 0, 0]), Server(0)),
        public("one that may be fragmented", tcp(0).dont_fragment(false).id(0xffff), Server(0)),
        public("one with urgent data", tcp(0).flags(ACK | URG).payload(b"!"), Server(0)),
        public("one as large as it may be", tcp(1).payload(&[0xa5; 1460]), Server(1)),
        public("one a byte larger", tcp(1).payload(&[0xa5; 1461]), Drop(DropTooBig)),
        private("an answer with data", data(0, 0), Client(tcp_client(0))),
        private("one with padding", data(1, 1).payload(b"x").padding(5), Client(tcp_client(1))),
        private("one as large as it may be", data(1, 1).payload(&[0x5a; 1460]), Client(tcp_client(1))),
        private("one a byte larger", data(1, 1).payload(&[0x5a; 1461]), Drop(DropTooBig)),
        public("a datagram of a client that had no answer", query(0), Server(0)),
        private("the answer", reply(0, 0), Client(udp_client(0))),
        public("the datagram that confirms", query(0), Server(0)),
        private("an answer without a checksum", reply(0, 0).without_checksum(), Client(udp_client(0))),
        public("a datagram without a checksum", query(1).without_checksum(), Server(1)),
        public("an empty one", query(0).payload(b""), Server(0)),
        public("a RST of no connection", tcp(9).flags(RST), Drop(DropNoFlow)),
        public("an ACK of no connection", tcp(9), Drop(DropNoFlow)),
        public("an ACK of a handshake without an answer", tcp(3), Drop(DropHandshake)),
        private("data of a server without a connection", Frame::tcp(at(WEB[0], 80), tcp_client(9)), Drop(DropNoFlow)),
        private("a server's health check answer", Frame::tcp(at(WEB[0], 80), at(PRIVATE, 50000)), Pass(PassUnmatched)),
        private("a server's own connection to somewhere", Frame::syn(at(WEB[0], 50000), at(CLIENT, 443)), Pass(PassUnmatched)),
        public("the middle of a datagram whose first fragment has not come", Frame::raw(CLIENT, VIP, UDP, &[2; 800]).fragment(101, false), Drop(HoldFragment)),
        public("a fragment too short for its ports", Frame::raw(CLIENT, VIP, UDP, &[]).fragment(0, true).id(1), Drop(DropFragmentAttack)),
        public("the one after it", Frame::raw(CLIENT, VIP, UDP, &[2; 800]).fragment(101, false).id(1), Drop(DropFragment)),
        public("a fragment for the host's own address", Frame::raw(CLIENT, PUBLIC, UDP, &[2; 800]).fragment(101, false), Pass(PassFragment)),
        public("an ICMP echo request to the host itself", Frame::echo_request(CLIENT, PUBLIC, 7, 1), Pass(PassIcmp)),
        public("fragmentation needed, of no connection", Frame::too_big(REMOTE, VIP, 1400, &translated(&data(0, 0), vip(), tcp_client(9)).quote(8)), Drop(DropIcmpNoFlow)),
        public("a SYN to another port of the VIP", ssh(), Pass(PassUnmatched)),
        public("a SYN to another address", Frame::syn(tcp_client(0), at(PUBLIC, 80)), Pass(PassUnmatched)),
        public("a datagram to the TCP service's port", Frame::udp(tcp_client(0), vip()), Pass(PassUnmatched)),
        public("IP in IP", Frame::raw(CLIENT, VIP, 4, &syn(0).build_ip()), Pass(PassProtocol)),
        public("GRE", Frame::raw(CLIENT, VIP, 47, &[0; 24]), Pass(PassProtocol)),
        public("a tagged SYN", syn(8).vlan(100), Pass(PassVlan)),
        public("a TTL used up", tcp(0).ttl(1), Drop(DropTtl)),
        private("a server closes", data(0, 0).flags(FIN | ACK), Client(tcp_client(0))),
        public("so does its client", tcp(0).flags(FIN | ACK), Server(0)),
        private("the last acknowledgement", data(0, 0).flags(ACK).payload(b""), Client(tcp_client(0))),
        // Servers have had 0, 1, 0, 1: it is the first one's turn, and the port stays.
        public("the same client anew", syn(0).seq(77_000), Server(0)),
        public("a SYN on an open connection", syn(1), Server(1)),
    ]
}

/// Every field that NAT does not touch, as the frame builder takes them.
fn untouched(frame: &Frame) -> impl PartialEq + std::fmt::Debug {
    let Frame { tos, id, dont_fragment, ip_options, payload, padding, l4, .. } = frame.clone();
    let inner = match l4 {
        L4::Tcp { seq, ack, flags, window, options, .. } => {
            Some((seq, ack, flags, window, options))
        }
        _ => None,
    };
    (tos, id, dont_fragment, ip_options, payload, padding, inner)
}

#[derive(Default)]
struct Sums {
    verdicts: [BTreeMap<&'static str, u64>; 2],
    bytes: [u64; 2],
    servers: BTreeMap<(u8, usize), BackendStats>,
}

fn check(prog: &mut Prog, fixture: &Fixture, sums: &mut Sums) {
    let Fixture { description, side, frame, expect } = fixture;
    let (from_mac, our_mac) = match *side {
        INTERNET => (ROUTER_MAC, PUBLIC_MAC),
        _ => (WEB_MAC[0], PRIVATE_MAC),
    };
    let sent = frame.clone().macs(from_mac, our_mac).build();
    let bytes = frame.build_ip().len() as u64;
    let outcome = prog.run(*side, &sent);
    println!("{description}: {:?}", outcome.counted);
    let (protocol, ports) = match frame.l4 {
        L4::Tcp { src, dst, .. } => (TCP, (src, dst)),
        L4::Udp { src, dst, .. } => (UDP, (src, dst)),
        _ => (0, (0, 0)),
    };
    let counter = match *expect {
        Server(server) => {
            let packet = outcome.forwarded();
            assert_eq!((packet.eth_src, packet.eth_dst), (PRIVATE_MAC, WEB_MAC[server]));
            let to = translated(frame, at(PRIVATE, ports.0), at(WEB[server], ports.1));
            assert_eq!(outcome.frame, to.clone().macs(PRIVATE_MAC, WEB_MAC[server]).build());
            assert_eq!(untouched(&to), untouched(frame));
            let stats = sums.servers.entry((protocol, server)).or_default();
            stats.packets_in += 1;
            stats.bytes_in += bytes;
            sums.bytes[usize::from(*side)] += bytes;
            Forward
        }
        Client(client) => {
            let packet = outcome.forwarded();
            assert_eq!((packet.eth_src, packet.eth_dst), (PUBLIC_MAC, ROUTER_MAC));
            let to = translated(frame, at(VIP, ports.0), client);
            assert_eq!(outcome.frame, to.clone().macs(PUBLIC_MAC, ROUTER_MAC).build());
            assert_eq!(untouched(&to), untouched(frame));
            let server = WEB.iter().position(|server| *server == frame.src).unwrap();
            let stats = sums.servers.entry((protocol, server)).or_default();
            stats.packets_out += 1;
            stats.bytes_out += bytes;
            sums.bytes[usize::from(*side)] += bytes;
            Forward
        }
        Pass(reason) => {
            outcome.passed(reason, &sent);
            reason
        }
        Drop(reason) => {
            outcome.refused(reason);
            // Whoever sent it may have been told, which is counted too.
            for (answer, count) in
                outcome.counted.iter().filter(|(name, _)| **name != reason.as_str())
            {
                *sums.verdicts[usize::from(*side)].entry(answer).or_default() += count;
            }
            reason
        }
    };
    *sums.verdicts[usize::from(*side)].entry(counter.as_str()).or_default() += 1;
}

fn network() -> Desired {
    let mut desired = desired();
    let mut service = www(&mut desired).clone();
    service.servers.iter_mut().for_each(|server| server.port = 53);
    desired.services.insert(DNS, service);
    desired
}

fn run_all(mut prog: Prog) {
    let mut sums = Sums::default();
    for fixture in fixtures() {
        check(&mut prog, &fixture, &mut sums);
    }
    for side in [INTERNET, SERVERS] {
        let stats = prog.interface_stats(side);
        let moved: BTreeMap<_, _> = Counter::ALL
            .iter()
            .map(|&counter| (counter.as_str(), stats.packets[counter as usize]))
            .filter(|(_, count)| *count != 0)
            .collect();
        assert_eq!(moved, sums.verdicts[usize::from(side)]);
        assert_eq!(stats.forwarded_bytes, sums.bytes[usize::from(side)]);
    }
    // Connections begun and confirmed, by hand from the table.
    let expected = [((TCP, 0), (3, 1)), ((TCP, 1), (2, 1)), ((UDP, 0), (1, 1)), ((UDP, 1), (1, 0))];
    for ((protocol, server), (connections, established)) in expected {
        let service = if protocol == TCP { WWW } else { DNS };
        let key = BackendKey { service, address: WEB[server].into(), port: service.port };
        let id = prog.applier.backend_id(&key).unwrap();
        let sum = sums.servers[&(protocol, server)];
        let sum = BackendStats { connections, established, ..sum };
        assert_eq!(prog.counters.backend(id).unwrap(), sum, "{key:?}");
    }
    // Confirmed: client 1's, and the first of DNS. Half open: the rest.
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (4, 8));
}

#[test]
fn the_fixtures_fare_as_they_should() {
    run_all(Prog::with(&network()));
}

#[test]
fn the_fixtures_fare_the_same_in_the_multi_buffer_programs() {
    run_all(Prog::with(&network()).multi_buffer());
}

#[test]
fn jumbo_frames_of_several_buffers_are_translated() {
    let mut desired = desired();
    desired.hops.values_mut().for_each(|hop| hop.mtu = 9000);
    let mut prog = Prog::with(&desired).multi_buffer();
    let connection = prog.connect(client(0), vip());
    let payload: Vec<u8> = (0..8960u32).map(|n| (n * n / 7) as u8).collect();
    let frame = connection.from_client().payload(&payload);
    let outcome = prog.public(frame.clone());
    outcome.forwarded();
    let expected = translated(&frame, connection.source, connection.server);
    assert_eq!(outcome.frame, expected.macs(PRIVATE_MAC, WEB_MAC[0]).build());
    prog.private(connection.from_server().payload(&payload)).forwarded();
    prog.public(frame.payload(&[0; 8961])).refused(DropTooBig);
    // Cut off in a later buffer.
    let mut cut = connection.from_client().payload(&payload).macs(ROUTER_MAC, PUBLIC_MAC).build();
    cut.truncate(8000);
    prog.run(INTERNET, &cut).dropped(DropMalformed);
}

#[test]
fn four_thousand_flows_are_spread_and_found_again() {
    let sizes = Sizes { max_connections: 4096, max_connections_v6: 4096, max_half_open: 4096 };
    let mut prog = Prog::sized(&desired(), sizes);
    let clients = |n: u16| at([10, 0, (n >> 8) as u8, n as u8], 1024 + n % 7);
    let open: Vec<Connection> = (0..4096).map(|n| prog.connect(clients(n), vip())).collect();
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (8192, 0));
    assert_eq!(WEB.map(|server| prog.server_stats(server).established), [2048, 2048]);
    for connection in &open {
        prog.carries(connection);
    }
}
