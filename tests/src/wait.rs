//! Waiting for a condition, with a deadline: the only place of the crate that sleeps.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Polls `condition` until it holds. `what` completes "timed out waiting until …".
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(limit, &format!("until {what}"), || condition().then_some(()))
}

/// Polls `probe` until it gives a value. `what` completes "timed out waiting …".
///
/// The probe runs at least once, and once more after the deadline has passed.
pub fn wait_for<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let last = Instant::now() >= deadline;
        if let Some(value) = probe() {
            return Ok(value);
        }
        if last {
            bail!("timed out after {limit:?} waiting {what}");
        }
        thread::sleep(POLL);
    }
}

const POLL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_holds_is_not_waited_for() {
        let start = Instant::now();
        wait_until(Duration::from_secs(60), "now", || true).unwrap();
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_condition_that_never_holds_is_named_in_the_error() {
        let error = wait_until(Duration::from_millis(20), "pigs fly", || false).unwrap_err();
        assert!(error.to_string().ends_with("waiting until pigs fly"), "{error}");
    }
}
