//! What becomes of a datagram's first fragment is noted for the others: a program of its own, after the decision.

use aya_ebpf::{
    bindings::{BPF_ANY, xdp_action},
    btf_maps::Array,
    helpers::bpf_get_prandom_u32,
    macros::btf_map,
    programs::XdpContext,
};
use lbha_common::{
    addr::Addr,
    counter::Counter,
    csum,
    event::{self, Event},
    fragment::{Fragment, fate},
    select,
    stats::InterfaceStats,
};

use crate::{
    access::{load, within},
    atomic,
    datapath::finish,
    echo::forward_echo,
    family::{FRAGMENT_ID, Family},
    first::locate,
    forward::forward,
    fragment::{MAX_ID_AT, concerns, datagram_key},
    maps::{EVENTS, INTERFACE_STATS},
    parse::Packet,
    route,
    verdict::{CONTINUE, Verdict, is_drop, stop},
    workspace::Work,
};

/// Where identifications come from: how many were given, and a secret. Not pinned.
#[btf_map]
static IDENTIFICATIONS: Array<u64, 2> = Array::new();
const GIVEN: u32 = 0;
const SECRET: u32 = 1;

/// Goes on with a first fragment that another program has decided on and described in the workspace.
#[inline(always)]
pub fn run<F: Family, const MULTI_BUFFER: bool>(ctx: &XdpContext) -> u32 {
    let Some(work) = F::workspace().get_ptr_mut(0) else {
        return xdp_action::XDP_DROP;
    };
    // SAFETY: a per-CPU slot, and XDP programs do not nest.
    let work = unsafe { &mut *work };
    let side = u32::from(work.key.side);
    let Some(stats) = INTERFACE_STATS.get_ptr_mut(side) else {
        return xdp_action::XDP_DROP;
    };
    let verdict = note::<F, MULTI_BUFFER>(ctx, work, stats);
    finish::<F, MULTI_BUFFER>(ctx, side, verdict, stats)
}

#[inline(always)]
fn note<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    work: &mut Work<F::Addr>,
    stats: *mut InterfaceStats,
) -> Verdict {
    let mut verdict = work.datagram.verdict;
    if verdict == CONTINUE {
        // Whatever would refuse the packet must do so before the others are told to follow it.
        verdict = route::check::<F>(work.flow.next_hop.into(), work.total_len);
    }
    if verdict != CONTINUE && !concerns::<F>(work) {
        return verdict;
    }
    write_down::<F>(work, verdict);
    if verdict != CONTINUE {
        return verdict;
    }
    let mut packet = Packet::new();
    if !locate::<F>(ctx, work, &mut packet) {
        return stop(Counter::DropMalformed);
    }
    let id = packet.data + (work.datagram.id_at & MAX_ID_AT) as usize;
    if !within(id, FRAGMENT_ID, packet.end) {
        return stop(Counter::DropMalformed);
    }
    // SAFETY: in bounds, checked above and by `locate`.
    unsafe {
        if load::<u8>(packet.l3 + F::HOP_COUNT) <= 1 {
            return stop(Counter::DropTtl);
        }
        F::store_id(id, work.datagram.id);
    }
    let flow = &work.flow;
    let (protocol, side) = (work.key.proto, u32::from(work.key.side));
    if protocol == F::Addr::ICMP.proto {
        return forward_echo::<F, MULTI_BUFFER>(ctx, &packet, side, flow, stats);
    }
    forward::<F, MULTI_BUFFER>(ctx, &packet, protocol, side, flow, stats)
}

/// Notes the verdict. If the datagram gets another identification, the workspace has it then, and the change of the IP
/// header's checksum with it.
#[inline(never)]
fn write_down<F: Family>(work: &mut Work<F::Addr>, verdict: Verdict) -> u32 {
    let key = datagram_key::<F>(work);
    // Not an `Option`: its value is not set where there is none, and would be spilled all the same.
    let (mut before, mut has_before) = (0, false);
    let mut held = false;
    if let Some(note) = F::fragments().get_ptr_mut(&key) {
        // SAFETY: a map value. One that is being given to another datagram costs this one its fragments, which come again.
        let note = unsafe { &*note };
        held = note.fate == fate::HELD;
        if note.fate == fate::FORWARD && note.is_decided(work.now) {
            (before, has_before) = (note.id, true);
        }
    }
    let mut note = Fragment { created: work.now, ..Fragment::default() };
    if verdict == CONTINUE {
        let flow = &mut work.flow;
        // Under a translated address the identifications of several hosts meet. The sender's own must not do that
        // (RFC 6864 §5.3, RFC 7857 §10), so its datagram gets one of ours.
        if flow.saddr != work.key.saddr {
            let old = work.datagram.id;
            // The same first fragment once more: those that follow it may be on their way already.
            let new = if has_before { before } else { identification::<F>(flow.daddr) };
            if F::Addr::HEADER_CHECKSUM {
                let change = csum::replace16(old as u16, new as u16);
                flow.l3_delta = csum::fold(u32::from(flow.l3_delta) + change);
            }
            work.datagram.id = new;
        }
        note.fate = fate::FORWARD;
        note.saddr = flow.saddr;
        note.daddr = flow.daddr;
        note.l3_delta = flow.l3_delta;
        note.next_hop = flow.next_hop;
        note.backend = flow.backend;
        note.reply = u8::from(flow.is_reply());
        note.id = work.datagram.id;
    } else {
        note.fate = if is_drop(verdict) { fate::DROP } else { fate::PASS };
    }
    let _ = F::fragments().insert(&key, &note, BPF_ANY.into());
    if held {
        let addr = F::widen(key.saddr);
        let event = Event { kind: event::kind::FRAGMENT, family: F::EVENT, addr };
        let _ = EVENTS.output(event, 0);
    }
    0
}

/// An identification that no other datagram to this host has had lately: a count over all CPUs, which does not come to the
/// same again before all are used, from another start for each destination, so that none of them learns from its own how
/// many others got (RFC 7739 §5.3).
#[inline(always)]
fn identification<F: Family>(daddr: F::Addr) -> u32 {
    let (Some(given), Some(secret)) =
        (IDENTIFICATIONS.get_ptr_mut(GIVEN), IDENTIFICATIONS.get_ptr_mut(SECRET))
    else {
        return 0;
    };
    // SAFETY: map values; the helper takes no arguments. Of two CPUs that draw the secret at once, one has an
    // identification from the other's start.
    unsafe {
        if *secret == 0 {
            *secret = u64::from(bpf_get_prandom_u32()) | 1 << 32;
        }
        let number = atomic::fetch_add(given, 1) as u32;
        F::id(number.wrapping_add(select::source_hash(daddr, *secret as u32)))
    }
}
