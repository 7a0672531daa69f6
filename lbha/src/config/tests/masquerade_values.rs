//! Masquerades: single values that are wrong.

use super::masquerade::gateway;
use super::{refuses, warns};

#[test]
fn what_a_source_cannot_be() {
    refuses(
        &gateway(
            r#"[[masquerade]]
source = [
  "192.168.1.1/24",
  "fd00:1::1/64",
  "0.0.0.0/0",
  "::/0",
  "192.168.1.0/255.255.255.0",
  "10.0.0.0/33",
  "fd00::/129",
  "10.0.0/8",
  "servers",
  "::ffff:10.0.0.0/104",
  "127.0.0.0/8",
  "169.254.1.0/24",
  "224.0.0.0/4",
  "fe80::/64",
  "ff02::/16",
  "::1",
  24,
]
"#,
        ),
        r#"
error: "192.168.1.1/24" has bits set behind its prefix
 --> lbha.toml:7:3
  |
7 |   "192.168.1.1/24",
  |   ^^^^^^^^^^^^^^^^
  |
  = help: write "192.168.1.0/24" for the network, or "192.168.1.1" for the host alone

error: "fd00:1::1/64" has bits set behind its prefix
 --> lbha.toml:8:3
  |
8 |   "fd00:1::1/64",
  |   ^^^^^^^^^^^^^^
  |
  = help: write "fd00:1::/64" for the network, or "fd00:1::1" for the host alone

error: 0.0.0.0/0 cannot be a source: it is every address
 --> lbha.toml:9:3
  |
9 |   "0.0.0.0/0",
  |   ^^^^^^^^^^^
  |
  = help: write the networks behind the gateway, such as "192.168.1.0/24"

error: ::/0 cannot be a source: it is every address
  --> lbha.toml:10:3
   |
10 |   "::/0",
   |   ^^^^^^
   |
   = help: write the networks behind the gateway, such as "192.168.1.0/24"

error: the length of a prefix is a number from 0 to 32 here, found "255.255.255.0"
  --> lbha.toml:11:3
   |
11 |   "192.168.1.0/255.255.255.0",
   |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^
   |
   = help: write "192.168.1.0/24"

error: the length of a prefix is a number from 0 to 32 here, found "33"
  --> lbha.toml:12:3
   |
12 |   "10.0.0.0/33",
   |   ^^^^^^^^^^^^^

error: the length of a prefix is a number from 0 to 128 here, found "129"
  --> lbha.toml:13:3
   |
13 |   "fd00::/129",
   |   ^^^^^^^^^^^^

error: "10.0.0/8" is not a network
  --> lbha.toml:14:3
   |
14 |   "10.0.0/8",
   |   ^^^^^^^^^^
   |
   = help: write an address and the length of its prefix, such as "192.168.1.0/24"

error: "servers" is not a network
  --> lbha.toml:15:3
   |
15 |   "servers",
   |   ^^^^^^^^^
   |
   = help: write an address and the length of its prefix, such as "192.168.1.0/24"

error: ::ffff:10.0.0.0/104 is a network of IPv4 in the form of IPv6
  --> lbha.toml:16:3
   |
16 |   "::ffff:10.0.0.0/104",
   |   ^^^^^^^^^^^^^^^^^^^^^
   |
   = help: write "10.0.0.0/8"

error: 127.0.0.0/8 cannot be a source: it is a loopback network
  --> lbha.toml:17:3
   |
17 |   "127.0.0.0/8",
   |   ^^^^^^^^^^^^^

error: 169.254.1.0/24 cannot be a source: it is a link-local network, which no router forwards
  --> lbha.toml:18:3
   |
18 |   "169.254.1.0/24",
   |   ^^^^^^^^^^^^^^^^

error: 224.0.0.0/4 cannot be a source: it is a multicast network
  --> lbha.toml:19:3
   |
19 |   "224.0.0.0/4",
   |   ^^^^^^^^^^^^^

error: fe80::/64 cannot be a source: it is a link-local network, which no router forwards
  --> lbha.toml:20:3
   |
20 |   "fe80::/64",
   |   ^^^^^^^^^^^

error: ff02::/16 cannot be a source: it is a multicast network
  --> lbha.toml:21:3
   |
21 |   "ff02::/16",
   |   ^^^^^^^^^^^

error: ::1/128 cannot be a source: it is the unspecified or the loopback address
  --> lbha.toml:22:3
   |
22 |   "::1",
   |   ^^^^^

error: `source` must hold strings, found an integer
  --> lbha.toml:23:3
   |
23 |   24,
   |   ^^

lbha.toml: 17 errors
"#,
    );
}

#[test]
fn a_source_that_is_missing_empty_or_no_text() {
    refuses(
        &gateway(
            r#"[[masquerade]]
to = "auto"

[[masquerade]]
source = []

[[masquerade]]
source = 24
"#,
        ),
        r#"
error: [[masquerade]] has no `source`
 --> lbha.toml:5:1
  |
5 | [[masquerade]]
  | ^^^^^^^^^^^^^^
  |
  = help: add `source = ["192.168.1.0/24"]`

error: `source` must not be empty
 --> lbha.toml:9:10
  |
9 | source = []
  |          ^^
  |
  = help: write `source = ["192.168.1.0/24"]`

error: `source` must be a string or an array of strings, found an integer
  --> lbha.toml:12:10
   |
12 | source = 24
   |          ^^
   |
   = help: write `source = ["192.168.1.0/24"]`

lbha.toml: 3 errors
"#,
    );
}

#[test]
fn what_connections_cannot_leave_with() {
    refuses(
        &gateway(
            r#"[[masquerade]]
source = "192.168.1.0/24"
to = [
  "0.0.0.0",
  "127.0.0.1",
  "224.0.0.1",
  "255.255.255.255",
  "169.254.0.1",
  "::",
  "fe80::1",
  "ff02::1",
  "::ffff:147.75.78.116",
  "147.75.78.116/32",
  "147.75.78.116:80",
  "[2001:db8::1]",
  "elastic",
  "auto",
  true,
]

[[masquerade]]
source = "192.168.2.0/24"
to = []

[[masquerade]]
source = "192.168.3.0/24"
to = "atuo"

[[masquerade]]
source = "192.168.4.0/24"
to = "elastic"

[[masquerade]]
source = "192.168.5.0/24"
to = "web1"
"#,
        ),
        r#"
error: 0.0.0.0 cannot be an address to masquerade to: it is the unspecified address
 --> lbha.toml:8:3
  |
8 |   "0.0.0.0",
  |   ^^^^^^^^^

error: 127.0.0.1 cannot be an address to masquerade to: it is a loopback address
 --> lbha.toml:9:3
  |
9 |   "127.0.0.1",
  |   ^^^^^^^^^^^

error: 224.0.0.1 cannot be an address to masquerade to: it is a multicast address
  --> lbha.toml:10:3
   |
10 |   "224.0.0.1",
   |   ^^^^^^^^^^^

error: 255.255.255.255 cannot be an address to masquerade to: it is the broadcast address
  --> lbha.toml:11:3
   |
11 |   "255.255.255.255",
   |   ^^^^^^^^^^^^^^^^^

error: 169.254.0.1 cannot be an address to masquerade to: it is a link-local address, which no router forwards
  --> lbha.toml:12:3
   |
12 |   "169.254.0.1",
   |   ^^^^^^^^^^^^^

error: :: cannot be an address to masquerade to: it is the unspecified address
  --> lbha.toml:13:3
   |
13 |   "::",
   |   ^^^^

error: fe80::1 cannot be an address to masquerade to: it is a link-local address, which means nothing without its interface
  --> lbha.toml:14:3
   |
14 |   "fe80::1",
   |   ^^^^^^^^^

error: ff02::1 cannot be an address to masquerade to: it is a multicast address
  --> lbha.toml:15:3
   |
15 |   "ff02::1",
   |   ^^^^^^^^^

error: ::ffff:147.75.78.116 is an address of IPv4 in the form of IPv6
  --> lbha.toml:16:3
   |
16 |   "::ffff:147.75.78.116",
   |   ^^^^^^^^^^^^^^^^^^^^^^
   |
   = help: write "147.75.78.116"

error: "147.75.78.116/32" is not an IP address
  --> lbha.toml:17:3
   |
17 |   "147.75.78.116/32",
   |   ^^^^^^^^^^^^^^^^^^
   |
   = help: write it without a prefix length: "147.75.78.116"

error: "147.75.78.116:80" is not an IP address
  --> lbha.toml:18:3
   |
18 |   "147.75.78.116:80",
   |   ^^^^^^^^^^^^^^^^^^
   |
   = help: write it without a port: "147.75.78.116"

error: "[2001:db8::1]" is not an IP address
  --> lbha.toml:19:3
   |
19 |   "[2001:db8::1]",
   |   ^^^^^^^^^^^^^^^
   |
   = help: write it without brackets: "2001:db8::1"

error: "elastic" is not an IP address
  --> lbha.toml:20:3
   |
20 |   "elastic",
   |   ^^^^^^^^^
   |
   = help: host names are not looked up: write the address

error: "auto" cannot be in a list
  --> lbha.toml:21:3
   |
21 |   "auto",
   |   ^^^^^^
   |
   = help: write `to = "auto"`, or a list of addresses alone

error: `to` must hold strings, found a boolean
  --> lbha.toml:22:3
   |
22 |   true,
   |   ^^^^

error: `to` must not be empty
  --> lbha.toml:27:6
   |
27 | to = []
   |      ^^
   |
   = help: write `to = ["203.0.113.10"]`

error: "atuo" is not an IP address
  --> lbha.toml:31:6
   |
31 | to = "atuo"
   |      ^^^^^^
   |
   = help: did you mean "auto"?

error: "elastic" is not an IP address
  --> lbha.toml:35:6
   |
35 | to = "elastic"
   |      ^^^^^^^^^
   |
   = help: did you mean "auto"?

error: "web1" is not an IP address
  --> lbha.toml:39:6
   |
39 | to = "web1"
   |      ^^^^^^
   |
   = help: host names are not looked up: write the address

lbha.toml: 19 errors
"#,
    );
}

#[test]
fn ports_that_belong_to_somebody_else() {
    warns(
        &gateway(
            r#"[[masquerade]]
source = "10.0.0.0/8"
ports = "512-65535"
"#,
        ),
        r#"
warning: the range reaches into the ports that Linux gives to this host's own connections
 --> lbha.toml:7:9
  |
7 | ports = "512-65535"
  |         ^^^^^^^^^^^
  |
  = help: end it at 32767, or move `net.ipv4.ip_local_port_range` out of its way

warning: the range has ports below 1024, which belong to services, also those of this host
 --> lbha.toml:7:9
  |
7 | ports = "512-65535"
  |         ^^^^^^^^^^^
  |
  = help: begin it at 1024

lbha.toml: 2 warnings
"#,
    );
}

#[test]
fn other_values_that_are_wrong() {
    refuses(
        &gateway(
            r#"[[masquerade]]
source = "10.0.0.0/8"
ports = "1024"
mapping = "symmetric"
max_ports_per_source = 0

[[masquerade]]
source = "fd00::/8"
ports = 1024
mapping = "endpoint_independent"
max_ports_per_source = 16_000_001
"#,
        ),
        r#"
error: "1024" is not a range of ports
 --> lbha.toml:7:9
  |
7 | ports = "1024"
  |         ^^^^^^
  |
  = help: write the first and the last port, such as "1024-32767"

error: unknown mapping "symmetric"
 --> lbha.toml:8:11
  |
8 | mapping = "symmetric"
  |           ^^^^^^^^^^^
  |
  = help: did you mean "endpoint-dependent"?

error: `max_ports_per_source` must be between 1 and 16000000, found 0
 --> lbha.toml:9:24
  |
9 | max_ports_per_source = 0
  |                        ^

error: `ports` must be a string, found an integer
  --> lbha.toml:13:9
   |
13 | ports = 1024
   |         ^^^^

error: unknown mapping "endpoint_independent"
  --> lbha.toml:14:11
   |
14 | mapping = "endpoint_independent"
   |           ^^^^^^^^^^^^^^^^^^^^^^
   |
   = help: did you mean "endpoint-independent"?

error: `max_ports_per_source` must be between 1 and 16000000, found 16000001
  --> lbha.toml:15:24
   |
15 | max_ports_per_source = 16_000_001
   |                        ^^^^^^^^^^

lbha.toml: 6 errors
"#,
    );
}
