//! QEMU's part: connects, hands over memory and queues, and has a guest driver that sends control requests.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use pci_layout::control::{self, Hello, ReplyHeader, RequestHeader};
use pci_layout::{ABI_VERSION, regs};
use vgpu_device::{Device, DeviceConfig, Front};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_backend::{connection, messages};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use zerocopy::{FromBytes, IntoBytes};

use super::driver::{Descriptor, NEXT, QUEUE_SIZE, Queue, WRITE};
use super::fake::Fake;

/// Guest memory: two regions of one file, the second one first in it.
pub const LOW: u64 = 0;
pub const HIGH: u64 = 0x1_0000_0000;
pub const REGION_BYTES: u64 = 8 << 20;
/// Where the driver has its things.
pub const PENDING_GPA: u64 = 0x8000;
const REQUESTS_GPA: u64 = HIGH;
const REQUEST_STRIDE: u64 = 0x2000;
const ANSWERS_GPA: u64 = HIGH + 0x40_0000;
const ANSWER_STRIDE: u64 = 0x1000;

pub fn device(fake: &Arc<Fake>) -> Arc<Device> {
    let config = DeviceConfig {
        front: Front::Queues,
        vm_id: 5,
        pool: b'A',
        priority: regs::PRIORITY_MEDIUM,
        vram_quota_bytes: 0,
        session_limit: 256,
    };
    Device::new(&config, fake.clone())
}

/// A VM that is connected to a device.
pub struct Machine {
    pub frontend: Frontend,
    pub memory: GuestMemoryMmap<()>,
    pub control: Queue,
    pub events: Queue,
    slot: u16,
}

/// What the guest sees of an answer.
#[derive(Debug)]
pub struct Answer {
    pub error: u32,
    pub request_id: u32,
    pub body: Vec<u8>,
}

impl Machine {
    /// A VM on this connection, its queues running.
    pub fn start(stream: UnixStream) -> Self {
        let mut machine = Self::connect(stream);
        machine.share_memory();
        machine.start_queues();
        machine
    }

    /// A VM with its memory, negotiated but not running.
    pub fn connect(stream: UnixStream) -> Self {
        let mut frontend = Frontend::from_stream(stream, 2);
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap();
        assert_eq!(features, messages::FEATURES);
        let protocol = frontend.get_protocol_features().unwrap();
        assert!(protocol.contains(VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ));
        frontend.set_protocol_features(protocol).unwrap();
        frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(frontend.get_queue_num().unwrap(), 2);
        frontend.set_features(features).unwrap();
        let file = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 2 * REGION_BYTES).unwrap();
        let file = Arc::new(std::fs::File::from(file));
        let region = |gpa, offset| {
            let len = usize::try_from(REGION_BYTES).unwrap();
            (GuestAddress(gpa), len, Some(FileOffset::from_arc(file.clone(), offset)))
        };
        let memory =
            GuestMemoryMmap::from_ranges_with_files([region(LOW, REGION_BYTES), region(HIGH, 0)]).unwrap();
        let control = Queue::new(memory.clone(), 0x10_0000);
        let events = Queue::new(memory.clone(), 0x20_0000);
        Self { frontend, memory, control, events, slot: 0 }
    }

    pub fn share_memory(&self) {
        let regions: Vec<_> = self
            .memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).unwrap())
            .collect();
        self.frontend.set_mem_table(&regions).unwrap();
    }

    /// Starts both queues where they stand, as QEMU does at the guest's DRIVER_OK and at "cont".
    pub fn start_queues(&mut self) {
        let (control, events) = (self.control.avail, self.events.avail);
        self.start_queues_at(control, events);
    }

    pub fn start_queues_at(&mut self, control: u16, events: u16) {
        for (index, (queue, base)) in
            [(&self.control, control), (&self.events, events)].into_iter().enumerate()
        {
            let user = |gpa| self.memory.get_host_address(GuestAddress(gpa)).unwrap() as u64;
            let config = VringConfigData {
                queue_max_size: QUEUE_SIZE,
                queue_size: QUEUE_SIZE,
                flags: 0,
                desc_table_addr: user(queue.descriptors()),
                used_ring_addr: user(queue.used_ring()),
                avail_ring_addr: user(queue.available()),
                log_addr: None,
            };
            self.frontend.set_vring_num(index, QUEUE_SIZE).unwrap();
            self.frontend.set_vring_base(index, base).unwrap();
            self.frontend.set_vring_addr(index, &config).unwrap();
            self.frontend.set_vring_call(index, &queue.call).unwrap();
            self.frontend.set_vring_kick(index, &queue.kick).unwrap();
        }
        for index in 0..2 {
            self.frontend.set_vring_enable(index, true).unwrap();
        }
    }

    /// Stops both queues, as QEMU does at "stop" and at a reset; gives where they stand.
    pub fn stop_queues(&mut self) -> (u16, u16) {
        for index in 0..2 {
            self.frontend.set_vring_enable(index, false).unwrap();
        }
        let base = |index| u16::try_from(self.frontend.get_vring_base(index).unwrap()).unwrap();
        (base(0), base(1))
    }

    /// Puts a request into the control queue and kicks; its chain's head.
    pub fn send(&mut self, kind: u32, session: u32, body: &[u8]) -> u16 {
        let request_id = 0x100 + u32::from(self.slot);
        let header = RequestHeader { kind, request_id, session, reserved: 0 };
        self.send_bytes(&[header.as_bytes(), body].concat())
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> u16 {
        let slot = self.slot % (QUEUE_SIZE / 2);
        self.slot += 1;
        let (request, answer, head) = (request_gpa(slot), answer_gpa(slot), 2 * slot);
        self.memory.write_slice(bytes, GuestAddress(request)).unwrap();
        let len = bytes.len() as u32;
        self.control
            .write_descriptor(head, Descriptor { address: request, len, flags: NEXT, next: head + 1 });
        let len = ANSWER_STRIDE as u32;
        self.control.write_descriptor(head + 1, Descriptor { address: answer, len, flags: WRITE, next: 0 });
        self.control.post(head);
        self.control.kick();
        head
    }

    /// Waits for the next answer; the head of its chain and what it says.
    pub fn answer(&mut self) -> (u16, Answer) {
        let (head, len) = self.control.used();
        let head = u16::try_from(head).unwrap();
        (head, self.read_answer(head, len))
    }

    pub fn read_answer(&self, head: u16, len: u32) -> Answer {
        let mut bytes = vec![0; len as usize];
        self.memory.read_slice(&mut bytes, GuestAddress(answer_gpa(head / 2))).unwrap();
        let (header, body) = ReplyHeader::read_from_prefix(&bytes).unwrap();
        assert_eq!(header.len as usize, body.len());
        Answer { error: header.error, request_id: header.request_id, body: body.to_vec() }
    }

    /// Sends a request and waits for its answer, which must be the next one.
    pub fn ask(&mut self, kind: u32, session: u32, body: &[u8]) -> Answer {
        let request_id = 0x100 + u32::from(self.slot);
        let head = self.send(kind, session, body);
        let (answered, answer) = self.answer();
        assert_eq!((answered, answer.request_id), (head, request_id));
        answer
    }

    pub fn hello(&mut self, boot_nonce: u64) -> Answer {
        let abi_version = ABI_VERSION;
        let hello = Hello { abi_version, reserved: 0, boot_nonce, pending_gpa: PENDING_GPA };
        self.ask(control::HELLO, 0, hello.as_bytes())
    }

    pub fn open(&mut self, session: u32) -> Answer {
        self.ask(control::OPEN_SESSION, session, &open_body())
    }

    /// Posts an event buffer at this descriptor.
    pub fn post_event_buffer(&mut self, index: u16) {
        let address = 0x30_0000 + 64 * u64::from(index);
        self.events.write_descriptor(index, Descriptor { address, len: 32, flags: WRITE, next: 0 });
        self.events.post(index);
        self.events.kick();
    }

    /// Waits for an event: kind, session, reason.
    pub fn event(&mut self) -> (u32, u32, u32) {
        let (index, len) = self.events.used();
        assert_eq!(len, 32);
        let address = 0x30_0000 + 64 * u64::from(index);
        let word = |at| self.memory.read_obj::<u32>(GuestAddress(address + at)).unwrap();
        (word(0), word(4), word(8))
    }
}

fn request_gpa(slot: u16) -> u64 {
    REQUESTS_GPA + REQUEST_STRIDE * u64::from(slot)
}

fn answer_gpa(slot: u16) -> u64 {
    ANSWERS_GPA + ANSWER_STRIDE * u64::from(slot)
}

pub fn open_body() -> Vec<u8> {
    let open = control::OpenSession {
        abi_version: ABI_VERSION,
        pid: 1,
        fingerprint: [7; 16],
        page_gpa: 0x9000,
        env_len: 0,
        uid: 0,
    };
    open.as_bytes().to_vec()
}

/// A machine whose back end serves it in a thread of this process.
pub struct Bench {
    pub machine: Machine,
    pub fake: Arc<Fake>,
    pub device: Arc<Device>,
    server: Option<thread::JoinHandle<std::io::Result<()>>>,
}

impl Bench {
    /// A running VM whose driver has said HELLO.
    pub fn booted() -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.machine.hello(1).error, regs::ERROR_NONE);
        bench
    }

    /// A running VM.
    pub fn new() -> Self {
        let fake = Arc::new(Fake::default());
        let device = device(&fake);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = {
            let device = device.clone();
            thread::spawn(move || connection::serve(theirs, &device))
        };
        Self { machine: Machine::start(ours), fake, device, server: Some(server) }
    }

    /// Ends the connection; how the back end saw it.
    pub fn disconnect(mut self) -> std::io::Result<()> {
        let server = self.server.take().unwrap();
        drop(self.machine);
        server.join().unwrap()
    }
}
