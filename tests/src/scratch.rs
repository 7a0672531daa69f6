//! Names that carry their maker's pid, scratch directories, private bpffs mounts, and the sweep of what a killed run left.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait::wait_until;

/// A number that no other call in this process gets.
pub fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// `lbha-<pid>-<number>-<role>`
pub fn unique_name(number: u32, role: &str) -> String {
    format!("lbha-{}-{number}-{role}", process::id())
}

/// A directory under the system's temporary one, removed with everything in it on drop.
#[derive(Debug)]
pub struct ScratchDir {
    path: PathBuf,
}

impl ScratchDir {
    pub fn new(role: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(unique_name(next_number(), role));
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the subdirectory `bpf` and mounts a bpffs of its own there: pins in it meet no other pins, and go with it.
    pub fn mount_bpffs(&self) -> Result<PathBuf> {
        let target = self.path.join(BPFFS);
        fs::create_dir(&target).with_context(|| format!("create {}", target.display()))?;
        mount(Some("bpf"), &target, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount a bpffs on {}", target.display()))?;
        Ok(target)
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        remove_dir(&self.path);
    }
}

/// Whether [`sweep`] removes what `--keep` left running on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    Remove,
    Spare,
}

/// Marks what this process made as left behind on purpose, until a sweep with [`Kept::Remove`].
pub fn keep() -> Result<()> {
    fs::write(keep_marker(process::id()), "").context("mark this run as kept")
}

/// Removes the namespaces, processes and directories of makers that are gone; says what it removed.
///
/// A maker is gone when no process has its pid. The processes ended are those inside its namespaces, by their pids.
pub fn sweep(kept: Kept) -> Vec<String> {
    let gone = |name: &str| {
        let maker = maker_of(name)?;
        if Path::new("/proc").join(maker.to_string()).exists() {
            return None;
        }
        match kept {
            Kept::Spare if keep_marker(maker).exists() => None,
            _ => Some(maker),
        }
    };
    let mut makers = BTreeSet::new();
    let mut removed = Vec::new();
    for name in names_in(Path::new(NETNS_DIR)) {
        let Some(maker) = gone(&name) else { continue };
        end_processes_in(&name);
        // Another run may be sweeping too: what is gone already is fine.
        let _ = Command::new("ip").args(["netns", "del", &name]).output();
        makers.insert(maker);
        removed.push(format!("namespace {name}"));
    }
    let temp = std::env::temp_dir();
    for name in names_in(&temp) {
        let Some(maker) = gone(&name) else { continue };
        if name == marker_name(maker) {
            makers.insert(maker);
            continue;
        }
        remove_dir(&temp.join(&name));
        makers.insert(maker);
        removed.push(format!("directory {}", temp.join(&name).display()));
    }
    for maker in makers {
        let _ = fs::remove_file(keep_marker(maker));
    }
    removed
}

/// Where `ip netns` keeps its namespaces.
pub const NETNS_DIR: &str = "/run/netns";

/// Ends every process inside a namespace of ours: politely, then not.
fn end_processes_in(name: &str) {
    let Ok(namespace) = fs::metadata(Path::new(NETNS_DIR).join(name)) else { return };
    let inside = || {
        names_in(Path::new("/proc")).into_iter().filter_map(|entry| {
            let pid: i32 = entry.parse().ok()?;
            let of = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
            ((of.dev(), of.ino()) == (namespace.dev(), namespace.ino())).then_some(pid)
        })
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for pid in inside() {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        let what = format!("the processes in {name} ended");
        if wait_until(Duration::from_secs(3), &what, || inside().next().is_none()).is_ok() {
            return;
        }
    }
}

fn remove_dir(path: &Path) {
    // The bpffs first: removing its files one by one is slower, and the mount point would be busy.
    let _ = umount2(&path.join(BPFFS), MntFlags::MNT_DETACH);
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {error}", path.display());
    }
}

/// The pid in `lbha-<pid>-…`
fn maker_of(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix("lbha-")?.split_once('-')?;
    if rest.is_empty() { None } else { pid.parse().ok() }
}

fn marker_name(maker: u32) -> String {
    format!("lbha-{maker}-kept")
}

fn keep_marker(maker: u32) -> PathBuf {
    std::env::temp_dir().join(marker_name(maker))
}

fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

const BPFFS: &str = "bpf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_maker_back() {
        assert_eq!(maker_of(&unique_name(3, "web1")), Some(process::id()));
    }

    #[test]
    fn names_that_are_not_ours_have_no_maker() {
        for name in ["lbha", "lbha-", "lbha-12", "lbha-12-", "lbha-x-1-lb", "other-12-1-lb"] {
            assert_eq!(maker_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_scratch_directory_goes_with_its_content() {
        let dir = ScratchDir::new("scratch").unwrap();
        let path = dir.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(dir);
        assert!(!path.exists());
    }
}
