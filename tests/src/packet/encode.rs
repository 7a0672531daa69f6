//! Turns a [`Frame`] into bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Frame, L4, PROTO_ICMP,
    PROTO_ICMPV6, PROTO_TCP, PROTO_UDP,
    extension::{self, Fragment},
    verify::{checksum, pseudo_header},
};

impl Frame {
    /// The whole frame.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = [self.eth_dst, self.eth_src].concat();
        for (index, tag) in self.vlans.iter().enumerate() {
            let inner = index + 1 == self.vlans.len();
            let ethertype = if inner { ETHERTYPE_VLAN } else { ETHERTYPE_QINQ };
            frame.extend(ethertype.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        let ethertype = if self.src.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        frame.extend(ethertype.to_be_bytes());
        frame.extend(self.build_ip());
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    /// The IP packet alone.
    pub fn build_ip(&self) -> Vec<u8> {
        let mut packet = self.build_ip_header();
        packet.extend(self.build_l4());
        packet
    }

    /// The IP packet as an ICMP error quotes it: the IP header with options or extension headers, and `bytes` more.
    pub fn quote(&self, bytes: usize) -> Vec<u8> {
        let mut packet = self.build_ip();
        packet.truncate(self.build_ip_header().len() + bytes);
        packet
    }

    fn build_ip_header(&self) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.build_ipv4_header(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.build_ipv6_header(src, dst),
            (src, dst) => panic!("{src} and {dst} are of two families"),
        }
    }

    fn build_ipv4_header(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        assert!(self.extensions.is_empty(), "IPv4 has no extension headers");
        let options = padded(&self.ip_options);
        let header_len = 20 + options.len();
        assert!(header_len <= 60, "{} bytes of IPv4 options", options.len());
        let total = u16::try_from(header_len + self.build_l4().len()).expect("at most 65535 bytes");
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(self.more_fragments) << 13;

        let mut header = vec![0x40 | u8::try_from(header_len / 4).expect("invariant: 5..=15")];
        header.push(self.tos);
        header.extend(total.to_be_bytes());
        header.extend(u16::try_from(self.id).expect("16 bits of identification").to_be_bytes());
        header.extend((flags | self.checked_offset()).to_be_bytes());
        header.extend([self.ttl, self.protocol(), 0, 0]);
        header.extend(src.octets());
        header.extend(dst.octets());
        header.extend(options);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    /// With the extension headers.
    fn build_ipv6_header(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        assert!(self.ip_options.is_empty(), "IPv6 has extension headers for options");
        assert!(self.flow_label < 1 << 20, "flow label {:#x}", self.flow_label);
        let (offset, more) = (self.checked_offset(), self.more_fragments);
        let fragment = Fragment { offset, more, id: self.id };
        // From the last one, since each names the one after it.
        let (mut next, mut extensions) = (self.protocol(), Vec::new());
        for extension in self.extensions.iter().rev() {
            extensions.splice(0..0, extension.encode(next, fragment));
            next = extension.number();
        }
        let len = extensions.len() + self.build_l4().len();
        let len = u16::try_from(len).expect("at most 65535 bytes after the IPv6 header");

        let first = 6 << 28 | u32::from(self.tos) << 20 | self.flow_label;
        let mut header = first.to_be_bytes().to_vec();
        header.extend(len.to_be_bytes());
        header.extend([next, self.ttl]);
        header.extend(src.octets());
        header.extend(dst.octets());
        header.extend(extensions);
        header
    }

    /// The number of what the packet carries.
    fn protocol(&self) -> u8 {
        match self.l4 {
            L4::Tcp { .. } => PROTO_TCP,
            L4::Udp { .. } => PROTO_UDP,
            L4::Icmp { .. } if self.src.is_ipv4() => PROTO_ICMP,
            L4::Icmp { .. } => PROTO_ICMPV6,
            L4::Raw { protocol } => protocol,
        }
    }

    fn checked_offset(&self) -> u16 {
        assert!(self.fragment_offset < 1 << 13, "fragment offset {}", self.fragment_offset);
        self.fragment_offset
    }

    fn build_l4(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.l4 {
            L4::Tcp { src, dst, seq, ack, flags, window, options } => {
                let options = padded(options);
                let words = u8::try_from(5 + options.len() / 4).expect("few TCP options");
                assert!(words <= 15, "{} bytes of TCP options", options.len());
                out.extend(src.to_be_bytes());
                out.extend(dst.to_be_bytes());
                out.extend(seq.to_be_bytes());
                out.extend(ack.to_be_bytes());
                out.extend([words << 4, *flags]);
                out.extend(window.to_be_bytes());
                out.extend([0; 4]);
                out.extend(options);
                out.extend(&self.payload);
                let sum = self.l4_checksum(PROTO_TCP, &out);
                out[16..18].copy_from_slice(&sum.to_be_bytes());
            }
            L4::Udp { src, dst, checksum } => {
                let len = u16::try_from(8 + self.payload.len()).expect("a UDP datagram fits");
                out.extend(src.to_be_bytes());
                out.extend(dst.to_be_bytes());
                out.extend(len.to_be_bytes());
                out.extend([0; 2]);
                out.extend(&self.payload);
                if *checksum {
                    // RFC 768: a computed 0 is sent as all ones, since 0 means "none".
                    let sum = match self.l4_checksum(PROTO_UDP, &out) {
                        0 => 0xffff,
                        sum => sum,
                    };
                    out[6..8].copy_from_slice(&sum.to_be_bytes());
                }
            }
            L4::Icmp { kind, code, rest } => {
                out.extend([*kind, *code, 0, 0]);
                out.extend(rest);
                out.extend(&self.payload);
                let sum = match self.src {
                    IpAddr::V4(_) => checksum(&out),
                    IpAddr::V6(_) => self.l4_checksum(PROTO_ICMPV6, &out),
                };
                out[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            L4::Raw { .. } => out.extend(&self.payload),
        }
        out
    }

    fn l4_checksum(&self, protocol: u8, segment: &[u8]) -> u16 {
        let dst = match self.dst {
            IpAddr::V4(_) => self.dst,
            IpAddr::V6(dst) => extension::final_destination(dst, &self.extensions).into(),
        };
        let pseudo = pseudo_header(self.src, dst, protocol, segment.len());
        checksum(&[&pseudo, segment].concat())
    }
}

fn padded(options: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    options
}
