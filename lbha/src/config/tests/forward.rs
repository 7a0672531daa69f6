//! Forwards: what they mean, and what is wrong with them.

use super::{GOOD, accepts, from_text, good, refuses};
use crate::config::*;

const FORWARD: &str = r#"[[forward]]
address = "147.75.78.116:2222"
to = "192.168.1.10:22"

"#;

/// The good configuration with a forward and what else is given before its pool.
fn with(more: &str) -> String {
    good(&[("[[pool]]", &format!("{FORWARD}{more}\n[[pool]]"))])
}

#[test]
fn both_families_and_protocols() {
    let config = accepts(&with(
        r#"[[forward]]
name = "dns"
address = "[2001:db8::1]:53"
to = "[fd00:1::10]:5353"
protocol = "udp"
"#,
    ));
    assert_eq!(
        config.forwards,
        [
            Forward {
                name: None,
                address: "147.75.78.116:2222".parse().unwrap(),
                to: "192.168.1.10:22".parse().unwrap(),
                protocol: Protocol::Tcp,
            },
            Forward {
                name: Some("dns".to_owned()),
                address: "[2001:db8::1]:53".parse().unwrap(),
                to: "[fd00:1::10]:5353".parse().unwrap(),
                protocol: Protocol::Udp,
            },
        ]
    );
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(json["forwards"][1]["address"], "[2001:db8::1]:53");
}

#[test]
fn a_forward_alone_is_a_configuration() {
    let config = accepts(&format!("[interfaces]\npublic = \"eth0\"\n\n{FORWARD}"));
    assert_eq!((config.services.len(), config.forwards.len()), (0, 1));
}

#[test]
fn what_forwards_may_share() {
    // Another protocol, another port, the same target, a port that masqueraded connections have too.
    accepts(&with(
        r#"[[forward]]
address = "147.75.78.116:2222"
to = "192.168.1.10:22"
protocol = "udp"

[[forward]]
address = "147.75.78.116:2223"
to = "192.168.1.10:22"

[[masquerade]]
source = "192.168.1.0/24"
to = "147.75.78.116"
"#,
    ));
}

#[test]
fn an_address_port_and_protocol_is_forwarded_once() {
    refuses(
        &with(
            r#"[[forward]]
address = "147.75.78.116:80"
to = "192.168.1.10:8080"

[[forward]]
address = "147.75.78.116:2222"
to = "192.168.1.11:22"
"#,
        ),
        r#"
error: 147.75.78.116:80/tcp is taken already
  --> lbha.toml:16:11
   |
 7 | vip = "147.75.78.116"
   |       --------------- first served here
...
16 | address = "147.75.78.116:80"
   |           ^^^^^^^^^^^^^^^^^^ again here

error: 147.75.78.116:2222/tcp is taken already
  --> lbha.toml:20:11
   |
12 | address = "147.75.78.116:2222"
   |           -------------------- first forwarded here
...
20 | address = "147.75.78.116:2222"
   |           ^^^^^^^^^^^^^^^^^^^^ again here

lbha.toml: 2 errors
"#,
    );
}

#[test]
fn both_ends_are_of_one_family() {
    refuses(
        &with(
            r#"[[forward]]
address = "[2001:db8::1]:22"
to = "192.168.1.10:22"
"#,
        ),
        r#"
error: the target 192.168.1.10 is IPv4, and the address 2001:db8::1 is IPv6
  --> lbha.toml:17:6
   |
16 | address = "[2001:db8::1]:22"
   |           ------------------ the address of the forward
17 | to = "192.168.1.10:22"
   |      ^^^^^^^^^^^^^^^^^
   |
   = help: write both in one family: lbha does not translate one into the other

lbha.toml: 1 error
"#,
    );
}

#[test]
fn neither_a_server_nor_a_target_is_an_address_of_ours() {
    refuses(
        &good(&[
            (
                "[[pool]]",
                r#"[[forward]]
address = "147.75.78.117:2222"
to = "147.75.78.116:22"

[[forward]]
address = "147.75.78.118:2222"
to = "147.75.78.117:22"

[[pool]]"#,
            ),
            ("192.168.1.11:80", "147.75.78.118:80"),
        ]),
        r#"
error: the target 147.75.78.116 is a VIP
  --> lbha.toml:13:6
   |
 7 | vip = "147.75.78.116"
   |       --------------- the VIP of a service
...
13 | to = "147.75.78.116:22"
   |      ^^^^^^^^^^^^^^^^^^ the same address
   |
   = help: write the target's own address: packets to a VIP come back here

error: the target 147.75.78.117 is the address of a forward
  --> lbha.toml:17:6
   |
12 | address = "147.75.78.117:2222"
   |           -------------------- the address of a forward
...
17 | to = "147.75.78.117:22"
   |      ^^^^^^^^^^^^^^^^^^ the same address
   |
   = help: write the target's own address: packets to the address of a forward come back here

error: the server 147.75.78.118 is the address of a forward
  --> lbha.toml:23:30
   |
16 | address = "147.75.78.118:2222"
   |           -------------------- the address of a forward
...
23 |   { name = "web2", address = "147.75.78.118:80" },
   |                              ^^^^^^^^^^^^^^^^^^ the same address
   |
   = help: write the server's own address: packets to the address of a forward come back here

lbha.toml: 3 errors
"#,
    );
}

#[test]
fn names_are_unique_among_forwards_and_services() {
    refuses(
        &with(
            r#"[[forward]]
name = "www"
address = "147.75.78.116:1"
to = "192.168.1.10:1"

[[forward]]
name = "ssh"
address = "147.75.78.116:2"
to = "192.168.1.10:2"

[[forward]]
name = "ssh"
address = "147.75.78.116:3"
to = "192.168.1.10:3"
"#,
        ),
        r#"
error: the forward "www" has the name of a service
  --> lbha.toml:16:8
   |
 6 | name = "www"
   |        ----- the service
...
16 | name = "www"
   |        ^^^^^

error: the forward "ssh" is defined twice
  --> lbha.toml:26:8
   |
21 | name = "ssh"
   |        ----- first defined here
...
26 | name = "ssh"
   |        ^^^^^ again here

lbha.toml: 2 errors
"#,
    );
}

#[test]
fn what_the_ends_cannot_be() {
    refuses(
        &with(
            r#"[[forward]]
address = "147.75.78.116"
to = "192.168.1.10"

[[forward]]
address = "2001:db8::1"
to = "[fd00:1::10]"

[[forward]]
address = "127.0.0.1:22"
to = "[fe80::1]:22"

[[forward]]
address = "147.75.78.116:0"
to = "web1:22"

[[forward]]
address = "[::ffff:1.2.3.4]:22"
to = "224.0.0.1:22"
protocol = "icmp"

[[forward]]
"#,
        ),
        r#"
error: the address of a forward needs its port
  --> lbha.toml:16:11
   |
16 | address = "147.75.78.116"
   |           ^^^^^^^^^^^^^^^
   |
   = help: for example "147.75.78.116:22"

error: the target of a forward needs its port
  --> lbha.toml:17:6
   |
17 | to = "192.168.1.10"
   |      ^^^^^^^^^^^^^^
   |
   = help: for example "192.168.1.10:22"

error: the address of a forward needs its port
  --> lbha.toml:20:11
   |
20 | address = "2001:db8::1"
   |           ^^^^^^^^^^^^^
   |
   = help: for example "[2001:db8::1]:22"

error: the target of a forward needs its port
  --> lbha.toml:21:6
   |
21 | to = "[fd00:1::10]"
   |      ^^^^^^^^^^^^^^
   |
   = help: for example "[fd00:1::10]:22"

error: 127.0.0.1 cannot be the address of a forward: it is a loopback address
  --> lbha.toml:24:11
   |
24 | address = "127.0.0.1:22"
   |           ^^^^^^^^^^^^^^

error: fe80::1 cannot be the target of a forward: it is a link-local address, which means nothing without its interface
  --> lbha.toml:25:6
   |
25 | to = "[fe80::1]:22"
   |      ^^^^^^^^^^^^^^

error: a port must be between 1 and 65535, found 0
  --> lbha.toml:28:11
   |
28 | address = "147.75.78.116:0"
   |           ^^^^^^^^^^^^^^^^^

error: "web1" is not an IP address
  --> lbha.toml:29:6
   |
29 | to = "web1:22"
   |      ^^^^^^^^^
   |
   = help: host names are not looked up: write the address

error: ::ffff:1.2.3.4 is an address of IPv4 in the form of IPv6
  --> lbha.toml:32:11
   |
32 | address = "[::ffff:1.2.3.4]:22"
   |           ^^^^^^^^^^^^^^^^^^^^^
   |
   = help: write "1.2.3.4"

error: 224.0.0.1 cannot be the target of a forward: it is a multicast address
  --> lbha.toml:33:6
   |
33 | to = "224.0.0.1:22"
   |      ^^^^^^^^^^^^^^

error: unknown protocol "icmp"
  --> lbha.toml:34:12
   |
34 | protocol = "icmp"
   |            ^^^^^^
   |
   = help: write one of "tcp", "udp"

error: [[forward]] has no `address`
  --> lbha.toml:36:1
   |
36 | [[forward]]
   | ^^^^^^^^^^^
   |
   = help: add `address = "203.0.113.10:2222"`

error: [[forward]] has no `to`
  --> lbha.toml:36:1
   |
36 | [[forward]]
   | ^^^^^^^^^^^
   |
   = help: add `to = "192.168.1.10:22"`

lbha.toml: 13 errors
"#,
    );
}

#[test]
fn words_of_iptables_are_translated() {
    refuses(
        &with(
            r#"[[dnat]]
address = "147.75.78.116:22"

[[port_forward]]
address = "147.75.78.116:22"

[[forward]]
vip = "147.75.78.116:23"
to_destination = "192.168.1.10:22"
proto = "tcp"
port = 22
"#,
        ),
        r#"
error: unknown table `dnat`
  --> lbha.toml:15:1
   |
15 | [[dnat]]
   | ^^^^^^^^
   |
   = help: did you mean `forward`?

error: unknown table `port_forward`
  --> lbha.toml:18:1
   |
18 | [[port_forward]]
   | ^^^^^^^^^^^^^^^^
   |
   = help: did you mean `forward`?

error: unknown key `vip` in [[forward]]
  --> lbha.toml:22:1
   |
22 | vip = "147.75.78.116:23"
   | ^^^
   |
   = help: did you mean `address`?

error: unknown key `to_destination` in [[forward]]
  --> lbha.toml:23:1
   |
23 | to_destination = "192.168.1.10:22"
   | ^^^^^^^^^^^^^^
   |
   = help: did you mean `to`?

error: unknown key `proto` in [[forward]]
  --> lbha.toml:24:1
   |
24 | proto = "tcp"
   | ^^^^^
   |
   = help: did you mean `protocol`?

error: unknown key `port` in [[forward]]
  --> lbha.toml:25:1
   |
25 | port = 22
   | ^^^^
   |
   = help: the ports are parts of `address` and `to`, such as "192.168.1.10:22"

lbha.toml: 6 errors
"#,
    );
}

#[test]
fn forwards_count_as_servers() {
    let forwards = |count: usize| {
        let more: String = (1..=count)
            .map(|i| {
                format!(
                    "[[forward]]\naddress = \"10.1.{}.{}:22\"\nto = \"192.168.1.10:22\"\n",
                    i / 256,
                    i % 256
                )
            })
            .collect();
        format!("{GOOD}{more}")
    };
    // The two servers count too.
    assert_eq!(accepts(&forwards(MAX_SERVICES - 2)).forwards.len(), 4094);
    let report = from_text(&forwards(MAX_SERVICES - 1)).report;
    assert_eq!(report.summary(), "lbha.toml: 1 error");
    assert_eq!(
        report.diagnostics()[0].message,
        "too many servers and forwards: 4097 of at most 4096 together"
    );
}
