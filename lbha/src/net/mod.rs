//! What the kernel knows about links, addresses, routes and neighbours: the only user of netlink in the program.
//!
//! The XDP program never does a FIB lookup; the controller mirrors what this module says into BPF maps. Nothing here
//! knows of BPF. Reading order, from pure to impure:
//!
//! - [`prefix`]: an IPv4 prefix.
//! - [`state`]: [`NetState`], a snapshot of the kernel's tables, and the events that change it.
//! - [`decode`]: netlink messages into those events.
//! - [`attach`]: where XDP attaches for a configured interface name, and which devices are "this side".
//! - [`fib`]: [`NetState`] and two ports into the small table that the datapath needs.
//! - [`arp`], [`keeper`]: when to ask a neighbour for its MAC address, and with which packet.
//! - [`monitor`]: the task that keeps a [`NetState`] current.
//! - [`neigh`]: the task that keeps watched neighbours resolved and their MAC addresses true.
//! - `raw`: the packet socket; the only unsafe code here.
//!
//! **Network namespace.** A socket belongs to the network namespace of the *thread* that created it, for life. The
//! daemon is started inside its namespace, so every thread qualifies; a test that unshares one thread must create and
//! drive everything on that thread (a current-thread runtime).
//!
//! IPv6 has its own tables in the kernel and will have its own maps here: keys carry the family in their type
//! (`Ipv4Addr`), and events of other families are ignored in [`decode`].

pub mod arp;
pub mod attach;
pub mod decode;
pub mod fib;
mod ip_prefix;
pub mod keeper;
pub mod monitor;
pub mod neigh;
pub mod prefix;
mod raw;
pub mod state;

pub use attach::{InterfaceError, Port, resolve_interface};
pub use fib::{Fib, RouteTarget, Side, forwarding};
pub use ip_prefix::{IpPrefix, PrefixError};
pub use keeper::{Keeper, Watch};
pub use monitor::{Monitor, MonitorError, MonitorOptions};
pub use neigh::{NeighbourError, NeighbourKeeper, Neighbours};
pub use prefix::Ipv4Prefix;
pub use state::NetState;
