//! The network's addresses by family, for tests that are the same in both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    CLIENT, CLIENT6, ICMP, ICMPV6, Outcome, PRIVATE, PRIVATE_MAC, PRIVATE6, PUBLIC, PUBLIC_MAC,
    PUBLIC6, REMOTE, REMOTE6, ROUTER_MAC, VIP, VIP6, WEB, WEB_MAC, WEB6,
};
use crate::packet::Frame;
use lbha_common::flow::side;

/// Who is who in [`super::gateway`]'s network.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    pub vip: IpAddr,
    pub client: IpAddr,
    pub public: IpAddr,
    pub private: IpAddr,
    pub web: [IpAddr; 2],
    pub remote: IpAddr,
    /// Somewhere on the internet, of no concern to anybody.
    pub elsewhere: IpAddr,
    /// A router on the way to clients, and one on the way to servers: neither is a neighbour, or masqueraded.
    pub outer_router: IpAddr,
    pub inner_router: IpAddr,
    /// Protocol number of the family's ICMP.
    pub icmp: u8,
}

/// Both families.
pub const NETS: [Net; 2] = [
    Net {
        vip: IpAddr::V4(VIP),
        client: IpAddr::V4(CLIENT),
        public: IpAddr::V4(PUBLIC),
        private: IpAddr::V4(PRIVATE),
        web: [IpAddr::V4(WEB[0]), IpAddr::V4(WEB[1])],
        remote: IpAddr::V4(REMOTE),
        elsewhere: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)),
        outer_router: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 254)),
        inner_router: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 254)),
        icmp: ICMP,
    },
    Net {
        vip: IpAddr::V6(VIP6),
        client: IpAddr::V6(CLIENT6),
        public: IpAddr::V6(PUBLIC6),
        private: IpAddr::V6(PRIVATE6),
        web: [IpAddr::V6(WEB6[0]), IpAddr::V6(WEB6[1])],
        remote: IpAddr::V6(REMOTE6),
        elsewhere: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 0x77)),
        outer_router: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0xfe)),
        inner_router: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 0xfe)),
        icmp: ICMPV6,
    },
];

impl Net {
    pub fn is_ipv4(&self) -> bool {
        self.vip.is_ipv4()
    }

    /// The neighbour that packets from an address come through, and our own MAC address towards it.
    pub fn macs(&self, from: IpAddr) -> (u8, [u8; 6], [u8; 6]) {
        match self.web.iter().position(|&web| web == from) {
            Some(n) => (side::PRIVATE, WEB_MAC[n], PRIVATE_MAC),
            None if from == self.inner_router => (side::PRIVATE, WEB_MAC[0], PRIVATE_MAC),
            None => (side::PUBLIC, ROUTER_MAC, PUBLIC_MAC),
        }
    }
}

impl super::Prog {
    /// Runs a packet that comes in from where its source is.
    pub fn come(&mut self, net: &Net, frame: Frame) -> Outcome {
        let (side, from, to) = net.macs(frame.src);
        self.run(side, &frame.macs(from, to).build())
    }
}
