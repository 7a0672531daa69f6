//! Hashes for choosing a server, the same on every host and on both sides of the kernel boundary.

use crate::{addr::Addr, flow::FlowKey};

/// A full-avalanche mixer (the finalizer of MurmurHash3).
#[inline(always)]
pub const fn mix32(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

#[inline(always)]
const fn combine(h: u32, word: u32) -> u32 {
    mix32(h.rotate_left(5) ^ word).wrapping_add(0x9e37_79b9)
}

/// Hash of a connection (`maglev`). The side is left out: both hosts of a pair must agree.
#[inline(always)]
pub fn connection_hash<A: Addr>(key: &FlowKey<A>, seed: u32) -> u32 {
    let mut h = source_hash(key.saddr, seed);
    h = source_hash(key.daddr, h);
    h = combine(h, u32::from(key.sport.get()) << 16 | u32::from(key.dport.get()));
    combine(h, u32::from(key.proto))
}

/// Hash of a client (`source`): one client stays with one server, whatever its ports.
#[inline(always)]
pub fn source_hash<A: Addr>(saddr: A, seed: u32) -> u32 {
    let [first, second, third, fourth] = saddr.words();
    let h = combine(seed, first);
    if A::BITS == 32 { h } else { combine(combine(combine(h, second), third), fourth) }
}

/// Maps a hash onto `0..count` without a division.
#[inline(always)]
pub const fn slot(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Be32;

    #[test]
    fn neighbouring_clients_spread_evenly() {
        let mut hits = [0u32; 4];
        for client in 0..40_000u32 {
            hits[slot(source_hash(Be32::new(0x0a00_0000 + client), 7), 4) as usize] += 1;
        }
        for hit in hits {
            assert!((9_500..10_500).contains(&hit), "{hits:?}");
        }
    }

    #[test]
    fn slots_are_always_below_the_count() {
        for hash in [0, 1, u32::MAX / 2, u32::MAX] {
            for count in [1, 2, 65_537] {
                assert!(slot(hash, count) < count);
            }
        }
    }
}
