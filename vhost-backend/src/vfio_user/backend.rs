//! What each of QEMU's messages does. The crate `vfio_user` parses and answers them.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pci_layout::PAGE_BYTES;
use pci_layout::function::{BAR_DATA, BAR_MAILBOX, BAR_QUEUES, MAILBOX_BAR_BYTES, QUEUES_BAR_BYTES};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_EVENTFD, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_NUM_IRQS,
    VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_MMAP, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info, vfio_region_sparse_mmap_area,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend, ServerRegion, SparseArea};

use super::config_space::{CONFIG_BYTES, ConfigSpace};
use super::data::DataWindow;
use super::function::Function;

/// Longest access in bytes. QEMU's are of 8 at most, but for the config space, which it reads whole.
const ACCESS_BYTES_MAX: usize = 4096;

/// The regions that QEMU is told of.
pub(super) fn regions(data: &DataWindow) -> Vec<ServerRegion> {
    let region = |index| {
        let (size, mapped) = match index {
            BAR_MAILBOX => (MAILBOX_BAR_BYTES.into(), false),
            BAR_DATA => (data.len(), true),
            BAR_QUEUES => (QUEUES_BAR_BYTES.into(), false),
            VFIO_PCI_CONFIG_REGION_INDEX => (CONFIG_BYTES as u64, false),
            _ => (0, false),
        };
        let mut flags = 0;
        if size > 0 {
            flags |= VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
        }
        if mapped {
            flags |= VFIO_REGION_INFO_FLAG_MMAP;
        }
        let argsz = u32::try_from(size_of::<vfio_region_info>()).unwrap_or(u32::MAX);
        // One area over the whole: QEMU maps only what such an area names.
        let whole = SparseArea { area: vfio_region_sparse_mmap_area { offset: 0, size } };
        ServerRegion {
            region_info: vfio_region_info { argsz, flags, index, cap_offset: 0, size, offset: 0 },
            sparse_areas: if mapped { vec![whole] } else { Vec::new() },
            mmap_fd: mapped.then(|| data.descriptor()),
        }
    };
    (0..VFIO_PCI_NUM_REGIONS).map(region).collect()
}

/// The interrupts that QEMU is told of: one message.
pub(super) fn interrupts() -> Vec<IrqInfo> {
    let interrupt = |index| match index {
        VFIO_PCI_MSI_IRQ_INDEX => IrqInfo { index, flags: VFIO_IRQ_INFO_EVENTFD, count: 1 },
        _ => IrqInfo { index, flags: 0, count: 0 },
    };
    (0..VFIO_PCI_NUM_IRQS).map(interrupt).collect()
}

/// The handler of one connection's messages.
pub(super) struct Backend {
    function: Arc<Function>,
    config: ConfigSpace,
    /// Set with the first message that comes here: the connection was taken.
    begun: Arc<AtomicBool>,
}

impl Backend {
    pub(super) fn new(function: Arc<Function>, config: ConfigSpace, begun: Arc<AtomicBool>) -> Self {
        Self { function, config, begun }
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl ServerBackend for Backend {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.begun.store(true, Ordering::Release);
        if data.len() > ACCESS_BYTES_MAX {
            return Err(refused("longer than any access"));
        }
        match region {
            BAR_MAILBOX => self.function.read_mailbox(offset, data),
            BAR_DATA => self.function.data().read(offset, data)?,
            BAR_QUEUES => self.function.read_queues(offset, data),
            VFIO_PCI_CONFIG_REGION_INDEX => self.config.read(offset, data),
            _ => return Err(refused("there is no such region")),
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.begun.store(true, Ordering::Release);
        if data.len() > ACCESS_BYTES_MAX {
            return Err(refused("longer than any access"));
        }
        match region {
            BAR_MAILBOX => self.function.write_mailbox(offset, data),
            BAR_DATA => self.function.data().write(offset, data)?,
            BAR_QUEUES => self.function.write_queues(offset, data),
            VFIO_PCI_CONFIG_REGION_INDEX => self.config.write(offset, data),
            _ => return Err(refused("there is no such region")),
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        file: Option<File>,
    ) -> io::Result<()> {
        self.begun.store(true, Ordering::Release);
        // What has no file cannot be shared (other devices' registers, memory without share=on); what cannot be written is no RAM.
        let Some(file) = file.filter(|_| flags.contains(DmaMapFlags::READ_WRITE)) else { return Ok(()) };
        if !(offset | address | size).is_multiple_of(PAGE_BYTES) {
            log::debug!("memory at {address:#x}, length {size:#x}, is not in whole pages: not used");
            return Ok(());
        }
        // Where it fails, the guest's use of that memory fails: QEMU has no use for an error here but to end.
        if let Err(error) = self.function.front().memory().add_at(address, size, offset, file) {
            log::error!("memory at {address:#x}, length {size:#x}, cannot be used: {error}");
        }
        Ok(())
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        self.begun.store(true, Ordering::Release);
        let (address, size) =
            if flags.contains(DmaUnmapFlags::UNMAP_ALL) { (0, u64::MAX) } else { (address, size) };
        self.function.front().memory().remove_within(address, size)
    }

    fn reset(&mut self) -> io::Result<()> {
        self.begun.store(true, Ordering::Release);
        self.function.reset_now();
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        files: Vec<File>,
    ) -> io::Result<()> {
        self.begun.store(true, Ordering::Release);
        log::debug!("interrupt {index}: flags {flags:#x}, from {start}, {count}, {} files", files.len());
        if index != VFIO_PCI_MSI_IRQ_INDEX || start != 0 {
            return Ok(());
        }
        // No file takes away what there was, as does a count of 0.
        self.function.set_interrupt(files.into_iter().next().filter(|_| count > 0))
    }
}
