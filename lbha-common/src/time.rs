//! The flow tables' clock: coarse monotonic time in ticks of 2^30 ns.
//!
//! A tick is 1.07 s; a shift is all it takes to compute it on the hot path, where a division would cost more than the
//! table lookup's hash. Both sides read CLOCK_MONOTONIC (`bpf_ktime_get_coarse_ns`, `CLOCK_MONOTONIC_COARSE`), so
//! `last_seen` is never far in the future; differences saturate because two CPUs may disagree by one tick.

/// Bits dropped from a nanosecond clock.
pub const TICK_SHIFT: u32 = 30;

/// Nanoseconds of CLOCK_MONOTONIC to ticks. Wraps after 146 years.
#[inline(always)]
pub const fn ticks(nanos: u64) -> u32 {
    (nanos >> TICK_SHIFT) as u32
}

/// Ticks that certainly cover `nanos`: rounded up, plus one for the tick that was under way.
pub const fn ticks_covering(nanos: u64) -> u32 {
    let ticks = (nanos >> TICK_SHIFT) + 2;
    if ticks > u32::MAX as u64 { u32::MAX } else { ticks as u32 }
}

/// Age of a stamp; 0 for one from a CPU whose clock is ahead.
#[inline(always)]
pub const fn age(now: u32, stamp: u32) -> u32 {
    now.saturating_sub(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_never_shorter_than_asked_for() {
        for nanos in [1, 999_999_999, 1_000_000_000, 60_000_000_000, 7_440_000_000_000] {
            let start = (1u64 << TICK_SHIFT) * 77 - 1;
            let expired = u64::from(ticks(start) + ticks_covering(nanos));
            assert!(expired << TICK_SHIFT >= start + nanos, "{nanos}");
        }
    }

    #[test]
    fn a_clock_that_is_ahead_gives_age_zero() {
        assert_eq!(age(5, 6), 0);
        assert_eq!(age(6, 5), 1);
    }
}
