//! What a person sees: headers of steps with the time they took, and questions.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Steps shorter than this end without a word.
const WORTH_A_LINE: Duration = Duration::from_secs(3);

/// A part of the work that may take long enough to wonder.
pub struct Step {
    title: String,
    began: Instant,
}

impl Step {
    pub fn start(title: impl Into<String>) -> Self {
        let title = title.into();
        eprintln!("== {title}");
        Self { title, began: Instant::now() }
    }

    pub fn done(self) {
        let took = self.began.elapsed();
        if took >= WORTH_A_LINE {
            eprintln!("== {}: done in {:.1} s", self.title, took.as_secs_f64());
        }
    }
}

/// Asks on a terminal; where there is none nobody could answer, and the answer is yes.
pub fn confirm(question: &str) -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        eprintln!("{question} yes (no terminal to ask on)");
        return Ok(true);
    }
    eprint!("{question} [Y/n] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    // The end of the input is a no: somebody closed it instead of answering.
    if io::stdin().lock().read_line(&mut answer)? == 0 {
        eprintln!();
        return Ok(false);
    }
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes"))
}
