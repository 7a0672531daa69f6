//! Fragments that came before the first of their datagram: kept until it is there, then given back to the program.

use std::{
    collections::HashSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use lbha_common::{
    counter::Counter,
    event::{self, Event},
    flow::side,
    fragment::fate,
};
use tokio::io::unix::AsyncFd;
use tracing::debug;

use super::{shared::Shared, sleep_until};
use crate::{
    datapath::{
        held::{Datagram, Held, Source},
        inject::{self, Verdict},
        loader::Programs,
        ring,
        tables::Notes,
    },
    net::FrameSender,
};

/// Fragments read at once.
const BATCH: usize = 256;

/// The rest after a full batch: a flood of fragments must not have the event loop for itself (RFC 4787 REQ-14a). What
/// comes meanwhile has room in the ring, or is dropped by the program.
const REST: Duration = Duration::from_millis(5);

pub struct Fragments {
    ring: AsyncFd<RingBuf<MapData>>,
    notes: Notes,
    held: Held,
    sender: FrameSender,
    shared: Arc<Shared>,
    /// Read, and not looked at yet.
    arrived: Vec<(Datagram, Vec<u8>)>,
    /// Until when nothing is read.
    rest: Option<Instant>,
}

impl Fragments {
    /// Must be called within a tokio runtime.
    pub fn open(root: &Path, shared: Arc<Shared>) -> anyhow::Result<Self> {
        Ok(Self {
            ring: ring::held(root)?,
            notes: Notes::open(root)?,
            held: Held::default(),
            sender: FrameSender::open().context("cannot open a packet socket")?,
            shared,
            arrived: Vec::new(),
            rest: None,
        })
    }

    /// Waits until there is something to do. May be given up at any time.
    pub async fn wait(&mut self) -> anyhow::Result<()> {
        let due = self.held.deadline().map(Into::into);
        let rest = self.rest;
        tokio::select! {
            () = sleep_until(due) => {}
            () = sleep_until(rest.map(Into::into)), if rest.is_some() => self.rest = None,
            ready = self.ring.readable_mut(), if rest.is_none() => {
                let mut ready = ready.context("cannot wait for fragments")?;
                while self.arrived.len() < BATCH {
                    let Some((header, frame)) = ring::next_held(ready.get_inner_mut()) else {
                        ready.clear_ready();
                        return Ok(());
                    };
                    let datagram = Datagram { family: header.family, key: header.key };
                    self.arrived.push((datagram, frame));
                }
                self.rest = Some(Instant::now() + REST);
            }
        }
        Ok(())
    }

    /// Does what [`Self::wait`] has waited for.
    pub fn work(&mut self, programs: &mut Programs) {
        let now = Instant::now();
        for (datagram, frame) in std::mem::take(&mut self.arrived) {
            match self.fate(&datagram) {
                Some(fate) => self.give_back(programs, &datagram, &frame, fate),
                None if self.held.keep(now, datagram, frame) => {}
                None => self.dropped(&datagram, Counter::DropFragmentLimit, 1),
            }
        }
        for datagram in self.held.due(now) {
            // The program's word that the first has come may have been lost.
            if !self.release(programs, &datagram) {
                let frames = self.held.take(&datagram).len();
                self.dropped(&datagram, Counter::DropFragmentExpired, frames as u64);
            }
        }
    }

    /// Looks at the program's events for first fragments.
    pub fn first_came(&mut self, programs: &mut Programs, events: &[Event]) {
        let of_fragments = events.iter().filter(|event| event.kind == event::kind::FRAGMENT);
        let sources: HashSet<Source> =
            of_fragments.map(|event| Source { family: event.family, addr: event.addr }).collect();
        for source in sources {
            for datagram in self.held.of(source) {
                self.release(programs, &datagram);
            }
        }
    }

    /// Gives the fragments of a datagram back if its first has come.
    fn release(&mut self, programs: &mut Programs, datagram: &Datagram) -> bool {
        let Some(fate) = self.fate(datagram) else { return false };
        for frame in self.held.take(datagram) {
            self.give_back(programs, datagram, &frame, fate);
        }
        true
    }

    /// What became of a datagram's first fragment; `None` while it has not come.
    fn fate(&self, datagram: &Datagram) -> Option<u8> {
        let fate = self.notes.fate(datagram.family, &datagram.key).unwrap_or_else(|error| {
            debug!(%error, "cannot look for a datagram's first fragment");
            None
        });
        fate.filter(|&fate| fate != fate::HELD)
    }

    fn give_back(&self, programs: &mut Programs, datagram: &Datagram, frame: &[u8], fate: u8) {
        if let Err(error) = self.try_to_give_back(programs, datagram, frame, fate) {
            debug!(error = format!("{error:#}"), "a fragment is lost");
            self.dropped(datagram, Counter::DropInternal, 1);
        }
    }

    /// The program sees the fragment as if it came now. Should the note be gone again, it is held once more, as any other.
    fn try_to_give_back(
        &self,
        programs: &mut Programs,
        datagram: &Datagram,
        frame: &[u8],
        fate: u8,
    ) -> anyhow::Result<()> {
        let on = datagram.key.side;
        let came = self.shared.attached_to(on).context("its interface is gone")?;
        let program = programs.get(on, came.multi_buffer)?;
        if fate == fate::PASS {
            return inject::pass(program, came.ifindex, frame)
                .context("the kernel does not take it");
        }
        let (out, frame) = match inject::run(program, frame)? {
            Verdict::Back(frame) => (came, frame),
            Verdict::Across(frame) => {
                let other = if on == side::PUBLIC { side::PRIVATE } else { side::PUBLIC };
                (self.shared.attached_to(other).context("the other interface is gone")?, frame)
            }
            Verdict::Dropped => return Ok(()),
            Verdict::Passed => anyhow::bail!("it is the kernel's now"),
        };
        self.sender.send(out.ifindex, &frame).context("it can't be sent")
    }

    fn dropped(&self, datagram: &Datagram, reason: Counter, packets: u64) {
        self.shared.count_dropped(datagram.key.side, reason, packets);
    }
}
