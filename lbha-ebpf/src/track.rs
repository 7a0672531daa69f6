//! Opening and closing flags on known connections.

use lbha_common::{
    conntrack::{self, state},
    flow::{Flow, FlowKey},
};

use crate::{atomic, family::Family, maps::BACKEND_STATS};

/// [`track`]'s answer when the entry is gone and the packet begins a new connection.
pub const REOPEN: u32 = 1;

/// Notes what a packet with SYN, FIN or RST, the packet after a RST, or one of a connection that is not established yet
/// says about its connection.
///
/// A function of its own, so that the hot path keeps its registers.
#[inline(never)]
pub fn track<F: Family>(key: &FlowKey<F::Addr>, flow: *mut Flow<F::Addr>, tcp_flags: u8) -> u32 {
    if flow.is_null() {
        return 0;
    }
    // SAFETY: a map value, not null.
    let (entry, owner, peer_key) =
        unsafe { ((*flow).state, u32::from((*flow).backend), key.peer(&*flow)) };
    if conntrack::opens(tcp_flags) && entry & state::REPLY == 0 && conntrack::is_closing(entry) {
        // The client's direction goes first: while the server's stands, its tuple can't be given to another.
        let _ = F::flows().remove(key);
        let _ = F::flows().remove(peer_key);
        return REOPEN;
    }
    let opening = conntrack::on_opening(key.proto, tcp_flags, entry);
    let closing = if conntrack::opens(tcp_flags) {
        conntrack::Update::default()
    } else {
        conntrack::on_tcp(tcp_flags, entry)
    };
    change(flow, opening.own_set | closing.own_set, opening.own_clear | closing.own_clear);
    let (set, clear) =
        (opening.peer_set | closing.peer_set, opening.peer_clear | closing.peer_clear);
    if set | clear != 0
        && let Some(peer) = F::flows().get_ptr_mut(peer_key)
    {
        change(peer, set, clear);
    }
    if opening.own_clear & state::OPENING != 0
        && let Some(stats) = BACKEND_STATS.get_ptr_mut(owner)
    {
        // SAFETY: a per-CPU slot, and XDP programs do not nest.
        unsafe { (*stats).established += 1 };
    }
    0
}

/// Sets and clears state bits. Atomically: the other direction may be on another CPU.
#[inline(always)]
pub fn change<A>(flow: *mut Flow<A>, set: u32, clear: u32) {
    // SAFETY: a map value.
    unsafe {
        let word = &raw mut (*flow).state;
        if clear != 0 {
            atomic::and(word, !clear);
        }
        if set != 0 {
            atomic::or(word, set);
        }
    }
}
