//! A configured interface name into the device where XDP attaches and the device with this side's addresses; pure.

use std::collections::BTreeSet;

use thiserror::Error;

use super::state::{IfIndex, Link, Mac, NetState, VlanTag};

/// One side of the load balancer. XDP sees frames at the lowest device, before bonding and VLAN handling, while
/// addresses, routes and neighbours belong to the device on top of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// As configured.
    pub name: String,
    pub attach_ifindex: IfIndex,
    pub attach_name: String,
    /// The devices whose addresses, routes and neighbours count as this side.
    pub l3_ifindexes: BTreeSet<IfIndex>,
    /// What frames leaving this side carry as source: the L3 device's address.
    pub smac: Mac,
    /// Tags that frames of this side carry at the attached device, outermost first; at most two.
    pub vlan: Vec<VlanTag>,
    /// Of the L3 device.
    pub mtu: u32,
    /// The attached device is a bond: native XDP there reaches all members (Linux 5.15 and later).
    pub is_bond: bool,
    /// The attached device is a member of a bond.
    pub is_bond_member: bool,
    /// What the attached device is a port of, if anything: `bond`, `bridge`, `vrf`… XDP on a bridge's port takes
    /// frames before the bridge sees them.
    pub master_kind: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InterfaceError {
    #[error("no interface named {name}{}", did_you_mean(.nearest.as_deref()))]
    NotFound { name: String, nearest: Option<String> },
    #[error("{name} is the loopback interface")]
    Loopback { name: String },
    #[error("{name} is not an Ethernet interface")]
    NotEthernet { name: String },
    #[error("{name} has {count} vlan tags, at most {MAX_VLAN_TAGS} are supported")]
    TooManyTags { name: String, count: usize },
    #[error("the interface below {name} is not in this network namespace")]
    LowerElsewhere { name: String },
}

/// Finds the port for a configured interface name (or alternative name). An interface that is down is fine: it is
/// attached to all the same, so that nothing is missing when it comes up.
pub fn resolve_interface(state: &NetState, name: &str) -> Result<Port, InterfaceError> {
    let configured = state.link_by_name(name).ok_or_else(|| InterfaceError::NotFound {
        name: name.to_owned(),
        nearest: nearest(name, state.links.values().map(|link| link.name.as_str())),
    })?;
    if configured.loopback {
        return Err(InterfaceError::Loopback { name: name.to_owned() });
    }

    // Down through VLAN devices; the topmost one has the innermost tag.
    let mut device = configured;
    let mut vlan = Vec::new();
    while let Some(tag) = device.vlan {
        vlan.insert(0, tag);
        if vlan.len() > state.links.len() {
            break; // Only a corrupt snapshot has a loop; the count below refuses it.
        }
        device = device
            .lower
            .and_then(|index| state.links.get(&index))
            .ok_or_else(|| InterfaceError::LowerElsewhere { name: device.name.clone() })?;
    }
    if vlan.len() > MAX_VLAN_TAGS {
        return Err(InterfaceError::TooManyTags { name: name.to_owned(), count: vlan.len() });
    }
    if !device.ethernet {
        return Err(InterfaceError::NotEthernet { name: device.name.clone() });
    }

    let master = device.master.and_then(|index| state.links.get(&index));
    let bond = master.filter(|link| is_bond(link));
    // The kernel moves a member's addresses nowhere: they are configured on the bond in the first place.
    let l3 = if vlan.is_empty() { bond.unwrap_or(configured) } else { configured };
    Ok(Port {
        name: name.to_owned(),
        attach_ifindex: device.index,
        attach_name: device.name.clone(),
        l3_ifindexes: BTreeSet::from([l3.index]),
        smac: l3.mac,
        vlan,
        mtu: l3.mtu,
        is_bond: is_bond(device),
        is_bond_member: bond.is_some(),
        master_kind: master.map(|link| link.kind.clone()),
    })
}

/// `team` is the other bonding driver.
fn is_bond(link: &Link) -> bool {
    link.kind == "bond" || link.kind == "team"
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(", did you mean {name}?")).unwrap_or_default()
}

/// The candidate that differs least, unless it differs in more than a third of the name.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let limit = (name.len() / 3).max(1);
    candidates
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein's; interface names are at most 15 bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// What the datapath parses.
const MAX_VLAN_TAGS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::state::Event;

    const Q: u16 = 0x8100;
    const AD: u16 = 0x88a8;

    fn link(index: u32, name: &str, kind: &str) -> Link {
        Link {
            index,
            name: name.into(),
            kind: kind.into(),
            mac: [2, 0, 0, 0, 0, index as u8],
            mtu: 1500,
            up: true,
            carrier: true,
            ethernet: true,
            ..Link::default()
        }
    }

    fn vlan(index: u32, name: &str, lower: u32, protocol: u16, id: u16) -> Link {
        let tag = VlanTag { protocol, id };
        Link { lower: Some(lower), vlan: Some(tag), ..link(index, name, "vlan") }
    }

    fn state(links: impl IntoIterator<Item = Link>) -> NetState {
        let mut state = NetState::default();
        for link in links {
            state.apply(Event::NewLink(link));
        }
        state
    }

    #[test]
    fn a_plain_interface_is_everything_at_once() {
        let s = state([link(2, "ens14f0", "")]);
        let port = resolve_interface(&s, "ens14f0").unwrap();
        assert_eq!((port.attach_ifindex, port.attach_name.as_str()), (2, "ens14f0"));
        assert_eq!(port.l3_ifindexes, BTreeSet::from([2]));
        assert_eq!((port.smac, port.mtu), ([2, 0, 0, 0, 0, 2], 1500));
        assert!(port.vlan.is_empty() && !port.is_bond && !port.is_bond_member);
        assert_eq!(port.master_kind, None);
    }

    #[test]
    fn an_interface_that_is_down_resolves() {
        let s = state([Link { up: false, carrier: false, ..link(2, "eth0", "") }]);
        assert!(resolve_interface(&s, "eth0").is_ok());
    }

    #[test]
    fn an_alternative_name_resolves() {
        let s = state([Link { alt_names: vec!["enp1s0".into()], ..link(2, "eth0", "") }]);
        let port = resolve_interface(&s, "enp1s0").unwrap();
        assert_eq!((port.name.as_str(), port.attach_name.as_str()), ("enp1s0", "eth0"));
    }

    #[test]
    fn a_member_of_a_bond_has_the_bonds_addresses_and_mac() {
        let s = state([
            Link { master: Some(9), ..link(2, "ens14f0", "") },
            Link { mtu: 9000, ..link(9, "bond0", "bond") },
        ]);
        let port = resolve_interface(&s, "ens14f0").unwrap();
        assert_eq!(port.attach_ifindex, 2);
        assert_eq!(port.l3_ifindexes, BTreeSet::from([9]));
        assert_eq!((port.smac, port.mtu), ([2, 0, 0, 0, 0, 9], 9000));
        assert!(port.is_bond_member && !port.is_bond);
        assert_eq!(port.master_kind.as_deref(), Some("bond"));
    }

    #[test]
    fn a_bond_is_attached_to_itself() {
        let port = resolve_interface(&state([link(9, "bond0", "bond")]), "bond0").unwrap();
        assert_eq!((port.attach_ifindex, port.is_bond, port.is_bond_member), (9, true, false));
    }

    #[test]
    fn a_vlan_device_attaches_below_and_keeps_its_tag() {
        let s = state([link(2, "eth0", ""), vlan(3, "eth0.100", 2, Q, 100)]);
        let port = resolve_interface(&s, "eth0.100").unwrap();
        assert_eq!((port.attach_ifindex, port.attach_name.as_str()), (2, "eth0"));
        assert_eq!(port.l3_ifindexes, BTreeSet::from([3]));
        assert_eq!(port.vlan, [VlanTag { protocol: Q, id: 100 }]);
        assert_eq!(port.smac, [2, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn stacked_vlans_list_the_outermost_tag_first() {
        let s =
            state([link(2, "eth0", ""), vlan(3, "outer", 2, AD, 10), vlan(4, "inner", 3, Q, 20)]);
        let port = resolve_interface(&s, "inner").unwrap();
        assert_eq!(port.vlan, [VlanTag { protocol: AD, id: 10 }, VlanTag { protocol: Q, id: 20 }]);
        assert_eq!((port.attach_ifindex, port.l3_ifindexes.first()), (2, Some(&4)));
    }

    #[test]
    fn a_vlan_on_a_bond_attaches_to_the_bond() {
        let s = state([
            Link { master: Some(9), ..link(2, "ens14f0", "") },
            link(9, "bond0", "bond"),
            vlan(10, "bond0.7", 9, Q, 7),
        ]);
        let port = resolve_interface(&s, "bond0.7").unwrap();
        assert_eq!((port.attach_ifindex, port.is_bond), (9, true));
        assert_eq!(port.l3_ifindexes, BTreeSet::from([10]));
        assert_eq!(port.vlan, [VlanTag { protocol: Q, id: 7 }]);
    }

    #[test]
    fn a_bridge_port_is_allowed_and_says_so() {
        let s = state([Link { master: Some(5), ..link(2, "eth0", "") }, link(5, "br0", "bridge")]);
        let port = resolve_interface(&s, "eth0").unwrap();
        assert_eq!((port.master_kind.as_deref(), port.is_bond_member), (Some("bridge"), false));
        assert_eq!(port.l3_ifindexes, BTreeSet::from([2]));
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_reason() {
        let s = state([
            Link { loopback: true, ethernet: false, ..link(1, "lo", "") },
            link(2, "ens14f0", ""),
            Link { ethernet: false, ..link(6, "wg0", "wireguard") },
            vlan(3, "a", 2, Q, 1),
            vlan(4, "b", 3, Q, 2),
            vlan(5, "c", 4, Q, 3),
            Link { lower: None, ..vlan(7, "far", 2, Q, 4) },
        ]);
        let error = |name| resolve_interface(&s, name).unwrap_err().to_string();
        assert_eq!(error("ens14f1"), "no interface named ens14f1, did you mean ens14f0?");
        assert_eq!(error("wlan0"), "no interface named wlan0");
        assert_eq!(error("lo"), "lo is the loopback interface");
        assert_eq!(error("wg0"), "wg0 is not an Ethernet interface");
        assert_eq!(error("c"), "c has 3 vlan tags, at most 2 are supported");
        assert_eq!(error("far"), "the interface below far is not in this network namespace");
    }

    #[test]
    fn edit_distance_counts_single_edits() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("eth0", "eth0"), 0);
        assert_eq!(edit_distance("eth0", "eht0"), 2);
        assert_eq!(edit_distance("bond", "bond0"), 1);
    }
}
