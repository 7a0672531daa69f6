//! Fragments that wait for the first of their datagram: which, how many, and how long. No clock and no maps here.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use lbha_common::{addr::Be128, fragment::FragmentKey6};

/// How long a fragment waits, counted from the first one of its datagram that does. In a network fragments overtake each
/// other by milliseconds; what is later than this was lost.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of all that wait.
pub const MAX_BYTES: usize = 4 << 20;

/// Bytes of those from one source.
pub const MAX_BYTES_OF_SOURCE: usize = 256 << 10;

/// Fragments of one datagram: more than 64 KiB have with an MTU of 1280.
pub const MAX_OF_DATAGRAM: usize = 64;

/// What a fragment counts for at least. Many small ones cost their keeper as much as fewer large ones.
const MIN_BYTES: usize = 1024;

/// A datagram whose first fragment has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Datagram {
    /// One of [`lbha_common::event::family`].
    pub family: u32,
    /// Of IPv4, with addresses as [`lbha_common::fragment::HeldHeader`] has them.
    pub key: FragmentKey6,
}

impl Datagram {
    fn source(&self) -> Source {
        Source { family: self.family, addr: self.key.saddr }
    }
}

/// Who sends fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    pub family: u32,
    pub addr: Be128,
}

/// The fragments that wait.
#[derive(Debug, Default)]
pub struct Held {
    sources: HashMap<Source, OfSource>,
    /// Datagrams by the end of their time. Those that are gone are skipped when it comes.
    deadlines: VecDeque<(Instant, Datagram)>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct OfSource {
    datagrams: HashMap<FragmentKey6, Waiting>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    /// `None` when it is over.
    deadline: Option<Instant>,
    frames: Vec<Vec<u8>>,
}

fn charge(frame: &[u8]) -> usize {
    frame.len().max(MIN_BYTES)
}

impl Held {
    /// Keeps a fragment, and gives whether there was room for it.
    pub fn keep(&mut self, now: Instant, datagram: Datagram, frame: Vec<u8>) -> bool {
        let bytes = charge(&frame);
        let source = self.sources.get(&datagram.source());
        let waiting = source.and_then(|source| source.datagrams.get(&datagram.key));
        if self.bytes + bytes > MAX_BYTES
            || source.map_or(0, |source| source.bytes) + bytes > MAX_BYTES_OF_SOURCE
            || waiting.map_or(0, |waiting| waiting.frames.len()) >= MAX_OF_DATAGRAM
        {
            return false;
        }
        let deadline = now + PATIENCE;
        let source = self.sources.entry(datagram.source()).or_default();
        let waiting = source.datagrams.entry(datagram.key).or_insert_with(|| {
            self.deadlines.push_back((deadline, datagram));
            Waiting { deadline: Some(deadline), frames: Vec::new() }
        });
        waiting.frames.push(frame);
        source.bytes += bytes;
        self.bytes += bytes;
        true
    }

    /// The datagrams of a source of which fragments wait.
    pub fn of(&self, source: Source) -> Vec<Datagram> {
        let keys = self.sources.get(&source).into_iter().flat_map(|source| source.datagrams.keys());
        keys.map(|key| Datagram { family: source.family, key: *key }).collect()
    }

    /// The fragments of a datagram, in the order in which they came; they do not wait any more.
    pub fn take(&mut self, datagram: &Datagram) -> Vec<Vec<u8>> {
        let Some(source) = self.sources.get_mut(&datagram.source()) else { return Vec::new() };
        let Some(waiting) = source.datagrams.remove(&datagram.key) else { return Vec::new() };
        let bytes: usize = waiting.frames.iter().map(|frame| charge(frame)).sum();
        source.bytes -= bytes;
        self.bytes -= bytes;
        if source.datagrams.is_empty() {
            self.sources.remove(&datagram.source());
        }
        waiting.frames
    }

    /// Datagrams whose time has come; each is given once, and has to be taken then.
    pub fn due(&mut self, now: Instant) -> Vec<Datagram> {
        let mut due = Vec::new();
        while let Some((deadline, datagram)) =
            self.deadlines.pop_front_if(|(deadline, _)| *deadline <= now)
        {
            let source = self.sources.get_mut(&datagram.source());
            let waiting = source.and_then(|source| source.datagrams.get_mut(&datagram.key));
            // One that was taken may have come again.
            if let Some(waiting) = waiting.filter(|waiting| waiting.deadline == Some(deadline)) {
                waiting.deadline = None;
                due.push(datagram);
            }
        }
        due
    }

    /// When the next datagram is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use lbha_common::event::family;
    use proptest::prelude::*;

    use super::*;

    fn datagram(source: u32, id: u32) -> Datagram {
        let saddr = Be128::from_raw([source, 0, 0, 0]);
        Datagram {
            family: family::IPV4,
            key: FragmentKey6 { saddr, id, ..FragmentKey6::default() },
        }
    }

    #[test]
    fn fragments_are_given_back_once_and_in_their_order() {
        let (mut held, now) = (Held::default(), Instant::now());
        for n in 0..3 {
            assert!(held.keep(now, datagram(1, 1), vec![n; 100]));
        }
        assert!(held.keep(now, datagram(1, 2), vec![9; 100]));
        let mut of = held.of(datagram(1, 0).source());
        of.sort_by_key(|datagram| datagram.key.id);
        assert_eq!(of, [datagram(1, 1), datagram(1, 2)]);
        assert_eq!(held.of(datagram(2, 0).source()), []);
        assert_eq!(held.take(&datagram(1, 1)), [vec![0; 100], vec![1; 100], vec![2; 100]]);
        assert!(held.take(&datagram(1, 1)).is_empty());
        assert_eq!(held.take(&datagram(1, 2)).len(), 1);
        assert!(held.is_empty() && held.bytes == 0);
    }

    #[test]
    fn nothing_waits_longer_than_a_second_from_its_datagrams_first() {
        let (mut held, now) = (Held::default(), Instant::now());
        let later = now + PATIENCE / 2;
        held.keep(now, datagram(1, 1), vec![0; 100]);
        held.keep(later, datagram(1, 1), vec![1; 100]);
        held.keep(later, datagram(1, 2), vec![2; 100]);
        assert_eq!(held.deadline(), Some(now + PATIENCE));
        assert_eq!(held.due(now + PATIENCE - Duration::from_nanos(1)), []);
        assert_eq!(held.due(now + PATIENCE), [datagram(1, 1)]);
        assert_eq!(held.take(&datagram(1, 1)).len(), 2);
        assert_eq!(held.deadline(), Some(later + PATIENCE));
        assert_eq!(held.due(later + PATIENCE), [datagram(1, 2)]);
        assert_eq!(held.deadline(), None);
    }

    #[test]
    fn a_datagram_that_comes_again_has_its_own_time() {
        let (mut held, now) = (Held::default(), Instant::now());
        let later = now + PATIENCE / 2;
        held.keep(now, datagram(1, 1), vec![0; 100]);
        held.take(&datagram(1, 1));
        held.keep(later, datagram(1, 1), vec![1; 100]);
        assert_eq!(held.due(now + PATIENCE), []);
        assert_eq!(held.due(later + PATIENCE), [datagram(1, 1)]);
    }

    #[test]
    fn a_datagram_and_a_source_have_a_limit_and_others_room() {
        let (mut held, now) = (Held::default(), Instant::now());
        let kept = (0..100).filter(|_| held.keep(now, datagram(1, 1), vec![0; 60])).count();
        assert_eq!(kept, MAX_OF_DATAGRAM);
        assert!(held.keep(now, datagram(1, 2), vec![0; 60]), "another datagram of it");
        let kept = (0..1000).filter(|n| held.keep(now, datagram(2, *n), vec![0; 1500])).count();
        assert_eq!(kept, MAX_BYTES_OF_SOURCE / 1500);
        assert!(held.keep(now, datagram(3, 1), vec![0; 1500]), "another source");
        let kept = (10..10_000).filter(|n| held.keep(now, datagram(*n, 1), vec![0; 60])).count();
        assert!(kept < MAX_BYTES / MIN_BYTES);
        assert!(!held.keep(now, datagram(1, 3), vec![0; 60]), "nobody has room");
        held.take(&datagram(10, 1));
        assert!(held.keep(now, datagram(1, 3), vec![0; 60]));
    }

    proptest! {
        #[test]
        fn whatever_happens_the_sums_are_right(steps in proptest::collection::vec((0..4_u8, 0..3_u32, 0..3_u32, 1..3000_usize), 0..200)) {
            let (mut held, mut now) = (Held::default(), Instant::now());
            for (step, source, id, len) in steps {
                match step {
                    0 => now += Duration::from_millis(len as u64),
                    1 => drop(held.take(&datagram(source, id))),
                    _ => drop(held.keep(now, datagram(source, id), vec![0; len])),
                }
                for datagram in held.due(now) {
                    prop_assert!(!held.take(&datagram).is_empty());
                }
                let frames = |of: &OfSource| -> usize {
                    of.datagrams.values().flat_map(|waiting| &waiting.frames).map(|frame| charge(frame)).sum()
                };
                prop_assert!(held.sources.values().all(|of| frames(of) == of.bytes && of.bytes > 0));
                prop_assert_eq!(held.sources.values().map(|of| of.bytes).sum::<usize>(), held.bytes);
                prop_assert_eq!(held.is_empty(), held.bytes == 0);
                prop_assert!(held.is_empty() || held.deadline().is_some_and(|deadline| deadline > now));
            }
        }
    }
}
