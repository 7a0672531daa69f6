//! Tests of the conversion, from messages built by hand, where possible through their bytes.

use std::net::Ipv4Addr;

use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::link::{InfoKind, LinkHeader};
use netlink_packet_route::route::{RouteNextHop, RouteScope};
use rtnetlink::packet_core::{NLM_F_CREATE, NetlinkMessage, NetlinkPayload};

use super::*;

/// Through the wire format, as the kernel would send it.
fn through_bytes(message: RouteNetlinkMessage, flags: u16) -> Option<Event> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).unwrap();
    let NetlinkPayload::InnerMessage(inner) = parsed.payload else { panic!("no inner message") };
    event(&inner, parsed.header.flags)
}

fn link_message(index: u32, name: &str, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header = LinkHeader {
        index,
        link_layer_type: LinkLayerType::Ether,
        flags: LinkFlags::Up | LinkFlags::LowerUp,
        ..LinkHeader::default()
    };
    message.attributes.push(LinkAttribute::IfName(name.into()));
    message.attributes.push(LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]));
    message.attributes.push(LinkAttribute::Mtu(1500));
    message.attributes.extend(attributes);
    message
}

fn decoded_link(message: LinkMessage) -> Link {
    match through_bytes(RouteNetlinkMessage::NewLink(message), 0) {
        Some(Event::NewLink(link)) => link,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_link_has_its_name_address_and_flags() {
    let link = decoded_link(link_message(
        7,
        "eth0",
        vec![LinkAttribute::PropList(vec![Prop::AltIfName("enp1s0".into())])],
    ));
    let expected = Link {
        index: 7,
        name: "eth0".into(),
        alt_names: vec!["enp1s0".into()],
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        up: true,
        carrier: true,
        ethernet: true,
        ..Link::default()
    };
    assert_eq!(link, expected);
}

#[test]
fn a_vlan_device_has_its_tag_and_what_it_is_on() {
    for (protocol, number) in
        [(VlanProtocol::Ieee8021Q, 0x8100), (VlanProtocol::Ieee8021Ad, 0x88a8)]
    {
        let link = decoded_link(link_message(
            8,
            "bond0.100",
            vec![
                LinkAttribute::Link(9),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::Vlan),
                    LinkInfo::Data(InfoData::Vlan(vec![
                        InfoVlan::Protocol(protocol),
                        InfoVlan::Id(100),
                    ])),
                ]),
            ],
        ));
        assert_eq!(link.kind, "vlan");
        assert_eq!(link.lower, Some(9));
        assert_eq!(link.vlan, Some(VlanTag { protocol: number, id: 100 }));
    }
}

#[test]
fn a_member_of_a_bond_names_its_master() {
    let member = decoded_link(link_message(2, "ens1", vec![LinkAttribute::Controller(9)]));
    assert_eq!(member.master, Some(9));
    let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bond)]);
    assert_eq!(decoded_link(link_message(9, "bond0", vec![kind])).kind, "bond");
}

#[test]
fn a_lower_device_in_another_namespace_is_none() {
    let attributes = vec![LinkAttribute::Link(2), LinkAttribute::LinkNetNsId(0)];
    assert_eq!(decoded_link(link_message(3, "veth0", attributes)).lower, None);
}

#[test]
fn an_attached_program_shows_with_its_mode() {
    for (attached, mode) in [
        (XdpAttached::Driver, Some(XdpMode::Native)),
        (XdpAttached::SocketBuffer, Some(XdpMode::Generic)),
        (XdpAttached::Hardware, Some(XdpMode::Offload)),
        (XdpAttached::None, None),
    ] {
        let mut attributes = vec![LinkXdp::Attached(attached)];
        if mode.is_some() {
            attributes.push(LinkXdp::ProgId(42));
        }
        let link = decoded_link(link_message(2, "eth0", vec![LinkAttribute::Xdp(attributes)]));
        assert_eq!(link.xdp, mode.map(|mode| XdpAttachment { prog_id: 42, mode }));
    }
    let several = LinkAttribute::Xdp(vec![LinkXdp::Attached(XdpAttached::Multiple)]);
    let multi = Some(XdpAttachment { prog_id: 0, mode: XdpMode::Multi });
    assert_eq!(decoded_link(link_message(2, "eth0", vec![several])).xdp, multi);
}

#[test]
fn a_bridges_view_of_its_port_is_not_a_link() {
    let mut message = link_message(2, "eth0", vec![]);
    message.header.interface_family = AddressFamily::Bridge;
    assert_eq!(event(&RouteNetlinkMessage::NewLink(message.clone()), 0), None);
    assert_eq!(event(&RouteNetlinkMessage::DelLink(message), 0), None);
    let gone = link_message(2, "eth0", vec![]);
    assert_eq!(event(&RouteNetlinkMessage::DelLink(gone), 0), Some(Event::DelLink(2)));
}

#[test]
fn a_link_message_without_a_name_is_incomplete() {
    let mut message = link_message(2, "eth0", vec![]);
    message.attributes.remove(0);
    assert_eq!(event(&RouteNetlinkMessage::NewLink(message), 0), None);
}

#[test]
fn an_address_has_its_subnet_and_flags() {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 24;
    message.header.index = 2;
    message.header.flags = AddressHeaderFlags::Secondary;
    let addr = Ipv4Addr::new(10, 0, 0, 1);
    message.attributes.push(AddressAttribute::Address(addr.into()));
    message.attributes.push(AddressAttribute::Local(addr.into()));
    let expected = Address {
        addr: addr.into(),
        prefix: IpPrefix::new(addr.into(), 24).unwrap(),
        secondary: true,
        usable: true,
        scope: Scope::Global,
    };
    assert_eq!(
        through_bytes(RouteNetlinkMessage::NewAddress(message.clone()), 0),
        Some(Event::NewAddress(2, expected.clone()))
    );
    assert_eq!(
        through_bytes(RouteNetlinkMessage::DelAddress(message.clone()), 0),
        Some(Event::DelAddress(2, expected))
    );

    // Point to point: the far end's subnet is reachable, the local address is the host's.
    message.attributes[0] = AddressAttribute::Address(Ipv4Addr::new(192, 0, 2, 9).into());
    let Some(Event::NewAddress(_, ptp)) =
        through_bytes(RouteNetlinkMessage::NewAddress(message), 0)
    else {
        panic!("no address")
    };
    assert_eq!((ptp.addr, ptp.prefix.to_string()), (addr.into(), "192.0.2.0/24".into()));
}

#[test]
fn other_families_are_ignored() {
    let mut address = AddressMessage::default();
    address.header.family = AddressFamily::Mctp;
    assert_eq!(event(&RouteNetlinkMessage::NewAddress(address), 0), None);
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = AddressFamily::Bridge;
    assert_eq!(event(&RouteNetlinkMessage::NewNeighbour(neighbour), 0), None);
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Mpls;
    route.header.table = 254;
    route.header.kind = RouteType::Unicast;
    assert_eq!(event(&RouteNetlinkMessage::NewRoute(route), 0), None);
}

fn decoded_address(flags: AddressFlags, scope: AddressScope, addr: &str) -> Address {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.prefix_len = 64;
    message.header.index = 2;
    message.header.scope = scope;
    message.attributes.push(AddressAttribute::Address(addr.parse().unwrap()));
    message.attributes.push(AddressAttribute::Flags(flags));
    match through_bytes(RouteNetlinkMessage::NewAddress(message), 0) {
        Some(Event::NewAddress(2, address)) => address,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_ipv6_address_may_not_be_usable() {
    let global = |flags| decoded_address(flags, AddressScope::Universe, "2001:db8::1");
    let address = global(AddressFlags::Permanent);
    assert_eq!(address.prefix.to_string(), "2001:db8::/64");
    assert!(address.usable && !address.secondary && address.scope == Scope::Global);
    for flags in [
        AddressFlags::Tentative,
        AddressFlags::Tentative | AddressFlags::Optimistic,
        AddressFlags::Tentative | AddressFlags::Dadfailed,
        AddressFlags::Deprecated,
    ] {
        assert!(!global(flags | AddressFlags::Permanent).usable, "{flags:?}");
    }
    // IFA_F_TEMPORARY and IFA_F_SECONDARY are the same bit.
    let temporary = global(AddressFlags::Secondary | AddressFlags::Noprefixroute);
    assert!(temporary.secondary && temporary.usable);
    let own = decoded_address(AddressFlags::Permanent, AddressScope::Link, "fe80::1");
    assert_eq!((own.addr.to_string().as_str(), own.scope), ("fe80::1", Scope::Link));
}

fn neighbour_message(state: NeighbourState, lladdr: Option<Mac>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = 2;
    message.header.state = state;
    let addr = NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, 2));
    message.attributes.push(NeighbourAttribute::Destination(addr));
    message.attributes.extend(lladdr.map(|m| NeighbourAttribute::LinkLayerAddress(m.to_vec())));
    message
}

#[test]
fn a_neighbour_has_its_state_and_perhaps_an_address() {
    let addr = Ipv4Addr::new(10, 0, 0, 2);
    for (state, lladdr, nud) in [
        (NeighbourState::Reachable, Some([2, 0, 0, 0, 0, 1]), Nud::Reachable),
        (NeighbourState::Permanent, Some([2, 0, 0, 0, 0, 1]), Nud::Permanent),
        (NeighbourState::Noarp, Some([2, 0, 0, 0, 0, 1]), Nud::NoArp),
        (NeighbourState::Incomplete, None, Nud::Incomplete),
        (NeighbourState::Failed, None, Nud::Failed),
    ] {
        let message = neighbour_message(state, lladdr);
        assert_eq!(
            through_bytes(RouteNetlinkMessage::NewNeighbour(message), 0),
            Some(Event::NewNeighbour(2, addr.into(), Neighbour { mac: lladdr, nud }))
        );
    }
    let gone = neighbour_message(NeighbourState::Failed, None);
    assert_eq!(
        through_bytes(RouteNetlinkMessage::DelNeighbour(gone), 0),
        Some(Event::DelNeighbour(2, addr.into()))
    );
}

#[test]
fn an_ipv6_neighbour_is_one_too() {
    let mut message = neighbour_message(NeighbourState::Stale, Some([2, 0, 0, 0, 0, 1]));
    message.header.family = AddressFamily::Inet6;
    // Linux marks a neighbour that has sent router advertisements.
    message.header.flags = NeighbourFlags::Router;
    let addr = "fe80::2".parse().unwrap();
    message.attributes[0] = NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr));
    let neighbour = Neighbour { mac: Some([2, 0, 0, 0, 0, 1]), nud: Nud::Stale };
    assert_eq!(
        through_bytes(RouteNetlinkMessage::NewNeighbour(message), 0),
        Some(Event::NewNeighbour(2, addr.into(), neighbour))
    );
}

#[test]
fn a_proxied_address_is_not_a_neighbour() {
    let mut message = neighbour_message(NeighbourState::Permanent, None);
    message.header.flags = NeighbourFlags::Proxy;
    assert_eq!(event(&RouteNetlinkMessage::NewNeighbour(message), 0), None);
}

fn route_message(attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 8;
    message.header.table = 254;
    message.header.kind = RouteType::Unicast;
    message.header.protocol = RouteProtocol::Bird;
    message.header.scope = RouteScope::Universe;
    message.attributes.push(RouteAttribute::Destination(Ipv4Addr::new(10, 0, 0, 0).into()));
    message.attributes.extend(attributes);
    message
}

fn decoded_route(message: RouteMessage, flags: u16) -> Option<(RouteKey, Route, Placement)> {
    match through_bytes(RouteNetlinkMessage::NewRoute(message), flags) {
        Some(Event::NewRoute(key, route, placement)) => Some((key, route, placement)),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn hop(ifindex: u32, gateway: [u8; 4]) -> NextHop {
    NextHop { ifindex, gateway: Some(Ipv4Addr::from(gateway).into()), encap: false }
}

#[test]
fn a_route_has_its_metric_gateway_and_place() {
    let message = route_message(vec![
        RouteAttribute::Oif(2),
        RouteAttribute::Gateway(Ipv4Addr::new(192, 0, 2, 1).into()),
        RouteAttribute::Priority(32),
        RouteAttribute::PrefSource(Ipv4Addr::new(192, 0, 2, 7).into()),
    ]);
    let (key, route, placement) = decoded_route(message.clone(), NLM_F_CREATE).unwrap();
    assert_eq!((key.dst.to_string().as_str(), key.metric), ("10.0.0.0/8", 32));
    assert_eq!(route.next_hops, [hop(2, [192, 0, 2, 1])]);
    assert_eq!(route.preferred_source, Some(Ipv4Addr::new(192, 0, 2, 7).into()));
    assert_eq!(placement, Placement::First);
    for (flags, expected) in [
        (NLM_F_CREATE | NLM_F_APPEND, Placement::Last),
        (NLM_F_CREATE | NLM_F_REPLACE, Placement::Replace),
    ] {
        assert_eq!(decoded_route(message.clone(), flags).unwrap().2, expected);
    }
    assert_eq!(
        through_bytes(RouteNetlinkMessage::DelRoute(message), 0),
        Some(Event::DelRoute(key, route))
    );
}

#[test]
fn a_multipath_route_has_all_its_next_hops() {
    let hops = [(2, [192, 0, 2, 1]), (3, [192, 0, 2, 2])].map(|(ifindex, gateway)| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = ifindex;
        hop.attributes.push(RouteAttribute::Gateway(Ipv4Addr::from(gateway).into()));
        hop
    });
    let message = route_message(vec![RouteAttribute::MultiPath(hops.to_vec())]);
    let (_, route, _) = decoded_route(message, 0).unwrap();
    assert_eq!(route.next_hops, [hop(2, [192, 0, 2, 1]), hop(3, [192, 0, 2, 2])]);
}

#[test]
fn a_gateway_in_the_other_family_is_kept_as_such() {
    let gateway = "fe80::1".parse().unwrap();
    let via = RouteAttribute::Via(RouteVia::Inet6(gateway));
    let (_, route, _) = decoded_route(route_message(vec![RouteAttribute::Oif(2), via]), 0).unwrap();
    assert_eq!(route.next_hops[0].gateway, Some(IpAddr::V6(gateway)));
}

#[test]
fn a_blackhole_has_no_next_hop() {
    for (kind, expected) in [
        (RouteType::BlackHole, RouteKind::Blackhole),
        (RouteType::Unreachable, RouteKind::Unreachable),
        (RouteType::Prohibit, RouteKind::Prohibit),
        (RouteType::Throw, RouteKind::Throw),
    ] {
        let mut message = route_message(vec![]);
        message.header.kind = kind;
        let (_, route, _) = decoded_route(message, 0).unwrap();
        assert_eq!((route.kind, route.next_hops.len()), (expected, 0));
    }
}

#[test]
fn other_tables_types_and_tos_are_ignored() {
    let plain = || route_message(vec![RouteAttribute::Oif(2)]);
    let mut local = plain();
    local.header.table = 255;
    let mut of_kind_local = plain();
    of_kind_local.header.kind = RouteType::Local;
    let mut tos = plain();
    tos.header.tos = 0x10;
    let mut cloned = plain();
    cloned.header.flags = RouteFlags::Cloned;
    // A table above 255 shows only in its attribute.
    let mut big = route_message(vec![RouteAttribute::Oif(2), RouteAttribute::Table(1000)]);
    big.header.table = 254;
    for message in [local, of_kind_local, tos, cloned, big] {
        assert_eq!(decoded_route(message, 0), None);
    }
    assert!(decoded_route(plain(), 0).is_some());
}

fn route_message_v6(attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = route_message(attributes);
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = 48;
    let dst = "2001:db8:a::".parse::<std::net::Ipv6Addr>().unwrap();
    message.attributes[0] = RouteAttribute::Destination(dst.into());
    message.attributes.push(RouteAttribute::Priority(1024));
    message
}

fn gateway_v6(text: &str) -> RouteAttribute {
    RouteAttribute::Gateway(text.parse::<IpAddr>().unwrap().into())
}

#[test]
fn an_ipv6_route_has_all_that_an_ipv4_route_has() {
    let source: IpAddr = "2001:db8::7".parse().unwrap();
    let attributes = vec![
        RouteAttribute::Oif(2),
        gateway_v6("fe80::1"),
        RouteAttribute::PrefSource(source.into()),
        RouteAttribute::Preference(RoutePreference::High),
    ];
    let (key, route, _) = decoded_route(route_message_v6(attributes), NLM_F_CREATE).unwrap();
    assert_eq!((key.dst.to_string().as_str(), key.metric), ("2001:db8:a::/48", 1024));
    let gateway = Some("fe80::1".parse().unwrap());
    let expected = Route {
        kind: RouteKind::Unicast,
        next_hops: vec![NextHop { ifindex: 2, gateway, encap: false }],
        preferred_source: Some(source),
        joins: true,
        preference: Preference::High,
    };
    assert_eq!(route, expected);
}

#[test]
fn an_ipv6_default_route_has_no_destination() {
    let mut message = route_message_v6(vec![RouteAttribute::Oif(2), gateway_v6("fe80::1")]);
    message.header.destination_prefix_length = 0;
    message.attributes.remove(0);
    assert_eq!(decoded_route(message, 0).unwrap().0.dst, IpPrefix::DEFAULT_V6);
}

#[test]
fn an_ipv6_multipath_route_has_all_its_next_hops() {
    let hops = [(2, "fe80::1"), (3, "2001:db8::1")].map(|(ifindex, gateway)| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = ifindex;
        hop.attributes.push(gateway_v6(gateway));
        hop
    });
    let message = route_message_v6(vec![RouteAttribute::MultiPath(hops.to_vec())]);
    let (_, route, _) = decoded_route(message, 0).unwrap();
    let hops: Vec<_> = route.next_hops.iter().map(|hop| (hop.ifindex, hop.gateway)).collect();
    let (one, two) = ("fe80::1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    assert_eq!(hops, [(2, Some(one)), (3, Some(two))]);
    assert!(route.joins);
}

#[test]
fn only_some_ipv6_routes_join_others() {
    let oif = || RouteAttribute::Oif(2);
    let joins = |message| decoded_route(message, 0).unwrap().1.joins;
    let with_gateway = || route_message_v6(vec![oif(), gateway_v6("fe80::1")]);
    assert!(joins(with_gateway()));
    let mut advertised = with_gateway();
    advertised.header.protocol = RouteProtocol::Ra;
    assert!(!joins(advertised));
    assert!(!joins(route_message_v6(vec![oif(), gateway_v6("fe80::1"), RouteAttribute::NhId(7)])));
    assert!(!joins(route_message_v6(vec![oif()])), "no gateway");
    assert!(!joins(route_message(vec![oif()])), "ipv4");
}

#[test]
fn an_ipv6_route_for_one_source_prefix_or_to_nowhere_is_ignored() {
    let plain = || route_message_v6(vec![RouteAttribute::Oif(2)]);
    let mut from = plain();
    from.header.source_prefix_length = 64;
    assert_eq!(decoded_route(from, 0), None);
    for kind in [RouteType::Local, RouteType::Anycast, RouteType::Multicast] {
        let mut message = plain();
        message.header.kind = kind;
        assert_eq!(decoded_route(message, 0), None, "{kind:?}");
    }
    assert!(decoded_route(plain(), 0).is_some());
}
