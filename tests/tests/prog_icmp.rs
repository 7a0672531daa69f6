//! ICMP errors about connections: translated outside and inside, in both families and both directions.

use std::collections::BTreeMap;

use lbha::datapath::{expiry, family::Family, tables::FlowTable};
use lbha_common::{
    addr::{Be32, Be128},
    counter::Counter::*,
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
};
use lbha_tests::{
    covers,
    packet::{ETHERTYPE_VLAN, Extension, Frame, L4, Quote, icmp_error},
    prog::*,
};

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
        let mut prog = Prog::with(&several(net));
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
        let mut prog = Prog::with(&several(net));
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
        let mut prog = Prog::with(&several(net)).multi_buffer();
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
        let mut prog = Prog::with(&several(net));
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
    let mut prog = Prog::with(&several(net));
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
fn the_quoted_packets_own_checksum_is_not_looked_at() {
    covers!("RFC5508 REQ-3c", "RFC5508 REQ-3d");
    for net in &NETS {
        let mut prog = Prog::with(&several(net));
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
        let mut prog = Prog::with(&several(net));
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

#[test]
fn tags_are_exchanged() {
    for net in &NETS {
        let mut desired = several(net);
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
        let mut desired = several(net);
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
