//! What differs between IPv4 and IPv6: tables, header layout, reading and rewriting. Everything else is generic over it.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
    programs::XdpContext,
};
use lbha_common::{
    addr::{Addr, Be32, Be128},
    event,
    flow::{Flow, FlowKey, side},
    fragment::{Fragment, FragmentKey},
    limits::{
        MAX_BACKENDS, MAX_BINDINGS, MAX_COUNTED_SOURCES, MAX_FRAGMENTED, MAX_MASQUERADES,
        MAX_NEXT_HOPS, MAX_ROUTES, MAX_SERVICES, MAX_SOURCES,
    },
    masquerade::{Binding, BindingKey, Counted, Rule},
    nexthop::NextHop,
    service::{Backend, Service, ServiceKey},
    tail,
    wire::{IPV4_HEADER, IPV6_HEADER, ethertype},
};

use crate::{
    access::{load, store},
    ipv4, ipv6, maps,
    parse::{Packet, UpperLayer},
    verdict::Verdict,
    workspace::Work,
};

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// Declares the accessor of a table, whose type is the same in both families but for the address.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $table:ty;)+) => {
        $($(#[$doc])* fn $name() -> &'static $table;)+
    };
}

/// Bytes from where an identification begins that are in bounds: IPv6's is that long, and IPv4's has the fragment offset
/// behind it.
pub const FRAGMENT_ID: usize = 4;

/// An address family.
pub trait Family: Sized + 'static {
    type Addr: Addr;

    /// As a raw load from the frame.
    const ETHERTYPE: u16;
    /// Length of the IP header without options or extension headers.
    const HEADER: usize;
    /// Offset of the TTL or hop limit in the IP header.
    const HOP_COUNT: usize;
    /// Offset of the source address in the IP header; the destination address follows it.
    const ADDRESSES: usize;
    /// Index into [`lbha_common::service::Settings::mss`].
    const INDEX: usize;
    /// TCP and IP header without options: the MTU less this is the MSS (RFC 9293 §3.7.1).
    const MSS_HEADERS: u16;
    /// One of [`event::family`].
    const EVENT: u32;
    /// The family's programs, see [`tail`].
    const ANSWER_TAIL: u32;
    const FIRST_TAIL: u32;
    const NOTE_TAIL: u32;
    /// Bytes of a datagram that can be in fragments, all together.
    const MAX_PARTS: u32;
    /// Whether fragments of two protocols are told apart although their identifications are the same (RFC 791 §3.2; not
    /// in RFC 8200 §4.5).
    const FRAGMENTS_BY_PROTOCOL: bool;

    tables! {
        flows: HashMap<FlowKey<Self::Addr>, Flow<Self::Addr>, 2_097_152>;
        half_open: LruHashMap<FlowKey<Self::Addr>, Flow<Self::Addr>, 131_072>;
        services: HashMap<ServiceKey<Self::Addr>, Service, MAX_SERVICES>;
        servers: HashMap<ServiceKey<Self::Addr>, u32, MAX_BACKENDS>;
        addresses: HashMap<Self::Addr, u32, MAX_BACKENDS>;
        backends: Array<Backend<Self::Addr>, MAX_BACKENDS>;
        next_hops: Array<NextHop<Self::Addr>, MAX_NEXT_HOPS>;
        routes: LpmTrie<Self::Addr, u32, MAX_ROUTES>;
        sources: LpmTrie<Self::Addr, u32, MAX_SOURCES>;
        rules: Array<Rule<Self::Addr>, MAX_MASQUERADES>;
        bindings: HashMap<BindingKey<Self::Addr>, Binding<Self::Addr>, MAX_BINDINGS, ON_DEMAND>;
        begun: HashMap<Self::Addr, u64, MAX_COUNTED_SOURCES, ON_DEMAND>;
        counted: HashMap<Self::Addr, Counted, MAX_COUNTED_SOURCES, ON_DEMAND>;
        fragments: LruHashMap<FragmentKey<Self::Addr>, Fragment<Self::Addr>, MAX_FRAGMENTED>;
        error_sources: Array<Self::Addr, { side::COUNT }>;
        workspace: PerCpuArray<Work<Self::Addr>, 1>;
    }

    /// Layers 3 and 4: the tuple, written when the answer is to continue.
    fn tuple<const SIDE: u8>(
        packet: &mut Packet,
        key: &mut MaybeUninit<FlowKey<Self::Addr>>,
    ) -> Verdict;

    /// What must hold before a packet of ours is touched.
    fn lengths<const MULTI_BUFFER: bool>(
        ctx: &XdpContext,
        packet: &Packet,
        protocol: u8,
    ) -> Verdict;

    /// Writes addresses and hop count, and what covers them in the IP header.
    ///
    /// # Safety
    /// The IP header at `l3` is in bounds; `hop_count` is not 0.
    unsafe fn rewrite(l3: usize, hop_count: u8, flow: &Flow<Self::Addr>);

    /// Length of the packet, as its header at `l3` has it, which is in bounds.
    fn total_len(l3: usize) -> u32;

    /// Follows the headers of a packet, of which the IP header at `l3` is in bounds. `None` when they don't lead to an upper
    /// layer's: they can't be read, or it is a fragment but the first.
    fn upper_layer(l3: usize, end: usize) -> Option<UpperLayer>;

    /// # Safety
    /// The IP header at `l3` is in bounds.
    unsafe fn set_hop_count(l3: usize, hop_count: u8);

    /// Writes an ICMP message's IP header, all but addresses and checksum.
    ///
    /// # Safety
    /// An IP header's length at `l3` is in bounds.
    unsafe fn write_header(l3: usize, payload_len: u16, hop_count: u8);

    /// Writes the checksum of a header that is complete otherwise, and has 0 there.
    ///
    /// # Safety
    /// As for [`Self::write_header`].
    unsafe fn write_checksum(l3: usize);

    /// Reads a fragment: where layer 4 or the middle of it begins, its protocol, and what only fragments have.
    fn part(packet: &mut Packet, work: &mut Work<Self::Addr>) -> Verdict;

    /// [`Self::rewrite`] for a fragment other than the first; its identification is written apart.
    ///
    /// # Safety
    /// As for [`Self::rewrite`].
    unsafe fn rewrite_part(l3: usize, hop_count: u8, note: &Fragment<Self::Addr>);

    /// Writes a fragment's identification.
    ///
    /// # Safety
    /// [`FRAGMENT_ID`] bytes at `at` are in bounds.
    unsafe fn store_id(at: usize, id: u32);

    /// A number as an identification, as it stands in a packet.
    fn id(number: u32) -> u32;

    /// Whether the IP header, which ends at `l4` if there is nothing behind it, is as its sender left it.
    fn header_holds(l3: usize, l4: usize) -> bool;

    /// Whether packets to an address never leave their link, or are for many hosts: never ours to translate.
    fn is_scoped(addr: Self::Addr) -> bool;

    /// For [`event::Event::addr`].
    fn widen(addr: Self::Addr) -> Be128;
}

/// What an address of this host or a service is ([`lbha_common::service::address`]); 0 for anybody else's.
#[inline(always)]
pub fn address<F: Family>(addr: F::Addr) -> u32 {
    // SAFETY: the value is only read, and never removed while its address is ours.
    unsafe { F::addresses().get(addr) }.copied().unwrap_or(0)
}

/// Source and destination of an IP packet whose header at `l3` is in bounds.
#[inline(always)]
pub fn addresses<F: Family>(l3: usize) -> (F::Addr, F::Addr) {
    // SAFETY: the caller has checked the header.
    unsafe { (load(l3 + F::ADDRESSES), load(l3 + F::ADDRESSES + size_of::<F::Addr>())) }
}

/// The masquerade rule that applies to a source.
#[inline(always)]
pub fn rule_of<F: Family>(source: F::Addr) -> Option<u32> {
    F::sources().get(&Key::new(F::Addr::BITS, source)).copied()
}

#[inline(always)]
pub fn route<F: Family>(addr: F::Addr) -> Option<u32> {
    F::routes().get(&Key::new(F::Addr::BITS, addr)).copied()
}

pub enum V4 {}
pub enum V6 {}

macro_rules! accessors {
    ($addr:ty; $($name:ident: $map:ident, $table:ty;)+) => {
        $(#[inline(always)]
        fn $name() -> &'static $table {
            &maps::$map
        })+
    };
}

macro_rules! family_tables {
    ($addr:ty, $flows:ident, $half_open:ident, $services:ident, $servers:ident, $addresses:ident, $backends:ident,
     $next_hops:ident, $routes:ident, $sources:ident, $rules:ident, $bindings:ident, $begun:ident, $counted:ident,
     $fragments:ident, $error_sources:ident, $workspace:ident) => {
        accessors! {
            $addr;
            flows: $flows, HashMap<FlowKey<$addr>, Flow<$addr>, 2_097_152>;
            half_open: $half_open, LruHashMap<FlowKey<$addr>, Flow<$addr>, 131_072>;
            services: $services, HashMap<ServiceKey<$addr>, Service, MAX_SERVICES>;
            servers: $servers, HashMap<ServiceKey<$addr>, u32, MAX_BACKENDS>;
            addresses: $addresses, HashMap<$addr, u32, MAX_BACKENDS>;
            backends: $backends, Array<Backend<$addr>, MAX_BACKENDS>;
            next_hops: $next_hops, Array<NextHop<$addr>, MAX_NEXT_HOPS>;
            routes: $routes, LpmTrie<$addr, u32, MAX_ROUTES>;
            sources: $sources, LpmTrie<$addr, u32, MAX_SOURCES>;
            rules: $rules, Array<Rule<$addr>, MAX_MASQUERADES>;
            bindings: $bindings, HashMap<BindingKey<$addr>, Binding<$addr>, MAX_BINDINGS, ON_DEMAND>;
            begun: $begun, HashMap<$addr, u64, MAX_COUNTED_SOURCES, ON_DEMAND>;
            counted: $counted, HashMap<$addr, Counted, MAX_COUNTED_SOURCES, ON_DEMAND>;
            fragments: $fragments, LruHashMap<FragmentKey<$addr>, Fragment<$addr>, MAX_FRAGMENTED>;
            error_sources: $error_sources, Array<$addr, { side::COUNT }>;
            workspace: $workspace, PerCpuArray<Work<$addr>, 1>;
        }
    };
}

impl Family for V4 {
    type Addr = Be32;

    const ETHERTYPE: u16 = ethertype::IPV4;
    const HEADER: usize = IPV4_HEADER;
    const HOP_COUNT: usize = 8;
    const ADDRESSES: usize = 12;
    const INDEX: usize = 0;
    const MSS_HEADERS: u16 = 40;
    const EVENT: u32 = event::family::IPV4;
    const ANSWER_TAIL: u32 = tail::ANSWER4;
    const FIRST_TAIL: u32 = tail::FIRST4;
    const NOTE_TAIL: u32 = tail::NOTE4;
    const MAX_PARTS: u32 = 65_535 - IPV4_HEADER as u32;
    const FRAGMENTS_BY_PROTOCOL: bool = true;

    family_tables!(
        Be32,
        FLOWS4,
        HALF_OPEN4,
        SERVICES4,
        SERVERS4,
        ADDRESSES4,
        BACKENDS4,
        NEXT_HOPS4,
        ROUTES4,
        MASQUERADE4,
        RULES4,
        BINDINGS4,
        BEGUN4,
        COUNTED4,
        FRAGMENTS4,
        ERROR_SOURCES4,
        WORKSPACE4
    );

    #[inline(always)]
    fn tuple<const SIDE: u8>(packet: &mut Packet, key: &mut MaybeUninit<FlowKey<Be32>>) -> Verdict {
        ipv4::tuple::<SIDE>(packet, key)
    }

    #[inline(always)]
    fn lengths<const MULTI_BUFFER: bool>(
        ctx: &XdpContext,
        packet: &Packet,
        protocol: u8,
    ) -> Verdict {
        ipv4::lengths::<MULTI_BUFFER>(ctx, packet, protocol)
    }

    #[inline(always)]
    unsafe fn rewrite(l3: usize, hop_count: u8, flow: &Flow<Be32>) {
        // SAFETY: the caller's.
        unsafe { ipv4::rewrite(l3, hop_count, flow) }
    }

    #[inline(always)]
    fn total_len(l3: usize) -> u32 {
        ipv4::total_len(l3)
    }

    #[inline(always)]
    fn upper_layer(l3: usize, end: usize) -> Option<UpperLayer> {
        ipv4::upper_layer(l3, end)
    }

    #[inline(always)]
    unsafe fn set_hop_count(l3: usize, hop_count: u8) {
        // SAFETY: the caller's.
        unsafe { ipv4::set_hop_count(l3, hop_count) }
    }

    #[inline(always)]
    unsafe fn write_header(l3: usize, payload_len: u16, hop_count: u8) {
        // SAFETY: the caller's.
        unsafe { ipv4::write_header(l3, payload_len, hop_count) }
    }

    #[inline(always)]
    unsafe fn write_checksum(l3: usize) {
        // SAFETY: the caller's.
        unsafe { ipv4::write_checksum(l3) }
    }

    #[inline(always)]
    fn part(packet: &mut Packet, work: &mut Work<Be32>) -> Verdict {
        ipv4::part(packet, work)
    }

    #[inline(always)]
    unsafe fn rewrite_part(l3: usize, hop_count: u8, note: &Fragment<Be32>) {
        // SAFETY: the caller's.
        unsafe { ipv4::rewrite_part(l3, hop_count, note) }
    }

    #[inline(always)]
    unsafe fn store_id(at: usize, id: u32) {
        // SAFETY: the caller's.
        unsafe { store(at, id as u16) }
    }

    #[inline(always)]
    fn id(number: u32) -> u32 {
        u32::from((number as u16).to_be())
    }

    #[inline(always)]
    fn header_holds(l3: usize, l4: usize) -> bool {
        l4 - l3 != IPV4_HEADER || ipv4::header_checksum_holds(l3)
    }

    #[inline(always)]
    fn is_scoped(addr: Be32) -> bool {
        ipv4::is_scoped(addr)
    }

    #[inline(always)]
    fn widen(addr: Be32) -> Be128 {
        Be128::from_raw([addr.raw(), 0, 0, 0])
    }
}

impl Family for V6 {
    type Addr = Be128;

    const ETHERTYPE: u16 = ethertype::IPV6;
    const HEADER: usize = IPV6_HEADER;
    const HOP_COUNT: usize = 7;
    const ADDRESSES: usize = 8;
    const INDEX: usize = 1;
    const MSS_HEADERS: u16 = 60;
    const EVENT: u32 = event::family::IPV6;
    const ANSWER_TAIL: u32 = tail::ANSWER6;
    const FIRST_TAIL: u32 = tail::FIRST6;
    const NOTE_TAIL: u32 = tail::NOTE6;
    const MAX_PARTS: u32 = 65_535;
    const FRAGMENTS_BY_PROTOCOL: bool = false;

    family_tables!(
        Be128,
        FLOWS6,
        HALF_OPEN6,
        SERVICES6,
        SERVERS6,
        ADDRESSES6,
        BACKENDS6,
        NEXT_HOPS6,
        ROUTES6,
        MASQUERADE6,
        RULES6,
        BINDINGS6,
        BEGUN6,
        COUNTED6,
        FRAGMENTS6,
        ERROR_SOURCES6,
        WORKSPACE6
    );

    #[inline(always)]
    fn tuple<const SIDE: u8>(
        packet: &mut Packet,
        key: &mut MaybeUninit<FlowKey<Be128>>,
    ) -> Verdict {
        ipv6::tuple::<SIDE>(packet, key)
    }

    #[inline(always)]
    fn lengths<const MULTI_BUFFER: bool>(
        ctx: &XdpContext,
        packet: &Packet,
        protocol: u8,
    ) -> Verdict {
        ipv6::lengths::<MULTI_BUFFER>(ctx, packet, protocol)
    }

    #[inline(always)]
    unsafe fn rewrite(l3: usize, hop_count: u8, flow: &Flow<Be128>) {
        // SAFETY: the caller's.
        unsafe { ipv6::rewrite(l3, hop_count, flow) }
    }

    #[inline(always)]
    fn total_len(l3: usize) -> u32 {
        ipv6::total_len(l3)
    }

    #[inline(always)]
    fn upper_layer(l3: usize, end: usize) -> Option<UpperLayer> {
        ipv6::upper_layer(l3, end)
    }

    #[inline(always)]
    unsafe fn set_hop_count(l3: usize, hop_count: u8) {
        // SAFETY: the caller's.
        unsafe { ipv6::set_hop_count(l3, hop_count) }
    }

    #[inline(always)]
    unsafe fn write_header(l3: usize, payload_len: u16, hop_count: u8) {
        // SAFETY: the caller's.
        unsafe { ipv6::write_header(l3, payload_len, hop_count) }
    }

    #[inline(always)]
    unsafe fn write_checksum(l3: usize) {
        let _ = l3;
    }

    #[inline(always)]
    fn part(packet: &mut Packet, work: &mut Work<Be128>) -> Verdict {
        ipv6::part(packet, work)
    }

    #[inline(always)]
    unsafe fn rewrite_part(l3: usize, hop_count: u8, note: &Fragment<Be128>) {
        // SAFETY: the caller's.
        unsafe { ipv6::rewrite_part(l3, hop_count, note) }
    }

    #[inline(always)]
    unsafe fn store_id(at: usize, id: u32) {
        // SAFETY: the caller's.
        unsafe { store(at, id) }
    }

    #[inline(always)]
    fn id(number: u32) -> u32 {
        number.to_be()
    }

    #[inline(always)]
    fn header_holds(_l3: usize, _l4: usize) -> bool {
        true
    }

    #[inline(always)]
    fn is_scoped(addr: Be128) -> bool {
        ipv6::is_scoped(addr)
    }

    #[inline(always)]
    fn widen(addr: Be128) -> Be128 {
        addr
    }
}
