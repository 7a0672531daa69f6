//! ICMP errors about connections of ours: translated outside and inside (RFC 5508 §4).
//!
//! An error quotes a packet as it was translated. Whoever sent it would get its answers under the reverse tuple, so the
//! entry of the answers says what the packet was before: its destination and source are the quoted packet's original
//! source and destination. Nothing here changes an entry (RFC 5508 REQ-6, RFC 5382 REQ-10): anybody can send an error.

use aya_ebpf::programs::XdpContext;
use lbha_common::{
    addr::{Addr, Be16},
    counter::Counter,
    csum,
    flow::{Flow, FlowKey},
    service::address,
    stats::InterfaceStats,
    wire::{ICMP_HEADER, UDP_HEADER, proto},
};

use crate::{
    access::{load, store, within},
    family::{self, Family},
    forward::{account, ahead, deliver},
    masquerade, message,
    parse::Packet,
    verdict::{CONTINUE, NOT_MINE, Verdict, stop},
    workspace::Work,
};

/// Bytes of the quoted packet's IP headers, as a mask.
const MAX_HEADERS: u32 = 0x3ff;

/// An error message, whose first 8 bytes are in bounds.
#[inline(always)]
pub fn error<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    work: &mut Work<F::Addr>,
    stats: *mut InterfaceStats,
) -> Verdict {
    let mut verdict = F::lengths::<MULTI_BUFFER>(ctx, packet, F::Addr::ICMP.proto);
    if verdict == CONTINUE {
        verdict = translate::<F, MULTI_BUFFER>(ctx, packet, work, stats);
        if verdict != NOT_MINE {
            return verdict;
        }
        verdict = stop(Counter::DropIcmpNoFlow);
    }
    // To this host it may be about the host's own traffic, from whichever of its addresses.
    let came = &work.other_key;
    let what = family::address::<F>(came.daddr);
    if what & address::LOCAL == 0
        && (what != 0 || masquerade::leaves::<F>(&came.saddr, &came.daddr, came.side))
    {
        return verdict;
    }
    stop(Counter::PassIcmp)
}

/// What an error quotes.
struct Quoted {
    /// Bytes from the quoted packet's IP header to its layer 4, and from there to the end of the quote.
    headers: u32,
    length: u32,
}

/// `NOT_MINE` when the error is about no connection of ours.
#[inline(always)]
fn translate<F: Family, const MULTI_BUFFER: bool>(
    ctx: &XdpContext,
    packet: &Packet,
    work: &mut Work<F::Addr>,
    stats: *mut InterfaceStats,
) -> Verdict {
    let Some(quoted) = read::<F>(packet, work) else {
        return NOT_MINE;
    };
    if !find::<F>(work) {
        return NOT_MINE;
    }
    // RFC 5508 REQ-3: an error with a wrong checksum goes nowhere, nor one (a) that quotes an IP header with a wrong one. The
    // quoted packet's own checksum is not looked at (c): most of what it covers is not here.
    let length = length_of(packet);
    let sum = message::sum(ctx, (packet.l4 - packet.data) as u32, length);
    let came = &work.other_key;
    let pseudo = message::pseudo_header(&came.saddr, &came.daddr, length);
    let holds = sum != 0
        && message::fold(sum, pseudo) == 0xffff
        && (!F::Addr::HEADER_CHECKSUM || message::quoted_header_holds(quoted.headers));
    if !holds {
        return stop(Counter::DropIcmpChecksum);
    }
    let flow = &work.other;
    let (hop, hop_count) = match ahead::<F>(packet, flow.next_hop) {
        Ok(ahead) => ahead,
        Err(verdict) => return verdict,
    };
    // An error of the remote host's side keeps its sender, so that traceroute shows routers as they are. One from inside
    // gets the address that the connection has outside (RFC 5508 REQ-5): private addresses stay inside.
    work.flow.saddr = if flow.saddr == work.key.saddr { came.saddr } else { flow.saddr };
    work.flow.daddr = flow.daddr;
    let outer = came.saddr.replaced_by(work.flow.saddr) + came.daddr.replaced_by(work.flow.daddr);

    let (l3, l4) = (packet.l3, packet.l4);
    if !within(l4, ICMP_HEADER + F::HEADER, packet.end) {
        return stop(Counter::DropMalformed);
    }
    let quote = Quote { l3: l4 + ICMP_HEADER, l4: 0, end: packet.end };
    let quote = Quote { l4: quote.l3 + (quoted.headers & MAX_HEADERS) as usize, ..quote };
    // SAFETY: the quoted IP header is in bounds, checked above.
    let Some(mut changed) = (unsafe { rewrite_quoted::<F>(&quote, quoted.length, work) }) else {
        return stop(Counter::DropMalformed);
    };
    if !F::Addr::HEADER_CHECKSUM {
        changed += outer;
    }
    let flow = &work.other;
    work.flow.l3_delta = csum::fold(outer + u32::from(F::Addr::HOP_DELTA));
    // SAFETY: the outer headers are in bounds (whoever has found the ICMP header).
    unsafe {
        F::rewrite(l3, hop_count, &work.flow);
        store(l4 + 2, csum::apply(load(l4 + 2), csum::fold(changed)));
    }
    account(flow.backend, flow.is_reply(), packet.total_len, stats);
    deliver::<F, MULTI_BUFFER>(
        ctx,
        packet,
        work.other_key.side.into(),
        hop,
        Counter::ForwardIcmpError,
    )
}

/// Length of the ICMP message.
#[inline(always)]
fn length_of(packet: &Packet) -> u32 {
    packet.total_len.wrapping_sub((packet.l4 - packet.l3) as u32)
}

/// Reads the quoted packet's tuple, and writes the reverse of it to `work.key`. `None` when it has none that we translate:
/// it is an error itself, another protocol, a fragment without ports, or cut off before them.
#[inline(always)]
fn read<F: Family>(packet: &Packet, work: &mut Work<F::Addr>) -> Option<Quoted> {
    let quote = packet.l4 + ICMP_HEADER;
    if !within(quote, F::HEADER, packet.end) {
        return None;
    }
    let upper = F::upper_layer(quote, packet.end)?;
    let l4 = quote + upper.offset;
    let headers = upper.offset as u32;
    let length = length_of(packet).wrapping_sub(ICMP_HEADER as u32 + headers);
    // RFC 792 quotes 8 bytes of it at least. Padding of the frame is not part of the quote.
    if headers > MAX_HEADERS
        || (length as i32) < UDP_HEADER as i32
        || !within(l4, UDP_HEADER, packet.end)
    {
        return None;
    }
    let icmp = F::Addr::ICMP;
    let none = Be16::default();
    // SAFETY: in bounds, checked above.
    let (sport, dport) = unsafe {
        match upper.protocol {
            proto::TCP | proto::UDP => (Be16::from_raw(load(l4)), Be16::from_raw(load(l4 + 2))),
            protocol if protocol == icmp.proto => {
                let kind = load::<u8>(l4);
                let identifier = Be16::from_raw(load(l4 + 4));
                if kind == icmp.echo_request {
                    (identifier, none)
                } else if kind == icmp.echo_reply {
                    (none, identifier)
                } else {
                    return None;
                }
            }
            _ => return None,
        }
    };
    let (saddr, daddr) = family::addresses::<F>(quote);
    // Whoever is told must be the one who sent the packet; an error to anybody else was not caused by it.
    if work.other_key.daddr != saddr {
        return None;
    }
    work.key = FlowKey {
        saddr: daddr,
        daddr: saddr,
        sport: dport,
        dport: sport,
        proto: upper.protocol,
        side: work.other_key.side,
        _pad: 0,
    };
    Some(Quoted { headers, length })
}

/// Copies the entry under `work.key` to `work.other`, of a connection that is confirmed or half open.
#[inline(always)]
fn find<F: Family>(work: &mut Work<F::Addr>) -> bool {
    // SAFETY: only read; what changes at the same time is whole words.
    let entry = unsafe { F::flows().get(&work.key).or_else(|| F::half_open().get(&work.key)) };
    match entry {
        Some(entry) => {
            work.other = *entry;
            true
        }
        None => false,
    }
}

/// Where the quoted packet lies.
struct Quote {
    l3: usize,
    l4: usize,
    end: usize,
}

/// Makes the quoted packet what it was before it was translated. Gives the unfolded delta of all changes; `None`, with
/// nothing changed, when the quote can't be read after all.
///
/// # Safety
/// The quoted IP header is in bounds.
#[inline(always)]
unsafe fn rewrite_quoted<F: Family>(
    quote: &Quote,
    length: u32,
    work: &Work<F::Addr>,
) -> Option<u32> {
    let (key, flow): (&FlowKey<F::Addr>, &Flow<F::Addr>) = (&work.key, &work.other);
    let at = match key.proto {
        proto::TCP => 16,
        proto::UDP => 6,
        _ => 2,
    };
    let check = quote.l4 + at;
    // With no more than 8 bytes of it quoted, TCP's is missing.
    let is_quoted = length as usize >= at + 2;
    if !within(quote.l4, UDP_HEADER, quote.end) || is_quoted && !within(check, 2, quote.end) {
        return None;
    }
    let addresses = key.saddr.replaced_by(flow.saddr) + key.daddr.replaced_by(flow.daddr);
    let mut changed = addresses
        + csum::replace16(key.sport.raw(), flow.sport.raw())
        + csum::replace16(key.dport.raw(), flow.dport.raw());
    // SAFETY: the IP header is in bounds (the caller's), layer 4 and its checksum are too (above).
    unsafe {
        if F::Addr::HEADER_CHECKSUM {
            let before = load::<u16>(quote.l3 + 10);
            let after = csum::apply(before, csum::fold(addresses));
            store(quote.l3 + 10, after);
            changed += csum::replace16(before, after);
        }
        store(quote.l3 + F::ADDRESSES, flow.daddr);
        store(quote.l3 + F::ADDRESSES + size_of::<F::Addr>(), flow.saddr);
        if key.proto == F::Addr::ICMP.proto {
            store(quote.l4 + 4, flow.identifier().raw());
        } else {
            store(quote.l4, flow.dport.raw());
            store(quote.l4 + 2, flow.sport.raw());
        }
        if is_quoted {
            let before = load::<u16>(check);
            let after = if key.proto == proto::UDP {
                csum::apply_udp(before, flow.l4_delta)
            } else {
                csum::apply(before, flow.l4_delta)
            };
            store(check, after);
            changed += csum::replace16(before, after);
        }
    }
    Some(changed)
}
