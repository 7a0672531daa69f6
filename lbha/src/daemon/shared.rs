//! What the event loop knows and the admin interface shows.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use aya::maps::MapError;

use super::{Options, timeouts};
use crate::{
    config::Config,
    datapath::{
        apply::{Applier, BackendKey},
        attach::Attached,
        desired::ServiceId,
        expiry::{Sweep, Timeouts},
        tables::Counters,
    },
    net::Port,
    plan::{Plan, Ports, service_id},
};

/// Shared between the event loop, which writes, and the admin interface, which reads.
pub struct Shared {
    pub(super) started: Instant,
    pub(super) root: PathBuf,
    pub(super) config_file: Option<PathBuf>,
    pub(super) timeouts: Timeouts,
    pub(super) counters: Counters,
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
    /// By index in the map of servers.
    pub backends: HashMap<u16, Backend>,
    pub sweep: Sweep,
}

/// A server of a service, with its names.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub key: BackendKey,
    /// Name of the service; `None` when it is no longer configured.
    pub service: Option<String>,
    pub pool: String,
    pub server: Option<String>,
    pub weight: u16,
    pub mac: Option<[u8; 6]>,
    pub source: Option<Ipv4Addr>,
    pub retired: bool,
}

impl Backend {
    pub fn address(&self) -> SocketAddr {
        SocketAddrV4::new(self.key.address, self.key.port).into()
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
        self.lock().sweep = sweep;
    }

    pub fn set_plan(&self, config: &Config, plan: &Plan, applier: &Applier) {
        let mut backends = HashMap::new();
        for service in &config.services {
            let Some(id) = service_id(service) else { continue };
            let Some(pool) = config.pool(&service.pool) else { continue };
            for server in &pool.servers {
                let port = server.port.unwrap_or(service.port);
                let IpAddr::V4(address) = server.address else { continue };
                let key = BackendKey { service: id, address, port };
                let Some(index) = applier.backend_id(&key) else { continue };
                let hop = plan.desired.hops.get(&(address, 32));
                let backend = Backend {
                    key,
                    service: Some(service.name.clone()),
                    pool: pool.name.clone(),
                    server: Some(server.name.clone()),
                    weight: server.weight,
                    mac: hop.and_then(|hop| hop.dmac),
                    source: source(plan, &id, &key),
                    retired: false,
                };
                backends.insert(index as u16, backend);
            }
        }
        let mut state = self.lock();
        state.config = Some(config.clone());
        state.settled |= plan.desired.hops.values().all(|hop| hop.dmac.is_some());
        state.warnings = plan.warnings.clone();
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

fn source(plan: &Plan, id: &ServiceId, key: &BackendKey) -> Option<Ipv4Addr> {
    let service = plan.desired.services.get(id)?;
    let server = service.servers.iter().find(|s| (s.address, s.port) == (key.address, key.port))?;
    server.source
}

fn add_retired(state: &mut State, applier: &Applier) {
    let names: HashMap<ServiceId, String> = state
        .config
        .iter()
        .flat_map(|config| &config.services)
        .filter_map(|service| Some((service_id(service)?, service.name.clone())))
        .collect();
    for (key, index) in applier.retired_backends() {
        let backend = Backend {
            key: *key,
            service: names.get(&key.service).cloned(),
            pool: String::new(),
            server: None,
            weight: 0,
            mac: None,
            source: None,
            retired: true,
        };
        state.backends.insert(index as u16, backend);
    }
}
