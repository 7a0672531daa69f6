//! `cargo xtask ci`: everything that a change has to pass.

use std::process::ExitCode;

use crate::setup::{self, Purpose};
use crate::terminal::Step;
use crate::{clippy, compliance, fmt, test};

/// Check everything that a change has to pass: format, the page of requirements, lints, tests.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask ci
  cargo xtask ci --no-test   only the format, the page of requirements and the lints")]
pub struct Arguments {
    /// Leave out the tests.
    #[arg(long)]
    no_test: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    setup::ensure(&[Purpose::Building, Purpose::Linting])?;
    let step = Step::start("format");
    fmt::format(true)?;
    step.done();
    compliance::check()?;
    clippy::host()?;
    clippy::xdp()?;
    if arguments.no_test {
        return Ok(ExitCode::SUCCESS);
    }
    test::run(&test::Arguments::all())
}
