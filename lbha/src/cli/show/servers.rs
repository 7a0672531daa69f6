//! `lbha show servers`

use std::time::Duration;

use super::{
    Look,
    rates::{self, Before},
    services::traffic_cells,
};
use crate::{
    api::types::Server,
    cli::output::{Cell, Table, Tone},
};

pub fn render(now: &Vec<Server>, before: Option<Before<'_, Vec<Server>>>, look: Look) -> String {
    let mut table = Table::new().left(&["SERVICE"]);
    if look.wide {
        table = table.left(&["POOL"]);
    }
    table = table.left(&["SERVER", "ADDRESS", "STATE"]);
    if look.wide {
        table = table.left(&["MAC", "SOURCE"]);
    }
    table = table.right(&["WEIGHT", "SHARE", "CURRENT", "CONNECTIONS"]);
    if look.wide {
        table = table.right(&["ESTABLISHED", "PACKETS IN", "PACKETS OUT"]);
    }
    table = table.right(&["IN", "OUT"]);
    if look.rates {
        table = table.right(&rates::TITLES);
    }
    for server in now {
        let Server { service, pool, name, address, weight, state, mac, source, share, traffic } =
            server;
        let state_tone = match state.as_str() {
            "usable" => Tone::Good,
            "retired" => Tone::Warning,
            _ => Tone::Bad,
        };
        let mut row = vec![Cell::new(service)];
        if look.wide {
            row.push(Cell::new(pool));
        }
        row.extend([Cell::new(name), Cell::from(address), Cell::new(state).tone(state_tone)]);
        if look.wide {
            row.extend([Cell::maybe(mac.as_ref()), Cell::maybe(*source)]);
        }
        row.extend([Cell::from(weight), Cell::new(format!("{:.1}%", share * 100.0))]);
        row.extend(traffic_cells(traffic, look));
        if look.rates {
            // The address too: a server that moved keeps its name and starts counting anew.
            let key = |s: &Server| (s.service.clone(), s.name.clone(), s.address);
            let then = before.and_then(|b| b.then.iter().find(|then| key(then) == key(server)));
            let elapsed = before.map_or(Duration::ZERO, |before| before.elapsed);
            row.extend(rates::cells(then.map(|t| &t.traffic), traffic, elapsed));
        }
        table.row(row);
    }
    if table.is_empty() { "no servers\n".to_owned() } else { table.render(look.colour) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing;

    #[test]
    fn table() {
        assert_eq!(
            render(&testing::servers(0), None, Look::default()),
            "\
SERVICE  SERVER  ADDRESS          STATE       WEIGHT  SHARE  CURRENT  CONNECTIONS       IN        OUT
www      web1    192.168.1.10:80  usable           1  50.0%      156        10256  5.9 MiB  424.4 MiB
www      web2    192.168.1.11:80  retired          1   0.0%        4        10256      0 B        0 B
dns      ns1     192.168.1.53:53  unresolved      10   0.0%        0            0      0 B        0 B
"
        );
    }

    #[test]
    fn wide() {
        let look = Look { wide: true, ..Look::default() };
        assert_eq!(
            render(&testing::servers(0), None, look),
            "\
SERVICE  POOL        SERVER  ADDRESS          STATE       MAC                SOURCE       WEIGHT  SHARE  CURRENT  CONNECTIONS  ESTABLISHED  PACKETS IN  PACKETS OUT       IN        OUT
www      nginx_pool  web1    192.168.1.10:80  usable      0c:42:a1:11:00:10  192.168.1.2       1  50.0%      156        10256        10250       75100        85450  5.9 MiB  424.4 MiB
www      nginx_pool  web2    192.168.1.11:80  retired     0c:42:a1:11:00:11  192.168.1.2       1   0.0%        4        10256            0           0            0      0 B        0 B
dns      dns         ns1     192.168.1.53:53  unresolved  -                  -                10   0.0%        0            0            0           0            0      0 B        0 B
"
        );
    }

    #[test]
    fn watched() {
        let look = Look { rates: true, ..Look::default() };
        let then = testing::servers(0);
        let before = Before { then: &then, elapsed: Duration::from_secs(1) };
        assert_eq!(
            render(&testing::servers(1), Some(before), look),
            "\
SERVICE  SERVER  ADDRESS          STATE       WEIGHT  SHARE  CURRENT  CONNECTIONS       IN        OUT  CONN/S   PPS  BIT/S
www      web1    192.168.1.10:80  usable           1  50.0%      156        10266  6.0 MiB  425.0 MiB      10  1.0k   5.4M
www      web2    192.168.1.11:80  retired          1   0.0%        4        10256      0 B        0 B       0     0      0
dns      ns1     192.168.1.53:53  unresolved      10   0.0%        0            0      0 B        0 B       0     0      0
"
        );
    }

    #[test]
    fn both_families() {
        let mut servers = testing::servers(0);
        servers[0].address = "[fd00:1:0:1::10]:8080".parse().unwrap();
        servers[0].source = Some("fd00:1:0:1::1".parse().unwrap());
        let look = Look { wide: true, ..Look::default() };
        assert_eq!(render(&servers, None, look), "\
SERVICE  POOL        SERVER  ADDRESS                STATE       MAC                SOURCE         WEIGHT  SHARE  CURRENT  CONNECTIONS  ESTABLISHED  PACKETS IN  PACKETS OUT       IN        OUT
www      nginx_pool  web1    [fd00:1:0:1::10]:8080  usable      0c:42:a1:11:00:10  fd00:1:0:1::1       1  50.0%      156        10256        10250       75100        85450  5.9 MiB  424.4 MiB
www      nginx_pool  web2    192.168.1.11:80        retired     0c:42:a1:11:00:11  192.168.1.2         1   0.0%        4        10256            0           0            0      0 B        0 B
dns      dns         ns1     192.168.1.53:53        unresolved  -                  -                  10   0.0%        0            0            0           0            0      0 B        0 B
");
    }

    #[test]
    fn none() {
        assert_eq!(render(&vec![], None, Look::default()), "no servers\n");
    }
}
