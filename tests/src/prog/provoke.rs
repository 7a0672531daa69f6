//! Connections of every kind, and ICMP errors about what they carry.

use std::net::IpAddr;

use lbha::datapath::desired::{Desired, ServiceId};
use lbha_common::flow::side::PRIVATE as SERVERS;

use super::{Connection, Net, Outcome, Prog, TCP, UDP, WWW, WWW6, at, gateway};
use crate::packet::{Frame, L4, Quote, icmp_error, tcp_flags::*};

/// A packet of a known connection, as it was sent: an error may come about it.
pub struct Sent {
    pub what: &'static str,
    pub frame: Frame,
    /// What the error's source becomes; `None` where the router stays visible.
    pub hides: Option<IpAddr>,
}

/// The gateway, with a service of each kind besides `www`.
pub fn several(net: &Net) -> Desired {
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
pub fn connections(prog: &mut Prog, net: &Net) -> Vec<Sent> {
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
pub fn errors(net: &Net) -> Vec<((u8, u8), [u8; 4])> {
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
pub fn provoke(
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
pub fn back(prog: &mut Prog, net: &Net, sent: &Sent, error: &Frame) -> Outcome {
    prog.run(1 - net.macs(sent.frame.src).0, &error.build())
}

/// The error as the packet's sender should get it, built anew: about what it had sent, one hop older.
pub fn expected(net: &Net, sent: &Sent, error: &Frame) -> Vec<u8> {
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
pub fn reaches(prog: &mut Prog, net: &Net, sent: &Sent, error: &Frame) {
    let outcome = back(prog, net, sent, error);
    outcome.forwarded_error();
    let expected = expected(net, sent, error);
    let differ = (0..expected.len()).find(|&at| outcome.frame.get(at) != expected.get(at));
    assert_eq!((differ, outcome.frame.len()), (None, expected.len()), "{}: {error:?}", sent.what);
}
