//! Netlink messages into [`Event`]s; pure. Messages that say nothing about the IPv4 tables of this host give `None`.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
    Prop, VlanProtocol, XdpAttached,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType, RouteVia,
};
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_REPLACE};

use super::prefix::Ipv4Prefix;
use super::state::{
    Address, Event, Link, Mac, Neighbour, NextHop, Nud, Placement, Route, RouteKey, RouteKind,
    Scope, VlanTag, XdpAttachment, XdpMode,
};

/// `flags` are those of the netlink header.
pub fn event(message: &RouteNetlinkMessage, flags: u16) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewLink(m) => link(m).map(Event::NewLink),
        // A port that leaves its bridge is reported as RTM_DELLINK of family AF_BRIDGE; the device stays.
        RouteNetlinkMessage::DelLink(m) if m.header.interface_family == AddressFamily::Unspec => {
            Some(Event::DelLink(m.header.index))
        }
        RouteNetlinkMessage::NewAddress(m) => {
            address(m).map(|a| Event::NewAddress(m.header.index, a))
        }
        RouteNetlinkMessage::DelAddress(m) => {
            address(m).map(|a| Event::DelAddress(m.header.index, a))
        }
        RouteNetlinkMessage::NewNeighbour(m) => {
            neighbour(m).map(|(addr, n)| Event::NewNeighbour(m.header.ifindex, addr, n))
        }
        RouteNetlinkMessage::DelNeighbour(m) => {
            neighbour(m).map(|(addr, _)| Event::DelNeighbour(m.header.ifindex, addr))
        }
        RouteNetlinkMessage::NewRoute(m) => {
            route(m).map(|(key, route)| Event::NewRoute(key, route, placement(flags)))
        }
        RouteNetlinkMessage::DelRoute(m) => {
            route(m).map(|(key, route)| Event::DelRoute(key, route))
        }
        _ => None,
    }
}

/// As [`event`], for a message of a dump: routes come in the kernel's order.
pub fn dumped(message: &RouteNetlinkMessage) -> Option<Event> {
    event(message, NLM_F_APPEND)
}

fn placement(flags: u16) -> Placement {
    if flags & NLM_F_REPLACE != 0 {
        Placement::Replace
    } else if flags & NLM_F_APPEND != 0 {
        Placement::Last
    } else {
        Placement::First
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    // Bridge ports are reported a second time with family AF_BRIDGE and few attributes.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        ..Link::default()
    };
    let mut lower_elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::PropList(props) => {
                link.alt_names.extend(props.iter().filter_map(|prop| match prop {
                    Prop::AltIfName(name) => Some(name.clone()),
                    _ => None,
                }));
            }
            LinkAttribute::Address(bytes) => link.mac = mac(bytes).unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) if *index != 0 => link.master = Some(*index),
            LinkAttribute::Link(index) if *index != 0 => link.lower = Some(*index),
            // The lower device's index means nothing here when it is in another namespace.
            LinkAttribute::LinkNetNsId(_) => lower_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => link_info(&mut link, infos),
            LinkAttribute::Xdp(attributes) => link.xdp = xdp(attributes),
            _ => {}
        }
    }
    if lower_elsewhere {
        link.lower = None;
    }
    // Wireless extensions send RTM_NEWLINK with nothing but their own attribute.
    (!link.name.is_empty()).then_some(link)
}

fn link_info(link: &mut Link, infos: &[LinkInfo]) {
    for info in infos {
        match info {
            LinkInfo::Kind(kind) => link.kind = kind.to_string(),
            LinkInfo::Data(InfoData::Vlan(data)) => {
                let mut tag = VlanTag { protocol: VlanProtocol::Ieee8021Q.into(), id: 0 };
                for item in data {
                    match item {
                        InfoVlan::Id(id) => tag.id = *id,
                        InfoVlan::Protocol(protocol) => tag.protocol = (*protocol).into(),
                        _ => {}
                    }
                }
                link.vlan = Some(tag);
            }
            _ => {}
        }
    }
}

fn xdp(attributes: &[LinkXdp]) -> Option<XdpAttachment> {
    let mode = attributes.iter().find_map(|a| match a {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpMode::Generic),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(XdpMode::Offload),
        LinkXdp::Attached(XdpAttached::Multiple) => Some(XdpMode::Multi),
        _ => None,
    })?;
    let prog_id = attributes.iter().find_map(|a| match a {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    });
    Some(XdpAttachment { prog_id: prog_id.unwrap_or(0), mode })
}

fn address(message: &AddressMessage) -> Option<Address> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    let mut local = None;
    let mut peer = None;
    let mut secondary = message.header.flags.contains(AddressHeaderFlags::Secondary);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(addr)) => local = Some(*addr),
            AddressAttribute::Address(IpAddr::V4(addr)) => peer = Some(*addr),
            AddressAttribute::Flags(flags) => secondary = flags.contains(AddressFlags::Secondary),
            _ => {}
        }
    }
    Some(Address {
        addr: local.or(peer)?,
        prefix: Ipv4Prefix::new(peer.or(local)?, message.header.prefix_len)?,
        secondary,
        scope: match message.header.scope {
            AddressScope::Universe => Scope::Global,
            AddressScope::Site => Scope::Site,
            AddressScope::Link => Scope::Link,
            AddressScope::Host => Scope::Host,
            other => Scope::Other(other.into()),
        },
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<(Ipv4Addr, Neighbour)> {
    // Proxy entries are addresses that this host answers for, not neighbours.
    if message.header.family != AddressFamily::Inet
        || message.header.flags.contains(NeighbourFlags::Proxy)
    {
        return None;
    }
    let mut addr = None;
    let mut lladdr = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => addr = Some(*a),
            NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = mac(bytes),
            _ => {}
        }
    }
    let nud = match message.header.state {
        NeighbourState::Incomplete => Nud::Incomplete,
        NeighbourState::Reachable => Nud::Reachable,
        NeighbourState::Stale => Nud::Stale,
        NeighbourState::Delay => Nud::Delay,
        NeighbourState::Probe => Nud::Probe,
        NeighbourState::Failed => Nud::Failed,
        NeighbourState::Noarp => Nud::NoArp,
        NeighbourState::Permanent => Nud::Permanent,
        _ => Nud::None,
    };
    Some((addr?, Neighbour { mac: lladdr, nud }))
}

fn route(message: &RouteMessage) -> Option<(RouteKey, Route)> {
    let header = &message.header;
    // A cloned route is a cache entry. A route for one TOS value does not apply to ordinary traffic.
    if header.address_family != AddressFamily::Inet
        || header.flags.contains(RouteFlags::Cloned)
        || header.tos != 0
    {
        return None;
    }
    let kind = match header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        _ => return None,
    };
    let mut table = u32::from(header.table);
    let mut dst = Ipv4Addr::UNSPECIFIED;
    let mut metric = 0;
    let mut preferred_source = None;
    let mut multipath = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(RouteAddress::Inet(addr)) => dst = *addr,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::PrefSource(RouteAddress::Inet(addr)) => preferred_source = Some(*addr),
            RouteAttribute::MultiPath(hops) => multipath = Some(hops),
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let next_hops = match (kind, multipath) {
        (RouteKind::Unicast, Some(hops)) => {
            hops.iter().map(|hop| next_hop(Some(hop.interface_index), &hop.attributes)).collect()
        }
        (RouteKind::Unicast, None) => vec![next_hop(None, &message.attributes)],
        _ => Vec::new(),
    };
    let key = RouteKey { dst: Ipv4Prefix::new(dst, header.destination_prefix_length)?, metric };
    Some((key, Route { kind, next_hops, preferred_source }))
}

/// A hop of a multipath route has its device in its own header, a plain route among its attributes.
fn next_hop(ifindex: Option<u32>, attributes: &[RouteAttribute]) -> NextHop {
    let mut hop = NextHop { ifindex: ifindex.unwrap_or(0), gateway: None, encap: false };
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => hop.ifindex = *index,
            RouteAttribute::Gateway(RouteAddress::Inet(addr))
            | RouteAttribute::Via(RouteVia::Inet(addr)) => hop.gateway = Some(IpAddr::V4(*addr)),
            RouteAttribute::Via(RouteVia::Inet6(addr)) => hop.gateway = Some(IpAddr::V6(*addr)),
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => hop.encap = true,
            _ => {}
        }
    }
    hop
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok()
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
