//! What fills tables: a flood of SYNs, more connections than there is room for, and time, which empties them again.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, SocketAddrV4},
    thread,
    time::Duration,
};

use lbha_tests::{
    daemon::{GUIDE_CONFIG, Lbha, guide_config},
    flood,
    http::{self, Connection, Options},
    nginx::{Access, Nginx},
    require_daemon,
    topology::{CLIENT, ELASTIC, SERVICE, Topology},
    udp::{Echo, bind, exchange},
    wait::wait_until,
};

const TO: SocketAddr = SocketAddr::V4(SERVICE);

/// Opens a connection whose every step has to be quick.
fn connect(limit: Duration) -> anyhow::Result<Connection> {
    let options = Options { connect_timeout: limit, io_timeout: limit, ..Options::default() };
    Connection::open(TO, &options)
}

#[test]
fn a_flood_of_a_million_syns_harms_no_open_connection() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();
    // The answers to nobody end here.
    topology.router.ip(&format!("route add blackhole {}\n", flood::SOURCES)).unwrap();
    // The servers answer without keeping anything, and so without saying it again to nobody.
    for web in &topology.web {
        web.sysctl("net.ipv4.tcp_syncookies", "2").unwrap();
    }
    // With a queue the sender waits for the device rather than lose most of the flood (Linux 6.16 on veth).
    topology.router.exec("tc", ["qdisc", "add", "dev", "lb0", "root", "pfifo"]).unwrap();

    topology.client.run_in(|| {
        let mut open: Vec<_> =
            (0..100).map(|_| Connection::open(TO, &Options::default()).unwrap()).collect();
        let names: Vec<_> = open.iter_mut().map(|c| c.get("/").unwrap().text()).collect();
        let all_work = |open: &mut [Connection]| {
            for (connection, name) in open.iter_mut().zip(&names) {
                assert_eq!(connection.get("/").unwrap().text(), *name);
            }
        };
        let flood = thread::scope(|scope| {
            let flood = scope.spawn(|| {
                flood::syns(&topology.router, SERVICE, 1_000_000, Duration::from_secs(45)).unwrap()
            });
            let mut rounds = 0;
            while !flood.is_finished() {
                all_work(&mut open);
                rounds += 1;
            }
            assert!(rounds >= 3, "{rounds} rounds of requests during the flood");
            flood.join().unwrap()
        });
        // A million on a machine that has time for it. Anywhere the half-open table and all ports are taken several times.
        assert!(flood > 300_000, "only {flood} SYNs in 45 s");

        // New connections at once: the first SYN gets its answer.
        for _ in 0..20 {
            let mut connection = connect(Duration::from_millis(800)).unwrap();
            assert_eq!(connection.get("/").unwrap().status, 200);
        }
        all_work(&mut open);

        let ports: BTreeSet<_> = open.iter().map(|c| c.local().unwrap().port()).collect();
        let flows = lbha.flows(&format!("state=established&client={CLIENT}")).unwrap();
        let known: BTreeSet<_> = flows.iter().map(|flow| flow.client.port()).collect();
        assert!(ports.is_subset(&known), "{:?} are missing", ports.difference(&known));
    });
    // It was a flood: a new connection each, and none of them got past the half-open table.
    let servers = lbha.servers().unwrap();
    let begun: u64 = servers.iter().map(|server| server.traffic.connections).sum();
    let established: u64 = servers.iter().map(|server| server.traffic.established).sum();
    assert!(begun > 250_000, "{begun}");
    assert_eq!(established, 120);
}

#[test]
fn a_full_flow_table_refuses_new_connections_and_keeps_the_others() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let config = guide_config(
        "",
        "[datapath]\nmax_connections = 1024\n\
         [timeouts]\ntcp_time_wait = \"1s\"\ntcp_reset = \"1s\"\ntcp_syn = \"1s\"\n",
    );
    let lbha = Lbha::start(&topology, &config).unwrap();
    assert_eq!(lbha.status().unwrap().flow_table.capacity, 1024);
    topology.client.run_in(|| {
        let mut open = Vec::new();
        for _ in 0..1024 {
            let mut connection = connect(Duration::from_secs(3)).unwrap();
            connection.get("/").unwrap();
            open.push(connection);
        }
        assert_eq!(lbha.counter("flow_table_full").unwrap(), 0);

        // The server's SYN-ACK comes, but nothing that follows it gets through.
        for _ in 0..5 {
            let answer = connect(Duration::from_millis(400)).and_then(|mut c| c.get("/"));
            assert!(answer.is_err(), "there was room for one more");
        }
        assert!(lbha.counter("flow_table_full").unwrap() >= 5);
        for connection in &mut open {
            connection.get("/").unwrap();
        }

        open.truncate(1000);
        wait_until(Duration::from_secs(15), "there is room again", || {
            connect(Duration::from_millis(400)).and_then(|mut c| c.get("/")).is_ok()
        })
        .unwrap();
        for connection in &mut open {
            connection.get("/").unwrap();
        }
    });
}

#[test]
fn idle_connections_leave_the_table() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let _echos = Echo::start_all(&topology, 5353).unwrap();
    let config = guide_config(
        "",
        &format!(
            "[[service]]\nname = \"echo\"\nvip = \"{ELASTIC}\"\nport = 5353\nprotocol = \"udp\"\npool = \"echo_pool\"\n\
             [[pool]]\nname = \"echo_pool\"\nservers = [{{ name = \"web1\", address = \"192.168.1.10\" }}]\n\
             [timeouts]\ntcp_established = \"2s\"\ntcp_time_wait = \"1s\"\ntcp_fin_wait = \"1s\"\nudp = \"2s\"\n"
        ),
    );
    let lbha = Lbha::start(&topology, &config).unwrap();
    let socket = bind(&topology.client, SocketAddrV4::new(CLIENT, 0)).unwrap();
    let mut busy = topology.client.run_in(|| {
        // Closed at once, idle from now on, and used again and again.
        http::get(TO, "/").unwrap();
        let mut idle = connect(Duration::from_secs(3)).unwrap();
        idle.get("/").unwrap();
        let mut busy = connect(Duration::from_secs(3)).unwrap();
        busy.get("/").unwrap();
        exchange(&socket, SocketAddrV4::new(ELASTIC, 5353), b"once").unwrap();
        exchange(&socket, SocketAddrV4::new(ELASTIC, 5353), b"twice").unwrap();
        assert_eq!(lbha.flows("").unwrap().len(), 4);
        assert_eq!(lbha.flows("state=udp").unwrap().len(), 1);
        assert_eq!(lbha.flows("state=time_wait").unwrap().len(), 1);
        (busy, idle)
    });
    let busy_port = busy.0.local().unwrap().port();
    wait_until(Duration::from_secs(15), "only the busy connection is left", || {
        busy.0.get("/").unwrap();
        let flows = lbha.flows("").unwrap();
        assert!(flows.iter().any(|flow| flow.client.port() == busy_port), "{flows:?}");
        flows.len() == 1
    })
    .unwrap();
    wait_until(Duration::from_secs(15), "the table is empty", || {
        lbha.status().unwrap().flow_table.connections == 0 && lbha.flows("").unwrap().is_empty()
    })
    .unwrap();
}
