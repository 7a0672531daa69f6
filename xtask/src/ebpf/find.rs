//! Finds a Rust toolchain and a bpf-linker that can build the XDP object.
//!
//! The BPF targets have no prebuilt `core`, so it takes a rustc with its own library sources, a way
//! to pass `-Z build-std` to it, and a bpf-linker that speaks the bitcode of that rustc's LLVM.
//! [`facts`] looks at the machine, [`choose`] decides over what it found and touches nothing.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{env, fmt, fs};

/// A rustup toolchain's name or the prefix of an installation, to use instead of searching.
pub const TOOLCHAIN_VAR: &str = "LBHA_EBPF_TOOLCHAIN";
/// The nightly that is set up where rustup can download: rustc 1.97 with LLVM 22.1.
pub const PINNED_NIGHTLY: &str = "nightly-2026-05-19";
pub const LINKER_VERSION: &str = "0.10.3";
/// What bpf-linker 0.10 is built for by default, and so what rustc has to produce.
pub const LLVM_MAJOR: u32 = 22;
/// `rust-version` in Cargo.toml.
pub const OLDEST_RUSTC: (u32, u32) = (1, 95);
const LINKER_SERIES: &str = "0.10.";

/// What was found on the machine.
#[derive(Debug, Default)]
pub struct Facts {
    /// The value of [`TOOLCHAIN_VAR`]; `rusts` then holds nothing else.
    pub asked: Option<String>,
    /// In order of preference.
    pub rusts: Vec<Found>,
    pub linkers: Vec<Linker>,
}

/// A Rust installation, good or not.
#[derive(Debug, Clone)]
pub struct Found {
    pub rust: Rust,
    pub has_sources: bool,
    /// What `rustc -vV` said; not asked where there are no sources.
    pub version: Option<Version>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rust {
    pub origin: Origin,
    pub prefix: PathBuf,
    pub rustc: PathBuf,
    pub cargo: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Installed by rustup under this name.
    Rustup(String),
    /// Installed by the distribution's package manager.
    Packages,
    /// Named by [`TOOLCHAIN_VAR`].
    Asked,
}

/// The part of `rustc -vV` that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub release: String,
    pub llvm: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linker {
    pub path: PathBuf,
    pub version: String,
    pub changed: Option<SystemTime>,
}

/// A pair that builds the object.
#[derive(Debug, Clone)]
pub struct Toolchain {
    pub rust: Rust,
    pub version: Version,
    pub linker: Linker,
}

impl Toolchain {
    /// Whether rustc takes unstable options only when it is told that it bootstraps itself.
    pub fn needs_bootstrap(&self) -> bool {
        !self.version.release.contains("nightly")
    }

    /// Where its LLVM may be: a bpf-linker that is built with its default features brings none,
    /// and takes the first that it finds on `LD_LIBRARY_PATH`.
    pub fn library_path(&self) -> OsString {
        let llvm = format!("lib/llvm-{LLVM_MAJOR}/lib");
        let directories = [llvm.as_str(), "lib64", "lib"].map(|name| self.rust.prefix.join(name));
        // Fails only for a directory with a colon in its name, where nothing else would work either.
        env::join_paths(directories.iter().filter(|path| path.is_dir())).unwrap_or_default()
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rust, version, linker } = self;
        match &rust.origin {
            Origin::Rustup(name) => write!(f, "rustup's {name}, ")?,
            Origin::Packages => write!(f, "the distribution's ")?,
            Origin::Asked => write!(f, "{TOOLCHAIN_VAR}'s ")?,
        }
        write!(
            f,
            "rustc {} (LLVM {}) at {}; ",
            version.release,
            version.llvm,
            rust.prefix.display()
        )?;
        write!(f, "bpf-linker {} at {}", linker.version, linker.path.display())
    }
}

/// Looks at this machine and chooses.
pub fn find() -> Result<Toolchain, Missing> {
    choose(facts())
}

/// The first usable installation and the first usable linker, or everything that was looked at.
pub fn choose(facts: Facts) -> Result<Toolchain, Missing> {
    let rust = facts.rusts.iter().find(|found| found.is_usable());
    let linker = facts.linkers.iter().find(|linker| linker.is_usable());
    match (rust, linker) {
        (Some(Found { rust, version: Some(version), .. }), Some(linker)) => {
            Ok(Toolchain { rust: rust.clone(), version: version.clone(), linker: linker.clone() })
        }
        _ => Err(Missing { facts }),
    }
}

impl Found {
    pub fn is_usable(&self) -> bool {
        self.fault().is_none()
    }

    /// Why it cannot build the object.
    fn fault(&self) -> Option<String> {
        if !self.has_sources {
            return Some("has no rust-src".to_owned());
        }
        let Some(version) = &self.version else {
            return Some("its rustc does not run".to_owned());
        };
        if version.release_number() < OLDEST_RUSTC {
            let (major, minor) = OLDEST_RUSTC;
            return Some(format!("rustc {} is older than {major}.{minor}", version.release));
        }
        if version.llvm_major() != Some(LLVM_MAJOR) {
            return Some(format!("has LLVM {}, not {LLVM_MAJOR}", version.llvm));
        }
        None
    }
}

impl Linker {
    fn is_usable(&self) -> bool {
        self.version.starts_with(LINKER_SERIES)
    }
}

impl Version {
    /// From the output of `rustc -vV`.
    pub fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        Some(Self { release: field("release:")?, llvm: field("LLVM version:")? })
    }

    fn release_number(&self) -> (u32, u32) {
        let mut numbers = self.release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    fn llvm_major(&self) -> Option<u32> {
        self.llvm.split('.').next()?.parse().ok()
    }
}

/// Looks at the environment and the disk, and asks what it finds for its version.
pub fn facts() -> Facts {
    let asked = env::var(TOOLCHAIN_VAR).ok().filter(|name| !name.is_empty());
    let rusts = match &asked {
        Some(name) => vec![asked_for(name)],
        None => rustup_toolchains().into_iter().chain(distribution_rusts()).collect(),
    };
    Facts { asked, rusts: rusts.into_iter().map(Rust::look).collect(), linkers: linkers() }
}

impl Rust {
    fn at(origin: Origin, prefix: PathBuf) -> Self {
        let program = |name| prefix.join("bin").join(name);
        Self { origin, rustc: program("rustc"), cargo: program("cargo"), prefix }
    }

    /// Its clippy, whether or not it is there.
    pub fn cargo_clippy(&self) -> PathBuf {
        self.prefix.join("bin/cargo-clippy")
    }

    fn look(self) -> Found {
        let has_sources = self.prefix.join("lib/rustlib/src/rust/library/core").is_dir();
        // Not asked for nothing: starting a rustc takes long enough to notice.
        let version = has_sources
            .then(|| output_of(&self.rustc, &["-vV"]))
            .flatten()
            .and_then(|text| Version::parse(&text));
        Found { rust: self, has_sources, version }
    }
}

/// A path is a prefix (or a rustc's sysroot); anything else is a name that rustup knows.
fn asked_for(name: &str) -> Rust {
    if name.contains('/') {
        return Rust::at(Origin::Asked, PathBuf::from(name));
    }
    let toolchains = rustup_toolchains();
    let is_it =
        |origin: &Origin| matches!(origin, Origin::Rustup(full) if is_toolchain(full, name));
    toolchains
        .into_iter()
        .find(|rust| is_it(&rust.origin))
        .unwrap_or_else(|| Rust::at(Origin::Asked, rustup_home().join("toolchains").join(name)))
}

/// Whether a full name such as `nightly-x86_64-unknown-linux-gnu` is what a short one stands for.
fn is_toolchain(full: &str, name: &str) -> bool {
    let host = full.strip_prefix(name).map(|rest| rest.split('-').count());
    // Nothing, or a dash and a triple of four words.
    full == name || host == Some(5)
}

fn rustup_toolchains() -> Vec<Rust> {
    let directories = fs::read_dir(rustup_home().join("toolchains"));
    let mut toolchains: Vec<(String, PathBuf)> = directories
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    // The pinned one first; then by name, so that the choice does not depend on the disk's order.
    toolchains.sort_by_key(|(name, _)| (!is_toolchain(name, PINNED_NIGHTLY), name.clone()));
    // The same one may be there under two names.
    let mut seen = HashSet::new();
    toolchains.retain(|(_, path)| seen.insert(path.canonicalize().unwrap_or(path.clone())));
    toolchains.into_iter().map(|(name, path)| Rust::at(Origin::Rustup(name), path)).collect()
}

/// `/usr`, and the side-by-side versions that Ubuntu packages.
fn distribution_rusts() -> Vec<Rust> {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"rust-"))
        .map(|entry| entry.path())
        .collect();
    versions.sort();
    let prefixes = std::iter::once(PathBuf::from("/usr")).chain(versions.into_iter().rev());
    let rusts = prefixes.map(|prefix| Rust::at(Origin::Packages, prefix));
    rusts.filter(|rust| rust.rustc.is_file() && rust.cargo.is_file()).collect()
}

fn linkers() -> Vec<Linker> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut seen = HashSet::new();
    env::split_paths(&path)
        .chain([cargo_home().join("bin")])
        .map(|directory| directory.join("bpf-linker"))
        .filter(|path| path.is_file() && seen.insert(path.clone()))
        .map(|path| Linker {
            version: output_of(&path, &["--version"])
                .and_then(|text| Some(text.split_whitespace().nth(1)?.to_owned()))
                .unwrap_or_else(|| "that does not run".to_owned()),
            changed: fs::metadata(&path).and_then(|data| data.modified()).ok(),
            path,
        })
        .collect()
}

/// `PATH` with the directories of these programs in front.
pub fn search_path<'a>(programs: impl IntoIterator<Item = &'a PathBuf>) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let first = programs.into_iter().filter_map(|program| program.parent().map(Path::to_owned));
    let all: Vec<PathBuf> = first.chain(env::split_paths(&path)).collect();
    // Fails only for a directory with a colon in its name, which PATH cannot hold anyway.
    env::join_paths(all).unwrap_or(path)
}

fn output_of(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn rustup_home() -> PathBuf {
    env::var_os("RUSTUP_HOME").map_or_else(|| home().join(".rustup"), PathBuf::from)
}

pub fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from)
}

fn home() -> PathBuf {
    env::home_dir().unwrap_or_default()
}

/// Nothing here builds the object: says what was looked at, and what would fix it.
#[derive(Debug)]
pub struct Missing {
    pub facts: Facts,
}

impl Missing {
    pub fn lacks_rust(&self) -> bool {
        !self.facts.rusts.iter().any(Found::is_usable)
    }

    pub fn lacks_linker(&self) -> bool {
        !self.facts.linkers.iter().any(Linker::is_usable)
    }
}

impl std::error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no toolchain here builds the XDP object. It takes:")?;
        let (major, minor) = OLDEST_RUSTC;
        let state = |lacks| if lacks { "MISSING" } else { "found" };
        writeln!(
            f,
            "  a rustc of LLVM {LLVM_MAJOR}, {major}.{minor} or later, with its rust-src: {}",
            state(self.lacks_rust())
        )?;
        for found in &self.facts.rusts {
            let fault = found.fault().unwrap_or_else(|| "good".to_owned());
            writeln!(f, "    {}: {fault}", found.rust.prefix.display())?;
        }
        match (&self.facts.asked, self.facts.rusts.is_empty()) {
            (Some(asked), _) => {
                writeln!(f, "    nothing else was looked at, because {TOOLCHAIN_VAR}={asked}")?;
            }
            (None, true) => {
                writeln!(
                    f,
                    "    rustup has no toolchain, and there is no rustc with cargo in /usr"
                )?;
            }
            (None, false) => {}
        }
        writeln!(f, "  bpf-linker {LINKER_SERIES}x: {}", state(self.lacks_linker()))?;
        for linker in &self.facts.linkers {
            writeln!(f, "    {}: is {}", linker.path.display(), linker.version)?;
        }
        if self.facts.linkers.is_empty() {
            writeln!(f, "    not on PATH and not in {}", cargo_home().join("bin").display())?;
        }
        f.write_str(&fix())
    }
}

/// The commands that get it, by where one is.
fn fix() -> String {
    let linker = format!("cargo install bpf-linker --version {LINKER_VERSION} --locked");
    format!(
        "\
To fix it, one of:
  Debian, Ubuntu   cargo xtask setup
  rustup           rustup toolchain install {PINNED_NIGHTLY} --component rust-src --profile minimal
                   {linker}
  Fedora           dnf install rust cargo rust-src llvm-devel
                   {linker} --no-default-features --features llvm-{LLVM_MAJOR}
  Arch             pacman -S rust rust-src bpf-linker
  another place    {TOOLCHAIN_VAR}=<a rustup toolchain, or the prefix of bin/rustc>
  another machine  LBHA_EBPF_OBJECT=<an lbha-ebpf.o that was built there>"
    )
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
