//! Loading as a whole: a text and flags in, a configuration or exact messages out.

use std::path::Path;

use super::{Config, Loaded, Overrides, load};

mod family;
mod files;
mod flags;
mod forward;
mod good;
mod keys;
mod later;
mod limits;
mod masquerade;
mod masquerade_values;
mod mutations;
mod syntax;
mod values;
mod warnings;
mod whole;

/// A configuration without errors and warnings, to be spoiled by [`good`].
const GOOD: &str = r#"[interfaces]
public = "ens14f0"
private = "ens14f1"

[[service]]
name = "www"
vip = "147.75.78.116"
port = 80
pool = "web"

[[pool]]
name = "web"
servers = [
  { name = "web1", address = "192.168.1.10:80" },
  { name = "web2", address = "192.168.1.11:80" },
]
"#;

/// The good configuration with some of its text replaced.
fn good(edits: &[(&str, &str)]) -> String {
    let mut text = GOOD.to_owned();
    for (old, new) in edits {
        assert_eq!(text.matches(old).count(), 1, "{old:?} must occur once");
        text = text.replacen(old, new, 1);
    }
    text
}

fn from_text(text: &str) -> Loaded {
    load(Some((Path::new("lbha.toml"), text)), &Overrides::default())
}

/// Loads a text that must have neither errors nor warnings.
#[track_caller]
fn accepts(text: &str) -> Config {
    let loaded = from_text(text);
    assert_eq!(loaded.report.render(false), "");
    loaded.config.expect("no errors, so a configuration")
}

/// Loads a text that must give no configuration and exactly these messages.
#[track_caller]
fn refuses(text: &str, expected: &str) {
    let loaded = from_text(text);
    assert_same(&loaded.report.render(false), expected);
    assert_eq!(loaded.config, None);
}

/// Loads a text that must give a configuration and exactly these messages.
#[track_caller]
fn warns(text: &str, expected: &str) {
    let loaded = from_text(text);
    assert_same(&loaded.report.render(false), expected);
    assert!(loaded.config.is_some());
}

/// Compares with a text that begins on a line of its own; shows both as they would be printed.
#[track_caller]
fn assert_same(found: &str, expected: &str) {
    let expected = expected.strip_prefix('\n').unwrap_or(expected);
    assert!(found == expected, "expected:\n{expected}\nfound:\n{found}");
}
