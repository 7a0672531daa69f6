//! CPU time of the whole machine over an interval, and how much of it other users of the machine took.

use std::{collections::HashMap, fs, process};

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    busy: u64,
    idle: u64,
    others: u64,
}

/// What happened between two snapshots.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// CPU seconds of the kernel, ourselves and our children: all that was busy but for `others`.
    pub ours: f64,
    /// CPU seconds of processes that have nothing to do with us.
    pub others: f64,
    /// CPU seconds that there were.
    pub total: f64,
}

impl Snapshot {
    pub fn take() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let (busy, idle) = busy_and_idle(&stat).context("no cpu line in /proc/stat")?;
        Ok(Self { busy, idle, others: other_processes(&processes()) })
    }

    pub fn until(&self, later: &Self) -> Result<Usage> {
        let hertz = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
        #[expect(clippy::cast_precision_loss, reason = "ticks of a few hours at most")]
        let seconds = |ticks: u64| ticks as f64 / hertz as f64;
        let busy = later.busy.saturating_sub(self.busy);
        let idle = later.idle.saturating_sub(self.idle);
        let others = later.others.saturating_sub(self.others).min(busy);
        Ok(Usage {
            ours: seconds(busy - others),
            others: seconds(others),
            total: seconds(busy + idle),
        })
    }
}

/// The first line of /proc/stat (proc_stat(5)): user nice system idle iowait irq softirq steal ….
fn busy_and_idle(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<u64> = stat
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    let [user, nice, system, idle, iowait, irq, softirq, ..] = fields[..] else { return None };
    Some((user + nice + system + irq + softirq, idle + iowait))
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Process {
    parent: u32,
    /// Ticks, with those of the children that it waited for: so an ended child is not lost.
    ticks: u64,
}

fn processes() -> HashMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse_process(&stat)?))
        })
        .collect()
}

/// Ticks of all that is neither us, nor below us, nor a kernel thread (softirq work of our own packets runs there).
fn other_processes(all: &HashMap<u32, Process>) -> u64 {
    let ours_or_kernel = |pid: &u32| {
        let mut at = *pid;
        // No chain is longer than there are processes.
        for _ in 0..all.len() {
            if at == process::id() || at == KTHREADD {
                return true;
            }
            match all.get(&at) {
                Some(process) => at = process.parent,
                None => break,
            }
        }
        false
    };
    all.iter().filter(|(pid, _)| !ours_or_kernel(pid)).map(|(_, process)| process.ticks).sum()
}

/// proc_pid_stat(5); the name in parentheses may hold anything, so count from behind it.
fn parse_process(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Process { parent: u32::try_from(number(1)?).ok()?, ticks })
}

const KTHREADD: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_all_but_idle_waiting_and_stolen() {
        assert_eq!(busy_and_idle("cpu  1 2 4 100 200 8 16 1000 0 0\ncpu0 1\n"), Some((31, 300)));
    }

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_fields() {
        let stat = "7 (a) b (c) S 5 7 7 0 -1 0 0 0 0 0 10 20 3 4 20 0 1 0";
        assert_eq!(parse_process(stat), Some(Process { parent: 5, ticks: 37 }));
    }

    #[test]
    fn children_of_ours_and_kernel_threads_are_not_others() {
        let me = process::id();
        let process = |parent, ticks| Process { parent, ticks };
        let all = [
            (1, process(0, 1)),
            (me, process(1, 10)),
            (me + 1, process(me, 100)),
            (2, process(0, 1000)),
            (15, process(2, 10_000)),
            (99, process(1, 100_000)),
        ];
        assert_eq!(other_processes(&all.into_iter().collect()), 100_001);
    }
}
