//! Every map: who writes it, who reads it, and what happens when it is full.
//!
//! Sizes are the defaults; the controller sets its own at load. All but those at the end are pinned, and their layout is
//! part of the ABI number (`lbha_common::ABI_VERSION`). Each family has its own tables, told apart by the last digit.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_NO_PREALLOC},
    btf_maps::{
        Array, ArrayOfMaps, DevMap, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray,
        RingBuf,
    },
    macros::btf_map,
};
use lbha_common::{
    addr::{Be32, Be128},
    event::Event,
    flow::{Flow4, Flow6, FlowKey4, FlowKey6, side},
    fragment::{Fragment4, Fragment6, FragmentKey4, FragmentKey6},
    limits::{
        MAX_BACKENDS, MAX_BINDINGS, MAX_COUNTED_SOURCES, MAX_FRAGMENTED, MAX_MASQUERADES,
        MAX_NEXT_HOPS, MAX_ROUTES, MAX_SERVICES, MAX_SOURCES,
    },
    masquerade::{Binding4, Binding6, BindingKey4, BindingKey6, Counted, Rule4, Rule6},
    nexthop::{Interface, NextHop4, NextHop6},
    service::{Backend4, Backend6, Service, ServiceKey4, ServiceKey6, Settings},
    stats::{BackendStats, InterfaceStats},
    tail,
};

use crate::{
    limit::Limiter,
    workspace::{Scratch, Work},
};

/// A service's slots; see `lbha_common::service::SLOT_TABLE_HEADER`.
pub type SlotTable = Array<u32, 1, { BPF_F_INNER_MAP as usize }>;

/// For tables that are seldom large: entries are allocated when they are made.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// Confirmed connections, an entry a direction. Written by the program (insert) and the controller (expiry); preallocated
/// and never an LRU, so that no load can evict a live connection: when it is full, new ones are refused.
#[btf_map]
pub static FLOWS4: HashMap<FlowKey4, Flow4, 2_097_152> = HashMap::new();
#[btf_map]
pub static FLOWS6: HashMap<FlowKey6, Flow6, 2_097_152> = HashMap::new();

/// Connections that the client has not confirmed yet. An LRU is right here: a flood evicts other half-open ones only.
#[btf_map]
pub static HALF_OPEN4: LruHashMap<FlowKey4, Flow4, 131_072> = LruHashMap::new();
#[btf_map]
pub static HALF_OPEN6: LruHashMap<FlowKey6, Flow6, 131_072> = LruHashMap::new();

/// Written by the controller.
#[btf_map]
pub static SERVICES4: HashMap<ServiceKey4, Service, MAX_SERVICES> = HashMap::new();
#[btf_map]
pub static SERVICES6: HashMap<ServiceKey6, Service, MAX_SERVICES> = HashMap::new();

/// Address, port and protocol of every server: their packets that belong to no connection must not leave untranslated.
/// Written by the controller.
#[btf_map]
pub static SERVERS4: HashMap<ServiceKey4, u32, MAX_BACKENDS> = HashMap::new();
#[btf_map]
pub static SERVERS6: HashMap<ServiceKey6, u32, MAX_BACKENDS> = HashMap::new();

/// What an address of ours is (`lbha_common::service::address`). Written by the controller.
#[btf_map]
pub static ADDRESSES4: HashMap<Be32, u32, MAX_BACKENDS> = HashMap::new();
#[btf_map]
pub static ADDRESSES6: HashMap<Be128, u32, MAX_BACKENDS> = HashMap::new();

/// Slot tables by service id. The controller swaps the inner map.
#[btf_map]
pub static SLOTS: ArrayOfMaps<SlotTable, MAX_SERVICES> = ArrayOfMaps::new();

/// Connections begun, by service id: the round-robin position. 64 bits never wrap, so the turn is exact for ever.
#[btf_map]
pub static TURNS: Array<u64, MAX_SERVICES> = Array::new();

/// Written by the controller; an index is not given again while a flow refers to it. Indices are common to both families
/// and to masquerade rules, so that counters and flows name each by one number.
#[btf_map]
pub static BACKENDS4: Array<Backend4, MAX_BACKENDS> = Array::new();
#[btf_map]
pub static BACKENDS6: Array<Backend6, MAX_BACKENDS> = Array::new();

/// Kept by the controller from netlink.
#[btf_map]
pub static NEXT_HOPS4: Array<NextHop4, MAX_NEXT_HOPS> = Array::new();
#[btf_map]
pub static NEXT_HOPS6: Array<NextHop6, MAX_NEXT_HOPS> = Array::new();

/// Prefix to next-hop index. Kept by the controller from netlink.
#[btf_map]
pub static ROUTES4: LpmTrie<Be32, u32, MAX_ROUTES> = LpmTrie::new();
#[btf_map]
pub static ROUTES6: LpmTrie<Be128, u32, MAX_ROUTES> = LpmTrie::new();

/// Source prefixes to the index of their masquerade rule. Written by the controller.
#[btf_map]
pub static MASQUERADE4: LpmTrie<Be32, u32, MAX_SOURCES> = LpmTrie::new();
#[btf_map]
pub static MASQUERADE6: LpmTrie<Be128, u32, MAX_SOURCES> = LpmTrie::new();

/// Written by the controller.
#[btf_map]
pub static RULES4: Array<Rule4, MAX_MASQUERADES> = Array::new();
#[btf_map]
pub static RULES6: Array<Rule6, MAX_MASQUERADES> = Array::new();

/// Endpoint-independent bindings, an entry an end. Made by the program, removed by the controller when no connection uses
/// them. When it is full, sources without a binding get none: their packets are dropped as for want of a port.
#[btf_map]
pub static BINDINGS4: HashMap<BindingKey4, Binding4, MAX_BINDINGS, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static BINDINGS6: HashMap<BindingKey6, Binding6, MAX_BINDINGS, ON_DEMAND> = HashMap::new();

/// Connections that each masqueraded source has begun. Written by the program only; when it is full, further sources are
/// not limited.
#[btf_map]
pub static BEGUN4: HashMap<Be32, u64, MAX_COUNTED_SOURCES, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static BEGUN6: HashMap<Be128, u64, MAX_COUNTED_SOURCES, ON_DEMAND> = HashMap::new();

/// What the last sweep has found of each source. Written by the controller only.
#[btf_map]
pub static COUNTED4: HashMap<Be32, Counted, MAX_COUNTED_SOURCES, ON_DEMAND> = HashMap::new();
#[btf_map]
pub static COUNTED6: HashMap<Be128, Counted, MAX_COUNTED_SOURCES, ON_DEMAND> = HashMap::new();

/// Datagrams whose fragments are under way. An LRU: a flood of first fragments evicts the oldest.
#[btf_map]
pub static FRAGMENTS4: LruHashMap<FragmentKey4, Fragment4, MAX_FRAGMENTED> = LruHashMap::new();
#[btf_map]
pub static FRAGMENTS6: LruHashMap<FragmentKey6, Fragment6, MAX_FRAGMENTED> = LruHashMap::new();

/// Fragments that came before the first of their datagram, for the controller to hold. When it is full they are dropped.
#[btf_map]
pub static HELD: RingBuf<u8, 1_048_576> = RingBuf::new();

/// Our own address on each side, which ICMP errors come from; unspecified when there is none. Written by the controller.
#[btf_map]
pub static ERROR_SOURCES4: Array<Be32, { side::COUNT }> = Array::new();
#[btf_map]
pub static ERROR_SOURCES6: Array<Be128, { side::COUNT }> = Array::new();

/// Outgoing interfaces by side. Written by the controller.
#[btf_map]
pub static DEVICES: DevMap<{ side::COUNT }> = DevMap::new();

/// The same for the multi-buffer programs: a device map belongs to programs of one kind (kernel `bpf_prog_map_compatible`).
#[btf_map]
pub static DEVICES_MB: DevMap<{ side::COUNT }> = DevMap::new();

/// Programs that the entry points hand packets to (`lbha_common::tail`). Written by the controller.
#[btf_map]
pub static TAILS: ProgramArray<{ tail::COUNT as usize }> = ProgramArray::new();
/// Likewise, of the multi-buffer kind.
#[btf_map]
pub static TAILS_MB: ProgramArray<{ tail::COUNT as usize }> = ProgramArray::new();

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

/// Where first packets are worked on. Not the stack: the verifier follows every stack slot through every path, and the
/// program comes to more instructions than it accepts; and known connections keep a small stack. Part of the
/// pinned layout, since one program fills it for another.
#[btf_map]
pub static WORKSPACE4: PerCpuArray<Work<Be32>, 1> = PerCpuArray::new();
#[btf_map]
pub static WORKSPACE6: PerCpuArray<Work<Be128>, 1> = PerCpuArray::new();

/// What a program leaves for the one that it hands its packet to, and room for a packet's bytes. Pinned: while programs are
/// replaced, an old one may hand to a new one.
#[btf_map]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// How many ICMP errors may still be sent. Not pinned.
#[btf_map]
pub static LIMITER: PerCpuArray<Limiter, 1> = PerCpuArray::new();
