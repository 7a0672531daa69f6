//! The file's tables, one function each: from spanned TOML to the draft.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::addresses::{self, Role};
use super::diagnostics::{Origin, Problem, Report};
use super::draft::{Draft, DraftInterfaces, DraftPool, DraftServer, DraftService, Field, Located};
use super::model::{Attach, Datapath, MAX_WEIGHT, Mode, Protocol, Scheduler, Timeouts};
use super::schema::{self, Schema};
use super::syntax;
use super::values::{self, Invalid};
use super::walk::{Table, Walker, between, integer, text, wrong_type};

mod gateway;

/// Reads the whole file. `None`: the text is not TOML, so nothing can be said about its meaning.
pub(super) fn file(input: &str, report: &mut Report) -> Option<Draft> {
    let document = syntax::document(input, report)?;
    Some(Walker { report }.root(&Table::new(&schema::ROOT, &document, 0..0)))
}

impl Walker<'_> {
    fn root(&mut self, root: &Table<'_, '_>) -> Draft {
        self.unknown_keys(root);
        let mut draft = Draft {
            datapath: Some(Datapath::default()),
            timeouts: Some(Timeouts::default()),
            ..Draft::default()
        };
        if let Some(table) = self.table(root, "interfaces", &schema::INTERFACES) {
            draft.interfaces = self.interfaces(&table);
        } else if root.entries.contains_key("interfaces") || root.misspells("interfaces") {
            // Reported as something else than a table: that it has no `public` is not news.
            draft.interfaces.public = Field::Invalid;
        }
        draft.services =
            self.all(root, "service", &schema::SERVICE, &mut draft.unreadable, Self::service);
        draft.masquerades = self.all(
            root,
            "masquerade",
            &schema::MASQUERADE,
            &mut draft.unreadable,
            Self::masquerade,
        );
        draft.forwards =
            self.all(root, "forward", &schema::FORWARD, &mut draft.unreadable, Self::forward);
        if let Some(tables) = self.tables(root, "pool", &schema::POOL, "`[[pool]]`") {
            draft.pools = tables.iter().map(|table| self.pool(table)).collect();
        } else {
            draft.pools_unreadable = root.entries.contains_key("pool") || root.misspells("pool");
        }
        if let Some(table) = self.table(root, "datapath", &schema::DATAPATH) {
            draft.datapath = self.datapath(&table);
        }
        if let Some(table) = self.table(root, "timeouts", &schema::TIMEOUTS) {
            draft.timeouts = self.timeouts(&table, &mut draft.short_timeouts);
        }
        if let Some(table) = self.table(root, "admin", &schema::ADMIN) {
            draft.socket = self.admin(&table);
        }
        draft
    }

    /// The tables under a key of the top level, each read. `unreadable` is set when there is
    /// something that is not a list of tables.
    fn all<T>(
        &mut self,
        root: &Table<'_, '_>,
        key: &'static str,
        schema: &'static Schema,
        unreadable: &mut bool,
        mut read: impl FnMut(&mut Self, &Table<'_, '_>) -> T,
    ) -> Vec<T> {
        match self.tables(root, key, schema, &format!("`{}`", schema.title)) {
            Some(tables) => tables.iter().map(|table| read(self, table)).collect(),
            None => {
                *unreadable |= root.entries.contains_key(key) || root.misspells(key);
                Vec::new()
            }
        }
    }

    fn interfaces(&mut self, table: &Table<'_, '_>) -> DraftInterfaces {
        self.unknown_keys(table);
        // `public` may also come from a flag, so its absence is judged later.
        DraftInterfaces {
            table: Some(table.origin()),
            public: self.optional(table, "public", text(values::interface)),
            private: self.optional(table, "private", text(values::interface)),
        }
    }

    fn service(&mut self, table: &Table<'_, '_>) -> DraftService {
        self.unknown_keys(table);
        let vip = |text: &str| addresses::address(text, Role::Vip);
        DraftService {
            name: self.required(table, "name", "\"www\"", text(values::name)),
            vip: self.required(table, "vip", "\"203.0.113.10\"", text(vip)),
            port: self.required(table, "port", "80", integer(values::port)),
            protocol: self
                .optional(table, "protocol", text(values::keyword))
                .or(Protocol::default()),
            scheduler: self
                .optional(table, "scheduler", text(values::keyword))
                .or(Scheduler::default()),
            mode: self.optional(table, "mode", text(values::keyword)).or(Mode::default()),
            // Not parsed as a name: what is not a name is not a pool either, and "unknown pool"
            // with a suggestion is the better message.
            pool: self.required(table, "pool", "\"web\"", text(|pool| Ok(pool.to_owned()))),
            origin: table.origin(),
        }
    }

    fn pool(&mut self, table: &Table<'_, '_>) -> DraftPool {
        self.unknown_keys(table);
        let name = self.required(table, "name", "\"web\"", text(values::name));
        if !table.entries.contains_key("servers") {
            self.missing(table, "servers", &format!("[{SERVER_EXAMPLE}]"));
        }
        let example = format!("`servers = [{SERVER_EXAMPLE}]`");
        let servers = self.tables(table, "servers", &schema::SERVER, &example);
        if servers.as_ref().is_some_and(Vec::is_empty)
            && let Some(list) = table.entries.get("servers")
            && list.get_ref().as_array().is_some_and(|list| list.is_empty())
        {
            self.report.push(
                Problem::error(Origin::File(list.span()), "a pool must have a server")
                    .help(format!("write {example}")),
            );
        }
        let servers = servers.map(|list| list.iter().map(|server| self.server(server)).collect());
        DraftPool { name, servers }
    }

    fn server(&mut self, table: &Table<'_, '_>) -> DraftServer {
        self.unknown_keys(table);
        let endpoint = |text: &str| addresses::endpoint(text, Role::Server);
        let weight = between("weight", 0, u32::from(MAX_WEIGHT));
        DraftServer {
            name: self.required(table, "name", "\"web1\"", text(values::name)),
            address: self.required(table, "address", "\"192.168.1.10:80\"", text(endpoint)),
            weight: match self.optional(table, "weight", integer(weight)) {
                Field::Absent => Some(Located { value: 1, origin: table.origin() }),
                found => found.valid(),
            },
        }
    }

    fn datapath(&mut self, table: &Table<'_, '_>) -> Option<Datapath> {
        self.unknown_keys(table);
        let default = Datapath::default();
        let connections = between("max_connections", 1024, 16_000_000);
        let connections_v6 = between("max_connections_v6", 1024, 16_000_000);
        let half_open = between("max_half_open", 1024, 4_000_000);
        // All are read before the first missing one ends the function: each has its own error.
        let attach = self.optional(table, "attach", text(values::keyword::<Attach>));
        let max_connections = self.optional(table, "max_connections", integer(connections));
        let max_connections_v6 =
            self.optional(table, "max_connections_v6", integer(connections_v6));
        let max_half_open = self.optional(table, "max_half_open", integer(half_open));
        let fullnat_ports = self.optional(table, "fullnat_ports", text(values::port_range));
        self.judge_ports(&fullnat_ports);
        let mss_clamp = self.optional(table, "mss_clamp", gateway::mss_clamp);
        let ping = self.optional(table, "ping", gateway::boolean);
        Some(Datapath {
            attach: attach.or(default.attach)?,
            max_connections: max_connections.or(default.max_connections)?,
            max_connections_v6: max_connections_v6.or(default.max_connections_v6)?,
            max_half_open: max_half_open.or(default.max_half_open)?,
            fullnat_ports: fullnat_ports.or(default.fullnat_ports)?,
            mss_clamp: mss_clamp.or(default.mss_clamp)?,
            ping: ping.or(default.ping)?,
        })
    }

    /// `short` takes the warnings of what is too short for a NAT.
    fn timeouts(&mut self, table: &Table<'_, '_>, short: &mut Vec<Problem>) -> Option<Timeouts> {
        self.unknown_keys(table);
        let default = Timeouts::default();
        let mut read = |key| {
            let found = self.optional(table, key, duration);
            short.extend(gateway::too_short(key, &found));
            found
        };
        let tcp_established = read("tcp_established");
        let tcp_fin_wait = read("tcp_fin_wait");
        let tcp_time_wait = read("tcp_time_wait");
        let tcp_reset = read("tcp_reset");
        let tcp_syn = read("tcp_syn");
        let udp = read("udp");
        let udp_unreplied = read("udp_unreplied");
        let opening = read("masquerade_tcp_opening");
        let closing = read("masquerade_tcp_closing");
        let icmp = read("icmp");
        Some(Timeouts {
            tcp_established: tcp_established.or(default.tcp_established)?,
            tcp_fin_wait: tcp_fin_wait.or(default.tcp_fin_wait)?,
            tcp_time_wait: tcp_time_wait.or(default.tcp_time_wait)?,
            tcp_reset: tcp_reset.or(default.tcp_reset)?,
            tcp_syn: tcp_syn.or(default.tcp_syn)?,
            udp: udp.or(default.udp)?,
            udp_unreplied: udp_unreplied.or(default.udp_unreplied)?,
            masquerade_tcp_opening: opening.or(default.masquerade_tcp_opening)?,
            masquerade_tcp_closing: closing.or(default.masquerade_tcp_closing)?,
            icmp: icmp.or(default.icmp)?,
        })
    }

    fn admin(&mut self, table: &Table<'_, '_>) -> Option<PathBuf> {
        self.unknown_keys(table);
        self.optional(table, "socket", socket).valid().map(|found| found.value)
    }
}

/// A string with a unit; a bare number, as other programs take it, is told its unit.
fn duration(key: &str, value: &DeValue<'_>) -> Result<Duration, Invalid> {
    match value {
        DeValue::Integer(number) => Err(wrong_type(key, "a string with a unit", value)
            .help(format!("write \"{number}s\" for seconds"))),
        _ => text(values::duration)(key, value),
    }
}

fn socket(key: &str, value: &DeValue<'_>) -> Result<PathBuf, Invalid> {
    let DeValue::String(path) = value else {
        return Err(wrong_type(key, "a string", value));
    };
    if !path.starts_with('/') {
        return Err(Invalid::new("the admin socket must be an absolute path")
            .help("write \"/run/lbha/admin.sock\", or leave the key out"));
    }
    if path.len() > LONGEST_SOCKET || path.contains('\0') {
        return Err(Invalid::new(format!(
            "the admin socket must be a path of at most {LONGEST_SOCKET} bytes"
        )));
    }
    Ok(PathBuf::from(path.as_ref()))
}

const SERVER_EXAMPLE: &str = r#"{ name = "web1", address = "192.168.1.10:80" }"#;
/// What fits into `sockaddr_un.sun_path` with its final NUL.
const LONGEST_SOCKET: usize = 107;
