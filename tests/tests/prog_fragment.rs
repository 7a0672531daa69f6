//! Fragments: every one of a datagram takes the first one's translation, or shares its fate.

use std::net::{IpAddr, SocketAddr};

use lbha::datapath::{
    desired::Route,
    held::Datagram,
    inject::{self, Verdict},
};
use lbha_common::{
    counter::Counter::*,
    event::{Event, kind},
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
    fragment::fate,
};
use lbha_tests::{
    covers,
    packet::{Extension, Frame, Transport, fragments, parse, tcp_flags::*},
    prog::{datagrams::*, *},
};

#[test]
fn a_datagram_to_a_service_and_its_answer_arrive_whole() {
    for (sockets, keep_client) in families().into_iter().flat_map(|f| [(f, false), (f, true)]) {
        let Sockets { client, service, server, own, .. } = sockets;
        let mut prog = Prog::with(&with_dns(keep_client));
        // The first datagram opens the connection, the second confirms it, the third is of a known one.
        for id in 7..10 {
            let query = datagram(client, service);
            let (there, new_id) = whole(&mut prog, INTERNET, &cut(INTERNET, &query, id));
            assert_eq!(there.destination(), server);
            assert_eq!(there.source().ip(), if keep_client { client.ip() } else { own });
            assert_eq!(there.payload, query.payload);
            assert_eq!(new_id == id, keep_client, "{id} became {new_id}");

            let answer = datagram(server, there.source());
            let (back, new_id) = whole(&mut prog, SERVERS, &cut(SERVERS, &answer, id));
            assert_eq!((back.source(), back.destination()), (service, client));
            assert_eq!(back.payload, answer.payload);
            assert_ne!(new_id, id);
        }
    }
}

#[test]
fn a_masqueraded_datagram_and_its_answer_arrive_whole() {
    for sockets in families() {
        let Sockets { host, remote, external, .. } = sockets;
        let mut prog = Prog::with(&with_dns(false));
        for id in 7..10 {
            let query = datagram(host, remote);
            let (there, new_id) = whole(&mut prog, SERVERS, &cut(SERVERS, &query, id));
            assert_eq!((there.source().ip(), there.destination()), (external, remote));
            assert_eq!(there.payload, query.payload);
            assert_ne!(new_id, id);

            let answer = datagram(remote, there.source());
            let (back, new_id) = whole(&mut prog, INTERNET, &cut(INTERNET, &answer, id));
            assert_eq!((back.source(), back.destination()), (remote, host));
            assert_eq!(new_id, id, "the sender's own address, and its own identification");
        }
    }
}

#[test]
fn tcp_segments_in_fragments_arrive_whole() {
    let mut prog = Prog::with(&with_dns(false));
    for (client, service) in [(client(0), vip()), (client6(0), vip6())] {
        let connection = prog.connect(client, service);
        let segment = connection.from_client().payload(&[0x5a; 4001]).flags(ACK | PSH);
        let (there, _) = whole(&mut prog, INTERNET, &cut(INTERNET, &segment, 1));
        assert_eq!((there.source(), there.destination()), (connection.source, connection.server));
        let segment = connection.from_server().payload(&[0xa5; 4001]).flags(ACK | PSH);
        let (back, _) = whole(&mut prog, SERVERS, &cut(SERVERS, &segment, 1));
        assert_eq!((back.source(), back.destination()), (service, client));
        prog.carries(&connection);
    }
}

#[test]
fn a_masqueraded_ping_and_its_reply_arrive_whole() {
    for sockets in families() {
        let Sockets { host, remote, external, .. } = sockets;
        let mut prog = Prog::with(&with_dns(false));
        let data: Vec<u8> = (0..4000_u32).map(|n| (n * 7) as u8).collect();
        for id in 7..10 {
            let request = Frame::echo_request(host.ip(), remote.ip(), 5, 1).payload(&data);
            let pieces = cut(SERVERS, &request.dont_fragment(false), id);
            assert_eq!(prog.run(SERVERS, &pieces[1]).counted, [(HoldFragment.as_str(), 1)].into());
            let (there, new_id) = whole(&mut prog, SERVERS, &pieces);
            assert_eq!((there.ip.src, there.ip.dst), (external, remote.ip()));
            assert_ne!(new_id, id);
            let Transport::Icmp { rest: [a, b, ..], .. } = there.transport else { panic!() };

            let identifier = u16::from_be_bytes([a, b]);
            let reply = Frame::echo_reply(remote.ip(), external, identifier, 1).payload(&data);
            let pieces = cut(INTERNET, &reply.dont_fragment(false), id);
            assert_eq!(prog.run(INTERNET, &pieces[1]).counted, [(HoldFragment.as_str(), 1)].into());
            let (back, _) = whole(&mut prog, INTERNET, &pieces);
            assert_eq!((back.ip.src, back.ip.dst), (remote.ip(), host.ip()));
            let Transport::Icmp { rest, .. } = back.transport else { panic!() };
            assert_eq!((rest, back.payload), ([0, 5, 0, 1], data.clone()));
        }
    }
}

#[test]
fn pings_of_others_are_left_alone_and_answers_of_none_stay_inside() {
    let mut prog = Prog::with(&with_dns(false));
    for sockets in families() {
        let Sockets { client, service, host, remote, external, .. } = sockets;
        let large = |frame: Frame| frame.payload(&[7; 4000]).dont_fragment(false);
        for to in [service.ip(), external] {
            let request = large(Frame::echo_request(client.ip(), to, 5, 1));
            shared_fate(&mut prog, INTERNET, &request, PassIcmp, PassFragment);
        }
        let reply = large(Frame::echo_reply(client.ip(), external, 6, 1));
        shared_fate(&mut prog, INTERNET, &reply, PassIcmp, PassFragment);
        let reply = large(Frame::echo_reply(host.ip(), remote.ip(), 6, 1));
        shared_fate(&mut prog, SERVERS, &reply, DropNoFlow, DropFragment);
    }
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let mut prog = Prog::with(&with_dns(false));
    let query = datagram(client(0), at(VIP, 53)).without_checksum();
    let pieces = cut(INTERNET, &query, 1);
    whole(&mut prog, INTERNET, &pieces);
}

#[test]
fn two_hosts_with_one_identification_are_told_apart_behind_one_address() {
    covers!("RFC7857 10");
    for sockets in families() {
        let mut prog = Prog::with(&with_dns(false));
        let hosts =
            if sockets.host.is_ipv4() { WEB.map(IpAddr::from) } else { WEB6.map(IpAddr::from) };
        let [first, second] =
            hosts.map(|host| cut(SERVERS, &datagram(at(host, 5000), sockets.remote), 99));
        // Interleaved.
        let mut out = [Vec::new(), Vec::new()];
        for (a, b) in first.iter().zip(&second) {
            for (piece, out) in [a, b].into_iter().zip(&mut out) {
                let outcome = prog.run(SERVERS, piece);
                outcome.forwarded();
                out.push(outcome.frame);
            }
        }
        let [(first, first_id), (second, second_id)] = out.map(|out| together(&out));
        assert_eq!((first.ip.src, second.ip.src), (sockets.external, sockets.external));
        assert_ne!(first.source(), second.source(), "a port each");
        assert_ne!(first_id, second_id);
    }
}

#[test]
fn identifications_do_not_come_again_soon() {
    let mut prog = Prog::with(&with_dns(false));
    let mut seen = std::collections::HashSet::new();
    for id in 0..3000 {
        let query = datagram(at(WEB[0], 5000), at(REMOTE, 53));
        let first = &cut(SERVERS, &query, id)[0];
        assert!(seen.insert(prog.run(SERVERS, first).forwarded().ip.id), "{id}");
    }
}

#[test]
fn a_first_fragment_that_comes_twice_keeps_its_identification() {
    let mut prog = Prog::with(&with_dns(false));
    let pieces = cut(SERVERS, &datagram(at(WEB[0], 5000), at(REMOTE, 53)), 5);
    let ids: Vec<u32> =
        [0, 1, 0, 2].map(|n| prog.run(SERVERS, &pieces[n]).forwarded().ip.id).into();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn fragments_that_come_first_are_held_and_go_the_same_way_afterwards() {
    covers!("RFC4787 REQ-14");
    for sockets in families() {
        let Sockets { client, service, host, remote, family, .. } = sockets;
        for (side, from, to) in [(INTERNET, client, service), (SERVERS, host, remote)] {
            let mut prog = Prog::with(&with_dns(false));
            let pieces = cut(side, &datagram(from, to), 1);
            let (first, later) = pieces.split_first().unwrap();
            for piece in later.iter().rev() {
                let outcome = prog.run(side, piece);
                assert_eq!(outcome.counted, [(HoldFragment.as_str(), 1)].into());
                assert_eq!(outcome.action, action::DROP);
            }
            assert_eq!(fate_of(&prog, first, side), Some(fate::HELD));
            let records = held(&prog);
            let expected: Vec<&Vec<u8>> = later.iter().rev().collect();
            assert_eq!(records.iter().map(|(_, frame)| frame).collect::<Vec<_>>(), expected);
            let ip = parse(first).unwrap().ip;
            for (header, frame) in &records {
                let datagram = Datagram { family: header.family, key: header.key };
                assert_eq!(datagram, datagram_of(&ip, side));
                assert_eq!(header.length as usize, frame.len());
            }
            assert_eq!(events(&prog), []);

            let outcome = prog.run(side, first);
            outcome.forwarded();
            assert_eq!(fate_of(&prog, first, side), Some(fate::FORWARD));
            let saddr = datagram_of(&ip, side).key.saddr;
            assert_eq!(events(&prog), [Event { kind: kind::FRAGMENT, family, addr: saddr }]);

            // What the controller does.
            let mut out = vec![outcome.frame];
            for (_, frame) in records {
                let program = prog.programs.get(side, false).unwrap();
                let Verdict::Across(frame) = inject::run(program, &frame).unwrap() else {
                    panic!("not forwarded")
                };
                out.push(frame);
            }
            let (packet, _) = together(&out);
            assert_eq!(packet.payload.len(), 4000);
            // Another datagram's first fragment wakes nobody.
            prog.run(side, &cut(side, &datagram(from, to), 2)[0]).forwarded();
            assert_eq!(events(&prog), []);
        }
    }
}

#[test]
fn the_others_share_the_fate_of_a_first_fragment_that_does_not_go_on() {
    for sockets in families() {
        let Sockets { client, service, host, external, .. } = sockets;
        let mut without = with_dns(false);
        for id in [DNS, DNS6] {
            without.services.get_mut(&id).unwrap().slots.clear();
        }
        let mut prog = Prog::with(&without);
        shared_fate(&mut prog, INTERNET, &datagram(client, service), DropNoServer, DropFragment);
        // Another port of the VIP, and the host's own traffic.
        let other = SocketAddr::new(service.ip(), 54);
        shared_fate(&mut prog, INTERNET, &datagram(client, other), PassUnmatched, PassFragment);
        let own = SocketAddr::new(external, 6000);
        shared_fate(&mut prog, INTERNET, &datagram(client, own), PassUnmatched, PassFragment);
        shared_fate(
            &mut prog,
            SERVERS,
            &datagram(host, SocketAddr::new(sockets.own, 53)),
            PassUnmatched,
            PassFragment,
        );
        assert!(held(&prog).is_empty());
    }
}

#[test]
fn fragments_of_what_is_not_ours_are_never_held() {
    // Without masquerade, the host's public address is nobody's but its own.
    let mut prog = Prog::new();
    for (client, own) in [(client(0), at(PUBLIC, 6000)), (client6(0), at(PUBLIC6, 6000))] {
        let pieces = cut(INTERNET, &datagram(client, own), 3);
        for piece in pieces[1..].iter().rev() {
            prog.run(INTERNET, piece).passed(PassFragment, piece);
        }
        prog.run(INTERNET, &pieces[0]).passed(PassUnmatched, &pieces[0]);
        assert_eq!(fate_of(&prog, &pieces[0], INTERNET), None);
    }
    assert!(held(&prog).is_empty());
}

#[test]
fn an_answer_of_a_server_that_keeps_the_clients_address_is_held_too() {
    let mut desired = with_dns(true);
    desired.masquerades.clear();
    for sockets in families() {
        let mut prog = Prog::with(&desired);
        let Sockets { client, service, server, .. } = sockets;
        prog.public(Frame::udp(client, service)).forwarded();
        let pieces = cut(SERVERS, &datagram(server, client), 3);
        assert_eq!(prog.run(SERVERS, &pieces[1]).counted, [(HoldFragment.as_str(), 1)].into());
        prog.run(SERVERS, &pieces[0]).forwarded();
        prog.run(SERVERS, &pieces[1]).forwarded();
    }
}

#[test]
fn what_no_honest_host_sends_is_dropped() {
    let mut prog = Prog::with(&with_dns(false));
    for sockets in families() {
        let Sockets { client, service, .. } = sockets;
        let v4 = client.is_ipv4();
        let raw =
            |protocol, payload: &[u8]| Frame::raw(client.ip(), service.ip(), protocol, payload);
        let attacks = [
            ("a TCP header in two", raw(TCP, &[0; 16]).fragment(0, true)),
            ("ports in two", raw(UDP, &[]).fragment(0, true)),
            ("over the TCP flags", raw(TCP, &[0; 64]).fragment(1, true)),
            ("over the rest of the TCP header", raw(TCP, &[0; 64]).fragment(2, false)),
            (
                "a first one of odd length",
                Frame::udp(client, service).payload(&[0; 21]).fragment(0, true),
            ),
            ("a middle one of odd length", raw(UDP, &[0; 21]).fragment(100, true)),
            ("beyond the end of a packet", raw(UDP, &[0; 64]).fragment(8185, false)),
            ("an empty one", raw(UDP, &[]).fragment(100, false)),
        ];
        for (n, (what, frame)) in attacks.into_iter().enumerate() {
            let outcome = prog.run(INTERNET, &coming_in(INTERNET, frame.id(1000 + n as u32)));
            assert_eq!(
                outcome.counted,
                [(DropFragmentAttack.as_str(), 1)].into(),
                "{what}, v4: {v4}"
            );
        }
        // The rest of it goes the same way.
        let id = 2000;
        let first = raw(TCP, &[0; 16]).fragment(0, true).id(id);
        prog.run(INTERNET, &coming_in(INTERNET, first)).dropped(DropFragmentAttack);
        let rest = raw(TCP, &[0; 64]).fragment(3, false).id(id);
        prog.run(INTERNET, &coming_in(INTERNET, rest)).dropped(DropFragment);
        // And one that follows an honest first.
        let pieces = cut(INTERNET, &datagram(client, service), id + 1);
        prog.run(INTERNET, &pieces[0]).forwarded();
        let odd = raw(UDP, &[0; 21]).fragment(200, true).id(id + 1);
        prog.run(INTERNET, &coming_in(INTERNET, odd)).dropped(DropFragmentAttack);
    }
    assert!(held(&prog).is_empty());
}

#[test]
fn a_later_fragment_is_checked_like_any_packet() {
    for sockets in families() {
        let Sockets { client, service, .. } = sockets;
        let mut desired = with_dns(false);
        let mut prog = Prog::with(&desired);
        let pieces = cut(INTERNET, &datagram(client, service), 1);
        prog.run(INTERNET, &pieces[0]).forwarded();
        let old = cut(INTERNET, &datagram(client, service).ttl(1), 1);
        prog.run(INTERNET, &old[1]).dropped(DropTtl);
        let cut_off = &pieces[1][..1000];
        prog.run(INTERNET, cut_off).dropped(DropMalformed);
        if client.is_ipv4() {
            let mut wrong = pieces[1].clone();
            wrong[24] ^= 1;
            prog.run(INTERNET, &wrong).dropped(DropChecksum);
        }
        prog.run(INTERNET, &pieces[1]).forwarded();
        let narrow = if client.is_ipv4() { host(WEB[0]) } else { host(WEB6[0]) };
        desired.hops.get_mut(&narrow).unwrap().mtu = 1400;
        prog.apply(&desired);
        prog.run(INTERNET, &pieces[1]).dropped(DropTooBig);
        prog.run(INTERNET, &pieces[2]).forwarded();
        desired.hops.get_mut(&narrow).unwrap().dmac = None;
        prog.apply(&desired);
        prog.run(INTERNET, &pieces[2]).dropped(DropUnresolved);
        // A first one that is refused is so for all. No server can be sent to: the client would get another one.
        for server in WEB.map(IpAddr::from).into_iter().chain(WEB6.map(IpAddr::from)) {
            desired.hops.get_mut(&host(server)).unwrap().dmac = None;
        }
        prog.apply(&desired);
        shared_fate(&mut prog, INTERNET, &datagram(client, service), DropUnresolved, DropFragment);
    }
}

#[test]
fn protocols_without_ports_do_not_leave_a_masqueraded_host() {
    let mut prog = Prog::with(&with_dns(false));
    for (host, remote, own, icmp) in [
        (IpAddr::from(WEB[0]), IpAddr::from(REMOTE), IpAddr::from(PRIVATE), ICMP),
        (WEB6[0].into(), REMOTE6.into(), PRIVATE6.into(), ICMPV6),
    ] {
        for protocol in [icmp, 50] {
            let to = |to: IpAddr| Frame::raw(host, to, protocol, &[3; 4000]).dont_fragment(false);
            let pieces = cut(SERVERS, &to(remote), u32::from(protocol));
            prog.run(SERVERS, &pieces[0]).dropped(DropProtocol);
            let outcome = prog.run(SERVERS, &pieces[1]);
            assert_eq!(outcome.action, action::DROP, "{:?}", outcome.counted);
            shared_fate(&mut prog, SERVERS, &to(own), PassFragment, PassFragment);
        }
    }
    assert!(held(&prog).is_empty());
}

#[test]
fn a_fragment_that_is_the_whole_is_none() {
    let mut prog = Prog::with(&with_dns(false));
    // RFC 6946.
    let atomic =
        Frame::udp(client6(0), at(VIP6, 53)).payload(b"all").extension(Extension::Fragment);
    let out = prog.public(atomic.id(5)).forwarded();
    assert_eq!((out.destination(), out.ip.id), (at(WEB6[0], 53), 5));
}

#[test]
fn ports_are_found_behind_options_that_only_the_first_fragment_has() {
    let mut prog = Prog::with(&with_dns(false));
    let options = Extension::Destination(vec![1, 4, 0, 0, 0, 0]);
    let query = datagram(client6(0), at(VIP6, 53)).extension(options);
    let pieces = cut(INTERNET, &query, 1);
    let out: Vec<Vec<u8>> = pieces
        .iter()
        .map(|piece| {
            let outcome = prog.run(INTERNET, piece);
            assert_eq!(outcome.counted, [(Forward.as_str(), 1)].into());
            outcome.frame
        })
        .collect();
    let (packet, _) = together(&out);
    assert_eq!(packet.ip.dst, IpAddr::from(WEB6[0]));
    let query = datagram(client(0), at(VIP, 53)).ip_options(&[7, 7, 4, 0, 0, 0, 0]);
    let (packet, _) = whole(&mut prog, INTERNET, &cut(INTERNET, &query, 1));
    assert_eq!(packet.destination().port(), 53);
}

#[test]
fn large_fragments_go_through_the_multi_buffer_programs() {
    let mut desired = with_dns(false);
    for hop in desired.hops.values_mut() {
        hop.mtu = 9000;
    }
    for sockets in families() {
        let Sockets { client, service, .. } = sockets;
        let mut prog = Prog::with(&desired).multi_buffer();
        let query = Frame::udp(client, service).payload(&[0x3c; 30_000]).dont_fragment(false);
        let frame = coming_in(INTERNET, query);
        let (packet, _) = whole(&mut prog, INTERNET, &fragments(&frame, 9000, 1));
        assert_eq!(packet.payload.len(), 30_000);

        let pieces = fragments(&frame, 9000, 2);
        let outcome = prog.run(INTERNET, &pieces[1]);
        assert_eq!(outcome.counted, [(HoldFragment.as_str(), 1)].into());
        let records = held(&prog);
        assert!(records.len() == 1 && records[0].1 == pieces[1], "all of it");
        prog.run(INTERNET, &pieces[0]).forwarded();
        prog.run(INTERNET, &pieces[1]).forwarded();
    }
}

#[test]
fn a_flood_of_fragments_keeps_nobody_else_from_being_translated() {
    covers!("RFC4787 REQ-14a");
    let mut prog = Prog::with(&with_dns(false));
    let connection = prog.connect(client(0), vip());
    let mut dropped = 0;
    for id in 0..2000 {
        let piece = Frame::raw(CLIENT, VIP, UDP, &[0; 1400]).fragment(100, true).id(id);
        let outcome = prog.run(INTERNET, &coming_in(INTERNET, piece));
        dropped += outcome.counted.get(DropFragmentLimit.as_str()).copied().unwrap_or(0);
        assert_eq!(outcome.action, action::DROP);
    }
    assert!(dropped > 1000, "the ring has room for some only, {dropped} were dropped");
    prog.carries(&connection);
    prog.connect(client(1), vip());
    let query = datagram(client(2), at(VIP, 53));
    whole(&mut prog, INTERNET, &cut(INTERNET, &query, 5000));
}

#[test]
fn tags_are_put_on_and_taken_off() {
    let mut desired = with_dns(false);
    for (prefix, hop) in &mut desired.hops {
        if prefix.addr() == IpAddr::from(WEB[0]) {
            hop.tags = vec![tag(0x8100, 5)];
        }
    }
    let mut prog = Prog::with(&desired);
    for piece in cut(INTERNET, &datagram(client(0), at(VIP, 53)), 1) {
        assert_eq!(prog.run(INTERNET, &piece).forwarded().vlans, [5]);
    }
}

#[test]
fn one_interface_serves_both_sides() {
    let mut desired = with_dns(false);
    desired.server_side = INTERNET;
    desired.interfaces[1] = desired.interfaces[0].clone();
    for hop in desired.hops.values_mut() {
        hop.side = INTERNET;
    }
    desired.routes.insert(prefix(SOURCES), Route::OnLink);
    let mut prog = Prog::with(&desired);
    for id in 0..2 {
        let pieces = cut(INTERNET, &datagram(client(0), at(VIP, 53)), id);
        assert_eq!(prog.run(INTERNET, &pieces[1]).counted, [(HoldFragment.as_str(), 1)].into());
        let out: Vec<Vec<u8>> = pieces
            .iter()
            .map(|piece| {
                let outcome = prog.run(INTERNET, piece);
                outcome.sent_back();
                outcome.frame
            })
            .collect();
        together(&out);
    }
}
