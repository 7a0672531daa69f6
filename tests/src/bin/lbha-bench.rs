//! `cargo xtask bench`: measures, and prints markdown or JSON.

use std::{env, fs, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use lbha_tests::{
    bench::{
        e2e::{self, Balancer},
        kernel_loop, memory,
    },
    daemon, is_root,
    signals::Interrupt,
};
use nix::sys::utsname::uname;
use serde_json::{Map, Value, json};

const HELP: &str = "\
Measures the XDP program in a loop within the kernel, a million connections, and HTTP through namespaces of its own: plain
routing, nft, HAProxy and lbha.

Usage: lbha-bench [--only PART,PART] [--json] [options of a part]

  --only PARTS      some of: loop, memory, e2e (all)
  --json            all figures, on stdout; else markdown

loop: nanoseconds a packet
  --scenario TEXT   those whose name contains it (all)
  --batches N       of 10 ms each (30)

e2e: requests a second, and CPU time a request
  --rounds N        how often each is measured (5)
  --seconds N       how long each load lasts (3)
  --balancers NAMES some of: plain, nft, haproxy, lbha-fullnat, lbha-nat (all)

The loop needs LBHA_BENCH_OBJECT, the object of `cargo xtask build-ebpf --features bench`. HTTP through lbha is measured when
LBHA_BIN names its binary. Only ratios within one run mean anything.
";

struct Arguments {
    parts: Vec<Part>,
    kernel_loop: kernel_loop::Options,
    e2e: e2e::Options,
    json: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Loop,
    Memory,
    E2e,
}

impl Part {
    const ALL: [Self; 3] = [Self::Loop, Self::Memory, Self::E2e];

    fn name(self) -> &'static str {
        match self {
            Self::Loop => "loop",
            Self::Memory => "memory",
            Self::E2e => "e2e",
        }
    }
}

fn main() -> ExitCode {
    match Arguments::parse(env::args().skip(1)) {
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Some(arguments)) => match run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("lbha-bench: {error:#}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("lbha-bench: {error:#}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    ensure!(is_root(), "needs root to load XDP programs and to make network namespaces");
    let Arguments { parts, mut kernel_loop, mut e2e, json } = arguments;
    // Before anything else starts a thread.
    let interrupt = Interrupt::install()?;
    kernel_loop.interrupt = Some(interrupt.clone());
    e2e.interrupt = Some(interrupt.clone());
    if parts.contains(&Part::E2e) && daemon::binary().is_err() {
        eprintln!("LBHA_BIN does not name an lbha binary: HTTP through lbha is not measured");
    }
    let machine = machine()?;
    let mut figures = Map::from_iter([("machine".to_owned(), json!(machine))]);
    let mut text = format!("{machine}\n");
    for part in parts {
        let (value, report) = match part {
            Part::Loop => {
                let report = kernel_loop::run(&kernel_loop)?;
                (serde_json::to_value(&report)?, format!("### In the kernel\n\n{report}"))
            }
            Part::Memory => {
                let options =
                    memory::Options { interrupt: Some(interrupt.clone()), progress: true };
                let report = memory::run(&options)?;
                (serde_json::to_value(&report)?, format!("### A million connections\n\n{report}"))
            }
            Part::E2e => {
                let report = e2e::run(&e2e)?;
                let text = format!("### HTTP\n\n```text\n{report}```\n");
                (serde_json::to_value(&report)?, text)
            }
        };
        figures.insert(part.name().to_owned(), value);
        text.push('\n');
        text.push_str(&report);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&Value::Object(figures))?);
    } else {
        print!("{text}");
    }
    Ok(())
}

/// What the figures depend on, in a sentence.
fn machine() -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let field = |name| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim())
    };
    // arm64 has no name in there.
    let cpu = field("model name").or_else(|| field("CPU part")).unwrap_or("unknown CPU");
    let virtual_machine = if cpuinfo.contains(" hypervisor") { ", virtual machine" } else { "" };
    let cpus = std::thread::available_parallelism()?;
    let kernel = uname()?;
    let command: Vec<String> = env::args().skip(1).collect();
    let separator = if command.is_empty() { "" } else { " -- " };
    // Where returns are guarded, each call of the kernel's costs more.
    let returns =
        fs::read_to_string("/sys/devices/system/cpu/vulnerabilities/spec_rstack_overflow")
            .unwrap_or_default();
    let returns = match returns.trim() {
        "" | "Not affected" => String::new(),
        text => format!("; speculative return stack overflow: {text}"),
    };
    Ok(format!(
        "{cpu}, {cpus} CPUs{virtual_machine}, Linux {}{returns}. `cargo xtask bench{separator}{}`",
        kernel.release().to_string_lossy(),
        command.join(" ")
    ))
}

impl Arguments {
    /// None: the help was asked for.
    fn parse(words: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut arguments = Self {
            parts: Part::ALL.to_vec(),
            kernel_loop: kernel_loop::Options::default(),
            e2e: e2e::Options::default(),
            json: false,
        };
        // Both `--flag value` and `--flag=value`.
        let mut words = words.flat_map(|word| match word.split_once('=') {
            Some((flag, value)) => vec![flag.to_owned(), value.to_owned()],
            None => vec![word],
        });
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--only" => arguments.parts = parts(&value()?)?,
                "--json" => arguments.json = true,
                "--scenario" => arguments.kernel_loop.matching = value()?,
                "--batches" => arguments.kernel_loop.batches = count(&value()?)?,
                "--rounds" => arguments.e2e.rounds = count(&value()?)?,
                "--seconds" => arguments.e2e.seconds = count(&value()?)?,
                "--balancers" => arguments.e2e.balancers = balancers(&value()?)?,
                other => bail!("unknown argument {other}"),
            }
        }
        Ok(Some(arguments))
    }
}

fn parts(text: &str) -> Result<Vec<Part>> {
    let known = |name| Part::ALL.into_iter().find(|part| part.name() == name);
    text.split(',').map(|name| known(name).with_context(|| format!("unknown: {name}"))).collect()
}

fn count(text: &str) -> Result<u32> {
    let count = text.parse().with_context(|| format!("not a number: {text}"))?;
    ensure!((1..=1000).contains(&count), "not within 1 to 1000: {count}");
    Ok(count)
}

fn balancers(text: &str) -> Result<Vec<Balancer>> {
    let known = |name| Balancer::from_name(name).with_context(|| format!("unknown: {name}"));
    text.split(',').map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Arguments>> {
        Arguments::parse(line.split_whitespace().map(ToOwned::to_owned))
    }

    #[test]
    fn flags_take_their_values_after_a_space_or_an_equals_sign() {
        let arguments = parse("--rounds 2 --balancers=plain,nft --json").unwrap().unwrap();
        assert_eq!(arguments.e2e.rounds, 2);
        assert_eq!(arguments.e2e.balancers, [Balancer::Plain, Balancer::Nft]);
        assert_eq!(arguments.parts, Part::ALL);
        assert!(arguments.json);
    }

    #[test]
    fn parts_can_be_chosen() {
        let arguments = parse("--only loop,memory --scenario hit").unwrap().unwrap();
        assert_eq!(arguments.parts, [Part::Loop, Part::Memory]);
        assert_eq!(arguments.kernel_loop.matching, "hit");
    }

    #[test]
    fn what_is_unknown_or_out_of_range_is_an_error() {
        for line in
            ["--fast", "--rounds", "--rounds 0", "--seconds x", "--only ipvs", "--balancers ipvs"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
