//! Every map: who writes it, who reads it, and what happens when it is full.
//!
//! Sizes are the defaults; the controller sets its own at load. All are pinned, and their layout is part of the ABI
//! number (`lbha_common::ABI_VERSION`).

use aya_ebpf::{
    bindings::BPF_F_INNER_MAP,
    btf_maps::{Array, ArrayOfMaps, DevMap, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use lbha_common::{
    addr::Be32,
    event::Event,
    flow::{Flow4, FlowKey4, side},
    limits::{MAX_BACKENDS, MAX_NEXT_HOPS, MAX_ROUTES, MAX_SERVICES},
    nexthop::{Interface, NextHop4},
    service::{Backend4, Service, ServiceKey4, Settings},
    stats::{BackendStats, InterfaceStats},
};

use crate::open::First;

/// A service's slots; see `lbha_common::service::SLOT_TABLE_HEADER`.
pub type SlotTable = Array<u32, 1, { BPF_F_INNER_MAP as usize }>;

/// Confirmed connections, an entry a direction. Written by the program (insert) and the controller (expiry); preallocated
/// and never an LRU, so that no load can evict a live connection: when it is full, new ones are refused.
#[btf_map]
pub static FLOWS4: HashMap<FlowKey4, Flow4, 2_097_152> = HashMap::new();

/// Connections that the client has not confirmed yet. An LRU is right here: a flood evicts other half-open ones only.
#[btf_map]
pub static HALF_OPEN4: LruHashMap<FlowKey4, Flow4, 131_072> = LruHashMap::new();

/// Written by the controller.
#[btf_map]
pub static SERVICES4: HashMap<ServiceKey4, Service, MAX_SERVICES> = HashMap::new();

/// Address, port and protocol of every server: their packets that belong to no connection must not leave untranslated.
/// Written by the controller.
#[btf_map]
pub static SERVERS4: HashMap<ServiceKey4, u32, MAX_BACKENDS> = HashMap::new();

/// What an address of this host is. Written by the controller.
#[btf_map]
pub static ADDRESSES4: HashMap<Be32, u32, MAX_BACKENDS> = HashMap::new();

/// Slot tables by service id. The controller swaps the inner map.
#[btf_map]
pub static SLOTS: ArrayOfMaps<SlotTable, MAX_SERVICES> = ArrayOfMaps::new();

/// Connections begun, by service id: the round-robin position. 64 bits never wrap, so the turn is exact for ever.
#[btf_map]
pub static TURNS: Array<u64, MAX_SERVICES> = Array::new();

/// Written by the controller; an index is not given again while a flow refers to it.
#[btf_map]
pub static BACKENDS: Array<Backend4, MAX_BACKENDS> = Array::new();

/// Kept by the controller from netlink.
#[btf_map]
pub static NEXT_HOPS: Array<NextHop4, MAX_NEXT_HOPS> = Array::new();

/// Routes to clients: prefix to next-hop index. Kept by the controller from netlink.
#[btf_map]
pub static ROUTES4: LpmTrie<Be32, u32, MAX_ROUTES> = LpmTrie::new();

/// Outgoing interfaces by side. Written by the controller.
#[btf_map]
pub static DEVICES: DevMap<{ side::COUNT }> = DevMap::new();

/// The same for the multi-buffer programs: a device map belongs to programs of one kind (kernel `bpf_prog_map_compatible`).
#[btf_map]
pub static DEVICES_MB: DevMap<{ side::COUNT }> = DevMap::new();

/// Own MAC address and VLAN by side. Written by the controller.
#[btf_map]
pub static INTERFACES: Array<Interface, { side::COUNT }> = Array::new();

#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// Verdicts by side.
#[btf_map]
pub static INTERFACE_STATS: PerCpuArray<InterfaceStats, { side::COUNT }> = PerCpuArray::new();

#[btf_map]
pub static BACKEND_STATS: PerCpuArray<BackendStats, MAX_BACKENDS> = PerCpuArray::new();

/// To the controller. When it is full, events are lost and the next packet tells the same.
#[btf_map]
pub static EVENTS: RingBuf<Event, 65536> = RingBuf::new();

/// Where `open` and `half_open` work on a packet. Not the stack: the verifier follows every stack slot through every path,
/// and the program comes to more instructions than it accepts; and known connections keep a small stack.
#[btf_map]
pub static WORKSPACE: PerCpuArray<First, 1> = PerCpuArray::new();
