//! Values of flags that more than one verb has, or that need a parser: addresses, paths, durations.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

pub const DEFAULT_CONFIG: &str = "/etc/lbha/lbha.toml";
pub const DEFAULT_RUNTIME_DIR: &str = "/run/lbha";
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/lbha";

/// The admin socket in a runtime directory.
pub fn socket_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("admin.sock")
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArgError {
    #[error("expected ADDRESS:PORT, like 147.75.78.116:80")]
    Vip,
    #[error("expected ADDRESS or ADDRESS:PORT, like 192.168.1.10:80")]
    Endpoint,
    #[error("expected a network, like 192.168.1.0/24")]
    Network,
    #[error("{0} has bits beyond its prefix: {1} is the network")]
    HostBits(Network, Network),
    #[error("port 0 is not a port")]
    Port,
    #[error("IPv6 is not supported")]
    Ipv6,
    #[error("expected seconds, 0.1 to 3600, like 2 or 0.5")]
    Seconds,
}

/// `--vip`
pub fn vip(text: &str) -> Result<SocketAddrV4, ArgError> {
    match text.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(address)) if address.port() == 0 => Err(ArgError::Port),
        Ok(SocketAddr::V4(address)) => Ok(address),
        Ok(SocketAddr::V6(_)) => Err(ArgError::Ipv6),
        Err(_) => Err(ArgError::Vip),
    }
}

/// A server's address; without a port it is the service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub port: Option<u16>,
}

impl FromStr for Endpoint {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => return Ok(Self { address, port: None }),
            Ok(IpAddr::V6(_)) => return Err(ArgError::Ipv6),
            Err(_) => {}
        }
        let address =
            vip(text).map_err(|e| if e == ArgError::Vip { ArgError::Endpoint } else { e })?;
        Ok(Self { address: *address.ip(), port: Some(address.port()) })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, port } = self;
        match port {
            Some(port) => write!(f, "{address}:{port}"),
            None => address.fmt(f),
        }
    }
}

/// An address with the length of its prefix; a lone address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub address: Ipv4Addr,
    pub prefix: u8,
}

impl FromStr for Network {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => {
                let plain = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
                let prefix = if plain { prefix.parse().ok() } else { None };
                (address, prefix.ok_or(ArgError::Network)?)
            }
            None => (text, 32),
        };
        let address = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) if prefix <= 32 => address,
            Ok(IpAddr::V6(_)) => return Err(ArgError::Ipv6),
            _ => return Err(ArgError::Network),
        };
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let network = Self { address: Ipv4Addr::from_bits(address.to_bits() & mask), prefix };
        let given = Self { address, prefix };
        if given == network { Ok(network) } else { Err(ArgError::HostBits(given, network)) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, prefix } = self;
        write!(f, "{address}/{prefix}")
    }
}

/// `--watch`
pub fn interval(text: &str) -> Result<Duration, ArgError> {
    let seconds: f64 =
        text.strip_suffix('s').unwrap_or(text).parse().map_err(|_| ArgError::Seconds)?;
    // Not NaN either.
    if (0.1..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(ArgError::Seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vips_have_an_address_and_a_port() {
        assert_eq!(vip("147.75.78.116:80").unwrap().port(), 80);
        assert_eq!(vip("147.75.78.116"), Err(ArgError::Vip));
        assert_eq!(vip("147.75.78.116:0"), Err(ArgError::Port));
        assert_eq!(vip("[2001:db8::1]:80"), Err(ArgError::Ipv6));
    }

    #[test]
    fn servers_may_leave_the_port_to_the_service() {
        for text in ["192.168.1.10", "192.168.1.10:8080"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("web1:80".parse::<Endpoint>(), Err(ArgError::Endpoint));
        assert_eq!("192.168.1.10:0".parse::<Endpoint>(), Err(ArgError::Port));
        assert_eq!("2001:db8::1".parse::<Endpoint>(), Err(ArgError::Ipv6));
    }

    #[test]
    fn networks_are_networks() {
        for (text, canonical) in [
            ("192.168.1.0/24", "192.168.1.0/24"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), canonical);
        }
        let error = "192.168.1.7/24".parse::<Network>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.168.1.7/24 has bits beyond its prefix: 192.168.1.0/24 is the network"
        );
        for text in ["192.168.1.0/33", "192.168.1.0/", "192.168.1.0/+8", "lan", ""] {
            assert_eq!(text.parse::<Network>(), Err(ArgError::Network), "{text}");
        }
    }

    #[test]
    fn intervals_are_seconds() {
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("0.5s"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "1m", ""] {
            assert_eq!(interval(text), Err(ArgError::Seconds), "{text}");
        }
    }
}
