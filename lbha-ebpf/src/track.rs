//! Opening and closing flags on known connections.

use lbha_common::{
    conntrack::{self, state},
    flow::{Flow4, FlowKey4},
};

use crate::{atomic, maps::FLOWS4};

/// [`track`]'s answer when the entry is gone and the packet begins a new connection.
pub const REOPEN: u32 = 1;

/// Notes what a packet with SYN, FIN or RST, or the packet after a RST, says about its connection.
///
/// A function of its own, so that the hot path keeps its registers.
#[inline(never)]
pub fn track(key: &FlowKey4, flow: *mut Flow4, tcp_flags: u8) -> u32 {
    if flow.is_null() {
        return 0;
    }
    // SAFETY: a map value, not null.
    let (entry, peer_key) = unsafe { ((*flow).state, key.peer(&*flow)) };
    if conntrack::opens(tcp_flags) {
        if entry & state::REPLY == 0 && conntrack::is_closing(entry) {
            // The client's direction goes first: while the server's stands, its tuple can't be given to another.
            let _ = FLOWS4.remove(key);
            let _ = FLOWS4.remove(peer_key);
            return REOPEN;
        }
        return 0;
    }
    let update = conntrack::on_tcp(tcp_flags, entry);
    change(flow, update.own_set, update.own_clear);
    if update.peer_set | update.peer_clear != 0
        && let Some(peer) = FLOWS4.get_ptr_mut(peer_key)
    {
        change(peer, update.peer_set, update.peer_clear);
    }
    0
}

/// Sets and clears state bits. Atomically: the other direction may be on another CPU.
#[inline(always)]
pub fn change(flow: *mut Flow4, set: u32, clear: u32) {
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
