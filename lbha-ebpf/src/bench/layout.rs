//! The value of the `BENCH` map: what the loop is told, and what it answers. `lbha-bench` includes this file too.

/// In 64-bit words.
pub const WORDS: usize = 16;
pub type Value = [u64; WORDS];

/// Bytes of a frame that are put back before each round; frames are at least as long.
pub const HEADER: usize = 64;

/// Rounds.
pub const COUNT: usize = 0;
/// Number of the first round, so that a batch goes on where the one before has stopped.
pub const START: usize = 1;
/// Number of clients less one, a power of two less one: 0 sends the frame as it is.
pub const CLIENTS: usize = 2;
/// Length of the frame: the program may have moved its start.
pub const LENGTH: usize = 3;
/// Time that the rounds have taken, in ns.
pub const NANOS: usize = 4;
/// Sum of their XDP actions.
pub const ACTIONS: usize = 5;
/// Rounds that were made.
pub const DONE: usize = 6;
/// The frame's first bytes.
pub const FRAME: usize = 8;

const _: () = assert!(FRAME * 8 + HEADER == WORDS * 8);

/// A client's address has 64 ports.
const PORT_BITS: u32 = 6;

/// Client `n`: what is added to the first half of the source address and taken from the second one, which leaves the header
/// checksum as it is; and what is added to the port.
#[inline(always)]
pub const fn client(n: u32) -> (u32, u32) {
    (n >> PORT_BITS, n & ((1 << PORT_BITS) - 1))
}

/// Whose turn it is of `clients + 1`, in an order that no prefetcher follows.
#[inline(always)]
pub const fn turn(round: u32, clients: u32) -> u32 {
    // Each step is a bijection on the numbers up to the mask.
    let n = round.wrapping_mul(0x9e37_79b1) & clients;
    (n ^ n >> 9).wrapping_mul(0x85eb_ca6b) & clients
}
