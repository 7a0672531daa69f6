//! What the event loop knows and the admin interface shows.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use aya::maps::MapError;
use lbha_common::{counter::Counter, flow::side, stats::InterfaceStats};

use super::{Options, forecast::Trends, reconcile::List, refusals::Refused, timeouts};
use crate::{
    config::{Config, Forward},
    datapath::{
        apply::{Applier, BackendKey},
        attach::Attached,
        desired::{self, Server, ServiceId},
        expiry::{Sweep, Timeouts},
        tables::Counters,
    },
    net::{IpPrefix, Port},
    plan::{Plan, Ports, forward_id, service_id},
};

/// Shared between the event loop, which writes, and the admin interface, which reads.
pub struct Shared {
    pub(super) started: Instant,
    pub(super) root: PathBuf,
    pub(super) config_file: Option<PathBuf>,
    pub(super) timeouts: Timeouts,
    pub(super) counters: Counters,
    /// What the controller itself has dropped, by side.
    dropped: [Mutex<InterfaceStats>; side::COUNT],
    state: Mutex<State>,
}

/// A picture of the moment.
#[derive(Clone, Default)]
pub(super) struct State {
    pub config: Option<Config>,
    pub warnings: Vec<String>,
    /// An interface is gone, or a map can't be written.
    pub trouble: Option<String>,
    /// Every neighbour has had time to answer the first question for its MAC address.
    pub settled: bool,
    pub attached: Vec<Attached>,
    pub ports: Vec<(&'static str, Port)>,
    /// By the index that flows and counters have.
    pub backends: HashMap<u16, Backend>,
    /// Masquerade rules, by the index that flows and counters have.
    pub masquerades: HashMap<u16, Masquerade>,
    /// Masquerade rules as the maps should hold them.
    pub rules: Vec<desired::Masquerade>,
    pub sweep: Sweep,
    /// What the sweeps so far say about the use of external addresses.
    pub trends: Trends,
}

/// A server of a service, or the host of a forward, with its names.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub key: BackendKey,
    /// Name of the service or forward; `None` when it is no longer configured.
    pub service: Option<String>,
    /// `None` for the host of a forward.
    pub pool: Option<String>,
    pub server: Option<String>,
    pub weight: u16,
    pub mac: Option<[u8; 6]>,
    pub source: Option<IpAddr>,
    /// It sees the clients' own addresses, and needs none of ours.
    pub keep_client: bool,
    pub retired: bool,
}

/// A masquerade rule of one family.
#[derive(Clone, Debug)]
pub(super) struct Masquerade {
    /// Its sources.
    pub name: String,
}

/// The interface of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedTo {
    pub ifindex: u32,
    pub multi_buffer: bool,
}

impl Backend {
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.key.address, self.key.port)
    }
}

impl Shared {
    pub fn new(options: &Options, root: &Path) -> Result<Self, MapError> {
        Ok(Self {
            started: Instant::now(),
            root: root.to_path_buf(),
            config_file: options.config_file.clone(),
            timeouts: timeouts(&options.config),
            counters: Counters::open(root)?,
            dropped: Default::default(),
            state: Mutex::default(),
        })
    }

    /// A picture of the moment, to be looked at without holding anybody up.
    pub(super) fn snapshot(&self) -> State {
        self.lock().clone()
    }

    pub fn set_attached(&self, attached: Vec<Attached>, ports: &Ports) {
        let mut state = self.lock();
        state.ports = vec![("public", ports.public.clone())];
        if !ports.one_armed() {
            state.ports.push(("private", ports.private.clone()));
        }
        state.attached = attached;
    }

    /// Where a side's packets come in, and go out.
    pub fn attached_to(&self, on: u8) -> Option<AttachedTo> {
        let state = self.lock();
        let attached = state.attached.iter().find(|attached| attached.target.side == on)?;
        Some(AttachedTo { ifindex: attached.target.ifindex, multi_buffer: attached.multi_buffer })
    }

    /// What keeps the daemon from being ready. Gives whether that is news.
    pub fn set_trouble(&self, trouble: Option<String>) -> bool {
        let mut state = self.lock();
        let news = state.trouble != trouble;
        state.trouble = trouble;
        news
    }

    pub fn set_settled(&self) {
        self.lock().settled = true;
    }

    pub fn is_settled(&self) -> bool {
        self.lock().settled
    }

    pub fn set_sweep(&self, sweep: Sweep) {
        let mut state = self.lock();
        state.trends.observe(&sweep.externals, Instant::now());
        state.sweep = sweep;
    }

    /// Packets of new connections that were refused so far, for want of something that masquerading takes.
    pub fn refused(&self) -> Refused {
        let mut refused = Refused::default();
        for on in [side::PUBLIC, side::PRIVATE] {
            let Ok(stats) = self.counters.interface(on) else { continue };
            let count = |counter: Counter| stats.packets[counter as usize];
            refused.no_free_port += count(Counter::DropNoPort);
            refused.source_quota += count(Counter::DropQuota);
            refused.no_external_address += count(Counter::DropNoExternal);
        }
        refused
    }

    /// Counts packets that the controller has dropped, beside those that the program has.
    pub fn count_dropped(&self, on: u8, reason: Counter, packets: u64) {
        let of_side = &self.dropped[usize::from(on) % side::COUNT];
        let mut stats = of_side.lock().unwrap_or_else(PoisonError::into_inner);
        stats.packets[reason as usize] += packets;
    }

    /// Adds what the controller has dropped to what the program has counted.
    pub(super) fn add_dropped(&self, on: u8, stats: &mut InterfaceStats) {
        let of_side = &self.dropped[usize::from(on) % side::COUNT];
        stats.add(&of_side.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn set_plan(&self, config: &Config, plan: &Plan, applier: &Applier) {
        let mut backends = HashMap::new();
        for service in &config.services {
            let Some(pool) = config.pool(&service.pool) else { continue };
            for server in &pool.servers {
                let port = server.port.unwrap_or(service.port);
                let key =
                    BackendKey { service: service_id(service), address: server.address, port };
                let names = Names {
                    service: service.name.clone(),
                    pool: Some(pool.name.clone()),
                    server: Some(server.name.clone()),
                    weight: server.weight,
                };
                add_backend(&mut backends, plan, applier, key, names);
            }
        }
        for forward in &config.forwards {
            let (address, port) = (forward.to.ip(), forward.to.port());
            let key = BackendKey { service: forward_id(forward), address, port };
            let names =
                Names { service: forward_name(forward), pool: None, server: None, weight: 1 };
            add_backend(&mut backends, plan, applier, key, names);
        }
        let mut state = self.lock();
        state.config = Some(config.clone());
        state.settled |= plan.desired.hops.values().all(|hop| hop.dmac.is_some());
        state.warnings = plan.warnings.clone();
        state.rules = plan.desired.masquerades.clone();
        state.backends = backends;
        add_retired(&mut state, applier);
    }

    /// Servers whose connections have ended are gone.
    pub fn set_retired(&self, applier: &Applier) {
        let mut state = self.lock();
        state.backends.retain(|_, backend| !backend.retired);
        add_retired(&mut state, applier);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Names {
    service: String,
    pool: Option<String>,
    server: Option<String>,
    weight: u16,
}

fn add_backend(
    backends: &mut HashMap<u16, Backend>,
    plan: &Plan,
    applier: &Applier,
    key: BackendKey,
    names: Names,
) {
    let Some(index) = applier.backend_id(&key) else { return };
    let hop = plan.desired.hops.get(&IpPrefix::host(key.address));
    let server = server(plan, &key);
    let Names { service, pool, server: name, weight } = names;
    let backend = Backend {
        key,
        service: Some(service),
        pool,
        server: name,
        weight,
        mac: hop.and_then(|hop| hop.dmac),
        source: server.and_then(|server| server.source),
        keep_client: server.is_some_and(|server| server.keep_client),
        retired: false,
    };
    backends.insert(index as u16, backend);
}

fn server<'a>(plan: &'a Plan, key: &BackendKey) -> Option<&'a Server> {
    let service = plan.desired.services.get(&key.service)?;
    service.servers.iter().find(|s| (s.address, s.port) == (key.address, key.port))
}

/// What a forward is shown as.
pub(super) fn forward_name(forward: &Forward) -> String {
    forward.name.clone().unwrap_or_else(|| forward.address.to_string())
}

fn names(config: &Config) -> HashMap<ServiceId, String> {
    let services = config.services.iter().map(|s| (service_id(s), s.name.clone()));
    services.chain(config.forwards.iter().map(|f| (forward_id(f), forward_name(f)))).collect()
}

/// Adds what is no longer configured and has connections left, and the masquerade rules, with and without.
fn add_retired(state: &mut State, applier: &Applier) {
    let names = state.config.as_ref().map(names).unwrap_or_default();
    for (key, index) in applier.retired_backends() {
        let backend = Backend {
            key: *key,
            service: names.get(&key.service).cloned(),
            pool: None,
            server: None,
            weight: 0,
            mac: None,
            source: None,
            keep_client: false,
            retired: true,
        };
        state.backends.insert(index as u16, backend);
    }
    let rules = applier.masquerade_owners().into_iter();
    let with_name = rules.map(|rule| {
        // A daemon before this one may have left a rule without sources, for connections that had not ended.
        let removed = rule.sources.is_empty();
        let name = if removed { "removed".into() } else { List(&rule.sources).to_string() };
        (rule.owner as u16, Masquerade { name })
    });
    state.masquerades = with_name.collect();
}
