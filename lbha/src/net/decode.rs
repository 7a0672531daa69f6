//! Netlink messages into [`Event`]s; pure. Messages that say nothing about the tables mirrored here give `None`.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
    Prop, VlanProtocol, XdpAttached,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RoutePreference,
    RouteProtocol, RouteType, RouteVia,
};
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_REPLACE};

use super::prefix::{Family, IpPrefix};
use super::state::{
    Address, Event, Link, Mac, Neighbour, NextHop, Nud, Placement, Preference, Route, RouteKey,
    RouteKind, Scope, VlanTag, XdpAttachment, XdpMode,
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

fn family(family: AddressFamily) -> Option<Family> {
    match family {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    let family = family(message.header.family)?;
    let mut local = None;
    let mut peer = None;
    // The header has the lowest eight of them.
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Address(addr) => peer = Some(*addr),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // An optimistic address (RFC 4429) is tentative, too. IPv4 sends from a deprecated one.
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    Some(Address {
        addr: local.or(peer)?,
        prefix: IpPrefix::new(peer.or(local)?, message.header.prefix_len)?,
        secondary: flags.contains(AddressFlags::Secondary),
        usable: family == Family::V4 || !flags.intersects(unusable),
        scope: match message.header.scope {
            AddressScope::Universe => Scope::Global,
            AddressScope::Site => Scope::Site,
            AddressScope::Link => Scope::Link,
            AddressScope::Host => Scope::Host,
            other => Scope::Other(other.into()),
        },
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<(IpAddr, Neighbour)> {
    // A bridge's forwarding table comes as neighbours of another family.
    family(message.header.family)?;
    // Proxy entries are addresses that this host answers for, not neighbours.
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let mut addr = None;
    let mut lladdr = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => addr = Some((*a).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => addr = Some((*a).into()),
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
    let family = family(header.address_family)?;
    // A cloned route is a cache entry. A route for one TOS value or one source prefix (`ip -6 route add … from …`) does
    // not apply to ordinary traffic.
    if header.flags.contains(RouteFlags::Cloned)
        || header.tos != 0
        || header.source_prefix_length != 0
    {
        return None;
    }
    let kind = match header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        // `local`, `anycast`, `multicast`… lead nowhere.
        _ => return None,
    };
    let mut table = u32::from(header.table);
    // That of a default route is not in the message.
    let mut dst = family.default_prefix().addr();
    let mut metric = 0;
    let mut preferred_source = None;
    let mut preference = Preference::Medium;
    let mut multipath = None;
    let mut nexthop_object = false;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(addr) => dst = ip(addr)?,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::PrefSource(addr) => preferred_source = ip(addr),
            RouteAttribute::Preference(RoutePreference::Low) => preference = Preference::Low,
            RouteAttribute::Preference(RoutePreference::High) => preference = Preference::High,
            RouteAttribute::MultiPath(hops) => multipath = Some(hops),
            RouteAttribute::NhId(_) => nexthop_object = true,
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
    let joins = family == Family::V6
        && !nexthop_object
        && header.protocol != RouteProtocol::Ra
        && next_hops.first().is_some_and(|hop| hop.gateway.is_some());
    let key = RouteKey { dst: IpPrefix::new(dst, header.destination_prefix_length)?, metric };
    Some((key, Route { kind, next_hops, preferred_source, joins, preference }))
}

/// A hop of a multipath route has its device in its own header, a plain route among its attributes.
fn next_hop(ifindex: Option<u32>, attributes: &[RouteAttribute]) -> NextHop {
    let mut hop = NextHop { ifindex: ifindex.unwrap_or(0), gateway: None, encap: false };
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => hop.ifindex = *index,
            RouteAttribute::Gateway(addr) => hop.gateway = ip(addr),
            RouteAttribute::Via(RouteVia::Inet(addr)) => hop.gateway = Some(IpAddr::V4(*addr)),
            RouteAttribute::Via(RouteVia::Inet6(addr)) => hop.gateway = Some(IpAddr::V6(*addr)),
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => hop.encap = true,
            _ => {}
        }
    }
    hop
}

fn ip(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some(IpAddr::V4(*addr)),
        RouteAddress::Inet6(addr) => Some(IpAddr::V6(*addr)),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok()
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
