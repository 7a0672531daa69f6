//! Which keys each table knows, which ones will come, and what to say about any other.

use super::suggest::nearest;

/// The keys of one kind of table.
#[derive(Debug)]
pub(super) struct Schema {
    /// How a message names the table.
    pub title: &'static str,
    pub keys: &'static [&'static str],
    /// Part of the file format, but not built yet, each with the way to write it.
    pub later: &'static [(&'static str, &'static str)],
    /// Help for keys that people look for here and that are expressed another way.
    pub hints: &'static [(&'static str, &'static str)],
}

pub(super) static ROOT: Schema = Schema {
    title: "the top level",
    keys: &[
        "interfaces",
        "service",
        "pool",
        "masquerade",
        "forward",
        "datapath",
        "timeouts",
        "admin",
    ],
    later: &[("vrrp", "[vrrp]"), ("bird", "[bird]"), ("sync", "[sync]"), ("metrics", "[metrics]")],
    hints: &[],
};

pub(super) static INTERFACES: Schema =
    Schema { title: "[interfaces]", keys: &["public", "private"], later: &[], hints: &[] };

pub(super) static SERVICE: Schema = Schema {
    title: "[[service]]",
    keys: &["name", "vip", "port", "protocol", "scheduler", "mode", "pool"],
    later: &[],
    hints: &[],
};

pub(super) static POOL: Schema = Schema {
    title: "[[pool]]",
    keys: &["name", "servers"],
    later: &[("check", "check")],
    hints: &[],
};

pub(super) static SERVER: Schema = Schema {
    title: "a server",
    keys: &["name", "address", "weight"],
    later: &[],
    hints: &[("port", "the port is a part of `address`, such as \"192.168.1.10:80\"")],
};

pub(super) static MASQUERADE: Schema = Schema {
    title: "[[masquerade]]",
    keys: &["source", "to", "ports", "mapping", "max_ports_per_source"],
    later: &[],
    hints: &[
        ("interface", "write `to = \"interface\"` for the public interface's own address"),
        ("out_interface", "connections leave through the public interface of [interfaces]"),
    ],
};

pub(super) static FORWARD: Schema = Schema {
    title: "[[forward]]",
    keys: &["name", "address", "to", "protocol"],
    later: &[],
    hints: &[("port", "the ports are parts of `address` and `to`, such as \"192.168.1.10:22\"")],
};

pub(super) static DATAPATH: Schema = Schema {
    title: "[datapath]",
    keys: &[
        "attach",
        "max_connections",
        "max_connections_v6",
        "max_half_open",
        "fullnat_ports",
        "mss_clamp",
        "ping",
    ],
    later: &[],
    hints: &[],
};

pub(super) static TIMEOUTS: Schema = Schema {
    title: "[timeouts]",
    keys: &[
        "tcp_established",
        "tcp_fin_wait",
        "tcp_time_wait",
        "tcp_reset",
        "tcp_syn",
        "udp",
        "udp_unreplied",
        "masquerade_tcp_opening",
        "masquerade_tcp_closing",
        "icmp",
    ],
    later: &[],
    hints: &[],
};

pub(super) static ADMIN: Schema =
    Schema { title: "[admin]", keys: &["socket"], later: &[("http", "http")], hints: &[] };

pub(super) static VRRP: Schema = Schema {
    title: "[vrrp]",
    keys: &[],
    later: &[("instance", "[[vrrp.instance]]"), ("group", "[[vrrp.group]]")],
    hints: &[],
};

impl Schema {
    /// How to write a key that is not built yet; `None` for every other key.
    pub(super) fn later(&self, key: &str) -> Option<&'static str> {
        self.later.iter().find(|(name, _)| *name == key).map(|(_, spelling)| *spelling)
    }

    pub(super) fn knows(&self, key: &str) -> bool {
        self.words().any(|name| name == key)
    }

    /// What to say about a key that this table does not know.
    pub(super) fn advice(&self, key: &str) -> String {
        if let Some((_, hint)) = self.hints.iter().find(|(name, _)| *name == key) {
            return (*hint).to_owned();
        }
        if let Some(meant) = self.meant(key) {
            return format!("did you mean `{meant}`?");
        }
        let homes: Vec<&str> = homes(key).map(|table| table.title).collect();
        if !homes.is_empty() {
            return format!("`{key}` belongs to {}", homes.join(" or "));
        }
        let list: Vec<String> = self.words().map(|name| format!("`{name}`")).collect();
        format!("known here: {}", list.join(", "))
    }

    /// The key of this table that was probably meant by one that it does not know.
    pub(super) fn meant(&self, key: &str) -> Option<&'static str> {
        let lower = key.to_ascii_lowercase();
        let mut habits = HABITS.iter().filter(|(word, _)| *word == lower).map(|(_, meant)| *meant);
        if let Some(meant) = habits.find(|meant| self.words().any(|name| name == *meant)) {
            return Some(meant);
        }
        // A key of another table is in the wrong place rather than mistyped.
        if homes(key).next().is_some() {
            return None;
        }
        nearest(key, self.words())
    }

    fn words(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().copied().chain(self.later.iter().map(|(name, _)| *name))
    }
}

/// The tables that do know a key.
fn homes(key: &str) -> impl Iterator<Item = &'static Schema> {
    TABLES.into_iter().filter(move |table| table.keys.contains(&key) || table.later(key).is_some())
}

pub(super) static TABLES: [&Schema; 11] = [
    &ROOT,
    &INTERFACES,
    &SERVICE,
    &POOL,
    &SERVER,
    &MASQUERADE,
    &FORWARD,
    &DATAPATH,
    &TIMEOUTS,
    &ADMIN,
    &VRRP,
];

/// Words of HAProxy, keepalived, ipvsadm, iptables and nftables, and the keys they stand for here.
const HABITS: [(&str, &str); 60] = [
    ("addr", "address"),
    ("algorithm", "scheduler"),
    ("backend", "pool"),
    ("backends", "servers"),
    ("balance", "scheduler"),
    ("bind", "vip"),
    ("bind", "address"),
    ("address", "vip"),
    ("clamp", "mss_clamp"),
    ("clamp_mss_to_pmtu", "mss_clamp"),
    ("defaults", "timeouts"),
    ("destination", "to"),
    ("dnat", "forward"),
    ("external", "public"),
    ("frontend", "service"),
    ("icmp_echo", "ping"),
    ("internal", "private"),
    ("ip", "address"),
    ("ip", "vip"),
    ("lb_algo", "scheduler"),
    ("lb_kind", "mode"),
    ("listen", "service"),
    ("listen", "address"),
    ("maxseg", "mss_clamp"),
    ("member", "servers"),
    ("members", "servers"),
    ("mss", "mss_clamp"),
    ("nat", "masquerade"),
    ("network", "source"),
    ("networks", "source"),
    ("port_forward", "forward"),
    ("port_forwarding", "forward"),
    ("port_range", "ports"),
    ("portforward", "forward"),
    ("postrouting", "masquerade"),
    ("prerouting", "forward"),
    ("proto", "protocol"),
    ("rdr", "forward"),
    ("redirect", "forward"),
    ("saddr", "source"),
    ("server", "servers"),
    ("server", "pool"),
    ("server", "to"),
    ("snat", "masquerade"),
    ("src", "source"),
    ("subnet", "source"),
    ("subnets", "source"),
    ("target", "to"),
    ("to-destination", "to"),
    ("to-ports", "ports"),
    ("to-source", "to"),
    ("to_destination", "to"),
    ("to_ports", "ports"),
    ("to_source", "to"),
    ("address", "to"),
    ("addresses", "to"),
    ("vip", "address"),
    ("virtual_server", "service"),
    ("from", "source"),
    ("max_ports", "max_ports_per_source"),
];
