//! Text that is not TOML.

use super::{good, refuses};

#[test]
fn a_string_without_its_end() {
    refuses(
        &good(&[(r#""ens14f0""#, r#""ens14f0"#)]),
        r#"
error: invalid basic string, expected `"`
 --> lbha.toml:2:18
  |
2 | public = "ens14f0
  |                  ^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_key_without_a_value() {
    refuses(
        &good(&[("port = 80", "port =")]),
        "
error: a value is missing
 --> lbha.toml:8:7
  |
8 | port =
  |       ^

lbha.toml: 1 error
",
    );
}

#[test]
fn a_key_alone() {
    refuses(
        &good(&[("port = 80", "port")]),
        "
error: key with no value, expected `=`
 --> lbha.toml:8:5
  |
8 | port
  |     ^

lbha.toml: 1 error
",
    );
}

#[test]
fn a_value_without_quotes() {
    refuses(
        &good(&[(r#""ens14f0""#, "ens14f0")]),
        r#"
error: a string must be in quotes
 --> lbha.toml:2:10
  |
2 | public = ens14f0
  |          ^^^^^^^
  |
  = help: write "ens14f0"

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_key_twice() {
    refuses(
        &good(&[(
            "port = 80",
            "port = 80
port = 81",
        )]),
        "
error: the key `port` is defined twice
 --> lbha.toml:9:1
  |
8 | port = 80
  | ---- first defined here
9 | port = 81
  | ^^^^ again here

lbha.toml: 1 error
",
    );
}

#[test]
fn a_table_twice() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[interfaces]
public = "eth0"

[[pool]]"#,
        )]),
        r#"
error: the table `interfaces` is defined twice
  --> lbha.toml:11:2
   |
11 | [interfaces]
   |  ^^^^^^^^^^ again here

error: the key `public` is defined twice
  --> lbha.toml:12:1
   |
 2 | public = "ens14f0"
   | ------ first defined here
...
12 | public = "eth0"
   | ^^^^^^ again here

lbha.toml: 2 errors
"#,
    );
}

#[test]
fn a_list_without_its_end() {
    refuses(
        &good(&[(
            "
]
", "
",
        )]),
        r#"
error: unclosed array, expected `]`
  --> lbha.toml:15:50
   |
15 |   { name = "web2", address = "192.168.1.11:80" },
   |                                                  ^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_header_without_its_end() {
    refuses(
        &good(&[("[[service]]", "[[service]")]),
        "
error: unclosed array table, expected `]`
 --> lbha.toml:5:11
  |
5 | [[service]
  |           ^

lbha.toml: 1 error
",
    );
}

#[test]
fn two_syntax_errors() {
    refuses(
        &good(&[(r#""ens14f0""#, "ens14f0"), ("port = 80", "port = ,")]),
        r#"
error: a string must be in quotes
 --> lbha.toml:2:10
  |
2 | public = ens14f0
  |          ^^^^^^^
  |
  = help: write "ens14f0"

error: a value is missing
 --> lbha.toml:8:8
  |
8 | port = ,
  |        ^

lbha.toml: 2 errors
"#,
    );
}

#[test]
fn a_key_twice_in_braces() {
    refuses(
        &good(&[(r#""192.168.1.10:80" }"#, r#""192.168.1.10:80", name = "web3" }"#)]),
        r#"
error: the key `name` is defined twice
  --> lbha.toml:14:49
   |
14 |   { name = "web1", address = "192.168.1.10:80", name = "web3" },
   |     ---- first defined here                     ^^^^ again here

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_key_twice_after_a_list() {
    refuses(
        &good(&[(
            "
]
",
            r#"
]
name = "web3"
"#,
        )]),
        r#"
error: the key `name` is defined twice
  --> lbha.toml:17:1
   |
12 | name = "web"
   | ---- first defined here
...
17 | name = "web3"
   | ^^^^ again here

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_quoted_key_twice() {
    refuses(
        &good(&[(
            "port = 80",
            r#"port = 80
"port" = 81"#,
        )]),
        r#"
error: the key `"port"` is defined twice
 --> lbha.toml:9:1
  |
8 | port = 80
  | ---- first defined here
9 | "port" = 81
  | ^^^^^^ again here

lbha.toml: 1 error
"#,
    );
}
