//! `cargo xtask compliance`: the page that says which requirements of the RFCs are met, from the tests that show it.

mod page;
mod requirements;
mod scan;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::cargo;
use crate::terminal::Step;
use requirements::Requirements;
use scan::Test;

const REQUIREMENTS: &str = "docs/rfc/requirements.toml";
const PAGE: &str = "docs/rfc-compliance.md";
/// Where tests are.
const SOURCES: [&str; 5] =
    ["lbha-common/src", "lbha/src", "lbha/tests", "tests/src", "tests/tests"];

/// Write docs/rfc-compliance.md: which requirements of the RFCs are met, by which tests.
///
/// The requirements are those of docs/rfc/requirements.toml. A test says which of them it shows to be met with
/// `covers!("RFC4787 REQ-1", …)` as its first statement. A requirement without a test needs a status
/// that says why, and the other way round.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask compliance
  cargo xtask compliance --check   only say whether the page is up to date")]
pub struct Arguments {
    /// Write nothing; fail if the page is not up to date.
    #[arg(long)]
    check: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.check {
        check()?;
        return Ok(ExitCode::SUCCESS);
    }
    let page = cargo::workspace().join(PAGE);
    fs::write(&page, made()?).with_context(|| format!("cannot write {}", page.display()))?;
    println!("{PAGE} is written");
    Ok(ExitCode::SUCCESS)
}

/// Fails if the page is not what [`run`] would write.
pub fn check() -> anyhow::Result<()> {
    let step = Step::start("requirements and their tests");
    let is = fs::read_to_string(cargo::workspace().join(PAGE)).unwrap_or_default();
    if is != made()? {
        bail!("{PAGE} is not up to date: `cargo xtask compliance` writes it");
    }
    step.done();
    Ok(())
}

/// The page as it should be.
fn made() -> anyhow::Result<String> {
    let workspace = cargo::workspace();
    let requirements = Requirements::read(&workspace.join(REQUIREMENTS))?;
    let tests = tests(&workspace)?;
    let faults = requirements.faults(&tests);
    if !faults.is_empty() {
        bail!("the requirements and the tests do not fit:\n  {}", faults.join("\n  "));
    }
    Ok(page::page(&requirements, &tests))
}

/// Every test that covers a requirement, in the order of files and lines.
fn tests(workspace: &Path) -> anyhow::Result<Vec<Test>> {
    let mut files = Vec::new();
    for directory in SOURCES {
        rust_files(&workspace.join(directory), &mut files)?;
    }
    files.sort();
    let mut tests = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let name = file.strip_prefix(workspace).unwrap_or(&file).display().to_string();
        tests.extend(scan::tests(&name, &source).with_context(|| name.clone())?);
    }
    Ok(tests)
}

fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
