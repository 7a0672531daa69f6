//! Finds `covers!` in Rust sources, by their tokens: comments, strings and macros cannot be mistaken for it or hide it.

use anyhow::{Context as _, bail};
use proc_macro2::{Delimiter, Group, Literal, TokenStream, TokenTree};

/// A test that says what it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The file from the workspace's root, and the function.
    pub name: String,
    /// As they are written: `RFC4787 REQ-1`.
    pub covers: Vec<String>,
    /// With `#[ignore]`: it shows nothing.
    pub ignored: bool,
}

/// The tests of a file that say what they cover. A `covers!` that is anything but the first statement of a test is an
/// error: nobody would count it.
pub fn tests(file: &str, source: &str) -> anyhow::Result<Vec<Test>> {
    let tokens: TokenStream =
        source.parse().map_err(|error| anyhow::anyhow!("not Rust: {error}"))?;
    let mut tests = Vec::new();
    walk(file, tokens, &mut tests)?;
    Ok(tests)
}

/// What the attributes before a function say.
#[derive(Default)]
struct Attributes {
    is_test: bool,
    is_ignored: bool,
}

fn walk(file: &str, tokens: TokenStream, tests: &mut Vec<Test>) -> anyhow::Result<()> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut attributes = Attributes::default();
    let mut function = None;
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at..] {
            [TokenTree::Punct(hash), TokenTree::Group(group), ..]
                if hash.as_char() == '#' && group.delimiter() == Delimiter::Bracket =>
            {
                attributes.read(group);
                at += 2;
                continue;
            }
            [TokenTree::Ident(word), TokenTree::Ident(name), ..] if word == "fn" => {
                function = Some(name.to_string());
                at += 2;
                continue;
            }
            [TokenTree::Group(body), ..] if body.delimiter() == Delimiter::Brace => {
                let mut content: Vec<TokenTree> = body.stream().into_iter().collect();
                if let Some((covers, len)) = first_covers(&content)? {
                    let name = function.take().filter(|_| attributes.is_test);
                    let Some(name) = name else {
                        bail!("covers!({}) is not in a test", covers.join(", "));
                    };
                    let ignored = attributes.is_ignored;
                    tests.push(Test { name: format!("{file}::{name}"), covers, ignored });
                    content.drain(..len);
                }
                walk(file, content.into_iter().collect(), tests)?;
                (attributes, function) = Default::default();
            }
            [TokenTree::Group(group), ..] => walk(file, group.stream(), tests)?,
            [TokenTree::Ident(word), TokenTree::Punct(mark), TokenTree::Group(group), ..]
                if word == "covers" && mark.as_char() == '!' && function.is_none() =>
            {
                bail!("covers!({}) is not a test's first statement", group.stream());
            }
            // The end of an item without a body: its attributes are not the next one's.
            [TokenTree::Punct(end), ..] if end.as_char() == ';' => {
                (attributes, function) = Default::default();
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

impl Attributes {
    /// `#[test]`, `#[tokio::test]`, `#[ignore]`, `#[ignore = "…"]`.
    fn read(&mut self, attribute: &Group) {
        let mut last = String::new();
        for token in attribute.stream() {
            match token {
                TokenTree::Ident(word) => last = word.to_string(),
                TokenTree::Punct(mark) if mark.as_char() == ':' => {}
                _ => break,
            }
        }
        self.is_test |= last == "test";
        self.is_ignored |= last == "ignore";
    }
}

/// The requirements of a body that begins with `covers!`, behind a path or without, and how many tokens that takes.
fn first_covers(body: &[TokenTree]) -> anyhow::Result<Option<(Vec<String>, usize)>> {
    let mut at = 0;
    // lbha_tests::covers
    while let [TokenTree::Ident(_), TokenTree::Punct(a), TokenTree::Punct(b), ..] = &body[at..] {
        if (a.as_char(), b.as_char()) != (':', ':') {
            break;
        }
        at += 3;
    }
    match &body[at..] {
        [TokenTree::Ident(word), TokenTree::Punct(mark), TokenTree::Group(arguments), ..]
            if word == "covers" && mark.as_char() == '!' =>
        {
            let mut covers = Vec::new();
            for token in arguments.stream() {
                match token {
                    TokenTree::Literal(literal) => covers.push(text(&literal)?),
                    TokenTree::Punct(comma) if comma.as_char() == ',' => {}
                    other => bail!("covers! takes numbers of requirements, not {other}"),
                }
            }
            Ok(Some((covers, at + 3)))
        }
        _ => Ok(None),
    }
}

/// Numbers of requirements have nothing to escape.
fn text(literal: &Literal) -> anyhow::Result<String> {
    let quoted = literal.to_string();
    let text = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    text.map(ToOwned::to_owned).with_context(|| format!("covers! takes text, not {quoted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<(String, Vec<String>, bool)> {
        let tests = tests("a.rs", source).unwrap();
        tests.into_iter().map(|test| (test.name, test.covers, test.ignored)).collect()
    }

    fn one(function: &str, covers: &[&str], ignored: bool) -> (String, Vec<String>, bool) {
        let covers = covers.iter().map(ToString::to_string).collect();
        (format!("a.rs::{function}"), covers, ignored)
    }

    #[test]
    fn tests_that_cover_something_are_found_wherever_they_are() {
        let source = r##"
            //! covers!("in a comment")
            #[test]
            fn plain() { covers!("RFC4787 REQ-1", "RFC5382 REQ-1",); body(); }
            #[test]
            fn nothing() { let text = "covers!(\"in a string\")"; let raw = r#"covers!("x")"#; }
            mod inner {
                #[tokio::test(flavor = "current_thread")]
                async fn with_a_path() -> Result<(), Error<'static>> { lbha_tests::covers!["RFC7857 2.1a"]; Ok(()) }
                proptest! {
                    #![proptest_config(ProptestConfig::with_cases(8))]
                    #[test]
                    fn in_a_macro(frame in any_frame(), at in 0..8_u8) { covers!("RFC5508 REQ-3") ; }
                }
            }
            #[cfg(test)]
            mod more {
                #[test]
                #[ignore = "slow"]
                fn ignored() { covers!("RFC4787 REQ-2"); }
            }
        "##;
        assert_eq!(
            found(source),
            [
                one("plain", &["RFC4787 REQ-1", "RFC5382 REQ-1"], false),
                one("with_a_path", &["RFC7857 2.1a"], false),
                one("in_a_macro", &["RFC5508 REQ-3"], false),
                one("ignored", &["RFC4787 REQ-2"], true),
            ]
        );
    }

    #[test]
    fn a_covers_that_would_not_count_is_an_error() {
        for source in [
            "fn helper() { covers!(\"RFC4787 REQ-1\"); }",
            "#[test] const X: u8 = 1; fn helper() { covers!(\"RFC4787 REQ-1\"); }",
            "#[test] fn late() { body(); covers!(\"RFC4787 REQ-1\"); }",
            "#[test] fn nested() { if x { covers!(\"RFC4787 REQ-1\"); } }",
            "#[test] fn twice() { covers!(\"RFC4787 REQ-1\"); covers!(\"RFC4787 REQ-2\"); }",
            "#[test] fn number() { covers!(1); }",
            "#[test] fn name() { covers!(NAME); }",
        ] {
            assert!(tests("a.rs", source).is_err(), "{source}");
        }
        assert!(tests("a.rs", "fn cut(").is_err());
    }

    #[test]
    fn the_macro_s_own_definition_is_no_use_of_it() {
        let source = "#[macro_export] macro_rules! covers { ($($r:literal),+) => { const { $(check($r);)+ } }; }";
        assert_eq!(found(source), []);
        assert_eq!(found("pub use lbha_common::covers;"), []);
    }
}
