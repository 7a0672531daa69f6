//! Datagrams whose fragments are under way: what they refer to, and until when.
//!
//! Their table is an LRU, which forgets the oldest only when it is full. But what an entry refers to is given to others some
//! day, and its identification comes round again; so an entry goes when no fragment can be under way any more.

use std::{collections::HashSet, io, time::Duration};

use lbha_common::fragment::{Fragment, FragmentKey, fate};

use super::has_passed;
use crate::datapath::{apply::FamilyInUse, batch::Walk, family::Family, tables::Table};

/// For so long a host waits for the rest of a datagram (RFC 8200 §4.5; RFC 1122 §3.3.2 has 60 s to 120 s for IPv4).
const TIMEOUT: Duration = Duration::from_secs(60);

pub fn sweep<A: Family>(
    table: &mut Table<FragmentKey<A>, Fragment<A>>,
    in_use: &mut FamilyInUse,
    owners: &mut HashSet<u16>,
) -> io::Result<()> {
    let now = super::now();
    let mut ended = Vec::new();
    let mut walk = Walk::<FragmentKey<A>, Fragment<A>>::default();
    while let Some(batch) = walk.next_batch(&table.data)? {
        for (key, fragment) in batch {
            if has_passed(TIMEOUT, fragment.created, now) {
                ended.push(*key);
            } else if fragment.fate == fate::FORWARD {
                in_use.hops.insert(fragment.next_hop);
                owners.insert(fragment.backend);
            }
        }
    }
    for key in ended {
        // One that was evicted meanwhile is gone as well.
        let _ = table.entries.remove(&key);
    }
    Ok(())
}
