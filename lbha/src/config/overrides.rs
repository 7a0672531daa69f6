//! The flags of `lbha run` on top of the file.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::addresses::{self, Role};
use super::diagnostics::{Origin, Problem, Report};
use super::draft::{
    Draft, DraftMasquerade, DraftPool, DraftServer, DraftService, DraftTo, Field, Listed, Located,
};
use super::model::{Keyword, Mapping, Masquerade, Mode, Protocol, Scheduler};
use super::values::{self, Invalid, plain};

/// Flags as typed, not yet checked. None given is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--iface`: instead of `public` in `[interfaces]`.
    pub iface: Option<String>,
    /// `--private-iface`: instead of `private` in `[interfaces]`.
    pub private_iface: Option<String>,
    /// `--vip ADDRESS:PORT`, one service each, instead of all services and pools of the file.
    pub vip: Vec<String>,
    /// `--server ADDRESS[:PORT]`, the members of the pool behind each `--vip`.
    pub server: Vec<String>,
    /// `--scheduler`, for the services of `--vip`.
    pub scheduler: Option<String>,
    /// `--mode`, for the services of `--vip`.
    pub mode: Option<String>,
    /// `--protocol`, for the services of `--vip`.
    pub protocol: Option<String>,
    /// `--masquerade PREFIX`, the sources of one masquerade instead of all of the file.
    pub masquerade: Vec<String>,
    /// `--runtime-dir`: where the admin socket is unless the file says.
    pub runtime_dir: Option<PathBuf>,
}

impl Overrides {
    /// Puts the flags into the draft. `has_file` changes only what is said about missing flags.
    pub(super) fn apply(&self, draft: &mut Draft, has_file: bool, report: &mut Report) {
        self.check_presence(has_file, report);
        if let Some(name) = &self.iface {
            draft.interfaces.public = field("--iface", name, values::interface, report);
        }
        if let Some(name) = &self.private_iface {
            draft.interfaces.private = field("--private-iface", name, values::interface, report);
        }
        if !self.masquerade.is_empty() {
            draft.masquerades = vec![self.masquerade(report)];
        }
        let protocol = word("--protocol", self.protocol.as_deref(), report);
        let scheduler = word("--scheduler", self.scheduler.as_deref(), report);
        let mode = word("--mode", self.mode.as_deref(), report);
        let services = self.services(protocol, scheduler, mode, report);
        let servers = self.servers(report);
        if !self.vip.is_empty() {
            draft.services = services;
            let name = Located { value: POOL.to_owned(), origin: Origin::CommandLine };
            draft.pools_unreadable = false;
            draft.pools = vec![DraftPool { name: Some(name), servers: Some(servers) }];
        }
    }

    /// Which flags must come together.
    fn check_presence(&self, has_file: bool, report: &mut Report) {
        let mut missing = Vec::new();
        // A gateway alone is a purpose too.
        let needs_services = !has_file && self.masquerade.is_empty();
        if !has_file && self.iface.is_none() {
            missing.push("--iface");
        }
        if self.vip.is_empty() && (needs_services || !self.server.is_empty()) {
            missing.push("--vip");
        }
        if self.server.is_empty() && (needs_services || !self.vip.is_empty()) {
            missing.push("--server");
        }
        if !missing.is_empty() {
            let verb = if missing.len() == 1 { "is" } else { "are" };
            let list = missing.join(" and ").replacen(" and ", ", ", missing.len().max(2) - 2);
            report.push(if has_file {
                Problem::error(Origin::CommandLine, format!("{list} {verb} missing"))
                    .help("--vip and --server together replace the services of the file")
            } else {
                let message = format!("without a configuration file, {list} {verb} missing");
                let example = if self.vip.is_empty() && self.server.is_empty() {
                    "for example: --iface eth0 --vip 203.0.113.10:80 --server 192.168.1.10:80, \
                     or --iface eth0 --private-iface eth1 --masquerade 192.168.1.0/24"
                } else {
                    "for example: --iface eth0 --vip 203.0.113.10:80 --server 192.168.1.10:80"
                };
                Problem::error(Origin::CommandLine, message).help(example)
            });
        }
        if (has_file || !self.masquerade.is_empty()) && self.vip.is_empty() {
            let flags = [
                ("--protocol", &self.protocol),
                ("--scheduler", &self.scheduler),
                ("--mode", &self.mode),
            ];
            for (flag, value) in flags {
                if let Some(value) = value {
                    let message = "only the services of --vip take this flag";
                    let help = if has_file {
                        "set it for each service in the file, or add --vip"
                    } else {
                        "leave it out, or add --vip and --server"
                    };
                    report.push(Problem::error(origin(flag, value), message).help(help));
                }
            }
        }
    }

    fn services(
        &self,
        protocol: Option<Protocol>,
        scheduler: Option<Scheduler>,
        mode: Option<Mode>,
        report: &mut Report,
    ) -> Vec<DraftService> {
        let service = |(index, text): (usize, &String)| {
            let origin = origin("--vip", text);
            let found = located(&origin, vip(text), report);
            DraftService {
                name: Some(at(&origin, format!("cli-{}", index + 1))),
                vip: found.map(|(vip, _)| at(&origin, vip)),
                port: found.map(|(_, port)| at(&origin, port)),
                protocol,
                scheduler,
                mode,
                pool: Some(at(&origin, POOL.to_owned())),
                origin,
            }
        };
        self.vip.iter().enumerate().map(service).collect()
    }

    fn masquerade(&self, report: &mut Report) -> DraftMasquerade {
        let origin_of = |text| origin("--masquerade", text);
        let mut items = Vec::new();
        for text in &self.masquerade {
            let origin = origin_of(text);
            let found = located(&origin, addresses::source(text), report);
            items.extend(found.map(|source| at(&origin, source)));
        }
        let origin = origin_of(&self.masquerade[0]);
        DraftMasquerade {
            source: Listed { complete: items.len() == self.masquerade.len(), items },
            to: Some(at(&origin, DraftTo::Auto)),
            ports: Some(Masquerade::PORTS),
            mapping: Some(Mapping::default()),
            max_ports_per_source: Some(Masquerade::MAX_PORTS_PER_SOURCE),
            origin,
        }
    }

    fn servers(&self, report: &mut Report) -> Vec<DraftServer> {
        let server = |(index, text): (usize, &String)| {
            let origin = origin("--server", text);
            let found = located(&origin, addresses::endpoint(text, Role::Server), report);
            DraftServer {
                name: Some(at(&origin, format!("server-{}", index + 1))),
                address: found.map(|address| at(&origin, address)),
                weight: Some(at(&origin, 1)),
            }
        };
        self.server.iter().enumerate().map(server).collect()
    }
}

/// An address with the port that a VIP cannot do without.
fn vip(text: &str) -> Result<(IpAddr, u16), Invalid> {
    match addresses::endpoint(text, Role::Vip)? {
        (address, Some(port)) => Ok((address, port)),
        (address, None) => Err(Invalid::new("a VIP needs its port")
            .help(format!("write --vip {}", SocketAddr::new(address, 80)))),
    }
}

fn origin(flag: &str, value: &str) -> Origin {
    // An empty value would be invisible.
    let value = if value.is_empty() { "\"\"".to_owned() } else { plain(value) };
    Origin::Flag(format!("{flag} {value}"))
}

fn at<T>(origin: &Origin, value: T) -> Located<T> {
    Located { value, origin: origin.clone() }
}

fn located<T>(origin: &Origin, result: Result<T, Invalid>, report: &mut Report) -> Option<T> {
    result.map_err(|invalid| report.push(invalid.at(origin.clone()))).ok()
}

fn field<T>(
    flag: &str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
    report: &mut Report,
) -> Field<T> {
    let origin = origin(flag, text);
    match located(&origin, parse(text), report) {
        Some(value) => Field::Valid(Located { value, origin }),
        None => Field::Invalid,
    }
}

fn word<T: Keyword + Default>(flag: &str, text: Option<&str>, report: &mut Report) -> Option<T> {
    match text {
        Some(text) => field(flag, text, values::keyword, report).valid().map(|found| found.value),
        None => Some(T::default()),
    }
}

/// The pool that the servers of the flags make up.
const POOL: &str = "cli";
