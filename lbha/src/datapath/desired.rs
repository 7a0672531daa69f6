//! What the maps should hold: computed by `plan`, written by [`super::apply::Applier`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use lbha_common::nexthop::Tag;

/// An IPv4 prefix as (network, length). Next hops are known by the prefix of the route that they serve.
pub type Prefix = (Ipv4Addr, u8);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// By side ([`lbha_common::flow::side`]).
    pub interfaces: [Interface; 2],
    /// Side on which servers' packets come in.
    pub server_side: u8,
    pub services: BTreeMap<ServiceId, Service>,
    /// Routes to clients.
    pub routes: BTreeMap<Prefix, Route>,
    /// Next hops by prefix: those of `routes`, and those of the servers (as /32).
    pub hops: BTreeMap<Prefix, Hop>,
    /// Where prefixes lead now that are not in `hops` any more but that flows still refer to
    /// ([`super::apply::Applier::lingering_prefixes`]).
    pub lingering: BTreeMap<Prefix, Hop>,
    /// Addresses of this host. Those of services are added by themselves.
    pub local: BTreeSet<Ipv4Addr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Where frames go out; 0 when there is no such interface.
    pub ifindex: u32,
    pub mac: [u8; 6],
    /// Outermost first.
    pub vlans: Vec<Tag>,
}

/// VIP, port and protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    pub vip: Ipv4Addr,
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
    pub address: Ipv4Addr,
    pub port: u16,
    /// Mode `nat`: keep the client's address.
    pub keep_client: bool,
    /// Our address on its side.
    pub source: Option<Ipv4Addr>,
    /// First and last source port of translated connections.
    pub source_ports: (u16, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through the next hop of the same prefix.
    Hop,
    /// Directly connected: each neighbour has a /32 of its own.
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
