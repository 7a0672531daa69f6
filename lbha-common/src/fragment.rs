//! Fragments as map entries: what became of a datagram's first fragment, so that the others go the same way.

use crate::{
    addr::{Be32, Be128},
    time::{TICK_SHIFT, age},
    wire::{proto, tcp},
};

/// A datagram as its fragments name it, as they come in (RFC 791 §3.2, RFC 8200 §4.5).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey<A> {
    pub saddr: A,
    pub daddr: A,
    /// Identification as it stands in the packet; 16 bits of it for IPv4.
    pub id: u32,
    /// IPv4's protocol; 0 for IPv6, whose fragments are told apart without.
    pub proto: u8,
    /// One of [`crate::flow::side`].
    pub side: u8,
    pub _pad: u16,
}

pub type FragmentKey4 = FragmentKey<Be32>;
pub type FragmentKey6 = FragmentKey<Be128>;

/// What becomes of a datagram's fragments.
pub mod fate {
    /// Nothing is known yet: fragments that came before the first are held.
    pub const HELD: u8 = 0;
    /// Translated and sent on.
    pub const FORWARD: u8 = 1;
    /// Left to the kernel, as the first one was.
    pub const PASS: u8 = 2;
    /// Dropped, as the first one was.
    pub const DROP: u8 = 3;
}

/// What the first fragment has decided.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment<A> {
    /// Addresses to write.
    pub saddr: A,
    pub daddr: A,
    /// Identification to write.
    pub id: u32,
    /// Delta of the IPv4 header checksum: addresses, TTL, identification.
    pub l3_delta: u16,
    pub next_hop: u16,
    /// As in [`crate::flow::Flow`].
    pub backend: u16,
    /// One of [`fate`].
    pub fate: u8,
    /// Not 0 for the server-to-client direction.
    pub reply: u8,
    /// First packet, in ticks.
    pub created: u32,
}

pub type Fragment4 = Fragment<Be32>;
pub type Fragment6 = Fragment<Be128>;

/// How long the first fragment's fate is the others', in ticks: 10 s. Identifications come again (RFC 4963), and what is
/// so late belongs to the next datagram with the same one. The hosts that put fragments together wait longer, but one
/// that is on its way does not take that long.
pub const LIFETIME: u32 = (10_000_000_000_u64 >> TICK_SHIFT) as u32 + 1;

impl<A> Fragment<A> {
    /// Whether it still says what becomes of a fragment that comes now.
    #[inline(always)]
    pub const fn is_decided(&self, now: u32) -> bool {
        self.fate != fate::HELD && age(now, self.created) <= LIFETIME
    }
}

/// Which part of its datagram a fragment is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Bytes of the datagram before it.
    pub offset: u32,
    /// Bytes of the datagram in it.
    pub length: u32,
    /// Not 0 when it is not the last one.
    pub more: u32,
}

impl Part {
    /// Whether it can be of an honest datagram, of which at most `max` bytes are in fragments.
    ///
    /// Only the last fragment may be of any length (RFC 791 §3.2, RFC 8200 §4.5), and together they fit one packet. One
    /// that begins within the TCP header would have the receiver take other ports or flags for those that were looked at
    /// (RFC 1858 §4, RFC 3128 §5).
    #[inline(always)]
    pub const fn is_sound(&self, protocol: u8, max: u32) -> bool {
        if self.length == 0 || self.offset + self.length > max {
            return false;
        }
        if self.more != 0 && !self.length.is_multiple_of(8) {
            return false;
        }
        protocol != proto::TCP || self.offset == 0 || self.offset >= tcp::HEADER as u32
    }
}

/// What stands before the frame in a record of the ring of held fragments.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldHeader {
    /// Bytes of the frame.
    pub length: u32,
    /// One of [`crate::event::family`].
    pub family: u32,
    /// The datagram; an IPv4 address is the first word.
    pub key: FragmentKey6,
}

impl HeldHeader {
    /// A record's header, and the frame behind it; `None` for what another version's program wrote.
    pub fn split(record: &[u8]) -> Option<(Self, &[u8])> {
        let (header, frame) = record.split_at_checked(size_of::<Self>())?;
        let word =
            |at: usize| header.get(at * 4..at * 4 + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let addr = |at: usize| {
            Some(Be128::from_raw([word(at)?, word(at + 1)?, word(at + 2)?, word(at + 3)?]))
        };
        let [proto, side, ..] = word(11)?.to_ne_bytes();
        let key =
            FragmentKey { saddr: addr(2)?, daddr: addr(6)?, id: word(10)?, proto, side, _pad: 0 };
        let header = Self { length: word(0)?, family: word(1)?, key };
        // The ring pads records.
        Some((header, frame.get(..header.length as usize)?))
    }
}

/// The largest frame that can be held.
pub const MAX_HELD: usize = 16_384;

const _: () = assert!(
    size_of::<FragmentKey4>() == 16
        && size_of::<FragmentKey6>() == 40
        && size_of::<Fragment4>() == 24
        && size_of::<Fragment6>() == 48
        && size_of::<HeldHeader>() == 48
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_t_be_put_together_is_not_sound() {
        let part = |offset, length, more| Part { offset, length, more };
        let udp = |part: Part| part.is_sound(proto::UDP, 65_515);
        assert!(udp(part(0, 1480, 1)) && udp(part(1480, 1480, 1)) && udp(part(2960, 13, 0)));
        assert!(!udp(part(1480, 1477, 1)), "not the last, and not a multiple of 8");
        assert!(!udp(part(1480, 0, 0)), "nothing in it");
        assert!(udp(part(65_512, 3, 0)) && !udp(part(65_512, 4, 0)), "more than a packet holds");
        assert!(udp(part(8, 8, 0)));
    }

    #[test]
    fn nothing_begins_within_the_tcp_header() {
        let tcp = |offset| Part { offset, length: 64, more: 1 }.is_sound(proto::TCP, 65_515);
        assert!(tcp(0) && tcp(24));
        assert!(!tcp(8) && !tcp(16));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let key = FragmentKey6 {
            saddr: Be128::from_raw([1, 2, 3, 4]),
            daddr: Be128::from_raw([5, 6, 7, 8]),
            id: 9,
            proto: 17,
            side: 1,
            _pad: 0,
        };
        let words = [5, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, u32::from_ne_bytes([17, 1, 0, 0])];
        let mut record = [0; 56];
        for (bytes, word) in record.chunks_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        record[48..53].copy_from_slice(b"frame");
        let header = HeldHeader { length: 5, family: 4, key };
        assert_eq!(HeldHeader::split(&record), Some((header, &b"frame"[..])));
        assert_eq!(HeldHeader::split(&record[..52]), None, "cut off");
        assert_eq!(HeldHeader::split(&record[..47]), None);
    }

    #[test]
    fn a_fate_does_not_outlive_its_datagram() {
        let note = Fragment4 { fate: fate::FORWARD, created: 100, ..Fragment4::default() };
        assert!(note.is_decided(100) && note.is_decided(100 + LIFETIME) && note.is_decided(99));
        assert!(!note.is_decided(101 + LIFETIME));
        assert!(!Fragment4 { fate: fate::HELD, ..note }.is_decided(100));
    }
}
