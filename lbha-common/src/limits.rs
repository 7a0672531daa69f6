//! Sizes of the maps whose size is not a setting.

pub const MAX_SERVICES: usize = 4096;
/// Servers of all services together. Their counters cost 48 bytes each and CPU.
pub const MAX_BACKENDS: usize = 4096;
/// Flows keep 16-bit indices.
pub const MAX_NEXT_HOPS: usize = 1 << 16;
pub const MAX_ROUTES: usize = 1 << 17;
/// Masquerade rules of one family.
pub const MAX_MASQUERADES: usize = 256;
/// Prefixes that masquerade rules apply to, of one family.
pub const MAX_SOURCES: usize = 4096;
/// Datagrams of one family whose fragments are under way.
pub const MAX_FRAGMENTED: usize = 16_384;
/// Endpoint-independent bindings of one family, two entries each.
pub const MAX_BINDINGS: usize = 262_144;
/// Hosts of one family whose connections are counted.
pub const MAX_COUNTED_SOURCES: usize = 65_536;
