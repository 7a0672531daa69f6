//! HTTP through the real daemon: both modes, every scheduler, big bodies, and what is not the service's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    thread,
};

use lbha_tests::{
    daemon::{GUIDE_CONFIG, Lbha, guide_config},
    http::{self, Connection, Options},
    nginx::{Access, Nginx},
    require_daemon,
    topology::{CLIENT, ELASTIC, LB_PRIVATE, LB_PUBLIC, SERVICE, Topology, web_address},
};
use nix::errno::Errno;

const TO: SocketAddr = SocketAddr::V4(SERVICE);

/// Who answers `count` requests, a connection each, and how often.
fn answers(topology: &Topology, count: usize) -> BTreeMap<String, u64> {
    let mut answers = BTreeMap::new();
    topology.client.run_in(|| {
        for _ in 0..count {
            let response = http::get(TO, "/").unwrap();
            assert_eq!(response.status, 200);
            *answers.entry(response.text().trim().to_owned()).or_default() += 1;
        }
    });
    answers
}

/// The same from the daemon's counters.
fn counted(lbha: &Lbha) -> BTreeMap<String, u64> {
    let servers = lbha.servers().unwrap();
    servers.into_iter().map(|server| (server.name, server.traffic.connections)).collect()
}

fn shares(web1: u64, web2: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("web1".to_owned(), web1), ("web2".to_owned(), web2)])
}

/// The server that answers a connection from this address and port.
fn server_for(topology: &Topology, source: SocketAddrV4) -> String {
    let response =
        topology.client.run_in(|| http::get_with(TO, "/", &Options::from(source)).unwrap());
    response.text().trim().to_owned()
}

#[test]
fn in_fullnat_mode_servers_see_the_load_balancer_only() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let _lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();

    let response = topology.get(SERVICE, "/").unwrap();
    assert_eq!(response.status, 200);
    let seen = response.client_seen().unwrap();
    assert_eq!(seen.ip(), LB_PRIVATE);
    assert!((1024..=32767).contains(&seen.port()), "{seen}");

    topology.client.run_in(|| {
        let mut connection = Connection::open(TO, &Options::default()).unwrap();
        let first = connection.get("/").unwrap();
        for _ in 0..200 {
            let next = connection.get("/").unwrap();
            assert_eq!(
                (next.text(), next.client_seen().unwrap()),
                (first.text(), first.client_seen().unwrap())
            );
        }
    });
}

#[test]
fn in_fullnat_mode_a_source_port_of_the_range_stays() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let _lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();
    let source = SocketAddrV4::new(CLIENT, 5555);
    let response =
        topology.client.run_in(|| http::get_with(TO, "/", &Options::from(source)).unwrap());
    assert_eq!(response.client_seen().unwrap(), SocketAddr::from((LB_PRIVATE, 5555)));
}

#[test]
fn in_nat_mode_servers_see_the_client_and_its_port_when_it_is_free() {
    require_daemon!();
    let topology = Topology::builder().web_servers(1).build().unwrap();
    let _servers = Nginx::start_all(&topology, Access::Open).unwrap();
    // Two services with one server, so that the same client and port can come twice.
    let config = format!(
        "{}\n[[service]]\nname = \"again\"\nvip = \"{ELASTIC}\"\nport = 81\nmode = \"nat\"\npool = \"nginx_pool\"\n",
        guide_config("mode = \"nat\"", "")
    );
    let config = config.replace("  { name = \"web2\", address = \"192.168.1.11:80\" },\n", "");
    let _lbha = Lbha::start(&topology, &config).unwrap();

    let source = SocketAddr::from((CLIENT, 45678));
    topology.client.run_in(|| {
        let mut first = Connection::open(TO, &Options::from(source)).unwrap();
        assert_eq!(first.get("/").unwrap().client_seen().unwrap(), source);

        let second_service = SocketAddr::V4(SocketAddrV4::new(ELASTIC, 81));
        let mut second = Connection::open(second_service, &Options::from(source)).unwrap();
        let seen = second.get("/").unwrap().client_seen().unwrap();
        assert_eq!(seen.ip(), CLIENT);
        assert_ne!(seen.port(), source.port(), "the first connection has it");

        for _ in 0..50 {
            assert_eq!(first.get("/").unwrap().client_seen().unwrap(), source);
            assert_eq!(second.get("/").unwrap().client_seen().unwrap(), seen);
        }
    });
}

#[test]
fn a_thousand_connections_are_split_in_two_exactly() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();
    assert_eq!(answers(&topology, 1000), shares(500, 500));
    assert_eq!(counted(&lbha), shares(500, 500));
    for server in lbha.servers().unwrap() {
        assert_eq!((server.traffic.established, server.share), (500, 0.5), "{server:?}");
        assert!(server.traffic.bytes_out > 0 && server.traffic.packets_in > 0, "{server:?}");
    }
}

#[test]
fn with_wrr_weights_of_three_and_one_are_kept_exactly() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let config = guide_config("scheduler = \"wrr\"", "")
        .replace("192.168.1.10:80\"", "192.168.1.10:80\", weight = 3");
    let lbha = Lbha::start(&topology, &config).unwrap();
    assert_eq!(answers(&topology, 400), shares(300, 100));
    assert_eq!(counted(&lbha), shares(300, 100));
}

#[test]
fn with_maglev_a_connection_tuple_stays_and_the_rest_spreads() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let _lbha = Lbha::start(&topology, &guide_config("scheduler = \"maglev\"", "")).unwrap();
    let source = SocketAddrV4::new(CLIENT, 5555);
    let first = server_for(&topology, source);
    for _ in 0..10 {
        assert_eq!(server_for(&topology, source), first);
    }
    // Each within 5 standard deviations of a fair coin.
    let answers = answers(&topology, 400);
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers.values().all(|count| (150..=250).contains(count)), "{answers:?}");
}

#[test]
fn with_source_a_client_stays_and_clients_spread() {
    require_daemon!();
    let clients: Vec<_> = (100..124).map(|last| Ipv4Addr::new(203, 0, 113, last)).collect();
    let topology = Topology::builder().client_addresses(clients.iter().copied()).build().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let _lbha = Lbha::start(&topology, &guide_config("scheduler = \"source\"", "")).unwrap();
    let mut used = BTreeSet::new();
    for client in clients {
        let any_port = SocketAddrV4::new(client, 0);
        let servers: BTreeSet<_> = (0..5).map(|_| server_for(&topology, any_port)).collect();
        assert_eq!(servers.len(), 1, "{client} met {servers:?}");
        used.extend(servers);
    }
    assert_eq!(used.len(), 2, "24 clients spread over both servers");
}

#[test]
fn a_hundred_megabytes_arrive_intact_both_ways_in_fullnat_mode() {
    require_daemon!();
    big_bodies("fullnat", Access::GUIDE);
}

#[test]
fn a_hundred_megabytes_arrive_intact_both_ways_in_nat_mode() {
    require_daemon!();
    big_bodies("nat", Access::Open);
}

fn big_bodies(mode: &str, access: Access) {
    let topology = Topology::new().unwrap();
    let servers = Nginx::start_all(&topology, access).unwrap();
    let _lbha = Lbha::start(&topology, &guide_config(&format!("mode = \"{mode}\""), "")).unwrap();
    let mut word = 0x2545_f491_4f6c_dd1d_u64;
    let body: Vec<u8> = (0..100 * 1024 * 1024 / 8)
        .flat_map(|_| {
            // xorshift64: no two places of the body look alike
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()
        })
        .collect();
    topology.client.run_in(|| {
        let mut connection = Connection::open(TO, &Options::default()).unwrap();
        let name = connection.get("/").unwrap().text();
        assert_eq!(connection.put("/upload/body", &body).unwrap().status, 201);
        let server = servers.iter().find(|server| server.name() == name.trim()).unwrap();
        assert!(fs::read(server.uploaded("body")).unwrap() == body, "the upload differs");
        let download = connection.get("/upload/body").unwrap();
        assert_eq!(download.status, 200);
        assert!(download.body == body, "the download differs");
    });
}

#[test]
fn two_services_share_a_pool_whose_servers_listen_elsewhere() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let servers = topology.web.iter().enumerate().map(|(index, web)| {
        let listen = SocketAddrV4::new(web_address(index), 8080);
        Nginx::start(web, &format!("web{}", index + 1), listen, Access::GUIDE).unwrap()
    });
    let _servers: Vec<_> = servers.collect();
    let config = GUIDE_CONFIG.replace(":80\"", ":8080\"")
        + &format!(
            "\n[[service]]\nname = \"alt\"\nvip = \"{ELASTIC}\"\nport = 8000\npool = \"nginx_pool\"\n"
        );
    let lbha = Lbha::start(&topology, &config).unwrap();
    for port in [80, 8000] {
        let names: BTreeSet<_> = (0..4)
            .map(|_| topology.get(SocketAddrV4::new(ELASTIC, port), "/").unwrap().text())
            .collect();
        assert_eq!(names.len(), 2, "port {port}");
    }
    // The servers' own port is none of the service's.
    let direct = topology.get(SocketAddrV4::new(ELASTIC, 8080), "/").unwrap_err();
    assert_eq!(direct.downcast_ref(), Some(&Errno::ECONNREFUSED), "{direct:#}");
    let counts: Vec<_> = lbha
        .services()
        .unwrap()
        .into_iter()
        .map(|service| (service.name, service.traffic.connections, service.usable_servers))
        .collect();
    assert_eq!(counts, [("www".to_owned(), 4, 2), ("alt".to_owned(), 4, 2)]);
}

#[test]
fn what_is_not_the_service_is_answered_by_the_host_itself() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();

    // Nobody listens on the host's own address: its kernel says so.
    let refused = topology.get(SocketAddrV4::new(LB_PUBLIC, 80), "/").unwrap_err();
    assert_eq!(refused.downcast_ref(), Some(&Errno::ECONNREFUSED), "{refused:#}");

    for address in [ELASTIC, LB_PUBLIC] {
        let listen = SocketAddrV4::new(address, 2222);
        let listener = topology.lb.run_in(|| TcpListener::bind(listen)).unwrap();
        let greeter = thread::spawn(move || {
            let (mut stream, peer) = listener.accept().unwrap();
            stream.write_all(b"SSH-2.0-host\r\n").unwrap();
            peer
        });
        topology.client.run_in(|| {
            let connection = Connection::open(SocketAddr::V4(listen), &Options::default()).unwrap();
            let mut greeting = String::new();
            connection.stream().read_to_string(&mut greeting).unwrap();
            assert_eq!(greeting, "SSH-2.0-host\r\n");
        });
        assert_eq!(greeter.join().unwrap().ip(), CLIENT);
    }
    assert_eq!(lbha.connections().unwrap(), 0);
}
