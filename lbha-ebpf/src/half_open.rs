//! Connections that the client has not confirmed yet.
//!
//! The first packet makes an entry a direction in the half-open table. The server's answer is noted in the client's
//! entry; the client's packet that follows confirms the connection and moves it to the flow table. For TCP that packet
//! must acknowledge the server's initial sequence number, so that a flood of spoofed SYN and ACK pairs never gets there.
//! The two entries may be evicted one without the other, and each can be made again from the other.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use lbha_common::{
    addr::Addr,
    conntrack::{self, state},
    counter::Counter,
    flow::{Flow, FlowKey},
    nexthop::next_hop_flag,
    wire::{proto, tcp},
};

use crate::{
    family::Family,
    maps::BACKEND_STATS,
    track::change,
    verdict::{CONTINUE, NOT_MINE, Verdict, stop},
    workspace::Work,
};

/// A packet whose tuple is in the half-open table; `NOT_MINE` when it is not, or not any more.
#[inline(never)]
pub fn half_open<F: Family>(work: &mut Work<F::Addr>) -> Verdict {
    let Some(entry) = F::half_open().get_ptr_mut(&work.key) else {
        return NOT_MINE;
    };
    if work.fault != CONTINUE {
        return work.fault;
    }
    // SAFETY: a map value. An LRU element may be given to another tuple while it is read; the copy then translates one
    // packet wrongly, which its receiver answers with a RST. The window is nanoseconds on an entry about to be evicted.
    unsafe {
        work.flow = *entry;
        (*entry).last_seen = work.now;
    }
    work.flow.last_seen = work.now;
    if work.flow.is_reply() { from_server::<F>(work, entry) } else { from_client::<F>(work, entry) }
}

#[inline(always)]
fn from_server<F: Family>(work: &mut Work<F::Addr>, entry: *mut Flow<F::Addr>) -> Verdict {
    let answers = if work.key.proto == proto::TCP {
        if work.tcp_flags & tcp::RST != 0 {
            mark_reset::<F>(&work.key, &work.flow, entry);
            return CONTINUE;
        }
        work.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK
    } else {
        true
    };
    if answers {
        work.other_key = work.key.peer(&work.flow);
        let confirmation = work.seq.wrapping_add(1);
        if let Some(client) = F::half_open().get_ptr_mut(&work.other_key) {
            // SAFETY: a map value; only compared.
            if !translates_back(&work.key, unsafe { &*client }) {
                // The client's half was evicted, and the client has begun anew elsewhere.
                let _ = F::half_open().remove(&work.key);
                return stop(Counter::DropConflict);
            }
            // SAFETY: a map value; aligned words.
            unsafe { (*client).expect_ack = confirmation };
            change(client, state::REPLIED, 0);
        } else {
            work.flow.mirror_to(&work.key, &mut work.other);
            work.other.expect_ack = confirmation;
            work.other.state |= state::REPLIED;
            // Refused only when the table is being torn at by others; the client then tries again.
            let _ = F::half_open().insert(&work.other_key, &work.other, BPF_ANY.into());
        }
    }
    CONTINUE
}

#[inline(always)]
fn from_client<F: Family>(work: &mut Work<F::Addr>, entry: *mut Flow<F::Addr>) -> Verdict {
    let asks = work.key.proto != proto::TCP || conntrack::opens(work.tcp_flags);
    if asks && work.flow.state & state::REPLIED == 0 && !is_resolved::<F>(work.flow.next_hop) {
        // The server has gone before it answered, and the client tries again: with another one.
        work.other_key = work.key.peer(&work.flow);
        let _ = F::half_open().remove(&work.key);
        let _ = F::half_open().remove(&work.other_key);
        return NOT_MINE;
    }
    if work.key.proto != proto::TCP {
        return if work.flow.state & state::REPLIED != 0 {
            promote::<F>(work)
        } else {
            keep_server_half::<F>(work)
        };
    }
    if work.tcp_flags & tcp::RST != 0 {
        mark_reset::<F>(&work.key, &work.flow, entry);
        return CONTINUE;
    }
    if work.tcp_flags & tcp::SYN != 0 {
        // A retransmission, or a new connection with the same tuple: the server tells them apart.
        change(entry, 0, state::RSTS);
        work.flow.state &= !state::RSTS;
        return keep_server_half::<F>(work);
    }
    let confirms = work.tcp_flags & tcp::ACK != 0
        && work.flow.state & state::REPLIED != 0
        && work.ack == work.flow.expect_ack;
    if confirms { promote::<F>(work) } else { stop(Counter::DropHandshake) }
}

#[inline(always)]
fn is_resolved<F: Family>(next_hop: u16) -> bool {
    F::next_hops().get(u32::from(next_hop)).is_some_and(|hop| hop.flags & next_hop_flag::VALID != 0)
}

/// Makes the server's direction again if it was evicted. If its tuple has gone to another connection since, this one
/// gives way: its next packet chooses anew.
#[inline(always)]
fn keep_server_half<F: Family>(work: &mut Work<F::Addr>) -> Verdict {
    work.other_key = work.key.peer(&work.flow);
    // SAFETY: only compared.
    if let Some(other) = unsafe { F::half_open().get(&work.other_key) }
        && translates_back(&work.key, other)
    {
        return CONTINUE;
    }
    // SAFETY: only looked at for existence.
    let taken = unsafe { F::flows().get(&work.other_key) }.is_some();
    work.flow.mirror_to(&work.key, &mut work.other);
    work.other.state &= !state::REPLIED;
    if taken || F::half_open().insert(&work.other_key, &work.other, BPF_NOEXIST.into()).is_err() {
        let _ = F::half_open().remove(&work.key);
        return stop(Counter::DropConflict);
    }
    CONTINUE
}

/// Whether `other`, found under the other direction's tuple, is the other direction of the connection under `key`.
#[inline(always)]
pub fn translates_back<A: Addr>(key: &FlowKey<A>, other: &Flow<A>) -> bool {
    other.saddr == key.daddr
        && other.daddr == key.saddr
        && other.sport == key.dport
        && other.dport == key.sport
}

/// Moves a confirmed connection to the flow table: both directions or neither.
#[inline(always)]
fn promote<F: Family>(work: &mut Work<F::Addr>) -> Verdict {
    // The client goes on, so a RST in its name was not its own.
    work.flow.state &= !(state::REPLIED | state::OWN_RST);
    work.flow.expect_ack = 0;
    if work.tcp_flags & tcp::FIN != 0 {
        work.flow.state |= state::OWN_FIN;
    }
    work.other_key = work.key.peer(&work.flow);
    work.flow.mirror_to(&work.key, &mut work.other);
    if F::flows().insert(&work.other_key, &work.other, BPF_NOEXIST.into()).is_err() {
        // SAFETY: only compared.
        match unsafe { F::flows().get(&work.other_key) } {
            // another CPU is promoting the same connection
            Some(other) if translates_back(&work.key, other) => {}
            Some(_) => {
                let _ = F::half_open().remove(&work.key);
                return stop(Counter::DropConflict);
            }
            None => return stop(Counter::DropTableFull),
        }
    }
    if F::flows().insert(&work.key, &work.flow, BPF_NOEXIST.into()).is_err() {
        // SAFETY: only looked at for existence.
        if unsafe { F::flows().get(&work.key) }.is_none() {
            let _ = F::flows().remove(&work.other_key);
            return stop(Counter::DropTableFull);
        }
    } else if let Some(stats) = BACKEND_STATS.get_ptr_mut(u32::from(work.flow.backend)) {
        // SAFETY: a per-CPU slot, and XDP programs do not nest.
        unsafe { (*stats).established += 1 };
    }
    let _ = F::half_open().remove(&work.key);
    let _ = F::half_open().remove(&work.other_key);
    CONTINUE
}

/// Notes a RST in both directions; the controller takes the entries away a little later.
#[inline(always)]
fn mark_reset<F: Family>(key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, entry: *mut Flow<F::Addr>) {
    change(entry, state::OWN_RST, 0);
    if let Some(peer) = F::half_open().get_ptr_mut(key.peer(flow)) {
        change(peer, state::PEER_RST, 0);
    }
}
