//! Steps through the TOML tree: typed values by key, with every mismatch reported at its place.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Origin, Problem, Report};
use super::draft::{Field, Listed, Located};
use super::schema::{self, Schema};
use super::values::{Invalid, plain};

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// One table of the file together with what it may contain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a, 'i> {
    pub schema: &'static Schema,
    pub entries: &'a DeTable<'i>,
    /// The table's header, or its braces.
    span: (usize, usize),
}

impl<'a, 'i> Table<'a, 'i> {
    pub(super) fn new(
        schema: &'static Schema,
        entries: &'a DeTable<'i>,
        span: Range<usize>,
    ) -> Self {
        Self { schema, entries, span: (span.start, span.end) }
    }

    pub(super) fn origin(&self) -> Origin {
        Origin::File(self.span.0..self.span.1)
    }

    /// Whether some unknown key of the table was probably meant to be this one.
    pub(super) fn misspells(&self, key: &str) -> bool {
        let names = self.entries.keys().map(|name| name.get_ref().as_ref());
        names
            .filter(|name| !self.schema.knows(name))
            .any(|name| self.schema.meant(name) == Some(key))
    }

    fn get(&self, key: &'static str) -> Option<&'a Value<'i>> {
        debug_assert!(self.schema.keys.contains(&key), "{key} is not in the schema");
        self.entries.get(key)
    }
}

/// Reads tables and collects what is wrong with them.
#[derive(Debug)]
pub(super) struct Walker<'r> {
    pub report: &'r mut Report,
}

impl Walker<'_> {
    /// The value of a key that may be absent.
    pub(super) fn optional<T>(
        &mut self,
        table: &Table<'_, '_>,
        key: &'static str,
        parse: impl FnOnce(&str, &DeValue<'_>) -> Result<T, Invalid>,
    ) -> Field<T> {
        let Some(found) = table.get(key) else {
            return Field::Absent;
        };
        let origin = Origin::File(found.span());
        match parse(key, found.get_ref()) {
            Ok(value) => Field::Valid(Located { value, origin }),
            Err(invalid) => {
                self.report.push(invalid.at(origin));
                Field::Invalid
            }
        }
    }

    /// The value of a key that must be there; the error about its absence points to the table.
    pub(super) fn required<T>(
        &mut self,
        table: &Table<'_, '_>,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&str, &DeValue<'_>) -> Result<T, Invalid>,
    ) -> Option<Located<T>> {
        match self.optional(table, key, parse) {
            Field::Valid(found) => Some(found),
            Field::Invalid => None,
            Field::Absent => {
                self.missing(table, key, example);
                None
            }
        }
    }

    /// One string, or several in a list. `None` when the key is absent or neither; strings that
    /// could not be read are reported and left out.
    pub(super) fn strings<T>(
        &mut self,
        table: &Table<'_, '_>,
        key: &'static str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Option<Listed<T>> {
        let found = table.get(key)?;
        let elements = match found.get_ref() {
            DeValue::Array(list) => &list[..],
            DeValue::String(_) => std::slice::from_ref(found),
            other => {
                let invalid = wrong_type(key, "a string or an array of strings", other);
                let help = format!("write `{key} = {example}`");
                self.report.push(invalid.help(help).at(Origin::File(found.span())));
                return None;
            }
        };
        if elements.is_empty() {
            self.report.push(
                Problem::error(Origin::File(found.span()), format!("`{key}` must not be empty"))
                    .help(format!("write `{key} = {example}`")),
            );
        }
        let mut items = Vec::with_capacity(elements.len());
        for element in elements {
            let origin = Origin::File(element.span());
            let value = match element.get_ref() {
                DeValue::String(text) => parse(text),
                other => {
                    Err(Invalid::new(format!("`{key}` must hold strings, found {}", kind(other))))
                }
            };
            match value {
                Ok(value) => items.push(Located { value, origin }),
                Err(invalid) => self.report.push(invalid.at(origin)),
            }
        }
        let complete = !items.is_empty() && items.len() == elements.len();
        Some(Listed { items, complete })
    }

    /// Reports that a key is not there, unless it is there and mistyped, which is an error of its
    /// own.
    pub(super) fn missing(&mut self, table: &Table<'_, '_>, key: &str, example: &str) {
        if table.misspells(key) {
            return;
        }
        self.report.push(
            Problem::error(table.origin(), format!("{} has no `{key}`", table.schema.title))
                .help(format!("add `{key} = {example}`")),
        );
    }

    /// The table under a key: `[key]`, or `key = { ... }`.
    pub(super) fn table<'a, 'i>(
        &mut self,
        parent: &Table<'a, 'i>,
        key: &'static str,
        schema: &'static Schema,
    ) -> Option<Table<'a, 'i>> {
        let found = parent.get(key)?;
        if let DeValue::Table(entries) = found.get_ref() {
            return Some(Table::new(schema, entries, found.span()));
        }
        // `[[key]]` by mistake deserves its own words.
        let invalid = wrong_type(key, "a table", found.get_ref());
        let help = format!("write {} once, and its keys below", schema.title);
        self.report.push(invalid.help(help).at(Origin::File(found.span())));
        None
    }

    /// The tables under a key: `[[key]]` many times, or `key = [{ ... }, { ... }]`. `None` when
    /// the key is absent or not a list; elements that are not tables are reported and left out.
    pub(super) fn tables<'a, 'i>(
        &mut self,
        parent: &Table<'a, 'i>,
        key: &'static str,
        schema: &'static Schema,
        example: &str,
    ) -> Option<Vec<Table<'a, 'i>>> {
        let found = parent.get(key)?;
        let list = match found.get_ref() {
            DeValue::Array(list) => list,
            other => {
                let invalid = wrong_type(key, "an array of tables", other);
                let help = format!("write {example}");
                self.report.push(invalid.help(help).at(Origin::File(found.span())));
                // What was meant is clear enough to look for further errors inside.
                return match other {
                    DeValue::Table(entries) => {
                        Some(vec![Table::new(schema, entries, found.span())])
                    }
                    _ => None,
                };
            }
        };
        let mut tables = Vec::with_capacity(list.len());
        for element in list.iter() {
            match element.get_ref() {
                DeValue::Table(entries) => {
                    tables.push(Table::new(schema, entries, element.span()));
                }
                other => {
                    let invalid = Invalid::new(format!(
                        "{} must be a table, found {}",
                        schema.title,
                        kind(other)
                    ))
                    .help(format!("write {example}"));
                    self.report.push(invalid.at(Origin::File(element.span())));
                }
            }
        }
        Some(tables)
    }

    /// Reports each key of the table that is not one of the schema's.
    pub(super) fn unknown_keys(&mut self, table: &Table<'_, '_>) {
        for (key, value) in table.entries.iter() {
            let name = key.get_ref().as_ref();
            if table.schema.keys.contains(&name) {
                continue;
            }
            // `vrrp` is only the way to its own tables, and those are named one by one.
            if name == "vrrp"
                && std::ptr::eq(table.schema, &schema::ROOT)
                && let DeValue::Table(entries) = value.get_ref()
                && !entries.is_empty()
            {
                self.unknown_keys(&Table::new(&schema::VRRP, entries, value.span()));
                continue;
            }
            match table.schema.later(name) {
                Some(spelling) => self.not_yet(key.span(), value, spelling),
                None => self.unknown(table, key.span(), name, value),
            }
        }
    }

    fn not_yet(&mut self, key: Range<usize>, value: &Value<'_>, spelling: &str) {
        let mut report = |span| {
            self.report.push(
                Problem::error(Origin::File(span), format!("`{spelling}` is not supported yet"))
                    .help("remove it, or put it into a comment for now"),
            );
        };
        match value.get_ref() {
            // Each header on its own: the operator sees everything that has to go.
            DeValue::Array(list) if is_header(&key, value) => {
                list.iter().for_each(|element| report(element.span()));
            }
            _ if is_header(&key, value) => report(value.span()),
            _ => report(key),
        }
    }

    fn unknown(&mut self, table: &Table<'_, '_>, key: Range<usize>, name: &str, value: &Value<'_>) {
        let plain = plain(name);
        let (what, span) = match is_header(&key, value) {
            true => ("table", value.span()),
            false => ("key", key),
        };
        let message = if !std::ptr::eq(table.schema, &schema::ROOT) {
            format!("unknown {what} `{plain}` in {}", table.schema.title)
        } else if what == "key" {
            format!("unknown key `{plain}` at the top level")
        } else {
            format!("unknown table `{plain}`")
        };
        self.report
            .push(Problem::error(Origin::File(span), message).help(table.schema.advice(name)));
    }
}

impl Invalid {
    pub(super) fn at(self, origin: Origin) -> Problem {
        let problem = Problem::error(origin, self.message);
        match self.help {
            Some(help) => problem.help(help),
            None => problem,
        }
    }
}

/// A parser of strings as a parser of TOML values.
pub(super) fn text<T>(
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
) -> impl FnOnce(&str, &DeValue<'_>) -> Result<T, Invalid> {
    |key, value| match value {
        DeValue::String(text) => parse(text),
        _ => Err(wrong_type(key, "a string", value)),
    }
}

/// A check of numbers as a parser of TOML values.
pub(super) fn integer<T>(
    check: impl FnOnce(i128) -> Result<T, Invalid>,
) -> impl FnOnce(&str, &DeValue<'_>) -> Result<T, Invalid> {
    |key, value| match value {
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => check(number),
            Err(_) => Err(Invalid::new(format!("`{key}` is too large"))),
        },
        DeValue::String(text) if text.parse::<u32>().is_ok() => {
            Err(wrong_type(key, "an integer", value).help(format!("write `{key} = {text}`")))
        }
        _ => Err(wrong_type(key, "an integer", value)),
    }
}

/// A number between two limits, which the message names.
pub(super) fn between<T: TryFrom<i128>>(
    key: &'static str,
    least: u32,
    most: u32,
) -> impl FnOnce(i128) -> Result<T, Invalid> {
    move |number| {
        let allowed = (i128::from(least)..=i128::from(most)).contains(&number);
        T::try_from(number).ok().filter(|_| allowed).ok_or_else(|| {
            Invalid::new(format!("`{key}` must be between {least} and {most}, found {number}"))
        })
    }
}

pub(super) fn wrong_type(key: &str, expected: &str, found: &DeValue<'_>) -> Invalid {
    Invalid::new(format!("`{key}` must be {expected}, found {}", kind(found)))
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Whether the value was opened by a `[key]` or `[[key]]` line: only such a line begins before
/// its own key.
fn is_header(key: &Range<usize>, value: &Value<'_>) -> bool {
    value.span().start < key.start
}
