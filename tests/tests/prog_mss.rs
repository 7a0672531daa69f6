//! MSS clamping: a SYN never announces segments that don't fit the next hops.

use lbha::datapath::desired::{Desired, Settings};
use lbha_tests::{
    packet::{Frame, tcp_flags::*},
    prog::*,
};

/// The guide's network as a gateway, with MTUs of the internet's and the servers' side.
fn network(settings: Settings, public: u16, private: u16) -> Desired {
    let mut desired = Desired { settings, ..gateway() };
    for hop in desired.hops.values_mut() {
        hop.mtu = if hop.side == 0 { public } else { private };
    }
    desired
}

const AUTO: Settings = Settings { ping: true, clamp_mss: true, mss: [0, 0] };

/// An MSS option.
fn mss(value: u16) -> Vec<u8> {
    [&[2, 4], &value.to_be_bytes()[..]].concat()
}

/// Sends a connection's SYN and SYN-ACK with an MSS each, through the service or masqueraded; gives what arrives.
fn arrives(prog: &mut Prog, six: bool, outbound: bool, port: u16, sent: [u16; 2]) -> [u16; 2] {
    let [four_net, six_net] = ends();
    let net = if six { six_net } else { four_net };
    let service = if six { vip6() } else { vip() };
    let syn = |from, to| Frame::syn(from, to).tcp_options(&mss(sent[0]));
    let answer = |from, to| Frame::tcp(from, to).flags(SYN | ACK).tcp_options(&mss(sent[1]));
    let (syn, answer) = if outbound {
        let (inside, remote) = (at(net.hosts[0], port), at(net.remotes[0], 80));
        let syn = prog.private(syn(inside, remote)).forwarded();
        let answer = prog.public(answer(remote, syn.source())).forwarded();
        (syn, answer)
    } else {
        let syn = prog.public(syn(at(net.remotes[0], port), service)).forwarded();
        let answer = prog.private(answer(syn.destination(), syn.source())).forwarded();
        (syn, answer)
    };
    [syn.mss(), answer.mss()].map(|mss| mss.expect("an MSS option"))
}

#[test]
fn the_smaller_mtu_of_both_sides_counts() {
    for (public, private) in [(1500, 1500), (1400, 1500), (1500, 1400), (1280, 9000)] {
        let mut prog = Prog::with(&network(AUTO, public, private));
        for (six, headers) in [(false, 40), (true, 60)] {
            let fits = public.min(private) - headers;
            for outbound in [false, true] {
                let mut port = if outbound { 5000 } else { 40_000 };
                for sent in [fits - 1, fits, fits + 1, 536, 65535, 0] {
                    port += 1;
                    let arrived = arrives(&mut prog, six, outbound, port, [sent, sent]);
                    assert_eq!(arrived, [sent.min(fits); 2], "of {sent}, IPv6: {six}");
                }
            }
        }
    }
}

#[test]
fn a_configured_limit_counts_where_it_is_smaller() {
    let settings = Settings { mss: [1300, 1200], ..AUTO };
    let mut prog = Prog::with(&network(settings, 1500, 1500));
    for outbound in [false, true] {
        assert_eq!(arrives(&mut prog, false, outbound, 5000, [1460, 1300]), [1300, 1300]);
        assert_eq!(arrives(&mut prog, false, outbound, 5001, [1299, 9000]), [1299, 1300]);
        assert_eq!(arrives(&mut prog, true, outbound, 5000, [1460, 1200]), [1200, 1200]);
        assert_eq!(arrives(&mut prog, true, outbound, 5001, [1199, 9000]), [1199, 1200]);
    }
    let settings = Settings { mss: [9000, 9000], ..AUTO };
    let mut prog = Prog::with(&network(settings, 1400, 1500));
    assert_eq!(arrives(&mut prog, false, true, 5000, [1460, 8960]), [1360, 1360]);
    assert_eq!(arrives(&mut prog, true, true, 5000, [1460, 8960]), [1340, 1340]);
}

#[test]
fn switched_off_it_changes_nothing() {
    let settings = Settings { clamp_mss: false, mss: [1000, 1000], ..AUTO };
    let mut prog = Prog::with(&network(settings, 1280, 1280));
    for (six, outbound) in [(false, false), (false, true), (true, false), (true, true)] {
        assert_eq!(arrives(&mut prog, six, outbound, 5000, [1460, 65535]), [1460, 65535]);
    }
}

/// Sends a SYN with options, and checks that it arrives with `expected` and right in every other byte.
#[track_caller]
fn arrives_with(prog: &mut Prog, six: bool, port: u16, options: &[u8], expected: &[u8]) {
    let [four_net, six_net] = ends();
    let net = if six { six_net } else { four_net };
    let (inside, remote) = (at(net.hosts[0], port), at(net.remotes[0], 80));
    let syn = Frame::syn(inside, remote).tcp_options(options).payload(b"odd");
    let outcome = prog.private(syn.clone());
    let external = outcome.forwarded().source();
    let wanted = translated(&syn, external, remote).tcp_options(expected);
    assert_eq!(outcome.frame, wanted.macs(PUBLIC_MAC, ROUTER_MAC).build(), "{options:?}");
}

#[test]
fn the_option_is_found_wherever_it_stands() {
    let mut prog = Prog::with(&network(AUTO, 1400, 1500));
    let mut port = 5000;
    for (six, fits) in [(false, 1360), (true, 1340)] {
        for before in 0..=36 {
            // Padding alone, then another option of that length, then one of each byte.
            let padding = vec![1; before];
            let mut others = vec![padding];
            if before >= 2 {
                let mut option = vec![0xee; before];
                (option[0], option[1]) = (30, before as u8);
                others.push(option);
            }
            if before >= 3 {
                let mut option = vec![2; before];
                (option[0], option[1], option[2]) = (1, 30, before as u8 - 1);
                option[1..3].copy_from_slice(&[30, before as u8 - 1]);
                others.push(option);
            }
            for other in others {
                port += 1;
                let with = |value| [&other[..], &mss(value)].concat();
                arrives_with(&mut prog, six, port, &with(1461), &with(fits));
            }
        }
        // As common systems send them.
        let linux =
            |value| [&mss(value)[..], &[4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]].concat();
        port += 1;
        arrives_with(&mut prog, six, port, &linux(1460), &linux(fits));
    }
}

#[test]
fn options_without_an_mss_or_beyond_reading_stay() {
    let mut prog = Prog::with(&network(AUTO, 1400, 1500));
    let beyond: &[&[u8]] = &[
        &[],
        &[1, 1, 1, 1],
        &[4, 2, 3, 3, 7],
        // After the end of the list.
        &[0, 2, 4, 0x05, 0xb4],
        &[1, 0, 2, 4, 0xff, 0xff],
        // Lengths of 0 and 1, which would go nowhere, and one that goes too far.
        &[30, 0, 2, 4, 0x05, 0xb4],
        &[30, 1, 2, 4, 0x05, 0xb4],
        &[30, 200, 2, 4, 0x05, 0xb4],
        &[30, 255],
        // An MSS of another length, and one that is cut off by the end of the options.
        &[2, 3, 0xff, 0xff],
        &[2, 6, 0xff, 0xff, 0xff, 0xff],
        &[2, 0, 0xff, 0xff],
        &[1, 1, 1, 2],
        &[1, 1, 2, 4],
        &[1, 2, 4, 0xff],
        &[30, 3, 0, 30],
    ];
    let mut port = 5000;
    for six in [false, true] {
        for options in beyond {
            port += 1;
            arrives_with(&mut prog, six, port, options, options);
        }
        let mut full = vec![1; 40];
        full[38..].copy_from_slice(&[2, 4]);
        port += 1;
        arrives_with(&mut prog, six, port, &full, &full);
    }
}

#[test]
fn only_a_syn_is_looked_into() {
    let mut prog = Prog::with(&network(AUTO, 1400, 1500));
    for net in ends() {
        let connection = prog.establish(TCP, at(net.hosts[0], 5000), at(net.remotes[0], 80));
        for flags in [ACK, PSH | ACK, FIN | ACK, RST] {
            let there = connection.from_inside().tcp_options(&mss(1460)).flags(flags);
            let back = connection.from_remote().tcp_options(&mss(1460)).flags(flags);
            assert_eq!(prog.private(there).forwarded().mss(), Some(1460));
            assert_eq!(prog.public(back).forwarded().mss(), Some(1460));
        }
    }
}
