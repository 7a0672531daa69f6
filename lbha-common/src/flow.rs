//! Flow entries: key, value, and the other direction's entry.

use crate::{
    addr::{Addr, Be16, Be32, Be128},
    conntrack::state,
    csum,
    wire::proto,
};

/// Where packets come in. Part of the key, so that nothing from the public side can match a server's direction.
pub mod side {
    pub const PUBLIC: u8 = 0;
    pub const PRIVATE: u8 = 1;
    pub const COUNT: usize = 2;
}

/// The tuple of a packet as it comes in. Aligned so that the BPF back end copies it in words: at 4 it calls a byte loop.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey<A> {
    pub saddr: A,
    pub daddr: A,
    /// Of an ICMP echo request, its identifier is the source port and 0 the destination port; of a reply, the reverse.
    pub sport: Be16,
    pub dport: Be16,
    pub proto: u8,
    /// One of [`side`].
    pub side: u8,
    pub _pad: u16,
}

/// Everything that a packet of a known flow needs. With IPv4 addresses 64 bytes, so that an element of the kernel's hash
/// table (48 bytes of its own, then the key) is two cache lines exactly, and the value is the second one.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow<A> {
    /// Addresses and ports to write.
    pub saddr: A,
    pub daddr: A,
    pub sport: Be16,
    pub dport: Be16,
    /// Delta of the IPv4 header checksum: addresses and TTL. 0 for IPv6.
    pub l3_delta: u16,
    /// Delta of the TCP, UDP or ICMP checksum: addresses and ports, or what of them it covers.
    pub l4_delta: u16,
    /// Last packet, in ticks (see [`crate::time`]).
    pub last_seen: u32,
    /// Bits of [`state`].
    pub state: u32,
    /// Index of this direction's next hop.
    pub next_hop: u16,
    /// Index of the other direction's next hop, so that a lost half can be made again from the other.
    pub peer_next_hop: u16,
    /// Index of who the connection belongs to: a server of a service ([`crate::service::Backend`]) or a masquerade rule
    /// ([`crate::masquerade::Rule::owner`]).
    pub backend: u16,
    pub _pad: u16,
    /// First packet, in ticks.
    pub created: u32,
    /// Half-open TCP entries of the client's direction: the acknowledgement number that confirms the handshake.
    pub expect_ack: u32,
    /// Room for what a connection still has to learn without a new layout.
    pub _reserved: [u32; 6],
}

pub type FlowKey4 = FlowKey<Be32>;
pub type FlowKey6 = FlowKey<Be128>;
pub type Flow4 = Flow<Be32>;
pub type Flow6 = Flow<Be128>;

const _: () = assert!(size_of::<FlowKey4>() == 16 && size_of::<Flow4>() == 64);
const _: () = assert!(size_of::<FlowKey6>() == 40 && size_of::<Flow6>() == 88);

impl<A: Addr> FlowKey<A> {
    /// The tuple of the packets that come back after `flow` has translated this one.
    #[inline(always)]
    pub fn peer(&self, flow: &Flow<A>) -> Self {
        Self {
            saddr: flow.daddr,
            daddr: flow.saddr,
            sport: flow.dport,
            dport: flow.sport,
            proto: self.proto,
            side: if flow.state & state::PEER_PRIVATE != 0 { side::PRIVATE } else { side::PUBLIC },
            _pad: 0,
        }
    }
}

impl<A: Addr> Flow<A> {
    /// The entry under `key` that translates to the given tuple; deltas are computed here, once.
    #[inline(always)]
    pub fn new(key: &FlowKey<A>, saddr: A, daddr: A, sport: Be16, dport: Be16) -> Self {
        let mut flow = Self::default();
        flow.translate(key, saddr, daddr, sport, dport);
        flow
    }

    /// Has this entry, which stands under `key`, translate to the given tuple.
    #[inline(always)]
    pub fn translate(&mut self, key: &FlowKey<A>, saddr: A, daddr: A, sport: Be16, dport: Be16) {
        let addresses = key.saddr.replaced_by(saddr) + key.daddr.replaced_by(daddr);
        let ports = csum::replace16(key.sport.raw(), sport.raw())
            + csum::replace16(key.dport.raw(), dport.raw());
        self.set_deltas(key.proto, addresses, ports);
        self.saddr = saddr;
        self.daddr = daddr;
        self.sport = sport;
        self.dport = dport;
    }

    #[inline(always)]
    fn set_deltas(&mut self, protocol: u8, addresses: u32, ports: u32) {
        // ICMP for IPv4 has no pseudo header (RFC 792); TCP, UDP and ICMPv6 have.
        let l4 = if protocol == proto::ICMP { ports } else { addresses + ports };
        self.l3_delta =
            if A::HEADER_CHECKSUM { csum::fold(addresses + u32::from(A::HOP_DELTA)) } else { 0 };
        self.l4_delta = csum::fold(l4);
    }

    /// Has the translation use another source port, and the other direction's entry, `mirror`, know it.
    #[inline(always)]
    pub fn move_to_port(&mut self, mirror: &mut Self, port: Be16) {
        let there = csum::replace16(self.sport.raw(), port.raw());
        let back = csum::replace16(port.raw(), self.sport.raw());
        self.l4_delta = csum::fold(u32::from(self.l4_delta) + there);
        mirror.l4_delta = csum::fold(u32::from(mirror.l4_delta) + back);
        self.sport = port;
    }

    /// The other direction's entry, to stand under `key.peer(self)`.
    #[inline(always)]
    pub fn mirror(&self, key: &FlowKey<A>) -> Self {
        let mut peer = Self::default();
        self.mirror_to(key, &mut peer);
        peer
    }

    /// Writes the other direction's entry in place: a program's stack has no room for several.
    #[inline(always)]
    pub fn mirror_to(&self, key: &FlowKey<A>, peer: &mut Self) {
        let addresses = self.daddr.replaced_by(key.daddr) + self.saddr.replaced_by(key.saddr);
        let ports = csum::replace16(self.dport.raw(), key.dport.raw())
            + csum::replace16(self.sport.raw(), key.sport.raw());
        peer.set_deltas(key.proto, addresses, ports);
        peer.saddr = key.daddr;
        peer.daddr = key.saddr;
        peer.sport = key.dport;
        peer.dport = key.sport;
        peer.last_seen = self.last_seen;
        peer.state = mirror_state(self.state, key.side);
        peer.next_hop = self.peer_next_hop;
        peer.peer_next_hop = self.next_hop;
        peer.backend = self.backend;
        peer._pad = 0;
        peer.created = self.created;
        peer.expect_ack = 0;
        peer._reserved = [0; 6];
    }

    /// Whether two entries translate to the same tuple.
    #[inline(always)]
    pub fn same_translation(&self, other: &Self) -> bool {
        self.saddr == other.saddr
            && self.daddr == other.daddr
            && self.sport == other.sport
            && self.dport == other.dport
    }

    /// The identifier that an ICMP echo gets: of the two ports, the one that is not 0.
    #[inline(always)]
    pub fn identifier(&self) -> Be16 {
        Be16::from_raw(self.sport.raw() | self.dport.raw())
    }

    #[inline(always)]
    pub fn is_reply(&self) -> bool {
        self.state & state::REPLY != 0
    }

    #[inline(always)]
    pub fn is_masquerade(&self) -> bool {
        self.state & state::MASQUERADE != 0
    }
}

/// State bits as seen from the other direction, whose peer comes in on `own_side`.
#[inline(always)]
const fn mirror_state(entry: u32, own_side: u8) -> u32 {
    // OWN_* and PEER_* are neighbours: swapping the pairs is two shifts.
    let own = entry & (state::OWN_FIN | state::OWN_RST);
    let peer = entry & (state::PEER_FIN | state::PEER_RST);
    let mut mirrored = (own << 1) | (peer >> 1) | (entry & state::SHARED);
    if entry & state::REPLY == 0 {
        mirrored |= state::REPLY;
    }
    if own_side == side::PRIVATE {
        mirrored |= state::PEER_PRIVATE;
    }
    mirrored
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::proto;

    fn key() -> FlowKey4 {
        FlowKey4 {
            saddr: Ipv4Addr::new(203, 0, 113, 10).into(),
            daddr: Ipv4Addr::new(147, 75, 78, 116).into(),
            sport: Be16::new(40000),
            dport: Be16::new(80),
            proto: proto::TCP,
            side: side::PUBLIC,
            _pad: 0,
        }
    }

    fn forward(key: &FlowKey4) -> Flow4 {
        let mut flow = Flow4::new(
            key,
            Ipv4Addr::new(192, 168, 1, 1).into(),
            Ipv4Addr::new(192, 168, 1, 10).into(),
            Be16::new(1024),
            Be16::new(8080),
        );
        flow.state = state::PEER_PRIVATE | state::OWN_FIN;
        flow.next_hop = 3;
        flow.peer_next_hop = 4;
        flow
    }

    #[test]
    fn the_mirror_of_the_mirror_is_the_entry() {
        let key = key();
        let flow = forward(&key);
        let (peer_key, peer) = (key.peer(&flow), flow.mirror(&key));
        assert_eq!(peer_key.side, side::PRIVATE);
        assert_eq!(peer.state, state::REPLY | state::PEER_FIN);
        assert_eq!((peer.next_hop, peer.peer_next_hop), (4, 3));
        assert_eq!(peer_key.peer(&peer), key);
        assert_eq!(peer.mirror(&peer_key), flow);
    }

    proptest! {
        #[test]
        fn nat_there_and_back_is_the_identity(a: u32, b: u32, c: u32, d: u32, ports: [u16; 4], check: u16) {
            prop_assume!(check != 0xffff);
            let key = FlowKey4 { saddr: Be32::new(a), daddr: Be32::new(b), sport: Be16::new(ports[0]), dport: Be16::new(ports[1]), ..key() };
            let flow = Flow4::new(&key, Be32::new(c), Be32::new(d), Be16::new(ports[2]), Be16::new(ports[3]));
            let back = flow.mirror(&key);
            prop_assert_eq!((back.saddr, back.daddr, back.sport, back.dport), (key.daddr, key.saddr, key.dport, key.sport));
            prop_assert_eq!(csum::apply(csum::apply(check, flow.l4_delta), back.l4_delta), check);
        }

        #[test]
        fn another_port_is_another_translation(a: u32, b: u32, ports: [u16; 4], check in 1u16..0xffff) {
            let key = FlowKey4 { saddr: Be32::new(a), sport: Be16::new(ports[0]), dport: Be16::new(ports[1]), ..key() };
            let (saddr, daddr, dport) = (Be32::new(b), key.daddr, key.dport);
            let mut flow = Flow4::new(&key, saddr, daddr, Be16::new(ports[2]), dport);
            let mut mirror = flow.mirror(&key);
            flow.move_to_port(&mut mirror, Be16::new(ports[3]));
            let wanted = Flow4::new(&key, saddr, daddr, Be16::new(ports[3]), dport);
            prop_assert!(flow.same_translation(&wanted));
            prop_assert_eq!(csum::apply(check, flow.l4_delta), csum::apply(check, wanted.l4_delta));
            prop_assert_eq!(csum::apply(check, mirror.l4_delta), csum::apply(check, wanted.mirror(&key).l4_delta));
            prop_assert!(mirror.same_translation(&wanted.mirror(&key)));
        }

        #[test]
        fn the_icmp_delta_covers_what_the_family_covers(a: u32, b: u128, c: u32, d: u128, id: u16, new: u16) {
            use core::net::Ipv6Addr;
            let id_delta = csum::fold(csum::replace16(Be16::new(id).raw(), Be16::new(new).raw()));
            let key = FlowKey { saddr: Be32::new(a), daddr: Be32::new(1), sport: Be16::new(id), proto: proto::ICMP, ..FlowKey4::default() };
            let flow = Flow::new(&key, Be32::new(c), Be32::new(1), Be16::new(new), Be16::default());
            prop_assert_eq!(flow.l4_delta % 0xffff, id_delta % 0xffff);

            let (from, to): (Be128, Be128) = (Ipv6Addr::from_bits(b).into(), Ipv6Addr::from_bits(d).into());
            let key = FlowKey { saddr: from, daddr: to, sport: Be16::new(id), proto: proto::ICMPV6, ..FlowKey6::default() };
            let flow = Flow::new(&key, to, to, Be16::new(new), Be16::default());
            let whole = csum::fold(from.replaced_by(to) + u32::from(id_delta));
            prop_assert_eq!(flow.l4_delta % 0xffff, whole % 0xffff);
            prop_assert_eq!(flow.l3_delta, 0);
            prop_assert_eq!(Ipv6Addr::from(from), Ipv6Addr::from_bits(b));
        }
    }
}
