//! The whole product at work: services, masquerade and the host on the internet, over both families.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use crate::{
    daemon::Lbha,
    leak::LeakWatch,
    nginx::{Access, Nginx},
    pass::Pass,
    topology::{
        Builder, CLIENT, CLIENT6, ELASTIC, ELASTIC6, INTERNET, INTERNET6, LB_PRIVATE, LB_PRIVATE6,
        LB_PUBLIC, LB_PUBLIC6, ROUTER_TO_CLIENT, ROUTER_TO_CLIENT6, ROUTER_TO_LB, ROUTER_TO_LB6,
        Topology, web_address, web_address6,
    },
};

/// The guide's service over both families, and a masquerade for its servers.
pub const CONFIG: &str = r#"[interfaces]
public  = "ens14f0"
private = "ens14f1"

[[service]]
name = "www"
vip  = "147.75.78.116"
port = 80
pool = "nginx_pool"

[[service]]
name = "www6"
vip  = "2001:db8:78::116"
port = 80
pool = "nginx_pool6"

[[pool]]
name = "nginx_pool"
servers = [
  { name = "web1", address = "192.168.1.10:80" },
  { name = "web2", address = "192.168.1.11:80" },
]

[[pool]]
name = "nginx_pool6"
servers = [
  { name = "web1", address = "[fd00:1::10]:80" },
  { name = "web2", address = "[fd00:1::11]:80" },
]

[[masquerade]]
source = ["192.168.1.0/24", "fd00:1::/64"]
"#;

/// [`CONFIG`] with more lines for its masquerade, and more tables.
pub fn config(masquerade: &str, tables: &str) -> String {
    format!("{CONFIG}{masquerade}\n\n{tables}")
}

/// The topology's addresses, of one family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub client: IpAddr,
    pub internet: IpAddr,
    pub router_to_client: IpAddr,
    pub router_to_lb: IpAddr,
    pub lb_public: IpAddr,
    pub elastic: IpAddr,
    pub lb_private: IpAddr,
}

pub const FAMILIES: [Family; 2] = [
    Family {
        client: IpAddr::V4(CLIENT),
        internet: IpAddr::V4(INTERNET),
        router_to_client: IpAddr::V4(ROUTER_TO_CLIENT),
        router_to_lb: IpAddr::V4(ROUTER_TO_LB),
        lb_public: IpAddr::V4(LB_PUBLIC),
        elastic: IpAddr::V4(ELASTIC),
        lb_private: IpAddr::V4(LB_PRIVATE),
    },
    Family {
        client: IpAddr::V6(CLIENT6),
        internet: IpAddr::V6(INTERNET6),
        router_to_client: IpAddr::V6(ROUTER_TO_CLIENT6),
        router_to_lb: IpAddr::V6(ROUTER_TO_LB6),
        lb_public: IpAddr::V6(LB_PUBLIC6),
        elastic: IpAddr::V6(ELASTIC6),
        lb_private: IpAddr::V6(LB_PRIVATE6),
    },
];

impl Family {
    /// A web server's address.
    pub fn web(&self, index: usize) -> IpAddr {
        match self.client {
            IpAddr::V4(_) => web_address(index).into(),
            IpAddr::V6(_) => web_address6(index).into(),
        }
    }

    /// The service.
    pub fn service(&self) -> SocketAddr {
        SocketAddr::new(self.elastic, 80)
    }

    /// The masqueraded network of [`CONFIG`].
    pub fn network(&self) -> &'static str {
        if self.client.is_ipv4() { "192.168.1.0/24" } else { "fd00:1::/64" }
    }

    /// An address as part of a URL.
    pub fn url(address: IpAddr) -> String {
        match address {
            IpAddr::V4(address) => format!("http://{address}/"),
            IpAddr::V6(address) => format!("http://[{address}]/"),
        }
    }
}

/// A running gateway. When it goes and a private address has shown on the public link, that is a panic.
pub struct Gateway {
    _watch: LeakWatch,
    pub lbha: Lbha,
    /// On the web servers, and on the host on the internet.
    pub servers: Vec<Nginx>,
    _pass: Pass,
    pub topology: Topology,
}

impl Gateway {
    /// On a network of both families with a host on the internet.
    pub fn start(builder: Builder, config: &str) -> Result<Self> {
        Self::on(builder.dual_stack().internet().build()?, config)
    }

    /// On a network that has both families and the host on the internet. The load balancer's kernel forwards, so that
    /// whatever lbha leaves to it leaves with the address it has.
    pub fn on(topology: Topology, config: &str) -> Result<Self> {
        topology.lb.sysctl("net.ipv4.ip_forward", "1")?;
        topology.lb.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        let mut servers = Nginx::start_all(&topology, Access::Open)?;
        servers.push(Nginx::start_on_the_internet(&topology)?);
        let pass = Pass::on_peers(&topology)?;
        let watch = LeakWatch::start(&topology)?;
        let lbha = Lbha::start(&topology, config)?;
        Ok(Self { _watch: watch, lbha, servers, _pass: pass, topology })
    }

    /// [`Gateway::start`] on the default network, with [`CONFIG`].
    pub fn new() -> Result<Self> {
        Self::start(Topology::builder(), CONFIG)
    }
}
