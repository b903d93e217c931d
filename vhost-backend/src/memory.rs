//! Guest memory as vhost-user's memory table gives it: for each region a file, an offset and a place in guest-physical
//! and in QEMU's addresses. The daemon maps it only to read queues and messages; workers map the files themselves.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use pci_layout::PAGE_BYTES;
use pci_layout::control::Run;
use vgpu_device::memory::{PENDING_WORDS, push_piece};
use vgpu_device::{GuestMemory, PendingPage, Piece, TranslateError};
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap,
    GuestRegionMmap, VolatileMemory,
};

/// Guest memory mapped in this process.
pub type Mapped = GuestMemoryMmap<()>;
/// The mapping that queues look up at each use; a new memory table replaces it.
pub type MappedAtomic = GuestMemoryAtomic<Mapped>;

/// Regions that a table may have; QEMU's own limit is 509 slots.
pub const REGIONS_MAX: usize = 509;

/// One region of the memory table.
#[derive(Debug, Clone)]
struct Region {
    gpa: u64,
    len: u64,
    user_addr: u64,
    offset: u64,
    file: Arc<OwnedFd>,
    mapped: Arc<GuestRegionMmap<()>>,
}

/// The memory of the VM that is connected.
#[derive(Clone)]
pub struct VmMemory {
    mapped: MappedAtomic,
    regions: Arc<RwLock<Vec<Region>>>,
}

impl Default for VmMemory {
    fn default() -> Self {
        Self { mapped: GuestMemoryAtomic::new(Mapped::new()), regions: Arc::default() }
    }
}

impl VmMemory {
    /// The mapping, for the queues.
    pub fn mapped(&self) -> MappedAtomic {
        self.mapped.clone()
    }

    /// Replaces the table.
    ///
    /// # Errors
    /// A region cannot be mapped (its file is too short, or no shared memory), or regions overlap; the old table stays.
    pub fn replace(&self, table: impl IntoIterator<Item = (VhostUserMemoryRegion, File)>) -> io::Result<()> {
        let regions =
            table.into_iter().map(|(region, file)| map(&region, file)).collect::<io::Result<_>>()?;
        self.install(regions)
    }

    /// Adds a region to the table.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub fn add(&self, region: &VhostUserMemoryRegion, file: File) -> io::Result<()> {
        let mut regions = self.regions().clone();
        regions.push(map(region, file)?);
        self.install(regions)
    }

    /// Takes a region out of the table.
    ///
    /// # Errors
    /// There is no such region.
    pub fn remove(&self, gone: &VhostUserMemoryRegion) -> io::Result<()> {
        let mut regions = self.regions().clone();
        let before = regions.len();
        let (gpa, len, user_addr) = (gone.guest_phys_addr, gone.memory_size, gone.user_addr);
        regions.retain(|region| (region.gpa, region.len, region.user_addr) != (gpa, len, user_addr));
        if regions.len() == before {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such memory region"));
        }
        self.install(regions)
    }

    /// Adds `len` bytes of a file, from `offset` on, as memory at `gpa`.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub fn add_at(&self, gpa: u64, len: u64, offset: u64, file: File) -> io::Result<()> {
        // Nobody names these regions by another address.
        self.add(&VhostUserMemoryRegion::new(gpa, len, gpa, offset), file)
    }

    /// Takes out every region that lies whole in `len` bytes from `gpa` on.
    ///
    /// # Errors
    /// What is left cannot be used.
    pub fn remove_within(&self, gpa: u64, len: u64) -> io::Result<()> {
        let end = gpa.saturating_add(len);
        let mut regions = self.regions().clone();
        let before = regions.len();
        regions.retain(|region| region.gpa < gpa || region.gpa.saturating_add(region.len) > end);
        if regions.len() == before { Ok(()) } else { self.install(regions) }
    }

    /// The guest-physical address behind one of QEMU's own addresses, in which it names the queues.
    pub fn gpa_of_user_addr(&self, user_addr: u64) -> Option<u64> {
        self.regions().iter().find_map(|region| {
            let inside = user_addr.checked_sub(region.user_addr).filter(|inside| *inside < region.len)?;
            region.gpa.checked_add(inside)
        })
    }

    fn install(&self, mut regions: Vec<Region>) -> io::Result<()> {
        if regions.len() > REGIONS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many memory regions"));
        }
        regions.sort_by_key(|region| region.gpa);
        let mapped: Vec<_> = regions.iter().map(|region| region.mapped.clone()).collect();
        // The crate takes a table without regions for a mistake.
        let mapped = if mapped.is_empty() {
            Mapped::new()
        } else {
            Mapped::from_arc_regions(mapped).map_err(io::Error::other)?
        };
        for region in &regions {
            log::debug!(
                "memory region: guest {:#x}, length {:#x}, offset {:#x} in its file",
                region.gpa,
                region.len,
                region.offset
            );
        }
        let mut table = self.regions_mut();
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner).replace(mapped);
        *table = regions;
        Ok(())
    }

    fn regions(&self) -> RwLockReadGuard<'_, Vec<Region>> {
        // Replaced as a whole: there is no half-made table.
        self.regions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn regions_mut(&self) -> RwLockWriteGuard<'_, Vec<Region>> {
        self.regions.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn map(region: &VhostUserMemoryRegion, file: File) -> io::Result<Region> {
    let (gpa, len, user_addr, offset) =
        (region.guest_phys_addr, region.memory_size, region.user_addr, region.mmap_offset);
    let worker_file = Arc::new(OwnedFd::from(file.try_clone()?));
    let mapped = region.mmap_region(file).map_err(io::Error::other)?;
    let mapped = GuestRegionMmap::new(mapped, GuestAddress(gpa)).ok_or(io::Error::new(
        io::ErrorKind::InvalidInput,
        "memory region passes the end of the address space",
    ))?;
    Ok(Region { gpa, len, user_addr, offset, file: worker_file, mapped: Arc::new(mapped) })
}

impl GuestMemory for VmMemory {
    fn translate(&self, run: Run, pieces: &mut Vec<Piece>) -> Result<(), TranslateError> {
        let regions = self.regions();
        let (mut gpa, mut left) = (run.gpa, run.len);
        while left > 0 {
            let no_memory = TranslateError { address: gpa, len: left };
            let after = regions.partition_point(|region| region.gpa <= gpa);
            let region = after.checked_sub(1).and_then(|at| regions.get(at)).ok_or(no_memory.clone())?;
            let inside = gpa.checked_sub(region.gpa).ok_or(no_memory.clone())?;
            let here =
                region.len.checked_sub(inside).filter(|len| *len > 0).ok_or(no_memory.clone())?.min(left);
            let offset = region.offset.checked_add(inside).ok_or(no_memory.clone())?;
            push_piece(pieces, Piece { file: region.file.clone(), offset, len: here });
            left = left.saturating_sub(here);
            gpa = gpa.checked_add(here).ok_or(no_memory)?;
        }
        Ok(())
    }

    fn pending_page(&self, gpa: u64) -> Result<Arc<dyn PendingPage>, TranslateError> {
        let page = Pending { memory: self.mapped.clone(), gpa };
        let no_memory = TranslateError { address: gpa, len: PAGE_BYTES };
        self.translate(Run { gpa, len: PAGE_BYTES }, &mut Vec::new())?;
        page.check().ok_or(no_memory)?;
        Ok(Arc::new(page))
    }
}

/// The pending bitmap, looked up anew at each use: the memory table may have changed.
struct Pending {
    memory: MappedAtomic,
    gpa: u64,
}

impl Pending {
    fn check(&self) -> Option<()> {
        let memory = self.memory.memory();
        (0..PENDING_WORDS as u64)
            .all(|word| {
                self.gpa.checked_add(word.wrapping_mul(8)).is_some_and(|address| {
                    memory.load::<u64>(GuestAddress(address), Ordering::Relaxed).is_ok()
                })
            })
            .then_some(())
    }
}

impl PendingPage for Pending {
    fn take(&self, word: usize) -> u64 {
        let memory = self.memory.memory();
        let address = u64::try_from(word).ok().and_then(|word| self.gpa.checked_add(word.checked_mul(8)?));
        let Some(address) = address else { return 0 };
        let Ok(slice) = memory.get_slice(GuestAddress(address), size_of::<u64>()) else { return 0 };
        match slice.get_atomic_ref::<AtomicU64>(0) {
            Ok(bits) => u64::from_le(bits.swap(0, Ordering::AcqRel)),
            Err(_) => 0,
        }
    }
}
