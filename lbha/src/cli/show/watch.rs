//! Asks the daemon once, or again and again, and prints what it answers.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::de::DeserializeOwned;
use tokio::time::MissedTickBehavior;

use super::{Look, rates::Before};
use crate::{
    api::client::{self, ClientError},
    cli::{
        exit::Code,
        json,
        output::{Tone, duration, print, timestamp},
    },
};

/// Whom to ask, how often, and how to print it.
#[derive(Debug)]
pub struct Ask {
    pub socket: PathBuf,
    pub json: bool,
    pub watch: Option<Duration>,
    pub look: Look,
}

impl Ask {
    /// Shows `path`; `render` makes a table of a sample and the one before it.
    pub async fn show<T, R>(&self, noun: &str, path: &str, render: R) -> anyhow::Result<Code>
    where
        T: DeserializeOwned,
        R: Fn(&T, Option<Before<'_, T>>, Look) -> String,
    {
        match self.watch {
            None => {
                let text = match self.sample::<T>(path).await? {
                    Sample::Json(body) => json::pretty(&body).map_err(|e| bad_answer(path, e))?,
                    Sample::Data(data) => render(&data, None, self.look).into_bytes(),
                };
                print(&text)?;
                Ok(Code::Ok)
            }
            Some(interval) => tokio::select! {
                biased;
                // Without a handler Ctrl-C ends the program as it does by default, so a failure to install one is none.
                Ok(()) = tokio::signal::ctrl_c() => {
                    // The terminal wrote `^C`: the prompt belongs on a line of its own.
                    if io::stdout().is_terminal() {
                        print(b"\n")?;
                    }
                    Ok(Code::Ok)
                }
                ended = self.watch(noun, path, render, interval) => ended,
            },
        }
    }

    async fn watch<T, R>(
        &self,
        noun: &str,
        path: &str,
        render: R,
        interval: Duration,
    ) -> anyhow::Result<Code>
    where
        T: DeserializeOwned,
        R: Fn(&T, Option<Before<'_, T>>, Look) -> String,
    {
        let redraw = !self.json && io::stdout().is_terminal();
        let mut previous: Option<(T, Instant)> = None;
        let mut first = true;
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let table = match self.sample::<T>(path).await {
                Ok(Sample::Json(body)) => {
                    print(&json::compact(&body).map_err(|e| bad_answer(path, e))?)?;
                    first = false;
                    continue;
                }
                Ok(Sample::Data(now)) => {
                    let at = Instant::now();
                    let before = previous
                        .as_ref()
                        .map(|(then, taken)| Before { then, elapsed: at.duration_since(*taken) });
                    let table = render(&now, before, self.look);
                    previous = Some((now, at));
                    table
                }
                Err(error) if first => return Err(error.into()),
                // A restart of the daemon is what one watches: it will be back.
                Err(error) => {
                    previous = None;
                    if !redraw {
                        let _ = writeln!(io::stderr(), "lbha: {:#}", anyhow::Error::from(error));
                        continue;
                    }
                    Tone::Bad
                        .paint(&format!("{:#}\n", anyhow::Error::from(error)), self.look.colour)
                }
            };
            first = false;
            print(frame(noun, interval, unix_now(), redraw, &table).as_bytes())?;
        }
    }

    async fn sample<T: DeserializeOwned>(&self, path: &str) -> Result<Sample<T>, ClientError> {
        let body = client::get_bytes(&self.socket, path).await?;
        if self.json {
            Ok(Sample::Json(body.into()))
        } else {
            Ok(Sample::Data(client::decode(path, &body)?))
        }
    }
}

enum Sample<T> {
    Json(Vec<u8>),
    Data(T),
}

fn bad_answer(path: &str, source: serde_json::Error) -> ClientError {
    ClientError::Decode { path: path.to_owned(), source }
}

/// A sample with its time: over the last one on a terminal, below it elsewhere.
fn frame(noun: &str, interval: Duration, unix: u64, redraw: bool, table: &str) -> String {
    let time = timestamp(unix);
    if redraw {
        let every = if interval.subsec_nanos() == 0 {
            duration(interval.as_secs())
        } else {
            format!("{}s", interval.as_secs_f64())
        };
        format!("{CLEAR}lbha show {noun}, every {every}: {time}\n\n{table}")
    } else {
        format!("{time}\n{table}\n")
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Home, then clear the screen, and leave the scrollback alone.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_each_other_in_a_file_and_replace_each_other_on_a_terminal() {
        let second = Duration::from_secs(1);
        assert_eq!(
            frame("services", second, 0, false, "table\n"),
            "1970-01-01T00:00:00Z\ntable\n\n"
        );
        assert_eq!(
            frame("services", second, 0, true, "table\n"),
            "\x1b[H\x1b[2Jlbha show services, every 1s: 1970-01-01T00:00:00Z\n\ntable\n"
        );
        let half = Duration::from_millis(500);
        assert!(frame("flows", half, 0, true, "").contains("every 0.5s: "));
    }
}
