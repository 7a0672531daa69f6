//! Addresses, endpoints and networks from their text: the same rules for the file and for the flags.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::values::{Invalid, port_text, quoted};
use crate::net::{IpPrefix, PrefixError};

/// What an address is for: the rules are nearly the same, the words are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Vip,
    Server,
    MasqueradeTo,
    ForwardAddress,
    ForwardTo,
}

impl Role {
    fn what(self) -> &'static str {
        match self {
            Self::Vip => "a VIP",
            Self::Server => "a server's address",
            Self::MasqueradeTo => "an address to masquerade to",
            Self::ForwardAddress => "the address of a forward",
            Self::ForwardTo => "the target of a forward",
        }
    }
}

/// An address without a port.
pub(super) fn address(text: &str, role: Role) -> Result<IpAddr, Invalid> {
    if let Ok(address) = text.parse() {
        return usable(address, role);
    }
    let invalid = Invalid::new(format!("{} is not an IP address", quoted(text)));
    if let Some((before, _)) = text.split_once('/').filter(|(before, _)| is_address(before)) {
        return Err(invalid.help(format!("write it without a prefix length: \"{before}\"")));
    }
    if let Some((before, _)) = text.split_once('%')
        && let Ok(address) = before.parse::<Ipv6Addr>()
    {
        // A link-local address is the usual reason for a zone, and nothing that helps here.
        usable(address.into(), role)?;
        return Err(invalid.help(format!("write it without the zone: \"{before}\"")));
    }
    // Where a port may follow it was split off before.
    if let Some((before, port)) = split_port(text)
        && is_address(before)
        && let Ok(port) = port_text(port)
    {
        return Err(if role == Role::Vip {
            invalid.help(format!(
                "the port has its own key: write `vip = \"{before}\"` and `port = {port}`"
            ))
        } else {
            invalid.help(format!("write it without a port: \"{before}\""))
        });
    }
    if let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'))
        && is_address(inside)
    {
        return Err(invalid.help(format!("write it without brackets: \"{inside}\"")));
    }
    let colons = text.bytes().filter(|byte| *byte == b':').count();
    Err(if colons < 2 && text.chars().any(|c| c.is_ascii_alphabetic()) {
        invalid.help("host names are not looked up: write the address")
    } else {
        invalid
    })
}

/// An address with a port or without one; one of IPv6 with a port is in brackets.
pub(super) fn endpoint(text: &str, role: Role) -> Result<(IpAddr, Option<u16>), Invalid> {
    if let Some(rest) = text.strip_prefix('[') {
        return bracketed(text, rest, role);
    }
    match text.split_once(':') {
        Some((before, after)) if !after.contains(':') => {
            Ok((address(before, role)?, Some(port_text(after)?)))
        }
        Some(_) => {
            not_with_a_port(text)?;
            Ok((address(text, role)?, None))
        }
        None => Ok((address(text, role)?, None)),
    }
}

/// An address with the port that it cannot do without.
pub(super) fn socket(text: &str, role: Role) -> Result<SocketAddr, Invalid> {
    match endpoint(text, role)? {
        (address, Some(port)) => Ok(SocketAddr::new(address, port)),
        (address, None) => Err(Invalid::new(format!("{} needs its port", role.what()))
            .help(format!("for example \"{}\"", SocketAddr::new(address, 22)))),
    }
}

/// A network whose connections are masqueraded. An address alone stands for itself.
pub(super) fn source(text: &str) -> Result<IpPrefix, Invalid> {
    let prefix: IpPrefix = text.parse().map_err(|error| not_a_prefix(text, error))?;
    if let Some(plain) = unmapped(prefix) {
        return Err(Invalid::new(format!("{text} is a network of IPv4 in the form of IPv6"))
            .help(format!("write \"{plain}\"")));
    }
    if prefix.len() == 0 {
        return Err(Invalid::new(format!("{prefix} cannot be a source: it is every address"))
            .help("write the networks behind the gateway, such as \"192.168.1.0/24\""));
    }
    for (range, what) in NOT_SOURCES {
        let range: IpPrefix = range.parse().expect("invariant: the table holds prefixes");
        if range.covers(prefix) {
            return Err(Invalid::new(format!("{prefix} cannot be a source: it is {what}")));
        }
    }
    Ok(prefix)
}

/// `[2001:db8::1]` or `[2001:db8::1]:80`, of which `rest` follows the first bracket.
fn bracketed(text: &str, rest: &str, role: Role) -> Result<(IpAddr, Option<u16>), Invalid> {
    let Some((inside, after)) = rest.split_once(']') else {
        return Err(Invalid::new(format!("{} has no closing bracket", quoted(text)))
            .help("write an IPv6 address with a port like \"[2001:db8::1]:80\""));
    };
    if inside.parse::<Ipv4Addr>().is_ok() {
        return Err(Invalid::new(format!("{} is not an IP address", quoted(text)))
            .help(format!("brackets are for IPv6: write \"{inside}{after}\"")));
    }
    let address = address(inside, role)?;
    match after.strip_prefix(':') {
        Some(port) => Ok((address, Some(port_text(port)?))),
        None if after.is_empty() => Ok((address, None)),
        None => Err(Invalid::new(format!("{} is not an IP address", quoted(text)))
            .help(format!("a port follows the bracket after a colon: \"[{inside}]:80\""))),
    }
}

/// Refuses an IPv6 address without brackets whose end may have been meant as a port.
fn not_with_a_port(text: &str) -> Result<(), Invalid> {
    let Some((before, port)) = text.rsplit_once(':') else { return Ok(()) };
    let (Ok(_), Ok(port)) = (before.parse::<Ipv6Addr>(), port_text(port)) else { return Ok(()) };
    Err(if is_address(text) {
        Invalid::new(format!("{} may be an address, or one with a port", quoted(text)))
            .help(format!("write \"[{before}]:{port}\" with the port, or \"[{text}]\" without one"))
    } else {
        Invalid::new(format!("{} is not an IP address", quoted(text)))
            .help(format!("write \"[{before}]:{port}\""))
    })
}

/// What comes before and after the last colon, the former without its brackets.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let (before, port) = text.rsplit_once(':')?;
    let inside = before.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    Some((inside.unwrap_or(before), port))
}

fn usable(address: IpAddr, role: Role) -> Result<IpAddr, Invalid> {
    let kind = match address {
        IpAddr::V4(address) => unusable_v4(address, role),
        IpAddr::V6(address) => {
            if let Some(plain) = address.to_ipv4_mapped() {
                return Err(Invalid::new(format!(
                    "{address} is an address of IPv4 in the form of IPv6"
                ))
                .help(format!("write \"{plain}\"")));
            }
            unusable_v6(address)
        }
    };
    match kind {
        None => Ok(address),
        Some(kind) => {
            Err(Invalid::new(format!("{address} cannot be {}: it is {kind}", role.what())))
        }
    }
}

fn unusable_v4(address: Ipv4Addr, role: Role) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.octets()[0] == 0 {
        Some("in 0.0.0.0/8, which belongs to no host")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_broadcast() {
        Some("the broadcast address")
    } else if address.is_link_local() && role == Role::MasqueradeTo {
        // Elsewhere it may be: a metadata service has one, and a network of servers may have no other.
        Some("a link-local address, which no router forwards")
    } else {
        None
    }
}

fn unusable_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_loopback() {
        Some("the loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_unicast_link_local() {
        Some("a link-local address, which means nothing without its interface")
    } else {
        None
    }
}

fn not_a_prefix(text: &str, error: PrefixError) -> Invalid {
    let (before, after) = text.split_once('/').unwrap_or((text, ""));
    match error {
        PrefixError::Address => {
            let invalid = Invalid::new(format!("{} is not a network", quoted(text)));
            invalid
                .help("write an address and the length of its prefix, such as \"192.168.1.0/24\"")
        }
        PrefixError::Length(most) => {
            let invalid = Invalid::new(format!(
                "the length of a prefix is a number from 0 to {most} here, found {}",
                quoted(after)
            ));
            let prefix = netmask(after).and_then(|len| IpPrefix::new(before.parse().ok()?, len));
            match prefix.filter(|prefix| prefix.is_ipv4()) {
                Some(prefix) => invalid.help(format!("write \"{prefix}\"")),
                None => invalid,
            }
        }
        PrefixError::HostBits(prefix) => {
            Invalid::new(format!("{} has bits set behind its prefix", quoted(text))).help(format!(
                "write \"{prefix}\" for the network, or \"{before}\" for the host alone"
            ))
        }
    }
}

/// The prefix length that a netmask such as `255.255.255.0` stands for.
fn netmask(text: &str) -> Option<u8> {
    let mask = text.parse::<Ipv4Addr>().ok()?.to_bits();
    (mask.leading_ones() + mask.trailing_zeros() == 32).then(|| mask.leading_ones() as u8)
}

/// The IPv4 prefix that one of IPv4-mapped addresses stands for.
fn unmapped(prefix: IpPrefix) -> Option<IpPrefix> {
    let IpAddr::V6(address) = prefix.addr() else { return None };
    IpPrefix::new(address.to_ipv4_mapped()?.into(), prefix.len().checked_sub(96)?)
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Networks that no packet comes from that may be forwarded.
const NOT_SOURCES: [(&str, &str); 8] = [
    ("0.0.0.0/8", "in 0.0.0.0/8, which belongs to no host"),
    ("127.0.0.0/8", "a loopback network"),
    ("169.254.0.0/16", "a link-local network, which no router forwards"),
    ("224.0.0.0/4", "a multicast network"),
    ("255.255.255.255/32", "the broadcast address"),
    ("::/127", "the unspecified or the loopback address"),
    ("fe80::/10", "a link-local network, which no router forwards"),
    ("ff00::/8", "a multicast network"),
];
