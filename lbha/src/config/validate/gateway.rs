//! Checks of masquerades and forwards against each other and against the services.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Ours, family, unique};
use crate::config::diagnostics::{Origin, Problem, Report};
use crate::config::draft::{Draft, DraftForward, DraftMasquerade, DraftTo, Field, Listed, Located};
use crate::config::model::{
    MAX_MASQUERADE_ADDRESSES, MAX_MASQUERADE_SOURCES, MAX_MASQUERADES, MAX_SERVICES,
};
use crate::net::IpPrefix;

pub(super) fn check(draft: &Draft, report: &mut Report) {
    counts(draft, report);
    sources(&draft.masquerades, report);
    for masquerade in &draft.masquerades {
        if let Some(Located { value: DraftTo::Addresses(to), origin }) = &masquerade.to {
            addresses(&masquerade.source, to, origin, report);
        }
    }
    forwards(draft, report);
    if !draft.masquerades.is_empty() {
        draft.short_timeouts.iter().for_each(|problem| report.push(problem.clone()));
    }
}

fn counts(draft: &Draft, report: &mut Report) {
    let masquerades = &draft.masquerades;
    if let Some(masquerade) = masquerades.get(MAX_MASQUERADES) {
        report.push(Problem::error(
            masquerade.origin.clone(),
            format!("too many masquerades: {} of at most {MAX_MASQUERADES}", masquerades.len()),
        ));
    }
    let mut sources = masquerades.iter().flat_map(|masquerade| &masquerade.source.items);
    if let Some(source) = sources.nth(MAX_MASQUERADE_SOURCES) {
        let count: usize = masquerades.iter().map(|m| m.source.items.len()).sum();
        report.push(Problem::error(
            source.origin.clone(),
            format!(
                "too many sources over all masquerades: {count} of at most {MAX_MASQUERADE_SOURCES}"
            ),
        ));
    }
}

/// No connection is masqueraded in two ways.
fn sources(masquerades: &[DraftMasquerade], report: &mut Report) {
    let mut all: Vec<(usize, &Located<IpPrefix>)> = masquerades
        .iter()
        .enumerate()
        .flat_map(|(index, masquerade)| masquerade.source.items.iter().map(move |s| (index, s)))
        .take(MAX_MASQUERADE_SOURCES)
        .collect();
    // A prefix comes before all that it covers. The sort keeps the order of equal ones.
    all.sort_by_key(|(_, source)| source.value);
    let mut around: Vec<(usize, &Located<IpPrefix>)> = Vec::new();
    for (index, source) in all {
        around.retain(|(_, outer)| outer.value.covers(source.value));
        if let Some((block, outer)) = around.iter().find(|(block, _)| *block != index) {
            report.push(overlap(source, index, outer, *block));
        } else if let Some((_, outer)) = around.last() {
            report.push(repeated(source, outer));
        }
        around.push((index, source));
    }
}

/// The same hosts in two masquerades. The later one is to blame, whichever is the larger.
fn overlap(
    inner: &Located<IpPrefix>,
    inner_block: usize,
    outer: &Located<IpPrefix>,
    outer_block: usize,
) -> Problem {
    let (first, again) = if inner_block > outer_block { (outer, inner) } else { (inner, outer) };
    let (a, b) = (again.value, first.value);
    let message = if a == b {
        format!("{a} is masqueraded twice")
    } else if a.len() > b.len() {
        format!("{a} is masqueraded twice: it is in {b}")
    } else {
        format!("{b} is masqueraded twice: it is in {a}")
    };
    Problem::error(again.origin.clone(), message)
        .label("again here")
        .related(first.origin.clone(), "first masqueraded here")
        .help("every host may be in one [[masquerade]] only")
}

fn repeated(source: &Located<IpPrefix>, outer: &Located<IpPrefix>) -> Problem {
    let message = if source.value == outer.value {
        format!("{} is in the list twice", source.value)
    } else {
        format!("{} has no effect: it is in {}", source.value, outer.value)
    };
    Problem::warning(source.origin.clone(), message)
        .related(outer.origin.clone(), "already here")
        .help("remove it")
}

/// What connections leave with, beside where they come from.
fn addresses(source: &Listed<IpPrefix>, to: &Listed<IpAddr>, origin: &Origin, report: &mut Report) {
    let mut taken: HashMap<IpAddr, &Origin> = HashMap::new();
    for address in &to.items {
        if let Some(first) = taken.insert(address.value, &address.origin) {
            report.push(
                Problem::error(
                    address.origin.clone(),
                    format!("{} is in the list twice", address.value),
                )
                .related(first.clone(), "first here"),
            );
        }
        if let Some(own) = source.items.iter().find(|prefix| prefix.value.contains(address.value)) {
            report.push(
                Problem::error(
                    address.origin.clone(),
                    format!("{} is itself in the source {}", address.value, own.value),
                )
                .related(own.origin.clone(), "the source")
                .help("write a public address of this host, or `to = \"auto\"`"),
            );
        }
    }
    for is_ipv4 in [true, false] {
        let mut of_family = to.items.iter().filter(|to| to.value.is_ipv4() == is_ipv4);
        let count = of_family.clone().count();
        if let Some(one_more) = of_family.nth(MAX_MASQUERADE_ADDRESSES) {
            report.push(Problem::error(
                one_more.origin.clone(),
                format!(
                    "too many {} addresses: {count} of at most {MAX_MASQUERADE_ADDRESSES}",
                    family(one_more.value)
                ),
            ));
        }
        let sources = || source.items.iter().filter(|s| s.value.is_ipv4() == is_ipv4);
        if let Some(prefix) = sources().next()
            && count == 0
            && to.complete
        {
            let family = family(prefix.value.addr());
            report.push(
                Problem::error(origin.clone(), format!("`to` has no {family} address"))
                    .related(prefix.origin.clone(), format!("this source is {family}"))
                    .help(format!(
                        "add one, or write a [[masquerade]] of its own for {}",
                        prefix.value
                    )),
            );
        }
        if let Some(address) = to.items.iter().find(|to| to.value.is_ipv4() == is_ipv4)
            && source.complete
            && sources().next().is_none()
        {
            let family = family(address.value);
            report.push(
                Problem::warning(
                    address.origin.clone(),
                    format!("{} has no effect: no source is {family}", address.value),
                )
                .help(format!("add an {family} network to `source`, or remove it")),
            );
        }
    }
}

fn forwards(draft: &Draft, report: &mut Report) {
    names(draft, report);
    let mut taken: HashMap<_, (&str, &Origin)> = HashMap::new();
    for service in &draft.services {
        if let (Some(vip), Some(port), Some(protocol)) =
            (&service.vip, &service.port, service.protocol)
        {
            taken
                .entry((vip.value, port.value, protocol))
                .or_insert(("first served here", &vip.origin));
        }
    }
    let ours = Ours::of(draft);
    for forward in draft.forwards.iter().take(MAX_SERVICES) {
        if let (Some(address), Some(protocol)) = (&forward.address, forward.protocol) {
            let key = (address.value.ip(), address.value.port(), protocol);
            match taken.get(&key) {
                Some((label, first)) => report.push(
                    Problem::error(
                        address.origin.clone(),
                        format!("{}/{protocol} is taken already", address.value),
                    )
                    .label("again here")
                    .related((*first).clone(), *label),
                ),
                None => {
                    taken.insert(key, ("first forwarded here", &address.origin));
                }
            }
        }
        if let Some(to) = &forward.to {
            ours.refuse(to.value.ip(), &to.origin, "target", report);
        }
        families(forward, report);
    }
}

fn families(forward: &DraftForward, report: &mut Report) {
    let (Some(address), Some(to)) = (&forward.address, &forward.to) else { return };
    let (outside, inside) = (address.value.ip(), to.value.ip());
    if outside.is_ipv4() != inside.is_ipv4() {
        report.push(
            Problem::error(
                to.origin.clone(),
                format!(
                    "the target {inside} is {}, and the address {outside} is {}",
                    family(inside),
                    family(outside)
                ),
            )
            .related(address.origin.clone(), "the address of the forward")
            .help("write both in one family: lbha does not translate one into the other"),
        );
    }
}

/// Connections are shown with the name of their service or forward.
fn names(draft: &Draft, report: &mut Report) {
    let named = || {
        draft.forwards.iter().filter_map(|forward| match &forward.name {
            Field::Valid(name) => Some(name),
            _ => None,
        })
    };
    unique(named(), "forward", report);
    let mut services: HashMap<&str, &Origin> = HashMap::new();
    for name in draft.services.iter().filter_map(|service| service.name.as_ref()) {
        services.entry(&name.value).or_insert(&name.origin);
    }
    for name in named() {
        if let Some(service) = services.get(name.value.as_str()) {
            report.push(
                Problem::error(
                    name.origin.clone(),
                    format!("the forward \"{}\" has the name of a service", name.value),
                )
                .related((*service).clone(), "the service"),
            );
        }
    }
}
