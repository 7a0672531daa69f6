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
//! The router sends the elastic address to the load balancer, the web servers' gateway is 192.168.1.1. All links are veth
//! pairs with the settings that XDP needs on them, the same for every kind of load balancer, so that measurements compare.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::{
    http::{self, Response},
    netns::Netns,
    scratch::next_number,
    wait::wait_until,
};

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub const ROUTER_TO_CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub const ROUTER_TO_LB: Ipv4Addr = Ipv4Addr::new(147, 75, 104, 176);
pub const LB_PUBLIC: Ipv4Addr = Ipv4Addr::new(147, 75, 104, 177);
pub const ELASTIC: Ipv4Addr = Ipv4Addr::new(147, 75, 78, 116);
pub const LB_PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// The load balancer's interface to the internet.
pub const PUBLIC: &str = "ens14f0";
/// The load balancer's interface to the web servers.
pub const PRIVATE: &str = "ens14f1";
/// The service of the guide.
pub const SERVICE: SocketAddrV4 = SocketAddrV4::new(ELASTIC, 80);

/// The address of a web server: 192.168.1.10 for the first (index 0).
pub fn web_address(index: usize) -> Ipv4Addr {
    let last = u8::try_from(10 + index).expect("invariant: at most MAX_WEB_SERVERS");
    Ipv4Addr::new(192, 168, 1, last)
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
}

/// What can differ from test to test.
#[derive(Clone, Debug)]
pub struct Builder {
    web_servers: usize,
    client_addresses: Vec<Ipv4Addr>,
    mtu: u32,
    lb_forwards: bool,
    ipv6: bool,
}

impl Topology {
    /// Two web servers, MTU 1500, one client address; the load balancer's kernel does not forward.
    pub fn builder() -> Builder {
        Builder {
            web_servers: 2,
            client_addresses: Vec::new(),
            mtu: 1500,
            lb_forwards: false,
            ipv6: false,
        }
    }

    /// The default network of [`Topology::builder`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Every namespace, from the client inwards.
    pub fn namespaces(&self) -> impl Iterator<Item = &Netns> {
        let Self { client, router, lb, vlan, web } = self;
        [client, router, lb, vlan].into_iter().chain(web)
    }

    /// One request on a connection of its own, from the client.
    pub fn get(&self, to: SocketAddrV4, path: &str) -> Result<Response> {
        self.client.run_in(|| http::get(SocketAddr::V4(to), path))
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

    /// Leaves IPv6 on. It is off by default, so that no router solicitation meets a counter that a test looks at.
    pub fn ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }

    pub fn build(self) -> Result<Topology> {
        ensure!(
            (1..=MAX_WEB_SERVERS).contains(&self.web_servers),
            "1 to {MAX_WEB_SERVERS} web servers, not {}",
            self.web_servers
        );
        let number = next_number();
        let namespace = |role: &str| -> Result<Netns> {
            let namespace = Netns::new(number, role)?;
            // Before there are interfaces, so that they inherit it.
            for scope in ["all", "default"] {
                namespace.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
                if !self.ipv6 {
                    namespace.sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "1")?;
                }
            }
            Ok(namespace)
        };
        let web = (1..=self.web_servers).map(|n| namespace(&format!("web{n}")));
        let topology = Topology {
            client: namespace("client")?,
            router: namespace("router")?,
            lb: namespace("lb")?,
            vlan: namespace("vlan")?,
            web: web.collect::<Result<_>>()?,
        };
        self.public_side(&topology)?;
        self.private_side(&topology)?;
        for namespace in topology.namespaces() {
            links_are_up(namespace)?;
        }
        Ok(topology)
    }

    /// client — router — lb
    fn public_side(&self, topology: &Topology) -> Result<()> {
        let Topology { client, router, lb, .. } = topology;
        self.link(client, "eth0", router, "client0", Gro::Off)?;
        self.link(lb, PUBLIC, router, "lb0", Gro::AtPeer)?;

        let mut lines = format!("addr add {CLIENT}/24 dev eth0\n");
        for address in &self.client_addresses {
            lines += &format!("addr add {address}/24 dev eth0\n");
        }
        client.ip(&format!("{lines}route add default via {ROUTER_TO_CLIENT}\n"))?;
        router.ip(&format!(
            "addr add {ROUTER_TO_CLIENT}/24 dev client0\n\
             addr add {ROUTER_TO_LB}/31 dev lb0\n\
             route add {ELASTIC}/32 via {LB_PUBLIC}\n"
        ))?;
        router.sysctl("net.ipv4.ip_forward", "1")?;
        lb.ip(&format!(
            "addr add {LB_PUBLIC}/31 dev {PUBLIC}\n\
             addr add {ELASTIC}/32 dev {PUBLIC}\n\
             route add default via {ROUTER_TO_LB}\n"
        ))?;
        if self.lb_forwards {
            crate::peers::forward_in_kernel(topology)?;
        }
        Ok(())
    }

    /// lb — vlan — web servers
    fn private_side(&self, topology: &Topology) -> Result<()> {
        let Topology { lb, vlan, web, .. } = topology;
        vlan.ip(&format!("link add br0 mtu {} type bridge\nlink set br0 up\n", self.mtu))?;
        self.link(lb, PRIVATE, vlan, "lb0", Gro::AtPeer)?;
        vlan.ip("link set lb0 master br0\n")?;
        lb.ip(&format!("addr add {LB_PRIVATE}/24 dev {PRIVATE}\n"))?;
        for (index, web) in web.iter().enumerate() {
            let port = format!("web{}", index + 1);
            self.link(web, "eth0", vlan, &port, Gro::Off)?;
            vlan.ip(&format!("link set {port} master br0\n"))?;
            web.ip(&format!(
                "addr add {}/24 dev eth0\nroute add default via {LB_PRIVATE}\n",
                web_address(index)
            ))?;
        }
        Ok(())
    }

    /// A veth pair with both ends up.
    ///
    /// Transmit checksums are computed by the sender: an XDP program would see only the pseudo header's sum. The peer of a
    /// device that XDP redirects to has GRO on, which starts its NAPI: without it the frames are lost.
    fn link(&self, a: &Netns, a_name: &str, b: &Netns, b_name: &str, gro: Gro) -> Result<()> {
        let mtu = self.mtu;
        a.ip(&format!(
            "link add name {a_name} mtu {mtu} type veth peer name {b_name} mtu {mtu} netns {}\n",
            b.name()
        ))?;
        let peer_gro = match gro {
            Gro::AtPeer => "on",
            Gro::Off => "off",
        };
        for (namespace, name, gro) in [(a, a_name, "off"), (b, b_name, peer_gro)] {
            let settings = ["-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", gro];
            namespace.exec("ethtool", settings)?;
        }
        a.ip(&format!("link set {a_name} up\n"))?;
        b.ip(&format!("link set {b_name} up\n"))
    }
}

#[derive(Clone, Copy)]
enum Gro {
    /// The first end is redirected to: its peer needs GRO.
    AtPeer,
    Off,
}

/// A link takes packets only once the kernel has noticed its carrier, a moment after it is set up.
fn links_are_up(namespace: &Netns) -> Result<()> {
    let what = format!("the links of {} are up", namespace.name());
    wait_until(Duration::from_secs(10), &what, || {
        let links = namespace.exec("ip", ["-o", "link", "show"]).unwrap_or_default();
        let mut others = links.lines().filter(|line| !line.contains(": lo: ")).peekable();
        others.peek().is_some() && others.all(|line| line.contains(" state UP "))
    })
}

const MAX_WEB_SERVERS: usize = 200;
