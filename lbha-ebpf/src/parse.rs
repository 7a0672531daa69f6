//! From a frame to its IP packet; the packet itself is read by `ipv4` and `ipv6`.

use aya_ebpf::{helpers::bpf_xdp_get_buff_len, programs::XdpContext};
use lbha_common::{
    addr::Be16,
    counter::Counter,
    nexthop::Interface,
    service::address,
    wire::{ETH_HEADER, IPV4_HEADER, UDP_HEADER, VLAN_ID, VLAN_TAG, ethertype},
};

use crate::{
    access::{load, within},
    family::{self, Family},
    maps::INTERFACES,
    masquerade::leaves,
    verdict::{CONTINUE, Verdict, stop},
};

/// Where the headers of a packet lie, as packet pointers, and what was read on the way.
pub struct Packet {
    pub data: usize,
    /// IP header.
    pub l3: usize,
    /// TCP or UDP header; 20 or 8 bytes of it are in bounds.
    pub l4: usize,
    pub end: usize,
    /// VLAN tags of the frame.
    pub tags: u32,
    /// EtherType behind the tags, as a raw load.
    pub ethertype: u16,
    /// Length of the IP packet, not checked yet (see [`Family::lengths`]).
    pub total_len: u32,
    pub tcp_flags: u8,
}

impl Packet {
    #[inline(always)]
    pub const fn new() -> Self {
        Self { data: 0, l3: 0, l4: 0, end: 0, tags: 0, ethertype: 0, total_len: 0, tcp_flags: 0 }
    }
}

/// Layer 2: whether the frame is for this interface, and where its IP header begins. 20 bytes of it are in bounds.
#[inline(always)]
pub fn ethernet(ctx: &XdpContext, interface: &Interface, packet: &mut Packet) -> Verdict {
    let (data, end) = (ctx.data(), ctx.data_end());
    if !within(data, ETH_HEADER + IPV4_HEADER, end) {
        return stop(Counter::PassNotIp);
    }
    // SAFETY: in bounds, checked above; an array of bytes is compared as two words.
    let other_mac = unsafe {
        let mac = interface.mac.as_ptr() as usize;
        load::<u32>(data) ^ load::<u32>(mac)
            | u32::from(load::<u16>(data + 4) ^ load::<u16>(mac + 4))
    };
    if other_mac != 0 {
        return stop(Counter::PassMac);
    }
    packet.data = data;
    packet.end = end;
    // SAFETY: in bounds, checked above.
    let kind = unsafe { load::<u16>(data + 12) };
    if kind == ethertype::IPV4 && interface.tags == 0 {
        packet.tags = 0;
        packet.ethertype = ethertype::IPV4;
        packet.l3 = data + ETH_HEADER;
        return CONTINUE;
    }
    tagged(interface, packet, kind)
}

/// Frames with VLAN tags, and everything that is not IPv4.
#[inline(always)]
fn tagged(interface: &Interface, packet: &mut Packet, mut kind: u16) -> Verdict {
    let (data, end) = (packet.data, packet.end);
    let mut l3 = data + ETH_HEADER;
    let mut tags = 0u32;
    let mut vlan = [Be16::default(); 2];
    if is_tag(kind) {
        if !within(l3, VLAN_TAG, end) {
            return stop(Counter::PassNotIp);
        }
        // SAFETY: in bounds, checked above.
        unsafe {
            vlan[0] = Be16::from_raw(load::<u16>(l3) & VLAN_ID);
            kind = load::<u16>(l3 + 2);
        }
        l3 += VLAN_TAG;
        tags = 1;
        if is_tag(kind) {
            if !within(l3, VLAN_TAG, end) {
                return stop(Counter::PassNotIp);
            }
            // SAFETY: in bounds, checked above.
            unsafe {
                vlan[1] = Be16::from_raw(load::<u16>(l3) & VLAN_ID);
                kind = load::<u16>(l3 + 2);
            }
            l3 += VLAN_TAG;
            tags = 2;
            if is_tag(kind) {
                return stop(Counter::PassVlan);
            }
        }
    }
    if kind != ethertype::IPV4 && kind != ethertype::IPV6 {
        return stop(Counter::PassNotIp);
    }
    if tags != u32::from(interface.tags)
        || vlan[0] != interface.vlan[0]
        || vlan[1] != interface.vlan[1]
    {
        return stop(Counter::PassVlan);
    }
    if !within(l3, IPV4_HEADER, end) {
        return stop(Counter::PassMalformed);
    }
    packet.tags = tags;
    packet.ethertype = kind;
    packet.l3 = l3;
    CONTINUE
}

#[inline(always)]
const fn is_tag(kind: u16) -> bool {
    kind == ethertype::VLAN || kind == ethertype::QINQ
}

/// The second half of a [`lbha_common::flow::FlowKey`]: ports, protocol, side. A key is stored in words: the kernel's hash
/// reads it in larger pieces than its fields at once, and a load that needs several stores waits for all of them to reach
/// the cache.
#[inline(always)]
pub const fn key_word(ports: u32, protocol: u8, side: u8) -> u64 {
    let (ports, protocol, side) = (ports as u64, protocol as u64, side as u64);
    if cfg!(target_endian = "little") {
        ports | protocol << 32 | side << 40
    } else {
        ports << 32 | protocol << 24 | side << 16
    }
}

/// Where an IP packet's headers end.
pub struct UpperLayer {
    /// Bytes from the IP header on; not checked to be in bounds.
    pub offset: usize,
    pub protocol: u8,
}

/// Finds the IP packet again in a frame that another program has handed over; its header is in bounds then. Frames without
/// 8 bytes behind it are not looked at.
#[inline(always)]
pub fn handed_over<F: Family>(ctx: &XdpContext, side: u32, packet: &mut Packet) -> bool {
    let Some(interface) = INTERFACES.get(side) else {
        return false;
    };
    // The frame has the interface's tags, or it had not been read so far.
    let tags = usize::from(interface.tags & 3);
    let (data, end) = (ctx.data(), ctx.data_end());
    let l3 = data + ETH_HEADER + tags * VLAN_TAG;
    // The second check does not imply the first, or LLVM would leave it out, and the verifier not know what it is told.
    if !within(data, ETH_HEADER + F::HEADER + UDP_HEADER, end) || !within(l3, F::HEADER, end) {
        return false;
    }
    // SAFETY: in bounds, checked above.
    if unsafe { load::<u16>(l3 - 2) } != F::ETHERTYPE {
        return false;
    }
    packet.data = data;
    packet.end = end;
    packet.l3 = l3;
    packet.tags = tags as u32;
    packet.ethertype = F::ETHERTYPE;
    packet.total_len = F::total_len(l3);
    true
}

/// A header that the packet is too short for: ours to drop when it is to a VIP, or when the kernel would forward it with a
/// private address; else the kernel's to complain about.
#[inline(always)]
pub fn truncated<F: Family>(saddr: F::Addr, daddr: F::Addr, from: u8) -> Verdict {
    if family::address::<F>(daddr) & address::VIP != 0 || leaves::<F>(&saddr, &daddr, from) {
        stop(Counter::DropMalformed)
    } else {
        stop(Counter::PassMalformed)
    }
}

/// Bytes of the frame from the IP header on, those that the first buffer does not hold included.
#[inline(always)]
pub fn available<const MULTI_BUFFER: bool>(ctx: &XdpContext, packet: &Packet) -> usize {
    if MULTI_BUFFER {
        // data_end covers the first buffer only.
        // SAFETY: a valid context.
        let whole = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
        (whole as usize).wrapping_sub(packet.l3 - packet.data)
    } else {
        packet.end - packet.l3
    }
}
