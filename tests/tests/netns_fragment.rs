//! Fragments through the real daemon, in order and in any other, and what they carry.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use lbha_tests::{
    covers,
    daemon::Lbha,
    leak::LeakWatch,
    packet::{Frame, fragments},
    require_daemon,
    topology::*,
    udp::{self, Echo, Fragments},
    wait::wait_until,
    wire::Wire,
};

const PORT: u16 = 5353;

/// A UDP service in both families, a way out for all, and the web servers' own interface name.
const CONFIG: &str = r#"
[interfaces]
public  = "ens14f0"
private = "ens14f1"

[[service]]
name = "dns"
vip  = "147.75.78.116"
port = 5353
protocol = "udp"
mode = "MODE"
pool = "web"

[[service]]
name = "dns6"
vip  = "2001:db8:78::116"
port = 5353
protocol = "udp"
mode = "MODE"
pool = "web6"

[[pool]]
name = "web"
servers = [{ name = "web1", address = "192.168.1.10" }]

[[pool]]
name = "web6"
servers = [{ name = "web1", address = "fd00:1::10" }]

[[masquerade]]
source = ["192.168.1.0/24", "fd00:1::/64"]
"#;

struct Network {
    // In the order in which they end.
    lbha: Lbha,
    /// Into the load balancer from the internet, and from the first web server.
    public: Wire,
    private: Wire,
    macs: [[u8; 6]; 2],
    topology: Topology,
}

fn network(mode: &str, extra: &str) -> Network {
    let topology = Topology::builder().dual_stack().internet().build().unwrap();
    let lbha = Lbha::start(&topology, &(CONFIG.replace("MODE", mode) + extra)).unwrap();
    let public = Wire::open(&topology.router, ROUTER_LINK).unwrap();
    let private = Wire::open(&topology.web[0], "eth0").unwrap();
    let macs = [PUBLIC, PRIVATE].map(|name| Wire::open(&topology.lb, name).unwrap().mac());
    Network { lbha, public, private, macs, topology }
}

fn payload() -> Vec<u8> {
    (0..8000_u32).map(|n| (n * 13 + n / 256) as u8).collect()
}

impl Network {
    /// A datagram of 8 kB from the internet, in fragments.
    fn outside(&self, from: SocketAddr, to: SocketAddr, id: u32) -> Vec<Vec<u8>> {
        cut(from, to, self.public.mac(), self.macs[0], id)
    }

    /// The same from the first web server.
    fn inside(&self, from: SocketAddr, to: SocketAddr, id: u32) -> Vec<Vec<u8>> {
        cut(from, to, self.private.mac(), self.macs[1], id)
    }

    /// Packets of both sides with a verdict.
    fn counter(&self, reason: &str) -> u64 {
        self.lbha.counter(reason).unwrap()
    }
}

fn cut(from: SocketAddr, to: SocketAddr, smac: [u8; 6], dmac: [u8; 6], id: u32) -> Vec<Vec<u8>> {
    let frame = Frame::udp(from, to).payload(&payload()).dont_fragment(false).macs(smac, dmac);
    fragments(&frame.build(), 1500, id)
}

fn reversed(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.reverse();
    frames
}

/// The first one last, and the last one first of the others.
fn shuffled(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.rotate_left(1);
    frames.swap(0, 2);
    frames
}

type Order = fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>;

const ORDERS: [Order; 3] = [|frames| frames, reversed, shuffled];

/// The sender of the next datagram, which must be the one of 8 kB.
#[track_caller]
fn received(socket: &UdpSocket) -> SocketAddr {
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = vec![0; 65536];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
    assert!(buffer[..len] == payload(), "{len} bytes of another content");
    from
}

/// Client, service, web server, and the server on the internet, of one family.
fn families() -> [(IpAddr, SocketAddr, SocketAddr, SocketAddr); 2] {
    let of = |client: IpAddr, vip: IpAddr, web: IpAddr, internet: IpAddr| {
        let at = |addr| SocketAddr::new(addr, PORT);
        (client, at(vip), at(web), at(internet))
    };
    [
        of(CLIENT.into(), ELASTIC.into(), web_address(0).into(), INTERNET.into()),
        of(CLIENT6.into(), ELASTIC6.into(), web_address6(0).into(), INTERNET6.into()),
    ]
}

#[test]
fn large_datagrams_and_their_answers_go_through_a_service() {
    require_daemon!();
    for mode in ["fullnat", "nat"] {
        let network = network(mode, "");
        let _echos = Echo::start_all(&network.topology, PORT).unwrap();
        for (client, service, ..) in families() {
            let socket = udp::bind(&network.topology.client, (client, 0)).unwrap();
            udp::set_fragments(&socket, Fragments::Always).unwrap();
            for size in [1400, 8000, 60_000] {
                let payload: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
                udp::exchange(&socket, service, &payload).unwrap();
            }
        }
        assert_eq!(network.counter("fragment_held"), 0, "in order, none waits");
    }
}

#[test]
fn fragments_in_any_order_go_through_a_service_both_ways() {
    covers!("RFC4787 REQ-14");
    require_daemon!();
    for mode in ["fullnat", "nat"] {
        let network = network(mode, "");
        for (client, service, server, _) in families() {
            let client = udp::bind(&network.topology.client, (client, 0)).unwrap();
            let server = udp::bind(&network.topology.web[0], server).unwrap();
            let (from, at) = (client.local_addr().unwrap(), server.local_addr().unwrap());
            // The first datagram opens the connection, the second confirms it.
            for (id, order) in (1..).zip([ORDERS, ORDERS].concat()) {
                let there = network.outside(from, service, id);
                network.public.send(&order(there)).unwrap();
                let source = received(&server);
                if mode == "nat" {
                    assert_eq!(source, from);
                }
                let back = network.inside(at, source, id);
                network.private.send(&order(back)).unwrap();
                assert_eq!(received(&client), service);
            }
        }
        assert!(network.counter("fragment_held") >= 80);
        for reason in ["fragment_expired", "fragment_limit", "internal"] {
            assert_eq!(network.counter(reason), 0, "{reason}");
        }
    }
}

#[test]
fn fragments_in_any_order_are_masqueraded() {
    covers!("RFC4787 REQ-14");
    require_daemon!();
    for extra in ["", "[datapath]\nattach = \"generic\"\n"] {
        let network = network("fullnat", extra);
        let watch = LeakWatch::start(&network.topology).unwrap();
        for (_, _, host, remote) in families() {
            let host = udp::bind(&network.topology.web[0], (host.ip(), 6000)).unwrap();
            let remote = udp::bind(network.topology.internet(), remote).unwrap();
            let (from, to) = (host.local_addr().unwrap(), remote.local_addr().unwrap());
            for (id, order) in (1..).zip(ORDERS) {
                let there = network.inside(from, to, id);
                network.private.send(&order(there)).unwrap();
                let source = received(&remote);
                let external =
                    if from.is_ipv4() { IpAddr::from(LB_PUBLIC) } else { LB_PUBLIC6.into() };
                assert_eq!(source.ip(), external);
                let back = network.outside(to, source, id);
                network.public.send(&order(back)).unwrap();
                assert_eq!(received(&host), to);
            }
        }
        let leaks = watch.finish();
        assert_eq!(leaks.count, 0, "{leaks:?}");
    }
}

#[test]
fn what_is_the_hosts_own_reaches_it_in_any_order() {
    require_daemon!();
    for extra in ["", "[datapath]\nattach = \"generic\"\n"] {
        // Masqueraded connections leave from the same address, so that its fragments are held.
        let network = network("fullnat", extra);
        for (client, own) in
            [(IpAddr::from(CLIENT), IpAddr::from(LB_PUBLIC)), (CLIENT6.into(), LB_PUBLIC6.into())]
        {
            let socket = udp::bind(&network.topology.lb, (own, 7000)).unwrap();
            for (id, order) in (1..).zip(ORDERS) {
                let from = SocketAddr::new(client, 9000);
                let there = network.outside(from, SocketAddr::new(own, 7000), id);
                network.public.send(&order(there)).unwrap();
                assert_eq!(received(&socket), from);
            }
        }
        assert!(network.counter("fragment_held") >= 20);
    }
}

#[test]
fn what_waits_in_vain_is_dropped_after_a_second_and_counted() {
    require_daemon!();
    let network = network("fullnat", "");
    let (client, service, server, _) = families()[0];
    let server = udp::bind(&network.topology.web[0], server).unwrap();
    let from = SocketAddr::new(client, 9000);
    let pieces = network.outside(from, service, 1);
    let later = pieces.len() as u64 - 1;
    network.public.send(&pieces[1..]).unwrap();
    wait_until(Duration::from_secs(5), "they are given up", || {
        network.counter("fragment_expired") == later
    })
    .unwrap();
    assert_eq!(network.counter("fragment_held"), later);
    // Too late: the datagram is lost, and the next one is not.
    network.public.send(&pieces[..1]).unwrap();
    network.public.send(&reversed(network.outside(from, service, 2))).unwrap();
    received(&server);
}
