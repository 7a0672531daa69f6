//! Incremental Internet checksums (RFC 1071, RFC 1624).
//!
//! Everything works on raw 16-bit loads. The one's complement sum does not depend on byte order as long as every word
//! is loaded the same way (RFC 1071 §2 (B)), so no swap is needed on little-endian machines.
//!
//! A *delta* is the folded sum `Σ (~m + m')` over the changed words; RFC 1624 equation 3 is then
//! `HC' = ~(~HC + delta)`. It depends on the addresses and ports only, so a flow computes it once. Because `~HC` is
//! never 0 for a valid checksum of a packet that is not all zeros, the result is never the second zero (0xffff), which
//! is what a full recomputation gives too.
//!
//! The checksum that comes in must be a full one. A device that leaves it to hardware (CHECKSUM_PARTIAL, seen on veth
//! and virtio) must have transmit checksum offload off.

/// Decrementing the TTL by one, as a delta: the word is (TTL, protocol), and the TTL is its first byte on the wire.
pub const TTL_DELTA: u16 = if cfg!(target_endian = "little") { 0xfffe } else { 0xfeff };

/// Folds a sum of at most 2^16 words into 16 bits with end-around carry.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Unfolded sum of the two halves of a 32-bit word.
#[inline(always)]
const fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}

/// The unfolded delta of replacing a raw 32-bit word; sums of up to 2^14 of these may be folded at once.
#[inline(always)]
pub const fn replace32(old: u32, new: u32) -> u32 {
    halves(!old) + halves(new)
}

/// The unfolded delta of replacing a raw 16-bit word.
#[inline(always)]
pub const fn replace16(old: u16, new: u16) -> u32 {
    (!old) as u32 + new as u32
}

/// Applies a delta to a checksum field (RFC 1624 equation 3).
#[inline(always)]
pub const fn apply(check: u16, delta: u16) -> u16 {
    !fold((!check) as u32 + delta as u32)
}

/// Applies a delta to a UDP checksum: 0 means "no checksum" and stays so, and a computed 0 is sent as 0xffff (RFC 768).
#[inline(always)]
pub const fn apply_udp(check: u16, delta: u16) -> u16 {
    if check == 0 {
        return 0;
    }
    match apply(check, delta) {
        0 => 0xffff,
        check => check,
    }
}

/// Applies a delta to the checksum of an ICMP echo that gets this identifier. Over IPv4 a reply may be all zeros, the only
/// message whose checksum is the second zero; with identifier 0 it is
/// always written so, which every receiver's sum takes for the same number.
#[inline(always)]
pub const fn apply_echo(check: u16, delta: u16, identifier: u16) -> u16 {
    match apply(check, delta) {
        0 if identifier == 0 => 0xffff,
        check => check,
    }
}

/// The delta that undoes `delta`.
#[inline(always)]
pub const fn invert(delta: u16) -> u16 {
    !delta
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The obvious way: sum every big-endian word.
    fn full(bytes: &[u8]) -> u16 {
        let mut sum = 0u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn raw16(b: &[u8]) -> u16 {
        u16::from_ne_bytes([b[0], b[1]])
    }

    fn raw32(b: &[u8]) -> u32 {
        u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
    }

    proptest! {
        #[test]
        fn a_delta_equals_recomputation(mut header in proptest::collection::vec(any::<u8>(), 20), new in any::<[u8; 8]>(), ports in any::<[u8; 4]>()) {
            // bytes 10..12 stand for the checksum, 12..20 for the addresses, 0..4 for the ports
            header[8] = header[8].max(1);
            header[10] = 0;
            header[11] = 0;
            let check = full(&header);
            header[10..12].copy_from_slice(&check.to_be_bytes());
            let delta = fold(
                replace32(raw32(&header[12..]), raw32(&new[..4]))
                    + replace32(raw32(&header[16..]), raw32(&new[4..]))
                    + replace16(raw16(&header[0..]), raw16(&ports[..2]))
                    + replace16(raw16(&header[2..]), raw16(&ports[2..]))
                    + u32::from(TTL_DELTA),
            );
            let updated = apply(raw16(&header[10..]), delta);

            let mut after = header.clone();
            after[12..20].copy_from_slice(&new);
            after[0..4].copy_from_slice(&ports);
            after[8] -= 1;
            after[10] = 0;
            after[11] = 0;
            prop_assert_eq!(updated.to_ne_bytes(), full(&after).to_be_bytes());
        }

        #[test]
        fn there_and_back_is_the_identity(check: u16, old: u32, new: u32) {
            prop_assume!(check != 0xffff);
            let delta = fold(replace32(old, new));
            prop_assert_eq!(apply(apply(check, delta), invert(delta)), check);
        }

        #[test]
        fn a_udp_checksum_never_becomes_absent(check: u16, delta: u16) {
            prop_assert_eq!(apply_udp(check, delta) == 0, check == 0);
        }
    }
}
