//! What the verbs print with: stdout without surprises, tables, colours and units.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
};

/// Stdout was closed by its reader.
#[derive(Debug, thiserror::Error)]
#[error("the output was closed")]
pub struct Closed;

/// Writes to stdout, all of it at once.
pub fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        Err(error) => Err(anyhow::Error::from(error).context("cannot write the output")),
        Ok(()) => Ok(()),
    }
}

/// Whether stdout is a terminal that shows colours, and may: <https://no-color.org>.
pub fn wants_colour() -> bool {
    io::stdout().is_terminal() && allows_colour()
}

/// Whether the environment has nothing against colour on a terminal.
pub fn allows_colour() -> bool {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && env::var_os("TERM").is_none_or(|t| t != "dumb")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Heading,
    Good,
    Warning,
    Bad,
}

impl Tone {
    /// `text` in this tone.
    pub fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            _ if !colour => return text.to_owned(),
            Self::Plain => return text.to_owned(),
            Self::Heading => "1",
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Control characters become `?`: names come from files and from the network, and a terminal obeys them.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self { text: clean(text.as_ref()), tone: Tone::Plain }
    }

    pub fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    /// A count; in `tone` unless it is zero.
    pub fn count(value: u64, tone: Tone) -> Self {
        Self::new(value.to_string()).tone(if value == 0 { Tone::Plain } else { tone })
    }

    /// `-` for what is not known.
    pub fn maybe(value: Option<impl ToString>) -> Self {
        Self::new(value.map_or_else(|| "-".to_owned(), |v| v.to_string()))
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Self {
        Self::new(value.to_string())
    }
}

/// `text` without control characters.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// Columns with a heading, two spaces apart, no wider than they must be.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn left(mut self, titles: &[&'static str]) -> Self {
        self.columns.extend(titles.iter().map(|title| (*title, Align::Left)));
        self
    }

    /// For numbers.
    pub fn right(mut self, titles: &[&'static str]) -> Self {
        self.columns.extend(titles.iter().map(|title| (*title, Align::Right)));
        self
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<_> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn render(&self, colour: bool) -> String {
        let Self { columns, rows } = self;
        let widths: Vec<usize> = columns
            .iter()
            .enumerate()
            .map(|(index, (title, _))| {
                rows.iter().map(|row| width(&row[index].text)).fold(width(title), usize::max)
            })
            .collect();
        let mut out = String::new();
        let titles: Vec<_> =
            columns.iter().map(|(title, _)| Cell::new(title).tone(Tone::Heading)).collect();
        for row in std::iter::once(&titles).chain(rows) {
            for (index, (cell, (_, align))) in row.iter().zip(columns).enumerate() {
                let padding = " ".repeat(widths[index] - width(&cell.text));
                let text = cell.tone.paint(&cell.text, colour);
                if index > 0 {
                    out.push_str("  ");
                }
                match align {
                    Align::Right => out.extend([padding.as_str(), &text]),
                    Align::Left => out.extend([text.as_str(), &padding]),
                }
            }
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        }
        out
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// `912.7 MiB`; exact below 1 KiB.
pub fn bytes(value: u64) -> String {
    scaled(value as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
}

/// A rate: `12.3k`, in powers of 1000.
pub fn rate(value: f64) -> String {
    let text = scaled(value, 1000.0, &["", "k", "M", "G", "T", "P", "E"]);
    // A few a minute are not none.
    if text == "0" && value > 0.0 { format!("{value:.1}") } else { text }
}

/// `45s`, `3m12s`, `2h4m`, `3d4h`: the two largest units.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes, rest) =
        (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m{rest}s"),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// `12.3%`; a part that is there never reads as nothing.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let value = part as f64 / whole as f64 * 100.0;
    if part > 0 && value < 0.1 { "<0.1%".to_owned() } else { format!("{value:.1}%") }
}

/// RFC 3339 in UTC, from seconds since 1970.
pub fn timestamp(unix: u64) -> String {
    // Civil date from a day count, era by era of 400 years: years begin in March, so that the leap day is the last.
    let days = unix / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (month, day) = ((shifted + 2) % 12 + 1, day_of_year - (153 * shifted + 2) / 5 + 1);
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (unix / 3600 % 24, unix / 60 % 60, unix % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Three significant digits or more, in the largest unit that leaves at least 1.
fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    // What would round up to the next unit is given in it: not `1000k`, and not `1024.0 KiB`.
    while (if unit == 0 { value.round() } else { (value * 10.0).round() / 10.0 }) >= step
        && unit + 1 < units.len()
    {
        value /= step;
        unit += 1;
    }
    let mut out = String::new();
    let _ = if unit == 0 { write!(out, "{value:.0}") } else { write!(out, "{value:.1}") };
    out + units[unit]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_words_left_and_numbers_right() {
        let mut table = Table::new().left(&["NAME"]).right(&["COUNT"]).left(&["NOTE"]);
        table.row(["a".into(), 5.into(), Cell::new("")]);
        table.row(["größer".into(), 123_456_789.into(), "end".into()]);
        assert_eq!(
            table.render(false),
            "NAME        COUNT  NOTE\n\
             a               5\n\
             größer  123456789  end\n"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new().right(&["N"]).left(&["STATE"]);
        table.row([Cell::count(100, Tone::Bad), Cell::new("down").tone(Tone::Warning)]);
        table.row([Cell::count(0, Tone::Bad), Cell::new("up").tone(Tone::Good)]);
        assert_eq!(
            table.render(true),
            "  \x1b[1mN\x1b[0m  \x1b[1mSTATE\x1b[0m\n\
             \x1b[1;31m100\x1b[0m  \x1b[33mdown\x1b[0m\n\
             \x20 0  \x1b[32mup\x1b[0m\n"
        );
    }

    #[test]
    fn terminals_are_not_told_what_to_do() {
        let mut table = Table::new().left(&["NAME"]);
        table.row([Cell::new("a\x1b[2Jb\nc")]);
        assert_eq!(table.render(false), "NAME\na?[2Jb?c\n");
    }

    #[test]
    fn bytes_are_binary() {
        for (value, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (912_680_550, "870.4 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn rates_are_decimal() {
        for (value, text) in [
            (0.0, "0"),
            (0.2, "0.2"),
            (12.0, "12"),
            (999.4, "999"),
            (999.9, "1.0k"),
            (12_340.0, "12.3k"),
            (999_960.0, "1.0M"),
            (9.8e9, "9.8G"),
        ] {
            assert_eq!(rate(value), text);
        }
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (45, "45s"),
            (192, "3m12s"),
            (7440, "2h4m"),
            (86_400, "1d0h"),
            (273_600, "3d4h"),
            (400 * 86_400, "400d0h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn percentages_do_not_hide_a_little() {
        assert_eq!(percent(0, 10), "0.0%");
        assert_eq!(percent(1, 1_000_000), "<0.1%");
        assert_eq!(percent(12_345, 1_000_000), "1.2%");
        assert_eq!(percent(5, 0), "-");
    }

    #[test]
    fn timestamps_know_the_calendar() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_795_737_600, "2026-11-27T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(unix), text);
        }
    }
}
