//! A program that passes every packet, for where a test needs one that is not the daemon's.

use anyhow::{Context as _, Result};
use aya::programs::{XdpMode, links::FdLink};
use lbha::datapath::{
    OBJECT,
    loader::{Programs, Sizes},
    pins::Pins,
};
use nix::net::if_::if_nametoindex;

use crate::{
    netns::Netns,
    scratch::ScratchDir,
    topology::{ROUTER_LINK, Topology, VLAN_LINK},
};

/// What the kernel calls it.
pub const NAME: &str = "pass_private";

/// lbha's own object under another program name: by its name lbha knows its own.
fn renamed() -> Vec<u8> {
    let (from, to) = (b"\0lbha_private\0", b"\0pass_private\0");
    let mut object = OBJECT.to_vec();
    let places: Vec<usize> =
        (0..object.len() - from.len()).filter(|&at| object[at..].starts_with(from)).collect();
    for at in places {
        object[at..at + to.len()].copy_from_slice(to);
    }
    object
}

/// lbha's own object with empty tables, natively on interfaces. It goes with the value; a process that leaves the value behind
/// leaves the program there too.
pub struct Pass {
    _programs: Programs,
    // After the programs: fields drop in order.
    _dir: ScratchDir,
}

impl Pass {
    pub fn attach(namespace: &Netns, device: &str) -> Result<Self> {
        Self::attach_all(&[(namespace, device)])
    }

    /// One program on several interfaces.
    pub fn attach_all(places: &[(&Netns, &str)]) -> Result<Self> {
        let dir = ScratchDir::new("pass")?;
        let bpffs = dir.mount_bpffs()?;
        let pins = Pins::open(&bpffs)?;
        let sizes = Sizes { max_connections: 1024, max_connections_v6: 1024, max_half_open: 1024 };
        let mut programs = Programs::load(&renamed(), &pins, sizes, 0)?;
        let program = programs.named(NAME)?;
        for (number, (namespace, device)) in places.iter().enumerate() {
            let link = namespace.run_in(|| {
                let index = if_nametoindex(*device).with_context(|| format!("find {device}"))?;
                let id = program.attach_to_if_index(index, XdpMode::Driver)?;
                anyhow::Ok(FdLink::try_from(program.take_link(id)?)?)
            })?;
            link.pin(bpffs.join(format!("link{number}")))?;
        }
        Ok(Self { _programs: programs, _dir: dir })
    }

    /// On the peers of both of the load balancer's interfaces. A veth device that a program sends back out of (XDP_TX: an
    /// answer of lbha's own, a server that calls the elastic address, one arm) wakes its peer only if that one runs a
    /// program too (veth_xdp_flush); a redirect does so without.
    pub fn on_peers(topology: &Topology) -> Result<Self> {
        Self::attach_all(&[(&topology.router, ROUTER_LINK), (&topology.vlan, VLAN_LINK)])
    }
}
