//! `cargo xtask bench`: measures the datapath in the kernel and HTTP through namespaces.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::setup::{self, Purpose};
use crate::terminal::Step;
use crate::{build_ebpf, cargo, demo};

/// Measure the datapath and HTTP through it, against other ways to do the same.
///
/// Only ratios within one run mean anything: machines differ, and so do their moods.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench
  cargo xtask bench --json >bench.json
  cargo xtask bench -- --help   what the benchmark itself can do")]
pub struct Arguments {
    /// For the benchmark, such as --json: a machine-readable result.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    setup::ensure(&[Purpose::Building, Purpose::Running])?;
    let object = build_ebpf::build_or_given()?;
    let measured = build_ebpf::build(&["bench"])?;
    let step = Step::start("lbha and its benchmark");
    let packages = ["--package", "lbha", "--package", "lbha-tests"];
    let targets = ["--bin", "lbha", "--bin", "lbha-bench"];
    let [lbha, bench] =
        cargo::build_binaries(&[packages, targets].concat(), ["lbha", "lbha-bench"])?;
    step.done();

    let mut command = Command::new(bench);
    command.args(&arguments.arguments).env("LBHA_BIN", lbha);
    command.env("LBHA_EBPF_OBJECT", object).env("LBHA_BENCH_OBJECT", measured);
    demo::run_to_its_end(command, "to run XDP programs and make network namespaces")
}
