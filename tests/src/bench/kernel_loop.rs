//! Nanoseconds a packet, from a loop within BPF (`lbha-ebpf/src/bench.rs` says why).
//!
//! Each scenario is validated before it is timed: what the program makes of its packet, that the loop makes the same of it,
//! and that the counters say so for every round. Then batches of about 10 ms; the loop with an empty body takes turns with
//! them and is subtracted.

#[allow(dead_code, reason = "whose turn it is, the loop alone asks")]
#[path = "../../../lbha-ebpf/src/bench/layout.rs"]
mod layout;
pub(super) mod scenarios;

use std::{
    env, fmt, fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::Array,
    programs::{TestRun as _, TestRunOptions},
};
use lbha_common::{
    counter::{Class, Counter},
    flow::side,
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use serde::Serialize;

use self::scenarios::{Scenario, Set};
use super::median;
use crate::{
    packet::verify,
    prog::{Prog, action},
    signals::Interrupt,
};

/// The object with the loop, from `cargo xtask build-ebpf --features bench`.
pub const OBJECT_VAR: &str = "LBHA_BENCH_OBJECT";

#[derive(Clone, Debug)]
pub struct Options {
    pub batches: u32,
    /// Scenarios whose name contains this.
    pub matching: String,
    /// Ends the run between two scenarios.
    pub interrupt: Option<Interrupt>,
    /// Says on stderr what is being done.
    pub progress: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { batches: 30, matching: String::new(), interrupt: None, progress: true }
    }
}

/// One scenario's figures; nanoseconds a packet, the empty loop subtracted.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub scenario: &'static str,
    pub counter: &'static str,
    pub median_ns: f64,
    pub p99_ns: f64,
    pub min_ns: f64,
    /// Not subtracted: the loop with the program in it, and the empty one.
    pub loop_ns: f64,
    pub empty_loop_ns: f64,
    /// To `tcp-v4-hit`.
    pub to_hit: Option<f64>,
    /// To [`Report::xdp_pass_ns`]: less than all else a property of the machine.
    pub to_xdp_pass: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub batches: u32,
    /// A program that only returns XDP_PASS, as a repeated BPF_PROG_TEST_RUN states it.
    pub xdp_pass_ns: f64,
    /// A program in the loop that looks at the frame's length only.
    pub floor_ns: f64,
    /// A read of memory that no cache holds and whose address the read before gave: what a hit waits for in a large table.
    pub memory_ns: f64,
    pub rows: Vec<Row>,
}

/// The loop's answer.
#[derive(Clone, Debug)]
struct Batch {
    nanos: u64,
    actions: u64,
    done: u64,
    frame: Vec<u8>,
}

const EMPTY: &str = "lbha_bench_nop";
const FLOOR: &str = "lbha_bench_floor";
const PASS: &str = "lbha_bench_pass";

const BATCH: Duration = Duration::from_millis(10);

/// The bytes of the object to measure.
pub fn object() -> Result<Vec<u8>> {
    let path = env::var_os(OBJECT_VAR).with_context(|| {
        format!(
            "{OBJECT_VAR} does not name the object of `cargo xtask build-ebpf --features bench`"
        )
    })?;
    fs::read(&path).with_context(|| format!("read {}", path.display()))
}

pub fn run(options: &Options) -> Result<Report> {
    let object = object()?;
    let before = pin_to_one_cpu()?;
    let report = measure_all(options, &object);
    sched_setaffinity(Pid::from_raw(0), &before).context("give the CPUs back")?;
    report
}

fn measure_all(options: &Options, object: &[u8]) -> Result<Report> {
    let mut report = Report {
        batches: options.batches,
        xdp_pass_ns: 0.0,
        floor_ns: 0.0,
        memory_ns: memory_latency(),
        rows: Vec::new(),
    };
    let wanted = |name: &&str| name.contains(&options.matching);
    for (number, (names, make)) in scenarios::SETS.into_iter().enumerate() {
        // Even when none of the first set is wanted, the floor is.
        if number != 0 && !names.iter().any(wanted) {
            continue;
        }
        let Set { mut prog, scenarios } = make(object)?;
        if number == 0 {
            report.xdp_pass_ns = xdp_pass(&mut prog)?;
            report.floor_ns = measure(&mut prog, FLOOR, &scenarios[0], options.batches)?.median_ns;
        }
        for scenario in scenarios.iter().filter(|scenario| wanted(&scenario.name)) {
            if let Some(interrupt) = &options.interrupt {
                interrupt.check()?;
            }
            if options.progress {
                eprintln!("in-kernel loop: {}", scenario.name);
            }
            validate(&mut prog, scenario).with_context(|| scenario.name)?;
            let row = measure(&mut prog, program(scenario), scenario, options.batches)?;
            report.rows.push(row);
        }
    }
    let hit = report.rows.iter().find(|row| row.scenario == "tcp-v4-hit").map(|row| row.median_ns);
    for row in &mut report.rows {
        row.to_hit = hit.map(|hit| row.median_ns / hit);
        row.to_xdp_pass = row.median_ns / report.xdp_pass_ns;
    }
    Ok(report)
}

fn program(scenario: &Scenario) -> &'static str {
    if scenario.side == side::PUBLIC { "lbha_bench_public" } else { "lbha_bench_private" }
}

/// The last one that we may run on: interrupts tend to go to the first. Gives the set there was.
fn pin_to_one_cpu() -> Result<CpuSet> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).context("read the CPU set")?;
    let last = (0..CpuSet::count()).rev().find(|&cpu| before.is_set(cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("no CPU")?)?;
    sched_setaffinity(this, &one).context("keep to one CPU")?;
    Ok(before)
}

/// What the action of each packet must be.
fn expected_action(counter: Counter) -> u32 {
    match (counter, counter.class()) {
        (Counter::ForwardSame, _) | (_, Class::Answer) => action::TX,
        (_, Class::Forward) => action::REDIRECT,
        (_, Class::Pass) => action::PASS,
        (_, Class::Drop | Class::Hold) => action::DROP,
    }
}

/// Checks that what will be timed is what its name says.
fn validate(prog: &mut Prog, scenario: &Scenario) -> Result<()> {
    const ROUNDS: u64 = 1000;
    let Scenario { frame, counter, opens, .. } = scenario;
    let once = prog.run(scenario.side, frame);
    ensure!(once.action == expected_action(*counter), "XDP action {}", once.action);
    ensure!(once.counted.keys().eq([&counter.as_str()]), "counted {:?}", once.counted);
    if counter.class() == Class::Forward {
        verify(&once.frame).map_err(|fault| anyhow::anyhow!("the packet out: {fault}"))?;
        ensure!(once.frame != *frame, "the packet is not translated");
    } else {
        ensure!(once.frame == *frame, "the packet is changed");
    }
    let in_loop = batch(prog, program(scenario), scenario, 0, 1)?;
    ensure!(*opens || in_loop.frame == once.frame, "the loop makes another packet");

    let before = prog.interface_stats(scenario.side);
    let many = batch(prog, program(scenario), scenario, 1, ROUNDS)?;
    let after = prog.interface_stats(scenario.side);
    ensure!(many.done == ROUNDS, "{} rounds", many.done);
    let moved: Vec<_> = Counter::ALL
        .iter()
        .map(|&c| (c.as_str(), after.packets[c as usize] - before.packets[c as usize]))
        .filter(|(_, moved)| *moved != 0)
        .collect();
    ensure!(moved == [(counter.as_str(), ROUNDS)], "counted {moved:?}");
    ensure!(many.actions == ROUNDS * u64::from(expected_action(*counter)), "other actions");
    Ok(())
}

/// One run of the loop.
fn batch(
    prog: &mut Prog,
    program: &'static str,
    scenario: &Scenario,
    start: u64,
    count: u64,
) -> Result<Batch> {
    let Scenario { frame, clients, .. } = scenario;
    let mut value: layout::Value = [0; layout::WORDS];
    value[layout::COUNT] = count;
    value[layout::START] = start;
    value[layout::CLIENTS] = u64::from(clients - 1);
    value[layout::LENGTH] = frame.len() as u64;
    for (word, bytes) in value[layout::FRAME..].iter_mut().zip(frame.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into()?);
    }
    set_bench(prog, value)?;
    let mut out = vec![0; frame.len() + 256];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = prog.programs.named(program)?.test_run(options).context("BPF_PROG_TEST_RUN")?;
    out.truncate(result.data_size_out as usize);
    let value = bench_map(prog)?.get(&0, 0)?;
    Ok(Batch {
        nanos: value[layout::NANOS],
        actions: value[layout::ACTIONS],
        done: value[layout::DONE],
        frame: out,
    })
}

fn bench_map(prog: &mut Prog) -> Result<Array<&mut aya::maps::MapData, layout::Value>> {
    let map = prog.programs.ebpf().map_mut("BENCH").context("the object has no loop")?;
    Ok(map.try_into()?)
}

fn set_bench(prog: &mut Prog, value: layout::Value) -> Result<()> {
    Ok(bench_map(prog)?.set(0, value, 0)?)
}

#[expect(clippy::cast_precision_loss, reason = "some million ns")]
fn measure(
    prog: &mut Prog,
    program: &'static str,
    scenario: &Scenario,
    batches: u32,
) -> Result<Row> {
    let mut start = 0;
    let mut timed = |program, count: u64| -> Result<f64> {
        let batch = batch(prog, program, scenario, start, count)?;
        ensure!(batch.done == count, "{} rounds of {count}", batch.done);
        start += count;
        Ok(batch.nanos as f64 / count as f64)
    };
    let rounds = |nanos: f64| (BATCH.as_nanos() as f64 / nanos).clamp(1000.0, 4e6) as u64;
    // Twice: the first estimate is of cold caches.
    let mut count = [1000; 2];
    for _ in 0..2 {
        for (count, program) in count.iter_mut().zip([program, EMPTY]) {
            *count = rounds(timed(program, *count)?);
        }
    }
    let (mut full, mut empty) = (Vec::new(), Vec::new());
    for _ in 0..batches {
        full.push(timed(program, count[0])?);
        empty.push(timed(EMPTY, count[1])?);
    }
    full.sort_by(f64::total_cmp);
    let (loop_ns, empty_loop_ns) = (median(full.iter().copied()), median(empty));
    let p99 = full[(full.len() * 99).div_ceil(100) - 1];
    Ok(Row {
        scenario: scenario.name,
        counter: scenario.counter.as_str(),
        median_ns: loop_ns - empty_loop_ns,
        p99_ns: p99 - empty_loop_ns,
        min_ns: full[0] - empty_loop_ns,
        loop_ns,
        empty_loop_ns,
        to_hit: None,
        to_xdp_pass: 0.0,
    })
}

/// What a program costs that does nothing, by the kernel's own count.
fn xdp_pass(prog: &mut Prog) -> Result<f64> {
    let frame = [0; layout::HEADER];
    let mut samples = Vec::new();
    for _ in 0..10 {
        let options =
            TestRunOptions { data_in: Some(&frame), repeat: 200_000, ..TestRunOptions::new() };
        let result = prog.programs.named(PASS)?.test_run(options).context("BPF_PROG_TEST_RUN")?;
        // A mean in whole nanoseconds.
        samples.push(result.duration.as_secs_f64() * 1e9);
    }
    Ok(median(samples))
}

/// Follows a chain through 256 MiB, a cache line a link.
fn memory_latency() -> f64 {
    const LINKS: u32 = 1 << 22;
    const STEPS: u32 = 400_000;
    // A generator of full period (Hull and Dobell): every line has its turn, none is near the one before.
    let link = |n: u32| [n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % LINKS; 16];
    let chain: Vec<[u32; 16]> = (0..LINKS).map(link).collect();
    let mut at = 0;
    let started = Instant::now();
    for _ in 0..STEPS {
        at = chain[at as usize][0];
    }
    let elapsed = started.elapsed();
    std::hint::black_box(at);
    elapsed.as_secs_f64() * 1e9 / f64::from(STEPS)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batches, xdp_pass_ns, floor_ns, memory_ns, rows } = self;
        writeln!(
            f,
            "In-kernel loop, {batches} batches of 10 ms each on one CPU, nanoseconds a packet, the empty loop subtracted. On \
             this machine a program that only returns XDP_PASS takes {xdp_pass_ns:.0} ns in a repeated BPF_PROG_TEST_RUN, one \
             that only looks at the frame's length {floor_ns:.1} ns in this loop, and a read in 256 MiB that waits for the \
             one before {memory_ns:.0} ns.\n"
        )?;
        writeln!(
            f,
            "| scenario | verdict | median | p99 | least | to a hit | to XDP_PASS | not subtracted |"
        )?;
        writeln!(f, "|---|---|--:|--:|--:|--:|--:|--:|")?;
        for row in rows {
            let to_hit = row.to_hit.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x"));
            writeln!(
                f,
                "| {} | {} | {:.1} | {:.1} | {:.1} | {to_hit} | {:.1}x | {:.1} |",
                row.scenario,
                row.counter,
                row.median_ns,
                row.p99_ns,
                row.min_ns,
                row.to_xdp_pass,
                row.loop_ns
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::layout::{client, turn};

    #[test]
    fn every_client_has_its_turn_once() {
        for clients in [0, 63, 4095, (1 << 20) - 1] {
            let turns: HashSet<_> = (0..=clients).map(|round| turn(round + 77, clients)).collect();
            assert_eq!(turns.len(), clients as usize + 1);
            assert!(turns.iter().all(|&turn| turn <= clients));
        }
        let tuples: HashSet<_> = (0..1 << 20).map(client).collect();
        assert_eq!(tuples.len(), 1 << 20);
    }
}
