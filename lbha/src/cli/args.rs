//! Values of flags that more than one verb has, or that need a parser.

use std::{
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
}
