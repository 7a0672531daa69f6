//! `lbha show services`

use std::{net::SocketAddr, time::Duration};

use super::{
    Look,
    rates::{self, Before},
};
use crate::{
    api::types::{Service, Traffic},
    cli::output::{Cell, Table, Tone, bytes},
};

pub fn render(now: &Vec<Service>, before: Option<Before<'_, Vec<Service>>>, look: Look) -> String {
    let mut table = Table::new().left(&["SERVICE", "ADDRESS", "PROTO", "SCHEDULER"]);
    if look.wide {
        table = table.left(&["MODE", "POOL"]);
    }
    table = table.right(&["SERVERS", "CURRENT", "CONNECTIONS"]);
    if look.wide {
        table = table.right(&["ESTABLISHED", "PACKETS IN", "PACKETS OUT"]);
    }
    table = table.right(&["IN", "OUT"]);
    if look.rates {
        table = table.right(&rates::TITLES);
    }
    for service in now {
        let Service {
            name,
            vip,
            port,
            protocol,
            scheduler,
            mode,
            pool,
            servers,
            usable_servers,
            traffic,
        } = service;
        let servers_tone = match (*usable_servers, *servers) {
            (0, _) => Tone::Bad,
            (usable, all) if usable < all => Tone::Warning,
            _ => Tone::Plain,
        };
        let mut row = vec![
            Cell::new(name),
            Cell::from(SocketAddr::new(*vip, *port)),
            Cell::new(protocol),
            Cell::new(scheduler),
        ];
        if look.wide {
            row.extend([Cell::new(mode), Cell::new(pool)]);
        }
        row.push(Cell::new(format!("{usable_servers}/{servers}")).tone(servers_tone));
        row.extend(traffic_cells(traffic, look));
        if look.rates {
            let then = before.and_then(|b| b.then.iter().find(|then| then.name == *name));
            let elapsed = before.map_or(Duration::ZERO, |before| before.elapsed);
            row.extend(rates::cells(then.map(|t| &t.traffic), traffic, elapsed));
        }
        table.row(row);
    }
    if table.is_empty() { "no services\n".to_owned() } else { table.render(look.colour) }
}

/// Connections, then packets if wide, then bytes.
pub fn traffic_cells(traffic: &Traffic, look: Look) -> Vec<Cell> {
    let Traffic { connections, established, current, packets_in, bytes_in, packets_out, bytes_out } =
        traffic;
    let mut cells = vec![Cell::from(current), Cell::from(connections)];
    if look.wide {
        cells.extend([Cell::from(established), Cell::from(packets_in), Cell::from(packets_out)]);
    }
    cells.extend([Cell::new(bytes(*bytes_in)), Cell::new(bytes(*bytes_out))]);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing;

    #[test]
    fn table() {
        assert_eq!(
            render(&testing::services(0), None, Look::default()),
            "\
SERVICE  ADDRESS           PROTO  SCHEDULER  SERVERS  CURRENT  CONNECTIONS        IN        OUT
www      147.75.78.116:80  tcp    rr             2/2      312        20512  11.8 MiB  848.8 MiB
dns      147.75.78.116:53  udp    maglev         0/1        0            0       0 B        0 B
"
        );
    }

    #[test]
    fn wide() {
        let look = Look { wide: true, ..Look::default() };
        assert_eq!(
            render(&testing::services(0), None, look),
            "\
SERVICE  ADDRESS           PROTO  SCHEDULER  MODE     POOL        SERVERS  CURRENT  CONNECTIONS  ESTABLISHED  PACKETS IN  PACKETS OUT        IN        OUT
www      147.75.78.116:80  tcp    rr         fullnat  nginx_pool      2/2      312        20512        20498      150233       170900  11.8 MiB  848.8 MiB
dns      147.75.78.116:53  udp    maglev     nat      dns             0/1        0            0            0           0            0       0 B        0 B
"
        );
    }

    #[test]
    fn watched() {
        let look = Look { rates: true, ..Look::default() };
        // The second service is new since.
        let mut then = testing::services(0);
        then.pop();
        let before = Before { then: &then, elapsed: Duration::from_secs(2) };
        assert_eq!(
            render(&testing::services(1), Some(before), look),
            "\
SERVICE  ADDRESS           PROTO  SCHEDULER  SERVERS  CURRENT  CONNECTIONS        IN        OUT  CONN/S   PPS  BIT/S
www      147.75.78.116:80  tcp    rr             2/2      312        20532  11.9 MiB  850.0 MiB      10  1.0k   5.4M
dns      147.75.78.116:53  udp    maglev         0/1        0            0       0 B        0 B       -     -      -
"
        );
    }

    #[test]
    fn both_families() {
        let mut services = testing::services(0);
        services[1].vip = "2001:db8:0:1::116".parse().unwrap();
        assert_eq!(render(&services, None, Look::default()), "\
SERVICE  ADDRESS                 PROTO  SCHEDULER  SERVERS  CURRENT  CONNECTIONS        IN        OUT
www      147.75.78.116:80        tcp    rr             2/2      312        20512  11.8 MiB  848.8 MiB
dns      [2001:db8:0:1::116]:53  udp    maglev         0/1        0            0       0 B        0 B
");
    }

    #[test]
    fn none() {
        assert_eq!(render(&vec![], None, Look::default()), "no services\n");
    }
}
