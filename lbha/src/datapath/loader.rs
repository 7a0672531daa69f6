//! Loads the programs over the pinned maps: new ones on a first start, those of the daemon before on any other.

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{MapError, MapInfo, ProgramArray},
    programs::{ProgramError, Xdp},
};
use lbha_common::{flow::side, tail};

use super::pins::{MAPS, Pins};

/// Sizes of the flow tables, in connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Over IPv4.
    pub max_connections: u32,
    /// Over IPv6.
    pub max_connections_v6: u32,
    /// Of each family.
    pub max_half_open: u32,
}

impl Sizes {
    /// Entries by map: a connection has one a direction.
    fn entries(self) -> [(&'static str, &'static str, u32); 4] {
        [
            ("FLOWS4", "max_connections", self.max_connections.saturating_mul(2)),
            ("FLOWS6", "max_connections_v6", self.max_connections_v6.saturating_mul(2)),
            ("HALF_OPEN4", "max_half_open", self.max_half_open.saturating_mul(2)),
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
    Program { name: String, source: Box<ProgramError> },
    #[error("the object has no {0}: it was not built from these sources")]
    Missing(String),
    #[error("cannot put the program {name} in its place")]
    Tail { name: String, source: MapError },
}

/// The object in the kernel. Programs are verified one by one, when they are asked for.
pub struct Programs {
    ebpf: Ebpf,
    /// Whether the programs that packets are handed to are in place: of the plain kind, and of the multi-buffer one.
    tails: [bool; 2],
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
        let ebpf = loader.load(object).map_err(|error| LoadError::Maps(error.into()))?;
        Ok(Self { ebpf, tails: [false; 2] })
    }

    /// The program for a side, verified, with those in place that it hands packets to.
    pub fn get(&mut self, on: u8, multi_buffer: bool) -> Result<&mut Xdp, LoadError> {
        self.load_tails(multi_buffer)?;
        self.named(match (on, multi_buffer) {
            (side::PUBLIC, false) => "lbha_public",
            (side::PUBLIC, true) => "lbha_public_mb",
            (_, false) => "lbha_private",
            (_, true) => "lbha_private_mb",
        })
    }

    /// A program of the object by name, verified.
    pub fn named(&mut self, name: &str) -> Result<&mut Xdp, LoadError> {
        let error = |source: ProgramError| LoadError::Program {
            name: name.to_owned(),
            source: source.into(),
        };
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or_else(|| LoadError::Missing(format!("program {name}")))?;
        let program: &mut Xdp = program.try_into().map_err(error)?;
        if program.fd().is_err() {
            program.load().map_err(error)?;
        }
        Ok(program)
    }

    /// Puts the programs of a kind that packets are handed to in their places, before any is attached that hands them
    /// some. In the places of a running daemon's, each is replaced without a packet in between.
    fn load_tails(&mut self, multi_buffer: bool) -> Result<(), LoadError> {
        if self.tails[usize::from(multi_buffer)] {
            return Ok(());
        }
        let (array, suffix) = if multi_buffer { ("TAILS_MB", "_mb") } else { ("TAILS", "") };
        for (index, name) in (0..).zip(tail::NAMES) {
            let name = format!("{name}{suffix}");
            let program = self
                .named(&name)?
                .fd()
                .and_then(|fd| fd.try_clone().map_err(ProgramError::IOError));
            let program = program.map_err(|source| LoadError::Program {
                name: name.clone(),
                source: source.into(),
            })?;
            let map = self.ebpf.map_mut(array);
            let map = map.ok_or_else(|| LoadError::Missing(format!("map {array}")))?;
            ProgramArray::try_from(map)
                .and_then(|mut array| array.set(index, &program, 0))
                .map_err(|source| LoadError::Tail { name, source })?;
        }
        self.tails[usize::from(multi_buffer)] = true;
        Ok(())
    }

    /// For aya-log.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}
