//! Checks that need more than one value: uniqueness, references, what is missing altogether.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use lbha_common::limits::MAX_BACKENDS;

use super::diagnostics::{Origin, Problem, Report};
use super::draft::{Draft, DraftPool, DraftServer, DraftService, Field, Located};
use super::model::{MAX_SERVERS, MAX_SERVICES, Scheduler};
use super::suggest::nearest;
use super::values::quoted;

mod gateway;

/// Checks the draft as a whole. Values that were reported already are skipped.
pub(super) fn check(draft: &Draft, has_file: bool, report: &mut Report) {
    if has_file {
        required(draft, report);
    }
    let mut users = Users::new();
    for service in &draft.services {
        if let Some(pool) = &service.pool {
            users.entry(&pool.value).or_default().push(service);
        }
    }
    services(&draft.services, report);
    pools(draft, &users, report);
    servers_of_services(draft, report);
    families(draft, report);
    gateway::check(draft, report);
    references(draft, report);
    hints(draft, &users, report);
}

/// The services that name a pool, by its name.
type Users<'a> = HashMap<&'a str, Vec<&'a DraftService>>;

fn users_of<'a>(users: &'a Users<'_>, pool: &DraftPool) -> &'a [&'a DraftService] {
    let name = pool.name.as_ref().map(|name| name.value.as_str());
    name.and_then(|name| users.get(name)).map_or(&[], Vec::as_slice)
}

/// What must come from the file when no flag gave it.
fn required(draft: &Draft, report: &mut Report) {
    if matches!(draft.interfaces.public, Field::Absent) {
        let help = "add `public = \"eth0\"`, or give --iface";
        report.push(match &draft.interfaces.table {
            Some(table) => Problem::error(table.clone(), "[interfaces] has no `public`").help(help),
            None => Problem::error(Origin::WholeFile, "there is no [interfaces]")
                .help("add it with `public = \"eth0\"`, or give --iface"),
        });
    }
    if !has_purpose(draft) && !draft.unreadable {
        report.push(
            Problem::error(
                Origin::WholeFile,
                "there is no [[service]], [[masquerade]] or [[forward]]",
            )
            .help(
                "add a service with `name`, `vip`, `port` and `pool`, or give --vip and --server, \
                 or --masquerade",
            ),
        );
    }
}

/// Whether there is anything to do.
fn has_purpose(draft: &Draft) -> bool {
    !draft.services.is_empty() || !draft.masquerades.is_empty() || !draft.forwards.is_empty()
}

fn services(services: &[DraftService], report: &mut Report) {
    unique(services.iter().filter_map(|service| service.name.as_ref()), "service", report);

    let mut taken: HashMap<_, &Origin> = HashMap::new();
    for service in services {
        if let (Some(vip), Some(port), Some(protocol)) =
            (&service.vip, &service.port, service.protocol)
        {
            match taken.get(&(vip.value, port.value, protocol)) {
                Some(first) => report.push(
                    Problem::error(
                        vip.origin.clone(),
                        format!(
                            "{}/{protocol} is served twice",
                            SocketAddr::new(vip.value, port.value)
                        ),
                    )
                    .label("again here")
                    .related((*first).clone(), "first served here"),
                ),
                None => {
                    taken.insert((vip.value, port.value, protocol), &vip.origin);
                }
            }
        }
    }

    if let Some(service) = services.get(MAX_SERVICES) {
        report.push(Problem::error(
            service.origin.clone(),
            format!("too many services: {} of at most {MAX_SERVICES}", services.len()),
        ));
    }
}

fn pools(draft: &Draft, users: &Users<'_>, report: &mut Report) {
    unique(draft.pools.iter().filter_map(|pool| pool.name.as_ref()), "pool", report);

    let ours = Ours::of(draft);
    for pool in &draft.pools {
        let Some(servers) = &pool.servers else {
            continue;
        };
        unique(servers.iter().filter_map(|server| server.name.as_ref()), "server", report);
        addresses(servers, &ports(users_of(users, pool)), report);
        for address in servers.iter().filter_map(|server| server.address.as_ref()) {
            ours.refuse(address.value.0, &address.origin, "server", report);
        }
        if let Some(DraftServer { address: Some(address), .. }) = servers.get(MAX_SERVERS) {
            report.push(Problem::error(
                address.origin.clone(),
                format!("too many servers in a pool: {} of at most {MAX_SERVERS}", servers.len()),
            ));
        }
    }
}

/// The datapath has an entry for each server of each service, and for each forward.
fn servers_of_services(draft: &Draft, report: &mut Report) {
    let mut sizes: HashMap<&str, usize> = HashMap::new();
    for pool in &draft.pools {
        if let (Some(name), Some(servers)) = (&pool.name, &pool.servers) {
            sizes.entry(&name.value).or_insert(servers.len());
        }
    }
    let size = |service: &DraftService| {
        service
            .pool
            .as_ref()
            .and_then(|pool| sizes.get(pool.value.as_str()))
            .map_or(0, |size| *size)
    };
    let total: usize = draft.services.iter().map(size).sum();
    let mut so_far = 0;
    let culprit = draft.services.iter().take(MAX_SERVICES).find(|service| {
        so_far += size(service);
        so_far > MAX_BACKENDS
    });
    if let Some(service) = culprit {
        report.push(
            Problem::error(
                service.origin.clone(),
                format!("too many servers over all services: {total} of at most {MAX_BACKENDS}"),
            )
            .help("a server counts once for each service that uses its pool"),
        );
        return;
    }
    // Nor are there more services than that: each has a server.
    if let Some(free) = MAX_BACKENDS.checked_sub(total)
        && let Some(forward) = draft.forwards.get(free)
    {
        let count = total + draft.forwards.len();
        report.push(
            Problem::error(
                forward.origin.clone(),
                format!(
                    "too many servers and forwards: {count} of at most {MAX_BACKENDS} together"
                ),
            )
            .help("a server counts once for each service that uses its pool"),
        );
    }
}

/// The addresses that connections come in at.
struct Ours<'a>(HashMap<IpAddr, (&'static str, &'a Origin)>);

impl<'a> Ours<'a> {
    fn of(draft: &'a Draft) -> Self {
        let mut all = HashMap::new();
        for vip in draft.services.iter().filter_map(|service| service.vip.as_ref()) {
            all.entry(vip.value).or_insert(("VIP", &vip.origin));
        }
        for address in draft.forwards.iter().filter_map(|forward| forward.address.as_ref()) {
            all.entry(address.value.ip()).or_insert(("address of a forward", &address.origin));
        }
        Self(all)
    }

    /// Reports a host behind the load balancer that would be the load balancer itself.
    fn refuse(&self, address: IpAddr, origin: &Origin, what: &str, report: &mut Report) {
        let Some((kind, ours)) = self.0.get(&address) else { return };
        let (article, label) = match *kind {
            "VIP" => ("a", "the VIP of a service"),
            _ => ("the", "the address of a forward"),
        };
        report.push(
            Problem::error(origin.clone(), format!("the {what} {address} is {article} {kind}"))
                .label("the same address")
                .related((*ours).clone(), label)
                .help(format!(
                    "write the {what}'s own address: packets to {article} {kind} come back here"
                )),
        );
    }
}

/// A service and its servers speak the same IP.
fn families(draft: &Draft, report: &mut Report) {
    let mut vips: HashMap<&str, Vec<&Located<IpAddr>>> = HashMap::new();
    for service in draft.services.iter().take(MAX_SERVICES) {
        if let (Some(pool), Some(vip)) = (&service.pool, &service.vip) {
            let vips = vips.entry(&pool.value).or_default();
            // One of each family is enough.
            if vips.iter().all(|known| known.value.is_ipv4() != vip.value.is_ipv4()) {
                vips.push(vip);
            }
        }
    }
    for pool in &draft.pools {
        let name = pool.name.as_ref().map(|name| name.value.as_str());
        let Some(vips) = name.and_then(|name| vips.get(name)) else { continue };
        let servers = pool.servers.iter().flatten();
        for address in servers.filter_map(|server| server.address.as_ref()) {
            let server = address.value.0;
            let Some(vip) = vips.iter().find(|vip| vip.value.is_ipv4() != server.is_ipv4()) else {
                continue;
            };
            report.push(
                Problem::error(
                    address.origin.clone(),
                    format!(
                        "the server {server} is {}, and the VIP {} is {}",
                        family(server),
                        vip.value,
                        family(vip.value)
                    ),
                )
                .related(vip.origin.clone(), "the VIP of a service that uses the pool")
                .help("make a pool for each family: lbha does not translate one into the other"),
            );
        }
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Two members that are one: the same address and port, also when one of them takes its port
/// from a service.
fn addresses(servers: &[DraftServer], ports: &HashSet<u16>, report: &mut Report) {
    let mut taken: HashMap<(IpAddr, Option<u16>), &Origin> = HashMap::new();
    for found in servers.iter().filter_map(|server| server.address.as_ref()) {
        let (address, port) = found.value;
        let mut same = vec![(address, port)];
        match port {
            Some(port) if ports.contains(&port) => same.push((address, None)),
            Some(_) => {}
            None => same.extend(ports.iter().map(|port| (address, Some(*port)))),
        }
        // The earliest, since a set has no order and messages must not change from run to run.
        let first =
            same.iter().filter_map(|key| taken.get(key).copied()).min_by_key(
                |origin| match origin {
                    Origin::File(span) => span.start,
                    _ => 0,
                },
            );
        match first {
            Some(first) => report.push(
                Problem::error(
                    found.origin.clone(),
                    format!("the server {} is in the pool twice", endpoint(address, port)),
                )
                .label("again here")
                .related(first.clone(), "first defined here"),
            ),
            None => {
                taken.insert((address, port), &found.origin);
            }
        }
    }
}

fn ports(services: &[&DraftService]) -> HashSet<u16> {
    services.iter().filter_map(|service| service.port.as_ref()).map(|port| port.value).collect()
}

/// Each service's pool exists.
fn references(draft: &Draft, report: &mut Report) {
    // A pool whose name could not be read may be the one that is meant.
    if draft.pools_unreadable || draft.pools.iter().any(|pool| pool.name.is_none()) {
        return;
    }
    let mut known: HashSet<&str> = HashSet::new();
    let names: Vec<&str> = pool_names(draft)
        .map(|name| name.value.as_str())
        .filter(|&name| known.insert(name))
        .collect();
    let named =
        draft.services.iter().take(MAX_SERVICES).filter_map(|service| service.pool.as_ref());
    for pool in named {
        if known.contains(pool.value.as_str()) {
            continue;
        }
        let problem = Problem::error(
            pool.origin.clone(),
            format!("there is no pool {}", quoted(&pool.value)),
        );
        report.push(match nearest(&pool.value, names.iter().copied().take(COMPARED_NAMES)) {
            Some(meant) => problem.help(format!("did you mean \"{meant}\"?")),
            None if names.is_empty() => problem.help("add a [[pool]] with this name"),
            None => {
                let list: Vec<String> =
                    names.iter().take(SHOWN_NAMES).map(|name| format!("\"{name}\"")).collect();
                let more = if names.len() > SHOWN_NAMES { ", ..." } else { "" };
                problem.help(format!("known pools: {}{more}", list.join(", ")))
            }
        });
    }
}

/// Warnings: what is allowed, and probably not meant.
fn hints(draft: &Draft, users: &Users<'_>, report: &mut Report) {
    // A service that names no pool, or one that is not there, may mean any of them.
    let known: HashSet<&str> = pool_names(draft).map(|name| name.value.as_str()).collect();
    let all_known = has_purpose(draft)
        && !draft.unreadable
        && draft.services.iter().all(|service| {
            service.pool.as_ref().is_some_and(|pool| known.contains(pool.value.as_str()))
        });
    for pool in &draft.pools {
        let Some(name) = &pool.name else {
            continue;
        };
        let services = users_of(users, pool);
        if all_known && services.is_empty() {
            report.push(
                Problem::warning(
                    name.origin.clone(),
                    format!("no service uses the pool \"{}\"", name.value),
                )
                .help(format!("write `pool = \"{}\"` in a service, or remove it", name.value)),
            );
        }
        let Some(weights) = weights(pool) else {
            continue;
        };
        if !weights.is_empty() && weights.iter().all(|weight| weight.value == 0) {
            report.push(
                Problem::warning(
                    name.origin.clone(),
                    format!("the pool \"{}\" takes no connections: all weights are 0", name.value),
                )
                .help("give a server a weight of 1 or more"),
            );
        }
        let in_turn = !services.is_empty()
            && services.iter().all(|service| service.scheduler == Some(Scheduler::Rr));
        if in_turn && let Some(weight) = weights.iter().find(|weight| weight.value > 1) {
            report.push(
                Problem::warning(
                    weight.origin.clone(),
                    "this weight has no effect: the scheduler \"rr\" treats all servers alike",
                )
                .help("write `scheduler = \"wrr\"` in the service"),
            );
        }
    }
}

/// All weights of a pool, or `None` when one could not be read.
fn weights(pool: &DraftPool) -> Option<Vec<&Located<u16>>> {
    pool.servers.as_ref()?.iter().map(|server| server.weight.as_ref()).collect()
}

fn pool_names(draft: &Draft) -> impl Iterator<Item = &Located<String>> {
    draft.pools.iter().filter_map(|pool| pool.name.as_ref())
}

/// Each name once; the first is shown with every repetition.
fn unique<'a>(names: impl Iterator<Item = &'a Located<String>>, what: &str, report: &mut Report) {
    let mut taken: HashMap<&str, &Origin> = HashMap::new();
    for name in names {
        match taken.get(name.value.as_str()) {
            Some(first) => report.push(
                Problem::error(
                    name.origin.clone(),
                    format!("the {what} \"{}\" is defined twice", name.value),
                )
                .label("again here")
                .related((*first).clone(), "first defined here"),
            ),
            None => {
                taken.insert(&name.value, &name.origin);
            }
        }
    }
}

fn endpoint(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// More names than this make a message longer, not better.
const SHOWN_NAMES: usize = 5;
/// A bound on the work for a file in which nothing fits.
const COMPARED_NAMES: usize = 1000;
