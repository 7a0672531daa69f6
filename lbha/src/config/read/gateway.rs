//! The file's tables of the gateway: masquerades, forwards, and what concerns them in `[datapath]` and `[timeouts]`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use toml::de::DeValue;

use super::Walker;
use crate::config::addresses::{self, Role};
use crate::config::diagnostics::{Origin, Problem};
use crate::config::draft::{DraftForward, DraftMasquerade, DraftTo, Field, Listed, Located};
use crate::config::model::{
    LAST_FREE_PORT, MAX_MSS, MIN_MSS, Mapping, Masquerade, MssClamp, PortRange, Protocol,
    duration_text,
};
use crate::config::suggest::nearest;
use crate::config::values::{self, Invalid, quoted};
use crate::config::walk::{Table, between, integer, text, wrong_type};

impl Walker<'_> {
    pub(super) fn masquerade(&mut self, table: &Table<'_, '_>) -> DraftMasquerade {
        self.unknown_keys(table);
        let source = self.strings(table, "source", SOURCE_EXAMPLE, addresses::source);
        if !table.entries.contains_key("source") {
            self.missing(table, "source", SOURCE_EXAMPLE);
        }
        let max = between("max_ports_per_source", 1, MOST_PORTS_PER_SOURCE);
        let ports = self.optional(table, "ports", text(values::port_range));
        self.judge_ports(&ports);
        if let Field::Valid(range) = &ports
            && range.value.first < FIRST_FREE_PORT
        {
            self.report.push(
                Problem::warning(
                    range.origin.clone(),
                    "the range has ports below 1024, which belong to services, also those of this host",
                )
                .help("begin it at 1024"),
            );
        }
        DraftMasquerade {
            source: source.unwrap_or(Listed { items: Vec::new(), complete: false }),
            to: self.masquerade_to(table),
            ports: ports.or(Masquerade::PORTS),
            mapping: self.optional(table, "mapping", text(values::keyword)).or(Mapping::default()),
            max_ports_per_source: self
                .optional(table, "max_ports_per_source", integer(max))
                .or(Masquerade::MAX_PORTS_PER_SOURCE),
            origin: table.origin(),
        }
    }

    pub(super) fn forward(&mut self, table: &Table<'_, '_>) -> DraftForward {
        self.unknown_keys(table);
        let socket = |role| text(move |text: &str| addresses::socket(text, role));
        let address: Option<Located<SocketAddr>> =
            self.required(table, "address", "\"203.0.113.10:2222\"", socket(Role::ForwardAddress));
        DraftForward {
            name: self.optional(table, "name", text(values::name)),
            address,
            to: self.required(table, "to", "\"192.168.1.10:22\"", socket(Role::ForwardTo)),
            protocol: self
                .optional(table, "protocol", text(values::keyword))
                .or(Protocol::default()),
            origin: table.origin(),
        }
    }

    fn masquerade_to(&mut self, table: &Table<'_, '_>) -> Option<Located<DraftTo>> {
        let Some(found) = table.entries.get("to") else {
            return Some(Located { value: DraftTo::Auto, origin: table.origin() });
        };
        let origin = Origin::File(found.span());
        let word = match found.get_ref() {
            DeValue::String(text) => to_word(text),
            _ => None,
        };
        let value = match word {
            Some(Ok(value)) => value,
            Some(Err(invalid)) => {
                self.report.push(invalid.at(origin));
                return None;
            }
            None => DraftTo::Addresses(self.strings(table, "to", TO_EXAMPLE, to_address)?),
        };
        Some(Located { value, origin })
    }

    /// Warns of ports that belong to somebody else.
    pub(super) fn judge_ports(&mut self, range: &Field<PortRange>) {
        let Field::Valid(range) = range else { return };
        if range.value.last > LAST_FREE_PORT {
            self.report.push(
                Problem::warning(
                    range.origin.clone(),
                    "the range reaches into the ports that Linux gives to this host's own \
                     connections",
                )
                .help("end it at 32767, or move `net.ipv4.ip_local_port_range` out of its way"),
            );
        }
    }
}

/// What to say about a timeout that is shorter than the RFCs allow a NAT.
pub(super) fn too_short(key: &str, found: &Field<Duration>) -> Option<Problem> {
    let Field::Valid(found) = found else { return None };
    let (_, least, rfc) = LEAST_TIMEOUTS.iter().find(|(name, _, _)| *name == key)?;
    (found.value < *least).then(|| {
        let least = duration_text(*least);
        Problem::warning(
            found.origin.clone(),
            format!("`{key}` is shorter than the {least} that {rfc} asks of a NAT"),
        )
        .help(format!(
            "connections may be cut that their hosts still use: write \"{least}\" or more"
        ))
    })
}

/// The words of `to`; `None` for what may be an address.
fn to_word(text: &str) -> Option<Result<DraftTo, Invalid>> {
    match text {
        "auto" => return Some(Ok(DraftTo::Auto)),
        "interface" => return Some(Ok(DraftTo::Interface)),
        _ => {}
    }
    let meant = match text {
        "masquerade" | "primary" => "interface",
        "elastic" | "vip" => "auto",
        _ => nearest(text, ["auto", "interface"])?,
    };
    let invalid = Invalid::new(format!("{} is not an IP address", quoted(text)));
    Some(Err(invalid.help(format!("did you mean \"{meant}\"?"))))
}

/// One of several addresses, or the only one.
fn to_address(text: &str) -> Result<IpAddr, Invalid> {
    if let Some(Ok(_)) = to_word(text) {
        return Err(Invalid::new(format!("\"{text}\" cannot be in a list"))
            .help(format!("write `to = \"{text}\"`, or a list of addresses alone")));
    }
    addresses::address(text, Role::MasqueradeTo)
}

/// `"auto"`, `"off"` or a number.
pub(super) fn mss_clamp(key: &str, value: &DeValue<'_>) -> Result<MssClamp, Invalid> {
    let wrong = || {
        Invalid::new(format!("`{key}` must be \"auto\", \"off\" or a number"))
            .help(format!("write `{key} = \"auto\"`, `{key} = \"off\"` or `{key} = 1360`"))
    };
    match value {
        DeValue::Integer(_) => {
            let size = between("mss_clamp", u32::from(MIN_MSS), u32::from(MAX_MSS));
            let size = integer(size)(key, value).map_err(|invalid| {
                invalid.help(format!(
                    "every host takes {MIN_MSS} bytes (RFC 9293 §3.7.1), and no packet holds more \
                     than {MAX_MSS}"
                ))
            })?;
            Ok(MssClamp::To(size))
        }
        DeValue::Boolean(false) => Err(wrong().help(format!("write `{key} = \"off\"`"))),
        DeValue::Boolean(true) => Err(wrong().help(format!("write `{key} = \"auto\"`"))),
        DeValue::String(text) => match text.as_ref() {
            "auto" => Ok(MssClamp::Auto),
            "off" => Ok(MssClamp::Off),
            "pmtu" | "clamp-to-pmtu" | "clamp-mss-to-pmtu" | "rt mtu" => {
                Err(wrong().help("did you mean \"auto\"?"))
            }
            "none" | "no" | "disabled" | "false" => Err(wrong().help("did you mean \"off\"?")),
            number if number.parse::<u32>().is_ok() => {
                Err(wrong().help(format!("write `{key} = {number}`")))
            }
            other => Err(match nearest(other, ["auto", "off"]) {
                Some(meant) => wrong().help(format!("did you mean \"{meant}\"?")),
                None => wrong(),
            }),
        },
        _ => Err(wrong()),
    }
}

/// `true` or `false`.
pub(super) fn boolean(key: &str, value: &DeValue<'_>) -> Result<bool, Invalid> {
    match value {
        DeValue::Boolean(value) => Ok(*value),
        _ => {
            let invalid = wrong_type(key, "true or false", value);
            let meant = match value {
                DeValue::String(text) => match text.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" | "1" => Some(true),
                    "false" | "no" | "off" | "0" => Some(false),
                    _ => None,
                },
                _ => None,
            };
            Err(match meant {
                Some(meant) => invalid.help(format!("write `{key} = {meant}`")),
                None => invalid,
            })
        }
    }
}

const SOURCE_EXAMPLE: &str = "[\"192.168.1.0/24\"]";
const TO_EXAMPLE: &str = "[\"203.0.113.10\"]";
/// The first port behind those that are reserved for services.
const FIRST_FREE_PORT: u16 = 1024;
/// As many as connections can be at most.
const MOST_PORTS_PER_SOURCE: u32 = 16_000_000;

/// What the RFCs ask of a NAT, by the key of `[timeouts]`.
const LEAST_TIMEOUTS: [(&str, Duration, &str); 6] = [
    ("tcp_established", Duration::from_secs(124 * 60), "RFC 5382 REQ-5"),
    ("masquerade_tcp_opening", Duration::from_secs(4 * 60), "RFC 5382 REQ-5"),
    ("masquerade_tcp_closing", Duration::from_secs(4 * 60), "RFC 5382 REQ-5"),
    ("udp", Duration::from_secs(2 * 60), "RFC 4787 REQ-5"),
    ("udp_unreplied", Duration::from_secs(2 * 60), "RFC 4787 REQ-5"),
    ("icmp", Duration::from_secs(60), "RFC 5508 REQ-2"),
];
