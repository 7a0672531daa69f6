//! Numbers, durations and ranges, and their limits.

use super::{GOOD, accepts, from_text, good, refuses};

#[test]
fn a_weight_too_large_is_refused() {
    refuses(
        &good(&[(r#""192.168.1.10:80" }"#, r#""192.168.1.10:80", weight = 257 }"#)]),
        r#"
error: `weight` must be between 0 and 256, found 257
  --> lbha.toml:14:58
   |
14 |   { name = "web1", address = "192.168.1.10:80", weight = 257 },
   |                                                          ^^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_negative_weight_is_refused() {
    refuses(
        &good(&[(r#""192.168.1.10:80" }"#, r#""192.168.1.10:80", weight = -1 }"#)]),
        r#"
error: `weight` must be between 0 and 256, found -1
  --> lbha.toml:14:58
   |
14 |   { name = "web1", address = "192.168.1.10:80", weight = -1 },
   |                                                          ^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_duration_without_a_unit_is_told_to_add_one() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[timeouts]
udp = "30"

[[pool]]"#,
        )]),
        r#"
error: the duration "30" has no unit
  --> lbha.toml:12:7
   |
12 | udp = "30"
   |       ^^^^
   |
   = help: write "30s" for seconds

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_number_for_a_duration_is_told_to_add_a_unit() {
    refuses(
        &good(&[(
            "[[pool]]",
            "[timeouts]
udp = 30

[[pool]]",
        )]),
        r#"
error: `udp` must be a string with a unit, found an integer
  --> lbha.toml:12:7
   |
12 | udp = 30
   |       ^^
   |
   = help: write "30s" for seconds

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_unit_that_is_not_one_is_refused() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[timeouts]
udp = "5min"

[[pool]]"#,
        )]),
        r#"
error: "5min" is not a duration
  --> lbha.toml:12:7
   |
12 | udp = "5min"
   |       ^^^^^^
   |
   = help: write numbers with units: ms, s, m, h or d, such as "90s" or "2h4m"

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_timeout_too_short_is_refused() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[timeouts]
tcp_syn = "500ms"

[[pool]]"#,
        )]),
        r#"
error: a timeout must be between 1s and 30d, found "500ms"
  --> lbha.toml:12:11
   |
12 | tcp_syn = "500ms"
   |           ^^^^^^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_timeout_too_long_is_refused() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[timeouts]
tcp_established = "31d"

[[pool]]"#,
        )]),
        r#"
error: a timeout must be between 1s and 30d, found "31d"
  --> lbha.toml:12:19
   |
12 | tcp_established = "31d"
   |                   ^^^^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn too_few_connections_are_refused() {
    refuses(
        &good(&[(
            "[[pool]]",
            "[datapath]
max_connections = 100

[[pool]]",
        )]),
        "
error: `max_connections` must be between 1024 and 16000000, found 100
  --> lbha.toml:12:19
   |
12 | max_connections = 100
   |                   ^^^

lbha.toml: 1 error
",
    );
}

#[test]
fn too_many_half_open_connections_are_refused() {
    refuses(
        &good(&[(
            "[[pool]]",
            "[datapath]
max_half_open = 5_000_000

[[pool]]",
        )]),
        "
error: `max_half_open` must be between 1024 and 4000000, found 5000000
  --> lbha.toml:12:17
   |
12 | max_half_open = 5_000_000
   |                 ^^^^^^^^^

lbha.toml: 1 error
",
    );
}

#[test]
fn an_unknown_attach_mode_is_translated() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[datapath]
attach = "skb"

[[pool]]"#,
        )]),
        r#"
error: unknown attach mode "skb"
  --> lbha.toml:12:10
   |
12 | attach = "skb"
   |          ^^^^^
   |
   = help: did you mean "generic"?

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_reversed_port_range_is_refused() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[datapath]
fullnat_ports = "2000-1000"

[[pool]]"#,
        )]),
        r#"
error: the range of ports 2000-1000 is reversed
  --> lbha.toml:12:17
   |
12 | fullnat_ports = "2000-1000"
   |                 ^^^^^^^^^^^
   |
   = help: write "1000-2000"

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_port_range_with_zero_is_refused() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[datapath]
fullnat_ports = "0-1000"

[[pool]]"#,
        )]),
        r#"
error: a port must be between 1 and 65535, found 0
  --> lbha.toml:12:17
   |
12 | fullnat_ports = "0-1000"
   |                 ^^^^^^^^

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_single_port_is_not_a_range() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[datapath]
fullnat_ports = "1024"

[[pool]]"#,
        )]),
        r#"
error: "1024" is not a range of ports
  --> lbha.toml:12:17
   |
12 | fullnat_ports = "1024"
   |                 ^^^^^^
   |
   = help: write the first and the last port, such as "1024-32767"

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_relative_admin_socket_is_refused() {
    refuses(
        &good(&[(
            "[[pool]]",
            r#"[admin]
socket = "lbha.sock"

[[pool]]"#,
        )]),
        r#"
error: the admin socket must be an absolute path
  --> lbha.toml:12:10
   |
12 | socket = "lbha.sock"
   |          ^^^^^^^^^^^
   |
   = help: write "/run/lbha/admin.sock", or leave the key out

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_number_beyond_all_integers_is_refused() {
    refuses(
        &good(&[("port = 80", "port = 999999999999999999999999999999999999999999")]),
        "
error: `port` is too large
 --> lbha.toml:8:8
  |
8 | port = 999999999999999999999999999999999999999999
  |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

lbha.toml: 1 error
",
    );
}

#[test]
fn servers_count_once_for_each_service_of_their_pool() {
    let services = |count: usize| {
        let more: String = (1..count)
            .map(|i| {
                format!(
                    "[[service]]\nname = \"s{i}\"\nvip = \"10.1.0.1\"\nport = {i}\npool = \"web\"\n"
                )
            })
            .collect();
        format!("{}{more}", good(&[]))
    };
    accepts(&services(2048));
    let report = from_text(&services(2049)).report;
    assert_eq!(report.summary(), "lbha.toml: 1 error");
    let found = &report.diagnostics()[0];
    assert_eq!(found.message, "too many servers over all services: 4098 of at most 4096");
    assert_eq!(found.line, Some(18 + 5 * 2047 - 1), "the service that is one too many");
}

#[test]
fn what_a_clamp_cannot_be() {
    for (value, message, help) in [
        (
            "535",
            "`mss_clamp` must be between 536 and 65495, found 535",
            "every host takes 536 bytes (RFC 9293 §3.7.1), and no packet holds more than 65495",
        ),
        (
            "65496",
            "`mss_clamp` must be between 536 and 65495, found 65496",
            "every host takes 536 bytes (RFC 9293 §3.7.1), and no packet holds more than 65495",
        ),
        ("\"1360\"", CLAMP, "write `mss_clamp = 1360`"),
        ("false", CLAMP, "write `mss_clamp = \"off\"`"),
        ("true", CLAMP, "write `mss_clamp = \"auto\"`"),
        ("\"none\"", CLAMP, "did you mean \"off\"?"),
        ("\"clamp-to-pmtu\"", CLAMP, "did you mean \"auto\"?"),
        ("\"atuo\"", CLAMP, "did you mean \"auto\"?"),
        (
            "\"small\"",
            CLAMP,
            "write `mss_clamp = \"auto\"`, `mss_clamp = \"off\"` or `mss_clamp = 1360`",
        ),
        ("1.5", CLAMP, "write `mss_clamp = \"auto\"`, `mss_clamp = \"off\"` or `mss_clamp = 1360`"),
    ] {
        datapath("mss_clamp", value, message, Some(help));
    }
    for value in ["\"auto\"", "\"off\"", "536", "65495"] {
        accepts(&format!("{GOOD}\n[datapath]\nmss_clamp = {value}\n"));
    }
}

#[test]
fn ping_is_true_or_false() {
    let message = |found| format!("`ping` must be true or false, found {found}");
    datapath("ping", "\"off\"", &message("a string"), Some("write `ping = false`"));
    datapath("ping", "\"yes\"", &message("a string"), Some("write `ping = true`"));
    datapath("ping", "\"maybe\"", &message("a string"), None);
    datapath("ping", "1", &message("an integer"), None);
}

#[test]
fn the_connections_over_ipv6_have_limits_of_their_own() {
    let message = "`max_connections_v6` must be between 1024 and 16000000, found 1023";
    datapath("max_connections_v6", "1023", message, None);
}

#[track_caller]
fn datapath(key: &str, value: &str, message: &str, help: Option<&str>) {
    let found = from_text(&format!("{GOOD}\n[datapath]\n{key} = {value}\n")).report.diagnostics();
    let [found] = &found[..] else { panic!("{found:?}") };
    assert_eq!((found.message.as_str(), found.help.as_deref()), (message, help));
}

const CLAMP: &str = "`mss_clamp` must be \"auto\", \"off\" or a number";
