//! A good configuration spoiled at random: never a panic, never silence, never a place outside.

use std::path::Path;

use proptest::prelude::*;

use super::GOOD;
use crate::config::{Loaded, Overrides, load};

/// Every table once, so that every part of the reader sees spoiled text.
fn base() -> String {
    let more = "\n[[masquerade]]\nsource = [\"192.168.1.0/24\", \"fd00:1::/64\"]\nto = \
                [\"147.75.78.116\", \"2001:db8::116\"]\n\n[[masquerade]]\nsource = \
                \"10.0.0.0/8\"\nto = \"auto\"\nports = \"1024-2047\"\n\n[[forward]]\nname = \
                \"ssh\"\naddress = \"[2001:db8::116]:2222\"\nto = \
                \"[fd00:1::10]:22\"\n\n[datapath]\nmss_clamp = 1360\nping = false\nattach = \"auto\"\nmax_connections = 4096\nfullnat_ports = \
                \"1024-32767\"\n\n[timeouts]\nudp = \"2h4m\"\ntcp_syn = \"60s\"\n\n[admin]\nsocket \
                = \"/run/lbha/admin.sock\"\n";
    format!("{GOOD}{more}")
}

#[derive(Clone, Debug)]
enum Mutation {
    Remove { at: prop::sample::Index, count: usize },
    Insert { at: prop::sample::Index, text: String },
    RepeatLine { from: prop::sample::Index, to: prop::sample::Index },
    RemoveLine { at: prop::sample::Index },
    Shorten { at: prop::sample::Index },
}

impl Mutation {
    fn apply(&self, text: &str) -> String {
        match self {
            Self::Remove { at, count } => {
                let chars: Vec<char> = text.chars().collect();
                let start = at.index(chars.len() + 1);
                let end = (start + count).min(chars.len());
                chars[..start].iter().chain(&chars[end..]).collect()
            }
            Self::Insert { at, text: new } => {
                let chars: Vec<char> = text.chars().collect();
                let (before, after) = chars.split_at(at.index(chars.len() + 1));
                before.iter().copied().chain(new.chars()).chain(after.iter().copied()).collect()
            }
            Self::RepeatLine { from, to } => {
                let mut lines: Vec<&str> = text.split('\n').collect();
                let line = lines[from.index(lines.len())];
                lines.insert(to.index(lines.len() + 1), line);
                lines.join("\n")
            }
            Self::RemoveLine { at } => {
                let mut lines: Vec<&str> = text.split('\n').collect();
                lines.remove(at.index(lines.len()));
                lines.join("\n")
            }
            Self::Shorten { at } => {
                let count = text.chars().count();
                text.chars().take(at.index(count + 1)).collect()
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<prop::sample::Index>;
    let text = prop_oneof![
        4 => prop::sample::select(vec![
            "\"", "'", "[", "]", "[[", "]]", "{", "}", "=", ",", ".", "\n", "\r\n", "\r", "#", " ",
            "\t", "0", "-", "9999999999", "true", "1979-05-27", "\"\"\"", "'''", "\\", "\\u0000",
            "\u{feff}", "é", "漢", "\u{0}", "\u{1b}[31m", "\u{202e}", "name", "port = 1\n",
            "[vrrp]\n", "[[vrrp.instance]]\n", "check.type = 1\n", "[pool.x]\n", "servers = []\n",
            "[[masquerade]]\n", "[[forward]]\n", "::ffff:", "fe80::1%", "/24", "2001:db8::1",
            "interfaces.public = 1\n", "weight = 0", "a.b.c = 1\n", "{ a = [ { b = 1 } ] }",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop_oneof![
        3 => (place(), 1..12_usize).prop_map(|(at, count)| Mutation::Remove { at, count }),
        4 => (place(), text).prop_map(|(at, text)| Mutation::Insert { at, text }),
        2 => (place(), place()).prop_map(|(from, to)| Mutation::RepeatLine { from, to }),
        2 => place().prop_map(|at| Mutation::RemoveLine { at }),
        1 => place().prop_map(|at| Mutation::Shorten { at }),
    ]
}

fn check(text: &str, flags: &Overrides) -> Result<(), TestCaseError> {
    let Loaded { config, report } = load(Some((Path::new("lbha.toml"), text)), flags);
    prop_assert_eq!(config.is_none(), report.has_errors());
    let lines: Vec<&str> = text.split('\n').collect();
    let rendered = report.render(false);
    // Both must be there at once: nothing a file contains may reach the terminal as a command.
    prop_assert!(!rendered.contains('\u{1b}'), "{rendered:?}");
    report.render(true);
    let mut last = (0, 0);
    for found in report.diagnostics() {
        let Some(line) = found.line else {
            continue;
        };
        let column = found.column.expect("a line has a column");
        prop_assert!(line >= 1 && line <= lines.len(), "{found:?}");
        let text = lines[line - 1];
        let length = text.strip_suffix('\r').unwrap_or(text).chars().count();
        prop_assert!(column >= 1 && column <= length + 1, "{found:?}");
        prop_assert!(!found.message.is_empty() && !found.message.contains('\n'), "{found:?}");
        // What is missing altogether has no place in the text and comes last.
        if found.message.starts_with("there is no [") {
            prop_assert_eq!((line, column), (1, 1));
            continue;
        }
        prop_assert!((line, column) >= last, "{found:?} comes after {last:?}");
        last = (line, column);
        let place = format!("--> lbha.toml:{line}:{column}\n");
        prop_assert!(rendered.contains(&place), "no {place:?} in\n{rendered}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_spoiled_file_gives_a_configuration_or_errors_inside_it(
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let mut text = base();
        for mutation in &mutations {
            text = mutation.apply(&text);
        }
        check(&text, &Overrides::default())?;
    }

    #[test]
    fn any_text_gives_a_configuration_or_errors_inside_it(
        text in r#"([ -~]|[\r\n\t"'=\[\]{}.,]|name|port|service|pool|\PC){0,60}"#,
    ) {
        check(&text, &Overrides::default())?;
    }

    #[test]
    fn any_flag_gives_a_configuration_or_errors(
        values in prop::collection::vec(
            r"([0-9a-z.:/\[\]-]|1\.2\.3\.4|2001:db8::1|/24|:80|\PC|\PC\n){0,8}", 7
        ),
    ) {
        let [iface, vip, server, scheduler, mode, protocol, masquerade] =
            values.try_into().expect("seven were made");
        let flags = Overrides {
            iface: Some(iface),
            vip: vec![vip],
            server: vec![server],
            scheduler: Some(scheduler),
            mode: Some(mode),
            protocol: Some(protocol),
            masquerade: vec![masquerade],
            ..Overrides::default()
        };
        let loaded = load(None, &flags);
        prop_assert_eq!(loaded.config.is_none(), loaded.report.has_errors());
        loaded.report.render(false);
        check(&base(), &flags)?;
    }
}

#[test]
fn the_unspoiled_file_is_good() {
    let loaded = load(Some((Path::new("lbha.toml"), &base())), &Overrides::default());
    assert_eq!(loaded.report.render(false), "");
}
