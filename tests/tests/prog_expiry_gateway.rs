//! The sweep over masqueraded connections, of both families: what it ends, and what it counts.

use std::{net::SocketAddr, time::Duration};

use lbha::datapath::{
    Desired,
    expiry::{External, Source, Timeouts, now},
    family::Family,
    tables::FamilyFlows,
};
use lbha_common::{
    addr::{Be16, Be32, Be128},
    counter::Counter,
    flow::{FlowKey, side},
    fragment::{Fragment4, FragmentKey4, fate},
    masquerade::{Binding, BindingKey, Counted, end},
};
use lbha_tests::{
    packet::{Frame, Parsed, tcp_flags::*},
    prog::*,
};

const SHORT: Timeouts = Timeouts::all(Duration::from_secs(10));
const LONG: Timeouts = Timeouts::all(Duration::from_secs(3600));
/// In ticks: longer than the one, shorter than the other.
const AGE: u32 = 15;

/// The tables of a family, and a host and its remote end in it.
trait Of: Family {
    const INSIDE: fn(u16) -> SocketAddr;
    const REMOTE: fn() -> SocketAddr;
    const EXTERNAL: fn() -> Self;

    fn tables(prog: &mut Prog) -> &mut FamilyFlows<Self>;
}

impl Of for Be32 {
    const INSIDE: fn(u16) -> SocketAddr = |port| at(WEB[0], port);
    const REMOTE: fn() -> SocketAddr = remote;
    const EXTERNAL: fn() -> Self = || PUBLIC.into();

    fn tables(prog: &mut Prog) -> &mut FamilyFlows<Self> {
        &mut prog.flows.v4
    }
}

impl Of for Be128 {
    const INSIDE: fn(u16) -> SocketAddr = |port| at(WEB6[0], port);
    const REMOTE: fn() -> SocketAddr = remote6;
    const EXTERNAL: fn() -> Self = || PUBLIC6.into();

    fn tables(prog: &mut Prog) -> &mut FamilyFlows<Self> {
        &mut prog.flows.v6
    }
}

/// A masqueraded connection's first packet, as it left.
fn open<A: Of>(prog: &mut Prog, port: u16) -> Parsed {
    prog.private(Frame::syn(A::INSIDE(port), A::REMOTE())).forwarded()
}

/// The keys of both directions.
fn keys<A: Of>(port: u16, sent: &Parsed) -> [FlowKey<A>; 2] {
    let there = key_of(side::PRIVATE, TCP, A::INSIDE(port), A::REMOTE());
    [there, key_of(side::PUBLIC, TCP, A::REMOTE(), sent.source())]
}

/// Makes an entry look as if its last packet had been long ago.
fn age<A: Of>(prog: &mut Prog, key: &FlowKey<A>) {
    let table = &mut A::tables(prog).flows.entries;
    let mut entry = table.get(key, 0).unwrap();
    entry.last_seen = now() - AGE;
    table.insert(key, entry, 0).unwrap();
}

fn counted<A: Of>(prog: &mut Prog) -> Option<(u64, u32)> {
    let source = A::of(A::INSIDE(0).ip()).unwrap();
    let counted: Counted = A::tables(prog).counted.entries.get(&source, 0).ok()?;
    Some((counted.begun, counted.alive))
}

fn begun<A: Of>(prog: &mut Prog) -> Option<u64> {
    let source = A::of(A::INSIDE(0).ip()).unwrap();
    A::tables(prog).begun.entries.get(&source, 0).ok()
}

fn sources_are_counted_until_they_are_gone<A: Of>() {
    let mut prog = Prog::with(&gateway());
    let sent = [1, 2, 3].map(|n| (4000 + n, open::<A>(&mut prog, 4000 + n)));
    assert_eq!((begun::<A>(&mut prog), counted::<A>(&mut prog)), (Some(3), None));
    let swept = prog.sweep(&SHORT, 1);
    assert_eq!(counted::<A>(&mut prog), Some((3, 3)));
    let row = Source { address: A::INSIDE(0).ip(), connections: 3 };
    assert_eq!(swept.sources, [row]);
    // One has ended; of another only the remote end is alive, which is alive all the same.
    keys::<A>(sent[0].0, &sent[0].1).iter().for_each(|key| age(&mut prog, key));
    age(&mut prog, &keys::<A>(sent[1].0, &sent[1].1)[0]);
    let swept = prog.sweep(&SHORT, 2);
    assert_eq!((swept.expired, swept.connections()), (1, 2));
    assert_eq!(counted::<A>(&mut prog), Some((3, 2)));
    // All have ended: one sweep finds that out, the next that nothing has begun since.
    for (port, sent) in &sent[1..] {
        keys::<A>(*port, sent).iter().for_each(|key| age(&mut prog, key));
    }
    prog.sweep(&SHORT, 3);
    assert_eq!((begun::<A>(&mut prog), counted::<A>(&mut prog)), (Some(3), Some((3, 0))));
    open::<A>(&mut prog, 4004);
    prog.sweep(&SHORT, 4);
    assert_eq!(counted::<A>(&mut prog), Some((4, 1)), "it has begun another");
    let [there, back] = keys::<A>(4004, &open::<A>(&mut prog, 4004));
    [there, back].iter().for_each(|key| age(&mut prog, key));
    prog.sweep(&SHORT, 5);
    assert_eq!((begun::<A>(&mut prog), counted::<A>(&mut prog)), (Some(4), Some((4, 0))));
    prog.sweep(&SHORT, 6);
    assert_eq!((begun::<A>(&mut prog), counted::<A>(&mut prog)), (None, None));
}

#[test]
fn sources_over_ipv4_are_counted_until_they_are_gone() {
    sources_are_counted_until_they_are_gone::<Be32>();
}

#[test]
fn sources_over_ipv6_are_counted_until_they_are_gone() {
    sources_are_counted_until_they_are_gone::<Be128>();
}

#[test]
fn a_source_gets_its_share_back_when_connections_end() {
    let mut desired = gateway();
    desired.masquerades[0].max_ports = 2;
    let mut prog = Prog::with(&desired);
    let sent = [4000, 4001].map(|port| (port, open::<Be32>(&mut prog, port)));
    let third = Frame::syn(at(WEB[0], 4002), remote());
    prog.private(third.clone()).refused(Counter::DropQuota);
    prog.sweep(&SHORT, 1);
    prog.private(third.clone()).refused(Counter::DropQuota);
    keys::<Be32>(sent[0].0, &sent[0].1).iter().for_each(|key| age(&mut prog, key));
    prog.sweep(&SHORT, 2);
    prog.private(third).forwarded();
    prog.private(Frame::syn(at(WEB[0], 4003), remote())).refused(Counter::DropQuota);
    prog.private(Frame::syn(at(WEB[1], 4003), remote())).forwarded();
}

#[test]
fn a_count_without_a_beginning_is_removed() {
    let mut prog = Prog::with(&gateway());
    let stale = Counted { begun: 9, alive: 9, _pad: 0 };
    prog.flows.v4.counted.entries.insert(Be32::from(WEB[0]), stale, 0).unwrap();
    prog.sweep(&SHORT, 1);
    assert_eq!(counted::<Be32>(&mut prog), None);
}

/// Of each family, in both tables: what an address that leaves takes with it.
#[test]
fn connections_from_an_address_that_has_left_end_at_once() {
    let mut prog = Prog::with(&gateway());
    let service = prog.connect(client(0), vip());
    open::<Be32>(&mut prog, 4000);
    let v6 = open::<Be128>(&mut prog, 4000);
    // The answer makes no difference.
    prog.public(Frame::tcp(remote6(), v6.source()).flags(SYN | ACK)).forwarded();
    let mut desired = gateway();
    desired.masquerades[0].externals = vec![VIP.into(), PUBLIC6.into()];
    prog.apply(&desired);
    let swept = prog.sweep(&LONG, 1);
    assert_eq!((swept.orphaned, swept.expired), (1, 0));
    assert_eq!((swept.v4.connections, swept.v6.connections), (1, 1));
    assert_eq!(prog.flow_entries(), 4);
    prog.carries(&service);
    assert_eq!(open::<Be32>(&mut prog, 4000).source().ip(), VIP, "a new one gets a new address");

    desired.masquerades.clear();
    prog.apply(&desired);
    let swept = prog.sweep(&LONG, 2);
    assert_eq!((swept.orphaned, prog.flow_entries()), (2, 2));
}

#[test]
fn half_of_a_connection_from_an_address_that_has_left_ends_too() {
    for left in [0, 1] {
        let mut prog = Prog::with(&gateway());
        let sent = open::<Be32>(&mut prog, 4000);
        let removed = keys::<Be32>(4000, &sent)[left];
        prog.flows.v4.flows.entries.remove(&removed).unwrap();
        assert_eq!(prog.sweep(&LONG, 1).orphaned, 0);
        prog.apply(&desired());
        assert_eq!(prog.sweep(&LONG, 2).orphaned, 1);
        assert_eq!(prog.flow_entries(), 0);
    }
}

/// What is in use by external address and protocol, without the addresses.
fn usage(prog: &mut Prog) -> Vec<External> {
    prog.sweep(&LONG, 1).externals
}

#[test]
fn ports_are_counted_by_external_address_and_remote_end() {
    let mut prog = Prog::with(&gateway());
    let elsewhere = at(REMOTE, 443);
    for port in 4000..4003 {
        prog.private(Frame::syn(at(WEB[0], port), remote())).forwarded();
    }
    prog.private(Frame::syn(at(WEB[1], 4000), elsewhere)).forwarded();
    prog.private(Frame::udp(at(WEB[1], 4000), elsewhere)).forwarded();
    prog.private(Frame::syn(at(WEB6[0], 4000), remote6())).forwarded();
    let row = |address: std::net::IpAddr, protocol, connections, busiest| External {
        address,
        protocol,
        connections,
        busiest: Some(busiest),
        bindings: 0,
    };
    let expected = [
        row(PUBLIC.into(), TCP, 4, (remote(), 3)),
        row(PUBLIC.into(), UDP, 1, (elsewhere, 1)),
        row(PUBLIC6.into(), TCP, 1, (remote6(), 1)),
    ];
    assert_eq!(usage(&mut prog), expected);
}

fn independent() -> Desired {
    let mut desired = gateway();
    desired.masquerades[0].endpoint_independent = true;
    desired
}

/// Both ends of a binding, by hand; gives their keys.
fn bind<A: Of>(prog: &mut Prog, inside: u16, outside: u16, created: u32) -> [BindingKey<A>; 2] {
    let (inside, outside) = (Be16::new(inside), Be16::new(outside));
    let addr = A::of(A::INSIDE(0).ip()).unwrap();
    let key = |addr, port, end| BindingKey::new(addr, port, TCP, end);
    let keys = [key(addr, inside, end::INSIDE), key(A::EXTERNAL(), outside, end::OUTSIDE)];
    let there = Binding { addr: A::EXTERNAL(), port: outside, rule: 0, created };
    let table = &mut A::tables(prog).bindings.entries;
    table.insert(keys[0], there, 0).unwrap();
    table.insert(keys[1], Binding { addr, port: inside, ..there }, 0).unwrap();
    keys
}

fn are_there<A: Of>(prog: &mut Prog, keys: &[BindingKey<A>]) -> Vec<bool> {
    let table = &A::tables(prog).bindings.entries;
    keys.iter().map(|key| table.get(key, 0).is_ok()).collect()
}

fn bindings_stay_while_they_are_used_or_new<A: Of>() {
    let mut prog = Prog::with(&independent());
    let old = now() - AGE;
    let used = bind::<A>(&mut prog, 4000, 5000, old);
    let unused = bind::<A>(&mut prog, 4001, 5001, old);
    let new = bind::<A>(&mut prog, 4002, 5002, now());
    let sent = open::<A>(&mut prog, 4000);
    assert_eq!(sent.source().port(), 5000, "by the binding");
    let swept = prog.sweep(&SHORT, 1);
    assert_eq!(are_there(&mut prog, &used), [true, true]);
    assert_eq!(are_there(&mut prog, &unused), [false, false]);
    assert_eq!(are_there(&mut prog, &new), [true, true]);
    assert_eq!(swept.externals[0].bindings, 2);
    let rules = if A::VERSION == 4 { &swept.in_use.v4.rules } else { &swept.in_use.v6.rules };
    assert_eq!(rules, &[0].into());
    // With its connection it goes too.
    keys::<A>(4000, &sent).iter().for_each(|key| age(&mut prog, key));
    prog.sweep(&SHORT, 2);
    assert_eq!(are_there(&mut prog, &used), [false, false]);
}

#[test]
fn bindings_over_ipv4_stay_while_they_are_used_or_new() {
    bindings_stay_while_they_are_used_or_new::<Be32>();
}

#[test]
fn bindings_over_ipv6_stay_while_they_are_used_or_new() {
    bindings_stay_while_they_are_used_or_new::<Be128>();
}

#[test]
fn a_connection_that_came_in_through_a_binding_keeps_it() {
    let mut prog = Prog::with(&independent());
    let binding = bind::<Be32>(&mut prog, 4000, 5000, now() - AGE);
    let syn = prog.public(Frame::syn(client(0), at(PUBLIC, 5000))).forwarded();
    assert_eq!(syn.destination(), at(WEB[0], 4000));
    prog.sweep(&SHORT, 1);
    assert_eq!(are_there(&mut prog, &binding), [true, true]);
    for key in [
        key(side::PUBLIC, TCP, client(0), at(PUBLIC, 5000)),
        key(side::PRIVATE, TCP, at(WEB[0], 4000), client(0)),
    ] {
        prog.flows.v4.half_open.entries.remove(&key).unwrap();
    }
    prog.sweep(&SHORT, 2);
    assert_eq!(are_there(&mut prog, &binding), [false, false]);
}

#[test]
fn ends_without_their_other_end_are_removed_when_they_are_old() {
    let mut prog = Prog::with(&independent());
    let old = now() - AGE;
    let inside_only = bind::<Be32>(&mut prog, 4000, 5000, old);
    let outside_only = bind::<Be32>(&mut prog, 4001, 5001, old);
    let young = bind::<Be32>(&mut prog, 4002, 5002, now());
    // The inside end of this one points elsewhere by now.
    let left_behind = bind::<Be32>(&mut prog, 4003, 5003, old);
    let newer = bind::<Be32>(&mut prog, 4003, 5004, now());
    for key in [inside_only[1], outside_only[0], young[0]] {
        prog.flows.v4.bindings.entries.remove(&key).unwrap();
    }
    prog.sweep(&SHORT, 1);
    assert_eq!(are_there(&mut prog, &inside_only), [false, false]);
    assert_eq!(are_there(&mut prog, &outside_only), [false, false]);
    assert_eq!(are_there(&mut prog, &young), [false, true], "its other end may be on its way");
    assert_eq!(are_there(&mut prog, &left_behind[1..]), [false]);
    assert_eq!(are_there(&mut prog, &newer), [true, true]);
}

#[test]
fn bindings_to_an_address_that_has_left_go_with_it() {
    let mut prog = Prog::with(&independent());
    let sent = open::<Be32>(&mut prog, 4000);
    let mut desired = independent();
    desired.masquerades[0].externals = vec![VIP.into()];
    prog.apply(&desired);
    let swept = prog.sweep(&LONG, 1);
    assert_eq!((swept.orphaned, prog.flow_entries()), (1, 0));
    assert_eq!(prog.flows.v4.bindings.entries.keys().count(), 0);
    let again = open::<Be32>(&mut prog, 4000);
    assert_eq!((sent.source().ip(), again.source().ip()), (PUBLIC.into(), VIP.into()));
    assert_eq!(prog.flows.v4.bindings.entries.keys().count(), 2);
}

#[test]
fn masqueraded_connections_have_timeouts_of_their_own() {
    let short = Duration::from_secs(10);
    let mut prog = Prog::with(&gateway());
    let opening = open::<Be32>(&mut prog, 4000);
    let established = open::<Be32>(&mut prog, 4001);
    let closing = open::<Be32>(&mut prog, 4002);
    for sent in [&established, &closing] {
        prog.public(Frame::tcp(remote(), sent.source()).flags(SYN | ACK)).forwarded();
    }
    for port in [4001, 4002] {
        prog.private(Frame::tcp(at(WEB[0], port), remote())).forwarded();
    }
    prog.private(Frame::tcp(at(WEB[0], 4002), remote()).flags(FIN | ACK)).forwarded();
    for (port, sent) in [(4000, &opening), (4001, &established), (4002, &closing)] {
        keys::<Be32>(port, sent).iter().for_each(|key| age(&mut prog, key));
    }
    let there = |prog: &Prog| {
        let all = [(4000, &opening), (4001, &established), (4002, &closing)];
        all.map(|(port, sent)| {
            prog.flows.v4.flows.entries.get(&keys::<Be32>(port, sent)[0], 0).is_ok()
        })
    };
    prog.sweep(&Timeouts { masquerade_opening: short, ..LONG }, 1);
    assert_eq!(there(&prog), [false, true, true]);
    prog.sweep(&Timeouts { masquerade_closing: short, ..LONG }, 2);
    assert_eq!(there(&prog), [false, true, false]);
    prog.sweep(&Timeouts { tcp_established: short, ..LONG }, 3);
    assert_eq!(there(&prog), [false, false, false]);
}

#[test]
fn connections_over_ipv6_expire_and_hold_what_they_use() {
    let mut prog = Prog::new();
    let [open, ended] = [0, 1].map(|n| prog.connect(client6(n), vip6()));
    for (from, to, on) in
        [(ended.client, ended.service, side::PUBLIC), (ended.server, ended.source, side::PRIVATE)]
    {
        age::<Be128>(&mut prog, &key6(on, TCP, from, to));
    }
    let swept = prog.sweep(&SHORT, 1);
    assert_eq!((swept.expired, swept.v4.connections, swept.v6.connections), (1, 0, 1));
    assert!(swept.in_use.v4.hops.is_empty());
    assert_eq!(swept.in_use.v6.hops.len(), 3, "both servers', and the router's");
    prog.carries(&open);
}

#[test]
fn fragments_hold_what_they_use_until_none_can_be_under_way() {
    let mut prog = Prog::new();
    let key = |id| FragmentKey4 {
        saddr: CLIENT.into(),
        daddr: VIP.into(),
        id,
        ..FragmentKey4::default()
    };
    for (id, created) in [(1, now()), (2, now() - 100)] {
        let hop = id as u16;
        let note = Fragment4 { fate: fate::FORWARD, created, ..Fragment4::default() };
        let fragment = Fragment4 { next_hop: hop, backend: 10 + hop, ..note };
        prog.flows.v4.fragments.entries.insert(key(id), fragment, 0).unwrap();
    }
    let in_use = prog.sweep(&SHORT, 1).in_use;
    assert_eq!((in_use.v4.hops, in_use.owners), ([1].into(), [11].into()));
    let left: Vec<_> = prog.flows.v4.fragments.entries.keys().map(Result::unwrap).collect();
    assert_eq!(left, [key(1)]);
}
