//! The admin interface: HTTP/JSON over a Unix socket, and the types that are its contract.
#![forbid(unsafe_code)]

pub mod client;
pub mod router;
pub mod server;
#[cfg(test)]
pub(crate) mod testing;
pub mod types;

/// What the admin interface shows; the daemon implements it over the live tables.
///
/// Calls may read a million map entries: they run on a blocking thread, never on the event loop.
pub trait View: Send + Sync + 'static {
    /// Whether programs are attached and the configuration is applied.
    fn ready(&self) -> bool;
    fn status(&self) -> types::Status;
    fn services(&self) -> Vec<types::Service>;
    fn servers(&self) -> Vec<types::Server>;
    fn flows(&self, query: &types::FlowQuery) -> types::Flows;
    fn nat(&self, query: &types::NatQuery) -> types::Nat;
    fn drops(&self) -> Vec<types::InterfaceCounters>;
}
