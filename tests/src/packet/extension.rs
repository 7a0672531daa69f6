//! IPv6 extension headers (RFC 8200 §4): those that the tests put between the IPv6 header and what it carries.

use std::net::Ipv6Addr;

use super::{Fault, be16, be32};

/// An extension header of a packet to be built, or of one that was parsed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Extension {
    /// Options, padded with Pad1 to a multiple of 8 bytes; may be empty.
    HopByHop(Vec<u8>),
    /// Options, as in [`Extension::HopByHop`].
    Destination(Vec<u8>),
    /// What follows `segments_left` is padded with zeros to a multiple of 8 bytes.
    Routing { kind: u8, segments_left: u8, data: Vec<u8> },
    /// Offset, flag and identification are those of the packet: `Frame::fragment_offset`, `more_fragments`, `id`.
    Fragment,
}

/// What a fragment header says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fragment {
    /// In units of 8 bytes.
    pub offset: u16,
    pub more: bool,
    pub id: u32,
}

/// The extension headers of a packet.
pub(super) struct Chain {
    pub extensions: Vec<Extension>,
    pub fragment: Fragment,
    /// What follows them.
    pub protocol: u8,
    pub len: usize,
}

impl Extension {
    /// Its number in the header before it.
    pub fn number(&self) -> u8 {
        match self {
            Self::HopByHop(_) => HOP_BY_HOP,
            Self::Routing { .. } => ROUTING,
            Self::Fragment => FRAGMENT,
            Self::Destination(_) => DESTINATION,
        }
    }

    pub(super) fn encode(&self, next: u8, fragment: Fragment) -> Vec<u8> {
        let mut out = vec![next, 0];
        match self {
            Self::HopByHop(options) | Self::Destination(options) => out.extend(options),
            Self::Routing { kind, segments_left, data } => {
                out.extend([*kind, *segments_left]);
                out.extend(data);
            }
            Self::Fragment => {
                out.extend((fragment.offset << 3 | u16::from(fragment.more)).to_be_bytes());
                out.extend(fragment.id.to_be_bytes());
                return out;
            }
        }
        out.resize(out.len().next_multiple_of(8), 0);
        out[1] =
            u8::try_from(out.len() / 8 - 1).expect("an extension header of at most 2048 bytes");
        out
    }
}

/// Reads the headers from the one with the number `first` on; an unknown number ends them. With a later fragment's header
/// they end too: what follows it is the middle of something.
pub(super) fn parse(first: u8, bytes: &[u8]) -> Result<Chain, Fault> {
    const CUT: Fault = Fault::Truncated("IPv6 extension header");
    let mut chain =
        Chain { extensions: Vec::new(), fragment: Fragment::default(), protocol: first, len: 0 };
    while matches!(chain.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
        if chain.fragment.offset != 0 {
            break;
        }
        let rest = &bytes[chain.len..];
        let says = usize::from(*rest.get(1).ok_or(CUT)?);
        let len = if chain.protocol == FRAGMENT { 8 } else { 8 * (says + 1) };
        let header = rest.get(..len).ok_or(CUT)?;
        chain.extensions.push(match chain.protocol {
            HOP_BY_HOP => Extension::HopByHop(header[2..].to_vec()),
            DESTINATION => Extension::Destination(header[2..].to_vec()),
            ROUTING => Extension::Routing {
                kind: header[2],
                segments_left: header[3],
                data: header[4..].to_vec(),
            },
            _ => {
                let word = be16(header, 2).ok_or(CUT)?;
                let id = be32(header, 4).ok_or(CUT)?;
                chain.fragment = Fragment { offset: word >> 3, more: word & 1 != 0, id };
                Extension::Fragment
            }
        });
        chain.protocol = header[0];
        chain.len += len;
    }
    Ok(chain)
}

/// The address that checksums are computed with: under way through a routing header the last of its addresses (RFC 8200
/// §8.1), which the segment routing header (type 4) has first.
pub(super) fn final_destination(dst: Ipv6Addr, extensions: &[Extension]) -> Ipv6Addr {
    let under_way = extensions.iter().find_map(|extension| match extension {
        Extension::Routing { kind, segments_left: 1.., data } => Some((*kind, data)),
        _ => None,
    });
    let Some((kind, data)) = under_way else { return dst };
    let addresses = data.get(4..).unwrap_or_default();
    let address =
        if kind == SEGMENT_ROUTING { addresses.first_chunk() } else { addresses.last_chunk() };
    address.map_or(dst, |&octets: &[u8; 16]| Ipv6Addr::from(octets))
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
const SEGMENT_ROUTING: u8 = 4;
