//! What the file format has and this program does not do yet.

use super::{good, refuses};

#[test]
fn a_check_in_a_table_of_its_own_is_not_supported_yet() {
    refuses(
        &good(&[(
            "
]
",
            r#"
]

[pool.check]
type = "tcp"
"#,
        )]),
        "
error: `check` is not supported yet
  --> lbha.toml:18:1
   |
18 | [pool.check]
   | ^^^^^^^^^^^^
   |
   = help: remove it, or put it into a comment for now

lbha.toml: 1 error
",
    );
}

#[test]
fn vrrp_is_not_supported_yet() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[[vrrp.instance]]
name = "VI_1"

[[vrrp.instance]]
name = "VI_2"

[[vrrp.group]]
name = "lb"

[[pool]]"#,
        )]),
        "
error: `[[vrrp.instance]]` is not supported yet
  --> lbha.toml:11:1
   |
11 | [[vrrp.instance]]
   | ^^^^^^^^^^^^^^^^^
   |
   = help: remove it, or put it into a comment for now

error: `[[vrrp.instance]]` is not supported yet
  --> lbha.toml:14:1
   |
14 | [[vrrp.instance]]
   | ^^^^^^^^^^^^^^^^^
   |
   = help: remove it, or put it into a comment for now

error: `[[vrrp.group]]` is not supported yet
  --> lbha.toml:17:1
   |
17 | [[vrrp.group]]
   | ^^^^^^^^^^^^^^
   |
   = help: remove it, or put it into a comment for now

lbha.toml: 3 errors
",
    );
}

#[test]
fn bird_is_not_supported_yet() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[bird]
socket = "/run/bird/bird.ctl"

[[pool]]"#,
        )]),
        "
error: `[bird]` is not supported yet
  --> lbha.toml:11:1
   |
11 | [bird]
   | ^^^^^^
   |
   = help: remove it, or put it into a comment for now

lbha.toml: 1 error
",
    );
}

#[test]
fn sync_is_not_supported_yet() {
    refuses(
        &good(&[(
            "[interfaces]",
            r#"sync = { peer = "10.0.0.2:7400" }

[interfaces]"#,
        )]),
        r#"
error: `[sync]` is not supported yet
 --> lbha.toml:1:1
  |
1 | sync = { peer = "10.0.0.2:7400" }
  | ^^^^
  |
  = help: remove it, or put it into a comment for now

lbha.toml: 1 error
"#,
    );
}

#[test]
fn metrics_is_not_supported_yet() {
    refuses(
        &good(&[(
            "[[pool]]",
            "[metrics]

[[pool]]",
        )]),
        "
error: `[metrics]` is not supported yet
  --> lbha.toml:11:1
   |
11 | [metrics]
   | ^^^^^^^^^
   |
   = help: remove it, or put it into a comment for now

lbha.toml: 1 error
",
    );
}

#[test]
fn an_unknown_vrrp_table_is_unknown() {
    refuses(
        &good(&[(
            "[[pool]]",
            "[[vrrp.instanc]]

[[pool]]",
        )]),
        "
error: unknown table `instanc` in [vrrp]
  --> lbha.toml:11:1
   |
11 | [[vrrp.instanc]]
   | ^^^^^^^^^^^^^^^^
   |
   = help: did you mean `instance`?

lbha.toml: 1 error
",
    );
}

#[test]
fn a_check_is_not_supported_yet() {
    refuses(
        &good(&[(
            "servers = [",
            r#"check = { type = "tcp", inter = "2s" }
servers = ["#,
        )]),
        r#"
error: `check` is not supported yet
  --> lbha.toml:13:1
   |
13 | check = { type = "tcp", inter = "2s" }
   | ^^^^^
   |
   = help: remove it, or put it into a comment for now

lbha.toml: 1 error
"#,
    );
}

#[test]
fn the_http_address_is_not_supported_yet() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[admin]
http = "127.0.0.1:9405"

[[pool]]"#,
        )]),
        r#"
error: `http` is not supported yet
  --> lbha.toml:12:1
   |
12 | http = "127.0.0.1:9405"
   | ^^^^
   |
   = help: remove it, or put it into a comment for now

lbha.toml: 1 error
"#,
    );
}

#[test]
fn least_connections_is_not_supported_yet() {
    refuses(
        &good(&[(
            "port = 80",
            r#"port = 80
scheduler = "lc""#,
        )]),
        r#"
error: scheduler "lc" is not supported yet
 --> lbha.toml:9:13
  |
9 | scheduler = "lc"
  |             ^^^^
  |
  = help: write one of "rr", "wrr", "maglev", "source"

lbha.toml: 1 error
"#,
    );
}

#[test]
fn haproxys_leastconn_is_not_supported_yet() {
    refuses(
        &good(&[(
            "port = 80",
            r#"port = 80
scheduler = "leastconn""#,
        )]),
        r#"
error: scheduler "lc" is not supported yet
 --> lbha.toml:9:13
  |
9 | scheduler = "leastconn"
  |             ^^^^^^^^^^^
  |
  = help: write one of "rr", "wrr", "maglev", "source"

lbha.toml: 1 error
"#,
    );
}
