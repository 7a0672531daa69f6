//! Ping and traceroute through the gateway and to it, and errors that end a connection, over both families.

use std::{net::IpAddr, time::Duration};

use lbha_tests::{
    gateway::{self, CONFIG, FAMILIES, Gateway},
    require_daemon, tcp,
    tools::{self, Probe},
    topology::*,
    udp,
    wait::wait_until,
};
use nix::errno::Errno;

const PROBES: [Probe; 3] = [Probe::Udp, Probe::Icmp, Probe::Tcp];

#[test]
fn servers_ping_the_internet() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    for family in FAMILIES {
        for web in &gateway.topology.web {
            for arguments in [&["-s", "56"][..], &["-s", "1400"], &["-s", "1400", "-M", "do"]] {
                let ping = tools::ping(web, family.internet, 5, arguments).unwrap();
                assert_eq!((ping.sent, ping.received), (5, 5), "{}", ping.text);
            }
        }
    }
}

#[test]
fn two_servers_ping_with_the_same_identifier() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    for family in FAMILIES {
        let pings = std::thread::scope(|scope| {
            let pings: Vec<_> = gateway
                .topology
                .web
                .iter()
                .map(|web| scope.spawn(|| tools::ping(web, family.internet, 30, &["-e", "77"])))
                .collect();
            pings.into_iter().map(|ping| ping.join().unwrap().unwrap()).collect::<Vec<_>>()
        });
        for ping in pings {
            assert_eq!((ping.sent, ping.received), (30, 30), "{}", ping.text);
        }
    }
}

#[test]
fn servers_see_every_hop_on_the_way_to_the_internet() {
    require_daemon!();
    let gateway = Gateway::start(Topology::builder().narrow(1280), CONFIG).unwrap();
    let far = [IpAddr::from(FAR_TO_ROUTER), FAR_TO_ROUTER6.into()];
    for (family, far) in FAMILIES.into_iter().zip(far) {
        let way = [family.lb_private, family.router_to_lb, far, family.internet].map(Some);
        for probe in PROBES {
            let hops = tools::traceroute(&gateway.topology.web[0], family.internet, probe).unwrap();
            assert_eq!(hops, way, "{probe:?}");
        }
    }
}

#[test]
fn the_client_sees_every_hop_on_the_way_to_the_elastic_address() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    let client = &gateway.topology.client;
    for family in FAMILIES {
        for probe in [Probe::Udp, Probe::Icmp] {
            let hops = tools::traceroute(client, family.elastic, probe).unwrap();
            let way = [family.router_to_client, family.elastic].map(Some);
            assert_eq!(hops, way, "{probe:?}: lbha is the elastic address's own host");
        }
        // The service's SYNs go on to a server, which answers in its name.
        let hops = tools::traceroute(client, family.elastic, Probe::Tcp).unwrap();
        let way = [family.router_to_client, family.lb_public, family.elastic].map(Some);
        assert_eq!(hops, way);
    }
}

#[test]
fn the_elastic_address_answers_ping() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    let before = gateway.lbha.counter("echo_reply").unwrap();
    for family in FAMILIES {
        for arguments in [&["-s", "56"][..], &["-s", "1400"], &["-t", "2"]] {
            let ping = tools::ping(&gateway.topology.client, family.elastic, 5, arguments).unwrap();
            assert_eq!((ping.sent, ping.received), (5, 5), "{}", ping.text);
        }
        let ping = tools::ping(&gateway.topology.web[0], family.elastic, 5, &[]).unwrap();
        assert_eq!((ping.sent, ping.received), (5, 5), "{}", ping.text);
    }
    assert_eq!(gateway.lbha.counter("echo_reply").unwrap() - before, 40);
}

#[test]
fn the_elastic_address_is_silent_where_ping_is_off_and_the_hosts_own_are_not() {
    require_daemon!();
    let config = gateway::config("", "[datapath]\nping = false\n");
    let gateway = Gateway::start(Topology::builder(), &config).unwrap();
    let Topology { client, web, .. } = &gateway.topology;
    for family in FAMILIES {
        let ping = tools::ping(client, family.elastic, 2, &["-W", "0.3"]).unwrap();
        assert_eq!((ping.sent, ping.received), (2, 0), "{}", ping.text);
        assert_eq!(gateway.topology.get(family.service(), "/").unwrap().status, 200);
        for (from, to) in
            [(&gateway.topology.router, family.lb_public), (&web[0], family.lb_private)]
        {
            let ping = tools::ping(from, to, 3, &[]).unwrap();
            assert_eq!((ping.sent, ping.received), (3, 3), "{}", ping.text);
        }
    }
}

#[test]
fn the_hosts_own_addresses_answer_ping_through_the_kernel() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    let Topology { router, lb, web, .. } = &gateway.topology;
    for family in FAMILIES {
        for (from, to) in [
            (router, family.lb_public),
            (&web[1], family.lb_private),
            (&web[1], family.lb_public),
            (lb, family.router_to_lb),
            (lb, family.internet),
            (lb, family.web(0)),
        ] {
            let ping = tools::ping(from, to, 3, &[]).unwrap();
            assert_eq!((ping.sent, ping.received), (3, 3), "{}", ping.text);
        }
    }
    assert_eq!(gateway.lbha.counter("echo_reply").unwrap(), 0);
}

#[test]
fn a_closed_port_on_the_internet_is_refused_to_the_server_that_tries_it() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    let web = &gateway.topology.web[0];
    for family in FAMILIES {
        // ICMP port unreachable, translated.
        let socket = udp::bind(web, (family.web(0), 0)).unwrap();
        socket.connect((family.internet, 9)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send(b"?").unwrap();
        let error = socket.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ECONNREFUSED as i32), "{error}");
        // A RST.
        let error = web
            .run_in(|| tcp::connect((family.internet, 9), &tcp::Options::default()))
            .unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Errno::ECONNREFUSED), "{error:#}");
    }
}

#[test]
fn a_server_beyond_its_quota_is_told_at_once_and_the_other_is_not_concerned() {
    require_daemon!();
    let config = gateway::config("max_ports_per_source = 20", "");
    let gateway = Gateway::start(Topology::builder(), &config).unwrap();
    let [greedy, modest] = &gateway.topology.web[..] else { unreachable!() };
    for family in FAMILIES {
        let connect = || tcp::connect((family.internet, 80), &tcp::Options::default());
        let mut open = Vec::new();
        let error = greedy.run_in(|| {
            loop {
                match connect() {
                    Ok(stream) => open.push(stream),
                    Err(error) => break error,
                }
                assert!(open.len() <= 20, "more connections than its quota");
            }
        });
        assert_eq!(open.len(), 20);
        let errno = error.downcast_ref::<Errno>();
        let told = [Errno::EACCES, Errno::EHOSTUNREACH, Errno::ENETUNREACH, Errno::ECONNREFUSED];
        assert!(errno.is_some_and(|errno| told.contains(errno)), "{error:#}");
        drop(modest.run_in(connect).unwrap());
    }
    let lines = || {
        let logs = gateway.lbha.logs();
        logs.lines().filter(|line| line.contains("connections are refused")).count()
    };
    wait_until(Duration::from_secs(15), "the log says so", || lines() > 0).unwrap();
    // A sweep later it has not said it again: the one that has counted another connection.
    let to = (FAMILIES[0].internet, 80);
    let connect = || tcp::connect(to, &tcp::Options::default());
    greedy.run_in(connect).unwrap_err();
    let counted = || gateway.lbha.status().unwrap().flow_table.connections;
    let (before, _kept) = (counted(), modest.run_in(connect).unwrap());
    wait_until(Duration::from_secs(15), "a sweep", || counted() > before).unwrap();
    assert_eq!(lines(), 1, "{}", gateway.lbha.logs());
}

#[test]
fn pings_outwards_are_shown_as_connections() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    for family in FAMILIES {
        tools::ping(&gateway.topology.web[0], family.internet, 1, &["-e", "77"]).unwrap();
        let flows = gateway.lbha.flows("").unwrap();
        let to_it: Vec<_> = flows.iter().filter(|flow| flow.vip.ip() == family.internet).collect();
        let [flow] = to_it[..] else { panic!("{flows:?}") };
        assert_eq!((flow.protocol.as_str(), flow.state.as_str()), ("icmp", "icmp"));
        assert_eq!((flow.client.ip(), flow.client.port()), (family.web(0), 77));
        assert_eq!(flow.source.ip(), family.lb_public);
        assert_eq!(flow.masquerade.as_deref(), Some(family.network()));
    }
}
