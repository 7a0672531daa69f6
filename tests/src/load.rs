//! Continuous HTTP load from a namespace, every request on record: for changes during which nothing may fail.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    http::{self, Connection},
    netns::Netns,
    wait::wait_until,
};

/// Requests that go on until [`Load::finish`].
#[derive(Debug)]
pub struct Load {
    /// Dropping one ends its thread.
    stops: Vec<Sender<()>>,
    threads: Vec<JoinHandle<Vec<Request>>>,
    done: Arc<AtomicU64>,
}

/// How requests use connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A connection for each request.
    OneShot,
    /// One connection for all of them; another one only after a failure.
    KeepAlive,
}

/// A request that was answered, or not.
#[derive(Clone, Debug)]
pub struct Request {
    pub kind: Kind,
    pub begun: Instant,
    pub took: Duration,
    /// The name of the server that answered.
    pub outcome: Result<String, String>,
}

impl Load {
    /// From as many threads of each kind, a request every few milliseconds from each.
    pub fn start(
        namespace: &Netns,
        to: impl Into<SocketAddr>,
        one_shot: usize,
        keep_alive: usize,
    ) -> Self {
        let to = to.into();
        let mut load = Self { stops: Vec::new(), threads: Vec::new(), done: Arc::default() };
        for (kind, count) in [(Kind::OneShot, one_shot), (Kind::KeepAlive, keep_alive)] {
            for _ in 0..count {
                let (stop, stopped) = channel();
                let (namespace, done) = (namespace.clone(), Arc::clone(&load.done));
                let work = move || namespace.run_in(|| requests(kind, to, stopped, &done));
                load.stops.push(stop);
                load.threads.push(thread::spawn(work));
            }
        }
        load
    }

    /// Waits until `count` more requests have ended, well or not.
    pub fn goes_on(&self, count: u64) -> Result<()> {
        let before = self.done.load(Ordering::Relaxed);
        wait_until(Duration::from_secs(20), "the load goes on", || {
            self.done.load(Ordering::Relaxed) >= before + count
        })
    }

    /// Ends the load and gives all that it did.
    pub fn finish(mut self) -> Report {
        self.stops.clear();
        let requests = self.threads.drain(..).flat_map(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        Report { requests: requests.collect() }
    }
}

/// What a load did.
#[derive(Clone, Debug)]
pub struct Report {
    pub requests: Vec<Request>,
}

impl Report {
    /// An error that shows them, if any request failed; or if there was none.
    pub fn all_succeeded(&self) -> Result<()> {
        ensure!(!self.requests.is_empty(), "there was no load");
        let failed: Vec<_> = self.requests.iter().filter(|r| r.outcome.is_err()).collect();
        ensure!(
            failed.is_empty(),
            "{} of {} requests failed: {:#?}",
            failed.len(),
            self.requests.len(),
            &failed[..failed.len().min(5)]
        );
        Ok(())
    }

    /// Answers by server.
    pub fn answers(&self) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for name in self.requests.iter().filter_map(|request| request.outcome.as_ref().ok()) {
            *answers.entry(name.clone()).or_default() += 1;
        }
        answers
    }

    /// The slowest answer that a server gave.
    pub fn slowest_of(&self, server: &str) -> Duration {
        let of_server = self.requests.iter().filter(|r| r.outcome.as_deref() == Ok(server));
        of_server.map(|request| request.took).max().unwrap_or_default()
    }

    pub fn slowest(&self) -> Duration {
        self.requests.iter().map(|request| request.took).max().unwrap_or_default()
    }
}

fn requests(kind: Kind, to: SocketAddr, stopped: Receiver<()>, done: &AtomicU64) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut open: Option<Connection> = None;
    // The pace is a wait for the end.
    while stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
        let begun = Instant::now();
        let answer = match kind {
            Kind::OneShot => http::get(to, "/"),
            Kind::KeepAlive => again(&mut open, to),
        };
        let outcome = match answer {
            Ok(response) if response.status == 200 => Ok(response.text().trim().to_owned()),
            Ok(response) => Err(format!("status {}", response.status)),
            Err(error) => {
                open = None;
                Err(format!("{error:#}"))
            }
        };
        requests.push(Request { kind, begun, took: begun.elapsed(), outcome });
        done.fetch_add(1, Ordering::Relaxed);
    }
    requests
}

fn again(open: &mut Option<Connection>, to: SocketAddr) -> Result<http::Response> {
    if open.is_none() {
        *open = Some(Connection::open(to, &http::Options::default())?);
    }
    match open {
        Some(connection) => connection.get("/"),
        None => unreachable!("it was opened above"),
    }
}

const PACE: Duration = Duration::from_millis(3);
