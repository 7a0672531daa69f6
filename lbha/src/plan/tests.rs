//! Tests of the plan on the guide's network, as links, addresses, routes and neighbours come and go.

use std::path::Path;

use super::*;
use crate::{
    config::{Overrides, load},
    net::IpPrefix,
    net::state::{
        Address, Event, Link, Neighbour, NextHop, Nud, Placement, Route as KernelRoute, RouteKey,
        Scope,
    },
};

const PUBLIC: u32 = 2;
const PRIVATE: u32 = 3;
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn config(scheduler: &str) -> Config {
    let text = format!(
        r#"
[interfaces]
public  = "eth2"
private = "eth3"
[[service]]
name = "www"
vip  = "147.75.78.116"
port = 80
scheduler = "{scheduler}"
pool = "web"
[[pool]]
name = "web"
servers = [
  {{ name = "web1", address = "192.168.1.10" }},
  {{ name = "web2", address = "192.168.1.11" }},
]
"#
    );
    load(Some((Path::new("test.toml"), &text)), &Overrides::default()).config.unwrap()
}

struct Network(NetState);

impl Network {
    /// Everything is up, and every neighbour known.
    fn new() -> Self {
        let mut network = Self::without_route_to_servers();
        network.route("192.168.1.0", 24, PRIVATE, None);
        network
    }

    fn without_route_to_servers() -> Self {
        let mut network = Self(NetState::default());
        for index in [PUBLIC, PRIVATE] {
            network.0.apply(Event::NewLink(Link {
                index,
                name: format!("eth{index}"),
                mac: [2, 0, 0, 0, 0, index as u8],
                mtu: 1500,
                up: true,
                carrier: true,
                ethernet: true,
                ..Link::default()
            }));
        }
        network.address(PUBLIC, "147.75.104.177", 31);
        network.address(PRIVATE, "192.168.1.1", 24);
        network.route("0.0.0.0", 0, PUBLIC, Some("147.75.104.176"));
        network.route("147.75.104.176", 31, PUBLIC, None);
        network.neighbour(PUBLIC, "147.75.104.176", Some(GATEWAY_MAC));
        for last in [10, 11] {
            network.neighbour(PRIVATE, &format!("192.168.1.{last}"), Some([2, 0, 0, 0, 1, last]));
        }
        network
    }

    fn address(&mut self, index: u32, addr: &str, len: u8) {
        let addr = IpAddr::V4(ip(addr));
        let prefix = IpPrefix::new(addr, len).unwrap();
        let address =
            Address { addr, prefix, secondary: false, usable: true, scope: Scope::Global };
        self.0.apply(Event::NewAddress(index, address));
    }

    fn route(&mut self, dst: &str, len: u8, ifindex: u32, gateway: Option<&str>) {
        let key = RouteKey { dst: IpPrefix::new(ip(dst).into(), len).unwrap(), metric: 0 };
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        let next_hops = vec![NextHop { ifindex, gateway, encap: false }];
        let route = KernelRoute { next_hops, ..KernelRoute::default() };
        self.0.apply(Event::NewRoute(key, route, Placement::Last));
    }

    fn neighbour(&mut self, index: u32, addr: &str, mac: Option<[u8; 6]>) {
        let nud = if mac.is_some() { Nud::Reachable } else { Nud::Failed };
        self.0.apply(Event::NewNeighbour(index, ip(addr).into(), Neighbour { mac, nud }));
    }

    fn plan(&self, config: &Config) -> Plan {
        plan(config, &self.0, &Ports::find(config, &self.0).unwrap(), &[])
    }
}

fn slots(plan: &Plan) -> BTreeSet<u16> {
    plan.desired.services.values().flat_map(|service| service.slots.iter().copied()).collect()
}

fn mac_of(plan: &Plan, server: &str) -> Option<[u8; 6]> {
    plan.desired.hops[&(ip(server), 32)].dmac
}

#[test]
fn servers_that_answer_share_the_connections() {
    for scheduler in ["rr", "wrr", "maglev", "source"] {
        let config = config(scheduler);
        let mut network = Network::new();
        assert_eq!(slots(&network.plan(&config)), BTreeSet::from([0, 1]), "{scheduler}");
        network.neighbour(PRIVATE, "192.168.1.10", None);
        let plan = network.plan(&config);
        assert_eq!(slots(&plan), BTreeSet::from([1]), "{scheduler}: web1 does not answer");
        assert_eq!(plan.desired.services.values().next().unwrap().servers.len(), 2);
        network.neighbour(PRIVATE, "192.168.1.10", Some([2, 0, 0, 0, 1, 10]));
        assert_eq!(slots(&network.plan(&config)), BTreeSet::from([0, 1]), "{scheduler}");
    }
}

#[test]
fn when_no_server_answers_all_keep_their_part() {
    let mut network = Network::new();
    for server in ["192.168.1.10", "192.168.1.11"] {
        network.neighbour(PRIVATE, server, None);
    }
    let plan = network.plan(&config("rr"));
    assert_eq!(slots(&plan), BTreeSet::from([0, 1]));
    assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
}

#[test]
fn servers_are_never_looked_for_on_the_internet() {
    let config = config("rr");
    let plan = Network::new().plan(&config);
    assert_eq!(mac_of(&plan, "192.168.1.10"), Some([2, 0, 0, 0, 1, 10]));
    // What is left when the private address goes: the default route.
    let plan = Network::without_route_to_servers().plan(&config);
    for server in ["192.168.1.10", "192.168.1.11"] {
        assert_eq!(mac_of(&plan, server), None, "{server}");
    }
    let service = plan.desired.services.values().next().unwrap();
    assert!(service.servers.iter().all(|server| server.source.is_none()), "{service:?}");
    assert!(plan.warnings.iter().any(|w| w.contains("no route to server web/web1")));
    assert!(plan.watched.iter().all(|watch| watch.addr == ip("147.75.104.176")), "{plan:?}");
}

#[test]
fn a_member_of_a_bond_is_warned_of_when_there_are_others() {
    let link = |index, name: &str, kind: &str, master| Link {
        index,
        name: name.into(),
        kind: kind.into(),
        master,
        ethernet: true,
        up: true,
        ..Link::default()
    };
    let mut network = Network::new();
    network.0.apply(Event::NewLink(link(9, "bond0", "bond", None)));
    network.0.apply(Event::NewLink(link(PUBLIC, "eth2", "", Some(9))));
    let warned = |network: &Network| {
        let warnings = network.plan(&config("rr")).warnings;
        warnings.iter().any(|w| w.starts_with("eth2 is one of several members of bond0"))
    };
    assert!(!warned(&network), "the only one");
    network.0.apply(Event::NewLink(link(10, "eth10", "", Some(9))));
    assert!(warned(&network));
}

#[test]
fn what_the_datapath_does_not_do_yet_is_said() {
    let text = r#"
[interfaces]
public  = "eth2"
private = "eth3"
[[service]]
name = "www6"
vip  = "2001:db8::116"
port = 80
pool = "web6"
[[pool]]
name = "web6"
servers = [{ name = "web1", address = "fd00:1::10" }]
[[masquerade]]
source = "192.168.1.0/24"
"#;
    let config = load(Some((Path::new("test.toml"), text)), &Overrides::default()).config.unwrap();
    let network = Network::new();
    let ports = Ports::find(&config, &network.0).unwrap();
    let plan = plan(&config, &network.0, &ports, &[]);
    assert_eq!(plan.desired.services, BTreeMap::new());
    assert_eq!(
        plan.warnings,
        [
            "service www6 is not served yet: it is over IPv6",
            "masquerades and forwards have no effect yet"
        ]
    );
}
