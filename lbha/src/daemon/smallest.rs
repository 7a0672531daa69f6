//! The smallest of a great many rows, in bounded memory and in order; pure.

use std::{cmp::Ordering, collections::BinaryHeap};

/// Keeps the rows with the smallest keys, and counts all.
#[derive(Debug)]
pub struct Smallest<K, V> {
    limit: usize,
    total: u64,
    /// The largest on top.
    rows: BinaryHeap<Row<K, V>>,
}

#[derive(Debug)]
struct Row<K, V> {
    key: K,
    value: V,
}

impl<K: Ord, V> Smallest<K, V> {
    pub fn new(limit: usize) -> Self {
        Self { limit, total: 0, rows: BinaryHeap::new() }
    }

    pub fn push(&mut self, key: K, value: V) {
        self.total += 1;
        if self.rows.len() < self.limit {
            self.rows.push(Row { key, value });
        } else if let Some(mut largest) = self.rows.peek_mut()
            && key < largest.key
        {
            *largest = Row { key, value };
        }
    }

    /// How many rows there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What was kept, the smallest first.
    pub fn into_rows(self) -> impl Iterator<Item = (K, V)> {
        self.rows.into_sorted_vec().into_iter().map(|Row { key, value }| (key, value))
    }
}

impl<K: Ord, V> Ord for Row<K, V> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl<K: Ord, V> PartialOrd for Row<K, V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord, V> PartialEq for Row<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<K: Ord, V> Eq for Row<K, V> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_list_cut_off(mut keys in proptest::collection::vec(0u16..500, 0..200), limit in 0usize..50) {
            let mut smallest = Smallest::new(limit);
            for key in &keys {
                smallest.push(*key, u32::from(*key) * 2);
                prop_assert!(smallest.rows.len() <= limit);
            }
            prop_assert_eq!(smallest.total(), keys.len() as u64);
            let rows: Vec<_> = smallest.into_rows().collect();
            keys.sort_unstable();
            let expected: Vec<_> = keys.into_iter().take(limit).map(|key| (key, u32::from(key) * 2)).collect();
            prop_assert_eq!(rows, expected);
        }
    }
}
