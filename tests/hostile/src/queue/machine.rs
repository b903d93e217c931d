//! QEMU's part: connects to the daemon, hands over memory and queues. And a guest driver that can behave.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pci_layout::ABI_VERSION;
use pci_layout::control::{
    CLOSE_SESSION, HELLO, Hello, OPEN_SESSION, OpenSession, ReplyHeader, RequestHeader, SessionRef,
};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use zerocopy::{FromBytes, IntoBytes};

use super::virtqueue::{Descriptor, NEXT, QUEUE_SIZE, Queue, WRITE};

/// Guest memory: two regions with a gap between them.
pub const LOW: u64 = 0;
/// The second one.
pub const HIGH: u64 = 0x1_0000_0000;
/// Length of each.
pub const REGION_BYTES: u64 = 8 << 20;
/// The pending bitmap's page.
pub const PENDING: u64 = 0x8000;
/// Session pages, one per slot.
const PAGES: u64 = 0x30_0000;
/// Where the driver's requests and answers lie.
pub const REQUESTS: u64 = HIGH;
const REQUEST_STRIDE: u64 = 0x2000;
/// See above.
pub const ANSWERS: u64 = HIGH + 0x40_0000;
const ANSWER_STRIDE: u64 = 0x1000;

/// What the guest sees of an answer.
#[derive(Debug)]
pub struct Answer {
    /// `ERROR_` value.
    pub error: u32,
    /// What the request called itself.
    pub request_id: u32,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// A VM that is connected.
pub struct Machine {
    /// The connection.
    pub frontend: Frontend,
    /// Guest memory.
    pub memory: GuestMemoryMmap<()>,
    /// The control queue.
    pub control: Queue,
    /// The event queue.
    pub events: Queue,
    requests: u16,
}

impl Machine {
    /// Connects and starts both queues.
    pub fn start(path: &Path) -> Result<Self> {
        // The daemon serves one VM at a time; the last one's end may still be under way.
        let mut tries = 0;
        loop {
            match Self::connect(path) {
                Ok(mut machine) => {
                    machine.start_queues()?;
                    return Ok(machine);
                }
                Err(error) if tries == 100 => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
            tries += 1;
        }
    }

    fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).context("the daemon takes no VM")?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut frontend = Frontend::from_stream(stream, 2);
        frontend.set_owner()?;
        let features = frontend.get_features()?;
        ensure!(features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0, "features {features:#x}");
        let wanted = VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK;
        let offered = frontend.get_protocol_features()?;
        frontend.set_protocol_features(offered & wanted)?;
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_features(features)?;
        let file = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, 2 * REGION_BYTES)?;
        let file = Arc::new(std::fs::File::from(file));
        let region = |gpa, offset| {
            (GuestAddress(gpa), REGION_BYTES as usize, Some(FileOffset::from_arc(file.clone(), offset)))
        };
        let memory = GuestMemoryMmap::from_ranges_with_files([region(LOW, REGION_BYTES), region(HIGH, 0)])?;
        let regions: Vec<_> =
            memory.iter().map(VhostUserMemoryRegionInfo::from_guest_region).collect::<Result<_, _>>()?;
        frontend.set_mem_table(&regions)?;
        let control = Queue::new(memory.clone(), 0x10_0000)?;
        let events = Queue::new(memory.clone(), 0x20_0000)?;
        Ok(Machine { frontend, memory, control, events, requests: 0 })
    }

    fn start_queues(&mut self) -> Result<()> {
        for (index, queue) in [&self.control, &self.events].into_iter().enumerate() {
            let user = |gpa| Ok::<_, anyhow::Error>(self.memory.get_host_address(GuestAddress(gpa))? as u64);
            let [descriptors, available, used] = queue.parts();
            let config = VringConfigData {
                queue_max_size: QUEUE_SIZE,
                queue_size: QUEUE_SIZE,
                flags: 0,
                desc_table_addr: user(descriptors)?,
                used_ring_addr: user(used)?,
                avail_ring_addr: user(available)?,
                log_addr: None,
            };
            self.frontend.set_vring_num(index, QUEUE_SIZE)?;
            self.frontend.set_vring_base(index, queue.available)?;
            self.frontend.set_vring_addr(index, &config)?;
            self.frontend.set_vring_call(index, &queue.call)?;
            self.frontend.set_vring_kick(index, &queue.kick)?;
            self.frontend.set_vring_enable(index, true)?;
        }
        Ok(())
    }

    /// The device resets, as a guest's driver does it: both queues stop and start anew, empty.
    pub fn reset(&mut self) -> Result<()> {
        for index in 0..2 {
            self.frontend.set_vring_enable(index, false)?;
            self.frontend.get_vring_base(index)?;
        }
        self.control = Queue::new(self.memory.clone(), 0x10_0000)?;
        self.events = Queue::new(self.memory.clone(), 0x20_0000)?;
        self.requests = 0;
        self.start_queues()
    }

    /// A request's bytes.
    pub fn request(&self, kind: u32, session: u32, body: &[u8]) -> Vec<u8> {
        let request_id = 0x100 + u32::from(self.requests);
        [RequestHeader { kind, request_id, session, reserved: 0 }.as_bytes(), body].concat()
    }

    /// Puts bytes into the control queue as a proper chain and kicks.
    pub fn send(&mut self, bytes: &[u8]) -> Result<u16> {
        let slot = self.requests % (QUEUE_SIZE / 2);
        self.requests = self.requests.wrapping_add(1);
        let head = 2 * slot;
        // Long ones run over the places of the next, which are answered by then.
        let request = REQUESTS + REQUEST_STRIDE * u64::from(slot);
        let request = if bytes.len() as u64 > REQUEST_STRIDE { REQUESTS + 0x10_0000 } else { request };
        self.memory.write_slice(bytes, GuestAddress(request))?;
        let len = bytes.len() as u32;
        self.control.describe(head, Descriptor { address: request, len, flags: NEXT, next: head + 1 })?;
        let (address, len) = (ANSWERS + ANSWER_STRIDE * u64::from(slot), ANSWER_STRIDE as u32);
        self.control.describe(head + 1, Descriptor { address, len, flags: WRITE, next: 0 })?;
        self.control.post(head)?;
        self.control.kick()?;
        Ok(head)
    }

    /// Sends bytes and waits for the answer, which must be the next that comes.
    pub fn ask_bytes(&mut self, bytes: &[u8]) -> Result<Answer> {
        let head = self.send(bytes)?;
        let (answered, len) = self.control.used()?;
        ensure!(answered == u32::from(head), "chain {answered} came back, not {head}");
        let mut bytes = vec![0; (len as usize).min(ANSWER_STRIDE as usize)];
        self.memory.read_slice(&mut bytes, GuestAddress(ANSWERS + ANSWER_STRIDE * u64::from(head / 2)))?;
        let Ok((header, body)) = ReplyHeader::read_from_prefix(&bytes) else {
            anyhow::bail!("an answer of {len} bytes");
        };
        ensure!(header.len as usize == body.len(), "an answer of another length than it says: {header:?}");
        Ok(Answer { error: header.error, request_id: header.request_id, body: body.to_vec() })
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, kind: u32, session: u32, body: &[u8]) -> Result<Answer> {
        let bytes = self.request(kind, session, body);
        let expected = 0x100 + u32::from(self.requests);
        let answer = self.ask_bytes(&bytes).with_context(|| format!("request of kind {kind}"))?;
        ensure!(answer.request_id == expected, "the answer to another request: {answer:?}");
        Ok(answer)
    }

    /// HELLO.
    pub fn hello(&mut self, boot_nonce: u64) -> Result<Answer> {
        let hello = Hello { abi_version: ABI_VERSION, reserved: 0, boot_nonce, pending_gpa: PENDING };
        self.ask(HELLO, 0, hello.as_bytes())
    }

    /// Opens a session with a page of its own.
    pub fn open(&mut self, session: u32) -> Result<Answer> {
        let body = open_body(session_page(session));
        self.ask(OPEN_SESSION, session, &body)
    }

    /// Closes it.
    pub fn close(&mut self, session: u32) -> Result<Answer> {
        self.ask(CLOSE_SESSION, session, SessionRef { reserved: 0 }.as_bytes())
    }
}

/// The proper place of a session's page.
pub fn session_page(session: u32) -> u64 {
    PAGES + 4096 * u64::from(session)
}

/// OPEN_SESSION's body.
pub fn open_body(page_gpa: u64) -> Vec<u8> {
    let open = OpenSession {
        abi_version: ABI_VERSION,
        pid: 1,
        fingerprint: cuda_api::fingerprint(),
        page_gpa,
        env_len: 0,
        uid: 0,
    };
    open.as_bytes().to_vec()
}
