//! A load-balanced connection's first packet: service, server, route back, source port, and an entry a direction.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_prandom_u32, bpf_loop},
};
use lbha_common::{
    addr::{Addr, Be16},
    conntrack::{self, state},
    counter::Counter,
    flow::{FlowKey, side},
    nat::{MAX_TRIES, PortProbe, TRIES_BEFORE_EVICTION, TRIES_BEFORE_REUSE},
    select,
    service::{Backend, SLOT_TABLE_HEADER, Service, ServiceKey, backend_flag, pick},
    time::age,
    wire::proto,
};

use crate::{
    atomic,
    family::Family,
    maps::{BACKEND_STATS, SETTINGS, SLOTS, TURNS},
    route,
    verdict::{CLAIM_HALF_OPEN, CONTINUE, NOT_MINE, Verdict, stop},
    workspace::{Work, outcome},
};

/// Answers of a `bpf_loop` callback.
pub const GO_ON: i64 = 0;
pub const STOP: i64 = 1;

/// `bpf_map_update_elem` with BPF_NOEXIST on a key that is there.
pub const EEXIST: i32 = -17;

/// Opens a connection to the service at the packet's destination; `NOT_MINE` when there is none.
///
/// Not inlined, as all that `first::first_packet` asks in turn: each then has the stack to itself.
#[inline(never)]
pub fn service<F: Family>(work: &mut Work<F::Addr>) -> Verdict {
    let key = &work.key;
    let to = ServiceKey::new(key.daddr, key.dport, key.proto);
    // SAFETY: only read; the controller replaces values as a whole.
    match unsafe { F::services().get(to) } {
        Some(service) => open_service::<F>(work, &{ *service }),
        None => NOT_MINE,
    }
}

#[inline(always)]
fn open_service<F: Family>(work: &mut Work<F::Addr>, service: &Service) -> Verdict {
    let (back, verdict) = begins::<F>(work);
    if verdict != CONTINUE {
        return verdict;
    }
    let Some(id) = choose::<F>(&work.key, service) else {
        return stop(Counter::DropNoServer);
    };
    let Some(backend) = F::backends().get(id) else {
        return stop(Counter::DropNoServer);
    };
    connect::<F>(work, backend, back, id)
}

/// Whether a packet from outside may begin a connection, and the next hop of its answers.
#[inline(always)]
pub fn begins<F: Family>(work: &Work<F::Addr>) -> (u32, Verdict) {
    if work.key.proto == proto::TCP && !conntrack::opens(work.tcp_flags) {
        return (0, stop(Counter::DropNoFlow));
    }
    if work.fault != CONTINUE {
        return (0, work.fault);
    }
    route::back::<F>(work.key.saddr, work.key.side)
}

/// Opens a connection to `backend`, which is counted as `id`.
#[inline(always)]
pub fn connect<F: Family>(
    work: &mut Work<F::Addr>,
    backend: &Backend<F::Addr>,
    back: u32,
    id: u32,
) -> Verdict {
    let verdict = route::check::<F>(backend.next_hop.into(), work.total_len);
    if verdict != CONTINUE {
        return verdict;
    }
    let server_side = server_side();
    // Mode nat keeps the client's address, unless the client is a server itself: the chosen one would answer it directly.
    let keep_client = backend.flags & backend_flag::KEEP_CLIENT != 0
        && !(server_side == side::PRIVATE && work.key.side == side::PRIVATE);
    let source = if keep_client { work.key.saddr } else { backend.snat };
    if source.is_unspecified() {
        return stop(Counter::DropNoSource);
    }
    prepare::<F>(work, backend, source, keep_client, server_side, back, id);
    CLAIM_HALF_OPEN
}

/// The side on which servers' packets come in.
#[inline(always)]
pub fn server_side() -> u8 {
    SETTINGS.get(0).map_or(u32::from(side::PRIVATE), |s| s.server_side) as u8
}

/// The slot of a new connection, and the server in it.
#[inline(always)]
fn choose<F: Family>(key: &FlowKey<F::Addr>, service: &Service) -> Option<u32> {
    let table = SLOTS.get(u32::from(service.id))?;
    let count = *table.get(0)?;
    if count == 0 {
        return None;
    }
    let slot = match service.pick {
        pick::COUNTER => {
            let turn = TURNS.get_ptr_mut(u32::from(service.id))?;
            // SAFETY: a map value. The addition is atomic, so the turn is exact over all CPUs.
            let turn = unsafe { atomic::fetch_add(turn, 1) };
            (turn % u64::from(count)) as u32
        }
        pick::SOURCE => select::slot(select::source_hash(key.saddr, service.seed), count),
        _ => select::slot(select::connection_hash(key, service.seed), count),
    };
    table.get(slot + SLOT_TABLE_HEADER).copied()
}

/// Works out both directions, all but the source port.
#[inline(always)]
fn prepare<F: Family>(
    work: &mut Work<F::Addr>,
    backend: &Backend<F::Addr>,
    source: F::Addr,
    keep_client: bool,
    server_side: u8,
    back: u32,
    id: u32,
) {
    let key = &work.key;
    work.other_key = FlowKey {
        saddr: backend.addr,
        daddr: source,
        sport: backend.port,
        dport: key.sport,
        proto: key.proto,
        side: server_side,
        _pad: 0,
    };
    work.flow.translate(key, source, backend.addr, key.sport, backend.port);
    work.flow.last_seen = work.now;
    work.flow.created = work.now;
    work.flow.backend = id as u16;
    work.flow.next_hop = backend.next_hop;
    work.flow.peer_next_hop = back as u16;
    work.flow.state = if server_side == side::PRIVATE { state::PEER_PRIVATE } else { 0 };

    let sport = key.sport;
    work.complete();
    // SAFETY: no arguments.
    let seed = unsafe { bpf_get_prandom_u32() };
    // A client's own address has all its ports; ours has the configured range.
    work.probe = if keep_client {
        PortProbe { keep: 1, ..PortProbe::new(1024, 64512, sport.get(), seed) }
    } else {
        PortProbe::new(backend.port_first, backend.port_count, sport.get(), seed)
    };
}

/// Finds a source port whose answers belong to nobody else, and takes it by inserting the server's direction.
#[inline(never)]
pub fn claim<F: Family>(work: &mut Work<F::Addr>) -> Verdict {
    if work.probe.count == 0 {
        return stop(Counter::DropNoPort);
    }
    work.outcome = outcome::NONE;
    work.reusable = 0;
    work.oldest = 0;
    if try_port::<F>(0, work) == GO_ON {
        // SAFETY: the callback has the signature that the helper asks for, and needs no context.
        unsafe {
            bpf_loop(MAX_TRIES - 1, try_next_port::<F> as *mut c_void, core::ptr::null_mut(), 0)
        };
    }
    match work.outcome {
        outcome::FOUND => finish::<F>(work),
        outcome::REFUSED => stop(Counter::DropHalfOpen),
        _ => stop(Counter::DropNoPort),
    }
}

/// `bpf_loop`'s callback: try 0 was made outside.
unsafe extern "C" fn try_next_port<F: Family>(i: u32, _context: *mut c_void) -> i64 {
    let Some(work) = F::workspace().get_ptr_mut(0) else {
        return STOP;
    };
    // SAFETY: this CPU's slot, which `claim_port` is waiting on.
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
    if i == TRIES_BEFORE_EVICTION && work.oldest != 0 && age(work.now, work.oldest_created) > 0 {
        port = work.oldest as u16;
        evict::<F>(work, port);
    }
    work.set_port(port);
    if !make_room::<F>(work, i, port, reuse) {
        return GO_ON;
    }
    match F::half_open().insert(&work.other_key, &work.other, BPF_NOEXIST.into()) {
        Ok(()) => work.outcome = outcome::FOUND,
        Err(EEXIST) => {
            // SAFETY: only read.
            if let Some(holder) = unsafe { F::half_open().get(&work.other_key) }
                && (work.oldest == 0 || age(work.oldest_created, holder.created) > 0)
            {
                work.oldest = u32::from(port);
                work.oldest_created = holder.created;
            }
            return GO_ON;
        }
        Err(_) => work.outcome = outcome::REFUSED,
    }
    STOP
}

/// Whether no confirmed connection has the tuple of `work.other_key`. Where it is crowded, one that both sides have
/// closed gives way.
#[inline(always)]
pub fn make_room<F: Family>(work: &mut Work<F::Addr>, i: u32, port: u16, reuse: bool) -> bool {
    // SAFETY: only read.
    let Some(holder) = (unsafe { F::flows().get(&work.other_key) }) else {
        return true;
    };
    if !conntrack::is_closing(holder.state) {
        return false;
    }
    if !reuse {
        work.reusable = u32::from(port);
        if i < TRIES_BEFORE_REUSE {
            return false;
        }
    }
    // Its client's direction goes first, so that nothing translates to this tuple any more when it is given away.
    let holder_key = work.other_key.peer(holder);
    let _ = F::flows().remove(holder_key);
    let _ = F::flows().remove(&work.other_key);
    true
}

/// Crowded by half-open connections: the table has room for more of them than there are ports, so a flood of SYNs would
/// leave none to anybody else. As in the table itself, the older give way to the newer.
#[inline(always)]
fn evict<F: Family>(work: &mut Work<F::Addr>, port: u16) {
    work.other_key.dport = Be16::new(port);
    // SAFETY: only read.
    if let Some(holder) = unsafe { F::half_open().get(&work.other_key) } {
        // Its client's direction goes first, so that nothing translates to this tuple any more when it is given away.
        let holder_key = work.other_key.peer(holder);
        let _ = F::half_open().remove(holder_key);
        let _ = F::half_open().remove(&work.other_key);
    }
}

/// Inserts the client's direction and counts the connection. If the same first packet got here on another CPU too, the
/// one that inserted first wins and this one uses its entry.
#[inline(always)]
fn finish<F: Family>(work: &mut Work<F::Addr>) -> Verdict {
    if F::half_open().insert(&work.key, &work.flow, BPF_NOEXIST.into()).is_err() {
        let _ = F::half_open().remove(&work.other_key);
        // SAFETY: copied as a whole; see half_open.
        let Some(winner) = (unsafe { F::half_open().get(&work.key) }) else {
            return stop(Counter::DropHalfOpen);
        };
        work.flow = *winner;
        return CONTINUE;
    }
    if let Some(stats) = BACKEND_STATS.get_ptr_mut(u32::from(work.flow.backend)) {
        // SAFETY: a per-CPU slot, and XDP programs do not nest.
        unsafe { (*stats).connections += 1 };
    }
    CONTINUE
}
