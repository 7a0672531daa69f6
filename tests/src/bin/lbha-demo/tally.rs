//! What the demo's requests came to.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

/// Who answered the requests to one service, in order.
pub struct Tally {
    /// The service's name.
    service: &'static str,
    answers: Vec<Option<String>>,
    first_failure: Option<String>,
}

impl Tally {
    pub fn new(service: &'static str) -> Self {
        Self { service, answers: Vec::new(), first_failure: None }
    }

    pub fn add(&mut self, answer: Result<String>) {
        match answer {
            Ok(name) => self.answers.push(Some(name)),
            Err(error) => {
                self.answers.push(None);
                self.first_failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    fn failures(&self) -> usize {
        self.answers.iter().filter(|answer| answer.is_none()).count()
    }

    fn per_server(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for name in self.answers.iter().flatten() {
            *counts.entry(name.as_str()).or_default() += 1;
        }
        counts
    }

    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{:<6} requests   {}", self.service, self.answers.len())];
        for (name, count) in self.per_server() {
            let share = 100 * count / self.answers.len();
            lines.push(format!("       {name:<10} {count} ({share} %)"));
        }
        lines.push(format!("       failures   {}", self.failures()));
        lines
    }

    /// Fine if both servers answered, and never one of them twice in a row.
    pub fn judge(&self) -> Result<()> {
        let service = self.service;
        if let Some(first) = &self.first_failure {
            bail!("{service}: {} requests failed, the first: {first}", self.failures());
        }
        let servers = self.per_server();
        ensure!(
            servers.keys().eq(["web1", "web2"].iter()),
            "{service}: answers came from {:?} and not from web1 and web2",
            servers.keys()
        );
        let repeated = self.answers.windows(2).filter(|pair| pair[0] == pair[1]).count();
        ensure!(repeated == 0, "{service}: {repeated} times a server answered twice in a row");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(answers: &[&str]) -> Tally {
        let mut tally = Tally::new("www");
        for answer in answers {
            tally.add(match *answer {
                "" => Err(anyhow::anyhow!("refused")),
                name => Ok(name.to_owned()),
            });
        }
        tally
    }

    #[test]
    fn only_servers_that_take_turns_are_fine() {
        tally(&["web2", "web1", "web2"]).judge().unwrap();
        for bad in [&["web1", "web2", "web2"][..], &["web1", "web1"], &["web1", "", "web1"], &[]] {
            assert!(tally(bad).judge().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_summary_counts_requests_servers_and_failures() {
        let lines = tally(&["web1", "web2", "", "web2"]).lines();
        let expected = [
            "www    requests   4",
            "       web1       1 (25 %)",
            "       web2       2 (50 %)",
            "       failures   1",
        ];
        assert_eq!(lines, expected);
    }
}
