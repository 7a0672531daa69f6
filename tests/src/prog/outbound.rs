//! Connections that hosts behind a masquerade open.

use std::net::{IpAddr, SocketAddr};

use lbha::datapath::{expiry::now, family::Family, tables::FamilyFlows};
use lbha_common::{
    conntrack::Phase,
    flow::{Flow, FlowKey, side},
};

use super::{
    CLIENT, CLIENT6, PRIVATE, PRIVATE6, PUBLIC, PUBLIC6, Prog, REMOTE, REMOTE6, TCP, WEB, WEB6,
    key_of,
};
use crate::packet::{Frame, tcp_flags::*};

/// Addresses of one family in [`super::gateway`].
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Private hosts.
    pub hosts: [IpAddr; 2],
    /// Hosts on the internet.
    pub remotes: [IpAddr; 2],
    /// The load balancer's public address, which masqueraded connections get.
    pub external: IpAddr,
    /// Its private one.
    pub private: IpAddr,
}

/// Of both families.
pub fn ends() -> [Ends; 2] {
    [
        Ends {
            hosts: WEB.map(IpAddr::from),
            remotes: [REMOTE.into(), CLIENT.into()],
            external: PUBLIC.into(),
            private: PRIVATE.into(),
        },
        Ends {
            hosts: WEB6.map(IpAddr::from),
            remotes: [REMOTE6.into(), CLIENT6.into()],
            external: PUBLIC6.into(),
            private: PRIVATE6.into(),
        },
    ]
}

/// A masqueraded connection as both of its ends see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbound {
    pub protocol: u8,
    pub inside: SocketAddr,
    pub remote: SocketAddr,
    /// What the remote host takes for its peer.
    pub external: SocketAddr,
}

impl Outbound {
    /// An ACK, or a datagram.
    pub fn from_inside(&self) -> Frame {
        packet(self.protocol, self.inside, self.remote)
    }

    /// An ACK, or a datagram.
    pub fn from_remote(&self) -> Frame {
        packet(self.protocol, self.remote, self.external)
    }

    fn keys<A: Family>(&self) -> [FlowKey<A>; 2] {
        [
            key_of(side::PRIVATE, self.protocol, self.inside, self.remote),
            key_of(side::PUBLIC, self.protocol, self.remote, self.external),
        ]
    }

    fn entries<A: Family>(&self, tables: &FamilyFlows<A>) -> [Option<Flow<A>>; 2] {
        self.keys().map(|key| tables.flows.entries.get(&key, 0).ok())
    }

    fn age<A: Family>(&self, tables: &mut FamilyFlows<A>, ticks: u32) {
        for key in self.keys() {
            let mut entry = tables.flows.entries.get(&key, 0).expect("the connection is there");
            entry.last_seen = now() - ticks;
            tables.flows.entries.insert(key, entry, 0).expect("the entry is there");
        }
    }
}

fn packet(protocol: u8, from: SocketAddr, to: SocketAddr) -> Frame {
    if protocol == TCP { Frame::tcp(from, to) } else { Frame::udp(from, to) }
}

/// A connection's first packet: a SYN, or a datagram.
pub fn first(protocol: u8, from: SocketAddr, to: SocketAddr) -> Frame {
    if protocol == TCP { Frame::syn(from, to) } else { Frame::udp(from, to) }
}

impl Prog {
    /// The first packet of a private host's connection.
    #[track_caller]
    pub fn leave(&mut self, protocol: u8, inside: SocketAddr, remote: SocketAddr) -> Outbound {
        let sent = self.private(first(protocol, inside, remote)).forwarded();
        assert_eq!(sent.destination(), remote);
        Outbound { protocol, inside, remote, external: sent.source() }
    }

    /// [`Self::leave`], with what the remote host answers and, of TCP, the acknowledgement of that.
    #[track_caller]
    pub fn establish(&mut self, protocol: u8, inside: SocketAddr, remote: SocketAddr) -> Outbound {
        let connection = self.leave(protocol, inside, remote);
        if protocol == TCP {
            self.public(connection.from_remote().flags(SYN | ACK)).forwarded();
            self.private(connection.from_inside()).forwarded();
        } else {
            self.public(connection.from_remote()).forwarded();
        }
        connection
    }

    /// Checks that a masqueraded connection's packets are translated, out and back.
    #[track_caller]
    pub fn masquerades(&mut self, connection: &Outbound) {
        let out = self.private(connection.from_inside()).forwarded();
        assert_eq!((out.source(), out.destination()), (connection.external, connection.remote));
        let back = self.public(connection.from_remote()).forwarded();
        assert_eq!((back.source(), back.destination()), (connection.remote, connection.inside));
    }

    /// The state of both directions' entries: the private host's and the remote host's. None if there are none.
    #[track_caller]
    pub fn marks(&self, connection: &Outbound) -> Option<[u32; 2]> {
        let states = if connection.inside.is_ipv4() {
            connection.entries(&self.flows.v4).map(|entry| entry.map(|entry| entry.state))
        } else {
            connection.entries(&self.flows.v6).map(|entry| entry.map(|entry| entry.state))
        };
        match states {
            [Some(inside), Some(remote)] => Some([inside, remote]),
            [None, None] => None,
            half => panic!("half a connection: {half:?}"),
        }
    }

    /// The timeout class of a masqueraded connection, on which both directions' entries agree.
    #[track_caller]
    pub fn phase(&self, connection: &Outbound) -> Option<Phase> {
        let marks = self.marks(connection)?;
        let [inside, remote] = marks.map(|mark| Phase::of(connection.protocol, mark, false));
        assert_eq!(inside, remote);
        Some(inside)
    }

    /// Makes a connection look as if its last packet had been long ago.
    #[track_caller]
    pub fn age(&mut self, connection: &Outbound, ticks: u32) {
        if connection.inside.is_ipv4() {
            connection.age(&mut self.flows.v4, ticks);
        } else {
            connection.age(&mut self.flows.v6, ticks);
        }
    }
}
