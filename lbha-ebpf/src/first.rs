//! Packets that belong to no confirmed connection: a program of its own, so that the way of all others stays short, for
//! the verifier too.

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use lbha_common::{
    addr::Addr,
    counter::Counter,
    service::{ServiceKey, address},
    stats::InterfaceStats,
    wire::{ETH_HEADER, UDP_HEADER, VLAN_TAG, proto, tcp},
};

use crate::{
    access::{load, within},
    datapath::finish,
    echo::forward_echo,
    family::{self, Family},
    forward::forward,
    half_open::half_open,
    maps::INTERFACE_STATS,
    masquerade, open,
    parse::Packet,
    verdict::{CLAIM, CLAIM_BINDING, CLAIM_HALF_OPEN, CONTINUE, NOT_MINE, Verdict, hand_to, stop},
    workspace::Work,
};

/// The furthest that the layer 4 header may begin: the verifier wants to know.
pub const MAX_L4: u32 = 0x3fff;

/// Goes on with the packet that another program has described in the workspace.
#[inline(always)]
pub fn run<F: Family, const MULTI_BUFFER: bool>(ctx: &XdpContext) -> u32 {
    let Some(work) = F::workspace().get_ptr_mut(0) else {
        return xdp_action::XDP_DROP;
    };
    // SAFETY: a per-CPU slot, and XDP programs do not nest: nobody else looks at it during this packet.
    let work = unsafe { &mut *work };
    let side = u32::from(work.key.side);
    let Some(stats) = INTERFACE_STATS.get_ptr_mut(side) else {
        return xdp_action::XDP_DROP;
    };
    let verdict = decide::<F, MULTI_BUFFER>(ctx, work, stats);
    finish::<F, MULTI_BUFFER>(ctx, side, verdict, stats)
}

#[inline(always)]
pub fn decide<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    work: &mut Work<F::Addr>,
    stats: *mut InterfaceStats,
) -> Verdict {
    let mut packet = Packet::new();
    let protocol = work.key.proto;
    if !locate::<F>(ctx, work, &mut packet) {
        return stop(Counter::DropMalformed);
    }
    work.seq = 0;
    work.ack = 0;
    if protocol == proto::TCP {
        if !within(packet.l4, tcp::HEADER, packet.end) {
            return stop(Counter::DropMalformed);
        }
        // SAFETY: in bounds, checked above.
        unsafe {
            work.seq = u32::from_be(load(packet.l4 + 4));
            work.ack = u32::from_be(load(packet.l4 + 8));
        }
    }
    let verdict = first_packet::<F>(work);
    if work.fragment != 0 {
        work.datagram.verdict = verdict;
        return hand_to(F::NOTE_TAIL);
    }
    if verdict != CONTINUE {
        return verdict;
    }
    let flow = &work.flow;
    if protocol == F::Addr::ICMP.proto {
        return forward_echo::<F, MULTI_BUFFER>(ctx, &packet, work.key.side.into(), flow, stats);
    }
    forward::<F, MULTI_BUFFER>(ctx, &packet, protocol, work.key.side.into(), flow, stats)
}

/// Decides on a packet that the flow table does not know. On `CONTINUE`, `work.flow` is its translation.
#[inline(always)]
fn first_packet<F: Family>(work: &mut Work<F::Addr>) -> Verdict {
    let verdict = half_open::<F>(work);
    if verdict != NOT_MINE {
        return verdict;
    }
    let mut verdict = open::service::<F>(work);
    let mut what = 0;
    if verdict == NOT_MINE {
        what = family::address::<F>(work.key.daddr);
        verdict = masquerade::masquerade::<F>(work, what);
    }
    if verdict == NOT_MINE {
        verdict = masquerade::through_binding::<F>(work, what);
    }
    match verdict {
        CLAIM_HALF_OPEN => return open::claim::<F>(work),
        CLAIM => return masquerade::claim::<F>(work),
        CLAIM_BINDING => return masquerade::claim_by_binding::<F>(work),
        NOT_MINE => {}
        _ => return verdict,
    }
    let key = &work.key;
    let from = ServiceKey::new(key.saddr, key.sport, key.proto);
    // A server's answer without a connection. To an address of this host it may answer the host itself (health checks);
    // anywhere else the kernel would route it out with a private source.
    // SAFETY: only looked at for existence.
    if what & address::LOCAL == 0 && unsafe { F::servers().get(from) }.is_some() {
        return stop(Counter::DropNoFlow);
    }
    if key.proto == F::Addr::ICMP.proto {
        return stop(Counter::PassIcmp);
    }
    stop(Counter::PassUnmatched)
}

/// Finds the headers again where they were found before.
#[inline(always)]
pub fn locate<F: Family>(ctx: &XdpContext, work: &Work<F::Addr>, packet: &mut Packet) -> bool {
    packet.data = ctx.data();
    packet.end = ctx.data_end();
    if !within(packet.data, ETH_HEADER + 2 * VLAN_TAG, packet.end) {
        return false;
    }
    packet.l3 = packet.data + (work.l3 & 0x1f) as usize;
    packet.l4 = packet.data + (work.l4 & MAX_L4) as usize;
    packet.tags = work.tags;
    packet.total_len = work.total_len;
    packet.tcp_flags = work.tcp_flags;
    within(packet.l3, F::HEADER, packet.end) && within(packet.l4, UDP_HEADER, packet.end)
}
