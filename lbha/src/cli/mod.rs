//! The command line: which verbs there are, and from arguments to an exit code. One file per verb.
#![forbid(unsafe_code)]

pub mod args;
pub mod check;
pub mod completions;
pub mod detach;
pub mod exit;
pub mod json;
pub mod output;
pub mod run;
pub mod show;
pub mod version;

use std::ffi::OsString;

use clap::{Parser, Subcommand, ValueEnum};

use self::exit::Code;

/// Load balancer in XDP, for a pair of bare-metal hosts.
///
/// It forwards the elastic address's connections to the servers before the kernel sees a packet, and keeps them through
/// restarts.
#[derive(Debug, Parser)]
#[command(
    name = "lbha",
    version,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = concat_help!(
        "Examples:
  lbha check                          is the configuration valid?
  sudo lbha run                       forward, in the foreground
  lbha show status                    is it well?
  lbha show servers --watch           with rates, every second
  lbha show drops                     why does it not forward?"
    )
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

/// Each is described where its arguments are: a comment here would replace that text.
#[derive(Debug, Subcommand)]
pub enum Verb {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Detach(detach::DetachArgs),
    Show(show::ShowArgs),
    Completions(completions::CompletionsArgs),
    Version(version::VersionArgs),
}

/// `-o` of the verbs that print no tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

/// Runs the command with its arguments, the program's name first. Errors are on stderr when this returns.
pub fn main(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Code {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => exit::conclude(dispatch(cli)),
        Err(error) => {
            // clap exits with 2 by itself, which is an invalid configuration's. Help and versions are no errors.
            let code = if error.use_stderr() { Code::Failed } else { Code::Ok };
            // Whoever closed our output does not want the help.
            let _ = error.print();
            code
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<Code> {
    match cli.verb {
        Verb::Run(args) => run::run(args),
        Verb::Check(args) => check::check(args),
        Verb::Detach(args) => detach::detach(args),
        Verb::Show(args) => show::show(args),
        Verb::Completions(args) => completions::completions(args),
        Verb::Version(args) => version::version(args),
    }
}

/// Examples, then the exit codes.
macro_rules! concat_help {
    ($examples:literal) => {
        format!("{}\n\n{}", $examples, $crate::cli::exit::HELP)
    };
}
use concat_help;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_help_has_examples_and_exit_codes() {
        fn visit(command: &mut clap::Command, path: &str, depth: usize) {
            let help = command.render_long_help().to_string();
            // clap's own `help` verb explains itself.
            if depth < 2 && command.get_name() != "help" {
                assert!(help.contains("Examples:\n"), "{path}: {help}");
                assert!(help.contains("Exit codes:\n"), "{path}: {help}");
            }
            assert!(help.lines().all(|line| line.chars().count() <= 120), "{path}: {help}");
            for sub in command.get_subcommands_mut() {
                let path = format!("{path} {}", sub.get_name());
                visit(sub, &path, depth + 1);
            }
        }

        let mut command = Cli::command();
        command.build();
        visit(&mut command, "lbha", 0);
    }
}
