//! Builds Ethernet frames with IPv4, one setter for each field that the datapath looks at.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{
    ETHERTYPE_IPV4, ETHERTYPE_QINQ, ETHERTYPE_VLAN, PROTO_ICMP, PROTO_TCP, PROTO_UDP,
    verify::{checksum, pseudo_header},
};

/// The flag byte of a TCP header.
pub mod tcp_flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
}

/// A frame to be built. All fields are open; the methods only make tests read well.
#[derive(Clone, Debug)]
pub struct Frame {
    pub eth_dst: [u8; 6],
    pub eth_src: [u8; 6],
    /// Tag control information, outermost first: one tag is 802.1Q, of two the outer is 802.1ad.
    pub vlans: Vec<u16>,
    pub tos: u8,
    pub id: u16,
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// In units of 8 bytes. With any but 0, put the fragment's bytes into an [`L4::Raw`].
    pub fragment_offset: u16,
    pub ttl: u8,
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    /// IPv4 options, padded with zeros to a multiple of 4 bytes.
    pub ip_options: Vec<u8>,
    pub l4: L4,
    pub payload: Vec<u8>,
    /// Bytes after the IP packet, as Ethernet pads short frames.
    pub padding: usize,
}

/// What the IP packet carries.
#[derive(Clone, Debug)]
pub enum L4 {
    Tcp {
        src: u16,
        dst: u16,
        seq: u32,
        ack: u32,
        flags: u8,
        window: u16,
        /// Padded with zeros to a multiple of 4 bytes.
        options: Vec<u8>,
    },
    /// Without `checksum` the field is 0: "not computed".
    Udp { src: u16, dst: u16, checksum: bool },
    /// `rest` is the second word: identifier and sequence, the MTU, or unused.
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
    /// The payload only.
    Raw { protocol: u8 },
}

impl Frame {
    /// An ACK with no payload.
    pub fn tcp(src: SocketAddrV4, dst: SocketAddrV4) -> Self {
        let l4 = L4::Tcp {
            src: src.port(),
            dst: dst.port(),
            seq: 1,
            ack: 1,
            flags: tcp_flags::ACK,
            window: 64240,
            options: Vec::new(),
        };
        Self::new(*src.ip(), *dst.ip(), l4)
    }

    /// The first packet of a connection.
    pub fn syn(src: SocketAddrV4, dst: SocketAddrV4) -> Self {
        // MSS 1460, SACK permitted, window scale 7.
        let options = vec![2, 4, 0x05, 0xb4, 4, 2, 3, 3, 7];
        Self::tcp(src, dst).flags(tcp_flags::SYN).ack(0).tcp_options(&options)
    }

    pub fn udp(src: SocketAddrV4, dst: SocketAddrV4) -> Self {
        let l4 = L4::Udp { src: src.port(), dst: dst.port(), checksum: true };
        Self::new(*src.ip(), *dst.ip(), l4)
    }

    pub fn echo_request(src: Ipv4Addr, dst: Ipv4Addr, id: u16, seq: u16) -> Self {
        Self::echo(src, dst, 8, id, seq)
    }

    pub fn echo_reply(src: Ipv4Addr, dst: Ipv4Addr, id: u16, seq: u16) -> Self {
        Self::echo(src, dst, 0, id, seq)
    }

    /// An ICMP error about `about`, an IP packet or the start of one ([`Frame::build_ip`], [`truncated`](Self::quote)).
    pub fn icmp_error(src: Ipv4Addr, dst: Ipv4Addr, kind: u8, code: u8, about: &[u8]) -> Self {
        Self::new(src, dst, L4::Icmp { kind, code, rest: [0; 4] }).payload(about)
    }

    /// "Fragmentation needed" (type 3, code 4) with the MTU of the next hop.
    pub fn too_big(src: Ipv4Addr, dst: Ipv4Addr, mtu: u16, about: &[u8]) -> Self {
        let [high, low] = mtu.to_be_bytes();
        Self::icmp_error(src, dst, 3, 4, about).icmp_rest([0, 0, high, low])
    }

    /// An IP packet that carries `payload` as any protocol: a later fragment, GRE, ….
    pub fn raw(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Self {
        Self::new(src, dst, L4::Raw { protocol }).payload(payload)
    }

    fn echo(src: Ipv4Addr, dst: Ipv4Addr, kind: u8, id: u16, seq: u16) -> Self {
        let ([a, b], [c, d]) = (id.to_be_bytes(), seq.to_be_bytes());
        Self::new(src, dst, L4::Icmp { kind, code: 0, rest: [a, b, c, d] })
    }

    fn new(src: Ipv4Addr, dst: Ipv4Addr, l4: L4) -> Self {
        Self {
            eth_dst: [0x02, 0, 0, 0, 0, 0x01],
            eth_src: [0x02, 0, 0, 0, 0, 0x02],
            vlans: Vec::new(),
            tos: 0,
            id: 0x1234,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            src,
            dst,
            ip_options: Vec::new(),
            l4,
            payload: Vec::new(),
            padding: 0,
        }
    }

    pub fn macs(mut self, src: [u8; 6], dst: [u8; 6]) -> Self {
        (self.eth_src, self.eth_dst) = (src, dst);
        self
    }

    /// Adds a tag inside the ones that are there.
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlans.push(id);
        self
    }

    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    pub fn dont_fragment(mut self, set: bool) -> Self {
        self.dont_fragment = set;
        self
    }

    /// Makes it a fragment: `offset` in units of 8 bytes, `more` if others follow.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        (self.fragment_offset, self.more_fragments, self.dont_fragment) = (offset, more, false);
        self
    }

    pub fn ip_options(mut self, options: &[u8]) -> Self {
        self.ip_options = options.to_vec();
        self
    }

    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    pub fn padding(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// Replaces the TCP flags.
    #[track_caller]
    pub fn flags(mut self, new: u8) -> Self {
        match &mut self.l4 {
            L4::Tcp { flags, .. } => *flags = new,
            other => panic!("flags of {other:?}"),
        }
        self
    }

    #[track_caller]
    pub fn seq(mut self, new: u32) -> Self {
        match &mut self.l4 {
            L4::Tcp { seq, .. } => *seq = new,
            other => panic!("sequence number of {other:?}"),
        }
        self
    }

    #[track_caller]
    pub fn ack(mut self, new: u32) -> Self {
        match &mut self.l4 {
            L4::Tcp { ack, .. } => *ack = new,
            other => panic!("acknowledgement of {other:?}"),
        }
        self
    }

    #[track_caller]
    pub fn tcp_options(mut self, new: &[u8]) -> Self {
        match &mut self.l4 {
            L4::Tcp { options, .. } => *options = new.to_vec(),
            other => panic!("TCP options of {other:?}"),
        }
        self
    }

    /// Leaves the UDP checksum 0.
    #[track_caller]
    pub fn without_checksum(mut self) -> Self {
        match &mut self.l4 {
            L4::Udp { checksum, .. } => *checksum = false,
            other => panic!("checksum of {other:?} is not optional"),
        }
        self
    }

    #[track_caller]
    pub fn icmp_rest(mut self, new: [u8; 4]) -> Self {
        match &mut self.l4 {
            L4::Icmp { rest, .. } => *rest = new,
            other => panic!("ICMP word of {other:?}"),
        }
        self
    }

    /// The whole frame.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = [self.eth_dst, self.eth_src].concat();
        for (index, tag) in self.vlans.iter().enumerate() {
            let inner = index + 1 == self.vlans.len();
            let ethertype = if inner { ETHERTYPE_VLAN } else { ETHERTYPE_QINQ };
            frame.extend(ethertype.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(ETHERTYPE_IPV4.to_be_bytes());
        frame.extend(self.build_ip());
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    /// The IP packet alone.
    pub fn build_ip(&self) -> Vec<u8> {
        let l4 = self.build_l4();
        let options = padded(&self.ip_options);
        let header_len = 20 + options.len();
        assert!(header_len <= 60, "{} bytes of IPv4 options", options.len());
        let total = u16::try_from(header_len + l4.len()).expect("an IPv4 packet fits 65535 bytes");
        let protocol = match self.l4 {
            L4::Tcp { .. } => PROTO_TCP,
            L4::Udp { .. } => PROTO_UDP,
            L4::Icmp { .. } => PROTO_ICMP,
            L4::Raw { protocol } => protocol,
        };
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(self.more_fragments) << 13;
        assert!(self.fragment_offset < 1 << 13, "fragment offset {}", self.fragment_offset);

        let mut packet = vec![0x40 | u8::try_from(header_len / 4).expect("invariant: 5..=15")];
        packet.push(self.tos);
        packet.extend(total.to_be_bytes());
        packet.extend(self.id.to_be_bytes());
        packet.extend((flags | self.fragment_offset).to_be_bytes());
        packet.extend([self.ttl, protocol, 0, 0]);
        packet.extend(self.src.octets());
        packet.extend(self.dst.octets());
        packet.extend(options);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(l4);
        packet
    }

    /// The IP packet as an ICMP error quotes it: the IP header and `bytes` more.
    pub fn quote(&self, bytes: usize) -> Vec<u8> {
        let mut packet = self.build_ip();
        packet.truncate(20 + padded(&self.ip_options).len() + bytes);
        packet
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
                let sum = checksum(&out);
                out[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            L4::Raw { .. } => out.extend(&self.payload),
        }
        out
    }

    fn l4_checksum(&self, protocol: u8, segment: &[u8]) -> u16 {
        let pseudo = pseudo_header(self.src, self.dst, protocol, segment.len());
        checksum(&[&pseudo, segment].concat())
    }
}

fn padded(options: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    options
}
