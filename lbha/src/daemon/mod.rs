//! The running daemon: puts the parts together, and is the only place that knows all of them.
//!
//! One task owns the maps. Whatever happens (a neighbour changes its MAC address, a sweep has found an index unused) ends
//! in the same three steps: plan, difference, write.

mod attach;
mod forecast;
mod fragments;
mod left;
mod logging;
mod nat;
mod reconcile;
mod refusals;
mod shared;
mod smallest;
mod sweeper;
mod view;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use lbha_common::{
    addr::Addr,
    event::{self, Event},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing::{debug, error, info, warn};

use crate::{
    api::server::Server,
    config::{Attach, Config},
    datapath::{
        OBJECT,
        attach::Preference,
        expiry::{Externals, Timeouts},
        loader::{Programs, Sizes},
        pins::Pins,
        ring,
    },
    net::{Monitor, NeighbourKeeper, Neighbours, NetState},
    plan::Ports,
};

pub use left::Left;
pub use logging::{LogFormat, init as init_logging};

use fragments::Fragments;
use reconcile::{Outcome, Reconciler};
use refusals::Refusals;
use shared::Shared;
use sweeper::Sweeper;

/// What `lbha run` asks for beyond the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    pub config: Config,
    /// The file it came from, if any.
    pub config_file: Option<PathBuf>,
    /// Directory of the pins.
    pub bpffs: PathBuf,
    /// On a clean stop, leave the program attached and the maps pinned.
    pub keep_datapath: bool,
    /// Level of the program's own log, as aya-log numbers them; 0 is off.
    pub bpf_log: u8,
}

/// The datapath could not be set up: the kernel refuses something, another daemon holds the pins, an interface is missing.
#[derive(Debug, thiserror::Error)]
#[error("cannot start")]
pub struct StartError(#[source] anyhow::Error);

/// Runs until SIGTERM or SIGINT. An error before the daemon is ready is a [`StartError`], unless it concerns the admin
/// socket.
pub fn run(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(Daemon::run(options));
    // A view of a million flows may be under way; nobody waits for it any more.
    runtime.shutdown_background();
    result
}

struct Daemon {
    options: Options,
    monitor: Monitor,
    states: watch::Receiver<Arc<NetState>>,
    neighbours: Neighbours,
    keeper: NeighbourKeeper,
    programs: Programs,
    reconciler: Reconciler,
    sweeper: Sweeper,
    refusals: Refusals,
    shared: Arc<Shared>,
    ports: Ports,
}

impl Daemon {
    async fn run(options: Options) -> anyhow::Result<()> {
        // Before anything that has to be taken back on a stop.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Would end the process: from a terminal that closes, or from somebody who expects a reload.
        let mut hangup = signal(SignalKind::hangup())?;

        let server = Server::bind(&options.config.admin.socket)?;
        let pins = Pins::open(&options.bpffs).map_err(|error| StartError(error.into()))?;
        for old in pins.other_versions() {
            warn!(path = %old.display(), "pins of another version of lbha are there too; `lbha detach` removes them");
        }
        let adopted = pins.pinned_maps() > 0;
        let started = Self::start(options, &pins).await;
        let (mut daemon, mut sweeps) = match started {
            Ok(started) => started,
            Err(error) => {
                // What was there before goes on; what is ours alone goes away.
                if !adopted && let Err(error) = pins.remove_all() {
                    warn!(error = format!("{:#}", anyhow::Error::new(error)), "pins left behind");
                }
                return Err(StartError(error).into());
            }
        };
        info!(
            adopted,
            pins = %pins.root().display(),
            services = daemon.options.config.services.len(),
            "running"
        );

        let mut events = ring::events(pins.root())?;
        let mut fragments = Fragments::open(pins.root(), daemon.shared.clone())?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let api = tokio::spawn(server.serve(daemon.shared.clone(), async move {
            let _ = stopped.await;
        }));
        let settle = tokio::time::sleep(SETTLE_TIME);
        tokio::pin!(settle);
        let reason = loop {
            let next_warning = daemon.reconciler.next_warning();
            tokio::select! {
                () = &mut settle, if !daemon.shared.is_settled() => daemon.shared.set_settled(),
                changed = daemon.states.changed() => match changed {
                    Ok(()) => daemon.network_changed(&pins),
                    // Without netlink the maps would go stale in silence.
                    Err(_) => break Err(anyhow::anyhow!("the netlink monitor has ended")),
                },
                Some(sweep) = sweeps.recv() => daemon.swept(sweep),
                () = sleep_until(next_warning) => {
                    daemon.reconciler.log_due_warnings();
                }
                ready = events.readable_mut() => {
                    let mut ready = ready?;
                    let events = read_events(ready.get_inner_mut());
                    ready.clear_ready();
                    fragments.first_came(&mut daemon.programs, &events);
                    daemon.waiting_for_neighbours(&events).await;
                }
                waited = fragments.wait() => {
                    waited?;
                    fragments.work(&mut daemon.programs);
                }
                _ = terminate.recv() => break Ok("SIGTERM"),
                _ = interrupt.recv() => break Ok("SIGINT"),
                _ = hangup.recv() => {
                    warn!("SIGHUP changes nothing: the configuration is read at the start only");
                }
            }
        };
        let _ = stop.send(());
        let _ = api.await;
        let reason = reason?;
        let keep = daemon.options.keep_datapath;
        drop(daemon);
        if keep {
            info!(reason, pins = %pins.root().display(), "stopped; the datapath goes on");
        } else {
            pins.remove_all()?;
            info!(reason, "stopped; the datapath is detached");
        }
        Ok(())
    }

    async fn start(
        options: Options,
        pins: &Pins,
    ) -> anyhow::Result<(Self, mpsc::Receiver<sweeper::Report>)> {
        let (monitor, mut states) = Monitor::start().await?;
        let state = states.borrow_and_update().clone();
        let ports = Ports::find(&options.config, &state)?;

        let sizes = Sizes {
            max_connections: options.config.datapath.max_connections,
            max_connections_v6: options.config.datapath.max_connections_v6,
            max_half_open: options.config.datapath.max_half_open,
        };
        let mut programs = Programs::load(OBJECT, pins, sizes, options.bpf_log)?;
        if options.bpf_log > 0 {
            ring::forward_log(programs.ebpf())?;
        }
        let shared = Arc::new(Shared::new(&options, pins.root())?);
        let externals = Arc::new(Externals::default());
        let mut reconciler = Reconciler::open(pins.root(), shared.clone(), externals.clone())?;
        // The maps first, so that the first packet finds them filled.
        let Outcome { watched, externals_left: _ } =
            reconciler.reconcile(&options.config, &state, &ports)?;

        let preference = preference(&options.config);
        let attached = attach::attach(&mut programs, pins, &state, &ports, preference)?;
        shared.set_attached(attached, &ports);
        // Attaching by link changes IFLA_XDP without an event.
        monitor.resync();

        let neighbours = monitor.neighbours();
        let keeper = NeighbourKeeper::spawn(states.clone(), neighbours.clone())?;
        keeper.watch(watched);
        let (sweeper, sweeps) = Sweeper::spawn(pins.root(), timeouts(&options.config), externals)?;
        let refusals = Refusals::new(shared.refused());
        let daemon = Self {
            options,
            monitor,
            states,
            neighbours,
            keeper,
            programs,
            reconciler,
            sweeper,
            refusals,
            shared,
            ports,
        };
        Ok((daemon, sweeps))
    }

    /// Links, addresses, routes or neighbours have changed.
    fn network_changed(&mut self, pins: &Pins) {
        let state = self.states.borrow_and_update().clone();
        match Ports::find(&self.options.config, &state) {
            Ok(ports) => {
                if (ports.public.attach_ifindex, ports.private.attach_ifindex)
                    != (self.ports.public.attach_ifindex, self.ports.private.attach_ifindex)
                {
                    warn!("an interface was made anew: attaching again");
                    // Without its programs the daemon is not ready: the ports stay the old ones, and the next change
                    // tries again.
                    if !self.attach_again(pins, &state, &ports) {
                        return;
                    }
                }
                self.ports = ports;
                self.reconcile(&state);
            }
            Err(error) => {
                if self.shared.set_trouble(Some(error.to_string())) {
                    error!(%error, "an interface is gone; its last state stays until it is back");
                }
            }
        }
    }

    /// Brings the maps in line. What can't be written now is tried again with the next change.
    fn reconcile(&mut self, state: &NetState) {
        match self.reconciler.reconcile(&self.options.config, state, &self.ports) {
            Ok(Outcome { watched, externals_left }) => {
                self.keeper.watch(watched);
                self.shared.set_trouble(None);
                if externals_left {
                    // What is masqueraded to an address that has left needs another one now.
                    self.sweeper.sweep_now();
                }
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                if self.shared.set_trouble(Some(error.clone())) {
                    error!(error, "the maps are not up to date");
                }
            }
        }
    }

    /// Whether the programs are on the new interfaces.
    fn attach_again(&mut self, pins: &Pins, state: &NetState, ports: &Ports) -> bool {
        let preference = preference(&self.options.config);
        match attach::attach(&mut self.programs, pins, state, ports, preference) {
            Ok(attached) => {
                self.shared.set_attached(attached, ports);
                self.monitor.resync();
                true
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                if self.shared.set_trouble(Some(error.clone())) {
                    error!(error, "not attached");
                }
                false
            }
        }
    }

    fn swept(&mut self, report: sweeper::Report) {
        if let Err(error) = self.reconciler.release(&report.sweep.in_use) {
            // The indices stay taken until the next sweep says the same.
            warn!(error = format!("{:#}", anyhow::Error::new(error)), "cannot give back indices");
        }
        let sweep = &report.sweep;
        if sweep.expired + sweep.orphaned > 0 {
            debug!(
                expired = sweep.expired,
                orphaned = sweep.orphaned,
                connections = sweep.connections(),
                half_open = sweep.half_open(),
                took = ?report.took,
                "sweep"
            );
        }
        if sweep.orphaned > 0 {
            info!(
                connections = sweep.orphaned,
                "masqueraded connections ended: their external address is not ours any more"
            );
        }
        self.shared.set_sweep(report.sweep);
        self.refusals.log(self.shared.refused());
    }

    /// Connections wait for neighbours on directly connected networks: have the kernel resolve them.
    async fn waiting_for_neighbours(&mut self, events: &[Event]) {
        let asked: BTreeSet<_> = events.iter().filter_map(neighbour_asked_for).collect();
        if asked.is_empty() {
            return;
        }
        let state = self.states.borrow().clone();
        // A scan of a whole network asks for all of it; the kernel's own table is bounded too.
        for addr in asked.into_iter().take(MAX_RESOLVE_AT_ONCE) {
            let Some(device) = crate::plan::on_link_device(&state, &self.ports, addr) else {
                continue;
            };
            if let Err(error) = self.neighbours.probe(device, addr).await {
                debug!(%addr, error = ?error, "neighbour not probed");
            }
        }
    }
}

fn read_events(ring: &mut RingBuf<MapData>) -> Vec<Event> {
    std::iter::from_fn(|| ring::next_event(ring)).collect()
}

fn neighbour_asked_for(event: &Event) -> Option<IpAddr> {
    if event.kind != event::kind::RESOLVE {
        return None;
    }
    match event.family {
        event::family::IPV4 => Some(Ipv4Addr::from(event.addr.words()[0]).into()),
        event::family::IPV6 => Some(Ipv6Addr::from(event.addr).into()),
        _ => None,
    }
}

/// How long a start waits for servers and gateways to answer before it calls itself ready without them.
const SETTLE_TIME: Duration = Duration::from_secs(2);

async fn sleep_until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Neighbours asked for in one go.
const MAX_RESOLVE_AT_ONCE: usize = 64;

fn preference(config: &Config) -> Preference {
    match config.datapath.attach {
        Attach::Auto => Preference::Auto,
        Attach::Native => Preference::Native,
        Attach::Generic => Preference::Generic,
    }
}

fn timeouts(config: &Config) -> Timeouts {
    let t = &config.timeouts;
    Timeouts {
        tcp_syn: t.tcp_syn,
        tcp_established: t.tcp_established,
        tcp_fin_wait: t.tcp_fin_wait,
        tcp_time_wait: t.tcp_time_wait,
        tcp_reset: t.tcp_reset,
        udp: t.udp,
        udp_unreplied: t.udp_unreplied,
        masquerade_opening: t.masquerade_tcp_opening,
        masquerade_closing: t.masquerade_tcp_closing,
        icmp: t.icmp,
    }
}

#[cfg(test)]
mod tests {
    use lbha_common::addr::{Be32, Be128};

    use super::*;

    #[test]
    fn a_neighbour_is_asked_for_in_its_family() {
        let event = |kind, family, addr| neighbour_asked_for(&Event { kind, family, addr });
        let v4 = Be128::from_raw([Be32::from(Ipv4Addr::new(192, 0, 2, 1)).raw(), 0, 0, 0]);
        let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let (resolve, fragment) = (event::kind::RESOLVE, event::kind::FRAGMENT);
        assert_eq!(event(resolve, event::family::IPV4, v4), Some([192, 0, 2, 1].into()));
        assert_eq!(event(resolve, event::family::IPV6, v6.into()), Some(v6.into()));
        assert_eq!(event(fragment, event::family::IPV4, v4), None);
        assert_eq!(event(resolve, 9, v4), None);
    }
}
