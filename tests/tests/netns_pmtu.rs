//! Links of different MTUs on the way: what does not fit is learned from ICMP errors, of routers and of lbha itself, and
//! TCP is told by the MSS where lbha knows better.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use lbha_tests::{
    gateway::{self, CONFIG, FAMILIES, Family, Gateway},
    netns::Netns,
    packet::{Parsed, Transport, tcp_flags},
    require_daemon,
    tcp::{self, Options, Server},
    topology::*,
    udp::{self, Echo, Fragments},
    wait::wait_until,
    wire::Wire,
};
use nix::errno::Errno;

const LIMIT: Duration = Duration::from_secs(5);
const MIB: u64 = 1 << 20;
const NARROW: u32 = 1280;

/// A UDP service in both families, and forwards to the first web server.
const TABLES: &str = r#"
[[service]]
name = "udp"
vip  = "147.75.78.116"
port = 5353
protocol = "udp"
pool = "first"

[[service]]
name = "udp6"
vip  = "2001:db8:78::116"
port = 5353
protocol = "udp"
pool = "first6"

[[pool]]
name = "first"
servers = [{ name = "web1", address = "192.168.1.10" }]

[[pool]]
name = "first6"
servers = [{ name = "web1", address = "fd00:1::10" }]

[[forward]]
address = "147.75.78.116:7000"
to = "192.168.1.10:7000"

[[forward]]
address = "[2001:db8:78::116]:7000"
to = "[fd00:1::10]:7000"
"#;

fn narrow() -> Gateway {
    let config = gateway::config("", TABLES);
    Gateway::start(Topology::builder().narrow(NARROW), &config).unwrap()
}

/// Another MTU than 1500 on the link to the router, or on all of the servers' network.
fn uneven(public: u32, private: u32, datapath: &str) -> Gateway {
    let topology = Topology::builder().dual_stack().internet().build().unwrap();
    let Topology { router, lb, vlan, web, .. } = &topology;
    let mtu = |namespace: &Netns, link: &str, mtu: u32| {
        namespace.ip(&format!("link set {link} mtu {mtu}\n")).unwrap();
    };
    mtu(router, ROUTER_LINK, public);
    mtu(lb, PUBLIC, public);
    mtu(lb, PRIVATE, private);
    mtu(vlan, VLAN_LINK, private);
    for (number, web) in (1..).zip(web) {
        mtu(vlan, &format!("web{number}"), private);
        mtu(web, "eth0", private);
    }
    mtu(vlan, "br0", private);
    let tables = format!("{TABLES}\n[datapath]\nmss_clamp = {datapath}\n");
    Gateway::on(topology, &gateway::config("", &tables)).unwrap()
}

/// Sends datagrams that may not be fragmented until the path has said what fits.
fn learns_the_mtu(socket: &UdpSocket, to: SocketAddr, mtu: u32) {
    udp::set_fragments(socket, Fragments::Never).unwrap();
    let headers = if to.is_ipv4() { 28 } else { 48 };
    let fits = mtu as usize - headers;
    let refused = |bytes: usize| match socket.send_to(&vec![1; bytes], to) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(Errno::EMSGSIZE as i32), "{error}");
            true
        }
    };
    wait_until(LIMIT, "a datagram is too long for the path", || refused(fits + 1)).unwrap();
    assert!(!refused(fits), "{to}: less than {mtu} was learned");
}

fn bound(namespace: &Netns, address: IpAddr, port: u16) -> UdpSocket {
    udp::bind(namespace, (address, port)).unwrap()
}

#[test]
fn bulk_transfers_pass_a_narrow_link_through_the_service_and_the_masquerade() {
    require_daemon!();
    let gateway = narrow();
    let Topology { client, web, .. } = &gateway.topology;
    for family in FAMILIES {
        let _at_web = Server::start(&web[0], (family.web(0), 7000)).unwrap();
        let _outside = Server::start(gateway.topology.internet(), (family.internet, 7000)).unwrap();
        for (from, to) in [(client, family.elastic), (&web[0], family.internet)] {
            from.run_in(|| {
                let stream = tcp::connect((to, 7000), &Options::default()).unwrap();
                tcp::transfer(stream, 4 * MIB, 4 * MIB).unwrap();
            });
        }
    }
    assert!(gateway.lbha.counter("icmp_error").unwrap() >= 4, "the servers were told");
}

#[test]
fn a_full_nat_service_passes_a_narrow_link() {
    require_daemon!();
    let config = CONFIG.replace(":80\"", ":7000\"");
    let gateway = Gateway::start(Topology::builder().narrow(NARROW), &config).unwrap();
    let Topology { client, web, .. } = &gateway.topology;
    for family in FAMILIES {
        let _servers = [0, 1].map(|n| Server::start(&web[n], (family.web(n), 7000)).unwrap());
        for _ in 0..2 {
            client.run_in(|| {
                let stream = tcp::connect(family.service(), &Options::default()).unwrap();
                tcp::transfer(stream, 4 * MIB, 4 * MIB).unwrap();
            });
        }
    }
    assert!(gateway.lbha.counter("icmp_error").unwrap() >= 4, "both servers were told");
}

#[test]
fn a_server_learns_the_mtu_of_a_narrow_link_for_its_datagrams() {
    require_daemon!();
    let gateway = narrow();
    let Topology { client, web, .. } = &gateway.topology;
    for family in FAMILIES {
        // Outwards, masqueraded.
        let to = SocketAddr::new(family.internet, 5353);
        let _echo = Echo::start(gateway.topology.internet(), to).unwrap();
        let socket = bound(&web[0], family.web(0), 0);
        udp::exchange(&socket, to, b"hello").unwrap();
        learns_the_mtu(&socket, to, NARROW);

        // An answer of the service's.
        let server = bound(&web[0], family.web(0), 5353);
        let asking = bound(client, family.client, 0);
        asking.send_to(b"?", (family.elastic, 5353)).unwrap();
        server.set_read_timeout(Some(LIMIT)).unwrap();
        let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(from.ip(), family.lb_private);
        learns_the_mtu(&server, from, NARROW);
    }
}

#[test]
fn lbha_says_itself_that_a_datagram_does_not_fit_the_public_link() {
    require_daemon!();
    let gateway = uneven(1400, 1500, "\"auto\"");
    let web = &gateway.topology.web[0];
    for family in FAMILIES {
        let to = SocketAddr::new(family.internet, 5353);
        let _echo = Echo::start(gateway.topology.internet(), to).unwrap();
        let socket = bound(web, family.web(0), 0);
        udp::exchange(&socket, to, b"hello").unwrap();
        learns_the_mtu(&socket, to, 1400);
        // Also by the first packet of a connection.
        learns_the_mtu(&bound(web, family.web(0), 0), (family.client, 9).into(), 1400);
    }
    assert!(gateway.lbha.counter("too_big_sent").unwrap() >= 4);
}

#[test]
fn lbha_says_itself_that_a_datagram_does_not_fit_the_servers_link() {
    require_daemon!();
    let gateway = uneven(1500, 1400, "\"auto\"");
    let Topology { client, web, .. } = &gateway.topology;
    for family in FAMILIES {
        let _echo = Echo::start(&web[0], (family.web(0), 5353)).unwrap();
        let to = SocketAddr::new(family.elastic, 5353);
        let socket = bound(client, family.client, 0);
        udp::exchange(&socket, to, b"hello").unwrap();
        learns_the_mtu(&socket, to, 1400);
    }
    assert!(gateway.lbha.counter("too_big_sent").unwrap() >= 2);
}

#[test]
fn bulk_transfers_pass_uneven_links_without_a_clamp() {
    require_daemon!();
    for (public, private) in [(1400, 1500), (1500, 1400)] {
        let gateway = uneven(public, private, "\"off\"");
        let Topology { client, web, .. } = &gateway.topology;
        for family in FAMILIES {
            let _at_web = Server::start(&web[0], (family.web(0), 7000)).unwrap();
            let _outside =
                Server::start(gateway.topology.internet(), (family.internet, 7000)).unwrap();
            for (from, to) in [(client, family.elastic), (&web[0], family.internet)] {
                from.run_in(|| {
                    let stream = tcp::connect((to, 7000), &Options::default()).unwrap();
                    tcp::transfer(stream, 4 * MIB, 4 * MIB).unwrap();
                });
            }
        }
        if public < private {
            assert!(gateway.lbha.counter("too_big_sent").unwrap() >= 4);
        }
    }
}

/// The MSS in the next SYN to port 7000 that comes in here.
fn mss(wire: &Wire) -> u16 {
    let mss = |packet: &Parsed| match &packet.transport {
        Transport::Tcp { dst: 7000, flags, options, .. } if flags & tcp_flags::SYN != 0 => {
            // Linux puts it first: kind, length, value.
            let option: [u8; 4] = options[..4].try_into().unwrap();
            assert_eq!(option[..2], [2, 4]);
            Some(u16::from_be_bytes([option[2], option[3]]))
        }
        _ => None,
    };
    wire.expect(LIMIT, "a SYN", mss).unwrap()
}

/// What the host on the internet sees of web1's SYN, and web1 of the client's.
fn announced(gateway: &Gateway, family: Family) -> [u16; 2] {
    let Topology { client, web, .. } = &gateway.topology;
    let internet = gateway.topology.internet();
    let _outside = Server::start(internet, (family.internet, 7000)).unwrap();
    let _at_web = Server::start(&web[0], (family.web(0), 7000)).unwrap();
    let ways = [(&web[0], family.internet, internet), (client, family.elastic, &web[0])];
    ways.map(|(from, to, at)| {
        let wire = Wire::open(at, "eth0").unwrap();
        drop(from.run_in(|| tcp::connect((to, 7000), &Options::default())).unwrap());
        mss(&wire)
    })
}

#[test]
fn a_syn_announces_what_fits_both_links_or_what_is_configured_or_what_it_did() {
    require_daemon!();
    for (mss_clamp, v4, v6) in [
        ("\"auto\"", 1360, 1340),
        ("\"off\"", 1460, 1440),
        ("1200", 1200, 1200),
        ("1400", 1360, 1340),
    ] {
        let gateway = uneven(1400, 1500, mss_clamp);
        for (family, expected) in FAMILIES.into_iter().zip([v4, v6]) {
            // The client has a link of 1500 bytes.
            assert_eq!(announced(&gateway, family), [expected; 2], "mss_clamp = {mss_clamp}");
        }
    }
}
