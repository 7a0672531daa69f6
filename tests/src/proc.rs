//! Child processes that end with their owner, and commands with a time limit.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

use crate::wait::wait_until;

/// A process of ours: the leader of its own process group, ended (the whole group) on drop.
#[derive(Debug)]
pub struct Proc {
    inner: Arc<Inner>,
}

/// Lets a namespace end the processes in it, without keeping them alive.
#[derive(Clone, Debug)]
pub struct ProcRef(Weak<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    pid: Pid,
    /// The exit status once the process was waited for.
    child: Mutex<(Child, Option<ExitStatus>)>,
}

impl Proc {
    /// Starts `command` in a process group of its own, so that a Ctrl-C at the terminal reaches only us.
    pub fn start(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a pid beyond i32")?);
        Ok(Self { inner: Arc::new(Inner { name, pid, child: Mutex::new((child, None)) }) })
    }

    pub fn pid(&self) -> Pid {
        self.inner.pid
    }

    pub fn is_running(&self) -> bool {
        self.inner.is_running()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let name = &self.inner.name;
        if !self.is_running() {
            bail!("{name} has ended already");
        }
        kill(self.inner.pid, signal).with_context(|| format!("send {signal} to {name}"))
    }

    /// Waits until the process has ended by itself.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} ended", self.inner.name);
        wait_until(limit, &what, || !self.is_running())?;
        Ok(self.inner.reap()?)
    }

    /// SIGTERM, and SIGKILL for what is left of the group after `limit`; gives the exit status of the leader.
    pub fn stop(&self, limit: Duration) -> Result<ExitStatus> {
        self.inner.stop(limit)
    }

    /// SIGKILL to the whole group: what a crash looks like.
    pub fn kill9(&self) -> Result<ExitStatus> {
        self.inner.kill_group();
        Ok(self.inner.reap()?)
    }

    pub fn weak(&self) -> ProcRef {
        ProcRef(Arc::downgrade(&self.inner))
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if let Err(error) = self.stop(STOP_LIMIT) {
            eprintln!("cannot end {}: {error:#}", self.inner.name);
        }
    }
}

impl ProcRef {
    /// Ends the process if it is still there.
    pub fn stop(&self) {
        if let Some(inner) = self.0.upgrade() {
            let _ = inner.stop(STOP_LIMIT);
        }
    }

    /// The pid, if the owner has not dropped the process.
    pub fn pid(&self) -> Option<Pid> {
        self.0.upgrade().map(|inner| inner.pid)
    }
}

impl Inner {
    /// Looks without reaping, so that the pid stays ours.
    fn is_running(&self) -> bool {
        if self.child.lock().unwrap_or_else(PoisonError::into_inner).1.is_some() {
            return false;
        }
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        matches!(waitid(Id::Pid(self.pid), flags), Ok(WaitStatus::StillAlive))
    }

    fn stop(&self, limit: Duration) -> Result<ExitStatus> {
        if self.is_running() {
            kill(self.pid, Signal::SIGTERM).with_context(|| format!("stop {}", self.name))?;
            let what = format!("{} ended", self.name);
            let _ = wait_until(limit, &what, || !self.is_running());
        }
        self.kill_group();
        Ok(self.reap()?)
    }

    /// Before the leader is reaped, its pid cannot name another group.
    fn kill_group(&self) {
        if self.child.lock().unwrap_or_else(PoisonError::into_inner).1.is_none() {
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }

    fn reap(&self) -> io::Result<ExitStatus> {
        let mut guard = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let (child, status) = &mut *guard;
        match status {
            Some(status) => Ok(*status),
            None => Ok(*status.insert(child.wait()?)),
        }
    }
}

/// Runs `command` to its end, with what it wrote; an error when `limit` passes first.
pub fn output(mut command: Command, limit: Duration) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {name}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a pid beyond i32")?);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(limit) {
        Ok(output) => output.with_context(|| format!("wait for {name}")),
        Err(_) => {
            let _ = kill(pid, Signal::SIGKILL);
            bail!("{command:?} did not end within {limit:?}")
        }
    }
}

/// [`output`], and an error with what it wrote on stderr unless it exits with 0; gives stdout.
pub fn checked(command: Command, limit: Duration) -> Result<String> {
    let shown = format!("{command:?}");
    let output = output(command, limit)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{shown}: {}: {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

const STOP_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("60");
        command
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = Proc::start(sleeper()).unwrap();
        let pid = process.pid();
        assert!(process.is_running());
        drop(process);
        assert!(kill(pid, None).is_err());
    }

    #[test]
    fn the_children_of_a_stopped_process_are_gone_too() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; sleep 60 & echo $! > /dev/stderr; wait"]);
        command.stderr(Stdio::null());
        let process = Proc::start(command).unwrap();
        let group = process.pid();
        process.stop(Duration::from_millis(50)).unwrap();
        wait_until(STOP_LIMIT, "the group is empty", || killpg(group, None).is_err()).unwrap();
    }

    #[test]
    fn the_exit_status_can_be_asked_for_twice() {
        let process = Proc::start(Command::new("true")).unwrap();
        assert!(process.wait(STOP_LIMIT).unwrap().success());
        assert!(process.stop(STOP_LIMIT).unwrap().success());
    }

    #[test]
    fn a_command_that_takes_too_long_is_an_error() {
        let error = output(sleeper(), Duration::from_millis(30)).unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
    }
}
