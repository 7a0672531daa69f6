//! The pins: one directory a layout version, one list of names, and the lock that keeps two daemons apart.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use lbha_common::ABI_VERSION;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs,
};

/// Every pinned map. Not pinned: the limiter of ICMP errors, the clock, and aya-log's ring.
pub const MAPS: &[&str] = &[
    "FLOWS4",
    "FLOWS6",
    "HALF_OPEN4",
    "HALF_OPEN6",
    "SERVICES4",
    "SERVICES6",
    "SERVERS4",
    "SERVERS6",
    "ADDRESSES4",
    "ADDRESSES6",
    "SLOTS",
    "TURNS",
    "BACKENDS4",
    "BACKENDS6",
    "NEXT_HOPS4",
    "NEXT_HOPS6",
    "ROUTES4",
    "ROUTES6",
    "MASQUERADE4",
    "MASQUERADE6",
    "RULES4",
    "RULES6",
    "BINDINGS4",
    "BINDINGS6",
    "BEGUN4",
    "BEGUN6",
    "COUNTED4",
    "COUNTED6",
    "FRAGMENTS4",
    "FRAGMENTS6",
    "HELD",
    "ERROR_SOURCES4",
    "ERROR_SOURCES6",
    "DEVICES",
    "DEVICES_MB",
    // A program array without a pin or another user's handle loses its entries.
    "TAILS",
    "TAILS_MB",
    // While programs are replaced one by one, an old one may leave something there for a new one.
    "WORKSPACE4",
    "WORKSPACE6",
    "SCRATCH",
    "INTERFACES",
    "SETTINGS",
    "INTERFACE_STATS",
    "BACKEND_STATS",
    "EVENTS",
];

#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("{path} is not on a BPF filesystem: {advice}")]
    NotBpffs { path: PathBuf, advice: String },
    #[error(
        "{path} has a dot in a name, which a BPF filesystem does not take: choose another --bpffs"
    )]
    Dot { path: PathBuf },
    #[error("cannot create {path}")]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot remove {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("another lbha holds {path}{holder}")]
    Held { path: PathBuf, holder: String },
    #[error("cannot lock {path}")]
    Lock { path: PathBuf, source: io::Error },
}

/// The directory of one daemon's pins, locked for as long as this lives.
#[derive(Debug)]
pub struct Pins {
    /// As configured; other layout versions stand beside ours.
    base: PathBuf,
    root: PathBuf,
    /// The lock is on the directory itself, so that it holds for whatever runtime directory the other daemon has.
    _lock: Flock<File>,
}

impl Pins {
    /// Creates what is missing and takes the lock.
    pub fn open(base: &Path) -> Result<Self, PinError> {
        let base = base.to_path_buf();
        let existing = base.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        check_filesystem(&base, existing)?;
        let root = base.join(format!("v{ABI_VERSION}"));
        for directory in [root.join("maps"), root.join("links")] {
            // For nobody else: who can open the directory can take its lock.
            let created = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            created.map_err(|source| {
                let new = base.strip_prefix(existing).unwrap_or(&base);
                if new.to_string_lossy().contains('.') {
                    PinError::Dot { path: base.clone() }
                } else {
                    PinError::Create { path: directory, source }
                }
            })?;
        }
        let lock = lock(&root)?;
        Ok(Self { base, root, _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn map(&self, name: &str) -> PathBuf {
        map_path(&self.root, name)
    }

    /// The pin of the link on an interface. The index is in the name because a link does not tell it.
    pub fn link(&self, side: &str, ifindex: u32) -> PathBuf {
        self.root.join("links").join(format!("{side}-{ifindex}"))
    }

    /// All pinned links.
    pub fn links(&self) -> Result<Vec<PathBuf>, PinError> {
        let path = self.root.join("links");
        let read = |source| PinError::Read { path: path.clone(), source };
        let mut links = Vec::new();
        for entry in fs::read_dir(&path).map_err(read)? {
            links.push(entry.map_err(read)?.path());
        }
        links.sort();
        Ok(links)
    }

    /// Maps that a daemon before this one has left.
    pub fn pinned_maps(&self) -> usize {
        MAPS.iter().filter(|name| self.map(name).exists()).count()
    }

    /// Other layout versions' directories: what an upgrade across a layout change leaves behind.
    pub fn other_versions(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.base) else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| *path != self.root && is_version(path) && path.join("links").is_dir())
            .collect()
    }

    /// Removes every pin, links first, and the directories. Traffic goes to the kernel from here on.
    pub fn remove_all(self) -> Result<(), PinError> {
        remove_version(&self.root)?;
        // Another version's directory may stand beside ours.
        let _ = fs::remove_dir(&self.base);
        Ok(())
    }
}

/// Whether a directory is named as ours are, and not some other program's.
fn is_version(path: &Path) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix('v'));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Path of a map's pin below the directory of a layout version.
pub fn map_path(root: &Path, name: &str) -> PathBuf {
    root.join("maps").join(name)
}

/// Removes the pins of one layout version; a link without a pin and without a holder detaches.
pub fn remove_version(root: &Path) -> Result<(), PinError> {
    for directory in ["links", "maps"] {
        let directory = root.join(directory);
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            fs::remove_file(&path).map_err(|source| PinError::Remove { path, source })?;
        }
        fs::remove_dir(&directory)
            .map_err(|source| PinError::Remove { path: directory, source })?;
    }
    fs::remove_dir(root).map_err(|source| PinError::Remove { path: root.to_path_buf(), source })
}

fn check_filesystem(base: &Path, existing: &Path) -> Result<(), PinError> {
    let on_bpffs = |path: &Path| {
        statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type() == statfs::BPF_FS_MAGIC)
    };
    if on_bpffs(existing) {
        return Ok(());
    }
    let standard = Path::new("/sys/fs/bpf");
    if base.starts_with(standard) {
        // systemd mounts it; a bare machine or a container may not have. Mounting it is what everybody would do next.
        let mounted = nix::mount::mount(
            Some("bpf"),
            standard,
            Some("bpf"),
            nix::mount::MsFlags::MS_NOSUID
                | nix::mount::MsFlags::MS_NODEV
                | nix::mount::MsFlags::MS_NOEXEC,
            Some("mode=0700"),
        );
        if mounted.is_ok() && on_bpffs(standard) {
            tracing::info!(path = %standard.display(), "mounted a BPF filesystem");
            return Ok(());
        }
    }
    let advice = if base.starts_with(standard) {
        format!("mount one: mount -t bpf bpf {}", standard.display())
    } else if !existing.is_dir() {
        format!("{} is a file", existing.display())
    } else {
        // On a directory of its own: mounted on one that is in use, it would hide what is there.
        let base = base.display();
        format!("mount one there: mkdir -p {base} && mount -t bpf bpf {base}")
    };
    Err(PinError::NotBpffs { path: base.to_path_buf(), advice })
}

/// Keeps daemons from a directory; an error if one has it.
pub fn lock(root: &Path) -> Result<Flock<File>, PinError> {
    let directory =
        File::open(root).map_err(|source| PinError::Lock { path: root.to_path_buf(), source })?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(directory, error)| {
        if error == nix::errno::Errno::EWOULDBLOCK {
            let holder = directory.metadata().ok().and_then(|meta| holder(meta.dev(), meta.ino()));
            let holder = holder.map(|holder| format!(": {holder}")).unwrap_or_default();
            PinError::Held { path: root.to_path_buf(), holder }
        } else {
            PinError::Lock { path: root.to_path_buf(), source: error.into() }
        }
    })
}

/// Who holds the lock on an inode, from `/proc/locks`.
fn holder(device: u64, inode: u64) -> Option<String> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = find_holder(&locks, device, inode)?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command: Vec<_> = command
        .split(|&b| b == 0)
        .filter(|arg| !arg.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    Some(format!("process {pid} ({})", command.join(" ")))
}

/// Lines look like `1: FLOCK  ADVISORY  WRITE 4711 00:1d:23 0 EOF`.
fn find_holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let wanted = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = fields[..] else { return None };
        (file == wanted).then(|| pid.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:1a:23 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fe:00:23 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 4711 00:1d:23 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 13 00:1d:23 0 EOF\n";
        let device = nix::sys::stat::makedev(0, 0x1d);
        assert_eq!(find_holder(locks, device, 23), Some(4711));
        assert_eq!(find_holder(locks, device, 3), None);
    }

    #[test]
    fn versions_are_told_from_other_programs() {
        assert!(is_version(Path::new("/sys/fs/bpf/lbha/v12")));
        for other in ["/sys/fs/bpf/cilium", "/sys/fs/bpf/v", "/sys/fs/bpf/v1a", "/sys/fs/bpf/12"] {
            assert!(!is_version(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn a_directory_elsewhere_is_refused_with_the_command_that_helps() {
        let error = |base, existing| {
            check_filesystem(Path::new(base), Path::new(existing)).unwrap_err().to_string()
        };
        assert_eq!(
            error("/tmp/lbha", "/tmp"),
            "/tmp/lbha is not on a BPF filesystem: mount one there: \
             mkdir -p /tmp/lbha && mount -t bpf bpf /tmp/lbha"
        );
        assert_eq!(
            error("/dev/null/lbha", "/dev/null"),
            "/dev/null/lbha is not on a BPF filesystem: /dev/null is a file"
        );
    }
}
