//! `cargo xtask demo`: a whole cluster in network namespaces, to look at.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::process::{Group, Supervisor};
use crate::setup::{self, Purpose};
use crate::terminal::Step;
use crate::{build_ebpf, cargo, root};

/// Show a whole cluster at work, in network namespaces of its own.
///
/// Builds lbha, asks for root, and cleans up when it ends, also after Ctrl-C.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask demo
  cargo xtask demo --keep      leave the cluster there to play with
  cargo xtask demo -- --help   what the demo itself can do")]
pub struct Arguments {
    /// For the demo, such as --keep: leave the namespaces and daemons there.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    setup::ensure(&[Purpose::Building, Purpose::Running])?;
    let object = build_ebpf::build_or_given()?;
    let step = Step::start("lbha and its demo");
    let packages = ["--package", "lbha", "--package", "lbha-tests"];
    let targets = ["--bin", "lbha", "--bin", "lbha-demo"];
    let [lbha, demo] = cargo::build_binaries(&[packages, targets].concat(), ["lbha", "lbha-demo"])?;
    step.done();

    let mut command = Command::new(demo);
    command.args(&arguments.arguments).env("LBHA_BIN", lbha).env("LBHA_EBPF_OBJECT", object);
    run_to_its_end(command, "to make network namespaces and load XDP programs")
}

/// Runs a program as root in the foreground; Ctrl-C reaches it, and we wait while it cleans up.
pub fn run_to_its_end(command: Command, why: &str) -> anyhow::Result<ExitCode> {
    let command = root::command(command, why)?;
    let ended = Supervisor::start()?.run(command, Group::Ours, None)?;
    Ok(ExitCode::from(ended.code()))
}
