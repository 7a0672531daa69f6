//! What only the file as a whole can get wrong: repetitions and references.

use super::{good, refuses};

#[test]
fn a_service_name_twice_shows_the_first() {
    refuses(
        &good(&[(
            "
[[pool]]",
            r#"
[[service]]
name = "www"
vip = "147.75.78.116"
port = 443
pool = "web"

[[pool]]"#,
        )]),
        r#"
error: the service "www" is defined twice
  --> lbha.toml:12:8
   |
 6 | name = "www"
   |        ----- first defined here
...
12 | name = "www"
   |        ^^^^^ again here

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_vip_and_port_twice_shows_the_first() {
    refuses(
        &good(&[(
            "
[[pool]]",
            r#"
[[service]]
name = "www2"
vip = "147.75.78.116"
port = 80
pool = "web"

[[pool]]"#,
        )]),
        r#"
error: 147.75.78.116:80/tcp is served twice
  --> lbha.toml:13:7
   |
 7 | vip = "147.75.78.116"
   |       --------------- first served here
...
13 | vip = "147.75.78.116"
   |       ^^^^^^^^^^^^^^^ again here

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_pool_name_twice_shows_the_first() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[[pool]]
name = "web"
servers = [{ name = "a", address = "192.168.1.9" }]

[[pool]]"#,
        )]),
        r#"
error: the pool "web" is defined twice
  --> lbha.toml:16:8
   |
12 | name = "web"
   |        ----- first defined here
...
16 | name = "web"
   |        ^^^^^ again here

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_server_name_twice_shows_the_first() {
    refuses(
        &good(&[(r#"name = "web2""#, r#"name = "web1""#)]),
        r#"
error: the server "web1" is defined twice
  --> lbha.toml:15:12
   |
14 |   { name = "web1", address = "192.168.1.10:80" },
   |            ------ first defined here
15 |   { name = "web1", address = "192.168.1.11:80" },
   |            ^^^^^^ again here

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_server_address_twice_shows_the_first() {
    refuses(
        &good(&[("192.168.1.11:80", "192.168.1.10:80")]),
        r#"
error: the server 192.168.1.10:80 is in the pool twice
  --> lbha.toml:15:30
   |
14 |   { name = "web1", address = "192.168.1.10:80" },
   |                              ----------------- first defined here
15 |   { name = "web2", address = "192.168.1.10:80" },
   |                              ^^^^^^^^^^^^^^^^^ again here

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_server_is_the_same_with_the_services_port() {
    refuses(
        &good(&[("192.168.1.11:80", "192.168.1.10")]),
        r#"
error: the server 192.168.1.10 is in the pool twice
  --> lbha.toml:15:30
   |
14 |   { name = "web1", address = "192.168.1.10:80" },
   |                              ----------------- first defined here
15 |   { name = "web2", address = "192.168.1.10" },
   |                              ^^^^^^^^^^^^^^ again here

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_server_that_is_the_vip_is_refused() {
    refuses(
        &good(&[("192.168.1.11:80", "147.75.78.116:8080")]),
        r#"
error: the server 147.75.78.116 is a VIP
  --> lbha.toml:15:30
   |
 7 | vip = "147.75.78.116"
   |       --------------- the VIP of a service
...
15 |   { name = "web2", address = "147.75.78.116:8080" },
   |                              ^^^^^^^^^^^^^^^^^^^^ the same address
   |
   = help: write the server's own address: packets to a VIP come back here

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_mistyped_pool_is_named_with_its_neighbour() {
    refuses(
        &good(&[(r#"pool = "web""#, r#"pool = "wbe""#)]),
        r#"
error: there is no pool "wbe"
 --> lbha.toml:9:8
  |
9 | pool = "wbe"
  |        ^^^^^
  |
  = help: did you mean "web"?

lbha.toml: 1 error
"#,
    );
}

#[test]
fn an_unknown_pool_lists_the_pools() {
    refuses(
        &good(&[(r#"pool = "web""#, r#"pool = "database""#)]),
        r#"
error: there is no pool "database"
 --> lbha.toml:9:8
  |
9 | pool = "database"
  |        ^^^^^^^^^^
  |
  = help: known pools: "web"

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_pool_without_servers_is_refused() {
    refuses(
        &good(&[(
            r#"servers = [
  { name = "web1", address = "192.168.1.10:80" },
  { name = "web2", address = "192.168.1.11:80" },
]"#,
            "servers = []",
        )]),
        r#"
error: a pool must have a server
  --> lbha.toml:13:11
   |
13 | servers = []
   |           ^^
   |
   = help: write `servers = [{ name = "web1", address = "192.168.1.10:80" }]`

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_service_without_any_pool_says_so() {
    refuses(
        &good(&[(
            r#"[[pool]]
name = "web"
servers = [
  { name = "web1", address = "192.168.1.10:80" },
  { name = "web2", address = "192.168.1.11:80" },
]
"#,
            "",
        )]),
        r#"
error: there is no pool "web"
 --> lbha.toml:9:8
  |
9 | pool = "web"
  |        ^^^^^
  |
  = help: add a [[pool]] with this name

lbha.toml: 1 error
"#,
    );
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    refuses(
        &good(&[
            (r#""ens14f0""#, r#""""#),
            (r#"vip = "147.75.78.116""#, r#"vip = "224.0.0.1""#),
            (
                "port = 80",
                "port = 0
foo = 1",
            ),
            (r#"name = "web2""#, r#"name = "web1""#),
            ("192.168.1.11:80", "127.0.0.1"),
        ]),
        r#"
error: an interface name must not be empty
 --> lbha.toml:2:10
  |
2 | public = ""
  |          ^^

error: 224.0.0.1 cannot be a VIP: it is a multicast address
 --> lbha.toml:7:7
  |
7 | vip = "224.0.0.1"
  |       ^^^^^^^^^^^

error: a port must be between 1 and 65535, found 0
 --> lbha.toml:8:8
  |
8 | port = 0
  |        ^

error: unknown key `foo` in [[service]]
 --> lbha.toml:9:1
  |
9 | foo = 1
  | ^^^
  |
  = help: known here: `name`, `vip`, `port`, `protocol`, `scheduler`, `mode`, `pool`

error: the server "web1" is defined twice
  --> lbha.toml:16:12
   |
15 |   { name = "web1", address = "192.168.1.10:80" },
   |            ------ first defined here
16 |   { name = "web1", address = "127.0.0.1" },
   |            ^^^^^^ again here

error: 127.0.0.1 cannot be a server's address: it is a loopback address
  --> lbha.toml:16:30
   |
16 |   { name = "web1", address = "127.0.0.1" },
   |                              ^^^^^^^^^^^

lbha.toml: 6 errors
"#,
    );
}

#[test]
fn places_far_from_each_other_are_shown_in_two_pieces() {
    let far = format!("{}\n[[pool]]", "#\n".repeat(200));
    let text = good(&[("\n[[pool]]", &far), ("192.168.1.11:80", "147.75.78.116:80")]);
    refuses(
        &text,
        r#"
error: the server 147.75.78.116 is a VIP
   --> lbha.toml:215:30
    |
215 |   { name = "web2", address = "147.75.78.116:80" },
    |                              ^^^^^^^^^^^^^^^^^^ the same address
    |
   ::: lbha.toml:7:7
    |
  7 | vip = "147.75.78.116"
    |       --------------- the VIP of a service
    |
    = help: write the server's own address: packets to a VIP come back here

lbha.toml: 1 error
"#,
    );
}
