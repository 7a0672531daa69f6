//! Typed handles on the pinned maps. Whoever needs them opens its own: the kernel is the one place that they share.

use std::path::Path;

use aya::maps::{
    Array, DevMap, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray, RingBuf,
    lpm_trie::LpmTrie, of_maps::ArrayOfMaps,
};
use lbha_common::{
    addr::Be32,
    flow::{Flow4, FlowKey4},
    nexthop::{Interface, NextHop4},
    service::{Backend4, Service, ServiceKey4, Settings},
    stats::{BackendStats, InterfaceStats},
};

use super::pins::map_path;

/// A table of flows: single entries through aya, and the map itself for batches.
pub struct FlowTable {
    pub entries: HashMap<MapData, FlowKey4, Flow4>,
    pub data: MapData,
    /// In entries; a connection takes two.
    pub capacity: u32,
}

/// The tables of confirmed and of half-open connections.
pub struct FlowTables {
    pub flows: FlowTable,
    pub half_open: FlowTable,
}

/// What the controller writes.
pub struct Tables {
    pub services: HashMap<MapData, ServiceKey4, Service>,
    pub servers: HashMap<MapData, ServiceKey4, u32>,
    pub addresses: HashMap<MapData, Be32, u32>,
    pub slots: ArrayOfMaps<MapData, Array<MapData, u32>>,
    pub turns: Array<MapData, u64>,
    pub backends: Array<MapData, Backend4>,
    pub next_hops: Array<MapData, NextHop4>,
    pub routes: LpmTrie<MapData, Be32, u32>,
    pub devices: DevMap<MapData>,
    pub devices_mb: DevMap<MapData>,
    pub interfaces: Array<MapData, Interface>,
    pub settings: Array<MapData, Settings>,
    pub backend_stats: PerCpuArray<MapData, BackendStats>,
}

/// What the controller reads.
pub struct Counters {
    pub interfaces: PerCpuArray<MapData, InterfaceStats>,
    pub backends: PerCpuArray<MapData, BackendStats>,
}

fn open(root: &Path, name: &str) -> Result<Map, MapError> {
    Map::from_map_data(MapData::from_pin(map_path(root, name))?)
}

impl FlowTable {
    fn open(root: &Path, name: &str) -> Result<Self, MapError> {
        let path = map_path(root, name);
        Ok(Self {
            entries: open(root, name)?.try_into()?,
            data: MapData::from_pin(&path)?,
            capacity: MapInfo::from_pin(&path)?.max_entries(),
        })
    }
}

impl FlowTables {
    /// Opens the pins below the directory of a layout version.
    pub fn open(root: &Path) -> Result<Self, MapError> {
        Ok(Self {
            flows: FlowTable::open(root, "FLOWS4")?,
            half_open: FlowTable::open(root, "HALF_OPEN4")?,
        })
    }
}

impl Tables {
    /// Opens the pins below the directory of a layout version.
    pub fn open(root: &Path) -> Result<Self, MapError> {
        Ok(Self {
            services: open(root, "SERVICES4")?.try_into()?,
            servers: open(root, "SERVERS4")?.try_into()?,
            addresses: open(root, "ADDRESSES4")?.try_into()?,
            slots: open(root, "SLOTS")?.try_into()?,
            turns: open(root, "TURNS")?.try_into()?,
            backends: open(root, "BACKENDS4")?.try_into()?,
            next_hops: open(root, "NEXT_HOPS4")?.try_into()?,
            routes: open(root, "ROUTES4")?.try_into()?,
            devices: open(root, "DEVICES")?.try_into()?,
            devices_mb: open(root, "DEVICES_MB")?.try_into()?,
            interfaces: open(root, "INTERFACES")?.try_into()?,
            settings: open(root, "SETTINGS")?.try_into()?,
            backend_stats: open(root, "BACKEND_STATS")?.try_into()?,
        })
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

/// Opens the ring of events.
pub fn events(root: &Path) -> Result<RingBuf<MapData>, MapError> {
    open(root, "EVENTS")?.try_into()
}
