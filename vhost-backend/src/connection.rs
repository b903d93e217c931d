//! One connection from QEMU: its messages in order, until it ends.

use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::net::{RecvFlags, recv};
use vgpu_device::Device;
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::front::VmFront;
use crate::messages::{Messages, SHARE_HINT, is_survivable};

/// Bytes of a message's header.
const HEADER_BYTES: usize = 12;
/// The header's flag of a message whose sender waits for an acknowledgement.
const NEED_REPLY: u32 = 1 << 3;

/// Names of the messages, by number (docs/interop/vhost-user.rst of QEMU).
const NAMES: [&str; 45] = [
    "none",
    "GET_FEATURES",
    "SET_FEATURES",
    "SET_OWNER",
    "RESET_OWNER",
    "SET_MEM_TABLE",
    "SET_LOG_BASE",
    "SET_LOG_FD",
    "SET_VRING_NUM",
    "SET_VRING_ADDR",
    "SET_VRING_BASE",
    "GET_VRING_BASE",
    "SET_VRING_KICK",
    "SET_VRING_CALL",
    "SET_VRING_ERR",
    "GET_PROTOCOL_FEATURES",
    "SET_PROTOCOL_FEATURES",
    "GET_QUEUE_NUM",
    "SET_VRING_ENABLE",
    "SEND_RARP",
    "NET_SET_MTU",
    "SET_BACKEND_REQ_FD",
    "IOTLB_MSG",
    "SET_VRING_ENDIAN",
    "GET_CONFIG",
    "SET_CONFIG",
    "CREATE_CRYPTO_SESSION",
    "CLOSE_CRYPTO_SESSION",
    "POSTCOPY_ADVISE",
    "POSTCOPY_LISTEN",
    "POSTCOPY_END",
    "GET_INFLIGHT_FD",
    "SET_INFLIGHT_FD",
    "GPU_SET_SOCKET",
    "RESET_DEVICE",
    "VRING_KICK",
    "GET_MAX_MEM_SLOTS",
    "ADD_MEM_REG",
    "REM_MEM_REG",
    "SET_STATUS",
    "GET_STATUS",
    "GET_SHARED_OBJECT",
    "SET_DEVICE_STATE_FD",
    "CHECK_DEVICE_STATE",
    "GET_SHMEM_CONFIG",
];
const SET_MEM_TABLE: u32 = 5;
const ADD_MEM_REG: u32 = 37;

/// A message as announced by its header.
#[derive(Debug, Clone, Copy)]
struct Announced {
    request: u32,
    flags: u32,
    len: u32,
}

impl Announced {
    fn name(self) -> &'static str {
        NAMES.get(self.request as usize).copied().unwrap_or("unknown message")
    }

    /// Whether the sender waits: for an acknowledgement it asked for, or for the answer that a "get" always has. An
    /// acknowledgement is sent with the error; an answer then does not come at all.
    fn awaits_answer(self) -> bool {
        self.flags & NEED_REPLY == 0 && (self.name().starts_with("GET_") || self.name().starts_with("CHECK_"))
    }
}

/// Serves one connection; returns when it has ended and every worker of the VM was reaped.
///
/// # Errors
/// The connection ended otherwise than by QEMU closing it.
pub fn serve(stream: UnixStream, device: &Arc<Device>) -> io::Result<()> {
    let front = VmFront::new(device.clone())?;
    let peek = stream.try_clone()?;
    let queue_thread = {
        let front = front.clone();
        thread::Builder::new().name("queues".into()).spawn(move || front.run())?
    };
    device.events().set_sink(Some(front.clone()));
    let messages = Arc::new(Mutex::new(Messages::new(front.clone())));
    let mut handler = BackendReqHandler::from_stream(stream, messages);
    let mut any = false;
    let end = loop {
        let announced = match announced(&peek) {
            Ok(Some(announced)) => announced,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        any = true;
        log::debug!("<- {} ({} bytes, flags {:#x})", announced.name(), announced.len, announced.flags);
        // A panic is caught here, so that the queue thread and the workers come to their end all the same.
        let handled = catch_unwind(AssertUnwindSafe(|| handler.handle_request()));
        match handled.unwrap_or(Err(Error::BackendInternalError)) {
            Ok(()) => {}
            Err(Error::Disconnected | Error::PartialMessage) => break Ok(()),
            Err(error) => {
                log::error!("{} failed: {error}", announced.name());
                if [SET_MEM_TABLE, ADD_MEM_REG].contains(&announced.request) {
                    log::error!("{SHARE_HINT}");
                }
                if !is_survivable(&error, announced.awaits_answer()) {
                    break Err(crate::messages::io_error(error));
                }
            }
        }
    };
    device.events().set_sink(None);
    front.end();
    if queue_thread.join().is_err() {
        log::error!("the queue thread panicked");
    }
    if any {
        front.reset();
    }
    end
}

/// Looks at the next message's header without taking it; `None` at the end of the connection.
fn announced(stream: &UnixStream) -> io::Result<Option<Announced>> {
    let mut header = [0u8; HEADER_BYTES];
    loop {
        let len = match recv(stream, &mut header, RecvFlags::PEEK | RecvFlags::WAITALL) {
            Ok((len, _)) => len,
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if len < HEADER_BYTES {
            return Ok(None);
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l] = header;
        return Ok(Some(Announced {
            request: u32::from_ne_bytes([a, b, c, d]),
            flags: u32::from_ne_bytes([e, f, g, h]),
            len: u32::from_ne_bytes([i, j, k, l]),
        }));
    }
}
