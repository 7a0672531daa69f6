//! The network of the tests that run the object: the guide's, in both families, with or without masquerade.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lbha::datapath::{
    Desired,
    desired::{
        ErrorSources, Hop, Interface, Masquerade, Route, Server, Service, ServiceId, Settings,
    },
};
pub use lbha::net::IpPrefix;
use lbha_common::{addr::Be16, flow::side, nexthop::Tag, service::pick};

use super::TCP;

pub const VIP: Ipv4Addr = Ipv4Addr::new(147, 75, 78, 116);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The load balancer's own addresses. Masqueraded connections leave from the public one.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(147, 75, 104, 177);
pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
pub const WEB: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 168, 1, 10), Ipv4Addr::new(192, 168, 1, 11)];
/// A host on the internet that masqueraded connections go to, behind the same router as the client.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x78, 0, 0, 0, 0, 0x116);
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0x10);
pub const PUBLIC6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x104, 0, 0, 0, 0, 2);
pub const PRIVATE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);
pub const WEB6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x10), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x11)];
pub const REMOTE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0x10);

/// The servers' networks, which [`gateway`] masquerades.
pub const SOURCES: &str = "192.168.1.0/24";
pub const SOURCES6: &str = "fd00:1::/64";

pub const PUBLIC_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PRIVATE_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const WEB_MAC: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 0x10], [2, 0, 0, 0, 1, 0x11]];

/// The service `www` of the guide.
pub const WWW: ServiceId = ServiceId { vip: IpAddr::V4(VIP), port: 80, protocol: TCP };
/// The same over IPv6.
pub const WWW6: ServiceId = ServiceId { vip: IpAddr::V6(VIP6), port: 80, protocol: TCP };

/// The guide's network: `www` on the elastic addresses, round robin over two servers, everything resolved. Nothing is
/// masqueraded.
pub fn desired() -> Desired {
    let routes = [
        (IpPrefix::DEFAULT_V4, Route::Hop),
        (IpPrefix::DEFAULT_V6, Route::Hop),
        (prefix(SOURCES), Route::OnLink),
        (prefix(SOURCES6), Route::OnLink),
    ];
    let routers = [IpPrefix::DEFAULT_V4, IpPrefix::DEFAULT_V6];
    let mut desired = Desired {
        // The loopback device stands for both: nothing is sent, the map only has to have an entry.
        interfaces: [
            Interface { ifindex: 1, mac: PUBLIC_MAC, vlans: vec![] },
            Interface { ifindex: 1, mac: PRIVATE_MAC, vlans: vec![] },
        ],
        server_side: side::PRIVATE,
        settings: Settings { ping: true, clamp_mss: true, mss: [0, 0] },
        error_sources: [
            ErrorSources { v4: Some(PUBLIC), v6: Some(PUBLIC6) },
            ErrorSources { v4: Some(PRIVATE), v6: Some(PRIVATE6) },
        ],
        services: BTreeMap::from([
            (WWW, service(WEB, PRIVATE.into())),
            (WWW6, service(WEB6, PRIVATE6.into())),
        ]),
        masquerades: vec![],
        routes: routes.into(),
        hops: routers.map(|prefix| (prefix, public_hop(ROUTER_MAC))).into(),
        lingering: BTreeMap::new(),
        local: [PUBLIC.into(), PRIVATE.into(), PUBLIC6.into(), PRIVATE6.into()].into(),
    };
    for (n, mac) in WEB_MAC.into_iter().enumerate() {
        for addr in [WEB[n].into(), WEB6[n].into()] {
            let host = IpPrefix::host(addr);
            desired.hops.insert(host, private_hop(mac));
        }
    }
    desired
}

/// [`desired`], with the servers' networks masqueraded to the load balancer's public addresses. Servers have routes of
/// their own, as the daemon makes them for all neighbours that it knows.
pub fn gateway() -> Desired {
    let mut desired = Desired { masquerades: vec![masquerade()], ..desired() };
    for n in 0..WEB.len() {
        desired.routes.extend([host(WEB[n]), host(WEB6[n])].map(|host| (host, Route::Hop)));
    }
    desired
}

/// The rule of [`gateway`].
pub fn masquerade() -> Masquerade {
    Masquerade {
        sources: vec![prefix(SOURCES), prefix(SOURCES6)],
        externals: vec![PUBLIC.into(), PUBLIC6.into()],
        ports: (1024, 32767),
        max_ports: 16_384,
        endpoint_independent: false,
    }
}

fn service(servers: [impl Into<IpAddr>; 2], source: IpAddr) -> Service {
    let server = |address| Server {
        address,
        port: 80,
        keep_client: false,
        source: Some(source),
        source_ports: (1024, 32767),
    };
    Service {
        pick: pick::COUNTER,
        seed: 7,
        servers: servers.into_iter().map(|address| server(address.into())).collect(),
        slots: vec![0, 1],
    }
}

/// A prefix as it is written.
#[track_caller]
pub fn prefix(text: &str) -> IpPrefix {
    text.parse().expect("a prefix")
}

/// The prefix that stands for one address.
pub fn host(addr: impl Into<IpAddr>) -> IpPrefix {
    IpPrefix::host(addr.into())
}

/// A VLAN tag: the type, and the TCI with its priority bits.
pub fn tag(tpid: u16, tci: u16) -> Tag {
    Tag { tpid: Be16::new(tpid), tci: Be16::new(tci) }
}

/// The service `www` in [`desired`], to be changed.
pub fn www(desired: &mut Desired) -> &mut Service {
    desired.services.get_mut(&WWW).expect("the guide's service")
}

/// The same over IPv6.
pub fn www6(desired: &mut Desired) -> &mut Service {
    desired.services.get_mut(&WWW6).expect("the guide's service")
}

/// A neighbour on the internet side.
pub fn public_hop(dmac: [u8; 6]) -> Hop {
    Hop { side: side::PUBLIC, dmac: Some(dmac), smac: PUBLIC_MAC, mtu: 1500, tags: vec![] }
}

/// A neighbour on the servers' side.
pub fn private_hop(dmac: [u8; 6]) -> Hop {
    Hop { side: side::PRIVATE, dmac: Some(dmac), smac: PRIVATE_MAC, mtu: 1500, tags: vec![] }
}

/// Client `n`'s socket: the port out of the load balancer's own range.
pub fn client(n: u16) -> SocketAddr {
    at(CLIENT, 40000 + n)
}

pub fn client6(n: u16) -> SocketAddr {
    at(CLIENT6, 40000 + n)
}

pub fn vip() -> SocketAddr {
    at(VIP, 80)
}

pub fn vip6() -> SocketAddr {
    at(VIP6, 80)
}

/// A web server of the host on the internet.
pub fn remote() -> SocketAddr {
    at(REMOTE, 80)
}

pub fn remote6() -> SocketAddr {
    at(REMOTE6, 80)
}

pub fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// The address of an IPv4 socket.
#[track_caller]
pub fn v4(of: SocketAddr) -> Ipv4Addr {
    match of.ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address} is not IPv4"),
    }
}
