//! The guide's network in namespaces: client, router, load balancer, layer 2 VLAN, web servers.
//!
//! ```text
//!  client            router                     lb                         vlan (bridge)      web1, web2, …
//!  203.0.113.10/24 ─ 203.0.113.1
//!                    147.75.104.176/31 ─ ens14f0 147.75.104.177
//!                                                147.75.78.116/32 (elastic)
//!                                        ens14f1 192.168.1.1/24 ───────── br0 ───────────── 192.168.1.10, .11, …
//! ```
//!
//! With [`Builder::dual_stack`] each has an IPv6 address too:
//!
//! ```text
//!  2001:db8:c::10/64 ─ …::1
//!                    2001:db8:104::1/64 ─────── 2001:db8:104::2
//!                                               2001:db8:78::116/128 (elastic)
//!                                               fd00:1::1/64 ──────────── br0 ───────────── fd00:1::10, ::11, …
//! ```
//!
//! [`Builder::internet`] adds a host on the internet that web servers may ask, 198.51.100.10 and 2001:db8:51::10, on a link
//! of its own to the router; [`Builder::narrow`] puts a second router and a link with a small MTU between the first router
//! and both of them:
//!
//! ```text
//!  client   ─ far ─ (narrow) ─ router ─ lb ─ …
//!  internet ─┘
//! ```
//!
//! The router sends the elastic addresses to the load balancer and knows nothing of the private networks: what leaves the
//! load balancer with a private source is never answered, and [`LeakWatch`](crate::leak::LeakWatch) sees it. The web servers'
//! gateways are 192.168.1.1 and fd00:1::1. All links are veth pairs with the settings that XDP needs on them, the same for
//! every kind of load balancer, so that measurements compare.

mod wiring;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use anyhow::Result;

use crate::{
    http::{self, Response},
    netns::Netns,
};

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub const ROUTER_TO_CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub const ROUTER_TO_LB: Ipv4Addr = Ipv4Addr::new(147, 75, 104, 176);
pub const LB_PUBLIC: Ipv4Addr = Ipv4Addr::new(147, 75, 104, 177);
pub const ELASTIC: Ipv4Addr = Ipv4Addr::new(147, 75, 78, 116);
pub const LB_PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
pub const ROUTER_TO_INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The host on the internet.
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The narrow link's two ends.
pub const ROUTER_TO_FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const FAR_TO_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

pub const CLIENT6: Ipv6Addr = documentation([0xc, 0, 0, 0, 0, 0x10]);
pub const ROUTER_TO_CLIENT6: Ipv6Addr = documentation([0xc, 0, 0, 0, 0, 1]);
pub const ROUTER_TO_LB6: Ipv6Addr = documentation([0x104, 0, 0, 0, 0, 1]);
pub const LB_PUBLIC6: Ipv6Addr = documentation([0x104, 0, 0, 0, 0, 2]);
pub const ELASTIC6: Ipv6Addr = documentation([0x78, 0, 0, 0, 0, 0x116]);
pub const LB_PRIVATE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);
pub const ROUTER_TO_INTERNET6: Ipv6Addr = documentation([0x51, 0, 0, 0, 0, 1]);
pub const INTERNET6: Ipv6Addr = documentation([0x51, 0, 0, 0, 0, 0x10]);
pub const ROUTER_TO_FAR6: Ipv6Addr = documentation([2, 0, 0, 0, 0, 1]);
pub const FAR_TO_ROUTER6: Ipv6Addr = documentation([2, 0, 0, 0, 0, 2]);

/// 2001:db8::/32, which stands for the internet (RFC 3849).
const fn documentation([a, b, c, d, e, f]: [u16; 6]) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, a, b, c, d, e, f)
}

/// The load balancer's interface to the internet.
pub const PUBLIC: &str = "ens14f0";
/// The load balancer's interface to the web servers.
pub const PRIVATE: &str = "ens14f1";
/// The router's interface to the load balancer: the other end of [`PUBLIC`].
pub const ROUTER_LINK: &str = "lb0";
/// The bridge's port to the load balancer: the other end of [`PRIVATE`].
pub const VLAN_LINK: &str = "lb0";
/// The service of the guide.
pub const SERVICE: SocketAddrV4 = SocketAddrV4::new(ELASTIC, 80);
/// The same over IPv6.
pub const SERVICE6: SocketAddrV6 = SocketAddrV6::new(ELASTIC6, 80, 0, 0);

/// The address of a web server: 192.168.1.10 for the first (index 0).
pub fn web_address(index: usize) -> Ipv4Addr {
    let last = u8::try_from(10 + index).expect("invariant: at most MAX_WEB_SERVERS");
    Ipv4Addr::new(192, 168, 1, last)
}

/// The IPv6 address of a web server: fd00:1::10 for the first (index 0).
pub fn web_address6(index: usize) -> Ipv6Addr {
    let last = u16::try_from(0x10 + index).expect("invariant: at most MAX_WEB_SERVERS");
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last)
}

/// The namespaces, up and addressed. Dropping it ends the processes inside and removes them.
#[derive(Debug)]
pub struct Topology {
    pub client: Netns,
    pub router: Netns,
    pub lb: Netns,
    /// Holds the bridge `br0`: the layer 2 VLAN.
    pub vlan: Netns,
    pub web: Vec<Netns>,
    /// With [`Builder::internet`].
    internet: Option<Netns>,
    /// The router behind the narrow link, with [`Builder::narrow`].
    far: Option<Netns>,
    dual_stack: bool,
}

/// What can differ from test to test.
#[derive(Clone, Debug)]
pub struct Builder {
    web_servers: usize,
    client_addresses: Vec<Ipv4Addr>,
    mtu: u32,
    lb_forwards: bool,
    dual_stack: bool,
    internet: bool,
    narrow: Option<u32>,
}

impl Topology {
    /// Two web servers, MTU 1500, one client address; the load balancer's kernel does not forward.
    pub fn builder() -> Builder {
        Builder {
            web_servers: 2,
            client_addresses: Vec::new(),
            mtu: 1500,
            lb_forwards: false,
            dual_stack: false,
            internet: false,
            narrow: None,
        }
    }

    /// The default network of [`Topology::builder`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Every namespace, from the client inwards.
    pub fn namespaces(&self) -> impl Iterator<Item = &Netns> {
        let Self { client, router, lb, vlan, web, internet, far, dual_stack: _ } = self;
        let outside = [Some(client), internet.as_ref(), far.as_ref(), Some(router)];
        outside.into_iter().flatten().chain([lb, vlan]).chain(web)
    }

    /// The host on the internet; a panic without [`Builder::internet`].
    #[track_caller]
    pub fn internet(&self) -> &Netns {
        self.internet.as_ref().expect("built with `internet`")
    }

    /// The router behind the narrow link; a panic without [`Builder::narrow`].
    #[track_caller]
    pub fn far(&self) -> &Netns {
        self.far.as_ref().expect("built with `narrow`")
    }

    pub fn is_dual_stack(&self) -> bool {
        self.dual_stack
    }

    /// A port on every address of a web server.
    pub fn web_sockets(&self, index: usize, port: u16) -> Vec<SocketAddr> {
        self.sockets(web_address(index), web_address6(index), port)
    }

    /// A port on every address of the host on the internet.
    pub fn internet_sockets(&self, port: u16) -> Vec<SocketAddr> {
        self.sockets(INTERNET, INTERNET6, port)
    }

    fn sockets(&self, v4: Ipv4Addr, v6: Ipv6Addr, port: u16) -> Vec<SocketAddr> {
        let v6 = self.dual_stack.then_some(IpAddr::from(v6));
        [v4.into()].into_iter().chain(v6).map(|ip| SocketAddr::new(ip, port)).collect()
    }

    /// One request on a connection of its own, from the client.
    pub fn get(&self, to: impl Into<SocketAddr>, path: &str) -> Result<Response> {
        let to = to.into();
        self.client.run_in(|| http::get(to, path))
    }

    /// The pids of everything that was started in the namespaces.
    pub fn pids(&self) -> Vec<i32> {
        self.namespaces().flat_map(Netns::pids).collect()
    }
}

impl Builder {
    pub fn web_servers(mut self, count: usize) -> Self {
        self.web_servers = count;
        self
    }

    /// More addresses on the client, all of 203.0.113.0/24.
    pub fn client_addresses(mut self, addresses: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        self.client_addresses.extend(addresses);
        self
    }

    /// Of every link. XDP without multi-buffer support on veth takes up to about 3500.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// The load balancer's kernel forwards, and the router knows the way to 192.168.1.0/24.
    pub fn lb_forwards(mut self) -> Self {
        self.lb_forwards = true;
        self
    }

    /// IPv6 beside IPv4. It is off by default, so that no solicitation meets a counter that a test looks at.
    pub fn dual_stack(mut self) -> Self {
        self.dual_stack = true;
        self
    }

    /// A host on the internet for the web servers to ask.
    pub fn internet(mut self) -> Self {
        self.internet = true;
        self
    }

    /// A second router, and a link with this MTU to it, in front of the client and of the host on the internet: for IPv6 at
    /// least 1280.
    pub fn narrow(mut self, mtu: u32) -> Self {
        self.narrow = Some(mtu);
        self
    }
}
