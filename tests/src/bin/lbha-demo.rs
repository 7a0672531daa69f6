//! `cargo xtask demo`: the guide's network with lbha as its load balancer, on one machine, to look at.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    mem,
    net::SocketAddr,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail, ensure};
use lbha_tests::{
    daemon::{self, GUIDE_CONFIG, Lbha},
    http, is_root,
    nginx::{Access, Nginx},
    scratch::{self, Kept},
    signals::Interrupt,
    topology::{SERVICE, Topology},
};

const HELP: &str = "\
Shows lbha at work between a client and two nginx servers, in network namespaces of its own.

Usage: lbha-demo [--keep | --clean]

  --keep    leave it running, and say how to enter the namespaces
  --clean   remove what --keep or a killed demo left

LBHA_BIN names the lbha binary. Exits with 0 only if the servers took turns.
";

const PICTURE: &str = "
   client               router                lb                                 web1  192.168.1.10
   203.0.113.10 ─────── 203.0.113.1                                          ┌── nginx
                        147.75.104.176 ────── ens14f0  147.75.104.177        │
                                              elastic  147.75.78.116         │
                                              lbha (XDP)                     │
                                              ens14f1  192.168.1.1 ─── vlan ─┤
                                                                             └── web2  192.168.1.11
                                                                                 nginx
";

/// The requests shown one by one, and the ones after them that only move the counters.
const SHOWN: usize = 8;
const COUNTED: usize = 192;

enum Action {
    Help,
    Show { keep: bool },
    Clean,
}

fn main() -> ExitCode {
    let outcome = match parse(std::env::args().skip(1)) {
        Ok(Action::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Action::Show { keep }) => show(keep),
        Ok(Action::Clean) => clean(),
        Err(error) => {
            eprintln!("lbha-demo: {error:#}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lbha-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: impl Iterator<Item = String>) -> Result<Action> {
    let words: Vec<String> = words.collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(Action::Show { keep: false }),
        ["--keep"] => Ok(Action::Show { keep: true }),
        ["--clean"] => Ok(Action::Clean),
        ["--help" | "-h"] => Ok(Action::Help),
        _ => bail!("unknown arguments: {}", words.join(" ")),
    }
}

fn clean() -> Result<()> {
    ensure!(is_root(), "needs root to remove network namespaces");
    let removed = scratch::sweep(Kept::Remove);
    for what in &removed {
        println!("removed {what}");
    }
    if removed.is_empty() {
        println!("nothing to clean up");
    }
    Ok(())
}

/// Everything that is up. Whatever way this is left, its destructors clean up.
struct Cluster {
    lbha: Lbha,
    _servers: Vec<Nginx>,
    topology: Topology,
}

fn show(keep: bool) -> Result<()> {
    ensure!(is_root(), "needs root to make network namespaces");
    // Before anything else starts a thread.
    let interrupt = Interrupt::install()?;
    let screen = Screen::new();
    daemon::binary()?;

    screen.title("The network, each host a network namespace");
    let topology = Topology::new()?;
    interrupt.check()?;
    let servers = Nginx::start_all(&topology, Access::GUIDE)?;
    screen.text(PICTURE);

    screen.title("lbha starts with the guide's load balancer in a file");
    screen.text(GUIDE_CONFIG);
    interrupt.check()?;
    let lbha = Lbha::start(&topology, GUIDE_CONFIG)?;
    let cluster = Cluster { lbha, _servers: servers, topology };

    let tally = requests(&cluster, &screen, &interrupt)?;
    look_around(&cluster, &screen)?;
    interrupt.check()?;

    screen.title("Summary");
    for line in tally.lines() {
        screen.line(&line);
    }
    let outcome = tally.judge();
    if keep {
        leave_running(cluster, &screen)?;
    }
    outcome?;
    screen.good("The two servers took turns.");
    Ok(())
}

fn requests(cluster: &Cluster, screen: &Screen, interrupt: &Interrupt) -> Result<Tally> {
    let mut tally = Tally::default();
    screen.title("The client asks the elastic address, a connection per request");
    for _ in 0..SHOWN {
        interrupt.check()?;
        let answer = ask(&cluster.topology);
        screen.command("client", &format!("curl http://{}/", SERVICE.ip()));
        match &answer {
            Ok(name) => screen.answer(name),
            Err(error) => screen.bad(&format!("{error:#}")),
        }
        tally.add(answer);
    }

    screen.title("The counters move with the traffic");
    show_command(cluster, screen, &["show", "services"])?;
    screen.line(&format!("… {COUNTED} more requests …"));
    for _ in 0..COUNTED {
        interrupt.check()?;
        tally.add(ask(&cluster.topology));
    }
    show_command(cluster, screen, &["show", "services"])?;
    Ok(tally)
}

/// What an operator looks at, with a connection open so that there is one to see.
fn look_around(cluster: &Cluster, screen: &Screen) -> Result<()> {
    let mut open = cluster
        .topology
        .client
        .run_in(|| http::Connection::open(SocketAddr::V4(SERVICE), &http::Options::default()))?;
    let name = open.get("/")?.text();
    screen.title("Each server's share");
    show_command(cluster, screen, &["show", "servers"])?;
    screen.title(&format!("Connections: one is open, to {}", name.trim()));
    show_command(cluster, screen, &["show", "flows", "--limit", "8", "-o", "wide"])?;
    screen.title("And the whole");
    show_command(cluster, screen, &["show", "status"])
}

fn ask(topology: &Topology) -> Result<String> {
    let response = topology.get(SERVICE, "/")?;
    ensure!(response.status == 200, "status {}", response.status);
    Ok(response.text().trim().to_owned())
}

fn show_command(cluster: &Cluster, screen: &Screen, args: &[&str]) -> Result<()> {
    screen.command("lb", &format!("lbha {}", args.join(" ")));
    let text = cluster.lbha.cli(args).with_context(|| format!("lbha {}", args.join(" ")))?;
    screen.text(&text);
    Ok(())
}

/// Hands the cluster over to the user; `--clean` ends it.
fn leave_running(cluster: Cluster, screen: &Screen) -> Result<()> {
    scratch::keep()?;
    let binary = daemon::binary()?;
    screen.title("Left running");
    for namespace in cluster.topology.namespaces() {
        screen.line(&format!("nsenter --net=/run/netns/{} bash", namespace.name()));
    }
    let enter = |name: &str| format!("nsenter --net=/run/netns/{name}");
    screen.title("Try");
    let client = enter(cluster.topology.client.name());
    screen.line(&format!("{client} curl -i http://{}/", SERVICE.ip()));
    let runtime = cluster.lbha.runtime_dir();
    let (lb, lbha, runtime) =
        (enter(cluster.topology.lb.name()), binary.display(), runtime.display());
    screen.line(&format!("{lb} {lbha} show status --runtime-dir {runtime}"));
    screen.line(&format!("less {}", cluster.lbha.log_path().display()));
    screen.title("Clean up");
    screen.line("cargo xtask demo --clean");
    // On purpose: their destructors would end it all.
    mem::forget(cluster);
    Ok(())
}

/// Who answered, in order.
#[derive(Default)]
struct Tally {
    answers: Vec<Option<String>>,
    first_failure: Option<String>,
}

impl Tally {
    fn add(&mut self, answer: Result<String>) {
        match answer {
            Ok(name) => self.answers.push(Some(name)),
            Err(error) => {
                self.answers.push(None);
                self.first_failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    fn failures(&self) -> usize {
        self.answers.iter().filter(|answer| answer.is_none()).count()
    }

    fn per_server(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for name in self.answers.iter().flatten() {
            *counts.entry(name.as_str()).or_default() += 1;
        }
        counts
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("requests   {}", self.answers.len())];
        for (name, count) in self.per_server() {
            let share = 100 * count / self.answers.len();
            lines.push(format!("{name:<10} {count} ({share} %)"));
        }
        lines.push(format!("failures   {}", self.failures()));
        lines
    }

    /// Fine if both servers answered, and never one of them twice in a row.
    fn judge(&self) -> Result<()> {
        if let Some(first) = &self.first_failure {
            bail!("{} requests failed, the first: {first}", self.failures());
        }
        let servers = self.per_server();
        ensure!(
            servers.keys().eq(["web1", "web2"].iter()),
            "answers came from {:?} and not from web1 and web2",
            servers.keys()
        );
        let repeated = self.answers.windows(2).filter(|pair| pair[0] == pair[1]).count();
        ensure!(repeated == 0, "{repeated} times a server answered twice in a row");
        Ok(())
    }
}

/// Output with colour, on a terminal that wants it.
struct Screen {
    colour: bool,
}

impl Screen {
    fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour: wanted && io::stdout().is_terminal() }
    }

    fn title(&self, text: &str) {
        self.write("\n", "1", text);
    }

    fn text(&self, text: &str) {
        for line in text.trim_matches('\n').lines() {
            self.line(line);
        }
    }

    fn line(&self, line: &str) {
        self.write("  ", "", line);
    }

    fn command(&self, host: &str, command: &str) {
        self.write("  ", "2", &format!("{host}# {command}"));
    }

    /// Each server in a colour of its own, so that turns are seen at a glance.
    fn answer(&self, name: &str) {
        self.write("  ", if name == "web1" { "36" } else { "35" }, name);
    }

    fn good(&self, text: &str) {
        self.write("\n", "32", text);
    }

    fn bad(&self, text: &str) {
        self.write("  ", "31", text);
    }

    /// Errors are ignored: a closed pipe (`| head`) is no reason to leave namespaces behind, nor to panic.
    fn write(&self, before: &str, code: &str, text: &str) {
        let mut out = io::stdout().lock();
        let _ = if self.colour && !code.is_empty() {
            writeln!(out, "{before}\x1b[{code}m{text}\x1b[0m")
        } else {
            writeln!(out, "{before}{text}")
        };
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(answers: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for answer in answers {
            tally.add(match *answer {
                "" => Err(anyhow::anyhow!("refused")),
                name => Ok(name.to_owned()),
            });
        }
        tally
    }

    #[test]
    fn only_servers_that_take_turns_are_fine() {
        tally(&["web2", "web1", "web2"]).judge().unwrap();
        for bad in [&["web1", "web2", "web2"][..], &["web1", "web1"], &["web1", "", "web1"], &[]] {
            assert!(tally(bad).judge().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_summary_counts_requests_servers_and_failures() {
        let lines = tally(&["web1", "web2", "", "web2"]).lines();
        let expected =
            ["requests   4", "web1       1 (25 %)", "web2       2 (50 %)", "failures   1"];
        assert_eq!(lines, expected);
    }
}
