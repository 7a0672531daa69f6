//! VLAN tags: which frames are ours, and how a frame changes its tags on the way from one interface to the other.

use lbha::datapath::Desired;
use lbha_common::{
    counter::Counter,
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
    nexthop::Tag,
};
use lbha_tests::{
    packet::{ETHERTYPE_QINQ, ETHERTYPE_VLAN, Frame, tcp_flags::*},
    prog::*,
};

const DEFAULT: IpPrefix = IpPrefix::DEFAULT_V4;

/// The guide's network with tags on both sides.
fn tagged(public: &[Tag], private: &[Tag]) -> Desired {
    let mut desired = desired();
    desired.interfaces[usize::from(INTERNET)].vlans = public.to_vec();
    desired.interfaces[usize::from(SERVERS)].vlans = private.to_vec();
    for hop in desired.hops.values_mut() {
        hop.tags = if hop.side == INTERNET { public.to_vec() } else { private.to_vec() };
    }
    desired
}

/// The first `count` tags of a side, as the frame builder puts them on.
fn tags(side: u8, count: usize) -> Vec<Tag> {
    let tci = if side == INTERNET { [100, 101] } else { [200, 201] };
    match count {
        0 => vec![],
        1 => vec![tag(ETHERTYPE_VLAN, tci[0])],
        _ => vec![tag(ETHERTYPE_QINQ, tci[0]), tag(ETHERTYPE_VLAN, tci[1])],
    }
}

fn with_tags(frame: Frame, tags: &[Tag]) -> Frame {
    tags.iter().fold(frame, |frame, tag| frame.vlan(tag.tci.get()))
}

#[test]
fn tags_are_exchanged_whatever_their_number() {
    for (outside, inside) in [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)] {
        let (public, private) = (tags(INTERNET, outside), tags(SERVERS, inside));
        let mut prog = Prog::with(&tagged(&public, &private));
        let syn = prog.public(with_tags(Frame::syn(client(0), vip()), &public)).forwarded();
        let connection = Connection {
            client: client(0),
            service: vip(),
            source: syn.source(),
            server: syn.destination(),
        };
        let answer = Frame::tcp(connection.server, connection.source).flags(SYN | ACK).seq(9000);
        prog.private(with_tags(answer, &private)).forwarded();

        let there = connection.from_client().ip_options(&[1; 8]).payload(b"request");
        let outcome = prog.public(with_tags(there.clone(), &public));
        outcome.forwarded();
        let expected = translated(&there, connection.source, connection.server);
        let expected = with_tags(expected, &private).macs(PRIVATE_MAC, WEB_MAC[0]).build();
        assert_eq!(outcome.frame, expected, "{outside} tags to {inside}");

        let back = connection.from_server().payload(b"the answer").padding(3);
        let outcome = prog.private(with_tags(back.clone(), &private));
        outcome.forwarded();
        let expected = translated(&back, vip(), client(0));
        let expected = with_tags(expected, &public).macs(PUBLIC_MAC, ROUTER_MAC).build();
        assert_eq!(outcome.frame, expected, "{inside} tags to {outside}");
        assert_eq!(prog.flow_entries(), 2);
    }
}

#[test]
fn two_tags_of_the_same_type_are_two_tags() {
    let both = [tag(ETHERTYPE_VLAN, 100), tag(ETHERTYPE_VLAN, 101)];
    let mut prog = Prog::with(&tagged(&both, &both));
    let syn = Frame::syn(client(0), vip()).vlan(100).vlan(101).macs(ROUTER_MAC, PUBLIC_MAC);
    for outer in [ETHERTYPE_VLAN, ETHERTYPE_QINQ] {
        let mut frame = syn.build();
        frame[12..14].copy_from_slice(&outer.to_be_bytes());
        let outcome = prog.run(INTERNET, &frame);
        assert_eq!(outcome.forwarded().vlans, [100, 101]);
        assert_eq!(outcome.frame[12..14], ETHERTYPE_VLAN.to_be_bytes());
        assert_eq!(outcome.frame[16..18], ETHERTYPE_VLAN.to_be_bytes());
    }
}

#[test]
fn other_vlans_are_left_alone() {
    let one = tags(INTERNET, 1);
    let two = tags(INTERNET, 2);
    let cases: [(&[Tag], &[&[u16]]); 2] = [
        (&one, &[&[], &[99], &[0], &[101], &[100, 100], &[100, 101], &[100, 0]]),
        (&two, &[&[], &[100], &[101], &[101, 100], &[100, 100], &[100, 101, 102]]),
    ];
    for (ours, others) in cases {
        let mut prog = Prog::with(&tagged(ours, &[]));
        for other in others {
            let frame = other.iter().fold(Frame::syn(client(0), vip()), |f, id| f.vlan(*id));
            let frame = frame.macs(ROUTER_MAC, PUBLIC_MAC).build();
            prog.run(INTERNET, &frame).passed(Counter::PassVlan, &frame);
        }
        assert_eq!(prog.state(), (0, 0, [0, 0]));
    }
}

#[test]
fn priority_bits_are_not_the_vlan_and_leave_as_configured() {
    // Priority 5 and drop-eligible outside, priority 3 inside.
    let outside = [tag(ETHERTYPE_VLAN, 0xb000 | 100)];
    let inside = [tag(ETHERTYPE_VLAN, 0x6000 | 200)];
    let mut prog = Prog::with(&tagged(&outside, &inside));
    for priority in [0, 0x2000, 0xe000, 0x1000] {
        let syn = prog.public(Frame::syn(client(0), vip()).vlan(priority | 100)).forwarded();
        assert_eq!(syn.vlans, [0x6000 | 200]);
        let answer = Frame::tcp(syn.destination(), syn.source()).flags(SYN | ACK);
        let answer = prog.private(answer.vlan(priority | 200)).forwarded();
        assert_eq!(answer.vlans, [0xb000 | 100]);
    }
}

#[test]
fn what_is_inside_the_tags_is_told_apart() {
    let mut prog = Prog::with(&tagged(&tags(INTERNET, 2), &[]));
    for (ethertype, reason) in [(0x0806u16, Counter::PassNotIp), (0x86dd, Counter::PassMalformed)] {
        let frame = Frame::syn(client(0), vip()).vlan(100).vlan(101);
        let mut frame = frame.macs(ROUTER_MAC, PUBLIC_MAC).build();
        frame[20..22].copy_from_slice(&ethertype.to_be_bytes());
        prog.run(INTERNET, &frame).passed(reason, &frame);
    }
}

#[test]
fn short_tagged_frames_are_never_forwarded() {
    let mut prog = Prog::with(&tagged(&tags(INTERNET, 2), &[]));
    let syn = Frame::syn(client(0), vip()).vlan(100).vlan(101).macs(ROUTER_MAC, PUBLIC_MAC).build();
    for len in 14..syn.len() {
        let frame = &syn[..len];
        let outcome = prog.run(INTERNET, frame);
        match len {
            ..34 => outcome.passed(Counter::PassNotIp, frame),
            34..42 => outcome.passed(Counter::PassMalformed, frame),
            _ => outcome.dropped(Counter::DropMalformed),
        }
    }
    assert_eq!(prog.state(), (0, 0, [0, 0]));
}

#[test]
fn a_neighbour_may_be_in_another_vlan_than_the_interface() {
    let mut desired = tagged(&[], &tags(SERVERS, 1));
    desired.hops.get_mut(&DEFAULT).unwrap().tags = tags(INTERNET, 2);
    let mut prog = Prog::with(&desired);
    let syn = prog.public(Frame::syn(client(0), vip())).forwarded();
    assert_eq!(syn.vlans, [200]);
    let answer = Frame::tcp(syn.destination(), syn.source()).flags(SYN | ACK).vlan(200);
    assert_eq!(prog.private(answer).forwarded().vlans, [100, 101]);
}
