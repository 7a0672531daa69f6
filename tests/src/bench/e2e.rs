//! HTTP from a client to two nginx through each kind of load balancer, in one run, compared with none.
//!
//! Client, router, load balancer and servers share the machine's cores. So the rate says how much the whole path costs, and
//! the CPU time per request, less that of plain routing, what the load balancer adds. The kinds take turns within each round
//! and every ratio is one of the same round: a machine that slows down for a while does not favour any of them.

use std::{
    fmt::{self, Write as _},
    net::SocketAddrV4,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use crate::{
    bench::{
        cpu::Snapshot,
        median,
        wrk::{self, Load},
    },
    daemon::{self, GUIDE_CONFIG, Lbha},
    nginx::{Access, Nginx},
    peers::{self, HaProxy},
    signals::Interrupt,
    topology::{SERVICE, Topology, web_address},
    wait::wait_until,
};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    pub rounds: u32,
    /// Of one load on one balancer.
    pub seconds: u32,
    pub balancers: Vec<Balancer>,
    /// Ends the run between two measurements.
    pub interrupt: Option<Interrupt>,
    /// Says on stderr what is being done.
    pub progress: bool,
}

impl Default for Options {
    fn default() -> Self {
        let available = |balancer: &Balancer| !balancer.is_lbha() || daemon::binary().is_ok();
        Self {
            rounds: 5,
            seconds: 3,
            balancers: Balancer::ALL.into_iter().filter(available).collect(),
            interrupt: None,
            progress: true,
        }
    }
}

/// A way to get from the client to a web server.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balancer {
    /// No load balancer: the kernel routes to one server.
    Plain,
    Nft,
    Haproxy,
    LbhaFullnat,
    LbhaNat,
    /// `fullnat` with one server: what the forwarding itself costs beside plain routing to that server.
    LbhaOneServer,
}

impl Balancer {
    pub const ALL: [Self; 6] = [
        Self::Plain,
        Self::Nft,
        Self::Haproxy,
        Self::LbhaFullnat,
        Self::LbhaNat,
        Self::LbhaOneServer,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Nft => "nft",
            Self::Haproxy => "haproxy",
            Self::LbhaFullnat => "lbha-fullnat",
            Self::LbhaNat => "lbha-nat",
            Self::LbhaOneServer => "lbha-one-server",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|balancer| balancer.name() == name)
    }

    pub fn is_lbha(self) -> bool {
        matches!(self, Self::LbhaFullnat | Self::LbhaNat | Self::LbhaOneServer)
    }

    fn target(self) -> SocketAddrV4 {
        match self {
            Self::Plain => SocketAddrV4::new(web_address(0), 80),
            _ => SERVICE,
        }
    }

    fn start(self, topology: &Topology) -> Result<Running> {
        Ok(match self {
            Self::Plain => {
                peers::forward_in_kernel(topology)?;
                Running::InKernel
            }
            Self::Nft => {
                peers::nft_dnat(topology)?;
                Running::InKernel
            }
            Self::Haproxy => {
                more_ports(&topology.lb)?;
                Running::Haproxy { _process: HaProxy::start(topology)? }
            }
            Self::LbhaFullnat => Running::lbha(topology, "fullnat", GUIDE_CONFIG)?,
            Self::LbhaNat => Running::lbha(topology, "nat", GUIDE_CONFIG)?,
            Self::LbhaOneServer => {
                let without_web2 = GUIDE_CONFIG.lines().filter(|line| !line.contains("web2"));
                let config: String = without_web2.flat_map(|line| [line, "\n"]).collect();
                Running::lbha(topology, "fullnat", &config)?
            }
        })
    }
}

/// A balancer at work, until it is dropped.
enum Running {
    InKernel,
    Haproxy { _process: HaProxy },
    Lbha { _daemon: Lbha },
}

impl Running {
    fn lbha(topology: &Topology, mode: &str, config: &str) -> Result<Self> {
        let with_mode = format!("pool = \"nginx_pool\"\nmode = \"{mode}\"\n");
        let config = config.replacen("pool = \"nginx_pool\"\n", &with_mode, 1);
        Ok(Self::Lbha { _daemon: Lbha::start(topology, &config)? })
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub requests: f64,
    pub requests_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// CPU time of everything that is ours, the kernel's work included.
    pub cpu_us_per_request: f64,
    /// The share of the machine's CPU time that processes of others took: noise.
    pub others: f64,
    pub failed: f64,
}

/// All measurements of one balancer under one load.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub balancer: Balancer,
    pub load: Load,
    pub samples: Vec<Sample>,
    pub requests_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub cpu_us_per_request: f64,
    pub others: f64,
    /// Of all rounds together.
    pub failed: f64,
    pub to_plain: Option<ToPlain>,
}

/// Medians over the rounds, each compared with plain routing in the same round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ToPlain {
    /// Requests per second, as a ratio.
    pub requests_per_second: f64,
    /// CPU time per request, as a ratio.
    pub cpu: f64,
    /// CPU time that the balancer adds to a request.
    pub added_cpu_us: f64,
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub rounds: u32,
    pub seconds: u32,
    pub rows: Vec<Row>,
}

/// Measures every balancer under both loads, round by round.
pub fn run(options: &Options) -> Result<Report> {
    let Options { rounds, seconds, balancers, interrupt, progress } = options;
    raise_open_files()?;
    let mut samples: Vec<(Balancer, Load, Vec<Sample>)> = Vec::new();
    for load in [Load::KeepAlive, Load::OneShot] {
        samples.extend(balancers.iter().map(|balancer| (*balancer, load, Vec::new())));
    }
    for round in 1..=*rounds {
        for balancer in balancers {
            if let Some(interrupt) = interrupt {
                interrupt.check()?;
            }
            if *progress {
                eprintln!("round {round} of {rounds}: {}", balancer.name());
            }
            let measured = measure(*balancer, *seconds)
                .with_context(|| format!("{} in round {round}", balancer.name()))?;
            for (load, sample) in measured {
                let (.., row) = samples
                    .iter_mut()
                    .find(|(of, under, _)| (*of, *under) == (*balancer, load))
                    .context("a row for every measurement")?;
                row.push(sample);
            }
        }
    }
    let plain =
        |load: Load| samples.iter().find(|(of, under, _)| (*of, *under) == (Balancer::Plain, load));
    let rows = samples.iter().map(|(balancer, load, of)| {
        Row::new(*balancer, *load, of, plain(*load).map(|(.., samples)| samples.as_slice()))
    });
    Ok(Report { rounds: *rounds, seconds: *seconds, rows: rows.collect() })
}

/// Both loads on one balancer, in a network of its own: nothing is left of those before.
fn measure(balancer: Balancer, seconds: u32) -> Result<[(Load, Sample); 2]> {
    let topology = Topology::new()?;
    // Plain routing and nat mode show the servers the client's address.
    let _servers = Nginx::start_all(&topology, Access::Open)?;
    more_ports(&topology.client)?;
    topology.client.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
    let _running = balancer.start(&topology)?;
    let target = balancer.target();
    wait_until(Duration::from_secs(10), "the servers answer", || {
        (0..4).all(|_| topology.get(target, "/").is_ok_and(|response| response.status == 200))
    })?;
    let load = |load: Load| -> Result<(Load, Sample)> {
        let before = Snapshot::take()?;
        let outcome = wrk::run(&topology.client, target, load, seconds)?;
        let usage = before.until(&Snapshot::take()?)?;
        let wrk::Outcome { requests, requests_per_second, p50_us, p99_us, failed } = outcome;
        if requests == 0.0 {
            bail!("no request was answered");
        }
        let sample = Sample {
            requests,
            requests_per_second,
            p50_us,
            p99_us,
            cpu_us_per_request: usage.ours * 1e6 / requests,
            others: usage.others / usage.total,
            failed,
        };
        Ok((load, sample))
    };
    Ok([load(Load::KeepAlive)?, load(Load::OneShot)?])
}

/// A connection per request uses up the default range within seconds.
fn more_ports(namespace: &crate::netns::Netns) -> Result<()> {
    namespace.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
}

/// The soft limit up to the hard one; programs started later inherit it.
fn raise_open_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")
}

impl Row {
    fn new(balancer: Balancer, load: Load, samples: &[Sample], plain: Option<&[Sample]>) -> Self {
        let of = |field: fn(&Sample) -> f64| median(samples.iter().map(field));
        let against = |compare: fn(&Sample, &Sample) -> f64, plain: &[Sample]| {
            median(samples.iter().zip(plain).map(|(sample, plain)| compare(sample, plain)))
        };
        Self {
            balancer,
            load,
            samples: samples.to_vec(),
            requests_per_second: of(|sample| sample.requests_per_second),
            p50_us: of(|sample| sample.p50_us),
            p99_us: of(|sample| sample.p99_us),
            cpu_us_per_request: of(|sample| sample.cpu_us_per_request),
            others: of(|sample| sample.others),
            failed: samples.iter().map(|sample| sample.failed).sum(),
            to_plain: plain.map(|plain| ToPlain {
                requests_per_second: against(
                    |sample, plain| sample.requests_per_second / plain.requests_per_second,
                    plain,
                ),
                cpu: against(
                    |sample, plain| sample.cpu_us_per_request / plain.cpu_us_per_request,
                    plain,
                ),
                added_cpu_us: against(
                    |sample, plain| sample.cpu_us_per_request - plain.cpu_us_per_request,
                    plain,
                ),
            }),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, seconds, rows } = self;
        writeln!(
            f,
            "HTTP end to end: wrk -t1 -c64, {seconds} s each, medians of {rounds} interleaved rounds"
        )?;
        for load in [Load::KeepAlive, Load::OneShot] {
            let title = match load {
                Load::KeepAlive => "keep-alive",
                Load::OneShot => "a connection per request",
            };
            writeln!(
                f,
                "\n{title:<26}{:>9}{:>9}{:>9}{:>9}{:>10}{:>9}{:>10}{:>8}{:>8}",
                "req/s",
                "to plain",
                "p50 us",
                "p99 us",
                "CPU us/rq",
                "to plain",
                "added us",
                "others",
                "failed"
            )?;
            for row in rows.iter().filter(|row| row.load == load) {
                writeln!(f, "{}", row.line())?;
            }
        }
        let others = rows.iter().map(|row| row.others).fold(0.0, f64::max);
        if others > NOISY {
            let percent = others * 100.0;
            writeln!(
                f,
                "\nOther programs took up to {percent:.0} % of the machine's CPU time: only the columns of CPU time per \
                 request still compare."
            )?;
        }
        Ok(())
    }
}

impl Row {
    fn line(&self) -> String {
        let mut line = format!("  {:<24}{:>9.0}", self.balancer.name(), self.requests_per_second);
        let (rate, cpu, added) = match self.to_plain {
            Some(ToPlain { requests_per_second, cpu, added_cpu_us }) => (
                format!("{requests_per_second:.2}x"),
                format!("{cpu:.2}x"),
                format!("{added_cpu_us:.1}"),
            ),
            None => ("-".into(), "-".into(), "-".into()),
        };
        let _ = write!(
            line,
            "{rate:>9}{:>9.0}{:>9.0}{:>10.1}{cpu:>9}{added:>10}{:>7.0}%{:>8.0}",
            self.p50_us,
            self.p99_us,
            self.cpu_us_per_request,
            self.others * 100.0,
            self.failed
        );
        line
    }
}

/// The share of others above which rates and latencies say little.
const NOISY: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(requests_per_second: f64, cpu_us_per_request: f64) -> Sample {
        Sample {
            requests: 100.0,
            requests_per_second,
            p50_us: 1.0,
            p99_us: 2.0,
            cpu_us_per_request,
            others: 0.0,
            failed: 1.0,
        }
    }

    #[test]
    fn ratios_are_those_within_a_round() {
        // The machine is half as fast in the second round, for both.
        let plain = [sample(100.0, 10.0), sample(50.0, 20.0), sample(100.0, 10.0)];
        let other = [sample(80.0, 12.0), sample(40.0, 24.0), sample(80.0, 12.0)];
        let row = Row::new(Balancer::Nft, Load::KeepAlive, &other, Some(&plain));
        let to_plain = row.to_plain.unwrap();
        assert_eq!((to_plain.requests_per_second, to_plain.added_cpu_us), (0.8, 2.0));
        assert_eq!((row.requests_per_second, row.failed), (80.0, 3.0));
    }

    #[test]
    fn every_balancer_is_known_by_its_name() {
        for balancer in Balancer::ALL {
            assert_eq!(Balancer::from_name(balancer.name()), Some(balancer));
        }
        assert_eq!(Balancer::from_name("ipvs"), None);
    }

    #[test]
    fn the_guide_s_configuration_takes_a_mode() {
        assert!(GUIDE_CONFIG.contains("pool = \"nginx_pool\"\n"));
    }
}
