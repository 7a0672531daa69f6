//! `lbha show flows`

use super::{Look, nat::endpoint};
use crate::{
    api::types::{Flow, Flows},
    cli::output::{Cell, Table, Tone, duration},
};

pub fn render(now: &Flows, look: Look) -> String {
    let Flows { flows, truncated } = now;
    let mut table = Table::new().left(&["PROTO", "STATE", "SERVICE", "SERVER", "CLIENT", "VIP"]);
    if look.wide {
        table = table.left(&["SOURCE", "DESTINATION"]);
    }
    table = table.right(&["AGE", "IDLE", "EXPIRES"]);
    for flow in flows {
        let Flow {
            protocol,
            state,
            service,
            server,
            masquerade,
            client,
            vip,
            source,
            destination,
            age_seconds,
            idle_seconds,
            expires_seconds,
        } = flow;
        let masquerade = masquerade.as_ref().map(|sources| format!("masquerade {sources}"));
        let mut row = vec![
            Cell::new(protocol),
            Cell::new(state),
            Cell::maybe(service.as_ref().or(masquerade.as_ref())),
            Cell::maybe(server.as_ref()),
            Cell::from(client),
            Cell::new(endpoint(protocol, *vip)),
        ];
        if look.wide {
            row.extend([Cell::from(source), Cell::new(endpoint(protocol, *destination))]);
        }
        row.extend([age_seconds, idle_seconds, expires_seconds].map(|&s| Cell::new(duration(s))));
        table.row(row);
    }
    if table.is_empty() {
        return "no connections\n".to_owned();
    }
    let mut out = table.render(look.colour);
    if *truncated {
        let line =
            format!("the first {} only: --limit shows more, filters show fewer", flows.len());
        out.push('\n');
        out.push_str(&Tone::Warning.paint(&line, look.colour));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing;

    #[test]
    fn table() {
        assert_eq!(
            render(&testing::flows(), Look::default()),
            "\
PROTO  STATE        SERVICE  SERVER  CLIENT               VIP                 AGE  IDLE  EXPIRES
tcp    established  www      web1    203.0.113.7:51234    147.75.78.116:80  3m12s    4s   23h59m
tcp    syn          -        -       198.51.100.23:40001  147.75.78.116:80     0s    0s      10s
"
        );
    }

    #[test]
    fn wide() {
        let mut flows = testing::flows();
        flows.truncated = true;
        let look = Look { wide: true, ..Look::default() };
        assert_eq!(
            render(&flows, look),
            "\
PROTO  STATE        SERVICE  SERVER  CLIENT               VIP               SOURCE            DESTINATION        AGE  IDLE  EXPIRES
tcp    established  www      web1    203.0.113.7:51234    147.75.78.116:80  192.168.1.2:1024  192.168.1.10:80  3m12s    4s   23h59m
tcp    syn          -        -       198.51.100.23:40001  147.75.78.116:80  192.168.1.2:1025  192.168.1.11:80     0s    0s      10s

the first 2 only: --limit shows more, filters show fewer
"
        );
    }

    #[test]
    fn both_families() {
        let mut flows = testing::flows();
        let flow = &mut flows.flows[0];
        flow.client = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
        flow.vip = "[2001:db8::116]:80".parse().unwrap();
        flow.source = "[fd00:1::1]:1024".parse().unwrap();
        flow.destination = "[fd00:1::10]:80".parse().unwrap();
        let look = Look { wide: true, ..Look::default() };
        assert_eq!(render(&flows, look), "\
PROTO  STATE        SERVICE  SERVER  CLIENT                                          VIP                 SOURCE            DESTINATION        AGE  IDLE  EXPIRES
tcp    established  www      web1    [2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535  [2001:db8::116]:80  [fd00:1::1]:1024  [fd00:1::10]:80  3m12s    4s   23h59m
tcp    syn          -        -       198.51.100.23:40001                             147.75.78.116:80    192.168.1.2:1025  192.168.1.11:80     0s    0s      10s
");
    }

    #[test]
    fn masqueraded_connections_have_their_rule_for_a_service() {
        let mut flows = testing::flows();
        flows.flows[1] = flows.flows[0].clone();
        let flow = &mut flows.flows[1];
        (flow.service, flow.server) = (None, None);
        flow.masquerade = Some("192.168.1.0/24".into());
        flow.client = "192.168.1.10:40000".parse().unwrap();
        flow.vip = "198.51.100.10:443".parse().unwrap();
        let ping = Flow {
            protocol: "icmp".into(),
            state: "icmp".into(),
            client: "192.168.1.10:7".parse().unwrap(),
            vip: "198.51.100.10:0".parse().unwrap(),
            ..flow.clone()
        };
        flows.flows.push(ping);
        assert_eq!(
            render(&flows, Look::default()),
            "\
PROTO  STATE        SERVICE                    SERVER  CLIENT              VIP                  AGE  IDLE  EXPIRES
tcp    established  www                        web1    203.0.113.7:51234   147.75.78.116:80   3m12s    4s   23h59m
tcp    established  masquerade 192.168.1.0/24  -       192.168.1.10:40000  198.51.100.10:443  3m12s    4s   23h59m
icmp   icmp         masquerade 192.168.1.0/24  -       192.168.1.10:7      198.51.100.10      3m12s    4s   23h59m
"
        );
    }

    #[test]
    fn none() {
        assert_eq!(render(&Flows::default(), Look::default()), "no connections\n");
    }
}
