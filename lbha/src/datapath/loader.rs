//! Loads the programs over the pinned maps: new ones on a first start, those of the daemon before on any other.

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{MapError, MapInfo},
    programs::{ProgramError, Xdp},
};
use lbha_common::flow::side;

use super::pins::{MAPS, Pins};

/// Sizes of the flow tables, in connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub max_connections: u32,
    pub max_half_open: u32,
}

impl Sizes {
    /// Entries by map: a connection has one a direction.
    fn entries(self) -> [(&'static str, &'static str, u32); 4] {
        [
            ("FLOWS4", "max_connections", self.max_connections.saturating_mul(2)),
            ("HALF_OPEN4", "max_half_open", self.max_half_open.saturating_mul(2)),
            ("FLOWS6", "max_connections", self.max_connections.saturating_mul(2)),
            ("HALF_OPEN6", "max_half_open", self.max_half_open.saturating_mul(2)),
        ]
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "the maps that are pinned were made with {setting} = {found}, the configuration says {wanted}; `lbha detach` \
         removes them, and the connections in them"
    )]
    Size { setting: &'static str, found: u32, wanted: u32 },
    #[error("cannot read the pinned map {map}")]
    Pinned { map: &'static str, source: MapError },
    #[error("cannot load the maps")]
    Maps(#[source] Box<EbpfError>),
    #[error("the kernel refuses the program {name}")]
    Program { name: &'static str, source: Box<ProgramError> },
    #[error("the object has no program {0}: it was not built from these sources")]
    Missing(&'static str),
}

/// The object in the kernel. Programs are verified one by one, when they are asked for.
pub struct Programs {
    ebpf: Ebpf,
}

/// Levels of the program's own log (`--bpf-log`), as aya-log numbers them; 0 has the verifier remove it.
pub type LogLevel = u8;

impl Programs {
    /// Creates the maps that are not pinned yet, and makes the programs ready to be verified.
    pub fn load(
        object: &[u8],
        pins: &Pins,
        sizes: Sizes,
        log: LogLevel,
    ) -> Result<Self, LoadError> {
        // aya opens an existing pin without comparing; the layout's version is in the path, sizes are settings.
        for (map, setting, wanted) in sizes.entries() {
            let path = pins.map(map);
            if path.exists() {
                let info =
                    MapInfo::from_pin(&path).map_err(|source| LoadError::Pinned { map, source })?;
                if info.max_entries() != wanted {
                    return Err(LoadError::Size {
                        setting,
                        found: info.max_entries() / 2,
                        wanted: wanted / 2,
                    });
                }
            }
        }
        let mut loader = EbpfLoader::new();
        loader.override_global("AYA_LOG_LEVEL", &log, false);
        for (map, _, entries) in sizes.entries() {
            loader.map_max_entries(map, entries);
        }
        for map in MAPS {
            loader.map_pin_path(map, pins.map(map));
        }
        Ok(Self { ebpf: loader.load(object).map_err(|error| LoadError::Maps(error.into()))? })
    }

    /// The program for a side, verified.
    pub fn get(&mut self, on: u8, multi_buffer: bool) -> Result<&mut Xdp, LoadError> {
        let name = match (on, multi_buffer) {
            (side::PUBLIC, false) => "lbha_public",
            (side::PUBLIC, true) => "lbha_public_mb",
            (_, false) => "lbha_private",
            (_, true) => "lbha_private_mb",
        };
        self.named(name)
    }

    /// A program of the object by name, verified.
    pub fn named(&mut self, name: &'static str) -> Result<&mut Xdp, LoadError> {
        let program: &mut Xdp =
            self.ebpf.program_mut(name).ok_or(LoadError::Missing(name))?.try_into().map_err(
                |source: ProgramError| LoadError::Program { name, source: source.into() },
            )?;
        if program.fd().is_err() {
            program.load().map_err(|source| LoadError::Program { name, source: source.into() })?;
        }
        Ok(program)
    }

    /// For aya-log.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}
