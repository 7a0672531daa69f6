//! Spoofed SYNs, as many as a core sends.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::netns::Netns;

/// The sources of a flood: 198.18.0.0/15, which is set aside for tests (RFC 2544).
pub const SOURCES: &str = "198.18.0.0/15";
const FIRST_SOURCE: u32 = Ipv4Addr::new(198, 18, 0, 0).to_bits();

/// Sends `count` SYNs from the namespace, each from an address and port of its own; gives how many the kernel took.
pub fn syns(namespace: &Netns, to: SocketAddrV4, count: u32) -> Result<u32> {
    namespace.run_in(|| {
        // A socket of IPPROTO_RAW sends packets with the header that it is given (raw(7)).
        let fd: OwnedFd =
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)
                .context("open a raw socket")?;
        let destination = SockaddrIn::from(to);
        let mut sent = 0;
        for number in 0..count {
            // Packets that meet a full queue are what a flood consists of.
            sent += u32::from(
                sendto(fd.as_raw_fd(), &syn(number, to), &destination, MsgFlags::empty()).is_ok(),
            );
        }
        Ok(sent)
    })
}

/// A SYN of 40 bytes. No two numbers below 2^33 have the same source.
fn syn(number: u32, to: SocketAddrV4) -> [u8; 40] {
    let source = (FIRST_SOURCE + (number & 0x1_ffff)).to_be_bytes();
    let port = u16::try_from(1024 + (number >> 17)).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = [0; 40];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&40_u16.to_be_bytes());
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..22].copy_from_slice(&port);
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..28].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    packet[32] = 5 << 4;
    packet[33] = 0x02;
    packet[34..36].copy_from_slice(&64240_u16.to_be_bytes());
    // The pseudo header is the addresses, the protocol and the length (RFC 9293 §3.1). The kernel fills in IP's own.
    let words = packet[12..].chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum = words.sum::<u32>() + 6 + 20;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(147, 75, 78, 116), 80);

    #[test]
    fn a_syn_is_one_with_a_right_checksum() {
        for number in [0, 1, 131_072, 999_999] {
            let packet = syn(number, TO);
            let ip = etherparse::Ipv4HeaderSlice::from_slice(&packet).unwrap().to_header();
            let (tcp, rest) = etherparse::TcpHeader::from_slice(&packet[20..]).unwrap();
            assert!(tcp.syn && !tcp.ack && rest.is_empty());
            assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, &[]).unwrap());
        }
    }

    #[test]
    fn sources_differ() {
        let sources: HashSet<[u8; 10]> =
            (0..300_000).map(|n| syn(n, TO)[12..22].try_into().unwrap()).collect();
        assert_eq!(sources.len(), 300_000);
    }
}
