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

/// Drop reasons that occurred, or with `all` every verdict; then, under headings of their own, what is no verdict about a
/// packet that came in for good: those that wait, and those that the program has sent itself.
pub fn render(
    now: &Vec<InterfaceCounters>,
    before: Option<Before<'_, Vec<InterfaceCounters>>>,
    look: Look,
    all: bool,
) -> String {
    let rows = Rows { now, before, look };
    let verdicts = rows.table("REASON", all, |counter| match counter.verdict.as_str() {
        "drop" => all || counter.packets > 0,
        "hold" | "answer" => false,
        _ => all,
    });
    let mut out = if verdicts.is_empty() {
        "no packets dropped\n".to_owned()
    } else {
        verdicts.render(look.colour)
    };
    for (verdict, heading, title) in [
        ("hold", "held for a moment, and counted again when they go on:", "HELD"),
        ("answer", "answered, beside the verdict on the packet that asked:", "ANSWER"),
    ] {
        let table = rows.table(title, false, |c| c.verdict == verdict && (all || c.packets > 0));
        if !table.is_empty() {
            out.push_str(&format!("\n{heading}\n{}", table.render(look.colour)));
        }
    }
    out
}

#[derive(Clone, Copy)]
struct Rows<'a> {
    now: &'a [InterfaceCounters],
    before: Option<Before<'a, Vec<InterfaceCounters>>>,
    look: Look,
}

impl Rows<'_> {
    /// The counters that are `wanted`, under `title`. Without --all a verdict's column would say `drop` on every line.
    fn table(
        self,
        title: &'static str,
        with_verdict: bool,
        wanted: impl Fn(&Counter) -> bool,
    ) -> Table {
        let Self { now, before, look } = self;
        let mut table = Table::new().left(&["INTERFACE", "SIDE"]);
        if with_verdict {
            table = table.left(&["VERDICT"]);
        }
        table = table.left(&[title]).right(&["PACKETS"]);
        if look.rates {
            table = table.right(&["PPS"]);
        }
        if look.wide {
            table = table.left(&["MEANING"]);
        }
        for InterfaceCounters { side, name, counters } in now {
            for counter in counters.iter().filter(|counter| wanted(counter)) {
                let Counter { reason, verdict, packets, help } = counter;
                let tone = if verdict == "drop" { Tone::Bad } else { Tone::Plain };
                let mut row = vec![Cell::new(name), Cell::new(side)];
                if with_verdict {
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
        table
    }
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

held for a moment, and counted again when they go on:
INTERFACE  SIDE    HELD           PACKETS
bond0      public  fragment_held        5

answered, beside the verdict on the packet that asked:
INTERFACE  SIDE    ANSWER      PACKETS
bond0      public  echo_reply     1204
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

held for a moment, and counted again when they go on:
INTERFACE    SIDE     HELD           PACKETS  MEANING
bond0        public   fragment_held        5  Held until its first fragment comes.
ens14f1.100  private  fragment_held        0  Held until its first fragment comes.

answered, beside the verdict on the packet that asked:
INTERFACE    SIDE     ANSWER      PACKETS  MEANING
bond0        public   echo_reply     1204  Echo reply in the name of a VIP.
ens14f1.100  private  echo_reply        0  Echo reply in the name of a VIP.
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

held for a moment, and counted again when they go on:
INTERFACE  SIDE    HELD           PACKETS  PPS
bond0      public  fragment_held        5    0

answered, beside the verdict on the packet that asked:
INTERFACE  SIDE    ANSWER      PACKETS  PPS
bond0      public  echo_reply     1204    0
"
        );
    }

    #[test]
    fn answers_are_no_drops() {
        let mut drops = testing::drops(0);
        drops.truncate(1);
        drops[0].counters.retain(|counter| counter.verdict == "answer");
        assert_eq!(
            render(&drops, None, Look::default(), false),
            "\
no packets dropped

answered, beside the verdict on the packet that asked:
INTERFACE  SIDE    ANSWER      PACKETS
bond0      public  echo_reply     1204
"
        );
    }

    #[test]
    fn none() {
        assert_eq!(render(&vec![], None, Look::default(), false), "no packets dropped\n");
    }
}
