//! Per-CPU counters of interfaces and servers.

use crate::counter::Counter;

/// Counters of one interface: packets by verdict, and bytes forwarded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceStats {
    /// Indexed by [`Counter`]; the surplus keeps the layout when counters are added.
    pub packets: [u64; Counter::ROOM],
    /// Bytes of forwarded IP packets.
    pub forwarded_bytes: u64,
}

/// Counters of one server of one service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendStats {
    /// Connections begun (a first packet was sent to the server).
    pub connections: u64,
    /// Connections that the client has confirmed.
    pub established: u64,
    /// From clients to the server.
    pub packets_in: u64,
    /// IP bytes from clients to the server.
    pub bytes_in: u64,
    /// From the server to clients.
    pub packets_out: u64,
    /// IP bytes from the server to clients.
    pub bytes_out: u64,
}

impl Default for InterfaceStats {
    fn default() -> Self {
        Self { packets: [0; Counter::ROOM], forwarded_bytes: 0 }
    }
}

impl InterfaceStats {
    pub fn add(&mut self, other: &Self) {
        let Self { packets, forwarded_bytes } = self;
        for (sum, value) in packets.iter_mut().zip(other.packets) {
            *sum += value;
        }
        *forwarded_bytes += other.forwarded_bytes;
    }
}

impl BackendStats {
    pub fn add(&mut self, other: &Self) {
        let Self { connections, established, packets_in, bytes_in, packets_out, bytes_out } = self;
        *connections += other.connections;
        *established += other.established;
        *packets_in += other.packets_in;
        *bytes_in += other.bytes_in;
        *packets_out += other.packets_out;
        *bytes_out += other.bytes_out;
    }
}
