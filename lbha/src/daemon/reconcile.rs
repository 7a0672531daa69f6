//! Plan, difference, write, and a line in the log for each thing that changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use lbha_common::wire::proto;
use tokio::time::Instant;
use tracing::{info, warn};

use super::shared::Shared;
use crate::{
    config::{Config, PortRange},
    datapath::{
        apply::{Applier, ApplyError, Change, InUse},
        desired::Masquerade,
        expiry::Externals,
    },
    net::{NetState, Watch},
    plan::{Plan, Ports, plan},
};

/// What follows from a change beyond the maps.
pub struct Outcome {
    /// The neighbours to keep resolved.
    pub watched: BTreeSet<Watch>,
    /// An external address is none any more: connections that have it must end.
    pub externals_left: bool,
}

pub struct Reconciler {
    applier: Applier,
    shared: Arc<Shared>,
    externals: Arc<Externals>,
    last: Option<Plan>,
    warnings: Warnings,
    /// Number of the last complete sweep.
    sweep: u64,
}

impl Reconciler {
    pub fn open(
        root: &Path,
        shared: Arc<Shared>,
        externals: Arc<Externals>,
    ) -> Result<Self, aya::maps::MapError> {
        Ok(Self {
            applier: Applier::open(root)?,
            shared,
            externals,
            last: None,
            warnings: Warnings::default(),
            sweep: 0,
        })
    }

    /// Brings the maps in line.
    pub fn reconcile(
        &mut self,
        config: &Config,
        state: &NetState,
        ports: &Ports,
    ) -> Result<Outcome, ApplyError> {
        let plan = plan(config, state, ports, &self.applier.lingering_prefixes(), kernel_ports());
        let mut externals_left = false;
        if self.last.as_ref() != Some(&plan) {
            let externals = Masquerade::externals_of(&plan.desired.masquerades);
            self.externals.add(externals.iter().copied());
            // A sweep may be under way: what is retired now waits for one that begins later.
            let changes = self.applier.apply(&plan.desired, self.sweep + 1)?;
            externals_left = self.externals.replace(externals);
            self.log(&plan, &changes);
            self.shared.set_plan(config, &plan, &self.applier);
        }
        let watched = plan.watched.clone();
        self.last = Some(plan);
        Ok(Outcome { watched, externals_left })
    }

    /// A sweep is complete.
    pub fn release(&mut self, in_use: &InUse) -> Result<(), ApplyError> {
        self.sweep = in_use.sweep;
        self.applier.release(in_use)?;
        self.shared.set_retired(&self.applier);
        Ok(())
    }

    fn log(&mut self, plan: &Plan, changes: &[Change]) {
        let first = self.last.is_none();
        for change in changes {
            match change {
                Change::ServiceAdded(id) => {
                    info!(vip = %id.vip, port = id.port, protocol = protocol(id.protocol), "service added");
                }
                Change::ServiceChanged(id) if !first => {
                    info!(vip = %id.vip, port = id.port, protocol = protocol(id.protocol), "service changed");
                }
                Change::ServiceChanged(_) => {}
                Change::ServiceRemoved(id) => {
                    info!(vip = %id.vip, port = id.port, protocol = protocol(id.protocol), "service removed");
                }
                Change::Masquerade(sources, Some(externals)) => {
                    info!(sources = %List(sources), externals = %List(externals), "masquerade");
                }
                Change::Masquerade(sources, None) => {
                    info!(sources = %List(sources), "masquerade removed");
                }
                Change::Hop(prefix, Some(mac)) => info!(%prefix, mac = %Mac(*mac), "next hop"),
                Change::Hop(prefix, None) => info!(%prefix, "next hop is not resolved"),
                Change::Route(prefix, route) => tracing::debug!(%prefix, ?route, "route"),
                Change::NoRoom(prefix) => warn!(%prefix, "no room for another next hop"),
            }
        }
        for ended in self.warnings.update(plan, Instant::now()) {
            info!("no longer: {ended}");
        }
        self.log_due_warnings();
    }

    /// Puts those warnings in the log that have lasted long enough.
    pub fn log_due_warnings(&mut self) {
        for warning in self.warnings.due(Instant::now()) {
            warn!("{warning}");
        }
    }

    /// When [`Self::log_due_warnings`] has something to do.
    pub fn next_warning(&self) -> Option<Instant> {
        self.warnings.next()
    }
}

/// First and last port that the kernel gives to the host's own connections, of either family.
fn kernel_ports() -> Option<PortRange> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ports = text.split_whitespace().map(str::parse);
    Some(PortRange { first: ports.next()?.ok()?, last: ports.next()?.ok()? })
}

/// Displays some things in a row, or says that there are none.
pub struct List<'a, T>(pub &'a [T]);

impl<T: std::fmt::Display> std::fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((first, others)) = self.0.split_first() else { return f.write_str("none") };
        write!(f, "{first}")?;
        others.iter().try_for_each(|other| write!(f, ", {other}"))
    }
}

fn protocol(number: u8) -> &'static str {
    if number == proto::TCP { "tcp" } else { "udp" }
}

/// The plan's warnings on their way into the log: once each, and once more when they end.
#[derive(Default)]
struct Warnings {
    /// Not in the log yet, and from when on they belong there.
    waiting: BTreeMap<String, Instant>,
    logged: BTreeSet<String>,
}

impl Warnings {
    /// Takes a plan's warnings; gives those that were logged and have ended.
    fn update(&mut self, plan: &Plan, now: Instant) -> Vec<String> {
        let current: BTreeSet<&String> = plan.warnings.iter().collect();
        let ended = self.logged.iter().filter(|w| !current.contains(w)).cloned().collect();
        self.logged.retain(|warning| current.contains(warning));
        self.waiting.retain(|warning, _| current.contains(warning));
        for warning in current {
            if !self.logged.contains(warning) && !self.waiting.contains_key(warning) {
                let patience =
                    if plan.awaited.contains(warning) { PATIENCE } else { Duration::ZERO };
                self.waiting.insert(warning.clone(), now + patience);
            }
        }
        ended
    }

    fn due(&mut self, now: Instant) -> Vec<String> {
        let due: Vec<String> =
            self.waiting.extract_if(.., |_, due| *due <= now).map(|(warning, _)| warning).collect();
        self.logged.extend(due.iter().cloned());
        due
    }

    fn next(&self) -> Option<Instant> {
        self.waiting.values().min().copied()
    }
}

/// At the start, and when an interface comes up, no neighbour is known: the kernel asks three times, once a second.
const PATIENCE: Duration = Duration::from_secs(3);

/// Displays a MAC address.
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(warnings: &[&str], awaited: &[&str]) -> Plan {
        Plan {
            warnings: warnings.iter().map(ToString::to_string).collect(),
            awaited: awaited.iter().map(ToString::to_string).collect(),
            ..Plan::default()
        }
    }

    #[test]
    fn a_warning_is_logged_once_and_so_is_its_end() {
        let (mut warnings, now) = (Warnings::default(), Instant::now());
        let down = plan(&["eth0 is down"], &[]);
        assert!(warnings.update(&down, now).is_empty());
        assert_eq!(warnings.due(now), ["eth0 is down"]);
        assert!(warnings.update(&down, now).is_empty());
        assert!(warnings.due(now).is_empty());
        assert_eq!(warnings.update(&Plan::default(), now), ["eth0 is down"]);
        assert!(warnings.update(&down, now).is_empty());
        assert_eq!(warnings.due(now), ["eth0 is down"]);
    }

    #[test]
    fn what_an_answer_may_end_gets_time_to() {
        let (mut warnings, now) = (Warnings::default(), Instant::now());
        let both = plan(&["web1", "web2"], &["web1", "web2"]);
        warnings.update(&both, now);
        assert!(warnings.due(now).is_empty());
        assert_eq!(warnings.next(), Some(now + PATIENCE));
        assert!(warnings.update(&plan(&["web2"], &["web2"]), now).is_empty());
        assert_eq!(warnings.due(now + PATIENCE), ["web2"]);
        assert_eq!(warnings.next(), None);
    }
}
