//! Both families and masquerade in the maps: what is written, what stays, and when an index is given again.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use lbha::datapath::{
    Desired,
    apply::{Applier, Change, MasqueradeOwner},
    desired::{ErrorSources, Masquerade, Settings},
    expiry::Timeouts,
    family::Family,
    tables::{CommonTables, FamilyTables},
};
use lbha_common::{
    addr::{Be16, Be32, Be128},
    counter::Counter,
    flow::side,
    masquerade::{Binding4, BindingKey, Rule, end, rule_flag},
    service::{address, setting},
};
use lbha_tests::{
    packet::{Frame, tcp_flags::*},
    prog::*,
};

const LONG: Timeouts = Timeouts::all(Duration::from_secs(3600));
const OTHER: &str = "10.7.0.0/16";

fn tables<A: Family>(prog: &Prog) -> FamilyTables<A> {
    FamilyTables::open(prog.pins().root()).expect("the maps open")
}

fn apply(prog: &mut Prog, desired: &Desired, sweep: u64) -> Vec<Change> {
    prog.applier.apply(desired, sweep).expect("the maps are written")
}

fn release(prog: &mut Prog, number: u64) {
    let in_use = prog.sweep(&LONG, number).in_use;
    prog.applier.release(&in_use).expect("the maps are written");
}

/// A new daemon over the same pins.
fn restart(prog: &mut Prog) {
    prog.applier = Applier::open(prog.pins().root()).expect("the maps open");
}

/// Index and entry of the rule that a prefix leads to.
fn rule_of<A: Family>(prog: &Prog, source: &str) -> Option<(u32, Rule<A>)> {
    let tables = tables::<A>(prog);
    let index = tables.masquerade.get(&A::key_of(&prefix(source))?, 0).ok()?;
    Some((index, tables.rules.get(&index, 0).unwrap()))
}

/// Index of a rule over IPv4, and of its owner.
fn ids(prog: &Prog, source: &str) -> Option<(u32, u16)> {
    rule_of::<Be32>(prog, source).map(|(index, rule)| (index, rule.owner))
}

fn rule_over(source: &str, external: impl Into<IpAddr>) -> Masquerade {
    Masquerade { sources: vec![prefix(source)], externals: vec![external.into()], ..masquerade() }
}

/// Opens a connection from a server to the host on the internet.
fn open(prog: &mut Prog, port: u16) -> lbha_tests::packet::Parsed {
    prog.private(Frame::syn(at(WEB[0], port), remote())).forwarded()
}

#[test]
fn a_rule_is_there_for_each_family_of_its_sources() {
    let prog = Prog::with(&gateway());
    let (_, v4) = rule_of::<Be32>(&prog, SOURCES).unwrap();
    let (_, v6) = rule_of::<Be128>(&prog, SOURCES6).unwrap();
    assert_eq!(
        v4.addresses,
        [Be32::from(PUBLIC); 8],
        "at every place: one may be chosen meanwhile"
    );
    assert_eq!(v6.addresses, [Be128::from(PUBLIC6); 8]);
    assert_eq!((v4.count, v6.count), (1, 1));
    assert_eq!((v4.port_first, v4.port_count, v4.max_ports), (1024, 31744, 16_384));
    assert_eq!((v4.flags, v6.flags), (rule_flag::VALID, rule_flag::VALID));
    assert_ne!(v4.owner, v6.owner, "each has counters of its own");
    let owners = prog.applier.masquerade_owners();
    let expected = [(v4.owner, SOURCES), (v6.owner, SOURCES6)].map(|(owner, source)| {
        MasqueradeOwner { owner: owner.into(), sources: vec![prefix(source)], retired: false }
    });
    assert_eq!(owners, expected);
}

#[test]
fn addresses_say_what_they_are_to_us() {
    let mut prog = Prog::with(&gateway());
    let what = |prog: &Prog, addr: IpAddr| match addr {
        IpAddr::V4(addr) => tables::<Be32>(prog).addresses.get(&addr.into(), 0).ok(),
        IpAddr::V6(addr) => tables::<Be128>(prog).addresses.get(&addr.into(), 0).ok(),
    };
    for (public, private, vip) in [
        (PUBLIC.into(), PRIVATE.into(), VIP.into()),
        (PUBLIC6.into(), PRIVATE6.into(), VIP6.into()),
    ] {
        let (public, private, vip): (IpAddr, IpAddr, IpAddr) = (public, private, vip);
        assert_eq!(what(&prog, public), Some(address::LOCAL | address::EXTERNAL));
        assert_eq!(what(&prog, private), Some(address::LOCAL));
        assert_eq!(what(&prog, vip), Some(address::VIP));
    }
    let mut desired = gateway();
    desired.masquerades[0].externals = vec![VIP.into()];
    desired.services.remove(&WWW6);
    apply(&mut prog, &desired, 0);
    assert_eq!(what(&prog, PUBLIC.into()), Some(address::LOCAL));
    assert_eq!(what(&prog, PUBLIC6.into()), Some(address::LOCAL));
    assert_eq!(what(&prog, VIP.into()), Some(address::VIP | address::EXTERNAL));
    assert_eq!(what(&prog, VIP6.into()), None);
}

#[test]
fn errors_come_from_the_addresses_of_each_side() {
    let mut prog = Prog::with(&desired());
    let sources = |prog: &Prog| {
        let (v4, v6) = (tables::<Be32>(prog).error_sources, tables::<Be128>(prog).error_sources);
        [0, 1].map(|side| (v4.get(&side, 0).unwrap().ip(), v6.get(&side, 0).unwrap().ip()))
    };
    let expected: [(IpAddr, IpAddr); 2] =
        [(PUBLIC.into(), PUBLIC6.into()), (PRIVATE.into(), PRIVATE6.into())];
    assert_eq!(sources(&prog), expected);
    let mut desired = desired();
    desired.error_sources[0] = ErrorSources::default();
    apply(&mut prog, &desired, 0);
    let none: (IpAddr, IpAddr) = (Be32::default().ip(), Be128::default().ip());
    assert_eq!(sources(&prog), [none, expected[1]]);
}

#[test]
fn settings_are_flags() {
    let mut prog = Prog::with(&gateway());
    let entry = |prog: &Prog| {
        let settings = CommonTables::open(prog.pins().root()).unwrap().settings;
        settings.get(&0, 0).unwrap()
    };
    let before = entry(&prog);
    assert_eq!((before.flags, before.mss), (setting::PING | setting::CLAMP_MSS, [0, 0]));
    assert_eq!(before.server_side, u32::from(side::PRIVATE));
    let mut desired = gateway();
    desired.settings = Settings { ping: false, clamp_mss: true, mss: [1400, 1380] };
    desired.masquerades[0].endpoint_independent = true;
    apply(&mut prog, &desired, 0);
    let after = entry(&prog);
    assert_eq!((after.flags, after.mss), (setting::CLAMP_MSS | setting::BINDINGS, [1400, 1380]));
    apply(&mut prog, &gateway(), 0);
    assert_eq!(entry(&prog), before, "no rule keeps bindings any more");
}

#[test]
fn connections_over_ipv6_go_to_the_servers_in_turn() {
    let mut prog = Prog::new();
    for n in 0..4 {
        let connection = prog.connect(client6(n), vip6());
        assert_eq!(connection.server, at(WEB6[usize::from(n) % 2], 80));
        assert_eq!(connection.source.ip(), PRIVATE6);
        prog.carries(&connection);
    }
    assert_eq!(WEB6.map(|server| prog.server_stats(server).established), [2, 2]);
    assert_eq!(WEB.map(|server| prog.server_stats(server).connections), [0, 0]);
    assert_eq!(prog.flows.v6.flows.entries.keys().count(), 8);
}

#[test]
fn an_unchanged_rule_is_adopted_and_goes_on_counting() {
    let mut desired = gateway();
    desired.masquerades.insert(0, rule_over(OTHER, VIP));
    let mut prog = Prog::with(&desired);
    open(&mut prog, 40000);
    let before = [SOURCES, OTHER].map(|source| ids(&prog, source));
    // In another order: what it is known by are its sources.
    desired.masquerades.reverse();
    restart(&mut prog);
    assert_eq!(apply(&mut prog, &desired, 0), []);
    assert_eq!([SOURCES, OTHER].map(|source| ids(&prog, source)), before);
    open(&mut prog, 40001);
    assert_eq!(prog.masquerade_stats(SOURCES).connections, 2);
    assert_eq!(prog.masquerade_stats(OTHER).connections, 0);
}

#[test]
fn a_rule_that_keeps_a_source_keeps_its_index_and_its_counters() {
    let mut desired = Desired { masquerades: vec![rule_over(SOURCES, PUBLIC)], ..gateway() };
    let mut prog = Prog::with(&desired);
    open(&mut prog, 40000);
    let before = ids(&prog, SOURCES);
    let both = vec![prefix(OTHER), prefix(SOURCES)];

    desired.masquerades[0].sources = both.clone();
    let changes = apply(&mut prog, &desired, 0);
    assert_eq!(changes, [Change::Masquerade(both.clone(), Some(vec![PUBLIC.into()]))]);
    assert_eq!((ids(&prog, SOURCES), ids(&prog, OTHER)), (before, before));

    desired.masquerades[0].externals = vec![VIP.into(), PUBLIC.into()];
    let changes = apply(&mut prog, &desired, 0);
    assert_eq!(changes, [Change::Masquerade(both, Some(vec![VIP.into(), PUBLIC.into()]))]);
    assert_eq!((ids(&prog, SOURCES), ids(&prog, OTHER)), (before, before));
    let (_, rule) = rule_of::<Be32>(&prog, SOURCES).unwrap();
    assert_eq!((rule.count, rule.addresses[0], rule.addresses[1]), (2, VIP.into(), PUBLIC.into()));

    // Divided in two, the first that asks is the old one.
    desired.masquerades = vec![rule_over(OTHER, PUBLIC), rule_over(SOURCES, PUBLIC)];
    apply(&mut prog, &desired, 0);
    assert_eq!(ids(&prog, OTHER), before);
    assert_ne!(ids(&prog, SOURCES), before);
    let counted = [OTHER, SOURCES].map(|source| prog.masquerade_stats(source).connections);
    assert_eq!(counted, [1, 0]);
    restart(&mut prog);
    assert_eq!(apply(&mut prog, &desired, 0), []);
}

#[test]
fn a_rule_without_external_addresses_refuses() {
    let mut desired = gateway();
    desired.masquerades[0].externals = vec![];
    let mut prog = Prog::with(&gateway());
    open(&mut prog, 40000);
    apply(&mut prog, &desired, 0);
    let syn = Frame::syn(at(WEB[0], 40001), remote());
    prog.private(syn.clone()).dropped(Counter::DropNoExternal);
    let (_, rule) = rule_of::<Be32>(&prog, SOURCES).unwrap();
    assert_eq!((rule.count, rule.addresses[7]), (0, PUBLIC.into()), "one may be chosen meanwhile");
    apply(&mut prog, &gateway(), 0);
    assert_eq!(prog.private(syn).forwarded().source().ip(), PUBLIC);
}

#[test]
fn a_removed_rule_keeps_its_index_while_connections_or_bindings_refer_to_it() {
    for restarted in [false, true] {
        let mut prog = Prog::with(&gateway());
        let sent = open(&mut prog, 40000);
        let (index, owner) = ids(&prog, SOURCES).unwrap();
        let key = BindingKey::new(WEB[0].into(), Be16::new(5000), UDP, end::INSIDE);
        let binding = Binding4 {
            addr: PUBLIC.into(),
            port: Be16::new(5000),
            rule: index as u16,
            created: lbha::datapath::expiry::now(),
        };
        let mut other = rule_over(OTHER, PUBLIC);
        other.endpoint_independent = true;
        prog.flows.v4.bindings.entries.insert(key, binding, 0).unwrap();

        let desired = Desired { masquerades: vec![], ..gateway() };
        let mut removed = apply(&mut prog, &desired, 0);
        removed.sort_by_key(|change| format!("{change:?}"));
        let expected = [SOURCES, SOURCES6].map(|s| Change::Masquerade(vec![prefix(s)], None));
        assert_eq!(removed, expected);
        let syn = Frame::syn(at(WEB[0], 40001), remote()).macs(WEB_MAC[0], PRIVATE_MAC).build();
        prog.run(side::PRIVATE, &syn).passed(Counter::PassUnmatched, &syn);
        // The connection goes on for as long as nobody ends it, and is counted as its rule's.
        let answer = Frame::tcp(remote(), sent.source()).flags(SYN | ACK);
        prog.public(answer).forwarded();
        if restarted {
            restart(&mut prog);
        }
        // What has gone with the old owner is not given to a new one.
        let desired = Desired { masquerades: vec![other], ..gateway() };
        apply(&mut prog, &desired, 0);
        assert_ne!(ids(&prog, OTHER).unwrap().0, index);
        assert_ne!(ids(&prog, OTHER).unwrap().1, owner);
        release(&mut prog, 1);
        let is_there = |prog: &Prog| {
            let owners = prog.applier.masquerade_owners();
            owners.iter().any(|rule| rule.owner == u32::from(owner) && rule.retired)
        };
        assert!(is_there(&prog), "a connection");
        for key in [
            key_of::<Be32>(side::PRIVATE, TCP, at(WEB[0], 40000), remote()),
            key_of(side::PUBLIC, TCP, remote(), sent.source()),
        ] {
            prog.flows.v4.flows.entries.remove(&key).unwrap();
        }
        release(&mut prog, 2);
        assert!(is_there(&prog), "a binding");
        prog.flows.v4.bindings.entries.remove(&key).unwrap();
        release(&mut prog, 3);
        assert!(!is_there(&prog));
        assert_eq!(tables::<Be32>(&prog).rules.get(&index, 0).unwrap(), Rule::default());
        let third = rule_over("10.8.0.0/16", PUBLIC);
        let desired =
            Desired { masquerades: vec![desired.masquerades[0].clone(), third], ..gateway() };
        apply(&mut prog, &desired, 3);
        assert_eq!(ids(&prog, "10.8.0.0/16"), Some((index, owner)));
        assert_eq!(prog.masquerade_stats("10.8.0.0/16").packets_in, 0, "counted from 0");
    }
}

#[test]
fn servers_and_rules_of_both_families_never_share_an_owner() {
    let mut desired = gateway();
    desired.masquerades.push(rule_over(OTHER, VIP));
    let prog = Prog::with(&desired);
    let mut owners: Vec<u32> =
        prog.applier.masquerade_owners().iter().map(|rule| rule.owner).collect();
    for (id, service) in &desired.services {
        for server in &service.servers {
            let key = lbha::datapath::apply::BackendKey {
                service: *id,
                address: server.address,
                port: server.port,
            };
            owners.push(prog.applier.backend_id(&key).unwrap());
        }
    }
    assert_eq!(owners.len(), 7);
    assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), 7);
}
