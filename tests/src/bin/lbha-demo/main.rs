//! `cargo xtask demo`: the guide's network with lbha as its load balancer, on one machine, to look at.

mod screen;
mod tally;

use std::{mem, net::SocketAddr, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use lbha_tests::{
    daemon::{self, Lbha},
    gateway::{CONFIG, FAMILIES, Family},
    http, is_root,
    netns::Netns,
    nginx::{Access, Nginx},
    pass::Pass,
    scratch::{self, Kept},
    signals::Interrupt,
    topology::{SERVICE, Topology},
};

use screen::Screen;
use tally::Tally;

const HELP: &str = "\
Shows lbha at work over IPv4 and IPv6, in network namespaces of its own: it balances a client's requests to two nginx
servers, and is the gateway through which they reach the internet.

Usage: lbha-demo [--keep | --clean]

  --keep    leave it running, and say how to enter the namespaces
  --clean   remove what --keep or a killed demo left

LBHA_BIN names the lbha binary. Exits with 0 only if the servers took turns and reached the internet.
";

const PICTURE: &str = "
   client  203.0.113.10        router                lb                                     web1  192.168.1.10
           2001:db8:c::10 ──┐                                                           ┌──       fd00:1::10
                            ├─ 147.75.104.176 ────── ens14f0  147.75.104.177            │         nginx
 internet  198.51.100.10  ──┘  2001:db8:104::1                2001:db8:104::2           │
           2001:db8:51::10                           elastic  147.75.78.116             │
           nginx                                              2001:db8:78::116          │
                                                     lbha (XDP)                         │
                                                     ens14f1  192.168.1.1 ─────── vlan ─┤
                                                              fd00:1::1                 │
                                                                                        └── web2  192.168.1.11
                                                                                                  fd00:1::11
                                                                                                  nginx
";

/// The requests of each family shown one by one, and the ones after them that only move the counters.
const SHOWN: usize = 4;
const COUNTED: usize = 96;

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
    _pass: Pass,
    topology: Topology,
}

fn show(keep: bool) -> Result<()> {
    ensure!(is_root(), "needs root to make network namespaces");
    // Before anything else starts a thread.
    let interrupt = Interrupt::install()?;
    let screen = Screen::new();
    daemon::binary()?;

    screen.title("The network, each host a network namespace");
    let topology = Topology::builder().dual_stack().internet().build()?;
    interrupt.check()?;
    let mut servers = Nginx::start_all(&topology, Access::GUIDE)?;
    servers.push(Nginx::start_on_the_internet(&topology)?);
    screen.text(PICTURE);

    screen.title("lbha starts with this file");
    screen.text(CONFIG);
    interrupt.check()?;
    let pass = Pass::on_peers(&topology)?;
    let lbha = Lbha::start(&topology, CONFIG)?;
    let cluster = Cluster { lbha, _servers: servers, _pass: pass, topology };

    let tallies = requests(&cluster, &screen, &interrupt)?;
    let outwards = ask_the_internet(&cluster, &screen, &interrupt);
    look_around(&cluster, &screen)?;
    interrupt.check()?;

    screen.title("Summary");
    for line in tallies.iter().flat_map(Tally::lines) {
        screen.line(&line);
    }
    let outcome = tallies.iter().try_for_each(Tally::judge).and(outwards);
    if keep {
        leave_running(cluster, &screen)?;
    }
    outcome?;
    screen.good("The two servers took turns, and reach the internet through lbha.");
    Ok(())
}

fn requests(cluster: &Cluster, screen: &Screen, interrupt: &Interrupt) -> Result<[Tally; 2]> {
    let mut tallies = [Tally::new("www"), Tally::new("www6")];
    screen.title("The client asks the elastic address, a connection per request");
    for (family, tally) in FAMILIES.iter().zip(&mut tallies) {
        for _ in 0..SHOWN {
            interrupt.check()?;
            let answer = ask(&cluster.topology, family);
            screen.command("client", &format!("curl {}", Family::url(family.elastic)));
            match &answer {
                Ok(name) => screen.answer(name),
                Err(error) => screen.bad(&format!("{error:#}")),
            }
            tally.add(answer);
        }
    }

    screen.title("The counters move with the traffic");
    show_command(cluster, screen, &["show", "services"])?;
    screen.line(&format!("… {COUNTED} more requests to each …"));
    for (family, tally) in FAMILIES.iter().zip(&mut tallies) {
        for _ in 0..COUNTED {
            interrupt.check()?;
            tally.add(ask(&cluster.topology, family));
        }
    }
    show_command(cluster, screen, &["show", "services"])?;
    Ok(tallies)
}

/// Each web server asks the host on the internet, which says whom it has seen.
fn ask_the_internet(cluster: &Cluster, screen: &Screen, interrupt: &Interrupt) -> Result<()> {
    screen.title(
        "Each web server asks a host on the internet, which sees the load balancer's address",
    );
    let mut failure = None;
    for family in &FAMILIES {
        for (number, web) in (1..).zip(&cluster.topology.web) {
            interrupt.check()?;
            screen.command(
                &format!("web{number}"),
                &format!("curl {}", Family::url(family.internet)),
            );
            match seen_by_the_internet(web, family) {
                Ok(seen) => screen.line(&format!("the internet saw {seen}")),
                Err(error) => {
                    screen.bad(&format!("{error:#}"));
                    failure.get_or_insert(error.context(format!("web{number} on the internet")));
                }
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

fn seen_by_the_internet(web: &Netns, family: &Family) -> Result<SocketAddr> {
    let response = web.run_in(|| http::get(SocketAddr::new(family.internet, 80), "/"))?;
    ensure!(response.status == 200, "status {}", response.status);
    let seen = response.client_seen()?;
    ensure!(seen.ip() == family.lb_public, "the internet saw {seen}, not {}", family.lb_public);
    Ok(seen)
}

/// What an operator looks at, with connections open so that there are some to see.
fn look_around(cluster: &Cluster, screen: &Screen) -> Result<()> {
    let Topology { client, web, .. } = &cluster.topology;
    let mut open = Vec::new();
    for family in &FAMILIES {
        let internet = SocketAddr::new(family.internet, 80);
        for (from, to) in [(client, family.service()), (&web[0], internet)] {
            let connect = || http::Connection::open(to, &http::Options::default());
            let mut connection = from.run_in(connect)?;
            connection.get("/")?;
            open.push(connection);
        }
    }
    screen.title("Each server's share");
    show_command(cluster, screen, &["show", "servers"])?;
    screen.title(
        "Connections: of each family one to the service and one of web1 to the internet are open",
    );
    let arguments = ["show", "flows", "--state", "established", "-o", "wide"];
    show_command(cluster, screen, &arguments)?;
    screen.title("And the whole");
    show_command(cluster, screen, &["show", "status"])
}

fn ask(topology: &Topology, family: &Family) -> Result<String> {
    let response = topology.get(family.service(), "/")?;
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
    for family in &FAMILIES {
        screen.line(&format!("{client} curl -i {}", Family::url(family.elastic)));
    }
    screen.line(&format!("{client} ping -c 3 {}", SERVICE.ip()));
    let web1 = enter(cluster.topology.web[0].name());
    for family in &FAMILIES {
        screen.line(&format!("{web1} curl -i {}", Family::url(family.internet)));
    }
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
