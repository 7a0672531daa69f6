//! Tests of the plan on the guide's network, as links, addresses, routes and neighbours come and go.

use std::path::Path;

use super::*;
use crate::{
    config::{Overrides, load},
    datapath::desired::{Masquerade, Route, Server, ServiceId},
    net::state::{
        Address, Event, Link, Neighbour, NextHop, Nud, Placement, Route as KernelRoute, RouteKey,
        Scope,
    },
};

const PUBLIC: u32 = 2;
const PRIVATE: u32 = 3;
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

const INTERFACES: &str = r#"
[interfaces]
public  = "eth2"
private = "eth3"
"#;

/// Any configuration with the guide's interfaces.
fn with(text: &str) -> Config {
    let text = format!("{INTERFACES}{text}");
    let loaded = load(Some((Path::new("test.toml"), &text)), &Overrides::default());
    loaded.config.expect("a good configuration")
}

fn config(scheduler: &str) -> Config {
    with(&format!(
        r#"
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
    ))
}

struct Network(NetState);

impl Network {
    /// Everything is up, and every neighbour known.
    fn new() -> Self {
        let mut network = Self::without_route_to_servers();
        network.route("192.168.1.0/24", PRIVATE, None);
        network
    }

    /// IPv6 beside it.
    fn dual() -> Self {
        let mut network = Self::new();
        network.address(PUBLIC, "2001:db8:104::2", 64);
        network.address(PRIVATE, "fd00:1::1", 64);
        network.route("2001:db8:104::/64", PUBLIC, None);
        network.route("::/0", PUBLIC, Some("2001:db8:104::1"));
        network.route("fd00:1::/64", PRIVATE, None);
        network.neighbour(PUBLIC, "2001:db8:104::1", Some(GATEWAY_MAC));
        network.neighbour(PRIVATE, "fd00:1::10", Some([2, 0, 0, 0, 1, 10]));
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
        network.route("0.0.0.0/0", PUBLIC, Some("147.75.104.176"));
        network.route("147.75.104.176/31", PUBLIC, None);
        network.neighbour(PUBLIC, "147.75.104.176", Some(GATEWAY_MAC));
        for last in [10, 11] {
            network.neighbour(PRIVATE, &format!("192.168.1.{last}"), Some([2, 0, 0, 0, 1, last]));
        }
        network
    }

    fn address(&mut self, index: u32, addr: &str, len: u8) {
        self.0.apply(Event::NewAddress(index, address(addr, len)));
    }

    fn remove_address(&mut self, index: u32, addr: &str, len: u8) {
        self.0.apply(Event::DelAddress(index, address(addr, len)));
    }

    fn route(&mut self, dst: &str, ifindex: u32, gateway: Option<&str>) {
        let key = RouteKey { dst: prefix(dst), metric: 0 };
        let next_hops = vec![NextHop { ifindex, gateway: gateway.map(ip), encap: false }];
        let route = KernelRoute { next_hops, ..KernelRoute::default() };
        self.0.apply(Event::NewRoute(key, route, Placement::Last));
    }

    fn neighbour(&mut self, index: u32, addr: &str, mac: Option<[u8; 6]>) {
        let nud = if mac.is_some() { Nud::Reachable } else { Nud::Failed };
        self.0.apply(Event::NewNeighbour(index, ip(addr), Neighbour { mac, nud }));
    }

    fn plan(&self, config: &Config) -> Plan {
        self.plan_beside(config, None)
    }

    /// With the ports of the host's own connections.
    fn plan_beside(&self, config: &Config, kernel_ports: Option<PortRange>) -> Plan {
        let ports = Ports::find(config, &self.0).unwrap();
        plan(config, &self.0, &ports, &[], kernel_ports)
    }
}

fn address(addr: &str, len: u8) -> Address {
    let addr = ip(addr);
    let prefix = IpPrefix::new(addr, len).unwrap();
    Address { addr, prefix, secondary: false, usable: true, scope: Scope::Global }
}

fn slots(plan: &Plan) -> BTreeSet<u16> {
    plan.desired.services.values().flat_map(|service| service.slots.iter().copied()).collect()
}

fn mac_of(plan: &Plan, server: &str) -> Option<[u8; 6]> {
    plan.desired.hops[&IpPrefix::host(ip(server))].dmac
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

const DUAL: &str = r#"
[[service]]
name = "www6"
vip  = "2001:db8:78::116"
port = 80
pool = "web6"
[[pool]]
name = "web6"
servers = [
  { name = "web1", address = "fd00:1::10" },
  { name = "web2", address = "fd00:1::11" },
]
"#;

#[test]
fn a_service_over_ipv6_is_like_one_over_ipv4() {
    let config = with(DUAL);
    let mut network = Network::dual();
    let plan = network.plan(&config);
    let id = ServiceId { vip: ip("2001:db8:78::116"), port: 80, protocol: 6 };
    let servers: Vec<_> =
        plan.desired.services[&id].servers.iter().map(|s| (s.address, s.source)).collect();
    assert_eq!(
        servers,
        [(ip("fd00:1::10"), Some(ip("fd00:1::1"))), (ip("fd00:1::11"), Some(ip("fd00:1::1")))]
    );
    assert_eq!(slots(&plan), BTreeSet::from([0]), "web2 does not answer");
    let waited = "server web6/web2 (fd00:1::11) does not answer neighbour solicitations";
    assert_eq!(plan.warnings, [waited]);
    assert_eq!(plan.awaited, BTreeSet::from([waited.to_owned()]));
    assert_eq!(mac_of(&plan, "fd00:1::10"), Some([2, 0, 0, 0, 1, 10]));
    assert_eq!(plan.desired.routes[&IpPrefix::DEFAULT_V6], Route::Hop);
    assert_eq!(plan.desired.hops[&IpPrefix::DEFAULT_V6].dmac, Some(GATEWAY_MAC));
    assert_eq!(plan.desired.routes[&prefix("fd00:1::/64")], Route::OnLink);
    assert_eq!(plan.desired.routes[&prefix("fd00:1::10")], Route::Hop);
    let watched: BTreeSet<_> =
        plan.watched.iter().map(|watch| (watch.ifindex, watch.addr)).collect();
    let expected = [
        (PUBLIC, ip("147.75.104.176")),
        (PUBLIC, ip("2001:db8:104::1")),
        (PRIVATE, ip("fd00:1::10")),
        (PRIVATE, ip("fd00:1::11")),
    ];
    assert_eq!(watched, expected.into());

    network.neighbour(PRIVATE, "fd00:1::11", Some([2, 0, 0, 0, 1, 11]));
    let plan = network.plan(&config);
    assert_eq!(slots(&plan), BTreeSet::from([0, 1]));
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn a_missing_default_route_is_warned_of_for_the_families_in_use() {
    let warned = |network: &Network, config: &Config| {
        let mut warnings = network.plan(config).warnings;
        warnings.retain(|warning| warning.contains("default route"));
        warnings.iter().map(|w| w.split(" through").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(warned(&Network::new(), &config("rr")).is_empty(), "IPv6 is not in use");
    assert_eq!(warned(&Network::new(), &with(DUAL)), ["no IPv6 default route"]);
    assert!(warned(&Network::dual(), &with(DUAL)).is_empty());
}

#[test]
fn errors_are_sent_from_the_primary_address_of_each_side() {
    let sources = |network: &Network| network.plan(&config("rr")).desired.error_sources;
    let v4 = |addr: &str| Some(addr.parse().unwrap());
    let v6 = |addr: &str| Some(addr.parse().unwrap());
    assert_eq!(
        sources(&Network::dual()),
        [
            ErrorSources { v4: v4("147.75.104.177"), v6: v6("2001:db8:104::2") },
            ErrorSources { v4: v4("192.168.1.1"), v6: v6("fd00:1::1") },
        ]
    );
    assert_eq!(sources(&Network::new()).map(|sources| sources.v6), [None, None]);
}

#[test]
fn settings_are_those_of_the_configuration() {
    let settings =
        |text: &str| Network::new().plan(&with(&format!("{DUAL}{text}"))).desired.settings;
    let expected = Settings { ping: true, clamp_mss: true, mss: [0, 0] };
    assert_eq!(settings(""), expected);
    assert_eq!(settings("[datapath]\nping = false"), Settings { ping: false, ..expected });
    assert_eq!(
        settings("[datapath]\nmss_clamp = \"off\""),
        Settings { clamp_mss: false, ..expected }
    );
    assert_eq!(
        settings("[datapath]\nmss_clamp = 1360"),
        Settings { mss: [1360, 1360], ..expected }
    );
}

#[test]
fn a_forward_is_a_service_with_one_server_that_sees_the_clients() {
    let config = with(
        r#"
[[forward]]
name = "ssh"
address = "147.75.78.116:2222"
to = "192.168.1.10:22"
"#,
    );
    let plan = Network::new().plan(&config);
    let id = ServiceId { vip: ip("147.75.78.116"), port: 2222, protocol: 6 };
    assert_eq!(forward_id(&config.forwards[0]), id);
    let service = &plan.desired.services[&id];
    let expected = Server {
        address: ip("192.168.1.10"),
        port: 22,
        keep_client: true,
        source: Some(ip("192.168.1.1")),
        source_ports: (1024, 32767),
    };
    assert_eq!((&service.servers[..], &service.slots[..]), (&[expected][..], &[0][..]));
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    assert!(plan.watched.iter().any(|watch| watch.addr == ip("192.168.1.10")));

    let mut network = Network::new();
    network.neighbour(PRIVATE, "192.168.1.10", None);
    let warnings = network.plan(&config).warnings;
    assert_eq!(warnings, ["the host of forward ssh (192.168.1.10) does not answer ARP"]);
}

const MASQUERADE: &str = r#"
[[masquerade]]
source = ["192.168.1.0/24", "fd00:1::/64"]
"#;

#[test]
fn sources_are_masqueraded_to_the_public_interface_of_their_family() {
    let config = with(MASQUERADE);
    let plan = Network::dual().plan(&config);
    let expected = Masquerade {
        sources: vec![prefix("192.168.1.0/24"), prefix("fd00:1::/64")],
        externals: vec![ip("147.75.104.177"), ip("2001:db8:104::2")],
        ports: (1024, 32767),
        max_ports: 16_384,
        endpoint_independent: false,
    };
    assert_eq!(plan.desired.masquerades, std::slice::from_ref(&expected));
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);

    let mut network = Network::dual();
    network.remove_address(PUBLIC, "2001:db8:104::2", 64);
    let plan = network.plan(&config);
    let without = Masquerade { externals: vec![ip("147.75.104.177")], ..expected };
    assert_eq!(plan.desired.masquerades, [without]);
    let refused =
        "eth2 has no IPv6 address to masquerade with: connections from fd00:1::/64 are refused";
    assert_eq!(plan.warnings, [refused]);
}

#[test]
fn one_interface_can_be_both_sides() {
    let text = format!(
        "[interfaces]\npublic = \"eth2\"\nprivate = \"eth2\"\n{}{MASQUERADE}",
        r#"
[[service]]
name = "www"
vip = "147.75.78.116"
port = 80
pool = "web"
[[pool]]
name = "web"
servers = [{ name = "web1", address = "147.75.104.178" }]
"#
    );
    let config = load(Some((Path::new("test.toml"), &text)), &Overrides::default()).config.unwrap();
    let mut network = Network::dual();
    network.address(PUBLIC, "147.75.104.177", 28);
    network.route("147.75.104.176/28", PUBLIC, None);
    network.neighbour(PUBLIC, "147.75.104.178", Some([2, 0, 0, 0, 1, 10]));
    let Plan { desired, warnings, .. } = network.plan(&config);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(desired.server_side, side::PUBLIC);
    assert_eq!(desired.interfaces[1], Interface::default());
    let servers: Vec<_> = desired.services.values().flat_map(|service| &service.servers).collect();
    assert_eq!(servers[0].source, Some(ip("147.75.104.177")));
    assert_eq!(desired.hops[&prefix("147.75.104.178")].side, side::PUBLIC);
    assert_eq!(desired.masquerades[0].externals, [ip("147.75.104.177"), ip("2001:db8:104::2")]);
}

#[test]
fn configured_external_addresses_need_not_be_of_this_host() {
    let config = with(
        r#"
[[masquerade]]
source = ["192.168.1.0/24", "fd00:1::/64"]
to = ["147.75.78.116", "147.75.78.117", "2001:db8:78::116"]
ports = "2048-4095"
mapping = "endpoint-independent"
max_ports_per_source = 100
"#,
    );
    let plan = Network::dual().plan(&config);
    let expected = Masquerade {
        sources: vec![prefix("192.168.1.0/24"), prefix("fd00:1::/64")],
        externals: vec![ip("147.75.78.116"), ip("147.75.78.117"), ip("2001:db8:78::116")],
        ports: (2048, 4095),
        max_ports: 100,
        endpoint_independent: true,
    };
    assert_eq!(plan.desired.masquerades, [expected]);
}

#[test]
fn ports_of_the_hosts_own_connections_are_warned_of() {
    let network = Network::dual();
    let warned = |config: &Config, first, last| {
        let warnings = network.plan_beside(config, Some(PortRange { first, last })).warnings;
        warnings.iter().any(|w| w.starts_with("masquerade ports 1024-32767 overlap"))
    };
    let config = with(MASQUERADE);
    assert!(!warned(&config, 32768, 60999), "as Linux has it");
    assert!(warned(&config, 32767, 60999));
    assert!(warned(&config, 1, 1024));
    assert!(!warned(&config, 1, 1023));
    let elsewhere = with("[[masquerade]]\nsource = \"192.168.1.0/24\"\nto = [\"147.75.78.116\"]\n");
    assert!(!warned(&elsewhere, 1024, 60999), "the host has no connections from there");
}
