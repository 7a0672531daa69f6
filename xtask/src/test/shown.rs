//! What is shown of a test program's output: all of it but the lists of names that say nothing new.

/// With `--show-output` a test program repeats the name of each passed test, and an empty section
/// when none of them said anything. What tests did say, and all about failures, goes through.
#[derive(Default)]
pub struct Shown {
    in_names: bool,
}

impl Shown {
    /// Whether to show the next line.
    pub fn takes(&mut self, line: &str) -> bool {
        if line == "successes:" {
            self.in_names = true;
        } else if self.in_names && !line.is_empty() && !line.starts_with("    ") {
            self.in_names = false;
        }
        !self.in_names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_passed_tests_are_shown_once() {
        let output = "
running 3 tests
test a ... ok
test b ... FAILED

successes:

---- a stdout ----
    SKIP: no bird

successes:
    a

failures:
    b

test result: FAILED. 1 passed
";
        let mut shown = Shown::default();
        let left: Vec<_> = output.lines().filter(|line| shown.takes(line)).collect();
        let expected = "
running 3 tests
test a ... ok
test b ... FAILED

---- a stdout ----
    SKIP: no bird

failures:
    b

test result: FAILED. 1 passed
";
        assert_eq!(left, expected.lines().collect::<Vec<_>>());
    }
}
