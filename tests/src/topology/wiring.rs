//! Makes the namespaces and links of a [`Topology`], and gives them their addresses and routes.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};

use super::*;
use crate::{peers, scratch::next_number, wait::wait_until};

impl Builder {
    pub fn build(self) -> Result<Topology> {
        ensure!(
            (1..=MAX_WEB_SERVERS).contains(&self.web_servers),
            "1 to {MAX_WEB_SERVERS} web servers, not {}",
            self.web_servers
        );
        let number = next_number();
        let namespace = |role: &str| {
            let namespace = Netns::new(number, role)?;
            self.prepare(&namespace)?;
            anyhow::Ok(namespace)
        };
        let web = (1..=self.web_servers).map(|n| namespace(&format!("web{n}")));
        let topology = Topology {
            client: namespace("client")?,
            router: namespace("router")?,
            lb: namespace("lb")?,
            vlan: namespace("vlan")?,
            web: web.collect::<Result<_>>()?,
            internet: self.internet.then(|| namespace("internet")).transpose()?,
            far: self.narrow.map(|_| namespace("far")).transpose()?,
            dual_stack: self.dual_stack,
        };
        self.public_side(&topology)?;
        self.private_side(&topology)?;
        for namespace in topology.namespaces() {
            links_are_up(namespace)?;
        }
        // IPv6 takes a gateway only on a link that is up.
        self.routes(&topology)?;
        if self.lb_forwards {
            peers::forward_in_kernel(&topology)?;
        }
        Ok(topology)
    }

    /// Settings that interfaces inherit, while there are none.
    fn prepare(&self, namespace: &Netns) -> Result<()> {
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
            let ipv6 =
                |key: &str, value| namespace.sysctl(&format!("net.ipv6.conf.{scope}.{key}"), value);
            if !self.dual_stack {
                ipv6("disable_ipv6", "1")?;
                continue;
            }
            // Addresses are those given here, and usable at once.
            for key in ["accept_ra", "autoconf", "accept_dad", "router_solicitations"] {
                ipv6(key, "0")?;
            }
        }
        // A router that errors about every packet: a test waits for an answer to each of its own.
        namespace.sysctl("net.ipv4.icmp_ratelimit", "0")?;
        if self.dual_stack {
            namespace.sysctl("net.ipv6.icmp.ratelimit", "0")?;
        }
        Ok(())
    }

    /// client, internet — (far —) router — lb
    fn public_side(&self, topology: &Topology) -> Result<()> {
        let Topology { client, router, lb, internet, far, .. } = topology;
        let nearest = far.as_ref().unwrap_or(router);
        if let (Some(far), Some(mtu)) = (far, self.narrow) {
            veth(far, "router0", router, FAR, mtu, Gro::Off)?;
            self.address(far, "router0", (FAR_TO_ROUTER, 24), (FAR_TO_ROUTER6, 64))?;
            self.address(router, FAR, (ROUTER_TO_FAR, 24), (ROUTER_TO_FAR6, 64))?;
        }
        veth(client, "eth0", nearest, "client0", self.mtu, Gro::Off)?;
        self.address(client, "eth0", (CLIENT, 24), (CLIENT6, 64))?;
        for address in &self.client_addresses {
            client.ip(&format!("addr add {address}/24 dev eth0\n"))?;
        }
        self.address(nearest, "client0", (ROUTER_TO_CLIENT, 24), (ROUTER_TO_CLIENT6, 64))?;
        if let Some(internet) = internet {
            veth(internet, "eth0", nearest, "internet0", self.mtu, Gro::Off)?;
            self.address(internet, "eth0", (INTERNET, 24), (INTERNET6, 64))?;
            let router = ((ROUTER_TO_INTERNET, 24), (ROUTER_TO_INTERNET6, 64));
            self.address(nearest, "internet0", router.0, router.1)?;
        }
        veth(lb, PUBLIC, router, ROUTER_LINK, self.mtu, Gro::AtPeer)?;
        self.address(router, ROUTER_LINK, (ROUTER_TO_LB, 31), (ROUTER_TO_LB6, 64))?;
        self.address(lb, PUBLIC, (LB_PUBLIC, 31), (LB_PUBLIC6, 64))?;
        self.address(lb, PUBLIC, (ELASTIC, 32), (ELASTIC6, 128))
    }

    /// lb — vlan — web servers
    fn private_side(&self, topology: &Topology) -> Result<()> {
        let Topology { lb, vlan, web, .. } = topology;
        vlan.ip(&format!("link add br0 mtu {} type bridge mcast_snooping 0\n", self.mtu))?;
        vlan.ip("link set br0 addrgenmode none up\n")?;
        veth(lb, PRIVATE, vlan, VLAN_LINK, self.mtu, Gro::AtPeer)?;
        vlan.ip(&format!("link set {VLAN_LINK} master br0\n"))?;
        self.address(lb, PRIVATE, (LB_PRIVATE, 24), (LB_PRIVATE6, 64))?;
        for (index, web) in web.iter().enumerate() {
            let port = format!("web{}", index + 1);
            veth(web, "eth0", vlan, &port, self.mtu, Gro::Off)?;
            vlan.ip(&format!("link set {port} master br0\n"))?;
            self.address(web, "eth0", (web_address(index), 24), (web_address6(index), 64))?;
        }
        Ok(())
    }

    fn routes(&self, topology: &Topology) -> Result<()> {
        let Topology { client, router, lb, vlan: _, web, internet, far, .. } = topology;
        let forwarding = [Some(router), far.as_ref()];
        for namespace in forwarding.into_iter().flatten() {
            namespace.sysctl("net.ipv4.ip_forward", "1")?;
            if self.dual_stack {
                namespace.sysctl("net.ipv6.conf.all.forwarding", "1")?;
            }
        }
        self.default_route(client, ROUTER_TO_CLIENT, ROUTER_TO_CLIENT6)?;
        self.default_route(lb, ROUTER_TO_LB, ROUTER_TO_LB6)?;
        if let Some(internet) = internet {
            self.default_route(internet, ROUTER_TO_INTERNET, ROUTER_TO_INTERNET6)?;
        }
        for web in web {
            self.default_route(web, LB_PRIVATE, LB_PRIVATE6)?;
        }
        self.route(router, (ELASTIC, 32), LB_PUBLIC)?;
        self.route(router, (ELASTIC6, 128), LB_PUBLIC6)?;
        if let Some(far) = far {
            self.default_route(far, ROUTER_TO_FAR, ROUTER_TO_FAR6)?;
            self.route(router, (CLIENT, 24), FAR_TO_ROUTER)?;
            self.route(router, (INTERNET, 24), FAR_TO_ROUTER)?;
            self.route(router, (CLIENT6, 64), FAR_TO_ROUTER6)?;
            self.route(router, (INTERNET6, 64), FAR_TO_ROUTER6)?;
        }
        Ok(())
    }

    fn address(
        &self,
        namespace: &Netns,
        link: &str,
        (v4, len): (Ipv4Addr, u8),
        (v6, len6): (Ipv6Addr, u8),
    ) -> Result<()> {
        namespace.ip(&format!("addr add {v4}/{len} dev {link}\n"))?;
        if self.dual_stack {
            namespace.ip(&format!("addr add {v6}/{len6} dev {link} nodad\n"))?;
        }
        Ok(())
    }

    fn default_route(&self, namespace: &Netns, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
        self.route(namespace, (Ipv4Addr::UNSPECIFIED, 0), v4)?;
        self.route(namespace, (Ipv6Addr::UNSPECIFIED, 0), v6)
    }

    /// To the network that an address is in. Routes of a family that is off are left out.
    fn route(
        &self,
        namespace: &Netns,
        (to, len): (impl Into<IpAddr>, u8),
        via: impl Into<IpAddr>,
    ) -> Result<()> {
        let (to, via) = (to.into(), via.into());
        if to.is_ipv6() && !self.dual_stack {
            return Ok(());
        }
        namespace.ip(&format!("route add {}/{len} via {via}\n", network(to, len)))
    }
}

/// An address with the bits behind its prefix cleared.
fn network(address: IpAddr, len: u8) -> IpAddr {
    let len = u32::from(len);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - len).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

/// A veth pair with both ends up.
///
/// Transmit checksums are computed by the sender: an XDP program would see only the pseudo header's sum. The peer of a
/// device that XDP redirects to has GRO on, which starts its NAPI: without it the frames are lost.
fn veth(a: &Netns, a_name: &str, b: &Netns, b_name: &str, mtu: u32, gro: Gro) -> Result<()> {
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

/// The router's interface to the far router.
const FAR: &str = "far0";
const MAX_WEB_SERVERS: usize = 200;
