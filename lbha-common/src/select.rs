//! Hashes for choosing a server, the same on every host and on both sides of the kernel boundary.

use crate::{addr::Be32, flow::FlowKey4};

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
pub const fn connection_hash(key: &FlowKey4, seed: u32) -> u32 {
    let mut h = combine(seed, key.saddr.get());
    h = combine(h, key.daddr.get());
    h = combine(h, (key.sport.get() as u32) << 16 | key.dport.get() as u32);
    combine(h, key.proto as u32)
}

/// Hash of a client (`source`): one client stays with one server, whatever its ports.
#[inline(always)]
pub const fn source_hash(saddr: Be32, seed: u32) -> u32 {
    combine(seed, saddr.get())
}

/// Maps a hash onto `0..count` without a division.
#[inline(always)]
pub const fn slot(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

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
