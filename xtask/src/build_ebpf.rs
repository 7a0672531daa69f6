//! `cargo xtask build-ebpf`: the XDP object alone.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, path};

use anyhow::Context as _;

use crate::terminal::Step;
use crate::{cargo, ebpf};

/// Build the XDP object alone.
///
/// A build of lbha does this by itself. Here its messages are seen as they come, and the object
/// can be looked at with bpftool or llvm-objdump.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask build-ebpf                    target/ebpf/lbha-ebpf.o
  cargo xtask build-ebpf --features bench   target/ebpf-bench/lbha-ebpf.o, with the measuring loop
  LBHA_EBPF_TOOLCHAIN=nightly cargo xtask build-ebpf")]
pub struct Arguments {
    /// Features of lbha-ebpf, separated by commas.
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let features: Vec<&str> = arguments.features.iter().map(String::as_str).collect();
    println!("{}", build(&features)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the object and says on the terminal what it does.
pub fn build(features: &[&str]) -> anyhow::Result<PathBuf> {
    let step = Step::start(if features.is_empty() {
        "XDP object".to_owned()
    } else {
        format!("XDP object with {}", features.join(", "))
    });
    let object = ebpf::build_object(&cargo::workspace(), features, &mut ebpf::Output::Inherit)?;
    step.done();
    Ok(object)
}

/// The object that the user gave, else a new one.
pub fn build_or_given() -> anyhow::Result<PathBuf> {
    match env::var_os(ebpf::OBJECT_VAR).filter(|path| !path.is_empty()) {
        // Absolute: tests run elsewhere.
        Some(given) => path::absolute(&given)
            .and_then(|path| path.metadata().map(|_| path))
            .with_context(|| format!("{}={}", ebpf::OBJECT_VAR, given.display())),
        None => build(&[]),
    }
}
