//! What changed between two samples, per second.

use std::time::Duration;

use crate::{
    api::types::Traffic,
    cli::output::{Cell, rate},
};

/// The previous sample, and how long ago it was taken.
#[derive(Debug)]
pub struct Before<'a, T> {
    pub then: &'a T,
    pub elapsed: Duration,
}

impl<T> Copy for Before<'_, T> {}

impl<T> Clone for Before<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

/// A counter per second; `-` without a previous value, and when it went backwards: then it is another daemon's.
pub fn per_second(then: Option<u64>, now: u64, elapsed: Duration) -> Cell {
    let seconds = elapsed.as_secs_f64();
    let grown = then.and_then(|then| now.checked_sub(then)).filter(|_| seconds > 0.0);
    Cell::maybe(grown.map(|grown| rate(grown as f64 / seconds)))
}

/// Headings of [`cells`].
pub const TITLES: [&str; 3] = ["CONN/S", "PPS", "BIT/S"];

/// New connections, packets and bits per second, both directions together.
pub fn cells(then: Option<&Traffic>, now: &Traffic, elapsed: Duration) -> [Cell; 3] {
    let connections = |t: &Traffic| t.connections;
    let packets = |t: &Traffic| t.packets_in.saturating_add(t.packets_out);
    let bits = |t: &Traffic| t.bytes_in.saturating_add(t.bytes_out).saturating_mul(8);
    [
        per_second(then.map(connections), connections(now), elapsed),
        per_second(then.map(packets), packets(now), elapsed),
        per_second(then.map(bits), bits(now), elapsed),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_and_unknown_without_a_past() {
        let two = Duration::from_secs(2);
        assert_eq!(per_second(Some(100), 300, two), Cell::new("100"));
        assert_eq!(per_second(Some(100), 100, two), Cell::new("0"));
        assert_eq!(per_second(None, 300, two), Cell::new("-"));
        assert_eq!(per_second(Some(300), 100, two), Cell::new("-"));
        assert_eq!(per_second(Some(0), 100, Duration::ZERO), Cell::new("-"));
    }
}
