//! Watches the public link for packets that show a private address to the internet.

use std::{
    fmt::Write as _,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use libc::sock_filter;

use crate::{
    netns::Netns,
    packet::{Parsed, Transport, parse},
    sockopt,
    topology::{ROUTER_LINK, Topology},
    wire::{Direction, Wire},
};

/// A guard: a panic when it goes and something has leaked, unless there is one already.
///
/// A leak is a packet from the load balancer whose source is private, or an ICMP error that quotes a private address. The
/// filter is the kernel's, so that any amount of traffic beside the leaks is no burden.
#[derive(Debug)]
pub struct LeakWatch {
    stop: Arc<AtomicBool>,
    leaks: Arc<Mutex<Leaks>>,
    thread: Option<JoinHandle<()>>,
}

/// What has leaked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Leaks {
    pub count: u64,
    /// The first ones, to be read.
    pub examples: Vec<String>,
}

impl LeakWatch {
    /// Watches what the topology's load balancer sends to its router.
    pub fn start(topology: &Topology) -> Result<Self> {
        Self::on(&topology.router, ROUTER_LINK)
    }

    /// Watches what comes in on any interface.
    pub fn on(namespace: &Netns, interface: &str) -> Result<Self> {
        let wire = Wire::open(namespace, interface)?;
        attach_filter(&wire).context("attach a filter to a packet socket")?;
        let (stop, leaks) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Leaks>>::default());
        let (stopped, found) = (Arc::clone(&stop), Arc::clone(&leaks));
        let thread = thread::spawn(move || {
            loop {
                // Looked at first: what came before the stop is still counted.
                let last = stopped.load(Ordering::Relaxed);
                match wire.receive(if last { Duration::ZERO } else { POLL }) {
                    Ok(Some((Direction::In, frame))) => {
                        if let Some(text) = parse(&frame).ok().and_then(|packet| leak(&packet)) {
                            note(&found, text);
                        }
                    }
                    Ok(Some((Direction::Out, _))) => {}
                    Ok(None) if last => return,
                    Ok(None) => {}
                    // A watch that has seen nothing must not pass for one that found nothing.
                    Err(error) => return note(&found, format!("the watch ended: {error:#}")),
                }
            }
        });
        Ok(Self { stop, leaks, thread: Some(thread) })
    }

    /// So far.
    pub fn leaks(&self) -> Leaks {
        self.leaks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the watch without a panic, for tests that expect leaks.
    pub fn finish(mut self) -> Leaks {
        self.end()
    }

    fn end(&mut self) -> Leaks {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
            return self.leaks();
        }
        Leaks::default()
    }
}

impl Drop for LeakWatch {
    fn drop(&mut self) {
        let leaks = self.end();
        if leaks.count > 0 {
            let mut text = format!("{} packets leaked a private address:", leaks.count);
            for example in &leaks.examples {
                let _ = write!(text, "\n  {example}");
            }
            if thread::panicking() {
                eprintln!("{text}");
            } else {
                panic!("{text}");
            }
        }
    }
}

fn note(leaks: &Mutex<Leaks>, text: String) {
    let mut leaks = leaks.lock().unwrap_or_else(PoisonError::into_inner);
    leaks.count += 1;
    if leaks.examples.len() < EXAMPLES {
        leaks.examples.push(text);
    }
}

/// What of a packet shows a private address.
fn leak(packet: &Parsed) -> Option<String> {
    let (ip, protocol) = (&packet.ip, packet.ip.protocol);
    if is_private(ip.src) {
        return Some(format!("{} → {}, protocol {protocol}", ip.src, ip.dst));
    }
    let Transport::Icmp { embedded: Some(embedded), .. } = &packet.transport else { return None };
    let (src, dst) = (embedded.ip.src, embedded.ip.dst);
    let quotes = is_private(src) || is_private(dst);
    quotes.then(|| format!("{} → {}, an ICMP error about {src} → {dst}", ip.src, ip.dst))
}

/// RFC 1918 and RFC 4193.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

/// Has the kernel keep only frames with a private source, and those that may be ICMP: [`leak`] is what decides.
fn attach_filter(wire: &Wire) -> io::Result<()> {
    // Offsets from the start of the Ethernet header: 12 type, 23 IPv4 protocol, 26 IPv4 source, 20 IPv6 next header,
    // 22 IPv6 source. Jumps count from the next instruction.
    let program = [
        /*  0 */ load(libc::BPF_H, 12),
        /*  1 */ jump_if_equal(0x0800, 0, 8),
        /*  2 */ load(libc::BPF_B, 23),
        /*  3 */ jump_if_equal(1, 13, 0),
        /*  4 */ load(libc::BPF_B, 26),
        /*  5 */ jump_if_equal(10, 11, 0),
        /*  6 */ load(libc::BPF_H, 26),
        /*  7 */ jump_if_equal(0xc0a8, 9, 0),
        /*  8 */ and(0xfff0),
        /*  9 */ jump_if_equal(0xac10, 7, 8),
        /* 10 */ jump_if_equal(0x86dd, 0, 7),
        /* 11 */ load(libc::BPF_B, 20),
        /* 12 */ jump_if_equal(6, 1, 0),
        /* 13 */ jump_if_equal(17, 0, 3),
        /* 14 */ load(libc::BPF_B, 22),
        /* 15 */ and(0xfe),
        /* 16 */ jump_if_equal(0xfc, 0, 1),
        /* 17 */ keep(u32::MAX),
        /* 18 */ keep(0),
    ];
    sockopt::attach_filter(wire.socket(), &program)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

fn load(size: u32, at: u32) -> sock_filter {
    instruction(libc::BPF_LD | size | libc::BPF_ABS, 0, 0, at)
}

fn and(mask: u32) -> sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask)
}

fn jump_if_equal(value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, then, otherwise, value)
}

fn keep(bytes: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, bytes)
}

const POLL: Duration = Duration::from_millis(20);
const EXAMPLES: usize = 10;
