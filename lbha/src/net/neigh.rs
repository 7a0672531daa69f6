//! Keeps watched neighbours resolved: the task around [`Keeper`], and the request that has the kernel resolve one.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::arp;
use super::keeper::{Keeper, Probe, Watch};
use super::raw::ArpSocket;
use super::state::{IfIndex, NetState};

#[derive(Debug, Error)]
pub enum NeighbourError {
    #[error("cannot have the kernel resolve {addr} on interface {ifindex}")]
    Resolve { ifindex: IfIndex, addr: Ipv4Addr, source: io::Error },
    #[error("cannot have the kernel verify {addr} on interface {ifindex}")]
    Verify { ifindex: IfIndex, addr: Ipv4Addr, source: io::Error },
    #[error("cannot open a packet socket for arp")]
    Socket(#[source] io::Error),
}

/// Requests about neighbours; cheap to clone. From [`super::Monitor::neighbours`].
#[derive(Clone, Debug)]
pub struct Neighbours {
    handle: Handle,
}

impl Neighbours {
    pub(super) fn new(handle: Handle) -> Neighbours {
        Neighbours { handle }
    }

    /// Has the kernel resolve a neighbour now: it creates the entry if there is none, and broadcasts an ARP request if
    /// the entry is not valid (neigh_event_send; a FAILED entry starts over). Returns when the kernel has started, not
    /// when the neighbour has answered. Never to be used on a PERMANENT entry: NTF_USE makes that an ordinary one
    /// (__neigh_update).
    pub async fn probe(&self, ifindex: IfIndex, addr: Ipv4Addr) -> Result<(), NeighbourError> {
        let mut message = about(ifindex, addr);
        message.header.flags = NeighbourFlags::Use;
        self.change(message, NLM_F_CREATE).await.map_err(|source| NeighbourError::Resolve {
            ifindex,
            addr,
            source,
        })
    }

    /// Has the kernel verify the address of a neighbour that it holds for valid: after three unicast requests without an
    /// answer the entry is FAILED. Not for PERMANENT entries, which would become ordinary ones.
    pub async fn verify(&self, ifindex: IfIndex, addr: Ipv4Addr) -> Result<(), NeighbourError> {
        let mut message = about(ifindex, addr);
        message.header.state = NeighbourState::Probe;
        self.change(message, 0).await.map_err(|source| NeighbourError::Verify {
            ifindex,
            addr,
            source,
        })
    }

    async fn change(&self, message: NeighbourMessage, flags: u16) -> io::Result<()> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.handle.clone().request(request).map_err(io::Error::other)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(error.to_io());
            }
        }
        Ok(())
    }
}

fn about(ifindex: IfIndex, addr: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)));
    message
}

/// The running keeper. Dropping it ends it. Needs CAP_NET_RAW and CAP_NET_ADMIN.
#[derive(Debug)]
pub struct NeighbourKeeper {
    watched: watch::Sender<BTreeSet<Watch>>,
    task: JoinHandle<()>,
}

impl NeighbourKeeper {
    /// `states` is what [`super::Monitor`] publishes; the keeper ends when the monitor does.
    pub fn spawn(
        states: watch::Receiver<Arc<NetState>>,
        neighbours: Neighbours,
    ) -> Result<NeighbourKeeper, NeighbourError> {
        let socket = ArpSocket::open().map_err(NeighbourError::Socket)?;
        let (watched, changes) = watch::channel(BTreeSet::new());
        let task = tokio::spawn(run(socket, states, changes, neighbours));
        Ok(NeighbourKeeper { watched, task })
    }

    /// Replaces the set of watched neighbours.
    pub fn watch(&self, watched: BTreeSet<Watch>) {
        self.watched.send_if_modified(|current| {
            let changed = *current != watched;
            *current = watched;
            changed
        });
    }
}

impl Drop for NeighbourKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    socket: AsyncFd<ArpSocket>,
    mut states: watch::Receiver<Arc<NetState>>,
    mut watched: watch::Receiver<BTreeSet<Watch>>,
    neighbours: Neighbours,
) {
    let mut keeper = Keeper::default();
    let mut state = states.borrow_and_update().clone();
    keeper.watch(&watched.borrow_and_update());
    loop {
        for probe in keeper.poll(&state, Instant::now()) {
            perform(probe, socket.get_ref(), &state, &neighbours).await;
        }
        let timeout = keeper.poll_timeout();
        tokio::select! {
            changed = states.changed() => {
                if changed.is_err() {
                    return;
                }
                state = states.borrow_and_update().clone();
            }
            changed = watched.changed() => {
                if changed.is_err() {
                    return;
                }
                keeper.watch(&watched.borrow_and_update());
            }
            ready = socket.readable() => match ready {
                Ok(mut ready) => {
                    if receive(socket.get_ref(), &mut keeper) {
                        ready.clear_ready();
                    }
                }
                Err(error) => {
                    warn!(%error, "neighbours are no longer checked: packet socket failed");
                    return;
                }
            },
            () = sleep_until(timeout), if timeout.is_some() => {}
        }
    }
}

async fn sleep_until(timeout: Option<Instant>) {
    match timeout {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn perform(probe: Probe, socket: &ArpSocket, state: &NetState, neighbours: &Neighbours) {
    match probe {
        Probe::Resolve { ifindex, addr } => {
            // The interface may be going; its next event is the end of that.
            if let Err(error) = neighbours.probe(ifindex, addr).await {
                debug!(%addr, ifindex, error = ?error, "neighbour not probed");
            }
        }
        Probe::Verify { ifindex, addr } => {
            if let Err(error) = neighbours.verify(ifindex, addr).await {
                debug!(%addr, ifindex, error = ?error, "neighbour not verified");
            }
        }
        Probe::Request { ifindex, addr, source, to } => {
            let Some(link) = state.links.get(&ifindex) else { return };
            let packet = arp::request(link.mac, source, addr);
            if let Err(error) = socket.send(ifindex, to, &packet) {
                debug!(%addr, interface = link.name, %error, "arp request not sent");
            }
        }
    }
}

/// Reads what is there; returns whether that was all.
fn receive(socket: &ArpSocket, keeper: &mut Keeper) -> bool {
    let mut buffer = [0; 64];
    for _ in 0..RECEIVE_AT_ONCE {
        match socket.receive(&mut buffer) {
            Ok((ifindex, len)) => {
                if let Some((addr, mac)) = arp::parse_reply(&buffer[..len]) {
                    keeper.handle_reply(ifindex, addr, mac, Instant::now());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            // ENETDOWN and the like report a device's trouble once, and the socket goes on.
            Err(error) => debug!(%error, "arp socket"),
        }
    }
    false
}

/// Bounds the time for which a flood of replies holds up everything else.
const RECEIVE_AT_ONCE: usize = 256;
