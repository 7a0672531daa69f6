//! The daemon's life as the harness runs it: ready, asked, ended, killed, started again.

use std::time::Duration;

use lbha_tests::{
    daemon::{GUIDE_CONFIG, Lbha},
    nginx::{Access, Nginx},
    require_daemon,
    topology::{SERVICE, Topology},
};
use nix::sys::signal::Signal;

#[test]
fn the_daemon_gets_ready_serves_and_ends_when_told() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let mut lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();
    assert_eq!(topology.get(SERVICE, "/").unwrap().status, 200);
    assert!(lbha.api("/v1/status").unwrap().is_object());
    lbha.show("services").unwrap();
    assert!(lbha.stop().unwrap().success(), "{}", lbha.logs());
}

#[test]
fn the_daemon_starts_again_after_a_crash_with_the_same_directories() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let mut lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();
    lbha.kill9().unwrap();
    assert!(!lbha.is_running());
    lbha.restart().unwrap();
    assert_eq!(topology.get(SERVICE, "/").unwrap().status, 200);
    lbha.restart().unwrap();
    assert_eq!(topology.get(SERVICE, "/").unwrap().status, 200);
}

#[test]
fn a_daemon_that_cannot_start_says_why_at_once() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let start = std::time::Instant::now();
    let error = Lbha::start(&topology, "not TOML [").unwrap_err();
    assert!(error.to_string().contains("the daemon ended"), "{error:#}");
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn the_daemon_outlives_the_reader_of_its_log_and_a_hangup() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let mut lbha = Lbha::prepare(&topology.lb, GUIDE_CONFIG, &[]).unwrap();
    // Every write fails, as on a full disk.
    std::os::unix::fs::symlink("/dev/full", lbha.log_path()).unwrap();
    lbha.launch().unwrap();
    lbha.wait_ready(Duration::from_secs(15)).unwrap();
    lbha.process().unwrap().signal(Signal::SIGHUP).unwrap();
    assert_eq!(topology.get(SERVICE, "/").unwrap().status, 200);
    assert!(lbha.api("/v1/status").unwrap().is_object());
    assert!(lbha.stop().unwrap().success());
}
