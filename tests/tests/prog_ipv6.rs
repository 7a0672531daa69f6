//! Load balancing over IPv6: the same translation as over IPv4, byte for byte, with a header of its own to get through.

use std::{
    collections::BTreeSet,
    net::{Ipv6Addr, SocketAddr},
};

use lbha::datapath::desired::{Desired, Route, ServiceId};
use lbha_common::{
    counter::Counter,
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
};
use lbha_tests::{
    packet::{ETHERTYPE_VLAN, Extension, Frame, Transport, parse, tcp_flags::*},
    prog::*,
};

const DNS6: ServiceId = ServiceId { port: 53, protocol: UDP, ..WWW6 };

/// The guide's network with a UDP service on the same servers.
fn network(keep_client: bool) -> Desired {
    let mut desired = desired();
    www6(&mut desired).servers.iter_mut().for_each(|server| server.keep_client = keep_client);
    let mut service = www6(&mut desired).clone();
    service.servers.iter_mut().for_each(|server| server.port = 53);
    desired.services.insert(DNS6, service);
    desired
}

/// Sends a packet of a connection each way and compares every byte with the packet built anew.
#[track_caller]
fn carries_to_the_byte(prog: &mut Prog, c: &Connection, there: Frame, back: Frame) {
    let web = usize::from(c.server.ip() == WEB6[1]);
    let outcome = prog.public(there.clone());
    outcome.forwarded();
    let expected = translated(&there, c.source, c.server).macs(PRIVATE_MAC, WEB_MAC[web]);
    assert_eq!(outcome.frame, expected.build(), "to the server");
    let outcome = prog.private(back.clone());
    outcome.forwarded();
    let expected = translated(&back, c.service, c.client).macs(PUBLIC_MAC, ROUTER_MAC);
    assert_eq!(outcome.frame, expected.build(), "to the client");
}

fn datagrams(prog: &mut Prog, client: SocketAddr) -> Connection {
    let service = at(VIP6, 53);
    let query = prog.public(Frame::udp(client, service).payload(b"query")).forwarded();
    let c = Connection { client, service, source: query.source(), server: query.destination() };
    prog.private(Frame::udp(c.server, c.source)).forwarded();
    prog.public(Frame::udp(client, service)).forwarded();
    assert_eq!(prog.half_open_entries(), 0, "confirmed");
    c
}

fn udp_checksum(frame: &[u8]) -> u16 {
    match parse(frame).unwrap().transport {
        Transport::Udp { checksum, .. } => checksum,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_is_translated_there_and_back_to_the_byte() {
    for keep_client in [false, true] {
        let mut prog = Prog::with(&network(keep_client));
        let syn = Frame::syn(client6(0), vip6()).seq(Connection::CLIENT_ISN).tos(0xb8);
        let outcome = prog.public(syn.clone().flow_label(0xabcde));
        let first = outcome.forwarded();
        assert_eq!(first.destination(), at(WEB6[0], 80));
        assert_eq!(first.ip.src, if keep_client { CLIENT6 } else { PRIVATE6 });
        let source = first.source();
        let expected = translated(&syn.flow_label(0xabcde), source, at(WEB6[0], 80))
            // Larger segments than fit: 1500 less 60 of headers.
            .tcp_options(&[2, 4, 0x05, 0xa0, 4, 2, 3, 3, 7])
            .macs(PRIVATE_MAC, WEB_MAC[0]);
        assert_eq!(outcome.frame, expected.build());

        let c = Connection { client: client6(0), service: vip6(), source, server: at(WEB6[0], 80) };
        prog.private(c.answer()).forwarded();
        assert_eq!(prog.flow_entries(), 0, "not confirmed yet");
        prog.public(c.from_client()).forwarded();
        assert_eq!((prog.flow_entries(), prog.half_open_entries()), (2, 0));
        for payload in [&b""[..], b"x", &[0xff; 1400]] {
            let there = c.from_client().payload(payload).tos(0x2e).flow_label(0xfffff).ttl(2);
            let back = c.from_server().payload(payload).flow_label(1).ttl(255).padding(4);
            carries_to_the_byte(&mut prog, &c, there, back);
        }
        let stats = prog.server_stats(WEB6[0]);
        assert_eq!((stats.connections, stats.established), (1, 1));
        assert_eq!((stats.packets_in, stats.packets_out), (5, 4));
    }
}

#[test]
fn datagrams_are_translated_there_and_back_to_the_byte() {
    for keep_client in [false, true] {
        let mut prog = Prog::with(&network(keep_client));
        let c = datagrams(&mut prog, client6(3));
        assert_eq!(c.source.ip(), if keep_client { CLIENT6 } else { PRIVATE6 });
        for payload in [&b""[..], b"odd", &[7; 1200]] {
            let there = Frame::udp(c.client, c.service).payload(payload);
            let back = Frame::udp(c.server, c.source).payload(payload);
            carries_to_the_byte(&mut prog, &c, there, back);
        }
    }
}

#[test]
fn a_udp_checksum_that_comes_to_zero_is_sent_as_all_ones() {
    let mut prog = Prog::with(&network(false));
    let c = datagrams(&mut prog, client6(0));
    let there = |word: u16| Frame::udp(c.client, c.service).payload(&word.to_be_bytes());
    let back = |word: u16| Frame::udp(c.server, c.source).payload(&word.to_be_bytes());
    // A payload word equal to the checksum without it makes the sum all ones, and its complement 0.
    let word = udp_checksum(&translated(&there(0), c.source, c.server).build());
    let outcome = prog.public(there(word));
    outcome.forwarded();
    assert_eq!(udp_checksum(&outcome.frame), 0xffff);
    let word = udp_checksum(&translated(&back(0), c.service, c.client).build());
    let outcome = prog.private(back(word));
    outcome.forwarded();
    assert_eq!(udp_checksum(&outcome.frame), 0xffff);
}

#[test]
fn connections_go_round_and_retransmissions_stay() {
    let mut prog = Prog::new();
    for n in 0..10 {
        let connection = prog.begin(client6(n), vip6());
        assert_eq!(connection.server, at(WEB6[usize::from(n % 2)], 80));
        assert_eq!(prog.begin(client6(n), vip6()), connection, "the same SYN again");
    }
    assert_eq!(WEB6.map(|server| prog.server_stats(server).connections), [5, 5]);
    let ports: BTreeSet<u16> = (20..220)
        .map(|n| prog.begin(client6(n), vip6()))
        .inspect(|connection| assert_eq!(connection.source.ip(), PRIVATE6))
        .map(|connection| connection.source.port())
        .collect();
    assert!(ports.iter().all(|port| (1024..=32767).contains(port)) && ports.len() > 190);
}

#[test]
fn the_families_have_tables_of_their_own() {
    let mut prog = Prog::new();
    let [six, four] = [prog.connect(client6(0), vip6()), prog.connect(client(0), vip())];
    assert_eq!((six.server, four.server), (at(WEB6[0], 80), at(WEB[0], 80)));
    prog.carries(&six);
    prog.carries(&four);
    assert_eq!(prog.flows.v6.flows.entries.keys().count(), 2);
    prog.public(Frame::tcp(client6(1), vip6())).dropped(Counter::DropNoFlow);
    prog.private(Frame::tcp(at(WEB6[0], 80), client6(1))).dropped(Counter::DropNoFlow);
}

/// Chains of extension headers that are stepped over.
fn chains() -> Vec<Vec<Extension>> {
    let hop = Extension::HopByHop(vec![5, 2, 0, 0]);
    let options = Extension::Destination(vec![]);
    let long = Extension::Destination(vec![1; 300]);
    let routing = Extension::Routing { kind: 0, segments_left: 0, data: vec![0; 20] };
    vec![
        vec![hop.clone()],
        vec![options.clone()],
        vec![routing.clone()],
        vec![Extension::Fragment],
        vec![hop.clone(), long.clone()],
        vec![hop.clone(), options.clone(), routing.clone(), Extension::Fragment, options.clone()],
        vec![options; 6],
        vec![hop, long.clone(), routing, long],
    ]
}

fn with(frame: Frame, chain: &[Extension]) -> Frame {
    chain.iter().fold(frame, |frame, extension| frame.extension(extension.clone()))
}

#[test]
fn extension_headers_are_stepped_over_and_kept() {
    for chain in chains() {
        let mut prog = Prog::with(&network(false));
        let (client, service) = (client6(0), vip6());
        let syn = prog.public(with(Frame::syn(client, service), &chain)).forwarded();
        let (source, server) = (syn.source(), syn.destination());
        let c = Connection { client, service, source, server };
        prog.private(with(c.answer(), &chain)).forwarded();
        prog.public(with(c.from_client(), &chain)).forwarded();
        assert_eq!(prog.flow_entries(), 2, "{chain:?}");
        let there = with(c.from_client().payload(b"request"), &chain);
        let back = with(c.from_server().payload(b"the answer"), &chain);
        carries_to_the_byte(&mut prog, &c, there, back);

        let c = datagrams(&mut prog, client6(1));
        let there = with(Frame::udp(c.client, c.service).payload(b"request"), &chain);
        let back = with(Frame::udp(c.server, c.source).payload(b"the answer"), &chain);
        carries_to_the_byte(&mut prog, &c, there, back);
    }
}

#[test]
fn headers_that_lead_to_no_end_are_left_to_the_kernel() {
    let mut prog = Prog::new();
    let connection = prog.connect(client6(0), vip6());
    let before = prog.state();
    let frame = |chain: &[Extension]| {
        with(connection.from_client(), chain).macs(ROUTER_MAC, PUBLIC_MAC).build()
    };
    // More of them than any honest packet has.
    for count in [7, 8, 20] {
        let sent = frame(&vec![Extension::Destination(vec![]); count]);
        prog.run(INTERNET, &sent).passed(Counter::PassIpv6, &sent);
    }
    // Still under way to somewhere else.
    let via = Extension::Routing { kind: 0, segments_left: 1, data: vec![0; 20] };
    let sent = frame(&[via]);
    prog.run(INTERNET, &sent).passed(Counter::PassIpv6, &sent);
    // Cut off in the middle of one.
    let whole = frame(&[Extension::HopByHop(vec![]), Extension::Destination(vec![1; 14])]);
    for len in 54..whole.len() {
        let sent = &whole[..len];
        match len {
            ..70 => prog.run(INTERNET, sent).passed(Counter::PassIpv6, sent),
            _ => prog.run(INTERNET, sent).dropped(Counter::DropMalformed),
        }
    }
    // A length that leads past the end: nothing there is to be taken for ports.
    let mut lying = frame(&[Extension::Destination(vec![])]);
    for units in [2, 3, 40, 255] {
        lying[14 + 40 + 1] = units;
        let outcome = prog.run(INTERNET, &lying);
        assert!(outcome.action == action::PASS || outcome.action == action::DROP, "{units} units");
        assert_ne!(outcome.action, action::REDIRECT);
    }
    assert_eq!(prog.state(), before);
    prog.carries(&connection);
}

#[test]
fn a_length_in_an_extension_header_can_not_make_up_a_connection() {
    let mut prog = Prog::new();
    // The header's length points into the payload, where a SYN to the service is waiting: that is the packet then, as it
    // is for whoever reads it by the RFC, and its checksum is the sender's affair.
    let payload = Frame::syn(client6(0), vip6()).build_ip()[40..].to_vec();
    let frame =
        Frame::raw(CLIENT6, VIP6, 60, &[&[TCP, 0, 0, 0, 0, 0, 0, 0], &payload[..]].concat());
    prog.public(frame).forwarded();
    let frame = Frame::raw(CLIENT6, VIP6, 60, &[&[59, 0, 0, 0, 0, 0, 0, 0], &payload[..]].concat());
    let sent = frame.macs(ROUTER_MAC, PUBLIC_MAC).build();
    prog.run(INTERNET, &sent).passed(Counter::PassProtocol, &sent);
}

#[test]
fn a_used_up_hop_limit_is_not_sent_on() {
    let mut prog = Prog::new();
    let connection = prog.connect(client6(0), vip6());
    let before = prog.state();
    for limit in [0, 1] {
        prog.public(connection.from_client().ttl(limit)).refused(Counter::DropTtl);
        prog.public(Frame::syn(client6(1), vip6()).ttl(limit)).refused(Counter::DropTtl);
        prog.private(connection.from_server().ttl(limit)).refused(Counter::DropTtl);
    }
    assert_eq!(prog.state(), before);
    assert_eq!(prog.public(connection.from_client().ttl(2)).forwarded().ip.ttl, 1);
}

#[test]
fn a_packet_larger_than_the_next_hops_mtu_is_not_sent_on() {
    let mut desired = desired();
    desired.hops.get_mut(&IpPrefix::DEFAULT_V6).unwrap().mtu = 1400;
    let mut prog = Prog::with(&desired);
    let connection = prog.connect(client6(0), vip6());
    // 60 bytes of headers.
    prog.public(connection.from_client().payload(&[7; 1440])).forwarded();
    prog.public(connection.from_client().payload(&[7; 1441])).refused(Counter::DropTooBig);
    prog.private(connection.from_server().payload(&[7; 1340])).forwarded();
    prog.private(connection.from_server().payload(&[7; 1341])).refused(Counter::DropTooBig);
    // Extension headers count.
    let padded = connection.from_server().extension(Extension::Destination(vec![]));
    prog.private(padded.clone().payload(&[7; 1332])).forwarded();
    prog.private(padded.payload(&[7; 1333])).refused(Counter::DropTooBig);
}

#[test]
fn tags_are_exchanged() {
    let (outside, inside) = ([tag(ETHERTYPE_VLAN, 100)], [tag(ETHERTYPE_VLAN, 200)]);
    for (public, private) in [(&outside[..], &[][..]), (&[], &inside), (&outside, &inside)] {
        let mut desired = desired();
        desired.interfaces[usize::from(INTERNET)].vlans = public.to_vec();
        desired.interfaces[usize::from(SERVERS)].vlans = private.to_vec();
        for hop in desired.hops.values_mut() {
            hop.tags = if hop.side == INTERNET { public } else { private }.to_vec();
        }
        let tagged = |frame: Frame, tags: &[lbha_common::nexthop::Tag]| {
            tags.iter().fold(frame, |frame, tag| frame.vlan(tag.tci.get()))
        };
        let mut prog = Prog::with(&desired);
        let syn = tagged(Frame::syn(client6(0), vip6()), public);
        let syn = prog.public(syn).forwarded();
        let ids: Vec<u16> = private.iter().map(|tag| tag.tci.get()).collect();
        assert_eq!(syn.vlans, ids);
        let answer = Frame::tcp(syn.destination(), syn.source()).flags(SYN | ACK).payload(b"xyz");
        let outcome = prog.private(tagged(answer.clone(), private));
        outcome.forwarded();
        let expected = tagged(translated(&answer, vip6(), client6(0)), public);
        assert_eq!(outcome.frame, expected.macs(PUBLIC_MAC, ROUTER_MAC).build());
        if !public.is_empty() {
            let other = Frame::syn(client6(0), vip6()).macs(ROUTER_MAC, PUBLIC_MAC).build();
            prog.run(INTERNET, &other).passed(Counter::PassVlan, &other);
        }
    }
}

#[test]
fn a_source_from_the_wrong_side_is_refused() {
    let mut desired = desired();
    desired.routes.insert(host(WEB6[1]), Route::Hop);
    let mut prog = Prog::with(&desired);
    let forged = at(WEB6[1], 40000);
    prog.public(Frame::syn(forged, vip6())).dropped(Counter::DropWrongSide);
    prog.private(Frame::syn(client6(0), vip6())).dropped(Counter::DropWrongSide);
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (0, 0));
}

#[test]
fn neighbours_and_groups_are_the_kernels() {
    let mut prog = Prog::with(&gateway());
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    let node = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2);
    let mine = |frame: Frame, side: u8| {
        frame.macs(ROUTER_MAC, if side == INTERNET { PUBLIC_MAC } else { PRIVATE_MAC }).build()
    };
    for side in [INTERNET, SERVERS] {
        let own = if side == INTERNET { PUBLIC6 } else { PRIVATE6 };
        // Router and neighbour solicitation and advertisement; of a multicast listener, which has a router alert.
        for kind in [133, 134, 135, 136] {
            let frame = Frame::icmp_error(link_local, own, kind, 0, &[0; 20]).ttl(255);
            let frame = mine(frame, side);
            prog.run(side, &frame).passed(Counter::PassIcmp, &frame);
        }
        let report = Frame::icmp_error(link_local, node, 143, 0, &[0; 20]).ttl(1);
        let report = mine(report.extension(Extension::HopByHop(vec![5, 2, 0, 0])), side);
        prog.run(side, &report).passed(Counter::PassIcmp, &report);
        // BGP and the like between link-local addresses, OSPF and DHCPv6.
        let bgp = mine(Frame::syn(at(link_local, 40000), at(link_local, 179)), side);
        prog.run(side, &bgp).passed(Counter::PassUnmatched, &bgp);
        let ospf = mine(Frame::raw(link_local, node, 89, &[0; 40]), side);
        prog.run(side, &ospf).passed(Counter::PassProtocol, &ospf);
        let dhcp = mine(Frame::udp(at(link_local, 546), at(node, 547)), side);
        prog.run(side, &dhcp).passed(Counter::PassUnmatched, &dhcp);
        // With the MAC address of a group, as it really comes.
        let group = Frame::syn(client6(0), vip6()).macs(ROUTER_MAC, [0x33, 0x33, 0xff, 0, 0, 2]);
        let group = group.build();
        prog.run(side, &group).passed(Counter::PassMac, &group);
    }
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (0, 0));
}

#[test]
fn lengths_that_contradict_each_other_are_dropped() {
    let mut prog = Prog::new();
    let connection = prog.connect(client6(0), vip6());
    let before = prog.state();
    let syn = || Frame::syn(client6(1), vip6()).tcp_options(&[]);
    for frame in [connection.from_client(), syn()] {
        let mut frame = frame.payload(b"1234").macs(ROUTER_MAC, PUBLIC_MAC).build();
        // 24 is right. 0 with a hop-by-hop header would be a jumbogram, which XDP never sees whole.
        for len in [0u16, 1, 19, 25, 1000, 65535] {
            frame[18..20].copy_from_slice(&len.to_be_bytes());
            prog.run(INTERNET, &frame).dropped(Counter::DropMalformed);
        }
        // Less than there is: padding, to which the checksum does not extend.
        frame[18..20].copy_from_slice(&20u16.to_be_bytes());
        assert_eq!(prog.run(INTERNET, &frame).action, action::REDIRECT);
    }
    prog.flows
        .v6
        .half_open
        .entries
        .keys()
        .filter_map(Result::ok)
        .collect::<Vec<_>>()
        .iter()
        .for_each(|key| prog.flows.v6.half_open.entries.remove(key).unwrap());
    assert_eq!(prog.flow_entries(), before.0);
}

#[test]
fn short_frames_are_never_forwarded() {
    let mut prog = Prog::new();
    let connection = prog.connect(client6(0), vip6());
    let data = connection.from_client().payload(b"123456").macs(ROUTER_MAC, PUBLIC_MAC).build();
    let back = connection.from_server().payload(b"123456").macs(WEB_MAC[0], PRIVATE_MAC).build();
    let before = prog.state();
    for (side, frame) in [(INTERNET, data), (SERVERS, back)] {
        for len in 14..frame.len() {
            let frame = &frame[..len];
            match (len, side) {
                (..34, _) => prog.run(side, frame).passed(Counter::PassNotIp, frame),
                (34..54, _) => prog.run(side, frame).passed(Counter::PassMalformed, frame),
                // No ports to go by: what is to the VIP is ours, what a server sent may be to anybody.
                (54..74, SERVERS) => prog.run(side, frame).passed(Counter::PassMalformed, frame),
                _ => prog.run(side, frame).dropped(Counter::DropMalformed),
            }
        }
    }
    assert_eq!(prog.state(), before);
}

#[test]
fn what_is_not_version_6_is_left_to_the_kernel() {
    let mut prog = Prog::new();
    for version in [0x00, 0x40, 0x50, 0x70, 0xf0] {
        let mut frame = Frame::syn(client6(0), vip6()).macs(ROUTER_MAC, PUBLIC_MAC).build();
        frame[14] = version;
        prog.run(INTERNET, &frame).passed(Counter::PassMalformed, &frame);
    }
    for (addr, port) in [(VIP6, 22), (VIP6, 81), (PUBLIC6, 80)] {
        let frame = Frame::syn(client6(0), at(addr, port)).macs(ROUTER_MAC, PUBLIC_MAC).build();
        prog.run(INTERNET, &frame).passed(Counter::PassUnmatched, &frame);
    }
}
