//! Runs `wrk` and reads what it prints.

use std::{net::SocketAddrV4, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::netns::Netns;

/// Whether a connection serves many requests or one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    KeepAlive,
    OneShot,
}

/// What a run of wrk found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub requests: f64,
    pub requests_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Socket errors, and answers other than 2xx and 3xx.
    pub failed: f64,
}

/// One thread with 64 connections, as long as asked for.
pub fn run(client: &Netns, to: SocketAddrV4, load: Load, seconds: u32) -> Result<Outcome> {
    let mut args: Vec<String> =
        ["-t1", "-c64", "--latency"].into_iter().map(ToOwned::to_owned).collect();
    args.push(format!("-d{seconds}s"));
    if load == Load::OneShot {
        args.extend(["-H".to_owned(), "Connection: close".to_owned()]);
    }
    args.push(format!("http://{to}/"));
    let limit = Duration::from_secs(u64::from(seconds) + 30);
    let output = client.output("wrk", args, limit)?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("wrk: {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    parse(&text).with_context(|| format!("cannot read what wrk says:\n{text}"))
}

fn parse(text: &str) -> Option<Outcome> {
    let mut outcome = Outcome::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["50%", time] => outcome.p50_us = microseconds(time)?,
            ["99%", time] => outcome.p99_us = microseconds(time)?,
            [count, "requests", "in", ..] => outcome.requests = count.parse().ok()?,
            ["Requests/sec:", rate] => outcome.requests_per_second = rate.parse().ok()?,
            ["Socket", "errors:", ..] | ["Non-2xx", ..] => {
                let numbers =
                    words.iter().filter_map(|word| word.trim_end_matches(',').parse::<f64>().ok());
                outcome.failed += numbers.sum::<f64>();
            }
            _ => {}
        }
    }
    (outcome.requests_per_second > 0.0).then_some(outcome)
}

fn microseconds(time: &str) -> Option<f64> {
    let unit = time.find(|c: char| c.is_ascii_alphabetic())?;
    let factor = match &time[unit..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(time[..unit].parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_run_are_read() {
        let text = "Running 3s test @ http://147.75.78.116/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   785.15us    1.02ms  30.62ms   98.43%
    Req/Sec    84.63k     5.77k   92.91k    73.33%
  Latency Distribution
     50%  702.00us
     75%  818.00us
     90%    0.95ms
     99%    1.50ms
  252584 requests in 3.00s, 61.91MB read
  Socket errors: connect 1, read 20, write 300, timeout 4000
  Non-2xx or 3xx responses: 50000
Requests/sec:  84155.21
Transfer/sec:     20.63MB
";
        let expected = Outcome {
            requests: 252_584.0,
            requests_per_second: 84155.21,
            p50_us: 702.0,
            p99_us: 1500.0,
            failed: 54321.0,
        };
        assert_eq!(parse(text), Some(expected));
    }

    #[test]
    fn no_rate_is_no_outcome() {
        assert_eq!(parse("unable to connect\n"), None);
    }
}
