//! Every verdict by name: a packet that provokes it, the one counter that moves, and all that stays as it was.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, path::Path};

use lbha::datapath::{
    desired::{Desired, Route},
    loader::Sizes,
    tables::events,
};
use lbha_common::{
    addr::Be32,
    counter::Counter::{self, *},
    event,
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
};
use lbha_tests::{
    packet::{Frame, checksum, tcp_flags::*},
    prog::*,
};

type Tests = &'static [fn()];

/// The tests of each verdict. A counter that is added without a test fails the first one.
const COVERED: &[(Counter, Tests)] = &[
    (Forward, &[options_and_padding_are_kept]),
    (ForwardSame, &[a_server_reaches_the_service_through_its_own_side]),
    (PassMac, &[frames_to_others_are_left_alone]),
    (PassNotIp, &[what_is_not_ip_is_left_alone, short_frames_are_never_forwarded]),
    (PassVlan, &[tagged_frames_are_left_alone_on_an_untagged_interface]),
    (PassIcmp, &[other_protocols_are_left_alone]),
    (PassProtocol, &[other_protocols_are_left_alone]),
    (PassMalformed, &[impossible_headers_are_left_to_the_kernel]),
    (PassUnmatched, &[what_is_the_hosts_own_is_left_alone]),
    (DropMalformed, &[lengths_that_contradict_each_other_are_dropped]),
    (DropChecksum, &[a_wrong_header_checksum_is_dropped]),
    (DropTtl, &[a_used_up_ttl_is_dropped]),
    (DropNoFlow, &[packets_of_no_connection_are_dropped]),
    (DropUnresolved, &[an_unresolved_server_is_not_tried, an_unresolved_client_is_asked_for]),
    (DropTooBig, &[a_packet_larger_than_the_next_hops_mtu_is_dropped]),
    (DropTableFull, &[a_full_table_refuses_new_connections_and_keeps_the_open_ones]),
    (DropNoPort, &[a_server_out_of_ports_refuses_and_its_neighbour_does_not]),
    (DropHandshake, &[only_the_right_acknowledgement_confirms]),
    (DropConflict, &[a_translation_that_was_given_away_is_given_up]),
    (DropHeadroom, &[a_tag_needs_room_before_the_frame]),
    (DropWrongSide, &[a_source_from_the_wrong_side_is_refused]),
];

/// The files with tests of the others, and what a test there says of the verdict.
#[rustfmt::skip]
const ELSEWHERE: &[(Counter, &str, &str)] = &[
    (PassIpv6, "prog_ipv6.rs", "passed(Counter::PassIpv6,"),
    (PassFragment, "prog_missing.rs", "passed(PassFragment,"),
    (DropFragment, "prog_fragment.rs", "DropFragment)"),
    (DropProtocol, "prog_masquerade.rs", "dropped(DropProtocol)"),
    (DropNoExternal, "prog_masquerade.rs", "dropped(DropNoExternal)"),
    (DropQuota, "prog_ports.rs", "refused(DropQuota)"),
    (DropIcmpNoFlow, "prog_icmp.rs", "dropped(DropIcmpNoFlow)"),
    (DropIcmpChecksum, "prog_icmp_refused.rs", "dropped(DropIcmpChecksum)"),
    (DropPing, "prog_echo.rs", "DropPing)"),
    (DropFragmentAttack, "prog_fragment.rs", "dropped(DropFragmentAttack)"),
    (DropFragmentLimit, "prog_fragment.rs", "DropFragmentLimit.as_str()"),
    (HoldFragment, "prog_fragment.rs", "HoldFragment.as_str()"),
    (ForwardIcmpError, "prog_icmp.rs", "forwarded_error()"),
    (DropRedirect, "prog_missing.rs", "drops(&mut prog, DropRedirect,"),
    (DropNoSource, "prog_missing.rs", "drops(&mut prog, DropNoSource,"),
    (DropNoServer, "prog_missing.rs", "drops(&mut prog, DropNoServer,"),
    (DropNoRoute, "prog_missing.rs", "drops(&mut prog, DropNoRoute,"),
    (DropInternal, "prog_missing.rs", "dropped(DropInternal)"),
    (AnswerEcho, "prog_echo.rs", "answered()"),
    (AnswerTtl, "prog_answer.rs", "dropped_and_answered(DropTtl, AnswerTtl)"),
    (AnswerTooBig, "prog_answer.rs", "TOO_BIG"),
    (AnswerUnreachable, "prog_ports.rs", "AnswerUnreachable.as_str()"),
    (AnswerLimited, "prog_answer.rs", "AnswerLimited"),
];

/// What no packet provokes from here, and why.
const UNREACHABLE: &[(Counter, &str)] = &[
    (
        DropHalfOpen,
        "an LRU map always finds an entry to evict; an insertion fails only when two CPUs meet in the same bucket",
    ),
    (DropFragmentExpired, "the controller counts it, of fragments that it held"),
];

#[test]
fn every_verdict_is_provoked_by_a_packet() {
    for (counter, file, says) in ELSEWHERE {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
        let text = fs::read_to_string(&path).expect("a file of tests");
        let tested = text.split("#[test]\n").skip(1).any(|test| test.contains(says));
        assert!(tested, "no test says {says:?} of {counter:?}");
    }
    let here = COVERED.iter().map(|(counter, _)| counter);
    let there = ELSEWHERE.iter().map(|(counter, ..)| counter);
    let nowhere = UNREACHABLE.iter().map(|(counter, _)| counter);
    let counters: BTreeSet<&str> =
        here.chain(there).chain(nowhere).map(|counter| counter.as_str()).collect();
    let all: BTreeSet<&str> = Counter::ALL.iter().map(|counter| counter.as_str()).collect();
    assert_eq!(counters, all);
    let listed = COVERED.len() + ELSEWHERE.len() + UNREACHABLE.len();
    assert_eq!(listed, all.len(), "each of them once");
}

/// A frame as the router would send it.
fn from_router(frame: Frame) -> Vec<u8> {
    frame.macs(ROUTER_MAC, PUBLIC_MAC).build()
}

/// A frame with some bytes of its IPv4 header changed and the header's checksum right again.
fn with_header(frame: Frame, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut frame = from_router(frame);
    change(&mut frame[14..34]);
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Runs a frame from the internet that must be left to the kernel without a trace.
#[track_caller]
fn passes(prog: &mut Prog, reason: Counter, frame: &[u8]) {
    let before = prog.state();
    prog.run(INTERNET, frame).passed(reason, frame);
    assert_eq!(prog.state(), before, "passed packets leave no state");
}

/// Runs a frame from the internet that must be dropped without a trace.
#[track_caller]
fn drops(prog: &mut Prog, reason: Counter, frame: &[u8]) {
    let before = prog.state();
    prog.run(INTERNET, frame).refused(reason);
    assert_eq!(prog.state(), before, "dropped packets leave no state");
}

fn changed(change: impl FnOnce(&mut Desired)) -> Prog {
    let mut desired = desired();
    change(&mut desired);
    Prog::with(&desired)
}

#[test]
fn frames_to_others_are_left_alone() {
    let mut prog = Prog::new();
    let multicast = [0x01, 0x00, 0x5e, 0, 0, 0x12];
    let almost = [2, 0, 0, 0, 0, 0x81];
    for mac in [[0xff; 6], multicast, ROUTER_MAC, PRIVATE_MAC, almost, [0; 6]] {
        let frame = Frame::syn(client(0), vip()).macs(ROUTER_MAC, mac).build();
        passes(&mut prog, PassMac, &frame);
    }
    let vrrp = Frame::raw(PUBLIC, Ipv4Addr::new(224, 0, 0, 18), 112, &[0x21; 20]);
    passes(&mut prog, PassMac, &vrrp.macs(ROUTER_MAC, multicast).build());
}

#[test]
fn what_is_not_ip_is_left_alone() {
    let mut prog = Prog::new();
    for (ethertype, reason) in [
        (0x0806u16, PassNotIp),  // ARP
        (0x88cc, PassNotIp),     // LLDP
        (0x0026, PassNotIp),     // an 802.3 length
        (0x86dd, PassMalformed), // by its version
    ] {
        let mut frame = from_router(Frame::syn(client(0), vip()));
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        passes(&mut prog, reason, &frame);
    }
}

#[test]
fn short_frames_are_never_forwarded() {
    let mut prog = Prog::new();
    let connection = prog.connect(client(0), vip());
    let data = connection.from_client().payload(b"123456").macs(ROUTER_MAC, PUBLIC_MAC);
    let syn = Frame::syn(client(1), vip()).macs(ROUTER_MAC, PUBLIC_MAC);
    let back = connection.from_server().payload(b"123456").macs(WEB_MAC[0], PRIVATE_MAC);
    let before = prog.state();
    for (side, frame) in [(INTERNET, data), (INTERNET, syn), (SERVERS, back)] {
        let frame = frame.build();
        for len in 14..60 {
            let frame = &frame[..len];
            match (len, side) {
                (..34, _) => prog.run(side, frame).passed(PassNotIp, frame),
                // No ports to go by: what is to the VIP is ours, what a server sent may be to anybody.
                (34..54, SERVERS) => prog.run(side, frame).passed(PassMalformed, frame),
                _ => prog.run(side, frame).dropped(DropMalformed),
            }
        }
    }
    assert_eq!(prog.state(), before);
}

#[test]
fn tagged_frames_are_left_alone_on_an_untagged_interface() {
    let mut prog = Prog::new();
    let syn = || Frame::syn(client(0), vip());
    passes(&mut prog, PassVlan, &from_router(syn().vlan(1)));
    passes(&mut prog, PassVlan, &from_router(syn().vlan(0)));
    passes(&mut prog, PassVlan, &from_router(syn().vlan(1).vlan(2)));
    passes(&mut prog, PassVlan, &from_router(syn().vlan(1).vlan(2).vlan(3)));
}

#[test]
fn other_protocols_are_left_alone() {
    let mut prog = Prog::new();
    let ping = from_router(Frame::echo_request(CLIENT, PUBLIC, 1, 1));
    passes(&mut prog, PassIcmp, &ping);
    let error = Frame::icmp_error(CLIENT, PUBLIC, 3, 1, &Frame::tcp(vip(), client(0)).quote(8));
    passes(&mut prog, PassIcmp, &from_router(error));
    for protocol in [0, 2, 4, 41, 47, 50, 89, 112, 132, 255] {
        let frame = from_router(Frame::raw(CLIENT, VIP, protocol, &[0; 40]));
        passes(&mut prog, PassProtocol, &frame);
    }
}

#[test]
fn impossible_headers_are_left_to_the_kernel() {
    let mut prog = Prog::new();
    for first in [0x44, 0x40, 0x05, 0x65, 0xf5] {
        let frame = with_header(Frame::syn(client(0), vip()), |header| header[0] = first);
        passes(&mut prog, PassMalformed, &frame);
    }
    let elsewhere = Frame::raw(CLIENT, PUBLIC, TCP, &[0; 19]);
    passes(&mut prog, PassMalformed, &from_router(elsewhere));
    let long = with_header(Frame::raw(CLIENT, PUBLIC, UDP, &[0; 30]), |header| header[0] = 0x4f);
    passes(&mut prog, PassMalformed, &long);
}

#[test]
fn what_is_the_hosts_own_is_left_alone() {
    let mut prog = Prog::new();
    for port in [22, 179, 81, 0] {
        passes(&mut prog, PassUnmatched, &from_router(Frame::syn(client(0), at(VIP, port))));
    }
    passes(&mut prog, PassUnmatched, &from_router(Frame::syn(client(0), at(PUBLIC, 80))));
    passes(&mut prog, PassUnmatched, &from_router(Frame::udp(client(0), vip())));
    // a server's answer to a health check
    let check = Frame::tcp(at(WEB[0], 80), at(PRIVATE, 50000)).flags(SYN | ACK);
    let check = check.macs(WEB_MAC[0], PRIVATE_MAC).build();
    prog.run(SERVERS, &check).passed(PassUnmatched, &check);
}

#[test]
fn options_and_padding_are_kept() {
    let mut prog = Prog::new();
    let connection = prog.connect(client(0), vip());
    // no operation, record route with room for two, end of list
    let options = [1, 7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0];
    for frame in [
        connection.from_client().ip_options(&options).payload(b"with options"),
        connection.from_client().ip_options(&[1; 40]).tos(0xb9).id(0),
        connection.from_client().padding(6),
        connection.from_client().ip_options(&[1; 4]).payload(b"x").padding(1),
    ] {
        let expected = translated(&frame, connection.source, connection.server)
            .macs(PRIVATE_MAC, WEB_MAC[0])
            .build();
        let outcome = prog.public(frame);
        outcome.forwarded();
        assert_eq!(outcome.frame, expected);
    }
    // Padding is whatever a driver left there, and in no checksum.
    let mut frame = from_router(connection.from_client().padding(6));
    frame[54..].fill(0xee);
    let outcome = prog.run(INTERNET, &frame);
    outcome.forwarded();
    assert_eq!(outcome.frame[54..], [0xee; 6]);
}

#[test]
fn a_server_reaches_the_service_through_its_own_side() {
    let mut prog = changed(|desired| {
        desired.routes.insert(host(WEB[0]), Route::Hop);
    });
    let inside = at(WEB[0], 40000);
    let syn = prog.private(Frame::syn(inside, vip())).sent_back();
    assert_eq!(
        (syn.ip.src, syn.ip.dst),
        (PRIVATE.into(), WEB[0].into()),
        "through us, even to itself"
    );
    assert_eq!((syn.eth_src, syn.eth_dst), (PRIVATE_MAC, WEB_MAC[0]));
}

#[test]
fn lengths_that_contradict_each_other_are_dropped() {
    let mut prog = Prog::new();
    let connection = prog.connect(client(0), vip());
    let total =
        |len: u16| move |header: &mut [u8]| header[2..4].copy_from_slice(&len.to_be_bytes());
    let data = || connection.from_client().payload(b"1234");
    for len in [45, 1500, 65535, 39, 20, 19, 0] {
        drops(&mut prog, DropMalformed, &with_header(data(), total(len)));
        let syn = Frame::syn(client(1), vip()).tcp_options(&[]).payload(b"1234");
        drops(&mut prog, DropMalformed, &with_header(syn, total(len)));
    }
    // A header with options leaves less: 20 + 4 + 20 is the least.
    let mut short = from_router(data().ip_options(&[1; 4]));
    short[16..18].copy_from_slice(&43u16.to_be_bytes());
    drops(&mut prog, DropMalformed, &short);
    prog.carries(&connection);
}

#[test]
fn a_wrong_header_checksum_is_dropped() {
    let mut prog = Prog::new();
    let connection = prog.connect(client(0), vip());
    for frame in [connection.from_client(), Frame::syn(client(1), vip())] {
        let mut frame = from_router(frame);
        frame[25] ^= 1;
        drops(&mut prog, DropChecksum, &frame);
    }
    // A bad acknowledgement confirms nothing, however right its number is.
    let begun = prog.begin(client(2), vip());
    prog.private(begun.answer()).forwarded();
    let mut ack = from_router(begun.from_client());
    ack[24] ^= 0x80;
    drops(&mut prog, DropChecksum, &ack);
    prog.public(begun.from_client()).forwarded();
}

#[test]
fn a_used_up_ttl_is_dropped() {
    let mut prog = Prog::new();
    let connection = prog.connect(client(0), vip());
    for ttl in [0, 1] {
        drops(&mut prog, DropTtl, &from_router(connection.from_client().ttl(ttl)));
        drops(&mut prog, DropTtl, &from_router(Frame::syn(client(1), vip()).ttl(ttl)));
        prog.private(connection.from_server().ttl(ttl)).refused(DropTtl);
    }
    assert_eq!(prog.public(connection.from_client().ttl(2)).forwarded().ip.ttl, 1);
    assert_eq!(prog.public(connection.from_client().ttl(255)).forwarded().ip.ttl, 254);
}

#[test]
fn packets_of_no_connection_are_dropped() {
    let mut prog = Prog::new();
    for flags in [ACK, FIN | ACK, RST, RST | ACK, SYN | ACK, SYN | FIN, SYN | RST, 0, 0x3f] {
        drops(&mut prog, DropNoFlow, &from_router(Frame::tcp(client(0), vip()).flags(flags)));
    }
    // What a server sends without a connection would get out with a private source.
    let stray = Frame::tcp(at(WEB[0], 80), client(0));
    prog.private(stray.clone()).dropped(DropNoFlow);
    drops(&mut prog, DropNoFlow, &from_router(stray));
    assert_eq!(prog.state(), (0, 0, [0, 0]));
}

#[test]
fn a_source_from_the_wrong_side_is_refused() {
    let mut prog = Prog::new();
    let mut desired = desired();
    // A server has a neighbour entry of its own, as on a real host.
    desired.routes.insert(host(WEB[1]), Route::Hop);
    prog.apply(&desired);
    let forged = at(WEB[1], 40000);
    drops(&mut prog, DropWrongSide, &from_router(Frame::syn(forged, vip())));
    let outward = prog.private(Frame::syn(client(0), vip()));
    outward.dropped(DropWrongSide);
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (0, 0));
}

#[test]
fn an_unresolved_server_is_not_tried() {
    let mut desired = desired();
    let mut prog = Prog::with(&desired);
    let connection = prog.connect(client(0), vip());
    desired.hops.get_mut(&host(WEB[0])).unwrap().dmac = None;
    www(&mut desired).slots = vec![0];
    prog.apply(&desired);
    drops(&mut prog, DropUnresolved, &from_router(Frame::syn(client(1), vip())));
    drops(&mut prog, DropUnresolved, &from_router(connection.from_client()));
    desired.hops.get_mut(&host(WEB[0])).unwrap().dmac = Some(WEB_MAC[0]);
    prog.apply(&desired);
    prog.carries(&connection);
}

#[test]
fn an_unresolved_client_is_asked_for() {
    let near = Ipv4Addr::new(147, 75, 104, 9);
    let mut desired = desired();
    desired.routes.insert(prefix("147.75.104.0/24"), Route::OnLink);
    let mut prog = Prog::with(&desired);
    let mut ring = events(prog.pins().root()).unwrap();
    let syn = Frame::syn(at(near, 40000), vip());
    drops(&mut prog, DropUnresolved, &from_router(syn.clone()));

    let asked: Vec<u8> = ring.next().expect("an event").to_vec();
    let words = [event::kind::RESOLVE, event::family::IPV4, Be32::from(near).raw(), 0, 0, 0];
    assert_eq!(asked, words.map(u32::to_ne_bytes).concat());
    assert!(ring.next().is_none(), "one packet, one event");

    desired.routes.insert(host(near), Route::Hop);
    desired.hops.insert(host(near), public_hop([2, 0, 0, 0, 0, 9]));
    prog.apply(&desired);
    let syn = prog.public(syn).forwarded();
    let answer = Frame::tcp(syn.destination(), syn.source()).flags(SYN | ACK);
    assert_eq!(prog.private(answer).forwarded().eth_dst, [2, 0, 0, 0, 0, 9]);
}

#[test]
fn a_packet_larger_than_the_next_hops_mtu_is_dropped() {
    let mut prog = changed(|desired| {
        desired.hops.get_mut(&IpPrefix::DEFAULT_V4).unwrap().mtu = 1400;
    });
    let connection = prog.connect(client(0), vip());
    prog.public(connection.from_client().payload(&[7; 1460])).forwarded();
    drops(&mut prog, DropTooBig, &from_router(connection.from_client().payload(&[7; 1461])));
    prog.private(connection.from_server().payload(&[7; 1360])).forwarded();
    prog.private(connection.from_server().payload(&[7; 1361])).refused(DropTooBig);
    let fast_open = Frame::syn(client(1), vip()).payload(&[7; 1449]);
    drops(&mut prog, DropTooBig, &from_router(fast_open));
}

#[test]
fn a_full_table_refuses_new_connections_and_keeps_the_open_ones() {
    let mut prog = Prog::sized(
        &desired(),
        Sizes { max_connections: 4, max_connections_v6: 4, max_half_open: 256 },
    );
    let open: Vec<Connection> = (0..4).map(|n| prog.connect(client(n), vip())).collect();
    let refused = prog.begin(client(4), vip());
    prog.private(refused.answer()).forwarded();
    for _ in 0..3 {
        drops(&mut prog, DropTableFull, &from_router(refused.from_client()));
    }
    for connection in &open {
        prog.carries(connection);
    }
    prog.flows.v4.flows.entries.remove(&open[2].client_key()).unwrap();
    drops(&mut prog, DropTableFull, &from_router(refused.from_client()));
    prog.flows.v4.flows.entries.remove(&open[2].server_key()).unwrap();
    prog.public(refused.from_client()).forwarded();
    prog.carries(&refused);
    prog.carries(&open[3]);
}

#[test]
fn a_server_out_of_ports_refuses_and_its_neighbour_does_not() {
    let mut prog = changed(|desired| www(desired).servers[0].source_ports = (2000, 2003));
    let mut ports = BTreeSet::new();
    for n in 0..8 {
        let connection = prog.connect(client(n), vip());
        if connection.server.ip() == WEB[0] {
            ports.insert(connection.source.port());
        }
    }
    assert_eq!(ports, (2000..=2003).collect(), "all of them are found");
    drops(&mut prog, DropNoPort, &from_router(Frame::syn(client(8), vip())));
    let neighbour = prog.connect(client(8), vip());
    assert_eq!(neighbour.server.ip(), WEB[1]);
    prog.carries(&neighbour);
}

#[test]
fn only_the_right_acknowledgement_confirms() {
    let mut prog = Prog::new();
    let connection = prog.begin(client(0), vip());
    drops(&mut prog, DropHandshake, &from_router(connection.from_client()));
    prog.private(connection.answer()).forwarded();
    for ack in [0, Connection::SERVER_ISN, Connection::SERVER_ISN + 2] {
        drops(&mut prog, DropHandshake, &from_router(connection.from_client().ack(ack)));
    }
    drops(&mut prog, DropHandshake, &from_router(connection.from_client().flags(FIN)));
    prog.public(connection.from_client()).forwarded();
}

#[test]
fn a_translation_that_was_given_away_is_given_up() {
    let mut prog = changed(|desired| {
        www(desired).slots = vec![0];
        www(desired).servers[0].source_ports = (2000, 2000);
    });
    let loser = prog.begin(client(0), vip());
    // As when the table evicts one half.
    prog.flows.v4.half_open.entries.remove(&loser.server_key()).unwrap();
    let winner = prog.connect(client(1), vip());
    assert_eq!((loser.source, loser.server), (winner.source, winner.server));
    prog.public(Frame::syn(client(0), vip())).dropped(DropConflict);
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (2, 0));
    prog.carries(&winner);
    drops(&mut prog, DropNoPort, &from_router(Frame::syn(client(0), vip())));
}

#[test]
fn a_tag_needs_room_before_the_frame() {
    let mut prog = changed(|desired| {
        desired.hops.get_mut(&host(WEB[0])).unwrap().tags = vec![tag(0x8100, 100)];
        www(desired).slots = vec![0];
    });
    let connection = prog.connect(client(0), vip());
    let frame = from_router(connection.from_client());
    match prog.run_without_headroom(INTERNET, &frame) {
        Some(outcome) => outcome.dropped(DropHeadroom),
        None => lbha_tests::skip("this kernel leaves room before every test packet"),
    }
    assert_eq!(prog.run(INTERNET, &frame).forwarded().vlans, [100]);
}
