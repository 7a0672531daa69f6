//! Writes the page.

use std::fmt::Write as _;

use super::requirements::{Level, Requirement, Requirements, Rfc, Status};
use super::scan::Test;

/// All of it, in Markdown.
pub fn page(requirements: &Requirements, tests: &[Test]) -> String {
    let mut page = String::from(
        "<!-- Made by `cargo xtask compliance` from rfc/requirements.toml and the tests; changes belong there. -->\n\
         # Requirements of the RFCs\n\n\
         What the RFCs require of a NAT, and which tests show that it is so: every test named here runs in `cargo xtask test`.\n\n\
         - ✅ met, as the tests show\n\
         - ⚠️ met in part, for the reason given\n\
         - ❌ not met, for the reason given\n\n\
         | RFC | ✅ | ⚠️ | ❌ |\n|---|---:|---:|---:|\n",
    );
    for rfc in &requirements.rfcs {
        let count = |sign| rfc.requirements.iter().filter(|one| one.sign() == sign).count();
        let [met, partly, not] = [MET, PARTLY, NOT].map(count);
        line(&mut page, &format!("| [{0}](#rfc-{0}) | {met} | {partly} | {not} |", rfc.number));
    }
    for rfc in &requirements.rfcs {
        section(&mut page, rfc, tests);
    }
    page
}

fn section(page: &mut String, rfc: &Rfc, tests: &[Test]) {
    let number = rfc.number;
    line(page, &format!("\n## RFC {number}\n"));
    line(page, &format!("[{}](https://www.rfc-editor.org/rfc/rfc{number})\n", rfc.title));
    line(page, "| | | requires | tests, reasons |\n|---|---|---|---|");
    for requirement in &rfc.requirements {
        let name = rfc.name_of(requirement);
        let shown = tests.iter().filter(|test| test.shows(&name));
        let mut remarks: Vec<String> = shown.map(|test| format!("`{}`", test.name)).collect();
        remarks.extend(requirement.reason.clone());
        let Requirement { number, summary, .. } = requirement;
        let (sign, level) = (requirement.sign(), requirement.level());
        let remarks = remarks.join("<br>");
        line(page, &format!("| {sign} | {number} | {level}: {summary} | {remarks} |"));
    }
}

impl Requirement {
    /// Those without a status have tests: that was checked.
    fn sign(&self) -> &'static str {
        match self.status {
            None => MET,
            Some(Status::Partial) => PARTLY,
            Some(Status::No) => NOT,
        }
    }

    fn level(&self) -> &'static str {
        match self.level {
            Level::Must => "must",
            Level::Should => "should",
            Level::May => "may",
        }
    }
}

fn line(page: &mut String, text: &str) {
    writeln!(page, "{text}").expect("invariant: a string takes everything");
}

const MET: &str = "✅";
const PARTLY: &str = "⚠️";
const NOT: &str = "❌";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_requirement_is_a_line_with_its_tests_and_its_reason() {
        let one = |number: &str, status| Requirement {
            number: number.into(),
            level: Level::Should,
            summary: format!("do {number}"),
            status,
            reason: status.map(|_| "a reason".into()),
        };
        let all = vec![
            one("REQ-1", None),
            one("REQ-2", Some(Status::Partial)),
            one("REQ-3", Some(Status::No)),
        ];
        let rfc = Rfc { number: 9, title: "Nine".into(), requirements: all };
        let test = |name: &str, covers: &str, ignored| Test {
            name: name.into(),
            covers: vec![covers.into()],
            ignored,
        };
        let tests = [
            test("a.rs::a", "RFC9 REQ-1", false),
            test("b.rs::b", "RFC9 REQ-1", false),
            test("b.rs::c", "RFC9 REQ-2", false),
            test("b.rs::d", "RFC9 REQ-3", true),
        ];
        let page = page(&Requirements { rfcs: vec![rfc] }, &tests);
        let lines: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).collect();
        assert_eq!(
            lines[1..],
            [
                "| [9](#rfc-9) | 1 | 1 | 1 |",
                "| | | requires | tests, reasons |",
                "| ✅ | REQ-1 | should: do REQ-1 | `a.rs::a`<br>`b.rs::b` |",
                "| ⚠️ | REQ-2 | should: do REQ-2 | `b.rs::c`<br>a reason |",
                "| ❌ | REQ-3 | should: do REQ-3 | a reason |",
            ]
        );
    }
}
