//! The gateway as the daemon runs it: masquerade and forwards, in both families, over changes and restarts.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lbha_tests::{
    daemon::Lbha,
    http::{self, Connection, Options},
    leak::LeakWatch,
    nginx::{Access, Nginx},
    require_daemon,
    topology::*,
    udp::{self, Echo},
    wait::wait_until,
};

const LIMIT: Duration = Duration::from_secs(15);

/// `www` in both families, a way in to the first web server, and a way out for all.
const CONFIG: &str = r#"
[interfaces]
public  = "ens14f0"
private = "ens14f1"

[[service]]
name = "www"
vip  = "147.75.78.116"
port = 80
pool = "web"

[[service]]
name = "www6"
vip  = "2001:db8:78::116"
port = 80
pool = "web6"

[[pool]]
name = "web"
servers = [{ name = "web1", address = "192.168.1.10" }, { name = "web2", address = "192.168.1.11" }]

[[pool]]
name = "web6"
servers = [{ name = "web1", address = "fd00:1::10" }, { name = "web2", address = "fd00:1::11" }]

[[masquerade]]
source = ["192.168.1.0/24", "fd00:1::/64"]

[[forward]]
name = "first"
address = "147.75.78.116:8001"
to = "192.168.1.10:80"
"#;

struct Gateway {
    // In the order in which they end.
    lbha: Lbha,
    _servers: Vec<Nginx>,
    topology: Topology,
}

fn gateway() -> Gateway {
    let topology = Topology::builder().dual_stack().internet().build().unwrap();
    let mut servers = Nginx::start_all(&topology, Access::Open).unwrap();
    servers.push(Nginx::start_on_the_internet(&topology).unwrap());
    let lbha = Lbha::start(&topology, CONFIG).unwrap();
    Gateway { lbha, _servers: servers, topology }
}

/// Who a server on the internet sees when the first web server asks it, by the family of the server.
fn seen(gateway: &Gateway) -> Vec<IpAddr> {
    let ask = |to| {
        let response = gateway.topology.web[0].run_in(|| http::get(to, "/")).unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "internet\n"));
        response.client_seen().unwrap().ip()
    };
    gateway.topology.internet_sockets(80).into_iter().map(ask).collect()
}

#[test]
fn web_servers_ask_and_are_asked_in_both_families() {
    require_daemon!();
    let gateway = gateway();
    let (topology, lbha) = (&gateway.topology, &gateway.lbha);
    let watch = LeakWatch::start(topology).unwrap();
    assert_eq!(seen(&gateway), [IpAddr::from(LB_PUBLIC), LB_PUBLIC6.into()]);
    for to in [SocketAddr::from(SERVICE), SERVICE6.into()] {
        let answers: Vec<_> = (0..2).map(|_| topology.get(to, "/").unwrap().text()).collect();
        assert_eq!(answers, ["web1\n", "web2\n"], "{to}");
    }
    let to = SocketAddr::new(ELASTIC.into(), 8001);
    for _ in 0..2 {
        let response = topology.get(to, "/").unwrap();
        assert_eq!(response.text(), "web1\n");
        assert_eq!(response.client_seen().unwrap().ip(), CLIENT, "the host sees its clients");
    }

    let flows = lbha.flows("").unwrap();
    let masqueraded: Vec<_> = flows.iter().filter(|flow| flow.masquerade.is_some()).collect();
    assert_eq!(masqueraded.len(), 2, "{flows:?}");
    for (flow, (sources, external)) in masqueraded
        .iter()
        .zip([("192.168.1.0/24", IpAddr::from(LB_PUBLIC)), ("fd00:1::/64", LB_PUBLIC6.into())])
    {
        assert_eq!(flow.masquerade.as_deref(), Some(sources));
        assert_eq!(
            (flow.source.ip(), flow.vip, &flow.service),
            (external, flow.destination, &None)
        );
    }
    let forwarded: Vec<_> =
        flows.iter().filter(|flow| flow.service.as_deref() == Some("first")).collect();
    assert_eq!(forwarded.len(), 2, "{flows:?}");
    assert_eq!(lbha.flows("service=www6").unwrap().len(), 2);
    let first = lbha.servers().unwrap().into_iter().find(|row| row.service == "first").unwrap();
    assert_eq!((first.traffic.connections, first.state.as_str()), (2, "usable"));
    let status = lbha.status().unwrap();
    assert_eq!((status.services, status.servers), (2, 4));
    assert_eq!(status.warnings, [] as [&str; 0]);
    let leaks = watch.finish();
    assert_eq!(leaks.count, 0, "{leaks:?}");
}

#[test]
fn masqueraded_connections_outlive_the_daemon() {
    require_daemon!();
    let mut gateway = gateway();
    let mut open: Vec<Connection> = gateway
        .topology
        .internet_sockets(80)
        .into_iter()
        .map(|to| {
            let open = || Connection::open(to, &Options::default()).unwrap();
            gateway.topology.web[0].run_in(open)
        })
        .collect();
    let mut ask = || -> Vec<SocketAddr> {
        open.iter_mut().map(|open| open.get("/").unwrap().client_seen().unwrap()).collect()
    };
    let before = ask();
    gateway.lbha.kill9().unwrap();
    assert_eq!(ask(), before);
    gateway.lbha.restart().unwrap();
    assert_eq!(ask(), before);
    // The sweeper of the new daemon knows the addresses.
    wait_until(LIMIT, "a sweep", || gateway.lbha.status().unwrap().flow_table_v6.connections == 1)
        .unwrap();
    assert_eq!(ask(), before);
}

#[test]
fn a_new_address_of_the_interface_is_used_at_once() {
    require_daemon!();
    let gateway = gateway();
    let topology = &gateway.topology;
    let to = SocketAddr::new(INTERNET6.into(), 7000);
    let echo = Echo::start(topology.internet(), to).unwrap();
    let socket = udp::bind(&topology.web[0], SocketAddr::new(web_address6(0).into(), 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    udp::exchange(&socket, to, b"before").unwrap();
    assert_eq!(echo.seen().iter().map(SocketAddr::ip).collect::<Vec<_>>(), [LB_PUBLIC6]);

    let new: IpAddr = "2001:db8:104::9".parse().unwrap();
    let change =
        format!("addr add {new}/64 dev {PUBLIC} nodad\naddr del {LB_PUBLIC6}/64 dev {PUBLIC}");
    topology.lb.ip(&change).unwrap();
    // Its flow would go on for minutes with an address that nobody has.
    let uses_new = || {
        let answered = udp::exchange(&socket, to, b"after").is_ok();
        answered && echo.seen().iter().any(|seen| seen.ip() == new)
    };
    wait_until(LIMIT, "the flow has the new address", uses_new).unwrap();
    assert_eq!(seen(&gateway), [IpAddr::from(LB_PUBLIC), new]);
}
