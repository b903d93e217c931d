//! How a VM's daemon is asked about it and told what to do with it: the language of its control socket, and the way to the daemons.
//!
//! Each daemon that has a state folder listens in it on a unix stream socket, `vm-N.ctl` for VM N. A request is one line of JSON, its
//! answer another; a connection may have many, one after another. Who may open the socket may do everything: its file's permissions are
//! all the access control there is. Nothing of what guests compute is in an answer.
//!
//! This crate holds the messages and the asking side. It decides nothing and knows no mediator.
//!
//! Invariants
//! - Whoever reads takes no more than the limits below, and gives up after [`TIME_LIMIT`] (the asking side, for what is quick).
//! - A field is never removed and never changes its meaning within one [`VERSION`]; readers ignore fields they do not know.
//!
//! | constant | value |
//! |---|---|
//! | [`STATE_DIR`] | `/run/vgpu` |
//! | [`REQUEST_BYTES_MAX`] | 64 KiB |
//! | [`ANSWER_BYTES_MAX`] | 16 MiB |
//! | [`TIME_LIMIT`] | 10 s |

mod find;
mod messages;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use find::{FindError, Found, Place, all, find};
pub use messages::{
    Answer, Counters, DeviceReport, Kind, Micros, ProcessReport, QuarantineReport, ReadingReport, Request,
    SuspendReport, VmReport, Work,
};

/// Version of the messages.
pub const VERSION: u32 = 1;
/// Where the daemons of a host meet when nobody says otherwise.
pub const STATE_DIR: &str = "/run/vgpu";
/// Longest request in bytes, its end of line included.
pub const REQUEST_BYTES_MAX: u64 = 64 * 1024;
/// Longest answer in bytes, its end of line included.
pub const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// How long an answer is waited for that the daemon has at once.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);
/// The same for a suspend or a resume, which move device memory.
pub const LONG_TIME_LIMIT: Duration = Duration::from_secs(900);

/// The socket of a VM's daemon in a state folder.
pub fn socket_path(state_dir: &Path, vm_id: u32) -> PathBuf {
    state_dir.join(format!("vm-{vm_id}.ctl"))
}

/// Why a daemon has not answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no daemon answers on {path}: {source}")]
    NotThere {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The socket's permissions.
    #[error("{path} may not be opened by this user: {source}")]
    NotAllowed {
        /// The socket.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// It ended, or took too long.
    #[error("the daemon on {path} has not answered: {source}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It answers nobody now: too many ask.
    #[error("the daemon on {path} refuses: {reason}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The answer is none of this version's.
    #[error(
        "the daemon on {path} answers in a way that is not understood ({what}): it and this program are of different versions"
    )]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Connection {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`AskError::NotThere`], [`AskError::NotAllowed`].
    pub fn open(path: &Path) -> Result<Self, AskError> {
        let path = path.to_owned();
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Self { path, stream: BufReader::new(stream) }),
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(AskError::NotAllowed { path, source })
            }
            Err(source) => Err(AskError::NotThere { path, source }),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn ask(&mut self, request: &Request) -> Result<Answer, AskError> {
        let limit = if request.is_long() { LONG_TIME_LIMIT } else { TIME_LIMIT };
        let line = self.exchange(request, limit);
        let line = line.map_err(|source| AskError::Broken { path: self.path.clone(), source })?;
        serde_json::from_slice(&line)
            .map_err(|error| AskError::NotUnderstood { path: self.path.clone(), what: error.to_string() })
    }

    fn exchange(&mut self, request: &Request, limit: Duration) -> io::Result<Vec<u8>> {
        let stream = self.stream.get_mut();
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(TIME_LIMIT))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        read_line(&mut self.stream, ANSWER_BYTES_MAX)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// The next line, without its end; None where the other side has ended between two lines.
///
/// # Errors
/// The stream's, a line longer than `bytes_max`, or one without an end.
pub fn read_line(from: &mut impl BufRead, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    from.take(bytes_max).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() as u64 >= bytes_max.saturating_sub(1) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line of more than {bytes_max} bytes")))
        }
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_up_to_the_limit() {
        let line = |text: &str, max| read_line(&mut text.as_bytes(), max);
        assert_eq!(line("ab\ncd\n", 10).unwrap().unwrap(), b"ab");
        assert_eq!(line("", 10).unwrap(), None);
        assert_eq!(line("abc", 10).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(line("abcdef\n", 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(line("abc\n", 4).unwrap().unwrap(), b"abc");
    }

    #[test]
    fn a_daemon_that_is_not_there_is_said_to_be_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = socket_path(folder.path(), 7);
        assert!(matches!(Connection::open(&path), Err(AskError::NotThere { .. })));
    }

    #[test]
    fn an_answer_of_another_kind_is_not_understood() {
        let folder = tempfile::tempdir().unwrap();
        let path = socket_path(folder.path(), 7);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let line = read_line(&mut BufReader::new(stream.try_clone().unwrap()), 100).unwrap();
            stream.write_all(b"{\"answer\":\"something else\"}\n").unwrap();
            line
        });
        let error = Connection::open(&path).unwrap().ask(&Request::Show).unwrap_err();
        assert!(matches!(error, AskError::NotUnderstood { .. }), "{error}");
        assert_eq!(daemon.join().unwrap().unwrap(), br#"{"request":"show"}"#);
    }
}
