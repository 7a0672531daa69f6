//! How and where the program is attached: generic mode, large MTUs, and one interface for both sides.

use std::{fs, net::SocketAddr};

use lbha_tests::{
    daemon::{GUIDE_CONFIG, Lbha, guide_config},
    http::{Connection, Options},
    nginx::{Access, Nginx},
    pass::Pass,
    require_daemon,
    topology::{LB_PRIVATE, PRIVATE, PUBLIC, SERVICE, Topology},
};

const TO: SocketAddr = SocketAddr::V4(SERVICE);

/// Requests on one connection and on many, and a body of 8 MB in each direction.
fn works(topology: &Topology, servers: &[Nginx]) {
    let body: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    topology.client.run_in(|| {
        let mut connection = Connection::open(TO, &Options::default()).unwrap();
        let name = connection.get("/").unwrap().text();
        assert_eq!(connection.put("/upload/body", &body).unwrap().status, 201);
        let server = servers.iter().find(|server| server.name() == name.trim()).unwrap();
        assert!(fs::read(server.uploaded("body")).unwrap() == body, "the upload differs");
        assert!(connection.get("/upload/body").unwrap().body == body, "the download differs");
    });
    for _ in 0..20 {
        assert_eq!(topology.get(SERVICE, "/").unwrap().status, 200);
    }
}

#[test]
fn native_mode_is_the_default_and_needs_no_warning() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();
    works(&topology, &servers);
    let status = lbha.status().unwrap();
    for interface in &status.interfaces {
        assert_eq!((interface.mode.as_str(), interface.multi_buffer), ("native", false));
        assert!(interface.forwarded_packets > 100, "{interface:?}");
    }
    assert_eq!(status.interfaces.len(), 2);
    assert!(status.warnings.is_empty(), "{:?}", status.warnings);
}

#[test]
fn generic_mode_works_and_is_warned_of() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let lbha =
        Lbha::start(&topology, &guide_config("", "[datapath]\nattach = \"generic\"\n")).unwrap();
    works(&topology, &servers);
    let status = lbha.status().unwrap();
    for (interface, name) in status.interfaces.iter().zip([PUBLIC, PRIVATE]) {
        assert_eq!((interface.mode.as_str(), interface.name.as_str()), ("generic", name));
        assert!(interface.forwarded_packets > 100, "{interface:?}");
        let warned = |warning: &String| warning.contains(name) && warning.contains("generic");
        assert!(status.warnings.iter().any(warned), "{:?}", status.warnings);
    }
    let link = topology.lb.exec("ip", ["link", "show", "dev", PUBLIC]).unwrap();
    assert!(link.contains("xdpgeneric"), "{link}");
}

#[test]
fn a_generic_program_is_adopted_by_the_next_start_too() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let config = guide_config("", "[datapath]\nattach = \"generic\"\n");
    let mut lbha = Lbha::start(&topology, &config).unwrap();
    let mut kept = topology.client.run_in(|| Connection::open(TO, &Options::default())).unwrap();
    let ask = |c: &mut Connection| c.get("/").unwrap().client_seen().unwrap();
    let seen = ask(&mut kept);
    lbha.kill9().unwrap();
    assert_eq!(ask(&mut kept), seen);
    lbha.restart().unwrap();
    assert_eq!(ask(&mut kept), seen);
    works(&topology, &servers);
}

#[test]
fn jumbo_frames_are_forwarded_with_multi_buffer_support() {
    require_daemon!();
    let topology = Topology::builder().mtu(9000).build().unwrap();
    let servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();
    works(&topology, &servers);
    let status = lbha.status().unwrap();
    for interface in &status.interfaces {
        let how = (interface.mode.as_str(), interface.multi_buffer);
        assert!(how == ("native", true) || how.0 == "generic", "{interface:?}");
        assert_eq!(interface.mtu, 9000);
        // 16 MB at least went through, in frames of their own size: with 1500 it would take 11,000 of them.
        let average = interface.forwarded_bytes / interface.forwarded_packets;
        assert!(average > 1500, "{average} bytes a packet on {interface:?}");
    }
}

#[test]
fn with_one_arm_clients_and_servers_share_an_interface() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let Topology { router, lb, vlan, .. } = &topology;
    // The router gets a foot in the servers' network, and sends the service there.
    router
        .ip(&format!("link add name arm0 type veth peer name router netns {}\n", vlan.name()))
        .unwrap();
    for (namespace, device) in [(router, "arm0"), (vlan, "router")] {
        let settings = ["-K", device, "tx", "off", "tso", "off", "gso", "off", "gro", "off"];
        namespace.exec("ethtool", settings).unwrap();
    }
    vlan.ip("link set router master br0\nlink set router up\n").unwrap();
    router
        .ip(&format!(
            "addr add 192.168.1.254/24 dev arm0\nlink set arm0 up\n\
             route replace {}/32 via {LB_PRIVATE}\n",
            SERVICE.ip()
        ))
        .unwrap();
    lb.ip(&format!("link set {PUBLIC} down\nroute replace default via 192.168.1.254\n")).unwrap();

    let _pass = Pass::on_peers(&topology).unwrap();

    let config = GUIDE_CONFIG.replace(PUBLIC, PRIVATE);
    let lbha = Lbha::start(&topology, &config).unwrap();
    works(&topology, &servers);
    let response = topology.get(SERVICE, "/").unwrap();
    assert_eq!(response.client_seen().unwrap().ip(), LB_PRIVATE);
    let status = lbha.status().unwrap();
    assert_eq!(status.interfaces.len(), 1);
    assert_eq!(lbha.counter("forward").unwrap(), 0);
    assert!(lbha.counter("forward_same").unwrap() > 100);
}
