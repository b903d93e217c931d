//! QEMU's part: connects, hands over memory and an interrupt, and makes the guest's accesses.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ::vfio_user::Client;
use pci_layout::control::{self, Hello, ReplyHeader, RequestHeader};
use pci_layout::function::*;
use pci_layout::{ABI_VERSION, regs};
use rustix::net::SocketType;
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_PCI_MSI_IRQ_INDEX,
};
use vgpu_device::{Device, DeviceConfig, Front};
use vhost_backend::args::FunctionConfig;
use vhost_backend::daemon::Stop;
use vhost_backend::socket::{Listener, OWNER_ONLY};
use vhost_backend::vfio_user;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use zerocopy::{FromBytes, IntoBytes};

use super::driver::{Descriptor, NEXT, QUEUE_SIZE, Queue, WRITE};
use super::fake::Fake;

/// The features that the driver takes: VIRTIO_F_VERSION_1 and VIRTIO_RING_F_EVENT_IDX.
const FEATURES: u64 = 1 << 32 | 1 << 29;
const MEMORY_BYTES: u64 = 8 << 20;
const PENDING_GPA: u64 = 0x8000;
const REQUEST_GPA: u64 = 0x40_0000;
const ANSWER_GPA: u64 = 0x50_0000;

/// A daemon, its device, and the place to connect to.
pub struct Bench {
    pub fake: Arc<Fake>,
    pub device: Arc<Device>,
    pub path: PathBuf,
    stop: Arc<Stop>,
    server: Option<thread::JoinHandle<std::io::Result<()>>>,
    _folder: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let fake = Arc::new(Fake::default());
        let config = DeviceConfig {
            front: Front::Queues,
            vm_id: 5,
            pool: b'A',
            priority: regs::PRIORITY_MEDIUM,
            vram_quota_bytes: 0,
            session_limit: 256,
        };
        let device = Device::new(&config, fake.clone());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (stop, listener) =
            (Stop::new().unwrap(), Listener::bind(&path, SocketType::STREAM, OWNER_ONLY).unwrap());
        let server = {
            let (device, stop) = (device.clone(), stop.clone());
            thread::spawn(move || vfio_user::serve(&listener, &device, &stop, &FunctionConfig::default()))
        };
        Self { fake, device, path, stop, server: Some(server), _folder: folder }
    }

    /// A VM that is connected.
    pub fn connect(&self) -> Machine {
        Machine::new(Client::new(&self.path).unwrap())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.ask();
        let ended = self.server.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap().unwrap();
        }
    }
}

/// What the guest sees of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub error: u32,
    pub request_id: u32,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Self {
        let (header, body) = ReplyHeader::read_from_prefix(bytes).unwrap();
        assert_eq!(header.len as usize, body.len());
        Self { error: header.error, request_id: header.request_id, body: body.to_vec() }
    }
}

pub fn message(kind: u32, request_id: u32, session: u32, body: &[u8]) -> Vec<u8> {
    [RequestHeader { kind, request_id, session, reserved: 0 }.as_bytes(), body].concat()
}

pub fn open_body(page_gpa: u64) -> Vec<u8> {
    let open = control::OpenSession {
        abi_version: ABI_VERSION,
        pid: 1,
        fingerprint: [7; 16],
        page_gpa,
        env_len: 0,
        uid: 0,
    };
    open.as_bytes().to_vec()
}

/// A VM with the function.
pub struct Machine {
    pub client: Client,
    pub interrupt: EventFd,
    pub memory: GuestMemoryMmap<()>,
    pub control: Queue,
    events: Queue,
    next: u16,
}

impl Machine {
    fn new(mut client: Client) -> Self {
        let file = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, MEMORY_BYTES).unwrap();
        let file = Arc::new(std::fs::File::from(file));
        let region = (GuestAddress(0), MEMORY_BYTES as usize, Some(FileOffset::from_arc(file.clone(), 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([region]).unwrap();
        client.dma_map(0, 0, MEMORY_BYTES, file.as_raw_fd()).unwrap();
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
        client.set_irqs(VFIO_PCI_MSI_IRQ_INDEX, flags, 0, 1, &[interrupt.as_raw_fd()]).unwrap();
        let (control, events) =
            (Queue::new(memory.clone(), 0x10_0000), Queue::new(memory.clone(), 0x20_0000));
        Self { client, interrupt, memory, control, events, next: 0 }
    }

    pub fn get(&mut self, bar: u32, offset: u32) -> u32 {
        let mut bytes = [0; 4];
        self.client.region_read(bar, offset.into(), &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    pub fn set(&mut self, bar: u32, offset: u32, value: u32) {
        self.client.region_write(bar, offset.into(), &value.to_le_bytes()).unwrap();
    }

    fn set64(&mut self, offset: u32, value: u64) {
        self.set(BAR_QUEUES, offset, value as u32);
        self.set(BAR_QUEUES, offset + 4, (value >> 32) as u32);
    }

    /// Waits until a register is what it should be.
    pub fn wait_for(&mut self, bar: u32, offset: u32, what: &str, wanted: impl Fn(u32) -> bool) -> u32 {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let value = self.get(bar, offset);
            if wanted(value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{what}: {value:#x}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Resets the function and starts its queues, as the driver does.
    pub fn start_queues(&mut self) {
        self.set(BAR_QUEUES, OFF_QUEUES_STATUS, 0);
        self.wait_for(BAR_QUEUES, OFF_QUEUES_STATUS, "the reset ends", |status| status == 0);
        self.control = Queue::new(self.memory.clone(), 0x10_0000);
        self.events = Queue::new(self.memory.clone(), 0x20_0000);
        self.next = 0;
        self.set64(OFF_QUEUES_DRIVER_FEATURES, FEATURES);
        let places = [&self.control, &self.events]
            .map(|queue| [queue.descriptors(), queue.available(), queue.used_ring()]);
        for (index, [descriptors, available, used]) in (0..).zip(places) {
            let at = OFF_QUEUES_FIRST + index * OFF_QUEUE_STRIDE;
            self.set(BAR_QUEUES, at + OFF_QUEUE_SIZE, QUEUE_SIZE.into());
            self.set64(at + OFF_QUEUE_DESCRIPTORS, descriptors);
            self.set64(at + OFF_QUEUE_AVAILABLE, available);
            self.set64(at + OFF_QUEUE_USED, used);
        }
        self.set(BAR_QUEUES, OFF_QUEUES_STATUS, 0xf);
    }

    /// Puts a request into the control queue and rings.
    pub fn send(&mut self, kind: u32, session: u32, body: &[u8]) {
        let message = message(kind, 0x100 + u32::from(self.next), session, body);
        let head = 2 * (self.next % (QUEUE_SIZE / 2));
        self.next += 1;
        self.memory.write_slice(&message, GuestAddress(REQUEST_GPA)).unwrap();
        let len = message.len() as u32;
        let request = Descriptor { address: REQUEST_GPA, len, flags: NEXT, next: head + 1 };
        self.control.write_descriptor(head, request);
        let answer = Descriptor { address: ANSWER_GPA, len: 4096, flags: WRITE, next: 0 };
        self.control.write_descriptor(head + 1, answer);
        self.control.post(head);
        self.set(BAR_QUEUES, OFF_QUEUES_KICK, 0);
    }

    /// Waits for its answer as a driver does: looks, and sleeps until an interrupt says to look again.
    pub fn answer(&mut self) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some((_, len)) = self.control.try_used() {
                let mut bytes = vec![0; len as usize];
                self.memory.read_slice(&mut bytes, GuestAddress(ANSWER_GPA)).unwrap();
                return Answer::parse(&bytes);
            }
            while self.interrupt.read().is_err() {
                assert!(Instant::now() < deadline, "no interrupt came");
                thread::sleep(Duration::from_micros(200));
            }
        }
    }

    pub fn ask(&mut self, kind: u32, session: u32, body: &[u8]) -> Answer {
        self.send(kind, session, body);
        self.answer()
    }

    pub fn hello(&mut self, boot_nonce: u64) -> Answer {
        let hello = Hello { abi_version: ABI_VERSION, reserved: 0, boot_nonce, pending_gpa: PENDING_GPA };
        self.ask(control::HELLO, 0, hello.as_bytes())
    }

    /// Sets a session's bit in the pending page and rings.
    pub fn kick(&mut self, session: u32) {
        self.memory.write_obj(1u64 << session, GuestAddress(PENDING_GPA)).unwrap();
        self.set(BAR_QUEUES, OFF_QUEUES_KICK, 0);
    }

    /// Puts a message into the mailbox and rings.
    pub fn ring(&mut self, message: &[u8]) {
        self.client.region_write(BAR_MAILBOX, OFF_MAILBOX_REQUEST.into(), message).unwrap();
        self.set(BAR_MAILBOX, regs::REQUEST_LEN, message.len() as u32);
        self.set(BAR_MAILBOX, regs::DOORBELL, 1);
    }

    /// Waits for the mailbox's response.
    pub fn response(&mut self) -> Answer {
        self.wait_for(BAR_MAILBOX, regs::STATUS, "the mailbox answers", |status| status >= regs::STATUS_DONE);
        let mut bytes = vec![0; self.get(BAR_MAILBOX, regs::RESPONSE_LEN) as usize];
        self.client.region_read(BAR_MAILBOX, OFF_MAILBOX_RESPONSE.into(), &mut bytes).unwrap();
        Answer::parse(&bytes)
    }

    /// The function works.
    pub fn works(&mut self) {
        self.ring(&message(control::READ_REGS, 0xaa, 0, &[]));
        let response = self.response();
        assert_eq!((response.error, response.request_id, response.body.len()), (0, 0xaa, 256));
    }
}
