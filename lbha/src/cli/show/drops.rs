//! `lbha show drops`

use std::time::Duration;

use super::{
    Look,
    rates::{Before, per_second},
};
use crate::{
    api::types::{Counter, InterfaceCounters},
    cli::output::{Cell, Table, Tone},
};

/// Drop reasons that occurred, or with `all` every counter.
pub fn render(
    now: &Vec<InterfaceCounters>,
    before: Option<Before<'_, Vec<InterfaceCounters>>>,
    look: Look,
    all: bool,
) -> String {
    let mut table = Table::new().left(&["INTERFACE", "SIDE"]);
    // Without --all it would say `drop` on every line.
    if all {
        table = table.left(&["VERDICT"]);
    }
    table = table.left(&["REASON"]).right(&["PACKETS"]);
    if look.rates {
        table = table.right(&["PPS"]);
    }
    if look.wide {
        table = table.left(&["MEANING"]);
    }
    for InterfaceCounters { side, name, counters } in now {
        for Counter { reason, verdict, packets, help } in counters {
            let is_drop = verdict == "drop";
            if !(all || is_drop && *packets > 0) {
                continue;
            }
            let tone = if is_drop { Tone::Bad } else { Tone::Plain };
            let mut row = vec![Cell::new(name), Cell::new(side)];
            if all {
                row.push(Cell::new(verdict));
            }
            row.extend([Cell::new(reason), Cell::count(*packets, tone)]);
            if look.rates {
                let then = before.and_then(|before| count(before.then, side, name, reason));
                let elapsed = before.map_or(Duration::ZERO, |before| before.elapsed);
                row.push(per_second(then, *packets, elapsed));
            }
            if look.wide {
                row.push(Cell::new(help));
            }
            table.row(row);
        }
    }
    if table.is_empty() { "no packets dropped\n".to_owned() } else { table.render(look.colour) }
}

fn count(then: &[InterfaceCounters], side: &str, name: &str, reason: &str) -> Option<u64> {
    let interface = then.iter().find(|then| (&*then.side, &*then.name) == (side, name))?;
    interface.counters.iter().find(|then| then.reason == reason).map(|then| then.packets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing;

    #[test]
    fn table() {
        assert_eq!(
            render(&testing::drops(0), None, Look::default(), false),
            "\
INTERFACE  SIDE    REASON   PACKETS
bond0      public  no_flow       17
"
        );
    }

    #[test]
    fn wide() {
        let look = Look { wide: true, ..Look::default() };
        assert_eq!(
            render(&testing::drops(0), None, look, true),
            "\
INTERFACE    SIDE     VERDICT  REASON   PACKETS  MEANING
bond0        public   forward  forward  1204311  Translated and sent out of the other interface.
bond0        public   pass     not_ip        44  Neither IPv4 nor IPv6: ARP and the like.
bond0        public   drop     no_flow       17  Part of no known connection, and not the start of one.
bond0        public   drop     too_big        0  Larger than the next hop's MTU.
ens14f1.100  private  forward  forward   998120  Translated and sent out of the other interface.
ens14f1.100  private  pass     not_ip        44  Neither IPv4 nor IPv6: ARP and the like.
ens14f1.100  private  drop     no_flow        0  Part of no known connection, and not the start of one.
ens14f1.100  private  drop     too_big        0  Larger than the next hop's MTU.
"
        );
    }

    #[test]
    fn watched() {
        let look = Look { rates: true, ..Look::default() };
        let then = testing::drops(0);
        let before = Before { then: &then, elapsed: Duration::from_secs(1) };
        assert_eq!(
            render(&testing::drops(1), Some(before), look, false),
            "\
INTERFACE  SIDE    REASON   PACKETS  PPS
bond0      public  no_flow       19    2
"
        );
    }

    #[test]
    fn none() {
        assert_eq!(render(&vec![], None, Look::default(), false), "no packets dropped\n");
    }
}
