//! A line in the log while masqueraded connections are refused, at most once a minute.

use std::time::{Duration, Instant};

use tracing::warn;

/// Packets of new connections that were refused, by reason, since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    pub no_free_port: u64,
    pub source_quota: u64,
    pub no_external_address: u64,
}

impl Refused {
    fn since(self, before: Self) -> Self {
        Self {
            no_free_port: self.no_free_port.saturating_sub(before.no_free_port),
            source_quota: self.source_quota.saturating_sub(before.source_quota),
            no_external_address: self
                .no_external_address
                .saturating_sub(before.no_external_address),
        }
    }
}

pub struct Refusals {
    /// As the last line told it.
    told: Refused,
    next: Option<Instant>,
}

impl Refusals {
    /// What was refused before is another daemon's.
    pub fn new(now: Refused) -> Self {
        Self { told: now, next: None }
    }

    pub fn log(&mut self, refused: Refused) {
        if let Some(Refused { no_free_port, source_quota, no_external_address }) =
            self.observe(refused, Instant::now())
        {
            warn!(
                no_free_port,
                source_quota,
                no_external_address,
                "connections are refused: packets since the last such line, by reason"
            );
        }
    }

    /// What there is to tell: at once, and then once a minute.
    fn observe(&mut self, refused: Refused, now: Instant) -> Option<Refused> {
        let news = refused.since(self.told);
        if news == Refused::default() || self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.told = refused;
        self.next = Some(now + INTERVAL);
        Some(news)
    }
}

const INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_is_told_at_once_and_then_there_is_a_line_a_minute() {
        let (start, refused) =
            (Instant::now(), |n| Refused { no_free_port: n, ..Refused::default() });
        let mut refusals = Refusals::new(refused(100));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(refusals.observe(refused(100), at(0)), None, "of the daemon before");
        assert_eq!(refusals.observe(refused(103), at(1)), Some(refused(3)));
        assert_eq!(refusals.observe(refused(110), at(60)), None);
        assert_eq!(refusals.observe(refused(111), at(61)), Some(refused(8)));
        assert_eq!(refusals.observe(refused(111), at(200)), None);
        assert_eq!(refusals.observe(refused(112), at(201)), Some(refused(1)));
    }
}
