//! Sockets at a path: a leftover of an earlier run is replaced, one in use is not, and ours goes away with us.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Only the user who runs the daemon may connect.
pub const OWNER_ONLY: Mode = Mode::RUSR.union(Mode::WUSR);

/// Connections that may wait to be taken.
const BACKLOG: i32 = 64;

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error("{path} is in use: another daemon listens on it; end that one, or choose another path")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something else lies there.
    #[error("{path} exists and is not a socket; it is left alone")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot listen on {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
}

/// A listening socket, unlinked when it is dropped (if the path still leads to it).
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode of what was bound.
    identity: (u64, u64),
}

impl Listener {
    /// Binds and listens; who may connect is what the socket's `mode` says.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path, kind: SocketType, mode: Mode) -> Result<Self, BindError> {
        let io = |source: io::Error| BindError::Io { path: path.into(), source };
        let address = SocketAddrUnix::new(path).map_err(|error| io(error.into()))?;
        let new = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
        };
        let fd = new().map_err(|error| io(error.into()))?;
        match rustix::net::bind(&fd, &address) {
            Ok(()) => {}
            Err(rustix::io::Errno::ADDRINUSE) => {
                let probe = new().map_err(|error| io(error.into()))?;
                remove_leftover(path, rustix::net::connect(&probe, &address))?;
                rustix::net::bind(&fd, &address).map_err(|error| io(error.into()))?;
            }
            Err(error) => return Err(io(error.into())),
        }
        // Nobody can connect before listen, so nobody comes in between with wider rights.
        rustix::fs::chmod(path, mode).map_err(|error| io(error.into()))?;
        let metadata = fs::symlink_metadata(path).map_err(io)?;
        rustix::net::listen(&fd, BACKLOG).map_err(|error| io(error.into()))?;
        Ok(Self { fd, path: path.into(), identity: (metadata.dev(), metadata.ino()) })
    }

    /// Takes the next connection; `None` if none waits.
    ///
    /// # Errors
    /// The kernel's.
    pub fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match rustix::net::accept_with(&self.fd, SocketFlags::CLOEXEC) {
            Ok(connection) => Ok(Some(connection)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Nobody else may find it: removes its path, if that still leads to it.
    pub fn unlink(&self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// Removes the socket at `path` if connecting to it says that nobody listens.
fn remove_leftover(path: &Path, connected: rustix::io::Result<()>) -> Result<(), BindError> {
    let io = |source: io::Error| BindError::Io { path: path.into(), source };
    if !fs::symlink_metadata(path).map_err(io)?.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path.into() });
    }
    match connected {
        Err(rustix::io::Errno::CONNREFUSED) => {
            log::info!("{} was left over from an earlier run; replaced", path.display());
            fs::remove_file(path).map_err(io)
        }
        // A wrong type of socket is somebody's too, and a full backlog has a listener.
        Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::PROTOTYPE) => {
            Err(BindError::InUse { path: path.into() })
        }
        Err(error) => Err(io(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn bind(path: &Path) -> Result<Listener, BindError> {
        Listener::bind(path, SocketType::STREAM, OWNER_ONLY)
    }

    #[test]
    fn leftover_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let listener = bind(&path).unwrap();
        let _peer = UnixStream::connect(&path).unwrap();
        assert!(listener.accept().unwrap().is_some());
        assert!(listener.accept().unwrap().is_none());
    }

    #[test]
    fn socket_in_use_is_refused_and_left_working() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::InUse { .. })));
        let seqpacket = Listener::bind(&path, SocketType::SEQPACKET, OWNER_ONLY);
        assert!(matches!(seqpacket, Err(BindError::InUse { .. })));
        let _peer = UnixStream::connect(&path).unwrap();
        assert!(first.accept().unwrap().is_some());
    }

    #[test]
    fn other_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(BindError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn socket_is_private_and_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn successors_socket_is_not_unlinked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }
}
