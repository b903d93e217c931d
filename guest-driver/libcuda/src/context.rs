//! Contexts. A thread's stack of current contexts lives in the guest; the worker learns of a context when it is made and which
//! one is current with each frame.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;

use cuda_api::calls::context::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUcontext, CUdevice, CUgreenCtx};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::managed::variables;
use crate::objects::{Objects, lock};
use crate::process::{Process, initialised};
use crate::ranges::{Range, RangeKind};
use crate::thread;

/// What is known of a context.
pub struct ContextRecord {
    /// The device's ordinal.
    pub device: i32,
    /// Its flags (CUctx_flags).
    pub flags: AtomicU32,
    /// A number that no other context of the process ever had.
    pub id: u64,
    /// A device's primary context; it is never removed, only inactive.
    pub primary: bool,
    /// The green context whose context it is, or NULL.
    pub green: CUgreenCtx,
    /// How many users it has (cuCtxAttach), which cuCtxDetach counts down.
    pub users: AtomicU32,
    /// Somebody destroys it: nobody else does.
    ending: AtomicBool,
}

impl ContextRecord {
    fn new(device: i32, flags: u32, primary: bool, green: CUgreenCtx) -> Self {
        ContextRecord {
            device,
            flags: AtomicU32::new(flags),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            primary,
            green,
            users: AtomicU32::new(1),
            ending: AtomicBool::new(false),
        }
    }

    /// It is neither a primary nor a green context's: who has made it destroys it.
    pub fn is_plain(&self) -> bool {
        !self.primary && self.green.is_null()
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The interface version that contexts report (cuCtxGetApiVersion), as driver 580 does for contexts made by current functions.
const API_VERSION: u32 = 3020;
/// The CUctx_flags that exist.
const FLAGS_MASK: u32 = 0xff;
/// CU_CTX_SCHED_*: automatic, or one of three ways to wait.
const SCHEDULING: u32 = 7;
/// CU_CTX_MAP_HOST: every context does it. Primary contexts say so (cuCtxGetFlags), others where they were made with it.
const MAP_HOST: u32 = 8;

/// Flags that a context can have.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE for unknown ones, or for more than one way to wait.
pub fn check_flags(flags: u32) -> CuResult<()> {
    let one_way = matches!(flags & SCHEDULING, 0 | 1 | 2 | 4);
    if flags & !FLAGS_MASK == 0 && one_way { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}

/// A device's primary context. The worker has retained it once while it is active, and not at all otherwise: who retains and
/// releases it here is counted here.
pub struct Primary {
    /// Its handle: the same for the life of the process.
    pub handle: CUcontext,
    life: Mutex<Life>,
    /// Signalled when an ending is over.
    ended: Condvar,
    /// The worker has it; read without the lock.
    active: AtomicBool,
    /// Those that it is made with (cuDevicePrimaryCtxSetFlags): not what cuCtxSetFlags makes of it later.
    flags: AtomicU32,
    /// It was reset after a fault, and never comes back.
    reset_after_fault: AtomicBool,
}

#[derive(Default)]
struct Life {
    /// How often it is retained. A reset leaves the number as it is (CUDA Driver API, cuDevicePrimaryCtxReset).
    retained: u64,
    /// The thread that ends it now. Its libraries' destructors run then and call the driver, so the lock is not held; other
    /// threads wait, or the worker would end what they have just retained.
    ending: Option<ThreadId>,
}

impl Primary {
    /// The primary context of a device, inactive.
    ///
    /// # Errors
    /// CUDA_ERROR_OUT_OF_MEMORY where there are too many contexts.
    pub fn new(objects: &Objects, device: i32) -> CuResult<Self> {
        let record = ContextRecord::new(device, 0, true, CUgreenCtx::NULL);
        let handle = CUcontext(objects.contexts.insert(record)?);
        Ok(Primary {
            handle,
            life: Mutex::default(),
            ended: Condvar::new(),
            active: AtomicBool::new(false),
            flags: AtomicU32::new(0),
            reset_after_fault: AtomicBool::new(false),
        })
    }

    /// It was reset after a fault: the device has no context any more, and gets none.
    pub fn is_reset_after_fault(&self) -> bool {
        self.reset_after_fault.load(Ordering::Relaxed)
    }

    /// It is retained and was not reset since: the worker has it.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    fn set_active(&self, process: &Process, active: bool) {
        self.active.store(active, Ordering::Release);
        // Threads remember of their current context whether the worker has it.
        process.objects.contexts.changed();
    }

    /// Its life, while nobody ends it.
    ///
    /// # Errors
    /// CUDA_ERROR_CONTEXT_IS_DESTROYED in a destructor that runs because the calling thread ends it.
    fn life(&self) -> CuResult<MutexGuard<'_, Life>> {
        let mut life = lock(&self.life);
        while let Some(thread) = life.ending {
            if thread == std::thread::current().id() {
                return Err(CUresult::CONTEXT_IS_DESTROYED);
            }
            life = self.ended.wait(life).unwrap_or_else(|e| e.into_inner());
        }
        Ok(life)
    }

    /// Ends the context: its contents here, then `tell`s the worker.
    fn end(
        &self,
        process: &Process,
        mut life: MutexGuard<'_, Life>,
        tell: impl FnOnce() -> CuResult<()>,
    ) -> CuResult<()> {
        /// Lets the others in again, by a panic's unwinding, too.
        struct Ending<'a>(&'a Primary);
        impl Drop for Ending<'_> {
            fn drop(&mut self) {
                lock(&self.0.life).ending = None;
                self.0.ended.notify_all();
            }
        }
        life.ending = Some(std::thread::current().id());
        drop(life);
        let _ending = Ending(self);
        forget_contents(process, self.handle);
        self.set_active(process, false);
        // The next one is made with flags of its own.
        self.flags.store(0, Ordering::Relaxed);
        tell()
    }
}

fn primary(process: &Process, dev: CUdevice) -> CuResult<&Primary> {
    usize::try_from(dev).ok().and_then(|i| process.primaries.get(i)).ok_or(CUresult::INVALID_DEVICE)
}

/// What is known of a context.
///
/// # Errors
/// CUDA_ERROR_INVALID_CONTEXT.
pub fn record(ctx: CUcontext) -> CuResult<std::sync::Arc<ContextRecord>> {
    initialised()?.objects.contexts.get(ctx.0).ok_or(CUresult::INVALID_CONTEXT)
}

/// The handle names a context.
pub fn is_live(ctx: CUcontext) -> bool {
    initialised().is_ok_and(|p| p.objects.contexts.is_live(ctx.0))
}

/// A context's device.
///
/// # Errors
/// CUDA_ERROR_INVALID_CONTEXT.
pub fn device_of(ctx: CUcontext) -> CuResult<i32> {
    record(ctx).map(|r| r.device)
}

/// The context that what is made in this one belongs to: a green context's is its device's primary context.
pub fn owner(ctx: CUcontext) -> CUcontext {
    let owner = initialised().ok().and_then(|process| process.objects.contexts.context_of(ctx.0));
    owner.filter(|owner| *owner != 0).map_or(ctx, CUcontext)
}

/// Names the context of a green context.
///
/// # Errors
/// CUDA_ERROR_OUT_OF_MEMORY where there are too many.
pub fn new_green(
    process: &Process,
    dev: CUdevice,
    primary: CUcontext,
    green: CUgreenCtx,
) -> CuResult<CUcontext> {
    let record = ContextRecord::new(dev, 0, false, green);
    process.objects.contexts.insert_in(primary.0, record).map(CUcontext)
}

/// The context of a green context that goes, and what belongs to it alone.
pub fn forget_green(process: &Process, ctx: CUcontext) {
    forget_contents(process, ctx);
    process.objects.contexts.remove(ctx.0);
}

/// A context's number.
///
/// # Errors
/// CUDA_ERROR_INVALID_CONTEXT.
pub fn id_of(ctx: CUcontext) -> CuResult<u64> {
    record(ctx).map(|r| r.id)
}

/// The calling thread's context.
///
/// # Errors
/// CUDA_ERROR_INVALID_CONTEXT where there is none.
pub fn current() -> CuResult<CUcontext> {
    let ctx = thread::current_context();
    if ctx.is_null() { Err(CUresult::INVALID_CONTEXT) } else { Ok(ctx) }
}

/// Everything of a context goes; the worker still has the context, and destructors may use it.
fn forget_contents(process: &Process, ctx: CUcontext) {
    crate::cls::context_destroyed(ctx);
    crate::host_memory::context_destroyed(process, ctx);
    process.objects.remove_of_context(ctx.0);
    crate::freed::context_destroyed(process, ctx);
    for range in process.ranges.remove_where(|r| r.context == ctx.0 && !r.kind.is_host()) {
        process.reservations.release(range.start, range.len);
    }
    let managed = |r: &Range| r.context == ctx.0 && r.kind == RangeKind::ManagedVariable;
    for range in process.ranges.remove_where(managed) {
        // Its module has gone with the context.
        variables::end(process, variables::suspend(range.owner));
    }
    crate::library::context_destroyed(process, ctx);
}

/// Retains a device's primary context, making it where it is not active.
///
/// # Errors
/// CUDA_ERROR_INVALID_DEVICE, or why the worker does not make it.
pub fn retain(process: &Process, dev: CUdevice) -> CuResult<CUcontext> {
    let primary = primary(process, dev)?;
    let mut life = primary.life()?;
    if !primary.is_active() {
        let flags = primary.flags.load(Ordering::Relaxed);
        gate::call::<row::cuDevicePrimaryCtxRetain>((primary.handle, process.host_ordinal(dev)?, flags))?;
        record(primary.handle)?.flags.store(flags | MAP_HOST, Ordering::Relaxed);
        primary.set_active(process, true);
    }
    life.retained += 1;
    Ok(primary.handle)
}

/// cuDevicePrimaryCtxRetain.
pub unsafe fn cuDevicePrimaryCtxRetain(pctx: *mut CUcontext, dev: CUdevice) -> CUresult {
    finish((|| {
        let process = initialised()?;
        not_null(pctx)?;
        let ctx = retain(process, dev)?;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { pctx.write(ctx) };
        Ok(())
    })())
}

/// Releases a device's primary context; the last release ends it.
///
/// # Errors
/// CUDA_ERROR_INVALID_DEVICE, CUDA_ERROR_INVALID_CONTEXT where it is not retained, or the worker's.
pub fn release(process: &Process, dev: CUdevice) -> CuResult<()> {
    let primary = primary(process, dev)?;
    let mut life = primary.life()?;
    life.retained = life.retained.checked_sub(1).ok_or(CUresult::INVALID_CONTEXT)?;
    if life.retained != 0 || !primary.is_active() {
        return Ok(());
    }
    let host_device = process.host_ordinal(dev)?;
    primary
        .end(process, life, || gate::call::<row::cuDevicePrimaryCtxRelease_v2>((primary.handle, host_device)))
}

/// cuDevicePrimaryCtxRelease.
pub unsafe fn cuDevicePrimaryCtxRelease_v2(dev: CUdevice) -> CUresult {
    finish((|| release(initialised()?, dev))())
}

/// cuDevicePrimaryCtxReset: the context goes, those who have retained it still have to release it.
pub unsafe fn cuDevicePrimaryCtxReset_v2(dev: CUdevice) -> CUresult {
    finish((|| {
        let process = initialised()?;
        let primary = primary(process, dev)?;
        if process.has_faulted() {
            primary.reset_after_fault.store(true, Ordering::Relaxed);
            return Ok(());
        }
        process.alive()?;
        let life = primary.life()?;
        if !primary.is_active() {
            return Ok(());
        }
        let host_device = process.host_ordinal(dev)?;
        primary.end(process, life, || {
            gate::call::<row::cuDevicePrimaryCtxReset_v2>((primary.handle, host_device))?;
            // The worker's own count goes back to none: whoever uses the context next retains it there again.
            gate::call::<row::cuDevicePrimaryCtxRelease_v2>((primary.handle, host_device))
        })
    })())
}

/// cuDevicePrimaryCtxSetFlags.
pub unsafe fn cuDevicePrimaryCtxSetFlags_v2(dev: CUdevice, flags: u32) -> CUresult {
    finish((|| {
        check_flags(flags)?;
        let primary = primary(initialised()?, dev)?;
        primary.flags.store(flags, Ordering::Relaxed);
        record(primary.handle)?.flags.store(flags | MAP_HOST, Ordering::Relaxed);
        Ok(())
    })())
}

/// cuDevicePrimaryCtxGetState.
pub unsafe fn cuDevicePrimaryCtxGetState(dev: CUdevice, flags: *mut u32, active: *mut i32) -> CUresult {
    finish((|| {
        let primary = primary(initialised()?, dev)?;
        not_null(flags)?;
        not_null(active)?;
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe {
            flags.write(primary.flags.load(Ordering::Relaxed));
            active.write(i32::from(primary.is_active()));
        }
        Ok(())
    })())
}

fn create(pctx: *mut CUcontext, flags: u32, dev: CUdevice) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    not_null(pctx)?;
    check_flags(flags)?;
    process.device(dev)?;
    let record = ContextRecord::new(dev, flags, false, CUgreenCtx::NULL);
    let ctx = CUcontext(process.objects.contexts.insert(record)?);
    if let Err(error) = gate::call::<row::cuCtxCreate_v2>((ctx, flags, process.host_ordinal(dev)?)) {
        process.objects.contexts.remove(ctx.0);
        return Err(error);
    }
    thread::with(|t| t.contexts.push(ctx));
    // SAFETY: not NULL; room for a handle by CUDA's contract.
    unsafe { pctx.write(ctx) };
    Ok(())
}

/// cuCtxCreate_v2.
pub unsafe fn cuCtxCreate_v2(pctx: *mut CUcontext, flags: u32, dev: CUdevice) -> CUresult {
    finish(create(pctx, flags, dev))
}

/// cuCtxCreate_v3: without an execution affinity.
pub unsafe fn cuCtxCreate_v3(
    pctx: *mut CUcontext,
    _params: *mut c_void,
    count: i32,
    flags: u32,
    dev: CUdevice,
) -> CUresult {
    if count != 0 {
        crate::log::once("cuCtxCreate_v3", || "cuCtxCreate_v3: execution affinity is not supported".into());
        return CUresult::UNSUPPORTED_EXEC_AFFINITY;
    }
    finish(create(pctx, flags, dev))
}

/// cuCtxCreate_v4: without parameters.
pub unsafe fn cuCtxCreate_v4(
    pctx: *mut CUcontext,
    params: *mut c_void,
    flags: u32,
    dev: CUdevice,
) -> CUresult {
    /// CUctxCreateParams: affinity parameters, their number, CIG parameters.
    #[repr(C)]
    struct Params {
        affinity: *const c_void,
        affinity_count: i32,
        cig: *const c_void,
    }
    if !params.is_null() {
        // SAFETY: not NULL; CUDA's contract: a CUctxCreateParams.
        let params = unsafe { params.cast::<Params>().read_unaligned() };
        if params.affinity_count != 0 || !params.cig.is_null() {
            crate::log::once("cuCtxCreate_v4", || "cuCtxCreate_v4: parameters are not supported".into());
            return CUresult::NOT_SUPPORTED;
        }
    }
    finish(create(pctx, flags, dev))
}

/// Destroys a context of the program's making, and everything in it.
///
/// # Errors
/// CUDA_ERROR_INVALID_CONTEXT where it is none, or is being destroyed.
pub fn destroy(ctx: CUcontext) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    if ctx.is_null() {
        return Err(CUresult::INVALID_VALUE);
    }
    let record = record(ctx)?;
    if !record.is_plain() || record.ending.swap(true, Ordering::AcqRel) {
        return Err(CUresult::INVALID_CONTEXT);
    }
    forget_contents(process, ctx);
    thread::with(|t| {
        if t.contexts.last() == Some(&ctx) {
            t.contexts.pop();
        }
    });
    process.objects.contexts.remove(ctx.0);
    gate::call::<row::cuCtxDestroy_v2>((ctx,))
}

/// cuCtxDestroy.
pub unsafe fn cuCtxDestroy_v2(ctx: CUcontext) -> CUresult {
    finish(destroy(ctx))
}

/// cuCtxGetCurrent.
pub unsafe fn cuCtxGetCurrent(pctx: *mut CUcontext) -> CUresult {
    finish((|| {
        initialised()?;
        not_null(pctx)?;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { pctx.write(thread::current_context()) };
        Ok(())
    })())
}

/// cuCtxSetCurrent: replaces the top of the stack; NULL takes it away.
pub unsafe fn cuCtxSetCurrent(ctx: CUcontext) -> CUresult {
    finish((|| {
        let process = initialised()?;
        if !ctx.is_null() && !process.objects.contexts.is_live(ctx.0) {
            return Err(CUresult::INVALID_CONTEXT);
        }
        thread::with(|t| {
            t.contexts.pop();
            if !ctx.is_null() {
                t.contexts.push(ctx);
            }
        });
        Ok(())
    })())
}

/// cuCtxPushCurrent.
pub unsafe fn cuCtxPushCurrent_v2(ctx: CUcontext) -> CUresult {
    finish((|| {
        let process = initialised()?;
        if ctx.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        if !process.objects.contexts.is_live(ctx.0) {
            return Err(CUresult::INVALID_CONTEXT);
        }
        thread::with(|t| t.contexts.push(ctx));
        Ok(())
    })())
}

/// cuCtxPopCurrent.
pub unsafe fn cuCtxPopCurrent_v2(pctx: *mut CUcontext) -> CUresult {
    finish((|| {
        initialised()?;
        let popped = thread::with(|t| t.contexts.pop()).flatten().ok_or(CUresult::INVALID_CONTEXT)?;
        if !pctx.is_null() {
            // SAFETY: not NULL; room for a handle by CUDA's contract.
            unsafe { pctx.write(popped) };
        }
        Ok(())
    })())
}

/// cuCtxGetDevice.
pub unsafe fn cuCtxGetDevice(device: *mut CUdevice) -> CUresult {
    finish((|| {
        initialised()?;
        not_null(device)?;
        let ordinal = device_of(current()?)?;
        // SAFETY: not NULL; room for an int by CUDA's contract.
        unsafe { device.write(ordinal) };
        Ok(())
    })())
}

/// cuCtxGetDevice_v2: NULL means the current context.
pub unsafe fn cuCtxGetDevice_v2(device: *mut CUdevice, ctx: CUcontext) -> CUresult {
    finish((|| {
        initialised()?;
        not_null(device)?;
        let ordinal = device_of(if ctx.is_null() { current()? } else { ctx })?;
        // SAFETY: not NULL; room for an int by CUDA's contract.
        unsafe { device.write(ordinal) };
        Ok(())
    })())
}

/// The record that has a context's flags: a green context has its device's primary context's.
///
/// # Errors
/// CUDA_ERROR_INVALID_CONTEXT.
fn flags_of(process: &Process, ctx: CUcontext) -> CuResult<std::sync::Arc<ContextRecord>> {
    let own = record(ctx)?;
    if own.green.is_null() { Ok(own) } else { record(primary(process, own.device)?.handle) }
}

/// A context's flags from now on. Whether it maps host memory is settled when it is made.
///
/// # Errors
/// CUDA_ERROR_INVALID_CONTEXT.
pub fn set_flags(process: &Process, ctx: CUcontext, flags: u32) -> CuResult<()> {
    let record = flags_of(process, ctx)?;
    let kept = record.flags.load(Ordering::Relaxed) & MAP_HOST;
    record.flags.store(flags & !MAP_HOST | kept, Ordering::Relaxed);
    Ok(())
}

/// cuCtxGetFlags.
pub unsafe fn cuCtxGetFlags(flags: *mut u32) -> CUresult {
    finish((|| {
        let process = initialised()?;
        not_null(flags)?;
        let value = flags_of(process, current()?)?.flags.load(Ordering::Relaxed);
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { flags.write(value) };
        Ok(())
    })())
}

/// cuCtxGetId: NULL means the current context.
pub unsafe fn cuCtxGetId(ctx: CUcontext, id: *mut u64) -> CUresult {
    finish((|| {
        initialised()?;
        not_null(id)?;
        let value = id_of(if ctx.is_null() { current()? } else { ctx })?;
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { id.write(value) };
        Ok(())
    })())
}

/// cuCtxGetApiVersion: NULL means the current context.
pub unsafe fn cuCtxGetApiVersion(ctx: CUcontext, version: *mut u32) -> CUresult {
    finish((|| {
        initialised()?;
        not_null(version)?;
        record(if ctx.is_null() { current()? } else { ctx })?;
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { version.write(API_VERSION) };
        Ok(())
    })())
}

/// cuCtxGetStreamPriorityRange.
pub unsafe fn cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) -> CUresult {
    finish((|| {
        let process = initialised()?;
        current()?;
        let (low, high) = process.info.stream_priorities;
        for (to, value) in [(least, low), (greatest, high)] {
            if !to.is_null() {
                // SAFETY: not NULL; room for an int by CUDA's contract.
                unsafe { to.write(value) };
            }
        }
        Ok(())
    })())
}

/// cuCtxSynchronize.
pub unsafe fn cuCtxSynchronize() -> CUresult {
    finish((|| synchronize(current_initialised()?))())
}

fn current_initialised() -> CuResult<CUcontext> {
    initialised()?;
    current()
}

/// What of the context's work this thread posted in vain comes out here.
fn synchronize(ctx: CUcontext) -> CuResult<()> {
    gate::with_ring(|process, lane| {
        process.alive()?;
        lane.wait_for_context(ctx)
    })
}

/// cuCtxSynchronize_v2: NULL means the current context.
pub unsafe fn cuCtxSynchronize_v2(ctx: CUcontext) -> CUresult {
    finish((|| {
        let ctx = if ctx.is_null() { current_initialised()? } else { ctx };
        record(ctx)?;
        synchronize(ctx)
    })())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_waits_in_one_way() {
        for flags in [0, 1, 2, 4, 8, 0x10, 0x80, 0x9c] {
            assert_eq!(check_flags(flags), Ok(()), "{flags:#x}");
        }
        for flags in [3, 5, 6, 7, 0x83, 0x100] {
            assert_eq!(check_flags(flags), Err(CUresult::INVALID_VALUE), "{flags:#x}");
        }
    }
}
