//! The project's own commands; `cargo xtask --help` is the list, one module per verb.

#![forbid(unsafe_code)]

mod bench;
mod build;
mod build_ebpf;
mod cargo;
mod ci;
mod clippy;
mod compliance;
mod demo;
#[allow(dead_code, reason = "lbha/build.rs uses the rest")]
mod ebpf;
mod fmt;
mod limited;
mod process;
mod root;
mod setup;
mod terminal;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, tests, shows and measures lbha.
///
/// A new machine needs nothing but Rust and a C compiler: every command looks for what it needs
/// and says what to do when it is not there. Builds run as you; what needs root asks for it.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true, after_help = MAP)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

const MAP: &str = "\
From nothing to a running load balancer:
  cargo xtask setup             what is missing, installed
  cargo xtask build --release   the daemon, with the XDP program inside
  cargo xtask demo              a whole cluster in network namespaces
Before a commit:
  cargo xtask ci                the same as the machine that checks it";

#[derive(Subcommand)]
enum Verb {
    Setup(setup::Arguments),
    Build(build::Arguments),
    BuildEbpf(build_ebpf::Arguments),
    Test(test::Arguments),
    Demo(demo::Arguments),
    Bench(bench::Arguments),
    Ci(ci::Arguments),
    Clippy(clippy::Arguments),
    Compliance(compliance::Arguments),
    Fmt(fmt::Arguments),
    #[command(hide = true)]
    Limited(limited::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Setup(arguments) => setup::run(&arguments),
        Verb::Build(arguments) => build::run(&arguments),
        Verb::BuildEbpf(arguments) => build_ebpf::run(&arguments),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Ci(arguments) => ci::run(&arguments),
        Verb::Clippy(arguments) => clippy::run(&arguments),
        Verb::Compliance(arguments) => compliance::run(&arguments),
        Verb::Fmt(arguments) => fmt::run(&arguments),
        Verb::Limited(arguments) => limited::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
