//! Single values from their text: the same rules for the file and for the flags.

use std::time::Duration;

use super::model::{Keyword, PortRange, UNITS, duration_text};
use super::suggest::nearest;

/// What is wrong with a value, without its place.
#[derive(Debug)]
pub(super) struct Invalid {
    pub message: String,
    pub help: Option<String>,
}

impl Invalid {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A value as messages show it: in quotes, on one line and not too long.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", plain(text))
}

/// Foreign text without line ends and other control characters, cut where it gets long.
pub(super) fn plain(text: &str) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST_SHOWN {
            shown.push_str("...");
            break;
        }
        // Quotes stay as they are: escaped ones only confuse in front of the line itself.
        if matches!(c, '"' | '\'') { shown.push(c) } else { shown.extend(c.escape_debug()) }
    }
    shown
}

/// The name of a service, pool or server.
pub(super) fn name(text: &str) -> Result<String, Invalid> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text.is_empty() {
        return Err(Invalid::new("a name must not be empty"));
    }
    if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
        return Err(Invalid::new(format!("a name must not contain {:?}", bad))
            .help("allowed are letters, digits, `_`, `.` and `-`"));
    }
    if text.len() > LONGEST_NAME {
        return Err(Invalid::new(format!(
            "a name must not be longer than {LONGEST_NAME} characters, found {}",
            text.len()
        )));
    }
    Ok(text.to_owned())
}

/// A network interface, by the kernel's rules for names (`dev_valid_name`).
pub(super) fn interface(text: &str) -> Result<String, Invalid> {
    if text.is_empty() {
        return Err(Invalid::new("an interface name must not be empty"));
    }
    let bad = |c: &char| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control();
    if let Some(bad) = text.chars().find(bad) {
        let invalid = Invalid::new(format!("an interface name must not contain {bad:?}"));
        return Err(match bad {
            ':' => invalid.help("an alias is not an interface: write the part before the `:`"),
            _ => invalid,
        });
    }
    if text == "." || text == ".." {
        return Err(Invalid::new(format!("{} is not an interface name", quoted(text))));
    }
    if text.len() > LONGEST_INTERFACE {
        return Err(Invalid::new(format!(
            "an interface name must not be longer than {LONGEST_INTERFACE} characters, found {}",
            text.len()
        )));
    }
    Ok(text.to_owned())
}

/// A port as a number.
pub(super) fn port(number: i128) -> Result<u16, Invalid> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Invalid::new(format!("a port must be between 1 and 65535, found {number}"))),
    }
}

/// Ports such as `1024-32767`.
pub(super) fn port_range(text: &str) -> Result<PortRange, Invalid> {
    let Some((first, last)) = text.split_once('-') else {
        return Err(Invalid::new(format!("{} is not a range of ports", quoted(text)))
            .help("write the first and the last port, such as \"1024-32767\""));
    };
    let (first, last) = (port_text(first.trim())?, port_text(last.trim())?);
    if first > last {
        return Err(Invalid::new(format!("the range of ports {first}-{last} is reversed"))
            .help(format!("write \"{last}-{first}\"")));
    }
    Ok(PortRange { first, last })
}

/// One word out of a list.
pub(super) fn keyword<T: Keyword>(text: &str) -> Result<T, Invalid> {
    if let Some((_, value)) = T::words().find(|(word, _)| *word == text) {
        return Ok(value);
    }
    // The words of other programs that mean something here.
    let (word, later) = match (T::WHAT, text) {
        ("scheduler", "lc" | "leastconn" | "least_conn") => ("lc", true),
        ("scheduler", "roundrobin" | "round-robin" | "round_robin") => ("rr", false),
        ("scheduler", "static-rr" | "weighted") => ("wrr", false),
        ("scheduler", "sh" | "hash" | "ip_hash") => ("source", false),
        ("mode", "masq" | "masquerade" | "dnat") => ("nat", false),
        ("mode", "snat" | "proxy" | "full-nat") => ("fullnat", false),
        ("attach mode", "driver" | "drv") => ("native", false),
        ("mapping", "eim" | "cone" | "full-cone" | "persistent") => ("endpoint-independent", false),
        ("mapping", "edm" | "symmetric" | "random") => ("endpoint-dependent", false),
        ("attach mode", "skb") => ("generic", false),
        _ => ("", false),
    };
    if later {
        return Err(Invalid::new(format!("{} \"{word}\" is not supported yet", T::WHAT))
            .help(one_of::<T>()));
    }
    let meant = Some(word).filter(|word| !word.is_empty());
    let invalid = Invalid::new(format!("unknown {} {}", T::WHAT, quoted(text)));
    Err(match meant.or_else(|| nearest(text, T::words().map(|(word, _)| word))) {
        Some(meant) => invalid.help(format!("did you mean \"{meant}\"?")),
        None => invalid.help(one_of::<T>()),
    })
}

/// A duration such as `120s` or `2h4m`.
pub(super) fn duration(text: &str) -> Result<Duration, Invalid> {
    let not_one = || {
        Invalid::new(format!("{} is not a duration", quoted(text)))
            .help("write numbers with units: ms, s, m, h or d, such as \"90s\" or \"2h4m\"")
    };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Invalid::new(format!("the duration {} has no unit", quoted(text)))
            .help(format!("write \"{text}s\" for seconds")));
    }
    let mut millis: u128 = 0;
    let mut rest = text;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| not_one())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters]);
        let (_, length) = unit.ok_or_else(not_one)?;
        // Sixty-four bits of number times a unit, summed over a line: far below 128 bits.
        millis = millis.saturating_add(u128::from(number) * length);
        rest = &rest[letters..];
        if rest.is_empty() {
            break;
        }
    }
    let range = SHORTEST.as_millis()..=LONGEST.as_millis();
    if !range.contains(&millis) {
        return Err(Invalid::new(format!(
            "a timeout must be between {} and {}, found {}",
            duration_text(SHORTEST),
            duration_text(LONGEST),
            quoted(text)
        )));
    }
    let millis = u64::try_from(millis).expect("invariant: at most 30 days");
    Ok(Duration::from_millis(millis))
}

/// A port as text.
pub(super) fn port_text(text: &str) -> Result<u16, Invalid> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Invalid::new(format!("{} is not a port", quoted(text)))
            .help("a port is a number between 1 and 65535"));
    }
    // Longer numbers are out of range all the same; the message only shows them.
    match text.parse() {
        Ok(number) => port(number),
        Err(_) => {
            Err(Invalid::new(format!("a port must be between 1 and 65535, found {}", quoted(text))))
        }
    }
}

fn one_of<T: Keyword>() -> String {
    let words: Vec<String> = T::words().map(|(word, _)| format!("\"{word}\"")).collect();
    format!("write one of {}", words.join(", "))
}

const LONGEST_NAME: usize = 63;
/// `IFNAMSIZ` is 16 and counts the final NUL.
const LONGEST_INTERFACE: usize = 15;
const LONGEST_SHOWN: usize = 40;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
