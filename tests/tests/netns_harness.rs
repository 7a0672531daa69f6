//! The harness tests itself, with the kernel, nftables and HAProxy in the load balancer's place.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use lbha_tests::{
    http,
    netns::Netns,
    nginx::{Access, BIG, Nginx},
    peers, require_root,
    scratch::{NETNS_DIR, next_number},
    topology::{self, CLIENT, LB_PRIVATE, SERVICE, Topology},
};

const WEB1: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 10), 80);

/// The names of the servers that answer `count` requests, one connection each.
fn answers(topology: &Topology, count: usize) -> Vec<String> {
    let one = |_| topology.get(SERVICE, "/").unwrap().text().trim().to_owned();
    (0..count).map(one).collect()
}

#[track_caller]
fn assert_alternates(answers: &[String]) {
    assert!(answers.windows(2).all(|pair| pair[0] != pair[1]), "{answers:?}");
    assert!(answers.iter().all(|name| name == "web1" || name == "web2"), "{answers:?}");
}

#[test]
fn plain_routing_lets_the_client_ask_web1() {
    require_root!();
    let topology = Topology::builder().lb_forwards().build().unwrap();
    let _servers = Nginx::start_all(&topology, Access::Open).unwrap();
    let response = topology.get(WEB1, "/").unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "web1\n"));
    assert_eq!(response.client_seen().unwrap().ip(), CLIENT);
}

#[test]
fn without_forwarding_the_client_cannot_ask_web1() {
    require_root!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::Open).unwrap();
    let options =
        http::Options { connect_timeout: Duration::from_millis(300), ..Default::default() };
    let answer = topology.client.run_in(|| http::get_with(SocketAddr::V4(WEB1), "/", &options));
    assert!(answer.is_err(), "{answer:?}");
}

#[test]
fn haproxy_alternates_and_is_all_the_servers_see() {
    require_root!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let _haproxy = peers::HaProxy::start(&topology).unwrap();
    assert_alternates(&answers(&topology, 6));
    let response = topology.get(SERVICE, "/").unwrap();
    assert_eq!(response.client_seen().unwrap().ip(), LB_PRIVATE);
}

#[test]
fn nft_dnat_alternates_and_masquerades() {
    require_root!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    peers::nft_dnat(&topology).unwrap();
    assert_alternates(&answers(&topology, 6));
}

#[test]
fn nginx_refuses_who_is_not_the_load_balancer() {
    require_root!();
    let topology = Topology::builder().lb_forwards().build().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    assert_eq!(topology.get(WEB1, "/").unwrap().status, 403);
}

#[test]
fn one_connection_takes_many_requests_and_big_bodies_in_both_directions() {
    require_root!();
    let topology = Topology::builder().web_servers(1).mtu(3000).lb_forwards().build().unwrap();
    let servers = Nginx::start_all(&topology, Access::Open).unwrap();
    let body: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let big = topology.client.run_in(|| {
        let to = SocketAddr::V4(WEB1);
        let mut connection = http::Connection::open(to, &http::Options::default()).unwrap();
        let first = connection.get("/").unwrap().client_seen().unwrap();
        for _ in 0..50 {
            assert_eq!(connection.get("/").unwrap().client_seen().unwrap(), first);
        }
        assert_eq!(connection.put("/upload/body", &body).unwrap().status, 201);
        connection.get("/big").unwrap().body.len()
    });
    assert_eq!(u64::try_from(big).unwrap(), BIG);
    assert!(fs::read(servers[0].uploaded("body")).unwrap() == body);
}

#[test]
fn a_connection_can_choose_its_source_again_and_again() {
    require_root!();
    let second = Ipv4Addr::new(203, 0, 113, 77);
    let topology = Topology::builder().client_addresses([second]).lb_forwards().build().unwrap();
    let _servers = Nginx::start_all(&topology, Access::Open).unwrap();
    let source = SocketAddr::from((second, 5555));
    for _ in 0..3 {
        let response = topology.client.run_in(|| {
            http::get_with(SocketAddr::V4(WEB1), "/", &http::Options::from(source)).unwrap()
        });
        assert_eq!(response.client_seen().unwrap(), source);
    }
}

#[test]
fn namespaces_and_processes_are_gone_afterwards() {
    require_root!();
    let topology = Topology::builder().web_servers(3).build().unwrap();
    let servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let haproxy = peers::HaProxy::start(&topology).unwrap();
    let names: Vec<_> = topology.namespaces().map(|netns| netns.name().to_owned()).collect();
    assert_eq!(names.len(), 7);
    let pids = topology.pids();
    assert_eq!(pids.len(), 4);
    // The namespaces first: they end what runs in them.
    drop(topology);
    drop((servers, haproxy));
    for name in names {
        assert!(!Path::new(NETNS_DIR).join(&name).exists(), "{name} is still there");
    }
    for pid in pids {
        assert!(!Path::new("/proc").join(pid.to_string()).exists(), "{pid} still runs");
    }
}

#[test]
fn a_panic_removes_the_namespace_too() {
    require_root!();
    let name = std::sync::Mutex::new(String::new());
    let outcome = std::panic::catch_unwind(|| {
        let namespace = Netns::new(next_number(), "panic").unwrap();
        namespace.name().clone_into(&mut name.lock().unwrap());
        namespace.run_in(|| panic!("on purpose"));
    });
    assert!(outcome.is_err());
    let name = name.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    assert!(!name.is_empty() && !Path::new(NETNS_DIR).join(name).exists());
}

#[test]
fn settings_are_those_of_the_namespace() {
    require_root!();
    let topology = Topology::new().unwrap();
    let forwards = |netns: &Netns| netns.read_sysctl("net.ipv4.ip_forward").unwrap();
    assert_eq!((forwards(&topology.router).as_str(), forwards(&topology.lb).as_str()), ("1", "0"));
    let features = topology.lb.exec("ethtool", ["-k", topology::PUBLIC]).unwrap();
    for off in ["tx-checksumming: off", "tcp-segmentation-offload: off"] {
        assert!(features.contains(off), "{features}");
    }
}
