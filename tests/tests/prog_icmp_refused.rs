//! ICMP that is not translated: errors that are wrong or about nothing of ours, and other types.

use std::net::IpAddr;

use lbha_common::{
    counter::Counter::{self, *},
    flow::side::PUBLIC as INTERNET,
};
use lbha_tests::{
    covers,
    packet::{Frame, Quote},
    prog::*,
};

#[test]
fn an_error_with_a_wrong_checksum_goes_nowhere() {
    covers!("RFC5508 REQ-3", "RFC5508 REQ-3a");
    for net in &NETS {
        let mut prog = Prog::with(&several(net));
        let l4 = 14 + if net.is_ipv4() { 20 } else { 40 };
        for sent in connections(&mut prog, net) {
            let error = provoke(&mut prog, net, &sent, errors(net)[0], Quote::Most);
            let side = 1 - net.macs(sent.frame.src).0;
            let built = error.build();
            // Every byte of it counts, but those that the tuple is read from: they would make it another's.
            for at in (l4 + 1..l4 + 8).chain([built.len() - 200, built.len() - 1]) {
                let mut frame = built.clone();
                frame[at] ^= 0x10;
                prog.run(side, &frame).dropped(DropIcmpChecksum);
            }
            if net.is_ipv4() {
                // The quoted header's checksum wrong, and the message's right.
                let mut wrong = error.clone();
                wrong.payload[1] ^= 4;
                prog.run(side, &wrong.build()).dropped(DropIcmpChecksum);
                let mut wrong = provoke(
                    &mut prog,
                    net,
                    &Sent { frame: sent.frame.clone().ip_options(&[1; 8]), ..sent },
                    errors(net)[0],
                    Quote::Least,
                );
                wrong.payload[22] ^= 4;
                prog.run(side, &wrong.build()).dropped(DropIcmpChecksum);
            }
        }
    }
}

/// An error of the first kind about some packet.
fn error_about(net: &Net, from: IpAddr, to: IpAddr, about: &Frame) -> Frame {
    let (kind, code) = errors(net)[0].0;
    Frame::icmp_error(from, to, kind, code, &about.build_ip())
}

/// Runs an error that is about nothing of ours.
#[track_caller]
fn foreign(prog: &mut Prog, net: &Net, error: Frame, verdict: Counter) {
    let (side, from, to) = net.macs(error.src);
    let frame = error.macs(from, to).build();
    let before = prog.state();
    let outcome = prog.run(side, &frame);
    if verdict == PassIcmp {
        outcome.passed(verdict, &frame);
    } else {
        outcome.dropped(verdict);
    }
    assert_eq!(prog.state(), before);
}

/// What becomes of an error that belongs to nothing, by where it comes from and where it goes.
fn destinations(net: &Net) -> [(IpAddr, IpAddr, Counter); 6] {
    [
        // The host's own BGP, checks, and whatever it has opened from its external address.
        (net.outer_router, net.public, PassIcmp),
        (net.web[0], net.private, PassIcmp),
        (net.outer_router, net.vip, DropIcmpNoFlow),
        (net.web[1], net.vip, DropIcmpNoFlow),
        (net.web[0], net.elsewhere, DropIcmpNoFlow),
        (net.outer_router, net.elsewhere, PassIcmp),
    ]
}

#[test]
fn errors_about_nothing_of_ours_do_not_pass() {
    covers!("RFC5508 REQ-4", "RFC5508 REQ-5");
    for net in &NETS {
        let mut prog = Prog::with(&several(net));
        let known = prog.connect(at(net.client, 40000), at(net.vip, 80));
        for (from, to, verdict) in destinations(net) {
            let peer = net.remote;
            let inside = error_about(net, net.remote, to, &Frame::udp(at(to, 9), at(peer, 9)));
            for about in [
                Frame::tcp(at(to, 9), at(peer, 9)),
                Frame::udp(at(to, 9), at(peer, 9)),
                Frame::echo_request(to, peer, 9, 9),
                Frame::echo_reply(to, peer, 9, 9),
                Frame::raw(to, peer, 47, &[0; 40]),
                // An error about an error.
                inside,
                // To anybody but who has sent the packet.
                known.from_server(),
                known.from_client(),
            ] {
                foreign(&mut prog, net, error_about(net, from, to, &about), verdict);
            }
        }
    }
}

#[test]
fn errors_that_quote_no_ports_do_not_pass() {
    for net in &NETS {
        let mut prog = Prog::with(&several(net));
        let known = prog.connect(at(net.client, 40000), at(net.vip, 80));
        let sent = Frame::tcp(known.service, known.client).payload(&[1; 80]);
        let (kind, code) = errors(net)[0].0;
        let (from, to) = (net.outer_router, net.vip);
        foreign(
            &mut prog,
            net,
            error_about(net, from, to, &sent.clone().fragment(1, true)),
            DropIcmpNoFlow,
        );
        foreign(
            &mut prog,
            net,
            error_about(net, from, to, &sent.clone().fragment(7, false)),
            DropIcmpNoFlow,
        );
        prog.come(net, error_about(net, from, to, &sent.clone().fragment(0, true)))
            .forwarded_error();
        let header = if net.is_ipv4() { 20 } else { 40 };
        for length in 0..header + 8 {
            let quoted = &sent.build_ip()[..length];
            // Padding of the frame is no part of the quote.
            let error = Frame::icmp_error(from, to, kind, code, quoted).padding(40);
            foreign(&mut prog, net, error, DropIcmpNoFlow);
        }
        // Another version inside, and no version at all.
        for first in [0x00, 0x54, 0xf5, 0x44, 0x40, if net.is_ipv4() { 0x65 } else { 0x45 }] {
            let mut quoted = sent.build_ip();
            quoted[0] = first;
            let error = Frame::icmp_error(from, to, kind, code, &quoted);
            foreign(&mut prog, net, error, DropIcmpNoFlow);
        }
    }
}

#[test]
fn lengths_that_contradict_each_other_are_dropped_where_they_are_ours() {
    for net in &NETS {
        let mut prog = Prog::with(&several(net));
        let known = prog.connect(at(net.client, 40000), at(net.vip, 80));
        let about = Frame::tcp(known.service, known.client).payload(&[1; 80]);
        for (to, passes) in [(net.vip, false), (net.public, true)] {
            let error = error_about(net, net.outer_router, to, &about);
            let mut frame = error.macs(ROUTER_MAC, PUBLIC_MAC).build();
            frame.truncate(frame.len() - 1);
            let outcome = prog.run(INTERNET, &frame);
            if passes { outcome.passed(PassIcmp, &frame) } else { outcome.dropped(DropMalformed) }
        }
        if net.is_ipv4() {
            let error = error_about(net, net.outer_router, net.vip, &about);
            let mut frame = error.macs(ROUTER_MAC, PUBLIC_MAC).build();
            frame[25] ^= 1;
            prog.run(INTERNET, &frame).dropped(DropChecksum);
        }
    }
}

#[test]
fn an_error_that_can_not_go_on_is_dropped_and_never_answered() {
    covers!("RFC5508 REQ-10e");
    for net in &NETS {
        let mut desired = several(net);
        let mut prog = Prog::with(&desired);
        let all = connections(&mut prog, net);
        let all: Vec<_> = all
            .iter()
            .map(|sent| (sent, provoke(&mut prog, net, sent, errors(net)[0], Quote::Most)))
            .collect();
        for (sent, error) in &all {
            for ttl in [0, 1] {
                back(&mut prog, net, sent, &error.clone().ttl(ttl)).dropped(DropTtl);
            }
        }
        desired.hops.values_mut().for_each(|hop| hop.mtu = 500);
        prog.apply(&desired);
        for (sent, error) in &all {
            back(&mut prog, net, sent, error).dropped(DropTooBig);
        }
        desired.hops.values_mut().for_each(|hop| hop.dmac = None);
        prog.apply(&desired);
        for (sent, error) in &all {
            back(&mut prog, net, sent, error).dropped(DropUnresolved);
        }
    }
}

#[test]
fn redirects_are_for_this_host_or_nobody() {
    let net = &NETS[0];
    let mut prog = Prog::with(&several(net));
    let known = prog.connect(at(net.client, 40000), at(net.vip, 80));
    let redirect = |to, about: &Frame| {
        Frame::icmp_error(net.outer_router, to, 5, 1, &about.build_ip()).icmp_rest([192, 0, 2, 1])
    };
    let sent = Frame::tcp(known.service, known.client);
    foreign(&mut prog, net, redirect(net.vip, &sent), DropIcmpNoFlow);
    foreign(&mut prog, net, redirect(net.elsewhere, &sent), DropIcmpNoFlow);
    foreign(&mut prog, net, redirect(net.public, &sent), PassIcmp);
}

#[test]
fn other_types_are_the_kernels_and_never_leave_untranslated() {
    covers!("RFC5508 REQ-11");
    for net in &NETS {
        let mut prog = Prog::with(&several(net));
        let kinds: &[u8] = if net.is_ipv4() {
            &[1, 2, 9, 10, 13, 14, 15, 16, 17, 18, 30, 42, 43, 253, 255]
        } else {
            &[0, 5, 100, 127, 130, 131, 132, 133, 134, 135, 136, 137, 138, 143, 160, 255]
        };
        let link_local: IpAddr =
            if net.is_ipv4() { [169, 254, 0, 1].into() } else { "fe80::1".parse().unwrap() };
        for &kind in kinds {
            for (from, to, verdict) in [
                (net.outer_router, net.public, PassIcmp),
                (net.outer_router, net.vip, PassIcmp),
                (net.outer_router, net.elsewhere, PassIcmp),
                (net.web[0], net.private, PassIcmp),
                (net.web[0], net.web[1], PassIcmp),
                (net.web[0], link_local, PassIcmp),
                (net.web[0], net.elsewhere, DropProtocol),
            ] {
                let frame = Frame::icmp_error(from, to, kind, 0, &[0; 24]);
                foreign(&mut prog, net, frame, verdict);
            }
        }
    }
}

#[test]
fn a_message_longer_than_routers_send_is_not_translated() {
    let net = &NETS[0];
    let mut desired = several(net);
    desired.hops.values_mut().for_each(|hop| hop.mtu = 3000);
    let mut prog = Prog::with(&desired);
    let known = prog.connect(at(net.client, 40000), at(net.vip, 80));
    let about = |length| Frame::tcp(known.service, known.client).payload(&vec![1; length]);
    let error = |length| error_about(net, net.outer_router, net.vip, &about(length));
    // 2044 bytes: 8 of the error's header, 40 of the quoted ones.
    prog.come(net, error(1996)).forwarded_error();
    prog.come(net, error(1997)).dropped(DropIcmpChecksum);
}
