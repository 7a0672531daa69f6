//! A connection's first packet: service, server, route back, source port, and an entry a direction.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::lpm_trie::Key,
    helpers::{bpf_get_prandom_u32, bpf_loop},
};
use lbha_common::{
    addr::{Be16, Be32, Be128},
    conntrack::{self, state},
    counter::Counter,
    event::{self, Event},
    flow::{Flow4, FlowKey4, side},
    nat::{MAX_TRIES, PortProbe, TRIES_BEFORE_EVICTION, TRIES_BEFORE_REUSE},
    nexthop::{ON_LINK, UNREACHABLE, next_hop_flag},
    select,
    service::{Backend4, SLOT_TABLE_HEADER, Service, ServiceKey4, address, backend_flag, pick},
    time::age,
    wire::proto,
};

use crate::{
    atomic,
    half_open::half_open,
    maps::{
        ADDRESSES4, BACKEND_STATS, BACKENDS, EVENTS, FLOWS4, HALF_OPEN4, NEXT_HOPS, ROUTES4,
        SERVERS4, SERVICES4, SETTINGS, SLOTS, TURNS, WORKSPACE,
    },
    parse::Packet,
    verdict::{ANEW, CONTINUE, Verdict, stop},
};

/// A packet without a confirmed connection, and the room to work on it (see [`crate::maps::WORKSPACE`]).
#[repr(C, align(8))]
pub struct First {
    pub key: FlowKey4,
    /// The translation, once there is one.
    pub flow: Flow4,
    /// The other direction.
    pub other_key: FlowKey4,
    pub other: Flow4,
    pub probe: PortProbe,
    pub now: u32,
    /// TCP sequence and acknowledgement numbers.
    pub seq: u32,
    pub ack: u32,
    /// What became of the search for a port: 0 none found, 1 found, 2 the table refuses.
    outcome: u32,
    /// A closing connection's port, to fall back on.
    reusable: u32,
    /// Port and start of the oldest half-open connection among those in the way, to fall back on after that. Port 0: none.
    oldest: u32,
    oldest_created: u32,
    /// IPv4 total length.
    pub total_len: u32,
    /// Why the packet can't be forwarded whatever its connection, else `CONTINUE`. It must not leave any state then.
    pub fault: Verdict,
    pub tcp_flags: u8,
    pub _pad: [u8; 3],
}

const FOUND: u32 = 1;
const REFUSED: u32 = 2;

/// Answers of a `bpf_loop` callback.
const GO_ON: i64 = 0;
const STOP: i64 = 1;

/// `bpf_map_update_elem` with BPF_NOEXIST on a key that is there.
const EEXIST: i32 = -17;

impl First {
    /// Takes down the packet. Translations and the port search are set by whoever needs them.
    #[inline(always)]
    pub fn begin(&mut self, key: &FlowKey4, now: u32, packet: &Packet, fault: Verdict) {
        self.key = *key;
        self.now = now;
        self.total_len = packet.total_len;
        self.fault = fault;
        self.tcp_flags = packet.tcp_flags;
        self.seq = 0;
        self.ack = 0;
    }
}

/// Decides on a packet that the flow table does not know. On `CONTINUE`, `first.flow` is its translation.
#[inline(never)]
pub fn first_packet(first: &mut First) -> Verdict {
    if let Some(entry) = HALF_OPEN4.get_ptr_mut(first.key) {
        if first.fault != CONTINUE {
            return first.fault;
        }
        let verdict = half_open(first, entry);
        if verdict != ANEW {
            return verdict;
        }
    }
    let key = &first.key;
    let to = ServiceKey4 { addr: key.daddr, port: key.dport, proto: key.proto, _pad: 0 };
    // SAFETY: only read; the controller replaces values as a whole.
    if let Some(service) = unsafe { SERVICES4.get(to) } {
        let service = *service;
        return open(first, &service);
    }
    let from = ServiceKey4 { addr: key.saddr, port: key.sport, proto: key.proto, _pad: 0 };
    // SAFETY: only read.
    if unsafe { SERVERS4.get(from) }.is_some() {
        // A server's answer without a connection. To an address of this host it may answer the host itself (health
        // checks); anywhere else the kernel would route it out with a private source.
        // SAFETY: only read.
        let what = unsafe { ADDRESSES4.get(key.daddr) }.copied().unwrap_or(0);
        if what & address::LOCAL == 0 {
            return stop(Counter::DropNoFlow);
        }
    }
    stop(Counter::PassUnmatched)
}

#[inline(always)]
fn open(first: &mut First, service: &Service) -> Verdict {
    if first.key.proto == proto::TCP && !conntrack::opens(first.tcp_flags) {
        return stop(Counter::DropNoFlow);
    }
    if first.fault != CONTINUE {
        return first.fault;
    }
    let (back, verdict) = route_back(first.key.saddr, first.key.side);
    if verdict != CONTINUE {
        return verdict;
    }
    let Some(id) = choose(&first.key, service) else {
        return stop(Counter::DropNoServer);
    };
    let Some(backend) = BACKENDS.get(id) else {
        return stop(Counter::DropNoServer);
    };
    let Some(hop) = NEXT_HOPS.get(u32::from(backend.next_hop)) else {
        return stop(Counter::DropUnresolved);
    };
    if hop.flags & next_hop_flag::VALID == 0 {
        return stop(Counter::DropUnresolved);
    }
    if first.total_len > u32::from(hop.mtu) {
        return stop(Counter::DropTooBig);
    }
    let server_side = SETTINGS.get(0).map_or(u32::from(side::PRIVATE), |s| s.server_side) as u8;
    // Mode nat keeps the client's address, unless the client is a server itself: the chosen one would answer it directly.
    let keep_client = backend.flags & backend_flag::KEEP_CLIENT != 0
        && !(server_side == side::PRIVATE && first.key.side == side::PRIVATE);
    let source = if keep_client { first.key.saddr } else { backend.snat };
    if source == Be32::default() {
        return stop(Counter::DropNoSource);
    }
    let verdict = claim_port(first, backend, source, keep_client, server_side, back, id);
    if verdict != CONTINUE {
        return verdict;
    }
    finish(first, id)
}

/// The slot of a new connection, and the server in it.
#[inline(always)]
fn choose(key: &FlowKey4, service: &Service) -> Option<u32> {
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

/// The next hop of the client's direction. It must lead out of the side that the packet came in on (RFC 3704 §2.2): a
/// forged source must not have lbha send into the servers' network, nor out of it.
#[inline(always)]
fn route_back(client: Be32, from: u8) -> (u32, Verdict) {
    let id = match ROUTES4.get(&Key::new(32, client)).copied() {
        None | Some(UNREACHABLE) => return (0, stop(Counter::DropNoRoute)),
        Some(ON_LINK) => {
            let _ = EVENTS.output(
                Event {
                    kind: event::kind::RESOLVE,
                    family: event::family::IPV4,
                    addr: Be128::from_raw([client.raw(), 0, 0, 0]),
                },
                0,
            );
            return (0, stop(Counter::DropUnresolved));
        }
        Some(id) => id,
    };
    match NEXT_HOPS.get(id) {
        Some(hop) if hop.dev != from => (0, stop(Counter::DropWrongSide)),
        Some(hop) if hop.flags & next_hop_flag::VALID != 0 => (id, CONTINUE),
        _ => (0, stop(Counter::DropUnresolved)),
    }
}

/// Finds a source port whose answers belong to nobody else, and takes it by inserting the server's direction.
#[inline(always)]
fn claim_port(
    first: &mut First,
    backend: &Backend4,
    source: Be32,
    keep_client: bool,
    server_side: u8,
    back: u32,
    id: u32,
) -> Verdict {
    let key = &first.key;
    first.other_key = FlowKey4 {
        saddr: backend.addr,
        daddr: source,
        sport: backend.port,
        dport: key.sport,
        proto: key.proto,
        side: server_side,
        _pad: 0,
    };
    first.flow = Flow4::new(key, source, backend.addr, key.sport, backend.port);
    first.flow.last_seen = first.now;
    first.flow.created = first.now;
    first.flow.backend = id as u16;
    first.flow.next_hop = backend.next_hop;
    first.flow.peer_next_hop = back as u16;
    first.flow.state = if server_side == side::PRIVATE { state::PEER_PRIVATE } else { 0 };

    // SAFETY: no arguments.
    let seed = unsafe { bpf_get_prandom_u32() };
    // A client's own address has all its ports; ours has the configured range.
    first.probe = if keep_client {
        PortProbe { keep: 1, ..PortProbe::new(1024, 64512, key.sport.get(), seed) }
    } else {
        PortProbe::new(backend.port_first, backend.port_count, key.sport.get(), seed)
    };
    if first.probe.count == 0 {
        return stop(Counter::DropNoPort);
    }
    first.outcome = 0;
    first.reusable = 0;
    first.oldest = 0;
    if try_port(0, first) == GO_ON {
        // SAFETY: the callback has the signature that the helper asks for, and needs no context.
        unsafe { bpf_loop(MAX_TRIES - 1, try_next_port as *mut c_void, core::ptr::null_mut(), 0) };
    }
    match first.outcome {
        FOUND => CONTINUE,
        REFUSED => stop(Counter::DropHalfOpen),
        _ => stop(Counter::DropNoPort),
    }
}

/// `bpf_loop`'s callback: try 0 was made outside.
unsafe extern "C" fn try_next_port(i: u32, _context: *mut c_void) -> i64 {
    let Some(first) = WORKSPACE.get_ptr_mut(0) else {
        return STOP;
    };
    // SAFETY: this CPU's slot, which `claim_port` is waiting on.
    try_port(i + 1, unsafe { &mut *first })
}

/// One try.
#[inline(always)]
fn try_port(i: u32, first: &mut First) -> i64 {
    let mut port = first.probe.port(i);
    let mut reuse = false;
    if i == TRIES_BEFORE_REUSE && first.reusable != 0 {
        port = first.reusable as u16;
        reuse = true;
    }
    if i == TRIES_BEFORE_EVICTION && first.oldest != 0 && age(first.now, first.oldest_created) > 0 {
        port = first.oldest as u16;
        evict(first, port);
    }
    first.other_key.dport = Be16::new(port);
    // SAFETY: only read.
    if let Some(holder) = unsafe { FLOWS4.get(first.other_key) } {
        if !conntrack::is_closing(holder.state) {
            return GO_ON;
        }
        if !reuse {
            first.reusable = u32::from(port);
            if i < TRIES_BEFORE_REUSE {
                return GO_ON;
            }
        }
        // Crowded: a connection that both sides have closed makes room. Its client's direction goes first, so that
        // nothing translates to this tuple any more when it is given away.
        let holder_key = first.other_key.peer(holder);
        let _ = FLOWS4.remove(holder_key);
        let _ = FLOWS4.remove(first.other_key);
    }
    first.flow = retarget(&first.key, &first.flow, port);
    first.other = first.flow.mirror(&first.key);
    match HALF_OPEN4.insert(first.other_key, &first.other, BPF_NOEXIST.into()) {
        Ok(()) => first.outcome = FOUND,
        Err(EEXIST) => {
            // SAFETY: only read.
            if let Some(holder) = unsafe { HALF_OPEN4.get(first.other_key) }
                && (first.oldest == 0 || age(first.oldest_created, holder.created) > 0)
            {
                first.oldest = u32::from(port);
                first.oldest_created = holder.created;
            }
            return GO_ON;
        }
        Err(_) => first.outcome = REFUSED,
    }
    STOP
}

/// Crowded by half-open connections: the table has room for more of them than there are ports, so a flood of SYNs would
/// leave none to anybody else. As in the table itself, the older give way to the newer.
#[inline(always)]
fn evict(first: &mut First, port: u16) {
    first.other_key.dport = Be16::new(port);
    // SAFETY: only read.
    if let Some(holder) = unsafe { HALF_OPEN4.get(first.other_key) } {
        // Its client's direction goes first, so that nothing translates to this tuple any more when it is given away.
        let holder_key = first.other_key.peer(holder);
        let _ = HALF_OPEN4.remove(holder_key);
        let _ = HALF_OPEN4.remove(first.other_key);
    }
}

/// The same translation with another source port.
#[inline(always)]
fn retarget(key: &FlowKey4, flow: &Flow4, port: u16) -> Flow4 {
    Flow4 {
        last_seen: flow.last_seen,
        created: flow.created,
        backend: flow.backend,
        next_hop: flow.next_hop,
        peer_next_hop: flow.peer_next_hop,
        state: flow.state,
        ..Flow4::new(key, flow.saddr, flow.daddr, Be16::new(port), flow.dport)
    }
}

/// Inserts the client's direction and counts the connection. If the same first packet got here on another CPU too, the
/// one that inserted first wins and this one uses its entry.
#[inline(always)]
fn finish(first: &mut First, id: u32) -> Verdict {
    if HALF_OPEN4.insert(first.key, &first.flow, BPF_NOEXIST.into()).is_err() {
        let _ = HALF_OPEN4.remove(first.other_key);
        // SAFETY: copied as a whole; see half_open.
        let Some(winner) = (unsafe { HALF_OPEN4.get(first.key) }) else {
            return stop(Counter::DropHalfOpen);
        };
        first.flow = *winner;
        return CONTINUE;
    }
    if let Some(stats) = BACKEND_STATS.get_ptr_mut(id) {
        // SAFETY: a per-CPU slot, and XDP programs do not nest.
        unsafe { (*stats).connections += 1 };
    }
    CONTINUE
}
