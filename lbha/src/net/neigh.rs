//! Keeps watched neighbours resolved: the task around [`Keeper`], and the request that has the kernel resolve one.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
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

use super::keeper::{Answer, Keeper, Probe, Watch};
use super::raw::{PacketSocket, Protocol};
use super::state::{IfIndex, Mac, NetState};
use super::{arp, ndp};

#[derive(Debug, Error)]
pub enum NeighbourError {
    #[error("cannot have the kernel resolve {addr} on interface {ifindex}")]
    Resolve { ifindex: IfIndex, addr: IpAddr, source: io::Error },
    #[error("cannot have the kernel verify {addr} on interface {ifindex}")]
    Verify { ifindex: IfIndex, addr: IpAddr, source: io::Error },
    #[error("cannot open a packet socket")]
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

    /// Has the kernel resolve a neighbour now: it creates the entry if there is none, and asks everyone if
    /// the entry is not valid (neigh_event_send; a FAILED entry starts over). Returns when the kernel has started, not
    /// when the neighbour has answered. Never to be used on a PERMANENT entry: NTF_USE makes that an ordinary one
    /// (__neigh_update).
    pub async fn probe(&self, ifindex: IfIndex, addr: IpAddr) -> Result<(), NeighbourError> {
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
    pub async fn verify(&self, ifindex: IfIndex, addr: IpAddr) -> Result<(), NeighbourError> {
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

fn about(ifindex: IfIndex, addr: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(addr.into()));
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
        let open = |protocol| PacketSocket::open(protocol).map_err(NeighbourError::Socket);
        let sockets = Sockets { arp: open(Protocol::Arp)?, ndp: open(Protocol::Ndp)? };
        let (watched, changes) = watch::channel(BTreeSet::new());
        let task = tokio::spawn(run(sockets, states, changes, neighbours));
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

struct Sockets {
    arp: AsyncFd<PacketSocket>,
    ndp: AsyncFd<PacketSocket>,
}

async fn run(
    sockets: Sockets,
    mut states: watch::Receiver<Arc<NetState>>,
    mut watched: watch::Receiver<BTreeSet<Watch>>,
    neighbours: Neighbours,
) {
    let mut keeper = Keeper::default();
    let mut state = states.borrow_and_update().clone();
    keeper.watch(&watched.borrow_and_update());
    loop {
        for probe in keeper.poll(&state, Instant::now()) {
            perform(probe, &sockets, &state, &neighbours).await;
        }
        let timeout = keeper.poll_timeout();
        let received = tokio::select! {
            changed = states.changed() => {
                if changed.is_err() {
                    return;
                }
                state = states.borrow_and_update().clone();
                Ok(())
            }
            changed = watched.changed() => {
                if changed.is_err() {
                    return;
                }
                keeper.watch(&watched.borrow_and_update());
                Ok(())
            }
            ready = sockets.arp.readable() => ready.map(|mut ready| {
                if receive(sockets.arp.get_ref(), &mut keeper, arp_answer) {
                    ready.clear_ready();
                }
            }),
            ready = sockets.ndp.readable() => ready.map(|mut ready| {
                if receive(sockets.ndp.get_ref(), &mut keeper, ndp_answer) {
                    ready.clear_ready();
                }
            }),
            () = sleep_until(timeout), if timeout.is_some() => Ok(()),
        };
        if let Err(error) = received {
            warn!(%error, "neighbours are no longer checked: packet socket failed");
            return;
        }
    }
}

async fn sleep_until(timeout: Option<Instant>) {
    match timeout {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn perform(probe: Probe, sockets: &Sockets, state: &NetState, neighbours: &Neighbours) {
    // The interface may be going; its next event is the end of that.
    match probe {
        Probe::Resolve { ifindex, addr } => {
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
            send(&sockets.arp, ifindex, to, &packet, addr.into());
        }
        Probe::Solicit { ifindex, addr, source, to } => {
            let Some(link) = state.links.get(&ifindex) else { return };
            let everyone = ndp::solicited_node(addr);
            let destination = if to.is_some() { addr } else { everyone };
            let packet = ndp::solicitation(link.mac, source, addr, destination);
            let to = to.unwrap_or_else(|| ndp::multicast_mac(everyone));
            send(&sockets.ndp, ifindex, to, &packet, addr.into());
        }
    }
}

fn send(socket: &AsyncFd<PacketSocket>, ifindex: IfIndex, to: Mac, packet: &[u8], addr: IpAddr) {
    if let Err(error) = socket.get_ref().send(ifindex, to, packet) {
        debug!(%addr, ifindex, %error, "neighbour not asked");
    }
}

/// Reads what is there; returns whether that was all.
fn receive(
    socket: &PacketSocket,
    keeper: &mut Keeper,
    parse: impl Fn(&[u8]) -> Option<(IpAddr, Answer)>,
) -> bool {
    let mut buffer = [0; PACKET];
    for _ in 0..RECEIVE_AT_ONCE {
        match socket.receive(&mut buffer) {
            Ok((ifindex, len)) => {
                if let Some((addr, answer)) = parse(&buffer[..len]) {
                    keeper.handle_answer(ifindex, addr, answer, Instant::now());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            // ENETDOWN and the like report a device's trouble once, and the socket goes on.
            Err(error) => debug!(%error, "packet socket"),
        }
    }
    false
}

fn arp_answer(packet: &[u8]) -> Option<(IpAddr, Answer)> {
    let (addr, mac) = arp::parse_reply(packet)?;
    Some((addr.into(), Answer { mac: Some(mac), overrides: true }))
}

fn ndp_answer(packet: &[u8]) -> Option<(IpAddr, Answer)> {
    let ndp::Advertisement { target, mac, overrides } = ndp::parse_advertisement(packet)?;
    Some((target.into(), Answer { mac, overrides }))
}

/// Enough for an advertisement, whatever its options: it is one packet, and a larger MTU is not for these.
const PACKET: usize = 1500;
/// Bounds the time for which a flood of answers holds up everything else.
const RECEIVE_AT_ONCE: usize = 256;
