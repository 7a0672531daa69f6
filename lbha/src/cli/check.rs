//! `lbha check`: is the configuration valid?

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Output, args::DEFAULT_CONFIG, concat_help, exit::Code, json, output, run::complain};
use crate::config::{self, Diagnostic, Overrides};

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

/// What `-o json` prints.
#[derive(Debug, Serialize)]
struct Verdict {
    valid: bool,
    diagnostics: Vec<Diagnostic>,
}

pub fn check(args: CheckArgs) -> anyhow::Result<Code> {
    let CheckArgs { config: path, output: form } = args;
    let loaded = config::load_file(&path, &Overrides::default());
    let valid = loaded.config.is_some();
    match form {
        Output::Json => {
            let verdict = Verdict { valid, diagnostics: loaded.report.diagnostics() };
            output::print(&json::pretty(&serde_json::to_vec(&verdict)?)?)?;
        }
        Output::Text => {
            complain(&loaded.report);
            if let Some(config) = &loaded.config {
                let servers: usize = config.pools.iter().map(|pool| pool.servers.len()).sum();
                let line = format!(
                    "{}: valid: {}, {}\n",
                    path.display(),
                    count(config.services.len(), "service"),
                    count(servers, "server"),
                );
                output::print(line.as_bytes())?;
            }
        }
    }
    Ok(if valid { Code::Ok } else { Code::InvalidConfig })
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
