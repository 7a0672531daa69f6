//! Interfaces and settings.

use aya::maps::{Array, DevMap, MapData};
use lbha_common::{
    addr::Be16,
    nexthop::Interface,
    service::{self, setting},
    wire::VLAN_ID,
};

use super::{ApplyError, map_error};
use crate::datapath::desired::Desired;

pub(super) struct Settings {
    devices: DevMap<MapData>,
    devices_mb: DevMap<MapData>,
    interfaces: Array<MapData, Interface>,
    settings: Array<MapData, service::Settings>,
    written_interfaces: [Option<(Interface, u32)>; 2],
    written: Option<service::Settings>,
}

impl Settings {
    /// What a daemon before has written is not asked for: it is three small entries.
    pub fn new(
        devices: DevMap<MapData>,
        devices_mb: DevMap<MapData>,
        interfaces: Array<MapData, Interface>,
        settings: Array<MapData, service::Settings>,
    ) -> Self {
        let written_interfaces = [None, None];
        Self { devices, devices_mb, interfaces, settings, written_interfaces, written: None }
    }

    /// Bindings are looked up before the first rule makes one, and until the last rule that does is gone.
    pub fn write(&mut self, desired: &Desired) -> Result<(), ApplyError> {
        let now = self.settings.get(&0, 0).map_err(map_error("SETTINGS"))?.flags;
        let mut entry = entry(desired);
        entry.flags |= now & setting::BINDINGS;
        self.set(entry)?;
        self.write_interfaces(desired)
    }

    pub fn finish(&mut self, desired: &Desired) -> Result<(), ApplyError> {
        self.set(entry(desired))
    }

    fn set(&mut self, entry: service::Settings) -> Result<(), ApplyError> {
        if self.written != Some(entry) {
            self.settings.set(0, entry, 0).map_err(map_error("SETTINGS"))?;
            self.written = Some(entry);
        }
        Ok(())
    }

    fn write_interfaces(&mut self, desired: &Desired) -> Result<(), ApplyError> {
        for (side, wanted) in desired.interfaces.iter().enumerate() {
            let mut interface = Interface {
                mac: wanted.mac,
                tags: wanted.vlans.len() as u8,
                ..Interface::default()
            };
            for (slot, tag) in interface.vlan.iter_mut().zip(&wanted.vlans) {
                *slot = Be16::from_raw(tag.tci.raw() & VLAN_ID);
            }
            if self.written_interfaces[side] == Some((interface, wanted.ifindex)) {
                continue;
            }
            // Index 0 empties the slot.
            for (name, devices) in
                [("DEVICES", &mut self.devices), ("DEVICES_MB", &mut self.devices_mb)]
            {
                devices.set(side as u32, wanted.ifindex, None, 0).map_err(map_error(name))?;
            }
            self.interfaces.set(side as u32, interface, 0).map_err(map_error("INTERFACES"))?;
            self.written_interfaces[side] = Some((interface, wanted.ifindex));
        }
        Ok(())
    }
}

fn entry(desired: &Desired) -> service::Settings {
    let wanted = &desired.settings;
    let bindings = desired.masquerades.iter().any(|masquerade| masquerade.endpoint_independent);
    let mut flags = 0;
    for (on, flag) in [
        (wanted.ping, setting::PING),
        (wanted.clamp_mss, setting::CLAMP_MSS),
        (bindings, setting::BINDINGS),
    ] {
        if on {
            flags |= flag;
        }
    }
    service::Settings { server_side: desired.server_side.into(), flags, mss: wanted.mss, _pad: 0 }
}
