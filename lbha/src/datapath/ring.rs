//! The program's ring buffers on the event loop: its events, and its own log.

use std::{io, path::Path};

use aya::{
    Ebpf,
    maps::{MapData, MapError, RingBuf},
};
use aya_log::EbpfLogger;
use lbha_common::{addr::Be128, event::Event, fragment::HeldHeader};
use tokio::io::unix::AsyncFd;

use super::tables;

#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error("cannot open the ring of events")]
    Open(#[from] MapError),
    #[error("cannot open the ring of log records")]
    Log(#[from] aya_log::Error),
    #[error("cannot wait for a ring")]
    Wait(#[from] io::Error),
}

/// The program's events. Must be called within a tokio runtime.
pub fn events(root: &Path) -> Result<AsyncFd<RingBuf<MapData>>, RingError> {
    waiting(tables::events(root)?)
}

/// Fragments to be held. Must be called within a tokio runtime.
pub fn held(root: &Path) -> Result<AsyncFd<RingBuf<MapData>>, RingError> {
    waiting(tables::held(root)?)
}

fn waiting(ring: RingBuf<MapData>) -> Result<AsyncFd<RingBuf<MapData>>, RingError> {
    // SAFETY: the map's descriptor is never replaced, and closed only when the `AsyncFd` drops it.
    unsafe { AsyncFd::register(ring) }.map_err(|error| error.into_parts().1.into())
}

/// Writes what the program logs to our log, in a task of its own. Must be called within a tokio runtime.
pub fn forward_log(ebpf: &mut Ebpf) -> Result<(), RingError> {
    let logger = EbpfLogger::init(ebpf)?;
    // SAFETY: the map's descriptor is never replaced, and closed only when the `AsyncFd` drops it.
    let mut logger = unsafe { AsyncFd::register(logger) }.map_err(|error| error.into_parts().1)?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}

/// The next event in the ring. Records of another size, from another version's program, are skipped.
pub fn next_event(ring: &mut RingBuf<MapData>) -> Option<Event> {
    loop {
        let item = ring.next()?;
        if let (&[kind, family, a, b, c, d], []) = item.as_chunks::<4>() {
            return Some(Event {
                kind: u32::from_ne_bytes(kind),
                family: u32::from_ne_bytes(family),
                addr: Be128::from_raw([a, b, c, d].map(u32::from_ne_bytes)),
            });
        }
    }
}

/// The next fragment in the ring, and its frame. Records that can't be read, from another version's program, are skipped.
pub fn next_held(ring: &mut RingBuf<MapData>) -> Option<(HeldHeader, Vec<u8>)> {
    loop {
        let item = ring.next()?;
        if let Some((header, frame)) = HeldHeader::split(&item) {
            return Some((header, frame.to_vec()));
        }
    }
}
