//! ICMP echo: through masquerade, and to VIPs.
//!
//! The identifier stands for the port of the side that asks (RFC 5508 §3.1), see [`lbha_common::flow::FlowKey`].

use aya_ebpf::programs::XdpContext;
use lbha_common::{
    addr::{Addr, Be16},
    counter::Counter,
    csum,
    flow::{Flow, FlowKey},
    service::{address, setting},
    stats::InterfaceStats,
    wire::ICMP_HEADER,
};

use crate::{
    access::{load, store, within},
    clock,
    datapath::{fault, known},
    family::{self, Family},
    forward::{account, ahead, deliver, swap_macs},
    maps::SETTINGS,
    masquerade,
    open::server_side,
    parse::Packet,
    verdict::{CONTINUE, Verdict, hand_to, stop},
    workspace::Work,
};

/// The hop count of packets that the program makes itself, as most hosts set it.
pub const HOPS: u8 = 64;

/// An echo request or its reply, whose header is in bounds.
#[inline(always)]
pub fn echo<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    work: &mut Work<F::Addr>,
    kind: u8,
    stats: *mut InterfaceStats,
) -> Verdict {
    let asks = kind == F::Addr::ICMP.echo_request;
    // SAFETY: the ICMP header is in bounds.
    let identifier = Be16::from_raw(unsafe { load(packet.l4 + 4) });
    let none = Be16::default();
    let (sport, dport) = if asks { (identifier, none) } else { (none, identifier) };
    let proto = F::Addr::ICMP.proto;
    let FlowKey { saddr, daddr, side, .. } = work.other_key;
    work.key = FlowKey { saddr, daddr, sport, dport, proto, side, _pad: 0 };
    let key = &work.key;
    let now = clock::now();
    if let Some(flow) = known::<F>(key, 0, now) {
        let verdict = F::lengths::<MULTI_BUFFER>(ctx, packet, proto);
        if verdict != CONTINUE {
            return verdict;
        }
        // SAFETY: a map value, see datapath::layer3.
        let flow = unsafe { &*flow };
        return forward_echo::<F, MULTI_BUFFER>(ctx, packet, side.into(), flow, stats);
    }
    if asks && family::address::<F>(key.daddr) & address::VIP != 0 {
        return ping::<F, MULTI_BUFFER>(ctx, packet);
    }
    let verdict = unknown_echo::<F>(work, asks);
    if verdict != CONTINUE {
        return verdict;
    }
    let fault = fault::<F, MULTI_BUFFER>(ctx, packet, proto);
    work.describe(now, packet, fault);
    hand_to(F::FIRST_TAIL)
}

/// The verdict on an echo that is part of no connection, but for a whole one to a VIP; `CONTINUE` when it may begin one.
#[inline(never)]
pub fn unknown_echo<F: Family>(work: &Work<F::Addr>, asks: bool) -> Verdict {
    let key = &work.key;
    if !asks {
        return if masquerade::leaves::<F>(&key.saddr, &key.daddr, key.side) {
            stop(Counter::DropNoFlow)
        } else {
            stop(Counter::PassIcmp)
        };
    }
    if family::address::<F>(key.daddr) & (address::LOCAL | address::VIP) != 0
        || key.side != server_side()
        || family::rule_of::<F>(key.saddr).is_none()
    {
        return stop(Counter::PassIcmp);
    }
    CONTINUE
}

/// [`crate::forward::forward`] for an echo: it has an identifier for ports, and its checksum elsewhere.
#[inline(always)]
pub fn forward_echo<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    side: u32,
    flow: &Flow<F::Addr>,
    stats: *mut InterfaceStats,
) -> Verdict {
    let (hop, hop_count) = match ahead::<F>(packet, flow.next_hop) {
        Ok(ahead) => ahead,
        Err(verdict) => return verdict,
    };
    let (l3, l4) = (packet.l3, packet.l4);
    if !within(l4, ICMP_HEADER, packet.end) {
        return stop(Counter::DropMalformed);
    }
    // SAFETY: the IP header is in bounds (whoever has found the ICMP header), the ICMP header too (above).
    unsafe {
        F::rewrite(l3, hop_count, flow);
        let identifier = flow.identifier().raw();
        store(l4 + 2, csum::apply_echo(load(l4 + 2), flow.l4_delta, identifier));
        store(l4 + 4, identifier);
    }
    account(flow.backend, flow.is_reply(), packet.total_len, stats);
    deliver::<F, MULTI_BUFFER>(ctx, packet, side, hop, Counter::Forward)
}

/// Answers a request to a VIP, if that is wanted: the frame goes back with its ends exchanged. What would have to be
/// rebuilt for that (options, extension headers), and whoever can't be answered, is the kernel's.
#[inline(always)]
fn ping<F: Family, const MULTI_BUFFER: bool>(ctx: &XdpContext, packet: &Packet) -> Verdict {
    if SETTINGS.get(0).is_none_or(|settings| settings.flags & setting::PING == 0) {
        return stop(Counter::DropPing);
    }
    let verdict = F::lengths::<MULTI_BUFFER>(ctx, packet, F::Addr::ICMP.proto);
    if verdict != CONTINUE {
        return verdict;
    }
    let (l3, l4) = (packet.l3, packet.l4);
    let (saddr, daddr) = family::addresses::<F>(l3);
    if l4 - l3 != F::HEADER || F::is_scoped(saddr) {
        return stop(Counter::PassIcmp);
    }
    // SAFETY: the headers are in bounds (whoever has found the ICMP header). Exchanging the addresses changes no sum.
    unsafe {
        swap_macs(packet.data);
        store(l3 + F::ADDRESSES, daddr);
        store(l3 + F::ADDRESSES + size_of::<F::Addr>(), saddr);
        F::set_hop_count(l3, HOPS);
        let before = load::<u16>(l4);
        store(l4, F::Addr::ICMP.echo_reply);
        let delta = csum::fold(csum::replace16(before, load(l4)));
        store(l4 + 2, csum::apply_echo(load(l4 + 2), delta, load(l4 + 4)));
    }
    stop(Counter::AnswerEcho)
}
