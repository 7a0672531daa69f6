//! `cargo xtask test`: runs the layers of tests in their order and ends with one summary.

mod shown;
mod tally;

use std::ffi::OsString;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, bail};

use crate::cargo::{self, Executable};
use crate::process::{Ended, Group, Supervisor};
use crate::setup::{self, Purpose};
use crate::terminal::Step;
use crate::{build_ebpf, limited, root};
use shown::Shown;
use tally::{Row, Tally, summary};

/// How long the output of a program that has ended may stay open.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Run the tests, or one layer of them, and end with a summary.
///
/// unit: pure logic, as you. prog: the XDP program through the kernel's test runner, as root.
/// netns: the real daemon in network namespaces, as root. Builds run as you, never as root. A test
/// that this machine cannot run says why and counts as skipped.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test
  cargo xtask test unit
  cargo xtask test netns -- failover           only tests with this in their name
  cargo xtask test prog -- --test-threads=1    anything that test programs understand")]
pub struct Arguments {
    /// This layer alone.
    layer: Option<Layer>,
    /// For the test programs: the part of a name, or options.
    #[arg(last = true, value_name = "FILTER")]
    filter: Vec<OsString>,
    /// Seconds after which a test program is ended.
    #[arg(long, default_value_t = 900)]
    time_limit: u64,
}

impl Arguments {
    /// Every layer, every test.
    pub fn all() -> Self {
        Self { layer: None, filter: Vec::new(), time_limit: 900 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Layer {
    Unit,
    Prog,
    Netns,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let layers = match arguments.layer {
        Some(layer) => vec![layer],
        None => vec![Layer::Unit, Layer::Prog, Layer::Netns],
    };
    let purposes: &[Purpose] = match layers[..] {
        [Layer::Unit] => &[Purpose::Building],
        _ => &[Purpose::Building, Purpose::Running],
    };
    setup::ensure(purposes)?;
    if arguments.layer.is_some_and(Layer::needs_root) && !root::is_reachable() {
        bail!("these tests need root, and there is no sudo here: run this as root");
    }

    // Everything is built before anything runs: a test run is for watching, a build is not.
    let object = match layers[..] {
        [Layer::Unit] => None,
        _ => Some(build_ebpf::build_or_given()?),
    };
    let mut suites = Vec::new();
    for layer in layers {
        suites.push((layer, layer.build(object.as_deref())?));
    }
    let mut runner = Runner {
        supervisor: Supervisor::start()?,
        limit: Duration::from_secs(arguments.time_limit),
        filter: &arguments.filter,
    };
    let mut rows = Vec::new();
    for (layer, suite) in suites {
        rows.push(runner.layer(layer, &suite)?);
        if runner.supervisor.interrupted() {
            break;
        }
    }
    print!("{}", summary(&rows));
    let filtered_out =
        !arguments.filter.is_empty() && rows.iter().all(|row| row.tally.total() == 0);
    if filtered_out {
        eprintln!("no test has such a name");
    }
    let interrupted = runner.supervisor.interrupted();
    if interrupted {
        eprintln!("interrupted: not everything has run");
    }
    let failed = rows.iter().any(|row| row.tally.failed() > 0);
    Ok(if failed || interrupted || filtered_out { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What one layer runs.
struct Suite {
    programs: Vec<Program>,
    environment: Vec<(&'static str, PathBuf)>,
}

struct Program {
    name: String,
    command: Command,
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Prog => "prog",
            Self::Netns => "netns",
        }
    }

    fn needs_root(self) -> bool {
        self != Self::Unit
    }

    /// Of a test target with this name.
    fn of(target: &str) -> Self {
        if target.starts_with("prog_") {
            Self::Prog
        } else if target.starts_with("netns_") || target.starts_with("net_") {
            Self::Netns
        } else {
            Self::Unit
        }
    }

    /// Shown as it happens where that is readable; where tests run side by side, after each.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Unit | Self::Prog => &["--show-output"],
            // One at a time: they share the machine's names and its few cores.
            Self::Netns => &["--nocapture", "--test-threads=1"],
        }
    }

    fn build(self, object: Option<&Path>) -> anyhow::Result<Suite> {
        let mut environment = Vec::new();
        if let Some(object) = object.filter(|_| self.needs_root()) {
            environment.push(("LBHA_EBPF_OBJECT", object.to_owned()));
        }
        if self == Self::Netns {
            let step = Step::start("lbha, as it ships");
            let arguments = ["--package", "lbha", "--bin", "lbha"];
            let [lbha] = cargo::build_binaries(&arguments, ["lbha"])?;
            step.done();
            environment.push(("LBHA_BIN", lbha));
        }
        let step = Step::start(format!("{} tests: build", self.name()));
        let mut executables = Vec::new();
        for arguments in self.selections()? {
            let mut command = cargo::command();
            command.args(["test", "--no-run"]).args(arguments);
            executables.extend(cargo::build(command)?);
        }
        step.done();
        // Building a test of a package also builds the package's programs.
        executables.retain(|executable| {
            executable.is_test
                && match executable.kind.as_str() {
                    "test" => Self::of(&executable.name) == self,
                    _ => self == Self::Unit,
                }
        });
        let mut programs: Vec<Program> =
            executables.into_iter().map(|executable| self.program(executable)).collect();
        if self == Self::Unit {
            programs.push(doc_tests());
        }
        Ok(Suite { programs, environment })
    }

    /// Arguments of `cargo test`, once for each selection that it takes.
    fn selections(self) -> anyhow::Result<Vec<Vec<String>>> {
        let words = |text: &str| text.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
        let mut selections = Vec::new();
        if self == Self::Unit {
            selections.push(words("--workspace --exclude lbha-ebpf --exclude lbha-tests"));
            selections.push(words("--package lbha-tests --lib --bins"));
        } else {
            for (package, directory) in [("lbha", "lbha/tests"), ("lbha-tests", "tests/tests")] {
                let mut selection = words(&format!("--package {package}"));
                for target in self.targets(directory)? {
                    selection.extend(["--test".to_owned(), target]);
                }
                // Without a target it would be every target.
                if selection.len() > 2 {
                    selections.push(selection);
                }
            }
        }
        Ok(selections)
    }

    /// The test targets of this layer among the files of a folder.
    fn targets(self, directory: &str) -> anyhow::Result<Vec<String>> {
        let directory = cargo::workspace().join(directory);
        let files = match fs::read_dir(&directory) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| directory.display().to_string())?,
        };
        let mut targets = Vec::new();
        for file in files {
            let name = file?.file_name().to_string_lossy().into_owned();
            if let Some(target) = name.strip_suffix(".rs")
                && Self::of(target) == self
            {
                targets.push(target.to_owned());
            }
        }
        targets.sort();
        Ok(targets)
    }

    /// As `cargo test` would run it.
    fn program(self, executable: Executable) -> Program {
        let mut command = Command::new(executable.path);
        command.args(self.arguments()).current_dir(&executable.package);
        command.env("CARGO_MANIFEST_DIR", &executable.package);
        let package = executable.package.file_name().unwrap_or_default().to_string_lossy();
        Program { name: format!("{package} {}", executable.name), command }
    }
}

fn doc_tests() -> Program {
    let mut command = cargo::command();
    command.args(["test", "--doc", "--workspace", "--exclude", "lbha-ebpf", "--"]);
    Program { name: "examples in the documentation".to_owned(), command }
}

struct Runner<'a> {
    supervisor: Supervisor,
    limit: Duration,
    filter: &'a [OsString],
}

impl Runner<'_> {
    fn layer(&mut self, layer: Layer, suite: &Suite) -> anyhow::Result<Row> {
        let began = Instant::now();
        let mut tally = Tally::default();
        if layer.needs_root() && !root::is_reachable() {
            tally.skip(format!("all {} tests: they need root, and there is no sudo", layer.name()));
            return Ok(Row { layer: layer.name(), tally, took: began.elapsed() });
        }
        for program in &suite.programs {
            eprintln!("== {}: {}", layer.name(), program.name);
            let mut command = limited::command(self.limit, &program.command)?;
            command.args(self.filter).envs(suite.environment.iter().cloned());
            if layer.needs_root() {
                command = root::command(command, "to load XDP programs")?;
            }
            let one = self.watch(command, &program.name)?;
            tally.add(one);
            if self.supervisor.interrupted() {
                break;
            }
        }
        Ok(Row { layer: layer.name(), tally, took: began.elapsed() })
    }

    /// Runs a test program, shows what it says as it says it, and counts.
    fn watch(&mut self, mut command: Command, name: &str) -> anyhow::Result<Tally> {
        // One pipe for both, so that the lines stay in their order.
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        command.stdin(Stdio::null());
        command.stdout(writer.try_clone().context("cannot make a pipe")?).stderr(writer);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (done, is_done) = mpsc::channel();
        let for_reader = Arc::clone(&tally);
        thread::spawn(move || {
            copy_and_count(reader, &for_reader);
            // Nobody waits for it any more: no harm.
            let _ = done.send(());
        });
        let ended = self.supervisor.run(command, Group::Ours, None)?;
        // A daemon that a test left behind may hold the pipe open; the test's own words are in it.
        let _ = is_done.recv_timeout(LAST_WORDS);
        let mut tally = std::mem::take(&mut *tally.lock().unwrap_or_else(|lock| lock.into_inner()));
        if let Some(fault) = self.fault(&ended, &tally) {
            eprintln!("{name}: {fault}");
            tally.fail(format!("{name}: {fault}"));
        }
        Ok(tally)
    }

    /// Why a program's own count is not the whole story.
    fn fault(&self, ended: &Ended, tally: &Tally) -> Option<String> {
        if ended.code() == limited::TIMED_OUT {
            Some(format!("ended after {} s without a result", self.limit.as_secs()))
        } else if self.supervisor.interrupted() {
            Some("interrupted".to_owned())
        } else if !ended.status.success() && tally.failed() == 0 {
            Some(format!("ended with exit code {} and no failed test", ended.code()))
        } else {
            None
        }
    }
}

/// Counts everything, and shows it: lines when they end, and the rest once nothing follows.
fn copy_and_count(mut reader: PipeReader, tally: &Mutex<Tally>) {
    let mut buffer = [0; 8192];
    let mut shown = Shown::default();
    let mut line = Vec::new();
    while let Ok(length @ 1..) = reader.read(&mut buffer) {
        let piece = &buffer[..length];
        if let Ok(mut tally) = tally.lock() {
            tally.feed(piece);
        }
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            line.extend_from_slice(part);
            // A test that runs alone is announced before it runs: who waits wants to see its name.
            let is_begun = line.starts_with(b"test ") && line.ends_with(b" ... ");
            if line.ends_with(b"\n") || is_begun {
                show(&mut shown, &line);
                line.clear();
            }
        }
    }
    show(&mut shown, &line);
}

fn show(shown: &mut Shown, line: &[u8]) {
    if shown.takes(String::from_utf8_lossy(line).trim_end_matches('\n')) {
        let mut out = io::stdout();
        // A closed terminal must not end the counting.
        let _ = out.write_all(line).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_of_a_test_is_in_its_files_name() {
        assert_eq!(Layer::of("prog_lb"), Layer::Prog);
        assert_eq!(Layer::of("netns_failover"), Layer::Netns);
        assert_eq!(Layer::of("net_links"), Layer::Netns);
        assert_eq!(Layer::of("cli"), Layer::Unit);
        assert_eq!(Layer::of("network"), Layer::Unit);
    }
}
