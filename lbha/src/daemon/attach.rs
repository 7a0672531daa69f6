//! From the ports to the programs on them.

use lbha_common::flow::side;
use tracing::{info, warn};

use crate::{
    datapath::{
        attach::{AttachError, Attached, Mode, Preference, Running, Target, attach_all},
        loader::Programs,
        pins::Pins,
    },
    net::{NetState, Port, state::XdpMode},
    plan::Ports,
};

/// Attaches to both sides, and says in the log how that went.
pub fn attach(
    programs: &mut Programs,
    pins: &Pins,
    state: &NetState,
    ports: &Ports,
    preference: Preference,
) -> Result<Vec<Attached>, AttachError> {
    let mut targets = vec![target(state, &ports.public, side::PUBLIC, "public")];
    if !ports.one_armed() {
        targets.push(target(state, &ports.private, side::PRIVATE, "private"));
    }
    let attached = attach_all(programs, pins, &targets, preference)?;
    for one in &attached {
        let interface = one.target.name.as_str();
        info!(
            interface,
            mode = one.mode.as_str(),
            multi_buffer = one.multi_buffer,
            program = one.program,
            "attached"
        );
        if one.mode == Mode::Generic && preference != Preference::Generic {
            warn!(
                interface,
                reason = one.reason.as_deref().unwrap_or("it was attached so before"),
                "GENERIC XDP: several times slower than native, and it loses packets under load"
            );
        }
        if let (Mode::Native, Some(reason)) = (one.mode, &one.reason) {
            warn!(interface, reason, "native mode all the same");
        }
    }
    Ok(attached)
}

fn target(state: &NetState, port: &Port, side: u8, side_name: &'static str) -> Target {
    let xdp = state.links.get(&port.attach_ifindex).and_then(|link| link.xdp);
    Target {
        side,
        side_name,
        name: port.attach_name.clone(),
        ifindex: port.attach_ifindex,
        tagged_bond: port.is_bond && !port.vlan.is_empty(),
        running: xdp.map(|xdp| Running {
            program: xdp.prog_id,
            mode: if xdp.mode == XdpMode::Generic { Mode::Generic } else { Mode::Native },
        }),
    }
}
