//! What outlives a function call on a packet: per-CPU rooms, and what each of them is for.
//!
//! XDP programs do not nest on a CPU, so a per-CPU slot belongs to the packet that is being worked on.

use lbha_common::{
    addr::{Addr, Be16},
    flow::{Flow, FlowKey},
    fragment::Part,
    nat::PortProbe,
};

use crate::{parse::Packet, verdict::Verdict};

/// A packet without a confirmed connection, and the room to work on it. The program that parses it fills in the first part
/// and hands over; part of the pinned layout.
#[repr(C, align(8))]
pub struct Work<A> {
    pub key: FlowKey<A>,
    /// Offsets of the IP header and of layer 4 from the start of the frame.
    pub l3: u32,
    pub l4: u32,
    /// VLAN tags of the frame.
    pub tags: u32,
    /// IP packet length.
    pub total_len: u32,
    /// Why the packet can't be forwarded whatever its connection, else `CONTINUE`. It must not leave any state then.
    pub fault: Verdict,
    pub now: u32,
    pub tcp_flags: u8,
    /// Not 0 for a fragment. What is known of it stands in [`Self::datagram`].
    pub fragment: u8,
    pub _pad: u16,
    pub datagram: Datagram,
    /// The translation, once there is one.
    pub flow: Flow<A>,
    /// The other direction.
    pub other_key: FlowKey<A>,
    pub other: Flow<A>,
    pub probe: PortProbe,
    /// TCP sequence and acknowledgement numbers.
    pub seq: u32,
    pub ack: u32,
    /// What became of the search for a port, see [`outcome`].
    pub outcome: u32,
    /// A closing connection's port, to fall back on.
    pub reusable: u32,
    /// Port and start of the oldest half-open connection among those in the way, to fall back on after that. Port 0: none.
    pub oldest: u32,
    pub oldest_created: u32,
    /// Index of the masquerade rule.
    pub rule: u32,
}

/// What only fragments have.
#[repr(C)]
pub struct Datagram {
    /// Identification as it stands in the packet.
    pub id: u32,
    /// Where it stands, as an offset from the start of the frame.
    pub id_at: u32,
    pub part: Part,
    /// What was decided on the first fragment: `CONTINUE` to translate it as [`Work::flow`] says.
    pub verdict: Verdict,
}

/// Values of [`Work::outcome`].
pub mod outcome {
    pub const NONE: u32 = 0;
    pub const FOUND: u32 = 1;
    /// The table takes no entry.
    pub const REFUSED: u32 = 2;
}

impl<A: Addr> Work<A> {
    /// Takes down the packet, which is no fragment. Everything else is set by whoever needs it.
    #[inline(always)]
    pub fn begin(&mut self, key: &FlowKey<A>, now: u32, packet: &Packet, fault: Verdict) {
        self.key = *key;
        self.describe(now, packet, fault);
    }

    /// [`Self::begin`] but for the key, which is there already.
    #[inline(always)]
    pub fn describe(&mut self, now: u32, packet: &Packet, fault: Verdict) {
        self.l3 = (packet.l3 - packet.data) as u32;
        self.l4 = (packet.l4 - packet.data) as u32;
        self.tags = packet.tags;
        self.total_len = packet.total_len;
        self.fault = fault;
        self.now = now;
        self.tcp_flags = packet.tcp_flags;
        self.fragment = 0;
    }
}

impl<A: Addr> Work<A> {
    /// Makes the other direction's entry once `flow` and `other_key` are set.
    #[inline(always)]
    pub fn complete(&mut self) {
        self.flow._pad = 0;
        self.flow.expect_ack = 0;
        self.flow._reserved = [0; 6];
        self.flow.mirror_to(&self.key, &mut self.other);
    }

    /// Has the connection use another source port, in both directions.
    #[inline(always)]
    pub fn set_port(&mut self, port: u16) {
        self.flow.move_to_port(&mut self.other, Be16::new(port));
        self.other_key.dport = Be16::new(port);
    }
}

/// Bytes of a packet that a program can look at as a whole: an ICMP error, or what one quotes.
pub const BYTES: usize = 2048;

/// What a program leaves for the one that it hands its packet to. Part of the pinned layout.
#[repr(C, align(8))]
pub struct Scratch {
    /// Side on which the packet came in.
    pub side: u32,
    /// The counter that says why it is dropped.
    pub reason: u32,
    /// For packets that are too big: what would fit.
    pub mtu: u32,
    /// A search through `bytes`: where it has got to, where it ends, and whether it has found what it is for.
    pub at: u32,
    pub length: u32,
    pub found: u32,
    pub bytes: [u8; BYTES],
}
