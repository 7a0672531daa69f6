//! Goes through a hash map in batches, so that a million entries cost some hundred system calls and no stall.

use std::{io, os::fd::AsFd};

use aya::maps::MapData;

use super::sys;

/// Elements a batch. Large enough that the call's cost vanishes, small enough to be done in well under a millisecond.
pub const BATCH: usize = 4096;

/// A walk through a map. Elements that come or go meanwhile may be missed or seen twice.
#[derive(Debug)]
pub struct Walk<K, V> {
    cursor: Option<sys::Cursor>,
    done: bool,
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: aya::Pod + Default, V: aya::Pod + Default> Default for Walk<K, V> {
    fn default() -> Self {
        Self {
            cursor: None,
            done: false,
            keys: vec![K::default(); BATCH],
            values: vec![V::default(); BATCH],
        }
    }
}

impl<K: aya::Pod, V: aya::Pod> Walk<K, V> {
    /// The next batch, or `None` at the end.
    pub fn next_batch<'a>(
        &'a mut self,
        map: &MapData,
    ) -> io::Result<Option<impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V>>> {
        if self.done {
            return Ok(None);
        }
        let fd = map.fd().as_fd();
        let (count, next) = loop {
            match sys::lookup_batch(fd, self.cursor, &mut self.keys, &mut self.values) {
                // a bucket with more elements than the batch has room for
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOSPC) && self.keys.len() < 1 << 22 =>
                {
                    let (key, value) = (self.keys[0], self.values[0]);
                    self.keys.resize(self.keys.len() * 2, key);
                    self.values.resize(self.values.len() * 2, value);
                }
                other => break other?,
            }
        };
        self.cursor = next;
        self.done = next.is_none();
        Ok(Some(self.keys[..count].iter().zip(&self.values[..count])))
    }
}

/// Inserts elements in batches.
pub fn insert<K: aya::Pod, V: aya::Pod>(map: &MapData, keys: &[K], values: &[V]) -> io::Result<()> {
    for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
        sys::update_batch(map.fd().as_fd(), keys, values).map_err(|(_, error)| error)?;
    }
    Ok(())
}
