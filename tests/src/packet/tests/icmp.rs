//! ICMP errors of both families: what they quote, and what of it is checked.

use super::*;

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
fn a_quoted_ip_header_is_checked_also_when_the_rest_is_cut_off() {
    let about = Frame::tcp(SERVICE, CLIENT).ip_options(&[7, 7, 4, 1, 2, 3, 4]).payload(&[1; 100]);
    let mut inner = about.quote(8);
    verify(&Frame::icmp_error(ROUTER, *SERVICE.ip(), 3, 13, &inner).build()).unwrap();
    inner[13] ^= 1;
    let fault = verify(&Frame::icmp_error(ROUTER, *SERVICE.ip(), 3, 13, &inner).build());
    assert!(matches!(fault, Err(Fault::Checksum { of: "embedded IP header", .. })), "{fault:?}");
}

#[test]
fn a_complete_quoted_packet_has_its_checksum_checked_in_both_families() {
    for (from, to, router) in [
        (SocketAddr::from(SERVICE), SocketAddr::from(CLIENT), IpAddr::from(ROUTER)),
        (SERVICE6.into(), CLIENT6.into(), ROUTER6.into()),
    ] {
        let kind = if from.is_ipv4() { 11 } else { icmp6::TIME_EXCEEDED };
        for (about, name) in [
            (Frame::tcp(from, to), "embedded TCP"),
            (Frame::udp(from, to), "embedded UDP"),
            (Frame::echo_reply(from.ip(), to.ip(), 7, 1), "embedded ICMP"),
        ] {
            let mut inner = about.payload(b"odd").build_ip();
            let error = |inner: &[u8]| Frame::icmp_error(router, from.ip(), kind, 0, inner).build();
            verify(&error(&inner)).unwrap();
            *inner.last_mut().unwrap() ^= 4;
            let fault = verify(&error(&inner)).unwrap_err();
            assert!(matches!(fault, Fault::Checksum { of, .. } if of == name), "{fault}");
            inner.pop();
            verify(&error(&inner)).unwrap();
        }
    }
}

#[test]
fn a_quoted_length_that_disagrees_is_found() {
    let mut inner = Frame::udp(SERVICE, CLIENT).payload(&[0; 600]).quote(8);
    inner[25] ^= 1;
    let fault = verify(&Frame::icmp_error(ROUTER, *SERVICE.ip(), 3, 3, &inner).build());
    assert_eq!(fault, Err(Fault::Length { of: "embedded UDP", says: 609, is: 608 }));
}

#[test]
fn a_quoted_fragment_has_no_ports_unless_it_is_the_first() {
    let first = Frame::udp(SERVICE, CLIENT).fragment(0, true).payload(&[1; 32]);
    let error = Frame::icmp_error(ROUTER, *SERVICE.ip(), 11, 1, &first.quote(8)).build();
    verify(&error).unwrap();
    let parsed = parse(&error).unwrap();
    assert_eq!(parsed.embedded().source(), SERVICE.into());
    assert_eq!(parsed.embedded().destination(), CLIENT.into());

    let later = Frame::raw(*SERVICE.ip(), *CLIENT.ip(), PROTO_UDP, &[1; 32]).fragment(5, false);
    let error = Frame::icmp_error(ROUTER, *SERVICE.ip(), 11, 1, &later.quote(8)).build();
    verify(&error).unwrap();
    let parsed = parse(&error).unwrap();
    assert_eq!((parsed.embedded().ports, parsed.embedded().ip.fragment_offset), (None, 5));
}

#[test]
fn a_router_s_error_goes_back_the_way_the_frame_came() {
    let about = Frame::tcp(SERVICE, CLIENT)
        .macs([1; 6], [2; 6])
        .vlan(7)
        .ip_options(&[1, 1, 1, 1])
        .payload(&[9; 1400])
        .padding(3);
    let frame = about.build();
    let error = |quote| icmp_error(&frame, (3, 4), [0, 0, 5, 0x14], ROUTER, quote).build();
    let least = error(Quote::Least);
    verify(&least).unwrap();
    let parsed = parse(&least).unwrap();
    assert_eq!(
        (parsed.eth_src, parsed.eth_dst, parsed.vlans.as_slice()),
        ([2; 6], [1; 6], &[7][..])
    );
    assert_eq!((parsed.ip.src, parsed.ip.dst), (IpAddr::from(ROUTER), (*SERVICE.ip()).into()));
    assert_eq!((parsed.icmp_kind(), parsed.payload.as_slice()), ((3, 4), &about.quote(8)[..]));
    assert_eq!(parse(&error(Quote::Most)).unwrap().ip.total_len, 576);
    let whole = error(Quote::Bytes(usize::MAX));
    verify(&whole).unwrap();
    assert_eq!(parse(&whole).unwrap().payload, about.build_ip());
}

#[test]
fn a_router_s_icmpv6_error_is_at_most_1280_bytes_long() {
    let about = Frame::udp(SERVICE6, CLIENT6).payload(&[9; 1400]);
    let error = icmp_error(&about.build(), (2, 0), [0, 0, 5, 0], ROUTER6, Quote::Most).build();
    verify(&error).unwrap();
    let parsed = parse(&error).unwrap();
    assert_eq!((parsed.ip.total_len, parsed.icmp_kind()), (1280, (icmp6::PACKET_TOO_BIG, 0)));
    assert_eq!(parsed.embedded().destination(), CLIENT6.into());
    let same = Frame::too_big(ROUTER6, *SERVICE6.ip(), 1280, &about.quote(1280 - 48 - 40));
    assert_eq!(parsed, parse(&same.macs([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).build()).unwrap());
}

#[test]
fn echo_has_an_identifier_also_when_it_is_quoted() {
    for (from, to) in [
        (IpAddr::from(*CLIENT.ip()), IpAddr::from(*SERVICE.ip())),
        ((*CLIENT6.ip()).into(), (*SERVICE6.ip()).into()),
    ] {
        let request = Frame::echo_request(from, to, 0x1234, 1).payload(b"x").build();
        assert_eq!(parse(&request).unwrap().echo_id(), 0x1234);
        let error = icmp_error(&request, (3, 0), [0; 4], to, Quote::Least).build();
        verify(&error).unwrap();
        assert_eq!(parse(&error).unwrap().embedded().echo_id, Some(0x1234));
    }
}
