//! ICMP echo: masqueraded by its identifier, and answered in the name of VIPs.

use std::net::IpAddr;

use lbha::datapath::Desired;
use lbha_common::{
    counter::Counter::{self, *},
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
};
use lbha_tests::{
    covers,
    packet::{ETHERTYPE_QINQ, ETHERTYPE_VLAN, Extension, Frame, L4, verify},
    prog::*,
};

const LINK_LOCAL: [&str; 2] = ["169.254.7.7", "fe80::7"];

/// The frame that should come of an echo: other addresses and identifier, one hop older, all else as it was.
fn echo_of(frame: &Frame, from: IpAddr, to: IpAddr, id: u16) -> Frame {
    let mut frame = frame.clone().ttl(frame.ttl - 1);
    (frame.src, frame.dst) = (from, to);
    let L4::Icmp { rest, .. } = &mut frame.l4 else { panic!("not ICMP: {frame:?}") };
    rest[..2].copy_from_slice(&id.to_be_bytes());
    frame
}

fn with_ping(ping: bool) -> Prog {
    let mut desired = gateway();
    desired.settings.ping = ping;
    Prog::with(&desired)
}

#[test]
fn a_ping_from_inside_goes_out_and_its_answer_comes_back() {
    covers!("RFC5508 REQ-1", "RFC5508 REQ-10a");
    for net in &NETS {
        let mut prog = Prog::with(&gateway());
        let request = Frame::echo_request(net.web[0], net.remote, 7, 1).payload(&[0x5a; 57]);
        let mut first = None;
        for seq in 1..4 {
            let request = request.clone().icmp_rest([0, 7, 0, seq]).tos(0x28).padding(2);
            let there = prog.come(net, request.clone());
            let id = there.forwarded().echo_id();
            let wanted = echo_of(&request, net.public, net.remote, id).macs(PUBLIC_MAC, ROUTER_MAC);
            assert_eq!(there.frame, wanted.build());
            assert_eq!(*first.get_or_insert(id), id, "one mapping for all of them");
            assert!((1024..=32767).contains(&id), "{id}");

            let reply = Frame::echo_reply(net.remote, net.public, id, seq.into());
            let reply = reply.payload(&[0x5a; 57]);
            let back = prog.come(net, reply.clone());
            back.forwarded();
            let wanted = echo_of(&reply, net.remote, net.web[0], 7).macs(PRIVATE_MAC, WEB_MAC[0]);
            assert_eq!(back.frame, wanted.build());
        }
        assert_eq!((prog.flow_entries(), prog.half_open_entries()), (2, 0));
        let stats = prog.masquerade_stats(if net.is_ipv4() { SOURCES } else { SOURCES6 });
        assert_eq!((stats.connections, stats.established), (1, 1));
        assert_eq!((stats.packets_in, stats.packets_out), (3, 3));
    }
}

#[test]
fn identifiers_are_told_apart_like_ports() {
    for net in &NETS {
        let mut prog = Prog::with(&gateway());
        let mut seen = vec![];
        for (web, id) in [(0, 5000), (1, 5000), (0, 5001), (1, 0), (0, 0), (0, 65535)] {
            let request = Frame::echo_request(net.web[web], net.remote, id, 9);
            let outer = prog.come(net, request).forwarded().echo_id();
            let reply = Frame::echo_reply(net.remote, net.public, outer, 9);
            let back = prog.come(net, reply).forwarded();
            assert_eq!((back.ip.dst, back.echo_id()), (net.web[web], id));
            seen.push(outer);
        }
        assert_eq!(seen[0], 5000, "kept where it is free");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 6, "each has its own");
    }
}

#[test]
fn an_identifier_is_mapped_alike_for_all_hosts_where_that_is_asked_for() {
    covers!("RFC5508 REQ-1a");
    for net in &NETS {
        let mut desired = gateway();
        desired.masquerades[0].endpoint_independent = true;
        let mut prog = Prog::with(&desired);
        let mut ask = |to| {
            let request = Frame::echo_request(net.web[0], to, 40000, 1);
            prog.come(net, request).forwarded().echo_id()
        };
        assert_eq!(ask(net.remote), ask(net.elsewhere));
    }
}

#[test]
fn an_answer_that_is_all_zeros_still_has_a_checksum() {
    let net = &NETS[0];
    let mut prog = Prog::with(&gateway());
    let request = Frame::echo_request(net.web[0], net.remote, 0, 0).payload(&[0; 16]);
    let id = prog.come(net, request).forwarded().echo_id();
    let reply = Frame::echo_reply(net.remote, net.public, id, 0).payload(&[0; 16]);
    let back = prog.come(net, reply);
    back.forwarded();
    assert_eq!(back.frame[34..42], [0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    let answer = prog.come(net, Frame::echo_request(net.client, net.vip, 0, 0));
    answer.answered();
    assert_eq!(answer.frame[34..42], [0, 0, 0xff, 0xff, 0, 0, 0, 0]);
}

#[test]
fn options_and_extension_headers_are_kept() {
    for net in &NETS {
        let mut prog = Prog::with(&gateway());
        let request = Frame::echo_request(net.web[0], net.remote, 7, 1).payload(&[1; 9]);
        let request = if net.is_ipv4() {
            request.ip_options(&[1, 7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0])
        } else {
            request.extension(Extension::Destination(vec![1, 4, 0, 0, 0, 0]))
        };
        for _ in 0..2 {
            let there = prog.come(net, request.clone());
            let id = there.forwarded().echo_id();
            let wanted = echo_of(&request, net.public, net.remote, id).macs(PUBLIC_MAC, ROUTER_MAC);
            assert_eq!(there.frame, wanted.build());
        }
    }
}

/// Runs a packet that the kernel gets, or nobody.
#[track_caller]
fn stays(prog: &mut Prog, net: &Net, frame: Frame, verdict: Counter) {
    let (side, from, to) = net.macs(frame.src);
    let frame = frame.macs(from, to).build();
    let before = prog.state();
    let outcome = prog.run(side, &frame);
    if verdict == PassIcmp {
        outcome.passed(verdict, &frame);
    } else {
        outcome.dropped(verdict);
    }
    assert_eq!(prog.state(), before);
}

#[test]
fn what_is_the_hosts_own_is_left_alone() {
    for net in &NETS {
        let mut prog = with_ping(true);
        let request = |from, to| Frame::echo_request(from, to, 7, 1);
        let reply = |from, to| Frame::echo_reply(from, to, 7, 1);
        stays(&mut prog, net, request(net.client, net.public), PassIcmp);
        stays(&mut prog, net, request(net.web[0], net.private), PassIcmp);
        stays(&mut prog, net, request(net.web[0], net.public), PassIcmp);
        stays(&mut prog, net, reply(net.web[0], net.private), PassIcmp);
        stays(&mut prog, net, reply(net.remote, net.public), PassIcmp);
        stays(&mut prog, net, reply(net.remote, net.vip), PassIcmp);
        // To others of our networks, and through: the kernel routes.
        stays(&mut prog, net, request(net.web[0], net.web[1]), PassIcmp);
        stays(&mut prog, net, request(net.client, net.web[1]), PassIcmp);
        stays(&mut prog, net, request(net.client, net.elsewhere), PassIcmp);
        stays(&mut prog, net, request(net.inner_router, net.elsewhere), PassIcmp);
    }
}

#[test]
fn an_answer_to_nobody_does_not_leave_with_a_private_source() {
    for net in &NETS {
        let mut prog = Prog::with(&gateway());
        let reply = Frame::echo_reply(net.web[0], net.remote, 7, 1);
        stays(&mut prog, net, reply, DropNoFlow);
    }
}

#[test]
fn a_request_that_can_not_go_out_begins_nothing() {
    for net in &NETS {
        let mut prog = Prog::with(&gateway());
        let request = Frame::echo_request(net.web[0], net.remote, 7, 1).payload(&[2; 99]);
        let mut frame = request.clone().macs(WEB_MAC[0], PRIVATE_MAC).build();
        frame.pop();
        prog.run(SERVERS, &frame).dropped(DropMalformed);
        assert_eq!(prog.flow_entries(), 0);
        // Of a known one likewise.
        prog.come(net, request).forwarded();
        prog.run(SERVERS, &frame).dropped(DropMalformed);
        if net.is_ipv4() {
            frame.push(2);
            frame[24] ^= 1;
            prog.run(SERVERS, &frame).dropped(DropChecksum);
        }
    }
}

#[test]
fn vips_answer_ping() {
    for net in &NETS {
        for mut prog in [with_ping(true), with_ping(true).multi_buffer()] {
            for from in [net.client, net.web[0], net.inner_router] {
                let request = Frame::echo_request(from, net.vip, 0x1234, 7);
                let request = request.payload(b"are you there").ttl(3).tos(0x20).padding(5);
                let (side, neighbour, own) = net.macs(from);
                let outcome = prog.run(side, &request.clone().macs(neighbour, own).build());
                outcome.answered();
                let mut wanted = Frame::echo_reply(net.vip, from, 0x1234, 7).ttl(64);
                wanted = wanted.payload(b"are you there").tos(0x20).padding(5);
                assert_eq!(outcome.frame, wanted.macs(own, neighbour).build());
            }
            assert_eq!(prog.state(), (0, 0, [0, 0]));
        }
    }
}

#[test]
fn vips_do_not_answer_ping_when_that_is_off() {
    for net in &NETS {
        let mut prog = with_ping(false);
        for from in [net.client, net.web[0]] {
            stays(&mut prog, net, Frame::echo_request(from, net.vip, 1, 1), DropPing);
        }
        stays(&mut prog, net, Frame::echo_request(net.client, net.public, 1, 1), PassIcmp);
    }
}

#[test]
fn a_ping_that_can_not_be_answered_as_it_is_goes_to_the_kernel() {
    for (net, link_local) in NETS.iter().zip(LINK_LOCAL) {
        let mut prog = with_ping(true);
        let request = Frame::echo_request(net.client, net.vip, 1, 1);
        let with = if net.is_ipv4() {
            request.clone().ip_options(&[1; 4])
        } else {
            request.clone().extension(Extension::HopByHop(vec![]))
        };
        stays(&mut prog, net, with, PassIcmp);
        let other: IpAddr = link_local.parse().unwrap();
        stays(&mut prog, net, Frame::echo_request(other, net.vip, 1, 1), PassIcmp);
        let mut frame = request.macs(ROUTER_MAC, PUBLIC_MAC).payload(&[1; 20]).build();
        frame.truncate(frame.len() - 3);
        prog.run(INTERNET, &frame).dropped(DropMalformed);
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for net in &NETS {
        let mut prog = with_ping(true);
        let l4 = 14 + if net.is_ipv4() { 20 } else { 40 };
        for (from, to, answer) in [(net.client, net.vip, true), (net.web[0], net.remote, false)] {
            let (side, neighbour, own) = net.macs(from);
            let request = Frame::echo_request(from, to, 1, 1).payload(&[3; 30]);
            let mut frame = request.macs(neighbour, own).build();
            frame[l4 + 20] ^= 0x40;
            let outcome = prog.run(side, &frame);
            assert_eq!(outcome.action, if answer { action::TX } else { action::REDIRECT });
            verify(&outcome.frame).expect_err("the receiver must see it");
        }
    }
}

/// The gateway with two tags outside and one inside.
fn tagged() -> Desired {
    let mut desired = gateway();
    let outside = vec![tag(ETHERTYPE_QINQ, 100), tag(ETHERTYPE_VLAN, 101)];
    let inside = vec![tag(ETHERTYPE_VLAN, 200)];
    desired.interfaces[usize::from(INTERNET)].vlans = outside.clone();
    desired.interfaces[usize::from(SERVERS)].vlans = inside.clone();
    for hop in desired.hops.values_mut() {
        hop.tags = if hop.side == INTERNET { outside.clone() } else { inside.clone() };
    }
    desired
}

#[test]
fn tags_are_exchanged_and_kept_in_answers() {
    for net in &NETS {
        let mut prog = Prog::with(&tagged());
        let request = Frame::echo_request(net.web[0], net.remote, 7, 1).vlan(200);
        let there = prog.come(net, request).forwarded();
        assert_eq!(there.vlans, [100, 101]);
        let reply = Frame::echo_reply(net.remote, net.public, there.echo_id(), 1);
        assert_eq!(prog.come(net, reply.vlan(100).vlan(101)).forwarded().vlans, [200]);

        let ping = Frame::echo_request(net.client, net.vip, 7, 1).vlan(0x6000 | 100).vlan(101);
        let outcome = prog.come(net, ping);
        outcome.answered();
        let wanted = Frame::echo_reply(net.vip, net.client, 7, 1).vlan(0x6000 | 100).vlan(101);
        assert_eq!(outcome.frame, wanted.macs(PUBLIC_MAC, ROUTER_MAC).build());
    }
}
