//! TCP: connections from a chosen port, and a server that takes and gives any amount of bytes and checks them all.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt},
};

use crate::{netns::Netns, wait::wait_for};

/// How a connection is made, and how long anything on it may take.
#[derive(Clone, Debug)]
pub struct Options {
    /// The local address; port 0 leaves the port to the kernel. Bound with SO_REUSEADDR.
    pub source: Option<SocketAddr>,
    pub connect_timeout: Duration,
    /// Of one read or write.
    pub io_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            source: None,
            connect_timeout: Duration::from_secs(5),
            io_timeout: Duration::from_secs(10),
        }
    }
}

impl Options {
    pub fn from(source: impl Into<SocketAddr>) -> Self {
        Self { source: Some(source.into()), ..Self::default() }
    }
}

/// Connects: call it inside a namespace ([`Netns::run_in`]).
pub fn connect(to: impl Into<SocketAddr>, options: &Options) -> Result<TcpStream> {
    let to = to.into();
    let stream = dial(to, options).with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(options.io_timeout))?;
    stream.set_write_timeout(Some(options.io_timeout))?;
    Ok(stream)
}

/// `TcpStream::connect_timeout` with a source address.
fn dial(to: SocketAddr, options: &Options) -> Result<TcpStream> {
    let limit = options.connect_timeout;
    // The end of the last connection between the same two ports may be a moment away (LAST_ACK).
    let closing = |error: &anyhow::Error| {
        options.source.is_some() && error.downcast_ref() == Some(&Errno::EADDRNOTAVAIL)
    };
    wait_for(limit, "for the source port to be free", || match dial_once(to, options) {
        Err(error) if closing(&error) => None,
        outcome => Some(outcome),
    })?
}

fn dial_once(to: SocketAddr, options: &Options) -> Result<TcpStream> {
    let Options { source, connect_timeout, io_timeout: _ } = options;
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket::socket(family, SockType::Stream, flags, None)?;
    if let Some(source) = source {
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(*source))
            .map_err(|error| anyhow!("bind to {source}: {error}"))?;
    }
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) => {}
        Err(Errno::EINPROGRESS) => {
            let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
            let limit = PollTimeout::try_from(*connect_timeout).context("connect timeout")?;
            ensure!(poll(&mut fds, limit)? > 0, "no answer within {connect_timeout:?}");
            let error = socket::getsockopt(&fd, sockopt::SocketError)?;
            if error != 0 {
                return Err(Errno::from_raw(error).into());
            }
        }
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Takes connections on threads of its own: see [`transfer`].
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<SocketAddr>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(namespace: &Netns, listen: impl Into<SocketAddr>) -> Result<Self> {
        let listen = listen.into();
        let listener = namespace.run_in(|| TcpListener::bind(listen));
        let listener = listener.with_context(|| format!("listen on {listen}"))?;
        listener.set_nonblocking(true)?;
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<BTreeSet<_>>>::default());
        let (stopped, peers) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // The interval at which the thread looks at its flag.
                let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, 50_u8);
                let Ok((stream, peer)) = listener.accept() else { continue };
                peers.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
                // What goes wrong shows at the other end, as a connection that is cut.
                thread::spawn(move || drop(serve(stream)));
            }
        });
        Ok(Self { stop, seen, thread: Some(thread) })
    }

    /// Everybody who connected.
    pub fn seen(&self) -> BTreeSet<SocketAddr> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends `up` bytes to a [`Server`] and has it send `down` bytes; every byte is compared, on both sides. Then both close.
pub fn transfer(mut stream: TcpStream, up: u64, down: u64) -> Result<()> {
    stream.write_all(&[up.to_be_bytes(), down.to_be_bytes()].concat()).context("send")?;
    send(&mut stream, up).context("send")?;
    let mut verdict = [0];
    stream.read_exact(&mut verdict).context("the server's verdict on what it got")?;
    ensure!(verdict == GOOD, "the server got other bytes");
    receive(&mut stream, down)?;
    stream.shutdown(Shutdown::Write)?;
    ensure!(stream.read(&mut [0])? == 0, "a byte too many");
    Ok(())
}

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    let timeout = Some(Options::default().io_timeout);
    stream.set_read_timeout(timeout)?;
    stream.set_write_timeout(timeout)?;
    let mut lengths = [0; 16];
    stream.read_exact(&mut lengths)?;
    let [up, down] =
        [0, 8].map(|at| u64::from_be_bytes(lengths[at..at + 8].try_into().expect("8 bytes")));
    let verdict = if receive(&mut stream, up).is_ok() { GOOD } else { [0] };
    stream.write_all(&verdict)?;
    send(&mut stream, down)?;
    // The client closes first.
    ensure!(stream.read(&mut [0])? == 0, "a byte too many");
    Ok(())
}

/// Bytes that repeat after a prime number of them: what is lost, doubled or out of place shows.
fn block() -> Vec<u8> {
    let mut word = 0x9e37_79b9_u32;
    let next = |_| {
        // Marsaglia's xorshift.
        word ^= word << 13;
        word ^= word >> 17;
        word ^= word << 5;
        (word >> 24) as u8
    };
    (0..PERIOD).map(next).collect()
}

fn send(stream: &mut TcpStream, mut bytes: u64) -> Result<()> {
    let block = block();
    while bytes > 0 {
        let len = bytes.min(PERIOD as u64) as usize;
        stream.write_all(&block[..len])?;
        bytes -= len as u64;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, bytes: u64) -> Result<()> {
    let (block, mut got) = (block(), vec![0; PERIOD]);
    let mut done = 0;
    while done < bytes {
        let part = &mut got[..(bytes - done).min(PERIOD as u64) as usize];
        stream.read_exact(part).with_context(|| format!("receive after {done} bytes"))?;
        if *part != block[..part.len()] {
            let at = part.iter().zip(&block).take_while(|(is, should)| is == should).count();
            return Err(anyhow!("byte {} is another one", done + at as u64));
        }
        done += part.len() as u64;
    }
    Ok(())
}

const PERIOD: usize = 65521;
const GOOD: [u8; 1] = [1];
