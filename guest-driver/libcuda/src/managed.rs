//! Managed memory: pinned host memory at the same address on both sides. Host and device see each other's writes without anybody's
//! help, so every access that the programming model allows works; it costs a trip over the bus where the driver would have moved the
//! pages. Variables of modules ([`variables`]) cannot be had so. Advice and prefetches are checked as the driver checks them, remembered and answered back; pages are never moved.

mod advice;
mod merge;
pub mod variables;
pub mod watch;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Mutex;

use cuda_api::calls::context::row::cuCtxSynchronize;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{
    CUcontext, CUdevice, CUdeviceptr, CUmemLocation, CUstream, Handle, STREAM_DEFAULT, STREAM_LEGACY,
    attribute,
};
use cuda_api::{CUresult, CuResult};

use self::advice::{
    Advice, CPU, LOCATION_DEVICE, LOCATION_HOST, LOCATION_NUMA, LOCATION_NUMA_CURRENT, Pages,
};
use crate::objects::lock;
use crate::process::{Process, initialised};
use crate::ranges::{Range, RangeKind};

/// CU_MEM_ATTACH_GLOBAL, …_HOST and …_SINGLE.
const ATTACH_GLOBAL: u32 = 1;
const ATTACH_HOST: u32 = 2;
const ATTACH_SINGLE: u32 = 4;
/// Registered memory is mapped and portable.
const REGISTER_PORTABLE_AND_MAPPED: u32 = 3;
const PAGE: u64 = pci_layout::PAGE_BYTES;

/// What was advised for each allocation, by its first address.
static ADVICE: Mutex<BTreeMap<u64, Pages>> = Mutex::new(BTreeMap::new());

fn ready() -> CuResult<&'static Process> {
    let process = initialised()?;
    process.alive()?;
    Ok(process)
}

/// cuMemAllocManaged.
pub unsafe fn cuMemAllocManaged(to: *mut CUdeviceptr, len: usize, flags: u32) -> CUresult {
    finish((|| {
        let process = ready()?;
        not_null(to)?;
        if len == 0 || !matches!(flags, ATTACH_GLOBAL | ATTACH_HOST) {
            return Err(CUresult::INVALID_VALUE);
        }
        let device = crate::context::device_of(crate::context::current()?)?;
        if process.device(device)?.attribute(attribute::MANAGED_MEMORY) != Ok(1) {
            return Err(CUresult::NOT_SUPPORTED);
        }
        let kind = RangeKind::Managed(flags);
        let at = crate::host_memory::allocate(process, len, kind, REGISTER_PORTABLE_AND_MAPPED)?;
        // SAFETY: not NULL; room for an address by CUDA's contract.
        unsafe { to.write(at) };
        Ok(())
    })())
}

/// cuMemFree of managed memory: what the device still does with it is waited for.
///
/// # Errors
/// As for cuMemFreeHost.
pub fn free(process: &Process, start: u64) -> CuResult<()> {
    // Taken away first: a second free of the same address, from any thread, finds nothing.
    let range = process.ranges.remove(start).ok_or(CUresult::INVALID_VALUE)?;
    let context = CUcontext(range.context);
    if let Err(error) = crate::gate::call_in::<cuCtxSynchronize>(context, (context,)) {
        process.ranges.restore(range);
        return Err(error);
    }
    lock(&ADVICE).remove(&start);
    crate::host_memory::unpin(process, range)
}

/// The managed allocation that a range lies in, and the range's whole pages.
fn pages(process: &Process, start: u64, len: usize) -> CuResult<(Range, std::ops::Range<u64>)> {
    let range = process.ranges.find(start).ok_or(CUresult::INVALID_VALUE)?;
    let end = start
        .checked_add(len as u64)
        .and_then(|end| end.checked_next_multiple_of(PAGE))
        .ok_or(CUresult::INVALID_VALUE)?;
    let last = (range.start + range.len).next_multiple_of(PAGE);
    if len == 0 || end > last || !range.kind.is_managed() {
        return Err(CUresult::INVALID_VALUE);
    }
    Ok((range, start / PAGE * PAGE..end))
}

/// Something of what was advised for a range.
fn with_advice<R>(
    start: u64,
    len: usize,
    work: impl FnOnce(&mut Pages, std::ops::Range<u64>) -> R,
) -> CuResult<R> {
    let process = ready()?;
    let (range, pages) = pages(process, start, len)?;
    // A variable begins anywhere in its page.
    let whole = range.start / PAGE * PAGE..(range.start + range.len).next_multiple_of(PAGE);
    let mut all = lock(&ADVICE);
    let known = all.entry(range.start).and_modify(|known| {
        // Another allocation may have had the address.
        if known.id() != range.id {
            *known = Pages::new(range.id, whole.clone());
        }
    });
    let known = known.or_insert_with(|| Pages::new(range.id, whole));
    Ok(work(known, pages))
}

/// A location where managed memory can be wanted.
fn location(process: &Process, wanted: CUmemLocation) -> CuResult<CUmemLocation> {
    let node = |id: i32| CUmemLocation { kind: LOCATION_NUMA, id };
    match wanted.kind {
        LOCATION_DEVICE => {
            let concurrent = process.device(wanted.id)?.attribute(attribute::CONCURRENT_MANAGED_ACCESS);
            if concurrent == Ok(1) { Ok(wanted) } else { Err(CUresult::INVALID_DEVICE) }
        }
        LOCATION_HOST => Ok(CUmemLocation { kind: LOCATION_HOST, id: 0 }),
        LOCATION_NUMA if advice::is_node(wanted.id) => Ok(wanted),
        LOCATION_NUMA_CURRENT => Ok(node(advice::current_node())),
        _ => Err(CUresult::INVALID_VALUE),
    }
}

/// A location by the number that the first interface has for it: a device's, or the processor's.
fn numbered(device: CUdevice) -> CUmemLocation {
    if device == CPU {
        CUmemLocation { kind: LOCATION_HOST, id: 0 }
    } else {
        CUmemLocation { kind: LOCATION_DEVICE, id: device }
    }
}

fn advise(start: CUdeviceptr, len: usize, number: u32, at: CUmemLocation) -> CuResult<()> {
    let process = ready()?;
    // A device that is none is a wrong value here; a prefetch names it.
    let location = |at: CUmemLocation| {
        let wrong = |error| if error == CUresult::INVALID_DEVICE { CUresult::INVALID_VALUE } else { error };
        location(process, at).map_err(wrong)
    };
    let wanted = match number {
        1 => Advice::ReadMostly(true),
        2 => Advice::ReadMostly(false),
        3 => Advice::Preferred(Some(location(at)?)),
        4 => Advice::Preferred(None),
        5 | 6 => {
            let by = match at.kind {
                LOCATION_HOST => CPU,
                LOCATION_DEVICE => location(at)?.id,
                _ => return Err(CUresult::INVALID_VALUE),
            };
            Advice::AccessedBy(by, number == 5)
        }
        _ => return Err(CUresult::INVALID_VALUE),
    };
    with_advice(start, len, |known, pages| known.apply(pages, wanted))
}

/// cuMemAdvise: with a device's number, or -1 for the processor.
pub unsafe fn cuMemAdvise(start: CUdeviceptr, len: usize, advice: u32, device: CUdevice) -> CUresult {
    finish(advise(start, len, advice, numbered(device)))
}

/// cuMemAdvise_v2: with a location.
pub unsafe fn cuMemAdvise_v2(start: CUdeviceptr, len: usize, advice: u32, at: CUmemLocation) -> CUresult {
    finish(advise(start, len, advice, at))
}

fn prefetch(start: CUdeviceptr, len: usize, to: CUmemLocation, stream: CUstream) -> CuResult<()> {
    let process = ready()?;
    process.objects.check(stream)?;
    if CUstream::SPECIAL.contains(&stream.0) {
        crate::context::current()?;
    }
    let to = location(process, to)?;
    with_advice(start, len, |known, pages| known.apply(pages, Advice::Prefetched(to)))
}

/// cuMemPrefetchAsync: to a device, or to -1 for the processor.
pub unsafe fn cuMemPrefetchAsync(
    start: CUdeviceptr,
    len: usize,
    device: CUdevice,
    stream: CUstream,
) -> CUresult {
    finish(prefetch(start, len, numbered(device), stream))
}

/// cuMemPrefetchAsync_v2: to a location.
pub unsafe fn cuMemPrefetchAsync_v2(
    start: CUdeviceptr,
    len: usize,
    to: CUmemLocation,
    flags: u32,
    stream: CUstream,
) -> CUresult {
    if flags != 0 {
        return CUresult::INVALID_VALUE;
    }
    finish(prefetch(start, len, to, stream))
}

/// cuMemPrefetchBatchAsync.
pub unsafe fn cuMemPrefetchBatchAsync(
    starts: *mut CUdeviceptr,
    lens: *mut usize,
    count: usize,
    locations: *mut CUmemLocation,
    firsts: *mut usize,
    location_count: usize,
    flags: u64,
    stream: CUstream,
) -> CUresult {
    finish((|| {
        let process = ready()?;
        process.objects.check(stream)?;
        if matches!(stream, STREAM_DEFAULT | STREAM_LEGACY) || flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        if count == 0 || location_count == 0 || location_count > count {
            return Err(CUresult::INVALID_VALUE);
        }
        not_null(starts)?;
        not_null(lens)?;
        not_null(locations)?;
        not_null(firsts)?;
        let mut operations = Vec::new();
        let mut next = 0;
        for i in 0..count {
            // SAFETY: `next` < `location_count`, `i` < `count`: CUDA's contract is that the arrays have as many elements.
            unsafe {
                if next < location_count && firsts.add(next).read() == i {
                    next += 1;
                }
                if next == 0 {
                    return Err(CUresult::INVALID_VALUE);
                }
                let to = location(process, locations.add(next - 1).read_unaligned())?;
                let (start, len) = (starts.add(i).read(), lens.add(i).read());
                pages(process, start, len)?;
                operations.push((start, len, to));
            }
        }
        if next != location_count {
            // An index that is none, or that does not rise.
            return Err(CUresult::INVALID_VALUE);
        }
        // Nothing is done of a batch that is wrong somewhere.
        for (start, len, to) in operations {
            with_advice(start, len, |known, pages| known.apply(pages, Advice::Prefetched(to)))?;
        }
        Ok(())
    })())
}

/// # Safety
/// `data` is NULL or has room for `size` bytes.
unsafe fn attribute(data: *mut c_void, size: usize, number: u32, start: u64, len: usize) -> CuResult<()> {
    not_null(data)?;
    let room = size / 4;
    if room == 0 || !size.is_multiple_of(4) || (number != advice::ACCESSED_BY && room != 1) {
        return Err(CUresult::INVALID_VALUE);
    }
    let values = with_advice(start, len, |known, pages| known.tell(pages, number, room))??;
    for (i, value) in values.iter().take(room).enumerate() {
        // SAFETY: i < `room`, which is `size` bytes by this function's contract.
        unsafe { data.cast::<i32>().add(i).write_unaligned(*value) };
    }
    Ok(())
}

/// cuMemRangeGetAttribute.
pub unsafe fn cuMemRangeGetAttribute(
    data: *mut c_void,
    size: usize,
    number: u32,
    start: CUdeviceptr,
    len: usize,
) -> CUresult {
    // SAFETY: CUDA's contract: room for `size` bytes.
    finish(unsafe { attribute(data, size, number, start, len) })
}

/// cuMemRangeGetAttributes.
pub unsafe fn cuMemRangeGetAttributes(
    data: *mut *mut c_void,
    sizes: *mut usize,
    numbers: *mut u32,
    count: usize,
    start: CUdeviceptr,
    len: usize,
) -> CUresult {
    finish((|| {
        ready()?;
        not_null(data)?;
        not_null(sizes)?;
        not_null(numbers)?;
        if count == 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        for i in 0..count {
            // SAFETY: i < `count`; CUDA's contract: as many places, each of its size, and numbers.
            unsafe { attribute(data.add(i).read(), sizes.add(i).read(), numbers.add(i).read(), start, len) }?;
        }
        Ok(())
    })())
}

/// cuStreamAttachMemAsync: where every device has concurrent access, an association restricts nothing.
pub unsafe fn cuStreamAttachMemAsync(
    stream: CUstream,
    start: CUdeviceptr,
    len: usize,
    flags: u32,
) -> CUresult {
    finish((|| {
        let process = ready()?;
        process.objects.check(stream)?;
        let special = CUstream::SPECIAL.contains(&stream.0);
        if special {
            crate::context::current()?;
        }
        let range = process.ranges.find(start).ok_or(CUresult::INVALID_VALUE)?;
        if !range.kind.is_managed() || range.start != start {
            return Err(CUresult::INVALID_VALUE);
        }
        match flags {
            ATTACH_GLOBAL | ATTACH_HOST => {}
            // Not to the default stream, which is no stream of its own.
            ATTACH_SINGLE if !matches!(stream, STREAM_DEFAULT | STREAM_LEGACY) => {}
            _ => return Err(CUresult::INVALID_VALUE),
        }
        if len == 0 || len as u64 == range.len { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
    })())
}
