//! How a thread reaches memory: state spaces, the windows of the generic space, bounds and alignment.
//!
//! Global memory is the caller's and may be reached by several host threads at once, so every access to it is a host
//! atomic (relaxed for plain ones). Shared and local memory belong to the one host thread that runs the block.

use crate::error::Fault;
use crate::run::code::{Ins, NONE};
use crate::run::lanes::Frame;

/// Generic addresses from here to 4 GiB on are shared memory. No host or device pointer has bit 63.
pub const SHARED_WINDOW: u64 = 0x8000_0001_0000_0000;
/// Generic addresses from here to 4 GiB on are the thread's local memory.
pub const LOCAL_WINDOW: u64 = 0x8000_0002_0000_0000;
/// Generic addresses from here to 4 GiB on are kernel parameters, read only.
pub const PARAM_WINDOW: u64 = 0x8000_0003_0000_0000;

/// A stretch of global memory and where it lies on the host.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// First device address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
    /// Host address of `base`. `base` and `host` must be equal modulo 16.
    pub host: *mut u8,
    /// Stores and atomics are allowed.
    pub writable: bool,
}

/// The caller's global memory. Constant memory and module variables lie in it too.
///
/// # Safety
/// A range that is returned must stay readable (and writable where it says so) at `host` for `len` bytes until the
/// launch that asked has returned. The bytes may change under the interpreter; it reads and writes them with atomics.
pub unsafe trait GlobalMemory: Sync {
    /// The mapped range that contains `addr`, as large as possible; `None` makes the access an illegal address.
    fn resolve(&self, addr: u64) -> Option<Range>;
}

/// State spaces, as const parameters of the access functions.
pub(crate) mod space {
    pub(crate) const GLOBAL: u8 = 0;
    pub(crate) const SHARED: u8 = 1;
    pub(crate) const LOCAL: u8 = 2;
    pub(crate) const PARAM: u8 = 3;
    pub(crate) const GENERIC: u8 = 4;
}

/// In `Ins::r[5]` of an access: the address register has 64 bits.
pub(crate) const WIDE: u32 = 1 << 31;
/// In `Ins::r[5]`: no register; the address is relative to the activation's local memory.
pub(crate) const FRAME: u32 = 1 << 30;
/// In `Ins::r[5]`: where the state space lies, for accesses that are not compiled once per space.
pub(crate) const SPACE_SHIFT: u32 = 8;
/// In `Ins::r[5]`: the cached range this instruction uses.
pub(crate) const SLOT_MASK: u32 = RANGES as u32 - 1;

/// Cached ranges; an access instruction always looks into the same one.
const RANGES: usize = 64;

/// Zeroed bytes aligned to 16.
#[derive(Default)]
pub(crate) struct Bytes {
    words: Vec<u128>,
    len: usize,
}

impl Bytes {
    pub(crate) fn zeroed(len: usize) -> Bytes {
        Bytes { words: vec![0; len.div_ceil(16)], len }
    }

    pub(crate) fn copied(from: &[u8]) -> Bytes {
        let mut bytes = Bytes::zeroed(from.len());
        for (word, chunk) in bytes.words.iter_mut().zip(from.chunks(16)) {
            let mut full = [0u8; 16];
            full[..chunk.len()].copy_from_slice(chunk);
            *word = u128::from_ne_bytes(full);
        }
        bytes
    }

    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
    }

    fn ptr(&mut self) -> *mut u8 {
        self.words.as_mut_ptr().cast()
    }

    /// Address of `len` bytes at `at`, where they lie inside.
    #[inline(always)]
    fn at(&mut self, at: u64, len: u64) -> Option<*mut u8> {
        let size = self.len as u64;
        if at >= size || size - at < len {
            return None;
        }
        // SAFETY: at < len of the allocation, checked above.
        Some(unsafe { self.ptr().add(at as usize) })
    }
}

/// Local memory of a warp: one stack of `stride` bytes per lane.
#[derive(Default)]
pub(crate) struct LocalStack {
    bytes: Bytes,
    stride: usize,
}

impl LocalStack {
    /// Makes every lane's stack at least `need` bytes; contents stay.
    pub(crate) fn reserve(&mut self, need: usize) {
        if need <= self.stride {
            return;
        }
        let stride = need.max(self.stride * 2).next_multiple_of(16);
        let mut bytes = Bytes::zeroed(stride * 32);
        for lane in 0..32 {
            let (from, to, n) = (lane * self.stride / 16, lane * stride / 16, self.stride / 16);
            bytes.words[to..to + n].copy_from_slice(&self.bytes.words[from..from + n]);
        }
        *self = LocalStack { bytes, stride };
    }

    #[inline(always)]
    fn at(&mut self, lane: usize, at: u64, len: u64) -> Option<*mut u8> {
        let stride = self.stride as u64;
        if at >= stride || stride - at < len {
            return None;
        }
        self.bytes.at(lane as u64 * stride + at, len)
    }

    /// Copies `len` bytes within the stack of a lane.
    pub(crate) fn copy(&mut self, lane: usize, from: u32, to: u32, len: u32) -> bool {
        let n = u64::from(len);
        match (self.at(lane, from.into(), n), self.at(lane, to.into(), n)) {
            // SAFETY: both are valid for `n` bytes of the same allocation, as `at` has checked; copy allows overlap.
            (Some(a), Some(b)) => unsafe {
                std::ptr::copy(a, b, len as usize);
                true
            },
            _ => len == 0,
        }
    }
}

/// What the threads of a block reach.
pub(crate) struct Port<'a> {
    memory: &'a dyn GlobalMemory,
    ranges: [Range; RANGES],
    /// Shared memory of the block.
    pub(crate) shared: Bytes,
    /// Kernel parameters.
    params: Bytes,
    /// Local memory of the warp that runs.
    pub(crate) local: LocalStack,
    /// What threads have printed.
    pub(crate) printed: Vec<u8>,
}

/// An access that was checked.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Valid for the length asked for, and aligned to it.
    pub(crate) host: *mut u8,
    /// Other host threads may reach it.
    pub(crate) global: bool,
}

impl<'a> Port<'a> {
    pub(crate) fn new(memory: &'a dyn GlobalMemory, shared_bytes: usize, params: &[u8]) -> Self {
        let none = Range { base: 0, len: 0, host: std::ptr::null_mut(), writable: false };
        Port {
            memory,
            ranges: [none; RANGES],
            shared: Bytes::zeroed(shared_bytes),
            params: Bytes::copied(params),
            local: LocalStack::default(),
            printed: Vec::new(),
        }
    }

    /// Checks an access of `len` bytes (a power of two) of a lane.
    #[inline(always)]
    pub(crate) fn locate<const SPACE: u8>(
        &mut self,
        i: &Ins,
        lane: usize,
        addr: u64,
        len: u64,
        write: bool,
    ) -> Result<Place, Fault> {
        if addr & (len - 1) != 0 {
            return Err(Fault::MisalignedAddress { addr, line: i.line });
        }
        self.span::<SPACE>(i, lane, addr, len, write)
    }

    /// As `locate`, for any length and alignment.
    #[inline(always)]
    pub(crate) fn span<const SPACE: u8>(
        &mut self,
        i: &Ins,
        lane: usize,
        addr: u64,
        len: u64,
        write: bool,
    ) -> Result<Place, Fault> {
        let found = match SPACE {
            space::GLOBAL => return self.global(i, addr, len, write),
            space::SHARED => self.shared.at(addr, len),
            space::LOCAL => self.local.at(lane, addr, len),
            space::PARAM if write => return Err(Fault::InvalidAddressSpace { addr, line: i.line }),
            space::PARAM => self.params.at(addr, len),
            _ => match addr & !0xffff_ffff {
                SHARED_WINDOW => self.shared.at(addr - SHARED_WINDOW, len),
                LOCAL_WINDOW => self.local.at(lane, addr - LOCAL_WINDOW, len),
                PARAM_WINDOW if write => return Err(Fault::InvalidAddressSpace { addr, line: i.line }),
                PARAM_WINDOW => self.params.at(addr - PARAM_WINDOW, len),
                _ => return self.global(i, addr, len, write),
            },
        };
        found.map(|host| Place { host, global: false }).ok_or(Fault::IllegalAddress { addr, line: i.line })
    }

    /// As `locate`, the space known only at run time.
    #[inline]
    pub(crate) fn locate_in(
        &mut self,
        i: &Ins,
        lane: usize,
        addr: u64,
        len: u64,
        write: bool,
    ) -> Result<Place, Fault> {
        match ((i.r[5] >> SPACE_SHIFT) & 7) as u8 {
            space::GLOBAL => self.locate::<{ space::GLOBAL }>(i, lane, addr, len, write),
            space::SHARED => self.locate::<{ space::SHARED }>(i, lane, addr, len, write),
            space::LOCAL => self.locate::<{ space::LOCAL }>(i, lane, addr, len, write),
            space::PARAM => self.locate::<{ space::PARAM }>(i, lane, addr, len, write),
            _ => self.locate::<{ space::GENERIC }>(i, lane, addr, len, write),
        }
    }

    #[inline(always)]
    fn global(&mut self, i: &Ins, addr: u64, len: u64, write: bool) -> Result<Place, Fault> {
        let slot = (i.r[5] & SLOT_MASK) as usize;
        let range = &self.ranges[slot];
        let at = addr.wrapping_sub(range.base);
        if at < range.len && range.len - at >= len && (!write || range.writable) {
            // SAFETY: GlobalMemory promises `len` bytes at `host` until the launch ends, and `at + len` is within.
            return Ok(Place { host: unsafe { range.host.add(at as usize) }, global: true });
        }
        self.find(slot, i.line, addr, len, write)
    }

    #[cold]
    fn find(&mut self, slot: usize, line: u32, addr: u64, len: u64, write: bool) -> Result<Place, Fault> {
        let illegal = Fault::IllegalAddress { addr, line };
        let Some(range) = self.memory.resolve(addr) else { return Err(illegal) };
        let at = addr.wrapping_sub(range.base);
        // Alignment of host addresses follows from that of device addresses only where they are congruent.
        let congruent = (range.host as u64 ^ range.base) & 15 == 0;
        if at >= range.len || range.len - at < len || (write && !range.writable) || !congruent {
            return Err(illegal);
        }
        self.ranges[slot] = range;
        // SAFETY: as in `global`: checked just above against the range the caller vouches for.
        Ok(Place { host: unsafe { range.host.add(at as usize) }, global: true })
    }
}

/// The address each lane accesses: register `r4` (or nothing) plus `imm`.
#[inline(always)]
pub(crate) fn addresses(f: &Frame, i: &Ins) -> [u64; 32] {
    let mut out = [0u64; 32];
    if i.r[4] == NONE {
        let base = if i.r[5] & FRAME != 0 { u64::from(f.local_base) } else { 0 };
        out.fill(base.wrapping_add(i.imm));
    } else if i.r[5] & WIDE != 0 {
        for (o, a) in out.iter_mut().zip(f.words::<u64>(i.r[4])) {
            *o = a.wrapping_add(i.imm);
        }
    } else {
        for (o, a) in out.iter_mut().zip(f.words::<u32>(i.r[4])) {
            *o = u64::from(a.wrapping_add(i.imm as u32));
        }
    }
    out
}
