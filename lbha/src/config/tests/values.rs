//! Single values: names, addresses, ports and words.

use super::{good, refuses};

#[test]
fn port_zero_is_out_of_range() {
    refuses(
        &good(&[("port = 80", "port = 0")]),
        "
error: a port must be between 1 and 65535, found 0
 --> lbha.toml:8:8
  |
8 | port = 0
  |        ^

lbha.toml: 1 error
",
    );
}

#[test]
fn a_port_of_seventeen_bits_is_out_of_range() {
    refuses(
        &good(&[("port = 80", "port = 70000")]),
        "
error: a port must be between 1 and 65535, found 70000
 --> lbha.toml:8:8
  |
8 | port = 70000
  |        ^^^^^

lbha.toml: 1 error
",
    );
}

#[test]
fn a_negative_port_is_out_of_range() {
    refuses(
        &good(&[("port = 80", "port = -1")]),
        "
error: a port must be between 1 and 65535, found -1
 --> lbha.toml:8:8
  |
8 | port = -1
  |        ^^

lbha.toml: 1 error
",
    );
}

#[test]
fn a_servers_port_is_out_of_range() {
    refuses(
        &good(&[("192.168.1.10:80", "192.168.1.10:99999")]),
        r#"
error: a port must be between 1 and 65535, found 99999
  --> lbha.toml:14:30
   |
14 |   { name = "web1", address = "192.168.1.10:99999" },
   |                              ^^^^^^^^^^^^^^^^^^^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_servers_port_that_is_a_word_is_refused() {
    refuses(
        &good(&[("192.168.1.10:80", "192.168.1.10:http")]),
        r#"
error: "http" is not a port
  --> lbha.toml:14:30
   |
14 |   { name = "web1", address = "192.168.1.10:http" },
   |                              ^^^^^^^^^^^^^^^^^^^
   |
   = help: a port is a number between 1 and 65535

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_host_name_is_not_an_address() {
    refuses(
        &good(&[("192.168.1.10:80", "web1.example.com:80")]),
        r#"
error: "web1.example.com" is not an IP address
  --> lbha.toml:14:30
   |
14 |   { name = "web1", address = "web1.example.com:80" },
   |                              ^^^^^^^^^^^^^^^^^^^^^
   |
   = help: host names are not looked up: write the address

lbha.toml: 1 error
"#,
    );
}

#[test]
fn an_octet_too_large_is_not_an_address() {
    refuses(
        &good(&[(r#""147.75.78.116""#, r#""147.75.78.300""#)]),
        r#"
error: "147.75.78.300" is not an IP address
 --> lbha.toml:7:7
  |
7 | vip = "147.75.78.300"
  |       ^^^^^^^^^^^^^^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_vip_with_a_port_is_taken_apart() {
    refuses(
        &good(&[(r#""147.75.78.116""#, r#""147.75.78.116:443""#)]),
        r#"
error: "147.75.78.116:443" is not an IP address
 --> lbha.toml:7:7
  |
7 | vip = "147.75.78.116:443"
  |       ^^^^^^^^^^^^^^^^^^^
  |
  = help: the port has its own key: write `vip = "147.75.78.116"` and `port = 443`

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_vip_with_a_prefix_length_is_refused() {
    refuses(
        &good(&[(r#""147.75.78.116""#, r#""147.75.78.116/32""#)]),
        r#"
error: "147.75.78.116/32" is not an IP address
 --> lbha.toml:7:7
  |
7 | vip = "147.75.78.116/32"
  |       ^^^^^^^^^^^^^^^^^^
  |
  = help: write it without a prefix length: "147.75.78.116"

lbha.toml: 1 error
"#,
    );
}

#[test]
fn an_unspecified_vip_is_refused() {
    refuses(
        &good(&[(r#""147.75.78.116""#, r#""0.0.0.0""#)]),
        r#"
error: 0.0.0.0 cannot be a VIP: it is the unspecified address
 --> lbha.toml:7:7
  |
7 | vip = "0.0.0.0"
  |       ^^^^^^^^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_multicast_vip_is_refused() {
    refuses(
        &good(&[(r#""147.75.78.116""#, r#""224.0.0.18""#)]),
        r#"
error: 224.0.0.18 cannot be a VIP: it is a multicast address
 --> lbha.toml:7:7
  |
7 | vip = "224.0.0.18"
  |       ^^^^^^^^^^^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_broadcast_server_is_refused() {
    refuses(
        &good(&[("192.168.1.10:80", "255.255.255.255:80")]),
        r#"
error: 255.255.255.255 cannot be a server's address: it is the broadcast address
  --> lbha.toml:14:30
   |
14 |   { name = "web1", address = "255.255.255.255:80" },
   |                              ^^^^^^^^^^^^^^^^^^^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_loopback_server_is_refused() {
    refuses(
        &good(&[("192.168.1.10:80", "127.0.0.1:80")]),
        r#"
error: 127.0.0.1 cannot be a server's address: it is a loopback address
  --> lbha.toml:14:30
   |
14 |   { name = "web1", address = "127.0.0.1:80" },
   |                              ^^^^^^^^^^^^^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn an_unknown_scheduler_is_named_with_its_neighbour() {
    refuses(
        &good(&[(
            "port = 80",
            r#"port = 80
scheduler = "magelv""#,
        )]),
        r#"
error: unknown scheduler "magelv"
 --> lbha.toml:9:13
  |
9 | scheduler = "magelv"
  |             ^^^^^^^^
  |
  = help: did you mean "maglev"?

lbha.toml: 1 error
"#,
    );
}

#[test]
fn haproxys_roundrobin_is_translated() {
    refuses(
        &good(&[(
            "port = 80",
            r#"port = 80
scheduler = "roundrobin""#,
        )]),
        r#"
error: unknown scheduler "roundrobin"
 --> lbha.toml:9:13
  |
9 | scheduler = "roundrobin"
  |             ^^^^^^^^^^^^
  |
  = help: did you mean "rr"?

lbha.toml: 1 error
"#,
    );
}

#[test]
fn an_unknown_mode_lists_the_modes() {
    refuses(
        &good(&[(
            "port = 80",
            r#"port = 80
mode = "dsr""#,
        )]),
        r#"
error: unknown mode "dsr"
 --> lbha.toml:9:8
  |
9 | mode = "dsr"
  |        ^^^^^
  |
  = help: write one of "fullnat", "nat"

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_protocol_in_capitals_is_named_in_small_letters() {
    refuses(
        &good(&[(
            "port = 80",
            r#"port = 80
protocol = "UDP""#,
        )]),
        r#"
error: unknown protocol "UDP"
 --> lbha.toml:9:12
  |
9 | protocol = "UDP"
  |            ^^^^^
  |
  = help: did you mean "udp"?

lbha.toml: 1 error
"#,
    );
}

#[test]
fn an_empty_interface_name_is_refused() {
    refuses(
        &good(&[(r#""ens14f0""#, r#""""#)]),
        r#"
error: an interface name must not be empty
 --> lbha.toml:2:10
  |
2 | public = ""
  |          ^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn an_interface_name_of_sixteen_characters_is_refused() {
    refuses(
        &good(&[(r#""ens14f0""#, r#""abcdefghijklmnop""#)]),
        r#"
error: an interface name must not be longer than 15 characters, found 16
 --> lbha.toml:2:10
  |
2 | public = "abcdefghijklmnop"
  |          ^^^^^^^^^^^^^^^^^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn an_interface_alias_is_refused() {
    refuses(
        &good(&[(r#""ens14f0""#, r#""eth0:1""#)]),
        r#"
error: an interface name must not contain ':'
 --> lbha.toml:2:10
  |
2 | public = "eth0:1"
  |          ^^^^^^^^
  |
  = help: an alias is not an interface: write the part before the `:`

lbha.toml: 1 error
"#,
    );
}

#[test]
fn an_empty_name_is_refused() {
    refuses(
        &good(&[(r#"name = "www""#, r#"name = """#)]),
        r#"
error: a name must not be empty
 --> lbha.toml:6:8
  |
6 | name = ""
  |        ^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_space_in_a_name_is_refused() {
    refuses(
        &good(&[(r#"name = "www""#, r#"name = "my site""#)]),
        r#"
error: a name must not contain ' '
 --> lbha.toml:6:8
  |
6 | name = "my site"
  |        ^^^^^^^^^
  |
  = help: allowed are letters, digits, `_`, `.` and `-`

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_name_of_sixty_four_characters_is_refused() {
    refuses(
        &good(&[(
            r#"name = "www""#,
            r#"name = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa""#,
        )]),
        r#"
error: a name must not be longer than 63 characters, found 64
 --> lbha.toml:6:8
  |
6 | name = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
  |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

lbha.toml: 1 error
"#,
    );
}
