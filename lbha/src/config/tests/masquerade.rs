//! Masquerades: what they mean, and how they go together.

use std::time::Duration;

use lbha_common::covers;

use super::{accepts, from_text, good, refuses, warns};
use crate::config::*;

/// A gateway without any service; `block` follows the interfaces.
pub(super) fn gateway(block: &str) -> String {
    format!("[interfaces]\npublic = \"ens14f0\"\nprivate = \"ens14f1\"\n\n{block}")
}

fn prefixes(texts: &[&str]) -> Vec<crate::net::IpPrefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_gateway_alone_is_a_configuration_with_the_documented_defaults() {
    let config = accepts(&gateway("[[masquerade]]\nsource = [\"192.168.1.0/24\"]\n"));
    assert_eq!(config.services, []);
    assert_eq!(config.pools, []);
    assert_eq!(
        config.masquerades,
        [Masquerade {
            source: prefixes(&["192.168.1.0/24"]),
            to: MasqueradeTo::Auto,
            ports: PortRange { first: 1024, last: 32_767 },
            mapping: Mapping::EndpointDependent,
            max_ports_per_source: 16_384,
        }]
    );
}

#[test]
fn every_key_is_read() {
    let config = accepts(&gateway(
        r#"[[masquerade]]
source = ["192.168.1.0/24", "fd00:1::/64", "10.0.0.9"]
to = ["147.75.78.116", "2001:db8::116", "147.75.78.117"]
ports = "2048-4095"
mapping = "endpoint-independent"
max_ports_per_source = 512
"#,
    ));
    assert_eq!(
        config.masquerades,
        [Masquerade {
            source: prefixes(&["192.168.1.0/24", "fd00:1::/64", "10.0.0.9/32"]),
            to: MasqueradeTo::Addresses(vec![
                "147.75.78.116".parse().unwrap(),
                "2001:db8::116".parse().unwrap(),
                "147.75.78.117".parse().unwrap(),
            ]),
            ports: PortRange { first: 2048, last: 4095 },
            mapping: Mapping::EndpointIndependent,
            max_ports_per_source: 512,
        }]
    );
}

#[test]
fn one_string_is_a_list_of_one() {
    let list = "[[masquerade]]\nsource = [\"fd00:1::/64\"]\nto = [\"2001:db8::116\"]\n";
    let string = "[[masquerade]]\nsource = \"fd00:1::/64\"\nto = \"2001:db8::116\"\n";
    assert_eq!(accepts(&gateway(string)), accepts(&gateway(list)));
}

#[test]
fn the_words_of_to() {
    for (word, expected) in [("auto", MasqueradeTo::Auto), ("interface", MasqueradeTo::Interface)] {
        let text = format!("[[masquerade]]\nsource = \"10.0.0.0/8\"\nto = \"{word}\"\n");
        assert_eq!(accepts(&gateway(&text)).masquerades[0].to, expected);
    }
}

#[test]
fn networks_side_by_side_may_be_in_masquerades_of_their_own() {
    let config = accepts(&gateway(
        r#"[[masquerade]]
source = ["10.0.0.0/9", "fd00::/16"]

[[masquerade]]
source = ["10.128.0.0/9", "fd01::/16"]
to = "interface"
"#,
    ));
    assert_eq!(config.masquerades.len(), 2);
}

#[test]
fn json_spells_masquerades_like_the_file() {
    let config = accepts(&gateway(
        r#"[[masquerade]]
source = ["192.168.1.0/24", "fd00:1::/64"]

[[masquerade]]
source = "10.0.0.0/8"
to = "147.75.78.116"
"#,
    ));
    let json = serde_json::to_value(config).unwrap();
    assert_eq!(
        json["masquerades"][0],
        serde_json::json!({
            "source": ["192.168.1.0/24", "fd00:1::/64"],
            "to": "auto",
            "ports": "1024-32767",
            "mapping": "endpoint-dependent",
            "max_ports_per_source": 16_384,
        })
    );
    assert_eq!(json["masquerades"][1]["to"], serde_json::json!(["147.75.78.116"]));
}

#[test]
fn a_network_in_two_masquerades_is_refused() {
    refuses(
        &gateway(
            r#"[[masquerade]]
source = ["192.168.1.0/24", "10.1.0.0/16"]

[[masquerade]]
source = ["192.168.1.0/24"]

[[masquerade]]
source = ["10.0.0.0/8"]
"#,
        ),
        r#"
error: 192.168.1.0/24 is masqueraded twice
 --> lbha.toml:9:11
  |
6 | source = ["192.168.1.0/24", "10.1.0.0/16"]
  |           ---------------- first masqueraded here
...
9 | source = ["192.168.1.0/24"]
  |           ^^^^^^^^^^^^^^^^ again here
  |
  = help: every host may be in one [[masquerade]] only

error: 10.1.0.0/16 is masqueraded twice: it is in 10.0.0.0/8
  --> lbha.toml:12:11
   |
 6 | source = ["192.168.1.0/24", "10.1.0.0/16"]
   |                             ------------- first masqueraded here
...
12 | source = ["10.0.0.0/8"]
   |           ^^^^^^^^^^^^ again here
   |
   = help: every host may be in one [[masquerade]] only

lbha.toml: 2 errors
"#,
    );
}

#[test]
fn a_network_twice_in_one_masquerade_is_harmless() {
    warns(
        &gateway(
            r#"[[masquerade]]
source = ["192.168.1.0/24", "192.168.0.0/16", "fd00::/64", "fd00::/64"]
"#,
        ),
        r#"
warning: 192.168.1.0/24 has no effect: it is in 192.168.0.0/16
 --> lbha.toml:6:11
  |
6 | source = ["192.168.1.0/24", "192.168.0.0/16", "fd00::/64", "fd00::/64"]
  |           ^^^^^^^^^^^^^^^^  ---------------- already here
  |
  = help: remove it

warning: fd00::/64 is in the list twice
 --> lbha.toml:6:60
  |
6 | source = ["192.168.1.0/24", "192.168.0.0/16", "fd00::/64", "fd00::/64"]
  |                                               -----------  ^^^^^^^^^^^
  |                                               |
  |                                               already here
  |
  = help: remove it

lbha.toml: 2 warnings
"#,
    );
}

#[test]
fn to_needs_an_address_of_each_family_of_the_source() {
    refuses(
        &gateway(
            r#"[[masquerade]]
source = ["192.168.1.0/24", "fd00:1::/64"]
to = "147.75.78.116"
"#,
        ),
        r#"
error: `to` has no IPv6 address
 --> lbha.toml:7:6
  |
6 | source = ["192.168.1.0/24", "fd00:1::/64"]
  |                             ------------- this source is IPv6
7 | to = "147.75.78.116"
  |      ^^^^^^^^^^^^^^^
  |
  = help: add one, or write a [[masquerade]] of its own for fd00:1::/64

lbha.toml: 1 error
"#,
    );
}

#[test]
fn an_address_of_a_family_that_no_source_has() {
    warns(
        &gateway(
            r#"[[masquerade]]
source = "192.168.1.0/24"
to = ["147.75.78.116", "2001:db8::116"]
"#,
        ),
        r#"
warning: 2001:db8::116 has no effect: no source is IPv6
 --> lbha.toml:7:24
  |
7 | to = ["147.75.78.116", "2001:db8::116"]
  |                        ^^^^^^^^^^^^^^^
  |
  = help: add an IPv6 network to `source`, or remove it

lbha.toml: 1 warning
"#,
    );
}

#[test]
fn an_address_in_its_own_source_or_twice() {
    refuses(
        &gateway(
            r#"[[masquerade]]
source = "192.168.1.0/24"
to = ["192.168.1.1", "147.75.78.116", "147.75.78.116"]
"#,
        ),
        r#"
error: 192.168.1.1 is itself in the source 192.168.1.0/24
 --> lbha.toml:7:7
  |
6 | source = "192.168.1.0/24"
  |          ---------------- the source
7 | to = ["192.168.1.1", "147.75.78.116", "147.75.78.116"]
  |       ^^^^^^^^^^^^^
  |
  = help: write a public address of this host, or `to = "auto"`

error: 147.75.78.116 is in the list twice
 --> lbha.toml:7:39
  |
7 | to = ["192.168.1.1", "147.75.78.116", "147.75.78.116"]
  |                      ---------------  ^^^^^^^^^^^^^^^
  |                      |
  |                      first here

lbha.toml: 2 errors
"#,
    );
}

#[test]
fn eight_addresses_of_each_family_and_no_more() {
    let list = |count: usize| {
        let all = (1..=count).flat_map(|i| [format!("147.75.78.{i}"), format!("2001:db8::{i}")]);
        let all: Vec<String> = all.map(|address| format!("\"{address}\"")).collect();
        gateway(&format!(
            "[[masquerade]]\nsource = [\"10.0.0.0/8\", \"fd00::/8\"]\nto = [{}]\n",
            all.join(", ")
        ))
    };
    let config = accepts(&list(MAX_MASQUERADE_ADDRESSES));
    let MasqueradeTo::Addresses(addresses) = &config.masquerades[0].to else { panic!() };
    assert_eq!(addresses.len(), 16);
    let messages: Vec<String> = from_text(&list(MAX_MASQUERADE_ADDRESSES + 1))
        .report
        .diagnostics()
        .into_iter()
        .map(|found| found.message)
        .collect();
    assert_eq!(
        messages,
        ["too many IPv4 addresses: 9 of at most 8", "too many IPv6 addresses: 9 of at most 8",]
    );
}

#[test]
fn the_largest_numbers_of_masquerades_and_sources_and_one_more() {
    let blocks = |blocks: usize, sources: usize| {
        let block = |block: usize| {
            let range = block * sources..(block + 1) * sources;
            let list: Vec<String> =
                range.map(|i| format!("\"10.{}.{}.0/24\"", i / 256, i % 256)).collect();
            format!("[[masquerade]]\nsource = [{}]\n", list.join(", "))
        };
        gateway(&(0..blocks).map(block).collect::<String>())
    };
    assert_eq!(accepts(&blocks(MAX_MASQUERADES, 16)).masquerades.len(), MAX_MASQUERADES);
    let report = from_text(&blocks(MAX_MASQUERADES + 1, 1)).report;
    assert_eq!(report.summary(), "lbha.toml: 1 error");
    assert_eq!(report.diagnostics()[0].message, "too many masquerades: 257 of at most 256");
    let report = from_text(&blocks(1, MAX_MASQUERADE_SOURCES + 1)).report;
    assert_eq!(report.summary(), "lbha.toml: 1 error");
    assert_eq!(
        report.diagnostics()[0].message,
        "too many sources over all masquerades: 4097 of at most 4096"
    );
}

#[test]
fn the_timeouts_are_those_of_a_nat_unless_the_file_says_otherwise() {
    covers!("RFC4787 REQ-5", "RFC4787 REQ-5c", "RFC5382 REQ-5", "RFC7857 2.1b", "RFC7857 2.2b");
    let timeouts = accepts(&gateway("[[masquerade]]\nsource = \"10.0.0.0/8\"\n")).timeouts;
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    assert!(timeouts.udp >= minutes(5) && timeouts.udp_unreplied >= minutes(2));
    assert!(timeouts.tcp_established >= minutes(124));
    let transitory = [timeouts.masquerade_tcp_opening, timeouts.masquerade_tcp_closing];
    assert!(transitory.iter().chain([&timeouts.tcp_reset]).all(|timeout| *timeout >= minutes(4)));
}

#[test]
fn timeouts_that_are_too_short_for_a_nat() {
    let timeouts = r#"
[timeouts]
tcp_established = "1h"
udp = "1m"
udp_unreplied = "119s"
masquerade_tcp_opening = "3m"
masquerade_tcp_closing = "60s"
icmp = "30s"
"#;
    // Of a load balancer nobody asks that.
    accepts(&good(&[("[[pool]]", &format!("{timeouts}\n[[pool]]"))]));
    warns(
        &gateway(&format!("[[masquerade]]\nsource = \"10.0.0.0/8\"\n{timeouts}")),
        r#"
warning: `tcp_established` is shorter than the 2h4m that RFC 5382 REQ-5 asks of a NAT
 --> lbha.toml:9:19
  |
9 | tcp_established = "1h"
  |                   ^^^^
  |
  = help: connections may be cut that their hosts still use: write "2h4m" or more

warning: `udp` is shorter than the 2m that RFC 4787 REQ-5 asks of a NAT
  --> lbha.toml:10:7
   |
10 | udp = "1m"
   |       ^^^^
   |
   = help: connections may be cut that their hosts still use: write "2m" or more

warning: `udp_unreplied` is shorter than the 2m that RFC 4787 REQ-5 asks of a NAT
  --> lbha.toml:11:17
   |
11 | udp_unreplied = "119s"
   |                 ^^^^^^
   |
   = help: connections may be cut that their hosts still use: write "2m" or more

warning: `masquerade_tcp_opening` is shorter than the 4m that RFC 5382 REQ-5 asks of a NAT
  --> lbha.toml:12:26
   |
12 | masquerade_tcp_opening = "3m"
   |                          ^^^^
   |
   = help: connections may be cut that their hosts still use: write "4m" or more

warning: `masquerade_tcp_closing` is shorter than the 4m that RFC 5382 REQ-5 asks of a NAT
  --> lbha.toml:13:26
   |
13 | masquerade_tcp_closing = "60s"
   |                          ^^^^^
   |
   = help: connections may be cut that their hosts still use: write "4m" or more

warning: `icmp` is shorter than the 1m that RFC 5508 REQ-2 asks of a NAT
  --> lbha.toml:14:8
   |
14 | icmp = "30s"
   |        ^^^^^
   |
   = help: connections may be cut that their hosts still use: write "1m" or more

lbha.toml: 6 warnings
"#,
    );
}

#[test]
fn the_least_timeouts_and_those_of_load_balancing_are_no_reason_to_warn() {
    accepts(&gateway(
        r#"[[masquerade]]
source = "10.0.0.0/8"

[timeouts]
tcp_established = "2h4m"
tcp_syn = "5s"
tcp_fin_wait = "5s"
tcp_time_wait = "1s"
tcp_reset = "1s"
udp = "2m"
udp_unreplied = "2m"
masquerade_tcp_opening = "4m"
masquerade_tcp_closing = "4m"
icmp = "60s"
"#,
    ));
}

#[test]
fn words_of_iptables_are_translated() {
    refuses(
        &gateway(
            r#"[[snat]]
source = "10.0.0.0/8"

[[postrouting]]
source = "10.0.0.0/8"

[[masquerade]]
saddr = "10.0.0.0/8"
to-source = "147.75.78.116"
to_ports = "1024-2047"
interface = "ens14f0"
address = "147.75.78.116"

[[masquerad]]
source = "10.0.0.0/8"
"#,
        ),
        r#"
error: unknown table `snat`
 --> lbha.toml:5:1
  |
5 | [[snat]]
  | ^^^^^^^^
  |
  = help: did you mean `masquerade`?

error: unknown table `postrouting`
 --> lbha.toml:8:1
  |
8 | [[postrouting]]
  | ^^^^^^^^^^^^^^^
  |
  = help: did you mean `masquerade`?

error: unknown key `saddr` in [[masquerade]]
  --> lbha.toml:12:1
   |
12 | saddr = "10.0.0.0/8"
   | ^^^^^
   |
   = help: did you mean `source`?

error: unknown key `to-source` in [[masquerade]]
  --> lbha.toml:13:1
   |
13 | to-source = "147.75.78.116"
   | ^^^^^^^^^
   |
   = help: did you mean `to`?

error: unknown key `to_ports` in [[masquerade]]
  --> lbha.toml:14:1
   |
14 | to_ports = "1024-2047"
   | ^^^^^^^^
   |
   = help: did you mean `ports`?

error: unknown key `interface` in [[masquerade]]
  --> lbha.toml:15:1
   |
15 | interface = "ens14f0"
   | ^^^^^^^^^
   |
   = help: write `to = "interface"` for the public interface's own address

error: unknown key `address` in [[masquerade]]
  --> lbha.toml:16:1
   |
16 | address = "147.75.78.116"
   | ^^^^^^^
   |
   = help: did you mean `to`?

error: unknown table `masquerad`
  --> lbha.toml:18:1
   |
18 | [[masquerad]]
   | ^^^^^^^^^^^^^
   |
   = help: did you mean `masquerade`?

lbha.toml: 8 errors
"#,
    );
}

#[test]
fn a_single_masquerade_table_says_how_to_write_it() {
    refuses(
        &gateway("[masquerade]\nsource = \"10.0.0.0/8\"\n"),
        "
error: `masquerade` must be an array of tables, found a table
 --> lbha.toml:5:1
  |
5 | [masquerade]
  | ^^^^^^^^^^^^
  |
  = help: write `[[masquerade]]`

lbha.toml: 1 error
",
    );
}
