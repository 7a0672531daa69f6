//! Datagrams in fragments: who sends them, and what became of them.

use std::net::{IpAddr, SocketAddr};

use lbha::datapath::{
    Desired,
    desired::{Service, ServiceId},
    held::Datagram,
    ring,
    tables::{self, Notes},
};
use lbha_common::{
    addr::{Be32, Be128},
    counter::{Class, Counter},
    event::{Event, family},
    flow::side::PUBLIC as INTERNET,
    fragment::{FragmentKey6, HeldHeader},
};

use super::*;
use crate::packet::{Frame, Ip, Parsed, fragments, parse, reassemble, verify};

/// A UDP service on port 53 of both elastic addresses.
pub const DNS: ServiceId = ServiceId { port: 53, protocol: UDP, ..WWW };
/// The same over IPv6.
pub const DNS6: ServiceId = ServiceId { port: 53, protocol: UDP, ..WWW6 };

/// The gateway's network with a UDP service in both families.
pub fn with_dns(keep_client: bool) -> Desired {
    let mut desired = gateway();
    for (id, of) in [(DNS, WWW), (DNS6, WWW6)] {
        let mut service: Service = desired.services[&of].clone();
        for server in &mut service.servers {
            (server.port, server.keep_client) = (53, keep_client);
        }
        desired.services.insert(id, service);
    }
    desired
}

/// Who talks to whom, in one family.
#[derive(Clone, Copy, Debug)]
pub struct Sockets {
    pub client: SocketAddr,
    pub service: SocketAddr,
    pub server: SocketAddr,
    /// The load balancer's own address on the servers' side.
    pub own: IpAddr,
    /// The address that masqueraded connections leave from.
    pub external: IpAddr,
    /// One that is masqueraded.
    pub host: SocketAddr,
    pub remote: SocketAddr,
    /// One of [`family`].
    pub family: u32,
}

/// Both families.
pub fn families() -> [Sockets; 2] {
    [v4_sockets(), v6_sockets()]
}

fn v4_sockets() -> Sockets {
    Sockets {
        client: client(0),
        service: at(VIP, 53),
        server: at(WEB[0], 53),
        own: PRIVATE.into(),
        external: PUBLIC.into(),
        host: at(WEB[0], 5000),
        remote: at(REMOTE, 53),
        family: family::IPV4,
    }
}

fn v6_sockets() -> Sockets {
    Sockets {
        client: client6(0),
        service: at(VIP6, 53),
        server: at(WEB6[0], 53),
        own: PRIVATE6.into(),
        external: PUBLIC6.into(),
        host: at(WEB6[0], 5000),
        remote: at(REMOTE6, 53),
        family: family::IPV6,
    }
}

/// What comes in on a side.
pub fn coming_in(side: u8, frame: Frame) -> Vec<u8> {
    let (from, to) =
        if side == INTERNET { (ROUTER_MAC, PUBLIC_MAC) } else { (WEB_MAC[0], PRIVATE_MAC) };
    frame.macs(from, to).build()
}

/// A datagram that takes several fragments.
pub fn datagram(from: SocketAddr, to: SocketAddr) -> Frame {
    let payload: Vec<u8> = (0..4000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
    Frame::udp(from, to).payload(&payload).dont_fragment(false)
}

const MTU: usize = 1500;

/// A datagram in fragments.
pub fn cut(side: u8, frame: &Frame, id: u32) -> Vec<Vec<u8>> {
    let pieces = fragments(&coming_in(side, frame.clone()), MTU, id);
    assert!(pieces.len() > 2);
    pieces
}

/// Sends fragments that are all forwarded, and gives the packet that they are together, and their identification.
#[track_caller]
pub fn whole(prog: &mut Prog, side: u8, pieces: &[Vec<u8>]) -> (Parsed, u32) {
    let out: Vec<Vec<u8>> = pieces
        .iter()
        .map(|piece| {
            let outcome = prog.run(side, piece);
            outcome.forwarded();
            outcome.frame
        })
        .collect();
    together(&out)
}

/// The packet that fragments are together, after a check that all came one hop, and their identification.
#[track_caller]
pub fn together(out: &[Vec<u8>]) -> (Parsed, u32) {
    let ids: Vec<u32> = out.iter().map(|frame| parse(frame).unwrap().ip.id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one identification: {ids:?}");
    let ttls: Vec<u8> = out.iter().map(|frame| parse(frame).unwrap().ip.ttl).collect();
    assert!(ttls.iter().all(|ttl| *ttl == 63), "a hop older: {ttls:?}");
    let packet = reassemble(out).expect("fragments of one packet");
    verify(&packet).expect("checksums hold");
    (parse(&packet).unwrap(), ids[0])
}

/// What is noted on the datagram of a fragment.
pub fn fate_of(prog: &Prog, piece: &[u8], side: u8) -> Option<u8> {
    let notes = Notes::open(prog.pins().root()).expect("the notes open");
    let ip = parse(piece).unwrap().ip;
    let datagram = datagram_of(&ip, side);
    notes.fate(datagram.family, &datagram.key).unwrap()
}

/// The datagram of a fragment, as the controller knows it.
pub fn datagram_of(ip: &Ip, side: u8) -> Datagram {
    let wide = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => Be128::from_raw([Be32::from(addr).raw(), 0, 0, 0]),
        IpAddr::V6(addr) => addr.into(),
    };
    let v4 = ip.is_ipv4();
    let key = FragmentKey6 {
        saddr: wide(ip.src),
        daddr: wide(ip.dst),
        id: if v4 { u32::from((ip.id as u16).to_be()) } else { ip.id.to_be() },
        proto: if v4 { ip.protocol } else { 0 },
        side,
        _pad: 0,
    };
    Datagram { family: if v4 { family::IPV4 } else { family::IPV6 }, key }
}

/// What the ring of held fragments has.
pub fn held(prog: &Prog) -> Vec<(HeldHeader, Vec<u8>)> {
    let mut ring = tables::held(prog.pins().root()).expect("the ring opens");
    std::iter::from_fn(|| ring::next_held(&mut ring)).collect()
}

/// What the program has told the controller.
pub fn events(prog: &Prog) -> Vec<Event> {
    let mut ring = tables::events(prog.pins().root()).expect("the ring opens");
    std::iter::from_fn(|| ring::next_event(&mut ring)).collect()
}

/// Sends a datagram in fragments, and checks the first one's verdict and that of the others.
#[track_caller]
pub fn shared_fate(prog: &mut Prog, side: u8, frame: &Frame, first: Counter, others: Counter) {
    let pieces = fragments(&coming_in(side, frame.clone()), MTU, 77);
    for (n, piece) in pieces.iter().enumerate() {
        let expected = if n == 0 { first } else { others };
        let outcome = prog.run(side, piece);
        assert_eq!(outcome.counted, [(expected.as_str(), 1)].into(), "fragment {n}");
        match expected.class() {
            Class::Pass => outcome.passed(expected, piece),
            _ => outcome.dropped(expected),
        }
    }
}
