//! Spoofed SYNs, as many as a core sends.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::netns::Netns;

/// The sources of a flood: 198.18.0.0/15, which is set aside for tests (RFC 2544).
pub const SOURCES: &str = "198.18.0.0/15";
const FIRST_SOURCE: u32 = Ipv4Addr::new(198, 18, 0, 0).to_bits();

/// Sends `count` SYNs from the namespace, each from an address and port of its own, or as many as leave within `limit`.
/// Gives how many the kernel took.
pub fn syns(namespace: &Netns, to: SocketAddrV4, count: u32, limit: Duration) -> Result<u32> {
    namespace.run_in(|| {
        // A socket of IPPROTO_RAW sends packets with the header that it is given (raw(7)).
        let fd: OwnedFd =
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)
                .context("open a raw socket")?;
        let destination = SockaddrIn::from(to);
        let mut syns = Syns::new(to);
        let deadline = Instant::now() + limit;
        let mut sent = 0;
        for number in 0..count {
            if number % 1024 == 0 && Instant::now() > deadline {
                break;
            }
            // Packets that meet a full queue are what a flood consists of.
            sent += u32::from(
                sendto(fd.as_raw_fd(), syns.packet(number), &destination, MsgFlags::empty())
                    .is_ok(),
            );
        }
        Ok(sent)
    })
}

/// Makes SYNs of 40 bytes that differ in their sources and sequence numbers.
struct Syns {
    packet: [u8; 40],
    /// Of all words that the checksum covers and that stay.
    sum: u32,
}

impl Syns {
    fn new(to: SocketAddrV4) -> Self {
        let mut packet = [0; 40];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&40_u16.to_be_bytes());
        packet[8] = 64;
        packet[9] = 6;
        packet[16..20].copy_from_slice(&to.ip().octets());
        packet[22..24].copy_from_slice(&to.port().to_be_bytes());
        packet[32] = 5 << 4;
        packet[33] = 0x02;
        packet[34..36].copy_from_slice(&64240_u16.to_be_bytes());
        // The pseudo header is the addresses, the protocol and the length (RFC 9293 §3.1). The kernel fills in IP's own.
        let words = packet[12..].chunks_exact(2);
        let words = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        Self { packet, sum: words.sum::<u32>() + 6 + 20 }
    }

    /// No two numbers below 2^33 have the same source.
    fn packet(&mut self, number: u32) -> &[u8; 40] {
        let source = FIRST_SOURCE + (number & 0x1_ffff);
        let port = 1024 + (number >> 17);
        let seq = number.wrapping_mul(0x9e37_79b9);
        self.packet[12..16].copy_from_slice(&source.to_be_bytes());
        self.packet[20..22].copy_from_slice(&port.to_be_bytes()[2..]);
        self.packet[24..28].copy_from_slice(&seq.to_be_bytes());
        let changing = (source >> 16) + (source & 0xffff) + port + (seq >> 16) + (seq & 0xffff);
        let sum = self.sum + changing;
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        self.packet[36..38].copy_from_slice(&sum.to_be_bytes());
        &self.packet
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(147, 75, 78, 116), 80);

    #[test]
    fn a_syn_is_one_with_a_right_checksum() {
        for number in [0, 1, 131_072, 999_999] {
            let packet = *Syns::new(TO).packet(number);
            let ip = etherparse::Ipv4HeaderSlice::from_slice(&packet).unwrap().to_header();
            let (tcp, rest) = etherparse::TcpHeader::from_slice(&packet[20..]).unwrap();
            assert!(tcp.syn && !tcp.ack && rest.is_empty());
            assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, &[]).unwrap());
        }
    }

    #[test]
    fn sources_differ() {
        let mut syns = Syns::new(TO);
        let sources: HashSet<[u8; 10]> =
            (0..300_000).map(|n| syns.packet(n)[12..22].try_into().unwrap()).collect();
        assert_eq!(sources.len(), 300_000);
    }
}
