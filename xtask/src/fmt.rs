//! `cargo xtask fmt`: rustfmt over the whole workspace.

use std::process::ExitCode;

use crate::cargo;

/// Format all sources.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask fmt
  cargo xtask fmt --check   only say what would change")]
pub struct Arguments {
    /// Change nothing; fail if something would change.
    #[arg(long)]
    check: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    format(arguments.check)?;
    Ok(ExitCode::SUCCESS)
}

pub fn format(check: bool) -> anyhow::Result<()> {
    let mut command = cargo::command();
    command.args(["fmt", "--all"]);
    if check {
        command.arg("--check");
    }
    cargo::run(command)
}
