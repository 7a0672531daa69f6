//! `cargo xtask build`: the daemon, with the XDP object inside.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::cargo;
use crate::terminal::Step;

/// Build lbha, with the XDP program inside, and say where it is.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask build --release                  what to install
  sudo $(cargo xtask build) run --iface eth0   builds, then runs it")]
pub struct Arguments {
    /// Optimise, as packages do.
    #[arg(long)]
    release: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let step = Step::start("lbha");
    let mut command = cargo::command();
    command.args(["build", "--package", "lbha", "--bin", "lbha"]);
    if arguments.release {
        command.arg("--release");
    }
    let built = cargo::build(command)?;
    step.done();
    let binary = built.iter().find(|executable| executable.kind == "bin");
    println!("{}", binary.context("cargo built no lbha")?.path.display());
    Ok(ExitCode::SUCCESS)
}
