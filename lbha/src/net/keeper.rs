//! When to ask which watched neighbour for its MAC address, so that a change is known within a second; pure.
//!
//! Why not leave it to the kernel: packets that XDP redirects do not use the kernel's neighbour entries, so nothing
//! refreshes these, and a peer that changes its MAC address without a gratuitous ARP goes unnoticed for as long as the
//! entry is REACHABLE (15 to 45 s) or, being unused and STALE, for ever. What netlink offers does not help (measured
//! over a veth pair whose far end changes its MAC address in silence, Linux 6.18):
//!
//! - the entry set to NUD_PROBE: the kernel sends three *unicast* probes, a second apart, to the old MAC address, and the
//!   entry becomes FAILED after 3 s; it broadcasts only when mcast_resolicit is set, which it is not by default;
//! - NTF_USE on a STALE entry: 5 s in DELAY, then the same;
//! - NTF_MANAGED (Linux 5.16): nothing at all while the entry is REACHABLE.
//!
//! So the keeper asks by itself, from packet sockets, with ARP requests or neighbour solicitations: every
//! [`CHECK_INTERVAL`] a unicast one to the known MAC address; if that is not answered within [`ANSWER_TIME`], one to
//! everyone: by broadcast, or to the solicited-node multicast address. The answer to the latter comes with the new MAC
//! address and goes through the kernel's own input, which updates the entry and tells everyone by netlink. The answers
//! also keep the entry REACHABLE, which serves the host's own connections to the servers.
//!
//! - ARP (arp_process in net/ipv4/arp.c): a reply's address is taken unless the entry changed less than `locktime`, 1 s,
//!   ago; the next check then brings it.
//! - Neighbour discovery (ndisc_recv_na in net/ipv6/ndisc.c; measured on Linux 6.18): the address of an advertisement
//!   with the override flag, which Linux sets when it was asked by multicast, is taken at once and every time, by an
//!   entry in REACHABLE, STALE, DELAY or PROBE, and makes it REACHABLE. When asked by unicast Linux sets no override flag
//!   and gives no address; that leaves the entry's address alone and makes it REACHABLE. An entry in FAILED takes
//!   nothing.
//!
//! A neighbour that answers none of these is given to the kernel to verify (NUD_PROBE, see above): a host that is gone
//! turns FAILED within 5 s of its last answer.
//!
//! An unresolved neighbour is given to the kernel to resolve (the kernel takes addresses from answers only for entries
//! that exist and are not FAILED), with a question of the keeper's own to everyone beside it: a Backup without an address
//! on this interface would have the kernel ask from another interface's address, which a server with strict rp_filter
//! does not answer.
//!
//! IPv6 solicitations come from the device's link-local address, which every host has to itself. Without one the keeper
//! asks nobody: an unresolved neighbour is left to the kernel, and what is known stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::state::{IfIndex, Mac, NetState, Nud};

/// Between two checks of a neighbour that answers. With [`ANSWER_TIME`] and the answer's own time this bounds how long a
/// changed MAC address goes unnoticed.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a unicast request may go unanswered before a broadcast one follows.
pub const ANSWER_TIME: Duration = Duration::from_millis(150);
/// Between broadcasts while nobody answers: the first few quickly, then as often as the kernel itself would.
const QUICK_RETRY: Duration = Duration::from_millis(250);
const QUICK_RETRIES: u32 = 4;
const SLOW_RETRY: Duration = Duration::from_secs(1);
/// Unanswered requests, one unicast and the rest broadcast, after which the kernel is asked to verify, once.
const VERIFY_AFTER: u32 = QUICK_RETRIES + 1;
/// What is due this soon is done now: many neighbours are checked in one wake-up.
const BATCH: Duration = Duration::from_millis(10);

/// A neighbour whose MAC address must be right: a server or a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watch {
    /// The device that the neighbour entry belongs to (an L3 device of a port).
    pub ifindex: IfIndex,
    pub addr: IpAddr,
    /// IPv4: the address to ask from; `None` asks from 0.0.0.0. It must be an address that never moves to another host:
    /// a request that leaves after its address moved would point the neighbour's ARP cache back to this host. IPv6:
    /// not used, the device's link-local address is such an address.
    pub source: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Have the kernel resolve the neighbour.
    Resolve { ifindex: IfIndex, addr: IpAddr },
    /// Have the kernel find out whether a neighbour that it believes to be there still is.
    Verify { ifindex: IfIndex, addr: IpAddr },
    /// Send an ARP request to this MAC address, which may be the broadcast address.
    Request { ifindex: IfIndex, addr: Ipv4Addr, source: Ipv4Addr, to: Mac },
    /// Send a neighbour solicitation to this MAC address, or to the solicited-node multicast address.
    Solicit { ifindex: IfIndex, addr: Ipv6Addr, source: Ipv6Addr, to: Option<Mac> },
}

/// What a neighbour answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `None`: it is the one that was asked. A neighbour advertisement need not repeat it (RFC 4861 §7.2.4).
    pub mac: Option<Mac>,
    /// Whether `mac` is to replace another one that is known: always with ARP.
    pub overrides: bool,
}

/// Drive it with [`Keeper::poll`] at start, whenever [`Keeper::poll_timeout`] has passed, and after every other call.
#[derive(Debug, Default)]
pub struct Keeper {
    entries: BTreeMap<(IfIndex, IpAddr), Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    source: Option<IpAddr>,
    /// The next request; `None` while there is nobody to ask: the link is down or the entry is static.
    due: Option<Instant>,
    /// The kernel's.
    known: Option<Mac>,
    unanswered: u32,
    /// From the last answer, which the kernel may have ignored.
    answered: Option<Mac>,
}

impl Keeper {
    /// Replaces the set of watched neighbours; those that stay keep their schedule.
    pub fn watch(&mut self, watched: &BTreeSet<Watch>) {
        let mut old = std::mem::take(&mut self.entries);
        for watch in watched {
            let key = (watch.ifindex, watch.addr);
            let entry = old.remove(&key).unwrap_or_default();
            self.entries.insert(key, Entry { source: watch.source, ..entry });
        }
    }

    pub fn handle_answer(&mut self, ifindex: IfIndex, addr: IpAddr, answer: Answer, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&(ifindex, addr))
            && let Some(known) = entry.known
            // The kernel keeps to the known address then (RFC 4861 §7.2.5), and that one has not answered.
            && (answer.overrides || answer.mac.is_none_or(|mac| mac == known))
        {
            entry.unanswered = 0;
            entry.answered = answer.mac;
            entry.due = Some(now + CHECK_INTERVAL);
        }
    }

    /// What to do now.
    pub fn poll(&mut self, state: &NetState, now: Instant) -> Vec<Probe> {
        let mut probes = Vec::new();
        for ((ifindex, addr), entry) in &mut self.entries {
            entry.poll(state, *ifindex, *addr, now, &mut probes);
        }
        probes
    }

    /// When to poll again if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.due).min()
    }
}

impl Entry {
    fn poll(
        &mut self,
        state: &NetState,
        ifindex: IfIndex,
        addr: IpAddr,
        now: Instant,
        probes: &mut Vec<Probe>,
    ) {
        let neighbour = state.neighbours.get(&(ifindex, addr));
        let mac = neighbour.and_then(|n| n.usable_mac());
        let link = state.links.get(&ifindex).filter(|link| link.up && link.carrier);
        let asker = asker(state, ifindex, addr, self.source);
        let fixed = neighbour.is_some_and(|n| matches!(n.nud, Nud::Permanent | Nud::NoArp));
        if link.is_none() || fixed || (asker.is_none() && mac.is_some()) {
            // The link's, the entry's or the address's next event brings another poll.
            *self = Entry { source: self.source, ..Entry::default() };
            return;
        }
        if mac.is_some() != self.known.is_some() {
            self.unanswered = 0;
            self.answered = None;
            // Just resolved: the first check comes at a time of this neighbour's own, so that many do not come at once.
            // Just lost, or never known: now.
            self.due = Some(if mac.is_some() { now + spread(addr) } else { now });
        }
        self.known = mac;
        let due = *self.due.get_or_insert(now);
        if now + BATCH < due {
            return;
        }
        let ask = |to| asker.map(|asker| asker.probe(ifindex, to));
        match mac {
            Some(mac) if self.unanswered == 0 && self.answered.is_none_or(|seen| seen == mac) => {
                probes.extend(ask(Some(mac)));
                self.due = Some(now + ANSWER_TIME);
            }
            Some(_) => {
                if self.unanswered == VERIFY_AFTER {
                    probes.push(Probe::Verify { ifindex, addr });
                }
                probes.extend(ask(None));
                let quick = self.unanswered <= QUICK_RETRIES;
                self.due = Some(now + if quick { QUICK_RETRY } else { SLOW_RETRY });
            }
            None => {
                probes.push(Probe::Resolve { ifindex, addr });
                probes.extend(ask(None));
                self.due = Some(now + SLOW_RETRY);
            }
        }
        self.unanswered = self.unanswered.saturating_add(1);
    }
}

/// Who is asked, and from which address.
#[derive(Clone, Copy)]
enum Asker {
    V4 { addr: Ipv4Addr, source: Ipv4Addr },
    V6 { addr: Ipv6Addr, source: Ipv6Addr },
}

/// `None` while the device has no link-local address: a solicitation from `::` would be one for duplicate address
/// detection (RFC 4861 §4.3), which the neighbour takes for a host that wants its address.
fn asker(
    state: &NetState,
    ifindex: IfIndex,
    addr: IpAddr,
    source: Option<IpAddr>,
) -> Option<Asker> {
    match (addr, source) {
        (IpAddr::V4(addr), Some(IpAddr::V4(source))) => Some(Asker::V4 { addr, source }),
        (IpAddr::V4(addr), _) => Some(Asker::V4 { addr, source: Ipv4Addr::UNSPECIFIED }),
        (IpAddr::V6(addr), _) => state.link_local(ifindex).map(|source| Asker::V6 { addr, source }),
    }
}

impl Asker {
    /// A question to one MAC address, or to everyone.
    fn probe(self, ifindex: IfIndex, to: Option<Mac>) -> Probe {
        match self {
            Asker::V4 { addr, source } => {
                Probe::Request { ifindex, addr, source, to: to.unwrap_or(super::arp::BROADCAST) }
            }
            Asker::V6 { addr, source } => Probe::Solicit { ifindex, addr, source, to },
        }
    }
}

/// A neighbour's place within the check interval, from its address: neighbours with consecutive addresses are spread
/// evenly (37 and 64 have no common factor).
fn spread(addr: IpAddr) -> Duration {
    let low = match addr {
        IpAddr::V4(addr) => addr.to_bits(),
        IpAddr::V6(addr) => addr.to_bits() as u32,
    };
    CHECK_INTERVAL * (low.wrapping_mul(37) % 64) / 64
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
