//! Masquerade (source NAT) as map entries: rules, bindings, quotas.

use crate::addr::{Addr, Be16, Be32, Be128};

/// External addresses of one rule. A power of two: the program masks an index with it.
pub const MAX_ADDRESSES: usize = 8;

/// Bits of [`Rule::flags`].
pub mod rule_flag {
    /// The entry is in use.
    pub const VALID: u16 = 1 << 0;
    /// One external port serves all remote hosts (RFC 4787 REQ-1 and REQ-8): the rule keeps bindings.
    pub const ENDPOINT_INDEPENDENT: u16 = 1 << 1;
}

/// Where connections from the sources that lead here get their external address and port. Replaced as a whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule<A> {
    /// External addresses; a source always gets the same one (RFC 4787 REQ-2).
    pub addresses: [A; MAX_ADDRESSES],
    /// How many of them there are; 0 while the interface has none.
    pub count: u16,
    /// Index of the rule's counters, see [`crate::flow::Flow::backend`].
    pub owner: u16,
    /// External ports, host order.
    pub port_first: u16,
    pub port_count: u16,
    /// Connections, with a port each, that one source may have.
    pub max_ports: u32,
    /// Bits of [`rule_flag`].
    pub flags: u16,
    pub _pad: u16,
}

pub type Rule4 = Rule<Be32>;
pub type Rule6 = Rule<Be128>;

/// Which end of a binding a key names.
pub mod end {
    /// The private host's address and port.
    pub const INSIDE: u8 = 0;
    /// The external address and port.
    pub const OUTSIDE: u8 = 1;
}

/// One end of an endpoint-independent binding. Each binding has two entries, one an end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BindingKey<A> {
    pub addr: A,
    pub port: Be16,
    pub proto: u8,
    /// One of [`end`].
    pub end: u8,
}

pub type BindingKey4 = BindingKey<Be32>;
pub type BindingKey6 = BindingKey<Be128>;

/// The other end of a binding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding<A> {
    pub addr: A,
    pub port: Be16,
    /// Index of the rule.
    pub rule: u16,
    /// When it was made, in ticks.
    pub created: u32,
}

pub type Binding4 = Binding<Be32>;
pub type Binding6 = Binding<Be128>;

/// Connections of a source as the last sweep found them. Together with the program's own count of those begun since, which
/// it alone writes, this bounds what a source has without anybody having to count down.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Connections that the source had begun when the sweep started.
    pub begun: u64,
    /// Connections that the sweep found.
    pub alive: u32,
    pub _pad: u32,
}

/// Whether a source that has begun `begun` connections in all may begin another.
#[inline(always)]
pub const fn within_quota(begun: u64, counted: Counted, max: u32) -> bool {
    let since = begun.saturating_sub(counted.begun);
    since.saturating_add(counted.alive as u64) < max as u64
}

const _: () = assert!(
    size_of::<Rule4>() == 48
        && size_of::<Rule6>() == 144
        && size_of::<BindingKey4>() == 8
        && size_of::<BindingKey6>() == 20
        && size_of::<Binding4>() == 12
        && size_of::<Binding6>() == 24
        && size_of::<Counted>() == 16
        && MAX_ADDRESSES.is_power_of_two()
);

impl<A: Addr> BindingKey<A> {
    #[inline(always)]
    pub const fn new(addr: A, port: Be16, proto: u8, end: u8) -> Self {
        Self { addr, port, proto, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_counts_what_the_sweep_found_and_what_began_since() {
        let counted = Counted { begun: 100, alive: 7, _pad: 0 };
        assert!(within_quota(100, counted, 8));
        assert!(!within_quota(101, counted, 8));
        assert!(within_quota(90, counted, 8), "a counter that was lost and began anew");
        assert!(!within_quota(u64::MAX, Counted::default(), u32::MAX));
    }
}
