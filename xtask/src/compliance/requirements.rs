//! The requirements of the RFCs, and whether the tests fit them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::scan::Test;

/// All of them, in the order of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    #[serde(rename = "rfc")]
    pub rfcs: Vec<Rfc>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rfc {
    pub number: u32,
    pub title: String,
    #[serde(rename = "requirement")]
    pub requirements: Vec<Requirement>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Of the requirement, or of the section where they have none.
    pub number: String,
    pub level: Level,
    /// In our own words.
    pub summary: String,
    /// Why it is not simply met.
    pub status: Option<Status>,
    pub reason: Option<String>,
}

/// RFC 2119; "recommended" is should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Must,
    Should,
    May,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Partial,
    No,
}

impl Requirements {
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Self::parse(&text).with_context(|| file.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let requirements: Self = toml::from_str(text)?;
        let mut names = BTreeSet::new();
        for (rfc, requirement) in requirements.all() {
            let name = rfc.name_of(requirement);
            if requirement.status.is_some() != requirement.reason.is_some() {
                bail!("{name}: a status needs a reason, and a reason a status");
            }
            if !names.insert(name.clone()) {
                bail!("{name} is there twice");
            }
        }
        Ok(requirements)
    }

    pub fn all(&self) -> impl Iterator<Item = (&Rfc, &Requirement)> {
        self.rfcs.iter().flat_map(|rfc| rfc.requirements.iter().map(move |one| (rfc, one)))
    }

    /// What of the tests and the requirements does not fit, a line each.
    pub fn faults(&self, tests: &[Test]) -> Vec<String> {
        let mut faults = Vec::new();
        let known: BTreeSet<String> = self.all().map(|(rfc, one)| rfc.name_of(one)).collect();
        for test in tests {
            let unknown = test.covers.iter().filter(|name| !known.contains(*name));
            faults.extend(unknown.map(|name| format!("{}: there is no {name}", test.name)));
        }
        for (rfc, requirement) in self.all() {
            let name = rfc.name_of(requirement);
            let is_tested = tests.iter().any(|test| test.shows(&name));
            match requirement.status {
                None if !is_tested => {
                    faults.push(format!("{name} has neither a test nor a status"))
                }
                Some(Status::No) if is_tested => faults.push(format!(
                    "{name} has a test and the status \"no\": take it out, or say \"partial\""
                )),
                _ => {}
            }
        }
        faults
    }
}

impl Rfc {
    /// As `covers!` has it.
    pub fn name_of(&self, requirement: &Requirement) -> String {
        format!("RFC{} {}", self.number, requirement.number)
    }
}

impl Test {
    /// Whether this requirement is met if the test passes.
    pub fn shows(&self, name: &str) -> bool {
        !self.ignored && self.covers.iter().any(|covered| covered == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(requirements: &str) -> anyhow::Result<Requirements> {
        Requirements::parse(&format!(
            "[[rfc]]\nnumber = 1\ntitle = \"One\"\nrequirement = [{requirements}]\n"
        ))
    }

    fn requirement(number: &str, more: &str) -> String {
        format!("{{ number = \"{number}\", level = \"must\", summary = \"s\"{more} }},")
    }

    fn test(name: &str, covers: &str, ignored: bool) -> Test {
        Test { name: name.into(), covers: vec![covers.into()], ignored }
    }

    const NO: &str = ", status = \"no\", reason = \"r\"";
    const PARTIAL: &str = ", status = \"partial\", reason = \"r\"";

    #[test]
    fn the_file_is_checked_when_it_is_read() {
        assert_eq!(parse(&requirement("REQ-1", "")).unwrap().all().count(), 1);
        for bad in [
            requirement("REQ-1", ", status = \"no\""),
            requirement("REQ-1", ", reason = \"r\""),
            requirement("REQ-1", ", status = \"maybe\", reason = \"r\""),
            requirement("REQ-1", ", note = \"n\""),
            requirement("REQ-1", "") + &requirement("REQ-1", ""),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_requirement_has_a_test_or_says_why_not() {
        let faults = |more: &str, tests: &[Test]| {
            parse(&requirement("REQ-1", more)).unwrap().faults(tests).join("\n")
        };
        let tested = [test("t", "RFC1 REQ-1", false)];
        let ignored = [test("t", "RFC1 REQ-1", true)];
        assert_eq!(faults("", &tested), "");
        assert_eq!(faults(NO, &[]), "");
        assert_eq!(faults(NO, &ignored), "");
        assert_eq!(faults(PARTIAL, &[]), "");
        assert_eq!(faults(PARTIAL, &tested), "");
        assert_eq!(faults("", &[]), "RFC1 REQ-1 has neither a test nor a status");
        assert_eq!(faults("", &ignored), "RFC1 REQ-1 has neither a test nor a status");
        assert!(faults(NO, &tested).contains("has a test and the status"));
    }

    #[test]
    fn a_test_of_an_unknown_requirement_is_named() {
        let requirements = parse(&requirement("REQ-1", NO)).unwrap();
        let tests = [test("a.rs::t", "RFC1 REQ-9", true)];
        assert_eq!(requirements.faults(&tests), ["a.rs::t: there is no RFC1 REQ-9"]);
    }
}
