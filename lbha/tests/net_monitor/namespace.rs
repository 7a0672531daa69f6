//! What the tests stand on.
//!
//! A test runs on one thread that has unshared its network namespace, with a current-thread runtime, since a socket
//! belongs to its thread's namespace. The far end of a veth pair is in a second namespace, held by another thread, so
//! that nothing needs a name or has to be removed: namespaces go with their threads.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use lbha::net::IpPrefix;
use lbha::net::state::NetState;
use nix::sched::{CloneFlags, unshare};
use tokio::sync::watch;

pub const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
pub const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
/// What is awaited comes within milliseconds; a shared machine may take its time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `test` on a thread with a new network namespace.
pub fn in_namespace(test: impl AsyncFnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root for a network namespace");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A thread in a network namespace of its own, which does things there.
pub struct Namespace {
    tid: i32,
    work: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    done: mpsc::Receiver<()>,
}

impl Namespace {
    fn new() -> Namespace {
        let (work, jobs) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (done_tx, done) = mpsc::channel();
        let (tid_tx, tid) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tid_tx.send(nix::unistd::gettid().as_raw()).unwrap();
            while let Ok(job) = jobs.recv() {
                job();
                done_tx.send(()).unwrap();
            }
        });
        Namespace { tid: tid.recv().unwrap(), work, done }
    }

    pub fn run(&self, command: &str) {
        let command = command.to_owned();
        self.perform(move || {
            let mut words = command.split(' ');
            run(Command::new(words.next().unwrap()).args(words), None);
        });
    }

    pub fn set(&self, sysctl: &str, value: &'static str) {
        let sysctl = sysctl.to_owned();
        self.perform(move || set(&sysctl, value));
    }

    fn perform(&self, job: impl FnOnce() + Send + 'static) {
        self.work.send(Box::new(job)).unwrap();
        self.done.recv().expect("it worked");
    }
}

/// /proc/sys/net shows the namespace of the thread that opens it.
pub fn set(sysctl: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{sysctl}"), value).unwrap();
}

/// `near` here and `far` in a namespace of its own, one cable between them, both up.
pub fn near_and_far() -> Namespace {
    let far = Namespace::new();
    ip(&format!("link add name near type veth peer name far netns {}", far.tid));
    ip("addr add 10.9.0.1/24 dev near");
    ip("link set near up");
    far.run("ip addr add 10.9.0.2/24 dev far");
    far.run("ip link set far up");
    far
}

pub fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')), None);
}

pub fn ip_batch(lines: &str) {
    run(Command::new("ip").args(["-batch", "-"]), Some(lines));
}

fn run(command: &mut Command, input: Option<&str>) {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.unwrap_or_default().as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{command:?}");
}

pub async fn until(
    states: &mut watch::Receiver<Arc<NetState>>,
    condition: impl Fn(&NetState) -> bool,
) {
    until_named(states, "condition", condition).await;
}

pub async fn until_named(
    states: &mut watch::Receiver<Arc<NetState>>,
    what: &str,
    condition: impl Fn(&NetState) -> bool,
) {
    let waited = tokio::time::timeout(PATIENCE, states.wait_for(|s| condition(s))).await;
    let found = waited.map(|found| drop(found.expect("the monitor is alive")));
    assert!(found.is_ok(), "{what}: not within {PATIENCE:?}; {:#?}", states.borrow());
}

pub fn index_of(states: &watch::Receiver<Arc<NetState>>, name: &str) -> u32 {
    states.borrow().link_by_name(name).unwrap().index
}

pub fn mac_of(state: &NetState, index: u32, addr: IpAddr) -> Option<[u8; 6]> {
    state.neighbours.get(&(index, addr))?.usable_mac()
}

pub fn route_prefixes(state: &NetState) -> BTreeSet<IpPrefix> {
    state.routes.keys().map(|key| key.dst).collect()
}

pub fn net(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

pub fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
