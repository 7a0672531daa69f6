//! Connections that the client has not confirmed yet.
//!
//! The first packet makes an entry a direction in the half-open table. The server's answer is noted in the client's
//! entry; the client's packet that follows confirms the connection and moves it to the flow table. For TCP that packet
//! must acknowledge the server's initial sequence number, so that a flood of spoofed SYN and ACK pairs never gets there.
//! The two entries may be evicted one without the other, and each can be made again from the other.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use lbha_common::{
    conntrack::state,
    counter::Counter,
    flow::{Flow4, FlowKey4},
    wire::{proto, tcp},
};

use crate::{
    maps::{BACKEND_STATS, FLOWS4, HALF_OPEN4},
    open::First,
    track::change,
    verdict::{CONTINUE, Verdict, stop},
};

/// A packet whose tuple is in the half-open table under `entry`.
#[inline(always)]
pub fn half_open(first: &mut First, entry: *mut Flow4) -> Verdict {
    // SAFETY: a map value. An LRU element may be given to another tuple while it is read; the copy then translates one
    // packet wrongly, which its receiver answers with a RST. The window is nanoseconds on an entry about to be evicted.
    unsafe {
        first.flow = *entry;
        (*entry).last_seen = first.now;
    }
    first.flow.last_seen = first.now;
    if first.flow.is_reply() { from_server(first, entry) } else { from_client(first, entry) }
}

#[inline(always)]
fn from_server(first: &mut First, entry: *mut Flow4) -> Verdict {
    let answers = if first.key.proto == proto::TCP {
        if first.tcp_flags & tcp::RST != 0 {
            mark_reset(&first.key, &first.flow, entry);
            return CONTINUE;
        }
        first.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK
    } else {
        true
    };
    if answers {
        first.other_key = first.key.peer(&first.flow);
        let confirmation = first.seq.wrapping_add(1);
        if let Some(client) = HALF_OPEN4.get_ptr_mut(first.other_key) {
            // SAFETY: a map value; only compared.
            if !translates_back(&first.key, unsafe { &*client }) {
                // The client's half was evicted, and the client has begun anew elsewhere.
                let _ = HALF_OPEN4.remove(first.key);
                return stop(Counter::DropConflict);
            }
            // SAFETY: a map value; aligned words.
            unsafe { (*client).expect_ack = confirmation };
            change(client, state::REPLIED, 0);
        } else {
            first.other = first.flow.mirror(&first.key);
            first.other.expect_ack = confirmation;
            first.other.state |= state::REPLIED;
            // Refused only when the table is being torn at by others; the client then tries again.
            let _ = HALF_OPEN4.insert(first.other_key, &first.other, BPF_ANY.into());
        }
    }
    CONTINUE
}

#[inline(always)]
fn from_client(first: &mut First, entry: *mut Flow4) -> Verdict {
    if first.key.proto != proto::TCP {
        return if first.flow.state & state::REPLIED != 0 {
            promote(first)
        } else {
            keep_server_half(first)
        };
    }
    if first.tcp_flags & tcp::RST != 0 {
        mark_reset(&first.key, &first.flow, entry);
        return CONTINUE;
    }
    if first.tcp_flags & tcp::SYN != 0 {
        // A retransmission, or a new connection with the same tuple: the server tells them apart.
        change(entry, 0, state::RSTS);
        first.flow.state &= !state::RSTS;
        return keep_server_half(first);
    }
    let confirms = first.tcp_flags & tcp::ACK != 0
        && first.flow.state & state::REPLIED != 0
        && first.ack == first.flow.expect_ack;
    if confirms { promote(first) } else { stop(Counter::DropHandshake) }
}

/// Makes the server's direction again if it was evicted. If its tuple has gone to another connection since, this one
/// gives way: its next packet chooses anew.
#[inline(always)]
fn keep_server_half(first: &mut First) -> Verdict {
    first.other_key = first.key.peer(&first.flow);
    // SAFETY: only compared.
    if let Some(other) = unsafe { HALF_OPEN4.get(first.other_key) }
        && translates_back(&first.key, other)
    {
        return CONTINUE;
    }
    // SAFETY: only looked at for existence.
    let taken = unsafe { FLOWS4.get(first.other_key) }.is_some();
    first.other = first.flow.mirror(&first.key);
    first.other.state &= !state::REPLIED;
    if taken || HALF_OPEN4.insert(first.other_key, &first.other, BPF_NOEXIST.into()).is_err() {
        let _ = HALF_OPEN4.remove(first.key);
        return stop(Counter::DropConflict);
    }
    CONTINUE
}

/// Whether `other`, found under the other direction's tuple, is the other direction of the connection under `key`.
#[inline(always)]
pub fn translates_back(key: &FlowKey4, other: &Flow4) -> bool {
    other.saddr == key.daddr
        && other.daddr == key.saddr
        && other.sport == key.dport
        && other.dport == key.sport
}

/// Moves a confirmed connection to the flow table: both directions or neither.
#[inline(always)]
fn promote(first: &mut First) -> Verdict {
    // The client goes on, so a RST in its name was not its own.
    first.flow.state &= !(state::REPLIED | state::OWN_RST);
    first.flow.expect_ack = 0;
    if first.tcp_flags & tcp::FIN != 0 {
        first.flow.state |= state::OWN_FIN;
    }
    first.other_key = first.key.peer(&first.flow);
    first.other = first.flow.mirror(&first.key);
    if FLOWS4.insert(first.other_key, &first.other, BPF_NOEXIST.into()).is_err() {
        // SAFETY: only compared.
        match unsafe { FLOWS4.get(first.other_key) } {
            // another CPU is promoting the same connection
            Some(other) if translates_back(&first.key, other) => {}
            Some(_) => {
                let _ = HALF_OPEN4.remove(first.key);
                return stop(Counter::DropConflict);
            }
            None => return stop(Counter::DropTableFull),
        }
    }
    if FLOWS4.insert(first.key, &first.flow, BPF_NOEXIST.into()).is_err() {
        // SAFETY: only looked at for existence.
        if unsafe { FLOWS4.get(first.key) }.is_none() {
            let _ = FLOWS4.remove(first.other_key);
            return stop(Counter::DropTableFull);
        }
    } else if let Some(stats) = BACKEND_STATS.get_ptr_mut(u32::from(first.flow.backend)) {
        // SAFETY: a per-CPU slot, and XDP programs do not nest.
        unsafe { (*stats).established += 1 };
    }
    let _ = HALF_OPEN4.remove(first.key);
    let _ = HALF_OPEN4.remove(first.other_key);
    CONTINUE
}

/// Notes a RST in both directions; the controller takes the entries away a little later.
#[inline(always)]
fn mark_reset(key: &FlowKey4, flow: &Flow4, entry: *mut Flow4) {
    change(entry, state::OWN_RST, 0);
    if let Some(peer) = HALF_OPEN4.get_ptr_mut(key.peer(flow)) {
        change(peer, state::PEER_RST, 0);
    }
}
