//! What masqueraded connections use up: connections and ports by external address, connections by source. Pure.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use lbha_common::addr::Be16;

use super::frequent::{COUNTERS, Frequent};
use crate::datapath::family::Family;

/// Sources that a sweep names.
pub const LARGEST: usize = 100;

/// What is in use of an external address, for one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    pub address: IpAddr,
    /// Protocol number.
    pub protocol: u8,
    pub connections: u64,
    /// The remote end with the most connections from this address, and how many: each takes a port that no other
    /// connection to the same end can have. Of rules without endpoint-independent mapping, this is what is used up first.
    pub busiest: Option<(SocketAddr, u32)>,
    /// Ports that are bound to one source port, for all remote ends: endpoint-independent mapping.
    pub bindings: u64,
}

impl External {
    /// What is used up first: of one port for each connection to the same remote end, or one for each binding, the larger
    /// number. Rules of both kinds may share an address.
    pub fn used(&self) -> u64 {
        self.bindings.max(self.busiest.map_or(0, |(_, count)| count.into()))
    }
}

/// Connections of a masqueraded source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub address: IpAddr,
    pub connections: u32,
}

#[derive(Debug)]
pub struct Usage<A> {
    connections: HashMap<(A, u8), u64>,
    bindings: HashMap<(A, u8), u64>,
    /// By external address, protocol and remote end.
    remotes: Frequent<(A, u8, A, Be16)>,
}

impl<A: Family> Default for Usage<A> {
    fn default() -> Self {
        Self {
            connections: HashMap::new(),
            bindings: HashMap::new(),
            remotes: Frequent::new(COUNTERS),
        }
    }
}

impl<A: Family> Usage<A> {
    /// A connection.
    pub fn saw(&mut self, external: A, protocol: u8, remote: (A, Be16)) {
        *self.connections.entry((external, protocol)).or_default() += 1;
        self.remotes.saw((external, protocol, remote.0, remote.1));
    }

    pub fn saw_binding(&mut self, external: A, protocol: u8) {
        *self.bindings.entry((external, protocol)).or_default() += 1;
    }

    /// By address and protocol.
    pub fn externals(&self) -> Vec<External> {
        let mut externals = HashMap::new();
        let entry = |(address, protocol): (A, u8)| External {
            address: address.ip(),
            protocol,
            connections: 0,
            busiest: None,
            bindings: 0,
        };
        for (&at, connections) in &self.connections {
            externals.entry(at).or_insert_with(|| entry(at)).connections = *connections;
        }
        for (&at, bindings) in &self.bindings {
            externals.entry(at).or_insert_with(|| entry(at)).bindings = *bindings;
        }
        for (&(external, protocol, remote, port), count) in self.remotes.counts() {
            let at = (external, protocol);
            let busiest = &mut externals.entry(at).or_insert_with(|| entry(at)).busiest;
            let candidate = (SocketAddr::new(remote.ip(), port.get()), count);
            // Of two alike always the same one, whatever the order in which they come.
            let key = |(end, count): (SocketAddr, u32)| (count, end);
            if busiest.is_none_or(|before| key(before) < key(candidate)) {
                *busiest = Some(candidate);
            }
        }
        let mut externals: Vec<External> = externals.into_values().collect();
        externals.sort_by_key(|external| (external.address, external.protocol));
        externals
    }
}

#[cfg(test)]
mod tests {
    use lbha_common::{
        addr::Be32,
        wire::proto::{TCP, UDP},
    };

    use super::*;

    #[test]
    fn the_busiest_remote_end_is_found_by_address_and_protocol() {
        let [one, other, remote] = [1, 2, 9].map(Be32::new);
        let mut usage = Usage::default();
        for (external, protocol, port, times) in
            [(one, TCP, 80, 3), (one, TCP, 443, 5), (one, UDP, 53, 9), (other, TCP, 80, 4)]
        {
            for _ in 0..times {
                usage.saw(external, protocol, (remote, Be16::new(port)));
            }
        }
        usage.saw_binding(other, UDP);
        let row = |address: Be32, protocol, connections, busiest: Option<(u16, u32)>, bindings| {
            let busiest = busiest.map(|(port, n)| (SocketAddr::new(remote.ip(), port), n));
            External { address: address.ip(), protocol, connections, busiest, bindings }
        };
        let expected = [
            row(one, TCP, 8, Some((443, 5)), 0),
            row(one, UDP, 9, Some((53, 9)), 0),
            row(other, TCP, 4, Some((80, 4)), 0),
            row(other, UDP, 0, None, 1),
        ];
        assert_eq!(usage.externals(), expected);
    }
}
