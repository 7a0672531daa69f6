//! A view of invented data and a directory for its socket; the end-to-end tests compile this file too.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::api::{
    View,
    types::{
        Counter, Flow, FlowQuery, Flows, Interface, InterfaceCounters, Nat, NatBinding,
        NatExternal, NatQuery, NatRefused, NatSource, Server, Service, Status, Table, Traffic,
    },
};

/// Answers with the samples below. Its counters grow by the same amount with every question.
#[derive(Debug)]
pub struct Fake {
    pub ready: AtomicBool,
    asked: AtomicU64,
}

impl Fake {
    pub fn new() -> Self {
        Self { ready: AtomicBool::new(true), asked: AtomicU64::new(0) }
    }

    fn age(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed)
    }
}

impl View for Fake {
    fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn status(&self) -> Status {
        status(self.age())
    }

    fn services(&self) -> Vec<Service> {
        services(self.age())
    }

    fn servers(&self) -> Vec<Server> {
        servers(self.age())
    }

    fn flows(&self, query: &FlowQuery) -> Flows {
        assert!(query.service.as_deref() != Some("panic"), "a view that fails");
        let mut flows = flows();
        flows.flows.retain(|flow| {
            let FlowQuery { limit: _, service, server, client, state } = query;
            (service.is_none() || *service == flow.service)
                && (server.is_none() || *server == flow.server)
                && client.is_none_or(|client| client == flow.client.ip())
                && state.as_ref().is_none_or(|state| *state == flow.state)
        });
        let limit = query.limit.unwrap_or(usize::MAX);
        flows.truncated = flows.flows.len() > limit;
        flows.flows.truncate(limit);
        flows
    }

    fn nat(&self, query: &NatQuery) -> Nat {
        let NatQuery { limit, source, external, remote, protocol } = query;
        let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|w| w == name);
        let mut nat = nat();
        nat.externals.retain(|row| {
            external.is_none_or(|addr| addr == row.address) && is(protocol, &row.protocol)
        });
        nat.sources.retain(|row| source.is_none_or(|addr| addr == row.address));
        nat.bindings.retain(|row| {
            source.is_none_or(|addr| addr == row.inside.ip())
                && external.is_none_or(|addr| addr == row.external.ip())
                && remote.is_none_or(|addr| row.remote.is_some_and(|r| r.ip() == addr))
                && is(protocol, &row.protocol)
        });
        nat.total = nat.bindings.len() as u64;
        nat.bindings.truncate(limit.unwrap_or(usize::MAX));
        nat.truncated = nat.total > nat.bindings.len() as u64;
        nat
    }

    fn drops(&self) -> Vec<InterfaceCounters> {
        drops(self.age())
    }
}

pub fn status(age: u64) -> Status {
    Status {
        version: "0.1.0".into(),
        abi: 1,
        pid: 4242,
        uptime_seconds: 7440 + age,
        config: Some("/etc/lbha/lbha.toml".into()),
        pins: "/sys/fs/bpf/lbha/v1".into(),
        ready: true,
        warnings: vec![
            "ens14f1 is attached in generic mode: expect a fraction of the speed".into(),
        ],
        interfaces: vec![
            Interface {
                side: "public".into(),
                name: "bond0".into(),
                attached_to: "bond0".into(),
                ifindex: 4,
                mac: "0c:42:a1:00:00:01".into(),
                mtu: 1500,
                vlans: vec![],
                mode: "native".into(),
                multi_buffer: true,
                program_id: Some(71),
                forwarded_packets: 1_204_311 + 5000 * age,
                forwarded_bytes: 912_680_550 + 5_000_000 * age,
                passed_packets: 8812,
                dropped_packets: 0,
            },
            Interface {
                side: "private".into(),
                name: "ens14f1.100".into(),
                attached_to: "ens14f1".into(),
                ifindex: 3,
                mac: "0c:42:a1:00:00:02".into(),
                mtu: 9000,
                vlans: vec![100],
                mode: "generic".into(),
                multi_buffer: false,
                program_id: None,
                forwarded_packets: 998_120,
                forwarded_bytes: 5_112_000_000,
                passed_packets: 12,
                dropped_packets: 7 + 3 * age,
            },
        ],
        flow_table: Table { connections: 12_345, capacity: 1_000_000 },
        half_open_table: Table { connections: 3, capacity: 65_536 },
        flow_table_v6: Table { connections: 120, capacity: 250_000 },
        half_open_table_v6: Table { connections: 0, capacity: 65_536 },
        masqueraded: 8123,
        masqueraded_v6: 12,
        services: 2,
        servers: 3,
    }
}

pub fn services(age: u64) -> Vec<Service> {
    vec![
        Service {
            name: "www".into(),
            vip: [147, 75, 78, 116].into(),
            port: 80,
            protocol: "tcp".into(),
            scheduler: "rr".into(),
            mode: "fullnat".into(),
            pool: "nginx_pool".into(),
            servers: 2,
            usable_servers: 2,
            traffic: Traffic {
                connections: 20_512 + 20 * age,
                established: 20_498,
                current: 312,
                packets_in: 150_233 + 900 * age,
                bytes_in: 12_400_100 + 90_000 * age,
                packets_out: 170_900 + 1100 * age,
                bytes_out: 890_000_321 + 1_250_000 * age,
            },
        },
        Service {
            name: "dns".into(),
            vip: [147, 75, 78, 116].into(),
            port: 53,
            protocol: "udp".into(),
            scheduler: "maglev".into(),
            mode: "nat".into(),
            pool: "dns".into(),
            servers: 1,
            usable_servers: 0,
            traffic: Traffic::default(),
        },
    ]
}

pub fn servers(age: u64) -> Vec<Server> {
    vec![
        Server {
            service: "www".into(),
            pool: "nginx_pool".into(),
            name: "web1".into(),
            address: "192.168.1.10:80".parse().unwrap(),
            weight: 1,
            state: "usable".into(),
            mac: Some("0c:42:a1:11:00:10".into()),
            source: Some([192, 168, 1, 2].into()),
            share: 0.5,
            traffic: Traffic {
                connections: 10_256 + 10 * age,
                established: 10_250,
                current: 156,
                packets_in: 75_100 + 450 * age,
                bytes_in: 6_200_050 + 45_000 * age,
                packets_out: 85_450 + 550 * age,
                bytes_out: 445_000_160 + 625_000 * age,
            },
        },
        Server {
            service: "www".into(),
            pool: "nginx_pool".into(),
            name: "web2".into(),
            address: "192.168.1.11:80".parse().unwrap(),
            weight: 1,
            state: "retired".into(),
            mac: Some("0c:42:a1:11:00:11".into()),
            source: Some([192, 168, 1, 2].into()),
            share: 0.0,
            traffic: Traffic { connections: 10_256, current: 4, ..Traffic::default() },
        },
        Server {
            service: "dns".into(),
            pool: "dns".into(),
            name: "ns1".into(),
            address: "192.168.1.53:53".parse().unwrap(),
            weight: 10,
            state: "unresolved".into(),
            mac: None,
            source: None,
            share: 0.0,
            traffic: Traffic::default(),
        },
    ]
}

pub fn flows() -> Flows {
    let vip = "147.75.78.116:80".parse().unwrap();
    Flows {
        flows: vec![
            Flow {
                protocol: "tcp".into(),
                state: "established".into(),
                service: Some("www".into()),
                server: Some("web1".into()),
                masquerade: None,
                client: "203.0.113.7:51234".parse().unwrap(),
                vip,
                source: "192.168.1.2:1024".parse().unwrap(),
                destination: "192.168.1.10:80".parse().unwrap(),
                age_seconds: 192,
                idle_seconds: 4,
                expires_seconds: 86_396,
            },
            Flow {
                protocol: "tcp".into(),
                state: "syn".into(),
                service: None,
                server: None,
                masquerade: None,
                client: "198.51.100.23:40001".parse().unwrap(),
                vip,
                source: "192.168.1.2:1025".parse().unwrap(),
                destination: "192.168.1.11:80".parse().unwrap(),
                age_seconds: 0,
                idle_seconds: 0,
                expires_seconds: 10,
            },
        ],
        truncated: false,
    }
}

pub fn nat() -> Nat {
    let external = |address: &str, protocol: &str| NatExternal {
        address: address.parse().unwrap(),
        protocol: protocol.into(),
        connections: 0,
        ports: Some(31_744),
        used: 0,
        percent: Some(0.0),
        busiest: None,
        busiest_ports: 0,
        bound: 0,
        growth: Some(0.0),
        exhausted_in_seconds: None,
    };
    let source = |address: &str, connections, percent| NatSource {
        address: address.parse().unwrap(),
        connections,
        quota: Some(16_384),
        percent: Some(percent),
    };
    let binding = |protocol: &str, ends: [&str; 3], state: &str, direction: &str| NatBinding {
        protocol: protocol.into(),
        inside: ends[0].parse().unwrap(),
        external: ends[1].parse().unwrap(),
        remote: ends[2].parse().ok(),
        state: state.into(),
        direction: direction.into(),
        age_seconds: 192,
        idle_seconds: Some(4),
        rule: "192.168.1.0/24".into(),
    };
    Nat {
        externals: vec![
            NatExternal {
                connections: 7840,
                used: 5230,
                percent: Some(16.48),
                busiest: Some("198.51.100.10:443".parse().unwrap()),
                busiest_ports: 5230,
                growth: Some(12.4),
                exhausted_in_seconds: Some(2138),
                ..external("147.75.78.116", "tcp")
            },
            NatExternal {
                connections: 283,
                used: 41,
                percent: Some(0.13),
                busiest: Some("198.51.100.53:53".parse().unwrap()),
                busiest_ports: 41,
                bound: 3,
                growth: Some(-0.62),
                ..external("147.75.78.116", "udp")
            },
            NatExternal {
                connections: 12,
                used: 1,
                percent: Some(0.0),
                busiest: Some("[2001:db8:ffff::53]:0".parse().unwrap()),
                busiest_ports: 1,
                growth: None,
                ..external("2001:db8::116", "icmp")
            },
        ],
        sources: vec![
            source("192.168.1.10", 6120, 37.35),
            source("192.168.1.11", 2003, 12.23),
            source("fd00:1::10", 12, 0.07),
        ],
        refused: NatRefused { no_free_port: 0, source_quota: 17, no_external_address: 0 },
        bindings: vec![
            binding(
                "tcp",
                ["192.168.1.10:40000", "147.75.78.116:2048", "198.51.100.10:443"],
                "established",
                "out",
            ),
            NatBinding {
                idle_seconds: None,
                ..binding("udp", ["192.168.1.11:6881", "147.75.78.116:6881", ""], "bound", "any")
            },
            NatBinding {
                rule: "fd00:1::/64".into(),
                ..binding(
                    "icmp",
                    ["[fd00:1::10]:7", "[2001:db8::116]:1031", "[2001:db8:ffff::53]:0"],
                    "icmp",
                    "out",
                )
            },
        ],
        total: 3,
        truncated: false,
    }
}

pub fn drops(age: u64) -> Vec<InterfaceCounters> {
    let counter = |reason: &str, verdict: &str, packets, help: &str| Counter {
        reason: reason.into(),
        verdict: verdict.into(),
        packets,
        help: help.into(),
    };
    let counters = |no_flow, forward, [held, answered]: [u64; 2]| {
        vec![
            counter(
                "forward",
                "forward",
                forward,
                "Translated and sent out of the other interface.",
            ),
            counter("not_ip", "pass", 44, "Neither IPv4 nor IPv6: ARP and the like."),
            counter(
                "no_flow",
                "drop",
                no_flow,
                "Part of no known connection, and not the start of one.",
            ),
            counter("too_big", "drop", 0, "Larger than the next hop's MTU."),
            counter("fragment_held", "hold", held, "Held until its first fragment comes."),
            counter("echo_reply", "answer", answered, "Echo reply in the name of a VIP."),
        ]
    };
    vec![
        InterfaceCounters {
            side: "public".into(),
            name: "bond0".into(),
            counters: counters(17 + 2 * age, 1_204_311, [5, 1204]),
        },
        InterfaceCounters {
            side: "private".into(),
            name: "ens14f1.100".into(),
            counters: counters(0, 998_120, [0, 0]),
        },
    ]
}

/// A directory that goes away with the test. Its path is short: a socket's may have 107 bytes.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lbha-test-{}-{number}", process::id()));
        // Of a killed test whose process number came round again.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
