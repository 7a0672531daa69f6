//! `lbha show nat`

use std::net::SocketAddr;

use super::Look;
use crate::{
    api::types::{Nat, NatBinding, NatExternal, NatRefused, NatSource},
    cli::output::{Cell, Table, Tone, duration, percent, rate},
};

/// Sources that are listed whatever they use.
const TOP_SOURCES: usize = 10;
/// Percent of its quota above which a source is listed.
const NOTABLE: f64 = 1.0;

/// External addresses, sources, bindings: what concerns all first.
pub fn render(now: &Nat, look: Look) -> String {
    let Nat { externals, sources, refused, bindings, total, truncated } = now;
    let mut sections = Vec::new();
    if !externals.is_empty() {
        sections.push(external_table(externals, look).render(look.colour));
    }
    sections.extend(refusals(refused, look));
    let notable = sources
        .iter()
        .enumerate()
        .filter(|(index, source)| *index < TOP_SOURCES || source.percent > Some(NOTABLE))
        .map(|(_, source)| source);
    let of_sources = source_table(notable);
    if !of_sources.is_empty() {
        sections.push(of_sources.render(look.colour));
    }
    if bindings.is_empty() {
        sections.push("no bindings\n".to_owned());
    } else {
        sections.push(binding_table(bindings, look).render(look.colour));
    }
    if *truncated {
        let line = format!(
            "the first {} of {total} only: --limit shows more, filters show fewer\n",
            bindings.len()
        );
        sections.push(Tone::Warning.paint(line.trim_end(), look.colour) + "\n");
    }
    sections.join("\n")
}

fn external_table(externals: &[NatExternal], look: Look) -> Table {
    let mut table = Table::new().left(&["EXTERNAL", "PROTO"]);
    table = table.right(&["CONNECTIONS", "USED", "PORTS", "%"]);
    if look.wide {
        table = table.right(&["BOUND", "BUSIEST"]);
    }
    table = table.left(&["BUSIEST REMOTE"]).right(&["GROWTH/S", "EXHAUSTED IN"]);
    for external in externals {
        let NatExternal {
            address,
            protocol,
            connections,
            ports,
            used,
            percent: _,
            busiest,
            busiest_ports,
            bound,
            growth,
            exhausted_in_seconds,
        } = external;
        let mut row = vec![
            Cell::from(address),
            Cell::new(protocol),
            Cell::from(connections),
            Cell::from(used),
            Cell::maybe(*ports),
            share(*used, *ports),
        ];
        if look.wide {
            row.extend([Cell::from(bound), Cell::from(busiest_ports)]);
        }
        row.extend([
            Cell::maybe(busiest.map(|remote| endpoint(protocol, remote))),
            Cell::maybe(growth.map(signed_rate)),
            left(*exhausted_in_seconds),
        ]);
        table.row(row);
    }
    table
}

fn source_table<'a>(sources: impl Iterator<Item = &'a NatSource>) -> Table {
    let mut table = Table::new().left(&["SOURCE"]).right(&["CONNECTIONS", "QUOTA", "%"]);
    for source in sources {
        let NatSource { address, connections, quota, percent: _ } = source;
        table.row([
            Cell::from(address),
            Cell::from(connections),
            Cell::maybe(*quota),
            share((*connections).into(), *quota),
        ]);
    }
    table
}

fn binding_table(bindings: &[NatBinding], look: Look) -> Table {
    let mut table = Table::new().left(&["PROTO", "STATE", "DIRECTION"]);
    table = table.left(&["INSIDE", "EXTERNAL", "REMOTE"]).right(&["AGE", "IDLE"]);
    if look.wide {
        table = table.left(&["RULE"]);
    }
    for binding in bindings {
        let NatBinding {
            protocol,
            inside,
            external,
            remote,
            state,
            direction,
            age_seconds,
            idle_seconds,
            rule,
        } = binding;
        let mut row = vec![
            Cell::new(protocol),
            Cell::new(state),
            Cell::new(direction),
            Cell::from(inside),
            Cell::from(external),
            Cell::maybe(remote.map(|remote| endpoint(protocol, remote))),
            Cell::new(duration(*age_seconds)),
            Cell::maybe(idle_seconds.map(duration)),
        ];
        if look.wide {
            row.push(Cell::new(rule));
        }
        table.row(row);
    }
    table
}

/// Nothing when nothing was refused.
fn refusals(refused: &NatRefused, look: Look) -> Option<String> {
    let NatRefused { no_free_port, source_quota, no_external_address } = *refused;
    let reasons: Vec<String> = [
        (no_free_port, "no_free_port"),
        (source_quota, "source_quota"),
        (no_external_address, "no_external_address"),
    ]
    .into_iter()
    .filter(|(packets, _)| *packets > 0)
    .map(|(packets, reason)| format!("{packets} {reason}"))
    .collect();
    if reasons.is_empty() {
        return None;
    }
    let line = format!("refused so far, packets: {}", reasons.join(", "));
    Some(Tone::Warning.paint(&line, look.colour) + "\n")
}

/// A remote end: what is pinged has no port.
pub(super) fn endpoint(protocol: &str, remote: SocketAddr) -> String {
    if protocol == "icmp" && remote.port() == 0 {
        remote.ip().to_string()
    } else {
        remote.to_string()
    }
}

/// Of what there is; in the tones of the flow tables' usage.
fn share(used: u64, whole: Option<u32>) -> Cell {
    let Some(whole) = whole.map(u64::from) else { return Cell::new("-") };
    let tone = match used.saturating_mul(100).checked_div(whole) {
        Some(95..) => Tone::Bad,
        Some(80..) => Tone::Warning,
        _ => Tone::Plain,
    };
    Cell::new(percent(used, whole)).tone(tone)
}

fn signed_rate(growth: f64) -> String {
    let text = rate(growth.abs());
    if growth < 0.0 && text != "0" { format!("-{text}") } else { text }
}

/// Minutes are for a warning, and what is gone is worse.
fn left(seconds: Option<u64>) -> Cell {
    let tone = match seconds {
        Some(..60) => Tone::Bad,
        Some(..3600) => Tone::Warning,
        _ => Tone::Plain,
    };
    let text = seconds.map(|s| if s == 0 { "now".to_owned() } else { duration(s) });
    Cell::maybe(text).tone(tone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing;

    #[test]
    fn table() {
        assert_eq!(render(&testing::nat(), Look::default()), "\
EXTERNAL       PROTO  CONNECTIONS  USED  PORTS      %  BUSIEST REMOTE     GROWTH/S  EXHAUSTED IN
147.75.78.116  tcp           7840  5230  31744  16.5%  198.51.100.10:443        12        35m38s
147.75.78.116  udp            283    41  31744   0.1%  198.51.100.53:53         -1             -
2001:db8::116  icmp            12     1  31744  <0.1%  2001:db8:ffff::53         -             -

refused so far, packets: 17 source_quota

SOURCE        CONNECTIONS  QUOTA      %
192.168.1.10         6120  16384  37.4%
192.168.1.11         2003  16384  12.2%
fd00:1::10             12  16384  <0.1%

PROTO  STATE        DIRECTION  INSIDE              EXTERNAL              REMOTE               AGE  IDLE
tcp    established  out        192.168.1.10:40000  147.75.78.116:2048    198.51.100.10:443  3m12s    4s
udp    bound        any        192.168.1.11:6881   147.75.78.116:6881    -                  3m12s     -
icmp   icmp         out        [fd00:1::10]:7      [2001:db8::116]:1031  2001:db8:ffff::53  3m12s    4s
");
    }

    #[test]
    fn wide() {
        let look = Look { wide: true, ..Look::default() };
        assert_eq!(render(&testing::nat(), look), "\
EXTERNAL       PROTO  CONNECTIONS  USED  PORTS      %  BOUND  BUSIEST  BUSIEST REMOTE     GROWTH/S  EXHAUSTED IN
147.75.78.116  tcp           7840  5230  31744  16.5%      0     5230  198.51.100.10:443        12        35m38s
147.75.78.116  udp            283    41  31744   0.1%      3       41  198.51.100.53:53         -1             -
2001:db8::116  icmp            12     1  31744  <0.1%      0        1  2001:db8:ffff::53         -             -

refused so far, packets: 17 source_quota

SOURCE        CONNECTIONS  QUOTA      %
192.168.1.10         6120  16384  37.4%
192.168.1.11         2003  16384  12.2%
fd00:1::10             12  16384  <0.1%

PROTO  STATE        DIRECTION  INSIDE              EXTERNAL              REMOTE               AGE  IDLE  RULE
tcp    established  out        192.168.1.10:40000  147.75.78.116:2048    198.51.100.10:443  3m12s    4s  192.168.1.0/24
udp    bound        any        192.168.1.11:6881   147.75.78.116:6881    -                  3m12s     -  192.168.1.0/24
icmp   icmp         out        [fd00:1::10]:7      [2001:db8::116]:1031  2001:db8:ffff::53  3m12s    4s  fd00:1::/64
");
    }

    #[test]
    fn what_is_left_out_is_said() {
        let mut nat = testing::nat();
        nat.externals.clear();
        nat.sources.clear();
        nat.refused = NatRefused::default();
        nat.bindings.truncate(1);
        nat.truncated = true;
        assert_eq!(render(&nat, Look::default()), "\
PROTO  STATE        DIRECTION  INSIDE              EXTERNAL            REMOTE               AGE  IDLE
tcp    established  out        192.168.1.10:40000  147.75.78.116:2048  198.51.100.10:443  3m12s    4s

the first 1 of 3 only: --limit shows more, filters show fewer
");
    }

    #[test]
    fn small_sources_are_left_out_behind_the_first_ten() {
        let mut nat = testing::nat();
        let source = |n: u8, percent| NatSource {
            address: [192, 168, 1, n].into(),
            connections: 200 - u32::from(n),
            quota: Some(16_384),
            percent: Some(percent),
        };
        nat.sources = (0..20).map(|n| source(n, if n == 15 { 1.1 } else { 1.0 })).collect();
        let text = render(&nat, Look::default());
        let listed: Vec<_> =
            (0..20).filter(|n| text.contains(&format!("192.168.1.{n}  "))).collect();
        assert_eq!(listed, (0..10).chain([15]).collect::<Vec<_>>(), "{text}");
    }

    #[test]
    fn exhaustion_stands_out() {
        let mut nat = testing::nat();
        nat.externals.truncate(1);
        nat.sources.clear();
        nat.bindings.clear();
        nat.externals[0].used = 31_744;
        nat.externals[0].percent = Some(100.0);
        nat.externals[0].exhausted_in_seconds = Some(0);
        let look = Look { colour: true, ..Look::default() };
        let text = render(&nat, look);
        assert!(text.contains("\x1b[1;31m100.0%\x1b[0m"), "{text}");
        assert!(text.contains("\x1b[1;31mnow\x1b[0m"), "{text}");
        assert!(text.contains("\x1b[33mrefused so far, packets: "), "{text}");
        assert!(text.ends_with("\nno bindings\n"), "{text}");
        let cell = |seconds| left(seconds);
        assert_eq!(cell(Some(59)), Cell::new("59s").tone(Tone::Bad));
        assert_eq!(cell(Some(600)), Cell::new("10m0s").tone(Tone::Warning));
        assert_eq!(cell(Some(7440)), Cell::new("2h4m"));
        assert_eq!(cell(None), Cell::new("-"));
    }

    #[test]
    fn growth_has_a_sign_only_downwards() {
        for (growth, text) in
            [(0.0, "0"), (12.4, "12"), (-12.4, "-12"), (0.25, "0.2"), (1500.0, "1.5k")]
        {
            assert_eq!(signed_rate(growth), text);
        }
    }

    #[test]
    fn none() {
        assert_eq!(render(&Nat::default(), Look::default()), "no bindings\n");
    }
}
