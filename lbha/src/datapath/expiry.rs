//! Which connections have ended: the timeouts, and the sweep that takes them out of the tables.

use std::{collections::HashMap, io, time::Duration};

use lbha_common::{
    conntrack::Phase,
    flow::{Flow4, FlowKey4},
    time::{age, ticks, ticks_covering},
};

use super::{apply::InUse, batch::Walk, tables::FlowTables};

/// Idle time after which a connection ends, by phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub tcp_syn: Duration,
    pub tcp_established: Duration,
    pub tcp_fin_wait: Duration,
    pub tcp_time_wait: Duration,
    pub tcp_reset: Duration,
    pub udp: Duration,
    pub udp_unreplied: Duration,
    pub masquerade_opening: Duration,
    pub masquerade_closing: Duration,
    pub icmp: Duration,
}

impl Timeouts {
    pub fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::TcpSyn => self.tcp_syn,
            Phase::TcpEstablished => self.tcp_established,
            Phase::TcpFinWait => self.tcp_fin_wait,
            Phase::TcpTimeWait => self.tcp_time_wait,
            Phase::TcpReset => self.tcp_reset,
            Phase::Udp => self.udp,
            Phase::UdpUnreplied => self.udp_unreplied,
            Phase::MasqueradeOpening => self.masquerade_opening,
            Phase::MasqueradeClosing => self.masquerade_closing,
            Phase::Icmp => self.icmp,
        }
    }

    /// Whether an entry has been idle for longer than its phase allows. Its connection has ended if the other
    /// direction's entry says the same, or is gone.
    pub fn idle(&self, protocol: u8, entry: &Flow4, half_open: bool, now: u32) -> bool {
        let phase = Phase::of(protocol, entry.state, half_open);
        age(now, entry.last_seen) > ticks_covering(self.of(phase).as_nanos() as u64)
    }
}

/// The flow tables' clock, now.
pub fn now() -> u32 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .expect("invariant: every Linux has CLOCK_MONOTONIC_COARSE");
    ticks(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// What a sweep has seen.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    pub in_use: InUse,
    /// Confirmed connections.
    pub connections: u64,
    pub half_open: u64,
    /// Confirmed connections by server.
    pub by_backend: HashMap<u16, u64>,
    pub expired: u64,
}

/// Goes through both tables once and removes what has ended. `pause` is called between batches and may wait; when it
/// says `false` the sweep is given up, and with it what it has counted.
pub fn sweep(
    tables: &mut FlowTables,
    timeouts: &Timeouts,
    number: u64,
    mut pause: impl FnMut() -> bool,
) -> io::Result<Option<Sweep>> {
    let mut result =
        Sweep { in_use: InUse { sweep: number, ..InUse::default() }, ..Sweep::default() };
    for half_open in [false, true] {
        let mut walk = Walk::<FlowKey4, Flow4>::default();
        let mut ended: Vec<(FlowKey4, Flow4)> = Vec::new();
        loop {
            let table = if half_open { &tables.half_open } else { &tables.flows };
            let now = now();
            let Some(batch) = walk.next_batch(&table.data)? else { break };
            for (key, entry) in batch {
                result.in_use.backends.insert(entry.backend);
                // The other direction's too: its entry may have been evicted, and is made again from this one.
                result.in_use.hops.extend([entry.next_hop, entry.peer_next_hop]);
                if timeouts.idle(key.proto, entry, half_open, now) {
                    ended.push((*key, *entry));
                } else if !entry.is_reply() {
                    if half_open {
                        result.half_open += 1;
                    } else {
                        result.connections += 1;
                        *result.by_backend.entry(entry.backend).or_default() += 1;
                    }
                }
            }
            for (key, entry) in ended.drain(..) {
                result.expired += u64::from(end(tables, timeouts, half_open, &key, &entry, now));
            }
            if !pause() {
                return Ok(None);
            }
        }
    }
    Ok(Some(result))
}

/// Removes a connection whose one direction is idle, if the other is too. True when this call did it.
fn end(
    tables: &mut FlowTables,
    timeouts: &Timeouts,
    half_open: bool,
    key: &FlowKey4,
    entry: &Flow4,
    now: u32,
) -> bool {
    let table = &mut if half_open { &mut tables.half_open } else { &mut tables.flows }.entries;
    let peer_key = key.peer(entry);
    if let Ok(peer) = table.get(&peer_key, 0)
        && !timeouts.idle(peer_key.proto, &peer, half_open, now)
    {
        return false;
    }
    // The client's direction first: while the server's stands, its tuple can't be given to another connection.
    let (client, server) = if entry.is_reply() { (peer_key, *key) } else { (*key, peer_key) };
    let first = table.remove(&client).is_ok();
    let second = table.remove(&server).is_ok();
    first || second
}
