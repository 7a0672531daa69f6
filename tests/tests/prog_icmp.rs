//! ICMP errors about connections: translated outside and inside, in both families and both directions, and all that is not.

use std::{collections::BTreeMap, net::IpAddr};

use lbha::datapath::{
    desired::{Desired, ServiceId},
    expiry,
    family::Family,
    tables::FlowTable,
};
use lbha_common::{
    addr::{Be32, Be128},
    counter::Counter::{self, *},
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
};
use lbha_tests::{
    covers,
    packet::{ETHERTYPE_VLAN, Extension, Frame, L4, Quote, icmp_error, tcp_flags::*},
    prog::*,
};

/// A packet of a known connection, as it was sent: an error may come about it.
struct Sent {
    what: &'static str,
    frame: Frame,
    /// What the error's source becomes; `None` where the router stays visible.
    hides: Option<IpAddr>,
}

/// The gateway, with a service of each kind besides `www`.
fn network(net: &Net) -> Desired {
    let mut desired = gateway();
    let www = if net.is_ipv4() { WWW } else { WWW6 };
    let mut service = desired.services[&www].clone();
    let other = |port, protocol| ServiceId { port, protocol, ..www };
    desired.services.insert(other(53, UDP), service.clone());
    service.servers.iter_mut().for_each(|server| server.keep_client = true);
    desired.services.insert(other(81, TCP), service);
    desired
}

/// Connections of every kind, and packets of both of their directions.
fn connections(prog: &mut Prog, net: &Net) -> Vec<Sent> {
    let mut all = vec![];
    let mut add = |what, frame: Frame, hides| {
        all.push(Sent { what, frame: frame.payload(&[0xa5; 1001]), hides });
    };
    let c = prog.connect(at(net.client, 40000), at(net.vip, 80));
    add("fullnat, client", c.from_client(), Some(net.vip));
    add("fullnat, server", c.from_server(), Some(net.private));
    let c = prog.connect(at(net.client, 40001), at(net.vip, 81));
    assert_eq!(c.source, c.client);
    add("nat, client", c.from_client(), Some(net.vip));
    add("nat, server", c.from_server(), None);

    let asks = Frame::udp(at(net.client, 40002), at(net.vip, 53));
    let asked = prog.come(net, asks.clone()).forwarded();
    let answers = Frame::udp(asked.destination(), asked.source());
    prog.come(net, answers.clone()).forwarded();
    add("UDP, client", asks, Some(net.vip));
    add("UDP, server", answers, Some(net.private));

    let half = prog.begin(at(net.client, 40003), at(net.vip, 80));
    let syn = Frame::tcp(half.client, half.service).flags(SYN).seq(Connection::CLIENT_ISN);
    add("half open, client", syn, Some(net.vip));
    add("half open, server", half.answer(), Some(net.private));

    let (web, remote) = (net.web[0], at(net.remote, 80));
    let syn = prog.come(net, Frame::syn(at(web, 5000), remote)).forwarded();
    let back = Frame::tcp(remote, syn.source());
    prog.come(net, back.clone().flags(SYN | ACK)).forwarded();
    add("masquerade TCP, inside", Frame::tcp(at(web, 5000), remote), None);
    add("masquerade TCP, remote", back, Some(net.public));

    let ask = Frame::udp(at(web, 5001), remote);
    let asked = prog.come(net, ask.clone()).forwarded();
    add("masquerade UDP, inside", ask, None);
    add("masquerade UDP, remote", Frame::udp(remote, asked.source()), Some(net.public));
    if net.is_ipv4() {
        let ask = Frame::udp(at(web, 5001), remote).without_checksum();
        add("no checksum, inside", ask, None);
        let answer = Frame::udp(remote, asked.source()).without_checksum();
        add("no checksum, remote", answer, Some(net.public));
    }

    let request = Frame::echo_request(web, net.remote, 700, 1);
    let asked = prog.come(net, request.clone()).forwarded();
    add("echo, inside", request, None);
    let reply = Frame::echo_reply(net.remote, net.public, asked.echo_id(), 1);
    add("echo, remote", reply, Some(net.public));
    all
}

/// The errors that pass, with their second word.
fn errors(net: &Net) -> Vec<((u8, u8), [u8; 4])> {
    if net.is_ipv4() {
        let mut all: Vec<_> = (0..16).map(|code| ((3, code), [0; 4])).collect();
        all.push(((3, 4), [0, 0, 0x05, 0x14]));
        all.extend([(4, 0), (11, 0), (11, 1), (12, 0), (12, 1)].map(|kind| (kind, [9, 0, 0, 0])));
        all
    } else {
        let mut all: Vec<_> = (0..8).map(|code| ((1, code), [0; 4])).collect();
        all.push(((2, 0), 1280_u32.to_be_bytes()));
        all.extend([(3, 0), (3, 1), (4, 0), (4, 1), (4, 2)].map(|kind| (kind, [0, 0, 0, 40])));
        all
    }
}

/// A router on the way that a packet has taken after it was translated.
fn router(net: &Net, sent: &Sent) -> IpAddr {
    if net.macs(sent.frame.src).0 == SERVERS { net.outer_router } else { net.inner_router }
}

/// Sends a packet on its way, and gives the error that a router sends about it.
fn provoke(
    prog: &mut Prog,
    net: &Net,
    sent: &Sent,
    (kind, rest): ((u8, u8), [u8; 4]),
    quote: Quote,
) -> Frame {
    let there = prog.come(net, sent.frame.clone());
    there.forwarded();
    icmp_error(&there.frame, kind, rest, router(net, sent), quote)
}

/// Runs an error that comes back from where a packet went.
fn back(prog: &mut Prog, net: &Net, sent: &Sent, error: &Frame) -> Outcome {
    prog.run(1 - net.macs(sent.frame.src).0, &error.build())
}

/// The error as the packet's sender should get it, built anew: about what it had sent, one hop older.
fn expected(net: &Net, sent: &Sent, error: &Frame) -> Vec<u8> {
    let L4::Icmp { kind, code, rest } = error.l4 else { panic!("not ICMP: {error:?}") };
    let mut quoted = sent.frame.clone().ttl(sent.frame.ttl - 1).build_ip();
    quoted.truncate(error.payload.len());
    let (_, neighbour, own) = net.macs(sent.frame.src);
    let source = sent.hides.unwrap_or(error.src);
    Frame::icmp_error(source, sent.frame.src, kind, code, &quoted)
        .icmp_rest(rest)
        .ttl(error.ttl - 1)
        .macs(own, neighbour)
        .build()
}

/// Checks that the sender of a packet gets the error about it, and every byte of it.
#[track_caller]
fn reaches(prog: &mut Prog, net: &Net, sent: &Sent, error: &Frame) {
    let outcome = back(prog, net, sent, error);
    outcome.forwarded_error();
    let expected = expected(net, sent, error);
    let differ = (0..expected.len()).find(|&at| outcome.frame.get(at) != expected.get(at));
    assert_eq!((differ, outcome.frame.len()), (None, expected.len()), "{}: {error:?}", sent.what);
}

#[test]
fn errors_are_translated_outside_and_inside() {
    covers!(
        "RFC4787 REQ-12b",
        "RFC5382 REQ-9",
        "RFC5508 REQ-10",
        "RFC5508 REQ-10a",
        "RFC5508 REQ-4",
        "RFC5508 REQ-4a",
        "RFC5508 REQ-4b",
        "RFC5508 REQ-4c",
        "RFC5508 REQ-5",
        "RFC5508 REQ-5a",
        "RFC5508 REQ-5b",
        "RFC5508 REQ-5c"
    );
    for net in &NETS {
        let mut prog = Prog::with(&network(net));
        for sent in connections(&mut prog, net) {
            for error in errors(net) {
                for quote in [Quote::Least, Quote::Most, Quote::Bytes(77)] {
                    let error = provoke(&mut prog, net, &sent, error, quote);
                    reaches(&mut prog, net, &sent, &error);
                }
            }
        }
    }
}

#[test]
fn quotes_of_any_length_are_translated() {
    for net in &NETS {
        let mut prog = Prog::with(&network(net));
        let header = if net.is_ipv4() { 20 } else { 40 };
        for sent in connections(&mut prog, net) {
            // Half of a checksum can't be updated: TCP's is in bytes 16 and 17.
            let lengths = (header + 8..header + 40).filter(|&length| length != header + 17);
            for length in lengths.chain([513, 514, 515, 900, 1001]) {
                let error = provoke(&mut prog, net, &sent, errors(net)[1], Quote::Bytes(length));
                reaches(&mut prog, net, &sent, &error);
            }
            for length in header..header + 8 {
                let error = provoke(&mut prog, net, &sent, errors(net)[1], Quote::Bytes(length));
                let outcome = back(&mut prog, net, &sent, &error);
                if error.dst == net.vip {
                    outcome.dropped(DropIcmpNoFlow);
                } else {
                    outcome.passed(PassIcmp, &error.build());
                }
            }
        }
    }
}

#[test]
fn the_multi_buffer_programs_do_the_same() {
    for net in &NETS {
        let mut prog = Prog::with(&network(net)).multi_buffer();
        for sent in connections(&mut prog, net) {
            let error = provoke(&mut prog, net, &sent, errors(net)[4], Quote::Most);
            reaches(&mut prog, net, &sent, &error);
        }
    }
}

#[test]
fn options_and_extension_headers_of_the_quoted_packet_are_stepped_over() {
    covers!("RFC5508 REQ-3b");
    for net in &NETS {
        let mut prog = Prog::with(&network(net));
        for sent in connections(&mut prog, net) {
            let with: Vec<Frame> = if net.is_ipv4() {
                // no operation, record route, end of list; and as many as there can be
                [&[1, 7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0][..], &[1; 40]]
                    .map(|options| sent.frame.clone().ip_options(options))
                    .into()
            } else {
                let frame = || sent.frame.clone();
                vec![
                    frame().extension(Extension::Destination(vec![1, 4, 0, 0, 0, 0])),
                    frame()
                        .extension(Extension::HopByHop(vec![]))
                        .extension(Extension::Destination(vec![1; 30]))
                        .extension(Extension::Fragment),
                ]
            };
            for frame in with {
                let sent = Sent { frame, ..sent };
                for quote in [Quote::Least, Quote::Most] {
                    let error = provoke(&mut prog, net, &sent, errors(net)[0], quote);
                    reaches(&mut prog, net, &sent, &error);
                }
            }
        }
    }
}

#[test]
fn options_of_the_error_itself_are_kept() {
    let net = &NETS[0];
    let mut prog = Prog::with(&network(net));
    for sent in connections(&mut prog, net) {
        let error = provoke(&mut prog, net, &sent, errors(net)[0], Quote::Most);
        let outcome = back(&mut prog, net, &sent, &error.clone().ip_options(&[1; 12]).tos(0xc0));
        let parsed = outcome.forwarded_error();
        assert_eq!((parsed.ip.options, parsed.ip.tos), (vec![1; 12], 0xc0));
        let plain = expected(net, &sent, &error);
        assert_eq!(outcome.frame[14 + 32..], plain[14 + 20..]);
    }
}

#[test]
fn an_error_with_a_wrong_checksum_goes_nowhere() {
    covers!("RFC5508 REQ-3", "RFC5508 REQ-3a");
    for net in &NETS {
        let mut prog = Prog::with(&network(net));
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

#[test]
fn the_quoted_packets_own_checksum_is_not_looked_at() {
    covers!("RFC5508 REQ-3c", "RFC5508 REQ-3d");
    for net in &NETS {
        let mut prog = Prog::with(&network(net));
        for sent in connections(&mut prog, net) {
            // The quote is of the first 128 bytes, and an extension object follows it (RFC 4884 §7).
            let mut error = provoke(&mut prog, net, &sent, errors(net)[0], Quote::Bytes(128));
            let extension = [0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0x01, 0xe1, 0x01];
            error.payload.extend(extension);
            let outcome = back(&mut prog, net, &sent, &error);
            let payload = outcome.forwarded_error().payload;
            assert_eq!(payload[128..], extension);
            let mut expected = sent.frame.clone().ttl(63).build_ip();
            expected.truncate(128);
            assert_eq!(payload[..128], expected);
            // A byte of the quoted payload changed on the way.
            error.payload[120] ^= 0xff;
            back(&mut prog, net, &sent, &error).forwarded_error();
        }
    }
}

/// All entries of one table.
fn dump<A: Family>(table: &FlowTable<A>) -> BTreeMap<String, String> {
    let entries = table.entries.iter().map(|entry| entry.expect("an entry"));
    entries.map(|(key, flow)| (format!("{key:?}"), format!("{flow:?}"))).collect()
}

fn dump_all(prog: &Prog) -> Vec<BTreeMap<String, String>> {
    let (v4, v6) = (&prog.flows.v4, &prog.flows.v6);
    vec![dump(&v4.flows), dump(&v4.half_open), dump(&v6.flows), dump(&v6.half_open)]
}

fn age<A: Family>(table: &mut FlowTable<A>) {
    let entries: Vec<_> = table.entries.iter().map(|entry| entry.expect("an entry")).collect();
    for (key, mut flow) in entries {
        flow.last_seen = expiry::now() - 100;
        table.entries.insert(key, flow, 0).expect("the entry is there");
    }
}

#[test]
fn errors_leave_connections_as_they_are() {
    covers!("RFC4787 REQ-12", "RFC5382 REQ-10", "RFC5508 REQ-6", "RFC7857 7.1");
    for net in &NETS {
        let mut prog = Prog::with(&network(net));
        let all = connections(&mut prog, net);
        let all: Vec<_> = all
            .iter()
            .map(|sent| (sent, provoke(&mut prog, net, sent, errors(net)[0], Quote::Most)))
            .collect();
        let flows = &mut prog.flows;
        age::<Be32>(&mut flows.v4.flows);
        age::<Be32>(&mut flows.v4.half_open);
        age::<Be128>(&mut flows.v6.flows);
        age::<Be128>(&mut flows.v6.half_open);
        let before = dump_all(&prog);
        for (sent, error) in all {
            for (kind, rest) in errors(net) {
                let mut error = error.clone().icmp_rest(rest);
                if let L4::Icmp { kind: is, code, .. } = &mut error.l4 {
                    (*is, *code) = kind;
                }
                back(&mut prog, net, sent, &error).forwarded_error();
            }
        }
        assert_eq!(dump_all(&prog), before);
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
        let mut prog = Prog::with(&network(net));
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
        let mut prog = Prog::with(&network(net));
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
        let mut prog = Prog::with(&network(net));
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
        let mut desired = network(net);
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
    let mut prog = Prog::with(&network(net));
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
        let mut prog = Prog::with(&network(net));
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
fn tags_are_exchanged() {
    for net in &NETS {
        let mut desired = network(net);
        let [outside, inside] = [100, 200].map(|id| vec![tag(ETHERTYPE_VLAN, id)]);
        desired.interfaces[usize::from(INTERNET)].vlans = outside.clone();
        desired.interfaces[usize::from(SERVERS)].vlans = inside.clone();
        for hop in desired.hops.values_mut() {
            hop.tags = if hop.side == INTERNET { outside.clone() } else { inside.clone() };
        }
        let mut prog = Prog::with(&desired);
        let syn = prog.come(net, Frame::syn(at(net.web[0], 5000), at(net.remote, 80)).vlan(200));
        syn.forwarded();
        let error = icmp_error(&syn.frame, errors(net)[0].0, [0; 4], net.outer_router, Quote::Most);
        assert_eq!(error.vlans, [100]);
        let outcome = prog.run(INTERNET, &error.build());
        let parsed = outcome.forwarded_error();
        assert_eq!((parsed.vlans.clone(), parsed.eth_dst), (vec![200], WEB_MAC[0]));
        assert_eq!(parsed.embedded().source(), at(net.web[0], 5000));
    }
}

#[test]
fn errors_pass_between_hosts_of_the_same_network() {
    covers!("RFC5508 REQ-7", "RFC5508 REQ-7a");
    for net in &NETS {
        let mut desired = network(net);
        desired.masquerades[0].endpoint_independent = true;
        let mut prog = Prog::with(&desired);
        // The second server is bound to an external port, and the first sends to it there.
        let bound = prog.come(net, Frame::udp(at(net.web[1], 6000), at(net.remote, 9))).forwarded();
        let first = Frame::udp(at(net.web[0], 7000), bound.source());
        let there = prog.come(net, first.clone());
        let parsed = there.sent_back();
        assert_eq!(parsed.destination(), at(net.web[1], 6000));
        let (kind, rest) = errors(net)[3];
        let error = icmp_error(&there.frame, kind, rest, net.web[1], Quote::Most);
        let outcome = prog.run(SERVERS, &error.build());
        assert_eq!(outcome.counted, BTreeMap::from([(ForwardIcmpError.as_str(), 1)]));
        assert_eq!(outcome.action, action::TX);
        let sent = Sent { what: "hairpin", frame: first, hides: Some(net.public) };
        assert_eq!(outcome.frame, expected(net, &sent, &error));
    }
}

#[test]
fn a_message_longer_than_routers_send_is_not_translated() {
    let net = &NETS[0];
    let mut desired = network(net);
    desired.hops.values_mut().for_each(|hop| hop.mtu = 3000);
    let mut prog = Prog::with(&desired);
    let known = prog.connect(at(net.client, 40000), at(net.vip, 80));
    let about = |length| Frame::tcp(known.service, known.client).payload(&vec![1; length]);
    let error = |length| error_about(net, net.outer_router, net.vip, &about(length));
    // 2044 bytes: 8 of the error's header, 40 of the quoted ones.
    prog.come(net, error(1996)).forwarded_error();
    prog.come(net, error(1997)).dropped(DropIcmpChecksum);
}
