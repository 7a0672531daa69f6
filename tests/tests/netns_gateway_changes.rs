//! The gateway's addresses and configuration change, and the daemon dies, while connections are open.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use lbha_tests::{
    gateway::{self, CONFIG, FAMILIES, Family, Gateway},
    http::{self, Connection, Options},
    load::Load,
    require_daemon,
    topology::*,
    udp::{self, Echo},
    wait::wait_until,
};

const LIMIT: Duration = Duration::from_secs(15);

/// Whom the internet sees when a web server makes a new connection.
fn seen(gateway: &Gateway, family: Family) -> SocketAddr {
    let to = SocketAddr::new(family.internet, 80);
    gateway.topology.web[0].run_in(|| http::get(to, "/")).unwrap().client_seen().unwrap()
}

/// A connection of a web server's to the internet, and one of the client's to the service.
fn open(gateway: &Gateway, family: Family) -> [Connection; 2] {
    let Topology { client, web, .. } = &gateway.topology;
    let ways = [(&web[0], SocketAddr::new(family.internet, 80)), (client, family.service())];
    ways.map(|(from, to)| {
        let connect = || Connection::open(to, &Options::default());
        let mut connection = from.run_in(connect).unwrap();
        connection.get("/").unwrap();
        connection
    })
}

/// Who answers on each, and whom it sees.
fn ask(open: &mut [Connection]) -> Vec<(String, SocketAddr)> {
    let ask = |connection: &mut Connection| {
        let response = connection.get("/").unwrap();
        (response.text(), response.client_seen().unwrap())
    };
    open.iter_mut().map(ask).collect()
}

/// Another address of the public link for the load balancer, and where the router has the other end of it.
const NEW: [(&str, &str, &str, &str); 2] = [
    ("198.18.5.1", "31", "198.18.5.0", "147.75.78.116/32"),
    ("2001:db8:105::2", "64", "2001:db8:105::1", "2001:db8:78::116/128"),
];

/// Gives the public link other addresses; the old ones go last.
fn renumber(topology: &Topology) {
    let Topology { router, lb, .. } = topology;
    for (address, length, other_end, elastic) in NEW {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        router.ip(&format!("addr add {other_end}/{length} dev {ROUTER_LINK}{nodad}\n")).unwrap();
        lb.ip(&format!(
            "addr add {address}/{length} dev {PUBLIC}{nodad}\n\
             route replace default via {other_end}\n"
        ))
        .unwrap();
        router.ip(&format!("route replace {elastic} via {address}\n")).unwrap();
    }
    lb.ip(&format!(
        "addr del {LB_PUBLIC}/31 dev {PUBLIC}\naddr del {LB_PUBLIC6}/64 dev {PUBLIC}\n"
    ))
    .unwrap();
}

#[test]
fn under_load_a_new_public_address_is_used_at_once_and_the_service_goes_on() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    let topology = &gateway.topology;
    let services = FAMILIES.map(|family| Load::start(&topology.client, family.service(), 2, 1));
    let outwards = FAMILIES
        .map(|family| Load::start(&topology.web[1], SocketAddr::new(family.internet, 80), 2, 0));
    let mut open = FAMILIES.map(|family| open(&gateway, family));
    let before: Vec<_> =
        open.iter_mut().map(|[_, service]| ask(std::slice::from_mut(service))).collect();
    for load in services.iter().chain(&outwards) {
        load.goes_on(100).unwrap();
    }

    renumber(topology);
    for (family, (new, ..)) in FAMILIES.into_iter().zip(NEW) {
        let new: IpAddr = new.parse().unwrap();
        // The news takes a moment from the kernel to the daemon.
        wait_until(Duration::from_secs(1), "new connections have the new address", || {
            seen(&gateway, family).ip() == new
        })
        .unwrap();
        wait_until(LIMIT, "no connection has the old address", || {
            let flows = gateway.lbha.flows("").unwrap();
            flows.iter().all(|flow| flow.source.ip() != family.lb_public)
        })
        .unwrap();
        assert_eq!(seen(&gateway, family).ip(), new);
    }
    for load in services.iter().chain(&outwards) {
        load.goes_on(100).unwrap();
    }
    let after: Vec<_> =
        open.iter_mut().map(|[_, service]| ask(std::slice::from_mut(service))).collect();
    assert_eq!(after, before, "the service's connections are the same");
    for load in services {
        load.finish().all_succeeded().unwrap();
    }
    for load in outwards {
        let report = load.finish();
        // What was open with the old address has lost it.
        let failed = report.requests.iter().filter(|request| request.outcome.is_err()).count();
        assert!(failed <= 4, "{failed} of {} requests failed", report.requests.len());
    }
}

#[test]
fn a_killed_daemon_is_not_missed_by_masqueraded_and_balanced_connections() {
    require_daemon!();
    let mut gateway = Gateway::new().unwrap();
    let mut open: Vec<_> = FAMILIES.into_iter().flat_map(|family| open(&gateway, family)).collect();
    let answers = ask(&mut open);
    gateway.lbha.kill9().unwrap();
    assert_eq!(ask(&mut open), answers);
    // New ones begin too.
    for family in FAMILIES {
        assert_eq!(seen(&gateway, family).ip(), family.lb_public);
        assert_eq!(gateway.topology.get(family.service(), "/").unwrap().status, 200);
    }
    gateway.lbha.restart().unwrap();
    assert_eq!(ask(&mut open), answers);
    let flows = gateway.lbha.flows("state=established").unwrap();
    assert!(flows.len() >= open.len(), "{flows:?}");
    for family in FAMILIES {
        assert_eq!(seen(&gateway, family).ip(), family.lb_public);
    }
}

#[test]
fn after_a_restart_with_another_masquerade_new_connections_follow_it_and_old_ones_keep_what_is_ours()
 {
    require_daemon!();
    let mut gateway = Gateway::new().unwrap();
    let mut open: Vec<_> = FAMILIES.into_iter().flat_map(|family| open(&gateway, family)).collect();
    let answers = ask(&mut open);

    // Other ports of the same address: what is open goes on.
    gateway.lbha.write_config(&gateway::config("ports = \"2000-2009\"", "")).unwrap();
    gateway.lbha.kill9().unwrap();
    gateway.lbha.restart().unwrap();
    gateway.lbha.wait_usable(LIMIT).unwrap();
    assert_eq!(ask(&mut open), answers);
    for family in FAMILIES {
        let new = seen(&gateway, family);
        assert_eq!(new.ip(), family.lb_public);
        assert!((2000..=2009).contains(&new.port()), "{new}");
    }
    assert_eq!(ask(&mut open), answers);

    // Another address: connections of the old one end, those of the service do not.
    let to = "to = [\"147.75.78.116\", \"2001:db8:78::116\"]";
    gateway.lbha.write_config(&gateway::config(to, "")).unwrap();
    gateway.lbha.kill9().unwrap();
    gateway.lbha.restart().unwrap();
    gateway.lbha.wait_usable(LIMIT).unwrap();
    for family in FAMILIES {
        assert_eq!(seen(&gateway, family).ip(), family.elastic);
        wait_until(LIMIT, "no connection has the old address", || {
            let flows = gateway.lbha.flows("").unwrap();
            flows.iter().all(|flow| flow.source.ip() != family.lb_public)
        })
        .unwrap();
    }
    for (at, answer) in answers.iter().enumerate().filter(|(at, _)| at % 2 == 1) {
        assert_eq!(ask(&mut open[at..=at]), std::slice::from_ref(answer));
    }

    // None: nothing leaves, and nothing leaks.
    let without = CONFIG.split("[[masquerade]]").next().unwrap();
    gateway.lbha.write_config(without).unwrap();
    gateway.topology.lb.sysctl("net.ipv4.ip_forward", "0").unwrap();
    gateway.topology.lb.sysctl("net.ipv6.conf.all.forwarding", "0").unwrap();
    gateway.lbha.kill9().unwrap();
    gateway.lbha.restart().unwrap();
    gateway.lbha.wait_usable(LIMIT).unwrap();
    let quick = Options { connect_timeout: Duration::from_millis(300), ..Options::default() };
    for family in FAMILIES {
        let to = SocketAddr::new(family.internet, 80);
        let web = &gateway.topology.web[0];
        web.run_in(|| http::get_with(to, "/", &quick)).unwrap_err();
        assert_eq!(gateway.topology.get(family.service(), "/").unwrap().status, 200);
    }
}

/// Whom `socket` hears next.
fn hears(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 64];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..len].to_vec(), from)
}

#[test]
fn with_endpoint_independent_mapping_a_third_host_reaches_the_port_that_another_was_told() {
    require_daemon!();
    let config = gateway::config("mapping = \"endpoint-independent\"", "");
    let gateway = Gateway::start(Topology::builder(), &config).unwrap();
    let Topology { client, web, .. } = &gateway.topology;
    for family in FAMILIES {
        let peer = udp::bind(&web[0], (family.web(0), 50_000)).unwrap();
        let told = SocketAddr::new(family.internet, 3478);
        let stun = Echo::start(gateway.topology.internet(), told).unwrap();
        udp::exchange(&peer, told, b"who am I?").unwrap();
        let mapped: Vec<_> = stun.seen().into_iter().collect();
        let [mapped] = mapped[..] else { panic!("{mapped:?}") };
        assert_eq!(mapped.ip(), family.lb_public);

        // The third host speaks first, and is answered from the port that it spoke to.
        let third = udp::bind(client, (family.client, 6000)).unwrap();
        third.send_to(b"hello", mapped).unwrap();
        assert_eq!(hears(&peer), (b"hello".to_vec(), third.local_addr().unwrap()));
        peer.send_to(b"hello yourself", third.local_addr().unwrap()).unwrap();
        assert_eq!(hears(&third), (b"hello yourself".to_vec(), mapped));

        // To others the port is the same, and to another web server too (hairpin).
        let fourth = udp::bind(client, (family.client, 6001)).unwrap();
        peer.send_to(b"hi", fourth.local_addr().unwrap()).unwrap();
        assert_eq!(hears(&fourth), (b"hi".to_vec(), mapped));
        let inside = udp::bind(&web[1], (family.web(1), 50_000)).unwrap();
        inside.send_to(b"from inside", mapped).unwrap();
        let (heard, from) = hears(&peer);
        assert_eq!((heard.as_slice(), from.ip()), (b"from inside".as_slice(), family.lb_public));
        assert_ne!(from.port(), mapped.port(), "the port is another host's");
        peer.send_to(b"back", from).unwrap();
        assert_eq!(hears(&inside), (b"back".to_vec(), mapped));
    }
}

#[test]
fn with_endpoint_dependent_mapping_a_third_host_is_not_let_in() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    let Topology { client, web, .. } = &gateway.topology;
    for family in FAMILIES {
        let peer = udp::bind(&web[0], (family.web(0), 5000)).unwrap();
        let told = SocketAddr::new(family.internet, 3478);
        let stun = Echo::start(gateway.topology.internet(), told).unwrap();
        udp::exchange(&peer, told, b"who am I?").unwrap();
        let mapped: BTreeSet<_> = stun.seen();
        let third = udp::bind(client, (family.client, 6000)).unwrap();
        for mapped in mapped {
            third.connect(mapped).unwrap();
            third.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            third.send(b"hello").unwrap();
            // The host's own kernel says that nobody has the port.
            let error = third.recv(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        peer.set_nonblocking(true).unwrap();
        let nothing = peer.recv_from(&mut [0; 8]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    }
}
