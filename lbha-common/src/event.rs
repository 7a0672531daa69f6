//! What the program tells the controller, through the ring buffer.

use crate::addr::Be32;

/// Kinds of [`Event`].
pub mod kind {
    /// A connection waits for a neighbour on a directly connected network.
    pub const RESOLVE: u32 = 1;
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// One of [`kind`].
    pub kind: u32,
    /// The neighbour.
    pub addr: Be32,
}

const _: () = assert!(size_of::<Event>() == 8);
