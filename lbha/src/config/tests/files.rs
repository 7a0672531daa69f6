//! Files that cannot be read, and the report as data and in colour.

use std::path::PathBuf;
use std::{fs, process};

use super::{GOOD, assert_same, from_text, good};
use crate::config::{Diagnostic, Overrides, Severity, load_file};

/// A file that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("lbha-config-{}-{name}", process::id()));
        fs::write(&path, bytes).expect("the temporary directory takes files");
        Self(path)
    }

    /// What loading the file says, with the file's name shortened.
    fn rendered(&self) -> String {
        let loaded = load_file(&self.0, &Overrides::default());
        assert_eq!(loaded.config.is_none(), loaded.report.has_errors());
        loaded.report.render(false).replace(&self.0.display().to_string(), "lbha.toml")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on it, and a test must not fail twice.
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_good_file_is_read() {
    assert_eq!(Scratch::new("good", GOOD.as_bytes()).rendered(), "");
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let file = Scratch::new("absent", b"");
    fs::remove_file(&file.0).expect("it was just written");
    assert_same(
        &file.rendered(),
        "
error: cannot read the file: No such file or directory (os error 2)
--> lbha.toml
 = help: write it, name another with --config, or use flags alone

lbha.toml: 1 error
",
    );
}

#[test]
fn a_directory_is_not_a_file() {
    let report = load_file(&std::env::temp_dir(), &Overrides::default()).report;
    assert_eq!(
        report.diagnostics()[0].message,
        "cannot read the file: Is a directory (os error 21)"
    );
}

#[test]
fn a_byte_that_is_not_utf8_is_shown_at_its_place() {
    let mut bytes = GOOD.as_bytes().to_vec();
    let at = GOOD.find("www").expect("the service's name");
    bytes[at] = 0xff;
    assert_same(
        &Scratch::new("utf8", &bytes).rendered(),
        r#"
error: the file is not UTF-8: found the byte 0xff
 --> lbha.toml:6:9
  |
6 | name = "�ww"
  |         ^
  |
  = help: save the file as UTF-8

lbha.toml: 1 error
"#,
    );
}

#[test]
fn a_file_of_more_than_a_mebibyte_is_not_read() {
    let comment = format!("{GOOD}#{}", "x".repeat(1024 * 1024 - GOOD.len() - 1));
    assert_eq!(comment.len(), 1024 * 1024);
    assert_eq!(Scratch::new("largest", comment.as_bytes()).rendered(), "");
    let expected = "
error: the file is too large: it may have at most 1 MiB
--> lbha.toml

lbha.toml: 1 error
";
    assert_same(&Scratch::new("large", format!("{comment}x").as_bytes()).rendered(), expected);
    assert_same(&from_text(&format!("{comment}x")).report.render(false), expected);
}

#[test]
fn the_report_is_also_data() {
    let text = good(&[("port = 80", "port = 0\nprotocol = \"udq\""), ("\n]\n", "\n]\nx = 1\n")]);
    let report = from_text(&text).report;
    assert_eq!((report.errors(), report.warnings()), (3, 0));
    assert_eq!(report.summary(), "lbha.toml: 3 errors");
    let found = report.diagnostics();
    assert_eq!(
        found[1],
        Diagnostic {
            severity: Severity::Error,
            message: "unknown protocol \"udq\"".to_owned(),
            file: Some("lbha.toml".to_owned()),
            line: Some(9),
            column: Some(12),
            help: Some("did you mean \"udp\"?".to_owned()),
        }
    );
    let json = serde_json::to_value(&found).expect("plain data");
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json[0]["line"], 8);
    assert_eq!(json[0]["help"], serde_json::Value::Null);
    assert_eq!(serde_json::from_value::<Vec<Diagnostic>>(json).expect("both ways"), found);
}

#[test]
fn columns_count_characters_and_lines_end_in_either_way() {
    let text = "# ä\r\n\"ä\" = 1\r\n[interfaces]\r\npublic = \"ö/\"\r\n";
    let places: Vec<_> =
        from_text(text).report.diagnostics().iter().map(|d| (d.line, d.column)).collect();
    assert_eq!(places, [(Some(2), Some(1)), (Some(4), Some(10)), (Some(1), Some(1))]);
}

#[test]
fn the_report_of_a_good_file_is_empty() {
    let report = from_text(GOOD).report;
    assert!(report.is_empty());
    assert_eq!(report.render(true), "");
    assert_eq!(report.summary(), "lbha.toml: ok");
}

#[test]
fn colour_changes_nothing_but_the_colour() {
    let report = from_text(&good(&[("port = 80", "port = 0")])).report;
    let colored = report.render(true);
    assert!(colored.contains("\u{1b}["));
    let mut plain = String::new();
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').expect("an escape sequence for colour ends so").1;
    }
    plain.push_str(rest);
    let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert_eq!(trimmed(&plain), trimmed(&report.render(false)));
}
