//! `lbha completions`: scripts for the shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, concat_help, exit::Code, output};

/// Print the completion script of a shell.
#[derive(Args, Debug)]
#[command(after_help = concat_help!(
    "Examples:
  lbha completions bash | sudo tee /usr/share/bash-completion/completions/lbha
  lbha completions zsh > ~/.zfunc/_lbha
  lbha completions fish > ~/.config/fish/completions/lbha.fish"
))]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: Shell,
}

pub fn completions(args: CompletionsArgs) -> anyhow::Result<Code> {
    let CompletionsArgs { shell } = args;
    // Not straight to stdout: clap panics when its reader goes away.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lbha", &mut script);
    output::print(&script)?;
    Ok(Code::Ok)
}
