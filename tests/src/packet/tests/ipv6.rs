//! IPv6: extension headers, and what its checksums cover.

use super::*;

#[test]
fn an_ipv6_frame_is_the_one_that_etherparse_builds() {
    let mut expected = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
        .ip(etherparse::IpHeaders::Ipv6(
            etherparse::Ipv6Header {
                traffic_class: 0x2e,
                flow_label: 0x12345.try_into().unwrap(),
                hop_limit: 17,
                source: CLIENT6.ip().octets(),
                destination: SERVICE6.ip().octets(),
                ..Default::default()
            },
            etherparse::Ipv6Extensions::default(),
        ))
        .udp(40000, 80)
        .write(&mut expected, b"hello")
        .unwrap();
    let frame = Frame::udp(CLIENT6, SERVICE6).tos(0x2e).flow_label(0x12345).ttl(17);
    let built = frame.payload(b"hello").build();
    assert_eq!(built, expected);
    verify(&built).unwrap();
}

#[test]
fn several_extension_headers_come_back_from_the_parser() {
    // An SRv6 header (RFC 8754) with one segment.
    let segments = [&[0, 0, 0, 0], &SERVICE6.ip().octets()[..]].concat();
    let frame = Frame::syn(CLIENT6, SERVICE6)
        .vlan(9)
        .extension(Extension::HopByHop(vec![5, 2, 0, 0]))
        .extension(Extension::Routing { kind: 4, segments_left: 0, data: segments.clone() })
        .extension(Extension::Destination(Vec::new()))
        .id(0xdead_beef)
        .fragment(0, false)
        .extension(Extension::Destination(vec![0x3e, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]))
        .payload(b"early");
    let built = frame.build();
    verify(&built).unwrap();
    let parsed = parse(&built).unwrap();
    assert_eq!(parsed.ip.header_len, 40 + 8 + 24 + 8 + 8 + 16);
    assert_eq!(parsed.ip.id, 0xdead_beef);
    assert!(!parsed.ip.is_fragment(), "an atomic fragment is the whole packet");
    assert_eq!(
        parsed.ip.extensions,
        [
            Extension::HopByHop(vec![5, 2, 0, 0, 0, 0]),
            Extension::Routing { kind: 4, segments_left: 0, data: segments },
            Extension::Destination(vec![0; 6]),
            Extension::Fragment,
            Extension::Destination(vec![0x3e, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0]),
        ]
    );
    assert_eq!((parsed.source(), parsed.destination()), (CLIENT6.into(), SERVICE6.into()));
    assert_eq!((parsed.mss(), parsed.payload.as_slice()), (Some(1460), b"early".as_slice()));
    let sliced = SlicedPacket::from_ethernet(&built).unwrap();
    assert!(matches!(sliced.transport, Some(TransportSlice::Tcp(tcp)) if tcp.syn()));
    // Byte by byte: hop-by-hop, routing, destination, fragment, destination, TCP.
    let next = [(18 + 6, 0), (58, 43), (66, 60), (90, 44), (98, 60), (106, 6)];
    assert_eq!(next.map(|(at, _)| built[at]), next.map(|(_, number)| number));
    for len in 0..built.len() {
        assert!(verify(&built[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn under_way_through_a_routing_header_the_checksum_is_that_of_the_last_address() {
    let last = ROUTER6.octets();
    let first = SERVICE6.ip().octets();
    for (kind, data) in
        [(4, [&[1, 0, 0, 0], &last[..], &first].concat()), (2, [&[0; 4], &last[..]].concat())]
    {
        let under_way = Extension::Routing { kind, segments_left: 1, data };
        let built = Frame::udp(CLIENT6, SERVICE6).extension(under_way).payload(b"x").build_ip();
        verify_ip(&built).unwrap();
        let arrived = at(ROUTER6, 80);
        let same = Frame::udp(CLIENT6, arrived).payload(b"x").build_ip();
        assert_eq!(built[built.len() - 9..], same[40..]);
    }
}

#[test]
fn ipv6_has_no_udp_without_a_checksum() {
    let frame = Frame::udp(CLIENT6, SERVICE6).without_checksum().payload(b"x").build();
    let fault = verify(&frame);
    assert!(matches!(fault, Err(Fault::Checksum { of: "UDP", is: 0, .. })), "{fault:?}");
}

#[test]
fn the_ethernet_type_has_to_be_that_of_the_packet() {
    let mut frame = Frame::udp(CLIENT6, SERVICE6).build();
    frame[12..14].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
    assert_eq!(verify(&frame), Err(Fault::Version { says: 4, is: 6 }));
    assert_eq!(parse(&frame), Err(Fault::Version { says: 4, is: 6 }));
}

#[test]
fn an_mss_is_read_behind_other_options_and_not_past_the_end() {
    let mss = |options: &[u8]| {
        parse(&Frame::syn(CLIENT6, SERVICE6).tcp_options(options).build()).unwrap().mss()
    };
    assert_eq!(mss(&[1, 1, 3, 3, 7, 2, 4, 0x05, 0xa0]), Some(1440));
    assert_eq!(mss(&[]), None);
    assert_eq!(mss(&[4, 2, 0, 2, 4, 1, 1]), None, "after the end of the list");
    assert_eq!(mss(&[2, 3, 9, 0]), None, "of another length");
    assert_eq!(mss(&[8, 200, 1, 1]), None);
    assert_eq!(mss(&[8, 0, 2, 4]), None);
}
