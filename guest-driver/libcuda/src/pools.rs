//! Memory pools and stream-ordered allocation. Which pool a device allocates from is known here; an address is the driver's, and is
//! reserved in this process for good: a pool gives the same ones out again, and the device may use memory after cuMemFreeAsync has
//! returned.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Mutex;

use cuda_api::calls::virtual_memory::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{
    CUcontext, CUdevice, CUdeviceptr, CUmemAccessDesc, CUmemLocation, CUmemPoolProps, CUmemoryPool, CUstream,
    Handle, attribute,
};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::objects::lock;
use crate::process::{Process, initialised};
use crate::ranges::{Range, RangeKind};
use crate::virtual_memory::{LOCATION_DEVICE, access_descriptions, to_host, unnamed_device};

/// How often another address is asked for before an allocation fails.
const CLASHES_MAX: usize = 16;
/// CU_MEM_ALLOCATION_TYPE_PINNED.
const TYPE_PINNED: i32 = 1;
/// CU_MEM_ALLOCATION_TYPE_MANAGED.
const TYPE_MANAGED: i32 = 2;
/// CU_MEMPOOL_ATTR_REUSE_…: the attributes that are an int; the others are 64 bits wide.
const INT_ATTRIBUTES: std::ops::RangeInclusive<u32> = 1..=3;
/// CU_MEMPOOL_ATTR_USED_MEM_HIGH.
const ATTRIBUTE_LAST: u32 = 8;

/// What is known of a pool.
pub struct PoolRecord {
    /// The device's ordinal.
    device: CUdevice,
    /// It is the device's default pool, which nobody destroys.
    default: bool,
}

/// A device's pools.
struct Pools {
    default: CUmemoryPool,
    /// What streams of the device allocate from.
    current: CUmemoryPool,
}

/// The pools of the devices that were asked for.
static DEVICES: Mutex<BTreeMap<CUdevice, Pools>> = Mutex::new(BTreeMap::new());

fn ready() -> CuResult<&'static Process> {
    let process = initialised()?;
    process.alive()?;
    Ok(process)
}

/// The device has pools.
fn supported(process: &Process, dev: CUdevice) -> CuResult<()> {
    match process.device(dev)?.attribute(attribute::MEMORY_POOLS_SUPPORTED) {
        Ok(1) => Ok(()),
        _ => Err(CUresult::NOT_SUPPORTED),
    }
}

/// Something of a device's pools, once its default pool has a name.
fn with_pools<R>(process: &Process, dev: CUdevice, work: impl FnOnce(&mut Pools) -> R) -> CuResult<R> {
    supported(process, dev)?;
    // Held while the name is made, which happens once for each device.
    let mut devices = lock(&DEVICES);
    if let Some(pools) = devices.get_mut(&dev) {
        return Ok(work(pools));
    }
    let host = process.host_ordinal(dev)?;
    let pool = CUmemoryPool(process.objects.pools.insert(PoolRecord { device: dev, default: true })?);
    if let Err(error) = gate::call::<row::cuDeviceGetDefaultMemPool>((pool, host)) {
        process.objects.pools.remove(pool.0);
        return Err(error);
    }
    Ok(work(devices.entry(dev).or_insert(Pools { default: pool, current: pool })))
}

fn give_pool(
    to: *mut CUmemoryPool,
    dev: CUdevice,
    which: impl FnOnce(&mut Pools) -> CUmemoryPool,
) -> CuResult<()> {
    let process = ready()?;
    not_null(to)?;
    let pool = with_pools(process, dev, which)?;
    // SAFETY: not NULL; room for a handle by CUDA's contract.
    unsafe { to.write(pool) };
    Ok(())
}

/// cuDeviceGetDefaultMemPool.
pub unsafe fn cuDeviceGetDefaultMemPool(to: *mut CUmemoryPool, dev: CUdevice) -> CUresult {
    finish(give_pool(to, dev, |pools| pools.default))
}

/// cuDeviceGetMemPool.
pub unsafe fn cuDeviceGetMemPool(to: *mut CUmemoryPool, dev: CUdevice) -> CUresult {
    finish(give_pool(to, dev, |pools| pools.current).map_err(unnamed_device))
}

fn set_pool(dev: CUdevice, pool: CUmemoryPool) -> CuResult<()> {
    let process = ready()?;
    supported(process, dev).map_err(unnamed_device)?;
    let record = process.objects.pools.get(pool.0).ok_or(CUmemoryPool::INVALID)?;
    if record.device != dev {
        return Err(CUresult::INVALID_VALUE);
    }
    gate::call::<row::cuDeviceSetMemPool>((process.host_ordinal(dev)?, pool))?;
    with_pools(process, dev, |pools| pools.current = pool)
}

/// cuDeviceSetMemPool.
pub unsafe fn cuDeviceSetMemPool(dev: CUdevice, pool: CUmemoryPool) -> CUresult {
    finish(set_pool(dev, pool))
}

/// The device that a location and a type of memory mean: only pinned memory of devices has pools here.
///
/// # Safety
/// `location` is NULL or a location.
unsafe fn device_at(location: *const CUmemLocation, kind: i32) -> CuResult<CUdevice> {
    initialised()?;
    not_null(location.cast_mut())?;
    // SAFETY: not NULL; this function's contract.
    let location = unsafe { location.read_unaligned() };
    match (kind, location.kind) {
        (TYPE_PINNED, LOCATION_DEVICE) => Ok(location.id),
        // Host (2), a NUMA node (3), and none (0) for managed memory: there are no such pools (attributes 142, 144).
        (TYPE_PINNED, 2 | 3) | (TYPE_MANAGED, 0..=3) => Err(CUresult::NOT_SUPPORTED),
        _ => Err(CUresult::INVALID_VALUE),
    }
}

/// cuMemGetDefaultMemPool.
pub unsafe fn cuMemGetDefaultMemPool(
    to: *mut CUmemoryPool,
    location: *mut CUmemLocation,
    kind: i32,
) -> CUresult {
    // SAFETY: CUDA's contract: a location.
    finish(unsafe { device_at(location, kind) }.and_then(|dev| give_pool(to, dev, |pools| pools.default)))
}

/// cuMemGetMemPool.
pub unsafe fn cuMemGetMemPool(to: *mut CUmemoryPool, location: *mut CUmemLocation, kind: i32) -> CUresult {
    // SAFETY: CUDA's contract: a location.
    finish(unsafe { device_at(location, kind) }.and_then(|dev| give_pool(to, dev, |pools| pools.current)))
}

/// cuMemSetMemPool.
pub unsafe fn cuMemSetMemPool(location: *mut CUmemLocation, kind: i32, pool: CUmemoryPool) -> CUresult {
    // SAFETY: CUDA's contract: a location.
    finish(unsafe { device_at(location, kind) }.and_then(|dev| set_pool(dev, pool)))
}

/// cuMemPoolCreate: of device memory that stays in the process.
pub unsafe fn cuMemPoolCreate(to: *mut CUmemoryPool, props: *const CUmemPoolProps) -> CUresult {
    finish((|| {
        let process = ready()?;
        not_null(to)?;
        not_null(props.cast_mut())?;
        // SAFETY: not NULL; CUDA's contract: properties.
        let props = unsafe { props.read_unaligned() };
        // SAFETY: a local.
        let device = unsafe { device_at(&raw const props.location, props.kind) }?;
        supported(process, device).map_err(unnamed_device)?;
        if props.handle_types != 0 {
            crate::log::once("cuMemPoolCreate", || {
                "cuMemPoolCreate: pools that other processes share are not supported".into()
            });
            return Err(CUresult::NOT_SUPPORTED);
        }
        let sent = CUmemPoolProps { location: to_host(process, props.location)?, ..props };
        let pool = CUmemoryPool(process.objects.pools.insert(PoolRecord { device, default: false })?);
        if let Err(error) = gate::call::<row::cuMemPoolCreate>((pool, &sent)) {
            process.objects.pools.remove(pool.0);
            return Err(error);
        }
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(pool) };
        Ok(())
    })())
}

/// cuMemPoolDestroy.
pub unsafe fn cuMemPoolDestroy(pool: CUmemoryPool) -> CUresult {
    finish((|| {
        let process = ready()?;
        let record = process.objects.pools.get(pool.0).ok_or(CUmemoryPool::INVALID)?;
        if record.default {
            return Err(CUresult::INVALID_VALUE);
        }
        gate::call::<row::cuMemPoolDestroy>((pool,))?;
        process.objects.pools.remove(pool.0);
        if let Some(pools) = lock(&DEVICES).get_mut(&record.device)
            && pools.current == pool
        {
            pools.current = pools.default;
        }
        Ok(())
    })())
}

/// cuMemPoolSetAttribute.
pub unsafe fn cuMemPoolSetAttribute(pool: CUmemoryPool, attr: u32, value: *mut c_void) -> CUresult {
    finish((|| {
        ready()?.objects.check(pool)?;
        not_null(value)?;
        if attr == 0 || attr > ATTRIBUTE_LAST {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: not NULL; CUDA's contract: a value of the attribute's type.
        let number = unsafe {
            if INT_ATTRIBUTES.contains(&attr) {
                u64::from(value.cast::<u32>().read_unaligned())
            } else {
                value.cast::<u64>().read_unaligned()
            }
        };
        gate::call::<row::cuMemPoolSetAttribute>((pool, attr, number))
    })())
}

/// cuMemPoolGetAttribute.
pub unsafe fn cuMemPoolGetAttribute(pool: CUmemoryPool, attr: u32, value: *mut c_void) -> CUresult {
    finish((|| {
        ready()?.objects.check(pool)?;
        not_null(value)?;
        if attr == 0 || attr > ATTRIBUTE_LAST {
            return Err(CUresult::INVALID_VALUE);
        }
        let number = gate::call::<row::cuMemPoolGetAttribute>((pool, attr))?;
        // SAFETY: not NULL; CUDA's contract: room for the attribute's type.
        unsafe {
            if INT_ATTRIBUTES.contains(&attr) {
                value.cast::<u32>().write_unaligned(number as u32);
            } else {
                value.cast::<u64>().write_unaligned(number);
            }
        }
        Ok(())
    })())
}

/// cuMemPoolSetAccess.
pub unsafe fn cuMemPoolSetAccess(pool: CUmemoryPool, map: *const CUmemAccessDesc, count: usize) -> CUresult {
    finish((|| {
        let process = ready()?;
        process.objects.check(pool)?;
        // SAFETY: CUDA's contract: `count` descriptions.
        let list = unsafe { access_descriptions(process, map, count) }?;
        gate::call::<row::cuMemPoolSetAccess>((pool, &list, count))
    })())
}

/// cuMemPoolGetAccess.
pub unsafe fn cuMemPoolGetAccess(
    flags: *mut u32,
    pool: CUmemoryPool,
    location: *mut CUmemLocation,
) -> CUresult {
    finish((|| {
        let process = ready()?;
        process.objects.check(pool)?;
        not_null(flags)?;
        not_null(location)?;
        // SAFETY: not NULL; CUDA's contract: a location.
        let location = to_host(process, unsafe { location.read_unaligned() })?;
        let found = gate::call::<row::cuMemPoolGetAccess>((pool, &location))?;
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { flags.write(found) };
        Ok(())
    })())
}

/// The device whose pool a stream allocates from.
fn device_of(process: &Process, stream: CUstream) -> CuResult<CUdevice> {
    let context = if CUstream::SPECIAL.contains(&stream.0) {
        crate::context::current()?
    } else {
        CUcontext(process.objects.streams.context_of(stream.0).ok_or(CUstream::INVALID)?)
    };
    crate::context::device_of(context).map_err(|_| CUresult::CONTEXT_IS_DESTROYED)
}

/// Allocates from a pool, or from the stream's device's where it is NULL.
fn allocate(to: *mut CUdeviceptr, len: usize, pool: CUmemoryPool, stream: CUstream) -> CuResult<()> {
    let process = ready()?;
    not_null(to)?;
    process.objects.check(stream)?;
    let (device, owner) = if pool.is_null() {
        let device = device_of(process, stream)?;
        supported(process, device)?;
        (device, lock(&DEVICES).get(&device).map_or(CUmemoryPool::NULL, |pools| pools.current))
    } else {
        (process.objects.pools.get(pool.0).ok_or(CUmemoryPool::INVALID)?.device, pool)
    };
    if len == 0 {
        // No memory has no address; cuMemFreeAsync takes that one.
        // SAFETY: not NULL; room for an address by CUDA's contract.
        unsafe { to.write(0) };
        return Ok(());
    }
    let (mut avoid, mut clashing) = (Vec::new(), Vec::new());
    let outcome = loop {
        let (at, captured) = match gate::call::<row::cuMemAllocAsync>((len, pool, stream, &avoid)) {
            Ok(found) => found,
            Err(error) => break Err(error),
        };
        if process.reservations.keep(at, len as u64).is_ok() {
            break Ok((at, captured != 0));
        }
        clashing.push(at);
        avoid.extend_from_slice(&at.to_le_bytes());
        avoid.extend_from_slice(&(len as u64).to_le_bytes());
        if clashing.len() == CLASHES_MAX {
            crate::log::say(|| format!("no {len} bytes of addresses that are free here and on the device"));
            break Err(CUresult::OUT_OF_MEMORY);
        }
    };
    for at in clashing {
        // What the caller asked for has its own outcome; memory that the worker does not take back goes with the session.
        if let Err(error) = gate::call::<row::cuMemFreeAsync>((at, stream)) {
            crate::log::say(|| format!("memory at a clashing address is not taken back: {error}"));
        }
    }
    let (at, captured) = outcome?;
    if captured {
        crate::graph::allocates();
    }
    // Its pool may have no name yet, and a program that asks for it gets the one that is named now.
    let owner = if owner.is_null() { with_pools(process, device, |pools| pools.current)? } else { owner };
    process.ranges.insert_pooled(Range {
        start: at,
        len: len as u64,
        kind: if captured { RangeKind::Graph } else { RangeKind::Pooled },
        // As with the driver, it belongs to its pool and to no context.
        context: 0,
        device,
        id: 0,
        read_only: false,
        owner: if captured { 0 } else { owner.0 },
    });
    // SAFETY: not NULL; room for an address by CUDA's contract.
    unsafe { to.write(at) };
    Ok(())
}

/// cuMemAllocAsync.
pub unsafe fn cuMemAllocAsync(to: *mut CUdeviceptr, len: usize, stream: CUstream) -> CUresult {
    finish(allocate(to, len, CUmemoryPool::NULL, stream))
}

/// cuMemAllocFromPoolAsync.
pub unsafe fn cuMemAllocFromPoolAsync(
    to: *mut CUdeviceptr,
    len: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> CUresult {
    if pool.is_null() {
        return CUmemoryPool::INVALID;
    }
    finish(allocate(to, len, pool, stream))
}

/// cuMemFreeAsync. A pool's memory is known, so nothing is waited for; what the driver decides is (memory of a graph, and
/// everything while something is captured).
pub unsafe fn cuMemFreeAsync(dptr: CUdeviceptr, stream: CUstream) -> CUresult {
    finish((|| {
        let process = ready()?;
        process.objects.check(stream)?;
        if CUstream::SPECIAL.contains(&stream.0) {
            crate::context::current()?;
        }
        if dptr == 0 {
            return Ok(());
        }
        let range = process.ranges.find(dptr).filter(|r| r.start == dptr).ok_or(CUresult::INVALID_VALUE)?;
        if range.kind == RangeKind::Graph {
            // The graph's next launch brings it back: the range stays known.
            return gate::call::<row::cuMemFreeAsync>((dptr, stream));
        }
        if !matches!(range.kind, RangeKind::Pooled | RangeKind::Device) {
            return Err(CUresult::INVALID_VALUE);
        }
        crate::waiting::pools_owe(stream);
        // Taken away first: a second free of the same address, from any thread, finds nothing.
        let range = process.ranges.remove(dptr).ok_or(CUresult::INVALID_VALUE)?;
        // Of a free in another device's stream the driver has its own opinion.
        let elsewhere = process.devices().len() > 1 && device_of(process, stream) != Ok(range.device);
        if range.kind == RangeKind::Pooled && !elsewhere && !crate::capture::any() {
            return gate::post::<row::cuMemFreeAsync>((dptr, stream))
                .inspect_err(|_| process.ranges.restore(range));
        }
        gate::call::<row::cuMemFreeAsync>((dptr, stream)).inspect_err(|_| process.ranges.restore(range))?;
        if range.kind == RangeKind::Device {
            process.reservations.release(range.start, range.len);
        }
        Ok(())
    })())
}
