//! What a million connections cost: kernel memory, and the sweeps that expire them.

use std::{
    fmt, fs,
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use lbha::datapath::{
    OBJECT,
    expiry::{self, Timeouts},
    loader::Sizes,
    pins::MAPS,
};
use serde::Serialize;

use super::kernel_loop::scenarios;
use crate::{prog::Prog, signals::Interrupt};

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Ends the run between two steps.
    pub interrupt: Option<Interrupt>,
    /// Says on stderr what is being done.
    pub progress: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub connections: u32,
    pub half_open: u32,
    /// Bytes by map, the largest first.
    pub maps: Vec<(&'static str, u64)>,
    pub bytes: u64,
    /// Seconds to insert them all in batches.
    pub fill_s: f64,
    pub none_expired: Sweep,
    pub all_expired: Sweep,
}

/// One pass over the tables.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    pub expired: u64,
    pub seconds: f64,
    pub batches: usize,
    /// The longest time between two chances to do something else.
    pub longest_batch_ms: f64,
}

const CONNECTIONS: u32 = 1_000_000;
/// What there is room for over IPv6, as the configuration has it unless it says otherwise.
const CONNECTIONS_V6: u32 = 250_000;
const HALF_OPEN: u32 = 65_536;

/// Idle for longer than the shortest timeout that the ticks can tell.
const IDLE_TICKS: u32 = 8;

pub fn run(options: &Options) -> Result<Report> {
    let check = |what| {
        if options.progress {
            eprintln!("memory: {what}");
        }
        options.interrupt.as_ref().map_or(Ok(()), Interrupt::check)
    };
    check("a million connections")?;
    let sizes = Sizes {
        max_connections: CONNECTIONS,
        max_connections_v6: CONNECTIONS_V6,
        max_half_open: HALF_OPEN,
    };
    let mut prog = Prog::of(OBJECT, &scenarios::network(None), sizes);
    let template = scenarios::template(&mut prog)?;
    let started = Instant::now();
    scenarios::insert(&prog, &template, CONNECTIONS, expiry::now().saturating_sub(IDLE_TICKS))?;
    let fill_s = started.elapsed().as_secs_f64();
    let maps = maps(&prog)?;

    check("a sweep that expires none of them")?;
    let none_expired = sweep(&mut prog, Duration::from_secs(7440))?;
    ensure!(none_expired.expired == 0, "{} connections have expired", none_expired.expired);
    check("a sweep that expires them all")?;
    let all_expired = sweep(&mut prog, Duration::ZERO)?;
    ensure!(
        all_expired.expired >= CONNECTIONS.into(),
        "{} connections have expired",
        all_expired.expired
    );
    Ok(Report {
        connections: CONNECTIONS,
        half_open: HALF_OPEN,
        bytes: maps.iter().map(|(_, bytes)| bytes).sum(),
        maps,
        fill_s,
        none_expired,
        all_expired,
    })
}

fn sweep(prog: &mut Prog, timeout: Duration) -> Result<Sweep> {
    let timeouts = Timeouts::all(timeout);
    let (started, mut batches, mut longest) = (Instant::now(), 0, Duration::ZERO);
    let mut before = started;
    let swept = expiry::sweep(&mut prog.flows, &timeouts, &prog.externals, 1, || {
        let now = Instant::now();
        longest = longest.max(now - before);
        before = now;
        batches += 1;
        true
    })?
    .context("nothing ends a sweep early")?;
    Ok(Sweep {
        expired: swept.expired,
        seconds: started.elapsed().as_secs_f64(),
        batches,
        longest_batch_ms: longest.as_secs_f64() * 1e3,
    })
}

/// What the kernel accounts for each map, from /proc/self/fdinfo.
fn maps(prog: &Prog) -> Result<Vec<(&'static str, u64)>> {
    let mut maps = Vec::new();
    for &name in MAPS {
        let map = MapData::from_pin(prog.pins().map(name)).with_context(|| name)?;
        let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let info = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let bytes =
            info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
        maps.push((name, bytes.with_context(|| format!("no memory of {name} in {path}"))?));
    }
    maps.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
    Ok(maps)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, half_open, maps, bytes, fill_s, none_expired, all_expired } = self;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{connections} connections (`max_connections`), {half_open} half-open ones, inserted in {fill_s:.1} s: **{:.0} MiB** \
             of kernel memory.\n",
            mib(*bytes)
        )?;
        writeln!(f, "| map | MiB |\n|---|--:|")?;
        let (large, small): (Vec<_>, Vec<_>) =
            maps.iter().partition(|(_, bytes)| *bytes >= 1 << 20);
        for (name, bytes) in &large {
            writeln!(f, "| {name} | {:.1} |", mib(*bytes))?;
        }
        let rest: u64 = small.iter().map(|(_, bytes)| bytes).sum();
        writeln!(f, "| {} others | {:.1} |\n", small.len(), mib(rest))?;
        writeln!(
            f,
            "| sweep over all of them | time | batches | longest batch |\n|---|--:|--:|--:|"
        )?;
        for (what, sweep) in [("none expired", none_expired), ("all expired", all_expired)] {
            writeln!(
                f,
                "| {what} | {:.2} s | {} | {:.1} ms |",
                sweep.seconds, sweep.batches, sweep.longest_batch_ms
            )?;
        }
        Ok(())
    }
}
