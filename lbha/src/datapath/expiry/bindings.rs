//! Endpoint-independent bindings: which are still in use.
//!
//! A binding has two entries, one an end. The inside end goes first: as long as the outside end stands, its external port
//! can't be given to another source. A connection that takes a binding up in the moment in which it is removed goes on by
//! its own entries; what its source begins next gets another port.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::Duration,
};

use lbha_common::{
    addr::Be16,
    masquerade::{Binding, BindingKey, end},
};

use super::{Externals, has_passed, usage::Usage};
use crate::datapath::{batch::Walk, family::Family, tables::Table};

type Bound<A> = Table<BindingKey<A>, Binding<A>>;

/// As many as the program's table has room for.
#[derive(Debug)]
pub struct Bindings<A> {
    /// By the key of the inside end.
    inside: HashMap<BindingKey<A>, (Binding<A>, Used)>,
    /// By the key of the outside end.
    outside: HashMap<BindingKey<A>, Binding<A>>,
}

type Used = bool;

impl<A: Family> Bindings<A> {
    /// All bindings. Those with an external address that is none of ours any more are removed at once.
    pub fn read(table: &mut Bound<A>, externals: &Externals) -> io::Result<Self> {
        let (mut inside, mut outside) = (HashMap::new(), HashMap::new());
        let mut walk = Walk::<BindingKey<A>, Binding<A>>::default();
        while let Some(batch) = walk.next_batch(&table.data)? {
            for (key, binding) in batch {
                if key.end == end::INSIDE {
                    inside.insert(*key, (*binding, false));
                } else {
                    outside.insert(*key, *binding);
                }
            }
        }
        let externals: HashSet<A> = externals.of();
        inside.retain(|key, (binding, _): &mut (Binding<A>, Used)| {
            let ours = externals.contains(&binding.addr);
            if !ours {
                // What is gone already is what was wanted, here and below.
                let _ = table.entries.remove(key);
            }
            ours
        });
        outside.retain(|key, _| {
            let ours = externals.contains(&key.addr);
            if !ours {
                let _ = table.entries.remove(key);
            }
            ours
        });
        Ok(Self { inside, outside })
    }

    /// Indices of the rules that bindings refer to.
    pub fn rules(&self) -> HashSet<u16> {
        let inside = self.inside.values().map(|(binding, _)| binding.rule);
        inside.chain(self.outside.values().map(|binding| binding.rule)).collect()
    }

    /// A connection between a private host's address and port and what stands for them outside.
    pub fn saw(&mut self, (addr, port): (A, Be16), outside: (A, Be16), protocol: u8) {
        if self.inside.is_empty() {
            return;
        }
        if let Some((binding, used)) =
            self.inside.get_mut(&BindingKey::new(addr, port, protocol, end::INSIDE))
            && (binding.addr, binding.port) == outside
        {
            *used = true;
        }
    }

    /// Removes what no connection uses and is older than the timeout, and ends that have lost their other one.
    pub fn finish(self, table: &mut Bound<A>, timeout: Duration, now: u32, usage: &mut Usage<A>) {
        let Self { inside, mut outside } = self;
        for (key, (binding, used)) in inside {
            let other = BindingKey::new(binding.addr, binding.port, key.proto, end::OUTSIDE);
            if used || !has_passed(timeout, binding.created, now) {
                usage.saw_binding(binding.addr, key.proto);
                outside.remove(&other);
            } else {
                let _ = table.entries.remove(&key);
            }
        }
        for (key, binding) in outside {
            let other = BindingKey::new(binding.addr, binding.port, key.proto, end::INSIDE);
            let points_here =
                |inside: Binding<A>| (inside.addr, inside.port) == (key.addr, key.port);
            // An inside end that the walk has missed is there all the same.
            if has_passed(timeout, binding.created, now)
                && !table.entries.get(&other, 0).is_ok_and(points_here)
            {
                let _ = table.entries.remove(&key);
            }
        }
    }
}
