//! `lbha detach`: take the datapath off the interfaces.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::{
    args::{DEFAULT_BPFFS, DEFAULT_RUNTIME_DIR},
    concat_help,
    exit::Code,
};

/// Take the datapath off the interfaces; forwarding stops.
///
/// Drops every connection that goes through lbha, and all counters: programs, links and maps are removed from the
/// kernel. Refused while a daemon runs.
#[derive(Args, Debug)]
#[command(after_help = concat_help!(
    "Examples:
  sudo lbha detach                    says what would be removed, and asks
  sudo lbha detach --yes              does not ask"
))]
pub struct DetachArgs {
    /// Where the daemon's admin socket would be
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUNTIME_DIR)]
    pub runtime_dir: PathBuf,

    /// Directory in a BPF file system where programs and maps are pinned
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

pub fn detach(args: DetachArgs) -> anyhow::Result<Code> {
    let DetachArgs { .. } = args;
    bail!("not wired yet")
}
