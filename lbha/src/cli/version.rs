//! `lbha version`: what this binary is.

use std::env::consts;

use clap::Args;
use lbha_common::ABI_VERSION;
use serde::Serialize;

use super::{Output, concat_help, exit::Code, output};

/// Print the version of lbha and of its pinned maps.
///
/// A daemon adopts the maps of its predecessor when both have the same abi.
#[derive(Args, Debug)]
#[command(after_help = concat_help!(
    "Examples:
  lbha version
  lbha version -o json | jq .abi"
))]
pub struct VersionArgs {
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
}

/// Fields are added, never renamed or removed.
#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    abi: u32,
    target: String,
}

pub fn version(args: VersionArgs) -> anyhow::Result<Code> {
    let VersionArgs { output: format } = args;
    let version =
        Version { version: env!("CARGO_PKG_VERSION"), abi: ABI_VERSION, target: target() };
    let text = match format {
        Output::Json => serde_json::to_string_pretty(&version)?,
        Output::Text => {
            let Version { version, abi, target } = version;
            format!("lbha {version} (abi {abi}, {target})")
        }
    };
    output::print(format!("{text}\n").as_bytes())?;
    Ok(Code::Ok)
}

/// As rustc spells it, without the vendor, which says nothing.
fn target() -> String {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    format!("{}-{}-{libc}", consts::ARCH, consts::OS)
}
