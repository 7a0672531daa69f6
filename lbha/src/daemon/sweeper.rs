//! The thread that takes ended connections out of the tables.
//!
//! A thread, because a sweep of a million connections is some hundred milliseconds of system calls; it rests between
//! batches, so that it never takes more than half of a CPU, and the event loop never waits for it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::datapath::{
    expiry::{Externals, Sweep, Timeouts, sweep},
    tables::FlowTables,
};

/// The least time from the end of a sweep to the start of the next. A long sweep is followed by a rest as long as it took.
const INTERVAL: Duration = Duration::from_secs(1);

/// A finished sweep.
pub struct Report {
    pub sweep: Sweep,
    pub took: Duration,
}

/// The thread's other end.
pub struct Sweeper {
    thread: Option<Thread>,
    asked: Arc<AtomicBool>,
}

impl Sweeper {
    /// The thread ends when the receiver is dropped.
    pub fn spawn(
        root: &Path,
        timeouts: Timeouts,
        externals: Arc<Externals>,
    ) -> Result<(Self, mpsc::Receiver<Report>), aya::maps::MapError> {
        let mut tables = FlowTables::open(root)?;
        let (reports, receiver) = mpsc::channel(1);
        let asked = Arc::new(AtomicBool::new(false));
        let is_asked = asked.clone();
        let run = move || {
            let mut rest = INTERVAL;
            for number in 1.. {
                is_asked.store(false, Ordering::Relaxed);
                let started = Instant::now();
                let mut batch = started;
                let pause = || {
                    // as long as the batch took
                    thread::park_timeout(batch.elapsed().min(INTERVAL));
                    batch = Instant::now();
                    !reports.is_closed()
                };
                match sweep(&mut tables, &timeouts, &externals, number, pause) {
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
                let rested = Instant::now();
                while !is_asked.load(Ordering::Relaxed)
                    && let Some(left) = rest.checked_sub(rested.elapsed())
                {
                    thread::park_timeout(left);
                    if reports.is_closed() {
                        return;
                    }
                }
            }
        };
        let thread = match thread::Builder::new().name("sweeper".into()).spawn(run) {
            Ok(handle) => Some(handle.thread().clone()),
            Err(error) => {
                error!(%error, "cannot start the sweeper: connections will not expire");
                None
            }
        };
        Ok((Self { thread, asked }, receiver))
    }

    /// Has a sweep begin at once, or after the one that is under way.
    pub fn sweep_now(&self) {
        self.asked.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}
