//! Fragments of both families, cut and put together again.

use super::*;

fn datagrams() -> [Frame; 4] {
    let payload: Vec<u8> = (0..4000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let routing = Extension::Routing { kind: 4, segments_left: 0, data: vec![0; 20] };
    [
        Frame::udp(CLIENT, SERVICE),
        // Record route is in the first fragment only, the security option (copied) in all.
        Frame::udp(CLIENT, SERVICE).ip_options(&[7, 7, 4, 0, 0, 0, 0, 130, 4, 1, 1]).vlan(3),
        Frame::udp(CLIENT6, SERVICE6),
        Frame::udp(CLIENT6, SERVICE6)
            .extension(Extension::HopByHop(Vec::new()))
            .extension(routing)
            .extension(Extension::Destination(vec![1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
    ]
    .map(|frame| frame.payload(&payload).dont_fragment(false).id(0))
}

#[test]
fn fragments_fit_are_sound_and_make_the_packet_again() {
    for frame in datagrams() {
        let (whole, ethernet) = (frame.build(), 14 + 4 * frame.vlans.len());
        for mtu in [1500, 1281, 576, 200] {
            let mut fragments = fragments(&whole, mtu, 0x4321);
            assert!(fragments.len() >= 3);
            let mut end = 0;
            for fragment in &fragments {
                verify(fragment).unwrap();
                assert!(fragment.len() - ethernet <= mtu);
                let parsed = parse(fragment).unwrap();
                assert_eq!(
                    (parsed.ip.id, usize::from(parsed.ip.fragment_offset) * 8),
                    (0x4321, end)
                );
                let start =
                    if frame.src.is_ipv4() { parsed.ip.header_len } else { fragment_end(&parsed) };
                end += parsed.ip.total_len - start;
            }
            fragments.reverse();
            let again = reassemble(&fragments).unwrap();
            let id = if frame.src.is_ipv4() { 0x4321 } else { 0 };
            assert!(again == frame.clone().id(id).build(), "MTU {mtu}");
        }
    }
}

/// Where the fragment header ends.
fn fragment_end(parsed: &Parsed) -> usize {
    let after = parsed.ip.extensions.iter().rev().take_while(|one| **one != Extension::Fragment);
    let len = |one: &Extension| match one {
        Extension::Destination(options) => options.len() + 2,
        other => panic!("{other:?} behind the fragment header"),
    };
    parsed.ip.header_len - after.map(len).sum::<usize>()
}

#[test]
fn an_option_is_copied_if_it_says_so() {
    let [_, frame, ..] = datagrams();
    let fragments = fragments(&frame.build(), 576, 1);
    let options = |at: usize| parse(&fragments[at]).unwrap().ip.options;
    assert_eq!(options(0), [7, 7, 4, 0, 0, 0, 0, 130, 4, 1, 1, 0]);
    assert_eq!(options(1), [130, 4, 1, 1]);
}

#[test]
fn a_packet_that_fits_stays_whole() {
    let [v4, _, v6, _] = datagrams().map(|frame| frame.payload(b"short").build_ip());
    assert_eq!(reassemble_ip(&fragments_ip(&v4, 1500, 0)), Ok(v4.clone()));
    assert_eq!(fragments_ip(&v4, 1500, 0), [v4]);
    let [atomic] = &fragments_ip(&v6, 1500, 5)[..] else { panic!() };
    verify_ip(atomic).unwrap();
    assert_eq!(reassemble_ip(&[atomic]), Ok(v6));
}

#[test]
fn fragments_have_the_layout_of_the_rfcs() {
    // 2008 bytes. Of an MTU of 1400, 1376 are for data with IPv4 (172 units), 1352 with IPv6 (169 units).
    let frame = Frame::udp(CLIENT, SERVICE).payload(&[0; 2000]).build_ip();
    let fragments = fragments_ip(&frame, 1400, 9);
    assert_eq!(fragments[0][..8], [0x45, 0, 0x05, 0x74, 0, 9, 0x20, 0]);
    assert_eq!(fragments[1][..8], [0x45, 0, 0x02, 0x8c, 0, 9, 0, 172]);
    let frame = Frame::udp(CLIENT6, SERVICE6).payload(&[0; 2000]).build_ip();
    let fragments = fragments_ip(&frame, 1400, 9);
    assert_eq!(fragments[0][4..8], [0x05, 0x50, 44, 64]);
    assert_eq!(fragments[0][40..48], [17, 0, 0, 1, 0, 0, 0, 9]);
    assert_eq!(fragments[1][40..48], [17, 0, 0x05, 0x48, 0, 0, 0, 9]);
}

#[test]
fn what_is_not_all_of_one_packet_is_refused() {
    for frame in datagrams() {
        let whole = frame.build();
        let good = fragments(&whole, 1000, 1);
        for missing in 0..good.len() {
            let mut some = good.clone();
            some.remove(missing);
            assert!(matches!(reassemble(&some), Err(Fault::Fragments(_))));
        }
        let twice = [&good[..], &good[1..2]].concat();
        assert!(matches!(reassemble(&twice), Err(Fault::Fragments(_))));
        let mut others = fragments(&whole, 1000, 2);
        others[0].clone_from(&good[0]);
        assert!(matches!(reassemble(&others), Err(Fault::Fragments(_))));
    }
    assert!(reassemble(&[[0; 0]; 0]).is_err());
}
