//! The builder, the parser and the verifier against each other, against etherparse, and against packets seen elsewhere.

mod fragments;
mod icmp;
mod ipv6;
mod seen;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;

const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 40000);
const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(147, 75, 78, 116), 80);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CLIENT6: SocketAddrV6 = v6([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0x10], 40000);
const SERVICE6: SocketAddrV6 = v6([0x2001, 0xdb8, 0x78, 0, 0, 0, 0, 0x116], 80);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x104, 0, 0, 0, 0, 1);

const fn v6(segments: [u16; 8], port: u16) -> SocketAddrV6 {
    let [a, b, c, d, e, f, g, h] = segments;
    SocketAddrV6::new(Ipv6Addr::new(a, b, c, d, e, f, g, h), port, 0, 0)
}

#[test]
fn the_checksum_of_the_rfc_s_example_is_right() {
    // RFC 1071 §3: the sum of these is ddf2.
    assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    assert_eq!(checksum(&[0xff]), 0x00ff, "an odd byte is the high one");
}

#[test]
fn a_tcp_frame_is_the_one_that_etherparse_builds() {
    let mut expected = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
        .ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header {
                identification: 0x1234,
                dont_fragment: true,
                ..etherparse::Ipv4Header::new(
                    0,
                    17,
                    etherparse::ip_number::TCP,
                    CLIENT.ip().octets(),
                    SERVICE.ip().octets(),
                )
                .unwrap()
            },
            etherparse::Ipv4Extensions::default(),
        ))
        .tcp(40000, 80, 7, 100)
        .ack(9)
        .psh()
        .write(&mut expected, b"hello")
        .unwrap();
    let built = Frame::tcp(CLIENT, SERVICE)
        .seq(7)
        .ack(9)
        .flags(tcp_flags::ACK | tcp_flags::PSH)
        .ttl(17)
        .payload(b"hello");
    let L4::Tcp { src, dst, seq, ack, flags, options, .. } = built.l4.clone() else { panic!() };
    let l4 = L4::Tcp { src, dst, seq, ack, flags, window: 100, options };
    let built = Frame { l4, ..built }.build();
    assert_eq!(built, expected);
    verify(&built).unwrap();
}

#[test]
fn every_field_comes_back_from_the_parser() {
    let frame = Frame::syn(CLIENT, SERVICE)
        .macs([1; 6], [2; 6])
        .vlan(100)
        .vlan(200)
        .tos(0xb8)
        .ttl(3)
        .id(77)
        .dont_fragment(false)
        .ip_options(&[7, 3, 4])
        .payload(b"early data")
        .padding(5)
        .build();
    verify(&frame).unwrap();
    let parsed = parse(&frame).unwrap();
    assert_eq!((parsed.eth_src, parsed.eth_dst), ([1; 6], [2; 6]));
    assert_eq!(parsed.vlans, [100, 200]);
    assert_eq!((parsed.source(), parsed.destination()), (CLIENT.into(), SERVICE.into()));
    assert_eq!(parsed.flags(), tcp_flags::SYN);
    assert_eq!((parsed.ip.tos, parsed.ip.ttl, parsed.ip.id), (0xb8, 3, 77));
    assert_eq!(parsed.ip.options, [7, 3, 4, 0]);
    assert!(!parsed.ip.dont_fragment && !parsed.ip.is_fragment());
    assert_eq!((parsed.payload.as_slice(), parsed.padding), (b"early data".as_slice(), 5));
    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
    assert!(matches!(sliced.transport, Some(TransportSlice::Tcp(tcp)) if tcp.syn() && !tcp.ack()));
}

#[test]
fn a_udp_checksum_of_zero_is_right_and_a_computed_zero_is_sent_as_ones() {
    verify(&Frame::udp(CLIENT, SERVICE).without_checksum().payload(b"x").build()).unwrap();
    let udp = |filler: u16| Frame::udp(CLIENT, SERVICE).payload(&filler.to_be_bytes()).build();
    let field = |frame: &[u8]| be16(frame, 40).unwrap();
    let filler = (0..=u16::MAX).find(|filler| field(&udp(*filler)) == 0xffff).unwrap();
    verify(&udp(filler)).unwrap();
}

#[test]
fn a_fragment_has_only_its_ip_header_checked() {
    let first = Frame::udp(CLIENT, SERVICE).fragment(0, true).payload(&[1; 24]).build();
    verify(&first).unwrap();
    let later = Frame::raw(*CLIENT.ip(), *SERVICE.ip(), PROTO_UDP, &[1; 16]).fragment(4, false);
    let frame = later.build();
    verify(&frame).unwrap();
    let parsed = parse(&frame).unwrap();
    assert_eq!(parsed.transport, Transport::Opaque);
    assert!(parsed.ip.is_fragment());
}

#[test]
fn what_is_not_ip_or_cut_off_is_a_fault_and_not_a_panic() {
    let frame = Frame::syn(CLIENT, SERVICE).vlan(1).ip_options(&[1, 1]).build();
    for len in 0..frame.len() {
        assert!(verify(&frame[..len]).is_err(), "{len} bytes");
        let _ = parse(&frame[..len]);
    }
    let mut arp = frame;
    arp[16..18].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(parse(&arp), Err(Fault::NotIp(0x0806)));
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let v4 = || any::<(u32, u16)>().prop_map(|(ip, port)| at(Ipv4Addr::from(ip), port));
    let v6 = || any::<(u128, u16)>().prop_map(|(ip, port)| at(Ipv6Addr::from(ip), port));
    let ends = prop_oneof![(v4(), v4()), (v6(), v6())];
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
    let vlans = proptest::collection::vec(0..4095_u16, 0..3);
    (ends, 0..5_u8, bytes(200), bytes(41), vlans).prop_map(
        |((src, dst), kind, payload, options, vlans)| {
            let frame = match kind {
                0 => Frame::tcp(src, dst).tcp_options(&options),
                1 => Frame::udp(src, dst),
                2 => Frame::echo_request(src.ip(), dst.ip(), 1, 2),
                3 => {
                    let about = Frame::udp(dst, src).payload(&payload).build_ip();
                    let error = Frame::icmp_error(src.ip(), dst.ip(), 3, 1, &about);
                    return Frame { vlans, ..error };
                }
                _ => Frame::syn(src, dst),
            };
            Frame { vlans, ..frame.payload(&payload) }
        },
    )
}

fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// What etherparse makes of the TCP, UDP or ICMP checksum of a packet.
fn etherparse_agrees(packet: &SlicedPacket<'_>) -> Result<(), TestCaseError> {
    let (v4, v6) = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => (Some(ip.header().to_header()), None),
        NetSlice::Ipv6(ip) => (None, Some(ip.header().to_header())),
        other => panic!("{other:?}"),
    };
    if let Some(header) = &v4 {
        prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
    }
    let (is, should) = match packet.transport.as_ref().unwrap() {
        TransportSlice::Tcp(tcp) => (
            tcp.checksum(),
            match (v4, v6) {
                (Some(ip), _) => tcp.calc_checksum_ipv4(ip.source, ip.destination).unwrap(),
                (_, ip) => {
                    let ip = ip.unwrap();
                    tcp.calc_checksum_ipv6(ip.source, ip.destination).unwrap()
                }
            },
        ),
        TransportSlice::Udp(udp) => (
            udp.checksum(),
            match (v4, v6) {
                (Some(ip), _) => udp.to_header().calc_checksum_ipv4(&ip, udp.payload()).unwrap(),
                (_, ip) => udp.to_header().calc_checksum_ipv6(&ip.unwrap(), udp.payload()).unwrap(),
            },
        ),
        TransportSlice::Icmpv4(icmp) => {
            (icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()))
        }
        TransportSlice::Icmpv6(icmp) => {
            let ip = v6.unwrap();
            let kind = icmp.icmp_type();
            let sum = kind.calc_checksum(ip.source, ip.destination, icmp.payload()).unwrap();
            (icmp.checksum(), sum)
        }
        other => panic!("{other:?}"),
    };
    prop_assert_eq!(is, should);
    Ok(())
}

proptest! {
    #[test]
    fn what_is_built_verifies_and_etherparse_agrees(frame in any_frame()) {
        let built = frame.build();
        prop_assert_eq!(verify(&built), Ok(()));
        etherparse_agrees(&SlicedPacket::from_ethernet(&built).unwrap())?;
    }

    #[test]
    fn one_flipped_bit_is_found(frame in any_frame(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut built = frame.build();
        let start = 14 + 4 * frame.vlans.len();
        let at = start + at.index(built.len() - start);
        built[at] ^= 1 << bit;
        // Of the IPv6 header only the version, the length and the addresses are covered by anything; and another number
        // of what follows makes it something else.
        let (is_v6, within) = (frame.src.is_ipv6(), at - start);
        prop_assume!(!is_v6 || within >= 8 || (4..6).contains(&within) || (within == 0 && bit >= 4));
        // A UDP checksum that becomes 0 says that there is none.
        let parsed = parse(&built);
        prop_assume!(!matches!(parsed, Ok(Parsed { transport: Transport::Udp { checksum: 0, .. }, .. })));
        prop_assert!(verify(&built).is_err(), "byte {at} bit {bit}");
    }
}
