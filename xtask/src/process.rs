//! Waits for a child while signals and a time limit may come first, and never leaves it behind.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::signal::{self, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

/// Time for a child to clean up after the first, polite signal.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes the signals that would end this process, so that it ends after its child.
pub struct Supervisor {
    signals: SigSet,
    sender: Sender<Event>,
    events: Receiver<Event>,
    interrupted: bool,
}

enum Event {
    Signal { signal: Signal, from_terminal: bool },
    Exited(std::io::Result<ExitStatus>),
}

/// Who else a signal from the terminal reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The child is in our process group: Ctrl-C has reached it already.
    Ours,
    /// The child leads a group of its own: it hears of Ctrl-C from us, and can be ended with all
    /// that it started.
    Own,
}

#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub timed_out: bool,
}

impl Ended {
    /// What a shell would make of it.
    pub fn code(&self) -> u8 {
        let signal = || self.status.signal().map_or(1, |signal| 128 + signal);
        u8::try_from(self.status.code().unwrap_or_else(signal)).unwrap_or(1)
    }
}

impl Supervisor {
    /// Call it before the first thread is started: signals are blocked in this one and its heirs.
    pub fn start() -> anyhow::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block().context("cannot block signals")?;
        let arrivals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)
            .context("cannot wait for signals")?;
        let (sender, events) = mpsc::channel();
        let to_supervisor = sender.clone();
        thread::spawn(move || {
            while let Ok(Some(arrival)) = arrivals.read_signal() {
                let number = i32::try_from(arrival.ssi_signo).unwrap_or_default();
                let Ok(signal) = Signal::try_from(number) else { continue };
                // Positive codes are the kernel's; what a process sends has zero or less.
                let from_terminal = arrival.ssi_code > 0;
                if to_supervisor.send(Event::Signal { signal, from_terminal }).is_err() {
                    return;
                }
            }
        });
        Ok(Self { signals, sender, events, interrupted: false })
    }

    /// Whether somebody asked this process to end.
    pub fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// Runs a command until it has ended, whatever it takes.
    pub fn run(
        &mut self,
        mut command: Command,
        group: Group,
        limit: Option<Duration>,
    ) -> anyhow::Result<Ended> {
        if group == Group::Own {
            command.process_group(0);
        }
        let mut child = self
            .spawn(&mut command)
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        // It may hold ends of pipes that belong to the child now.
        drop(command);
        let id = i32::try_from(child.id()).context("a process id is not a number")?;
        let pid = Pid::from_raw(id);
        let sender = self.sender.clone();
        thread::spawn(move || sender.send(Event::Exited(child.wait())));

        let mut deadline = limit.map(|limit| Instant::now() + limit);
        let mut last_resort = Signal::SIGTERM;
        let mut timed_out = false;
        loop {
            match self.next(deadline) {
                Some(Event::Exited(status)) => {
                    if group == Group::Own {
                        // What it left running would keep its output open for ever.
                        send(pid, group, Signal::SIGKILL);
                    }
                    let status = status.context("cannot wait for a child")?;
                    return Ok(Ended { status, timed_out });
                }
                Some(Event::Signal { signal, from_terminal }) => {
                    self.interrupted = true;
                    if group == Group::Own || !from_terminal {
                        send(pid, group, signal);
                    }
                    // One that cleans up in the foreground may take its time; tests may not.
                    if group == Group::Own {
                        deadline = Some(Instant::now() + PATIENCE);
                    }
                }
                None => {
                    timed_out = !self.interrupted;
                    send(pid, group, last_resort);
                    last_resort = Signal::SIGKILL;
                    deadline = Some(Instant::now() + PATIENCE);
                }
            }
        }
    }

    /// A child inherits the mask, and one that is deaf to Ctrl-C would be no good.
    fn spawn(&self, command: &mut Command) -> anyhow::Result<Child> {
        self.signals.thread_unblock().context("cannot unblock signals")?;
        let child = command.spawn();
        self.signals.thread_block().context("cannot block signals")?;
        Ok(child?)
    }

    /// The next event, or nothing when the deadline passes first.
    fn next(&self, deadline: Option<Instant>) -> Option<Event> {
        let gone = "invariant: self holds a sender";
        match deadline {
            None => Some(self.events.recv().expect(gone)),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                match self.events.recv_timeout(left) {
                    Ok(event) => Some(event),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => panic!("{gone}"),
                }
            }
        }
    }
}

fn send(pid: Pid, group: Group, signal: Signal) {
    let sent = match group {
        Group::Ours => signal::kill(pid, signal),
        Group::Own => signal::killpg(pid, signal),
    };
    match sent {
        // It has just ended by itself.
        Ok(()) | Err(Errno::ESRCH) => {}
        // It is a sudo, which passes signals on, but takes them from root only.
        Err(Errno::EPERM) => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "kill", "-s", signal.as_str(), &pid.to_string()]);
            if !sudo.status().is_ok_and(|status| status.success()) {
                eprintln!("cannot end process {pid}: it is root's");
            }
        }
        Err(error) => eprintln!("cannot send {signal} to process {pid}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    // One test: signals are the whole process's.
    #[test]
    fn a_child_that_hangs_is_ended_with_what_it_started() {
        let mut supervisor = Supervisor::start().unwrap();
        let mut shell = |script: &str, limit| {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdout(writer);
            let ended = supervisor.run(command, Group::Own, limit).unwrap();
            // Ends when nobody is left who could write.
            let mut output = String::new();
            reader.read_to_string(&mut output).unwrap();
            (ended.code(), ended.timed_out, output)
        };
        assert_eq!(
            shell("echo this; exit 3", Some(Duration::from_secs(60))),
            (3, false, "this\n".into())
        );
        assert_eq!(shell("sleep 1000 & exit 0", None), (0, false, String::new()));
        let began = Instant::now();
        assert_eq!(
            shell("sleep 1000 & sleep 1000", Some(Duration::from_millis(200))),
            (128 + 15, true, String::new())
        );
        assert!(began.elapsed() < PATIENCE, "the polite signal did not reach it");
        assert!(!supervisor.interrupted());
    }
}
