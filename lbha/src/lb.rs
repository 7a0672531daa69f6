//! Slot tables: in which order, or by which hash, new connections go to the servers of a service. Pure.
//!
//! The datapath knows one mechanism, an array of server indices. `rr` and `wrr` go through it by a counter, `maglev` and
//! `source` look a hash up in it.

/// Slots of a hashed table: a prime far above the number of servers, so that the shares are right to within a percent
/// (Maglev, NSDI 2016, §3.4).
pub const MAGLEV_SLOTS: usize = 65_537;

/// Each server once; those of weight 0 not at all.
pub fn round_robin(weights: &[u16]) -> Vec<u16> {
    (0..weights.len()).filter(|&server| weights[server] > 0).map(|server| server as u16).collect()
}

/// Each server as often as its weight says, interleaved: no server gets two connections in a row that another is due
/// (smooth weighted round robin, as in nginx).
pub fn weighted_round_robin(weights: &[u16]) -> Vec<u16> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let weights: Vec<i64> = weights.iter().map(|&weight| i64::from(weight / divisor)).collect();
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0i64; weights.len()];
    let mut slots = Vec::with_capacity(total as usize);
    for _ in 0..total {
        let mut best: Option<usize> = None;
        for server in 0..weights.len() {
            credit[server] += weights[server];
            if weights[server] > 0 && best.is_none_or(|best| credit[server] > credit[best]) {
                best = Some(server);
            }
        }
        let Some(best) = best else { break };
        credit[best] -= total;
        slots.push(best as u16);
    }
    slots
}

/// A Maglev table. `identities` are what a server is known by wherever the table is built (both hosts of a pair build
/// the same one); a server that comes or goes moves few slots but its own.
pub fn maglev(identities: &[u64], weights: &[u16]) -> Vec<u16> {
    let size = MAGLEV_SLOTS as u64;
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let mut turns: Vec<Turn> = (0..weights.len())
        .filter(|&server| weights[server] > 0)
        .map(|server| Turn {
            server: server as u16,
            offset: mix64(identities[server] ^ 0x9e37_79b9_7f4a_7c15) % size,
            skip: mix64(identities[server] ^ 0xd1b5_4a32_d192_ed03) % (size - 1) + 1,
            next: 0,
            picks: weights[server] / divisor,
        })
        .collect();
    if turns.is_empty() {
        return Vec::new();
    }
    const EMPTY: u16 = u16::MAX;
    let mut slots = vec![EMPTY; MAGLEV_SLOTS];
    let mut filled = 0;
    loop {
        for turn in &mut turns {
            for _ in 0..turn.picks {
                let mut slot = turn.next_slot(size);
                while slots[slot] != EMPTY {
                    slot = turn.next_slot(size);
                }
                slots[slot] = turn.server;
                filled += 1;
                if filled == MAGLEV_SLOTS {
                    return slots;
                }
            }
        }
    }
}

/// A server's way through its own permutation of the slots.
struct Turn {
    server: u16,
    offset: u64,
    skip: u64,
    next: u64,
    /// Slots that it takes each time it is its turn.
    picks: u16,
}

impl Turn {
    fn next_slot(&mut self, size: u64) -> usize {
        let slot = (self.offset + self.next * self.skip) % size;
        self.next += 1;
        slot as usize
    }
}

/// The finalizer of SplitMix64.
pub fn mix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stable hash of a name (FNV-1a), for seeds that must be the same on every host and in every version.
pub fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(slots: &[u16], server: u16) -> usize {
        slots.iter().filter(|&&slot| slot == server).count()
    }

    #[test]
    fn weights_are_interleaved() {
        assert_eq!(weighted_round_robin(&[3, 1]), [0, 0, 1, 0]);
        assert_eq!(weighted_round_robin(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(weighted_round_robin(&[20, 10]), [0, 1, 0], "by their ratio");
        assert_eq!(weighted_round_robin(&[1, 1]), [0, 1]);
    }

    #[test]
    fn weight_zero_gets_nothing() {
        assert_eq!(round_robin(&[1, 0, 7]), [0, 2]);
        assert_eq!(weighted_round_robin(&[0, 2, 0]), [1]);
        assert!(weighted_round_robin(&[0, 0]).is_empty());
        assert!(maglev(&[1, 2], &[0, 0]).is_empty());
        assert_eq!(share(&maglev(&[1, 2], &[1, 0]), 1), 0);
    }

    #[test]
    fn a_lost_server_moves_few_others() {
        let ids: Vec<u64> = (0..10).map(|n| name_hash(&format!("web{n}"))).collect();
        let before = maglev(&ids, &[1; 10]);
        let mut weights = [1; 10];
        weights[3] = 0;
        let after = maglev(&ids, &weights);
        let moved = before.iter().zip(&after).filter(|(b, a)| **b != 3 && b != a).count();
        assert!(moved < MAGLEV_SLOTS / 25, "{moved} slots moved needlessly");
    }

    proptest! {
        #[test]
        fn shares_follow_the_weights(weights in proptest::collection::vec(0u16..=256, 1..12)) {
            let total: usize = weights.iter().map(|&w| usize::from(w)).sum();
            let divisor = usize::from(weights.iter().copied().fold(0, gcd).max(1));
            let slots = weighted_round_robin(&weights);
            prop_assert_eq!(slots.len(), total / divisor);
            for (server, &weight) in weights.iter().enumerate() {
                prop_assert_eq!(share(&slots, server as u16), usize::from(weight) / divisor);
            }
        }

        #[test]
        fn maglev_shares_are_right_to_a_percent(weights in proptest::collection::vec(1u16..=8, 1..8), salt: u64) {
            let ids: Vec<u64> = (0..weights.len() as u64).map(|n| mix64(n ^ salt)).collect();
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            let slots = maglev(&ids, &weights);
            for (server, &weight) in weights.iter().enumerate() {
                let ideal = f64::from(weight) / total;
                let actual = share(&slots, server as u16) as f64 / MAGLEV_SLOTS as f64;
                prop_assert!((ideal - actual).abs() < 0.01, "server {server}: {actual} instead of {ideal}");
            }
        }
    }
}
