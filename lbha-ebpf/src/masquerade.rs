//! Masquerade: a connection that a private host opens gets an external address and port (source NAT).
//!
//! Its entries go to the flow table at once, marked as opening: the host is one of ours, so what a flood from the internet
//! does to the half-open table is not its concern, and a quota bounds what it can take. The external tuple is claimed by
//! inserting the other direction, so that two CPUs can't give it twice. Where there is no port, no route or no address the
//! packet is dropped: whatever comes from a masqueraded source leaves translated or not at all.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{bpf_get_prandom_u32, bpf_loop},
};
use lbha_common::{
    addr::Be16,
    conntrack::{self, state},
    counter::Counter,
    flow::{FlowKey, side},
    masquerade::{Binding, BindingKey, Counted, MAX_ADDRESSES, Rule, end, rule_flag, within_quota},
    nat::{MAX_TRIES, PortProbe, TRIES_BEFORE_REUSE},
    select,
    service::{Backend, ServiceKey, address, backend_flag, setting},
    wire::proto,
};

use crate::{
    atomic,
    family::{self, Family},
    half_open::translates_back,
    maps::{BACKEND_STATS, SETTINGS},
    open::{EEXIST, GO_ON, STOP, begins, connect, make_room, server_side},
    route,
    verdict::{CLAIM, CLAIM_BINDING, CONTINUE, NOT_MINE, Verdict, stop},
    workspace::{Work, outcome},
};

/// Seed of the choice among a rule's addresses: the same on both hosts of a pair.
const ADDRESS_SEED: u32 = 0x6c62_6861;

/// A packet of a protocol that can't be masqueraded. From a source that is, it must not leave either.
#[inline(always)]
pub fn other_protocol<F: Family>(saddr: F::Addr, daddr: F::Addr, from: u8) -> Verdict {
    kept_in::<F>(saddr, daddr, from, Counter::PassProtocol)
}

/// A packet that is left to the kernel for want of anything to tell its connection by, unless the kernel would forward it
/// with a private address.
#[inline(always)]
pub fn kept_in<F: Family>(saddr: F::Addr, daddr: F::Addr, from: u8, otherwise: Counter) -> Verdict {
    if leaves::<F>(&saddr, &daddr, from) { stop(Counter::DropProtocol) } else { stop(otherwise) }
}

/// Whether a packet is from a masqueraded source and on its way out of our networks: the kernel would forward it with its
/// private address.
#[inline(never)]
pub fn leaves<F: Family>(saddr: &F::Addr, daddr: &F::Addr, from: u8) -> bool {
    let (saddr, daddr) = (*saddr, *daddr);
    if from != server_side() || family::rule_of::<F>(saddr).is_none() {
        return false;
    }
    let what = family::address::<F>(daddr);
    if what != 0 {
        // An elastic address that is not on this host: the kernel would send the packet where it is.
        return what & address::LOCAL == 0;
    }
    if F::is_scoped(daddr) || family::rule_of::<F>(daddr).is_some() {
        return false;
    }
    match family::route::<F>(daddr).and_then(|id| F::next_hops().get(id)) {
        Some(hop) => hop.dev == side::PUBLIC,
        None => true,
    }
}

/// A first packet from the servers' side. `what` is what the destination address is to us. `NOT_MINE` when it is not from a
/// masqueraded source, or stays within our networks.
#[inline(never)]
pub fn masquerade<F: Family>(work: &mut Work<F::Addr>, what: u32) -> Verdict {
    let key = &work.key;
    if key.side != server_side() {
        return NOT_MINE;
    }
    let Some(index) = family::rule_of::<F>(key.saddr) else {
        return NOT_MINE;
    };
    let Some(rule) = F::rules().get(index) else {
        return NOT_MINE;
    };
    if rule.flags & rule_flag::VALID == 0 {
        return NOT_MINE;
    }
    work.rule = index;
    if what != 0 {
        let verdict = hairpin::<F>(work, rule);
        // As in `leaves`: what would go on to an elastic address elsewhere.
        let elsewhere = what & address::LOCAL == 0;
        return if verdict == NOT_MINE && elsewhere { stop(Counter::DropNoFlow) } else { verdict };
    }
    if F::is_scoped(key.daddr) || family::rule_of::<F>(key.daddr).is_some() {
        return NOT_MINE;
    }
    let (ahead, verdict) = route::towards::<F>(key.daddr);
    if verdict != CONTINUE {
        return verdict;
    }
    // Another private network behind a router of the servers' side: the kernel's to route.
    if F::next_hops().get(ahead).is_some_and(|hop| hop.dev != side::PUBLIC) {
        return NOT_MINE;
    }
    let daddr = key.daddr;
    let dport = key.dport;
    open_outwards::<F>(work, rule, daddr, dport, ahead, side::PUBLIC)
}

/// To one of our own addresses: a binding of another private host may be there (RFC 4787 REQ-9).
#[inline(always)]
fn hairpin<F: Family>(work: &mut Work<F::Addr>, rule: &Rule<F::Addr>) -> Verdict {
    let key = &work.key;
    let Some(target) = outside_binding::<F>(key.daddr, key.dport, key.proto) else {
        return NOT_MINE;
    };
    let (addr, port) = (target.addr, target.port);
    // To itself: one tuple would be both directions.
    if addr == key.saddr && port == key.sport {
        return stop(Counter::DropConflict);
    }
    let (ahead, verdict) = route::back::<F>(addr, server_side());
    if verdict != CONTINUE {
        return verdict;
    }
    open_outwards::<F>(work, rule, addr, port, ahead, server_side())
}

/// The inside end of the binding at an external address and port.
#[inline(always)]
fn outside_binding<F: Family>(
    addr: F::Addr,
    port: Be16,
    proto: u8,
) -> Option<&'static Binding<F::Addr>> {
    if SETTINGS.get(0).is_none_or(|settings| settings.flags & setting::BINDINGS == 0) {
        return None;
    }
    // SAFETY: values are never changed in place.
    unsafe { F::bindings().get(BindingKey::new(addr, port, proto, end::OUTSIDE)) }
}

/// Opens a connection from a masqueraded source to `daddr`, `dport`, whose packets come back on `their_side`.
#[inline(always)]
fn open_outwards<F: Family>(
    work: &mut Work<F::Addr>,
    rule: &Rule<F::Addr>,
    daddr: F::Addr,
    dport: Be16,
    ahead: u32,
    their_side: u8,
) -> Verdict {
    let (back, verdict) = begins::<F>(work);
    if verdict != CONTINUE {
        return verdict;
    }
    let verdict = route::check::<F>(ahead, work.total_len);
    if verdict != CONTINUE {
        return verdict;
    }
    let source = work.key.saddr;
    if !has_quota::<F>(source, rule.max_ports) {
        return stop(Counter::DropQuota);
    }
    if rule.count == 0 {
        return stop(Counter::DropNoExternal);
    }
    let choice = select::slot(select::source_hash(source, ADDRESS_SEED), rule.count.into());
    let external = rule.addresses[choice as usize & (MAX_ADDRESSES - 1)];

    let key = &work.key;
    work.other_key = FlowKey {
        saddr: daddr,
        daddr: external,
        sport: dport,
        dport: key.sport,
        proto: key.proto,
        side: their_side,
        _pad: 0,
    };
    work.flow.translate(key, external, daddr, key.sport, dport);
    work.flow.last_seen = work.now;
    work.flow.created = work.now;
    work.flow.backend = rule.owner;
    work.flow.next_hop = ahead as u16;
    work.flow.peer_next_hop = back as u16;
    work.flow.state = state::MASQUERADE
        | state::OPENING
        | if their_side == side::PRIVATE { state::PEER_PRIVATE } else { 0 };

    let sport = key.sport;
    work.complete();
    // SAFETY: no arguments.
    let seed = unsafe { bpf_get_prandom_u32() };
    work.probe = PortProbe {
        parity: 1,
        ..PortProbe::new(rule.port_first, rule.port_count, sport.get(), seed)
    };
    if rule.flags & rule_flag::ENDPOINT_INDEPENDENT != 0 { CLAIM_BINDING } else { CLAIM }
}

#[inline(always)]
fn has_quota<F: Family>(source: F::Addr, max: u32) -> bool {
    // SAFETY: only read, whole words.
    let begun = unsafe { F::begun().get(source) }.copied().unwrap_or(0);
    // SAFETY: only read; the controller replaces values as a whole.
    let counted = unsafe { F::counted().get(source) }.copied().unwrap_or(Counted::default());
    within_quota(begun, counted, max)
}

/// Takes a port of its own for this remote host and port.
#[inline(never)]
pub fn claim<F: Family>(work: &mut Work<F::Addr>) -> Verdict {
    if work.probe.count == 0 {
        return stop(Counter::DropNoPort);
    }
    work.outcome = outcome::NONE;
    work.reusable = 0;
    if try_port::<F>(0, work) == GO_ON {
        // SAFETY: the callback has the signature that the helper asks for, and needs no context.
        unsafe {
            bpf_loop(MAX_TRIES - 1, try_next_port::<F> as *mut c_void, core::ptr::null_mut(), 0)
        };
    }
    let verdict = claimed(work.outcome);
    if verdict == CONTINUE { finish::<F>(work) } else { verdict }
}

#[inline(always)]
fn claimed(outcome: u32) -> Verdict {
    match outcome {
        outcome::FOUND => CONTINUE,
        outcome::REFUSED => stop(Counter::DropTableFull),
        _ => stop(Counter::DropNoPort),
    }
}

/// `bpf_loop`'s callback: try 0 was made outside.
unsafe extern "C" fn try_next_port<F: Family>(i: u32, _context: *mut c_void) -> i64 {
    let Some(work) = F::workspace().get_ptr_mut(0) else {
        return STOP;
    };
    // SAFETY: this CPU's slot, which `claim` is waiting on.
    try_port::<F>(i + 1, unsafe { &mut *work })
}

/// One try.
#[inline(always)]
fn try_port<F: Family>(i: u32, work: &mut Work<F::Addr>) -> i64 {
    let mut port = work.probe.port(i);
    let mut reuse = false;
    if i == TRIES_BEFORE_REUSE && work.reusable != 0 {
        port = work.reusable as u16;
        reuse = true;
    }
    let (external, protocol) = (work.other_key.daddr, work.key.proto);
    if is_served::<F>(external, Be16::new(port), protocol)
        || outside_binding::<F>(external, Be16::new(port), protocol).is_some()
    {
        return GO_ON;
    }
    work.set_port(port);
    if !make_room::<F>(work, i, port, reuse) {
        return GO_ON;
    }
    match F::flows().insert(&work.other_key, &work.other, BPF_NOEXIST.into()) {
        Ok(()) => work.outcome = outcome::FOUND,
        Err(EEXIST) => return GO_ON,
        Err(_) => work.outcome = outcome::REFUSED,
    }
    STOP
}

/// Whether a service answers at an address and port: what comes in there is its own.
#[inline(always)]
fn is_served<F: Family>(addr: F::Addr, port: Be16, proto: u8) -> bool {
    // SAFETY: only looked at for existence.
    unsafe { F::services().get(ServiceKey::new(addr, port, proto)) }.is_some()
}

/// The port that the source's port is bound to, whatever the remote host; a new binding if it is not bound yet.
#[inline(never)]
pub fn claim_by_binding<F: Family>(work: &mut Work<F::Addr>) -> Verdict {
    if work.probe.count == 0 {
        return stop(Counter::DropNoPort);
    }
    work.outcome = outcome::NONE;
    work.reusable = 0;
    let inside = BindingKey::new(work.key.saddr, work.key.sport, work.key.proto, end::INSIDE);
    // SAFETY: only read; values are never changed in place.
    let mut bound = unsafe { F::bindings().get(inside) }.map(|b| (b.addr, b.port));
    if bound.is_none() {
        if try_binding::<F>(0, work) == GO_ON {
            // SAFETY: as in `claim`.
            unsafe {
                bpf_loop(
                    MAX_TRIES - 1,
                    try_next_binding::<F> as *mut c_void,
                    core::ptr::null_mut(),
                    0,
                )
            };
        }
        let verdict = claimed(work.outcome);
        if verdict != CONTINUE {
            return verdict;
        }
        let outside = Binding {
            addr: work.other_key.daddr,
            port: work.other_key.dport,
            rule: work.rule as u16,
            created: work.now,
        };
        bound = Some((outside.addr, outside.port));
        if F::bindings().insert(inside, outside, BPF_NOEXIST.into()).is_err() {
            // Another CPU has bound the same port; its binding is the one.
            let _ = F::bindings().remove(BindingKey::new(
                outside.addr,
                outside.port,
                work.key.proto,
                end::OUTSIDE,
            ));
            // SAFETY: only read; values are never changed in place.
            bound = unsafe { F::bindings().get(inside) }.map(|b| (b.addr, b.port));
        }
    }
    let Some((addr, port)) = bound else {
        return stop(Counter::DropTableFull);
    };
    work.other_key.daddr = addr;
    work.flow.translate(&work.key, addr, work.flow.daddr, port, work.flow.dport);
    work.flow.mirror_to(&work.key, &mut work.other);
    work.other_key.dport = port;
    // A closing connection that has the tuple gives way. One that is open is this very one, which another CPU has opened
    // just now, or was there before the binding.
    if make_room::<F>(work, TRIES_BEFORE_REUSE, port.get(), false) {
        match F::flows().insert(&work.other_key, &work.other, BPF_NOEXIST.into()) {
            Ok(()) => return finish::<F>(work),
            Err(EEXIST) => {}
            Err(_) => return stop(Counter::DropTableFull),
        }
    }
    // SAFETY: only compared.
    match unsafe { F::flows().get(&work.other_key) } {
        Some(other) if translates_back(&work.key, other) => CONTINUE,
        _ => stop(Counter::DropConflict),
    }
}

/// `bpf_loop`'s callback: try 0 was made outside.
unsafe extern "C" fn try_next_binding<F: Family>(i: u32, _context: *mut c_void) -> i64 {
    let Some(work) = F::workspace().get_ptr_mut(0) else {
        return STOP;
    };
    // SAFETY: this CPU's slot, which `claim_by_binding` is waiting on.
    try_binding::<F>(i + 1, unsafe { &mut *work })
}

/// One try to bind an external port.
#[inline(always)]
fn try_binding<F: Family>(i: u32, work: &mut Work<F::Addr>) -> i64 {
    let port = Be16::new(work.probe.port(i));
    if is_served::<F>(work.other_key.daddr, port, work.key.proto) {
        return GO_ON;
    }
    work.other_key.dport = port;
    // A connection from before there were bindings.
    // SAFETY: only looked at for existence.
    if unsafe { F::flows().get(&work.other_key) }.is_some() {
        return GO_ON;
    }
    let outside = BindingKey::new(work.other_key.daddr, port, work.key.proto, end::OUTSIDE);
    let binding = Binding {
        addr: work.key.saddr,
        port: work.key.sport,
        rule: work.rule as u16,
        created: work.now,
    };
    match F::bindings().insert(outside, binding, BPF_NOEXIST.into()) {
        Ok(()) => work.outcome = outcome::FOUND,
        Err(EEXIST) => return GO_ON,
        Err(_) => work.outcome = outcome::REFUSED,
    }
    STOP
}

/// Inserts the source's direction and counts the connection. If the same first packet got here on another CPU too, the one
/// that inserted first wins and this one uses its entry.
#[inline(always)]
fn finish<F: Family>(work: &mut Work<F::Addr>) -> Verdict {
    if F::flows().insert(&work.key, &work.flow, BPF_NOEXIST.into()).is_err() {
        let _ = F::flows().remove(&work.other_key);
        // SAFETY: copied as a whole; what changes at the same time is whole words.
        let Some(winner) = (unsafe { F::flows().get(&work.key) }) else {
            return stop(Counter::DropTableFull);
        };
        work.flow = *winner;
        return CONTINUE;
    }
    if let Some(begun) = F::begun().get_ptr_mut(&work.key.saddr) {
        // SAFETY: a map value.
        unsafe { atomic::fetch_add(begun, 1) };
    } else {
        // Two CPUs at once lose one count, which the next sweep finds.
        let _ = F::begun().insert(&work.key.saddr, 1, BPF_ANY.into());
    }
    if let Some(stats) = BACKEND_STATS.get_ptr_mut(u32::from(work.flow.backend)) {
        // SAFETY: a per-CPU slot, and XDP programs do not nest.
        unsafe { (*stats).connections += 1 };
    }
    CONTINUE
}

/// A first packet from outside to a bound port: the binding lets anybody in (RFC 4787 REQ-8, endpoint-independent
/// filtering). It is half-open like any connection from the internet.
#[inline(never)]
pub fn through_binding<F: Family>(work: &mut Work<F::Addr>, what: u32) -> Verdict {
    let key = &work.key;
    if what & address::EXTERNAL == 0 {
        return NOT_MINE;
    }
    let Some(binding) = outside_binding::<F>(key.daddr, key.dport, key.proto) else {
        return NOT_MINE;
    };
    let Some(rule) = F::rules().get(u32::from(binding.rule)) else {
        return NOT_MINE;
    };
    let (addr, port) = (binding.addr, binding.port);
    // To a connection that may be the host's own: whatever does not begin one is its answer or nobody's.
    if key.proto == proto::TCP && !conntrack::opens(work.tcp_flags) {
        return NOT_MINE;
    }
    let (back, verdict) = begins::<F>(work);
    if verdict != CONTINUE {
        return verdict;
    }
    let (ahead, verdict) = route::back::<F>(addr, server_side());
    if verdict != CONTINUE {
        return verdict;
    }
    let backend = Backend {
        addr,
        snat: F::Addr::default(),
        port,
        next_hop: ahead as u16,
        port_first: 0,
        port_count: 0,
        service: 0,
        flags: backend_flag::VALID | backend_flag::KEEP_CLIENT,
        _pad: 0,
    };
    connect::<F>(work, &backend, back, rule.owner.into())
}
