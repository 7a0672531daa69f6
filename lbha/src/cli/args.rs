//! Values of flags that more than one verb has, or that need a parser.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::config::ADMIN_SOCKET;
pub use crate::config::DEFAULT_RUNTIME_DIR;

pub const DEFAULT_CONFIG: &str = "/etc/lbha/lbha.toml";
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/lbha";

/// The admin socket in a runtime directory.
pub fn socket_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(ADMIN_SOCKET)
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArgError {
    #[error("expected seconds, 0.1 to 3600, like 2 or 0.5")]
    Seconds,
    #[error(
        "`{0}` is not an IP address: expected one like 192.0.2.1 or 2001:db8::1, names are not looked up"
    )]
    Address(String),
    #[error("`{0}` and a port: an address alone is expected")]
    Port(IpAddr),
    #[error("a network: an address alone is expected")]
    Network,
}

/// An address to filter by.
pub fn address(text: &str) -> Result<IpAddr, ArgError> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    text.parse().or_else(|_| bracketed.unwrap_or_default().parse()).map_err(|_| {
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return ArgError::Port(socket.ip());
        }
        let network = text.split_once('/').is_some_and(|(addr, _)| addr.parse::<IpAddr>().is_ok());
        if network { ArgError::Network } else { ArgError::Address(text.to_owned()) }
    })
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
    fn intervals_are_seconds() {
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("0.5s"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "1m", ""] {
            assert_eq!(interval(text), Err(ArgError::Seconds), "{text}");
        }
    }
    #[test]
    fn addresses_are_of_either_family_and_nothing_else() {
        let parsed = |text: &str| address(text).unwrap().to_string();
        assert_eq!(parsed("192.0.2.1"), "192.0.2.1");
        assert_eq!(parsed("2001:db8::1"), "2001:db8::1");
        assert_eq!(parsed("[2001:db8::1]"), "2001:db8::1");
        for text in ["", "web1", "192.0.2", "2001:db8", "1.2.3.4.5"] {
            assert_eq!(address(text), Err(ArgError::Address(text.into())), "{text}");
        }
        assert_eq!(address("192.0.2.1:80"), Err(ArgError::Port([192, 0, 2, 1].into())));
        assert_eq!(address("fd00::/64"), Err(ArgError::Network));
    }
}
