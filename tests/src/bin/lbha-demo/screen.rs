//! What the demo shows, and in which colours.

use std::io::{self, IsTerminal as _, Write as _};

/// Output with colour, on a terminal that wants it.
pub struct Screen {
    colour: bool,
}

impl Screen {
    pub fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour: wanted && io::stdout().is_terminal() }
    }

    pub fn title(&self, text: &str) {
        self.write("\n", "1", text);
    }

    pub fn text(&self, text: &str) {
        for line in text.trim_matches('\n').lines() {
            self.line(line);
        }
    }

    pub fn line(&self, line: &str) {
        self.write("  ", "", line);
    }

    pub fn command(&self, host: &str, command: &str) {
        self.write("  ", "2", &format!("{host}# {command}"));
    }

    /// Each server in a colour of its own, so that turns are seen at a glance.
    pub fn answer(&self, name: &str) {
        self.write("  ", if name == "web1" { "36" } else { "35" }, name);
    }

    pub fn good(&self, text: &str) {
        self.write("\n", "32", text);
    }

    pub fn bad(&self, text: &str) {
        self.write("  ", "31", text);
    }

    /// Errors are ignored: a closed pipe (`| head`) is no reason to leave namespaces behind, nor to panic.
    fn write(&self, before: &str, code: &str, text: &str) {
        let mut out = io::stdout().lock();
        let _ = if self.colour && !code.is_empty() {
            writeln!(out, "{before}\x1b[{code}m{text}\x1b[0m")
        } else {
            writeln!(out, "{before}{text}")
        };
        let _ = out.flush();
    }
}
