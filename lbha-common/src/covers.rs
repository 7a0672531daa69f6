//! How a test says which requirements of the RFCs it shows to be met; `cargo xtask compliance` reads it.

/// The first statement of a test that shows requirements to be met: `covers!("RFC4787 REQ-1", "RFC7857 2.2a")`.
///
/// It does nothing when the test runs. A text that is no requirement's number does not compile; whether there is such a
/// requirement is for `cargo xtask compliance` to say, which knows them all (`docs/rfc/requirements.toml`).
#[macro_export]
macro_rules! covers {
    ($($requirement:literal),+ $(,)?) => {
        // Constants and not a `const` block, which `cargo check` would not look into.
        $(const _: () = assert!(
            $crate::covers::is_well_formed($requirement),
            concat!("not like \"RFC4787 REQ-12a\" or \"RFC7857 2.1a\": ", $requirement),
        );)+
    };
}

/// Whether a text is the number of an RFC and, after a blank, that of a requirement: `REQ-` with a number, or the number
/// of a section, and at most one letter.
pub const fn is_well_formed(requirement: &str) -> bool {
    let text = requirement.as_bytes();
    let Some(at) = past(text, 0, b"RFC") else { return false };
    let Some(at) = number(text, at) else { return false };
    let Some(at) = past(text, at, b" ") else { return false };
    let end = match past(text, at, b"REQ-") {
        Some(at) => number(text, at),
        None => section(text, at),
    };
    match end {
        Some(end) if end == text.len() => true,
        Some(end) => end + 1 == text.len() && text[end].is_ascii_lowercase(),
        None => false,
    }
}

/// Where `what` ends, if it is what begins at `at`.
const fn past(text: &[u8], at: usize, what: &[u8]) -> Option<usize> {
    let mut index = 0;
    while index < what.len() {
        if at + index >= text.len() || text[at + index] != what[index] {
            return None;
        }
        index += 1;
    }
    Some(at + index)
}

/// Where the number that begins at `at` ends.
const fn number(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    while end < text.len() && text[end].is_ascii_digit() {
        end += 1;
    }
    if end > at && text[at] != b'0' { Some(end) } else { None }
}

/// Where numbers with dots between them end.
const fn section(text: &[u8], at: usize) -> Option<usize> {
    let Some(mut end) = number(text, at) else { return None };
    while let Some(next) = past(text, end, b".") {
        let Some(next) = number(text, next) else { return None };
        end = next;
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::is_well_formed;

    #[test]
    fn a_requirement_s_number_is_told_from_other_text() {
        for good in
            ["RFC4787 REQ-1", "RFC5382 REQ-12b", "RFC7857 2", "RFC7857 2.1a", "RFC6888 REQ-4c"]
        {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in [
            "",
            "RFC",
            "RFC4787",
            "RFC4787 ",
            "4787 REQ-1",
            "RFC4787 REQ1",
            "RFC4787 REQ-",
            "RFC4787  REQ-1",
            "RFC4787 REQ-1A",
            "RFC4787 REQ-1ab",
            "RFC4787 REQ-1 ",
            "RFC7857 2.",
            "RFC7857 .2",
            "RFC7857 2..1",
            "RFC4787 REQ-01",
            "RFC7857 §2",
            "rfc4787 REQ-1",
        ] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }
}
