//! Frames to be built, one setter for each field that the datapath looks at.

use std::net::{IpAddr, SocketAddr};

use super::Extension;

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
    /// The traffic class of IPv6.
    pub tos: u8,
    /// Of IPv6 only.
    pub flow_label: u32,
    /// At most 16 bits for IPv4; for IPv6 it goes into the fragment header, if there is one.
    pub id: u32,
    /// Of IPv4 only.
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// In units of 8 bytes. With any but 0, put the fragment's bytes into an [`L4::Raw`].
    pub fragment_offset: u16,
    /// The hop limit of IPv6.
    pub ttl: u8,
    /// Its family is that of the packet.
    pub src: IpAddr,
    pub dst: IpAddr,
    /// IPv4 options, padded with zeros to a multiple of 4 bytes.
    pub ip_options: Vec<u8>,
    /// IPv6 extension headers, in their order.
    pub extensions: Vec<Extension>,
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
    /// Without `checksum` the field is 0: "not computed", which IPv6 does not allow.
    Udp { src: u16, dst: u16, checksum: bool },
    /// ICMP or ICMPv6. `rest` is the second word: identifier and sequence, the MTU, or unused.
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
    /// The payload only.
    Raw { protocol: u8 },
}

impl Frame {
    /// An ACK with no payload.
    pub fn tcp(src: impl Into<SocketAddr>, dst: impl Into<SocketAddr>) -> Self {
        let (src, dst) = (src.into(), dst.into());
        let l4 = L4::Tcp {
            src: src.port(),
            dst: dst.port(),
            seq: 1,
            ack: 1,
            flags: tcp_flags::ACK,
            window: 64240,
            options: Vec::new(),
        };
        Self::new(src.ip(), dst.ip(), l4)
    }

    /// The first packet of a connection.
    pub fn syn(src: impl Into<SocketAddr>, dst: impl Into<SocketAddr>) -> Self {
        // MSS 1460, SACK permitted, window scale 7.
        let options = vec![2, 4, 0x05, 0xb4, 4, 2, 3, 3, 7];
        Self::tcp(src, dst).flags(tcp_flags::SYN).ack(0).tcp_options(&options)
    }

    pub fn udp(src: impl Into<SocketAddr>, dst: impl Into<SocketAddr>) -> Self {
        let (src, dst) = (src.into(), dst.into());
        let l4 = L4::Udp { src: src.port(), dst: dst.port(), checksum: true };
        Self::new(src.ip(), dst.ip(), l4)
    }

    /// An IP packet that carries `payload` as any protocol: a later fragment, GRE, ….
    pub fn raw(
        src: impl Into<IpAddr>,
        dst: impl Into<IpAddr>,
        protocol: u8,
        payload: &[u8],
    ) -> Self {
        Self::new(src.into(), dst.into(), L4::Raw { protocol }).payload(payload)
    }

    pub(super) fn new(src: IpAddr, dst: IpAddr, l4: L4) -> Self {
        Self {
            eth_dst: [0x02, 0, 0, 0, 0, 0x01],
            eth_src: [0x02, 0, 0, 0, 0, 0x02],
            vlans: Vec::new(),
            tos: 0,
            flow_label: 0,
            id: 0x1234,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            src,
            dst,
            ip_options: Vec::new(),
            extensions: Vec::new(),
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

    pub fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label;
        self
    }

    pub fn id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }

    pub fn dont_fragment(mut self, set: bool) -> Self {
        self.dont_fragment = set;
        self
    }

    /// Makes it a fragment: `offset` in units of 8 bytes, `more` if others follow. IPv6 gets a fragment header for it,
    /// after the extension headers that are there.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        (self.fragment_offset, self.more_fragments, self.dont_fragment) = (offset, more, false);
        if self.src.is_ipv6() && !self.extensions.contains(&Extension::Fragment) {
            self.extensions.push(Extension::Fragment);
        }
        self
    }

    pub fn ip_options(mut self, options: &[u8]) -> Self {
        self.ip_options = options.to_vec();
        self
    }

    /// Adds an IPv6 extension header after the ones that are there.
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
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
}
