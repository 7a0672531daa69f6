//! What holds for any packet: of a known connection, and of no sense at all.

use std::{
    cell::RefCell,
    net::{Ipv4Addr, SocketAddr},
};

use lbha::datapath::{Desired, desired::Route, desired::ServiceId, loader::Sizes};
use lbha_common::{
    counter::{Class, Counter},
    flow::side::{PRIVATE as SERVERS, PUBLIC as INTERNET},
};
use lbha_tests::{
    packet::{Frame, L4, checksum, parse, tcp_flags::*, verify},
    prog::*,
};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

const DNS: ServiceId = ServiceId { port: 53, protocol: UDP, ..WWW };
const SIZES: Sizes = Sizes { max_connections: 4096, max_connections_v6: 4096, max_half_open: 4096 };

/// `www` and a UDP service on the same servers.
fn network(keep_client: bool) -> Desired {
    let mut desired = desired();
    www(&mut desired).servers.iter_mut().for_each(|server| server.keep_client = keep_client);
    let mut service = www(&mut desired).clone();
    service.servers.iter_mut().for_each(|server| server.port = 53);
    desired.services.insert(DNS, service);
    // A server has a neighbour entry of its own, as on a real host, and may be a client too.
    desired.routes.insert(host(WEB[1]), Route::Hop);
    desired
}

/// What a packet may carry besides addresses and ports.
#[derive(Clone, Debug)]
struct Content {
    payload: Vec<u8>,
    ip_options: Vec<u8>,
    tcp_options: Vec<u8>,
    seq: u32,
    ack: u32,
    window: u16,
    flags: u8,
    tos: u8,
    id: u16,
    ttl: u8,
    dont_fragment: bool,
    checksum: bool,
    padding: usize,
}

impl Content {
    fn put_into(self, mut frame: Frame) -> Frame {
        match &mut frame.l4 {
            L4::Tcp { seq, ack, flags, window, options, .. } => {
                (*seq, *ack, *window, *options) =
                    (self.seq, self.ack, self.window, self.tcp_options);
                // All but a bare SYN, which would begin a new connection after a close.
                *flags = self.flags | ACK;
            }
            L4::Udp { checksum, .. } => *checksum = self.checksum,
            other => panic!("{other:?}"),
        }
        let Self { payload, ip_options, tos, ttl, dont_fragment, padding, .. } = self;
        let id = self.id.into();
        Frame { payload, ip_options, tos, id, ttl, dont_fragment, padding, ..frame }
    }
}

fn content() -> impl Strategy<Value = Content> {
    // Sizes whose sum is below the MTU; lengths that are not multiples of 4 are padded by the builder.
    let bytes = (vec(any::<u8>(), 0..1380), vec(any::<u8>(), 0..=40), vec(any::<u8>(), 0..=40));
    let words = (any::<u32>(), any::<u32>(), any::<u16>(), any::<u8>(), any::<u8>(), any::<u16>());
    (bytes, words, 2u8.., any::<bool>(), any::<bool>(), 0usize..8).prop_map(
        |(
            (payload, ip_options, tcp_options),
            (seq, ack, window, flags, tos, id),
            ttl,
            df,
            sum,
            padding,
        )| {
            Content {
                payload,
                ip_options,
                tcp_options,
                seq,
                ack,
                window,
                flags,
                tos,
                id,
                ttl,
                dont_fragment: df,
                checksum: sum,
                padding,
            }
        },
    )
}

/// Any client but those whose addresses are the servers' own or ours.
fn any_client() -> impl Strategy<Value = SocketAddr> {
    let address = any::<u32>().prop_map(Ipv4Addr::from_bits).prop_filter("on-link", |address| {
        address.octets()[..2] != [192, 168] && ![VIP, PUBLIC].contains(address)
    });
    (address, 1u16..).prop_map(|(address, port)| at(address, port))
}

/// Sends a packet each way and compares every byte with the packet built anew.
fn there_and_back(keep_client: bool, udp: bool) {
    let prog = RefCell::new(Prog::sized(&network(keep_client), SIZES));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(150));
    let strategy = (any_client(), content(), content());
    let service = if udp { at(VIP, 53) } else { vip() };
    let frame = if udp { Frame::udp } else { Frame::tcp };
    let result = runner.run(&strategy, |(client, request, answer)| {
        let prog = &mut *prog.borrow_mut();
        let first = if udp { Frame::udp(client, service) } else { Frame::syn(client, service) };
        let first = prog.public(first).forwarded();
        let (source, server) = (first.source(), first.destination());
        let syn_ack = frame(server, source);
        prog.private(if udp { syn_ack } else { syn_ack.flags(SYN | ACK).seq(9000) }).forwarded();
        let confirm = frame(client, service);
        prog.public(if udp { confirm } else { confirm.ack(9001) }).forwarded();
        prop_assert_eq!(source.ip(), if keep_client { client.ip() } else { PRIVATE.into() });

        let web = usize::from(server.ip() == WEB[1]);
        let there = request.put_into(frame(client, service));
        let outcome = prog.public(there.clone());
        outcome.forwarded();
        let expected = translated(&there, source, server).macs(PRIVATE_MAC, WEB_MAC[web]).build();
        prop_assert_eq!(outcome.frame, expected);

        let back = answer.put_into(frame(server, source));
        let outcome = prog.private(back.clone());
        outcome.forwarded();
        let expected = translated(&back, service, client).macs(PUBLIC_MAC, ROUTER_MAC).build();
        prop_assert_eq!(outcome.frame, expected, "as the client expects it");
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn any_segment_is_translated_there_and_back() {
    there_and_back(false, false);
}

#[test]
fn any_segment_is_translated_there_and_back_in_nat_mode() {
    there_and_back(true, false);
}

#[test]
fn any_datagram_is_translated_there_and_back() {
    there_and_back(false, true);
}

#[test]
fn any_datagram_is_translated_there_and_back_in_nat_mode() {
    there_and_back(true, true);
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

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Frames that make sense, for either side.
fn corpus(connection: &Connection) -> Vec<Frame> {
    let mut frames = vec![
        connection.from_client().payload(b"some payload"),
        connection.from_client().ip_options(&[7, 7, 4, 0, 0, 0, 0]).padding(4),
        connection.from_client().flags(FIN | ACK),
        connection.from_client().flags(RST),
        connection.from_server().payload(&[0x55; 700]),
        connection.from_server().flags(FIN | ACK).ip_options(&[1; 20]),
        connection.answer(),
        connection.from_client().vlan(5),
        Frame::raw(CLIENT, VIP, UDP, &[3; 64]).fragment(8, false),
        Frame::udp(client(1), at(VIP, 53)).payload(&[9; 33]).fragment(0, true),
        Frame::too_big(PUBLIC, VIP, 1400, &connection.from_client().quote(8)),
        Frame::syn(at(WEB[1], 4000), vip()),
        Frame::syn(client(0), at(VIP, 22)),
    ];
    for n in 0..6 {
        frames.push(Frame::syn(client(n), vip()));
        frames.push(Frame::udp(client(n), at(VIP, 53)).payload(b"query"));
        frames.push(Frame::syn(at(WEB[1], 5000 + n), vip()));
        frames.push(Frame::udp(at(WEB[1], 5000 + n), at(VIP, 53)).payload(b"query"));
        frames.push(Frame::udp(at(WEB[0], 53), at(PRIVATE, 1024 + n)).without_checksum());
    }
    frames
}

/// A frame for a side: of the corpus, changed in some way, or noise.
fn make(random: &mut Random, corpus: &[Frame], mac: [u8; 6]) -> Vec<u8> {
    if random.one_in(8) {
        let len = 14 + random.below(200);
        let mut frame = random.bytes(len);
        frame[..6].copy_from_slice(&mac);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        if len > 24 && !random.one_in(4) {
            (frame[14], frame[23]) = (0x45, [TCP, UDP][random.below(2)]);
        }
        return frame;
    }
    let frame = corpus[random.below(corpus.len())].clone();
    let mut frame = frame.macs(ROUTER_MAC, mac).build();
    for _ in 0..random.below(4) {
        let (at, value) = (random.below(frame.len().min(80)), random.next() as u8);
        match random.below(3) {
            0 => frame[at] = value,
            1 => frame[at] ^= 1 << (value % 8),
            _ => frame[at] = [0, 1, 0x7f, 0x80, 0xff][usize::from(value) % 5],
        }
    }
    if random.one_in(4) {
        frame.truncate(14 + random.below(frame.len() - 13));
    }
    if random.one_in(8) {
        let more = random.below(100);
        frame.extend(random.bytes(more));
    }
    // Most changes are to be seen by more than the header checksum's test.
    let header = frame.get(14).map_or(0, |first| usize::from(first & 0x0f) * 4);
    if !random.one_in(3) && header >= 20 && frame.len() >= 14 + header {
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..14 + header]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

fn nonsense(keep_client: bool, multi_buffer: bool, seed: u64) {
    let mut prog = Prog::sized(&network(keep_client), SIZES);
    if multi_buffer {
        prog = prog.multi_buffer();
    }
    let connection = prog.connect(client(0), vip());
    let corpus = corpus(&connection);
    let before = [INTERNET, SERVERS].map(|side| prog.interface_stats(side).packets);
    let mut random = Random(seed);
    let (mut forwarded, mut right) = ([0; 2], 0);
    for _ in 0..10_000 {
        for (side, mac) in [(INTERNET, PUBLIC_MAC), (SERVERS, PRIVATE_MAC)] {
            let sent = make(&mut random, &corpus, mac);
            let (action, frame) = prog.send(side, &sent);
            match action {
                action::DROP => continue,
                action::PASS => assert_eq!(frame, sent, "passed packets are untouched"),
                action::TX | action::REDIRECT => {
                    let out = if action == action::TX { side } else { 1 - side };
                    let packet =
                        parse(&frame).unwrap_or_else(|error| panic!("{error}: {frame:x?}"));
                    let told = action == action::TX && packet.ip.protocol == ICMP;
                    let (smac, from) = match out {
                        // an error about the packet
                        INTERNET if told => (PUBLIC_MAC, PUBLIC.into()),
                        _ if told => (PRIVATE_MAC, PRIVATE.into()),
                        INTERNET => (PUBLIC_MAC, VIP.into()),
                        // an answer of the service to a server that is its client
                        _ if packet.ip.src == VIP => (PRIVATE_MAC, VIP.into()),
                        _ if keep_client && side == INTERNET => {
                            (PRIVATE_MAC, parse(&sent).unwrap().ip.src)
                        }
                        _ => (PRIVATE_MAC, PRIVATE.into()),
                    };
                    assert_eq!(packet.eth_src, smac);
                    assert_eq!(packet.ip.src, from, "out on side {out}");
                    if verify(&sent).is_ok() {
                        right += 1;
                        verify(&frame).unwrap_or_else(|error| panic!("{error}: {sent:x?}"));
                    }
                    forwarded[usize::from(side)] += 1;
                }
                other => panic!("action {other} for {sent:x?}"),
            }
        }
    }
    for side in [INTERNET, SERVERS] {
        let after = prog.interface_stats(side).packets;
        let before = before[usize::from(side)];
        let verdicts = Counter::ALL.iter().filter(|counter| counter.class() != Class::Answer);
        let moved = verdicts.map(|&counter| after[counter as usize] - before[counter as usize]);
        assert_eq!(moved.sum::<u64>(), 10_000, "each packet has one verdict");
    }
    // Or this test has tested nothing.
    assert!(forwarded[0] > 1000 && forwarded[1] > 300 && right > 500, "{forwarded:?}, {right}");
}

#[test]
fn nonsense_does_no_harm() {
    nonsense(false, false, 1);
}

#[test]
fn nonsense_does_no_harm_in_nat_mode() {
    nonsense(true, false, 2);
}

#[test]
fn nonsense_does_no_harm_to_the_multi_buffer_programs() {
    nonsense(false, true, 3);
}
