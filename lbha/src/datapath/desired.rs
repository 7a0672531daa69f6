//! What the maps should hold: computed by `plan`, written by [`super::apply::Applier`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lbha_common::nexthop::Tag;

use crate::net::IpPrefix;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// By side ([`lbha_common::flow::side`]).
    pub interfaces: [Interface; 2],
    /// Side on which servers' packets come in.
    pub server_side: u8,
    pub settings: Settings,
    /// By side: our own addresses there, from which ICMP errors are sent.
    pub error_sources: [ErrorSources; 2],
    pub services: BTreeMap<ServiceId, Service>,
    /// No prefix is a source of two.
    pub masquerades: Vec<Masquerade>,
    /// Routes to clients, and for masqueraded connections.
    pub routes: BTreeMap<IpPrefix, Route>,
    /// Next hops by the prefix of the route that they serve: those of `routes`, and those of the servers (as /32, /128).
    pub hops: BTreeMap<IpPrefix, Hop>,
    /// Where prefixes lead now that are not in `hops` any more but that flows still refer to
    /// ([`super::apply::Applier::lingering_prefixes`]).
    pub lingering: BTreeMap<IpPrefix, Hop>,
    /// Addresses of this host. Those of services and masquerades are added by themselves.
    pub local: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Where frames go out; 0 when there is no such interface.
    pub ifindex: u32,
    pub mac: [u8; 6],
    /// Outermost first.
    pub vlans: Vec<Tag>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// VIPs answer ping.
    pub ping: bool,
    /// The MSS in SYNs is lowered to what fits, and to `mss`.
    pub clamp_mss: bool,
    /// The largest MSS over IPv4, and over IPv6; 0 for no limit but what fits.
    pub mss: [u16; 2],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorSources {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

/// VIP, port and protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    pub vip: IpAddr,
    pub port: u16,
    pub protocol: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// One of [`lbha_common::service::pick`].
    pub pick: u8,
    pub seed: u32,
    pub servers: Vec<Server>,
    /// Indices into `servers`, in the order in which connections go to them.
    pub slots: Vec<u16>,
}

/// A server of a service is known by where its connections go: two with the same address and port would be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Of the VIP's family.
    pub address: IpAddr,
    pub port: u16,
    /// Mode `nat`: keep the client's address.
    pub keep_client: bool,
    /// Our address on its side.
    pub source: Option<IpAddr>,
    /// First and last source port of translated connections.
    pub source_ports: (u16, u16),
}

/// Where connections from some networks get their external address and port. It is known by its sources: one that has
/// any of them in common with one before is that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// Of either family, or both.
    pub sources: Vec<IpPrefix>,
    /// Of either family; at most [`lbha_common::masquerade::MAX_ADDRESSES`] of each. None of a family that `sources` has:
    /// connections of that family are refused.
    pub externals: Vec<IpAddr>,
    /// First and last external port.
    pub ports: (u16, u16),
    /// Connections that one source may have.
    pub max_ports: u32,
    /// One external port serves all remote hosts.
    pub endpoint_independent: bool,
}

impl Masquerade {
    /// All external addresses of some rules.
    pub fn externals_of(masquerades: &[Self]) -> BTreeSet<IpAddr> {
        masquerades.iter().flat_map(|masquerade| masquerade.externals.iter().copied()).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through the next hop of the same prefix.
    Hop,
    /// Directly connected: each neighbour has a /32 or /128 of its own.
    OnLink,
    /// Through no interface of ours.
    Unreachable,
}

/// Where a next hop leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    pub side: u8,
    /// `None` while the neighbour is not resolved.
    pub dmac: Option<[u8; 6]>,
    pub smac: [u8; 6],
    pub mtu: u16,
    /// Outermost first.
    pub tags: Vec<Tag>,
}
