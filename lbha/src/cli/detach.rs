//! `lbha detach`: take the datapath off the interfaces.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
};

use anyhow::bail;
use clap::Args;

use super::{
    args::DEFAULT_BPFFS,
    concat_help,
    exit::{Code, WithCode},
    output,
};
use crate::daemon;

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
    /// Directory in a BPF file system where programs and maps are pinned
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

pub fn detach(args: DetachArgs) -> anyhow::Result<Code> {
    let DetachArgs { bpffs, yes } = args;
    let left = daemon::Left::find(&bpffs).code(Code::Datapath)?;
    if left.is_empty() {
        // The directories that were made to take the lock on.
        left.remove().code(Code::Datapath)?;
        output::print(format!("nothing is pinned below {}\n", bpffs.display()).as_bytes())?;
        return Ok(Code::Ok);
    }
    output::print(format!("{left}\n").as_bytes())?;
    if !yes && !confirmed()? {
        bail!("not confirmed; nothing was removed");
    }
    left.remove().code(Code::Datapath)?;
    output::print(b"removed; packets go to the kernel\n")?;
    Ok(Code::Ok)
}

fn confirmed() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("stdin is not a terminal to ask on; say --yes");
    }
    let mut stderr = io::stderr();
    write!(stderr, "Remove them, and drop these connections? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
