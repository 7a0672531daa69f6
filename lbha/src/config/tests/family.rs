//! Addresses of IPv6, and the two families side by side.

use super::{accepts, good, refuses};
use crate::config::*;

/// The good configuration over IPv6.
const GOOD_V6: [(&str, &str); 3] = [
    ("\"147.75.78.116\"", "\"2001:db8::116\""),
    ("\"192.168.1.10:80\"", "\"[fd00:1::10]:80\""),
    ("\"192.168.1.11:80\"", "\"[fd00:1::11]\""),
];

#[test]
fn a_service_over_ipv6() {
    let config = accepts(&good(&GOOD_V6));
    assert_eq!(config.services[0].vip.to_string(), "2001:db8::116");
    let servers: Vec<_> =
        config.pools[0].servers.iter().map(|s| (s.address.to_string(), s.port)).collect();
    assert_eq!(servers, [("fd00:1::10".to_owned(), Some(80)), ("fd00:1::11".to_owned(), None)]);
}

#[test]
fn an_address_without_a_port_needs_no_brackets() {
    let plain = good(&GOOD_V6).replace("[fd00:1::11]", "fd00:1::11");
    assert_eq!(accepts(&plain), accepts(&good(&GOOD_V6)));
}

#[test]
fn one_service_for_each_family() {
    accepts(&format!(
        "{}{}",
        good(&[]),
        r#"
[[service]]
name = "www6"
vip = "2001:db8::116"
port = 80
pool = "web6"

[[pool]]
name = "web6"
servers = [{ name = "web1", address = "fd00:1::10" }]
"#
    ));
}

#[test]
fn a_vip_and_its_servers_are_of_one_family() {
    refuses(
        &good(&[
            ("\"192.168.1.11:80\"", "\"[fd00:1::11]:80\""),
            (
                "[[pool]]",
                r#"[[service]]
name = "www6"
vip = "2001:db8::116"
port = 80
pool = "web"

[[pool]]"#,
            ),
        ]),
        r#"
error: the server 192.168.1.10 is IPv4, and the VIP 2001:db8::116 is IPv6
  --> lbha.toml:20:30
   |
13 | vip = "2001:db8::116"
   |       --------------- the VIP of a service that uses the pool
...
20 |   { name = "web1", address = "192.168.1.10:80" },
   |                              ^^^^^^^^^^^^^^^^^
   |
   = help: make a pool for each family: lbha does not translate one into the other

error: the server fd00:1::11 is IPv6, and the VIP 147.75.78.116 is IPv4
  --> lbha.toml:21:30
   |
 7 | vip = "147.75.78.116"
   |       --------------- the VIP of a service that uses the pool
...
21 |   { name = "web2", address = "[fd00:1::11]:80" },
   |                              ^^^^^^^^^^^^^^^^^
   |
   = help: make a pool for each family: lbha does not translate one into the other

lbha.toml: 2 errors
"#,
    );
}

#[test]
fn a_vip_over_ipv6_is_served_once() {
    refuses(
        &format!(
            "{}{}",
            good(&GOOD_V6),
            r#"
[[service]]
name = "again"
vip = "2001:DB8:0::116"
port = 80
pool = "web"
"#
        ),
        r#"
error: [2001:db8::116]:80/tcp is served twice
  --> lbha.toml:20:7
   |
 7 | vip = "2001:db8::116"
   |       --------------- first served here
...
20 | vip = "2001:DB8:0::116"
   |       ^^^^^^^^^^^^^^^^^ again here

lbha.toml: 1 error
"#,
    );
}

#[test]
fn what_an_ipv6_vip_cannot_be() {
    for (vip, message, help) in [
        ("::", ":: cannot be a VIP: it is the unspecified address", None),
        ("::1", "::1 cannot be a VIP: it is the loopback address", None),
        ("ff02::1", "ff02::1 cannot be a VIP: it is a multicast address", None),
        (
            "fe80::1",
            "fe80::1 cannot be a VIP: it is a link-local address, which means nothing without its interface",
            None,
        ),
        (
            "fe80::1%ens14f0",
            "fe80::1 cannot be a VIP: it is a link-local address, which means nothing without its interface",
            None,
        ),
        (
            "2001:db8::1%ens14f0",
            "\"2001:db8::1%ens14f0\" is not an IP address",
            Some("write it without the zone: \"2001:db8::1\""),
        ),
        (
            "::ffff:147.75.78.116",
            "::ffff:147.75.78.116 is an address of IPv4 in the form of IPv6",
            Some("write \"147.75.78.116\""),
        ),
        (
            "2001:db8::1/64",
            "\"2001:db8::1/64\" is not an IP address",
            Some("write it without a prefix length: \"2001:db8::1\""),
        ),
        (
            "[2001:db8::1]:80",
            "\"[2001:db8::1]:80\" is not an IP address",
            Some("the port has its own key: write `vip = \"2001:db8::1\"` and `port = 80`"),
        ),
        (
            "[2001:db8::1]",
            "\"[2001:db8::1]\" is not an IP address",
            Some("write it without brackets: \"2001:db8::1\""),
        ),
        ("2001:db8::g", "\"2001:db8::g\" is not an IP address", None),
    ] {
        one(&good(&[("\"147.75.78.116\"", &format!("\"{vip}\""))]), message, help);
    }
}

#[test]
fn what_an_ipv6_server_cannot_be() {
    for (server, message, help) in [
        (
            "fd00:1::1:80",
            "\"fd00:1::1:80\" may be an address, or one with a port",
            Some("write \"[fd00:1::1]:80\" with the port, or \"[fd00:1::1:80]\" without one"),
        ),
        (
            "fd00:1:0:0:0:0:0:10:8080",
            "\"fd00:1:0:0:0:0:0:10:8080\" is not an IP address",
            Some("write \"[fd00:1:0:0:0:0:0:10]:8080\""),
        ),
        (
            "[fd00:1::10",
            "\"[fd00:1::10\" has no closing bracket",
            Some("write an IPv6 address with a port like \"[2001:db8::1]:80\""),
        ),
        (
            "[fd00:1::10]80",
            "\"[fd00:1::10]80\" is not an IP address",
            Some("a port follows the bracket after a colon: \"[fd00:1::10]:80\""),
        ),
        (
            "[192.168.1.10]:80",
            "\"[192.168.1.10]:80\" is not an IP address",
            Some("brackets are for IPv6: write \"192.168.1.10:80\""),
        ),
        ("[fd00:1::10]:0", "a port must be between 1 and 65535, found 0", None),
        (
            "[fd00:1::10]:http",
            "\"http\" is not a port",
            Some("a port is a number between 1 and 65535"),
        ),
        (
            "[web1]:80",
            "\"web1\" is not an IP address",
            Some("host names are not looked up: write the address"),
        ),
        ("[::1]:80", "::1 cannot be a server's address: it is the loopback address", None),
        (
            "[::ffff:192.168.1.10]:80",
            "::ffff:192.168.1.10 is an address of IPv4 in the form of IPv6",
            Some("write \"192.168.1.10\""),
        ),
    ] {
        one(&good(&[("\"192.168.1.10:80\"", &format!("\"{server}\""))]), message, help);
    }
}

#[test]
fn the_same_server_however_it_is_spelled() {
    refuses(
        &good(&GOOD_V6).replace("[fd00:1::11]", "fd00:0001:0::10"),
        r#"
error: the server fd00:1::10 is in the pool twice
  --> lbha.toml:15:30
   |
14 |   { name = "web1", address = "[fd00:1::10]:80" },
   |                              ----------------- first defined here
15 |   { name = "web2", address = "fd00:0001:0::10" },
   |                              ^^^^^^^^^^^^^^^^^ again here

lbha.toml: 1 error
"#,
    );
}

#[track_caller]
fn one(text: &str, message: &str, help: Option<&str>) {
    let found = super::from_text(text).report.diagnostics();
    let [found] = &found[..] else { panic!("{message}: {found:?}") };
    assert_eq!((found.severity, found.message.as_str()), (Severity::Error, message));
    assert_eq!(found.help.as_deref(), help, "{message}");
}
