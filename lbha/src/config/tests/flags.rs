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
 = help: for example: --iface eth0 --vip 203.0.113.10:80 --server 192.168.1.10:80

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
        vip: texts(&["1.2.3.4", "1.2.3.4:0", "[2001:db8::1]:80", "1.2.3.4:80:90"]),
        server: texts(&["web1:80", "127.0.0.1"]),
        scheduler: Some("lc".to_owned()),
        mode: Some("nta".to_owned()),
        protocol: Some("icmp".to_owned()),
        masquerade: texts(&["192.168.1.0/24"]),
        runtime_dir: None,
    };
    refuses(
        load(None, &flags),
        r#"
error: --iface eth0:1: an interface name must not contain ':'
 |
 = help: an alias is not an interface: write the part before the `:`

error: --private-iface "": an interface name must not be empty

error: --masquerade 192.168.1.0/24: not supported yet
 |
 = help: leave the flag out for now

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

error: --vip [2001:db8::1]:80: IPv6 addresses are not supported yet

error: --vip 1.2.3.4:80:90: "1.2.3.4:80:90" is not an IPv4 address

error: --server web1:80: "web1" is not an IPv4 address
 |
 = help: host names are not looked up: write the address

error: --server 127.0.0.1: 127.0.0.1 cannot be a server's address: it is a loopback address

command line: 12 errors
"#,
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
