//! The configuration on its way: each value with its origin, absent where an error was reported.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::diagnostics::{Origin, Problem};
use super::model::{
    Admin, Config, Datapath, Forward, Interfaces, Mapping, Masquerade, MasqueradeTo, Mode, Pool,
    PortRange, Protocol, Scheduler, Server, Service, Timeouts,
};
use crate::net::IpPrefix;

/// A value and the place to point to when it does not fit the others.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub value: T,
    pub origin: Origin,
}

/// What the file and the flags say together. `None` in a field means that an error about it has
/// been reported, except where noted, so that later checks neither stop nor repeat it.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub interfaces: DraftInterfaces,
    pub services: Vec<DraftService>,
    pub masquerades: Vec<DraftMasquerade>,
    pub forwards: Vec<DraftForward>,
    /// There are services, masquerades or forwards that could not be read, and that has been
    /// reported.
    pub unreadable: bool,
    pub pools: Vec<DraftPool>,
    /// There are pools, but they could not be read, and that has been reported.
    pub pools_unreadable: bool,
    pub datapath: Option<Datapath>,
    pub timeouts: Option<Timeouts>,
    /// Warnings of timeouts that are too short for a NAT, for when this is to be one.
    pub short_timeouts: Vec<Problem>,
    /// `None` also when the file does not say.
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Default)]
pub(super) struct DraftInterfaces {
    /// The table's place, when there is one.
    pub table: Option<Origin>,
    pub public: Field<String>,
    pub private: Field<String>,
}

#[derive(Debug)]
pub(super) struct DraftService {
    pub name: Option<Located<String>>,
    pub vip: Option<Located<IpAddr>>,
    pub port: Option<Located<u16>>,
    pub protocol: Option<Protocol>,
    pub scheduler: Option<Scheduler>,
    pub mode: Option<Mode>,
    pub pool: Option<Located<String>>,
    pub origin: Origin,
}

#[derive(Debug)]
pub(super) struct DraftPool {
    pub name: Option<Located<String>>,
    /// `None`: not readable as a list. Members are all there, readable or not.
    pub servers: Option<Vec<DraftServer>>,
}

#[derive(Debug)]
pub(super) struct DraftServer {
    pub name: Option<Located<String>>,
    pub address: Option<Located<(IpAddr, Option<u16>)>>,
    pub weight: Option<Located<u16>>,
}

#[derive(Debug)]
pub(super) struct DraftMasquerade {
    pub source: Listed<IpPrefix>,
    pub to: Option<Located<DraftTo>>,
    pub ports: Option<PortRange>,
    pub mapping: Option<Mapping>,
    pub max_ports_per_source: Option<u32>,
    pub origin: Origin,
}

#[derive(Debug)]
pub(super) enum DraftTo {
    Auto,
    Interface,
    Addresses(Listed<IpAddr>),
}

#[derive(Debug)]
pub(super) struct DraftForward {
    pub name: Field<String>,
    pub address: Option<Located<SocketAddr>>,
    pub to: Option<Located<SocketAddr>>,
    pub protocol: Option<Protocol>,
    pub origin: Origin,
}

/// The elements of a list.
#[derive(Debug)]
pub(super) struct Listed<T> {
    /// Those that could be read.
    pub items: Vec<Located<T>>,
    /// They are all.
    pub complete: bool,
}

impl<T> Listed<T> {
    fn finish(self) -> Option<Vec<T>> {
        self.complete.then(|| self.items.into_iter().map(|item| item.value).collect())
    }
}

/// What was found under one key.
#[derive(Clone, Debug, Default)]
pub(super) enum Field<T> {
    #[default]
    Absent,
    /// Present, and an error about it has been reported.
    Invalid,
    Valid(Located<T>),
}

impl<T> Field<T> {
    /// The value, or `default` when the key is absent.
    pub(super) fn or(self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Invalid => None,
            Self::Valid(found) => Some(found.value),
        }
    }

    pub(super) fn valid(self) -> Option<Located<T>> {
        match self {
            Self::Valid(found) => Some(found),
            Self::Absent | Self::Invalid => None,
        }
    }
}

impl Draft {
    /// The finished configuration, unless something is missing. Call it only when no error has
    /// been reported; it checks nothing itself.
    pub(super) fn finish(self, default_socket: PathBuf) -> Option<Config> {
        let public = self.interfaces.public.valid()?.value;
        let private = self.interfaces.private.or(public.clone())?;
        Some(Config {
            interfaces: Interfaces { public, private },
            services: self.services.into_iter().map(DraftService::finish).collect::<Option<_>>()?,
            pools: self.pools.into_iter().map(DraftPool::finish).collect::<Option<_>>()?,
            masquerades: self
                .masquerades
                .into_iter()
                .map(DraftMasquerade::finish)
                .collect::<Option<_>>()?,
            forwards: self.forwards.into_iter().map(DraftForward::finish).collect::<Option<_>>()?,
            datapath: self.datapath?,
            timeouts: self.timeouts?,
            admin: Admin { socket: self.socket.unwrap_or(default_socket) },
        })
    }
}

impl DraftService {
    fn finish(self) -> Option<Service> {
        Some(Service {
            name: self.name?.value,
            vip: self.vip?.value,
            port: self.port?.value,
            protocol: self.protocol?,
            scheduler: self.scheduler?,
            mode: self.mode?,
            pool: self.pool?.value,
        })
    }
}

impl DraftPool {
    fn finish(self) -> Option<Pool> {
        let servers = self.servers?.into_iter().map(DraftServer::finish).collect::<Option<_>>()?;
        Some(Pool { name: self.name?.value, servers })
    }
}

impl DraftServer {
    fn finish(self) -> Option<Server> {
        let (address, port) = self.address?.value;
        Some(Server { name: self.name?.value, address, port, weight: self.weight?.value })
    }
}

impl DraftMasquerade {
    fn finish(self) -> Option<Masquerade> {
        Some(Masquerade {
            source: self.source.finish()?,
            to: match self.to?.value {
                DraftTo::Auto => MasqueradeTo::Auto,
                DraftTo::Interface => MasqueradeTo::Interface,
                DraftTo::Addresses(list) => MasqueradeTo::Addresses(list.finish()?),
            },
            ports: self.ports?,
            mapping: self.mapping?,
            max_ports_per_source: self.max_ports_per_source?,
        })
    }
}

impl DraftForward {
    fn finish(self) -> Option<Forward> {
        let name = match self.name {
            Field::Absent => None,
            Field::Invalid => return None,
            Field::Valid(name) => Some(name.value),
        };
        let (address, to) = (self.address?.value, self.to?.value);
        Some(Forward { name, address, to, protocol: self.protocol? })
    }
}
