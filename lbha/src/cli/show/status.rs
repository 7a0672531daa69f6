//! `lbha show status`

use std::time::Duration;

use super::{
    Look,
    rates::{Before, per_second},
};
use crate::{
    api::types::{Interface, Status, Table as Usage},
    cli::output::{Cell, Table, Tone, bytes, clean, duration, percent},
};

pub fn render(now: &Status, before: Option<Before<'_, Status>>, look: Look) -> String {
    let Status {
        version,
        abi,
        pid,
        uptime_seconds,
        config,
        pins,
        ready,
        warnings,
        interfaces,
        flow_table,
        half_open_table,
        flow_table_v6,
        half_open_table_v6,
        masqueraded,
        masqueraded_v6,
        services,
        servers,
    } = now;
    let (state, tone) = if *ready { ("ready", Tone::Good) } else { ("not ready", Tone::Bad) };
    let state = tone.paint(state, look.colour);
    let config = config.as_deref().map_or_else(|| "none: flags only".to_owned(), clean);
    let mut out = format!(
        "state      {state}, up {}\n\
         version    {} (abi {abi}), pid {pid}\n\
         config     {config}\n\
         pins       {}\n\
         services   {services}, with {servers} servers\n\
         flows      {}; IPv6: {}\n\
         half-open  {}; IPv6: {}\n\
         nat        {masqueraded} masqueraded connections; IPv6: {masqueraded_v6}\n",
        duration(*uptime_seconds),
        clean(version),
        clean(pins),
        usage(flow_table, look),
        usage(flow_table_v6, look),
        usage(half_open_table, look),
        usage(half_open_table_v6, look),
    );
    if !interfaces.is_empty() {
        out.push('\n');
        out.push_str(&interface_table(interfaces, before, look));
    }
    if !warnings.is_empty() {
        out.push('\n');
    }
    for warning in warnings {
        let line = format!("warning: {}", clean(warning));
        out.push_str(&Tone::Warning.paint(&line, look.colour));
        out.push('\n');
    }
    out
}

fn usage(table: &Usage, look: Look) -> String {
    let Usage { connections, capacity } = *table;
    let text = format!("{connections} of {capacity} ({})", percent(connections, capacity));
    let tone = match connections.saturating_mul(100).checked_div(capacity) {
        Some(95..) => Tone::Bad,
        Some(80..) => Tone::Warning,
        _ => Tone::Plain,
    };
    tone.paint(&text, look.colour)
}

fn interface_table(now: &[Interface], before: Option<Before<'_, Status>>, look: Look) -> String {
    let mut table = Table::new().left(&["INTERFACE", "SIDE", "MODE"]);
    if look.wide {
        table = table.left(&["ATTACHED TO", "MAC", "VLANS", "MULTI-BUFFER"]);
        table = table.right(&["IFINDEX", "PROGRAM"]);
    }
    table = table.right(&["MTU", "FORWARDED", "BYTES", "PASSED", "DROPPED"]);
    if look.rates {
        table = table.right(&["PPS", "BIT/S", "DROPS/S"]);
    }
    for interface in now {
        let Interface {
            side,
            name,
            attached_to,
            ifindex,
            mac,
            mtu,
            vlans,
            mode,
            multi_buffer,
            program_id,
            forwarded_packets,
            forwarded_bytes,
            passed_packets,
            dropped_packets,
        } = interface;
        let mode_tone = match mode.as_str() {
            "native" => Tone::Plain,
            "detached" => Tone::Bad,
            _ => Tone::Warning,
        };
        let mut row = vec![Cell::new(name), Cell::new(side), Cell::new(mode).tone(mode_tone)];
        if look.wide {
            let vlans: Vec<_> = vlans.iter().map(u16::to_string).collect();
            row.extend([
                Cell::new(attached_to),
                Cell::new(mac),
                Cell::maybe((!vlans.is_empty()).then(|| vlans.join("."))),
                Cell::new(if *multi_buffer { "yes" } else { "no" }),
                Cell::from(ifindex),
                Cell::maybe(*program_id),
            ]);
        }
        row.extend([
            Cell::from(mtu),
            Cell::from(forwarded_packets),
            Cell::new(bytes(*forwarded_bytes)),
            Cell::from(passed_packets),
            Cell::count(*dropped_packets, Tone::Bad),
        ]);
        if look.rates {
            let same = |then: &&Interface| (&then.side, &then.name) == (side, name);
            let then = before.and_then(|before| before.then.interfaces.iter().find(same));
            let elapsed = before.map_or(Duration::ZERO, |before| before.elapsed);
            let bits = |bytes: u64| bytes.saturating_mul(8);
            row.extend([
                per_second(then.map(|t| t.forwarded_packets), *forwarded_packets, elapsed),
                per_second(then.map(|t| bits(t.forwarded_bytes)), bits(*forwarded_bytes), elapsed),
                per_second(then.map(|t| t.dropped_packets), *dropped_packets, elapsed),
            ]);
        }
        table.row(row);
    }
    table.render(look.colour)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing;

    #[test]
    fn table() {
        assert_eq!(
            render(&testing::status(0), None, Look::default()),
            "\
state      ready, up 2h4m
version    0.1.0 (abi 1), pid 4242
config     /etc/lbha/lbha.toml
pins       /sys/fs/bpf/lbha/v1
services   2, with 3 servers
flows      12345 of 1000000 (1.2%); IPv6: 120 of 250000 (<0.1%)
half-open  3 of 65536 (<0.1%); IPv6: 0 of 65536 (0.0%)
nat        8123 masqueraded connections; IPv6: 12

INTERFACE    SIDE     MODE      MTU  FORWARDED      BYTES  PASSED  DROPPED
bond0        public   native   1500    1204311  870.4 MiB    8812        0
ens14f1.100  private  generic  9000     998120    4.8 GiB      12        7

warning: ens14f1 is attached in generic mode: expect a fraction of the speed
"
        );
    }

    #[test]
    fn wide() {
        let look = Look { wide: true, ..Look::default() };
        assert_eq!(
            render(&testing::status(0), None, look),
            "\
state      ready, up 2h4m
version    0.1.0 (abi 1), pid 4242
config     /etc/lbha/lbha.toml
pins       /sys/fs/bpf/lbha/v1
services   2, with 3 servers
flows      12345 of 1000000 (1.2%); IPv6: 120 of 250000 (<0.1%)
half-open  3 of 65536 (<0.1%); IPv6: 0 of 65536 (0.0%)
nat        8123 masqueraded connections; IPv6: 12

INTERFACE    SIDE     MODE     ATTACHED TO  MAC                VLANS  MULTI-BUFFER  IFINDEX  PROGRAM   MTU  FORWARDED      BYTES  PASSED  DROPPED
bond0        public   native   bond0        0c:42:a1:00:00:01  -      yes                 4       71  1500    1204311  870.4 MiB    8812        0
ens14f1.100  private  generic  ens14f1      0c:42:a1:00:00:02  100    no                  3        -  9000     998120    4.8 GiB      12        7

warning: ens14f1 is attached in generic mode: expect a fraction of the speed
"
        );
    }

    #[test]
    fn watched() {
        let look = Look { rates: true, ..Look::default() };
        let then = testing::status(0);
        let before = Before { then: &then, elapsed: Duration::from_secs(2) };
        assert_eq!(
            render(&testing::status(1), Some(before), look),
            "\
state      ready, up 2h4m
version    0.1.0 (abi 1), pid 4242
config     /etc/lbha/lbha.toml
pins       /sys/fs/bpf/lbha/v1
services   2, with 3 servers
flows      12345 of 1000000 (1.2%); IPv6: 120 of 250000 (<0.1%)
half-open  3 of 65536 (<0.1%); IPv6: 0 of 65536 (0.0%)
nat        8123 masqueraded connections; IPv6: 12

INTERFACE    SIDE     MODE      MTU  FORWARDED      BYTES  PASSED  DROPPED   PPS  BIT/S  DROPS/S
bond0        public   native   1500    1209311  875.2 MiB    8812        0  2.5k  20.0M        0
ens14f1.100  private  generic  9000     998120    4.8 GiB      12       10     0      0        2

warning: ens14f1 is attached in generic mode: expect a fraction of the speed
"
        );
    }

    #[test]
    fn trouble_stands_out() {
        let mut status = testing::status(0);
        status.ready = false;
        status.config = None;
        status.interfaces.clear();
        status.flow_table.connections = 960_000;
        status.half_open_table = Usage::default();
        status.warnings = vec!["a\x1b[0mb".into()];
        let look = Look { colour: true, ..Look::default() };
        assert_eq!(
            render(&status, None, look),
            "\
state      \x1b[1;31mnot ready\x1b[0m, up 2h4m
version    0.1.0 (abi 1), pid 4242
config     none: flags only
pins       /sys/fs/bpf/lbha/v1
services   2, with 3 servers
flows      \x1b[1;31m960000 of 1000000 (96.0%)\x1b[0m; IPv6: 120 of 250000 (<0.1%)
half-open  0 of 0 (-); IPv6: 0 of 65536 (0.0%)
nat        8123 masqueraded connections; IPv6: 12

\x1b[33mwarning: a?[0mb\x1b[0m
"
        );
    }
}
