//! What a running daemon says of itself, typed: `/v1` as the daemon's own types.

use anyhow::{Context as _, Result};
use lbha::api::types::{Flow, Flows, InterfaceCounters, Server, Service, Status};
use serde::de::DeserializeOwned;

use crate::daemon::Lbha;

impl Lbha {
    pub fn status(&self) -> Result<Status> {
        self.typed("/v1/status")
    }

    pub fn services(&self) -> Result<Vec<Service>> {
        self.typed("/v1/services")
    }

    pub fn servers(&self) -> Result<Vec<Server>> {
        self.typed("/v1/servers")
    }

    /// The server of this name, of the first service that has it.
    pub fn server(&self, name: &str) -> Result<Server> {
        let servers = self.servers()?;
        servers.into_iter().find(|s| s.name == name).with_context(|| format!("no server {name}"))
    }

    /// Connections begun, of all servers together.
    pub fn connections(&self) -> Result<u64> {
        Ok(self.servers()?.iter().map(|server| server.traffic.connections).sum())
    }

    /// The flows that a query (`state=udp&client=…`, or nothing) selects, at most 100,000.
    pub fn flows(&self, query: &str) -> Result<Vec<Flow>> {
        let flows: Flows = self.typed(&format!("/v1/flows?limit=100000&{query}"))?;
        Ok(flows.flows)
    }

    /// Packets with this verdict, of both interfaces together.
    pub fn counter(&self, reason: &str) -> Result<u64> {
        let interfaces: Vec<InterfaceCounters> = self.typed("/v1/drops")?;
        let all = interfaces.iter().flat_map(|interface| &interface.counters);
        Ok(all.filter(|counter| counter.reason == reason).map(|counter| counter.packets).sum())
    }

    fn typed<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        serde_json::from_value(self.api(path)?).with_context(|| format!("GET {path}"))
    }
}
