//! Keys and types: what is unknown, missing or of another kind.

use super::{good, refuses};

#[test]
fn a_mistyped_key_is_named_with_its_neighbour() {
    refuses(
        &good(&[("port = 80", "prot = 80")]),
        "
error: unknown key `prot` in [[service]]
 --> lbha.toml:8:1
  |
8 | prot = 80
  | ^^^^
  |
  = help: did you mean `port`?

lbha.toml: 1 error
",
    );
}

#[test]
fn an_unknown_key_lists_the_known_ones() {
    refuses(
        &good(&[(
            "port = 80",
            "port = 80
ttl = 64",
        )]),
        "
error: unknown key `ttl` in [[service]]
 --> lbha.toml:9:1
  |
9 | ttl = 64
  | ^^^
  |
  = help: known here: `name`, `vip`, `port`, `protocol`, `scheduler`, `mode`, `pool`

lbha.toml: 1 error
",
    );
}

#[test]
fn a_key_of_another_table_is_sent_home() {
    refuses(
        &good(&[(
            r#"private = "ens14f1""#,
            r#"private = "ens14f1"
port = 80"#,
        )]),
        "
error: unknown key `port` in [interfaces]
 --> lbha.toml:4:1
  |
4 | port = 80
  | ^^^^
  |
  = help: `port` belongs to [[service]]

lbha.toml: 1 error
",
    );
}

#[test]
fn a_key_before_the_first_table_is_sent_home() {
    refuses(
        &good(&[(
            "[interfaces]",
            r#"scheduler = "rr"

[interfaces]"#,
        )]),
        r#"
error: unknown key `scheduler` at the top level
 --> lbha.toml:1:1
  |
1 | scheduler = "rr"
  | ^^^^^^^^^
  |
  = help: `scheduler` belongs to [[service]]

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_word_of_haproxy_is_translated() {
    refuses(
        &good(&[(
            r#"pool = "web""#,
            r#"backend = "web"
pool = "web""#,
        )]),
        r#"
error: unknown key `backend` in [[service]]
 --> lbha.toml:9:1
  |
9 | backend = "web"
  | ^^^^^^^
  |
  = help: did you mean `pool`?

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_port_of_a_server_belongs_into_its_address() {
    refuses(
        &good(&[(r#""192.168.1.10:80" }"#, r#""192.168.1.10", port = 80 }"#)]),
        r#"
error: unknown key `port` in a server
  --> lbha.toml:14:46
   |
14 |   { name = "web1", address = "192.168.1.10", port = 80 },
   |                                              ^^^^
   |
   = help: the port is a part of `address`, such as "192.168.1.10:80"

lbha.toml: 1 error
"#,
    );
}

#[test]
fn an_unknown_table_is_named_with_its_neighbour() {
    refuses(
        &good(&[("[interfaces]", "[interface]")]),
        "
error: unknown table `interface`
 --> lbha.toml:1:1
  |
1 | [interface]
  | ^^^^^^^^^^^
  |
  = help: did you mean `interfaces`?

lbha.toml: 1 error
",
    );
}

#[test]
fn a_mistyped_service_table_gives_no_further_errors() {
    refuses(
        &good(&[("[[service]]", "[[services]]")]),
        "
error: unknown table `services`
 --> lbha.toml:5:1
  |
5 | [[services]]
  | ^^^^^^^^^^^^
  |
  = help: did you mean `service`?

lbha.toml: 1 error
",
    );
}

#[test]
fn a_mistyped_pool_table_gives_no_further_errors() {
    refuses(
        &good(&[("[[pool]]", "[[pools]]")]),
        "
error: unknown table `pools`
  --> lbha.toml:11:1
   |
11 | [[pools]]
   | ^^^^^^^^^
   |
   = help: did you mean `pool`?

lbha.toml: 1 error
",
    );
}

#[test]
fn an_ugly_key_is_shown_on_one_line() {
    refuses(
        &good(&[(
            "port = 80",
            r#"port = 80
"a\nb\u001b[31m" = 1"#,
        )]),
        r#"
error: unknown key `a\nb\u{1b}[31m` in [[service]]
 --> lbha.toml:9:1
  |
9 | "a\nb\u001b[31m" = 1
  | ^^^^^^^^^^^^^^^^
  |
  = help: known here: `name`, `vip`, `port`, `protocol`, `scheduler`, `mode`, `pool`

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_number_for_a_string_is_a_wrong_type() {
    refuses(
        &good(&[(r#"name = "www""#, "name = 5")]),
        "
error: `name` must be a string, found an integer
 --> lbha.toml:6:8
  |
6 | name = 5
  |        ^

lbha.toml: 1 error
",
    );
}

#[test]
fn a_string_for_a_number_says_how_to_write_it() {
    refuses(
        &good(&[("port = 80", r#"port = "80""#)]),
        r#"
error: `port` must be an integer, found a string
 --> lbha.toml:8:8
  |
8 | port = "80"
  |        ^^^^
  |
  = help: write `port = 80`

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_float_for_a_number_is_a_wrong_type() {
    refuses(
        &good(&[("port = 80", "port = 80.0")]),
        "
error: `port` must be an integer, found a float
 --> lbha.toml:8:8
  |
8 | port = 80.0
  |        ^^^^

lbha.toml: 1 error
",
    );
}

#[test]
fn an_array_for_a_string_is_a_wrong_type() {
    refuses(
        &good(&[(r#"vip = "147.75.78.116""#, r#"vip = ["147.75.78.116"]"#)]),
        r#"
error: `vip` must be a string, found an array
 --> lbha.toml:7:7
  |
7 | vip = ["147.75.78.116"]
  |       ^^^^^^^^^^^^^^^^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_single_service_table_says_how_to_write_it() {
    refuses(
        &good(&[("[[service]]", "[service]")]),
        "
error: `service` must be an array of tables, found a table
 --> lbha.toml:5:1
  |
5 | [service]
  | ^^^^^^^^^
  |
  = help: write `[[service]]`

lbha.toml: 1 error
",
    );
}

#[test]
fn a_list_of_interfaces_tables_says_how_to_write_it() {
    refuses(
        &good(&[("[interfaces]", "[[interfaces]]")]),
        "
error: `interfaces` must be a table, found an array
 --> lbha.toml:1:1
  |
1 | [[interfaces]]
  | ^^^^^^^^^^^^^^
  |
  = help: write [interfaces] once, and its keys below

lbha.toml: 1 error
",
    );
}

#[test]
fn interfaces_that_are_a_string_are_a_wrong_type() {
    refuses(
        &good(&[(
            r#"[interfaces]
public = "ens14f0"
private = "ens14f1""#,
            r#"interfaces = "ens14f0""#,
        )]),
        r#"
error: `interfaces` must be a table, found a string
 --> lbha.toml:1:14
  |
1 | interfaces = "ens14f0"
  |              ^^^^^^^^^
  |
  = help: write [interfaces] once, and its keys below

lbha.toml: 1 error
"#,
    );
}

#[test]
fn servers_as_plain_strings_say_how_to_write_them() {
    refuses(
        &good(&[(r#"{ name = "web1", address = "192.168.1.10:80" }"#, r#""192.168.1.10:80""#)]),
        r#"
error: a server must be a table, found a string
  --> lbha.toml:14:3
   |
14 |   "192.168.1.10:80",
   |   ^^^^^^^^^^^^^^^^^
   |
   = help: write `servers = [{ name = "web1", address = "192.168.1.10:80" }]`

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_missing_key_points_to_the_table() {
    refuses(
        &good(&[(
            "port = 80
",
            "",
        )]),
        "
error: [[service]] has no `port`
 --> lbha.toml:5:1
  |
5 | [[service]]
  | ^^^^^^^^^^^
  |
  = help: add `port = 80`

lbha.toml: 1 error
",
    );
}

#[test]
fn a_missing_servers_key_points_to_the_pool() {
    refuses(
        &good(&[(
            r#"servers = [
  { name = "web1", address = "192.168.1.10:80" },
  { name = "web2", address = "192.168.1.11:80" },
]
"#,
            "",
        )]),
        r#"
error: [[pool]] has no `servers`
  --> lbha.toml:11:1
   |
11 | [[pool]]
   | ^^^^^^^^
   |
   = help: add `servers = [{ name = "web1", address = "192.168.1.10:80" }]`

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_server_without_an_address_points_to_its_braces() {
    refuses(
        &good(&[(r#"{ name = "web1", address = "192.168.1.10:80" }"#, r#"{ name = "web1" }"#)]),
        r#"
error: a server has no `address`
  --> lbha.toml:14:3
   |
14 |   { name = "web1" },
   |   ^^^^^^^^^^^^^^^^^
   |
   = help: add `address = "192.168.1.10:80"`

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_missing_public_interface_points_to_the_table() {
    refuses(
        &good(&[(
            r#"public = "ens14f0"
"#,
            "",
        )]),
        r#"
error: [interfaces] has no `public`
 --> lbha.toml:1:1
  |
1 | [interfaces]
  | ^^^^^^^^^^^^
  |
  = help: add `public = "eth0"`, or give --iface

lbha.toml: 1 error
"#,
    );
}

#[test]
fn an_empty_file_lacks_everything() {
    refuses(
        "",
        r#"
error: there is no [interfaces]
--> lbha.toml
 = help: add it with `public = "eth0"`, or give --iface

error: there is no [[service]], [[masquerade]] or [[forward]]
--> lbha.toml
 = help: add a service with `name`, `vip`, `port` and `pool`, or give --vip and --server, or --masquerade

lbha.toml: 2 errors
"#,
    );
}

#[test]
fn a_file_without_services_says_so() {
    refuses(
        &good(&[(
            r#"[[service]]
name = "www"
vip = "147.75.78.116"
port = 80
pool = "web"

"#,
            "",
        )]),
        "
error: there is no [[service]], [[masquerade]] or [[forward]]
--> lbha.toml
 = help: add a service with `name`, `vip`, `port` and `pool`, or give --vip and --server, or --masquerade

lbha.toml: 1 error
",
    );
}
