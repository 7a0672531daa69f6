//! `cargo xtask clippy`: lints of the host's crates and of the XDP program, each with its own clippy.

use std::process::{Command, ExitCode};

use anyhow::bail;

use crate::terminal::Step;
use crate::{cargo, ebpf};

/// Lint everything; a warning is an error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask clippy
  cargo xtask clippy host   all crates but the XDP program
  cargo xtask clippy ebpf   the XDP program, with its own toolchain's clippy")]
pub struct Arguments {
    /// One of the two alone.
    side: Option<Side>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Side {
    Host,
    Ebpf,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.side != Some(Side::Ebpf) {
        host()?;
    }
    if arguments.side != Some(Side::Host) {
        xdp()?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn host() -> anyhow::Result<()> {
    let step = Step::start("clippy of the host's crates");
    let mut command = cargo::command();
    command.args(["clippy", "--workspace", "--exclude", "lbha-ebpf", "--all-targets"]);
    command.args(["--", "-D", "warnings"]);
    cargo::run(command)?;
    step.done();
    Ok(())
}

pub fn xdp() -> anyhow::Result<()> {
    let step = Step::start("clippy of the XDP program");
    let workspace = cargo::workspace();
    let toolchain = ebpf::find()?;
    let clippy = toolchain.rust.cargo_clippy();
    if !clippy.is_file() {
        bail!(
            "{toolchain} has no clippy: {} puts it there",
            match &toolchain.rust.origin {
                ebpf::Origin::Rustup(name) => {
                    format!("`rustup component add clippy --toolchain {name}`")
                }
                _ => "`cargo xtask setup`, on Debian,".to_owned(),
            }
        );
    }
    let mut command =
        ebpf::cargo(&toolchain, &workspace, "clippy", &ebpf::target_dir(&workspace, &[]));
    command.args(["--", "-D", "warnings"]);
    cargo::run(instead_of_cargo(&clippy, &command))?;
    step.done();
    Ok(())
}

/// `cargo clippy` would look for its subcommand in the user's rustup first, and find another
/// toolchain's: call the subcommand itself, as cargo would.
fn instead_of_cargo(clippy: &std::path::Path, command: &Command) -> Command {
    let mut instead = Command::new(clippy);
    instead.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => instead.env(name, value),
            None => instead.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        instead.current_dir(directory);
    }
    instead.env("CARGO", command.get_program());
    instead
}
