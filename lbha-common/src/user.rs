//! Lets the controller read and write the map types as plain bytes.

use crate::{
    addr::{Addr, Be32, Be128},
    event::Event,
    flow::{Flow, FlowKey},
    fragment::{Fragment, FragmentKey},
    masquerade::{Binding, BindingKey, Counted, Rule},
    nexthop::{Interface, NextHop},
    service::{Backend, Service, ServiceKey, Settings},
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

macro_rules! pod_of_either_family {
    ($($name:ident),+ $(,)?) => {
        $(
            // SAFETY: as above, for both of the types that are an `Addr`: it is sealed.
            unsafe impl<A: Addr> aya::Pod for $name<A> {}
        )+
    };
}

pod!(Be128, Be32, BackendStats, Counted, Event, Interface, InterfaceStats, Service, Settings,);
pod_of_either_family!(
    Backend,
    Binding,
    BindingKey,
    Flow,
    FlowKey,
    Fragment,
    FragmentKey,
    NextHop,
    Rule,
    ServiceKey,
);
