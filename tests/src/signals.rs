//! A flag that SIGINT and SIGTERM set, so that a program can leave through its destructors.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};

/// Set once the user or the system asked the program to end.
#[derive(Clone, Debug)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
}

impl Interrupt {
    /// Blocks the two signals and waits for them on a thread of its own.
    ///
    /// Call it first in `main`: only threads started later inherit the blocked mask. Programs started with
    /// [`std::process::Command`] get an empty mask.
    pub fn install() -> Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGHUP);
        signals.thread_block().context("block SIGINT, SIGTERM and SIGHUP")?;
        let flag = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&flag);
        thread::Builder::new().name("signals".into()).spawn(move || {
            while signals.wait().is_ok() {
                seen.store(true, Ordering::Relaxed);
            }
        })?;
        Ok(Self { flag })
    }

    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// An error once a signal has come: for use between steps, with `?`.
    pub fn check(&self) -> Result<()> {
        if self.is_set() {
            bail!("interrupted");
        }
        Ok(())
    }
}
