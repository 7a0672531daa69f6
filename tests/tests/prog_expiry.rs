//! The sweep: which connections end, and what it finds in use.

use std::{collections::HashSet, time::Duration};

use lbha::datapath::{
    batch,
    desired::ServiceId,
    expiry::{Sweep, Timeouts, now, sweep},
    loader::Sizes,
};
use lbha_common::{
    addr::Be32,
    conntrack::state,
    counter::Counter,
    flow::{Flow4, FlowKey4},
};
use lbha_tests::{
    packet::{Frame, tcp_flags::*},
    prog::*,
};

const SHORT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(3600);
/// In ticks: longer than [`SHORT`], shorter than [`LONG`].
const AGE: u32 = 15;

const LONG_ALL: Timeouts = Timeouts::all(LONG);
const SHORT_ALL: Timeouts = Timeouts::all(SHORT);

fn run(prog: &mut Prog, timeouts: &Timeouts) -> Sweep {
    prog.sweep(timeouts, 1)
}

/// Makes an entry look as if its last packet had been long ago.
fn age(prog: &mut Prog, key: &FlowKey4) {
    let tables = [&mut prog.flows.v4.flows.entries, &mut prog.flows.v4.half_open.entries];
    for table in tables {
        if let Ok(mut entry) = table.get(key, 0) {
            entry.last_seen = now() - AGE;
            table.insert(key, entry, 0).unwrap();
        }
    }
}

fn age_both(prog: &mut Prog, connection: &Connection) {
    age(prog, &connection.client_key());
    age(prog, &connection.server_key());
}

#[test]
fn a_connection_ends_when_both_directions_are_idle_and_not_before() {
    let mut prog = Prog::new();
    let [both, client_only, server_only, none] =
        [0, 1, 2, 3].map(|n| prog.connect(client(n), vip()));
    age_both(&mut prog, &both);
    age(&mut prog, &client_only.client_key());
    age(&mut prog, &server_only.server_key());
    let result = run(&mut prog, &SHORT_ALL);
    assert_eq!(result.expired, 1);
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (6, 0));
    for connection in [client_only, server_only, none] {
        prog.carries(&connection);
    }
    prog.public(both.from_client()).dropped(Counter::DropNoFlow);
    // A packet makes it young again; with longer timeouts it would not have ended at all.
    let result = run(&mut prog, &SHORT_ALL);
    assert_eq!((result.expired, result.connections()), (0, 3));
    age_both(&mut prog, &none);
    assert_eq!(run(&mut prog, &LONG_ALL).expired, 0);
}

#[test]
fn an_entry_without_its_other_half_ends_by_itself() {
    let mut prog = Prog::new();
    let [first, second] = [0, 1].map(|n| prog.connect(client(n), vip()));
    prog.flows.v4.flows.entries.remove(&first.client_key()).unwrap();
    prog.flows.v4.flows.entries.remove(&second.server_key()).unwrap();
    assert_eq!(run(&mut prog, &SHORT_ALL).expired, 0);
    age(&mut prog, &first.server_key());
    age(&mut prog, &second.client_key());
    assert_eq!(run(&mut prog, &SHORT_ALL).expired, 2);
    assert_eq!(prog.flow_entries(), 0);
}

#[test]
fn every_phase_has_its_own_timeout() {
    let udp_service = ServiceId { port: 53, protocol: UDP, ..WWW };
    let mut desired = desired();
    let service = www(&mut desired).clone();
    desired.services.insert(udp_service, service);
    // In the order in which the connections are made below.
    let cases = [
        ("syn", Timeouts { tcp_syn: SHORT, ..LONG_ALL }),
        ("established", Timeouts { tcp_established: SHORT, ..LONG_ALL }),
        ("fin_wait", Timeouts { tcp_fin_wait: SHORT, ..LONG_ALL }),
        ("time_wait", Timeouts { tcp_time_wait: SHORT, ..LONG_ALL }),
        ("reset", Timeouts { tcp_reset: SHORT, ..LONG_ALL }),
        ("udp", Timeouts { udp: SHORT, ..LONG_ALL }),
        ("unreplied", Timeouts { udp_unreplied: SHORT, ..LONG_ALL }),
    ];
    for (n, (phase, timeouts)) in cases.iter().enumerate() {
        let mut prog = Prog::with(&desired);
        let mut keys = Vec::new();
        let syn = prog.begin(client(0), vip());
        let [established, fin_wait, time_wait, reset] =
            [1, 2, 3, 4].map(|n| prog.connect(client(n), vip()));
        prog.public(fin_wait.from_client().flags(FIN | ACK)).forwarded();
        prog.public(time_wait.from_client().flags(FIN | ACK)).forwarded();
        prog.private(time_wait.from_server().flags(FIN | ACK)).forwarded();
        prog.private(reset.from_server().flags(RST)).forwarded();
        for connection in [syn, established, fin_wait, time_wait, reset] {
            keys.push([connection.client_key(), connection.server_key()]);
        }
        for (client, replied) in [(client(5), true), (client(6), false)] {
            let datagram = Frame::udp(client, at(VIP, 53));
            let query = prog.public(datagram.clone()).forwarded();
            let (server, source) = (query.destination(), query.source());
            if replied {
                prog.private(Frame::udp(server, source)).forwarded();
                prog.public(datagram).forwarded();
            }
            keys.push([key(0, UDP, client, at(VIP, 53)), key(1, UDP, server, source)]);
        }
        keys.iter().flatten().for_each(|key| age(&mut prog, key));

        let result = run(&mut prog, timeouts);
        assert_eq!(result.expired, 1, "{phase}");
        assert_eq!(prog.flow_entries() + prog.half_open_entries(), 12, "{phase}");
        let there = |key| {
            prog.flows.v4.flows.entries.get(key, 0).is_ok()
                || prog.flows.v4.half_open.entries.get(key, 0).is_ok()
        };
        assert!(keys[n].iter().all(|key| !there(key)), "{phase} has ended");
    }
}

#[test]
fn the_sweep_counts_connections_and_what_they_use() {
    let mut desired = desired();
    let mut prog = Prog::with(&desired);
    let open: Vec<Connection> = (0..3).map(|n| prog.connect(client(n), vip())).collect();
    let ended = prog.connect(client(3), vip());
    age_both(&mut prog, &ended);
    prog.begin(client(4), vip());
    let result = run(&mut prog, &SHORT_ALL);
    assert_eq!((result.connections(), result.half_open(), result.expired), (3, 1, 1));
    let entry = |prog: &Prog, key| prog.flows.v4.flows.entries.get(&key, 0).unwrap();
    let web = [0, 1].map(|n| entry(&prog, open[n].client_key()));
    assert_eq!(result.by_owner, [(web[0].backend, 2), (web[1].backend, 1)].into());
    assert_eq!(result.in_use.owners, web.map(|entry| entry.backend).into());
    let hops = [web[0].next_hop, web[1].next_hop, web[0].peer_next_hop];
    assert_eq!(result.in_use.v4.hops, hops.into());
    assert_eq!(result.in_use.sweep, 1);

    // A half whose other half was evicted still says where that one leads.
    www(&mut desired).slots = vec![0];
    let mut prog = Prog::with(&desired);
    let begun = prog.begin(client(0), vip());
    prog.flows.v4.half_open.entries.remove(&begun.server_key()).unwrap();
    let half = prog.flows.v4.half_open.entries.get(&begun.client_key(), 0).unwrap();
    let result = run(&mut prog, &SHORT_ALL);
    assert_eq!(result.in_use.v4.hops, HashSet::from([half.next_hop, half.peer_next_hop]));
}

#[test]
fn a_sweep_that_is_given_up_says_nothing() {
    let mut prog = Prog::new();
    prog.connect(client(0), vip());
    assert!(sweep(&mut prog.flows, &LONG_ALL, &prog.externals, 1, || false).unwrap().is_none());
    assert_eq!(prog.flow_entries(), 2);
}

#[test]
fn tables_of_many_batches_are_swept_whole() {
    let mut prog = Prog::sized(
        &desired(),
        Sizes { max_connections: 20_000, max_connections_v6: 20_000, max_half_open: 64 },
    );
    let template = prog.connect(client(0), vip());
    let client_half = prog.flows.v4.flows.entries.get(&template.client_key(), 0).unwrap();
    let (mut keys, mut entries) = (Vec::new(), Vec::new());
    for n in 0..15_000u32 {
        let key = FlowKey4 { saddr: Be32::new(n), ..template.client_key() };
        let idle = if n % 3 == 0 { AGE } else { 0 };
        let entry = Flow4 { saddr: Be32::new(n | 1 << 24), last_seen: now() - idle, ..client_half };
        keys.extend([key, key.peer(&entry)]);
        entries.extend([entry, entry.mirror(&key)]);
    }
    batch::insert(&prog.flows.v4.flows.data, &keys, &entries).unwrap();
    let result = run(&mut prog, &SHORT_ALL);
    assert_eq!((result.expired, result.connections()), (5_000, 10_001));
    assert_eq!(prog.flow_entries(), 20_002);
    assert_eq!(client_half.state & state::REPLY, 0);
}
