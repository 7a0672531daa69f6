//! ARP packets for IPv4 over Ethernet (RFC 826); pure. Without the Ethernet header, which the packet socket adds.

use std::net::Ipv4Addr;

use super::state::Mac;

pub const ARP_LEN: usize = 28;
pub const BROADCAST: Mac = [0xff; 6];

/// A request for `target`'s MAC address. With `source` 0.0.0.0 it is an ARP probe (RFC 5227 §2.1.1), which is
/// answered all the same (§2.3 and RFC 826), but changes nothing in anybody's ARP cache.
pub fn request(sender: Mac, source: Ipv4Addr, target: Ipv4Addr) -> [u8; ARP_LEN] {
    let mut packet = [0; ARP_LEN];
    packet[..6].copy_from_slice(&HEADER);
    packet[6..8].copy_from_slice(&OP_REQUEST.to_be_bytes());
    packet[8..14].copy_from_slice(&sender);
    packet[14..18].copy_from_slice(&source.octets());
    packet[24..28].copy_from_slice(&target.octets());
    packet
}

/// Who a reply says has which MAC address; `None` for anything but an ARP reply for IPv4 over Ethernet.
pub fn parse_reply(packet: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let packet = packet.first_chunk::<ARP_LEN>()?;
    if packet[..6] != HEADER || packet[6..8] != OP_REPLY.to_be_bytes() {
        return None;
    }
    let mac: Mac = packet[8..14].try_into().ok()?;
    let addr: [u8; 4] = packet[14..18].try_into().ok()?;
    Some((addr.into(), mac))
}

/// Hardware type Ethernet, protocol type IPv4, and their address lengths.
const HEADER: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];
const OP_REQUEST: u16 = 1;
const OP_REPLY: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_rfc_826_says() {
        let packet =
            request([2, 0, 0, 0, 0, 9], Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        #[rustfmt::skip]
        let expected = [
            0, 1, 8, 0, 6, 4, 0, 1,
            2, 0, 0, 0, 0, 9, 10, 0, 0, 1,
            0, 0, 0, 0, 0, 0, 10, 0, 0, 2,
        ];
        assert_eq!(packet, expected);
    }

    #[test]
    fn only_a_reply_is_parsed_and_padding_is_ignored() {
        let addr = Ipv4Addr::new(10, 0, 0, 2);
        let mut packet = request([2, 0, 0, 0, 0, 9], addr, Ipv4Addr::UNSPECIFIED).to_vec();
        assert_eq!(parse_reply(&packet), None);
        packet[7] = 2;
        packet.extend([0; 18]);
        assert_eq!(parse_reply(&packet), Some((addr, [2, 0, 0, 0, 0, 9])));
        assert_eq!(parse_reply(&packet[..27]), None);
        packet[2] = 0x86;
        assert_eq!(parse_reply(&packet), None);
    }
}
