//! UDP echo servers, and a client that waits for its answer.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{netns::Netns, sockopt, topology::Topology};

/// Sends every datagram back to where it came from, from a thread of its own.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<SocketAddr>>>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn start(namespace: &Netns, listen: impl Into<SocketAddr>) -> Result<Self> {
        let socket = bind(namespace, listen)?;
        // The interval at which the thread looks at its flag.
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let (stopped, peers) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 65536];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                peers.lock().unwrap_or_else(PoisonError::into_inner).insert(from);
                let _ = socket.send_to(&buffer[..len], from);
            }
        });
        Ok(Self { stop, seen, thread: Some(thread) })
    }

    /// One on this port of every address of every web server of the topology.
    pub fn start_all(topology: &Topology, port: u16) -> Result<Vec<Self>> {
        let of = |(index, web)| {
            let listen = topology.web_sockets(index, port).into_iter();
            listen.map(move |listen| Self::start(web, listen))
        };
        topology.web.iter().enumerate().flat_map(of).collect()
    }

    /// Everybody whose datagrams came.
    pub fn seen(&self) -> BTreeSet<SocketAddr> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket of a namespace.
pub fn bind(namespace: &Netns, local: impl Into<SocketAddr>) -> Result<UdpSocket> {
    let local = local.into();
    namespace.run_in(|| UdpSocket::bind(local)).with_context(|| format!("bind UDP {local}"))
}

/// Sends `payload` and waits for the same from `to` and nobody else; sends again as long as nothing comes.
pub fn exchange(socket: &UdpSocket, to: impl Into<SocketAddr>, payload: &[u8]) -> Result<()> {
    let to = to.into();
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = [0; 65536];
    for _ in 0..10 {
        socket.send_to(payload, to).context("send")?;
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) => {
                ensure!(from == to, "an answer from {from} instead of {to}");
                ensure!(buffer[..len] == *payload, "{len} bytes, or others, came back");
                return Ok(());
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("receive"),
        }
    }
    bail!("no answer from {to} to {} bytes", payload.len())
}

/// How a socket's datagrams go on links that they do not fit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fragments {
    /// In fragments, DF never set; what routers say of the MTU is not listened to.
    Always,
    /// Not: DF is set, and what does not fit the MTU known for the path is not sent (EMSGSIZE).
    Never,
    /// Not: DF is set whatever is known, so that the path has to say so itself.
    Probe,
}

/// Sets that for a socket of either family.
pub fn set_fragments(socket: &UdpSocket, fragments: Fragments) -> Result<()> {
    // The numbers are the same for IPv6 (`IPV6_PMTUDISC_*`).
    let value = match fragments {
        Fragments::Always => libc::IP_PMTUDISC_DONT,
        Fragments::Never => libc::IP_PMTUDISC_DO,
        Fragments::Probe => libc::IP_PMTUDISC_PROBE,
    };
    let (level, option) = if socket.local_addr()?.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
    };
    sockopt::set(socket, level, option, value).context("set the MTU discovery")
}
