//! The harness tests itself: ping, traceroute, DNS, transfers, DF and fragments, each with the kernel as the gateway.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    time::Duration,
};

use lbha_tests::{
    dns::{self, Dns},
    leak::LeakWatch,
    nginx::Nginx,
    packet::{Frame, fragments},
    peers, require_root,
    tcp::{self, Options, Server},
    tools::{self, Probe},
    topology::*,
    udp::{self, Echo, Fragments},
    wire::Wire,
};
use nix::{
    errno::Errno,
    sys::socket::{getsockopt, sockopt},
};

const INTERNETS: [IpAddr; 2] = [IpAddr::V4(INTERNET), IpAddr::V6(INTERNET6)];

/// One web server behind the kernel's masquerade.
fn gateway(builder: Builder) -> Topology {
    let topology = builder.web_servers(1).dual_stack().internet().build().unwrap();
    peers::nft_masquerade(&topology).unwrap();
    topology
}

#[test]
fn ping_counts_replies_and_shows_errors() {
    require_root!();
    let topology = gateway(Topology::builder().narrow(1280));
    let _watch = LeakWatch::start(&topology).unwrap();
    let web = &topology.web[0];
    for to in INTERNETS {
        let ping = tools::ping(web, to, 5, &["-s", "1200"]).unwrap();
        assert_eq!((ping.sent, ping.received), (5, 5), "{}", ping.text);
        let ping = tools::ping(web, to, 2, &["-s", "1400", "-M", "do"]).unwrap();
        assert!(ping.received < 2 && ping.text.contains("mtu"), "{}", ping.text);
        let ping = tools::ping(web, to, 1, &["-t", "2"]).unwrap();
        assert_eq!(ping.received, 0, "{}", ping.text);
        assert!(ping.text.contains("exceeded"), "{}", ping.text);
    }
}

#[test]
fn traceroute_shows_the_routers_on_the_way() {
    require_root!();
    let topology = gateway(Topology::builder().narrow(1280));
    let ways: [[IpAddr; 4]; 2] = [
        [LB_PRIVATE.into(), ROUTER_TO_LB.into(), FAR_TO_ROUTER.into(), INTERNET.into()],
        [LB_PRIVATE6.into(), ROUTER_TO_LB6.into(), FAR_TO_ROUTER6.into(), INTERNET6.into()],
    ];
    for (to, way) in INTERNETS.into_iter().zip(ways) {
        for probe in [Probe::Udp, Probe::Icmp, Probe::Tcp] {
            let hops = tools::traceroute(&topology.web[0], to, probe).unwrap();
            assert_eq!(hops, way.map(Some), "{probe:?}");
        }
    }
}

#[test]
fn names_are_answered_in_datagrams_in_fragments_and_over_tcp() {
    require_root!();
    let topology = gateway(Topology::builder());
    let dns = Dns::start(topology.internet(), &INTERNETS).unwrap();
    let web = &topology.web[0];
    for server in INTERNETS {
        let ask = |arguments: &[&str]| tools::dig(web, server, arguments).unwrap();
        assert_eq!(ask(&[dns::NAME, "A"]), [dns::ADDRESS.to_string()]);
        assert_eq!(ask(&[dns::NAME, "AAAA"]), [dns::ADDRESS6.to_string()]);
        let big = |flags: &[&str]| BTreeSet::from_iter(ask(&[&[dns::BIG, "TXT"], flags].concat()));
        let over_tcp = big(&["+tcp"]);
        assert_eq!(over_tcp.len(), dns::BIG_RECORDS, "{over_tcp:?}");
        assert_eq!(big(&["+notcp", "+ignore", "+bufsize=4096"]), over_tcp);
    }
    assert!(dns.log().contains("query[A] name.test from 147.75."), "{}", dns.log());
}

#[test]
fn a_hundred_megabytes_arrive_as_they_were_sent() {
    require_root!();
    let topology = gateway(Topology::builder());
    for to in INTERNETS {
        let server = Server::start(topology.internet(), (to, 7000)).unwrap();
        let web = match to {
            IpAddr::V4(_) => IpAddr::from(web_address(0)),
            IpAddr::V6(_) => web_address6(0).into(),
        };
        topology.web[0].run_in(|| {
            let options = Options::from((web, 5555));
            let stream = tcp::connect((to, 7000), &options).unwrap();
            assert_eq!(stream.local_addr().unwrap(), SocketAddr::new(web, 5555));
            assert!(getsockopt(&stream.as_fd(), sockopt::ReuseAddr).unwrap());
            tcp::transfer(stream, 100 << 20, 100 << 20).unwrap();
            for (up, down) in [(0, 0), (1, 0), (0, 1), (70_000, 65_521)] {
                let stream = tcp::connect((to, 7000), &Options::default()).unwrap();
                tcp::transfer(stream, up, down).unwrap();
            }
        });
        assert_eq!(server.seen().len(), 5);
    }
}

#[test]
fn a_datagram_of_8_kilobytes_goes_in_fragments_unless_they_are_forbidden() {
    require_root!();
    let topology = gateway(Topology::builder());
    for (to, from) in topology.internet_sockets(5353).into_iter().zip(topology.web_sockets(0, 0)) {
        let _echo = Echo::start(topology.internet(), to).unwrap();
        let socket = udp::bind(&topology.web[0], from).unwrap();
        udp::set_fragments(&socket, Fragments::Always).unwrap();
        for size in [1472, 1473, 4000, 8192] {
            udp::exchange(&socket, to, &vec![0x5a; size]).unwrap();
        }
        for never in [Fragments::Never, Fragments::Probe] {
            udp::set_fragments(&socket, never).unwrap();
            udp::exchange(&socket, to, &[1; 1452]).unwrap();
            let error = socket.send_to(&[1; 1473], to).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::EMSGSIZE as i32), "{never:?}");
        }
    }
}

#[test]
fn fragments_sent_in_reverse_arrive_as_one_datagram() {
    require_root!();
    let topology = Topology::builder().dual_stack().internet().build().unwrap();
    // What a fragment is sent to, the server's neighbour has to know already.
    for to in topology.internet_sockets(0) {
        assert_eq!(tools::ping(&topology.client, to.ip(), 1, &[]).unwrap().received, 1);
    }
    let client = Wire::open(&topology.client, "eth0").unwrap();
    let router = Wire::open(&topology.router, "client0").unwrap();
    let from = [SocketAddr::from((CLIENT, 6000)), SocketAddr::from((CLIENT6, 6000))];
    for (from, to) in from.into_iter().zip(topology.internet_sockets(5353)) {
        let server = udp::bind(topology.internet(), to).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let payload: Vec<u8> = (0..8000_u32).map(|n| (n * 13 % 251) as u8).collect();
        let whole = Frame::udp(from, to).payload(&payload).macs(client.mac(), router.mac());
        let mut parts = fragments(&whole.build(), 1500, 77);
        parts.reverse();
        client.send(&parts).unwrap();
        let mut buffer = [0; 9000];
        let (len, peer) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((len, peer), (payload.len(), from));
        assert!(buffer[..len] == payload);
        server.set_nonblocking(true).unwrap();
        let more = server.recv_from(&mut buffer).unwrap_err();
        assert_eq!(more.kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn curl_gets_what_the_internet_serves() {
    require_root!();
    let topology = gateway(Topology::builder());
    let _server = Nginx::start_on_the_internet(&topology).unwrap();
    for to in topology.internet_sockets(80) {
        let body = tools::curl(&topology.web[0], &format!("http://{to}/"), &[]).unwrap();
        assert_eq!(body, "internet\n");
        let format = "%{http_code} %{size_download}";
        let url = format!("http://{to}/big");
        let said = tools::curl(&topology.web[0], &url, &["-o", "/dev/null", "-w", format]);
        assert_eq!(said.unwrap(), "200 104857600");
        let missing = tools::curl(&topology.web[0], &format!("http://{to}/missing"), &[]);
        let error = format!("{:#}", missing.unwrap_err());
        assert!(error.contains("404"), "{error}");
    }
}
