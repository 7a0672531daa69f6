//! Tests of the schedule, with a clock that only they move.

use super::*;
use crate::net::IpPrefix;
use crate::net::arp::BROADCAST;
use crate::net::state::{Address, Event, Link, Neighbour, Scope};

const DEV: IfIndex = 2;
const ADDR_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ADDR: IpAddr = IpAddr::V4(ADDR_V4);
const ADDR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
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

/// An IPv6 neighbour, with or without a link-local address of our own.
fn v6(own: bool) -> Bench {
    let mut b = Bench::new();
    let addr = ADDR_V6.into();
    b.keeper.watch(&BTreeSet::from([Watch { ifindex: DEV, addr, source: None }]));
    if own {
        link_local(&mut b, true);
    }
    b
}

fn link_local(b: &mut Bench, usable: bool) {
    let addr = IpAddr::V6(OWN_V6);
    let prefix = IpPrefix::new(addr, 64).unwrap();
    let address = Address { addr, prefix, secondary: false, usable, scope: Scope::Link };
    b.state.apply(Event::NewAddress(DEV, address));
}

fn neighbour_v6(b: &mut Bench, mac: Option<Mac>, nud: Nud) {
    b.state.apply(Event::NewNeighbour(DEV, ADDR_V6.into(), Neighbour { mac, nud }));
}

fn answer_v6(b: &mut Bench, mac: Option<Mac>, overrides: bool) {
    b.keeper.handle_answer(DEV, ADDR_V6.into(), Answer { mac, overrides }, b.now);
}

fn solicit(to: Option<Mac>) -> Probe {
    Probe::Solicit { ifindex: DEV, addr: ADDR_V6, source: OWN_V6, to }
}

#[test]
fn an_ipv6_neighbour_is_resolved_and_then_asked_alone() {
    let mut b = v6(true);
    let resolve = Probe::Resolve { ifindex: DEV, addr: ADDR_V6.into() };
    assert_eq!(b.poll(), [resolve, solicit(None)]);
    neighbour_v6(&mut b, Some(OLD), Nud::Reachable);
    assert_eq!(b.poll(), []);
    for _ in 0..5 {
        assert_eq!(b.wake(), [solicit(Some(OLD))]);
        let asked = b.now;
        // As Linux answers a unicast solicitation.
        answer_v6(&mut b, None, false);
        b.wake();
        assert_eq!(b.now - asked, CHECK_INTERVAL);
        answer_v6(&mut b, None, false);
    }
}

#[test]
fn a_silent_ipv6_neighbour_is_asked_by_multicast_in_time() {
    let mut b = v6(true);
    neighbour_v6(&mut b, Some(OLD), Nud::Reachable);
    b.poll();
    b.wake();
    answer_v6(&mut b, None, false);
    let changed = b.now;
    assert_eq!(b.wake(), [solicit(Some(OLD))]);
    assert_eq!(b.wake(), [solicit(None)]);
    assert!(b.now - changed <= CHECK_INTERVAL + ANSWER_TIME);
    answer_v6(&mut b, Some(NEW), true);
    neighbour_v6(&mut b, Some(NEW), Nud::Reachable);
    assert_eq!(b.wake(), [solicit(Some(NEW))]);
}

#[test]
fn who_may_not_override_does_not_answer_for_the_known_address() {
    let mut b = v6(true);
    neighbour_v6(&mut b, Some(OLD), Nud::Reachable);
    b.poll();
    b.wake();
    let due = b.keeper.poll_timeout();
    answer_v6(&mut b, Some(NEW), false);
    assert_eq!(b.keeper.poll_timeout(), due, "a proxy, say");
    assert_eq!(b.wake(), [solicit(None)]);
    answer_v6(&mut b, Some(OLD), false);
    assert_eq!(b.wake(), [solicit(Some(OLD))]);
}

#[test]
fn without_a_link_local_address_the_kernel_is_left_to_it() {
    let mut b = v6(false);
    let resolve = Probe::Resolve { ifindex: DEV, addr: ADDR_V6.into() };
    assert_eq!(b.poll(), [resolve]);
    link_local(&mut b, false);
    assert_eq!(b.wake(), [resolve], "tentative");
    neighbour_v6(&mut b, Some(OLD), Nud::Stale);
    assert_eq!(b.poll(), []);
    assert_eq!(b.keeper.poll_timeout(), None);
    link_local(&mut b, true);
    assert_eq!(b.poll(), []);
    assert_eq!(b.wake(), [solicit(Some(OLD))]);
}

#[test]
fn ipv6_neighbours_are_spread_too() {
    let mut slots: Vec<Duration> =
        (0..64u16).map(|i| spread(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, i]))).collect();
    slots.sort();
    slots.dedup();
    assert_eq!(slots.len(), 64);
}
