//! The harness tests itself: IPv6, the host on the internet, the narrow link, and the guard against leaks. The kernel is in
//! the load balancer's place.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use lbha_tests::{
    http::{self, Connection, Options},
    leak::LeakWatch,
    netns::Netns,
    nginx::{Access, BIG, Nginx},
    packet::{Frame, Quote, Transport, icmp_error, icmp4, icmp6, verify},
    peers, require_root,
    scratch::next_number,
    topology::*,
    udp::{self, Echo},
    wire::Wire,
};

/// Web servers that ask the internet through the kernel's masquerade.
fn gateway(builder: Builder) -> (Topology, Nginx) {
    let topology = builder.dual_stack().internet().build().unwrap();
    peers::nft_masquerade(&topology).unwrap();
    let server = Nginx::start_on_the_internet(&topology).unwrap();
    (topology, server)
}

#[test]
fn web_servers_ask_the_internet_in_both_families_and_nothing_private_shows() {
    require_root!();
    let (topology, _server) = gateway(Topology::builder());
    let _watch = LeakWatch::start(&topology).unwrap();
    for (to, public) in topology.internet_sockets(80).into_iter().zip([
        [IpAddr::from(LB_PUBLIC), IpAddr::from(ELASTIC)],
        [LB_PUBLIC6.into(), ELASTIC6.into()],
    ]) {
        for web in &topology.web {
            let response = web.run_in(|| http::get(to, "/")).unwrap();
            assert_eq!((response.status, response.text().as_str()), (200, "internet\n"));
            let seen = response.client_seen().unwrap().ip();
            assert!(public.contains(&seen), "{seen}");
        }
    }
}

#[test]
fn without_a_translation_the_guard_sees_every_private_source() {
    require_root!();
    let topology = Topology::builder().dual_stack().internet().build().unwrap();
    for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        topology.lb.sysctl(key, "1").unwrap();
    }
    let watch = LeakWatch::start(&topology).unwrap();
    let options = Options { connect_timeout: Duration::from_millis(200), ..Options::default() };
    for to in topology.internet_sockets(80) {
        topology.web[0].run_in(|| http::get_with(to, "/", &options)).unwrap_err();
    }
    let leaks = watch.finish();
    assert!(leaks.count >= 2, "{leaks:?}");
    let shown = leaks.examples.join("\n");
    assert!(shown.contains("192.168.1.10 → 198.51.100.10, protocol 6"), "{shown}");
    assert!(shown.contains("fd00:1::10 → 2001:db8:51::10, protocol 6"), "{shown}");
}

/// Two ends of a link.
fn link() -> (Netns, Netns) {
    let number = next_number();
    let (a, b) = (Netns::new(number, "a").unwrap(), Netns::new(number, "b").unwrap());
    for end in [&a, &b] {
        end.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    }
    let name = b.name();
    a.ip(&format!("link add e0 type veth peer name e0 netns {name}\nlink set e0 up\n")).unwrap();
    b.ip("link set e0 up\n").unwrap();
    (a, b)
}

#[test]
fn the_guard_takes_exactly_what_shows_a_private_address() {
    require_root!();
    let (a, b) = link();
    let wire = Wire::open(&a, "e0").unwrap();
    let to: IpAddr = INTERNET.into();
    let leaks_of = |frames: &[Frame]| {
        let watch = LeakWatch::on(&b, "e0").unwrap();
        // Behind the frames comes one that the guard does count: when it has, it has seen all.
        let last = Frame::udp((LB_PRIVATE, 9), (to, 9)).build();
        let frames: Vec<_> = frames.iter().map(Frame::build).collect();
        wire.send(&frames).unwrap();
        wire.send(&[last]).unwrap();
        lbha_tests::wait::wait_until(Duration::from_secs(5), "the last frame is counted", || {
            watch.leaks().examples.iter().any(|text| text.starts_with("192.168.1.1 "))
        })
        .unwrap();
        watch.finish().count - 1
    };
    let udp = |from: &str| {
        let from: IpAddr = from.parse().unwrap();
        let to = if from.is_ipv4() { to } else { INTERNET6.into() };
        Frame::udp((from, 1), (to, 2))
    };
    for private in ["10.1.2.3", "172.16.0.1", "172.31.255.1", "192.168.7.7", "fd12::1", "fc00::1"] {
        assert_eq!(leaks_of(&[udp(private)]), 1, "{private}");
    }
    let public =
        ["9.255.255.255", "11.0.0.1", "172.15.1.1", "172.32.0.1", "192.167.1.1", "192.169.1.1"];
    let public6 = ["2001:db8::fd00", "fe80::fd", "fb00::1"];
    let frames: Vec<_> = public.into_iter().chain(public6).map(udp).collect();
    assert_eq!(leaks_of(&frames), 0);

    for (inside, outside, public) in [
        (IpAddr::from(web_address(0)), to, IpAddr::from(ELASTIC)),
        (web_address6(0).into(), INTERNET6.into(), ELASTIC6.into()),
    ] {
        let kind = if outside.is_ipv4() { icmp4::UNREACHABLE } else { icmp6::UNREACHABLE };
        let error =
            |about: Frame| icmp_error(&about.build(), (kind, 1), [0; 4], public, Quote::Least);
        assert_eq!(leaks_of(&[error(Frame::udp((outside, 1), (inside, 2)))]), 1);
        assert_eq!(leaks_of(&[error(Frame::udp((outside, 1), (public, 2)))]), 0);
    }
}

#[test]
fn a_leak_fails_a_test_that_does_not_look() {
    require_root!();
    let (a, b) = link();
    let wire = Wire::open(&a, "e0").unwrap();
    let outcome = std::panic::catch_unwind(|| {
        let _watch = LeakWatch::on(&b, "e0").unwrap();
        wire.send(&[Frame::udp((LB_PRIVATE, 9), (INTERNET, 9)).build()]).unwrap();
    });
    let panic = outcome.unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("192.168.1.1 → 198.51.100.10"), "{text}");
}

#[test]
fn errors_about_the_narrow_link_come_from_the_router_before_it() {
    require_root!();
    let topology = Topology::builder().dual_stack().internet().narrow(1280).build().unwrap();
    let wire = Wire::open(&topology.lb, PUBLIC).unwrap();
    let router = Wire::open(&topology.router, ROUTER_LINK).unwrap().mac();
    let elastic = [IpAddr::from(ELASTIC), ELASTIC6.into()];
    let clients = [IpAddr::from(CLIENT), CLIENT6.into()];
    let routers = [IpAddr::from(ROUTER_TO_LB), ROUTER_TO_LB6.into()];
    for ((from, to), router_ip) in elastic.into_iter().zip(clients).zip(routers) {
        let about = Frame::udp((from, 5000), (to, 6000)).payload(&[1; 1400]);
        wire.send(&[about.macs(wire.mac(), router).build()]).unwrap();
        let limit = Duration::from_secs(5);
        let error = wire
            .expect(limit, "the router's error", |parsed| {
                let is_error =
                    matches!(parsed.transport, Transport::Icmp { embedded: Some(_), .. });
                is_error.then(|| parsed.clone())
            })
            .unwrap();
        assert_eq!(error.ip.src, router_ip);
        let Transport::Icmp { kind, code, rest, .. } = error.transport else { unreachable!() };
        let too_big = if from.is_ipv4() { (3, 4) } else { (icmp6::PACKET_TOO_BIG, 0) };
        assert_eq!(((kind, code), u32::from_be_bytes(rest)), (too_big, 1280));
        assert_eq!(error.embedded().source(), SocketAddr::new(from, 5000));
    }
}

#[test]
fn large_answers_pass_the_narrow_link_in_both_families() {
    require_root!();
    let (topology, _server) = gateway(Topology::builder().web_servers(1).narrow(1280));
    let _watch = LeakWatch::start(&topology).unwrap();
    for to in topology.internet_sockets(80) {
        let body = topology.web[0].run_in(|| {
            let mut connection = Connection::open(to, &Options::default()).unwrap();
            connection.get("/big").unwrap().body.len()
        });
        assert_eq!(u64::try_from(body).unwrap(), BIG);
    }
}

#[test]
fn services_and_udp_answer_in_both_families() {
    require_root!();
    let topology = Topology::builder().dual_stack().lb_forwards().build().unwrap();
    let _servers = Nginx::start_all(&topology, Access::Open).unwrap();
    let _echo = Echo::start_all(&topology, 5353).unwrap();
    for (client, web) in
        [IpAddr::from(CLIENT), CLIENT6.into()].into_iter().zip(topology.web_sockets(1, 80))
    {
        let response = topology.get(web, "/").unwrap();
        assert_eq!(response.client_seen().unwrap().ip(), client);
        let socket = udp::bind(&topology.client, (client, 0)).unwrap();
        udp::exchange(&socket, (web.ip(), 5353), &[7; 1400]).unwrap();
    }
    assert_eq!(web_address6(1), "fd00:1::11".parse::<Ipv6Addr>().unwrap());
    assert_eq!(web_address(1), Ipv4Addr::new(192, 168, 1, 11));
}

#[test]
fn frames_arrive_as_they_were_sent_and_in_order() {
    require_root!();
    let (a, b) = link();
    let (from, to) = (Wire::open(&a, "e0").unwrap(), Wire::open(&b, "e0").unwrap());
    let frames: Vec<_> = (0..50_u16)
        .map(|n| Frame::udp((CLIENT6, n), (ELASTIC6, 1)).macs(from.mac(), to.mac()).build())
        .collect();
    from.send(&frames).unwrap();
    for frame in &frames {
        let (_, received) = to.receive(Duration::from_secs(5)).unwrap().unwrap();
        verify(&received).unwrap();
        assert_eq!(received, *frame);
    }
    assert_eq!(to.receive(Duration::ZERO).unwrap(), None);
}
