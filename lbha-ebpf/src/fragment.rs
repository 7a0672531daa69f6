//! Fragments: the first one of a datagram is decided on like a whole packet, and the others go the same way.
//!
//! Only the first has ports. What becomes of it is noted under addresses, identification and protocol (`note.rs`), and the
//! others look there. One that comes before the first goes to the controller, which gives it back once the first is there:
//! fragments are translated in whatever order they come (RFC 4787 REQ-14).
//!
//! Fragments that overlap others are not looked for, as nothing is put together here: hosts drop them (RFC 5722).

use aya_ebpf::{
    bindings::{BPF_NOEXIST, xdp_action},
    btf_maps::PerCpuArray,
    helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    macros::btf_map,
    programs::XdpContext,
};
use lbha_common::{
    addr::{Addr, Be16},
    counter::Counter,
    flow::side,
    fragment::{Fragment, FragmentKey, HeldHeader, MAX_HELD, fate},
    service::address,
    stats::InterfaceStats,
    wire::{UDP_HEADER, proto, tcp},
};

use crate::{
    access::{load, within},
    clock,
    datapath::{fault, finish, known},
    echo::unknown_echo,
    family::{self, FRAGMENT_ID, Family},
    forward::{account, deliver},
    maps::{HELD, INTERFACE_STATS, INTERFACES, SCRATCH},
    masquerade::leaves,
    open::{EEXIST, server_side},
    parse::{Packet, available, ethernet},
    route::{is_valid, too_big},
    verdict::{CONTINUE, Verdict, hand_to, stop},
    workspace::Work,
};

/// A record of the ring of held fragments, as large as one can be.
#[repr(C, align(8))]
struct Record {
    header: HeldHeader,
    frame: [u8; MAX_HELD],
}

/// Where a record is put together. Not pinned.
#[btf_map]
static RECORD: PerCpuArray<Record, 1> = PerCpuArray::new();

/// Goes on with a packet that an entry program has found to be a fragment.
#[inline(always)]
pub fn run<F: Family, const MULTI_BUFFER: bool>(ctx: &XdpContext) -> u32 {
    let (Some(scratch), Some(work)) = (SCRATCH.get_ptr_mut(0), F::workspace().get_ptr_mut(0))
    else {
        return xdp_action::XDP_DROP;
    };
    // SAFETY: per-CPU slots, and XDP programs do not nest.
    let (side, work) = unsafe { ((*scratch).side & (side::COUNT as u32 - 1), &mut *work) };
    let Some(stats) = INTERFACE_STATS.get_ptr_mut(side) else {
        return xdp_action::XDP_DROP;
    };
    let verdict = decide::<F, MULTI_BUFFER>(ctx, side, work, stats);
    finish::<F, MULTI_BUFFER>(ctx, side, verdict, stats)
}

#[inline(always)]
fn decide<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    side: u32,
    work: &mut Work<F::Addr>,
    stats: *mut InterfaceStats,
) -> Verdict {
    let Some(interface) = INTERFACES.get(side) else {
        return stop(Counter::PassUnmatched);
    };
    let mut packet = Packet::new();
    let verdict = ethernet(ctx, interface, &mut packet);
    if verdict != CONTINUE {
        return verdict;
    }
    let verdict = F::part(&mut packet, work);
    if verdict != CONTINUE {
        return verdict;
    }
    // The verifier has lost track of it among the extension headers.
    if !within(packet.l3, F::HEADER, packet.end) {
        return stop(Counter::PassMalformed);
    }
    (work.key.saddr, work.key.daddr) = family::addresses::<F>(packet.l3);
    work.key.side = side as u8;
    work.key._pad = 0;
    if work.datagram.part.offset == 0 {
        first::<F, MULTI_BUFFER>(ctx, &mut packet, work)
    } else {
        later::<F, MULTI_BUFFER>(ctx, &packet, work, stats)
    }
}

/// The first fragment: decided on like a whole packet, and then noted.
#[inline(always)]
fn first<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &mut Packet,
    work: &mut Work<F::Addr>,
) -> Verdict {
    let protocol = work.key.proto;
    work.key.sport = Be16::default();
    work.key.dport = Be16::default();
    let now = clock::now();
    work.describe(now, packet, CONTINUE);
    work.fragment = 1;
    if !is_tracked::<F>(protocol) {
        return decided::<F>(work, not_tracked::<F>(work));
    }
    let header = if protocol == proto::TCP { tcp::HEADER } else { UDP_HEADER };
    let needed = packet.l4 - packet.l3 + header;
    if !work.datagram.part.is_sound(protocol, F::MAX_PARTS) || (packet.total_len as usize) < needed
    {
        return decided::<F>(work, refused::<F>(work, Counter::DropFragmentAttack));
    }
    if !within(packet.l4, header, packet.end) {
        return decided::<F>(work, refused::<F>(work, Counter::DropMalformed));
    }
    let mut begins = CONTINUE;
    if protocol == F::Addr::ICMP.proto {
        // SAFETY: in bounds, checked above.
        let (kind, identifier) = unsafe { (load::<u8>(packet.l4), load::<u16>(packet.l4 + 4)) };
        if !F::Addr::ICMP.is_echo(kind) {
            return decided::<F>(work, not_tracked::<F>(work));
        }
        let asks = kind == F::Addr::ICMP.echo_request;
        let end = if asks { &mut work.key.sport } else { &mut work.key.dport };
        *end = Be16::from_raw(identifier);
        begins = unknown_echo::<F>(work, asks);
    } else {
        // SAFETY: in bounds, checked above.
        unsafe {
            work.key.sport = Be16::from_raw(load(packet.l4));
            work.key.dport = Be16::from_raw(load(packet.l4 + 2));
        }
    }
    packet.tcp_flags = 0;
    if protocol == proto::TCP {
        if !within(packet.l4, tcp::HEADER, packet.end) {
            return stop(Counter::DropMalformed);
        }
        // SAFETY: in bounds, checked above.
        packet.tcp_flags = unsafe { load::<u8>(packet.l4 + 13) };
        work.tcp_flags = packet.tcp_flags;
    }
    work.fault = fault::<F, MULTI_BUFFER>(ctx, packet, protocol);
    match known::<F>(&work.key, packet.tcp_flags, now) {
        Some(flow) => {
            // SAFETY: a map value of plain integers, copied as a whole; what changes meanwhile is whole words.
            work.flow = unsafe { *flow };
            decided::<F>(work, work.fault)
        }
        None if begins != CONTINUE => decided::<F>(work, begins),
        None => hand_to(F::FIRST_TAIL),
    }
}

#[inline(always)]
fn decided<F: Family>(work: &mut Work<F::Addr>, verdict: Verdict) -> Verdict {
    work.datagram.verdict = verdict;
    hand_to(F::NOTE_TAIL)
}

/// A fragment other than the first: it goes where the first one went.
#[inline(always)]
fn later<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    work: &mut Work<F::Addr>,
    stats: *mut InterfaceStats,
) -> Verdict {
    let key = datagram_key::<F>(work);
    let now = clock::now();
    let protocol = work.key.proto;
    let sound = work.datagram.part.is_sound(protocol, F::MAX_PARTS);
    let mut is_new = true;
    if let Some(note) = F::fragments().get_ptr_mut(&key) {
        // SAFETY: a map value. An LRU element may be given to another datagram while it is read; the copy then sends one
        // fragment astray, whose receiver has no use for it. The window is nanoseconds on a note about to be evicted.
        let note = unsafe { &*note };
        if note.is_decided(now) {
            return match note.fate {
                fate::PASS => stop(Counter::PassFragment),
                fate::DROP => stop(Counter::DropFragment),
                _ if !sound => stop(Counter::DropFragmentAttack),
                _ => follow::<F, MULTI_BUFFER>(ctx, packet, work, note, stats),
            };
        }
        is_new = false;
        if note.fate != fate::HELD {
            // Another datagram's, long ago.
            let _ = F::fragments().remove(&key);
            is_new = true;
        }
    }
    if F::FRAGMENTS_BY_PROTOCOL && !is_tracked::<F>(protocol) {
        return not_tracked::<F>(work);
    }
    if !concerns::<F>(work) {
        return stop(Counter::PassFragment);
    }
    if !sound {
        return stop(Counter::DropFragmentAttack);
    }
    if packet.total_len as usize > available::<MULTI_BUFFER>(ctx, packet) {
        return stop(Counter::DropMalformed);
    }
    hold::<F>(ctx, &key, is_new, now)
}

/// Translates a fragment and sends it the way of the first one.
#[inline(always)]
fn follow<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    work: &Work<F::Addr>,
    note: &Fragment<F::Addr>,
    stats: *mut InterfaceStats,
) -> Verdict {
    let Some(hop) = F::next_hops().get(u32::from(note.next_hop)) else {
        return stop(Counter::DropUnresolved);
    };
    if !is_valid::<F>(hop) {
        return stop(Counter::DropUnresolved);
    }
    if packet.total_len > u32::from(hop.mtu) {
        return too_big(hop.mtu);
    }
    if packet.total_len as usize > available::<MULTI_BUFFER>(ctx, packet) {
        return stop(Counter::DropMalformed);
    }
    let id = packet.data + (work.datagram.id_at & MAX_ID_AT) as usize;
    if !within(packet.l3, F::HEADER, packet.end) || !within(id, FRAGMENT_ID, packet.end) {
        return stop(Counter::DropMalformed);
    }
    // SAFETY: the IP header is in bounds, checked above.
    let hop_count = unsafe { load::<u8>(packet.l3 + F::HOP_COUNT) };
    if hop_count <= 1 {
        return stop(Counter::DropTtl);
    }
    if !F::header_holds(packet.l3, packet.l4) {
        return stop(Counter::DropChecksum);
    }
    // SAFETY: both are in bounds, checked above.
    unsafe {
        F::rewrite_part(packet.l3, hop_count, note);
        F::store_id(id, note.id);
    }
    account(note.backend, note.reply != 0, packet.total_len, stats);
    deliver::<F, MULTI_BUFFER>(ctx, packet, work.key.side.into(), hop, Counter::Forward)
}

/// The furthest that an identification may be, as a mask: the verifier wants to know.
pub const MAX_ID_AT: u32 = 0x3fff;

/// Gives the frame to the controller, until the first fragment of its datagram comes.
#[inline(always)]
fn hold<F: Family>(
    ctx: &XdpContext,
    key: &FragmentKey<F::Addr>,
    is_new: bool,
    now: u32,
) -> Verdict {
    let Some(record) = RECORD.get_ptr_mut(0) else {
        return stop(Counter::DropFragmentLimit);
    };
    // SAFETY: a per-CPU slot, and XDP programs do not nest.
    let record = unsafe { &mut *record };
    // SAFETY: a valid context.
    let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    if length > MAX_HELD as u64 {
        return stop(Counter::DropFragmentLimit);
    }
    // The verifier wants to see that it is at least 1.
    let length = (length.wrapping_sub(1) & (MAX_HELD as u64 - 1)) + 1;
    record.header.length = length as u32;
    record.header.family = F::EVENT;
    record.header.key = FragmentKey {
        saddr: F::widen(key.saddr),
        daddr: F::widen(key.daddr),
        id: key.id,
        proto: key.proto,
        side: key.side,
        _pad: 0,
    };
    // SAFETY: a valid context, and room for that many bytes.
    let loaded =
        unsafe { bpf_xdp_load_bytes(ctx.ctx, 0, record.frame.as_mut_ptr().cast(), length as u32) };
    if loaded != 0 {
        return stop(Counter::DropFragmentLimit);
    }
    // Before the record, so that a first fragment on another CPU tells the controller of itself. If it has come meanwhile,
    // the controller finds its note.
    if is_new {
        let held = Fragment { fate: fate::HELD, created: now, ..Fragment::default() };
        match F::fragments().insert(key, &held, BPF_NOEXIST.into()) {
            Ok(()) | Err(EEXIST) => {}
            Err(_) => return stop(Counter::DropFragmentLimit),
        }
    }
    // SAFETY: the record's first bytes, as many as are its header and the frame.
    let bytes = unsafe {
        core::slice::from_raw_parts(
            core::ptr::from_ref(record).cast::<u8>(),
            size_of::<HeldHeader>() + length as usize,
        )
    };
    match HELD.output_untyped::<[u8]>(bytes, 0) {
        Ok(()) => stop(Counter::HoldFragment),
        Err(_) => stop(Counter::DropFragmentLimit),
    }
}

/// The datagram that a fragment is part of.
#[inline(always)]
pub fn datagram_key<F: Family>(work: &Work<F::Addr>) -> FragmentKey<F::Addr> {
    FragmentKey {
        saddr: work.key.saddr,
        daddr: work.key.daddr,
        id: work.datagram.id,
        proto: if F::FRAGMENTS_BY_PROTOCOL { work.key.proto } else { 0 },
        side: work.key.side,
        _pad: 0,
    }
}

/// Whether there are connections of a protocol.
#[inline(always)]
fn is_tracked<F: Family>(protocol: u8) -> bool {
    protocol == proto::TCP || protocol == proto::UDP || protocol == F::Addr::ICMP.proto
}

/// The verdict on a fragment of what has no connections: what leaves a masqueraded source must not go untranslated.
#[inline(always)]
fn not_tracked<F: Family>(work: &Work<F::Addr>) -> Verdict {
    if leaves::<F>(&work.key.saddr, &work.key.daddr, work.key.side) {
        stop(Counter::DropProtocol)
    } else {
        stop(Counter::PassFragment)
    }
}

#[inline(always)]
fn refused<F: Family>(work: &Work<F::Addr>, counter: Counter) -> Verdict {
    if concerns::<F>(work) { stop(counter) } else { stop(Counter::PassFragment) }
}

/// Whether fragments may be of connections of ours, so that they must not go another way than the first one: to an address
/// that connections come to, or from the servers' side to us or out of our networks.
#[inline(never)]
pub fn concerns<F: Family>(work: &Work<F::Addr>) -> bool {
    let key = &work.key;
    let what = family::address::<F>(key.daddr);
    if what & (address::VIP | address::EXTERNAL) != 0 {
        return true;
    }
    if key.side != server_side() {
        return false;
    }
    if what != 0 {
        return true;
    }
    if F::is_scoped(key.daddr) {
        return false;
    }
    match family::route::<F>(key.daddr).and_then(|id| F::next_hops().get(id)) {
        Some(hop) => hop.dev == side::PUBLIC,
        None => true,
    }
}
