//! Lets the controller read and write the map types as plain bytes.

use crate::{
    addr::Be32,
    event::Event,
    flow::{Flow4, FlowKey4},
    nexthop::{Interface, NextHop},
    service::{Backend, Service, ServiceKey4, Settings},
    stats::{BackendStats, InterfaceStats},
};

macro_rules! pod {
    ($($name:ty),+ $(,)?) => {
        $(
            // SAFETY: `#[repr(C)]` or `#[repr(transparent)]` over integers and arrays of them; the padding is explicit
            // (the sizes are asserted beside the types), so every byte is initialised and every bit pattern is a value.
            unsafe impl aya::Pod for $name {}
        )+
    };
}

pod!(
    Be32,
    Backend,
    BackendStats,
    Event,
    Flow4,
    FlowKey4,
    Interface,
    InterfaceStats,
    NextHop,
    Service,
    ServiceKey4,
    Settings,
);
