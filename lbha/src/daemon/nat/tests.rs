//! Rows from entries, rules and sweeps that are made up.

use lbha_common::{
    addr::{Be32, Be128},
    conntrack::state,
    flow::side,
};

use super::*;
use crate::{
    config::{Overrides, load},
    daemon::shared,
    datapath::expiry::{Source, Sweep},
};

const ELASTIC: &str = "147.75.78.116";

fn v4(text: &str) -> Be32 {
    text.parse::<std::net::Ipv4Addr>().unwrap().into()
}

fn v6(text: &str) -> Be128 {
    text.parse::<std::net::Ipv6Addr>().unwrap().into()
}

fn key<A: Family>(from: (A, u16), to: (A, u16), proto: u8, side: u8) -> FlowKey<A> {
    let [sport, dport] = [from.1, to.1].map(Be16::new);
    FlowKey { saddr: from.0, daddr: to.0, sport, dport, proto, side, _pad: 0 }
}

fn entry<A: Family>(key: &FlowKey<A>, from: (A, u16), to: (A, u16), state: u32) -> Flow<A> {
    let mut entry = Flow::new(key, from.0, to.0, Be16::new(from.1), Be16::new(to.1));
    entry.state = state;
    entry
}

fn out() -> (FlowKey<Be32>, Flow<Be32>) {
    let (inside, remote) = ((v4("192.168.1.10"), 40_000), (v4("198.51.100.10"), 443));
    let key = key(inside, remote, proto::TCP, side::PRIVATE);
    (key, entry(&key, (v4(ELASTIC), 2000), remote, state::MASQUERADE))
}

fn rule(externals: &[&str], ports: (u16, u16)) -> Masquerade {
    Masquerade {
        sources: vec!["192.168.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
        externals: externals.iter().map(|addr| addr.parse().unwrap()).collect(),
        ports,
        max_ports: 1000,
        endpoint_independent: false,
    }
}

fn state() -> State {
    State { rules: vec![rule(&[ELASTIC, "2001:db8::116"], (1024, 2023))], ..State::default() }
}

fn describe(ends: &Ends) -> String {
    let NatBinding { protocol, inside, external, remote, direction, .. } = ends.row();
    let remote = remote.map_or_else(|| "-".to_owned(), |remote| remote.to_string());
    format!("{protocol} {direction} {inside} {external} {remote}")
}

#[test]
fn both_ends_of_a_connection_are_told_whoever_opened_it() {
    let (key_out, entry_out) = out();
    assert_eq!(
        describe(&Ends::of(&key_out, &entry_out)),
        "tcp out 192.168.1.10:40000 147.75.78.116:2000 198.51.100.10:443"
    );

    // To a bound port, from outside: the client's address is kept.
    let (remote, inside) = ((v4("198.51.100.10"), 5000), (v4("192.168.1.10"), 40_000));
    let key_in = key(remote, (v4(ELASTIC), 2000), proto::UDP, side::PUBLIC);
    assert_eq!(
        describe(&Ends::of(&key_in, &entry(&key_in, remote, inside, 0))),
        "udp in 192.168.1.10:40000 147.75.78.116:2000 198.51.100.10:5000"
    );

    // To the bound port of another private host.
    let key_hairpin =
        key((v4("192.168.1.11"), 50_000), (v4(ELASTIC), 2000), proto::UDP, side::PRIVATE);
    let hairpin = entry(&key_hairpin, (v4(ELASTIC), 3000), inside, state::MASQUERADE);
    assert_eq!(
        describe(&Ends::of(&key_hairpin, &hairpin)),
        "udp hairpin 192.168.1.11:50000 147.75.78.116:3000 147.75.78.116:2000"
    );

    // A ping has identifiers for ports.
    let remote = (v6("2001:db8:ffff::1"), 0);
    let key_ping = key((v6("fd00:1::10"), 7), remote, proto::ICMPV6, side::PRIVATE);
    let ping = entry(&key_ping, (v6("2001:db8::116"), 1030), remote, state::MASQUERADE);
    assert_eq!(
        describe(&Ends::of(&key_ping, &ping)),
        "icmp out [fd00:1::10]:7 [2001:db8::116]:1030 [2001:db8:ffff::1]:0"
    );

    let bound = BindingKey::new(v4("192.168.1.10"), Be16::new(9), proto::UDP, end::INSIDE);
    let binding = Binding { addr: v4(ELASTIC), port: Be16::new(1025), rule: 0, created: 0 };
    let bound = Ends::bound(&bound, &binding);
    assert_eq!(describe(&bound), "udp any 192.168.1.10:9 147.75.78.116:1025 -");
    assert_eq!(bound.row().state, "bound");
}

#[test]
fn every_filter_looks_at_its_end() {
    let (key, entry) = out();
    let ends = Ends::of(&key, &entry);
    let address = |text: &str| Some(text.parse().unwrap());
    let query = NatQuery {
        limit: None,
        source: address("192.168.1.10"),
        external: address(ELASTIC),
        remote: address("198.51.100.10"),
        protocol: Some("tcp".into()),
    };
    assert!(ends.matches(&NatQuery::default()));
    assert!(ends.matches(&query));
    let other = address("198.51.100.11");
    for wrong in [
        NatQuery { source: other, ..query.clone() },
        NatQuery { external: other, ..query.clone() },
        NatQuery { remote: other, ..query.clone() },
        NatQuery { protocol: Some("udp".into()), ..query.clone() },
    ] {
        assert!(!ends.matches(&wrong), "{wrong:?}");
    }
    let bound = Ends { remote: None, ..ends };
    assert!(!bound.matches(&query), "it talks to nobody");
}

#[test]
fn bindings_are_listed_by_inside_end_then_protocol() {
    let (key, entry) = out();
    let tcp = Ends::of(&key, &entry);
    let with = |inside: &str, protocol| Ends {
        inside: inside.parse().unwrap(),
        protocol,
        rank: rank(protocol),
        ..tcp
    };
    let expected = [
        with("192.168.1.9:1", proto::UDP),
        with("192.168.1.10:1", proto::TCP),
        with("192.168.1.10:1", proto::UDP),
        with("192.168.1.10:1", proto::ICMP),
        with("192.168.1.10:2", proto::TCP),
        with("[fd00::1]:1", proto::TCP),
    ];
    let mut ends = expected;
    ends.reverse();
    ends.sort();
    assert_eq!(ends, expected);
}

#[test]
fn a_masqueraded_connection_is_known_by_its_rule_or_its_flag() {
    let (_, mut entry) = out();
    entry.backend = 7;
    let mut state = State::default();
    assert!(is_masqueraded(&state, &entry));
    assert_eq!(rule_of(&state, &entry), "removed", "it is not known any more");
    entry.state = 0;
    assert!(!is_masqueraded(&state, &entry));
    state.masquerades.insert(7, shared::Masquerade { name: "192.168.1.0/24".into() });
    assert!(is_masqueraded(&state, &entry), "it came in through a binding");
    assert_eq!(rule_of(&state, &entry), "192.168.1.0/24");
    let state = self::state();
    let bound_by = |inside: &str| rule_for(&state, inside.parse().unwrap());
    assert_eq!(bound_by("192.168.1.10"), "192.168.1.0/24");
    assert_eq!(bound_by("fd00:1::10"), "fd00:1::/64");
    assert_eq!(bound_by("10.0.0.1"), "removed");
}

#[test]
fn ports_are_those_of_all_ranges_without_those_of_services() {
    let elastic = ELASTIC.parse().unwrap();
    let ports = |ranges: &[(u16, u16)], taken: &[u16]| {
        let rules: Vec<_> = ranges.iter().map(|range| rule(&[ELASTIC], *range)).collect();
        ports_of(&rules, elastic, Some(&taken.iter().copied().collect()))
    };
    assert_eq!(ports(&[(1024, 32_767)], &[80, 443]), Some(31_744));
    assert_eq!(ports(&[(1024, 32_767)], &[80, 8080, 32_767]), Some(31_742));
    assert_eq!(ports(&[(1, 65_535)], &[]), Some(65_535));
    assert_eq!(ports(&[(100, 199), (150, 249)], &[160]), Some(149));
    assert_eq!(ports(&[(100, 299), (150, 249), (400, 499)], &[]), Some(300));
    assert_eq!(ports(&[(7, 7)], &[7]), Some(0));
    assert_eq!(ports(&[], &[]), None);
    let elsewhere = [rule(&["192.0.2.1"], (1, 9))];
    assert_eq!(ports_of(&elsewhere, elastic, None), None);
}

#[test]
fn services_and_forwards_take_their_ports_from_the_external_address() {
    let config = "interfaces = { public = \"eth0\" }
        service = [{ name = \"www\", vip = \"147.75.78.116\", port = 1080, pool = \"p\" }]
        pool = [{ name = \"p\", servers = [{ name = \"w\", address = \"192.168.1.10\" }] }]
        forward = [{ address = \"147.75.78.116:1081\", to = \"192.168.1.10:22\" },
                   { address = \"147.75.78.116:1053\", to = \"192.168.1.10:53\", protocol = \"udp\" }]";
    let loaded = load(Some(("test.toml".as_ref(), config)), &Overrides::default());
    assert!(loaded.config.is_some(), "{}", loaded.report.render(false));
    let mut state = State { config: loaded.config, ..state() };
    state.rules[0].externals.truncate(1);
    let ports: Vec<_> = externals(&state, &NatQuery::default())
        .into_iter()
        .map(|row| (row.protocol, row.ports.unwrap()))
        .collect();
    assert_eq!(ports, [("tcp".into(), 998), ("udp".into(), 999), ("icmp".into(), 1000)]);
}

#[test]
fn every_external_address_has_its_rows_used_or_not() {
    let mut state = state();
    let busiest = Some(("198.51.100.10:443".parse().unwrap(), 250));
    let used = |address: &str, protocol, connections| External {
        address: address.parse().unwrap(),
        protocol,
        connections,
        busiest,
        bindings: 0,
    };
    let start = std::time::Instant::now();
    state.sweep = Sweep {
        externals: vec![used(ELASTIC, proto::TCP, 800), used("192.0.2.1", proto::UDP, 3)],
        ..Sweep::default()
    };
    let before = External { busiest: busiest.map(|(at, _)| (at, 200)), ..used(ELASTIC, 6, 700) };
    state.trends.observe(&[before], start);
    state.trends.observe(&state.sweep.externals, start + std::time::Duration::from_secs(1));
    let rows = externals(&state, &NatQuery::default());
    let names: Vec<_> =
        rows.iter().map(|row| format!("{} {}", row.address, row.protocol)).collect();
    assert_eq!(
        names,
        [
            "147.75.78.116 tcp",
            "147.75.78.116 udp",
            "147.75.78.116 icmp",
            "192.0.2.1 udp",
            "2001:db8::116 tcp",
            "2001:db8::116 udp",
            "2001:db8::116 icmp",
        ]
    );
    let NatExternal { connections, ports, used, percent, growth, exhausted_in_seconds, .. } =
        rows[0];
    assert_eq!((connections, ports, used, percent), (800, Some(1000), 250, Some(25.0)));
    assert_eq!((growth, exhausted_in_seconds), (Some(50.0), Some(15)));
    assert_eq!((rows[1].used, rows[1].percent, rows[1].growth), (0, Some(0.0), Some(0.0)));
    assert_eq!(rows[1].exhausted_in_seconds, None);
    // No rule has it any more: there is no range to compare with.
    assert_eq!((rows[3].used, rows[3].ports, rows[3].percent), (250, None, None));
    assert_eq!(rows[3].exhausted_in_seconds, None);

    let query = NatQuery { external: Some(ELASTIC.parse().unwrap()), ..NatQuery::default() };
    assert_eq!(externals(&state, &query).len(), 3);
    let query = NatQuery { protocol: Some("icmp".into()), ..query };
    assert_eq!(externals(&state, &query).len(), 1);
}

#[test]
fn sources_of_both_families_are_in_one_order_with_their_quotas() {
    let mut state = state();
    let source =
        |address: &str, connections| Source { address: address.parse().unwrap(), connections };
    state.sweep.sources = vec![
        source("192.168.1.10", 500),
        source("192.168.1.11", 3),
        source("fd00:1::10", 900),
        source("fd00:2::10", 3),
    ];
    let rows: Vec<_> = largest_sources(&state)
        .into_iter()
        .map(|row| (row.address.to_string(), row.connections, row.quota, row.percent))
        .collect();
    assert_eq!(
        rows,
        [
            ("fd00:1::10".into(), 900, Some(1000), Some(90.0)),
            ("192.168.1.10".into(), 500, Some(1000), Some(50.0)),
            ("192.168.1.11".into(), 3, Some(1000), Some(0.3)),
            ("fd00:2::10".into(), 3, None, None),
        ]
    );
}
