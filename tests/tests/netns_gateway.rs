//! A gateway with a service, masquerade and forwards: real programs through it, over both families.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
};

use lbha_tests::{
    dns::{self, Dns},
    gateway::{self, CONFIG, FAMILIES, Family, Gateway},
    http::{self, Connection, Options},
    nginx::BIG,
    require_daemon,
    tcp::{self, Server},
    tools,
    topology::*,
};

const MIB: u64 = 1 << 20;

#[test]
fn servers_reach_the_internet_from_the_public_address() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    for family in FAMILIES {
        for web in &gateway.topology.web {
            let body = tools::curl(web, &Family::url(family.internet), &[]).unwrap();
            assert_eq!(body, "internet\n");
            let to = SocketAddr::new(family.internet, 80);
            let seen = web.run_in(|| http::get(to, "/")).unwrap().client_seen().unwrap();
            assert_eq!(seen.ip(), family.lb_public);
            assert!((1024..=32767).contains(&seen.port()), "{seen}");
        }
        let flows = gateway.lbha.flows("").unwrap();
        let internet = SocketAddr::new(family.internet, 80);
        let masqueraded: Vec<_> = flows.iter().filter(|flow| flow.vip == internet).collect();
        assert_eq!(masqueraded.len(), 4, "{flows:?}");
        for flow in masqueraded {
            assert_eq!(flow.masquerade.as_deref(), Some(family.network()));
            assert_eq!(flow.source.ip(), family.lb_public);
        }
    }
}

#[test]
fn the_service_answers_while_its_servers_are_masqueraded() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    for family in FAMILIES {
        let answers: BTreeSet<_> = (0..4)
            .map(|_| {
                let response = gateway.topology.get(family.service(), "/").unwrap();
                assert_eq!(response.client_seen().unwrap().ip(), family.lb_private);
                response.text()
            })
            .collect();
        assert_eq!(Vec::from_iter(answers), ["web1\n", "web2\n"]);
    }
}

#[test]
fn names_are_resolved_through_the_gateway() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    let servers = FAMILIES.map(|family| family.internet);
    let dns = Dns::start(gateway.topology.internet(), &servers).unwrap();
    for family in FAMILIES {
        for web in &gateway.topology.web {
            // The first try has to get through.
            let ask = |arguments: &[&str]| {
                tools::dig(web, family.internet, &[&["+tries=1", "+time=5"], arguments].concat())
                    .unwrap()
            };
            assert_eq!(ask(&[dns::NAME, "A"]), [dns::ADDRESS.to_string()]);
            assert_eq!(ask(&[dns::NAME, "AAAA"]), [dns::ADDRESS6.to_string()]);
            let big =
                |flags: &[&str]| BTreeSet::from_iter(ask(&[&[dns::BIG, "TXT"], flags].concat()));
            let over_tcp = big(&["+tcp"]);
            assert_eq!(over_tcp.len(), dns::BIG_RECORDS, "{over_tcp:?}");
            // One datagram in fragments.
            assert_eq!(big(&["+notcp", "+ignore", "+bufsize=4096"]), over_tcp);
        }
        let from = format!("query[A] {} from {}", dns::NAME, family.lb_public);
        assert!(dns.log().contains(&from), "{}", dns.log());
    }
}

#[test]
fn a_hundred_megabytes_pass_the_masquerade_each_way_unchanged() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    for family in FAMILIES {
        let to = SocketAddr::new(family.internet, 7000);
        let server = Server::start(gateway.topology.internet(), to).unwrap();
        gateway.topology.web[0].run_in(|| {
            let stream = tcp::connect(to, &Options::default()).unwrap();
            tcp::transfer(stream, 100 * MIB, 100 * MIB).unwrap();
        });
        let seen = server.seen();
        assert!(seen.iter().all(|peer| peer.ip() == family.lb_public), "{seen:?}");
    }
}

#[test]
fn a_hundred_megabytes_pass_the_service_each_way_unchanged() {
    require_daemon!();
    let gateway = Gateway::start(Topology::builder(), &CONFIG.replace(":80\"", ":7000\"")).unwrap();
    for family in FAMILIES {
        let listen = SocketAddr::new(family.web(0), 7000);
        let server = Server::start(&gateway.topology.web[0], listen).unwrap();
        let _other =
            Server::start(&gateway.topology.web[1], SocketAddr::new(family.web(1), 7000)).unwrap();
        gateway.topology.client.run_in(|| {
            for _ in 0..2 {
                let stream = tcp::connect(family.service(), &Options::default()).unwrap();
                tcp::transfer(stream, 100 * MIB, 100 * MIB).unwrap();
            }
        });
        assert_eq!(server.seen().len(), 1, "each server has had one of the two connections");
    }
}

/// As many open connections of a web server, from consecutive ports.
fn connections(gateway: &Gateway, family: Family, web: usize, to: SocketAddr) -> Vec<TcpStream> {
    gateway.topology.web[web].run_in(|| {
        let ports = PORTS.map(|port| SocketAddr::new(family.web(web), port));
        ports.map(|from| tcp::connect(to, &Options::from(from)).unwrap()).collect()
    })
}

const PORTS: std::ops::Range<u16> = 20_000..20_200;

#[test]
fn two_servers_download_side_by_side_from_the_same_ports() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    for family in FAMILIES {
        let to = SocketAddr::new(family.internet, 7000);
        let server = Server::start(gateway.topology.internet(), to).unwrap();
        // All are open before the first byte.
        let open = [0, 1].map(|web| connections(&gateway, family, web, to));
        thread::scope(|scope| {
            for stream in open.into_iter().flatten() {
                scope.spawn(|| tcp::transfer(stream, 1000, MIB / 4).unwrap());
            }
        });
        let seen = server.seen();
        assert_eq!(seen.len(), 2 * PORTS.len(), "each connection has a port of its own");
        assert!(seen.iter().all(|peer| peer.ip() == family.lb_public));
        let kept = seen.iter().filter(|peer| PORTS.contains(&peer.port())).count();
        assert!(kept >= PORTS.len(), "{kept} have kept their port");
    }
}

#[test]
fn curl_downloads_a_large_file_through_service_and_masquerade() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    let Topology { client, web, .. } = &gateway.topology;
    for family in FAMILIES {
        for (from, to) in [(client, family.elastic), (&web[1], family.internet)] {
            let url = format!("{}big", Family::url(to));
            let arguments =
                ["--output", "/dev/null", "--write-out", "%{http_code} %{size_download}"];
            let told = tools::curl(from, &url, &arguments).unwrap();
            assert_eq!(told, format!("200 {BIG}"));
        }
    }
}

#[test]
fn a_forward_leads_to_its_host_which_sees_the_client() {
    require_daemon!();
    let tables = "[[forward]]
name = \"direct\"
address = \"147.75.78.116:8080\"
to = \"192.168.1.11:80\"

[[forward]]
address = \"[2001:db8:78::116]:8080\"
to = \"[fd00:1::11]:80\"
";
    let gateway = Gateway::start(Topology::builder(), &gateway::config("", tables)).unwrap();
    for family in FAMILIES {
        let to = SocketAddr::new(family.elastic, 8080);
        for port in [5555, 45_678] {
            let source = SocketAddr::new(family.client, port);
            let options = Options::from(source);
            let response =
                gateway.topology.client.run_in(|| http::get_with(to, "/", &options)).unwrap();
            assert_eq!(response.text(), "web2\n");
            assert_eq!(response.client_seen().unwrap(), source);
        }
    }
    let flows = gateway.lbha.flows("service=direct").unwrap();
    assert_eq!(flows.len(), 2, "{flows:?}");
}

#[test]
fn a_server_calls_the_elastic_address_and_is_answered_also_by_itself() {
    require_daemon!();
    for mode in ["fullnat", "nat"] {
        let config = CONFIG.replace("port = 80\n", &format!("port = 80\nmode = \"{mode}\"\n"));
        let gateway = Gateway::start(Topology::builder(), &config).unwrap();
        for family in FAMILIES {
            for web in &gateway.topology.web {
                let answers = web.run_in(|| {
                    let ask = |_| http::get(family.service(), "/").unwrap().text();
                    (0..8).map(ask).collect::<Vec<_>>()
                });
                let both: BTreeSet<_> = answers.iter().map(String::as_str).collect();
                assert_eq!(Vec::from_iter(both), ["web1\n", "web2\n"], "{mode}: {answers:?}");
                let mut connection =
                    web.run_in(|| Connection::open(family.service(), &Options::default())).unwrap();
                for _ in 0..50 {
                    let seen = connection.get("/").unwrap().client_seen().unwrap().ip();
                    assert_eq!(seen, family.lb_private, "{mode}");
                }
            }
        }
    }
}

#[test]
fn the_gateways_own_programs_reach_the_internet_beside_the_masquerade() {
    require_daemon!();
    let gateway = Gateway::new().unwrap();
    for family in FAMILIES {
        let to = SocketAddr::new(family.internet, 80);
        let ports: BTreeSet<IpAddr> = (0..4)
            .map(|_| {
                let response = gateway.topology.lb.run_in(|| http::get(to, "/")).unwrap();
                response.client_seen().unwrap().ip()
            })
            .collect();
        assert_eq!(ports.len(), 1, "{ports:?}");
    }
}
