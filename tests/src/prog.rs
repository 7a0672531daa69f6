//! Runs the real object through BPF_PROG_TEST_RUN: a packet in, a verdict, a packet out, counters.
//!
//! The maps are filled as the daemon fills them, by `datapath::apply` from a [`Desired`]; [`desired`] is the guide's
//! network, and [`gateway`] the same with its servers masqueraded ([`network`]). Every [`Prog`] has pins of its own, so
//! tests run side by side.

pub mod datagrams;
mod net;
mod network;
mod outbound;
mod provoke;

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
use lbha::datapath::{
    Desired, OBJECT,
    apply::{Applier, BackendKey},
    desired::Masquerade,
    expiry::{self, Externals, Sweep, Timeouts},
    family::Family,
    loader::{Programs, Sizes},
    pins::Pins,
    tables::{Counters, FlowTables},
};
use lbha_common::{
    addr::Be16,
    counter::{Class, Counter},
    flow::{FlowKey, FlowKey4, FlowKey6, side},
    stats::{BackendStats, InterfaceStats},
};

use crate::packet::{Frame, L4, Parsed, parse, tcp_flags::*, verify};

pub use net::*;
pub use network::*;
pub use outbound::*;
pub use provoke::*;

/// XDP actions (`enum xdp_action` in `include/uapi/linux/bpf.h`).
pub mod action {
    pub const DROP: u32 = 1;
    pub const PASS: u32 = 2;
    pub const TX: u32 = 3;
    pub const REDIRECT: u32 = 4;
}

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// The loaded object with its maps.
pub struct Prog {
    pub programs: Programs,
    pub applier: Applier,
    pub flows: FlowTables,
    pub counters: Counters,
    /// Those of what was applied last.
    pub externals: Externals,
    pins: Option<Pins>,
    multi_buffer: bool,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub action: u32,
    /// The packet as the program left it.
    pub frame: Vec<u8>,
    /// The counters that moved, with how far.
    pub counted: BTreeMap<&'static str, u64>,
}

impl Outcome {
    /// The packet out, after checking that it was forwarded and that every checksum in it holds.
    #[track_caller]
    pub fn forwarded(&self) -> Parsed {
        self.sent(action::REDIRECT, Counter::Forward)
    }

    /// [`Self::forwarded`], out of the interface that it came in on.
    #[track_caller]
    pub fn sent_back(&self) -> Parsed {
        self.sent(action::TX, Counter::ForwardSame)
    }

    #[track_caller]
    fn sent(&self, action: u32, counter: Counter) -> Parsed {
        assert_eq!(self.counted, BTreeMap::from([(counter.as_str(), 1)]));
        assert_eq!(self.action, action);
        verify(&self.frame).expect("checksums hold");
        parse(&self.frame).expect("an IPv4 packet")
    }

    /// [`Self::forwarded`] for an ICMP error.
    #[track_caller]
    pub fn forwarded_error(&self) -> Parsed {
        self.sent(action::REDIRECT, Counter::ForwardIcmpError)
    }

    /// Checks that the packet was dropped for exactly this reason, and answered with an ICMP error that is counted so.
    #[track_caller]
    pub fn dropped_and_answered(&self, reason: Counter, answer: Counter) -> Parsed {
        assert_eq!(self.counted, BTreeMap::from([(reason.as_str(), 1), (answer.as_str(), 1)]));
        assert_eq!(self.action, action::TX);
        verify(&self.frame).expect("checksums hold");
        parse(&self.frame).expect("an IP packet")
    }

    /// The answer to a ping, after checking that every checksum in it holds.
    #[track_caller]
    pub fn answered(&self) -> Parsed {
        self.sent(action::TX, Counter::AnswerEcho)
    }

    /// Checks that the packet was dropped for exactly this reason.
    #[track_caller]
    pub fn dropped(&self, reason: Counter) {
        assert_eq!(self.counted, BTreeMap::from([(reason.as_str(), 1)]));
        assert_eq!(self.action, action::DROP);
    }

    /// Checks that the packet was dropped for exactly this reason, whether or not its sender is told why.
    #[track_caller]
    pub fn refused(&self, reason: Counter) {
        let is_answer = |name: &str| {
            let counter = Counter::ALL.iter().find(|counter| counter.as_str() == name);
            counter.is_some_and(|counter| counter.class() == Class::Answer)
        };
        let (answers, reasons): (Vec<_>, Vec<_>) =
            self.counted.iter().partition(|(name, _)| is_answer(name));
        assert_eq!(reasons, [(&reason.as_str(), &1)]);
        assert!(self.action == action::DROP || (self.action == action::TX && answers.len() == 1));
    }

    /// Checks that the packet was left to the kernel for exactly this reason, untouched.
    #[track_caller]
    pub fn passed(&self, reason: Counter, sent: &[u8]) {
        assert_eq!(self.counted, BTreeMap::from([(reason.as_str(), 1)]));
        assert_eq!(self.action, action::PASS);
        assert_eq!(self.frame, sent, "passed packets are untouched");
    }
}

/// Small tables.
pub const SIZES: Sizes =
    Sizes { max_connections: 4096, max_connections_v6: 4096, max_half_open: 4096 };

/// A directory for pins that no other test has.
pub fn pin_directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!("/sys/fs/bpf/lbha-test-{}-{number}", std::process::id()))
}

impl Prog {
    /// The object with the guide's network and small tables.
    pub fn new() -> Self {
        Self::with(&desired())
    }

    pub fn with(desired: &Desired) -> Self {
        Self::sized(desired, SIZES)
    }

    pub fn sized(desired: &Desired, sizes: Sizes) -> Self {
        Self::of(OBJECT, desired, sizes)
    }

    /// Any object with lbha's maps (the bench's has more programs).
    pub fn of(object: &[u8], desired: &Desired, sizes: Sizes) -> Self {
        let pins = Pins::open(&pin_directory()).expect("pins");
        let programs = Programs::load(object, &pins, sizes, 0).expect("the object loads");
        let applier = Applier::open(pins.root()).expect("the maps open");
        let flows = FlowTables::open(pins.root()).expect("the flow tables open");
        let counters = Counters::open(pins.root()).expect("the counters open");
        let externals = Externals::default();
        let pins = Some(pins);
        let mut prog =
            Self { programs, applier, flows, counters, externals, pins, multi_buffer: false };
        prog.apply(desired);
        prog
    }

    /// From here on, runs the programs for multi-buffer packets.
    pub fn multi_buffer(mut self) -> Self {
        self.multi_buffer = true;
        self
    }

    pub fn pins(&self) -> &Pins {
        self.pins.as_ref().expect("taken in drop only")
    }

    /// Writes what differs, as the daemon does.
    pub fn apply(&mut self, desired: &Desired) {
        let externals = Masquerade::externals_of(&desired.masquerades);
        self.externals.add(externals.iter().copied());
        self.applier.apply(desired, 0).expect("the maps are written");
        self.externals.replace(externals);
    }

    /// Goes through the flow tables once.
    pub fn sweep(&mut self, timeouts: &Timeouts, number: u64) -> Sweep {
        let sweep = expiry::sweep(&mut self.flows, timeouts, &self.externals, number, || true);
        sweep.expect("the tables can be read").expect("not given up")
    }

    /// Runs one packet that comes in on a side.
    pub fn run(&mut self, side: u8, frame: &[u8]) -> Outcome {
        self.counting(side, |prog| prog.send(side, frame))
    }

    /// [`Self::run`] without a look at the counters: the action, and the packet as the program left it.
    pub fn send(&mut self, side: u8, frame: &[u8]) -> (u32, Vec<u8>) {
        test_run(self.program(side), frame, None)
    }

    /// [`Self::run`] with as little room before the packet as the kernel can be asked for. `None` when it takes no more
    /// than 32 bytes of metadata, as Linux 6.1 does: there is always room then.
    pub fn run_without_headroom(&mut self, side: u8, frame: &[u8]) -> Option<Outcome> {
        // Metadata counts as used headroom: of the 256 bytes (XDP_PACKET_HEADROOM) the kernel keeps 40 (struct
        // xdp_frame) for itself, and these are the rest.
        const METADATA: usize = 256 - 40;
        let data = [&[0; METADATA], frame].concat();
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let words = [METADATA as u32, data.len() as u32, 0, 0, 0, 0];
        let context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        match try_test_run(self.program(side), &data, Some(&context)) {
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == ErrorKind::InvalidInput =>
            {
                return None;
            }
            tried => drop(tried.expect("BPF_PROG_TEST_RUN")),
        }
        Some(self.counting(side, |prog| {
            let (action, out) = test_run(prog.program(side), &data, Some(&context));
            (action, out[METADATA..].to_vec())
        }))
    }

    /// Runs packets that come in on a side from several threads at once, a list each, spread over the CPUs, while
    /// `meanwhile` changes the maps. Gives for each list what [`Self::send`] gives for each packet.
    pub fn run_at_once(
        &mut self,
        side: u8,
        lists: &[Vec<Vec<u8>>],
        meanwhile: impl FnOnce(&mut Applier),
    ) -> Vec<Vec<(u32, Vec<u8>)>> {
        let program = self.programs.get(side, self.multi_buffer);
        let program: &Xdp = program.expect("the program is accepted");
        let start = &Barrier::new(lists.len() + 1);
        let one_thread = |number: usize, frames: &[Vec<u8>]| {
            run_on_cpu(number);
            start.wait();
            frames.iter().map(|frame| test_run(program, frame, None)).collect()
        };
        thread::scope(|scope| {
            let spawn = |(number, frames)| scope.spawn(move || one_thread(number, frames));
            let threads: Vec<_> = lists.iter().map(Vec::as_slice).enumerate().map(spawn).collect();
            start.wait();
            meanwhile(&mut self.applier);
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        })
    }

    fn program(&mut self, side: u8) -> &mut Xdp {
        self.programs.get(side, self.multi_buffer).expect("the program is accepted")
    }

    /// Runs something, and looks which of a side's counters it moved.
    fn counting(&mut self, side: u8, run: impl FnOnce(&mut Self) -> (u32, Vec<u8>)) -> Outcome {
        let before = self.interface_stats(side);
        let (action, frame) = run(self);
        let after = self.interface_stats(side);
        let counted = Counter::ALL
            .iter()
            .map(|&c| (c.as_str(), after.packets[c as usize] - before.packets[c as usize]))
            .filter(|(_, moved)| *moved != 0)
            .collect();
        Outcome { action, frame, counted }
    }

    /// From the internet. The frame is addressed to the load balancer and comes from the router.
    pub fn public(&mut self, frame: Frame) -> Outcome {
        self.run(side::PUBLIC, &frame.macs(ROUTER_MAC, PUBLIC_MAC).build())
    }

    /// From a server, or from any other host on its side.
    pub fn private(&mut self, frame: Frame) -> Outcome {
        self.run(side::PRIVATE, &frame.macs(WEB_MAC[0], PRIVATE_MAC).build())
    }

    /// A client's first packet. The connection is half open after it.
    #[track_caller]
    pub fn begin(&mut self, client: SocketAddr, service: SocketAddr) -> Connection {
        let syn = self.public(Frame::syn(client, service).seq(Connection::CLIENT_ISN)).forwarded();
        Connection { client, service, source: syn.source(), server: syn.destination() }
    }

    /// The whole handshake.
    #[track_caller]
    pub fn connect(&mut self, client: SocketAddr, service: SocketAddr) -> Connection {
        let connection = self.begin(client, service);
        self.private(connection.answer()).forwarded();
        self.public(connection.from_client()).forwarded();
        connection
    }

    /// Checks that packets of a connection are translated, there and back.
    #[track_caller]
    pub fn carries(&mut self, connection: &Connection) {
        let there = self.public(connection.from_client()).forwarded();
        assert_eq!(
            (there.source(), there.destination()),
            (connection.source, connection.server),
            "to the server"
        );
        let back = self.private(connection.from_server()).forwarded();
        assert_eq!(
            (back.source(), back.destination()),
            (connection.service, connection.client),
            "to the client"
        );
    }

    pub fn interface_stats(&self, side: u8) -> InterfaceStats {
        self.counters.interface(side).expect("interface counters")
    }

    /// Counters of a server of `www`, of either family.
    pub fn server_stats(&self, address: impl Into<IpAddr>) -> BackendStats {
        let address = address.into();
        let service = if address.is_ipv4() { WWW } else { WWW6 };
        let key = BackendKey { service, address, port: 80 };
        let id = self.applier.backend_id(&key).expect("a server of the service");
        self.counters.backend(id).expect("server counters")
    }

    /// Counters of the masquerade rule with this source.
    pub fn masquerade_stats(&self, source: &str) -> BackendStats {
        let source = source.parse().expect("a prefix");
        let rules = self.applier.masquerade_owners();
        let rule = rules.iter().find(|rule| rule.sources.contains(&source)).expect("such a rule");
        self.counters.backend(rule.owner).expect("the rule's counters")
    }

    /// Entries in the tables of confirmed connections; two a connection.
    pub fn flow_entries(&self) -> usize {
        let FlowTables { v4, v6 } = &self.flows;
        v4.flows.entries.keys().count() + v6.flows.entries.keys().count()
    }

    /// Entries in the half-open tables.
    pub fn half_open_entries(&self) -> usize {
        let FlowTables { v4, v6 } = &self.flows;
        v4.half_open.entries.keys().count() + v6.half_open.entries.keys().count()
    }

    /// All state that packets leave behind: entries in both tables, and connections counted by server of `www`.
    pub fn state(&self) -> (usize, usize, [u64; 2]) {
        let connections = WEB.map(|server| self.server_stats(server).connections);
        (self.flow_entries(), self.half_open_entries(), connections)
    }
}

fn test_run(program: &Xdp, frame: &[u8], context: Option<&[u8]>) -> (u32, Vec<u8>) {
    try_test_run(program, frame, context).expect("BPF_PROG_TEST_RUN")
}

fn try_test_run(
    program: &Xdp,
    frame: &[u8],
    context: Option<&[u8]>,
) -> Result<(u32, Vec<u8>), ProgramError> {
    let mut out = vec![0; frame.len().max(64) + 256];
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: context,
        ..TestRunOptions::new()
    })?;
    out.truncate(result.data_size_out as usize);
    Ok((result.return_value, out))
}

/// Moves the thread to one CPU. Where that is not allowed the scheduler does it its own way.
pub fn run_on_cpu(number: usize) {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut set = nix::sched::CpuSet::new();
    if set.set(number % cpus).is_ok() {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
    }
}

/// A TCP connection as both of its ends see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub client: SocketAddr,
    pub service: SocketAddr,
    /// What the server takes for its client.
    pub source: SocketAddr,
    pub server: SocketAddr,
}

impl Connection {
    pub const CLIENT_ISN: u32 = 1000;
    pub const SERVER_ISN: u32 = 9000;

    /// The server's part of the handshake.
    pub fn answer(&self) -> Frame {
        self.from_server().flags(SYN | ACK).seq(Self::SERVER_ISN)
    }

    /// An ACK; the first of them is the client's part of the handshake.
    pub fn from_client(&self) -> Frame {
        let frame = Frame::tcp(self.client, self.service);
        frame.seq(Self::CLIENT_ISN + 1).ack(Self::SERVER_ISN + 1)
    }

    /// An ACK.
    pub fn from_server(&self) -> Frame {
        let frame = Frame::tcp(self.server, self.source);
        frame.seq(Self::SERVER_ISN + 1).ack(Self::CLIENT_ISN + 1)
    }

    /// The entry's key of the client's direction, over IPv4.
    pub fn client_key(&self) -> FlowKey4 {
        key(side::PUBLIC, TCP, self.client, self.service)
    }

    /// The entry's key of the server's direction, over IPv4.
    pub fn server_key(&self) -> FlowKey4 {
        key(side::PRIVATE, TCP, self.server, self.source)
    }
}

/// The entry's key of packets over IPv4.
pub fn key(side: u8, proto: u8, from: SocketAddr, to: SocketAddr) -> FlowKey4 {
    key_of(side, proto, from, to)
}

/// The entry's key of packets over IPv6.
pub fn key6(side: u8, proto: u8, from: SocketAddr, to: SocketAddr) -> FlowKey6 {
    key_of(side, proto, from, to)
}

#[track_caller]
pub fn key_of<A: Family>(side: u8, proto: u8, from: SocketAddr, to: SocketAddr) -> FlowKey<A> {
    let addr = |of: SocketAddr| A::of(of.ip()).expect("an address of the family");
    FlowKey {
        saddr: addr(from),
        daddr: addr(to),
        sport: Be16::new(from.port()),
        dport: Be16::new(to.port()),
        proto,
        side,
        _pad: 0,
    }
}

/// The frame that should come of `frame`: new addresses and ports, one hop older, all else as it was. Built anew, so
/// that its checksums owe nothing to the code under test.
pub fn translated(frame: &Frame, from: SocketAddr, to: SocketAddr) -> Frame {
    let mut frame = frame.clone().ttl(frame.ttl - 1);
    (frame.src, frame.dst) = (from.ip(), to.ip());
    match &mut frame.l4 {
        L4::Tcp { src, dst, .. } | L4::Udp { src, dst, .. } => {
            (*src, *dst) = (from.port(), to.port());
        }
        other => panic!("no ports in {other:?}"),
    }
    frame
}

impl Default for Prog {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Prog {
    fn drop(&mut self) {
        if let Some(pins) = self.pins.take() {
            pins.remove_all().expect("the pins can be removed");
        }
    }
}
