//! Puts the XDP object where `include_bytes!` finds it: built here, or `LBHA_EBPF_OBJECT=path`.

// Not everything in it is for build scripts.
#[allow(dead_code, unused_imports, reason = "the part that only `cargo xtask` uses")]
#[path = "../xtask/src/ebpf.rs"]
mod ebpf;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, iter};

fn main() -> ExitCode {
    let Err(error) = provide_object() else { return ExitCode::SUCCESS };
    let causes = iter::successors(error.source(), |&cause| cause.source());
    let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
    for line in text.lines() {
        println!("cargo::error={line}");
    }
    ExitCode::FAILURE
}

fn provide_object() -> Result<(), Box<dyn Error>> {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets this")?);
    let workspace = package.parent().ok_or("the package is a folder of the workspace")?;
    for variable in [ebpf::OBJECT_VAR, "LBHA_EBPF_TOOLCHAIN", "RUSTUP_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let object = match env::var_os(ebpf::OBJECT_VAR).filter(|path| !path.is_empty()) {
        Some(path) => {
            // Relative to where the user typed it, which is most likely the workspace.
            let path = workspace.join(path);
            println!("cargo::rerun-if-changed={}", path.display());
            path
        }
        None => {
            watch_sources(workspace);
            build(workspace)?
        }
    };
    let copy = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    ebpf::copy_whole(&object, &copy.join("lbha-ebpf.o"))
        .map_err(|error| format!("cannot use {}: {error}", object.display()))?;
    Ok(())
}

/// The inner cargo decides what to do; it only has to be run whenever the answer may differ.
fn watch_sources(workspace: &Path) {
    for path in ["Cargo.toml", "Cargo.lock", "lbha-common", "lbha-ebpf"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
}

fn build(workspace: &Path) -> Result<PathBuf, ebpf::Error> {
    if let Ok(toolchain) = ebpf::find() {
        println!("cargo::rerun-if-changed={}", toolchain.linker.path.display());
        println!("cargo::rerun-if-changed={}", toolchain.rust.rustc.display());
    }
    // Cargo shows this script's standard error when it fails, and nothing when it succeeds; the
    // warnings of the object's own sources are for the user to see in both cases.
    let mut in_warning = false;
    let mut line = |line: &str| {
        // The last one only counts them.
        in_warning = match line.strip_prefix("warning: ") {
            Some(text) => !text.starts_with('`'),
            None => in_warning && !line.trim().is_empty(),
        };
        if in_warning {
            println!("cargo::warning={line}");
        }
        eprintln!("{line}");
    };
    ebpf::build_object(workspace, &[], &mut ebpf::Output::Lines(&mut line))
}
