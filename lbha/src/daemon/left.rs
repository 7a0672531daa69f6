//! What a daemon that is no more has left in the kernel.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use lbha_common::flow::{Flow, FlowKey};

use crate::datapath::{
    batch::Walk,
    family::Family,
    pins::{PinError, Pins, lock, remove_version},
    tables::{FlowTable, FlowTables},
};

/// Pins that no daemon holds; the lock is ours while this lives.
pub struct Left {
    pins: Pins,
    links: usize,
    maps: usize,
    connections: usize,
    /// Directories of other layout versions.
    others: Vec<PathBuf>,
}

impl Left {
    /// Looks below a directory. An error if a daemon holds it.
    pub fn find(bpffs: &Path) -> Result<Self, PinError> {
        let pins = Pins::open(bpffs)?;
        let links = pins.links()?.len();
        let maps = pins.pinned_maps();
        let connections = if maps > 0 { count_connections(pins.root()).unwrap_or(0) } else { 0 };
        let others = pins.other_versions();
        Ok(Self { pins, links, maps, connections, others })
    }

    pub fn is_empty(&self) -> bool {
        self.links == 0 && self.maps == 0 && self.others.is_empty()
    }

    pub fn remove(self) -> Result<(), PinError> {
        // The daemon of another version locks its own directory only. All of it goes, or nothing.
        let locks = self.others.iter().map(|other| lock(other)).collect::<Result<Vec<_>, _>>()?;
        for other in &self.others {
            remove_version(other)?;
        }
        drop(locks);
        self.pins.remove_all()
    }
}

fn count_connections(root: &Path) -> anyhow::Result<usize> {
    let tables = FlowTables::open(root)?;
    Ok((entries(&tables.v4.flows)? + entries(&tables.v6.flows)?) / 2)
}

fn entries<A: Family>(table: &FlowTable<A>) -> anyhow::Result<usize> {
    let mut walk = Walk::<FlowKey<A>, Flow<A>>::default();
    let mut entries = 0;
    while let Some(batch) = walk.next_batch(&table.data)? {
        entries += batch.count();
    }
    Ok(entries)
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pins, links, maps, connections, others } = self;
        let root = pins.root().display();
        write!(f, "{root}: {links} links, {maps} maps, {connections} connections")?;
        for other in others {
            write!(f, "\n{}: of another version of lbha", other.display())?;
        }
        Ok(())
    }
}
