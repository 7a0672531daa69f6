//! Indices of map entries that flows refer to: stable over restarts, and not given again while a flow may use them.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

/// Gives each key a small integer.
///
/// A key that is retired keeps its index until a sweep of the flow tables that began after its retirement has found no
/// reference to it.
#[derive(Debug)]
pub struct Ids<K> {
    by_key: HashMap<K, Slot>,
    free: BTreeSet<u32>,
    next: u32,
    end: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    id: u32,
    /// Number of the sweep that was complete or under way when the key was retired.
    retired: Option<u64>,
}

impl<K: Clone + Eq + Hash> Ids<K> {
    /// Indices from `first` up to but not including `end`.
    pub fn new(first: u32, end: u32) -> Self {
        Self { by_key: HashMap::new(), free: BTreeSet::new(), next: first, end }
    }

    /// Takes over an index that a map already holds. It counts as retired until [`Self::acquire`] asks for its key.
    pub fn adopt(&mut self, key: K, id: u32) {
        while self.next <= id {
            self.free.insert(self.next);
            self.next += 1;
        }
        self.free.remove(&id);
        self.by_key.insert(key, Slot { id, retired: Some(0) });
    }

    /// The key's index; `None` when all are taken. The flag says whether it is new.
    pub fn acquire(&mut self, key: &K) -> Option<(u32, bool)> {
        if let Some(slot) = self.by_key.get_mut(key) {
            slot.retired = None;
            return Some((slot.id, false));
        }
        let id = match self.free.pop_first() {
            Some(id) => id,
            None if self.next < self.end => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        self.by_key.insert(key.clone(), Slot { id, retired: None });
        Some((id, true))
    }

    pub fn get(&self, key: &K) -> Option<u32> {
        self.by_key.get(key).map(|slot| slot.id)
    }

    /// Retires every key that `keep` says no to.
    pub fn retain(&mut self, sweep: u64, keep: impl Fn(&K) -> bool) {
        for (key, slot) in &mut self.by_key {
            if slot.retired.is_none() && !keep(key) {
                slot.retired = Some(sweep);
            }
        }
    }

    /// All keys that have an index.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.by_key.keys()
    }

    /// Whether a key has an index and is retired.
    pub fn is_retired(&self, key: &K) -> bool {
        self.by_key.get(key).is_some_and(|slot| slot.retired.is_some())
    }

    /// Keys that are retired but still have their index.
    pub fn retired(&self) -> impl Iterator<Item = (&K, u32)> {
        self.by_key
            .iter()
            .filter(|(_, slot)| slot.retired.is_some())
            .map(|(key, slot)| (key, slot.id))
    }

    /// After sweep number `sweep`: gives up what was retired before that sweep began and is not `used`.
    pub fn release(&mut self, sweep: u64, used: impl Fn(u32) -> bool) -> Vec<(K, u32)> {
        let gone: Vec<(K, u32)> = self
            .by_key
            .iter()
            .filter(|(_, slot)| slot.retired.is_some_and(|at| at < sweep) && !used(slot.id))
            .map(|(key, slot)| (key.clone(), slot.id))
            .collect();
        for (key, id) in &gone {
            self.by_key.remove(key);
            self.free.insert(*id);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_that_comes_back_has_its_old_index() {
        let mut ids = Ids::new(1, 10);
        assert_eq!(ids.acquire(&"a"), Some((1, true)));
        assert_eq!(ids.acquire(&"b"), Some((2, true)));
        ids.retain(3, |key| *key == "b");
        assert_eq!(ids.acquire(&"a"), Some((1, false)));
    }

    #[test]
    fn an_index_waits_for_a_sweep_that_began_later_and_found_it_unused() {
        let mut ids = Ids::new(0, 10);
        ids.acquire(&"a");
        ids.retain(5, |_| false);
        assert!(ids.release(5, |_| false).is_empty(), "sweep 5 may have begun before");
        assert!(ids.release(6, |_| true).is_empty(), "a flow refers to it");
        assert_eq!(ids.release(7, |_| false), [("a", 0)]);
        assert_eq!(ids.acquire(&"b"), Some((0, true)));
    }

    #[test]
    fn adopted_indices_are_kept_and_the_gaps_between_them_given_out() {
        let mut ids = Ids::new(1, 5);
        ids.adopt("x", 3);
        assert_eq!(ids.acquire(&"a"), Some((1, true)));
        assert_eq!(ids.acquire(&"x"), Some((3, false)));
        assert_eq!(ids.acquire(&"b"), Some((2, true)));
        assert_eq!(ids.acquire(&"c"), Some((4, true)));
        assert_eq!(ids.acquire(&"d"), None);
    }

    proptest! {
        #[test]
        fn live_keys_never_share_an_index(ops in proptest::collection::vec((0u8..3, 0u8..12), 0..200)) {
            let mut ids = Ids::new(0, 8);
            let mut sweep = 0;
            for (op, key) in ops {
                match op {
                    0 => { ids.acquire(&key); }
                    1 => ids.retain(sweep, |k| *k != key),
                    _ => { sweep += 1; ids.release(sweep, |id| id == u32::from(key)); }
                }
                let all: BTreeSet<u32> = ids.by_key.values().map(|slot| slot.id).collect();
                prop_assert_eq!(all.len(), ids.by_key.len());
                prop_assert!(ids.free.is_disjoint(&all));
            }
        }
    }
}
