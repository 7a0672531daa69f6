//! The program's own ICMP errors: when a dropped packet is answered with one, and every byte of it.

use std::{net::IpAddr, thread, time::Duration};

use lbha::datapath::desired::{Desired, ErrorSources, Route};
use lbha_common::{
    counter::Counter::{self, *},
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
};
use lbha_tests::{
    covers,
    packet::{ETHERTYPE_QINQ, ETHERTYPE_VLAN, Extension, Frame, parse},
    prog::*,
};

/// Bytes of an error in all (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)).
fn most(net: &Net) -> usize {
    if net.is_ipv4() { 576 } else { 1280 }
}

/// Length of an IP header without options.
fn header(net: &Net) -> usize {
    if net.is_ipv4() { 20 } else { 40 }
}

/// By family.
fn either<T>(net: &Net, v4: T, v6: T) -> T {
    if net.is_ipv4() { v4 } else { v6 }
}

/// The answer to a frame, as it was sent: back to where it came from.
fn answer_to(net: &Net, sent: &Frame, (kind, code): (u8, u8), rest: u32) -> Frame {
    let (side, neighbour, own) = net.macs(sent.src);
    let source = if side == INTERNET { net.public } else { net.private };
    let mut quoted = sent.build_ip();
    quoted.truncate(most(net) - header(net) - 8);
    let answer = Frame::icmp_error(source, sent.src, kind, code, &quoted)
        .icmp_rest(rest.to_be_bytes())
        .ttl(64)
        .tos(either(net, 0xc0, 0))
        .id(0)
        .dont_fragment(false)
        .macs(own, neighbour);
    Frame { vlans: sent.vlans.clone(), ..answer }
}

/// Runs a packet that is dropped and answered.
#[track_caller]
fn answered(
    prog: &mut Prog,
    net: &Net,
    sent: &Frame,
    (reason, answer): (Counter, Counter),
    kind: (u8, u8),
    rest: u32,
) {
    let before = prog.state();
    let outcome = prog.come(net, sent.clone());
    let parsed = outcome.dropped_and_answered(reason, answer);
    assert_eq!(prog.state(), before, "no state comes of it");
    assert!(parsed.ip.total_len <= most(net));
    let expected = answer_to(net, sent, kind, rest).build();
    let differ = (0..expected.len()).find(|&at| outcome.frame.get(at) != expected.get(at));
    assert_eq!((differ, outcome.frame.len()), (None, expected.len()), "{sent:?}");
}

const TTL: (Counter, Counter) = (DropTtl, AnswerTtl);
const TOO_BIG: (Counter, Counter) = (DropTooBig, AnswerTooBig);

fn time_exceeded(net: &Net) -> (u8, u8) {
    either(net, (11, 0), (3, 0))
}

fn too_big(net: &Net) -> (u8, u8) {
    either(net, (3, 4), (2, 0))
}

fn prohibited(net: &Net) -> (u8, u8) {
    either(net, (3, 13), (1, 1))
}

/// Packets of known connections in all directions, and first ones.
fn packets(prog: &mut Prog, net: &Net) -> Vec<Frame> {
    let c = prog.connect(at(net.client, 40000), at(net.vip, 80));
    let (web, remote) = (at(net.web[0], 5000), at(net.remote, 80));
    let out = prog.come(net, Frame::udp(web, remote)).forwarded();
    let asked = prog.come(net, Frame::echo_request(net.web[0], net.remote, 7, 1)).forwarded();
    vec![
        c.from_client(),
        c.from_server(),
        Frame::syn(at(net.client, 40001), at(net.vip, 80)),
        Frame::udp(web, remote),
        Frame::udp(remote, out.source()),
        Frame::syn(web, at(net.remote, 443)),
        Frame::echo_request(net.web[0], net.remote, 7, 2),
        Frame::echo_request(net.web[0], net.remote, 8, 2),
        Frame::echo_reply(net.remote, net.public, asked.echo_id(), 1),
    ]
}

#[test]
fn a_used_up_ttl_is_answered() {
    covers!("RFC5508 REQ-10d");
    for net in &NETS {
        for multi_buffer in [false, true] {
            let mut prog = Prog::with(&gateway());
            if multi_buffer {
                prog = prog.multi_buffer();
            }
            for frame in packets(&mut prog, net) {
                for (ttl, length) in [(0, 0), (1, 1), (1, 100), (1, 1301)] {
                    let frame = frame.clone().ttl(ttl).payload(&vec![0x33; length]);
                    answered(&mut prog, net, &frame, TTL, time_exceeded(net), 0);
                }
            }
        }
    }
}

#[test]
fn as_much_is_quoted_as_fits() {
    for net in &NETS {
        let mut prog = Prog::with(&gateway());
        let c = prog.connect(at(net.client, 40000), at(net.vip, 80));
        let room = most(net) - 2 * header(net) - 8 - 20;
        for length in (0..8).chain(room - 5..room + 5) {
            let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let frame = c.from_client().ttl(1).payload(&payload);
            answered(&mut prog, net, &frame, TTL, time_exceeded(net), 0);
        }
        // Padding of the frame is no part of the packet.
        let frame = c.from_client().ttl(1);
        let outcome = prog.come(net, frame.clone().padding(6));
        outcome.dropped_and_answered(DropTtl, AnswerTtl);
        assert_eq!(outcome.frame, answer_to(net, &frame, time_exceeded(net), 0).build());
        // Options and extension headers are quoted as they are.
        let with = if net.is_ipv4() {
            frame.ip_options(&[1; 40])
        } else {
            frame
                .extension(Extension::HopByHop(vec![]))
                .extension(Extension::Destination(vec![1; 30]))
        };
        answered(&mut prog, net, &with, TTL, time_exceeded(net), 0);
    }
}

/// The gateway with another MTU towards one side.
fn with_mtu(side: u8, mtu: u16) -> Desired {
    let mut desired = gateway();
    for hop in desired.hops.values_mut().filter(|hop| hop.side == side) {
        hop.mtu = mtu;
    }
    desired
}

#[test]
fn what_is_too_big_is_answered_with_the_mtu() {
    covers!("RFC4787 REQ-13");
    for net in &NETS {
        for (ahead, mtu) in [(SERVERS, 1300), (INTERNET, 1300), (SERVERS, 1000), (INTERNET, 1280)] {
            let mut prog = Prog::with(&with_mtu(ahead, mtu));
            for frame in packets(&mut prog, net) {
                let frame = frame.payload(&[0x44; 1400]);
                if net.macs(frame.src).0 == ahead {
                    continue;
                }
                // RFC 8200 §5: every link carries 1280 bytes, whatever we have been told.
                let told = if net.is_ipv4() { mtu } else { mtu.max(1280) };
                for frame in [frame.clone(), frame.dont_fragment(false)] {
                    let verdict = (DropTooBig, AnswerTooBig);
                    answered(&mut prog, net, &frame, verdict, too_big(net), told.into());
                }
            }
        }
    }
}

#[test]
fn packets_of_several_buffers_are_answered() {
    for net in &NETS {
        let mut prog = Prog::with(&gateway()).multi_buffer();
        for frame in packets(&mut prog, net) {
            for length in [3000, 3600, 8000, 8800] {
                let frame = frame.clone().payload(&vec![0x55; length]);
                answered(&mut prog, net, &frame, TOO_BIG, too_big(net), 1500);
                let frame = frame.ttl(1);
                let outcome = prog.come(net, frame.clone());
                // Which of the two is found first is no matter.
                assert_eq!(outcome.action, action::TX, "{:?}", outcome.counted);
            }
        }
    }
}

#[test]
fn a_source_without_a_free_port_is_told() {
    covers!("RFC5508 REQ-8", "RFC6888 REQ-11a", "RFC6888 REQ-11b");
    for net in &NETS {
        let mut desired = gateway();
        desired.masquerades[0].ports = (2000, 2000);
        let mut prog = Prog::with(&desired);
        let remote = at(net.remote, 80);
        prog.come(net, Frame::udp(at(net.web[0], 5000), remote)).forwarded();
        let second = Frame::udp(at(net.web[1], 5000), remote).payload(b"no room");
        answered(&mut prog, net, &second, (DropNoPort, AnswerUnreachable), prohibited(net), 0);
    }
}

#[test]
fn a_source_that_has_used_up_its_share_is_told() {
    covers!("RFC5508 REQ-8");
    for net in &NETS {
        let mut desired = gateway();
        desired.masquerades[0].max_ports = 1;
        let mut prog = Prog::with(&desired);
        let remote = at(net.remote, 80);
        prog.come(net, Frame::udp(at(net.web[0], 5000), remote)).forwarded();
        for frame in [
            Frame::udp(at(net.web[0], 5001), remote).payload(&[6; 900]),
            Frame::syn(at(net.web[0], 5002), remote),
            Frame::echo_request(net.web[0], net.remote, 1, 1),
        ] {
            answered(&mut prog, net, &frame, (DropQuota, AnswerUnreachable), prohibited(net), 0);
        }
    }
}

#[test]
fn a_destination_without_a_route_is_unreachable() {
    for net in &NETS {
        let mut desired = gateway();
        desired.routes.insert(host(net.remote), Route::Unreachable);
        let mut prog = Prog::with(&desired);
        let frame = Frame::udp(at(net.web[0], 5000), at(net.remote, 80)).payload(&[6; 900]);
        let no_route = either(net, (3, 0), (1, 0));
        answered(&mut prog, net, &frame, (DropNoRoute, AnswerUnreachable), no_route, 0);
    }
}

#[test]
fn the_internet_is_not_told_about_ports_and_routes() {
    for net in &NETS {
        let mut desired = gateway();
        desired.routes.insert(host(net.client), Route::Unreachable);
        let www = if net.is_ipv4() { www(&mut desired) } else { www6(&mut desired) };
        www.servers.iter_mut().for_each(|server| server.source_ports = (2000, 2000));
        let mut prog = Prog::with(&desired);
        let syn = Frame::syn(at(net.client, 40000), at(net.vip, 80));
        prog.come(net, syn).dropped(DropNoRoute);
        let syn = |port| Frame::syn(at(net.remote, port), at(net.vip, 80));
        prog.come(net, syn(1)).forwarded();
        prog.come(net, syn(2)).forwarded();
        prog.come(net, syn(3)).dropped(DropNoPort);
    }
}

#[test]
fn nobody_is_told_who_can_not_have_asked() {
    covers!("RFC5508 REQ-10e");
    for net in &NETS {
        let mut prog = Prog::with(&gateway());
        let sources: &[&str] = either(
            net,
            &["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"][..],
            &["::", "::1", "ff02::1", "ff0e::5"][..],
        );
        for source in sources {
            let source: IpAddr = source.parse().unwrap();
            let syn = Frame::syn(at(source, 40000), at(net.vip, 80)).ttl(1);
            prog.public(syn).dropped(DropTtl);
        }
        let syn = Frame::syn(at(net.client, 40000), at(net.vip, 80)).ttl(1);
        prog.come(net, syn).dropped_and_answered(DropTtl, AnswerTtl);
    }
}

#[test]
fn a_packet_that_is_broken_besides_is_not_answered() {
    for net in &NETS {
        let mut prog = Prog::with(&gateway());
        let syn = Frame::syn(at(net.client, 40000), at(net.vip, 80)).ttl(1).payload(&[1; 40]);
        let frame = syn.macs(ROUTER_MAC, PUBLIC_MAC).build();
        prog.run(INTERNET, &frame[..frame.len() - 1]).dropped(DropTtl);
        if net.is_ipv4() {
            let mut frame = frame.clone();
            frame[25] ^= 1;
            prog.run(INTERNET, &frame).dropped(DropTtl);
        }
        prog.run(INTERNET, &frame).dropped_and_answered(DropTtl, AnswerTtl);
    }
}

#[test]
fn without_an_address_of_our_own_there_is_no_answer() {
    for net in &NETS {
        let mut desired = gateway();
        desired.error_sources[usize::from(INTERNET)] = ErrorSources::default();
        let mut prog = Prog::with(&desired);
        let c = prog.connect(at(net.client, 40000), at(net.vip, 80));
        prog.come(net, c.from_client().ttl(1)).dropped(DropTtl);
        let to_server = c.from_server().ttl(1);
        prog.come(net, to_server).dropped_and_answered(DropTtl, AnswerTtl);
    }
}

#[test]
fn without_room_before_the_packet_there_is_no_answer() {
    for net in &NETS {
        let mut prog = Prog::with(&gateway());
        let c = prog.connect(at(net.client, 40000), at(net.vip, 80));
        let frame = c.from_client().ttl(1).macs(ROUTER_MAC, PUBLIC_MAC).build();
        if let Some(outcome) = prog.run_without_headroom(INTERNET, &frame) {
            outcome.dropped(DropTtl);
        }
    }
}

#[test]
fn tags_are_kept() {
    let tags = [tag(ETHERTYPE_QINQ, 100), tag(ETHERTYPE_VLAN, 101)];
    for net in &NETS {
        for count in [1, 2] {
            let tags = if count == 1 { &tags[1..] } else { &tags[..] };
            let mut desired = gateway();
            desired.interfaces.iter_mut().for_each(|interface| interface.vlans = tags.to_vec());
            desired.hops.values_mut().for_each(|hop| hop.tags = tags.to_vec());
            let mut prog = Prog::with(&desired);
            for (from, to) in [
                (at(net.client, 40000), at(net.vip, 80)),
                (at(net.web[0], 5000), at(net.remote, 80)),
            ] {
                for length in [0, 1301] {
                    let syn = Frame::syn(from, to).ttl(1).payload(&vec![1; length]);
                    // Priority bits are the sender's.
                    let frame = match count {
                        1 => syn.vlan(0x2000 | 101),
                        _ => syn.vlan(0xe000 | 100).vlan(101),
                    };
                    answered(&mut prog, net, &frame, TTL, time_exceeded(net), 0);
                }
            }
        }
    }
}

#[test]
fn errors_are_limited_in_rate() {
    covers!("RFC5508 REQ-10f");
    // Each CPU has a share of its own.
    run_on_cpu(0);
    for net in &NETS {
        let mut prog = Prog::with(&gateway());
        let c = prog.connect(at(net.client, 40000), at(net.vip, 80));
        let frame = c.from_client().ttl(1).macs(ROUTER_MAC, PUBLIC_MAC).build();
        let mut sent = 0;
        while prog.send(INTERNET, &frame).0 == action::TX {
            sent += 1;
            assert!(sent < 1_000_000, "no limit");
        }
        assert!(sent >= 1000, "{sent} at once");
        let before = prog.interface_stats(INTERNET).packets;
        let sent_on = (0..200).filter(|_| prog.send(INTERNET, &frame).0 == action::TX).count();
        let after = prog.interface_stats(INTERNET).packets;
        let moved = |counter: Counter| after[counter as usize] - before[counter as usize];
        assert_eq!(moved(DropTtl), 200);
        assert_eq!(moved(AnswerTtl), sent_on as u64);
        assert_eq!(moved(AnswerLimited), 200 - sent_on as u64);
        // A thousand a second, so a few after a while.
        thread::sleep(Duration::from_millis(50));
        let (action, answer) = prog.send(INTERNET, &frame);
        assert_eq!(action, action::TX);
        assert_eq!(parse(&answer).unwrap().icmp_kind(), time_exceeded(net));
    }
}
