//! How many connections each masqueraded source has, so that the program can hold it to its share.
//!
//! The program counts the connections that a source begins (`BEGUN`), the sweep those that it finds (`COUNTED`, with the
//! program's count of before it started): together they say how many there are, at any time and without anybody having to
//! count down. What begins while the sweep is under way may be counted by both, until the next one: too many rather than
//! too few.
//!
//! A source without connections is forgotten when its count has not moved for a whole sweep, and stands still when it is
//! looked at once more. What remains is a packet that finds the program's counter in that very moment: its connection is
//! counted in an entry that is removed. Its source may then have one connection more than its share, until the next
//! sweep that finds an entry for it, and that one counts right again. Forgetting the program's count before our own means
//! that the source is never taken for one that has begun all connections of its life just now.

use std::{collections::HashMap, io};

use lbha_common::masquerade::Counted;

use super::usage::Source;
use crate::datapath::{
    batch::{self, Walk},
    family::Family,
    tables::{FamilyFlows, Table},
};

/// Sources and what was found of them. As many as the program's table has room for: the others are not held to a share.
#[derive(Debug)]
pub struct Sources<A>(HashMap<A, Counted>);

impl<A: Family> Sources<A> {
    /// What the program has counted so far.
    pub fn read(begun: &Table<A, u64>) -> io::Result<Self> {
        let begun = all(begun)?.into_iter();
        Ok(Self(
            begun.map(|(source, begun)| (source, Counted { begun, alive: 0, _pad: 0 })).collect(),
        ))
    }

    /// A connection.
    pub fn saw(&mut self, source: A) {
        if let Some(counted) = self.0.get_mut(&source) {
            counted.alive += 1;
        }
    }

    /// Those with the most connections, in order.
    pub fn largest(&self, at_most: usize) -> Vec<Source> {
        let with_some = self.0.iter().filter(|(_, counted)| counted.alive > 0);
        let mut sources: Vec<Source> = with_some
            .map(|(source, counted)| Source { address: source.ip(), connections: counted.alive })
            .collect();
        let order = |source: &Source| (std::cmp::Reverse(source.connections), source.address);
        if sources.len() > at_most {
            sources.select_nth_unstable_by_key(at_most, order);
            sources.truncate(at_most);
        }
        sources.sort_by_key(order);
        sources
    }

    /// Writes what was found, and forgets sources that have gone.
    pub fn finish(self, tables: &mut FamilyFlows<A>) -> io::Result<()> {
        let mut before = all(&tables.counted)?;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (source, counted) in self.0 {
            let last = before.remove(&source);
            if counted.alive == 0 && last == Some(counted) {
                // Removing what is gone already is what was wanted.
                if tables.begun.entries.get(&source, 0).is_ok_and(|begun| begun == counted.begun) {
                    let _ = tables.begun.entries.remove(&source);
                    let _ = tables.counted.entries.remove(&source);
                }
            } else if last != Some(counted) {
                keys.push(source);
                values.push(counted);
            }
        }
        // Of sources whose count is gone, or began anew after the start of this sweep.
        for source in before.keys() {
            let _ = tables.counted.entries.remove(source);
        }
        batch::insert(&tables.counted.data, &keys, &values)
    }
}

fn all<A: Family, V: aya::Pod + Default>(table: &Table<A, V>) -> io::Result<HashMap<A, V>> {
    let mut all = HashMap::new();
    let mut walk = Walk::<A, V>::default();
    while let Some(batch) = walk.next_batch(&table.data)? {
        all.extend(batch.map(|(key, value)| (*key, *value)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use lbha_common::addr::Be32;

    use super::*;

    #[test]
    fn the_largest_sources_come_first() {
        let mut sources = Sources(HashMap::new());
        for n in 1..=5u32 {
            sources.0.insert(Be32::new(n), Counted::default());
            for _ in 0..n % 4 {
                sources.saw(Be32::new(n));
            }
        }
        sources.saw(Be32::new(99));
        let rows = |at_most| {
            let rows = sources.largest(at_most).into_iter();
            rows.map(|row| (row.address.to_string(), row.connections)).collect::<Vec<_>>()
        };
        let expected = [("0.0.0.3", 3), ("0.0.0.2", 2), ("0.0.0.1", 1), ("0.0.0.5", 1)]
            .map(|(a, n)| (a.to_owned(), n));
        assert_eq!(rows(10), expected, "4 has none, 99 is not counted");
        assert_eq!(rows(2), expected[..2]);
    }
}
