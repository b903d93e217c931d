//! The protocol between the harness on the host and the agent in the test guest, over one virtio-serial port.
//!
//! A frame is two little-endian `u32` lengths (JSON, body), then that many bytes of JSON (a [`Request`] or an [`Event`]), then
//! the body (bytes of a file or of an output). Requests carry an id that the host chose; every event names the request that
//! it answers. Several commands run at once and their events interleave.
//!
//! It is a test tool between two parties that trust each other: the guest's kernel and programs under test do not use it.
//!
//! Constants: a frame's JSON is at most [`MAX_JSON`] bytes, its body at most [`MAX_BODY`] bytes. Longer files and outputs
//! go in several frames.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The name of the virtio-serial port that the agent answers on.
pub const PORT_NAME: &str = "vgpu.agent";
/// The longest JSON part of a frame, in bytes.
pub const MAX_JSON: usize = 1 << 20;
/// The longest body of a frame, in bytes.
pub const MAX_BODY: usize = 1 << 20;
/// The size of the pieces that files and outputs are cut into, in bytes.
pub const CHUNK: usize = 256 << 10;

/// The host's name for one request. Unique for the life of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// A command to start in the guest. The frame's body is its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments. A program name without a slash is looked up in the guest's PATH.
    pub argv: Vec<String>,
    /// User and group id.
    pub uid: u32,
    /// Variables on top of the agent's own few.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
}

/// Host to guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Start a command. Answered by `Output` events and one `Exit`, or by `Failed`.
    Run(Command),
    /// Send a signal to the process group of the command that this request id started. Not answered.
    Signal(i32),
    /// Write the body to a file: from its start, or `append`. Answered by `Done` or `Failed`.
    Write {
        /// Path in the guest. Missing folders are made.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Add to the file's end.
        append: bool,
    },
    /// Read a file. Answered by `Data` events, then `Done`, or by `Failed`.
    Read {
        /// Path in the guest.
        path: String,
    },
    /// Switch the machine off. Not answered.
    PowerOff,
}

/// Which output of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Guest to host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// The agent is up. The first frame; its request id is 0.
    Hello {
        /// The guest kernel's release, as `uname -r` says it.
        kernel: String,
    },
    /// The body is a piece of the command's output.
    Output(Stream),
    /// The command has ended and all its output was sent.
    Exit(Exit),
    /// The body is a piece of the file.
    Data,
    /// The request is carried out.
    Done,
    /// The request could not be carried out, and why.
    Failed(String),
}

/// A request or an event with its id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// Which request this is, or answers.
    pub id: RequestId,
    /// The request or event.
    pub message: T,
}

/// Writes one frame.
///
/// # Errors
/// When the port does not take it, or a part is longer than a frame may hold.
pub fn send<T: Serialize>(port: &mut impl Write, id: RequestId, message: &T, body: &[u8]) -> io::Result<()> {
    let json = serde_json::to_vec(&Envelope { id, message })?;
    if json.len() > MAX_JSON || body.len() > MAX_BODY {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a frame's part is too long"));
    }
    let mut frame = Vec::with_capacity(8 + json.len() + body.len());
    for part in [json.len(), body.len()] {
        frame.extend(u32::try_from(part).map_err(io::Error::other)?.to_le_bytes());
    }
    frame.extend(&json);
    frame.extend(body);
    port.write_all(&frame)?;
    port.flush()
}

/// Reads one frame.
///
/// # Errors
/// When the port ends, or what comes is no frame.
pub fn receive<T: DeserializeOwned>(port: &mut impl Read) -> io::Result<(Envelope<T>, Vec<u8>)> {
    let json = length(port, MAX_JSON)?;
    let body = length(port, MAX_BODY)?;
    let mut text = vec![0; json];
    port.read_exact(&mut text)?;
    let mut bytes = vec![0; body];
    port.read_exact(&mut bytes)?;
    Ok((serde_json::from_slice(&text)?, bytes))
}

fn length(port: &mut impl Read, cap: usize) -> io::Result<usize> {
    let mut word = [0; 4];
    port.read_exact(&mut word)?;
    let length = usize::try_from(u32::from_le_bytes(word)).map_err(io::Error::other)?;
    if length > cap {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame's part of {length} bytes")));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_a_cut_or_long_one_does_not() {
        let mut wire = Vec::new();
        send(&mut wire, RequestId(7), &Event::Output(Stream::Stderr), b"hello").unwrap();
        let (envelope, body) = receive::<Event>(&mut wire.as_slice()).unwrap();
        assert_eq!(envelope.id, RequestId(7));
        assert!(matches!(envelope.message, Event::Output(Stream::Stderr)));
        assert_eq!(body, b"hello");

        assert!(receive::<Event>(&mut &wire[..wire.len() - 1]).is_err());
        wire[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(receive::<Event>(&mut wire.as_slice()).is_err());
    }
}
