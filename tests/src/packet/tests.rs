//! The builder, the parser and the verifier against each other, against etherparse, and against packets seen elsewhere.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;

const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 40000);
const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(147, 75, 78, 116), 80);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

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
    assert_eq!((parsed.source(), parsed.destination()), (CLIENT, SERVICE));
    assert_eq!(parsed.flags(), tcp_flags::SYN);
    assert_eq!((parsed.ip.tos, parsed.ip.ttl, parsed.ip.id), (0xb8, 3, 77));
    assert_eq!(parsed.ip.options, [7, 3, 4, 0]);
    assert!(!parsed.ip.dont_fragment && !parsed.ip.is_fragment());
    assert_eq!((parsed.payload.as_slice(), parsed.padding), (b"early data".as_slice(), 5));
    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
    assert!(matches!(sliced.transport, Some(TransportSlice::Tcp(tcp)) if tcp.syn() && !tcp.ack()));
}

#[test]
fn an_icmp_error_is_checked_inside_and_out() {
    let about = Frame::tcp(SERVICE, CLIENT).payload(b"0123456789");
    let whole = Frame::too_big(ROUTER, *SERVICE.ip(), 1400, &about.build_ip()).build();
    verify(&whole).unwrap();
    let parsed = parse(&whole).unwrap();
    assert_eq!(parsed.embedded().ports, Some((80, 40000)));
    assert!(matches!(
        parsed.transport,
        Transport::Icmp { kind: 3, code: 4, rest: [0, 0, 5, 0x78], .. }
    ));

    let mut inner = about.build_ip();
    inner[36] ^= 0x10;
    let broken = Frame::icmp_error(ROUTER, *SERVICE.ip(), 11, 0, &inner).build();
    let fault = verify(&broken).unwrap_err();
    assert!(matches!(fault, Fault::Checksum { of: "embedded TCP", .. }), "{fault}");
    // Cut off after 8 bytes, the same fault cannot be seen.
    let short = Frame::icmp_error(ROUTER, *SERVICE.ip(), 11, 0, &inner[..28]).build();
    verify(&short).unwrap();
    assert_eq!(inner[..28], about.quote(8));
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
fn what_is_not_ipv4_or_cut_off_is_a_fault_and_not_a_panic() {
    let frame = Frame::syn(CLIENT, SERVICE).vlan(1).ip_options(&[1, 1]).build();
    for len in 0..frame.len() {
        assert!(verify(&frame[..len]).is_err(), "{len} bytes");
        let _ = parse(&frame[..len]);
    }
    let mut arp = frame;
    arp[16..18].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(parse(&arp), Err(Fault::NotIpv4(0x0806)));
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let address = || any::<(u32, u16)>().prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port));
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
    (
        address(),
        address(),
        0..5_u8,
        bytes(200),
        bytes(41),
        proptest::collection::vec(0..4095_u16, 0..3),
    )
        .prop_map(|(src, dst, kind, payload, options, vlans)| {
            let frame = match kind {
                0 => Frame::tcp(src, dst).tcp_options(&options),
                1 => Frame::udp(src, dst),
                2 => Frame::echo_request(*src.ip(), *dst.ip(), 1, 2),
                3 => {
                    let about = Frame::udp(dst, src).payload(&payload).build_ip();
                    return Frame {
                        vlans,
                        ..Frame::icmp_error(*src.ip(), *dst.ip(), 3, 1, &about)
                    };
                }
                _ => Frame::syn(src, dst),
            };
            Frame { vlans, ..frame.payload(&payload) }
        })
}

proptest! {
    #[test]
    fn what_is_built_verifies_and_etherparse_agrees(frame in any_frame()) {
        let built = frame.build();
        prop_assert_eq!(verify(&built), Ok(()));
        let sliced = SlicedPacket::from_ethernet(&built).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = &sliced.net else { panic!("not IPv4") };
        let header = ip.header().to_header();
        prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
        match sliced.transport.unwrap() {
            TransportSlice::Tcp(tcp) => prop_assert_eq!(
                Ok(tcp.checksum()),
                tcp.calc_checksum_ipv4(header.source, header.destination)
            ),
            TransportSlice::Udp(udp) => prop_assert_eq!(
                Ok(udp.checksum()),
                udp.to_header().calc_checksum_ipv4(&header, udp.payload())
            ),
            TransportSlice::Icmpv4(icmp) => {
                prop_assert_eq!(
                    icmp.checksum(),
                    icmp.icmp_type().calc_checksum(icmp.payload())
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_flipped_bit_is_found(frame in any_frame(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut built = frame.build();
        let start = 14 + 4 * frame.vlans.len();
        let at = start + at.index(built.len() - start);
        built[at] ^= 1 << bit;
        // A UDP checksum that becomes 0 says that there is none.
        let parsed = parse(&built);
        prop_assume!(!matches!(parsed, Ok(Parsed { transport: Transport::Udp { checksum: 0, .. }, .. })));
        prop_assert!(verify(&built).is_err(), "byte {at} bit {bit}");
    }
}
