//! Runs the real object through BPF_PROG_TEST_RUN: a packet in, a verdict, a packet out, counters.
//!
//! The maps are filled as the daemon fills them, by `datapath::apply` from a [`Desired`]; [`desired`] is the guide's
//! network. Every [`Prog`] has pins of its own, so tests run side by side.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
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
    apply::Applier,
    desired::{Hop, Interface, Route, Server, Service, ServiceId},
    loader::{Programs, Sizes},
    pins::Pins,
    tables::{Counters, FlowTables},
};
use lbha_common::{
    addr::Be16,
    counter::Counter,
    flow::{FlowKey4, side},
    nexthop::Tag,
    service::pick,
    stats::{BackendStats, InterfaceStats},
};

use crate::packet::{Frame, L4, Parsed, parse, tcp_flags::*, verify};

pub const VIP: Ipv4Addr = Ipv4Addr::new(147, 75, 78, 116);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The load balancer's own addresses.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(147, 75, 104, 177);
pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
pub const WEB: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 168, 1, 10), Ipv4Addr::new(192, 168, 1, 11)];

pub const PUBLIC_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PRIVATE_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const WEB_MAC: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 0x10], [2, 0, 0, 0, 1, 0x11]];

/// XDP actions (`enum xdp_action` in `include/uapi/linux/bpf.h`).
pub mod action {
    pub const DROP: u32 = 1;
    pub const PASS: u32 = 2;
    pub const TX: u32 = 3;
    pub const REDIRECT: u32 = 4;
}

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// The service `www` of the guide.
pub const WWW: ServiceId = ServiceId { vip: VIP, port: 80, protocol: TCP };

/// The loaded object with its maps.
pub struct Prog {
    pub programs: Programs,
    pub applier: Applier,
    pub flows: FlowTables,
    pub counters: Counters,
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

    /// Checks that the packet was dropped for exactly this reason.
    #[track_caller]
    pub fn dropped(&self, reason: Counter) {
        assert_eq!(self.counted, BTreeMap::from([(reason.as_str(), 1)]));
        assert_eq!(self.action, action::DROP);
    }

    /// Checks that the packet was left to the kernel for exactly this reason, untouched.
    #[track_caller]
    pub fn passed(&self, reason: Counter, sent: &[u8]) {
        assert_eq!(self.counted, BTreeMap::from([(reason.as_str(), 1)]));
        assert_eq!(self.action, action::PASS);
        assert_eq!(self.frame, sent, "passed packets are untouched");
    }
}

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
        Self::sized(
            desired,
            Sizes { max_connections: 4096, max_connections_v6: 1024, max_half_open: 4096 },
        )
    }

    pub fn sized(desired: &Desired, sizes: Sizes) -> Self {
        Self::of(OBJECT, desired, sizes)
    }

    /// Any object with lbha's maps (the bench's has more programs).
    pub fn of(object: &[u8], desired: &Desired, sizes: Sizes) -> Self {
        let pins = Pins::open(&pin_directory()).expect("pins");
        let programs = Programs::load(object, &pins, sizes, 0).expect("the object loads");
        let mut applier = Applier::open(pins.root()).expect("the maps open");
        applier.apply(desired, 0).expect("the maps are written");
        let flows = FlowTables::open(pins.root()).expect("the flow tables open");
        let counters = Counters::open(pins.root()).expect("the counters open");
        Self { programs, applier, flows, counters, pins: Some(pins), multi_buffer: false }
    }

    /// From here on, runs the programs for multi-buffer packets.
    pub fn multi_buffer(mut self) -> Self {
        self.multi_buffer = true;
        self
    }

    pub fn pins(&self) -> &Pins {
        self.pins.as_ref().expect("taken in drop only")
    }

    /// Writes what differs.
    pub fn apply(&mut self, desired: &Desired) {
        self.applier.apply(desired, 0).expect("the maps are written");
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

    /// From a server.
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

    /// Counters of a server of `www`.
    pub fn server_stats(&self, address: Ipv4Addr) -> BackendStats {
        let key = lbha::datapath::apply::BackendKey { service: WWW, address, port: 80 };
        let id = self.applier.backend_id(&key).expect("a server of the service");
        self.counters.backend(id).expect("server counters")
    }

    /// Entries in the table of confirmed connections; two a connection.
    pub fn flow_entries(&self) -> usize {
        self.flows.flows.entries.keys().count()
    }

    /// Entries in the half-open table.
    pub fn half_open_entries(&self) -> usize {
        self.flows.half_open.entries.keys().count()
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
fn run_on_cpu(number: usize) {
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

    /// The entry's key of the client's direction.
    pub fn client_key(&self) -> FlowKey4 {
        key(side::PUBLIC, TCP, self.client, self.service)
    }

    /// The entry's key of the server's direction.
    pub fn server_key(&self) -> FlowKey4 {
        key(side::PRIVATE, TCP, self.server, self.source)
    }
}

pub fn key(side: u8, proto: u8, from: SocketAddr, to: SocketAddr) -> FlowKey4 {
    FlowKey4 {
        saddr: v4(from).into(),
        daddr: v4(to).into(),
        sport: Be16::new(from.port()),
        dport: Be16::new(to.port()),
        proto,
        side,
        _pad: 0,
    }
}

/// The address of an IPv4 socket.
#[track_caller]
pub fn v4(of: SocketAddr) -> Ipv4Addr {
    match of.ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address} is not IPv4"),
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

/// The guide's network: `www` on the elastic address, round robin over two servers, everything resolved.
pub fn desired() -> Desired {
    let server = |address| Server {
        address,
        port: 80,
        keep_client: false,
        source: Some(PRIVATE),
        source_ports: (1024, 32767),
    };
    let www = Service {
        pick: pick::COUNTER,
        seed: 7,
        servers: WEB.iter().copied().map(server).collect(),
        slots: vec![0, 1],
    };
    Desired {
        // The loopback device stands for both: nothing is sent, the map only has to have an entry.
        interfaces: [
            Interface { ifindex: 1, mac: PUBLIC_MAC, vlans: vec![] },
            Interface { ifindex: 1, mac: PRIVATE_MAC, vlans: vec![] },
        ],
        server_side: side::PRIVATE,
        services: BTreeMap::from([(WWW, www)]),
        routes: BTreeMap::from([
            ((Ipv4Addr::UNSPECIFIED, 0), Route::Hop),
            ((Ipv4Addr::new(192, 168, 1, 0), 24), Route::OnLink),
        ]),
        hops: BTreeMap::from([
            ((Ipv4Addr::UNSPECIFIED, 0), public_hop(ROUTER_MAC)),
            ((WEB[0], 32), private_hop(WEB_MAC[0])),
            ((WEB[1], 32), private_hop(WEB_MAC[1])),
        ]),
        lingering: BTreeMap::new(),
        local: [PUBLIC, PRIVATE].into(),
    }
}

/// A VLAN tag: the type, and the TCI with its priority bits.
pub fn tag(tpid: u16, tci: u16) -> Tag {
    Tag { tpid: Be16::new(tpid), tci: Be16::new(tci) }
}

/// The service `www` in [`desired`], to be changed.
pub fn www(desired: &mut Desired) -> &mut Service {
    desired.services.get_mut(&WWW).expect("the guide's service")
}

/// A neighbour on the internet side.
pub fn public_hop(dmac: [u8; 6]) -> Hop {
    Hop { side: side::PUBLIC, dmac: Some(dmac), smac: PUBLIC_MAC, mtu: 1500, tags: vec![] }
}

/// A neighbour on the servers' side.
pub fn private_hop(dmac: [u8; 6]) -> Hop {
    Hop { side: side::PRIVATE, dmac: Some(dmac), smac: PRIVATE_MAC, mtu: 1500, tags: vec![] }
}

/// Client `n`'s socket: addresses from 203.0.113.10 on, the port out of the load balancer's own range.
pub fn client(n: u16) -> SocketAddr {
    at(CLIENT, 40000 + n)
}

pub fn vip() -> SocketAddr {
    at(VIP, 80)
}

pub fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}
