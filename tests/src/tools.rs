//! Programs that people try a network with, run in a namespace: ping, traceroute, curl, dig.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::netns::Netns;

/// What ping has counted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ping {
    pub sent: u32,
    pub received: u32,
    /// All that it said; errors of routers are lines in it.
    pub text: String,
}

/// `ping`, an echo request every 20 ms, each with two seconds for its reply. No reply is no error.
///
/// Of use as arguments: `-s` bytes, `-M do` (DF) or `dont`, `-t` TTL, `-I` address, `-e` identifier.
pub fn ping(
    namespace: &Netns,
    to: impl Into<IpAddr>,
    count: u32,
    arguments: &[&str],
) -> Result<Ping> {
    let (to, count) = (to.into().to_string(), count.to_string());
    let fixed = ["-n", "-i", "0.02", "-W", "2", "-c", &count];
    let all = fixed.into_iter().chain(arguments.iter().copied()).chain([to.as_str()]);
    let output = namespace.output("ping", all, LIMIT)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let counts = || {
        let line = text.lines().find(|line| line.contains(" packets transmitted, "))?;
        let mut parts = line.split(", ").map(|part| part.split(' ').next()?.parse().ok());
        Some((parts.next()??, parts.next()??))
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    let (sent, received) = counts().with_context(|| format!("ping {to}: {text}{errors}"))?;
    Ok(Ping { sent, received, text })
}

/// What traceroute sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Probe {
    Udp,
    Icmp,
    /// SYNs to port 80.
    Tcp,
}

/// `traceroute`: who answers, hop by hop, up to whom it goes to or eight hops.
pub fn traceroute(
    namespace: &Netns,
    to: impl Into<IpAddr>,
    probe: Probe,
) -> Result<Vec<Option<IpAddr>>> {
    let to = to.into().to_string();
    let kind = match probe {
        Probe::Udp => "-U",
        Probe::Icmp => "-I",
        Probe::Tcp => "-T",
    };
    let arguments = ["-n", "-q", "1", "-w", "2", "-m", "8", kind, &to];
    let text = namespace.exec("traceroute", arguments)?;
    Ok(hops(&text))
}

/// From lines such as ` 1  192.168.1.1  0.035 ms` and ` 2  *`, behind a title.
fn hops(text: &str) -> Vec<Option<IpAddr>> {
    let answers = text.lines().skip(1).map(|line| line.split_whitespace().nth(1));
    answers.map(|answer| answer?.parse().ok()).collect()
}

/// `curl`; gives the body. An HTTP error is an error.
pub fn curl(namespace: &Netns, url: &str, arguments: &[&str]) -> Result<String> {
    let fixed = ["--silent", "--show-error", "--fail", "--max-time", "50"];
    namespace.exec("curl", fixed.into_iter().chain(arguments.iter().copied()).chain([url]))
}

/// `dig` asks one server; gives the lines of the answer (`+short`).
///
/// The arguments are a name, a type, and flags such as `+tcp`, `+notcp`, `+ignore` (no second try over TCP),
/// `+bufsize=4096`.
pub fn dig(
    namespace: &Netns,
    server: impl Into<IpAddr>,
    arguments: &[&str],
) -> Result<Vec<String>> {
    let server = format!("@{}", server.into());
    let fixed = ["+short", "+time=2", "+tries=3", &server];
    let text = namespace.exec("dig", fixed.into_iter().chain(arguments.iter().copied()))?;
    ensure!(!text.starts_with(";;"), "{text}");
    Ok(text.lines().map(ToOwned::to_owned).collect())
}

const LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hops_are_read_with_those_who_do_not_answer() {
        let text = "traceroute to 198.51.100.10 (198.51.100.10), 8 hops max, 60 byte packets\n \
                    1  192.168.1.1  0.035 ms\n 2  *\n 3  2001:db8::1  0.042 ms !X\n";
        let address = |text: &str| Some(text.parse().unwrap());
        assert_eq!(hops(text), [address("192.168.1.1"), None, address("2001:db8::1")]);
    }
}
