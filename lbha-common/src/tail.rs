//! Programs that packets are handed to: indices into the program arrays.

/// IPv6 from the internet.
pub const IPV6_PUBLIC: u32 = 0;
/// IPv6 from the servers' side.
pub const IPV6_PRIVATE: u32 = 1;
/// ICMP over IPv4: echo and errors.
pub const ICMP4: u32 = 2;
/// ICMPv6: echo and errors.
pub const ICMP6: u32 = 3;
/// IPv4 fragments.
pub const FRAGMENT4: u32 = 4;
/// IPv6 fragments.
pub const FRAGMENT6: u32 = 5;
/// Answers a packet with an ICMP error, over IPv4.
pub const ANSWER4: u32 = 6;
/// The same over IPv6.
pub const ANSWER6: u32 = 7;
/// IPv4 packets that belong to no confirmed connection.
pub const FIRST4: u32 = 8;
/// IPv6 packets that belong to no confirmed connection.
pub const FIRST6: u32 = 9;
/// First fragments over IPv4 that have been decided on.
pub const NOTE4: u32 = 10;
/// The same over IPv6.
pub const NOTE6: u32 = 11;
pub const COUNT: u32 = 12;

/// The programs' names; those of the multi-buffer kind end in `_mb` besides.
pub const NAMES: [&str; COUNT as usize] = [
    "lbha_ipv6_public",
    "lbha_ipv6_private",
    "lbha_icmp4",
    "lbha_icmp6",
    "lbha_fragment4",
    "lbha_fragment6",
    "lbha_answer4",
    "lbha_answer6",
    "lbha_first4",
    "lbha_first6",
    "lbha_note4",
    "lbha_note6",
];
