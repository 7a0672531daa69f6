//! Tests of the packets: as Linux sends them, as we send them, and every way in which one may be wrong.

use proptest::prelude::*;

use super::*;

const OWN: Mac = [2, 0, 0, 0, 0, 1];
const OTHER: Mac = [2, 0, 0, 0, 0, 2];

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test]
fn a_solicitation_is_laid_out_as_rfc_4861_says() {
    let target = ip("2001:db8::a:b:c");
    let everyone = solicited_node(target);
    let packet = solicitation(OWN, ip("fe80::1"), target, everyone);
    #[rustfmt::skip]
    let expected = [
        0x60, 0, 0, 0, 0, 32, 58, 255,
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x0b, 0, 0x0c,
        135, 0, 0x4b, 0x2b, 0, 0, 0, 0,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0x0b, 0, 0x0c,
        1, 1, 2, 0, 0, 0, 0, 1,
    ];
    assert_eq!(packet, expected);
    assert_eq!(solicitation(OWN, ip("fe80::1"), target, target)[24..40], target.octets());
}

#[test]
fn the_solicited_node_address_has_the_last_24_bits() {
    let everyone = solicited_node(ip("fe80::2aa:ff:fe28:9c5a"));
    assert_eq!(everyone, ip("ff02::1:ff28:9c5a"));
    assert_eq!(multicast_mac(everyone), [0x33, 0x33, 0xff, 0x28, 0x9c, 0x5a]);
}

/// With these flags and options, and a right checksum.
fn advertisement(flags: u8, options: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; IPV6_LEN + ND_LEN];
    packet[0] = 0x60;
    packet[5] = (ND_LEN + options.len()) as u8;
    packet[6] = 58;
    packet[7] = 255;
    packet[8..24].copy_from_slice(&ip("2001:db8::2").octets());
    packet[24..40].copy_from_slice(&ip("fe80::1").octets());
    packet[40] = 136;
    packet[44] = flags;
    packet[48..64].copy_from_slice(&ip("2001:db8::2").octets());
    packet.extend(options);
    with_checksum(packet)
}

fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    packet[42..44].fill(0);
    let checksum = !sum(&packet);
    packet[42..44].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn target_option(mac: Mac) -> Vec<u8> {
    [&[2, 1][..], &mac].concat()
}

#[test]
fn the_answer_to_a_multicast_solicitation_has_the_address() {
    let answer = Advertisement { target: ip("2001:db8::2"), mac: Some(OTHER), overrides: true };
    let packet = advertisement(0x60, &target_option(OTHER));
    assert_eq!(parse_advertisement(&packet), Some(answer));
    // A router's, with an option that is not known before it, and with padding behind.
    let options = [vec![14, 2], vec![0; 14], target_option(OTHER)].concat();
    let mut packet = advertisement(0xe0, &options);
    packet.extend([0xaa; 6]);
    assert_eq!(parse_advertisement(&packet), Some(answer));
    let proxied = Advertisement { overrides: false, ..answer };
    assert_eq!(parse_advertisement(&advertisement(0x40, &target_option(OTHER))), Some(proxied));
}

#[test]
fn the_answer_to_a_unicast_solicitation_needs_no_address() {
    let answer = Advertisement { target: ip("2001:db8::2"), mac: None, overrides: false };
    assert_eq!(parse_advertisement(&advertisement(0x40, &[])), Some(answer));
    // A source link-layer address option says nothing here.
    assert_eq!(parse_advertisement(&advertisement(0x40, &[1, 1, 2, 0, 0, 0, 0, 9])), Some(answer));
}

#[test]
fn what_is_not_a_valid_answer_is_refused() {
    let good = advertisement(0x60, &target_option(OTHER));
    for (what, at, value) in [
        ("version", 0, 0x40),
        ("next header", 6, 17),
        ("hop limit: through a router", 7, 254),
        ("to a multicast address, and yet solicited", 24, 0xff),
        ("type", 40, 135),
        ("code", 41, 1),
        ("not solicited", 44, 0x20),
        ("a multicast target", 48, 0xff),
        ("an option without a length", 65, 0),
        ("an option beyond the end", 65, 2),
    ] {
        let mut packet = good.clone();
        packet[at] = value;
        assert_eq!(parse_advertisement(&with_checksum(packet)), None, "{what}");
    }
    let mut packet = good.clone();
    packet[43] ^= 1;
    assert_eq!(parse_advertisement(&packet), None, "checksum");
    let mut packet = good.clone();
    packet[5] = (ND_LEN - 1) as u8;
    assert_eq!(parse_advertisement(&with_checksum(packet)), None, "too short a message");
    let ends_within_an_option = [target_option(OTHER), vec![14]].concat();
    assert_eq!(parse_advertisement(&advertisement(0x60, &ends_within_an_option)), None);
    let solicitation = solicitation(OWN, ip("fe80::1"), ip("fe80::2"), ip("fe80::2"));
    assert_eq!(parse_advertisement(&solicitation), None);
}

#[test]
fn a_packet_that_is_cut_short_anywhere_is_refused() {
    let good = advertisement(0x60, &target_option(OTHER));
    for len in 0..good.len() {
        assert_eq!(parse_advertisement(&good[..len]), None, "{len} bytes");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        tail in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        parse_advertisement(&bytes);
        let mut packet = advertisement(0x60, &[]);
        packet.extend(&tail);
        packet[5] = (ND_LEN + tail.len()) as u8;
        parse_advertisement(&with_checksum(packet));
    }

    #[test]
    fn every_solicitation_has_a_right_checksum(mac: [u8; 6], source: u128, target: u128) {
        let (source, target) = (Ipv6Addr::from(source), Ipv6Addr::from(target));
        prop_assert_eq!(sum(&solicitation(mac, source, target, solicited_node(target))), 0xffff);
    }
}
