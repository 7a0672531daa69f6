//! When the ports of an external address are used up if it goes on as it does; pure.
//!
//! Two sweeps alone would say little: they are a second apart, and a burst of connections that begin or end together is a
//! slope of hundreds. So growth is smoothed exponentially, with [`MEMORY`] for how much of the past counts: short enough
//! that a host that runs wild is seen within a few sweeps, long enough that the figure can be read. The weight of a sweep
//! follows from the time that has passed, since a sweep of a large table takes longer than one of a small table.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::datapath::expiry::External;

/// After so long, a change counts for a third of what it did.
const MEMORY: Duration = Duration::from_secs(10);

/// Per second. Less is what a single connection makes that has begun just now.
const LEAST: f64 = 1.0 / MEMORY.as_secs() as f64;

/// What takes longer is no forecast: connections end meanwhile.
const HORIZON: f64 = 86_400.0;

/// How the use of each external address has developed, by address and protocol number.
#[derive(Clone, Debug, Default)]
pub struct Trends {
    /// When the last sweep ended.
    at: Option<Instant>,
    trends: HashMap<(IpAddr, u8), Trend>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Trend {
    used: u64,
    /// Per second. `None` after a single sweep.
    growth: Option<f64>,
}

impl Trends {
    /// Takes in what a sweep has found that ended at `now`.
    pub fn observe(&mut self, externals: &[External], now: Instant) {
        let Some(at) = self.at.replace(now) else {
            let first =
                |e: &External| ((e.address, e.protocol), Trend { used: e.used(), growth: None });
            self.trends = externals.iter().map(first).collect();
            return;
        };
        let elapsed = now.saturating_duration_since(at);
        let mut before = std::mem::take(&mut self.trends);
        for external in externals {
            let key = (external.address, external.protocol);
            // What was not there before had no connections.
            let then = before.remove(&key).unwrap_or(Trend { used: 0, growth: Some(0.0) });
            self.trends.insert(key, then.next(external.used(), elapsed));
        }
        // What is not in use any more is forgotten when it has come to rest.
        for (key, then) in before {
            let trend = then.next(0, elapsed);
            if trend.growth.is_some_and(|growth| growth < -0.01) {
                self.trends.insert(key, trend);
            }
        }
    }

    /// By how many ports the use of an external address grows in a second; `None` before the second sweep.
    pub fn growth(&self, address: IpAddr, protocol: u8) -> Option<f64> {
        self.at?;
        self.trends.get(&(address, protocol)).map_or(Some(0.0), |trend| trend.growth)
    }
}

impl Trend {
    fn next(self, used: u64, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        if seconds <= 0.0 {
            return Self { used, ..self };
        }
        let slope = (used as f64 - self.used as f64) / seconds;
        let growth = self.growth.map_or(slope, |growth| {
            growth + (slope - growth) * (1.0 - (-seconds / MEMORY.as_secs_f64()).exp())
        });
        Self { used, growth: Some(growth) }
    }
}

/// Seconds until `used` reaches `ports`. `None` when it does not grow, or so slowly that it means nothing.
pub fn exhausted_in(used: u64, ports: u32, growth: Option<f64>) -> Option<u64> {
    let Some(left) = u64::from(ports).checked_sub(used).filter(|left| *left > 0) else {
        return Some(0);
    };
    let growth = growth.filter(|growth| *growth >= LEAST)?;
    let seconds = left as f64 / growth;
    (seconds <= HORIZON).then_some(seconds as u64)
}

#[cfg(test)]
mod tests {
    use lbha_common::wire::proto::{TCP, UDP};
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(147, 75, 78, 116));

    fn external(protocol: u8, used: u32) -> External {
        let remote = "198.51.100.10:443".parse().unwrap();
        External {
            address: ADDRESS,
            protocol,
            connections: used.into(),
            busiest: Some((remote, used)),
            bindings: 0,
        }
    }

    /// Growth after sweeps a second apart that have found so many ports in use.
    fn growth(used: impl IntoIterator<Item = u32>) -> Option<f64> {
        let (mut trends, start) = (Trends::default(), Instant::now());
        for (second, used) in used.into_iter().enumerate() {
            let found: Vec<_> = (used > 0).then(|| external(TCP, used)).into_iter().collect();
            trends.observe(&found, start + Duration::from_secs(second as u64));
        }
        trends.growth(ADDRESS, TCP)
    }

    #[test]
    fn growth_is_known_from_the_second_sweep_on() {
        assert_eq!(growth([]), None);
        assert_eq!(growth([100]), None);
        assert_eq!(growth([100, 105]), Some(5.0));
        assert_eq!(growth([100, 105, 110, 115]), Some(5.0));
        assert_eq!(growth([100, 100, 100]), Some(0.0));
        assert_eq!(growth([0]), Some(0.0), "nothing is in use");
    }

    #[test]
    fn a_burst_is_smoothed_and_a_lasting_change_gets_through() {
        let burst = growth([100, 100, 600, 600]).unwrap();
        assert!((0.0..50.0).contains(&burst), "{burst}");
        let there_and_back = growth([100, 100, 600, 100]).unwrap();
        assert!(there_and_back.abs() < 6.0, "{there_and_back}");
        let steady = growth((0..60).map(|second| 100 + 50 * second)).unwrap();
        assert!((steady - 50.0).abs() < 0.001, "{steady}");
        let turned = growth((0..60).map(|s: u32| 100 + 50 * s.saturating_sub(30))).unwrap();
        assert!((45.0..=50.0).contains(&turned), "{turned}");
    }

    #[test]
    fn what_is_not_in_use_any_more_shrinks_and_is_forgotten() {
        assert!(growth([500, 500, 0]).unwrap() < -10.0);
        let (mut trends, start) = (Trends::default(), Instant::now());
        trends.observe(&[external(TCP, 500), external(UDP, 1)], start);
        for second in 1..200 {
            trends.observe(&[external(UDP, 1)], start + Duration::from_secs(second));
        }
        assert_eq!(trends.growth(ADDRESS, TCP), Some(0.0));
        assert_eq!(trends.trends.len(), 1);
    }

    #[test]
    fn the_time_between_sweeps_counts() {
        let (mut trends, start) = (Trends::default(), Instant::now());
        trends.observe(&[external(TCP, 100)], start);
        trends.observe(&[external(TCP, 200)], start + Duration::from_secs(20));
        assert_eq!(trends.growth(ADDRESS, TCP), Some(5.0));
        // A sweep that was asked for, right after another.
        trends.observe(&[external(TCP, 203)], start + Duration::from_secs(20));
        assert_eq!(trends.growth(ADDRESS, TCP), Some(5.0));
    }

    #[test]
    fn bound_ports_count_when_they_are_more() {
        let mut external = external(UDP, 10);
        assert_eq!(external.used(), 10);
        external.bindings = 30;
        assert_eq!(external.used(), 30);
        external.busiest = None;
        assert_eq!(external.used(), 30);
    }

    #[test]
    fn the_forecast_is_what_is_left_over_how_fast_it_goes() {
        assert_eq!(exhausted_in(31_244, 31_744, Some(5.0)), Some(100));
        assert_eq!(exhausted_in(100, 31_744, Some(0.0)), None);
        assert_eq!(exhausted_in(100, 31_744, Some(-3.0)), None);
        assert_eq!(exhausted_in(100, 31_744, None), None);
        assert_eq!(exhausted_in(100, 31_744, Some(0.1)), None, "in three days");
        assert_eq!(exhausted_in(1, 1000, Some(0.09)), None, "a single connection");
        assert_eq!(exhausted_in(0, 1000, Some(0.1)), Some(10_000));
        assert_eq!(exhausted_in(31_744, 31_744, Some(0.0)), Some(0));
        assert_eq!(exhausted_in(31_745, 31_744, None), Some(0));
    }

    proptest! {
        #[test]
        fn growth_is_never_steeper_than_the_steepest_slope(used in proptest::collection::vec(1u32..60_000, 2..50)) {
            let slopes: Vec<f64> = used.windows(2).map(|two| f64::from(two[1]) - f64::from(two[0])).collect();
            let (least, most) = slopes.iter().fold((f64::MAX, f64::MIN), |(a, b), s| (a.min(*s), b.max(*s)));
            let growth = growth(used).unwrap();
            prop_assert!(growth >= least - 1e-6 && growth <= most + 1e-6, "{growth}");
        }
    }
}
