//! `cargo xtask limited`: a program in a process group of its own, with a time limit. Not for typing:
//! the test runner starts tests through it, because only root can end what runs as root.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context as _;

use crate::process::{Group, Supervisor};

/// The exit code of a program that was ended for taking too long, as that of `timeout`.
pub const TIMED_OUT: u8 = 124;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    seconds: u64,
    program: OsString,
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// The command line that runs this verb with another one.
pub fn command(limit: Duration, inner: &Command) -> anyhow::Result<Command> {
    let this = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(this);
    command.args(["limited", "--seconds", &limit.as_secs().to_string()]);
    command.arg(inner.get_program()).arg("--").args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(directory) = inner.get_current_dir() {
        command.current_dir(directory);
    }
    Ok(command)
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { seconds, program, arguments } = arguments;
    let mut supervisor = Supervisor::start()?;
    let mut command = Command::new(program);
    command.args(arguments);
    let ended = supervisor.run(command, Group::Own, Some(Duration::from_secs(*seconds)))?;
    if ended.timed_out {
        eprintln!("\n{} was still running after {seconds} s: ended", program.display());
        return Ok(ExitCode::from(TIMED_OUT));
    }
    Ok(ExitCode::from(ended.code()))
}
