//! Keeps a [`NetState`] current: subscribes to the kernel's changes, dumps its tables, publishes after each batch.
//!
//! Two sockets. One only receives events, read by this module itself: a batch is what is queued at the time, an event
//! that cannot be decoded is skipped, and lost events are noticed. The other is for requests (dumps, and those of
//! [`Neighbours`]).
//!
//! Dumps run beside the events. A dump is a picture of some moments between its start and its end, so the events
//! from its start on are applied a second time to the finished dump; [`NetState::apply`] says why that is right. The
//! events keep going into the published state meanwhile: a changed neighbour need not wait for a full BGP table.
//! Links come first in a dump. The kernel lists them under the lock that the operation behind an event still holds
//! (rtnl), so the routes are read after that operation has removed what it removes.
//!
//! A dump of IPv6 routes may miss some that nobody touched: when a route is added the kernel starts over and skips as many
//! as it has sent, and if others were removed meanwhile that is too many (fib6_dump_table in net/ipv6/ip6_fib.c; it does
//! not set NLM_F_DUMP_INTR; seen on Linux 6.18). So when the events say that both happened, the tables are read again,
//! until nothing of the kind happens meanwhile, and a route counts that is in any of these dumps.
//!
//! The tables are dumped at the start, when events were lost (ENOBUFS), when routes may have gone silently
//! ([`NetState::routes_may_change_silently`]) and when asked ([`Monitor::resync`]).

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::packet_core::{NLMSG_ALIGNTO, NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use rtnetlink::{Handle, MulticastGroup};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use super::decode;
use super::dump::dump;
use super::neigh::Neighbours;
use super::state::{Event, NetState, RouteTable};

#[derive(Debug, Error)]
pub enum MonitorError {
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    #[error("cannot read the kernel's {table}")]
    Dump { table: &'static str, source: io::Error },
}

#[derive(Clone, Debug)]
pub struct MonitorOptions {
    /// Bytes of events that the kernel queues for us, by its own accounting (about 1 KiB an event); events beyond them
    /// are lost, which costs a dump of everything. Capped by net.core.rmem_max without CAP_NET_ADMIN.
    pub receive_buffer: usize,
}

impl Default for MonitorOptions {
    fn default() -> Self {
        MonitorOptions { receive_buffer: 4 << 20 }
    }
}

/// The running monitor. Dropping it ends it, and with it all receivers.
#[derive(Debug)]
pub struct Monitor {
    requests: Handle,
    resync: mpsc::Sender<()>,
    losses: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Monitor {
    /// Starts on the calling thread's network namespace. The receiver's first value is complete; it then changes with
    /// every batch of events that changed anything. Its sender is gone when the monitor has failed, which is logged.
    pub async fn start() -> Result<(Monitor, watch::Receiver<Arc<NetState>>), MonitorError> {
        Self::start_with(MonitorOptions::default()).await
    }

    pub async fn start_with(
        options: MonitorOptions,
    ) -> Result<(Monitor, watch::Receiver<Arc<NetState>>), MonitorError> {
        let (mut connection, requests, _) =
            rtnetlink::new_connection().map_err(MonitorError::Socket)?;
        // A dump without its end is not a dump.
        connection.set_forward_done(true);
        // Ends by itself when the last handle is dropped.
        tokio::spawn(connection);
        // Subscribed before the first dump, so that nothing falls between.
        let events = EventSocket::open(&options).map_err(MonitorError::Socket)?;
        let state = dump(requests.clone()).await?;

        let (published, receiver) = watch::channel(Arc::new(state.clone()));
        // One place: a request that waits covers all that come after it.
        let (resync, asked) = mpsc::channel(1);
        if state.routes.keys().filter(|key| !key.dst.is_ipv4()).count() > ONE_DATAGRAM {
            // Whether that dump missed any, nobody has watched.
            let _ = resync.try_send(());
        }
        let losses = Arc::new(AtomicU64::new(0));
        let worker = Worker {
            events,
            requests: requests.clone(),
            state,
            published,
            losses: Arc::clone(&losses),
            dump: None,
            log: Vec::new(),
            torn: None,
            again_from: None,
            loss: Loss::None,
            recovering: false,
        };
        let task = tokio::spawn(worker.run(asked));
        Ok((Monitor { requests, resync, losses, task }, receiver))
    }

    pub fn neighbours(&self) -> Neighbours {
        Neighbours::new(self.requests.clone())
    }

    /// How often events were lost so far.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Has everything dumped again soon. Needed after a program was attached or detached through a BPF link: the link
    /// event that may come with that still has the old IFLA_XDP (seen on veth, Linux 6.18), unlike with netlink.
    pub fn resync(&self) {
        // Full: one is waiting already. Closed: the receivers know.
        let _ = self.resync.try_send(());
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Dump = Pin<Box<dyn Future<Output = Result<NetState, MonitorError>> + Send>>;

struct Worker {
    events: EventSocket,
    requests: Handle,
    state: NetState,
    published: watch::Sender<Arc<NetState>>,
    losses: Arc<AtomicU64>,
    /// A dump under way.
    dump: Option<Dump>,
    /// The events to apply to it when it is done: without a gap, and from its start or earlier.
    log: Vec<Event>,
    /// Dumps that may have missed routes; the one under way is for what they missed.
    torn: Option<Torn>,
    /// The last event in the log whose silent changes this dump may have been too early for.
    again_from: Option<usize>,
    loss: Loss,
    /// Since a loss, until a dump that began after it is done.
    recovering: bool,
}

/// What dumps have found that may have missed routes.
struct Torn {
    routes: Arc<RouteTable>,
    /// Events in the log before the dump under way began.
    before: usize,
    dumps: u32,
}

/// How far the loss of events has been dealt with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// There was none, or a dump that makes up for it has begun.
    None,
    /// From the first lost event until the socket's queue is empty the kernel drops events (NETLINK_S_CONGESTED in
    /// net/netlink/af_netlink.c), and reports only the first: a dump must begin after that.
    Congested,
    /// Events come again; a dump is needed.
    Over,
}

impl Worker {
    async fn run(mut self, mut asked: mpsc::Receiver<()>) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                // When a dump is done, all events from before its end have been read.
                biased;
                read = self.events.read(&mut batch) => match read {
                    Ok(read) => self.handle_batch(&mut batch, read),
                    Err(error) => {
                        error!(%error, "netlink socket failed, interfaces and routes are no longer followed");
                        return;
                    }
                },
                dumped = finished(&mut self.dump) => self.handle_dump(dumped),
                Some(()) = asked.recv(), if self.dump.is_none() => self.start_dump(Vec::new()),
            }
        }
    }

    fn handle_batch(&mut self, batch: &mut Vec<Event>, read: Read) {
        if read.overrun {
            self.loss = Loss::Congested;
            self.losses.fetch_add(1, Ordering::Relaxed);
            if !self.recovering {
                warn!("netlink events were lost, reading everything again");
                self.recovering = true;
            }
        }
        let mut changed = false;
        for event in batch.drain(..) {
            // The next dump's log begins with the last event that makes one necessary: an older one might bring back
            // a route whose silent end the dump has seen.
            let silent = self.state.routes_may_change_silently(&event);
            if self.dump.is_none() && silent {
                self.log.clear();
            }
            if self.dump.is_some() || silent || !self.log.is_empty() {
                self.log.push(event.clone());
            }
            if self.dump.is_some() && silent {
                self.again_from = Some(self.log.len() - 1);
            }
            changed |= self.state.apply(event);
        }
        if changed {
            self.publish();
        }
        if self.loss != Loss::None {
            self.log.clear();
            self.again_from = None;
            if self.loss == Loss::Congested && read.drained {
                self.loss = Loss::Over;
            }
        }
        if self.dump.is_none() && (self.loss == Loss::Over || !self.log.is_empty()) {
            let log = std::mem::take(&mut self.log);
            self.start_dump(log);
        }
    }

    fn start_dump(&mut self, log: Vec<Event>) {
        if self.loss == Loss::Over {
            self.loss = Loss::None;
        }
        self.log = log;
        self.torn = None;
        self.again_from = None;
        self.dump = Some(Box::pin(dump(self.requests.clone())));
    }

    fn handle_dump(&mut self, dumped: Result<NetState, MonitorError>) {
        self.dump = None;
        let mut fresh = match dumped {
            Ok(fresh) => fresh,
            Err(error) => {
                warn!(error = ?error, "interfaces and routes could not be read, trying again");
                let requests = self.requests.clone();
                self.dump = Some(Box::pin(async move {
                    tokio::time::sleep(RETRY).await;
                    dump(requests).await
                }));
                return;
            }
        };
        match self.loss {
            Loss::None => {}
            // It began before the loss.
            Loss::Congested => return,
            Loss::Over => return self.start_dump(Vec::new()),
        }
        let torn = self.torn.take();
        let (before, dumps) = torn.as_ref().map_or((0, 1), |torn| (torn.before, torn.dumps + 1));
        if let Some(torn) = torn {
            fresh.add_missing_routes(&torn.routes);
        }
        if tears(self.log.get(before..).unwrap_or(&self.log)) && dumps < MAX_TORN_DUMPS {
            self.torn = Some(Torn { routes: fresh.routes, before: self.log.len(), dumps });
            self.dump = Some(Box::pin(dump(self.requests.clone())));
            return;
        }
        for event in &self.log {
            fresh.apply(event.clone());
        }
        fresh.share_equal_tables(&self.state);
        if fresh != self.state {
            self.state = fresh;
            self.publish();
        }
        if std::mem::take(&mut self.recovering) {
            info!("interfaces, routes and neighbours are current again");
        }
        let log = std::mem::take(&mut self.log);
        if let Some(from) = self.again_from.take() {
            self.start_dump(log[from..].to_vec());
        }
    }

    fn publish(&self) {
        self.published.send_replace(Arc::new(self.state.clone()));
    }
}

/// Whether a dump during which these events came may have missed IPv6 routes.
fn tears(log: &[Event]) -> bool {
    let new = |event: &Event| matches!(event, Event::NewRoute(key, ..) if !key.dst.is_ipv4());
    let gone = |event: &Event| matches!(event, Event::DelRoute(key, _) if !key.dst.is_ipv4());
    log.iter().any(new) && log.iter().any(gone)
}

/// Waits for the dump under way, if any; cancelling it loses nothing.
async fn finished(dump: &mut Option<Dump>) -> Result<NetState, MonitorError> {
    match dump {
        Some(dump) => dump.await,
        None => std::future::pending().await,
    }
}

/// The socket that events come in on.
struct EventSocket {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

struct Read {
    /// Events were lost.
    overrun: bool,
    /// Nothing is queued any more.
    drained: bool,
}

impl EventSocket {
    fn open(options: &MonitorOptions) -> io::Result<EventSocket> {
        let mut tokio_socket = TokioSocket::new(NETLINK_ROUTE)?;
        let socket = tokio_socket.socket_mut();
        socket.bind(&SocketAddr::new(0, 0))?;
        // SO_RCVBUF is capped by net.core.rmem_max, SO_RCVBUFFORCE needs CAP_NET_ADMIN.
        if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &options.receive_buffer).is_err() {
            setsockopt(&socket.as_fd(), sockopt::RcvBuf, &options.receive_buffer)?;
        }
        for group in GROUPS {
            socket.add_membership(group as u32)?;
        }
        Ok(EventSocket { socket: tokio_socket, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Waits for events and reads what is queued, up to a limit. Cancelling it loses nothing: it never waits with
    /// something read.
    async fn read(&mut self, batch: &mut Vec<Event>) -> io::Result<Read> {
        poll_fn(|cx| self.poll_read(cx, batch)).await
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<Event>,
    ) -> Poll<io::Result<Read>> {
        let mut read = Read { overrun: false, drained: false };
        for i in 0..READ_AT_ONCE {
            self.buffer.clear();
            match self.socket.poll_recv_from(cx, &mut self.buffer) {
                // Only the kernel's messages count.
                Poll::Ready(Ok(from)) if from.port_number() != 0 => {}
                // A truncated datagram ends in the middle of a message.
                Poll::Ready(Ok(_)) => read.overrun |= !decode_datagram(&self.buffer, batch),
                Poll::Ready(Err(error)) => match error.raw_os_error() {
                    Some(libc::ENOBUFS) => read.overrun = true,
                    Some(libc::EINTR) => {}
                    _ => return Poll::Ready(Err(error)),
                },
                Poll::Pending if i == 0 => return Poll::Pending,
                Poll::Pending => {
                    read.drained = true;
                    break;
                }
            }
        }
        Poll::Ready(Ok(read))
    }
}

/// Returns whether all messages could be found; one that cannot be decoded is none of ours.
fn decode_datagram(mut datagram: &[u8], batch: &mut Vec<Event>) -> bool {
    while !datagram.is_empty() {
        let Ok(header) = NetlinkBuffer::new_checked(datagram) else { return false };
        let (len, kind) = (header.length() as usize, header.message_type());
        if kind == RTM_NEWNEXTHOP || kind == RTM_DELNEXTHOP {
            // netlink-packet-route does not know these.
            batch.push(Event::NextHopObject);
        } else {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&datagram[..len]) {
                Ok(message) => match message.payload {
                    NetlinkPayload::InnerMessage(inner) => {
                        batch.extend(decode::event(&inner, message.header.flags));
                    }
                    NetlinkPayload::Overrun(_) => return false,
                    _ => {}
                },
                Err(error) => debug!(kind, %error, "netlink event not understood"),
            }
        }
        datagram = &datagram[len.next_multiple_of(NLMSG_ALIGNTO.into()).min(datagram.len())..];
    }
    true
}

const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Nexthop,
];
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
/// Above the 32 KiB that the kernel makes at most (NLMSG_GOODSIZE and netlink_dump).
const DATAGRAM: usize = 64 << 10;
/// IPv6 routes that a dump has in one datagram for certain, of which it then misses none.
const ONE_DATAGRAM: usize = 50;
/// Datagrams between two publications: bounds what a flood can hold up.
const READ_AT_ONCE: usize = 1024;
/// Dumps in a row that are not believed while routes come and go.
const MAX_TORN_DUMPS: u32 = 8;
/// After a dump that failed.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);
