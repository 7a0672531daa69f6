//! Endpoint-independent mapping: one external port for all remote hosts, and all of them are let in.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use lbha::datapath::{
    desired::{Desired, Masquerade},
    expiry::Timeouts,
};
use lbha_common::{
    addr::Be16,
    conntrack::Phase,
    counter::Counter::*,
    covers,
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
    masquerade::{Binding4, BindingKey4, end},
};
use lbha_tests::{
    packet::{Frame, tcp_flags::*},
    prog::*,
};

const SHORT: Duration = Duration::from_secs(10);
const LONG: Timeouts = Timeouts::all(Duration::from_secs(3600));
/// In ticks: longer than [`SHORT`].
const AGE: u32 = 15;

/// Both families and both protocols.
fn cases() -> impl Iterator<Item = (Ends, u8)> {
    ends().into_iter().flat_map(|net| [(net, TCP), (net, UDP)])
}

/// [`gateway`] with endpoint-independent mapping.
fn independent() -> Desired {
    let mut desired = gateway();
    desired.masquerades[0].endpoint_independent = true;
    desired
}

/// Entries in the tables of bindings; two a binding.
fn bindings(prog: &Prog) -> usize {
    prog.flows.v4.bindings.entries.keys().count() + prog.flows.v6.bindings.entries.keys().count()
}

/// Opens a connection from outside to an external port: three packets, as far as the private host.
#[track_caller]
fn comes_in(
    prog: &mut Prog,
    protocol: u8,
    from: SocketAddr,
    external: SocketAddr,
    inside: SocketAddr,
) {
    let there = prog.public(first(protocol, from, external)).forwarded();
    assert_eq!((there.source(), there.destination()), (from, inside));
    let back = if protocol == TCP {
        Frame::tcp(inside, from).flags(SYN | ACK).seq(Connection::SERVER_ISN)
    } else {
        Frame::udp(inside, from)
    };
    let back = prog.private(back).forwarded();
    assert_eq!((back.source(), back.destination()), (external, from));
    let confirms = if protocol == TCP {
        Frame::tcp(from, external).ack(Connection::SERVER_ISN + 1)
    } else {
        Frame::udp(from, external)
    };
    prog.public(confirms).forwarded();
}

#[test]
fn all_remote_hosts_see_the_same_external_port() {
    covers!("RFC4787 REQ-1", "RFC5382 REQ-1");
    let mut prog = Prog::with(&independent());
    for (net, protocol) in cases() {
        // One port that is kept, and one that can't be.
        for port in [5000, 40_000] {
            let inside = at(net.hosts[0], port);
            let remotes = [at(net.remotes[0], 80), at(net.remotes[0], 81), at(net.remotes[1], 80)];
            let open = remotes.map(|remote| prog.establish(protocol, inside, remote));
            assert_eq!(open.map(|connection| connection.external), [open[0].external; 3]);
            let external = open[0].external;
            assert!((1024..=32767).contains(&external.port()) && external.ip() == net.external);
            assert_eq!(external.port() % 2, port % 2);
            for connection in &open {
                prog.masquerades(connection);
            }
        }
    }
    assert_eq!(bindings(&prog), 16);
}

#[test]
fn a_bound_port_is_one_hosts_alone() {
    covers!("RFC4787 REQ-3", "RFC5382 REQ-7");
    let mut prog = Prog::with(&independent());
    for (net, protocol) in cases() {
        let [a, b] = [0, 1].map(|n| {
            // To different hosts: the tuples would be different all the same.
            prog.establish(protocol, at(net.hosts[n], 5000), at(net.remotes[n], 80))
        });
        assert_eq!(a.external.port(), 5000);
        assert_ne!(a.external, b.external);
        prog.masquerades(&a);
        prog.masquerades(&b);
    }
}

#[test]
fn a_bound_port_is_not_given_to_a_connection_of_another_rule() {
    let mut desired = independent();
    desired.masquerades.push(Masquerade {
        sources: vec![host(WEB[1]), host(WEB6[1])],
        ports: (5000, 5001),
        endpoint_independent: false,
        ..masquerade()
    });
    let mut prog = Prog::with(&desired);
    for (net, protocol) in cases() {
        let bound = prog.establish(protocol, at(net.hosts[0], 5000), at(net.remotes[0], 80));
        assert_eq!(bound.external.port(), 5000);
        // To a remote host that the bound port has no connection with.
        let other = prog.establish(protocol, at(net.hosts[1], 5000), at(net.remotes[1], 80));
        assert_eq!(other.external.port(), 5001);
        let another = first(protocol, at(net.hosts[1], 5002), at(net.remotes[1], 80));
        prog.private(another).refused(DropNoPort);
        let to_bound = prog.establish(protocol, at(net.hosts[0], 5000), at(net.remotes[1], 80));
        assert_eq!(to_bound.external, bound.external);
        for connection in [bound, other, to_bound] {
            prog.masquerades(&connection);
        }
    }
}

#[test]
fn a_port_of_a_connection_from_before_is_not_bound() {
    let mut desired = gateway();
    let mut prog = Prog::with(&desired);
    let before: Vec<Outbound> = cases()
        .map(|(net, protocol)| {
            prog.establish(protocol, at(net.hosts[1], 5000), at(net.remotes[0], 80))
        })
        .collect();
    desired.masquerades[0].endpoint_independent = true;
    prog.apply(&desired);
    for ((net, protocol), before) in cases().zip(&before) {
        let after = prog.establish(protocol, at(net.hosts[0], 5000), at(net.remotes[0], 80));
        assert_ne!(after.external, before.external);
        prog.masquerades(before);
        prog.masquerades(&after);
    }
}

#[test]
fn anybody_may_send_to_a_bound_port() {
    covers!("RFC4787 REQ-8", "RFC4787 REQ-8a", "RFC5382 REQ-3", "RFC5382 REQ-3a", "RFC6888 REQ-7");
    let mut prog = Prog::with(&independent());
    for (net, protocol) in cases() {
        let open = prog.establish(protocol, at(net.hosts[1], 5000), at(net.remotes[0], 80));
        for stranger in [at(net.remotes[1], 12_345), at(net.remotes[0], 81), at(net.remotes[1], 22)]
        {
            let flows = prog.flow_entries();
            comes_in(&mut prog, protocol, stranger, open.external, open.inside);
            assert_eq!((prog.flow_entries(), prog.half_open_entries()), (flows + 2, 0));
            let inward = Outbound { remote: stranger, ..open };
            prog.masquerades(&inward);
        }
        // A port that is not bound is the kernel's, as is what begins nothing.
        let closed = SocketAddr::new(open.external.ip(), open.external.port() + 1);
        let mut others = vec![first(protocol, at(net.remotes[1], 1), closed)];
        if protocol == TCP {
            for flags in [ACK, RST, FIN | ACK, SYN | ACK] {
                others.push(Frame::tcp(at(net.remotes[1], 1), open.external).flags(flags));
            }
        }
        for other in others {
            let other = other.macs(ROUTER_MAC, PUBLIC_MAC).build();
            prog.run(INTERNET, &other).passed(PassUnmatched, &other);
        }
        prog.masquerades(&open);
    }
}

#[test]
fn a_bound_port_does_not_let_in_floods() {
    let mut prog = Prog::with(&independent());
    let open = prog.establish(TCP, at(WEB[0], 5000), remote());
    for n in 0..300u32 {
        let from = at(Ipv4Addr::from_bits(0x0b00_0000 | n), 1000);
        prog.public(Frame::syn(from, open.external)).forwarded();
        prog.public(Frame::tcp(from, open.external).ack(n)).dropped(DropHandshake);
    }
    assert_eq!(
        prog.flow_entries(),
        2,
        "half-open until the host has answered and they have heard it"
    );
    prog.masquerades(&open);
}

#[test]
fn two_private_hosts_reach_each_other_by_their_external_addresses() {
    covers!("RFC4787 REQ-9", "RFC4787 REQ-9a", "RFC5382 REQ-8", "RFC5382 REQ-8a");
    for (net, protocol) in cases() {
        let mut prog = Prog::with(&independent());
        let [a, b] = [0, 1].map(|n| {
            prog.establish(protocol, at(net.hosts[n], 5000 + n as u16), at(net.remotes[0], 80))
        });
        let sent = first(protocol, a.inside, b.external).payload(b"hello");
        let outcome = prog.private(sent.clone());
        let there = outcome.sent_back();
        assert_eq!((there.source(), there.destination()), (a.external, b.inside));
        assert_eq!((there.eth_src, there.eth_dst), (PRIVATE_MAC, WEB_MAC[1]));
        let answer = Outbound { remote: a.external, ..b }.from_inside();
        let answer = if protocol == TCP { answer.flags(SYN | ACK) } else { answer };
        let back = prog.private(answer).sent_back();
        assert_eq!((back.source(), back.destination()), (b.external, a.inside));
        assert_eq!((back.eth_src, back.eth_dst), (PRIVATE_MAC, WEB_MAC[0]));
        prog.private(Outbound { remote: b.external, ..a }.from_inside()).sent_back();
        assert_eq!((prog.flow_entries(), prog.half_open_entries()), (6, 0));

        // A third, from a port that had no binding so far.
        let third = prog.private(first(protocol, at(net.hosts[0], 7000), b.external)).sent_back();
        assert_eq!((third.source(), third.destination()), (at(net.external, 7000), b.inside));
        // To itself: nothing tells the packets there from those back.
        prog.private(first(protocol, a.inside, a.external)).dropped(DropConflict);
        // An external port that nobody has.
        let frame = first(protocol, a.inside, at(net.external, 9999)).macs(WEB_MAC[0], PRIVATE_MAC);
        let frame = frame.build();
        prog.run(SERVERS, &frame).passed(PassUnmatched, &frame);
        prog.masquerades(&a);
        prog.masquerades(&b);
    }
}

#[test]
fn a_private_host_may_begin_with_one_that_has_come_in() {
    let mut prog = Prog::with(&independent());
    for net in ends() {
        let open = prog.establish(UDP, at(net.hosts[0], 5000), at(net.remotes[0], 80));
        let stranger = at(net.remotes[1], 12_345);
        prog.public(Frame::udp(stranger, open.external)).forwarded();
        // Half open so far; what goes out now is the answer.
        let out = prog.private(Frame::udp(open.inside, stranger)).forwarded();
        assert_eq!(out.source(), open.external);
        prog.masquerades(&Outbound { remote: stranger, ..open });
    }
    assert_eq!(prog.half_open_entries(), 0);
}

#[test]
fn a_binding_lives_as_long_as_its_connections_and_then_its_timeout() {
    let timeouts = Timeouts { udp: SHORT, udp_unreplied: SHORT, ..LONG };
    let mut prog = Prog::with(&independent());
    for net in ends() {
        let [used, unused] = [5000, 5001]
            .map(|port| prog.establish(UDP, at(net.hosts[0], port), at(net.remotes[0], 80)));
        prog.age(&unused, AGE);
        age_bindings(&mut prog);
        assert_eq!(prog.sweep(&timeouts, 1).expired, 1);
        assert_eq!(bindings(&prog), 2, "the other one's");
        // Its port is free for whoever wants it.
        let other = prog.establish(UDP, at(net.hosts[1], 5001), at(net.remotes[0], 80));
        assert_eq!(other.external, unused.external);
        let again = prog.establish(UDP, used.inside, at(net.remotes[1], 80));
        assert_eq!(again.external, used.external);
        for connection in [used, other, again] {
            prog.age(&connection, AGE);
        }
        age_bindings(&mut prog);
        assert_eq!(prog.sweep(&timeouts, 2).expired, 3);
        assert_eq!((prog.flow_entries(), bindings(&prog)), (0, 0));
        let frame = Frame::udp(at(net.remotes[1], 9), used.external).macs(ROUTER_MAC, PUBLIC_MAC);
        let frame = frame.build();
        prog.run(INTERNET, &frame).passed(PassUnmatched, &frame);
    }
}

/// Makes all bindings look as if they had been made long ago.
fn age_bindings(prog: &mut Prog) {
    let table = &mut prog.flows.v4.bindings.entries;
    for key in table.keys().map(Result::unwrap).collect::<Vec<_>>() {
        let mut binding = table.get(&key, 0).unwrap();
        binding.created -= AGE;
        table.insert(key, binding, 0).unwrap();
    }
    let table = &mut prog.flows.v6.bindings.entries;
    for key in table.keys().map(Result::unwrap).collect::<Vec<_>>() {
        let mut binding = table.get(&key, 0).unwrap();
        binding.created -= AGE;
        table.insert(key, binding, 0).unwrap();
    }
}

#[test]
fn a_connection_that_came_in_keeps_the_binding() {
    let timeouts = Timeouts { udp_unreplied: SHORT, ..LONG };
    let mut prog = Prog::with(&independent());
    let open = prog.establish(TCP, at(WEB[0], 5000), remote());
    let stranger = at(CLIENT, 12_345);
    comes_in(&mut prog, TCP, stranger, open.external, open.inside);
    prog.age(&open, AGE);
    age_bindings(&mut prog);
    let timeouts = Timeouts { tcp_established: SHORT, udp: SHORT, ..timeouts };
    assert_eq!(prog.sweep(&timeouts, 1).expired, 1);
    assert_eq!((prog.flow_entries(), bindings(&prog)), (2, 2));
    prog.masquerades(&Outbound { remote: stranger, ..open });
}

#[test]
fn closing_connections_of_the_binding_give_way_to_its_next() {
    let mut prog = Prog::with(&independent());
    for net in ends() {
        let old = prog.establish(TCP, at(net.hosts[0], 5000), at(net.remotes[0], 80));
        prog.private(old.from_inside().flags(FIN | ACK)).forwarded();
        prog.public(old.from_remote().flags(FIN | ACK)).forwarded();
        assert_eq!(prog.establish(TCP, old.inside, old.remote), old);
        assert_eq!(prog.phase(&old), Some(Phase::TcpEstablished));
    }
}

#[test]
fn all_ports_of_a_range_are_bound_and_no_other() {
    let mut desired = independent();
    desired.masquerades[0].ports = (2001, 2007);
    for (net, protocol) in cases() {
        let mut prog = Prog::with(&desired);
        let open: Vec<Outbound> = (0..7)
            .map(|n| prog.establish(protocol, at(net.hosts[0], 50_000 + n), at(net.remotes[0], 80)))
            .collect();
        let given: BTreeSet<u16> = open.iter().map(|c| c.external.port()).collect();
        assert_eq!(given, (2001..=2007).collect());
        let another = first(protocol, at(net.hosts[1], 50_000), at(net.remotes[1], 80));
        prog.private(another).refused(DropNoPort);
        // What is bound can be used without end.
        for connection in &open {
            let more = prog.establish(protocol, connection.inside, at(net.remotes[1], 80));
            assert_eq!(more.external, connection.external);
        }
        assert_eq!((prog.flow_entries(), bindings(&prog)), (28, 14));
    }
}

#[test]
fn tcp_and_udp_bindings_are_apart() {
    covers!("RFC7857 5", "RFC7857 6");
    let mut prog = Prog::with(&independent());
    for net in ends() {
        let remote = at(net.remotes[0], 80);
        let tcp = prog.establish(TCP, at(net.hosts[0], 5000), remote);
        let udp = prog.establish(UDP, at(net.hosts[1], 5000), remote);
        assert_eq!(tcp.external, udp.external);
        let stranger = at(net.remotes[1], 9);
        comes_in(&mut prog, TCP, stranger, tcp.external, tcp.inside);
        comes_in(&mut prog, UDP, stranger, udp.external, udp.inside);
    }
}

#[test]
fn a_full_table_of_flows_leaves_the_binding_whole() {
    let sizes = lbha::datapath::loader::Sizes {
        max_connections: 2,
        max_connections_v6: 2,
        max_half_open: 64,
    };
    let mut prog = Prog::sized(&independent(), sizes);
    let open = [5000, 5001].map(|port| prog.establish(UDP, at(WEB[0], port), remote()));
    prog.private(Frame::udp(at(WEB[0], 5002), remote())).dropped(DropTableFull);
    prog.private(Frame::udp(at(WEB[0], 5000), at(CLIENT, 1))).dropped(DropTableFull);
    assert_eq!((prog.flow_entries(), bindings(&prog)), (4, 6));
    prog.masquerades(&open[0]);
    prog.masquerades(&open[1]);
}

#[test]
fn a_full_table_of_bindings_refuses_new_ones() {
    use lbha::datapath::batch;
    use lbha_common::limits::MAX_BINDINGS;
    let mut prog = Prog::with(&independent());
    let open = prog.establish(UDP, at(WEB[0], 5000), remote());
    let count = MAX_BINDINGS as u32 - 2 - 1;
    let key =
        |n: u32| BindingKey4::new(Ipv4Addr::from_bits(n).into(), Be16::new(1), 17, end::INSIDE);
    let keys: Vec<BindingKey4> = (0..count).map(key).collect();
    let values = vec![Binding4::default(); keys.len()];
    batch::insert(&prog.flows.v4.bindings.data, &keys, &values).unwrap();
    for _ in 0..3 {
        // There is room for one end of it.
        prog.private(Frame::udp(at(WEB[0], 5001), remote())).dropped(DropTableFull);
    }
    assert_eq!((prog.flow_entries(), bindings(&prog)), (2, MAX_BINDINGS - 1));
    prog.masquerades(&open);
    assert_eq!(prog.establish(UDP, open.inside, at(CLIENT, 1)).external, open.external);
}

#[test]
fn a_host_without_a_rule_does_not_come_in_from_the_wrong_side() {
    let mut prog = Prog::with(&independent());
    let open = prog.establish(UDP, at(WEB[0], 5000), remote());
    let outside: IpAddr = Ipv4Addr::new(192, 168, 9, 9).into();
    let outcome = prog.private(Frame::udp(at(outside, 1), open.external));
    assert_eq!(outcome.action, action::DROP);
    assert_eq!(prog.half_open_entries(), 0);
}
