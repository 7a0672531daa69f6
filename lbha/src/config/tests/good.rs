//! Configurations that are right, and what they mean.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{GOOD, accepts, from_text, good};
use crate::config::schema::TABLES;
use crate::config::*;

const GUIDE: &str = r#"
[interfaces]
public  = "ens14f0"              # XDP attaches here; a bond (bond0) or its member, both work
private = "ens14f1"

[[service]]
name      = "www"
vip       = "147.75.78.116"
port      = 80
protocol  = "tcp"                # tcp | udp
scheduler = "rr"                 # rr | wrr | lc | maglev | source
mode      = "fullnat"            # fullnat (default) | nat
pool      = "nginx_pool"

[[pool]]
name    = "nginx_pool"
servers = [
  { name = "web1", address = "192.168.1.10:80" },
  { name = "web2", address = "192.168.1.11:80" },      # weight = 1, port optional (default: the service's)
]

[admin]
socket = "/run/lbha/admin.sock"
"#;

const EVERYTHING: &str = r#"
interfaces = { public = "bond0", private = "bond0" }

[[service]]
name = "dns"
vip = "203.0.113.53"
port = 53
protocol = "udp"
scheduler = "maglev"
mode = "nat"
pool = "dns"

[[service]]
name = "dns-tcp"
vip = "203.0.113.53"
port = 53
scheduler = "wrr"
pool = "dns"

[[pool]]
name = "dns"

[[pool.servers]]
name = "a"
address = "10.0.0.1"
weight = 256

[[pool.servers]]
name = "b"
address = "10.0.0.2:5353"
weight = 0

[[masquerade]]
source = ["10.0.0.0/24", "fd00:1::/64"]
to = ["203.0.113.53", "2001:db8::53"]
ports = "1024-2047"
mapping = "endpoint-independent"
max_ports_per_source = 100

[[forward]]
name = "ssh"
address = "203.0.113.53:2222"
to = "10.0.0.1:22"
protocol = "tcp"

[datapath]
attach = "native"
max_connections = 0x10_0000
max_connections_v6 = 4096
max_half_open = 1024
fullnat_ports = "1 - 65"
mss_clamp = 1360
ping = false

[timeouts]
tcp_established = "1d12h"
tcp_fin_wait = "1s"
tcp_time_wait = "1500ms"
tcp_reset = "30d"
tcp_syn = "1m30s"
udp = "150s"
udp_unreplied = "2m"
masquerade_tcp_opening = "5m"
masquerade_tcp_closing = "6m"
icmp = "90s"

[admin]
socket = "/tmp/lbha.sock"
"#;

fn server(name: &str, address: [u8; 4], port: Option<u16>, weight: u16) -> Server {
    Server { name: name.to_owned(), address: IpAddr::from(address), port, weight }
}

#[test]
fn the_guides_configuration_is_what_it_says() {
    let expected = Config {
        interfaces: Interfaces { public: "ens14f0".to_owned(), private: "ens14f1".to_owned() },
        services: vec![Service {
            name: "www".to_owned(),
            vip: IpAddr::from([147, 75, 78, 116]),
            port: 80,
            protocol: Protocol::Tcp,
            scheduler: Scheduler::Rr,
            mode: Mode::Fullnat,
            pool: "nginx_pool".to_owned(),
        }],
        pools: vec![Pool {
            name: "nginx_pool".to_owned(),
            servers: vec![
                server("web1", [192, 168, 1, 10], Some(80), 1),
                server("web2", [192, 168, 1, 11], Some(80), 1),
            ],
        }],
        masquerades: Vec::new(),
        forwards: Vec::new(),
        datapath: Datapath::default(),
        timeouts: Timeouts::default(),
        admin: Admin { socket: PathBuf::from("/run/lbha/admin.sock") },
    };
    assert_eq!(accepts(GUIDE), expected);
}

#[test]
fn what_a_file_leaves_out_has_the_documented_default() {
    let config = accepts(&good(&[("private = \"ens14f1\"\n", "")]));
    assert_eq!(config.interfaces.private, "ens14f0", "one arm");

    let service = &config.services[0];
    assert_eq!(service.protocol, Protocol::Tcp);
    assert_eq!(service.scheduler, Scheduler::Rr);
    assert_eq!(service.mode, Mode::Fullnat);
    assert_eq!(config.pools[0].servers[0].weight, 1);

    assert_eq!(config.datapath.attach, Attach::Auto);
    assert_eq!(config.datapath.max_connections, 1_000_000);
    assert_eq!(config.datapath.max_half_open, 65_536);
    assert_eq!(config.datapath.max_connections_v6, 250_000);
    assert_eq!(config.datapath.fullnat_ports, PortRange { first: 1024, last: 32_767 });
    assert_eq!(config.datapath.mss_clamp, MssClamp::Auto);
    assert!(config.datapath.ping);

    let timeouts = config.timeouts;
    assert_eq!(timeouts.tcp_established, Duration::from_secs(124 * 60));
    assert_eq!(timeouts.tcp_fin_wait, Duration::from_secs(120));
    assert_eq!(timeouts.tcp_time_wait, Duration::from_secs(60));
    assert_eq!(timeouts.tcp_reset, Duration::from_secs(240));
    assert_eq!(timeouts.tcp_syn, Duration::from_secs(60));
    assert_eq!(timeouts.udp, Duration::from_secs(300));
    assert_eq!(timeouts.udp_unreplied, Duration::from_secs(120));
    assert_eq!(timeouts.masquerade_tcp_opening, Duration::from_secs(240));
    assert_eq!(timeouts.masquerade_tcp_closing, Duration::from_secs(240));
    assert_eq!(timeouts.icmp, Duration::from_secs(60));

    assert_eq!(config.admin.socket, Path::new("/run/lbha/admin.sock"));
}

#[test]
fn empty_tables_are_the_same_as_none() {
    let text = format!("{GOOD}\n[datapath]\n\n[timeouts]\n\n[admin]\n");
    assert_eq!(accepts(&text), accepts(GOOD));
}

#[test]
fn every_key_is_read() {
    let config = accepts(EVERYTHING);
    assert_eq!(
        config.interfaces,
        Interfaces { public: "bond0".to_owned(), private: "bond0".to_owned() }
    );
    assert_eq!(config.services.len(), 2);
    let dns = &config.services[0];
    assert_eq!(
        (dns.protocol, dns.scheduler, dns.mode),
        (Protocol::Udp, Scheduler::Maglev, Mode::Nat)
    );
    assert_eq!(config.services[1].scheduler, Scheduler::Wrr);
    assert_eq!(
        config.pool("dns").expect("it is there").servers,
        [server("a", [10, 0, 0, 1], None, 256), server("b", [10, 0, 0, 2], Some(5353), 0)]
    );
    assert_eq!(config.pool("none"), None);
    assert_eq!(
        config.datapath,
        Datapath {
            attach: Attach::Native,
            max_connections: 1_048_576,
            max_half_open: 1024,
            max_connections_v6: 4096,
            fullnat_ports: PortRange { first: 1, last: 65 },
            mss_clamp: MssClamp::To(1360),
            ping: false,
        }
    );
    assert_eq!(config.datapath.fullnat_ports.count(), 65);
    assert_eq!(
        config.timeouts,
        Timeouts {
            tcp_established: Duration::from_secs(36 * 3600),
            tcp_fin_wait: Duration::from_secs(1),
            tcp_time_wait: Duration::from_millis(1500),
            tcp_reset: Duration::from_secs(30 * 24 * 3600),
            tcp_syn: Duration::from_secs(90),
            udp: Duration::from_secs(150),
            udp_unreplied: Duration::from_secs(120),
            masquerade_tcp_opening: Duration::from_secs(300),
            masquerade_tcp_closing: Duration::from_secs(360),
            icmp: Duration::from_secs(90),
        }
    );
    assert_eq!((config.masquerades.len(), config.forwards.len()), (1, 1));
    assert_eq!(config.admin.socket, Path::new("/tmp/lbha.sock"));
}

#[test]
fn the_same_address_may_serve_another_port_or_protocol() {
    let more = "\n[[service]]\nname = \"s\"\nvip = \"147.75.78.116\"\nport = 80\n\
                protocol = \"udp\"\npool = \"web\"\n";
    accepts(&format!("{GOOD}{more}"));
}

#[test]
fn one_server_may_listen_on_two_ports_of_a_pool() {
    accepts(&good(&[("192.168.1.11:80", "192.168.1.10:81")]));
}

#[test]
fn the_longest_names_are_accepted() {
    let name = "a".repeat(63);
    let config =
        accepts(&good(&[("\"www\"", &format!("\"{name}\"")), ("ens14f0", "a23456789b12345")]));
    assert_eq!(config.services[0].name, name);
    assert_eq!(config.interfaces.public, "a23456789b12345");
}

#[test]
fn the_largest_pool_is_accepted_and_one_server_more_is_not() {
    let pool = |count: usize| {
        let servers: String = (1..=count)
            .map(|i| {
                format!("{{ name = \"s{i}\", address = \"10.0.{}.{}\" }},\n", i / 256, i % 256)
            })
            .collect();
        good(&[(
            "{ name = \"web1\", address = \"192.168.1.10:80\" },\n  { name = \"web2\", address = \
             \"192.168.1.11:80\" },",
            &servers,
        )])
    };
    assert_eq!(accepts(&pool(MAX_SERVERS)).pools[0].servers.len(), MAX_SERVERS);
    let report = from_text(&pool(MAX_SERVERS + 1)).report;
    let found = &report.diagnostics()[0];
    assert_eq!(found.message, "too many servers in a pool: 256 of at most 255");
    assert_eq!(found.line, Some(269), "the first one too many");
}

#[test]
fn the_largest_number_of_services_is_accepted_and_one_more_is_not() {
    let services = |count: usize| {
        let more: String = (1..count)
            .map(|i| {
                format!(
                    "[[service]]\nname = \"s{i}\"\nvip = \"10.1.{}.{}\"\nport = 80\npool = \
                     \"web\"\n",
                    i / 256,
                    i % 256
                )
            })
            .collect();
        let one_server = ("  { name = \"web2\", address = \"192.168.1.11:80\" },\n", "");
        format!("{}{more}", good(&[one_server]))
    };
    assert_eq!(accepts(&services(MAX_SERVICES)).services.len(), MAX_SERVICES);
    let report = from_text(&services(MAX_SERVICES + 1)).report;
    assert_eq!(report.summary(), "lbha.toml: 1 error");
    assert_eq!(report.diagnostics()[0].message, "too many services: 4097 of at most 4096");
}

#[test]
fn line_ends_and_a_byte_order_mark_of_other_systems_change_nothing() {
    let text = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
    assert_eq!(accepts(&text), accepts(GOOD));
}

#[test]
fn words_are_spelled_the_same_in_the_file_in_text_and_in_json() {
    fn check<T: Copy + std::fmt::Display + serde::Serialize>(all: &[T], words: &[&str]) {
        let text: Vec<String> = all.iter().map(T::to_string).collect();
        assert_eq!(text, words);
        assert_eq!(serde_json::to_value(all).unwrap(), serde_json::to_value(words).unwrap());
    }
    check(Protocol::ALL, &["tcp", "udp"]);
    check(Scheduler::ALL, &["rr", "wrr", "maglev", "source"]);
    check(Mode::ALL, &["fullnat", "nat"]);
    check(Attach::ALL, &["auto", "native", "generic"]);
    check(Mapping::ALL, &["endpoint-dependent", "endpoint-independent"]);
    assert_eq!(format!("{:>6}|{:<6}|", Protocol::Tcp, Mode::Nat), "   tcp|nat   |");
}

#[test]
fn json_spells_durations_and_ranges_like_the_file() {
    let json = serde_json::to_value(accepts(EVERYTHING)).unwrap();
    assert_eq!(json["timeouts"]["tcp_established"], "1d12h");
    assert_eq!(json["timeouts"]["tcp_time_wait"], "1s500ms");
    assert_eq!(json["datapath"]["fullnat_ports"], "1-65");
    assert_eq!(json["datapath"]["mss_clamp"], 1360);
    let default = serde_json::to_value(Datapath::default()).unwrap();
    assert_eq!((&default["mss_clamp"], &default["ping"]), (&"auto".into(), &true.into()));
    assert_eq!(serde_json::to_value(MssClamp::Off).unwrap(), "off");
    assert_eq!(json["services"][0]["scheduler"], "maglev");
    assert_eq!(json["pools"][0]["servers"][0]["port"], serde_json::Value::Null);
    assert_eq!(duration_text(Duration::ZERO), "0s");
    assert_eq!(duration_text(Duration::from_secs(124 * 60)), "2h4m");
}

#[test]
fn the_documentation_has_a_working_example_and_every_key() {
    let text = include_str!("../../../../docs/config.md");
    let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    accepts(example.expect("the document begins with an example"));
    let keys = TABLES
        .iter()
        .flat_map(|table| table.keys.iter().copied().chain(table.later.iter().map(|(_, key)| *key)))
        .filter(|key| *key != "[vrrp]");
    for key in keys {
        let forms = [format!("`{key}`"), format!("`[{key}]`"), format!("`[[{key}]]`")];
        assert!(forms.iter().any(|form| text.contains(form)), "{key} is not documented");
    }
}
