//! Builds the XDP object: runs the cargo of an eBPF toolchain on `lbha-ebpf` and hands out the file.
//!
//! Standard library only: `cargo xtask` uses this file as a module, and so does `lbha/build.rs`,
//! through `#[path]`, so that both build the same object in the same way.

#[path = "ebpf/find.rs"]
mod find;

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt, fs};

pub use find::{
    Found, LINKER_VERSION, Missing, OLDEST_RUSTC, Origin, PINNED_NIGHTLY, Toolchain, facts, find,
    search_path,
};

/// The file to use instead of building one.
pub const OBJECT_VAR: &str = "LBHA_EBPF_OBJECT";

/// Where a build's messages go.
pub enum Output<'a> {
    /// To this process's own terminal: cargo's progress bar stays visible.
    Inherit,
    /// Line by line to a callback, for a build script, whose output cargo swallows.
    Lines(&'a mut dyn FnMut(&str)),
}

impl Output<'_> {
    fn line(&mut self, line: &str) {
        match self {
            Self::Inherit => eprintln!("{line}"),
            Self::Lines(callback) => callback(line),
        }
    }
}

/// Builds the object with these features of `lbha-ebpf` and returns the path of a copy of it.
///
/// The copy appears whole or not at all, and a failed build leaves none behind, so that nobody
/// ever loads the object of sources that no longer compile.
pub fn build_object(
    workspace: &Path,
    features: &[&str],
    output: &mut Output<'_>,
) -> Result<PathBuf, Error> {
    let target_dir = target_dir(workspace, features);
    let object = target_dir.join("lbha-ebpf.o");
    let built = find()
        .map_err(Error::Toolchain)
        .and_then(|toolchain| compile(&toolchain, workspace, features, &target_dir, output));
    match built {
        Ok(built) => {
            copy_whole(&built, &object).map_err(|source| Error::Copy { to: object.clone(), source })
        }
        Err(error) => {
            // Nothing to say about a file that was not there.
            let _ = fs::remove_file(&object);
            Err(error)
        }
    }?;
    Ok(object)
}

/// The target triple of an object for the machine that lbha is built for.
pub fn target() -> &'static str {
    // Set in a build script, where the machine built for need not be this one.
    let big = match env::var("CARGO_CFG_TARGET_ENDIAN") {
        Ok(endian) => endian == "big",
        Err(_) => cfg!(target_endian = "big"),
    };
    if big { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}

/// Own directories, for two reasons: a cargo inside a cargo that shared its target directory would
/// wait for its lock forever, and each set of features keeps its own build.
pub fn target_dir(workspace: &Path, features: &[&str]) -> PathBuf {
    let mut name = OsString::from("ebpf");
    for feature in features {
        name.push("-");
        name.push(feature);
    }
    workspace.join("target").join(name)
}

/// A cargo command line of the eBPF toolchain, with the environment that makes it build for BPF.
pub fn cargo(toolchain: &Toolchain, workspace: &Path, verb: &str, target_dir: &Path) -> Command {
    let mut command = Command::new(&toolchain.rust.cargo);
    command.current_dir(workspace);
    for (name, _) in env::vars_os().filter(|(name, _)| is_of_outer_cargo(name)) {
        command.env_remove(name);
    }
    command.arg(verb).args(["--release", "--package", "lbha-ebpf", "--target", target()]);
    command.args(["-Z", "build-std=core", "--target-dir"]).arg(target_dir);
    command.env("RUSTC", &toolchain.rust.rustc);
    // Empty means none, also where a configuration file names one.
    command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
    command.env("CARGO_ENCODED_RUSTFLAGS", rustflags().join("\x1f"));
    if toolchain.needs_bootstrap() {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command.env("PATH", search_path([&toolchain.linker.path, &toolchain.rust.rustc]));
    // Also because the outer cargo put the libraries of another rustc there.
    command.env("LD_LIBRARY_PATH", toolchain.library_path());
    command
}

fn compile(
    toolchain: &Toolchain,
    workspace: &Path,
    features: &[&str],
    target_dir: &Path,
    output: &mut Output<'_>,
) -> Result<PathBuf, Error> {
    let release = target_dir.join(target()).join("release");
    relink_with_another_linker(toolchain, &release, target_dir);
    output.line(&format!("eBPF toolchain: {toolchain}"));

    let mut command = cargo(toolchain, workspace, "build", target_dir);
    if !features.is_empty() {
        command.args(["--features", &features.join(",")]);
    }
    let status = match output {
        Output::Inherit => command.status(),
        Output::Lines(callback) => run_with_lines(&mut command, callback),
    };
    match status {
        Ok(status) if status.success() => Ok(release.join("lbha-ebpf")),
        Ok(_) => Err(Error::Build),
        Err(source) => Err(Error::Start { program: toolchain.rust.cargo.clone(), source }),
    }
}

fn run_with_lines(
    command: &mut Command,
    callback: &mut dyn FnMut(&str),
) -> io::Result<std::process::ExitStatus> {
    // Cargo writes everything that concerns us to standard error.
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            callback(&String::from_utf8_lossy(&line?));
        }
    }
    child.wait()
}

/// Cargo does not know that the linker is an input: forget what another one linked.
fn relink_with_another_linker(toolchain: &Toolchain, release: &Path, target_dir: &Path) {
    let stamp = target_dir.join("linker");
    let linker = format!("{:?}", toolchain.linker);
    if fs::read_to_string(&stamp).is_ok_and(|before| before == linker) {
        return;
    }
    let outputs = fs::read_dir(release.join("deps")).into_iter().flatten().flatten();
    for output in outputs.filter(|file| file.file_name().as_encoded_bytes().starts_with(b"lbha_")) {
        let _ = fs::remove_file(output.path());
    }
    // Without the stamp the next build links once more than it needs to: no harm.
    let _ = fs::create_dir_all(target_dir).and_then(|()| fs::write(&stamp, linker));
}

fn rustflags() -> [String; 5] {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
    // aya-ebpf knows one name for all RISC-V flavours.
    let arch = if arch.starts_with("riscv64") { "riscv64" } else { &arch };
    [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        // The maps' types are taken from the debug information.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // bpf-linker's default turns every memset into a call of a byte loop, which costs time on each new
        // connection and multiplies the verifier's work by two.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        // 32-bit subregisters and all conditional jumps; every kernel since 5.1 has them.
        "-Ctarget-cpu=v3".to_owned(),
    ]
}

/// Whether a variable was set by (or meant for) the cargo, rustup or clippy that runs us, and would
/// make the inner cargo build something else.
fn is_of_outer_cargo(name: &OsStr) -> bool {
    const EXACT: &[&str] = &[
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "CARGO_MAKEFLAGS",
        "CARGO_PRIMARY_PACKAGE",
        "CLIPPY_ARGS",
        "DEBUG",
        "HOST",
        "LBHA_EBPF_OBJECT",
        "LBHA_EBPF_TOOLCHAIN",
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTC_LINKER",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "RUSTUP_TOOLCHAIN_SOURCE",
        "RUST_RECURSION_COUNT",
        "TARGET",
    ];
    const PREFIXES: &[&str] = &[
        "CARGO_BUILD_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_UNSTABLE_",
        "DEP_",
    ];
    let Some(name) = name.to_str() else { return false };
    EXACT.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Copies beside the destination first, so that a reader sees the old file or the new one.
pub fn copy_whole(from: &Path, to: &Path) -> io::Result<()> {
    let mut beside = to.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    fs::copy(from, &beside)?;
    fs::rename(&beside, to)
}

/// Why there is no object.
#[derive(Debug)]
pub enum Error {
    Toolchain(Missing),
    Start { program: PathBuf, source: io::Error },
    Build,
    Copy { to: PathBuf, source: io::Error },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toolchain(missing) => missing.fmt(f),
            Self::Start { program, .. } => write!(f, "cannot run {}", program.display()),
            Self::Build => {
                write!(f, "lbha-ebpf does not build: the compiler's messages say why")
            }
            Self::Copy { to, .. } => write!(f, "cannot write {}", to.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Toolchain(_) | Self::Build => None,
            Self::Start { source, .. } | Self::Copy { source, .. } => Some(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_cargos_variables_are_removed_and_the_users_are_kept() {
        for name in ["CARGO", "RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_PKG_NAME", "RUSTUP_TOOLCHAIN"]
        {
            assert!(is_of_outer_cargo(OsStr::new(name)), "{name}");
        }
        for name in
            ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_NET_OFFLINE", "HTTPS_PROXY"]
        {
            assert!(!is_of_outer_cargo(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn each_set_of_features_has_its_own_target_directory() {
        let workspace = Path::new("/w");
        assert_eq!(target_dir(workspace, &[]), Path::new("/w/target/ebpf"));
        assert_eq!(target_dir(workspace, &["bench"]), Path::new("/w/target/ebpf-bench"));
    }

    #[test]
    fn a_copy_replaces_what_was_there_and_leaves_nothing_beside_it() {
        let directory = env::temp_dir().join(format!("lbha-copy-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (from, to) = (directory.join("from"), directory.join("to"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        copy_whole(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "new");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
        fs::remove_dir_all(&directory).unwrap();
    }
}
