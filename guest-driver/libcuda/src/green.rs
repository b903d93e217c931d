//! Green contexts: contexts that have some of a device's multiprocessors. What they are made from is the driver's own record of
//! resources, which stays in the worker; a program's CUdevResource has the worker's name for it, where the driver has its private
//! part, and the public fields as the driver gave them.
//!
//! A green context is used as a context of its own (cuCtxFromGreenCtx), but it shares what its device's primary context has: memory,
//! modules and events made in it belong to that one ([`crate::context::owner`]), its streams to itself.

use std::ffi::c_void;

use cuda_api::calls::context::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{
    CUcontext, CUdevResourceDesc, CUdevice, CUgreenCtx, CUstream, DeviceResource, Handle as _,
    STREAM_PER_THREAD,
};
use cuda_api::{CUresult, CuResult};

use crate::context;
use crate::gate;
use crate::process::{Process, initialised};

/// CU_DEV_RESOURCE_TYPE_SM.
const TYPE_SM: u32 = 1;
/// CU_GREEN_CTX_DEFAULT_STREAM, which must be set.
const CREATE_DEFAULT_STREAM: u32 = 1;
/// CU_STREAM_NON_BLOCKING, which must be set.
const NON_BLOCKING: u32 = 1;
/// Groups or resources of one call.
const RESOURCES_MAX: u32 = 1024;

/// CUdevResource: a type, 92 private bytes, and the type's public fields in a union of 48 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct Resource {
    kind: u32,
    mark: u32,
    name: u64,
    private: [u64; 10],
    multiprocessors: u32,
    min_partition: u32,
    alignment: u32,
    rest: [u32; 9],
}
const _: () = assert!(size_of::<Resource>() == 144);

/// What tells a resource that this library gave out from one that the program made up.
const MARK: u32 = 0x5644_5247;

impl Resource {
    fn of(found: &DeviceResource) -> Self {
        Resource {
            kind: found.kind,
            mark: if found.name == 0 { 0 } else { MARK },
            name: found.name,
            private: [0; 10],
            multiprocessors: found.multiprocessors,
            min_partition: found.min_partition,
            alignment: found.alignment,
            rest: [0; 9],
        }
    }

    fn name(&self) -> CuResult<u64> {
        if self.kind != TYPE_SM {
            return Err(CUresult::INVALID_RESOURCE_TYPE);
        }
        if self.mark == MARK { Ok(self.name) } else { Err(CUresult::INVALID_VALUE) }
    }
}

/// What is known of a green context.
pub struct GreenRecord {
    /// The context that it can be used as.
    pub context: CUcontext,
    /// Its device.
    pub device: CUdevice,
}

/// Writes a resource where the caller wants it.
fn tell(to: *mut c_void, ask: impl FnOnce() -> CuResult<DeviceResource>) -> CUresult {
    finish((|| {
        not_null(to)?;
        let found = Resource::of(&ask()?);
        // SAFETY: not NULL; a CUdevResource by CUDA's contract.
        unsafe { to.cast::<Resource>().write_unaligned(found) };
        Ok(())
    })())
}

/// cuDeviceGetDevResource.
pub unsafe fn cuDeviceGetDevResource(dev: CUdevice, to: *mut c_void, kind: u32) -> CUresult {
    tell(to, || gate::call::<row::cuDeviceGetDevResource>((initialised()?.host_ordinal(dev)?, kind)))
}

/// cuCtxGetDevResource.
pub unsafe fn cuCtxGetDevResource(ctx: CUcontext, to: *mut c_void, kind: u32) -> CUresult {
    tell(to, || {
        initialised()?.objects.check(ctx)?;
        gate::call::<row::cuCtxGetDevResource>((ctx, kind))
    })
}

/// cuGreenCtxGetDevResource.
pub unsafe fn cuGreenCtxGetDevResource(green: CUgreenCtx, to: *mut c_void, kind: u32) -> CUresult {
    tell(to, || {
        initialised()?.objects.check(green)?;
        gate::call::<row::cuGreenCtxGetDevResource>((green, kind))
    })
}

/// cuDevSmResourceSplitByCount.
pub unsafe fn cuDevSmResourceSplitByCount(
    result: *mut c_void,
    groups: *mut u32,
    input: *const c_void,
    remaining: *mut c_void,
    flags: u32,
    min_count: u32,
) -> CUresult {
    finish((|| {
        initialised()?;
        not_null(groups)?;
        not_null(input.cast_mut())?;
        // SAFETY: not NULL; a CUdevResource by CUDA's contract.
        let name = unsafe { input.cast::<Resource>().read_unaligned() }.name()?;
        let count_only = result.is_null();
        // SAFETY: not NULL; an unsigned int by CUDA's contract. Without a result it is written only.
        let room = if count_only { 0 } else { unsafe { groups.read() } };
        let (count, made, rest) = gate::call::<row::cuDevSmResourceSplitByCount>((
            name,
            room.min(RESOURCES_MAX),
            count_only,
            flags,
            min_count,
        ))?;
        if !count_only && (made.len() as u64 > u64::from(room) || made.len() as u64 != u64::from(count)) {
            return Err(CUresult::UNKNOWN);
        }
        // SAFETY: room for as many resources as the caller said (checked), for one more, and for the count, by CUDA's contract.
        unsafe {
            if !count_only {
                for (i, found) in made.iter().enumerate() {
                    result.cast::<Resource>().add(i).write_unaligned(Resource::of(found));
                }
            }
            if !remaining.is_null() {
                remaining.cast::<Resource>().write_unaligned(Resource::of(&rest));
            }
            groups.write(count);
        }
        Ok(())
    })())
}

/// cuDevResourceGenerateDesc.
pub unsafe fn cuDevResourceGenerateDesc(
    to: *mut CUdevResourceDesc,
    resources: *mut c_void,
    count: u32,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        not_null(resources)?;
        if count == 0 || count > RESOURCES_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        let mut names = Vec::new();
        for i in 0..count as usize {
            // SAFETY: i < count, and `count` resources by CUDA's contract.
            let resource = unsafe { resources.cast::<Resource>().add(i).read_unaligned() };
            names.extend(resource.name()?.to_le_bytes());
        }
        let desc: CUdevResourceDesc = process.objects.insert_plain(0)?;
        gate::call::<row::cuDevResourceGenerateDesc>((desc, &names))
            .inspect_err(|_| process.objects.remove_plain(desc))?;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(desc) };
        Ok(())
    })())
}

fn record(process: &Process, green: CUgreenCtx) -> CuResult<std::sync::Arc<GreenRecord>> {
    process.objects.greens.get(green.0).ok_or(CUgreenCtx::INVALID)
}

/// cuGreenCtxCreate. It holds its device's primary context, as CUDA says.
pub unsafe fn cuGreenCtxCreate(
    to: *mut CUgreenCtx,
    desc: CUdevResourceDesc,
    dev: CUdevice,
    flags: u32,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        if flags != CREATE_DEFAULT_STREAM {
            return Err(CUresult::INVALID_VALUE);
        }
        process.objects.check(desc)?;
        let host_device = process.host_ordinal(dev)?;
        let primary = context::retain(process, dev)?;
        let made = (|| {
            let green = CUgreenCtx(process.objects.greens.reserve()?);
            let ctx = context::new_green(process, dev, primary, green)?;
            gate::call::<row::cuGreenCtxCreate>((green, ctx, primary, desc, host_device, flags))
                .inspect_err(|_| {
                    process.objects.contexts.remove(ctx.0);
                    process.objects.greens.remove(green.0);
                })?;
            process.objects.greens.fill(green.0, GreenRecord { context: ctx, device: dev });
            Ok(green)
        })();
        if made.is_err() {
            // Nothing else was made; what giving the primary context back answers is no news beside why.
            let _ = context::release(process, dev);
        }
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(made?) };
        Ok(())
    })())
}

/// cuGreenCtxDestroy.
pub unsafe fn cuGreenCtxDestroy(green: CUgreenCtx) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        let gone = process.objects.greens.remove(green.0).ok_or(CUgreenCtx::INVALID)?;
        context::forget_green(process, gone.context);
        gate::call::<row::cuGreenCtxDestroy>((green,))?;
        context::release(process, gone.device)
    })())
}

/// cuCtxFromGreenCtx.
pub unsafe fn cuCtxFromGreenCtx(to: *mut CUcontext, green: CUgreenCtx) -> CUresult {
    finish((|| {
        let process = initialised()?;
        not_null(to)?;
        let ctx = record(process, green)?.context;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(ctx) };
        Ok(())
    })())
}

/// cuGreenCtxGetId.
pub unsafe fn cuGreenCtxGetId(green: CUgreenCtx, to: *mut u64) -> CUresult {
    finish((|| {
        let process = initialised()?;
        not_null(to)?;
        let id = context::id_of(record(process, green)?.context)?;
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { to.write(id) };
        Ok(())
    })())
}

/// cuGreenCtxStreamCreate.
pub unsafe fn cuGreenCtxStreamCreate(
    to: *mut CUstream,
    green: CUgreenCtx,
    flags: u32,
    priority: i32,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        let ctx = record(process, green)?.context;
        if flags != NON_BLOCKING {
            return Err(CUresult::INVALID_VALUE);
        }
        let (stream, priority) = crate::stream::new(process, ctx.0, flags, priority)?;
        gate::call::<row::cuGreenCtxStreamCreate>((stream, green, flags, priority)).inspect_err(|_| {
            process.objects.streams.remove(stream.0);
        })?;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(stream) };
        Ok(())
    })())
}

/// A stream's context, and its green context or NULL.
fn of_stream(stream: CUstream) -> CuResult<(CUcontext, CUgreenCtx)> {
    let ctx = CUcontext(crate::stream::facts(stream)?.context);
    let green = context::record(ctx)?.green;
    Ok((context::owner(ctx), green))
}

/// cuStreamGetCtx_v2: the primary context of a stream in a green one.
pub unsafe fn cuStreamGetCtx_v2(stream: CUstream, to: *mut CUcontext, to_green: *mut CUgreenCtx) -> CUresult {
    finish((|| {
        not_null(to)?;
        not_null(to_green)?;
        let (ctx, green) = of_stream(stream)?;
        if stream == STREAM_PER_THREAD && !green.is_null() {
            return Err(CUresult::INVALID_HANDLE);
        }
        // SAFETY: not NULL; room for a handle each by CUDA's contract.
        unsafe {
            to.write(ctx);
            to_green.write(green);
        }
        Ok(())
    })())
}

/// cuStreamGetGreenCtx.
pub unsafe fn cuStreamGetGreenCtx(stream: CUstream, to: *mut CUgreenCtx) -> CUresult {
    finish((|| {
        not_null(to)?;
        let (_, green) = of_stream(stream)?;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(green) };
        Ok(())
    })())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resources_that_were_given_out_have_names() {
        let found =
            DeviceResource { name: 7, kind: TYPE_SM, multiprocessors: 64, min_partition: 8, alignment: 8 };
        let resource = Resource::of(&found);
        assert_eq!(resource.name(), Ok(7));
        assert_eq!(std::mem::offset_of!(Resource, multiprocessors), 96);
        assert_eq!(Resource { kind: 0, ..resource }.name(), Err(CUresult::INVALID_RESOURCE_TYPE));
        assert_eq!(Resource { mark: 0, ..resource }.name(), Err(CUresult::INVALID_VALUE));
    }
}
