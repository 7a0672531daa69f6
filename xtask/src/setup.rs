//! `cargo xtask setup`: finds what is missing on this machine and installs it.

mod needs;
mod plan;

use std::io;
use std::io::IsTerminal as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

use crate::{cargo, ebpf, root, terminal};
use needs::Need;
use plan::{LLVM_PACKAGES, Machine, Plan, RUST_PACKAGES, Step};

/// Install what building, testing and measuring need.
///
/// On Debian and Ubuntu with apt-get (through sudo unless you are root), and rustup or cargo for the
/// rest; elsewhere it says which packages to install. Installed servers are not started. Does
/// nothing, at once, when nothing is missing; test, demo and bench begin with it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask setup
  cargo xtask setup --yes     do not ask, for scripts
  cargo xtask setup --check   only report; exit code 1 if something is missing")]
pub struct Arguments {
    /// Do not ask before installing.
    #[arg(long)]
    yes: bool,
    /// Install nothing; fail if something is missing.
    #[arg(long, conflicts_with = "yes")]
    check: bool,
}

/// What something is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Building,
    Linting,
    /// Tests as root, demo and benchmark.
    Running,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let all = [Purpose::Building, Purpose::Linting, Purpose::Running];
    let mut missing = needs::missing(&all);
    if !missing.is_empty() {
        report(&missing);
        if !arguments.check {
            missing = install(&missing, &all, arguments.yes)?;
        }
    }
    if let Ok(toolchain) = ebpf::find() {
        println!("eBPF toolchain: {toolchain}");
    }
    if missing.is_empty() {
        println!("nothing is missing");
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.check {
        eprintln!("to be done by `cargo xtask setup`:");
        print_plan(&plan::plan(&missing, &machine()));
    }
    Ok(ExitCode::FAILURE)
}

/// Set-up as the first step of another command: what cannot be built without ends it, what only
/// some tests use does not, because those say so and are skipped.
pub fn ensure(purposes: &[Purpose]) -> anyhow::Result<()> {
    let missing = needs::missing(purposes);
    if missing.is_empty() {
        return Ok(());
    }
    report(&missing);
    let still = install(&missing, purposes, false)?;
    if still.iter().any(|need| need.purpose != Purpose::Running) {
        if let Err(missing) = ebpf::find() {
            eprintln!("{missing}");
        }
        let names: Vec<_> = still.iter().map(|need| need.name).collect();
        bail!("this does not work without {}", names.join(", "));
    }
    Ok(())
}

fn report(missing: &[&Need]) {
    eprintln!("missing on this machine:");
    for Need { name, why, .. } in missing {
        eprintln!("  {name:<16} {why}");
    }
}

fn print_plan(plan: &Plan) {
    for step in &plan.steps {
        eprintln!("  {step}");
    }
    if !plan.out_of_reach.is_empty() {
        let of = |field: fn(&Need) -> &'static str| {
            let mut names: Vec<_> =
                plan.out_of_reach.iter().flat_map(|need| field(need).split_whitespace()).collect();
            names.sort_unstable();
            names.dedup();
            names.join(" ")
        };
        let names: Vec<_> = plan.out_of_reach.iter().map(|need| need.name).collect();
        eprintln!("  by yourself: {}; the packages are", names.join(", "));
        eprintln!("    Fedora  {}", of(|need| need.fedora));
        eprintln!("    Arch    {}", of(|need| need.arch));
        eprintln!("    and where a bpf-linker is not packaged:");
        eprintln!("      cargo {}", Step::linker_arguments(true).join(" "));
    }
}

/// Installs what it can and returns what is still missing.
fn install(
    missing: &[&'static Need],
    purposes: &[Purpose],
    yes: bool,
) -> anyhow::Result<Vec<&'static Need>> {
    let mut plan = plan::plan(missing, &machine());
    // Package lists may be old, or not there at all, and with them the plan.
    let has_apt = root::program("apt-get").is_some();
    let only_mount = plan.steps == [Step::MountBpffs] && plan.out_of_reach.is_empty();
    if has_apt && !only_mount {
        eprintln!("apt-get will look for new packages, and then (going by what it knows now):");
    } else {
        eprintln!("what to do about it:");
    }
    print_plan(&plan);
    if plan.steps.is_empty() && !has_apt {
        return Ok(missing.to_vec());
    }
    if !(yes || only_mount || terminal::confirm("Do that?")?) {
        return Ok(missing.to_vec());
    }
    if has_apt && !only_mount {
        let mut update = Command::new("apt-get");
        update.args(["-q", "update"]);
        if let Err(error) = execute(root::command(update, "to fetch the package lists")?) {
            eprintln!("{error:#}: going on with the lists that are here");
        }
        plan = plan::plan(missing, &machine());
    }
    for step in &plan.steps {
        let header = terminal::Step::start(step.to_string());
        take(step)?;
        header.done();
    }
    Ok(needs::missing(purposes))
}

fn take(step: &Step) -> anyhow::Result<()> {
    match step {
        Step::Packages(names) => {
            let mut command = Command::new("sh");
            command.args(["-c", INSTALL, "install"]).args(names);
            command.env("DEBIAN_FRONTEND", "noninteractive");
            if !io::stdin().is_terminal() {
                command.stdin(std::process::Stdio::null());
            }
            execute(root::command(command, "to install packages")?)
        }
        Step::Rustup(arguments) => {
            let mut command = Command::new("rustup");
            command.args(arguments);
            execute(command)
        }
        Step::Linker { system_llvm } => {
            let mut command = cargo::command();
            command.args(Step::linker_arguments(*system_llvm));
            // Its build must not land in, or be slowed down by, the settings for ours.
            command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
            if *system_llvm {
                // Both: its build script takes the library directory from the llvm-config on PATH.
                let llvm_config = "/usr/lib/llvm-22/bin/llvm-config".into();
                command.env("PATH", ebpf::search_path([&llvm_config]));
                command.env("LLVM_SYS_221_PREFIX", "/usr/lib/llvm-22");
            }
            execute(command)
        }
        Step::MountBpffs => {
            let mut command = Command::new("mount");
            command.args(["-t", "bpf", "bpf", "/sys/fs/bpf"]);
            execute(root::command(command, "to mount the BPF file system")?)
        }
    }
}

fn execute(mut command: Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("{program} failed: see above");
    }
    Ok(())
}

/// What there is to get things with, as far as the package lists know.
fn machine() -> Machine {
    let candidates = candidates();
    let has = |name: &str| candidates.iter().any(|(known, _)| known == name);
    let is_new = |name: &str| {
        candidates.iter().any(|(known, version)| known == name && is_new_rustc(version))
    };
    let rust_packages = RUST_PACKAGES
        .into_iter()
        .find(|names| is_new(names[0]) && names.iter().all(|name| has(name)));
    let rusts = ebpf::facts().rusts;
    let rustup_toolchain =
        rusts.into_iter().find(ebpf::Found::is_usable).and_then(|found| match found.rust.origin {
            ebpf::Origin::Rustup(name) => Some(name),
            ebpf::Origin::Packages | ebpf::Origin::Asked => None,
        });
    Machine {
        has_apt: root::program("apt-get").is_some(),
        has_rustup: root::program("rustup").is_some(),
        rust_packages,
        has_llvm: LLVM_PACKAGES.iter().all(|name| has(name)),
        rustup_toolchain,
    }
}

/// The names and versions that apt would install of the packages that decide the plan.
fn candidates() -> Vec<(String, String)> {
    let mut command = Command::new("apt-cache");
    command.arg("policy").args(RUST_PACKAGES.concat()).args(LLVM_PACKAGES).env("LC_ALL", "C");
    match command.output() {
        Ok(output) => parse_candidates(&String::from_utf8_lossy(&output.stdout)),
        Err(_) => Vec::new(),
    }
}

/// From the output of `apt-cache policy`.
fn parse_candidates(text: &str) -> Vec<(String, String)> {
    let mut name = "";
    let mut candidates = Vec::new();
    for line in text.lines() {
        if let Some(candidate) = line.trim_start().strip_prefix("Candidate: ") {
            if candidate != "(none)" {
                candidates.push((name.to_owned(), candidate.to_owned()));
            }
        } else if !line.starts_with(' ') {
            name = line.trim_end_matches(':');
        }
    }
    candidates
}

/// Whether a Debian version such as `1.96.0+dfsg1-1~deb12u2` is that of a rustc that will do.
fn is_new_rustc(version: &str) -> bool {
    let upstream = version.rsplit_once(':').map_or(version, |(_, rest)| rest);
    let mut numbers = upstream.split(['.', '+', '-', '~']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= ebpf::OLDEST_RUSTC
}

/// Installs the packages named by its arguments without starting or enabling the servers among
/// them: this machine is for testing them, not for serving. Nothing that is installed is removed.
const INSTALL: &str = r#"
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    echo "while apt-get runs, $policy keeps installed servers from being started" >&2
    trap 'rm -f $policy' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
servers=
for server in nginx haproxy; do
    command -v $server >/dev/null || servers="$servers $server"
done
apt-get -q -y -o Dpkg::Use-Pty=0 --no-install-recommends --no-remove install "$@"
for server in $servers; do
    if [ -d /run/systemd/system ] && command -v $server >/dev/null; then
        echo "$server is not to start with the machine either: systemctl enable $server undoes that" >&2
        systemctl --quiet disable $server || true
    fi
done
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read_from_what_apt_prints() {
        let text = "\
rustc-web:
  Installed: (none)
  Candidate: 1.96.0+dfsg1-1~deb12u2
  Version table:
     1.96.0+dfsg1-1~deb12u2 500
        500 https://example.org bookworm-security/main amd64 Packages
rustc:
  Installed: (none)
  Candidate: (none)
llvm-22-dev:
  Candidate: 1:22.1.8-1~deb12u1
";
        let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(
            parse_candidates(text),
            [
                pair("rustc-web", "1.96.0+dfsg1-1~deb12u2"),
                pair("llvm-22-dev", "1:22.1.8-1~deb12u1")
            ]
        );
    }

    #[test]
    fn old_packages_of_rustc_are_told_from_new_ones() {
        assert!(is_new_rustc("1.96.0+dfsg1-1~deb12u2"));
        assert!(is_new_rustc("1:1.95.0-1"));
        assert!(!is_new_rustc("1.63.0+dfsg1-2"));
        assert!(!is_new_rustc("1.85.0+dfsg3-1~deb12u3"));
        assert!(!is_new_rustc(""));
    }
}
