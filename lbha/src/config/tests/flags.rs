//! Flags on top of a file, without a file, and wrong ones.

use std::path::{Path, PathBuf};

use super::{GOOD, assert_same};
use crate::config::*;

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// The quick start of the documentation.
fn quick() -> Overrides {
    Overrides {
        iface: Some("ens14f0".to_owned()),
        vip: texts(&["147.75.78.116:80"]),
        server: texts(&["192.168.1.10:80", "192.168.1.11"]),
        ..Overrides::default()
    }
}

fn with_file(flags: &Overrides) -> Loaded {
    load(Some((Path::new("lbha.toml"), GOOD)), flags)
}

#[track_caller]
fn accepts(loaded: Loaded) -> Config {
    assert_eq!(loaded.report.render(false), "");
    loaded.config.expect("no errors, so a configuration")
}

#[track_caller]
fn refuses(loaded: Loaded, expected: &str) {
    assert_same(&loaded.report.render(false), expected);
    assert_eq!(loaded.config, None);
}

#[test]
fn flags_alone_are_enough() {
    let config = accepts(load(None, &quick()));
    assert_eq!(
        config.interfaces,
        Interfaces { public: "ens14f0".to_owned(), private: "ens14f0".to_owned() }
    );
    assert_eq!(
        config.services,
        [Service {
            name: "cli-1".to_owned(),
            vip: "147.75.78.116".parse().unwrap(),
            port: 80,
            protocol: Protocol::Tcp,
            scheduler: Scheduler::Rr,
            mode: Mode::Fullnat,
            pool: "cli".to_owned(),
        }]
    );
    let servers: Vec<_> = config.pools[0]
        .servers
        .iter()
        .map(|server| (server.name.as_str(), server.address.to_string(), server.port))
        .collect();
    assert_eq!(
        servers,
        [
            ("server-1", "192.168.1.10".to_owned(), Some(80)),
            ("server-2", "192.168.1.11".to_owned(), None)
        ]
    );
    assert_eq!(config.datapath, Datapath::default());
    assert_eq!(config.timeouts, Timeouts::default());
}

#[test]
fn the_services_of_flags_take_their_other_properties_from_flags() {
    let config = accepts(load(
        None,
        &Overrides {
            vip: texts(&["147.75.78.116:53", "147.75.78.117:53"]),
            scheduler: Some("source".to_owned()),
            mode: Some("nat".to_owned()),
            protocol: Some("udp".to_owned()),
            private_iface: Some("ens14f1".to_owned()),
            ..quick()
        },
    ));
    assert_eq!(config.interfaces.private, "ens14f1");
    assert_eq!(config.services.len(), 2);
    assert_eq!(config.services[1].name, "cli-2");
    for service in &config.services {
        assert_eq!(
            (service.scheduler, service.mode, service.protocol),
            (Scheduler::Source, Mode::Nat, Protocol::Udp)
        );
    }
}

#[test]
fn an_interface_flag_leaves_the_rest_to_the_file() {
    let file = accepts(with_file(&Overrides::default()));
    let config =
        accepts(with_file(&Overrides { iface: Some("eth9".to_owned()), ..Overrides::default() }));
    assert_eq!(
        config.interfaces,
        Interfaces { public: "eth9".to_owned(), private: "ens14f1".to_owned() }
    );
    assert_eq!(config.services, file.services);
    assert_eq!(config.pools, file.pools);
}

#[test]
fn an_interface_flag_makes_up_for_a_file_without_interfaces() {
    let text = GOOD.split_once("\n\n").expect("the first table ends there").1;
    let flags = Overrides { iface: Some("eth9".to_owned()), ..Overrides::default() };
    let config = accepts(load(Some((Path::new("lbha.toml"), text)), &flags));
    assert_eq!(config.interfaces.private, "eth9");
}

#[test]
fn vip_and_server_replace_the_services_and_pools_of_the_file() {
    let config = accepts(with_file(&Overrides { iface: None, ..quick() }));
    let names = |list: Vec<&String>| list.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(config.services.iter().map(|service| &service.name).collect()), ["cli-1"]);
    assert_eq!(names(config.pools.iter().map(|pool| &pool.name).collect()), ["cli"]);
    assert_eq!(config.interfaces.public, "ens14f0");
}

#[test]
fn vip_and_server_make_up_for_a_file_without_services() {
    let text = "[timeouts]\nudp = \"1m\"\n";
    let config = accepts(load(Some((Path::new("lbha.toml"), text)), &quick()));
    assert_eq!(config.timeouts.udp.as_secs(), 60);
}

#[test]
fn the_runtime_directory_moves_the_admin_socket_unless_the_file_names_it() {
    let flags = Overrides { runtime_dir: Some(PathBuf::from("/tmp/a")), ..Overrides::default() };
    assert_eq!(accepts(with_file(&flags)).admin.socket, Path::new("/tmp/a/admin.sock"));
    let text = format!("{GOOD}\n[admin]\nsocket = \"/run/lbha/admin.sock\"\n");
    let config = accepts(load(Some((Path::new("lbha.toml"), &text)), &flags));
    assert_eq!(config.admin.socket, Path::new("/run/lbha/admin.sock"));
}

#[test]
fn nothing_at_all_says_everything_that_is_missing() {
    refuses(
        load(None, &Overrides::default()),
        "
error: without a configuration file, --iface, --vip and --server are missing
 |
 = help: for example: --iface eth0 --vip 203.0.113.10:80 --server 192.168.1.10:80, or --iface eth0 --private-iface eth1 --masquerade 192.168.1.0/24

command line: 1 error
",
    );
}

#[test]
fn without_a_file_the_one_missing_flag_is_named() {
    refuses(
        load(None, &Overrides { server: Vec::new(), ..quick() }),
        "
error: without a configuration file, --server is missing
 |
 = help: for example: --iface eth0 --vip 203.0.113.10:80 --server 192.168.1.10:80

command line: 1 error
",
    );
}

#[test]
fn a_vip_needs_a_server_also_with_a_file() {
    refuses(
        with_file(&Overrides { server: Vec::new(), ..quick() }),
        "
error: --server is missing
 |
 = help: --vip and --server together replace the services of the file

lbha.toml: 1 error
",
    );
}

#[test]
fn a_server_needs_a_vip_also_with_a_file() {
    refuses(
        with_file(&Overrides { vip: Vec::new(), ..quick() }),
        "
error: --vip is missing
 |
 = help: --vip and --server together replace the services of the file

lbha.toml: 1 error
",
    );
}

#[test]
fn wrong_flags_are_reported_all_at_once_with_the_flag() {
    let flags = Overrides {
        iface: Some("eth0:1".to_owned()),
        private_iface: Some(String::new()),
        vip: texts(&["1.2.3.4", "1.2.3.4:0", "2001:db8::1", "[::1]:80", "1.2.3.4:80:90"]),
        server: texts(&["web1:80", "127.0.0.1"]),
        scheduler: Some("lc".to_owned()),
        mode: Some("nta".to_owned()),
        protocol: Some("icmp".to_owned()),
        masquerade: texts(&["192.168.1.1/24", "::/0", ""]),
        runtime_dir: None,
    };
    refuses(
        load(None, &flags),
        r#"
error: --iface eth0:1: an interface name must not contain ':'
 |
 = help: an alias is not an interface: write the part before the `:`

error: --private-iface "": an interface name must not be empty

error: --masquerade 192.168.1.1/24: "192.168.1.1/24" has bits set behind its prefix
 |
 = help: write "192.168.1.0/24" for the network, or "192.168.1.1" for the host alone

error: --masquerade ::/0: ::/0 cannot be a source: it is every address
 |
 = help: write the networks behind the gateway, such as "192.168.1.0/24"

error: --masquerade "": "" is not a network
 |
 = help: write an address and the length of its prefix, such as "192.168.1.0/24"

error: --protocol icmp: unknown protocol "icmp"
 |
 = help: write one of "tcp", "udp"

error: --scheduler lc: scheduler "lc" is not supported yet
 |
 = help: write one of "rr", "wrr", "maglev", "source"

error: --mode nta: unknown mode "nta"
 |
 = help: did you mean "nat"?

error: --vip 1.2.3.4: a VIP needs its port
 |
 = help: write --vip 1.2.3.4:80

error: --vip 1.2.3.4:0: a port must be between 1 and 65535, found 0

error: --vip 2001:db8::1: a VIP needs its port
 |
 = help: write --vip [2001:db8::1]:80

error: --vip [::1]:80: ::1 cannot be a VIP: it is the loopback address

error: --vip 1.2.3.4:80:90: "1.2.3.4:80:90" is not an IP address

error: --server web1:80: "web1" is not an IP address
 |
 = help: host names are not looked up: write the address

error: --server 127.0.0.1: 127.0.0.1 cannot be a server's address: it is a loopback address

command line: 15 errors
"#,
    );
}

#[test]
fn flags_take_ipv6() {
    let config = accepts(load(
        None,
        &Overrides {
            vip: texts(&["[2001:db8::116]:80"]),
            server: texts(&["[fd00:1::10]:8080", "fd00:1::11"]),
            ..quick()
        },
    ));
    assert_eq!(config.services[0].vip.to_string(), "2001:db8::116");
    let servers: Vec<_> =
        config.pools[0].servers.iter().map(|s| (s.address.to_string(), s.port)).collect();
    assert_eq!(servers, [("fd00:1::10".to_owned(), Some(8080)), ("fd00:1::11".to_owned(), None)]);
}

#[test]
fn a_gateway_alone_needs_no_service() {
    let flags = Overrides {
        iface: Some("ens14f0".to_owned()),
        private_iface: Some("ens14f1".to_owned()),
        masquerade: texts(&["192.168.1.0/24", "fd00:1::/64"]),
        ..Overrides::default()
    };
    let config = accepts(load(None, &flags));
    assert_eq!(config.services, []);
    assert_eq!(
        config.masquerades,
        [Masquerade {
            source: vec!["192.168.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            to: MasqueradeTo::Auto,
            ports: Masquerade::PORTS,
            mapping: Mapping::EndpointDependent,
            max_ports_per_source: Masquerade::MAX_PORTS_PER_SOURCE,
        }]
    );
    refuses(load(None, &Overrides { iface: None, mode: Some("nat".to_owned()), ..flags }), "
error: without a configuration file, --iface is missing
 |
 = help: for example: --iface eth0 --vip 203.0.113.10:80 --server 192.168.1.10:80, or --iface eth0 --private-iface eth1 --masquerade 192.168.1.0/24

error: --mode nat: only the services of --vip take this flag
 |
 = help: leave it out, or add --vip and --server

command line: 2 errors
");
}

#[test]
fn masquerade_replaces_those_of_the_file_and_nothing_else() {
    let text = format!(
        "{GOOD}\n[[masquerade]]\nsource = \"10.0.0.0/8\"\nto = \"interface\"\n\n[[forward]]\n\
         address = \"147.75.78.116:22\"\nto = \"192.168.1.10:22\"\n"
    );
    let file = Some((Path::new("lbha.toml"), text.as_str()));
    let before = accepts(load(file, &Overrides::default()));
    let flags = Overrides { masquerade: texts(&["192.168.1.0/24"]), ..Overrides::default() };
    let config = accepts(load(file, &flags));
    assert_eq!(config.masquerades.len(), 1);
    assert_eq!(config.masquerades[0].source[0].to_string(), "192.168.1.0/24");
    assert_eq!(config.masquerades[0].to, MasqueradeTo::Auto);
    assert_eq!((config.services, config.forwards), (before.services, before.forwards));
    // And makes up for a file without any purpose.
    let text = "[interfaces]\npublic = \"eth0\"\n";
    accepts(load(Some((Path::new("lbha.toml"), text)), &flags));
}

#[test]
fn a_flag_given_twice_is_harmless() {
    let flags = Overrides {
        iface: Some("eth0".to_owned()),
        masquerade: texts(&["10.0.0.0/8", "10.1.0.0/16"]),
        ..Overrides::default()
    };
    let loaded = load(None, &flags);
    assert!(loaded.config.is_some());
    assert_same(
        &loaded.report.render(false),
        "
warning: --masquerade 10.1.0.0/16: 10.1.0.0/16 has no effect: it is in 10.0.0.0/8
 |
 = note: --masquerade 10.0.0.0/8: already here
 = help: remove it

command line: 1 warning
",
    );
}

#[test]
fn flags_are_checked_against_each_other() {
    let flags = Overrides {
        vip: texts(&["1.2.3.4:80", "1.2.3.4:80"]),
        server: texts(&["10.0.0.1", "10.0.0.1:80", "1.2.3.4"]),
        ..quick()
    };
    refuses(
        load(None, &flags),
        "
error: --vip 1.2.3.4:80: 1.2.3.4:80/tcp is served twice
 |
 = note: --vip 1.2.3.4:80: first served here

error: --server 10.0.0.1:80: the server 10.0.0.1:80 is in the pool twice
 |
 = note: --server 10.0.0.1: first defined here

error: --server 1.2.3.4: the server 1.2.3.4 is a VIP
 |
 = note: --vip 1.2.3.4:80: the VIP of a service
 = help: write the server's own address: packets to a VIP come back here

command line: 3 errors
",
    );
}

#[test]
fn a_flag_for_services_without_a_vip_would_have_no_effect() {
    let flags = Overrides { scheduler: Some("maglev".to_owned()), ..Overrides::default() };
    refuses(
        with_file(&flags),
        "
error: --scheduler maglev: only the services of --vip take this flag
 |
 = help: set it for each service in the file, or add --vip

lbha.toml: 1 error
",
    );
}

#[test]
fn flags_come_before_the_file_and_both_are_reported() {
    let flags = Overrides { iface: Some("a/b".to_owned()), ..Overrides::default() };
    refuses(
        load(Some((Path::new("lbha.toml"), "[interfaces\n")), &flags),
        "
error: --iface a/b: an interface name must not contain '/'

error: unclosed table, expected `]`
 --> lbha.toml:1:12
  |
1 | [interfaces
  |            ^

lbha.toml: 2 errors
",
    );
}

#[test]
fn a_control_character_in_a_flag_does_not_reach_the_terminal() {
    let flags = Overrides { iface: Some("\u{1b}[31m\n".to_owned()), ..quick() };
    refuses(
        load(None, &flags),
        r"
error: --iface \u{1b}[31m\n: an interface name must not contain '\u{1b}'

command line: 1 error
",
    );
}
