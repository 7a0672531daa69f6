//! The typed configuration: what the rest of the program sees once every check has passed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::net::IpPrefix;

/// Declares an enum whose values are words of the configuration, with one list for reading,
/// printing and JSON, so that the three spellings cannot drift apart.
macro_rules! keywords {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word of the configuration file.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl Keyword for $name {
            const WHAT: &'static str = $what;

            fn words() -> impl Iterator<Item = (&'static str, Self)> {
                Self::ALL.iter().map(|value| (value.as_str(), *value))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

/// A value that is written as one word out of a fixed list.
pub(super) trait Keyword: Sized {
    /// What a message calls it.
    const WHAT: &'static str;

    fn words() -> impl Iterator<Item = (&'static str, Self)>;
}

/// A configuration without errors: names are unique, references lead somewhere, numbers are in
/// their ranges. Only [`load`](super::load) makes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    pub interfaces: Interfaces,
    /// In the order of the file, like everything else that there may be several of. There is a
    /// service, a masquerade or a forward at least.
    pub services: Vec<Service>,
    /// Including pools that no service uses.
    pub pools: Vec<Pool>,
    /// No address is in the sources of two.
    pub masquerades: Vec<Masquerade>,
    pub forwards: Vec<Forward>,
    pub datapath: Datapath,
    pub timeouts: Timeouts,
    pub admin: Admin,
}

impl Config {
    /// The pool with this name. Every [`Service::pool`] has one.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }
}

/// The two interfaces; the same one twice is a load balancer with one arm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interfaces {
    pub public: String,
    pub private: String,
}

/// One elastic address, port and protocol, and the pool that answers there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    pub name: String,
    /// Of the same family as all servers of the pool.
    pub vip: IpAddr,
    /// Never 0.
    pub port: u16,
    pub protocol: Protocol,
    pub scheduler: Scheduler,
    pub mode: Mode,
    pub pool: String,
}

/// Servers that can stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    pub name: String,
    /// At least one, at most [`MAX_SERVERS`].
    pub servers: Vec<Server>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    pub name: String,
    pub address: IpAddr,
    /// `None`: the port of the service. Never 0.
    pub port: Option<u16>,
    /// 0 to [`MAX_WEIGHT`], 1 unless set. 0 means: no new connections, whatever the scheduler.
    pub weight: u16,
}

/// Networks whose outbound connections leave with an address of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Masquerade {
    /// At least one, of either family or both; never a whole family.
    #[serde(serialize_with = "prefixes")]
    pub source: Vec<IpPrefix>,
    pub to: MasqueradeTo,
    /// The source ports, and the identifiers of ICMP queries, that connections leave with.
    pub ports: PortRange,
    pub mapping: Mapping,
    /// What one source address may have open at a time, at least 1.
    pub max_ports_per_source: u32,
}

impl Masquerade {
    /// The ports unless the file says otherwise: those that Linux does not give to the host's own
    /// connections.
    pub const PORTS: PortRange = PortRange { first: 1024, last: LAST_FREE_PORT };
    /// Half of the default ports, so that no single host can use up those of all others.
    pub const MAX_PORTS_PER_SOURCE: u32 = 16_384;
}

/// The addresses that masqueraded connections leave with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MasqueradeTo {
    /// The elastic address once VRRP moves one, else that of the public interface.
    #[default]
    Auto,
    /// The public interface's primary address.
    Interface,
    /// These: at least one of each family that the source has, and at most
    /// [`MAX_MASQUERADE_ADDRESSES`] of each; none twice.
    Addresses(Vec<IpAddr>),
}

impl Serialize for MasqueradeTo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Interface => serializer.serialize_str("interface"),
            Self::Addresses(addresses) => addresses.serialize(serializer),
        }
    }
}

/// One address, port and protocol that leads to one host behind the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forward {
    /// Shown with its connections; no service and no other forward has it.
    pub name: Option<String>,
    /// Where connections come in. The port is never 0.
    pub address: SocketAddr,
    /// Where they go, of the same family. The port is never 0.
    pub to: SocketAddr,
    pub protocol: Protocol,
}

keywords! {
    /// What is balanced: connections, or exchanges of datagrams.
    Protocol, "protocol" {
        #[default] Tcp = "tcp",
        Udp = "udp",
    }
}

keywords! {
    /// How a new connection finds its server.
    Scheduler, "scheduler" {
        /// In turn.
        #[default] Rr = "rr",
        /// In turn, as often as the weight says.
        Wrr = "wrr",
        /// By a hash of addresses and ports that changes little when a server comes or goes.
        Maglev = "maglev",
        /// By the client's address alone: one client stays on one server.
        Source = "source",
    }
}

keywords! {
    /// What a server sees as the client.
    Mode, "mode" {
        /// The private address of this host, so replies come back without any routing.
        #[default] Fullnat = "fullnat",
        /// The client's own address; this host is the servers' gateway.
        Nat = "nat",
    }
}

keywords! {
    /// What the public port of a masqueraded connection depends on (RFC 4787 §4.1).
    Mapping, "mapping" {
        /// Also on the destination: a port serves connections to many of them at once.
        #[default] EndpointDependent = "endpoint-dependent",
        /// On the source alone: a source port keeps its public port, whatever it talks to.
        EndpointIndependent = "endpoint-independent",
    }
}

keywords! {
    /// Where the XDP program runs.
    Attach, "attach mode" {
        /// In the driver when it can, else generic.
        #[default] Auto = "auto",
        Native = "native",
        Generic = "generic",
    }
}

/// Sizes and places of the XDP program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Datapath {
    pub attach: Attach,
    /// Over IPv4.
    pub max_connections: u32,
    /// Over IPv6.
    pub max_connections_v6: u32,
    pub max_half_open: u32,
    /// Source ports that `fullnat` services use towards the servers.
    pub fullnat_ports: PortRange,
    pub mss_clamp: MssClamp,
    /// Whether the elastic addresses answer ping.
    pub ping: bool,
}

impl Default for Datapath {
    fn default() -> Self {
        Self {
            attach: Attach::Auto,
            max_connections: 1_000_000,
            max_connections_v6: 250_000,
            max_half_open: 65_536,
            fullnat_ports: PortRange { first: 1024, last: LAST_FREE_PORT },
            mss_clamp: MssClamp::Auto,
            ping: true,
        }
    }
}

/// What happens to the maximum segment size in the SYNs of forwarded connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MssClamp {
    /// Lowered to what fits through both interfaces.
    #[default]
    Auto,
    /// Left alone.
    Off,
    /// Lowered to this, [`MIN_MSS`] to [`MAX_MSS`].
    To(u16),
}

impl Serialize for MssClamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Off => serializer.serialize_str("off"),
            Self::To(size) => serializer.serialize_u16(*size),
        }
    }
}

/// Ports from `first` to `last`, both included; neither is 0 and they are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    /// How many ports there are: 1 to 65535.
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How long a connection is kept without a packet, by its state. All are whole milliseconds
/// from one second to 30 days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    #[serde(serialize_with = "as_text")]
    pub tcp_established: Duration,
    /// One side has closed.
    #[serde(serialize_with = "as_text")]
    pub tcp_fin_wait: Duration,
    /// Both sides have closed.
    #[serde(serialize_with = "as_text")]
    pub tcp_time_wait: Duration,
    /// After a RST, unless the connection turns out to live on.
    #[serde(serialize_with = "as_text")]
    pub tcp_reset: Duration,
    /// Half open: the client has not answered the server's SYN-ACK.
    #[serde(serialize_with = "as_text")]
    pub tcp_syn: Duration,
    /// Packets were seen in both directions.
    #[serde(serialize_with = "as_text")]
    pub udp: Duration,
    /// Only the client has sent.
    #[serde(serialize_with = "as_text")]
    pub udp_unreplied: Duration,
    /// A masqueraded connection whose handshake is not complete.
    #[serde(serialize_with = "as_text")]
    pub masquerade_tcp_opening: Duration,
    /// A masqueraded connection that one side or both have closed.
    #[serde(serialize_with = "as_text")]
    pub masquerade_tcp_closing: Duration,
    /// ICMP queries, such as ping.
    #[serde(serialize_with = "as_text")]
    pub icmp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // RFC 5382 §5 REQ-5: not less than 2 hours 4 minutes.
            tcp_established: Duration::from_secs(124 * 60),
            tcp_fin_wait: Duration::from_secs(120),
            tcp_time_wait: Duration::from_secs(60),
            tcp_reset: Duration::from_secs(240),
            tcp_syn: Duration::from_secs(60),
            // RFC 4787 §4.3 REQ-5 recommends 5 minutes, and asks for at least 2.
            udp: Duration::from_secs(300),
            udp_unreplied: Duration::from_secs(120),
            // RFC 5382 §5 REQ-5: not less than 4 minutes.
            masquerade_tcp_opening: Duration::from_secs(240),
            masquerade_tcp_closing: Duration::from_secs(240),
            // RFC 5508 §3.2 REQ-2: not less than 60 seconds.
            icmp: Duration::from_secs(60),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Admin {
    pub socket: PathBuf,
}

/// A duration as the file spells it, such as `2h4m` or `500ms`.
pub fn duration_text(duration: Duration) -> String {
    use fmt::Write;

    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (unit, millis) in UNITS {
        let count = rest / millis;
        rest %= millis;
        if count > 0 {
            write!(text, "{count}{unit}").expect("invariant: a String takes all text");
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn as_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&duration_text(*duration))
}

fn prefixes<S: Serializer>(prefixes: &[IpPrefix], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(prefixes.iter().map(IpPrefix::to_string))
}

/// The units of durations with their length in milliseconds, longest first.
pub(super) const UNITS: [(&str, u128); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The directory for sockets and state, unless `--runtime-dir` names another.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/lbha";
/// The admin socket's name in the runtime directory.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// Services and forwards together.
pub const MAX_SERVICES: usize = 4096;
pub const MAX_SERVERS: usize = 255;
pub const MAX_WEIGHT: u16 = 256;
pub const MAX_MASQUERADES: usize = 256;
/// Networks over all masquerades.
pub const MAX_MASQUERADE_SOURCES: usize = 4096;
/// Addresses of each family that one masquerade may use.
pub const MAX_MASQUERADE_ADDRESSES: usize = 8;
/// RFC 9293 §3.7.1: what a host assumes that is told nothing.
pub const MIN_MSS: u16 = 536;
/// The largest IPv4 packet without its headers.
pub const MAX_MSS: u16 = 65_495;
/// The last port below those that Linux gives to the host's own connections.
pub const LAST_FREE_PORT: u16 = 32_767;

// A Maglev table of 65537 slots gives each unit of weight its slot, even in the largest pool.
const _: () = assert!(MAX_SERVERS * (MAX_WEIGHT as usize) < 65_537);
