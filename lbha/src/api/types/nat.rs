//! Contract types of `GET /v1/nat`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Parameters of `GET /v1/nat`. Each narrows the lists whose rows have what it names.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct NatQuery {
    /// At most so many bindings; 1000 when absent.
    pub limit: Option<usize>,
    /// A masqueraded host.
    pub source: Option<IpAddr>,
    pub external: Option<IpAddr>,
    /// A remote host.
    pub remote: Option<IpAddr>,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: Option<String>,
}

/// `GET /v1/nat`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Nat {
    /// By address, then protocol: TCP, UDP and ICMP for each address that masquerade rules have.
    pub externals: Vec<NatExternal>,
    /// Those with the most connections at the last sweep, in order; the hundred largest of each family, or the one that
    /// was asked for.
    pub sources: Vec<NatSource>,
    pub refused: NatRefused,
    /// By inside address and port, protocol, external and remote end.
    pub bindings: Vec<NatBinding>,
    /// Bindings that match, however many are listed.
    pub total: u64,
    /// More matched than `limit`.
    pub truncated: bool,
}

/// What is in use of an external address for one protocol, as the last sweep found it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NatExternal {
    pub address: IpAddr,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Connections that have it.
    pub connections: u64,
    /// Ports of the rules that use it, without those that services and forwards have there. `None` when no rule uses it any
    /// more.
    pub ports: Option<u32>,
    /// What is used up first: the ports in use towards the busiest remote end, or with endpoint-independent mapping those
    /// that are bound, if they are more.
    pub used: u64,
    pub percent: Option<f64>,
    /// The remote end with the most connections, and how many ports those take.
    pub busiest: Option<SocketAddr>,
    pub busiest_ports: u32,
    /// Ports bound by endpoint-independent mapping.
    pub bound: u64,
    /// By how many `used` grows in a second, smoothed over the last sweeps; negative when it shrinks. `None` before the
    /// second sweep.
    pub growth: Option<f64>,
    /// When no port is left if it goes on like that. `None` when it does not grow, or takes more than a day.
    pub exhausted_in_seconds: Option<u64>,
}

/// A masqueraded host.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NatSource {
    pub address: IpAddr,
    pub connections: u32,
    /// `max_ports_per_source` of its rule. `None` when it has none any more.
    pub quota: Option<u32>,
    pub percent: Option<f64>,
}

/// Packets of new connections that were refused since the program was loaded. The program does not count by address.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct NatRefused {
    pub no_free_port: u64,
    pub source_quota: u64,
    pub no_external_address: u64,
}

/// A masqueraded connection; or a port that stays bound to a host's port without one (endpoint-independent mapping). Of ICMP
/// the port is the query's identifier, and that of the remote end 0.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NatBinding {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    pub inside: SocketAddr,
    pub external: SocketAddr,
    /// `None` without a connection.
    pub remote: Option<SocketAddr>,
    /// As of [`super::Flow::state`], or `bound` without a connection.
    pub state: String,
    /// `out`; `in` when a remote host has opened it to a bound port; `hairpin` when the remote end is another private host's
    /// binding; `any` without a connection.
    pub direction: String,
    pub age_seconds: u64,
    /// `None` without a connection.
    pub idle_seconds: Option<u64>,
    /// The sources of the rule.
    pub rule: String,
}
