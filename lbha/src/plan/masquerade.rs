//! The plan's masquerade rules: which addresses outbound connections leave with.

use std::net::IpAddr;

use super::Planner;
use crate::{
    config::{Mapping, Masquerade as MasqueradeConfig, MasqueradeTo, PortRange},
    datapath::desired::Masquerade,
    net::{Family, Side},
};

impl Planner<'_> {
    pub(super) fn masquerade(
        &mut self,
        masquerade: &MasqueradeConfig,
        kernel_ports: Option<PortRange>,
    ) {
        let mut externals = Vec::new();
        for family in [Family::V4, Family::V6] {
            let sources: Vec<String> = masquerade
                .source
                .iter()
                .filter(|source| Family::of(source.addr()) == family)
                .map(ToString::to_string)
                .collect();
            if sources.is_empty() {
                continue;
            }
            let of_family = self.externals(&masquerade.to, family);
            if of_family.is_empty() {
                let version = match family {
                    Family::V4 => "IPv4",
                    Family::V6 => "IPv6",
                };
                self.warn(format!(
                    "{} has no {version} address to masquerade with: connections from {} are refused",
                    self.ports.public.name,
                    sources.join(", ")
                ));
            }
            externals.extend(of_family);
        }
        let PortRange { first, last } = masquerade.ports;
        // Connections of the host's own leave from its own addresses only.
        if let Some(own) = kernel_ports
            && first <= own.last
            && own.first <= last
            && let Some(shared) = externals.iter().find(|addr| self.fib.local.contains(addr))
        {
            self.warn(format!(
                "masquerade ports {first}-{last} overlap those of the host's own connections from {shared} ({own}, \
                 net.ipv4.ip_local_port_range): answers to these may be taken for a masqueraded connection's"
            ));
        }
        self.plan.desired.masquerades.push(Masquerade {
            sources: masquerade.source.clone(),
            externals,
            ports: (first, last),
            max_ports: masquerade.max_ports_per_source,
            endpoint_independent: masquerade.mapping == Mapping::EndpointIndependent,
        });
    }

    fn externals(&self, to: &MasqueradeTo, family: Family) -> Vec<IpAddr> {
        match to {
            MasqueradeTo::Auto | MasqueradeTo::Interface => {
                self.fib.primary(self.state, Side::Public, family).into_iter().collect()
            }
            MasqueradeTo::Addresses(all) => {
                all.iter().filter(|addr| Family::of(**addr) == family).copied().collect()
            }
        }
    }
}
