//! Source-port choice for translated connections.

use crate::select::mix32;

/// Ports tried at random before the scan begins.
const RANDOM_TRIES: u32 = 32;
/// Tries in all. At 99 % occupancy 32 random tries fail 3 times in 4; the scan behind them seldom does.
pub const MAX_TRIES: u32 = 512;
/// Tries after which a closing connection's port is taken rather than looking further for a free one.
pub const TRIES_BEFORE_REUSE: u32 = 16;
/// Tries after which a half-open connection gives its port up, if one that has been so for a while was in the way.
pub const TRIES_BEFORE_EVICTION: u32 = RANDOM_TRIES;

/// The ports to try for one new connection, in order: the client's own when it lies in the range, then random ones,
/// then a scan from a random start (RFC 6056 §3.3.2, bounded).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PortProbe {
    pub first: u16,
    /// Size of the range; 0 means no port at all.
    pub count: u16,
    pub seed: u32,
    /// First choice when `keep` is not 0.
    pub preferred: u16,
    pub keep: u8,
    /// Not 0: the random tries keep the parity of `preferred` (RFC 4787 REQ-4).
    pub parity: u8,
}

impl PortProbe {
    #[inline(always)]
    pub const fn new(first: u16, count: u16, preferred: u16, seed: u32) -> Self {
        let keep = preferred >= first && preferred.wrapping_sub(first) < count;
        Self { first, count, seed, preferred, keep: keep as u8, parity: 0 }
    }

    /// The port of try `i`, in host order; always within the range (or `preferred`, which is in it).
    #[inline(always)]
    pub const fn port(&self, i: u32) -> u16 {
        if i == 0 && self.keep != 0 {
            return self.preferred;
        }
        let random = if i < RANDOM_TRIES { self.seed.wrapping_add(i) } else { self.seed };
        let start = scale(mix32(random), self.count);
        let mut offset = start as u32;
        if i < RANDOM_TRIES {
            let port = self.first.wrapping_add(start);
            if self.parity != 0 && (port ^ self.preferred) & 1 != 0 {
                // Its neighbour, unless the range has none.
                offset = if offset > 0 { offset - 1 } else { (self.count > 1) as u32 };
            }
        } else {
            offset += i - RANDOM_TRIES;
            // `start < count` and at most MAX_TRIES are added: small ranges wrap several times
            offset %= if self.count == 0 { 1 } else { self.count as u32 };
        }
        self.first.wrapping_add(offset as u16)
    }
}

/// Maps a hash onto `0..count` without a division.
#[inline(always)]
pub const fn scale(hash: u32, count: u16) -> u16 {
    ((hash as u64 * count as u64) >> 32) as u16
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::{Arc, Mutex},
        thread,
    };

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_try_lies_in_the_range(first in 1u16.., count in 1u16.., preferred: u16, seed: u32, i in 0..MAX_TRIES) {
            prop_assume!(u32::from(first) + u32::from(count) <= 65536);
            let port = PortProbe::new(first, count, preferred, seed).port(i);
            prop_assert!(port >= first && u32::from(port) < u32::from(first) + u32::from(count));
        }

        #[test]
        fn a_port_in_the_range_is_tried_first(first in 1u16..30000, count in 1u16..30000, offset: u16, seed: u32) {
            let preferred = first + offset % count;
            prop_assert_eq!(PortProbe::new(first, count, preferred, seed).port(0), preferred);
        }
    }

    proptest! {
        #[test]
        fn random_ports_keep_the_parity_when_asked(first in 1u16..30000, count in 2u16..30000, preferred: u16, seed: u32, i in 0..RANDOM_TRIES) {
            let probe = PortProbe { parity: 1, ..PortProbe::new(first, count, preferred, seed) };
            let port = probe.port(i);
            prop_assert_eq!(port & 1, preferred & 1);
            prop_assert!(port >= first && port - first < count);
        }
    }

    #[test]
    fn the_scan_visits_every_port_of_a_small_range() {
        let probe = PortProbe::new(1024, 400, 0, 12345);
        let seen: HashSet<u16> = (RANDOM_TRIES..MAX_TRIES).map(|i| probe.port(i)).collect();
        assert_eq!(seen.len(), 400);
    }

    #[test]
    fn several_cpus_never_hold_the_same_port() {
        // The table's insert-if-absent is the arbiter in the kernel; a set behind a lock stands for it here.
        let table = Arc::new(Mutex::new(HashSet::new()));
        let workers: Vec<_> = (0..4u32)
            .map(|cpu| {
                let table = Arc::clone(&table);
                thread::spawn(move || {
                    (0..2000u32)
                        .filter_map(|n| {
                            let probe = PortProbe::new(1024, 9000, 0, mix32(cpu << 16 | n));
                            (0..MAX_TRIES)
                                .map(|i| probe.port(i))
                                .find(|&p| table.lock().unwrap().insert(p))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let mut given = Vec::new();
        for worker in workers {
            given.extend(worker.join().unwrap());
        }
        assert!(given.len() >= 7990, "8000 of 9000 ports are found: {}", given.len());
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len());
    }
}
