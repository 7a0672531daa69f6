//! Services and the servers behind them, as map entries.

use crate::addr::{Addr, Be16, Be32, Be128};

/// VIP, port and protocol of a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey<A> {
    pub addr: A,
    pub port: Be16,
    pub proto: u8,
    pub _pad: u8,
}

pub type ServiceKey4 = ServiceKey<Be32>;
pub type ServiceKey6 = ServiceKey<Be128>;

impl<A: Addr> ServiceKey<A> {
    #[inline(always)]
    pub const fn new(addr: A, port: Be16, proto: u8) -> Self {
        Self { addr, port, proto, _pad: 0 }
    }
}

/// How the slot of a new connection is found.
pub mod pick {
    /// The service's counter: `rr` and `wrr`, whose slots are interleaved by weight.
    pub const COUNTER: u8 = 0;
    /// [`crate::select::connection_hash`]: `maglev`.
    pub const CONNECTION: u8 = 1;
    /// [`crate::select::source_hash`]: `source`.
    pub const SOURCE: u8 = 2;
}

/// A service. The value is replaced as a whole, never changed in place.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Index of its slot table and of its counter.
    pub id: u16,
    /// One of [`pick`].
    pub pick: u8,
    pub _pad: u8,
    /// Seed of the hashes, from the service's name, so that services do not move in step.
    pub seed: u32,
}

/// Bits of [`Backend::flags`].
pub mod backend_flag {
    /// The entry is in use.
    pub const VALID: u16 = 1 << 0;
    /// Mode `nat`: the client's address is kept.
    pub const KEEP_CLIENT: u16 = 1 << 1;
}

/// A server of one service: two services that share a pool have an entry each, so that counters stay apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend<A> {
    pub addr: A,
    /// Source address of translated connections: the load balancer's own on the private side; unspecified when it has none.
    pub snat: A,
    pub port: Be16,
    pub next_hop: u16,
    /// Source ports of translated connections, host order.
    pub port_first: u16,
    pub port_count: u16,
    pub service: u16,
    /// Bits of [`backend_flag`].
    pub flags: u16,
    pub _pad: u32,
}

pub type Backend4 = Backend<Be32>;
pub type Backend6 = Backend<Be128>;

/// Slot tables: element 0 holds the number of slots, the slots follow. Replaced by swapping the inner map, so that a
/// reader sees one table or the other, never a mix.
pub const SLOT_TABLE_HEADER: u32 = 1;

/// What an address of ours is (values of the `ADDRESSES4` and `ADDRESSES6` maps).
pub mod address {
    /// An address of this host: packets to it that match nothing are the kernel's.
    pub const LOCAL: u32 = 1 << 0;
    /// The VIP of a service.
    pub const VIP: u32 = 1 << 1;
    /// Masqueraded connections leave from it.
    pub const EXTERNAL: u32 = 1 << 2;
}

/// Settings that the program reads for a connection's first packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Side on which servers' packets come in: [`crate::flow::side::PUBLIC`] when there is one interface only.
    pub server_side: u32,
    /// Bits of [`setting`].
    pub flags: u32,
    /// The largest TCP MSS for connections over IPv4, and over IPv6: 0 for no limit but the next hops' MTUs.
    pub mss: [u16; 2],
    pub _pad: u32,
}

/// Bits of [`Settings::flags`].
pub mod setting {
    /// VIPs answer ping.
    pub const PING: u32 = 1 << 0;
    /// The MSS that a SYN announces is lowered to what fits the next hops' MTUs, and to [`super::Settings::mss`].
    pub const CLAMP_MSS: u32 = 1 << 1;
    /// There are rules with endpoint-independent mapping: packets that belong to nothing are looked up in the bindings.
    pub const BINDINGS: u32 = 1 << 2;
}

const _: () = assert!(
    size_of::<ServiceKey4>() == 8
        && size_of::<ServiceKey6>() == 20
        && size_of::<Service>() == 8
        && size_of::<Backend4>() == 24
        && size_of::<Backend6>() == 48
        && size_of::<Settings>() == 16
);
