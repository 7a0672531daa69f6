//! Masquerade: what leaves, how it is translated, and what does not leave.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lbha::datapath::{
    desired::{Desired, Masquerade, Route},
    loader::Sizes,
    tables::events,
};
use lbha_common::{
    counter::Counter::{self, *},
    covers, event,
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
};
use lbha_tests::{
    packet::{Extension, Frame, parse, tcp_flags::*, verify},
    prog::*,
};

/// Both families and both protocols.
fn cases() -> impl Iterator<Item = (Ends, u8)> {
    ends().into_iter().flat_map(|net| [(net, TCP), (net, UDP)])
}

fn changed(change: impl FnOnce(&mut Desired)) -> Prog {
    let mut desired = gateway();
    change(&mut desired);
    Prog::with(&desired)
}

/// A frame as a private host would send it.
fn from_host(frame: Frame) -> Vec<u8> {
    frame.macs(WEB_MAC[0], PRIVATE_MAC).build()
}

/// Runs a private host's frame that must be left to the kernel without a trace.
#[track_caller]
fn stays(prog: &mut Prog, reason: Counter, frame: Frame) {
    let sent = from_host(frame);
    let before = prog.state();
    prog.run(SERVERS, &sent).passed(reason, &sent);
    assert_eq!(prog.state(), before);
}

#[test]
fn a_connection_is_translated_out_and_back_to_the_byte() {
    covers!("RFC5382 REQ-2");
    for (net, protocol) in cases() {
        let mut prog = Prog::with(&gateway());
        for (n, host) in net.hosts.into_iter().enumerate() {
            let (inside, remote) = (at(host, 5000), at(net.remotes[0], 443));
            let sent = first(protocol, inside, remote).tos(0x2e).payload(b"early");
            let sent = if protocol == TCP { sent.tcp_options(&[2, 4, 2, 0]) } else { sent };
            let outcome = prog.private(sent.clone());
            let out = outcome.forwarded();
            assert_eq!(out.ip.src, net.external);
            let external = out.source();
            let expected = translated(&sent, external, remote).macs(PUBLIC_MAC, ROUTER_MAC);
            assert_eq!(outcome.frame, expected.build(), "{protocol}");

            let connection = Outbound { protocol, inside, remote, external };
            let answer = connection.from_remote().payload(b"the answer").ttl(2).padding(3);
            let answer = if protocol == TCP { answer.flags(SYN | ACK) } else { answer };
            for back in [answer, connection.from_remote().payload(&[0xff; 1400]).tos(1)] {
                let outcome = prog.public(back.clone());
                outcome.forwarded();
                let expected = translated(&back, remote, inside).macs(PRIVATE_MAC, WEB_MAC[n]);
                assert_eq!(outcome.frame, expected.build());
            }
            for there in [connection.from_inside(), connection.from_inside().payload(&[0; 999])] {
                let outcome = prog.private(there.clone());
                outcome.forwarded();
                let expected = translated(&there, external, remote).macs(PUBLIC_MAC, ROUTER_MAC);
                assert_eq!(outcome.frame, expected.build());
            }
        }
        assert_eq!((prog.flow_entries(), prog.half_open_entries()), (4, 0));
    }
}

#[test]
fn addresses_in_payloads_stay() {
    covers!("RFC4787 REQ-10", "RFC5382 REQ-6");
    let mut prog = Prog::with(&gateway());
    let port = b"PORT 192,168,1,10,19,136\r\n";
    let invite = b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.10:5060\r\n\r\n";
    for (protocol, to, payload) in [(TCP, 21, &port[..]), (UDP, 5060, &invite[..])] {
        let connection = prog.establish(protocol, at(WEB[0], 5060), at(REMOTE, to));
        let out = prog.private(connection.from_inside().payload(payload)).forwarded();
        assert_eq!(out.payload, payload);
        let back = prog.public(connection.from_remote().payload(payload)).forwarded();
        assert_eq!(back.payload, payload);
    }
    assert_eq!(prog.flow_entries(), 4, "and open nothing");
}

#[test]
fn each_rule_counts_its_connections() {
    let mut prog = changed(|desired| {
        desired.masquerades = vec![
            masquerade(),
            Masquerade { sources: vec![host(WEB[1]), host(WEB6[1])], ..masquerade() },
        ];
    });
    for net in ends() {
        for (n, host) in net.hosts.into_iter().enumerate() {
            let connection = prog.establish(TCP, at(host, 5000), at(net.remotes[0], 80));
            prog.private(connection.from_inside().payload(&[0; 100])).forwarded();
            let unanswered = prog.leave(UDP, at(host, 5000), at(net.remotes[0], 53));
            prog.private(unanswered.from_inside()).forwarded();
            let prefix = if n == 1 { IpPrefix::host(host).to_string() } else { sources(host) };
            let stats = prog.masquerade_stats(&prefix);
            assert_eq!((stats.connections, stats.established), (2, 1), "{prefix}");
            assert_eq!((stats.packets_in, stats.packets_out), (5, 1));
            let [tcp, udp] = if host.is_ipv4() { [40, 28] } else { [60, 48] };
            assert_eq!(stats.bytes_in, (tcp + 12) + tcp + (tcp + 100) + 2 * udp);
            assert_eq!(stats.bytes_out, tcp);
        }
    }
}

/// The prefix of the guide's that a host is in.
fn sources(host: IpAddr) -> String {
    if host.is_ipv4() { SOURCES } else { SOURCES6 }.to_owned()
}

#[test]
fn only_an_elastic_address_of_this_host_is_the_kernels() {
    let elastic = |addr: IpAddr| if addr.is_ipv4() { IpAddr::V4(VIP) } else { VIP6.into() };
    let mut here = gateway();
    here.local.extend([IpAddr::V4(VIP), IpAddr::V6(VIP6)]);
    let (mut elsewhere, mut here) = (Prog::with(&gateway()), Prog::with(&here));
    for (net, protocol) in cases() {
        let (inside, to) = (at(net.hosts[0], 5000), elastic(net.hosts[0]));
        let (packet, other) =
            (first(protocol, inside, at(to, 5353)), Frame::raw(inside.ip(), to, 47, &[0; 40]));
        stays(&mut here, PassUnmatched, packet.clone());
        stays(&mut here, PassProtocol, other.clone());
        // The kernel would send it on, with its private source.
        elsewhere.private(packet).dropped(DropNoFlow);
        elsewhere.private(other).dropped(DropProtocol);
    }
}

#[test]
fn what_stays_inside_is_the_kernels() {
    let mut prog = Prog::with(&gateway());
    for (net, protocol) in cases() {
        let inside = at(net.hosts[0], 5000);
        let mut to = vec![net.hosts[1], net.private, net.external];
        if inside.is_ipv4() {
            let addresses = ["224.0.0.251", "255.255.255.255", "169.254.1.1", "127.0.0.1"];
            to.extend(addresses.map(|addr| addr.parse::<IpAddr>().unwrap()));
            // The network's own broadcast address, and one that nobody has.
            to.extend(
                ["192.168.1.255", "192.168.1.77", "0.0.0.0"].map(|a| a.parse::<IpAddr>().unwrap()),
            );
        } else {
            let addresses = ["ff02::fb", "ff05::1:3", "fe80::1", "::1", "::", "fd00:1::77"];
            to.extend(addresses.map(|addr| addr.parse::<IpAddr>().unwrap()));
        }
        for to in to {
            stays(&mut prog, PassUnmatched, first(protocol, inside, at(to, 5353)));
            let frame = Frame::raw(inside.ip(), to, 47, &[0; 40]);
            stays(&mut prog, PassProtocol, frame);
        }
    }
    // What nobody masquerades goes out as it is, if the kernel says so.
    stays(&mut prog, PassUnmatched, Frame::syn(at(Ipv4Addr::new(192, 168, 9, 9), 5000), remote()));
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (0, 0));
}

#[test]
fn another_network_behind_a_router_of_the_servers_side_is_not_the_internet() {
    let (four, six) = (prefix("10.1.0.0/16"), prefix("fd00:2::/64"));
    let mut prog = changed(|desired| {
        for network in [four, six] {
            desired.routes.insert(network, Route::Hop);
            desired.hops.insert(network, private_hop(WEB_MAC[1]));
        }
    });
    let there =
        [at(Ipv4Addr::new(10, 1, 2, 3), 80), at(Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 1), 80)];
    for (net, there) in ends().into_iter().zip(there) {
        for protocol in [TCP, UDP] {
            stays(&mut prog, PassUnmatched, first(protocol, at(net.hosts[0], 5000), there));
        }
        stays(&mut prog, PassProtocol, Frame::raw(net.hosts[0], there.ip(), 50, &[0; 40]));
    }
}

#[test]
fn other_protocols_do_not_leave_with_a_private_address() {
    let mut prog = Prog::with(&gateway());
    let outside = Ipv4Addr::new(192, 168, 9, 9);
    for net in ends() {
        // IP in IP, IPv6 in IP, GRE, ESP, AH, SCTP, UDP-Lite, and what there is not.
        for protocol in [4, 41, 47, 50, 51, 132, 136, 253] {
            let frame = Frame::raw(net.hosts[0], net.remotes[0], protocol, &[0; 40]);
            prog.private(frame.clone()).dropped(DropProtocol);
            // From the internet it is the kernel's.
            let sent = Frame::raw(net.remotes[0], net.external, protocol, &[0; 40]);
            let sent = sent.macs(ROUTER_MAC, PUBLIC_MAC).build();
            prog.run(INTERNET, &sent).passed(PassProtocol, &sent);
        }
    }
    stays(&mut prog, PassProtocol, Frame::raw(outside, REMOTE, 47, &[0; 40]));
    // ICMP of the other family is no ICMP.
    prog.private(Frame::raw(WEB[0], REMOTE, ICMPV6, &[0; 40])).dropped(DropProtocol);
    prog.private(Frame::raw(WEB6[0], REMOTE6, ICMP, &[0; 40])).dropped(DropProtocol);
    // Without a route nobody knows where it would go; with one that leads nowhere neither.
    let mut prog = changed(|desired| {
        desired.routes.insert(prefix("198.51.100.0/24"), Route::Unreachable);
        desired.routes.remove(&IpPrefix::DEFAULT_V6);
    });
    prog.private(Frame::raw(WEB[0], REMOTE, 47, &[0; 40])).dropped(DropProtocol);
    prog.private(Frame::raw(WEB6[0], REMOTE6, 47, &[0; 40])).dropped(DropProtocol);
}

#[test]
fn what_can_not_be_read_does_not_leave_with_a_private_address() {
    let mut prog = Prog::with(&gateway());
    for net in ends() {
        // Headers that are too short: a router does not look at them.
        let icmp = if net.external.is_ipv4() { ICMP } else { ICMPV6 };
        for (protocol, len) in [(TCP, 19), (TCP, 0), (UDP, 7), (UDP, 1), (icmp, 7), (icmp, 0)] {
            let frame = |to| Frame::raw(net.hosts[0], to, protocol, &vec![0; len]);
            prog.private(frame(net.remotes[0])).dropped(DropMalformed);
            stays(&mut prog, PassMalformed, frame(net.hosts[1]));
        }
    }
    let [_, six] = ends();
    let syn = |to| Frame::syn(at(six.hosts[0], 5000), at(to, 80));
    let far = |to| (0..8).fold(syn(to), |frame, _| frame.extension(Extension::Destination(vec![])));
    let via = |to| {
        let data = vec![0; 20];
        syn(to).extension(Extension::Routing { kind: 4, segments_left: 1, data })
    };
    for frame in [far(six.remotes[0]), via(six.remotes[0])] {
        prog.private(frame).dropped(DropProtocol);
    }
    for frame in [far(six.hosts[1]), via(six.hosts[1])] {
        stays(&mut prog, PassIpv6, frame);
    }
    assert_eq!(prog.flow_entries(), 0);
}

#[test]
fn what_begins_no_connection_is_dropped() {
    let mut prog = Prog::with(&gateway());
    for net in ends() {
        for flags in [ACK, FIN | ACK, RST, RST | ACK, SYN | ACK, SYN | FIN, SYN | RST, 0, 0x3f] {
            let frame = Frame::tcp(at(net.hosts[0], 5000), at(net.remotes[0], 80)).flags(flags);
            prog.private(frame).dropped(DropNoFlow);
        }
    }
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (0, 0));
}

#[test]
fn malformed_packets_begin_nothing_and_a_used_up_hop_count_neither() {
    let mut prog = changed(|desired| {
        for prefix in [IpPrefix::DEFAULT_V4, IpPrefix::DEFAULT_V6] {
            desired.hops.get_mut(&prefix).unwrap().mtu = 1400;
        }
    });
    for (net, protocol) in cases() {
        let sent = || first(protocol, at(net.hosts[0], 5000), at(net.remotes[0], 80));
        for ttl in [0, 1] {
            prog.private(sent().ttl(ttl)).refused(DropTtl);
        }
        prog.private(sent().payload(&[0; 1390])).refused(DropTooBig);
        let mut frame = from_host(sent());
        frame.pop();
        prog.run(SERVERS, &frame).dropped(DropMalformed);
        if net.external.is_ipv4() {
            let mut frame = from_host(sent());
            frame[24] ^= 1;
            prog.run(SERVERS, &frame).dropped(DropChecksum);
        }
    }
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (0, 0));
}

#[test]
fn without_an_external_address_nothing_leaves() {
    covers!("RFC6888 REQ-11a");
    let mut desired = gateway();
    let mut prog = Prog::with(&desired);
    let open: Vec<Outbound> = cases()
        .map(|(net, protocol)| {
            prog.establish(protocol, at(net.hosts[0], 5000), at(net.remotes[0], 80))
        })
        .collect();
    desired.masquerades[0].externals.clear();
    prog.apply(&desired);
    for (net, protocol) in cases() {
        let frame = first(protocol, at(net.hosts[0], 6000), at(net.remotes[0], 80));
        prog.private(frame).dropped(DropNoExternal);
    }
    for connection in &open {
        prog.masquerades(connection);
    }
    // One family has one again.
    desired.masquerades[0].externals = vec![PUBLIC.into()];
    prog.apply(&desired);
    prog.leave(UDP, at(WEB[0], 6000), remote());
    prog.private(Frame::udp(at(WEB6[0], 6000), remote6())).dropped(DropNoExternal);
}

#[test]
fn without_a_route_nothing_leaves() {
    let mut prog = changed(|desired| {
        desired.routes.insert(prefix("198.51.100.0/24"), Route::Unreachable);
        desired.routes.remove(&IpPrefix::DEFAULT_V6);
    });
    for (net, protocol) in cases() {
        let frame = first(protocol, at(net.hosts[0], 5000), at(net.remotes[0], 80));
        prog.private(frame).refused(DropNoRoute);
    }
    prog.leave(TCP, at(WEB[0], 5000), at(CLIENT, 80));
}

#[test]
fn an_unresolved_router_gets_nothing() {
    let mut desired = gateway();
    let mut prog = Prog::with(&desired);
    let open = prog.establish(TCP, at(WEB[0], 5000), remote());
    for prefix in [IpPrefix::DEFAULT_V4, IpPrefix::DEFAULT_V6] {
        desired.hops.get_mut(&prefix).unwrap().dmac = None;
    }
    prog.apply(&desired);
    for (net, protocol) in cases() {
        let frame = first(protocol, at(net.hosts[0], 6000), at(net.remotes[0], 80));
        prog.private(frame).dropped(DropUnresolved);
    }
    prog.private(open.from_inside()).dropped(DropUnresolved);
    assert_eq!(prog.flow_entries(), 2);
    prog.apply(&gateway());
    prog.masquerades(&open);
}

#[test]
fn neighbours_on_either_side_are_asked_for() {
    let (near, near6) =
        (Ipv4Addr::new(147, 75, 104, 9), Ipv6Addr::new(0x2001, 0xdb8, 0x104, 0, 0, 0, 0, 9));
    let mut prog = changed(|desired| {
        desired.routes.insert(prefix("147.75.104.0/24"), Route::OnLink);
        desired.routes.insert(prefix("2001:db8:104::/64"), Route::OnLink);
    });
    let mut ring = events(prog.pins().root()).unwrap();
    let unknown: IpAddr = Ipv4Addr::new(192, 168, 1, 12).into();
    let asked: [(SocketAddr, SocketAddr, IpAddr); 3] = [
        (at(WEB[0], 5000), at(near, 80), near.into()),
        (at(WEB6[0], 5000), at(near6, 80), near6.into()),
        // A private host whose own address is not known yet: its answers could not be sent.
        (at(unknown, 5000), remote(), unknown),
    ];
    for (inside, remote, wanted) in asked {
        prog.private(Frame::syn(inside, remote)).dropped(DropUnresolved);
        let event = ring.next().expect("an event").to_vec();
        let mut expected = [event::kind::RESOLVE, if wanted.is_ipv4() { 4 } else { 6 }]
            .map(u32::to_ne_bytes)
            .concat();
        match wanted {
            IpAddr::V4(addr) => expected.extend(addr.octets()),
            IpAddr::V6(addr) => expected.extend(addr.octets()),
        }
        expected.resize(24, 0);
        assert_eq!(event, expected);
        assert!(ring.next().is_none(), "one packet, one event");
    }
    assert_eq!(prog.flow_entries(), 0);
}

#[test]
fn what_an_unknown_host_sends_to_an_external_port_is_the_kernels() {
    covers!("RFC4787 REQ-8", "RFC5382 REQ-3", "RFC6888 REQ-7");
    let mut prog = Prog::with(&gateway());
    for (net, protocol) in cases() {
        let connection = prog.establish(protocol, at(net.hosts[0], 5000), at(net.remotes[0], 80));
        let before = prog.marks(&connection);
        let others = [at(net.remotes[1], 80), at(net.remotes[0], 81)];
        for other in others {
            for frame in [
                first(protocol, other, connection.external),
                Outbound { remote: other, ..connection }.from_remote(),
            ] {
                let frame = frame.macs(ROUTER_MAC, PUBLIC_MAC).build();
                prog.run(INTERNET, &frame).passed(PassUnmatched, &frame);
            }
        }
        assert_eq!(prog.marks(&connection), before);
        // Nor from the right host on the wrong side.
        let frame = connection.from_remote().macs(WEB_MAC[0], PRIVATE_MAC).build();
        prog.run(SERVERS, &frame).passed(PassUnmatched, &frame);
        prog.masquerades(&connection);
    }
}

#[test]
fn a_private_source_on_the_internets_side_is_not_masqueraded() {
    let mut prog = Prog::with(&gateway());
    for (net, protocol) in cases() {
        let connection = prog.establish(protocol, at(net.hosts[0], 5000), at(net.remotes[0], 80));
        for frame in
            [connection.from_inside(), first(protocol, at(net.hosts[0], 7000), connection.remote)]
        {
            let frame = frame.macs(ROUTER_MAC, PUBLIC_MAC).build();
            prog.run(INTERNET, &frame).passed(PassUnmatched, &frame);
        }
    }
    assert_eq!(prog.flow_entries(), 8);
}

#[test]
fn a_private_host_is_a_client_of_a_service_all_the_same() {
    let mut prog = Prog::with(&gateway());
    for (net, service) in ends().into_iter().zip([vip(), vip6()]) {
        let syn = prog.private(Frame::syn(at(net.hosts[1], 5000), service)).sent_back();
        assert_eq!((syn.ip.src, syn.ip.dst), (net.private, net.hosts[0]));
    }
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (0, 4));
}

#[test]
fn one_interface_does_for_both_sides() {
    let mut prog = changed(|desired| {
        desired.server_side = INTERNET;
        for hop in desired.hops.values_mut() {
            (hop.side, hop.smac) = (INTERNET, PUBLIC_MAC);
        }
    });
    for (net, protocol) in cases() {
        let (inside, remote) = (at(net.hosts[1], 5000), at(net.remotes[0], 80));
        let sent = first(protocol, inside, remote).payload(b"x");
        let outcome = prog.public(sent);
        let out = outcome.sent_back();
        assert_eq!((out.source(), out.destination()), (at(net.external, 5000), remote));
        assert_eq!((out.eth_src, out.eth_dst), (PUBLIC_MAC, ROUTER_MAC));
        let connection = Outbound { protocol, inside, remote, external: out.source() };
        let answer = connection.from_remote();
        let answer = if protocol == TCP { answer.flags(SYN | ACK) } else { answer };
        let back = prog.public(answer).sent_back();
        assert_eq!((back.source(), back.destination()), (remote, inside));
        assert_eq!((back.eth_src, back.eth_dst), (PUBLIC_MAC, WEB_MAC[1]));
        prog.public(connection.from_inside()).sent_back();
        // The internet's own connections are not masqueraded.
        let other = first(protocol, remote, at(net.external, 22)).macs(ROUTER_MAC, PUBLIC_MAC);
        let other = other.build();
        prog.run(INTERNET, &other).passed(PassUnmatched, &other);
        prog.public(Frame::raw(inside.ip(), remote.ip(), 47, &[0; 40])).dropped(DropProtocol);
    }
    assert_eq!((prog.flow_entries(), prog.half_open_entries()), (8, 0));
}

#[test]
fn a_full_table_takes_both_entries_or_none() {
    let sizes = Sizes { max_connections: 4, max_connections_v6: 4, max_half_open: 64 };
    for (net, protocol) in cases() {
        let mut prog = Prog::sized(&gateway(), sizes);
        let remote = at(net.remotes[0], 80);
        let open: Vec<Outbound> =
            (0..4).map(|n| prog.establish(protocol, at(net.hosts[0], 5000 + n), remote)).collect();
        assert_eq!(prog.flow_entries(), 8);
        let another = || first(protocol, at(net.hosts[1], 6000), remote);
        prog.private(another()).dropped(DropTableFull);
        for connection in &open {
            prog.masquerades(connection);
        }
        // Room for one entry is room for none.
        if net.external.is_ipv4() {
            let key = key(SERVERS, protocol, open[0].inside, remote);
            prog.flows.v4.flows.entries.remove(&key).unwrap();
        } else {
            let key = key6(SERVERS, protocol, open[0].inside, remote);
            prog.flows.v6.flows.entries.remove(&key).unwrap();
        }
        for _ in 0..3 {
            prog.private(another()).dropped(DropTableFull);
            assert_eq!(prog.flow_entries(), 7);
        }
        let stats = prog.masquerade_stats(&sources(net.external));
        assert_eq!(stats.connections, 4);
    }
}

#[test]
fn a_first_packet_on_two_cpus_at_once_makes_one_connection() {
    for endpoint_independent in [false, true] {
        let mut prog = changed(|d| d.masquerades[0].endpoint_independent = endpoint_independent);
        // The port can't be kept, so that each CPU would choose its own.
        let list: Vec<Vec<u8>> =
            (0..300).map(|n| from_host(Frame::syn(at(WEB[0], 40_000 + n), remote()))).collect();
        let results = prog.run_at_once(SERVERS, &[list.clone(), list], |_| ());
        let mut ports = BTreeSet::new();
        for (first, second) in results[0].iter().zip(&results[1]) {
            assert_eq!(first.0, action::REDIRECT);
            assert_eq!(first, second, "endpoint-independent: {endpoint_independent}");
            verify(&first.1).unwrap();
            ports.insert(parse(&first.1).unwrap().source());
        }
        assert_eq!((ports.len(), prog.flow_entries()), (300, 600));
        assert_eq!(prog.masquerade_stats(SOURCES).connections, 300);
    }
}
