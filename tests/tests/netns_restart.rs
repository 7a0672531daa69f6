//! The daemon ends, crashes and starts again under load, and starts that are to fail.

use std::{fs, net::SocketAddr, process::Output, time::Duration};

use lbha_tests::{
    daemon::{self, GUIDE_CONFIG, Lbha, guide_config},
    http::{Connection, Options},
    load::{Kind, Load, Report},
    netns::Netns,
    nginx::{Access, Nginx},
    pass::{self, Pass},
    require_daemon,
    scratch::ScratchDir,
    topology::{PRIVATE, PUBLIC, SERVICE, Topology},
    wait::wait_until,
};
use nix::errno::Errno;

const TO: SocketAddr = SocketAddr::V4(SERVICE);
const LIMIT: Duration = Duration::from_secs(15);

fn open(topology: &Topology) -> Connection {
    topology.client.run_in(|| Connection::open(TO, &Options::default())).unwrap()
}

/// Who answers, and whom it sees.
fn ask(connection: &mut Connection) -> (String, SocketAddr) {
    let response = connection.get("/").unwrap();
    (response.text(), response.client_seen().unwrap())
}

/// The XDP program on a device: what `ip` says after `prog/xdp`, or nothing.
fn xdp_on(namespace: &Netns, device: &str) -> Option<String> {
    let link = namespace.exec("ip", ["-d", "link", "show", "dev", device]).unwrap();
    let (_, program) = link.split_once("prog/xdp ")?;
    Some(program.lines().next().unwrap_or_default().trim().to_owned())
}

/// A start beside another daemon, with a runtime directory of its own; gives its end.
fn run(namespace: &Netns, lbha: &Lbha, bpffs: &std::path::Path) -> Output {
    let runtime = ScratchDir::new("second").unwrap();
    let binary = daemon::binary().unwrap();
    let (config, bpffs) = (lbha.config_path(), bpffs.display().to_string());
    let args = [
        "run",
        "--config",
        config.to_str().unwrap(),
        "--runtime-dir",
        runtime.path().to_str().unwrap(),
        "--bpffs",
        &bpffs,
    ];
    let output = namespace.output(binary.to_str().unwrap(), args, LIMIT).unwrap();
    assert_eq!(fs::read_dir(runtime.path()).unwrap().count(), 0, "it left its socket behind");
    output
}

/// Connections that the load made: one for each request, or one a thread, if nothing failed.
fn connections(report: &Report, keep_alive: usize) -> u64 {
    let one_shot = report.requests.iter().filter(|request| request.kind == Kind::OneShot).count();
    (one_shot + keep_alive) as u64
}

#[test]
fn a_killed_daemon_is_not_missed_and_the_next_one_goes_on_from_there() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let mut lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();

    let mut kept = open(&topology);
    let answer = ask(&mut kept);
    let load = Load::start(&topology.client, SERVICE, 2, 2);
    load.goes_on(200).unwrap();
    let before = lbha.connections().unwrap();
    let programs = [PUBLIC, PRIVATE].map(|device| xdp_on(&topology.lb, device));
    assert!(programs.iter().all(Option::is_some), "{programs:?}");

    lbha.kill9().unwrap();
    load.goes_on(200).unwrap();
    assert_eq!(ask(&mut kept), answer);
    assert_eq!([PUBLIC, PRIVATE].map(|device| xdp_on(&topology.lb, device)), programs);

    lbha.restart().unwrap();
    assert!(lbha.connections().unwrap() > before, "the counters go on");
    let port = kept.local().unwrap().port();
    let flows = lbha.flows("state=established").unwrap();
    assert!(flows.iter().any(|flow| flow.client.port() == port), "{port} is not in {flows:?}");
    load.goes_on(200).unwrap();
    assert_eq!(ask(&mut kept), answer);

    let report = load.finish();
    report.all_succeeded().unwrap();
    assert!(report.slowest() < Duration::from_secs(1), "{:?}", report.slowest());
    assert_eq!(lbha.connections().unwrap(), connections(&report, 2) + 1, "none lost, none twice");
}

#[test]
fn five_crashes_in_a_row_lose_no_request() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let mut lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();
    let load = Load::start(&topology.client, SERVICE, 2, 2);
    for _ in 0..5 {
        load.goes_on(50).unwrap();
        lbha.kill9().unwrap();
        load.goes_on(20).unwrap();
        lbha.restart().unwrap();
    }
    load.goes_on(50).unwrap();
    let report = load.finish();
    report.all_succeeded().unwrap();
    assert_eq!(lbha.connections().unwrap(), connections(&report, 2));
    let answers = report.answers();
    assert_eq!(answers.len(), 2, "{answers:?}");
}

#[test]
fn sigterm_leaves_nothing_behind() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let mut lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();
    assert_eq!(topology.get(SERVICE, "/").unwrap().status, 200);
    assert!(xdp_on(&topology.lb, PUBLIC).is_some());
    let socket = lbha.runtime_dir().join("admin.sock");
    assert!(socket.exists());

    assert!(lbha.stop().unwrap().success(), "{}", lbha.logs());
    // The kernel drops a link's last reference a moment after the process.
    wait_until(LIMIT, "the programs are gone", || {
        xdp_on(&topology.lb, PUBLIC).is_none() && xdp_on(&topology.lb, PRIVATE).is_none()
    })
    .unwrap();
    assert_eq!(lbha.pinned().unwrap(), [""; 0]);
    assert!(!socket.exists());
    let refused = topology.get(SERVICE, "/").unwrap_err();
    assert_eq!(refused.downcast_ref(), Some(&Errno::ECONNREFUSED), "{refused:#}");
}

#[test]
fn a_second_daemon_on_the_same_pins_is_told_who_has_them() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();
    let second = run(&topology.lb, &lbha, lbha.bpffs());
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success());
    let first = lbha.process().unwrap().pid();
    assert!(stderr.contains(&format!("process {first} (")), "{stderr}");
    let command = daemon::binary().unwrap();
    assert!(stderr.contains(&format!("{} run --config", command.display())), "{stderr}");
    assert!(lbha.is_running());
    assert_eq!(topology.get(SERVICE, "/").unwrap().status, 200);
}

#[test]
fn a_foreign_program_is_named_and_stays() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let foreign = Pass::attach(&topology.lb, PRIVATE).unwrap();
    let there = xdp_on(&topology.lb, PRIVATE).unwrap();

    let mut lbha = Lbha::prepare(&topology.lb, GUIDE_CONFIG, &[]).unwrap();
    lbha.launch().unwrap();
    let error = lbha.wait_ready(LIMIT).unwrap_err().to_string();
    assert!(error.contains(PRIVATE) && error.contains("not lbha's"), "{error}");
    let id = there.split_whitespace().nth(1).unwrap();
    assert!(error.contains(&format!("id {id} ({})", pass::NAME)), "{there:?} is not in: {error}");
    assert!(!lbha.ended().unwrap().success());
    assert_eq!(xdp_on(&topology.lb, PRIVATE).unwrap(), there);
    assert_eq!(xdp_on(&topology.lb, PUBLIC), None, "half of lbha stayed attached");
    assert_eq!(lbha.pinned().unwrap(), [""; 0]);
    drop(foreign);
}

#[test]
fn a_missing_interface_is_named_and_nothing_is_left() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let config = GUIDE_CONFIG.replace("\"ens14f1\"", "\"ens14f7\"");
    let mut lbha = Lbha::prepare(&topology.lb, &config, &[]).unwrap();
    lbha.launch().unwrap();
    let error = lbha.wait_ready(LIMIT).unwrap_err().to_string();
    assert!(error.contains("no interface named ens14f7"), "{error}");
    assert!(!lbha.ended().unwrap().success());
    assert_eq!(xdp_on(&topology.lb, PUBLIC), None);
    assert_eq!(lbha.pinned().unwrap(), [""; 0]);
    assert_eq!(fs::read_dir(lbha.runtime_dir()).unwrap().count(), 0);
}

#[test]
fn a_path_that_is_not_on_a_bpffs_is_refused_with_what_helps() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let lbha = Lbha::prepare(&topology.lb, GUIDE_CONFIG, &[]).unwrap();
    let elsewhere = ScratchDir::new("elsewhere").unwrap();
    let pins = elsewhere.path().join("pins");
    let output = run(&topology.lb, &lbha, &pins);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("is not on a BPF filesystem"), "{stderr}");
    assert!(stderr.contains("mount -t bpf bpf"), "{stderr}");
    assert!(!pins.exists());
    assert_eq!(xdp_on(&topology.lb, PUBLIC), None);
}

#[test]
fn another_table_size_than_the_pinned_one_is_refused_and_the_datapath_goes_on() {
    require_daemon!();
    let topology = Topology::new().unwrap();
    let _servers = Nginx::start_all(&topology, Access::GUIDE).unwrap();
    let mut lbha = Lbha::start(&topology, GUIDE_CONFIG).unwrap();
    let mut kept = open(&topology);
    let answer = ask(&mut kept);
    lbha.kill9().unwrap();

    lbha.write_config(&guide_config("", "[datapath]\nmax_connections = 2048\n")).unwrap();
    lbha.launch().unwrap();
    let error = lbha.wait_ready(LIMIT).unwrap_err().to_string();
    assert!(error.contains("max_connections") && error.contains("2048"), "{error}");
    assert!(error.contains("lbha detach"), "{error}");
    assert!(!lbha.ended().unwrap().success());
    assert_eq!(ask(&mut kept), answer);
    assert_eq!(topology.get(SERVICE, "/").unwrap().status, 200);

    lbha.write_config(GUIDE_CONFIG).unwrap();
    lbha.restart().unwrap();
    assert_eq!(ask(&mut kept), answer);
}
