//! UDP through the real daemon.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use lbha_tests::{
    daemon::{Lbha, guide_config},
    require_daemon,
    topology::{CLIENT, ELASTIC, LB_PRIVATE, Topology},
    udp::{Echo, bind, exchange},
    wait::wait_until,
};

const PORT: u16 = 5353;
const TO: SocketAddrV4 = SocketAddrV4::new(ELASTIC, PORT);
const ANY_PORT: SocketAddrV4 = SocketAddrV4::new(CLIENT, 0);

/// The guide's servers behind a UDP service.
fn config(mode: &str, tables: &str) -> String {
    guide_config(&format!("mode = \"{mode}\"\nprotocol = \"udp\""), tables)
        .replace("port = 80\n", &format!("port = {PORT}\n"))
        .replace(":80\"", "\"")
}

fn echoed(mode: &str) -> (Topology, Vec<Echo>, Lbha) {
    let topology = Topology::new().unwrap();
    let echos = Echo::start_all(&topology, PORT).unwrap();
    let lbha = Lbha::start(&topology, &config(mode, "")).unwrap();
    (topology, echos, lbha)
}

fn seen(echos: &[Echo]) -> BTreeSet<SocketAddr> {
    echos.iter().flat_map(Echo::seen).collect()
}

#[test]
fn datagrams_of_all_sizes_come_back_from_the_service_in_fullnat_mode() {
    require_daemon!();
    let (topology, echos, _lbha) = echoed("fullnat");
    all_sizes(&topology);
    assert!(seen(&echos).iter().all(|peer| peer.ip() == LB_PRIVATE));
}

#[test]
fn datagrams_of_all_sizes_come_back_from_the_service_in_nat_mode() {
    require_daemon!();
    let (topology, echos, _lbha) = echoed("nat");
    let socket = all_sizes(&topology);
    assert_eq!(seen(&echos), BTreeSet::from([socket]), "the client, with its own port");
}

/// Every size in steps, the odd ones and the borders among them; gives the client's address.
fn all_sizes(topology: &Topology) -> SocketAddr {
    let socket = bind(&topology.client, ANY_PORT).unwrap();
    let payload: Vec<u8> = (0..1400_u32).map(|n| (n * 7) as u8).collect();
    let steps = (0..=64).chain((65..1400).step_by(7)).chain([1399, 1400]);
    for size in steps {
        exchange(&socket, TO, &payload[..size]).unwrap();
    }
    // Each size once: a socket is one connection, and nothing is left in it.
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert!(socket.recv(&mut [0; 2000]).is_err(), "an answer too many");
    socket.local_addr().unwrap()
}

#[test]
fn two_hundred_clients_have_a_flow_each() {
    require_daemon!();
    let (topology, echos, lbha) = echoed("fullnat");
    let sockets: Vec<_> = (0..200).map(|_| bind(&topology.client, ANY_PORT).unwrap()).collect();
    for round in 0..3_u8 {
        for socket in &sockets {
            exchange(socket, TO, &[round; 100]).unwrap();
        }
    }
    let flows = lbha.flows("service=www&state=udp").unwrap();
    assert_eq!(flows.len(), 200, "with traffic in both directions they are confirmed");
    let clients: BTreeSet<u16> = flows.iter().map(|flow| flow.client.port()).collect();
    let expected: BTreeSet<u16> =
        sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
    assert_eq!(clients, expected);
    // Each flow is what its server sees.
    let sources: BTreeSet<_> = flows.iter().map(|flow| flow.source).collect();
    assert_eq!(sources, seen(&echos));
    for (flow, name) in flows.iter().map(|flow| (flow, flow.server.as_deref().unwrap())) {
        assert_eq!((flow.protocol.as_str(), flow.vip), ("udp", TO.into()));
        assert_eq!(flow.client.ip(), CLIENT);
        let expected = if name == "web1" { 10 } else { 11 };
        assert_eq!(flow.destination.ip(), Ipv4Addr::new(192, 168, 1, expected));
    }
    for server in lbha.servers().unwrap() {
        assert_eq!((server.traffic.connections, server.traffic.established), (100, 100));
        assert!(server.traffic.packets_in >= 300, "{server:?}");
    }
}

#[test]
fn a_flow_that_no_server_answers_stays_unreplied() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let lbha = Lbha::start(&topology, &config("fullnat", "")).unwrap();
    // Servers that stay silent, rather than say that the port is closed.
    let _silent: Vec<_> = topology
        .web
        .iter()
        .map(|web| bind(web, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT)).unwrap())
        .collect();
    let socket = bind(&topology.client, ANY_PORT).unwrap();
    socket.send_to(b"hello?", TO).unwrap();
    wait_until(Duration::from_secs(5), "the flow shows", || {
        lbha.flows("state=unreplied").unwrap().len() == 1
    })
    .unwrap();
    assert!(lbha.flows("state=udp").unwrap().is_empty());
}
