//! The real binary against a server of invented data in this process, and against sockets that are none.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lbha::api::{self, server::Server, types};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tokio::sync::oneshot;

use self::testing::{Fake, Scratch};

#[path = "../src/api/testing.rs"]
mod testing;

/// A [`Fake`] behind a socket in a directory of its own, until dropped.
struct Daemon {
    scratch: Scratch,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Daemon {
    fn start() -> Self {
        let mut daemon = Self { scratch: Scratch::new(), stop: None, thread: None };
        daemon.launch();
        daemon
    }

    fn launch(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let server = Server::bind(&self.scratch.socket()).unwrap();
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server.serve(Arc::new(Fake::new()), stopped)).unwrap();
        });
        (self.stop, self.thread) = (Some(stop), Some(thread));
    }

    fn show(&self, arguments: &str) -> Output {
        show(&self.scratch.socket(), arguments)
    }

    fn stop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lbha() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbha"));
    command.env_remove("LBHA_LOG").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

fn run(arguments: &str) -> Output {
    lbha().args(arguments.split_whitespace()).output().unwrap()
}

fn show(socket: &Path, arguments: &str) -> Output {
    lbha()
        .arg("show")
        .args(arguments.split_whitespace())
        .arg("--socket")
        .arg(socket)
        .output()
        .unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Exit code and stderr of a failure that printed nothing else.
#[track_caller]
fn failure(output: &Output) -> (i32, &str) {
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code().unwrap(), std::str::from_utf8(&output.stderr).unwrap())
}

/// A socket that answers one connection with `answer`, whatever it is asked.
fn answering(scratch: &Scratch, answer: &'static [u8]) {
    let listener = UnixListener::bind(scratch.socket()).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(answer);
    });
}

fn wait(mut child: Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("still running");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn every_noun_has_a_table() {
    let daemon = Daemon::start();
    for (noun, first, contains) in [
        ("status", "state      ready, up 2h4m", "warning: ens14f1 is attached in generic mode"),
        ("services", "SERVICE  ADDRESS           PROTO", "147.75.78.116:53  udp    maglev"),
        ("servers", "SERVICE  SERVER  ADDRESS", "192.168.1.11:80  retired"),
        ("flows", "PROTO  STATE        SERVICE", "203.0.113.7:51234"),
        ("nat", "EXTERNAL       PROTO  CONNECTIONS", "[fd00:1::10]:7"),
        ("drops", "INTERFACE  SIDE    REASON", "no_flow"),
    ] {
        let output = daemon.show(noun);
        let text = stdout(&output);
        assert!(text.starts_with(first), "{text}");
        assert!(text.contains(contains), "{text}");
        assert!(!text.contains('\x1b'), "no colours in a pipe: {text}");

        let wide = daemon.show(&format!("{noun} -o wide"));
        assert!(stdout(&wide).lines().next().unwrap().len() >= text.lines().next().unwrap().len());
    }
}

#[test]
fn json_is_the_daemons_answer() {
    let daemon = Daemon::start();
    let output = daemon.show("status -o json");
    let text = stdout(&output);
    assert!(
        text.starts_with("{\n  \"version\": \"0.1.0\",\n  \"abi\": 1,\n  \"pid\": 4242,\n"),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<types::Status>(text).unwrap(), testing::status(0));
    let output = daemon.show("-o json services");
    let services: Vec<types::Service> = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(services, testing::services(1));
    let output = daemon.show("drops -o json");
    let drops: Vec<types::InterfaceCounters> = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(drops, testing::drops(2));
    let output = daemon.show("nat -o json");
    let nat: types::Nat = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(nat, testing::nat());
    let output = daemon.show("flows -o json --limit 1");
    let flows: types::Flows = serde_json::from_str(stdout(&output)).unwrap();
    assert!(flows.truncated);
}

#[test]
fn flows_are_filtered_by_the_daemon() {
    let daemon = Daemon::start();
    let output = daemon.show("flows --client 198.51.100.23");
    let text = stdout(&output);
    assert!(text.contains("198.51.100.23:40001") && !text.contains("203.0.113.7"), "{text}");
    let output = daemon.show("flows --service www --server web1 --state established");
    assert_eq!(stdout(&output).lines().count(), 2);
    let output = daemon.show("flows --service nobody");
    assert_eq!(stdout(&output), "no connections\n");
    let output = daemon.show("flows --limit 1");
    assert!(
        stdout(&output).ends_with("\nthe first 1 only: --limit shows more, filters show fewer\n")
    );
}

#[test]
fn nat_is_filtered_by_the_daemon() {
    let daemon = Daemon::start();
    let output = daemon.show("nat --limit 1");
    let text = stdout(&output);
    for line in [
        "147.75.78.116  tcp           7840  5230  31744  16.5%  198.51.100.10:443        12        35m38s",
        "192.168.1.10         6120  16384  37.4%",
        "refused so far, packets: 17 source_quota",
        "tcp    established  out        192.168.1.10:40000  147.75.78.116:2048  198.51.100.10:443  3m12s    4s",
        "the first 1 of 3 only: --limit shows more, filters show fewer",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
    let output = daemon.show("nat --external 2001:db8::116 --protocol icmp --source fd00:1::10");
    let text = stdout(&output);
    assert!(text.contains("[fd00:1::10]:7") && !text.contains("192.168"), "{text}");
    let output = daemon.show("nat --remote [2001:db8:ffff::53] -o json");
    let nat: types::Nat = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!((nat.bindings.len(), nat.total, nat.truncated), (1, 1, false));
    let output = daemon.show("nat --remote 192.0.2.1");
    assert!(stdout(&output).ends_with("\nno bindings\n"));

    for (argument, message) in [
        ("--source web1", "`web1` is not an IP address"),
        ("--remote 192.0.2.1:80", "`192.0.2.1` and a port: an address alone is expected"),
        ("--protocol sctp", "[possible values: tcp, udp, icmp]"),
    ] {
        let output = daemon.show(&format!("nat {argument}"));
        let (code, error) = failure(&output);
        assert_eq!(code, 1, "{error}");
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn drops_are_those_that_happened_unless_all_are_wanted() {
    let daemon = Daemon::start();
    let output = daemon.show("drops");
    let text = stdout(&output);
    let headings: Vec<_> = text.lines().filter(|line| line.ends_with(':')).collect();
    assert_eq!(
        headings,
        [
            "held for a moment, and counted again when they go on:",
            "answered, beside the verdict on the packet that asked:"
        ]
    );
    assert!(text.lines().nth(2).unwrap().is_empty(), "one reason: {text}");
    let output = daemon.show("drops --all -o wide");
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 9 + 5 + 5);
    assert!(text.contains("ARP and the like."), "{text}");
}

#[test]
fn the_socket_is_found_by_the_runtime_directory() {
    let daemon = Daemon::start();
    let directory = daemon.scratch.path().display();
    assert!(stdout(&run(&format!("show --runtime-dir {directory} status"))).starts_with("state"));
    let output = run(&format!("show --runtime-dir {directory} status --socket /x"));
    assert_eq!(failure(&output), (1, "lbha: --socket and --runtime-dir exclude each other\n"));
}

#[test]
fn without_a_daemon_the_exit_code_is_3_and_the_message_says_so() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let expected =
        format!("lbha: no daemon listens on {}: is `lbha run` running?\n", socket.display());
    assert_eq!(failure(&show(&socket, "status")), (3, &*expected));
    assert_eq!(failure(&show(&socket, "status --watch -o json")), (3, &*expected));
    // Left behind by a killed daemon.
    drop(UnixListener::bind(&socket).unwrap());
    assert_eq!(failure(&show(&socket, "services")), (3, &*expected));
}

#[test]
fn a_wrong_socket_is_named() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    fs::write(&socket, "").unwrap();
    let expected = format!("lbha: {} is not a socket\n", socket.display());
    assert_eq!(failure(&show(&socket, "status")), (3, &*expected));

    let output = show(Path::new(&format!("/{}", "x".repeat(200))), "status");
    let (code, message) = failure(&output);
    assert_eq!(code, 3);
    assert!(message.starts_with("lbha: cannot connect to /xxx"), "{message}");
}

#[test]
fn a_socket_that_one_may_not_use_says_who_may() {
    let daemon = Daemon::start();
    let mut command = lbha();
    command.args(["show", "status", "--socket"]).arg(daemon.scratch.socket());
    if geteuid().is_root() {
        // Nothing is forbidden to root: ask as nobody.
        command.uid(NOBODY).gid(NOBODY);
    } else {
        fs::set_permissions(daemon.scratch.socket(), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            println!("skipped: only root may run the binary where it was built");
            return;
        }
        output => output.unwrap(),
    };
    let (code, message) = failure(&output);
    assert_eq!(code, 3);
    assert!(message.starts_with("lbha: permission denied on "), "{message}");
    assert!(message.ends_with(": only root and the socket's group may use it\n"), "{message}");
}

#[test]
fn garbage_is_not_believed() {
    for (answer, code, expected) in [
        (&b"220 mail ESMTP\r\n"[..], 3, "does not speak HTTP as lbha does"),
        (b"", 3, "does not speak HTTP as lbha does"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", 3, "does not speak HTTP as lbha does"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>no</html>",
            1,
            "cannot understand the daemon's answer to /v1/status (another version of lbha?)",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 1, "missing field `version`"),
        (
            b"HTTP/1.1 503 Busy\r\nContent-Length: 20\r\n\r\n{\"error\": \"not yet\"}\n",
            1,
            "the daemon answered 503: not yet",
        ),
        (
            b"HTTP/1.1 404 Nope\r\nContent-Length: 0\r\n\r\n",
            1,
            "the daemon answered 404: Not Found",
        ),
    ] {
        let scratch = Scratch::new();
        answering(&scratch, answer);
        let output = show(&scratch.socket(), "status");
        let (got, message) = failure(&output);
        assert!(message.contains(expected), "{message}");
        assert_eq!(got, code, "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }

    let scratch = Scratch::new();
    answering(&scratch, b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>no</html>");
    assert_eq!(failure(&show(&scratch.socket(), "status -o json")).0, 1);
}

#[test]
fn a_daemon_that_does_not_answer_is_given_up() {
    let scratch = Scratch::new();
    let _listener = UnixListener::bind(scratch.socket()).unwrap();
    let begin = Instant::now();
    let output = show(&scratch.socket(), "status");
    assert!(begin.elapsed() < Duration::from_secs(15));
    let expected =
        format!("lbha: the daemon on {} did not answer within 5 s\n", scratch.socket().display());
    assert_eq!(failure(&output), (3, &*expected));
}

#[test]
fn a_closed_output_is_no_error() {
    let daemon = Daemon::start();
    let socket = daemon.scratch.socket();
    let socket = socket.to_str().unwrap();
    for arguments in [
        &["show", "--socket", socket, "drops", "--all"][..],
        &["show", "--socket", socket, "drops", "-o", "json"],
        &["show", "--socket", socket, "services", "--watch=0.1"],
        &["completions", "bash"],
        &["version"],
        &["--help"],
        &["show", "--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = lbha().args(arguments).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?} {output:?}");
        assert!(output.stderr.is_empty(), "{arguments:?} {output:?}");
    }
}

#[test]
fn an_output_that_takes_nothing_is_an_error() {
    let daemon = Daemon::start();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = lbha()
        .args(["show", "status", "--socket"])
        .arg(daemon.scratch.socket())
        .stdout(full)
        .output()
        .unwrap();
    let (code, message) = failure(&output);
    assert_eq!(code, 1);
    assert!(message.starts_with("lbha: cannot write the output: "), "{message}");
}

/// A watching `lbha show` and the lines that it prints.
fn watch(socket: &Path, arguments: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = lbha()
        .args(["show", "--socket"])
        .arg(socket)
        .args(arguments.split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    (child, lines)
}

fn interrupt(child: Child) -> ExitStatus {
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    wait(child)
}

#[test]
fn watching_prints_samples_with_their_time_and_rates_until_interrupted() {
    let daemon = Daemon::start();
    let (child, mut lines) = watch(&daemon.scratch.socket(), "services --watch=0.2");
    let first: Vec<_> = lines.by_ref().take(5).collect();
    assert!(first[0].starts_with("20") && first[0].ends_with('Z'), "{first:?}");
    assert!(first[1].ends_with("OUT  CONN/S  PPS  BIT/S"), "{first:?}");
    assert!(first[2].ends_with("-    -      -"), "{first:?}");
    assert_eq!(first[4], "");
    let second: Vec<_> = lines.by_ref().take(5).collect();
    let fields: Vec<_> = second[2].split_whitespace().collect();
    let rate = fields[fields.len() - 3];
    assert!(rate != "-" && rate != "0", "{second:?}");
    assert_eq!(interrupt(child).code(), Some(0));
}

#[test]
fn watching_as_json_is_a_document_a_line() {
    let daemon = Daemon::start();
    let (child, lines) = watch(&daemon.scratch.socket(), "--watch=0.1 servers -o json");
    for (age, line) in lines.take(3).enumerate() {
        let servers: Vec<types::Server> = serde_json::from_str(&line).unwrap();
        assert_eq!(servers, testing::servers(age as u64));
    }
    assert_eq!(interrupt(child).code(), Some(0));
}

#[test]
fn watching_outlives_a_restart_of_the_daemon() {
    let mut daemon = Daemon::start();
    let (mut child, lines) = watch(&daemon.scratch.socket(), "services --watch=0.1");
    let mut lines = lines.filter(|line| line.starts_with("www"));
    assert!(lines.next().unwrap().ends_with("-    -      -"));
    daemon.stop();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let error = errors.next().unwrap();
    assert!(error.starts_with("lbha: no daemon listens on "), "{error}");

    daemon.launch();
    // No rate against the daemon that is gone.
    assert!(lines.any(|line| line.ends_with("-    -      -")));
    assert!(!lines.next().unwrap().ends_with("-    -      -"));
    assert_eq!(interrupt(child).code(), Some(0));
}

#[test]
fn the_socket_answers_any_http_client() {
    let daemon = Daemon::start();
    let mut stream = UnixStream::connect(daemon.scratch.socket()).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n{\"ready\":true}"), "{answer}");
}

const NOBODY: u32 = 65534;
