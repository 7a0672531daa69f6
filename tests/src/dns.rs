//! A DNS server in a namespace: dnsmasq with a few names of its own, which asks nobody.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, bail};

use crate::{netns::Netns, proc::Proc, scratch::ScratchDir, wait::wait_for};

/// A name with an address of each family.
pub const NAME: &str = "name.test";
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
pub const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x80);
/// A name whose TXT records take 3,000 bytes: one datagram in fragments, or TCP for who does not take that much.
pub const BIG: &str = "big.test";
/// How many those are.
pub const BIG_RECORDS: usize = 14;

/// A running server, on port 53.
#[derive(Debug)]
pub struct Dns {
    process: Proc,
    dir: ScratchDir,
}

impl Dns {
    /// Starts it and waits until it takes questions on these addresses.
    pub fn start(namespace: &Netns, listen: &[IpAddr]) -> Result<Self> {
        let dir = ScratchDir::new("dns")?;
        let config = dir.path().join("dnsmasq.conf");
        fs::write(&config, configuration(&dir.path().display().to_string(), listen))?;
        let mut command = namespace.command("dnsmasq")?;
        command.arg("--keep-in-foreground").arg(format!("--conf-file={}", config.display()));
        let output = File::create(dir.path().join("stderr.log"))?;
        command.stdout(output.try_clone()?).stderr(output);
        let dns = Self { process: namespace.spawn(command)?, dir };
        let taken = wait_for(LIMIT, "for dnsmasq to listen", || {
            if !dns.process.is_running() {
                return Some(false);
            }
            let listens = |ip: &IpAddr| namespace.listens(SocketAddr::new(*ip, 53));
            listen.iter().all(listens).then_some(true)
        });
        match taken {
            Ok(true) => Ok(dns),
            Ok(false) => bail!("dnsmasq ended: {}", dns.log()),
            Err(error) => Err(error.context(dns.log())),
        }
    }

    pub fn process(&self) -> &Proc {
        &self.process
    }

    /// What it said, with a line for each question (`query[A] name.test from 203.0.113.10`).
    pub fn log(&self) -> String {
        let read = |file| fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
        read("dnsmasq.log") + &read("stderr.log")
    }
}

fn configuration(dir: &str, listen: &[IpAddr]) -> String {
    let mut config = format!(
        "user=root
pid-file={dir}/dnsmasq.pid
log-queries
log-facility={dir}/dnsmasq.log
bind-interfaces
no-resolv
no-hosts
edns-packet-max=4096
host-record={NAME},{ADDRESS},{ADDRESS6}
"
    );
    for address in listen {
        config += &format!("listen-address={address}\n");
    }
    // Each with its number, so that a lost piece shows.
    for number in 0..BIG_RECORDS {
        config += &format!("txt-record={BIG},{number:0>200}\n");
    }
    config
}

const LIMIT: Duration = Duration::from_secs(10);
