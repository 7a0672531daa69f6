//! Which connections have ended: the timeouts, and the sweep that takes them out of the tables.
//!
//! On its way the sweep counts what masqueraded connections use up: [`sources`], [`bindings`], [`usage`]. What fragments
//! refer to is in use too: [`fragments`].

mod bindings;
mod fragments;
mod frequent;
mod sources;
mod usage;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    net::IpAddr,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use lbha_common::{
    conntrack::Phase,
    flow::{Flow, FlowKey},
    time::{age, ticks, ticks_covering},
};

use self::{bindings::Bindings, sources::Sources, usage::Usage};
use super::{
    apply::{FamilyInUse, InUse},
    batch::Walk,
    family::Family,
    tables::{FamilyFlows, FlowTable, FlowTables},
};

pub use self::usage::{External, LARGEST, Source};

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
    /// The same for every phase.
    pub const fn all(timeout: Duration) -> Self {
        Self {
            tcp_syn: timeout,
            tcp_established: timeout,
            tcp_fin_wait: timeout,
            tcp_time_wait: timeout,
            tcp_reset: timeout,
            udp: timeout,
            udp_unreplied: timeout,
            masquerade_opening: timeout,
            masquerade_closing: timeout,
            icmp: timeout,
        }
    }

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
    pub fn idle<A: Family>(
        &self,
        protocol: u8,
        entry: &Flow<A>,
        half_open: bool,
        now: u32,
    ) -> bool {
        let phase = Phase::of(protocol, entry.state, half_open);
        has_passed(self.of(phase), entry.last_seen, now)
    }
}

fn has_passed(timeout: Duration, stamp: u32, now: u32) -> bool {
    age(now, stamp) > ticks_covering(timeout.as_nanos() as u64)
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
    pub v4: Count,
    pub v6: Count,
    /// Confirmed connections by server or masquerade rule.
    pub by_owner: HashMap<u16, u64>,
    pub expired: u64,
    /// Masqueraded connections that were ended because their external address is none of ours any more.
    pub orphaned: u64,
    /// What is in use of each external address and protocol.
    pub externals: Vec<External>,
    /// Masqueraded sources with the most connections, those first; at most [`LARGEST`] of each family.
    pub sources: Vec<Source>,
}

/// Connections of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Confirmed ones, and masqueraded ones that are opening.
    pub connections: u64,
    pub half_open: u64,
}

impl Sweep {
    /// Of both families.
    pub fn connections(&self) -> u64 {
        self.v4.connections + self.v6.connections
    }

    /// Of both families.
    pub fn half_open(&self) -> u64 {
        self.v4.half_open + self.v6.half_open
    }
}

/// The external addresses of all masquerade rules. An address is added before the rule that uses it is written, and
/// removed after: whoever looks here *after* it has seen a connection finds the connection's address, or it has left.
#[derive(Debug, Default)]
pub struct Externals(RwLock<BTreeSet<IpAddr>>);

impl Externals {
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self(RwLock::new(addresses.into_iter().collect()))
    }

    pub fn add(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).extend(addresses);
    }

    /// Says whether any address has left.
    pub fn replace(&self, addresses: BTreeSet<IpAddr>) -> bool {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, addresses);
        !before.is_subset(&current)
    }

    fn of<A: Family>(&self) -> HashSet<A> {
        let addresses = self.0.read().unwrap_or_else(PoisonError::into_inner);
        addresses.iter().copied().filter_map(A::of).collect()
    }
}

/// Goes through all tables once and removes what has ended: what was idle for too long, and masqueraded connections whose
/// external address is not among `externals`, since their answers can't come here any more, and a source that goes on
/// sending has to get a new one. `pause` is called between batches and may wait; when it says `false` the sweep is given
/// up, and with it what it has counted.
pub fn sweep(
    tables: &mut FlowTables,
    timeouts: &Timeouts,
    externals: &Externals,
    number: u64,
    mut pause: impl FnMut() -> bool,
) -> io::Result<Option<Sweep>> {
    let mut result =
        Sweep { in_use: InUse { sweep: number, ..InUse::default() }, ..Sweep::default() };
    let of_v4 = sweep_family(&mut tables.v4, timeouts, externals, &mut result, &mut pause)?;
    let Some(of_v4) = of_v4 else { return Ok(None) };
    (result.in_use.v4, result.v4) = of_v4;
    let of_v6 = sweep_family(&mut tables.v6, timeouts, externals, &mut result, &mut pause)?;
    let Some(of_v6) = of_v6 else { return Ok(None) };
    (result.in_use.v6, result.v6) = of_v6;
    Ok(Some(result))
}

fn sweep_family<A: Family>(
    tables: &mut FamilyFlows<A>,
    timeouts: &Timeouts,
    externals: &Externals,
    result: &mut Sweep,
    pause: &mut impl FnMut() -> bool,
) -> io::Result<Option<(FamilyInUse, Count)>> {
    let mut tally = Tally {
        // Before the walk: what begins during it may be counted twice, and is not missed.
        sources: Sources::read(&tables.begun)?,
        // Before connections are ended: what their sources send then must not find the binding that they had.
        bindings: Bindings::read(&mut tables.bindings, externals)?,
        usage: Usage::default(),
        in_use: FamilyInUse::default(),
        count: Count::default(),
    };
    for half_open in [false, true] {
        let mut walk = Walk::<FlowKey<A>, Flow<A>>::default();
        let mut ended: Vec<(FlowKey<A>, Flow<A>, bool)> = Vec::new();
        loop {
            let table = if half_open { &tables.half_open } else { &tables.flows };
            let now = now();
            let Some(batch) = walk.next_batch(&table.data)? else { break };
            let externals: HashSet<A> = externals.of();
            for (key, entry) in batch {
                result.in_use.owners.insert(entry.backend);
                // The other direction's too: its entry may have been evicted, and is made again from this one.
                tally.in_use.hops.extend([entry.next_hop, entry.peer_next_hop]);
                let orphaned = entry.is_masquerade() && !externals.contains(&external(key, entry));
                if orphaned || timeouts.idle(key.proto, entry, half_open, now) {
                    ended.push((*key, *entry, orphaned));
                } else {
                    tally.saw(half_open, key, entry, &mut result.by_owner);
                }
            }
            for (key, entry, orphaned) in ended.drain(..) {
                let table = if half_open { &mut tables.half_open } else { &mut tables.flows };
                let even_if = if orphaned { None } else { Some(timeouts) };
                match end(table, even_if, half_open, &key, &entry, now) {
                    Fate::Ended if orphaned => result.orphaned += 1,
                    Fate::Ended => result.expired += 1,
                    Fate::Gone => {}
                    Fate::Alive => tally.saw(half_open, &key, &entry, &mut result.by_owner),
                }
            }
            if !pause() {
                return Ok(None);
            }
        }
    }
    let Tally { sources, bindings, mut usage, mut in_use, count } = tally;
    result.sources.extend(sources.largest(LARGEST));
    sources.finish(tables)?;
    in_use.rules = bindings.rules();
    fragments::sweep(&mut tables.fragments, &mut in_use, &mut result.in_use.owners)?;
    bindings.finish(&mut tables.bindings, timeouts.udp, now(), &mut usage);
    result.externals.extend(usage.externals());
    Ok(Some((in_use, count)))
}

/// What a sweep counts of one family.
struct Tally<A: Family> {
    sources: Sources<A>,
    bindings: Bindings<A>,
    usage: Usage<A>,
    in_use: FamilyInUse,
    count: Count,
}

impl<A: Family> Tally<A> {
    /// An entry of a connection that goes on.
    fn saw(
        &mut self,
        half_open: bool,
        key: &FlowKey<A>,
        entry: &Flow<A>,
        by_owner: &mut HashMap<u16, u64>,
    ) {
        // Those that came in through a binding look like a service's, with the remote host as the client.
        let outbound = entry.is_masquerade();
        let (own, other) = if outbound == entry.is_reply() {
            ((entry.daddr, entry.dport), (key.daddr, key.dport))
        } else {
            ((key.saddr, key.sport), (entry.saddr, entry.sport))
        };
        self.bindings.saw(own, other, key.proto);
        // A connection is counted once, by the entry of the direction that opened it.
        if entry.is_reply() {
            return;
        }
        if half_open {
            self.count.half_open += 1;
        } else {
            self.count.connections += 1;
            *by_owner.entry(entry.backend).or_default() += 1;
        }
        if entry.is_masquerade() {
            self.sources.saw(key.saddr);
            self.usage.saw(entry.saddr, key.proto, (key.daddr, key.dport));
        }
    }
}

/// The external address of a masqueraded connection.
fn external<A: Family>(key: &FlowKey<A>, entry: &Flow<A>) -> A {
    if entry.is_reply() { key.daddr } else { entry.saddr }
}

/// What became of an entry that was to be ended.
enum Fate {
    /// Its connection was removed just now.
    Ended,
    /// It was, with the other direction's entry.
    Gone,
    /// The other direction keeps it alive.
    Alive,
}

/// Removes a connection whose one direction is idle, if the other is too; without timeouts, in any case.
fn end<A: Family>(
    table: &mut FlowTable<A>,
    timeouts: Option<&Timeouts>,
    half_open: bool,
    key: &FlowKey<A>,
    entry: &Flow<A>,
    now: u32,
) -> Fate {
    let table = &mut table.entries;
    let peer_key = key.peer(entry);
    if let Some(timeouts) = timeouts
        && let Ok(peer) = table.get(&peer_key, 0)
        && !timeouts.idle(peer_key.proto, &peer, half_open, now)
    {
        return Fate::Alive;
    }
    // The client's direction first: while the server's stands, its tuple can't be given to another connection.
    let (client, server) = if entry.is_reply() { (peer_key, *key) } else { (*key, peer_key) };
    let first = table.remove(&client).is_ok();
    let second = table.remove(&server).is_ok();
    if first || second { Fate::Ended } else { Fate::Gone }
}
