//! What is measured: a network, and packets with what should become of each.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::{Context as _, Result, ensure};
use lbha::{
    datapath::{
        Desired, batch,
        desired::{Interface, Route, Server, Service, ServiceId},
        expiry,
        loader::Sizes,
    },
    net::IpPrefix,
};
use lbha_common::{
    addr::{Be16, Be32},
    conntrack::state,
    counter::Counter,
    flow::{Flow4, FlowKey4, side},
    nexthop::Tag,
    service::pick,
};

use super::layout;
use crate::{
    packet::{ETHERTYPE_VLAN, Frame, tcp_flags::*},
    prog::{
        PRIVATE, PRIVATE_MAC, PUBLIC, PUBLIC_MAC, Prog, ROUTER_MAC, TCP, UDP, VIP, at, host,
        private_hop, public_hop, v4,
    },
};

/// A packet that is run over and over.
pub struct Scenario {
    /// That of the kernel's `xdp-lb` benchmark where there is one.
    pub name: &'static str,
    pub side: u8,
    pub frame: Vec<u8>,
    /// A power of two; 1 sends the frame as it is.
    pub clients: u32,
    /// The one counter that each packet moves.
    pub counter: Counter,
    /// Each round makes a connection, so two outputs differ in the port.
    pub opens: bool,
}

/// A program with its tables filled, and what can be measured on them.
pub struct Set {
    pub prog: Prog,
    pub scenarios: Vec<Scenario>,
}

/// Enough that as many half-open connections as the table holds never run out of source ports.
const SERVERS: u16 = 64;
const FULLNAT: SocketAddr = SocketAddr::new(IpAddr::V4(VIP), 80);
const NAT: SocketAddr = SocketAddr::new(IpAddr::V4(VIP), 81);
const DNS: SocketAddr = SocketAddr::new(IpAddr::V4(VIP), 53);
const VLAN: u16 = 1234;

/// The first client of many. The loop adds to the address's first half what it takes from the second.
const FIRST_CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(20, 0, 255, 255)), 40000);
/// The connections that the program itself has opened.
const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

const FEW: u32 = 1 << 12;
const MANY: u32 = 1 << 20;
const MAX_HALF_OPEN: u32 = 1 << 16;

/// Makes a set on this object.
type Make = fn(&[u8]) -> Result<Set>;

/// What makes the sets, and the names of the scenarios in all but the first: tables of a million connections take seconds.
pub const SETS: [(&[&str], Make); 4] = [
    (&[], plain),
    (&["tcp-v4-hit-vlan"], |object| vlan(object, true)),
    (&["tcp-v4-hit-vlan-pop"], |object| vlan(object, false)),
    (&["tcp-v4-hit-4k-of-1m", "tcp-v4-hit-1m"], million),
];

/// Known connections, new ones, and what is none of either.
fn plain(object: &[u8]) -> Result<Set> {
    let sizes =
        Sizes { max_connections: 1 << 16, max_connections_v6: 64, max_half_open: MAX_HALF_OPEN };
    let mut prog = Prog::of(object, &network(None), sizes);
    let client = |n: u16| at(CLIENT, 50000 + n);
    let tcp = |client, to| {
        Frame::tcp(client, to).seq(1001).ack(9001).flags(ACK | PSH).payload(&[0x5a; 10])
    };
    let udp = |client, to| Frame::udp(client, to).payload(&[0x5a; 22]);
    let in_public = |frame: Frame| frame.macs(ROUTER_MAC, PUBLIC_MAC).build();

    let fullnat = connect(&mut prog, client(0), FULLNAT)?;
    let nat = connect(&mut prog, client(1), NAT)?;
    let query = prog.public(udp(client(2), DNS)).forwarded();
    prog.private(udp(query.destination(), query.source())).forwarded();
    prog.public(udp(client(2), DNS)).forwarded();
    let template = template(&mut prog)?;
    insert(&prog, &template, FEW, expiry::now())?;

    let hit = |name, frame: Vec<u8>| Scenario {
        name,
        side: side::PUBLIC,
        frame,
        clients: 1,
        counter: Counter::Forward,
        opens: false,
    };
    let other = |name, frame, counter| Scenario { counter, ..hit(name, frame) };
    let syn = |to| in_public(Frame::syn(FIRST_CLIENT, to));
    let mut wrong = in_public(tcp(client(0), FULLNAT));
    wrong[24] ^= 1;
    let mut arp = [[0xff; 6], ROUTER_MAC].concat();
    arp[..6].copy_from_slice(&PUBLIC_MAC);
    arp.extend(0x0806u16.to_be_bytes());
    arp.resize(layout::HEADER, 0);
    let mut ipv6 = arp.clone();
    ipv6[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
    let ssh = at(PUBLIC, 22);

    let mut scenarios = vec![
        hit("tcp-v4-hit", in_public(tcp(client(0), FULLNAT))),
        Scenario {
            side: side::PRIVATE,
            ..hit("tcp-v4-hit-reply", reply(fullnat, tcp(fullnat.server, fullnat.source)))
        },
        hit("tcp-v4-hit-nat", in_public(tcp(client(1), NAT))),
        Scenario {
            side: side::PRIVATE,
            ..hit("tcp-v4-hit-nat-reply", reply(nat, tcp(nat.server, nat.source)))
        },
        hit("udp-v4-hit", in_public(udp(client(2), DNS))),
        Scenario { clients: FEW, ..hit("tcp-v4-hit-4k", in_public(tcp(FIRST_CLIENT, FULLNAT))) },
        Scenario { clients: MANY, opens: true, ..hit("tcp-v4-syn", syn(FULLNAT)) },
        Scenario { clients: MANY, opens: true, ..hit("tcp-v4-syn-nat", syn(NAT)) },
        other(
            "tcp-v4-rst-miss",
            in_public(tcp(client(9), FULLNAT).flags(RST)),
            Counter::DropNoFlow,
        ),
        other("tcp-v4-no-vip", in_public(tcp(client(9), ssh)), Counter::PassUnmatched),
        other("drop-checksum", wrong, Counter::DropChecksum),
        other(
            "pass-icmp",
            in_public(Frame::echo_request(CLIENT, VIP, 1, 1).payload(&[0x5a; 22])),
            Counter::PassIcmp,
        ),
        other("pass-ipv6", ipv6, Counter::PassIpv6),
        other("pass-non-ip", arp, Counter::PassNotIp),
    ];
    // A SYN that fills up an unused part of the tables costs less than the ones after it.
    scenarios.sort_by_key(|scenario| scenario.opens);
    Ok(Set { prog, scenarios })
}

/// Hits in a table of a million connections: of a few of them, as traffic has it, and of all of them in turn, where each hit
/// waits for memory.
fn million(object: &[u8]) -> Result<Set> {
    let sizes =
        Sizes { max_connections: MANY, max_connections_v6: 64, max_half_open: MAX_HALF_OPEN };
    let mut prog = Prog::of(object, &network(None), sizes);
    let template = template(&mut prog)?;
    insert(&prog, &template, MANY, expiry::now())?;
    let frame = Frame::tcp(FIRST_CLIENT, FULLNAT).payload(&[0x5a; 10]);
    let scenario = |name, clients| Scenario {
        name,
        side: side::PUBLIC,
        frame: frame.clone().macs(ROUTER_MAC, PUBLIC_MAC).build(),
        clients,
        counter: Counter::Forward,
        opens: false,
    };
    let scenarios = vec![scenario("tcp-v4-hit-4k-of-1m", FEW), scenario("tcp-v4-hit-1m", MANY)];
    Ok(Set { prog, scenarios })
}

/// One tag on the public side: the same on the private side, or none.
fn vlan(object: &[u8], same: bool) -> Result<Set> {
    let sizes = Sizes { max_connections: 4096, max_connections_v6: 64, max_half_open: 4096 };
    let mut prog = Prog::of(object, &network(Some(same)), sizes);
    let client = at(CLIENT, 50000);
    let inside = |frame: Frame| if same { frame.vlan(VLAN) } else { frame };
    let syn = prog.public(Frame::syn(client, FULLNAT).seq(1000).vlan(VLAN)).forwarded();
    let answer = Frame::tcp(syn.destination(), syn.source()).flags(SYN | ACK).seq(9000).ack(1001);
    prog.private(inside(answer)).forwarded();
    let data = Frame::tcp(client, FULLNAT).seq(1001).ack(9001).payload(&[0x5a; 10]).vlan(VLAN);
    prog.public(data.clone()).forwarded();
    let scenario = Scenario {
        name: if same { "tcp-v4-hit-vlan" } else { "tcp-v4-hit-vlan-pop" },
        side: side::PUBLIC,
        frame: data.macs(ROUTER_MAC, PUBLIC_MAC).build(),
        clients: 1,
        counter: Counter::Forward,
        opens: false,
    };
    Ok(Set { prog, scenarios: vec![scenario] })
}

pub fn network(vlan: Option<bool>) -> Desired {
    let tag = Tag { tpid: Be16::new(ETHERTYPE_VLAN), tci: Be16::new(VLAN) };
    let tags = |on: bool| if on { vec![tag] } else { vec![] };
    let (public, private) = (tags(vlan.is_some()), tags(vlan == Some(true)));
    let service = |port, keep_client| Service {
        pick: pick::COUNTER,
        seed: 7,
        servers: (0..SERVERS)
            .map(|n| Server {
                address: server(n).into(),
                port,
                keep_client,
                source: Some(PRIVATE.into()),
                source_ports: (1024, 32767),
            })
            .collect(),
        slots: (0..SERVERS).collect(),
    };
    let id = |to: SocketAddr, protocol| ServiceId { vip: to.ip(), port: to.port(), protocol };
    let mut hops = BTreeMap::new();
    let mut router = public_hop(ROUTER_MAC);
    router.tags.clone_from(&public);
    hops.insert(IpPrefix::DEFAULT_V4, router);
    for n in 0..SERVERS {
        let mut hop = private_hop(server_mac(n));
        hop.tags.clone_from(&private);
        hops.insert(host(server(n)), hop);
    }
    Desired {
        interfaces: [
            Interface { ifindex: 1, mac: PUBLIC_MAC, vlans: public },
            Interface { ifindex: 1, mac: PRIVATE_MAC, vlans: private },
        ],
        server_side: side::PRIVATE,
        services: BTreeMap::from([
            (id(FULLNAT, TCP), service(8080, false)),
            (id(NAT, TCP), service(8081, true)),
            (id(DNS, UDP), service(53, false)),
        ]),
        routes: BTreeMap::from([(IpPrefix::DEFAULT_V4, Route::Hop)]),
        hops,
        local: [PUBLIC.into(), PRIVATE.into()].into(),
        ..Desired::default()
    }
}

fn server(n: u16) -> Ipv4Addr {
    let [high, low] = (n + 10).to_be_bytes();
    Ipv4Addr::new(192, 168, 1 + high, low)
}

fn server_mac(n: u16) -> [u8; 6] {
    let [high, low] = (n + 10).to_be_bytes();
    [2, 0, 0, 0, 1 + high, low]
}

/// A connection as its server sees it.
#[derive(Clone, Copy)]
struct Connection {
    source: SocketAddr,
    server: SocketAddr,
    mac: [u8; 6],
}

/// Opens a connection through the program.
fn connect(prog: &mut Prog, client: SocketAddr, to: SocketAddr) -> Result<Connection> {
    let syn = prog.public(Frame::syn(client, to).seq(1000)).forwarded();
    let (source, server, mac) = (syn.source(), syn.destination(), syn.eth_dst);
    prog.private(Frame::tcp(server, source).flags(SYN | ACK).seq(9000).ack(1001)).forwarded();
    let before = prog.flow_entries();
    prog.public(Frame::tcp(client, to).seq(1001).ack(9001)).forwarded();
    ensure!(prog.flow_entries() == before + 2, "the handshake confirms the connection");
    Ok(Connection { source, server, mac })
}

fn reply(connection: Connection, frame: Frame) -> Vec<u8> {
    frame.macs(connection.mac, PRIVATE_MAC).build()
}

/// An entry towards each server as the program makes it, to learn the indices that the controller chose.
pub fn template(prog: &mut Prog) -> Result<Vec<Flow4>> {
    for n in 0..SERVERS {
        prog.public(Frame::syn(at(CLIENT, 51000 + n), FULLNAT)).forwarded();
    }
    let entries: Vec<Flow4> = prog
        .flows
        .v4
        .half_open
        .entries
        .iter()
        .filter_map(Result::ok)
        .filter(|(key, _)| Ipv4Addr::from(key.saddr) == CLIENT && key.sport.get() >= 51000)
        .map(|(_, flow)| flow)
        .collect();
    ensure!(entries.len() == usize::from(SERVERS), "{} connections begun", entries.len());
    Ok(entries)
}

/// Inserts the connections of the loop's clients, spread over the servers, as if last seen at that tick.
pub fn insert(prog: &Prog, template: &[Flow4], clients: u32, last_seen: u32) -> Result<()> {
    let (mut keys, mut flows) = (Vec::new(), Vec::new());
    for n in 0..clients {
        let (address, port) = layout::client(n);
        let address = v4(FIRST_CLIENT).to_bits() + (address << 16) - address;
        let key = FlowKey4 {
            saddr: Be32::new(address),
            daddr: v4(FULLNAT).into(),
            sport: Be16::new(FIRST_CLIENT.port() + port as u16),
            dport: Be16::new(FULLNAT.port()),
            proto: TCP,
            side: side::PUBLIC,
            _pad: 0,
        };
        let of = &template[n as usize % template.len()];
        let source = Be16::new(1024 + (n as usize / template.len()) as u16);
        let flow = Flow4 {
            last_seen,
            created: last_seen,
            state: state::PEER_PRIVATE,
            next_hop: of.next_hop,
            peer_next_hop: of.peer_next_hop,
            backend: of.backend,
            ..Flow4::new(&key, of.saddr, of.daddr, source, of.dport)
        };
        keys.extend([key, key.peer(&flow)]);
        flows.extend([flow, flow.mirror(&key)]);
    }
    batch::insert(&prog.flows.v4.flows.data, &keys, &flows).context("insert connections")
}
