//! Packets of every kind in any order, whole and broken, against what must hold whatever comes: nothing leaves with a
//! private address, nothing leaves half translated, and what was right stays right.
//!
//! What comes out of the program is material for what goes in next: its reverse is an answer, and an error may quote it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lbha::datapath::{
    desired::{Desired, Masquerade, ServiceId},
    expiry::Timeouts,
    family::Family,
    tables::FamilyFlows,
};
use lbha_common::{
    counter::{Class, Counter},
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
};
use lbha_tests::{
    packet::{
        Extension, Frame, L4, Parsed, Quote, Transport, checksum, fragments, icmp_error, parse,
        tcp_flags::*, verify,
    },
    prog::*,
};

/// The guide's network as a gateway, with UDP services in mode nat, ports forwarded from the public addresses, and one of
/// the hosts masqueraded with bindings.
fn network() -> Desired {
    let mut desired = gateway();
    desired.masquerades.push(Masquerade {
        sources: vec![host(WEB[1]), host(WEB6[1])],
        endpoint_independent: true,
        ..masquerade()
    });
    for (net, www) in ends().into_iter().zip([WWW, WWW6]) {
        let mut service = desired.services[&www].clone();
        let forwarded = ServiceId { vip: net.external, port: 2222, protocol: TCP };
        desired.services.insert(forwarded, service.clone());
        for server in &mut service.servers {
            (server.port, server.keep_client) = (53, true);
        }
        desired.services.insert(ServiceId { port: 53, protocol: UDP, ..www }, service);
    }
    desired
}

/// SplitMix64: the same frames in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }
}

/// What came out lately, with the side that it left on.
struct Lately(Vec<(u8, Vec<u8>)>);

impl Lately {
    const ROOM: usize = 400;

    fn saw(&mut self, random: &mut Random, side: u8, frame: Vec<u8>) {
        if self.0.len() < Self::ROOM {
            self.0.push((side, frame));
        } else {
            self.0[random.below(Self::ROOM)] = (side, frame);
        }
    }
}

/// A packet of a new connection, or one that only looks like it.
fn fresh(random: &mut Random) -> (u8, Frame) {
    let six = random.one_in(2);
    let net = ends()[usize::from(six)];
    let vip: IpAddr = if six { VIP6.into() } else { VIP.into() };
    let port = random.of(&[1024, 5000, 5001, 2222, 53, 80, 40_000, 0]) + random.below(8) as u16;
    let outside = random.of(&net.remotes);
    let inside = random.of(&net.hosts);
    let (side, from, to) = if random.one_in(2) {
        let own = random.of(&[vip, vip, net.external, net.private, inside]);
        (INTERNET, outside, own)
    } else {
        let to =
            random.of(&[outside, outside, outside, vip, net.external, net.hosts[0], net.private]);
        (SERVERS, inside, to)
    };
    let to_port = random.of(&[80, 53, 2222, 443, port]);
    let payload = random.bytes(64);
    let frame = match random.below(8) {
        0..3 => Frame::syn(at(from, port), at(to, to_port)),
        3 => Frame::tcp(at(from, port), at(to, to_port)).flags(random.next() as u8),
        4 | 5 => Frame::udp(at(from, port), at(to, to_port)).payload(&payload),
        6 => Frame::echo_request(from, to, port, 1).payload(&payload),
        _ => {
            Frame::raw(from, to, random.of(&[4, 41, 47, 50, 132, ICMP, ICMPV6, TCP, UDP]), &payload)
        }
    };
    (side, frame)
}

/// An answer to a packet that came out.
fn answer(random: &mut Random, out: &Parsed) -> Option<Frame> {
    let payload = random.bytes(100);
    let frame = match out.transport {
        Transport::Tcp { .. } => {
            let flags =
                random.of(&[SYN | ACK, SYN | ACK, ACK, ACK, PSH | ACK, FIN | ACK, RST, SYN]);
            let (Transport::Tcp { seq, ack, .. }, from) = (&out.transport, out.destination())
            else {
                return None;
            };
            let frame = Frame::tcp(from, out.source()).flags(flags).seq(*ack).ack(seq + 1);
            if flags & SYN != 0 { frame } else { frame.payload(&payload) }
        }
        Transport::Udp { .. } => Frame::udp(out.destination(), out.source()).payload(&payload),
        Transport::Icmp { kind: 8 | 128, .. } => {
            Frame::echo_reply(out.ip.dst, out.ip.src, out.echo_id(), 1).payload(&out.payload)
        }
        _ => return None,
    };
    Some(frame)
}

/// Makes a frame less ordinary, and still right.
fn dressed(random: &mut Random, mut frame: Frame) -> Frame {
    if random.one_in(4) {
        frame.ttl = random.of(&[0, 1, 2, 255]);
    }
    if random.one_in(8) {
        frame.padding = random.below(20);
    }
    if matches!(frame.l4, L4::Udp { .. }) && random.one_in(8) {
        frame = frame.without_checksum();
    }
    if random.one_in(10) {
        frame.payload.resize(random.of(&[1200, 1440, 1460, 1473]), 0x5a);
    }
    match (frame.src, random.below(4)) {
        (IpAddr::V4(_), 0) => frame.ip_options(&vec![1; random.below(41)]),
        (IpAddr::V6(_), 0) => (0..random.below(9)).fold(frame, |frame, _| {
            let length = random.below(20);
            let data = vec![0; length];
            let segments_left = random.below(6) as u8 / 5;
            frame.extension(random.of(&[
                Extension::HopByHop(vec![0; length]),
                Extension::Destination(vec![0; length]),
                Extension::Routing { kind: 0, segments_left, data },
            ]))
        }),
        _ => frame,
    }
}

/// Breaks a frame in some way; most changes are to be seen by more than the header checksum's test.
fn broken(random: &mut Random, mut frame: Vec<u8>) -> Vec<u8> {
    for _ in 0..=random.below(3) {
        let (at, value) = (random.below(frame.len().min(120)), random.next() as u8);
        match random.below(5) {
            0 => frame[at] = value,
            1 => frame[at] ^= 1 << (value % 8),
            2 => frame[at] = [0, 1, 0x7f, 0x80, 0xff][usize::from(value) % 5],
            // Lengths: of IPv4, of IPv6, of UDP.
            3 if frame.len() > 40 => frame[random.of(&[16, 17, 18, 19, 38, 39])] = value,
            _ => frame.truncate(14 + random.below(frame.len().saturating_sub(13).max(1))),
        }
        if frame.len() < 15 {
            frame.resize(15, value);
        }
    }
    let header = usize::from(frame[14] & 0x0f) * 4;
    if frame[12..14] == [8, 0] && header >= 20 && frame.len() >= 14 + header && !random.one_in(4) {
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..14 + header]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// The next packets to send, and the side on which they come in.
fn next(random: &mut Random, lately: &Lately) -> (u8, Vec<Vec<u8>>) {
    let again = (!lately.0.is_empty() && !random.one_in(3)).then(|| random.of(&lately.0));
    let parsed = again.as_ref().and_then(|(_, frame)| parse(frame).ok());
    let (side, frame) = match (again, parsed) {
        // An error about it, from somewhere on its way.
        (Some((side, out)), Some(parsed)) if random.one_in(3) && !parsed.ip.is_fragment() => {
            let net = ends()[usize::from(parsed.ip.src.is_ipv6())];
            let from = random.of(&[parsed.ip.dst, net.remotes[1], net.hosts[0], net.hosts[1]]);
            let kinds = if parsed.ip.is_ipv4() {
                [(3, 4), (3, 1), (11, 0), (5, 1), (12, 0)]
            } else {
                [(2, 0), (1, 4), (3, 0), (4, 0), (1, 0)]
            };
            let few = Quote::Bytes(random.below(80));
            let quote = random.of(&[Quote::Least, Quote::Most, few]);
            let mtu = (random.next() as u32 & 0x7ff).to_be_bytes();
            (side, icmp_error(&out, random.of(&kinds), mtu, from, quote))
        }
        (Some((side, _)), Some(parsed)) => match answer(random, &parsed) {
            Some(frame) => (side, frame),
            None => fresh(random),
        },
        _ => fresh(random),
    };
    let (from, to) =
        if side == INTERNET { (ROUTER_MAC, PUBLIC_MAC) } else { (WEB_MAC[0], PRIVATE_MAC) };
    let frame = dressed(random, frame).macs(from, to).build();
    let pieces = if random.one_in(10) && frame.len() > 60 && verify(&frame).is_ok() {
        let id = random.below(20) as u32;
        let header = parse(&frame).map_or(0, |packet| packet.ip.header_len);
        let mut pieces = fragments(&frame, header + 16 + 8 * random.below(20), id);
        if random.one_in(2) {
            pieces.reverse();
        }
        pieces
    } else {
        vec![frame]
    };
    let wrecked = |frame, random: &mut Random| {
        if random.one_in(3) { broken(random, frame) } else { frame }
    };
    (side, pieces.into_iter().map(|frame| wrecked(frame, random)).collect())
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.octets()[0] == 0xfd,
    }
}

fn is_source(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [192, 168, 1],
        IpAddr::V6(address) => address.segments()[..4] == [0xfd00, 1, 0, 0],
    }
}

/// Whether the kernel would send it out of the public side, were it left to it.
fn would_leave(to: IpAddr) -> bool {
    let ours =
        [VIP.into(), PUBLIC.into(), PRIVATE.into(), VIP6.into(), PUBLIC6.into(), PRIVATE6.into()];
    let stays = match to {
        IpAddr::V4(to) => {
            let first = to.octets()[0];
            first == 0 || first == 127 || first >= 224 || to.is_link_local()
        }
        IpAddr::V6(to) => {
            to.segments()[..4] == [0; 4] || to.is_multicast() || to.is_unicast_link_local()
        }
    };
    !stays && !is_source(to) && !ours.contains(&to)
}

/// Source and destination of an IP packet that a router would forward, whatever it carries.
fn routed(frame: &[u8], mac: [u8; 6]) -> Option<(IpAddr, IpAddr)> {
    let packet = frame.get(14..)?;
    if frame[..6] != mac {
        return None;
    }
    let word = |at: usize| usize::from(packet[at]) << 8 | usize::from(packet[at + 1]);
    if frame[12..14] == [8, 0] && packet.len() >= 20 {
        let header = usize::from(packet[0] & 15) * 4;
        let sane = packet[0] >> 4 == 4
            && header >= 20
            && packet.len() >= header
            && (header..=packet.len()).contains(&word(2))
            && checksum(&packet[..header]) == 0;
        let address = |at: usize| {
            IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap()))
        };
        return sane.then(|| (address(12), address(16)));
    }
    if frame[12..14] == [0x86, 0xdd] && packet.len() >= 40 {
        let sane = packet[0] >> 4 == 6 && packet.len() >= 40 + word(4);
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        return sane.then(|| (address(8), address(24)));
    }
    None
}

/// Protocol, source and destination, where an identifier stands for the port of who asks.
fn tuple(packet: &Parsed) -> Option<(u8, SocketAddr, SocketAddr)> {
    let ip = &packet.ip;
    let ports = match &packet.transport {
        Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst, .. } => (*src, *dst),
        Transport::Icmp { kind: 8 | 128, .. } => (packet.echo_id(), 0),
        Transport::Icmp { kind: 0 | 129, .. } => (0, packet.echo_id()),
        Transport::Opaque if ip.fragment_offset == 0 && [TCP, UDP].contains(&ip.protocol) => {
            let bytes = packet.payload.first_chunk::<4>()?;
            (u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]]))
        }
        _ => return None,
    };
    Some((ip.protocol, at(ip.src, ports.0), at(ip.dst, ports.1)))
}

/// Where the tables say that a packet goes.
fn translation<A: Family>(
    tables: &FamilyFlows<A>,
    side: u8,
    (protocol, from, to): (u8, SocketAddr, SocketAddr),
) -> Option<(SocketAddr, SocketAddr)> {
    let key = key_of::<A>(side, protocol, from, to);
    let tables = [&tables.flows.entries, &tables.half_open.entries];
    let flow = tables.into_iter().find_map(|table| table.get(&key, 0).ok())?;
    Some((at(flow.saddr.ip(), flow.sport.get()), at(flow.daddr.ip(), flow.dport.get())))
}

/// Why what became of a packet must not be.
fn fault(prog: &Prog, side: u8, sent: &[u8], action: u32, out: &[u8]) -> Result<(), String> {
    let mac = if side == INTERNET { PUBLIC_MAC } else { PRIVATE_MAC };
    match action {
        action::DROP => return Ok(()),
        action::PASS => {
            if out != sent {
                return Err("it was changed and left to the kernel".into());
            }
            return match routed(sent, mac) {
                Some((from, to)) if side == SERVERS && is_source(from) && would_leave(to) => {
                    Err(format!("the kernel forwards it from {from} to {to}"))
                }
                _ => Ok(()),
            };
        }
        action::TX | action::REDIRECT => {}
        other => return Err(format!("action {other}")),
    }
    let packet = parse(out).map_err(|fault| format!("what came out can't be read: {fault}"))?;
    let leaves_public = (side == INTERNET) == (action == action::TX);
    if leaves_public && is_private(packet.ip.src) {
        return Err(format!("{} left on the public side", packet.ip.src));
    }
    if verify(sent).is_ok() {
        verify(out).map_err(|fault| format!("it was right, and is not any more: {fault}"))?;
    }
    let came = parse(sent).map_err(|fault| format!("it can't be read and went on: {fault}"))?;
    if let Transport::Icmp { embedded: Some(embedded), .. } = &packet.transport {
        // An answer of the program's own quotes the packet as it came.
        let own = embedded.ip.src == came.ip.src && embedded.ip.dst == came.ip.dst;
        if packet.ip.dst != embedded.ip.src {
            return Err("an error to somebody else than the sender".into());
        }
        if leaves_public && !own && is_private(embedded.ip.dst) {
            return Err(format!("an error shows {}", embedded.ip.dst));
        }
        return Ok(());
    }
    let (Some(before), Some(after)) = (tuple(&came), tuple(&packet)) else { return Ok(()) };
    if action == action::TX
        && matches!(packet.transport, Transport::Icmp { kind: 0 | 129, .. })
        && before.2.ip() == after.1.ip()
    {
        // The VIP's own answer to a ping.
        return Ok(());
    }
    // Of identifier 0, nothing tells an answer from a request: it goes out as the one does.
    if matches!(came.transport, Transport::Icmp { .. }) && before.1.port() == before.2.port() {
        return Ok(());
    }
    let expected = if packet.ip.is_ipv4() {
        translation(&prog.flows.v4, side, before)
    } else {
        translation(&prog.flows.v6, side, before)
    };
    if expected != Some((after.1, after.2)) {
        return Err(format!("{before:?} became {after:?}, and the tables say {expected:?}"));
    }
    Ok(())
}

fn run(seed: u64, packets: usize, multi_buffer: bool) {
    let mut prog = Prog::with(&network());
    if multi_buffer {
        prog = prog.multi_buffer();
    }
    let mut random = Random(seed);
    let mut lately = Lately(Vec::new());
    let (mut sent_on, mut sums, mut number, mut errors) = ([0; 2], [0_u64; 2], 0, 0);
    while number < packets {
        let (side, frames) = next(&mut random, &lately);
        for sent in frames {
            number += 1;
            sums[usize::from(side)] += 1;
            let (action, out) = prog.send(side, &sent);
            if let Err(why) = fault(&prog, side, &sent, action, &out) {
                panic!("seed {seed}, packet {number}, side {side}: {why}\n{sent:02x?}\n{out:02x?}");
            }
            if action == action::REDIRECT || action == action::TX {
                let to = if action == action::TX { side } else { 1 - side };
                sent_on[usize::from(side)] += 1;
                let packet = parse(&out).unwrap();
                let is_error =
                    matches!(packet.transport, Transport::Icmp { embedded: Some(_), .. });
                errors += usize::from(is_error);
                if !is_error {
                    lately.saw(&mut random, to, out);
                }
            }
        }
        if random.one_in(packets / 20) {
            // All connections that have not had a packet in this second, and none.
            let timeout = random.of(&[0, 3600]);
            prog.sweep(&Timeouts::all(std::time::Duration::from_secs(timeout)), number as u64);
        }
    }
    for (side, sum) in [INTERNET, SERVERS].into_iter().zip(sums) {
        let stats = prog.interface_stats(side);
        let is_verdict = |counter: &&Counter| {
            counter.class() != Class::Answer || **counter == Counter::AnswerEcho
        };
        let counted: u64 =
            Counter::ALL.iter().filter(is_verdict).map(|&c| stats.packets[c as usize]).sum();
        assert_eq!(counted, sum, "each packet has one verdict");
    }
    // Or this test has tested nothing.
    assert!(
        sent_on.iter().all(|&count| count > packets / 20) && errors > packets / 100,
        "{sent_on:?} and {errors} errors of {packets}"
    );
}

#[test]
fn whatever_comes_nothing_leaves_that_must_not() {
    run(1, 100_000, false);
}

#[test]
fn whatever_comes_nothing_leaves_that_must_not_in_the_multi_buffer_programs() {
    run(2, 100_000, true);
}
