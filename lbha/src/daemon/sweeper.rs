//! The thread that takes ended connections out of the tables.
//!
//! A thread, because a sweep of a million connections is some hundred milliseconds of system calls; it rests between
//! batches, so that it never takes more than half of a CPU, and the event loop never waits for it.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::datapath::{
    expiry::{Sweep, Timeouts, sweep},
    tables::FlowTables,
};

/// The least time from the end of a sweep to the start of the next. A long sweep is followed by a rest as long as it took.
const INTERVAL: Duration = Duration::from_secs(1);

/// A finished sweep.
pub struct Report {
    pub sweep: Sweep,
    pub took: Duration,
}

pub struct Sweeper;

impl Sweeper {
    /// The thread ends when the receiver is dropped.
    pub fn spawn(
        root: &Path,
        timeouts: Timeouts,
    ) -> Result<mpsc::Receiver<Report>, aya::maps::MapError> {
        let mut tables = FlowTables::open(root)?;
        let (reports, receiver) = mpsc::channel(1);
        let run = move || {
            let mut rest = INTERVAL;
            for number in 1.. {
                let started = Instant::now();
                let mut batch = started;
                let pause = || {
                    // as long as the batch took
                    thread::park_timeout(batch.elapsed().min(INTERVAL));
                    batch = Instant::now();
                    !reports.is_closed()
                };
                match sweep(&mut tables, &timeouts, number, pause) {
                    Ok(Some(sweep)) => {
                        let report = Report { sweep, took: started.elapsed() };
                        rest = report.took.max(INTERVAL);
                        if reports.blocking_send(report).is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(error) => warn!(%error, "a sweep of the flow tables failed"),
                }
                thread::park_timeout(rest);
                if reports.is_closed() {
                    return;
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("sweeper".into()).spawn(run) {
            error!(%error, "cannot start the sweeper: connections will not expire");
        }
        Ok(receiver)
    }
}
