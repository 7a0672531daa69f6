//! Attaches the programs: native where the driver can, generic otherwise, and in the place of the daemon's before.

use std::{fs, io, path::PathBuf};

use aya::programs::{
    ProgramError, XdpMode,
    links::{FdLink, LinkError, PinnedLink},
    xdp::XdpLink,
};

use super::{
    loader::{LoadError, Programs},
    pins::{PinError, Pins},
    sys,
};

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// Native where the driver of every interface can, else generic on all.
    #[default]
    Auto,
    Native,
    Generic,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Native,
    Generic,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    fn flag(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }
}

/// A program that runs on an interface already, as netlink tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pub program: u32,
    pub mode: Mode,
}

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// One of [`lbha_common::flow::side`].
    pub side: u8,
    pub side_name: &'static str,
    pub name: String,
    pub ifindex: u32,
    pub running: Option<Running>,
    /// A bond on which the frames that matter carry VLAN tags. The kernel takes tags off at the bond's members, before
    /// a generic program on the bond, so only native mode works here.
    pub tagged_bond: bool,
}

/// An attached program. The link is pinned and outlives this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    pub target: Target,
    pub mode: Mode,
    pub multi_buffer: bool,
    pub program: u32,
    pub pin: PathBuf,
    /// Why it is not native, when that was wanted; or what is wrong with native mode here.
    pub reason: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error(
        "{interface} already runs an XDP program that is not lbha's: {program}; stop whoever put it there, or take it \
         off (`ip link set dev {interface} xdp off`, unless a BPF link holds it)"
    )]
    Foreign { interface: String, program: String },
    #[error(
        "{interface} already runs another lbha's program, {program}, with pins elsewhere than in {pins}: give its \
         --bpffs to take over from it, or end it (`lbha detach --bpffs DIR`)"
    )]
    OtherLbha { interface: String, program: String, pins: PathBuf },
    #[error("{interface} does not take the program in {mode} mode{hint}")]
    Refused { interface: String, mode: &'static str, hint: &'static str, source: Box<ProgramError> },
    #[error("{interface} can't have the program in generic mode: {TAGS_UNSEEN}")]
    TagsUnseen { interface: String },
    #[error("cannot pin the link on {interface}")]
    Pin { interface: String, source: io::Error },
    #[error("cannot take over the link {path}")]
    Takeover { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Pins(#[from] PinError),
}

const TAGS_UNSEEN: &str =
    "the kernel takes VLAN tags off at a bond's members, before a generic program on the bond";

/// Attaches to every target and removes the links of interfaces that are no longer ours.
pub fn attach_all(
    programs: &mut Programs,
    pins: &Pins,
    targets: &[Target],
    preference: Preference,
) -> Result<Vec<Attached>, AttachError> {
    let wanted: Vec<PathBuf> =
        targets.iter().map(|target| pins.link(target.side_name, target.ifindex)).collect();
    for path in pins.links()? {
        if !wanted.contains(&path) {
            remove_pin(&path)?;
        }
    }
    for (target, pin) in targets.iter().zip(&wanted) {
        refuse_foreign(target, pin, pins)?;
    }
    let mut attached = Vec::new();
    for (target, pin) in targets.iter().zip(&wanted) {
        attached.push(attach(programs, target, pin, preference)?);
    }
    if let Some(reason) = against_native(&attached) {
        // Some packets lost is better than all; a side that is generic already leaves no choice.
        let only_native = attached.iter().all(|a| a.mode == Mode::Native)
            && targets.iter().any(|target| target.tagged_bond);
        for (attached, pin) in attached.iter_mut().zip(&wanted) {
            if attached.mode == Mode::Generic {
                continue;
            }
            // Who asks for native by name gets it: all is well while clients keep to smaller packets.
            if preference == Preference::Auto && !only_native {
                let target = Target { running: None, ..attached.target.clone() };
                remove_pin(pin)?;
                *attached = attach(programs, &target, pin, Preference::Generic)?;
            }
            attached.reason = Some(reason.clone());
        }
    }
    Ok(attached)
}

/// What is wrong with native mode here, if anything.
fn against_native(attached: &[Attached]) -> Option<String> {
    // A native program can't redirect to a device whose driver knows nothing of XDP: all of one kind then.
    if let Some(culprit) = attached.iter().find(|a| a.mode == Mode::Generic) {
        return Some(format!("{} has no native XDP to redirect to", culprit.target.name));
    }
    // Only packets that fit both sides' MTUs are redirected, so one side without multi-buffer keeps them small.
    let large = attached.len() > 1 && attached.iter().all(|a| a.multi_buffer);
    (large && !sys::redirects_multi_buffer()).then(|| {
        "Linux before 6.3 loses redirected packets larger than a buffer, about 3500 bytes; one \
         interface with a smaller MTU is enough for native mode"
            .into()
    })
}

/// A program without a link of ours was put there by somebody else.
fn refuse_foreign(target: &Target, pin: &PathBuf, pins: &Pins) -> Result<(), AttachError> {
    let Some(running) = target.running else { return Ok(()) };
    let ours = PinnedLink::from_pin(pin)
        .and_then(|link| FdLink::from(link).info())
        .map(|info| info.program_id());
    if ours.is_ok_and(|id| id == running.program) {
        return Ok(());
    }
    let interface = target.name.clone();
    let name = sys::program_name(running.program).unwrap_or_default();
    Err(if name.starts_with("lbha_public") || name.starts_with("lbha_private") {
        let program = format!("id {}", running.program);
        AttachError::OtherLbha { interface, program, pins: pins.root().to_path_buf() }
    } else if name.is_empty() {
        AttachError::Foreign { interface, program: format!("id {}", running.program) }
    } else {
        AttachError::Foreign { interface, program: format!("id {} ({name})", running.program) }
    })
}

fn attach(
    programs: &mut Programs,
    target: &Target,
    pin: &PathBuf,
    preference: Preference,
) -> Result<Attached, AttachError> {
    let modes: &[Mode] = match preference {
        Preference::Generic if target.tagged_bond => {
            return Err(AttachError::TagsUnseen { interface: target.name.clone() });
        }
        Preference::Generic => &[Mode::Generic],
        Preference::Auto if !target.tagged_bond => &[Mode::Native, Mode::Generic],
        Preference::Auto | Preference::Native => &[Mode::Native],
    };
    if pin.exists() {
        match take_over(programs, target, pin, modes)? {
            Some(attached) => return Ok(attached),
            None => remove_pin(pin)?,
        }
    }
    let mut refusal = None;
    for &mode in modes {
        // Without multi-buffer support first: it is what every driver knows, and faster. Large MTUs need it.
        for multi_buffer in [false, true] {
            let program = programs.get(target.side, multi_buffer)?;
            let result = program
                .attach_to_if_index(target.ifindex, mode.flag())
                .and_then(|id| program.take_link(id));
            match result {
                Ok(link) => {
                    return pinned(programs, target, pin, mode, multi_buffer, link, refusal);
                }
                Err(error) => {
                    let text = innermost(&error);
                    tracing::debug!(
                        interface = target.name,
                        mode = mode.as_str(),
                        multi_buffer,
                        error = text,
                        "not attached"
                    );
                    if is_busy(&error) {
                        return Err(AttachError::Foreign {
                            interface: target.name.clone(),
                            program: "one that came just now".into(),
                        });
                    }
                    refusal.get_or_insert(error);
                }
            }
        }
    }
    let mode = modes[0].as_str();
    let hint = match preference {
        _ if target.tagged_bond => "; generic mode would not see its VLAN tags",
        Preference::Native => "; `attach = \"auto\"` falls back to generic mode, which is slower",
        _ => "",
    };
    let source = refusal.expect("invariant: every mode was tried and refused").into();
    Err(AttachError::Refused { interface: target.name.clone(), mode, hint, source })
}

/// Pins a fresh link.
fn pinned(
    programs: &mut Programs,
    target: &Target,
    pin: &PathBuf,
    mode: Mode,
    multi_buffer: bool,
    link: XdpLink,
    refusal: Option<ProgramError>,
) -> Result<Attached, AttachError> {
    let error = |source| AttachError::Pin { interface: target.name.clone(), source };
    let link = FdLink::try_from(link).map_err(|e| error(io::Error::other(e.to_string())))?;
    link.pin(pin).map_err(|e| error(io::Error::other(e)))?;
    Ok(Attached {
        target: target.clone(),
        mode,
        multi_buffer,
        program: program_id(programs, target.side, multi_buffer)?,
        pin: pin.clone(),
        reason: refusal.filter(|_| mode == Mode::Generic).map(|error| innermost(&error)),
    })
}

/// Puts the new program in the place of the old one, without a packet in between. `None` when the link can't be used:
/// its interface is gone, or the mode is not the one that is asked for.
fn take_over(
    programs: &mut Programs,
    target: &Target,
    pin: &PathBuf,
    modes: &[Mode],
) -> Result<Option<Attached>, AttachError> {
    let Some(running) = target.running.filter(|running| modes.contains(&running.mode)) else {
        return Ok(None);
    };
    for multi_buffer in [false, true] {
        let open = || -> Result<XdpLink, LinkError> {
            let link: FdLink = PinnedLink::from_pin(pin)?.into();
            XdpLink::try_from(link)
        };
        let link = open().map_err(|e| AttachError::Takeover {
            path: pin.clone(),
            source: io::Error::other(e),
        })?;
        let program = programs.get(target.side, multi_buffer)?;
        match program.attach_to_link(link).and_then(|id| program.take_link(id)) {
            // The pin holds the link: closing ours changes nothing.
            Ok(link) => {
                drop(FdLink::try_from(link));
                let program = program_id(programs, target.side, multi_buffer)?;
                let (target, pin) = (target.clone(), pin.clone());
                return Ok(Some(Attached {
                    target,
                    mode: running.mode,
                    multi_buffer,
                    program,
                    pin,
                    reason: None,
                }));
            }
            Err(error) => {
                tracing::debug!(
                    interface = target.name,
                    multi_buffer,
                    error = innermost(&error),
                    "link not updated"
                );
            }
        }
    }
    Ok(None)
}

fn program_id(programs: &mut Programs, side: u8, multi_buffer: bool) -> Result<u32, AttachError> {
    let info = programs.get(side, multi_buffer)?.info();
    info.map(|info| info.id())
        .map_err(|source| LoadError::Program { name: "lbha".into(), source: source.into() }.into())
}

fn remove_pin(path: &PathBuf) -> Result<(), AttachError> {
    fs::remove_file(path).map_err(|source| PinError::Remove { path: path.clone(), source }.into())
}

fn is_busy(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(error) = error else { return false };
    matches!(error.io_error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

/// The innermost cause, which is what says something.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
