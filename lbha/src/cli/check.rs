//! `lbha check`: is the configuration valid?

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::{Output, args::DEFAULT_CONFIG, concat_help, exit::Code};

/// Validate the configuration; touches nothing.
///
/// The same validation as `lbha run` does before it touches anything. All errors are shown at once.
#[derive(Args, Debug)]
#[command(after_help = concat_help!(
    "Examples:
  lbha check
  lbha check -c ./lbha.toml && sudo cp ./lbha.toml /etc/lbha/
  lbha check -o json                  for an editor or a pipeline"
))]
pub struct CheckArgs {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,

    /// Form of the result
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
}

pub fn check(args: CheckArgs) -> anyhow::Result<Code> {
    let CheckArgs { .. } = args;
    bail!("not wired yet")
}
