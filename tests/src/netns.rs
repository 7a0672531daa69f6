//! Network namespaces that vanish with their owner, with the processes that were started in them.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    net::{IpAddr, SocketAddr},
    os::unix::process::CommandExt as _,
    panic,
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, Once, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::{
    proc::{self, Proc, ProcRef},
    scratch::{Kept, NETNS_DIR, sweep, unique_name},
};

/// A named network namespace. Clones are the same namespace; the last one removes it.
///
/// Programs enter with `setns` and not with `ip netns exec`: that one mounts a fresh `/sys`, and bpffs would be hidden.
#[derive(Clone, Debug)]
pub struct Netns {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    file: File,
    processes: Mutex<Vec<ProcRef>>,
}

impl Netns {
    /// Makes the namespace `lbha-<pid>-<number>-<role>`, with its loopback up.
    pub fn new(number: u32, role: &str) -> Result<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| drop(sweep(Kept::Spare)));

        let name = unique_name(number, role);
        let mut add = Command::new("ip");
        add.args(["netns", "add", &name]);
        proc::checked(add, LIMIT)?;
        let path = Path::new(NETNS_DIR).join(&name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => {
                remove(&name);
                return Err(error).with_context(|| format!("open {}", path.display()));
            }
        };
        let namespace =
            Self { inner: Arc::new(Inner { name, file, processes: Mutex::new(Vec::new()) }) };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// As `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A command that will run inside. Start it with [`Netns::spawn`] if it is to outlive the call.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let file = self.inner.file.try_clone().context("duplicate the namespace's descriptor")?;
        let mut command = Command::new(program);
        let enter = move || setns(&file, CloneFlags::CLONE_NEWNET).map_err(Into::into);
        #[expect(unsafe_code, reason = "a program enters a namespace between fork and exec")]
        // SAFETY: the closure runs in the forked child; it makes one system call on a descriptor that it owns,
        // and neither allocates nor locks.
        unsafe {
            command.pre_exec(enter);
        }
        Ok(command)
    }

    /// Runs a program inside to its end and gives its stdout; a failure or 60 s without an end is an error.
    pub fn exec<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        let mut command = self.command(program)?;
        command.args(args);
        proc::checked(command, LIMIT).with_context(|| format!("in {}", self.name()))
    }

    /// Runs a program inside to its end, whatever that is.
    pub fn output<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
        limit: Duration,
    ) -> Result<Output> {
        let mut command = self.command(program)?;
        command.args(args);
        proc::output(command, limit)
    }

    /// Starts a command made by [`Netns::command`]; it ends with the value or with the namespace, whichever is first.
    pub fn spawn(&self, command: Command) -> Result<Proc> {
        let process = Proc::start(command).with_context(|| format!("in {}", self.name()))?;
        self.inner.processes.lock().unwrap_or_else(PoisonError::into_inner).push(process.weak());
        Ok(process)
    }

    /// Runs a closure inside, on a thread of its own; its panic is passed on.
    pub fn run_in<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let outcome = thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.inner.file, CloneFlags::CLONE_NEWNET)
                        .unwrap_or_else(|error| panic!("enter {}: {error}", self.name()));
                    work()
                })
                .join()
        });
        outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Runs `ip` commands inside, one a line, as `ip -batch` takes them.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut command = self.command("ip")?;
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start ip")?;
        // Taken, so that it is closed after the write and ip sees the end.
        let mut stdin = child.stdin.take().context("ip has no stdin")?;
        stdin.write_all(lines.as_bytes()).context("write to ip")?;
        drop(stdin);
        let output = child.wait_with_output().context("wait for ip")?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("ip in {}: {}\n{lines}", self.name(), stderr.trim());
        }
        Ok(())
    }

    /// Writes a setting of this namespace, named as for `sysctl` (`net.ipv4.ip_forward`).
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = sysctl_path(key);
        // `/proc/sys/net` shows the namespace of the thread that opens it.
        self.run_in(|| fs::write(&path, value))
            .with_context(|| format!("set {key} to {value} in {}", self.name()))
    }

    /// Reads a setting of this namespace.
    pub fn read_sysctl(&self, key: &str) -> Result<String> {
        let path = sysctl_path(key);
        let value = self
            .run_in(|| fs::read_to_string(&path))
            .with_context(|| format!("read {key} in {}", self.name()))?;
        Ok(value.trim().to_owned())
    }

    /// Whether something listens on exactly this TCP address: asked of the kernel, so that no connection disturbs a server.
    pub fn listens(&self, on: impl Into<SocketAddr>) -> bool {
        let on = on.into();
        let file = if on.is_ipv4() { "tcp" } else { "tcp6" };
        let sockets = self.run_in(|| fs::read_to_string(format!("/proc/thread-self/net/{file}")));
        sockets.is_ok_and(|sockets| sockets.lines().any(|line| listening(line) == Some(on)))
    }

    /// The pids of what was started in here with [`Netns::spawn`] and is still owned by someone.
    pub fn pids(&self) -> Vec<i32> {
        let processes = self.inner.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.iter().filter_map(|process| Some(process.pid()?.as_raw())).collect()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for process in self.processes.get_mut().unwrap_or_else(PoisonError::into_inner) {
            process.stop();
        }
        remove(&self.name);
    }
}

fn remove(name: &str) {
    let mut del = Command::new("ip");
    del.args(["netns", "del", name]);
    if let Err(error) = proc::checked(del, LIMIT) {
        eprintln!("cannot remove the namespace {name}: {error:#}");
    }
}

/// The local address of a listening socket's line in /proc/net/tcp or tcp6 (proc_pid_net(5)).
fn listening(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Each four bytes as they are in memory, printed as one number of this machine.
    let words = (0..address.len() / 8).map(|at| {
        u32::from_str_radix(address.get(8 * at..8 * at + 8)?, 16).ok().map(u32::to_ne_bytes)
    });
    let octets = words.collect::<Option<Vec<_>>>()?.concat();
    let address = match <[u8; 4]>::try_from(octets.as_slice()) {
        Ok(octets) => IpAddr::from(octets),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
    };
    (state == TCP_LISTEN).then(|| SocketAddr::new(address, port))
}

fn sysctl_path(key: &str) -> String {
    // A dot inside an interface's name (a VLAN) is written as a slash, as sysctl(8) does.
    let path: String = key
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    format!("/proc/sys/{path}")
}

const TCP_LISTEN: &str = "0A";
const LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_read_in_both_families() {
        let v4 = "   0: 0A01A8C0:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0";
        assert_eq!(listening(v4), Some("192.168.1.10:80".parse().unwrap()));
        assert_eq!(listening(&v4.replace(" 0A ", " 01 ")), None);
        let v6 = "   0: 010000FD000000000000000010000000:1F90 \
                  00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0";
        assert_eq!(listening(v6), Some("[fd00:1::10]:8080".parse().unwrap()));
    }
}
