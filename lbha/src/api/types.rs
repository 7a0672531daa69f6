//! Contract types of the admin interface (`/v1`): what `-o json` prints. Fields are added, never renamed or removed.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

mod nat;

pub use self::nat::{Nat, NatBinding, NatExternal, NatQuery, NatRefused, NatSource};

/// `GET /v1/status`
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    pub version: String,
    /// Layout version of the pinned maps.
    pub abi: u32,
    pub pid: u32,
    pub uptime_seconds: u64,
    /// `None` when flags are all there is.
    pub config: Option<String>,
    /// Directory of the pins.
    pub pins: String,
    pub ready: bool,
    /// What an operator should look at, in words: generic mode, unresolved neighbours, no source address.
    pub warnings: Vec<String>,
    pub interfaces: Vec<Interface>,
    /// Over IPv4.
    pub flow_table: Table,
    pub half_open_table: Table,
    /// The same over IPv6.
    pub flow_table_v6: Table,
    pub half_open_table_v6: Table,
    /// Connections over IPv4 that masqueraded sources have open, and over IPv6.
    pub masqueraded: u64,
    pub masqueraded_v6: u64,
    pub services: usize,
    pub servers: usize,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Interface {
    /// `public` or `private`.
    pub side: String,
    /// As configured.
    pub name: String,
    /// Where the program is attached: the interface itself, or the device below a VLAN.
    pub attached_to: String,
    pub ifindex: u32,
    pub mac: String,
    pub mtu: u32,
    /// VLAN ids of its frames, outermost first.
    pub vlans: Vec<u16>,
    /// `native`, `generic` or `detached`.
    pub mode: String,
    /// Whether the program takes multi-buffer packets (large MTUs).
    pub multi_buffer: bool,
    pub program_id: Option<u32>,
    pub forwarded_packets: u64,
    pub forwarded_bytes: u64,
    pub passed_packets: u64,
    pub dropped_packets: u64,
}

/// Usage of a flow table, in connections.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Table {
    pub connections: u64,
    pub capacity: u64,
}

/// Packets and bytes of IP, and connections.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Traffic {
    /// Connections begun.
    pub connections: u64,
    /// Connections confirmed by the client.
    pub established: u64,
    /// Confirmed connections in the flow table at the last sweep.
    pub current: u64,
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
}

/// `GET /v1/services`
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Service {
    pub name: String,
    pub vip: IpAddr,
    pub port: u16,
    pub protocol: String,
    pub scheduler: String,
    pub mode: String,
    pub pool: String,
    pub servers: usize,
    /// Servers that new connections can reach: weight above 0 and next hop resolved.
    pub usable_servers: usize,
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// `GET /v1/servers`: a server of a service; one that serves two services is there twice.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Server {
    pub service: String,
    pub pool: String,
    pub name: String,
    pub address: SocketAddr,
    pub weight: u16,
    /// `usable`, `unresolved` (no MAC address yet), `no_source` (no address of ours on its side) or `retired` (taken out
    /// of the configuration, with connections left).
    pub state: String,
    /// MAC address of the next hop, once it is known.
    pub mac: Option<String>,
    /// Source address of `fullnat` connections to it.
    pub source: Option<IpAddr>,
    /// Its part of the service's connections, 0 to 1.
    pub share: f64,
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// Parameters of `GET /v1/flows`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct FlowQuery {
    /// At most so many; 1000 when absent.
    pub limit: Option<usize>,
    pub service: Option<String>,
    pub server: Option<String>,
    pub client: Option<IpAddr>,
    pub state: Option<String>,
}

/// `GET /v1/flows`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Flows {
    pub flows: Vec<Flow>,
    /// More matched than `limit`.
    pub truncated: bool,
}

/// A connection.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Flow {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// `syn`, `established`, `fin_wait`, `time_wait`, `reset`, `unreplied`, `udp`, `opening`, `closing` or `icmp`.
    pub state: String,
    /// Name of the service or forward; `None` when it is no longer configured.
    pub service: Option<String>,
    pub server: Option<String>,
    /// Of masqueraded connections: the sources of the rule, or `removed`. The client is the host that opened the connection, `vip` the
    /// address that it opened it to.
    pub masquerade: Option<String>,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    /// What the server, or the remote host, sees as the client.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub age_seconds: u64,
    pub idle_seconds: u64,
    pub expires_seconds: u64,
}

/// `GET /v1/drops`: every verdict of an interface, with its reason.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct InterfaceCounters {
    pub side: String,
    pub name: String,
    pub counters: Vec<Counter>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Counter {
    pub reason: String,
    /// `forward`, `pass`, `drop`, `hold` (kept for a moment) or `answer` (sent by the program itself).
    pub verdict: String,
    pub packets: u64,
    pub help: String,
}
