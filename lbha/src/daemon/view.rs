//! The admin interface's view of the running daemon: what it knows, and what the maps say right now.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use lbha_common::{
    ABI_VERSION,
    addr::Be16,
    conntrack::Phase,
    counter::{Class, Counter},
    flow::{Flow, FlowKey, side},
    stats::{BackendStats, InterfaceStats},
    time::{TICK_SHIFT, age},
    wire::proto,
};
use tracing::warn;

use super::{
    reconcile::Mac,
    shared::{Backend, Shared, State},
};
use crate::{
    api::{View, types},
    datapath::{
        attach::Mode,
        batch::Walk,
        expiry::{self, Sweep},
        family::Family,
        tables::{FamilyFlows, FlowTables},
    },
    plan::{forward_id, service_id},
};

/// Flows and bindings listed when the query does not say.
pub(super) const DEFAULT_LIMIT: usize = 1000;

impl View for Shared {
    fn ready(&self) -> bool {
        let state = self.snapshot();
        state.trouble.is_none() && !state.attached.is_empty() && state.settled
    }

    fn status(&self) -> types::Status {
        let state = self.snapshot();
        let mut warnings = state.warnings.clone();
        warnings.extend(state.trouble.clone());
        for attached in &state.attached {
            let name = &attached.target.name;
            match (attached.mode, attached.reason.as_deref()) {
                (Mode::Generic, None) => warnings.push(format!("{name} runs in generic mode")),
                (Mode::Generic, Some(reason)) => {
                    warnings.push(format!("{name} runs in generic mode ({reason})"));
                }
                (Mode::Native, Some(reason)) => warnings.push(format!("{name}: {reason}")),
                (Mode::Native, None) => {}
            }
        }
        let capacities = FlowTables::open(&self.root)
            .map(|FlowTables { v4, v6 }| {
                [v4.flows.capacity, v4.half_open.capacity, v6.flows.capacity, v6.half_open.capacity]
            })
            .unwrap_or_default();
        let [flows, half_open, flows_v6, half_open_v6] =
            capacities.map(|entries| u64::from(entries / 2));
        let table = |connections, capacity| types::Table { connections, capacity };
        let sweep = &state.sweep;
        types::Status {
            version: env!("CARGO_PKG_VERSION").into(),
            abi: ABI_VERSION,
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            config: self.config_file.as_ref().map(|path| path.display().to_string()),
            pins: self.root.display().to_string(),
            ready: self.ready(),
            warnings,
            interfaces: state
                .ports
                .iter()
                .map(|(name, port)| self.interface(&state, name, port))
                .collect(),
            flow_table: table(sweep.v4.connections, flows),
            half_open_table: table(sweep.v4.half_open, half_open),
            flow_table_v6: table(sweep.v6.connections, flows_v6),
            half_open_table_v6: table(sweep.v6.half_open, half_open_v6),
            masqueraded: masqueraded(sweep, IpAddr::is_ipv4),
            masqueraded_v6: masqueraded(sweep, IpAddr::is_ipv6),
            services: state.config.as_ref().map_or(0, |config| config.services.len()),
            servers: state.backends.values().filter(|backend| is_server(backend)).count(),
        }
    }

    fn services(&self) -> Vec<types::Service> {
        let state = self.snapshot();
        let Some(config) = &state.config else { return Vec::new() };
        let of_service = |service: &crate::config::Service| {
            let id = service_id(service);
            let mut traffic = types::Traffic::default();
            let (mut servers, mut usable) = (0, 0);
            for (index, backend) in state.backends.iter().filter(|(_, b)| b.key.service == id) {
                add(&mut traffic, &self.traffic(&state, *index));
                if !backend.retired {
                    servers += 1;
                    usable += usize::from(backend.weight > 0 && state_of(backend) == "usable");
                }
            }
            types::Service {
                name: service.name.clone(),
                vip: service.vip,
                port: service.port,
                protocol: service.protocol.as_str().into(),
                scheduler: service.scheduler.as_str().into(),
                mode: service.mode.as_str().into(),
                pool: service.pool.clone(),
                servers,
                usable_servers: usable,
                traffic,
            }
        };
        config.services.iter().map(of_service).collect()
    }

    fn servers(&self) -> Vec<types::Server> {
        let state = self.snapshot();
        let mut totals: HashMap<_, u64> = HashMap::new();
        let mut rows: Vec<(&Backend, types::Traffic)> = Vec::new();
        for (index, backend) in &state.backends {
            let traffic = self.traffic(&state, *index);
            *totals.entry(backend.key.service).or_default() += traffic.connections;
            rows.push((backend, traffic));
        }
        let position = |backend: &Backend| {
            let config = state.config.as_ref()?;
            let id = backend.key.service;
            let Some(service) = config.services.iter().position(|s| service_id(s) == id) else {
                let forward = config.forwards.iter().position(|f| forward_id(f) == id)?;
                return Some((config.services.len() + forward, 0));
            };
            let pool = config.pool(&config.services[service].pool)?;
            let server = pool.servers.iter().position(|s| Some(&s.name) == backend.server.as_ref());
            Some((service, server.unwrap_or(usize::MAX)))
        };
        rows.sort_by_key(|(backend, _)| {
            (position(backend).unwrap_or((usize::MAX, 0)), backend.key)
        });
        rows.into_iter()
            .map(|(backend, traffic)| {
                let total = totals.get(&backend.key.service).copied().unwrap_or(0);
                types::Server {
                    service: backend.service.clone().unwrap_or_else(|| "-".into()),
                    pool: backend.pool.clone().unwrap_or_default(),
                    name: backend.server.clone().unwrap_or_else(|| backend.address().to_string()),
                    address: backend.address(),
                    weight: backend.weight,
                    state: state_of(backend).into(),
                    mac: backend.mac.map(|mac| Mac(mac).to_string()),
                    source: backend.source,
                    share: if total == 0 { 0.0 } else { traffic.connections as f64 / total as f64 },
                    traffic,
                }
            })
            .collect()
    }

    fn flows(&self, query: &types::FlowQuery) -> types::Flows {
        let state = self.snapshot();
        match self.list(&state, query) {
            Ok(flows) => flows,
            Err(error) => {
                warn!(%error, "cannot list flows");
                types::Flows::default()
            }
        }
    }

    fn nat(&self, query: &types::NatQuery) -> types::Nat {
        self.list_nat(query)
    }

    fn drops(&self) -> Vec<types::InterfaceCounters> {
        let state = self.snapshot();
        let of_port = |(name, port): &(&'static str, crate::net::Port)| {
            let stats = self.interface_stats(name);
            let counter = |&counter: &Counter| types::Counter {
                reason: counter.as_str().into(),
                verdict: counter.class().as_str().into(),
                packets: stats.packets[counter as usize],
                help: counter.help().into(),
            };
            types::InterfaceCounters {
                side: (*name).into(),
                name: port.name.clone(),
                counters: Counter::ALL.iter().map(counter).collect(),
            }
        };
        state.ports.iter().map(of_port).collect()
    }
}

impl Shared {
    fn interface(
        &self,
        state: &State,
        side_name: &str,
        port: &crate::net::Port,
    ) -> types::Interface {
        let attached =
            state.attached.iter().find(|attached| attached.target.side_name == side_name);
        let stats = self.interface_stats(side_name);
        let sum = |class: Class| {
            let of_class = Counter::ALL.iter().filter(|counter| counter.class() == class);
            of_class.map(|&counter| stats.packets[counter as usize]).sum()
        };
        types::Interface {
            side: side_name.into(),
            name: port.name.clone(),
            attached_to: port.attach_name.clone(),
            ifindex: port.attach_ifindex,
            mac: Mac(port.smac).to_string(),
            mtu: port.mtu,
            vlans: port.vlan.iter().map(|tag| tag.id).collect(),
            mode: attached.map_or("detached", |attached| attached.mode.as_str()).into(),
            multi_buffer: attached.is_some_and(|attached| attached.multi_buffer),
            program_id: attached.map(|attached| attached.program),
            forwarded_packets: sum(Class::Forward),
            forwarded_bytes: stats.forwarded_bytes,
            passed_packets: sum(Class::Pass),
            dropped_packets: sum(Class::Drop),
        }
    }

    pub(super) fn interface_stats(&self, side_name: &str) -> InterfaceStats {
        let on = if side_name == "public" { side::PUBLIC } else { side::PRIVATE };
        let mut stats = self.counters.interface(on).unwrap_or_else(|error| {
            warn!(%error, "cannot read the counters");
            InterfaceStats::default()
        });
        self.add_dropped(on, &mut stats);
        stats
    }

    fn traffic(&self, state: &State, index: u16) -> types::Traffic {
        let stats = self.counters.backend(index.into()).unwrap_or_else(|error| {
            warn!(%error, "cannot read the counters");
            BackendStats::default()
        });
        types::Traffic {
            connections: stats.connections,
            established: stats.established,
            current: state.sweep.by_owner.get(&index).copied().unwrap_or(0),
            packets_in: stats.packets_in,
            bytes_in: stats.bytes_in,
            packets_out: stats.packets_out,
            bytes_out: stats.bytes_out,
        }
    }

    fn list(&self, state: &State, query: &types::FlowQuery) -> anyhow::Result<types::Flows> {
        let FlowTables { v4, v6 } = FlowTables::open(&self.root)?;
        let mut result = types::Flows::default();
        self.list_family(&v4, state, query, &mut result)?;
        self.list_family(&v6, state, query, &mut result)?;
        Ok(result)
    }

    fn list_family<A: Family>(
        &self,
        tables: &FamilyFlows<A>,
        state: &State,
        query: &types::FlowQuery,
        result: &mut types::Flows,
    ) -> anyhow::Result<()> {
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        let now = expiry::now();
        for (table, half_open) in [(&tables.flows, false), (&tables.half_open, true)] {
            let mut walk = Walk::<FlowKey<A>, Flow<A>>::default();
            while let Some(batch) = walk.next_batch(&table.data)? {
                for (key, entry) in batch.filter(|(_, entry)| !entry.is_reply()) {
                    let phase = Phase::of(key.proto, entry.state, half_open);
                    let owner = Owner::of(state, entry);
                    if !matches(query, key, owner, phase) {
                        continue;
                    }
                    if result.flows.len() == limit {
                        result.truncated = true;
                        return Ok(());
                    }
                    // Either direction keeps a connection alive.
                    let peer = table.entries.get(&key.peer(entry), 0);
                    let last_seen = entry.last_seen.max(peer.map_or(0, |peer| peer.last_seen));
                    let idle = seconds(age(now, last_seen));
                    let timeout = self.timeouts.of(phase).as_secs();
                    result.flows.push(types::Flow {
                        idle_seconds: idle,
                        expires_seconds: timeout.saturating_sub(idle),
                        age_seconds: seconds(age(now, entry.created)),
                        ..flow(key, entry, owner, phase)
                    });
                }
            }
        }
        Ok(())
    }
}

/// Who a connection belongs to, in names.
#[derive(Clone, Copy, Default)]
struct Owner<'a> {
    service: Option<&'a str>,
    server: Option<&'a str>,
    masquerade: Option<&'a str>,
}

impl<'a> Owner<'a> {
    fn of<A: Family>(state: &'a State, entry: &Flow<A>) -> Self {
        if let Some(rule) = state.masquerades.get(&entry.backend) {
            return Self { masquerade: Some(&rule.name), ..Self::default() };
        }
        let backend = state.backends.get(&entry.backend);
        Self {
            service: backend.and_then(|backend| backend.service.as_deref()),
            server: backend.and_then(|backend| backend.server.as_deref()),
            masquerade: None,
        }
    }
}

/// A row without its times.
fn flow<A: Family>(
    key: &FlowKey<A>,
    entry: &Flow<A>,
    owner: Owner<'_>,
    phase: Phase,
) -> types::Flow {
    let socket = |addr: A, port: Be16| SocketAddr::new(addr.ip(), port.get());
    types::Flow {
        protocol: protocol_name(key.proto).into(),
        state: phase.as_str().into(),
        service: owner.service.map(str::to_owned),
        server: owner.server.map(str::to_owned),
        masquerade: owner.masquerade.map(str::to_owned),
        client: socket(key.saddr, key.sport),
        vip: socket(key.daddr, key.dport),
        source: socket(entry.saddr, entry.sport),
        destination: socket(entry.daddr, entry.dport),
        age_seconds: 0,
        idle_seconds: 0,
        expires_seconds: 0,
    }
}

/// Configured, and of a pool.
fn is_server(backend: &Backend) -> bool {
    !backend.retired && backend.pool.is_some()
}

/// What the admin interface calls a protocol that is translated.
pub(super) fn protocol_name(number: u8) -> &'static str {
    match number {
        proto::TCP => "tcp",
        proto::UDP => "udp",
        _ => "icmp",
    }
}

/// Connections of masqueraded sources, of one family.
fn masqueraded(sweep: &Sweep, of_family: impl Fn(&IpAddr) -> bool) -> u64 {
    let externals = sweep.externals.iter().filter(|external| of_family(&external.address));
    externals.map(|external| external.connections).sum()
}

pub(super) fn seconds(ticks: u32) -> u64 {
    (u64::from(ticks) << TICK_SHIFT) / 1_000_000_000
}

fn matches<A: Family>(
    query: &types::FlowQuery,
    key: &FlowKey<A>,
    owner: Owner<'_>,
    phase: Phase,
) -> bool {
    let types::FlowQuery { limit: _, service, server, client, state } = query;
    let is = |wanted: &Option<String>, name| wanted.is_none() || wanted.as_deref() == name;
    is(service, owner.service)
        && is(server, owner.server)
        && client.is_none_or(|client| key.saddr.ip() == client)
        && state.as_ref().is_none_or(|state| state == phase.as_str())
}

fn state_of(backend: &Backend) -> &'static str {
    if backend.retired {
        "retired"
    } else if backend.mac.is_none() {
        "unresolved"
    } else if backend.source.is_none() && !backend.keep_client {
        "no_source"
    } else {
        "usable"
    }
}

fn add(sum: &mut types::Traffic, other: &types::Traffic) {
    let types::Traffic {
        connections,
        established,
        current,
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
    } = sum;
    *connections += other.connections;
    *established += other.established;
    *current += other.current;
    *packets_in += other.packets_in;
    *bytes_in += other.bytes_in;
    *packets_out += other.packets_out;
    *bytes_out += other.bytes_out;
}
