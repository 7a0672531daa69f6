//! What does the load balancer's work today: the kernel's routing, nftables and HAProxy, each in the lb namespace.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::SocketAddrV4,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    proc::Proc,
    scratch::ScratchDir,
    topology::{LB_PUBLIC, LB_PUBLIC6, PRIVATE, PUBLIC, SERVICE, Topology, web_address},
    wait::wait_for,
};

/// Has the load balancer's kernel forward, and tells the router the way to the web servers.
///
/// With nothing else this is "no load balancer": the client asks a web server by its own address.
pub fn forward_in_kernel(topology: &Topology) -> Result<()> {
    kernel_forwards(topology)?;
    topology.router.ip(&format!("route replace 192.168.1.0/24 via {LB_PUBLIC}\n"))?;
    if topology.is_dual_stack() {
        topology.router.ip(&format!("route replace fd00:1::/64 via {LB_PUBLIC6}\n"))?;
    }
    Ok(())
}

/// The way of a gateway's packets through the kernel: whatever goes out of the public interface gets its address.
pub fn nft_masquerade(topology: &Topology) -> Result<()> {
    kernel_forwards(topology)?;
    nft(
        topology,
        &format!(
            "table inet gateway {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname \"{PUBLIC}\" masquerade
    }}
}}
"
        ),
    )
}

fn kernel_forwards(topology: &Topology) -> Result<()> {
    topology.lb.sysctl("net.ipv4.ip_forward", "1")?;
    if topology.is_dual_stack() {
        topology.lb.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    }
    Ok(())
}

fn nft(topology: &Topology, rules: &str) -> Result<()> {
    let dir = ScratchDir::new("nft")?;
    let file = dir.path().join("rules.nft");
    fs::write(&file, rules)?;
    topology.lb.exec("nft", ["-f".as_ref(), file.as_os_str()])?;
    Ok(())
}

/// Balances with nftables: destinations in turn, sources masqueraded.
pub fn nft_dnat(topology: &Topology) -> Result<()> {
    topology.lb.sysctl("net.ipv4.ip_forward", "1")?;
    let count = topology.web.len();
    let servers: Vec<_> =
        (0..count).map(|index| format!("{index} : {}", web_address(index))).collect();
    let rules = format!(
        "table ip balance {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        ip daddr {} tcp dport {} dnat to numgen inc mod {count} map {{ {} }}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname \"{PRIVATE}\" masquerade
    }}
}}
",
        SERVICE.ip(),
        SERVICE.port(),
        servers.join(", ")
    );
    nft(topology, &rules)
}

/// HAProxy with the guide's configuration: TCP mode, round robin, two threads.
#[derive(Debug)]
pub struct HaProxy {
    process: Proc,
    dir: ScratchDir,
}

impl HaProxy {
    /// Starts it and waits until it takes connections on the service's address.
    pub fn start(topology: &Topology) -> Result<Self> {
        let dir = ScratchDir::new("haproxy")?;
        let config = dir.path().join("haproxy.cfg");
        let servers = (0..topology.web.len())
            .map(|index| (format!("web{}", index + 1), SocketAddrV4::new(web_address(index), 80)));
        fs::write(&config, Self::configuration(servers))?;
        let log = File::create(dir.path().join("log"))?;
        let mut command = topology.lb.command("haproxy")?;
        command.arg("-db").arg("-f").arg(&config).stdout(log.try_clone()?).stderr(log);
        let haproxy = Self { process: topology.lb.spawn(command)?, dir };
        let listens = wait_for(LIMIT, "for HAProxy to listen", || {
            if !haproxy.process.is_running() {
                return Some(false);
            }
            topology.lb.listens(SERVICE).then_some(true)
        });
        if !listens.with_context(|| haproxy.log())? {
            bail!("HAProxy ended: {}", haproxy.log());
        }
        Ok(haproxy)
    }

    pub fn process(&self) -> &Proc {
        &self.process
    }

    fn configuration(servers: impl Iterator<Item = (String, SocketAddrV4)>) -> String {
        // maxconn needs two descriptors for each connection and has to stay below the hard limit.
        let mut config = format!(
            "global
    maxconn 8000
    nbthread 2
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend www
    bind {SERVICE}
    default_backend nginx_pool
backend nginx_pool
    balance roundrobin
"
        );
        for (name, address) in servers {
            let _ = writeln!(config, "    server {name} {address} check");
        }
        config
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

const LIMIT: Duration = Duration::from_secs(10);
