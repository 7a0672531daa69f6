//! `lbha check`: is the configuration valid?

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Output, args::DEFAULT_CONFIG, concat_help, exit::Code, json, output, run::complain};
use crate::config::{self, Config, Diagnostic, Overrides};

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
    /// With every default filled in; `None` unless valid.
    config: Option<Config>,
}

pub fn check(args: CheckArgs) -> anyhow::Result<Code> {
    let CheckArgs { config: path, output: form } = args;
    let loaded = config::load_file(&path, &Overrides::default());
    let valid = loaded.config.is_some();
    match form {
        Output::Json => {
            let diagnostics = loaded.report.diagnostics();
            let verdict = Verdict { valid, diagnostics, config: loaded.config };
            output::print(&json::pretty(&serde_json::to_vec(&verdict)?)?)?;
        }
        Output::Text => {
            complain(&loaded.report);
            if let Some(config) = &loaded.config {
                let line = format!("{}: valid: {}\n", path.display(), summary(config));
                output::print(line.as_bytes())?;
            }
        }
    }
    Ok(if valid { Code::Ok } else { Code::InvalidConfig })
}

/// What there is of each kind, such as `1 service, 2 servers`.
fn summary(config: &Config) -> String {
    let servers: usize = config.pools.iter().map(|pool| pool.servers.len()).sum();
    [
        (config.services.len(), "service"),
        (servers, "server"),
        (config.masquerades.len(), "masquerade"),
        (config.forwards.len(), "forward"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| count(number, what))
    .collect::<Vec<_>>()
    .join(", ")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
