//! Frames that Linux sent, built again: checksums and layout as another implementation has them.

use super::*;

const UDP4: &str = "02000000000b02000000000a08004500002194e5400040112ddacb00710acb0071019c4014e9000de0d96c62686121";
const UNREACHABLE4: &str = "02000000000a02000000000b080045c0003d326000004001cf93cb007101cb00710a03037528000000004500002194e54000\
    40112ddacb00710acb0071019c4014e9000de0d96c62686121";
const SYN4: &str = "02000000000b02000000000a08004500003ca650400040061c5fcb00710acb0071019c410051714f635400000000a002faf0\
    b4a00000020405b40402080aee8cc09b000000000103030a";
const UDP6: &str = "02000000000b02000000000a86dd600849ac000d114020010db8000c0000000000000000001020010db8000c000000000000\
    000000019c4014e9000dfd4b6c62686121";
const UNREACHABLE6: &str = "02000000000a02000000000b86dd600da0ca003d3a4020010db8000c0000000000000000000120010db8000c000000000000\
    000000100104e80500000000600849ac000d114020010db8000c0000000000000000001020010db8000c0000000000000000\
    00019c4014e9000dfd4b6c62686121";
const SYN6: &str = "02000000000b02000000000a86dd600aacb70028064020010db8000c0000000000000000001020010db8000c000000000000\
    000000019c41005108a3ea9e00000000a002fd209a8e0000020405a00402080a9c692889000000000103030a";
const ECHO6: &str = "02000000000b02000000000a86dd6009d023000b3a4020010db8000c0000000000000000001020010db8000c000000000000\
    00000001800050b2000700016f6464";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.bytes().filter_map(|c| (c as char).to_digit(16)).map(|d| d as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const NEAR: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
const FAR: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];
const NEAR4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const FAR4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const NEAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0x10);
const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1);

#[test]
fn every_checksum_of_linux_is_right() {
    for hex in [UDP4, UNREACHABLE4, SYN4, UDP6, UNREACHABLE6, SYN6, ECHO6] {
        let frame = bytes(hex);
        verify(&frame).unwrap();
        for at in 22..frame.len() {
            let mut broken = frame.clone();
            broken[at] ^= 0x40;
            assert!(verify(&broken).is_err(), "byte {at} of {hex}");
        }
    }
}

#[test]
fn udp_is_built_as_linux_does() {
    let frame = Frame::udp(at(NEAR4, 40000), at(FAR4, 5353)).macs(NEAR, FAR).id(0x94e5);
    assert_eq!(frame.payload(b"lbha!").build(), bytes(UDP4));
    let frame = Frame::udp(at(NEAR6, 40000), at(FAR6, 5353)).macs(NEAR, FAR).flow_label(0x849ac);
    assert_eq!(frame.payload(b"lbha!").build(), bytes(UDP6));
}

#[test]
fn a_syn_is_built_as_linux_does() {
    let options = |mss: u16, stamp: u32| {
        [
            &[2, 4][..],
            &mss.to_be_bytes(),
            &[4, 2, 8, 10],
            &stamp.to_be_bytes(),
            &[0; 4],
            &[1, 3, 3, 10],
        ]
        .concat()
    };
    let v4 = Frame::syn(at(NEAR4, 40001), at(FAR4, 81)).macs(NEAR, FAR).id(0xa650);
    let v4 = v4.seq(0x714f6354).tcp_options(&options(1460, 0xee8cc09b));
    assert_eq!(v4.build(), bytes(SYN4));
    let v6 = Frame::syn(at(NEAR6, 40001), at(FAR6, 81)).macs(NEAR, FAR).flow_label(0xaacb7);
    let mut v6 = v6.seq(0x8a3ea9e).tcp_options(&options(1440, 0x9c692889));
    let L4::Tcp { window, .. } = &mut v6.l4 else { panic!() };
    *window = 64800;
    assert_eq!(v6.build(), bytes(SYN6));
    assert_eq!(parse(&bytes(SYN4)).unwrap().mss(), Some(1460));
    assert_eq!(parse(&bytes(SYN6)).unwrap().mss(), Some(1440));
}

#[test]
fn an_echo_request_is_built_as_linux_does() {
    let frame = Frame::echo_request(NEAR6, FAR6, 7, 1).macs(NEAR, FAR).flow_label(0x9d023);
    assert_eq!(frame.payload(b"odd").build(), bytes(ECHO6));
}

#[test]
fn an_error_is_built_as_linux_does() {
    let error = icmp_error(&bytes(UDP4), (3, 3), [0; 4], FAR4, Quote::Most);
    let error = error.tos(0xc0).id(0x3260).dont_fragment(false);
    assert_eq!(error.build(), bytes(UNREACHABLE4));
    let error = icmp_error(&bytes(UDP6), (1, 4), [0; 4], FAR6, Quote::Most).flow_label(0xda0ca);
    assert_eq!(error.build(), bytes(UNREACHABLE6));
    for seen in [UNREACHABLE4, UNREACHABLE6] {
        let parsed = parse(&bytes(seen)).unwrap();
        assert_eq!(
            (parsed.embedded().source().port(), parsed.embedded().destination().port()),
            (40000, 5353)
        );
    }
}
