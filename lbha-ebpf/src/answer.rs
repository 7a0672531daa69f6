//! Answers a dropped packet with an ICMP error (RFC 1812 §4.3, RFC 4443 §2.4).

use aya_ebpf::{
    bindings::xdp_action,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use lbha_common::{
    addr::Addr,
    counter::Counter,
    flow::side,
    stats::InterfaceStats,
    wire::{ETH_HEADER, ICMP_HEADER, VLAN_TAG},
};

use crate::{
    access::{load, store, within},
    datapath::count,
    echo::HOPS,
    family::{self, Family},
    forward::swap_macs,
    limit,
    maps::{INTERFACE_STATS, SCRATCH},
    message,
    open::server_side,
    parse::{Packet, handed_over},
    verdict::{CONTINUE, stop},
};

/// The smallest MTU that IPv6 has (RFC 8200 §5).
const IPV6_MIN_MTU: u32 = 1280;

/// The packet was counted by whoever hands it over. Where it can't be answered, that stands.
#[inline(always)]
pub fn run<F: Family, const MULTI_BUFFER: bool>(ctx: &XdpContext) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return xdp_action::XDP_DROP;
    };
    // SAFETY: a per-CPU slot, and XDP programs do not nest.
    let (side, reason, mtu) = unsafe { ((*scratch).side, (*scratch).reason, (*scratch).mtu) };
    let side = side & (side::COUNT as u32 - 1);
    let Some(stats) = INTERFACE_STATS.get_ptr_mut(side) else {
        return xdp_action::XDP_DROP;
    };
    match error_for::<F>(side as u8, reason, mtu) {
        Some(error) if answer::<F, MULTI_BUFFER>(ctx, side, &error, stats) => {
            count(stop(error.counter), stats);
            xdp_action::XDP_TX
        }
        _ => xdp_action::XDP_DROP,
    }
}

/// What to say.
struct Error {
    kind: u8,
    code: u8,
    /// The header's second word, in host order.
    rest: u32,
    counter: Counter,
}

/// The error that tells a packet's sender why it was dropped.
#[inline(always)]
fn error_for<F: Family>(side: u8, reason: u32, mtu: u32) -> Option<Error> {
    const TTL: u32 = Counter::DropTtl as u32;
    const TOO_BIG: u32 = Counter::DropTooBig as u32;
    const NO_PORT: u32 = Counter::DropNoPort as u32;
    const QUOTA: u32 = Counter::DropQuota as u32;
    const NO_ROUTE: u32 = Counter::DropNoRoute as u32;
    let icmp = F::Addr::ICMP;
    let (kind, code, rest, counter) = match reason {
        TTL => (icmp.time_exceeded, 0, 0, Counter::AnswerTtl),
        TOO_BIG => {
            let least = if F::Addr::HEADER_CHECKSUM { 0 } else { IPV6_MIN_MTU };
            let mtu = if mtu < least { least } else { mtu };
            (icmp.too_big.0, icmp.too_big.1, mtu, Counter::AnswerTooBig)
        }
        // Anybody on the internet could cause these in a client's name; our own hosts are told.
        NO_PORT | QUOTA if side == server_side() => {
            (icmp.unreachable, icmp.prohibited, 0, Counter::AnswerUnreachable)
        }
        NO_ROUTE if side == server_side() => {
            (icmp.unreachable, icmp.no_route, 0, Counter::AnswerUnreachable)
        }
        _ => return None,
    };
    Some(Error { kind, code, rest, counter })
}

/// Puts the error in the packet's place.
#[inline(always)]
fn answer<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    side: u32,
    error: &Error,
    stats: *mut InterfaceStats,
) -> bool {
    let mut packet = Packet::new();
    if !handed_over::<F>(ctx, side, &mut packet) || !may_answer::<F, MULTI_BUFFER>(ctx, &mut packet)
    {
        return false;
    }
    let Some(source) = F::error_sources().get(side) else {
        return false;
    };
    if source.is_unspecified() {
        return false;
    }
    if !limit::allows() {
        count(stop(Counter::AnswerLimited), stats);
        return false;
    }
    let most = (F::Addr::ICMP.max_error - F::HEADER - ICMP_HEADER) as u32;
    let quoted = if packet.total_len < most { packet.total_len } else { most };
    let tags = packet.tags as usize & 3;
    // SAFETY: a valid context.
    let whole = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
    let wanted = (ETH_HEADER + tags * VLAN_TAG) as u32 + quoted;
    let grow = -((F::HEADER + ICMP_HEADER) as i32);
    // SAFETY: a valid context. Packet pointers are loaded anew below.
    unsafe {
        if bpf_xdp_adjust_tail(ctx.ctx, wanted.wrapping_sub(whole) as i32) != 0
            || bpf_xdp_adjust_head(ctx.ctx, grow) != 0
        {
            return false;
        }
    }
    write::<F>(ctx, tags, source, error, quoted)
}

/// Whether an error may be about this packet: RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e).
#[inline(always)]
fn may_answer<F: Family, const MULTI_BUFFER: bool>(ctx: &XdpContext, packet: &mut Packet) -> bool {
    let (saddr, daddr) = family::addresses::<F>(packet.l3);
    if F::is_scoped(saddr) || F::is_scoped(daddr) {
        return false;
    }
    // `None` for fragments but the first, too.
    let Some(upper) = F::upper_layer(packet.l3, packet.end) else {
        return false;
    };
    packet.l4 = packet.l3 + upper.offset;
    if upper.protocol == F::Addr::ICMP.proto {
        if !within(packet.l4, ICMP_HEADER, packet.end) {
            return false;
        }
        // SAFETY: in bounds, checked above.
        if !F::Addr::ICMP.is_echo(unsafe { load(packet.l4) }) {
            return false;
        }
    }
    F::lengths::<MULTI_BUFFER>(ctx, packet, upper.protocol) == CONTINUE
}

/// Writes all that comes before the quoted packet: it has been made room for, behind which the frame begins as it was.
#[inline(always)]
fn write<F: Family>(
    ctx: &XdpContext,
    tags: usize,
    source: &F::Addr,
    error: &Error,
    quoted: u32,
) -> bool {
    let (data, end) = (ctx.data(), ctx.data_end());
    let room = F::HEADER + ICMP_HEADER;
    let l3 = data + ETH_HEADER + tags * VLAN_TAG;
    if !within(data, ETH_HEADER + 2 * VLAN_TAG + room, end) || !within(l3, room + F::HEADER, end) {
        return false;
    }
    let length = ICMP_HEADER as u32 + quoted;
    let l4 = l3 + F::HEADER;
    // SAFETY: in bounds, checked above: the new headers, and the quoted IP header behind them.
    unsafe {
        // It goes back to where the packet came from, with its tags.
        let before = data + room;
        store(data, load::<u64>(before));
        store(data + 8, load::<u32>(before + 8));
        swap_macs(data);
        match tags {
            0 => store(data + 12, F::ETHERTYPE),
            1 => {
                store(data + 12, load::<u32>(before + 12));
                store(data + 16, F::ETHERTYPE);
            }
            _ => {
                store(data + 12, load::<u32>(before + 12));
                store(data + 16, load::<u32>(before + 16));
                store(data + 20, F::ETHERTYPE);
            }
        }
        F::write_header(l3, length as u16, HOPS);
        store(l3 + F::ADDRESSES, *source);
        let (to, _) = family::addresses::<F>(l3 + room);
        store(l3 + F::ADDRESSES + size_of::<F::Addr>(), to);
        F::write_checksum(l3);
        store(l4, error.kind);
        store(l4 + 1, error.code);
        store(l4 + 2, 0u16);
        store(l4 + 4, error.rest.to_be());
        let sum = message::sum(ctx, (l4 - data) as u32, length);
        let pseudo = message::pseudo_header(source, &to, length);
        store(l4 + 2, !message::fold(sum, pseudo));
        sum != 0
    }
}
