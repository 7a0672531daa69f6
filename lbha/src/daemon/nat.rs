//! The admin interface's view of masquerade: what is in use of each external address, by whom, and every binding.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use lbha_common::{
    addr::{Addr, Be16},
    conntrack::Phase,
    counter::Counter,
    flow::{Flow, FlowKey},
    masquerade::{Binding, BindingKey, end},
    time::age,
    wire::proto,
};
use tracing::warn;

use super::{
    forecast::exhausted_in,
    shared::{Shared, State},
    smallest::Smallest,
    view::{DEFAULT_LIMIT, protocol_name, seconds},
};
use crate::{
    api::types::{Nat, NatBinding, NatExternal, NatQuery, NatRefused, NatSource},
    config::Protocol,
    datapath::{
        batch::Walk,
        desired::Masquerade,
        expiry::{self, External},
        family::Family,
        tables::{FamilyFlows, FlowTables},
    },
};

/// A rule that is not configured any more.
const NO_RULE: &str = "removed";

impl Shared {
    pub(super) fn list_nat(&self, query: &NatQuery) -> Nat {
        let state = self.snapshot();
        let mut nat = Nat {
            externals: externals(&state, query),
            refused: self.refused_nat(&state),
            ..Nat::default()
        };
        let tables = match FlowTables::open(&self.root) {
            Ok(tables) => tables,
            Err(error) => {
                warn!(%error, "cannot list bindings");
                return nat;
            }
        };
        nat.sources = sources(&state, query, &tables);
        let listed = self
            .list_bindings(&tables.v4, &state, query, &mut nat)
            .and_then(|()| self.list_bindings(&tables.v6, &state, query, &mut nat));
        if let Err(error) = listed {
            warn!(%error, "cannot list bindings");
        }
        nat.truncated = nat.total > nat.bindings.len() as u64;
        nat
    }

    /// Only what comes from the servers' side is masqueraded: what is refused on the other is a service's.
    fn refused_nat(&self, state: &State) -> NatRefused {
        let side = if state.ports.len() > 1 { "private" } else { "public" };
        let stats = self.interface_stats(side);
        let count = |counter: Counter| stats.packets[counter as usize];
        NatRefused {
            no_free_port: count(Counter::DropNoPort),
            source_quota: count(Counter::DropQuota),
            no_external_address: count(Counter::DropNoExternal),
        }
    }

    /// Adds those of a family. All are looked at, so that the same are listed every time, and no more than the limit are
    /// kept.
    fn list_bindings<A: Family>(
        &self,
        tables: &FamilyFlows<A>,
        state: &State,
        query: &NatQuery,
        nat: &mut Nat,
    ) -> std::io::Result<()> {
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT).saturating_sub(nat.bindings.len());
        let mut found = Smallest::new(limit);
        let mut idle = idle_bindings(tables)?;
        for (table, half_open) in [(&tables.flows, false), (&tables.half_open, true)] {
            let mut walk = Walk::<FlowKey<A>, Flow<A>>::default();
            while let Some(batch) = walk.next_batch(&table.data)? {
                for (key, entry) in batch {
                    if entry.is_reply() || !is_masqueraded(state, entry) {
                        continue;
                    }
                    let ends = Ends::of(key, entry);
                    if !idle.is_empty() {
                        let (addr, port) = inside(key, entry);
                        idle.remove(&BindingKey::new(addr, port, key.proto, end::INSIDE));
                    }
                    if ends.matches(query) {
                        let (key, entry) = (*key, *entry);
                        found.push(ends, What::Connection { key, entry, half_open });
                    }
                }
            }
        }
        for (key, binding) in idle {
            let ends = Ends::bound(&key, &binding);
            if ends.matches(query) {
                found.push(ends, What::Bound(binding));
            }
        }
        nat.total += found.total();
        let now = expiry::now();
        let rows = found.into_rows().map(|(ends, what)| match what {
            What::Connection { key, entry, half_open } => {
                let table = if half_open { &tables.half_open } else { &tables.flows };
                // Either direction keeps a connection alive.
                let peer = table.entries.get(&key.peer(&entry), 0);
                let last_seen = entry.last_seen.max(peer.map_or(0, |peer| peer.last_seen));
                NatBinding {
                    state: Phase::of(ends.protocol, entry.state, half_open).as_str().into(),
                    age_seconds: seconds(age(now, entry.created)),
                    idle_seconds: Some(seconds(age(now, last_seen))),
                    rule: rule_of(state, &entry),
                    ..ends.row()
                }
            }
            What::Bound(binding) => NatBinding {
                age_seconds: seconds(age(now, binding.created)),
                rule: rule_for(state, ends.inside.ip()),
                ..ends.row()
            },
        });
        nat.bindings.extend(rows);
        Ok(())
    }
}

/// Whether a connection belongs to a masquerade rule: one that its source opened, or one that came in through a binding.
fn is_masqueraded<A: Addr>(state: &State, entry: &Flow<A>) -> bool {
    entry.is_masquerade() || state.masquerades.contains_key(&entry.backend)
}

/// What the rule of a masqueraded connection is called, as in the list of flows.
fn rule_of<A: Addr>(state: &State, entry: &Flow<A>) -> String {
    let rule = state.masquerades.get(&entry.backend);
    rule.map_or_else(|| NO_RULE.to_owned(), |rule| rule.name.clone())
}

/// The private end of a masqueraded connection, by the entry of the direction that opened it.
fn inside<A: Addr>(key: &FlowKey<A>, entry: &Flow<A>) -> (A, Be16) {
    if entry.is_masquerade() { (key.saddr, key.sport) } else { (entry.daddr, entry.dport) }
}

fn rule_for(state: &State, inside: IpAddr) -> String {
    let rule = rule_with(&state.rules, inside);
    let of_family = |rule: &Masquerade| {
        let sources = rule.sources.iter().filter(|s| s.addr().is_ipv4() == inside.is_ipv4());
        sources.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    rule.map_or_else(|| NO_RULE.to_owned(), of_family)
}

fn rule_with(rules: &[Masquerade], source: IpAddr) -> Option<&Masquerade> {
    rules.iter().find(|rule| rule.sources.iter().any(|prefix| prefix.contains(source)))
}

/// The endpoint-independent bindings: the caller takes out those that have a connection.
fn idle_bindings<A: Family>(
    tables: &FamilyFlows<A>,
) -> std::io::Result<HashMap<BindingKey<A>, Binding<A>>> {
    let mut bindings = HashMap::new();
    let mut walk = Walk::<BindingKey<A>, Binding<A>>::default();
    while let Some(batch) = walk.next_batch(&tables.bindings.data)? {
        let inside = batch.filter(|(key, _)| key.end == end::INSIDE);
        bindings.extend(inside.map(|(key, binding)| (*key, *binding)));
    }
    Ok(bindings)
}

enum What<A> {
    Connection { key: FlowKey<A>, entry: Flow<A>, half_open: bool },
    Bound(Binding<A>),
}

/// Who talks to whom, as whom. Listed in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ends {
    inside: SocketAddr,
    /// Of the protocol.
    rank: u8,
    protocol: u8,
    external: SocketAddr,
    /// `None` without a connection.
    remote: Option<SocketAddr>,
    direction: &'static str,
}

impl Ends {
    /// By the entry of the direction that opened the connection.
    fn of<A: Family>(key: &FlowKey<A>, entry: &Flow<A>) -> Self {
        let (external, remote, direction) = if entry.is_masquerade() {
            // The binding of another private host stands for it outside.
            let hairpin = (entry.daddr, entry.dport) != (key.daddr, key.dport);
            let direction = if hairpin { "hairpin" } else { "out" };
            ((entry.saddr, entry.sport), (key.daddr, key.dport), direction)
        } else {
            ((key.daddr, key.dport), (key.saddr, key.sport), "in")
        };
        Self {
            inside: socket(inside(key, entry)),
            rank: rank(key.proto),
            protocol: key.proto,
            external: socket(external),
            remote: Some(socket(remote)),
            direction,
        }
    }

    /// Without a connection; by the inside end.
    fn bound<A: Family>(key: &BindingKey<A>, binding: &Binding<A>) -> Self {
        Self {
            inside: socket((key.addr, key.port)),
            rank: rank(key.proto),
            protocol: key.proto,
            external: socket((binding.addr, binding.port)),
            remote: None,
            direction: "any",
        }
    }

    fn matches(&self, query: &NatQuery) -> bool {
        let NatQuery { limit: _, source, external, remote, protocol } = query;
        source.is_none_or(|addr| addr == self.inside.ip())
            && external.is_none_or(|addr| addr == self.external.ip())
            && remote.is_none_or(|addr| self.remote.is_some_and(|remote| remote.ip() == addr))
            && is_protocol(protocol, self.protocol)
    }

    /// As if there were no connection, and without times.
    fn row(&self) -> NatBinding {
        NatBinding {
            protocol: protocol_name(self.protocol).into(),
            inside: self.inside,
            external: self.external,
            remote: self.remote,
            state: "bound".into(),
            direction: self.direction.into(),
            age_seconds: 0,
            idle_seconds: None,
            rule: String::new(),
        }
    }
}

fn socket<A: Family>((addr, port): (A, Be16)) -> SocketAddr {
    SocketAddr::new(addr.ip(), port.get())
}

fn is_protocol(wanted: &Option<String>, protocol: u8) -> bool {
    wanted.as_ref().is_none_or(|wanted| wanted == protocol_name(protocol))
}

/// TCP, UDP, ICMP.
fn rank(protocol: u8) -> u8 {
    match protocol {
        proto::TCP => 0,
        proto::UDP => 1,
        _ => 2,
    }
}

/// A row for each protocol of each external address of a rule, used or not, and for what else the last sweep has found.
fn externals(state: &State, query: &NatQuery) -> Vec<NatExternal> {
    let found: HashMap<_, &External> =
        state.sweep.externals.iter().map(|e| ((e.address, e.protocol), e)).collect();
    let of_rules = Masquerade::externals_of(&state.rules).into_iter().flat_map(|address| {
        let icmp = if address.is_ipv4() { proto::ICMP } else { proto::ICMPV6 };
        [proto::TCP, proto::UDP, icmp].map(|protocol| (address, protocol))
    });
    let all: BTreeSet<(IpAddr, u8, u8)> = of_rules
        .chain(found.keys().copied())
        .map(|(address, protocol)| (address, rank(protocol), protocol))
        .collect();
    let taken = taken_ports(state);
    all.into_iter()
        .filter(|(address, _, protocol)| {
            query.external.is_none_or(|wanted| wanted == *address)
                && is_protocol(&query.protocol, *protocol)
        })
        .map(|(address, _, protocol)| {
            let external = found.get(&(address, protocol));
            let busiest = external.and_then(|external| external.busiest);
            let used = external.map_or(0, |external| external.used());
            let growth = state.trends.growth(address, protocol);
            let ports = ports_of(&state.rules, address, taken.get(&(address, protocol)));
            NatExternal {
                address,
                protocol: protocol_name(protocol).into(),
                connections: external.map_or(0, |external| external.connections),
                ports,
                used,
                percent: ports.and_then(|ports| percent(used, ports)),
                busiest: busiest.map(|(remote, _)| remote),
                busiest_ports: busiest.map_or(0, |(_, count)| count),
                bound: external.map_or(0, |external| external.bindings),
                growth: growth.map(rounded),
                exhausted_in_seconds: ports.and_then(|ports| exhausted_in(used, ports, growth)),
            }
        })
        .collect()
}

/// Ports at which services and forwards answer, by address and protocol: masquerade leaves them alone.
fn taken_ports(state: &State) -> HashMap<(IpAddr, u8), HashSet<u16>> {
    let mut taken: HashMap<_, HashSet<u16>> = HashMap::new();
    let Some(config) = &state.config else { return taken };
    let services = config.services.iter().map(|s| (s.vip, s.port, s.protocol));
    let forwards = config.forwards.iter().map(|f| (f.address.ip(), f.address.port(), f.protocol));
    for (address, port, protocol) in services.chain(forwards) {
        let protocol = match protocol {
            Protocol::Tcp => proto::TCP,
            Protocol::Udp => proto::UDP,
        };
        taken.entry((address, protocol)).or_default().insert(port);
    }
    taken
}

/// Ports that the rules with an external address can give, all ranges together. `None` when there is no such rule.
fn ports_of(rules: &[Masquerade], address: IpAddr, taken: Option<&HashSet<u16>>) -> Option<u32> {
    let with_address = rules.iter().filter(|rule| rule.externals.contains(&address));
    let mut ranges: Vec<(u16, u16)> = with_address.map(|rule| rule.ports).collect();
    if ranges.is_empty() {
        return None;
    }
    ranges.sort_unstable();
    let (mut count, mut next) = (0, 0);
    for &(first, last) in &ranges {
        let first = u32::from(first).max(next);
        let after = (u32::from(last) + 1).max(first);
        count += after - first;
        next = next.max(after);
    }
    let lost = taken.map_or(0, |taken| {
        taken.iter().filter(|port| ranges.iter().any(|(a, b)| (a..=b).contains(port))).count()
    });
    Some(count.saturating_sub(lost as u32))
}

fn sources(state: &State, query: &NatQuery, tables: &FlowTables) -> Vec<NatSource> {
    let Some(source) = query.source else { return largest_sources(state) };
    // It need not be one of the largest.
    let connections = counted(tables, source);
    let known = connections > 0 || rule_with(&state.rules, source).is_some();
    known.then(|| source_row(state, source, connections)).into_iter().collect()
}

fn largest_sources(state: &State) -> Vec<NatSource> {
    let sources = state.sweep.sources.iter();
    let mut rows: Vec<NatSource> =
        sources.map(|source| source_row(state, source.address, source.connections)).collect();
    rows.sort_by_key(|row| (Reverse(row.connections), row.address));
    rows
}

fn source_row(state: &State, address: IpAddr, connections: u32) -> NatSource {
    let quota = rule_with(&state.rules, address).map(|rule| rule.max_ports);
    let percent = quota.and_then(|quota| percent(connections.into(), quota));
    NatSource { address, connections, quota, percent }
}

/// Connections of a source at the last sweep.
fn counted(tables: &FlowTables, source: IpAddr) -> u32 {
    fn of<A: Family>(tables: &FamilyFlows<A>, source: IpAddr) -> u32 {
        let counted = A::of(source).and_then(|source| tables.counted.entries.get(&source, 0).ok());
        counted.map_or(0, |counted| counted.alive)
    }
    of(&tables.v4, source) + of(&tables.v6, source)
}

fn percent(part: u64, whole: u32) -> Option<f64> {
    (whole > 0).then(|| rounded(part as f64 * 100.0 / f64::from(whole)))
}

/// To hundredths: what comes after is noise.
fn rounded(value: f64) -> f64 {
    // Adding 0 makes an ordinary zero of the negative one.
    (value * 100.0).round() / 100.0 + 0.0
}

#[cfg(test)]
mod tests;
