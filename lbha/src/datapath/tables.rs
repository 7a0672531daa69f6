//! Typed handles on the pinned maps. Whoever needs them opens its own: the kernel is the one place that they share.

use std::path::Path;

use aya::maps::{
    Array, DevMap, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray, RingBuf,
    lpm_trie::LpmTrie, of_maps::ArrayOfMaps,
};
use lbha_common::{
    addr::{Be32, Be128},
    event,
    flow::{Flow, FlowKey},
    fragment::{Fragment, FragmentKey, FragmentKey6},
    masquerade::{Binding, BindingKey, Counted, Rule},
    nexthop::{Interface, NextHop},
    service::{Backend, Service, ServiceKey, Settings},
    stats::{BackendStats, InterfaceStats},
};

use super::{batch::Walk, family::Family, pins::map_path};

/// A hash table: single entries through aya, and the map itself for batches.
pub struct Table<K, V> {
    pub entries: HashMap<MapData, K, V>,
    pub data: MapData,
    /// In entries.
    pub capacity: u32,
}

/// A large array: single entries through aya, and the map itself for batches.
pub struct List<V: aya::Pod> {
    pub entries: Array<MapData, V>,
    data: MapData,
}

/// A table of flows; a connection takes two entries.
pub type FlowTable<A> = Table<FlowKey<A>, Flow<A>>;

/// What comes and goes with the connections of one family.
pub struct FamilyFlows<A: Family> {
    /// Confirmed connections.
    pub flows: FlowTable<A>,
    pub half_open: FlowTable<A>,
    pub bindings: Table<BindingKey<A>, Binding<A>>,
    pub begun: Table<A, u64>,
    pub counted: Table<A, Counted>,
    pub fragments: Table<FragmentKey<A>, Fragment<A>>,
}

/// What comes and goes with connections.
pub struct FlowTables {
    pub v4: FamilyFlows<Be32>,
    pub v6: FamilyFlows<Be128>,
}

/// What the controller writes for one family.
pub struct FamilyTables<A: Family> {
    pub services: HashMap<MapData, ServiceKey<A>, Service>,
    pub servers: HashMap<MapData, ServiceKey<A>, u32>,
    pub addresses: HashMap<MapData, A, u32>,
    pub backends: List<Backend<A>>,
    pub next_hops: List<NextHop<A>>,
    pub routes: LpmTrie<MapData, A, u32>,
    pub masquerade: LpmTrie<MapData, A, u32>,
    pub rules: Array<MapData, Rule<A>>,
    pub error_sources: Array<MapData, A>,
}

/// What the controller writes for both families together.
pub struct CommonTables {
    pub slots: ArrayOfMaps<MapData, Array<MapData, u32>>,
    pub turns: Array<MapData, u64>,
    pub devices: DevMap<MapData>,
    pub devices_mb: DevMap<MapData>,
    pub interfaces: Array<MapData, Interface>,
    pub settings: Array<MapData, Settings>,
    pub backend_stats: PerCpuArray<MapData, BackendStats>,
}

/// What became of the first fragments of datagrams, by family.
pub struct Notes {
    v4: HashMap<MapData, FragmentKey<Be32>, Fragment<Be32>>,
    v6: HashMap<MapData, FragmentKey<Be128>, Fragment<Be128>>,
}

/// What the controller reads.
pub struct Counters {
    pub interfaces: PerCpuArray<MapData, InterfaceStats>,
    pub backends: PerCpuArray<MapData, BackendStats>,
}

fn open(root: &Path, name: &str) -> Result<Map, MapError> {
    Map::from_map_data(MapData::from_pin(map_path(root, name))?)
}

/// A map of which each family has one.
fn open_of<A: Family>(root: &Path, name: &str) -> Result<Map, MapError> {
    open(root, &format!("{name}{}", A::VERSION))
}

impl<K: aya::Pod, V: aya::Pod> Table<K, V> {
    fn open<A: Family>(root: &Path, name: &str) -> Result<Self, MapError> {
        let path = map_path(root, &format!("{name}{}", A::VERSION));
        Ok(Self {
            entries: open_of::<A>(root, name)?.try_into()?,
            data: MapData::from_pin(&path)?,
            capacity: MapInfo::from_pin(&path)?.max_entries(),
        })
    }
}

impl<V: aya::Pod + Default> List<V> {
    fn open<A: Family>(root: &Path, name: &str) -> Result<Self, MapError> {
        let data = MapData::from_pin(map_path(root, &format!("{name}{}", A::VERSION)))?;
        Ok(Self { entries: open_of::<A>(root, name)?.try_into()?, data })
    }

    /// All entries that `wanted` says yes to, with their indices.
    pub fn all(&self, wanted: impl Fn(&V) -> bool) -> Result<Vec<(u32, V)>, MapError> {
        let mut all = Vec::new();
        let mut walk = Walk::<u32, V>::default();
        while let Some(batch) = walk.next_batch(&self.data)? {
            all.extend(batch.filter(|(_, v)| wanted(v)).map(|(index, value)| (*index, *value)));
        }
        Ok(all)
    }
}

impl<A: Family> FamilyFlows<A> {
    fn open(root: &Path) -> Result<Self, MapError> {
        Ok(Self {
            flows: Table::open::<A>(root, "FLOWS")?,
            half_open: Table::open::<A>(root, "HALF_OPEN")?,
            bindings: Table::open::<A>(root, "BINDINGS")?,
            begun: Table::open::<A>(root, "BEGUN")?,
            counted: Table::open::<A>(root, "COUNTED")?,
            fragments: Table::open::<A>(root, "FRAGMENTS")?,
        })
    }
}

impl FlowTables {
    /// Opens the pins below the directory of a layout version.
    pub fn open(root: &Path) -> Result<Self, MapError> {
        Ok(Self { v4: FamilyFlows::open(root)?, v6: FamilyFlows::open(root)? })
    }
}

impl<A: Family> FamilyTables<A> {
    /// Opens the pins below the directory of a layout version.
    pub fn open(root: &Path) -> Result<Self, MapError> {
        Ok(Self {
            services: open_of::<A>(root, "SERVICES")?.try_into()?,
            servers: open_of::<A>(root, "SERVERS")?.try_into()?,
            addresses: open_of::<A>(root, "ADDRESSES")?.try_into()?,
            backends: List::open::<A>(root, "BACKENDS")?,
            next_hops: List::open::<A>(root, "NEXT_HOPS")?,
            routes: open_of::<A>(root, "ROUTES")?.try_into()?,
            masquerade: open_of::<A>(root, "MASQUERADE")?.try_into()?,
            rules: open_of::<A>(root, "RULES")?.try_into()?,
            error_sources: open_of::<A>(root, "ERROR_SOURCES")?.try_into()?,
        })
    }
}

impl CommonTables {
    /// Opens the pins below the directory of a layout version.
    pub fn open(root: &Path) -> Result<Self, MapError> {
        Ok(Self {
            slots: open(root, "SLOTS")?.try_into()?,
            turns: open(root, "TURNS")?.try_into()?,
            devices: open(root, "DEVICES")?.try_into()?,
            devices_mb: open(root, "DEVICES_MB")?.try_into()?,
            interfaces: open(root, "INTERFACES")?.try_into()?,
            settings: open(root, "SETTINGS")?.try_into()?,
            backend_stats: open(root, "BACKEND_STATS")?.try_into()?,
        })
    }
}

impl Notes {
    /// Opens the pins below the directory of a layout version.
    pub fn open(root: &Path) -> Result<Self, MapError> {
        Ok(Self {
            v4: open_of::<Be32>(root, "FRAGMENTS")?.try_into()?,
            v6: open_of::<Be128>(root, "FRAGMENTS")?.try_into()?,
        })
    }

    /// One of [`lbha_common::fragment::fate`], for a datagram of [`lbha_common::event::family`]; `None` when nothing is
    /// known.
    pub fn fate(&self, family: u32, key: &FragmentKey6) -> Result<Option<u8>, MapError> {
        let fate = if family == event::family::IPV4 {
            let addr = |addr: Be128| Be32::from_raw(addr.raw()[0]);
            let FragmentKey { saddr, daddr, id, proto, side, _pad } = *key;
            let key = FragmentKey { saddr: addr(saddr), daddr: addr(daddr), id, proto, side, _pad };
            self.v4.get(&key, 0).map(|note| note.fate)
        } else {
            self.v6.get(key, 0).map(|note| note.fate)
        };
        match fate {
            Ok(fate) => Ok(Some(fate)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Counters {
    /// Opens the pins below the directory of a layout version.
    pub fn open(root: &Path) -> Result<Self, MapError> {
        Ok(Self {
            interfaces: open(root, "INTERFACE_STATS")?.try_into()?,
            backends: open(root, "BACKEND_STATS")?.try_into()?,
        })
    }
}

/// Opens the ring of held fragments.
pub fn held(root: &Path) -> Result<RingBuf<MapData>, MapError> {
    open(root, "HELD")?.try_into()
}

/// Opens the ring of events.
pub fn events(root: &Path) -> Result<RingBuf<MapData>, MapError> {
    open(root, "EVENTS")?.try_into()
}
