//! Counts what test programs report, and puts the counts into one table.

use std::fmt::Write as _;
use std::time::Duration;

/// The counts of test programs, read from their output while they run.
#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// Reasons of tests that found that this machine cannot run them.
    skips: Vec<String>,
    /// Names of failed tests, and what went wrong outside of tests.
    failures: Vec<String>,
    in_failures: bool,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
}

/// The counts of one layer.
pub struct Row {
    pub layer: &'static str,
    pub tally: Tally,
    pub took: Duration,
}

impl Tally {
    /// Takes the next piece of output.
    pub fn feed(&mut self, piece: &[u8]) {
        for &byte in piece {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.read(&String::from_utf8_lossy(&line));
            } else {
                self.line.push(byte);
            }
        }
    }

    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skips.extend(other.skips);
        self.failures.extend(other.failures);
    }

    pub fn skip(&mut self, reason: String) {
        // Such a test passes as far as its program knows; the sum is put right below.
        self.passed += 1;
        self.skips.push(reason);
    }

    /// For what fails outside of a test.
    pub fn fail(&mut self, reason: String) {
        self.failed += 1;
        self.failures.push(reason);
    }

    pub fn failed(&self) -> usize {
        self.failed
    }

    pub fn skipped(&self) -> usize {
        self.ignored + self.skips.len()
    }

    /// A test that skips itself ends well for its program, but has shown nothing.
    pub fn passed(&self) -> usize {
        self.passed.saturating_sub(self.skips.len())
    }

    pub fn total(&self) -> usize {
        self.passed() + self.failed() + self.skipped()
    }

    fn read(&mut self, line: &str) {
        if let Some([passed, failed, ignored]) = parse_result(line) {
            self.passed += passed;
            self.failed += failed;
            self.ignored += ignored;
            self.in_failures = false;
        } else if let Some(reason) = parse_skip(line) {
            self.skips.push(reason.to_owned());
        } else if line == "failures:" {
            self.in_failures = true;
        } else if let Some(name) = line.strip_prefix("    ").filter(|_| self.in_failures) {
            // The list at the end, which the output of each failed test comes before.
            self.failures.push(name.to_owned());
        } else if !line.is_empty() {
            self.in_failures = false;
        }
    }
}

/// From a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; …`.
fn parse_result(line: &str) -> Option<[usize; 3]> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what: &str| {
        counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim_end().parse().ok())
    };
    Some([count("passed")?, count("failed")?, count("ignored")?])
}

/// From a line `SKIP: reason`, also behind the name of the test that runs alone.
fn parse_skip(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
        Some((_, rest)) => rest,
        None => line,
    };
    line.strip_prefix("SKIP: ").map(str::trim_end)
}

/// The table, the reasons, and the last line that says it all.
pub fn summary(rows: &[Row]) -> String {
    let mut text = format!(
        "\n{:<8}{:>8}{:>8}{:>9}{:>10}\n",
        "layer", "passed", "failed", "skipped", "seconds"
    );
    let mut write = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("invariant: a string takes everything");
    };
    let [mut passed, mut failed, mut skipped] = [0; 3];
    for Row { layer, tally, took } in rows {
        write(format_args!(
            "{layer:<8}{:>8}{:>8}{:>9}{:>10.1}\n",
            tally.passed(),
            tally.failed(),
            tally.skipped(),
            took.as_secs_f64()
        ));
        passed += tally.passed();
        failed += tally.failed();
        skipped += tally.skipped();
    }
    for Row { layer, tally, .. } in rows {
        for name in &tally.failures {
            write(format_args!("failed in {layer}: {name}\n"));
        }
    }
    for Row { layer, tally, .. } in rows {
        for reason in &tally.skips {
            write(format_args!("skipped in {layer}: {reason}\n"));
        }
        if tally.ignored > 0 {
            write(format_args!("skipped in {layer}: {} marked #[ignore]\n", tally.ignored));
        }
    }
    let reasons = if skipped > 0 { " (reasons above)" } else { "" };
    write(format_args!(
        "test summary: {passed} passed, {failed} failed, {skipped} skipped{reasons}\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_line_is_read() {
        let line = "test result: ok. 10 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s";
        assert_eq!(parse_result(line), Some([10, 2, 1]));
        assert_eq!(parse_result("test result: FAILED. 1 passed; x failed; 0 ignored"), None);
        assert_eq!(parse_result("test a ... ok"), None);
    }

    #[test]
    fn reasons_to_skip_are_read_alone_and_behind_a_tests_name() {
        assert_eq!(parse_skip("SKIP: no bird here"), Some("no bird here"));
        assert_eq!(parse_skip("test a::b ... SKIP: no bird here"), Some("no bird here"));
        assert_eq!(parse_skip("test skips ... ok"), None);
        assert_eq!(parse_skip("told it to SKIP: that"), None);
    }

    #[test]
    fn a_program_is_counted_while_it_talks() {
        let output = "
running 5 tests
test a ... ok
test b ... FAILED
test c ... ignored
test d ... ok
test e ... ok

successes:

---- d stdout ----
SKIP: no wrk

failures:

---- b stdout ----
panicked at tests/x.rs:1:
    assertion failed

failures:
    b

test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s

";
        let mut tally = Tally::default();
        for piece in output.as_bytes().chunks(7) {
            tally.feed(piece);
        }
        assert_eq!((tally.passed(), tally.failed(), tally.skipped()), (2, 1, 2));
        assert_eq!(tally.failures, ["b"]);
        assert_eq!(tally.skips, ["no wrk"]);
        assert_eq!(tally.total(), 5);
    }

    #[test]
    fn several_programs_make_one_table_and_one_last_line() {
        let mut unit = Tally { passed: 7, ..Tally::default() };
        unit.add(Tally { passed: 3, ..Tally::default() });
        let mut netns = Tally { passed: 2, ignored: 1, ..Tally::default() };
        netns.skip("no bird".into());
        netns.fail("tests netns_lb: ended after 900 s without a result".into());
        let rows = [
            Row { layer: "unit", tally: unit, took: Duration::from_millis(1250) },
            Row { layer: "netns", tally: netns, took: Duration::from_secs(61) },
        ];
        let expected = "
layer     passed  failed  skipped   seconds
unit          10       0        0       1.2
netns          2       1        2      61.0
failed in netns: tests netns_lb: ended after 900 s without a result
skipped in netns: no bird
skipped in netns: 1 marked #[ignore]
test summary: 12 passed, 1 failed, 2 skipped (reasons above)
";
        assert_eq!(summary(&rows), expected);
    }

    #[test]
    fn without_skipped_tests_there_is_no_word_of_reasons() {
        let row = Row { layer: "unit", tally: Tally::default(), took: Duration::ZERO };
        assert!(summary(&[row]).ends_with("test summary: 0 passed, 0 failed, 0 skipped\n"));
    }
}
