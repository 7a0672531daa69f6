//! Reads the counters: per-CPU values, summed.

use aya::maps::MapError;
use lbha_common::stats::{BackendStats, InterfaceStats};

use super::tables::Counters;

impl Counters {
    /// Counters of a side's interface.
    pub fn interface(&self, side: u8) -> Result<InterfaceStats, MapError> {
        let mut sum = InterfaceStats::default();
        for cpu in self.interfaces.get(&side.into(), 0)?.iter() {
            sum.add(cpu);
        }
        Ok(sum)
    }

    /// Counters of a server of a service, by its index.
    pub fn backend(&self, id: u32) -> Result<BackendStats, MapError> {
        let mut sum = BackendStats::default();
        for cpu in self.backends.get(&id, 0)?.iter() {
            sum.add(cpu);
        }
        Ok(sum)
    }
}
