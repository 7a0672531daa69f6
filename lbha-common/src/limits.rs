//! Sizes of the maps whose size is not a setting.

pub const MAX_SERVICES: usize = 4096;
/// Servers of all services together. Their counters cost 48 bytes each and CPU.
pub const MAX_BACKENDS: usize = 4096;
/// Flows keep 16-bit indices.
pub const MAX_NEXT_HOPS: usize = 1 << 16;
pub const MAX_ROUTES: usize = 1 << 17;
