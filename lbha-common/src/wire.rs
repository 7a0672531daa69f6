//! Header offsets and protocol numbers, in the units in which the datapath uses them.

/// EtherTypes and TPIDs as raw (network-order) 16-bit loads.
pub mod ethertype {
    pub const IPV4: u16 = 0x0800_u16.to_be();
    pub const IPV6: u16 = 0x86dd_u16.to_be();
    /// IEEE 802.1Q.
    pub const VLAN: u16 = 0x8100_u16.to_be();
    /// IEEE 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8_u16.to_be();
}

/// IP protocol numbers.
pub mod proto {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
}

/// TCP flag bits (byte 13 of the header, RFC 9293 §3.1).
pub mod tcp {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
    /// Header length without options.
    pub const HEADER: usize = 20;
}

/// UDP header length.
pub const UDP_HEADER: usize = 8;
/// Ethernet header length without tags.
pub const ETH_HEADER: usize = 14;
/// Length of one VLAN tag.
pub const VLAN_TAG: usize = 4;
/// IPv4 header length without options.
pub const IPV4_HEADER: usize = 20;
/// More-fragments bit and fragment offset, as a mask over the raw 16-bit load at offset 6 (RFC 791 §3.1).
pub const IPV4_FRAGMENT: u16 = 0x3fff_u16.to_be();
/// The fragment offset alone, likewise.
pub const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff_u16.to_be();
/// VLAN id within a TCI, as a mask over the raw load.
pub const VLAN_ID: u16 = 0x0fff_u16.to_be();
