//! What is allowed and probably not meant.

use super::{good, warns};

#[test]
fn a_pool_that_nobody_uses() {
    warns(
        &good(&[(
            "[[pool]]",
            r#"[[pool]]
name = "old"
servers = [{ name = "a", address = "192.168.1.9" }]

[[pool]]"#,
        )]),
        r#"
warning: no service uses the pool "old"
  --> lbha.toml:12:8
   |
12 | name = "old"
   |        ^^^^^
   |
   = help: write `pool = "old"` in a service, or remove it

lbha.toml: 1 warning
"#,
    );
}

#[test]
fn a_weight_that_rr_ignores() {
    warns(
        &good(&[(r#""192.168.1.10:80" }"#, r#""192.168.1.10:80", weight = 5 }"#)]),
        r#"
warning: this weight has no effect: the scheduler "rr" treats all servers alike
  --> lbha.toml:14:58
   |
14 |   { name = "web1", address = "192.168.1.10:80", weight = 5 },
   |                                                          ^
   |
   = help: write `scheduler = "wrr"` in the service

lbha.toml: 1 warning
"#,
    );
}

#[test]
fn weights_that_are_all_zero() {
    warns(
        &good(&[
            (r#""192.168.1.10:80" }"#, r#""192.168.1.10:80", weight = 0 }"#),
            (r#""192.168.1.11:80" }"#, r#""192.168.1.11:80", weight = 0 }"#),
        ]),
        r#"
warning: the pool "web" takes no connections: all weights are 0
  --> lbha.toml:12:8
   |
12 | name = "web"
   |        ^^^^^
   |
   = help: give a server a weight of 1 or more

lbha.toml: 1 warning
"#,
    );
}

#[test]
fn a_port_range_that_meets_the_kernels() {
    warns(
        &good(&[(
            "[[pool]]",
            r#"[datapath]
fullnat_ports = "20000-59999"

[[pool]]"#,
        )]),
        r#"
warning: the range reaches into the ports that Linux gives to this host's own connections
  --> lbha.toml:12:17
   |
12 | fullnat_ports = "20000-59999"
   |                 ^^^^^^^^^^^^^
   |
   = help: end it at 32767, or move `net.ipv4.ip_local_port_range` out of its way

lbha.toml: 1 warning
"#,
    );
}
