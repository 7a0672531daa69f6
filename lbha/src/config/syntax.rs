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
    let mut headers = Vec::new();
    if errors.iter().any(is_repetition) {
        collect_headers(&document, &mut headers);
        headers.sort_by_key(|(start, _)| *start);
    }
    let mut found: Vec<Found> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..0);
            let start = span.start.min(text.len());
            let (rank, problem) = match is_repetition(error) {
                true => {
                    (Rank::Repetition, repeated(text, table_at(&document, &headers, start), span))
                }
                false => broken(error.message(), text, span),
            };
            Found { start, line: 0, rank, problem }
        })
        .collect();
    // One slip often upsets the parser more than once in its line: the clearest message stays,
    // and among equals the first.
    found.sort_by_key(|found| found.start);
    let (mut line, mut counted) = (0, 0);
    for found in &mut found {
        let passed = &text.as_bytes()[counted..found.start];
        line += passed.iter().filter(|byte| **byte == b'\n').count();
        counted = found.start;
        found.line = line;
    }
    found.sort_by_key(|found| (found.line, found.rank));
    found.dedup_by_key(|found| found.line);
    let sound = found.iter().all(|found| found.rank == Rank::Repetition);
    for found in found {
        report.push(found.problem);
    }
    sound.then_some(document)
}

/// One of the parser's errors in our words.
struct Found {
    start: usize,
    line: usize,
    rank: Rank,
    problem: Problem,
}

/// How much an error says about what is wrong in its line, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// We know what went wrong, and do not only repeat the parser.
    Clear,
    Parser,
    /// In a broken line it may be wrong: the parser goes on with what it could make of the line.
    Repetition,
}

fn is_repetition(error: &toml::de::Error) -> bool {
    error.message() == "duplicate key"
}

/// What to say about a text that is not TOML.
fn broken(message: &str, text: &str, span: Range<usize>) -> (Rank, Problem) {
    let found = text.get(span.clone()).unwrap_or_default().trim();
    let error = |message: &str| Problem::error(Origin::File(span), message);
    // The parser says this for whatever is not a value, also for none at all.
    if !message.starts_with("string values must be quoted") {
        (Rank::Parser, error(message))
    } else if found.is_empty() || found.starts_with(|c: char| c.is_ascii_punctuation()) {
        (Rank::Clear, error("a value is missing"))
    } else {
        let help = format!("write \"{}\"", plain(found));
        (Rank::Clear, error("a string must be in quotes").help(help))
    }
}

fn repeated(text: &str, table: &DeTable<'_>, span: Range<usize>) -> Problem {
    let key = text.get(span.clone()).unwrap_or_default();
    // A header's key stands behind its bracket.
    let header = text.get(..span.start).is_some_and(|before| before.ends_with('['));
    let what = if header { "table" } else { "key" };
    let first = table
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

/// The table that a line of the text adds to: that of the last header before it, and from there
/// into the braces around the place, if any.
fn table_at<'a, 'i>(
    document: &'a DeTable<'i>,
    headers: &[(usize, &'a DeTable<'i>)],
    at: usize,
) -> &'a DeTable<'i> {
    let before = headers.partition_point(|(start, _)| *start < at);
    let mut table = before.checked_sub(1).map_or(document, |last| headers[last].1);
    while let Some(inner) = table.values().find_map(|value| around(value, at)) {
        table = inner;
    }
    table
}

/// Each table that has a `[header]`, with the place of the header.
fn collect_headers<'a, 'i>(table: &'a DeTable<'i>, headers: &mut Vec<(usize, &'a DeTable<'i>)>) {
    for (key, value) in table.iter() {
        let elements = match value.get_ref() {
            DeValue::Array(list) => list.as_ref(),
            _ => std::slice::from_ref(value),
        };
        // Braces begin behind their key, headers before it. Of a list of headers the first counts,
        // since the first key is the one that is kept.
        let header = value.span().start < key.span().start;
        for element in elements {
            if let DeValue::Table(inner) = element.get_ref() {
                if header {
                    headers.push((element.span().start, inner));
                }
                collect_headers(inner, headers);
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
