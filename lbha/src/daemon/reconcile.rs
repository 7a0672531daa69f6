//! Plan, difference, write, and a line in the log for each thing that changed.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use tracing::{info, warn};

use super::shared::Shared;
use crate::{
    config::Config,
    datapath::apply::{Applier, ApplyError, Change, InUse},
    net::{NetState, Watch},
    plan::{Plan, Ports, plan},
};

pub struct Reconciler {
    applier: Applier,
    shared: Arc<Shared>,
    last: Option<Plan>,
    warned: BTreeSet<String>,
    /// Number of the last complete sweep.
    sweep: u64,
}

impl Reconciler {
    pub fn open(root: &Path, shared: Arc<Shared>) -> Result<Self, aya::maps::MapError> {
        let applier = Applier::open(root)?;
        Ok(Self { applier, shared, last: None, warned: BTreeSet::new(), sweep: 0 })
    }

    /// Brings the maps in line; gives the neighbours to keep resolved.
    pub fn reconcile(
        &mut self,
        config: &Config,
        state: &NetState,
        ports: &Ports,
    ) -> Result<BTreeSet<Watch>, ApplyError> {
        let plan = plan(config, state, ports, &self.applier.lingering_prefixes());
        if self.last.as_ref() != Some(&plan) {
            // A sweep may be under way: what is retired now waits for one that begins later.
            let changes = self.applier.apply(&plan.desired, self.sweep + 1)?;
            self.log(&changes);
            self.shared.set_plan(config, &plan, &self.applier);
        }
        if self.shared.is_settled() {
            self.warn(&plan);
        }
        let watched = plan.watched.clone();
        self.last = Some(plan);
        Ok(watched)
    }

    /// A sweep is complete.
    pub fn release(&mut self, in_use: &InUse) -> Result<(), ApplyError> {
        self.sweep = in_use.sweep;
        self.applier.release(in_use)?;
        self.shared.set_retired(&self.applier);
        Ok(())
    }

    fn log(&self, changes: &[Change]) {
        let first = self.last.is_none();
        for change in changes {
            match change {
                Change::ServiceAdded(id) => {
                    info!(vip = %id.vip, port = id.port, protocol = id.protocol, "service added");
                }
                Change::ServiceChanged(id) if !first => {
                    info!(vip = %id.vip, port = id.port, protocol = id.protocol, "service changed");
                }
                Change::ServiceChanged(_) => {}
                Change::ServiceRemoved(id) => {
                    info!(vip = %id.vip, port = id.port, protocol = id.protocol, "service removed");
                }
                Change::Hop((addr, len), Some(mac)) => {
                    info!(prefix = %format_args!("{addr}/{len}"), mac = %Mac(*mac), "next hop");
                }
                Change::Hop((addr, len), None) => {
                    info!(prefix = %format_args!("{addr}/{len}"), "next hop is not resolved");
                }
                Change::Route((addr, len), route) => {
                    tracing::debug!(prefix = %format_args!("{addr}/{len}"), ?route, "route");
                }
                Change::NoRoom((addr, len)) => {
                    warn!(prefix = %format_args!("{addr}/{len}"), "no room for another next hop");
                }
            }
        }
    }

    /// Says what is wrong once, when it begins.
    fn warn(&mut self, plan: &Plan) {
        let now: BTreeSet<String> = plan.warnings.iter().cloned().collect();
        for warning in now.difference(&self.warned) {
            warn!("{warning}");
        }
        self.warned = now;
    }
}

/// Displays a MAC address.
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
