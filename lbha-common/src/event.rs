//! What the program tells the controller, through the ring buffer.

use crate::addr::Be128;

/// Kinds of [`Event`].
pub mod kind {
    /// A connection waits for a neighbour on a directly connected network.
    pub const RESOLVE: u32 = 1;
    /// The first fragment of a datagram has come, and others of it are held.
    pub const FRAGMENT: u32 = 2;
}

/// Families of [`Event::addr`].
pub mod family {
    pub const IPV4: u32 = 4;
    pub const IPV6: u32 = 6;
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// One of [`kind`].
    pub kind: u32,
    /// One of [`family`].
    pub family: u32,
    /// The neighbour. An IPv4 address is the first word.
    pub addr: Be128,
}

const _: () = assert!(size_of::<Event>() == 24);
