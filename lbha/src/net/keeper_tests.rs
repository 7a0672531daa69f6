//! Tests of the schedule, with a clock that only they move.

use super::*;
use crate::net::arp::BROADCAST;
use crate::net::state::{Event, Link, Neighbour};

const DEV: IfIndex = 2;
const ADDR_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ADDR: IpAddr = IpAddr::V4(ADDR_V4);
const OLD: Mac = [2, 0, 0, 0, 0, 1];
const NEW: Mac = [2, 0, 0, 0, 0, 2];

struct Bench {
    keeper: Keeper,
    state: NetState,
    start: Instant,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        let mut keeper = Keeper::default();
        keeper.watch(&BTreeSet::from([Watch { ifindex: DEV, addr: ADDR, source: None }]));
        let start = Instant::now();
        let mut bench = Bench { keeper, state: NetState::default(), start, now: start };
        bench.link(true);
        bench
    }

    fn link(&mut self, up: bool) {
        let link = Link { index: DEV, name: "eth0".into(), up, carrier: up, ..Link::default() };
        self.state.apply(Event::NewLink(link));
    }

    fn neighbour(&mut self, mac: Option<Mac>, nud: Nud) {
        self.state.apply(Event::NewNeighbour(DEV, ADDR, Neighbour { mac, nud }));
    }

    fn poll(&mut self) -> Vec<Probe> {
        self.keeper.poll(&self.state, self.now)
    }

    /// To the next time that the keeper asks for.
    fn wake(&mut self) -> Vec<Probe> {
        self.now = self.keeper.poll_timeout().expect("a next wake-up").max(self.now);
        self.poll()
    }

    fn reply(&mut self, mac: Mac) {
        let answer = Answer { mac: Some(mac), overrides: true };
        self.keeper.handle_answer(DEV, ADDR, answer, self.now);
        assert_eq!(self.poll(), []);
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}

fn request(to: Mac) -> Probe {
    Probe::Request { ifindex: DEV, addr: ADDR_V4, source: Ipv4Addr::UNSPECIFIED, to }
}

fn resolve() -> [Probe; 2] {
    [Probe::Resolve { ifindex: DEV, addr: ADDR }, request(BROADCAST)]
}

#[test]
fn an_unknown_neighbour_is_resolved_at_once_and_then_every_second() {
    let mut b = Bench::new();
    assert_eq!(b.poll(), resolve());
    assert_eq!(b.poll(), []);
    for second in 1..4 {
        b.neighbour(None, if second % 2 == 0 { Nud::Incomplete } else { Nud::Failed });
        assert_eq!(b.poll(), []);
        assert_eq!(b.wake(), resolve());
        assert_eq!(b.elapsed(), Duration::from_secs(second));
    }
}

#[test]
fn a_neighbour_that_answers_is_asked_alone_every_interval() {
    let mut b = Bench::new();
    b.neighbour(Some(OLD), Nud::Stale);
    assert_eq!(b.poll(), [], "not at once: many neighbours are spread over the interval");
    assert_eq!(b.wake(), [request(OLD)]);
    assert!(b.elapsed() < CHECK_INTERVAL);
    for _ in 0..5 {
        let before = b.now;
        b.reply(OLD);
        b.neighbour(Some(OLD), Nud::Reachable);
        assert_eq!(b.wake(), [request(OLD)]);
        assert_eq!(b.now - before, CHECK_INTERVAL);
    }
}

#[test]
fn a_neighbour_that_is_silent_is_asked_by_broadcast_in_time() {
    let mut b = Bench::new();
    b.neighbour(Some(OLD), Nud::Reachable);
    b.poll();
    b.wake();
    b.reply(OLD);
    let changed = b.now;
    assert_eq!(b.wake(), [request(OLD)]);
    assert_eq!(b.wake(), [request(BROADCAST)]);
    assert!(b.now - changed <= CHECK_INTERVAL + ANSWER_TIME);
    // The answer has the new address, and the kernel has taken it.
    b.reply(NEW);
    b.neighbour(Some(NEW), Nud::Reachable);
    assert_eq!(b.wake(), [request(NEW)]);
}

#[test]
fn a_new_address_that_the_kernel_ignored_is_asked_for_again() {
    let mut b = Bench::new();
    b.neighbour(Some(OLD), Nud::Reachable);
    b.poll();
    b.wake();
    b.reply(NEW);
    assert_eq!(b.wake(), [request(BROADCAST)]);
    b.reply(NEW);
    assert_eq!(b.wake(), [request(BROADCAST)]);
}

#[test]
fn a_neighbour_that_never_answers_costs_a_broadcast_a_second() {
    let mut b = Bench::new();
    b.neighbour(Some(OLD), Nud::Reachable);
    b.poll();
    b.wake();
    for _ in 0..QUICK_RETRIES {
        assert_eq!(b.wake(), [request(BROADCAST)]);
    }
    let verify = Probe::Verify { ifindex: DEV, addr: ADDR };
    assert_eq!(b.wake(), [verify, request(BROADCAST)], "once, and soon");
    b.neighbour(Some(OLD), Nud::Probe);
    for _ in 0..10 {
        assert_eq!(b.wake(), [request(BROADCAST)]);
    }
    let before = b.now;
    assert_eq!(b.wake(), [request(BROADCAST)]);
    assert_eq!(b.now - before, Duration::from_secs(1));
    b.reply(OLD);
    assert_eq!(b.wake(), [request(OLD)], "an answer starts it over");
}

#[test]
fn static_entries_and_links_that_are_down_are_left_alone() {
    let mut b = Bench::new();
    for nud in [Nud::Permanent, Nud::NoArp] {
        b.neighbour(Some(OLD), nud);
        assert_eq!(b.poll(), []);
        assert_eq!(b.keeper.poll_timeout(), None);
    }
    b.neighbour(None, Nud::Failed);
    b.link(false);
    assert_eq!(b.poll(), []);
    assert_eq!(b.keeper.poll_timeout(), None);
    b.link(true);
    assert_eq!(b.poll(), resolve(), "at once when the link is back");
}

#[test]
fn the_source_is_what_the_watch_says() {
    let mut b = Bench::new();
    let source = Ipv4Addr::new(10, 0, 0, 1);
    b.keeper.watch(&BTreeSet::from([Watch {
        ifindex: DEV,
        addr: ADDR,
        source: Some(source.into()),
    }]));
    let Probe::Request { source: from, .. } = b.poll()[1] else { panic!("no request") };
    assert_eq!(from, source);
}

#[test]
fn a_new_set_keeps_the_schedule_of_those_that_stay() {
    let mut b = Bench::new();
    b.neighbour(Some(OLD), Nud::Reachable);
    b.poll();
    let due = b.keeper.poll_timeout();
    let watch = |last| Watch { ifindex: DEV, addr: IpAddr::from([10, 0, 0, last]), source: None };
    b.keeper.watch(&BTreeSet::from([watch(2), watch(3)]));
    let probes = b.poll();
    assert!(probes.iter().all(|p| *p != request(OLD)) && probes.len() == 2, "{probes:?}");
    b.keeper.watch(&BTreeSet::from([watch(2)]));
    assert_eq!(b.keeper.poll_timeout(), due);
    b.keeper.watch(&BTreeSet::new());
    assert_eq!(b.keeper.poll_timeout(), None);
    assert_eq!(b.poll(), []);
}

#[test]
fn neighbours_are_spread_over_the_interval() {
    let mut slots: Vec<Duration> = (0..64).map(|i| spread(IpAddr::from([10, 0, 0, i]))).collect();
    slots.sort();
    slots.dedup();
    assert_eq!(slots.len(), 64);
    assert!(slots.iter().all(|slot| *slot < CHECK_INTERVAL));
}
