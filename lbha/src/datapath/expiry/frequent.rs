//! The most frequent of a great many keys, in bounded memory; pure.
//!
//! The algorithm of Misra and Gries (1982): as many counters as there is room for, and when a key comes for which there
//! is none, every counter goes down by one. A count is never too high, and too low by at most the number of keys seen
//! divided by the number of counters: with [`COUNTERS`] and a million connections, by 15. As long as there are no more
//! different keys than counters, all counts are exact.

use std::{collections::HashMap, hash::Hash};

/// A million connections to as many remote hosts would be as many keys, tens of megabytes a second.
pub const COUNTERS: usize = 65_536;

#[derive(Debug)]
pub struct Frequent<K> {
    counters: HashMap<K, u32>,
    room: usize,
}

impl<K: Eq + Hash> Frequent<K> {
    pub fn new(room: usize) -> Self {
        Self { counters: HashMap::new(), room }
    }

    pub fn saw(&mut self, key: K) {
        if let Some(counter) = self.counters.get_mut(&key) {
            *counter = counter.saturating_add(1);
        } else if self.counters.len() < self.room {
            self.counters.insert(key, 1);
        } else {
            // Takes as many keys out of the sum as there are counters: this is a constant amount of work for each key.
            self.counters.retain(|_, counter| {
                *counter -= 1;
                *counter > 0
            });
        }
    }

    pub fn counts(&self) -> impl Iterator<Item = (&K, u32)> {
        self.counters.iter().map(|(key, count)| (key, *count))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_are_right_to_the_error_that_is_promised(keys in proptest::collection::vec(0u8..40, 0..400), room in 1usize..50) {
            let mut frequent = Frequent::new(room);
            keys.iter().for_each(|key| frequent.saw(*key));
            prop_assert!(frequent.counters.len() <= room);
            let error = keys.len() / (room + 1);
            for key in 0..40 {
                let actual = keys.iter().filter(|k| **k == key).count();
                let counted = frequent.counters.get(&key).map_or(0, |count| *count as usize);
                prop_assert!(counted <= actual && actual <= counted + error, "{key}: {counted} of {actual}");
            }
        }
    }
}
