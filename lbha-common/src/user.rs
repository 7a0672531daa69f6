//! Lets the controller read and write the map types as plain bytes.

use crate::{
    addr::{Be32, Be128},
    event::Event,
    flow::{Flow4, Flow6, FlowKey4, FlowKey6},
    fragment::{Fragment4, Fragment6, FragmentKey4, FragmentKey6},
    masquerade::{Binding4, Binding6, BindingKey4, BindingKey6, Counted, Rule4, Rule6},
    nexthop::{Interface, NextHop4, NextHop6},
    service::{Backend4, Backend6, Service, ServiceKey4, ServiceKey6, Settings},
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
    Backend4,
    Backend6,
    BackendStats,
    Be128,
    Be32,
    Binding4,
    Binding6,
    BindingKey4,
    BindingKey6,
    Counted,
    Event,
    Flow4,
    Flow6,
    FlowKey4,
    FlowKey6,
    Fragment4,
    Fragment6,
    FragmentKey4,
    FragmentKey6,
    Interface,
    InterfaceStats,
    NextHop4,
    NextHop6,
    Rule4,
    Rule6,
    Service,
    ServiceKey4,
    ServiceKey6,
    Settings,
);
