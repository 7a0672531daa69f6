//! Next hops and interfaces, as map entries.

use crate::addr::{Addr, Be16, Be32, Be128};

/// A VLAN tag as it stands in the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    pub tpid: Be16,
    pub tci: Be16,
}

/// Bits of [`NextHop::flags`].
pub mod next_hop_flag {
    /// The neighbour is resolved.
    pub const VALID: u8 = 1 << 0;
    /// The entry stands for something, resolved or not.
    pub const USED: u8 = 1 << 1;
}

/// Where a translated packet goes. An entry is updated in place when the neighbour's MAC or the route changes, and
/// every flow that refers to it follows. Its 8-byte words are each written at once, so a reader never sees half a
/// MAC address.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop<A: Addr> {
    pub dmac: [u8; 6],
    /// Bits of [`next_hop_flag`].
    pub flags: u8,
    /// VLAN tags to put on: 0, 1 or 2.
    pub tags: u8,
    pub smac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Outermost first.
    pub tag: [Tag; 2],
    /// Key in the device map: the side, see [`crate::flow::side`].
    pub dev: u8,
    /// Together with `prefix`: the route or neighbour that this entry stands for. The program does not read them; a
    /// controller that finds the map pinned does, so that flows keep their indices over a restart.
    pub prefix_len: u8,
    pub _pad: u16,
    pub prefix: A,
    pub _tail: A::Tail,
}

pub type NextHop4 = NextHop<Be32>;
pub type NextHop6 = NextHop<Be128>;

/// Value in the route table for a directly connected prefix whose neighbours have entries of their own.
pub const ON_LINK: u32 = u32::MAX;
/// Index 0 is never valid: a route that leads to no interface of ours.
pub const UNREACHABLE: u32 = 0;

/// What the program must know of the interface that it runs on.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Frames to any other address are not ours.
    pub mac: [u8; 6],
    /// VLAN tags that our frames carry: 0, 1 or 2.
    pub tags: u8,
    pub _pad: u8,
    /// Their VLAN ids (TCI masked with 0x0fff, network order), outermost first.
    pub vlan: [Be16; 2],
    pub _pad2: u32,
}

const _: () = assert!(
    size_of::<NextHop4>() == 32
        && size_of::<NextHop6>() == 48
        && size_of::<Interface>() == 16
        && size_of::<Tag>() == 4
);
