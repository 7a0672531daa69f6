//! `cargo xtask bench`: measures, and prints a table or JSON.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use lbha_tests::{
    bench::e2e::{self, Balancer},
    daemon, is_root,
    signals::Interrupt,
};
use serde_json::json;

const HELP: &str = "\
Measures HTTP through namespaces of its own: plain routing, nft, HAProxy and lbha.

Usage: lbha-bench [--rounds N] [--seconds N] [--only NAME,NAME] [--json]

  --rounds N    how often each is measured (5)
  --seconds N   how long each load lasts (3)
  --only NAMES  some of: plain, nft, haproxy, lbha-fullnat, lbha-nat
  --json        all samples and medians, on stdout

lbha is measured when LBHA_BIN names its binary. Only ratios within one run mean anything.
";

struct Arguments {
    e2e: e2e::Options,
    json: bool,
}

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)) {
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

fn run(mut arguments: Arguments) -> Result<()> {
    ensure!(is_root(), "needs root to make network namespaces");
    // Before anything else starts a thread.
    arguments.e2e.interrupt = Some(Interrupt::install()?);
    if daemon::binary().is_err() {
        eprintln!("LBHA_BIN does not name an lbha binary: lbha itself is not measured");
    }
    let e2e = e2e::run(&arguments.e2e)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&json!({ "e2e": e2e }))?);
    } else {
        print!("{e2e}");
    }
    Ok(())
}

impl Arguments {
    /// None: the help was asked for.
    fn parse(words: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut arguments = Self { e2e: e2e::Options::default(), json: false };
        // Both `--flag value` and `--flag=value`.
        let mut words = words.flat_map(|word| match word.split_once('=') {
            Some((flag, value)) => vec![flag.to_owned(), value.to_owned()],
            None => vec![word],
        });
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--json" => arguments.json = true,
                "--rounds" => arguments.e2e.rounds = count(&value()?)?,
                "--seconds" => arguments.e2e.seconds = count(&value()?)?,
                "--only" => arguments.e2e.balancers = balancers(&value()?)?,
                other => bail!("unknown argument {other}"),
            }
        }
        Ok(Some(arguments))
    }
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
        let arguments = parse("--rounds 2 --only=plain,nft --json").unwrap().unwrap();
        assert_eq!(arguments.e2e.rounds, 2);
        assert_eq!(arguments.e2e.balancers, [Balancer::Plain, Balancer::Nft]);
        assert!(arguments.json);
    }

    #[test]
    fn what_is_unknown_or_out_of_range_is_an_error() {
        for line in ["--fast", "--rounds", "--rounds 0", "--seconds x", "--only ipvs"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
