//! The TOML itself: from text to a tree with places, with syntax errors in our words.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Origin, Problem, Report};
use super::values::plain;

/// The tree of a text. `None`: the text is not TOML; every such error has been reported.
///
/// A repeated key leaves the rest of the tree in good order, so it is reported and the tree given
/// all the same.
pub(super) fn document<'i>(text: &'i str, report: &mut Report) -> Option<DeTable<'i>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let document = document.into_inner();
    let mut broken: Vec<(Range<usize>, Broken)> = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        if error.message() == "duplicate key" {
            report.push(repeated(text, &document, span));
        } else {
            broken.push((span.clone(), Broken::new(error.message(), text.get(span))));
        }
    }
    if broken.is_empty() {
        return Some(document);
    }
    // One slip often upsets the parser more than once in its line: the clearest message stays,
    // and among equals the first.
    broken.sort_by_key(|(span, _)| span.start);
    let (mut line, mut counted) = (0, 0);
    let mut lines = Vec::with_capacity(broken.len());
    for (span, broken) in broken {
        let start = span.start.min(text.len());
        line += text.as_bytes()[counted..start].iter().filter(|byte| **byte == b'\n').count();
        counted = start;
        lines.push((line, span, broken));
    }
    lines.sort_by_key(|(line, _, broken)| (*line, !broken.clear));
    lines.dedup_by_key(|(line, _, _)| *line);
    for (_, span, broken) in lines {
        let problem = Problem::error(Origin::File(span), broken.message);
        report.push(match broken.help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }
    None
}

/// What to say about a text that is not TOML.
struct Broken {
    message: String,
    help: Option<String>,
    /// We know what went wrong, and do not only repeat the parser.
    clear: bool,
}

impl Broken {
    fn new(message: &str, found: Option<&str>) -> Self {
        let found = found.unwrap_or_default().trim();
        // The parser says this for whatever is not a value, also for none at all.
        if message.starts_with("string values must be quoted") {
            if found.is_empty() || found.starts_with(|c: char| c.is_ascii_punctuation()) {
                return Self { message: "a value is missing".to_owned(), help: None, clear: true };
            }
            return Self {
                message: "a string must be in quotes".to_owned(),
                help: Some(format!("write \"{}\"", plain(found))),
                clear: true,
            };
        }
        Self { message: message.to_owned(), help: None, clear: false }
    }
}

fn repeated(text: &str, document: &DeTable<'_>, span: Range<usize>) -> Problem {
    let key = text.get(span.clone()).unwrap_or_default();
    // A header's key stands behind its bracket.
    let header = text[..span.start].ends_with('[');
    let what = if header { "table" } else { "key" };
    let first = table_at(document, span.start)
        .get_key_value(key.trim_matches(['"', '\'']))
        .map(|(first, _)| first.span())
        .filter(|first| first.start < span.start);
    let problem =
        Problem::error(Origin::File(span), format!("the {what} `{}` is defined twice", plain(key)))
            .label("again here");
    match first {
        Some(first) => problem.related(Origin::File(first), "first defined here"),
        None => problem,
    }
}

/// The table that a line of the text adds to.
fn table_at<'a, 'i>(document: &'a DeTable<'i>, at: usize) -> &'a DeTable<'i> {
    let mut best = (0, document);
    last_header(document, at, &mut best);
    let mut table = best.1;
    // From there into the braces around the place, if any.
    while let Some(inner) = table.values().find_map(|value| around(value, at)) {
        table = inner;
    }
    table
}

/// The table with the last `[header]` before a place: it goes on until the next header.
fn last_header<'a, 'i>(table: &'a DeTable<'i>, at: usize, best: &mut (usize, &'a DeTable<'i>)) {
    for (key, value) in table.iter() {
        let elements = match value.get_ref() {
            DeValue::Array(list) => list.as_ref(),
            _ => std::slice::from_ref(value),
        };
        for element in elements {
            if let DeValue::Table(inner) = element.get_ref() {
                let start = element.span().start;
                // Braces begin behind their key, headers before it; only the first header of a
                // list stands before the key that is kept.
                let header = value.span().start < key.span().start;
                if header && start < at && start >= best.0 {
                    *best = (start, inner);
                }
                last_header(inner, at, best);
            }
        }
    }
}

/// The table in braces that contains a place, within one value.
fn around<'a, 'i>(value: &'a Spanned<DeValue<'i>>, at: usize) -> Option<&'a DeTable<'i>> {
    let span = value.span();
    if !(span.start < at && at < span.end) {
        return None;
    }
    match value.get_ref() {
        DeValue::Table(table) => Some(table),
        DeValue::Array(list) => list.iter().find_map(|element| around(element, at)),
        _ => None,
    }
}
