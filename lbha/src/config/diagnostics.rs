//! Errors and warnings with their place in the file, for people (rustc's layout) and machines.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin as SourceOrigin, Renderer, Snippet};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// One error or warning as plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    pub severity: Severity,
    pub message: String,
    /// `None` when a flag is to blame; the message then begins with the flag.
    pub file: Option<String>,
    /// From 1. Present whenever `file` is.
    pub line: Option<usize>,
    /// From 1, in characters. Present whenever `file` is.
    pub column: Option<usize>,
    pub help: Option<String>,
}

/// Everything that was found, in the order flags, file from top to bottom, file as a whole.
#[derive(Clone, Debug)]
pub struct Report {
    source: Option<Source>,
    problems: Vec<Problem>,
}

impl Report {
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    /// No errors and no warnings.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// The findings as data, in order.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.problems.iter().map(|problem| self.diagnostic(problem)).collect()
    }

    /// The findings as text for a terminal, each followed by an empty line, and a last line that
    /// counts them. Empty when there is nothing to say.
    pub fn render(&self, color: bool) -> String {
        if self.is_empty() {
            return String::new();
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(renderer.render(&[self.group(problem)]).trim_end());
            text.push_str("\n\n");
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }

    /// How many there are, such as `lbha.toml: 2 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let place = self.source.as_ref().map_or("command line", |source| source.name.as_str());
        let counts: Vec<String> = [(self.errors(), "error"), (self.warnings(), "warning")]
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}{}", if *count == 1 { "" } else { "s" }))
            .collect();
        format!("{place}: {}", if counts.is_empty() { "ok".to_owned() } else { counts.join(", ") })
    }

    pub(super) fn new(source: Option<(&str, &str)>) -> Self {
        Self { source: source.map(|(name, text)| Source::new(name, text)), problems: Vec::new() }
    }

    pub(super) fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Brings the findings into the order they are shown in. The sort keeps the order of findings
    /// about one place.
    pub(super) fn sort(&mut self) {
        self.problems.sort_by_key(|problem| match &problem.origin {
            Origin::CommandLine => (0, 0),
            Origin::Flag(_) => (1, 0),
            Origin::File(span) => (2, span.start),
            Origin::WholeFile => (3, 0),
        });
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }

    fn diagnostic(&self, problem: &Problem) -> Diagnostic {
        // A finding about the file as a whole points to its beginning, so that an editor can open
        // it somewhere.
        let place = self.source.as_ref().and_then(|source| match &problem.origin {
            Origin::File(span) => Some((source, source.place(source.visible(span).start))),
            Origin::WholeFile => Some((source, (1, 1))),
            Origin::Flag(_) | Origin::CommandLine => None,
        });
        Diagnostic {
            severity: problem.severity,
            message: problem.title(),
            file: place.map(|(source, _)| source.name.clone()),
            line: place.map(|(_, (line, _))| line),
            column: place.map(|(_, (_, column))| column),
            help: problem.help.clone(),
        }
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(problem.title()));
        match (&self.source, &problem.origin) {
            (Some(source), Origin::File(span)) => {
                group = group.elements(source.snippets(span, problem));
            }
            (Some(source), Origin::WholeFile) => {
                group = group.element(SourceOrigin::path(&source.name));
            }
            _ => {}
        }
        if let Some((Origin::Flag(flag), label)) = &problem.related {
            group = group.element(Level::NOTE.message(format!("{flag}: {label}")));
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help));
        }
        group
    }
}

/// Where a value came from, and so what a message about it points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Bytes of the file.
    File(Range<usize>),
    /// The file as such: nothing in it is to blame, something is absent.
    WholeFile,
    /// A flag with its value, as typed.
    Flag(String),
    /// The flags as such.
    CommandLine,
}

/// One finding before it is rendered.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    severity: Severity,
    origin: Origin,
    message: String,
    /// What the marks under the line say.
    label: Option<String>,
    /// Another place that matters, with its own label.
    related: Option<(Origin, String)>,
    help: Option<String>,
}

impl Problem {
    pub(super) fn error(origin: Origin, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, origin, message.into())
    }

    pub(super) fn warning(origin: Origin, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, origin, message.into())
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(super) fn related(mut self, origin: Origin, label: impl Into<String>) -> Self {
        self.related = Some((origin, label.into()));
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn new(severity: Severity, origin: Origin, message: String) -> Self {
        Self { severity, origin, message, label: None, related: None, help: None }
    }

    fn title(&self) -> String {
        match &self.origin {
            Origin::Flag(flag) => format!("{flag}: {}", self.message),
            Origin::File(_) | Origin::WholeFile | Origin::CommandLine => self.message.clone(),
        }
    }
}

/// The file's text with its lines found once: a long file may have many findings.
#[derive(Clone, Debug)]
struct Source {
    name: String,
    text: String,
    /// The offset of each line's first byte.
    lines: Vec<usize>,
}

impl Source {
    fn new(name: &str, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { name: name.to_owned(), text: text.to_owned(), lines }
    }

    /// The part of a span to mark: on its first line only, never in a line's end, and on text
    /// rather than behind the last line, where there is nothing to see.
    fn visible(&self, span: &Range<usize>) -> Range<usize> {
        let mut start = span.start.min(self.text.len());
        if start == self.text.len() {
            start = self.text.trim_end_matches(['\n', '\r']).len();
        }
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let line = self.line(start);
        let line_end = self.line_end(line);
        let start = start.min(line_end);
        let mut end = span.end.clamp(start, line_end);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        start..end
    }

    /// The index of the line that holds a byte.
    fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at) - 1
    }

    /// Where a line's text ends, without its line end.
    fn line_end(&self, line: usize) -> usize {
        let next = self.lines.get(line + 1).copied().unwrap_or(self.text.len());
        let text = &self.text[self.lines[line]..next];
        let text = text.strip_suffix('\n').unwrap_or(text);
        self.lines[line] + text.strip_suffix('\r').unwrap_or(text).len()
    }

    /// Line and column of a byte, both from 1.
    fn place(&self, at: usize) -> (usize, usize) {
        let line = self.line(at);
        (line + 1, self.text[self.lines[line]..at].chars().count() + 1)
    }

    /// The lines to show. Only those that are marked are cut out of the file, so that the work
    /// does not grow with its length; marks close to each other share a piece.
    fn snippets<'a>(&'a self, span: &Range<usize>, problem: &'a Problem) -> Vec<Piece<'a>> {
        let primary = self.visible(span);
        let first = (AnnotationKind::Primary, primary.clone(), problem.label.as_deref());
        let Some((Origin::File(span), label)) = &problem.related else {
            return vec![self.piece(&[first])];
        };
        let related = self.visible(span);
        let second = (AnnotationKind::Context, related.clone(), Some(label.as_str()));
        if self.line(primary.start).abs_diff(self.line(related.start)) <= CLOSE {
            vec![self.piece(&[first, second])]
        } else {
            vec![self.piece(&[first]), self.piece(&[second])]
        }
    }

    /// The lines from the first to the last of some marks.
    fn piece<'a>(&'a self, marks: &[(AnnotationKind, Range<usize>, Option<&'a str>)]) -> Piece<'a> {
        let lines = || marks.iter().map(|(_, span, _)| self.line(span.start));
        let first = lines().min().unwrap_or(0);
        let last = lines().max().unwrap_or(0);
        let base = self.lines[first];
        Snippet::source(&self.text[base..self.line_end(last)])
            .line_start(first + 1)
            .path(&self.name)
            .annotations(marks.iter().map(|(kind, span, label)| {
                kind.span(span.start - base..span.end - base).label(*label)
            }))
    }
}

type Piece<'a> = Snippet<'a, annotate_snippets::Annotation<'a>>;

/// How many lines apart two marks may be to be shown in one piece.
const CLOSE: usize = 100;
