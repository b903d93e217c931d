//! Pinned host memory. It is ordinary memory of this process, pinned by the kernel module (or made shareable by the local
//! transport) and mapped in the worker at the same address, so that one pointer means the same on both sides.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Mutex;

use cuda_api::calls::context::row::cuCtxSynchronize;
use cuda_api::calls::memory::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUcontext, CUdeviceptr, attribute};
use cuda_api::{CUresult, CuResult};
use pci_layout::control::MAP_READ_ONLY;
use pci_layout::ring::{PINNED_WINDOW_END, PINNED_WINDOW_START};
use transport::{AreaError, Kind, Region, SessionState};

use crate::gate;
use crate::objects::lock;
use crate::process::{Process, initialised};
use crate::ranges::{Range, RangeKind};

/// Where memory from cuMemHostAlloc lies: addresses that the worker keeps free for it.
pub const WINDOW: std::ops::Range<u64> = PINNED_WINDOW_START..PINNED_WINDOW_END;
const PAGE: u64 = pci_layout::PAGE_BYTES;
/// Large allocations start where a huge page can.
const HUGE_PAGE: u64 = 2 << 20;

const HOSTALLOC_FLAGS: u32 = 7;
/// CU_MEMHOSTALLOC_PORTABLE and …_DEVICEMAP, and of a registration the same.
const PORTABLE: u32 = 1;
const DEVICE_MAP: u32 = 2;
const REGISTER_PORTABLE_AND_MAPPED: u32 = 3;
const REGISTER_IO_MEMORY: u32 = 4;
const REGISTER_READ_ONLY: u32 = 8;
const REGISTER_FLAGS: u32 = 0xf;

/// The window's next free address, and what of it is in use again after a free.
pub struct PinnedWindow {
    next: u64,
    free: BTreeMap<u64, u64>,
}

impl Default for PinnedWindow {
    fn default() -> Self {
        PinnedWindow { next: WINDOW.start, free: BTreeMap::new() }
    }
}

impl PinnedWindow {
    /// Addresses for `len` bytes, a multiple of the page size.
    fn take(&mut self, len: u64) -> Option<u64> {
        if let Some((start, size)) = self.free.iter().find(|(_, size)| **size >= len).map(|(a, b)| (*a, *b)) {
            self.free.remove(&start);
            if size > len {
                self.free.insert(start + len, size - len);
            }
            return Some(start);
        }
        let align = if len >= HUGE_PAGE { HUGE_PAGE } else { PAGE };
        let start = self.next.checked_next_multiple_of(align)?;
        // A page between neighbours: running off one end meets a fault, not the other's data.
        let end = start.checked_add(len)?.checked_add(PAGE)?;
        if end > WINDOW.end {
            return None;
        }
        self.next = end;
        Some(start)
    }

    fn give_back(&mut self, mut start: u64, mut len: u64) {
        // What was cut from one piece becomes one again.
        if let Some(next) = self.free.remove(&(start + len)) {
            len += next;
        }
        if let Some((before, size)) = self.free.range(..start).next_back().map(|(a, b)| (*a, *b))
            && before + size == start
        {
            start = before;
            len += size;
        }
        self.free.insert(start, len);
    }
}

/// The kernel's records of what is pinned, by address.
static REGIONS: Mutex<BTreeMap<u64, Region>> = Mutex::new(BTreeMap::new());

fn area_failure(error: &AreaError) -> CUresult {
    match error {
        AreaError::System(_) => CUresult::OUT_OF_MEMORY,
        AreaError::ForkedChild => CUresult::NOT_INITIALIZED,
        _ => CUresult::INVALID_VALUE,
    }
}

/// Pins pages, tells the worker, and remembers the range.
fn pin(
    process: &Process,
    start: u64,
    len: u64,
    pages: (u64, u64),
    kind: RangeKind,
    flags: u32,
) -> CuResult<()> {
    let context = crate::context::owner(crate::context::current()?);
    let device = crate::context::device_of(context).map_err(|_| CUresult::CONTEXT_IS_DESTROYED)?;
    let read_only = matches!(kind, RangeKind::HostRegistered(f) if f & REGISTER_READ_ONLY != 0);
    let map_flags = if read_only { MAP_READ_ONLY } else { 0 };
    let region = process
        .session
        .map_region(pages.0 as usize, pages.1 as usize, map_flags)
        .map_err(|e| crate::process::control_failure(&e))?;
    if let Err(error) = gate::call::<row::cuMemHostRegister_v2>((start, len as usize, flags)) {
        if let Err(kept) = process.session.unmap_region(region) {
            crate::log::say(|| format!("a region that could not be registered stays mapped: {kept}"));
        }
        return Err(error);
    }
    lock(&REGIONS).insert(start, region);
    process.ranges.insert(Range { start, len, kind, context: context.0, device, id: 0, read_only, owner: 0 });
    Ok(())
}

/// Takes a range that is no longer among the process's back from the worker. Where that fails it is the process's again, as it was,
/// unless the session is over: then nobody else has it.
pub(crate) fn unpin(process: &Process, range: Range) -> CuResult<()> {
    let told = gate::call_in::<row::cuMemHostUnregister>(CUcontext(range.context), (range.start,));
    let over = matches!(process.session.state(), SessionState::Dead(_));
    if let (Err(error), false) = (told, over) {
        process.ranges.restore(range);
        return Err(error);
    }
    let region = lock(&REGIONS).remove(&range.start);
    if let Some(region) = region
        && let Err(error) = process.session.unmap_region(region)
        && !over
    {
        lock(&REGIONS).insert(range.start, region);
        return Err(crate::process::control_failure(&error));
    }
    match range.kind {
        RangeKind::HostAlloc(_) | RangeKind::Managed(_) => {
            process.session.free_shared(range.start as usize).map_err(|e| area_failure(&e))?;
            let bytes = range.len.checked_next_multiple_of(PAGE).ok_or(CUresult::UNKNOWN)?;
            lock(&process.pinned).give_back(range.start, bytes);
        }
        _ => {
            let first = range.start / PAGE * PAGE;
            let end = (range.start + range.len).checked_next_multiple_of(PAGE).ok_or(CUresult::UNKNOWN)?;
            // SAFETY: the advice changes what fork does and nothing else.
            unsafe { libc::madvise(first as *mut c_void, (end - first) as usize, libc::MADV_DOFORK) };
        }
    }
    told
}

fn host_alloc(to: *mut *mut c_void, len: usize, flags: u32) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    not_null(to)?;
    if flags & !HOSTALLOC_FLAGS != 0 {
        return Err(CUresult::INVALID_VALUE);
    }
    crate::context::current()?;
    if len == 0 {
        // SAFETY: not NULL; room for a pointer by CUDA's contract.
        unsafe { to.write(std::ptr::null_mut()) };
        return Ok(());
    }
    // Write-combined (4) is about the processor's cache, and the number means I/O memory to a registration.
    let start = allocate(process, len, RangeKind::HostAlloc(flags), flags & REGISTER_PORTABLE_AND_MAPPED)?;
    // SAFETY: not NULL; room for a pointer by CUDA's contract.
    unsafe { to.write(start as *mut c_void) };
    Ok(())
}

/// Host memory of this library's own in the window, pinned and mapped in the worker at the same address.
///
/// # Errors
/// CUDA_ERROR_OUT_OF_MEMORY, and what pinning answers.
pub(crate) fn allocate(process: &Process, len: usize, kind: RangeKind, register_flags: u32) -> CuResult<u64> {
    let bytes = (len as u64).checked_next_multiple_of(PAGE).ok_or(CUresult::OUT_OF_MEMORY)?;
    let start = loop {
        let start = lock(&process.pinned).take(bytes).ok_or(CUresult::OUT_OF_MEMORY)?;
        match process.session.alloc_shared(start as usize, bytes as usize) {
            Ok(_) => break start,
            // Something of the process's own lies there: those addresses are not used again.
            Err(AreaError::AddressTaken) => {}
            Err(error) => {
                lock(&process.pinned).give_back(start, bytes);
                return Err(area_failure(&error));
            }
        }
    };
    if let Err(error) = pin(process, start, len as u64, (start, bytes), kind, register_flags) {
        process.session.free_shared(start as usize).map_err(|e| area_failure(&e))?;
        lock(&process.pinned).give_back(start, bytes);
        return Err(error);
    }
    Ok(start)
}

/// cuMemHostAlloc.
pub unsafe fn cuMemHostAlloc(to: *mut *mut c_void, len: usize, flags: u32) -> CUresult {
    finish(host_alloc(to, len, flags))
}

/// cuMemAllocHost.
pub unsafe fn cuMemAllocHost_v2(to: *mut *mut c_void, len: usize) -> CUresult {
    finish(host_alloc(to, len, 0))
}

/// cuMemFreeHost.
pub unsafe fn cuMemFreeHost(p: *mut c_void) -> CUresult {
    finish((|| {
        let process = initialised()?;
        if p.is_null() {
            return Ok(());
        }
        let start = p as u64;
        match process.ranges.find(start) {
            Some(r) if r.start == start && matches!(r.kind, RangeKind::HostAlloc(_)) => {}
            _ => return Err(CUresult::INVALID_VALUE),
        }
        // Taken away first: a second free of the same address, from any thread, finds nothing.
        let range = process.ranges.remove(start).ok_or(CUresult::INVALID_VALUE)?;
        unpin(process, range)
    })())
}

/// cuMemHostRegister.
pub unsafe fn cuMemHostRegister_v2(p: *mut c_void, len: usize, flags: u32) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        if p.is_null() || len == 0 || flags & !REGISTER_FLAGS != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let device = crate::context::device_of(crate::context::current()?)?;
        let supported = process.device(device)?.attribute(attribute::HOST_REGISTER_SUPPORTED) == Ok(1);
        if !supported || flags & REGISTER_IO_MEMORY != 0 || process.session.kind() != Kind::Vm {
            crate::log::once("cuMemHostRegister", || {
                "cuMemHostRegister is not supported here: I/O memory, or no kernel module (local transport)"
                    .into()
            });
            return Err(CUresult::NOT_SUPPORTED);
        }
        let start = p as u64;
        let first = start / PAGE * PAGE;
        let end = start
            .checked_add(len as u64)
            .and_then(|e| e.checked_next_multiple_of(PAGE))
            .ok_or(CUresult::INVALID_VALUE)?;
        if process.ranges.overlaps(first, end - first) {
            return Err(CUresult::HOST_MEMORY_ALREADY_REGISTERED);
        }
        // A child must not get copies of pinned pages: the parent would be the one that loses them.
        // SAFETY: the advice changes what fork does and nothing else.
        unsafe { libc::madvise(first as *mut c_void, (end - first) as usize, libc::MADV_DONTFORK) };
        let pinned =
            pin(process, start, len as u64, (first, end - first), RangeKind::HostRegistered(flags), flags);
        if pinned.is_err() {
            // SAFETY: as above.
            unsafe { libc::madvise(first as *mut c_void, (end - first) as usize, libc::MADV_DOFORK) };
        }
        pinned
    })())
}

/// cuMemHostUnregister.
pub unsafe fn cuMemHostUnregister(p: *mut c_void) -> CUresult {
    finish((|| {
        let process = initialised()?;
        let start = p as u64;
        match process.ranges.find(start) {
            Some(r) if r.start == start && matches!(r.kind, RangeKind::HostRegistered(_)) => {}
            // In the middle of it, or memory that the driver allocated.
            Some(_) => return Err(CUresult::INVALID_VALUE),
            None => return Err(CUresult::HOST_MEMORY_NOT_REGISTERED),
        }
        let range = process.ranges.remove(start).ok_or(CUresult::HOST_MEMORY_NOT_REGISTERED)?;
        unpin(process, range)
    })())
}

/// cuMemHostGetDevicePointer: the address is the same.
pub unsafe fn cuMemHostGetDevicePointer_v2(dptr: *mut CUdeviceptr, p: *mut c_void, flags: u32) -> CUresult {
    finish((|| {
        not_null(dptr)?;
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let process = initialised()?;
        process.alive()?;
        match process.ranges.find(p as u64) {
            Some(r) if r.kind.is_host() => {}
            _ => return Err(CUresult::INVALID_VALUE),
        }
        // SAFETY: not NULL; room for an address by CUDA's contract.
        unsafe { dptr.write(p as u64) };
        Ok(())
    })())
}

/// cuMemHostGetFlags.
pub unsafe fn cuMemHostGetFlags(flags: *mut u32, p: *mut c_void) -> CUresult {
    finish((|| {
        not_null(flags)?;
        let value = match initialised()?.ranges.find(p as u64).map(|r| r.kind) {
            // All of it is mapped under unified addressing, whether asked for or not. What a registration says of the memory is not told.
            Some(RangeKind::HostAlloc(f)) => f | DEVICE_MAP,
            Some(RangeKind::HostRegistered(f)) => f & PORTABLE | DEVICE_MAP,
            _ => return Err(CUresult::INVALID_VALUE),
        };
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { flags.write(value) };
        Ok(())
    })())
}

/// A context's pinned memory goes with it; the caller's own pages stay the caller's. The worker still has the context: what runs in
/// it may use the memory, so it is waited for.
pub fn context_destroyed(process: &Process, ctx: CUcontext) {
    let pinned = |r: &Range| r.kind.is_host() && r.kind != RangeKind::ManagedVariable;
    let ranges = process.ranges.remove_where(|r| r.context == ctx.0 && pinned(r));
    if ranges.is_empty() {
        return;
    }
    let idle = gate::call_in::<cuCtxSynchronize>(ctx, (ctx,));
    for range in ranges {
        // The session may be ending: what cannot be given back now ends with it.
        if let Err(error) = idle.and_then(|()| unpin(process, range)) {
            crate::log::say(|| format!("pinned memory of a context that ended is not taken back: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_gives_each_address_once() {
        let mut window = PinnedWindow::default();
        let a = window.take(PAGE).unwrap();
        let b = window.take(4 * PAGE).unwrap();
        assert!(a + PAGE < b);
        assert_eq!(window.take(HUGE_PAGE).unwrap() % HUGE_PAGE, 0);
        window.give_back(b, 4 * PAGE);
        assert_eq!(window.take(2 * PAGE).unwrap(), b);
        assert_eq!(window.take(2 * PAGE).unwrap(), b + 2 * PAGE);
        assert!(window.take(u64::MAX / 2).is_none());
        window.give_back(b + 2 * PAGE, 2 * PAGE);
        window.give_back(b, 2 * PAGE);
        assert_eq!(window.take(4 * PAGE).unwrap(), b, "pieces of one piece are one again");
        window.give_back(b, 4 * PAGE);
        window.give_back(a, PAGE);
        assert_eq!(window.free.len(), 2, "a page lies between what was never one piece");
    }
}
