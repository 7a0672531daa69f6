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
    keys: &["interfaces", "service", "pool", "datapath", "timeouts", "admin"],
    later: &[
        ("masquerade", "[[masquerade]]"),
        ("vrrp", "[vrrp]"),
        ("bird", "[bird]"),
        ("sync", "[sync]"),
        ("forward", "[[forward]]"),
        ("metrics", "[metrics]"),
    ],
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

pub(super) static DATAPATH: Schema = Schema {
    title: "[datapath]",
    keys: &["attach", "max_connections", "max_half_open", "fullnat_ports"],
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

pub(super) static TABLES: [&Schema; 9] =
    [&ROOT, &INTERFACES, &SERVICE, &POOL, &SERVER, &DATAPATH, &TIMEOUTS, &ADMIN, &VRRP];

/// Words of HAProxy, keepalived and ipvsadm, and the keys they stand for here.
const HABITS: [(&str, &str); 21] = [
    ("addr", "address"),
    ("algorithm", "scheduler"),
    ("backend", "pool"),
    ("backends", "servers"),
    ("balance", "scheduler"),
    ("bind", "vip"),
    ("address", "vip"),
    ("defaults", "timeouts"),
    ("external", "public"),
    ("frontend", "service"),
    ("internal", "private"),
    ("ip", "address"),
    ("ip", "vip"),
    ("lb_algo", "scheduler"),
    ("lb_kind", "mode"),
    ("listen", "service"),
    ("member", "servers"),
    ("members", "servers"),
    ("server", "servers"),
    ("server", "pool"),
    ("virtual_server", "service"),
];
