//! The admin interface's Unix socket: how it comes to be, who may use it, and how much a client may take.

use std::{
    fs,
    future::Future,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixListener as StdUnixListener,
        },
    },
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
        },
        stat::{Mode, fchmod},
    },
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, error, warn};

use crate::api::{View, router::router};

/// The admin interface, listening. Dropping it removes the socket.
#[derive(Debug)]
pub struct Server {
    listener: StdUnixListener,
    file: SocketFile,
    limits: Limits,
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("{} is too long for a socket: {length} bytes, and {MAX_PATH} is the most", path.display())]
    PathTooLong { path: PathBuf, length: usize },
    #[error("another daemon listens on {}: stop it first, or choose another --runtime-dir", .0.display())]
    Live(PathBuf),
    #[error("{} exists and is not a socket: it was left alone", .0.display())]
    NotSocket(PathBuf),
    #[error("cannot create the directory {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot tell whether a daemon still listens on {}", path.display())]
    Probe {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on {}", path.display())]
    Bind {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Server {
    /// Creates the socket, mode 0660: root's and its group's. Clients that connect from here on wait until [`Self::serve`].
    ///
    /// The socket of a dead daemon is replaced; one that is answered, or a file that is no socket, is an error.
    pub fn bind(path: &Path) -> Result<Self, ServerError> {
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            return Err(ServerError::PathTooLong { path: path.to_owned(), length });
        }
        create_parent(path)?;
        clear_stale(path)?;

        let failed = |source: io::Error| ServerError::Bind { path: path.to_owned(), source };
        let fd = stream_socket().map_err(|e| failed(e.into()))?;
        // The socket's own mode, less the umask, becomes the file's: there is no moment at which others may connect.
        fchmod(&fd, SOCKET_MODE).map_err(|e| failed(e.into()))?;
        let address = UnixAddr::new(path).map_err(|e| failed(e.into()))?;
        bind(fd.as_raw_fd(), &address).map_err(|e| failed(e.into()))?;
        let file = SocketFile::of(path).map_err(failed)?;
        // The umask may have taken the group's part.
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE.bits()))
            .map_err(failed)?;
        let backlog = Backlog::new(BACKLOG).map_err(|e| failed(e.into()))?;
        listen(&fd, backlog).map_err(|e| failed(e.into()))?;
        Ok(Self { listener: fd.into(), file, limits: Limits::default() })
    }

    /// Answers until `shutdown` completes; then removes the socket and lets the running requests finish for a moment.
    pub async fn serve(
        self,
        view: Arc<dyn View>,
        shutdown: impl Future,
    ) -> Result<(), ServerError> {
        let Self { listener, file, limits } = self;
        let listener = UnixListener::from_std(listener)
            .map_err(|source| ServerError::Bind { path: file.path.clone(), source })?;
        let router = router(view);
        let (stop, stopping) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        let mut complained: Option<Instant> = None;

        loop {
            tokio::select! {
                biased;
                _ = &mut shutdown => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = listener.accept(), if connections.len() < limits.connections => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(converse(stream, router.clone(), limits, stopping.clone()));
                    }
                    Err(error) => {
                        // Out of descriptors, most likely: the condition stays, so do not spin on it.
                        if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE) {
                            warn!(%error, "cannot accept a connection to the admin socket");
                            complained = Some(Instant::now());
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }

        drop(file);
        drop(listener);
        stop.send_replace(true);
        let finish = async { while connections.join_next().await.is_some() {} };
        if timeout(limits.grace, finish).await.is_err() {
            connections.shutdown().await;
        }
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

/// One client, for as long as it may stay.
async fn converse(
    stream: UnixStream,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stopping.wait_for(|stop| *stop) => None,
        () = sleep(limits.lifetime) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match timeout(limits.grace, connection).await {
                Ok(ended) => ended,
                // It does not read its answer.
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a client of the admin socket went away");
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a connection of the admin socket failed");
    }
}

/// What clients may take of the daemon.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// At a time; more wait in the socket's backlog.
    connections: usize,
    /// For a request's head to arrive, and so for a kept-alive connection to stay idle.
    header: Duration,
    /// Of a connection; a request that is being answered then still gets `grace`.
    lifetime: Duration,
    grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            header: Duration::from_secs(5),
            lifetime: Duration::from_secs(60),
            grace: Duration::from_secs(2),
        }
    }
}

/// The socket in the file system. Removed on drop, unless another daemon has put its own in its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|now| now.dev() == self.device && now.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "cannot remove the admin socket");
        }
    }
}

fn create_parent(path: &Path) -> Result<(), ServerError> {
    let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty() && !p.exists()) else {
        return Ok(());
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(parent)
        // The umask may have taken others' part, and the socket's group has to get through.
        .and_then(|()| fs::set_permissions(parent, fs::Permissions::from_mode(DIRECTORY_MODE)))
        .map_err(|source| ServerError::Directory { path: parent.to_owned(), source })
}

/// Removes a socket that nobody listens on.
fn clear_stale(path: &Path) -> Result<(), ServerError> {
    let undecided = |source: io::Error| ServerError::Probe { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(ServerError::NotSocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(undecided(error)),
    }
    let fd = stream_socket().map_err(|e| undecided(e.into()))?;
    let address = UnixAddr::new(path).map_err(|e| undecided(e.into()))?;
    match connect(fd.as_raw_fd(), &address) {
        // EAGAIN: its backlog is full, so somebody does listen.
        Ok(()) | Err(Errno::EAGAIN) => Err(ServerError::Live(path.to_owned())),
        Err(Errno::ENOENT) => Ok(()),
        Err(Errno::ECONNREFUSED) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(undecided(error)),
            _ => {
                debug!(path = %path.display(), "removed the socket of a dead daemon");
                Ok(())
            }
        },
        Err(error) => Err(undecided(error.into())),
    }
}

/// Not blocking, so that asking a daemon with a full backlog does not wait for it.
fn stream_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

/// `sun_path` has 108 bytes, the last is 0.
const MAX_PATH: usize = 107;
const SOCKET_MODE: Mode = Mode::from_bits_truncate(0o660);
const DIRECTORY_MODE: u32 = 0o755;
const BACKLOG: i32 = 128;
/// Of a request's head; hyper asks for 8 KiB at least.
const MAX_HEADER: usize = 16 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two lines about it in the log.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
