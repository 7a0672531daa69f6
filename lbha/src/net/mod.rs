//! What the kernel knows about links, addresses, routes and neighbours: the only user of netlink in the program.
//!
//! The XDP program never does a FIB lookup; the controller mirrors what this module says into BPF maps. Nothing here
//! knows of BPF. Reading order, from pure to impure:
//!
//! - [`prefix`]: a prefix of either family.
//! - [`state`]: [`NetState`], a snapshot of the kernel's tables, and the events that change it; `routes` for the routes
//!   that compete with each other.
//! - [`decode`]: netlink messages into those events.
//! - [`attach`]: where XDP attaches for a configured interface name, and which devices are "this side".
//! - [`fib`]: [`NetState`] and two ports into the small table that the datapath needs.
//! - [`arp`], [`ndp`], [`keeper`]: when to ask a neighbour for its MAC address, and with which packet.
//! - [`monitor`]: the task that keeps a [`NetState`] current; `dump` reads the kernel's tables for it.
//! - [`neigh`]: the task that keeps watched neighbours resolved and their MAC addresses true.
//! - `raw`: the packet sockets; the only unsafe code here.
//!
//! **Network namespace.** A socket belongs to the network namespace of the *thread* that created it, for life. The
//! daemon is started inside its namespace, so every thread qualifies; a test that unshares one thread must create and
//! drive everything on that thread (a current-thread runtime).
//!
//! **Families.** The kernel keeps each family's tables apart, here they are together: an `IpAddr` or [`IpPrefix`] in a key
//! says which family it is, and in that order IPv4 comes first. Where the kernel treats the families differently, the
//! function concerned says how.

pub mod arp;
pub mod attach;
pub mod decode;
mod dump;
pub mod fib;
pub mod keeper;
pub mod monitor;
pub mod ndp;
pub mod neigh;
pub mod prefix;
mod raw;
mod routes;
pub mod state;

pub use attach::{InterfaceError, Port, resolve_interface};
pub use fib::{Fib, RouteTarget, Side, forwarding};
pub use keeper::{Answer, Keeper, Watch};
pub use monitor::{Monitor, MonitorError, MonitorOptions};
pub use neigh::{NeighbourError, NeighbourKeeper, Neighbours};
pub use prefix::{Family, IpPrefix, PrefixError};
pub use raw::FrameSender;
pub use state::NetState;
