//! The queue registers (BAR3): how the guest's driver describes its two virtqueues, and starts and resets them. Accesses may have any
//! width and any offset, and none waits: what takes time is asked of the function's own thread.

use pci_layout::ABI_VERSION;
use pci_layout::function::{
    OFF_QUEUE_AVAILABLE, OFF_QUEUE_DESCRIPTORS, OFF_QUEUE_SIZE, OFF_QUEUE_STRIDE, OFF_QUEUE_USED,
    OFF_QUEUES_CONFIG, OFF_QUEUES_DRIVER_FEATURES, OFF_QUEUES_FEATURES, OFF_QUEUES_FIRST, OFF_QUEUES_KICK,
    OFF_QUEUES_MAGIC, OFF_QUEUES_SIZE_MAX, OFF_QUEUES_STATUS, OFF_QUEUES_VERSION,
};
use pci_layout::ids::{QUEUE_COUNT, TAG};
use vgpu_device::mailbox::{copy_in, copy_out};
use vgpu_device::regs::Registers;
use virtio_bindings::bindings::virtio_config::{VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_F_VERSION_1};
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::front::QUEUE_SIZE_MAX;

/// The virtio features offered.
pub(super) const FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// Device status of virtio: the device cannot go on without a reset.
const NEEDS_RESET: u32 = 1 << 6;

const COUNT: usize = QUEUE_COUNT as usize;

/// A queue as the driver has described it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueuePlace {
    /// Number of descriptors.
    pub size: u32,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
}

/// What the queues are to be started with.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setup {
    /// The features that the driver takes.
    pub features: u64,
    /// The queues.
    pub queues: [QueuePlace; COUNT],
}

/// What a write asks for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// A queue has something new.
    pub kick: Option<usize>,
    /// The queues are to start.
    pub start: Option<Setup>,
    /// The device is to be reset; [`QueueRegisters::was_reset`] ends it.
    pub reset: bool,
}

#[derive(Default)]
struct Description {
    size: [u8; 4],
    descriptors: [u8; 8],
    available: [u8; 8],
    used: [u8; 8],
}

/// The registers.
#[derive(Default)]
pub(super) struct QueueRegisters {
    status: u32,
    resetting: bool,
    driver_features: [u8; 8],
    queues: [Description; COUNT],
}

impl QueueRegisters {
    /// Reads `buf.len()` bytes from `offset` on; `block` is the device's own registers.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8], block: &Registers) {
        buf.fill(0);
        let mut put = |at: u32, bytes: &[u8]| copy_out(buf, offset, at, bytes);
        put(OFF_QUEUES_MAGIC, &TAG);
        put(OFF_QUEUES_VERSION, &ABI_VERSION.to_le_bytes());
        put(OFF_QUEUES_SIZE_MAX, &u32::from(QUEUE_SIZE_MAX).to_le_bytes());
        put(OFF_QUEUES_FEATURES, &FEATURES.to_le_bytes());
        put(OFF_QUEUES_DRIVER_FEATURES, &self.driver_features);
        put(OFF_QUEUES_STATUS, &self.status().to_le_bytes());
        for (at, queue) in (OFF_QUEUES_FIRST..).step_by(OFF_QUEUE_STRIDE as usize).zip(&self.queues) {
            for (inside, bytes) in queue.registers() {
                put(at.saturating_add(inside), bytes);
            }
        }
        put(OFF_QUEUES_CONFIG, &block.block());
    }

    /// Writes `data` from `offset` on, in the order of the registers.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], block: &Registers) -> Asked {
        let mut asked = Asked::default();
        copy_in(&mut self.driver_features, OFF_QUEUES_DRIVER_FEATURES, offset, data);
        for (at, queue) in (OFF_QUEUES_FIRST..).step_by(OFF_QUEUE_STRIDE as usize).zip(&mut self.queues) {
            for (inside, bytes) in queue.registers_mut() {
                copy_in(bytes, at.saturating_add(inside), offset, data);
            }
        }
        if let Some(inside) = offset.checked_sub(OFF_QUEUES_CONFIG.into()) {
            block.write(inside, data);
        }
        let mut kick = [0; 4];
        if copy_in(&mut kick, OFF_QUEUES_KICK, offset, data) {
            let index = usize::try_from(u32::from_le_bytes(kick)).ok();
            asked.kick = index.filter(|index| *index < COUNT);
        }
        let mut status = self.status.to_le_bytes();
        if copy_in(&mut status, OFF_QUEUES_STATUS, offset, data) {
            self.set_status(u32::from_le_bytes(status), &mut asked);
        }
        asked
    }

    /// A reset begins that was asked for otherwise.
    pub(super) fn begin_reset(&mut self) {
        self.resetting = true;
    }

    /// The reset is over: everything is as it was at the start.
    pub(super) fn was_reset(&mut self) {
        *self = Self::default();
    }

    /// The queues could not be started.
    pub(super) fn broken(&mut self) {
        self.status |= NEEDS_RESET;
    }

    fn status(&self) -> u32 {
        // Not 0 before the reset is over, whatever it was.
        if self.resetting { self.status.max(1) } else { self.status }
    }

    fn set_status(&mut self, status: u32, asked: &mut Asked) {
        if self.resetting {
            return;
        }
        if status == 0 {
            self.resetting = true;
            asked.reset = true;
            return;
        }
        let starts = status & !self.status & VIRTIO_CONFIG_S_DRIVER_OK != 0;
        self.status = (status & 0xff) | (self.status & (NEEDS_RESET | VIRTIO_CONFIG_S_DRIVER_OK));
        if starts {
            asked.start = Some(self.setup());
        }
    }

    fn setup(&self) -> Setup {
        let place = |queue: &Description| QueuePlace {
            size: u32::from_le_bytes(queue.size),
            descriptors: u64::from_le_bytes(queue.descriptors),
            available: u64::from_le_bytes(queue.available),
            used: u64::from_le_bytes(queue.used),
        };
        Setup {
            features: u64::from_le_bytes(self.driver_features),
            queues: self.queues.each_ref().map(place),
        }
    }
}

impl Description {
    fn registers(&self) -> [(u32, &[u8]); 4] {
        [
            (OFF_QUEUE_SIZE, &self.size),
            (OFF_QUEUE_DESCRIPTORS, &self.descriptors),
            (OFF_QUEUE_AVAILABLE, &self.available),
            (OFF_QUEUE_USED, &self.used),
        ]
    }

    fn registers_mut(&mut self) -> [(u32, &mut [u8]); 4] {
        [
            (OFF_QUEUE_SIZE, &mut self.size),
            (OFF_QUEUE_DESCRIPTORS, &mut self.descriptors),
            (OFF_QUEUE_AVAILABLE, &mut self.available),
            (OFF_QUEUE_USED, &mut self.used),
        ]
    }
}
