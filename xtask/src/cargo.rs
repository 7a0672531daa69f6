//! Runs the host's cargo and reads what it built.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// The workspace that this command belongs to.
pub fn workspace() -> PathBuf {
    // The first is set by `cargo run`; the second holds for the binary alone.
    let member = env::var_os("CARGO_MANIFEST_DIR")
        .filter(|directory| Path::new(directory).ends_with("xtask"))
        .unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&member).parent().expect("invariant: a member's directory").to_owned()
}

/// The cargo that runs this command, else the one on PATH.
pub fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    // They describe xtask, and would make build scripts that look at them run again each time.
    for (name, _) in env::vars_os() {
        let is_ours = ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()));
        if is_ours {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it with cargo's own progress on the terminal.
pub fn run(mut command: Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(&command)))?;
    if !status.success() {
        bail!("{} failed", shown(&command));
    }
    Ok(())
}

/// An executable that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// The name of the target: for a test that of its file, for a binary its own.
    pub name: String,
    pub kind: String,
    /// Built with the test harness.
    pub is_test: bool,
    /// The directory of its package.
    pub package: PathBuf,
    pub path: PathBuf,
}

/// Runs a building command and returns what it built (or found up to date).
pub fn build(mut command: Command) -> anyhow::Result<Vec<Executable>> {
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", shown(&command)))?;
    let mut executables = Vec::new();
    for line in BufReader::new(child.stdout.take().context("no output of cargo")?).lines() {
        executables.extend(Executable::parse(&line.context("cannot read cargo's output")?));
    }
    if !child.wait()?.success() {
        bail!("{} failed", shown(&command));
    }
    Ok(executables)
}

/// Builds with the release profile and returns the binaries asked for, in that order.
pub fn build_binaries<const N: usize>(
    arguments: &[&str],
    names: [&str; N],
) -> anyhow::Result<[PathBuf; N]> {
    let mut command = command();
    command.args(["build", "--release"]).args(arguments);
    let built = build(command)?;
    let mut paths = [const { PathBuf::new() }; N];
    for (path, name) in paths.iter_mut().zip(names) {
        let is_it = |executable: &&Executable| !executable.is_test && executable.name == name;
        let executable = built.iter().find(is_it);
        path.clone_from(&executable.with_context(|| format!("cargo built no {name}"))?.path);
    }
    Ok(paths)
}

impl Executable {
    /// From one line of cargo's JSON messages; most are about something else.
    fn parse(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        Some(Self {
            path: text(&message["executable"])?.into(),
            name: text(&message["target"]["name"])?,
            kind: text(&message["target"]["kind"][0])?,
            is_test: message["profile"]["test"].as_bool()?,
            package: Path::new(message["manifest_path"].as_str()?).parent()?.to_owned(),
        })
    }
}

fn shown(command: &Command) -> String {
    let mut text = String::from("cargo");
    for argument in command.get_args().filter(|argument| {
        // Ours, not the user's.
        !argument.as_encoded_bytes().starts_with(b"--message-format")
    }) {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","package_id":"p","manifest_path":"/w/tests/Cargo.toml",
            "target":{"kind":["test"],"crate_types":["bin"],"name":"prog_lb","src_path":"s"},
            "profile":{"test":true},"filenames":[],"executable":"/w/target/debug/deps/prog_lb-1","fresh":true}"#;
        let expected = Executable {
            name: "prog_lb".into(),
            kind: "test".into(),
            is_test: true,
            package: "/w/tests".into(),
            path: "/w/target/debug/deps/prog_lb-1".into(),
        };
        assert_eq!(Executable::parse(line), Some(expected));
        assert_eq!(
            Executable::parse(&line.replace("\"/w/target/debug/deps/prog_lb-1\"", "null")),
            None
        );
        assert_eq!(Executable::parse(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(Executable::parse("not JSON"), None);
    }
}
