//! The life of a masqueraded connection: how it opens, closes, is refused, and ends.

use std::time::Duration;

use lbha::datapath::expiry::Timeouts;
use lbha_common::{
    conntrack::{
        Phase,
        state::{self, *},
    },
    counter::Counter::*,
    covers,
};
use lbha_tests::{
    packet::{Frame, tcp_flags::*},
    prog::*,
};

const SHORT: Duration = Duration::from_secs(10);
const LONG: Timeouts = Timeouts::all(Duration::from_secs(3600));
/// In ticks: longer than [`SHORT`], shorter than all of [`LONG`].
const AGE: u32 = 15;

/// A connection of the first host, its SYN sent.
fn opening(prog: &mut Prog, net: &Ends, port: u16) -> Outbound {
    prog.leave(TCP, at(net.hosts[0], port), at(net.remotes[0], 80))
}

/// FIN and RST marks of both directions.
fn closing(prog: &Prog, connection: &Outbound) -> [u32; 2] {
    prog.marks(connection).expect("a connection").map(|mark| mark & (state::FINS | state::RSTS))
}

#[test]
fn a_handshake_establishes_a_connection() {
    covers!("RFC7857 2");
    let mut prog = Prog::with(&gateway());
    for net in ends() {
        let connection = opening(&mut prog, &net, 5000);
        assert_eq!(prog.phase(&connection), Some(Phase::MasqueradeOpening));
        for _ in 0..2 {
            assert_eq!(opening(&mut prog, &net, 5000), connection, "the same SYN again");
        }
        // It can't establish itself.
        prog.private(connection.from_inside()).forwarded();
        assert_eq!(prog.phase(&connection), Some(Phase::MasqueradeOpening));
        for _ in 0..2 {
            prog.public(connection.from_remote().flags(SYN | ACK)).forwarded();
            assert_eq!(prog.phase(&connection), Some(Phase::MasqueradeOpening));
        }
        prog.private(connection.from_inside()).forwarded();
        assert_eq!(prog.phase(&connection), Some(Phase::TcpEstablished));
        // A lost acknowledgement is answered with another one.
        prog.public(connection.from_remote().flags(SYN | ACK)).forwarded();
        assert_eq!(prog.phase(&connection), Some(Phase::TcpEstablished));
        prog.masquerades(&connection);
    }
    assert_eq!(prog.masquerade_stats(SOURCES).connections, 1);
    assert_eq!(prog.masquerade_stats(SOURCES).established, 1);
}

#[test]
fn both_ends_may_open_at_once() {
    covers!("RFC5382 REQ-2a");
    let mut prog = Prog::with(&gateway());
    for net in ends() {
        // RFC 9293 §3.5, figure 7.
        let connection = opening(&mut prog, &net, 5000);
        let syn = prog.public(connection.from_remote().flags(SYN)).forwarded();
        assert_eq!((syn.source(), syn.destination()), (connection.remote, connection.inside));
        prog.private(connection.from_inside().flags(SYN | ACK)).forwarded();
        prog.public(connection.from_remote().flags(SYN | ACK)).forwarded();
        prog.private(connection.from_inside()).forwarded();
        assert_eq!(prog.phase(&connection), Some(Phase::TcpEstablished));
        prog.masquerades(&connection);
    }
    assert_eq!(prog.flow_entries(), 4);
}

#[test]
fn a_close_goes_from_one_side_to_both_and_a_syn_opens_anew() {
    for net in ends() {
        for inside_first in [false, true] {
            let mut prog = Prog::with(&gateway());
            let old = prog.establish(TCP, at(net.hosts[0], 5000), at(net.remotes[0], 80));
            let from_inside = |prog: &mut Prog| {
                prog.private(old.from_inside().flags(FIN | ACK)).forwarded();
            };
            let from_remote = |prog: &mut Prog| {
                prog.public(old.from_remote().flags(FIN | ACK)).forwarded();
            };
            if inside_first {
                from_inside(&mut prog)
            } else {
                from_remote(&mut prog)
            }
            assert_eq!(prog.phase(&old), Some(Phase::MasqueradeClosing));
            prog.masquerades(&old);
            // Half closed is open: a SYN is the remote host's affair.
            assert_eq!(opening(&mut prog, &net, 5000), old);
            assert_eq!(prog.phase(&old), Some(Phase::MasqueradeClosing));
            if inside_first {
                from_remote(&mut prog)
            } else {
                from_inside(&mut prog)
            }
            assert_eq!(closing(&prog, &old), [FINS, FINS]);
            prog.masquerades(&old);
            // Not what a remote host sends, nor anything but a bare SYN.
            for flags in [SYN | ACK, SYN | FIN, SYN | RST] {
                prog.private(old.from_inside().flags(flags)).forwarded();
            }
            prog.public(old.from_remote().flags(SYN)).forwarded();
            assert_eq!(prog.masquerade_stats(sources(&net)).connections, 1);

            let new = prog.establish(TCP, old.inside, old.remote);
            assert_eq!(new, old, "its port is free again, so it is kept");
            assert_eq!(prog.phase(&new), Some(Phase::TcpEstablished));
            assert_eq!(prog.masquerade_stats(sources(&net)).connections, 2);
            assert_eq!(prog.flow_entries(), 2);
        }
    }
}

fn sources(net: &Ends) -> &'static str {
    if net.external.is_ipv4() { SOURCES } else { SOURCES6 }
}

/// Closes connections until only the ones that `keep` remain open, on a range of two ports.
fn two_ports() -> Prog {
    let mut desired = gateway();
    desired.masquerades[0].ports = (2000, 2001);
    Prog::with(&desired)
}

#[test]
fn closing_connections_give_way_when_ports_are_short() {
    covers!("RFC6888 REQ-8a");
    for net in ends() {
        let mut prog = two_ports();
        let remote = at(net.remotes[0], 80);
        let [open, closed] =
            [5000, 5001].map(|port| prog.establish(TCP, at(net.hosts[0], port), remote));
        let another = || Frame::syn(at(net.hosts[1], 5000), remote);
        prog.private(another()).refused(DropNoPort);
        prog.private(closed.from_inside().flags(FIN | ACK)).forwarded();
        prog.private(another()).refused(DropNoPort);
        prog.public(closed.from_remote().flags(FIN | ACK)).forwarded();
        let out = prog.private(another()).forwarded();
        assert_eq!(out.source(), closed.external);
        assert_eq!(prog.flow_entries(), 4);
        prog.masquerades(&open);
        // Nothing of the old one reaches the new one's port.
        prog.private(closed.from_inside()).dropped(DropNoFlow);
    }
}

#[test]
fn a_closing_connection_does_not_give_way_while_there_are_other_ports() {
    let mut prog = Prog::with(&gateway());
    let old = prog.establish(TCP, at(WEB[0], 5000), remote());
    prog.private(old.from_inside().flags(FIN | ACK)).forwarded();
    prog.public(old.from_remote().flags(FIN | ACK)).forwarded();
    let new = prog.establish(TCP, at(WEB[1], 5000), remote());
    assert_ne!(new.external, old.external);
    prog.masquerades(&old);
}

#[test]
fn a_remote_hosts_rst_frees_nothing_and_the_hosts_own_does() {
    covers!("RFC7857 2.2a");
    for net in ends() {
        let mut prog = two_ports();
        let remote = at(net.remotes[0], 80);
        let [_, connection] =
            [5000, 5001].map(|port| prog.establish(TCP, at(net.hosts[0], port), remote));
        let another = || Frame::syn(at(net.hosts[1], 5000), remote);

        let rst = prog.public(connection.from_remote().flags(RST)).forwarded();
        assert_eq!((rst.flags(), rst.destination()), (RST, connection.inside));
        assert_eq!(closing(&prog, &connection), [PEER_RST, OWN_RST]);
        assert_eq!(prog.phase(&connection), Some(Phase::TcpReset));
        prog.private(another()).refused(DropNoPort);
        // The SYN that follows goes to the same peer as the same.
        assert_eq!(opening(&mut prog, &net, 5001), connection);
        prog.private(connection.from_inside()).forwarded();
        assert_eq!(prog.phase(&connection), Some(Phase::TcpReset), "what others say is no sign");
        prog.public(connection.from_remote()).forwarded();
        assert_eq!(prog.phase(&connection), Some(Phase::TcpEstablished), "it was forged");

        prog.private(connection.from_inside().flags(RST | ACK)).forwarded();
        assert_eq!(closing(&prog, &connection), [OWN_RST, PEER_RST]);
        let out = prog.private(another()).forwarded();
        assert_eq!(out.source(), connection.external);
    }
}

#[test]
fn a_reset_connection_is_kept_for_a_while_and_longer_if_packets_come() {
    covers!("RFC7857 2.2b");
    let mut prog = Prog::with(&gateway());
    let timeouts = Timeouts { tcp_reset: SHORT, ..LONG };
    let [gone, alive, young] =
        [5000, 5001, 5002].map(|port| prog.establish(TCP, at(WEB[0], port), remote()));
    for connection in [gone, alive, young] {
        prog.public(connection.from_remote().flags(RST | ACK)).forwarded();
        if connection != young {
            prog.age(&connection, AGE);
        }
    }
    prog.public(alive.from_remote()).forwarded();
    assert_eq!(prog.sweep(&timeouts, 1).expired, 1);
    assert_eq!(prog.phase(&gone), None);
    assert_eq!(prog.phase(&young), Some(Phase::TcpReset));
    assert_eq!(prog.phase(&alive), Some(Phase::TcpEstablished));
    prog.masquerades(&alive);
}

#[test]
fn a_refused_connection_may_be_tried_again() {
    let mut prog = Prog::with(&gateway());
    for net in ends() {
        let connection = opening(&mut prog, &net, 5000);
        prog.public(connection.from_remote().flags(RST | ACK)).forwarded();
        assert_eq!(prog.phase(&connection), Some(Phase::TcpReset));
        assert_eq!(prog.establish(TCP, connection.inside, connection.remote), connection);
        assert_eq!(prog.phase(&connection), Some(Phase::TcpEstablished));
    }
}

#[test]
fn each_phase_has_its_own_timeout() {
    covers!("RFC4787 REQ-5b", "RFC5382 REQ-5a", "RFC7857 2.1a");
    let cases = [
        ("opening", Timeouts { masquerade_opening: SHORT, ..LONG }),
        ("established", Timeouts { tcp_established: SHORT, ..LONG }),
        ("closing", Timeouts { masquerade_closing: SHORT, ..LONG }),
        ("reset", Timeouts { tcp_reset: SHORT, ..LONG }),
        ("unreplied", Timeouts { udp_unreplied: SHORT, ..LONG }),
        ("udp", Timeouts { udp: SHORT, ..LONG }),
    ];
    for (n, (phase, timeouts)) in cases.into_iter().enumerate() {
        for net in ends() {
            let mut prog = Prog::with(&gateway());
            let remote = at(net.remotes[0], 80);
            let opening = opening(&mut prog, &net, 5000);
            let [established, fin, reset] =
                [5001, 5002, 5003].map(|port| prog.establish(TCP, at(net.hosts[0], port), remote));
            prog.private(fin.from_inside().flags(FIN | ACK)).forwarded();
            prog.private(reset.from_inside().flags(RST)).forwarded();
            let unreplied = prog.leave(UDP, at(net.hosts[0], 5000), remote);
            let udp = prog.establish(UDP, at(net.hosts[0], 5001), remote);
            let all = [opening, established, fin, reset, unreplied, udp];
            for (connection, (name, _)) in all.iter().zip(&[
                ("opening", ()),
                ("established", ()),
                ("closing", ()),
                ("reset", ()),
                ("unreplied", ()),
                ("udp", ()),
            ]) {
                assert_eq!(prog.phase(connection).map(Phase::as_str), Some(*name));
                prog.age(connection, AGE);
            }
            assert_eq!(prog.sweep(&timeouts, 1).expired, 1, "{phase}");
            for (i, connection) in all.iter().enumerate() {
                assert_eq!(prog.marks(connection).is_none(), i == n, "{phase}");
            }
        }
    }
}

#[test]
fn a_try_that_nobody_answers_ends_and_its_port_is_free() {
    covers!("RFC6888 REQ-8c");
    let mut prog = two_ports();
    let timeouts = Timeouts { masquerade_opening: SHORT, udp_unreplied: SHORT, ..LONG };
    for protocol in [TCP, UDP] {
        let [a, b] = [5000, 5001].map(|port| prog.leave(protocol, at(WEB[0], port), remote()));
        let another = || first(protocol, at(WEB[1], 5000), remote());
        prog.private(another()).refused(DropNoPort);
        prog.age(&a, AGE);
        assert_eq!(prog.sweep(&timeouts, 1).expired, 1);
        assert_eq!(prog.private(another()).forwarded().source(), a.external);
        // A late answer to the old one has nobody to go to but the new one, whose port it is.
        let late = prog.public(a.from_remote()).forwarded();
        assert_eq!(late.destination(), at(WEB[1], 5000));
        prog.masquerades(&b);
    }
}

#[test]
fn datagrams_are_confirmed_by_any_answer() {
    let mut prog = Prog::with(&gateway());
    for net in ends() {
        let connection = prog.leave(UDP, at(net.hosts[0], 5000), at(net.remotes[0], 53));
        assert_eq!(prog.phase(&connection), Some(Phase::UdpUnreplied));
        prog.private(connection.from_inside()).forwarded();
        assert_eq!(prog.phase(&connection), Some(Phase::UdpUnreplied));
        prog.public(connection.from_remote()).forwarded();
        assert_eq!(prog.phase(&connection), Some(Phase::Udp));
        prog.masquerades(&connection);
    }
    assert_eq!(prog.masquerade_stats(SOURCES6).established, 1);
}

#[test]
fn packets_of_either_side_keep_a_connection_alive_and_those_of_others_do_not() {
    covers!("RFC4787 REQ-6", "RFC4787 REQ-6a", "RFC7857 7a", "RFC7857 7b");
    let timeouts = Timeouts::all(SHORT);
    for net in ends() {
        for protocol in [TCP, UDP] {
            let mut prog = Prog::with(&gateway());
            let [inside, remote, nobody, stranger] = [5000, 5001, 5002, 5003].map(|port| {
                prog.establish(protocol, at(net.hosts[0], port), at(net.remotes[0], 80))
            });
            for connection in [inside, remote, nobody, stranger] {
                prog.age(&connection, AGE);
            }
            prog.private(inside.from_inside()).forwarded();
            prog.public(remote.from_remote()).forwarded();
            let other = Outbound { remote: at(net.remotes[1], 80), ..stranger };
            let other = other.from_remote().macs(ROUTER_MAC, PUBLIC_MAC).build();
            prog.run(0, &other).passed(PassUnmatched, &other);
            assert_eq!(prog.sweep(&timeouts, 1).expired, 2);
            for connection in [inside, remote] {
                prog.masquerades(&connection);
            }
            for connection in [nobody, stranger] {
                assert_eq!(prog.marks(&connection), None);
            }
        }
    }
}
