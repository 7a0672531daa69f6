//! Routes and next hops of a connection's first packet.

use lbha_common::{
    counter::Counter,
    event::{self, Event},
    nexthop::{NextHop, ON_LINK, UNREACHABLE, next_hop_flag},
};

use crate::{
    family::{self, Family},
    maps::{EVENTS, SCRATCH},
    verdict::{CONTINUE, Verdict, stop},
};

/// The next hop towards an address, resolved or not.
#[inline(always)]
pub fn towards<F: Family>(addr: F::Addr) -> (u32, Verdict) {
    match family::route::<F>(addr) {
        None | Some(UNREACHABLE) => (0, stop(Counter::DropNoRoute)),
        Some(ON_LINK) => {
            let event =
                Event { kind: event::kind::RESOLVE, family: F::EVENT, addr: F::widen(addr) };
            let _ = EVENTS.output(event, 0);
            (0, stop(Counter::DropUnresolved))
        }
        Some(id) => (id, CONTINUE),
    }
}

/// The next hop of the direction back to whoever has sent a packet. It must lead out of the side that the packet came in
/// on (RFC 3704 §2.2): a forged source must not have lbha send into the servers' network, nor out of it.
#[inline(always)]
pub fn back<F: Family>(addr: F::Addr, from: u8) -> (u32, Verdict) {
    let (id, verdict) = towards::<F>(addr);
    if verdict != CONTINUE {
        return (0, verdict);
    }
    match F::next_hops().get(id) {
        Some(hop) if hop.dev != from => (0, stop(Counter::DropWrongSide)),
        Some(hop) if is_valid::<F>(hop) => (id, CONTINUE),
        _ => (0, stop(Counter::DropUnresolved)),
    }
}

#[inline(always)]
pub fn is_valid<F: Family>(hop: &NextHop<F::Addr>) -> bool {
    hop.flags & next_hop_flag::VALID != 0
}

/// Whether a packet of this length can be sent to a next hop.
#[inline(always)]
pub fn check<F: Family>(id: u32, total_len: u32) -> Verdict {
    let Some(hop) = F::next_hops().get(id) else {
        return stop(Counter::DropUnresolved);
    };
    if !is_valid::<F>(hop) {
        return stop(Counter::DropUnresolved);
    }
    if total_len > u32::from(hop.mtu) {
        return too_big(hop.mtu);
    }
    CONTINUE
}

/// The verdict on a packet that is larger than what its next hop takes.
#[inline(always)]
pub fn too_big(mtu: u16) -> Verdict {
    if let Some(scratch) = SCRATCH.get_ptr_mut(0) {
        // SAFETY: a per-CPU slot, and XDP programs do not nest.
        unsafe { (*scratch).mtu = mtu.into() };
    }
    stop(Counter::DropTooBig)
}
