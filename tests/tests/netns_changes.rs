//! The network changes under load: neighbours, addresses, routes and links. What can go on goes on.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    thread,
    time::{Duration, Instant},
};

use lbha_tests::{
    daemon::{GUIDE_CONFIG, Lbha},
    http::{self, Connection, Options},
    load::Load,
    netns::Netns,
    nginx::{Access, Nginx},
    require_daemon,
    topology::{LB_PRIVATE, PRIVATE, PUBLIC, SERVICE, Topology},
    wait::{wait_for, wait_until},
};

const TO: SocketAddr = SocketAddr::V4(SERVICE);
const NEW_MAC: &str = "02:00:00:00:aa:01";
/// A changed neighbour is followed within this time.
const FOLLOWED: Duration = Duration::from_secs(1);
/// TCP sends a lost SYN again after 1 s (RFC 6298 §2.1); anything slower has lost more than what was on its way.
const ONE_RETRY: Duration = Duration::from_millis(2800);

struct Cluster {
    lbha: Lbha,
    _servers: Vec<Nginx>,
    topology: Topology,
}

fn cluster(access: Access) -> Cluster {
    let topology = Topology::new().unwrap();
    let servers = Nginx::start_all(&topology, access).unwrap();
    let lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();
    Cluster { lbha, _servers: servers, topology }
}

impl Cluster {
    /// A connection to each server, with a request behind it.
    fn connections(&self) -> Vec<Open> {
        let mut open: Vec<Open> = Vec::new();
        while open.len() < 2 {
            let connect = || Connection::open(TO, &Options::default());
            let mut connection = self.topology.client.run_in(connect).unwrap();
            let server = connection.get("/").unwrap().text();
            if open.iter().all(|other| other.server != server) {
                open.push(Open { server, connection });
            }
        }
        open
    }

    fn load(&self) -> Load {
        let load = Load::start(&self.topology.client, SERVICE, 3, 3);
        load.goes_on(100).unwrap();
        load
    }

    /// A request on a new connection whose first SYN must get through.
    fn quick(&self) -> anyhow::Result<String> {
        let options = Options { connect_timeout: Duration::from_millis(300), ..Options::default() };
        let response = self.topology.client.run_in(|| http::get_with(TO, "/", &options))?;
        Ok(response.text().trim().to_owned())
    }

    /// New connections are answered at once, by each of the servers.
    fn both_answer_at_once(&self) {
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..20 {
            names.insert(self.quick().unwrap());
        }
        assert_eq!(names.len(), 2, "{names:?}");
    }

    fn state_of(&self, server: &str) -> String {
        self.lbha.server(server).unwrap().state
    }
}

struct Open {
    server: String,
    connection: Connection,
}

/// The connections go on, with the servers that they had.
fn go_on(connections: &mut [Open]) {
    for Open { server, connection } in connections {
        assert_eq!(connection.get("/").unwrap().text(), *server);
    }
}

fn set_mac(namespace: &Netns, device: &str) {
    namespace.ip(&format!("link set dev {device} address {NEW_MAC}\n")).unwrap();
}

#[test]
fn a_server_that_announces_its_new_mac_address_is_followed() {
    require_daemon!();
    server_changes_mac(true);
}

#[test]
fn a_server_that_changes_its_mac_address_in_silence_is_followed() {
    require_daemon!();
    server_changes_mac(false);
}

fn server_changes_mac(announced: bool) {
    let cluster = cluster(Access::GUIDE);
    let web1 = &cluster.topology.web[0];
    web1.sysctl("net.ipv4.conf.eth0.arp_notify", if announced { "1" } else { "0" }).unwrap();
    assert_ne!(cluster.lbha.server("web1").unwrap().mac.as_deref(), Some(NEW_MAC));
    let mut open = cluster.connections();
    let load = cluster.load();

    set_mac(web1, "eth0");
    wait_until(FOLLOWED, "the new MAC address shows", || {
        cluster.lbha.server("web1").unwrap().mac.as_deref() == Some(NEW_MAC)
    })
    .unwrap();
    cluster.both_answer_at_once();
    go_on(&mut open);
    load.goes_on(200).unwrap();

    let report = load.finish();
    report.all_succeeded().unwrap();
    assert!(report.slowest() < ONE_RETRY, "{:?}", report.slowest());
    assert!(report.slowest_of("web2") < FOLLOWED, "web2: {:?}", report.slowest_of("web2"));
    assert_eq!(report.answers().len(), 2);
}

#[test]
fn the_router_changes_its_mac_address_and_is_followed() {
    require_daemon!();
    for announced in ["1", "0"] {
        let cluster = cluster(Access::GUIDE);
        cluster.topology.router.sysctl("net.ipv4.conf.lb0.arp_notify", announced).unwrap();
        let mut open = cluster.connections();
        let load = cluster.load();
        set_mac(&cluster.topology.router, "lb0");
        let begun = Instant::now();
        wait_for(FOLLOWED, "for an answer through the changed router", || {
            let options =
                Options { connect_timeout: Duration::from_millis(100), ..Options::default() };
            cluster.topology.client.run_in(|| http::get_with(TO, "/", &options)).ok()
        })
        .unwrap_or_else(|error| panic!("announced {announced}: {error:#}"));
        assert!(begun.elapsed() < FOLLOWED + Duration::from_millis(300));
        cluster.both_answer_at_once();
        go_on(&mut open);
        let report = load.finish();
        report.all_succeeded().unwrap();
        assert!(report.slowest() < ONE_RETRY, "{:?}", report.slowest());
    }
}

#[test]
fn without_an_address_of_its_own_the_load_balancer_says_so_and_recovers_with_it() {
    require_daemon!();
    let cluster = cluster(Access::GUIDE);
    let mut open = cluster.connections();
    cluster.topology.lb.ip(&format!("addr del {LB_PRIVATE}/24 dev {PRIVATE}\n")).unwrap();
    wait_until(Duration::from_secs(2), "the servers are not usable", || {
        cluster.state_of("web1") != "usable" && cluster.state_of("web2") != "usable"
    })
    .unwrap();
    let status = cluster.lbha.status().unwrap();
    assert!(!status.warnings.is_empty(), "{status:?}");
    cluster.quick().unwrap_err();

    cluster.topology.lb.ip(&format!("addr add {LB_PRIVATE}/24 dev {PRIVATE}\n")).unwrap();
    wait_until(Duration::from_secs(3), "the servers are usable again", || {
        cluster.state_of("web1") == "usable" && cluster.state_of("web2") == "usable"
    })
    .unwrap();
    cluster.both_answer_at_once();
    go_on(&mut open);
    assert!(cluster.lbha.status().unwrap().warnings.is_empty());
}

#[test]
fn new_connections_come_from_the_address_that_replaces_the_load_balancers() {
    require_daemon!();
    let cluster = cluster(Access::Open);
    let lb = &cluster.topology.lb;
    let load = cluster.load();
    // The second address outlives the first, so that there is always a way to the servers.
    lb.sysctl(&format!("net.ipv4.conf.{PRIVATE}.promote_secondaries"), "1").unwrap();
    let other = Ipv4Addr::new(192, 168, 1, 2);
    lb.ip(&format!("addr add {other}/24 dev {PRIVATE}\n")).unwrap();
    load.goes_on(50).unwrap();
    load.finish().all_succeeded().unwrap();

    lb.ip(&format!("addr del {LB_PRIVATE}/24 dev {PRIVATE}\n")).unwrap();
    wait_until(Duration::from_secs(2), "the servers see the other address", || {
        cluster.lbha.server("web1").unwrap().source == Some(other.into())
    })
    .unwrap();
    let response = cluster.topology.get(SERVICE, "/").unwrap();
    assert_eq!(response.client_seen().unwrap().ip(), other);
}

#[test]
fn a_server_that_vanishes_is_unresolved_and_costs_new_connections_little() {
    require_daemon!();
    let cluster = cluster(Access::GUIDE);
    let mut open = cluster.connections();
    open.retain(|open| open.server.trim() == "web2");
    cluster.topology.web[0].ip("link set eth0 down\n").unwrap();
    // Connections that begin before anybody has noticed: half of them go to web1 first.
    let patient = || {
        let connect_timeout = Duration::from_secs(14);
        let options = Options { connect_timeout, ..Options::default() };
        cluster.topology.client.run_in(|| http::get_with(TO, "/", &options))
    };
    thread::scope(|scope| {
        let begun: Vec<_> = (0..6).map(|_| scope.spawn(patient)).collect();
        wait_until(Duration::from_secs(10), "web1 is unresolved", || {
            cluster.state_of("web1") == "unresolved"
        })
        .unwrap();
        for answer in begun {
            assert_eq!(answer.join().unwrap().unwrap().text(), "web2\n");
        }
    });
    assert_eq!(cluster.state_of("web2"), "usable");
    assert_eq!(cluster.lbha.services().unwrap()[0].usable_servers, 1);
    let warnings = cluster.lbha.status().unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("web1")), "{warnings:?}");

    let load = Load::start(&cluster.topology.client, SERVICE, 4, 2);
    load.goes_on(100).unwrap();
    go_on(&mut open);
    let report = load.finish();
    report.all_succeeded().unwrap();
    assert!(report.slowest() < ONE_RETRY, "{:?}", report.slowest());
    assert_eq!(report.answers().keys().collect::<Vec<_>>(), ["web2"]);

    cluster.topology.web[0].ip("link set eth0 up\n").unwrap();
    wait_until(Duration::from_secs(5), "web1 is back", || cluster.state_of("web1") == "usable")
        .unwrap();
    cluster.both_answer_at_once();
}

#[test]
fn open_connections_follow_a_new_default_route() {
    require_daemon!();
    let cluster = cluster(Access::GUIDE);
    let Topology { lb, router, .. } = &cluster.topology;
    // A second gateway on the same wire, with a MAC address of its own; each answers ARP for its own addresses only.
    router.sysctl("net.ipv4.conf.all.arp_ignore", "1").unwrap();
    router
        .ip(&format!(
            "link add link lb0 name second address {NEW_MAC} type macvlan mode bridge\n\
             link set second up\n\
             addr add 10.77.0.1/24 dev second\n"
        ))
        .unwrap();
    lb.ip(&format!("addr add 10.77.0.2/24 dev {PUBLIC}\n")).unwrap();
    let mut open = cluster.connections();
    let load = cluster.load();
    let before = received(router, "second");

    lb.ip("route replace default via 10.77.0.1\n").unwrap();
    wait_until(Duration::from_secs(2), "answers go through the second gateway", || {
        received(router, "second") >= before + 20
    })
    .unwrap();
    go_on(&mut open);
    cluster.both_answer_at_once();
    load.goes_on(100).unwrap();
    let report = load.finish();
    report.all_succeeded().unwrap();
    assert!(report.slowest() < ONE_RETRY, "{:?}", report.slowest());
    let (through_second, requests) = (received(router, "second") - before, report.requests.len());
    assert!(through_second > 100, "{through_second} packets for {requests} requests");
}

/// Packets that a device has taken in (`/proc/net/dev`).
fn received(namespace: &Netns, device: &str) -> u64 {
    let devices = namespace.run_in(|| fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let line = devices.lines().find_map(|line| line.trim().strip_prefix(&format!("{device}:")));
    line.unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_client_on_the_load_balancers_own_network_is_served() {
    require_daemon!();
    let cluster = cluster(Access::GUIDE);
    let Topology { lb, router, .. } = &cluster.topology;
    lb.ip(&format!("addr add 198.51.100.1/24 dev {PUBLIC}\n")).unwrap();
    let clients: Vec<_> = (10..14).map(|last| Ipv4Addr::new(198, 51, 100, last)).collect();
    for client in &clients {
        router.ip(&format!("addr add {client}/24 dev lb0\n")).unwrap();
    }
    // The way to the service is the router's own: 147.75.78.116 via the load balancer.
    let ask = |client: Ipv4Addr, connect_timeout| {
        let source = Some(SocketAddr::V4(SocketAddrV4::new(client, 0)));
        let options = Options { source, connect_timeout, ..Options::default() };
        router.run_in(|| http::get_with(TO, "/", &options))
    };
    for client in clients {
        // The first packet finds the neighbour unknown, and has it resolved for the second.
        let first = ask(client, ONE_RETRY).unwrap();
        assert_eq!(first.status, 200, "{client}");
        for _ in 0..4 {
            ask(client, Duration::from_millis(300)).unwrap();
        }
    }
}
