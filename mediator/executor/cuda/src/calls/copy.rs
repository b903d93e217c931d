//! Copies and fills.
//!
//! The guest's bytes come in the frame (a private copy, pageable for the driver, which takes them before it returns: "API
//! synchronization behavior" of the CUDA Driver API) or lie in staging. Staging is registered, so its copies are DMA; the buffer is the
//! guest's again when they have been waited for, which is when the next ones are under way ([`crate::flights`]). Neither can be part of a
//! capture, whose replays would read memory that is long gone.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cuda_api::CuResult;
use cuda_api::calls::copy::Host;
use cuda_api::types::*;
use cuda_api::wire::{Bulk, Fill, Filled};

use crate::Cuda;
use crate::calls::memory::host_address;
use crate::context::Context;
use crate::driver::Raw;
use crate::thread::{STREAM_LEGACY, Thread};

/// CU_STREAM_CAPTURE_STATUS_NONE.
const CAPTURE_NONE: u32 = 0;

/// Where the guest's bytes lie: valid until the call returns. Whether it is staging.
pub(crate) fn source(
    cuda: &Cuda,
    thread: &mut Thread,
    bytes: &Bulk<'_>,
    len: u64,
) -> CuResult<(*const c_void, bool)> {
    if bytes.len() != len {
        return Err(CUresult::INVALID_VALUE);
    }
    match bytes {
        Bulk::Inline(bytes) => Ok((bytes.as_ptr().cast(), false)),
        Bulk::Staged { offset, len } => {
            cuda.count_staged(*len);
            Ok((thread.staging(*offset, *len)?.cast_const().cast(), true))
        }
    }
}

/// Where bytes for the guest go: the reply, or staging. Valid until the call returns.
pub(crate) fn place(
    cuda: &Cuda,
    thread: &mut Thread,
    reply: &mut Vec<u8>,
    to: Fill,
    len: u64,
) -> CuResult<(*mut c_void, bool)> {
    if to.len() != len {
        return Err(CUresult::INVALID_VALUE);
    }
    match to {
        Fill::Inline { len } => {
            reply.resize(usize::try_from(len).map_err(|_| CUresult::INVALID_VALUE)?, 0);
            Ok((reply.as_mut_ptr().cast(), false))
        }
        Fill::Staged { offset, len } => {
            cuda.count_staged(len);
            Ok((thread.staging(offset, len)?.cast(), true))
        }
    }
}

/// What a copy to memory of [`Thread::bounce`] has brought, if it was carried out.
fn taken_out(thread: &mut Thread, bounce: *mut u8, len: usize, copied: CuResult<()>) -> CuResult<Filled> {
    thread.over();
    copied?;
    // SAFETY: `len` bytes of the thread's own, which the device has written and nobody writes any more.
    Ok(unsafe { std::slice::from_raw_parts(bounce.cast_const(), len) }.to_vec())
}

impl Cuda {
    /// A copy without a stream may be made as one in the legacy default stream that is waited for later. What it answers during a capture,
    /// in streams that wait for the default one, is the driver's own affair; and with several devices it is in turn with all of them.
    fn may_be_unsettled(&self) -> bool {
        self.has_one_device() && self.captures.load(Ordering::Relaxed) == 0
    }

    /// Begins a copy of a frame's bytes in the legacy default stream: to the guest it is over when it was issued, and the worker sees to
    /// it that nothing but more of the kind comes before it really is ([`cuda_api::host::Executor::is_unsettled`]). Waiting for each by
    /// itself takes three times as long. False: it has to be made the ordinary way.
    fn copy_in_unsettled(&self, thread: &mut Thread, dst: CUdeviceptr, bytes: &[u8]) -> CuResult<bool> {
        let Some(bounce) = thread.bounce(bytes.len())? else { return Ok(false) };
        // SAFETY: room for all of them that is this copy's until it was waited for; the destination is this session's (checked).
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), bounce, bytes.len());
            self.driver.cuMemcpyHtoDAsync_v2(dst, bounce.cast_const().cast(), bytes.len(), STREAM_LEGACY)
        }?;
        thread.begun();
        Ok(true)
    }

    /// The address lies in registered host memory.
    fn registered(&self, address: u64) -> CuResult<()> {
        if self.memory.is_host(address) { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
    }

    /// A context of a copy between contexts. NULL is the driver's to judge, and driver 580 takes it.
    fn peer(&self, handle: CUcontext) -> CuResult<Option<Arc<Context>>> {
        if handle.is_null() { Ok(None) } else { self.context_by(handle).map(Some) }
    }

    /// The stream is not being captured.
    pub(crate) fn not_capturing(&self, stream: Raw) -> CuResult<()> {
        match self.driver.cuStreamIsCapturing(stream)? {
            (CAPTURE_NONE,) => Ok(()),
            _ => {
                self.warn_once("a copy from or to unregistered memory cannot be captured");
                Err(CUresult::STREAM_CAPTURE_UNSUPPORTED)
            }
        }
    }
}

/// A context as the driver knows it.
fn raw(context: &Option<Arc<Context>>) -> Raw {
    context.as_ref().map_or(0, |context| context.raw)
}

macro_rules! fills {
    ($($name:ident($($arg:ident: $ty:ty),*);)+) => { $(
        fn $name(&self, _: &mut Thread, to: CUdeviceptr, $($arg: $ty),*) -> CuResult<()> {
            // SAFETY: the whole destination is memory of this session's (the dispatch has checked it).
            unsafe { self.driver.$name(to, $($arg),*) }
        }
    )+ };
}

macro_rules! fills_in_a_stream {
    ($($name:ident($($arg:ident: $ty:ty),*);)+) => { $(
        fn $name(&self, _: &mut Thread, to: CUdeviceptr, $($arg: $ty,)* stream: CUstream) -> CuResult<()> {
            let stream = self.stream(stream)?;
            // SAFETY: the whole destination is memory of this session's (the dispatch has checked it).
            unsafe { self.driver.$name(to, $($arg,)* stream.raw) }
        }
    )+ };
}

impl Host for Cuda {
    fn cuMemcpyHtoD_v2(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        len: usize,
        bytes: Bulk<'_>,
    ) -> CuResult<()> {
        let (from, staged) = source(self, thread, &bytes, len as u64)?;
        if self.may_be_unsettled() {
            if let Bulk::Inline(bytes) = bytes
                && self.copy_in_unsettled(thread, dst, bytes)?
            {
                return Ok(());
            }
            if staged {
                // SAFETY: `len` bytes in staging, which stays mapped and is the guest's again when the transfer is over. The
                // destination is this session's (checked).
                unsafe { self.driver.cuMemcpyHtoDAsync_v2(dst, from, len, STREAM_LEGACY) }?;
                return thread.transferring(STREAM_LEGACY);
            }
        }
        // SAFETY: `len` bytes that stay while the call runs; the destination is this session's (checked).
        unsafe { self.driver.cuMemcpyHtoD_v2(dst, from, len) }
    }

    fn cuMemcpyDtoH_v2(
        &self,
        thread: &mut Thread,
        src: CUdeviceptr,
        len: usize,
        to: Fill,
    ) -> CuResult<Filled> {
        if let Fill::Inline { len: room } = to
            && room == len as u64
            && let Some(bounce) = thread.bounce(len)?
        {
            // SAFETY: room for `len` bytes that is this copy's; the source is this session's (checked).
            let copied = unsafe { self.driver.cuMemcpyDtoH_v2(bounce.cast(), src, len) };
            return taken_out(thread, bounce, len, copied);
        }
        let mut reply = Vec::new();
        let (to, staged) = place(self, thread, &mut reply, to, len as u64)?;
        if staged && self.may_be_unsettled() {
            // SAFETY: room for `len` bytes in staging, which stays mapped and is the guest's again when the transfer is over. The
            // source is this session's (checked).
            unsafe { self.driver.cuMemcpyDtoHAsync_v2(to, src, len, STREAM_LEGACY) }?;
            thread.transferring(STREAM_LEGACY)?;
            return Ok(reply);
        }
        // SAFETY: room for `len` bytes that stays while the call runs; the source is this session's (checked).
        unsafe { self.driver.cuMemcpyDtoH_v2(to, src, len) }?;
        Ok(reply)
    }

    fn cuMemcpyDtoD_v2(
        &self,
        _: &mut Thread,
        dst: CUdeviceptr,
        src: CUdeviceptr,
        len: usize,
    ) -> CuResult<()> {
        if self.memory.is_host(dst) || self.memory.is_host(src) {
            // SAFETY: both ends are this session's (checked); registered memory is mapped here.
            return unsafe { self.driver.cuMemcpyAsync(dst, src, len, 0) };
        }
        // SAFETY: as above.
        unsafe { self.driver.cuMemcpyDtoD_v2(dst, src, len) }
    }

    fn cuMemcpyHtoDAsync_v2(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        len: usize,
        bytes: Bulk<'_>,
        stream: CUstream,
    ) -> CuResult<()> {
        let stream = self.stream(stream)?;
        let (from, staged) = source(self, thread, &bytes, len as u64)?;
        self.not_capturing(stream.raw)?;
        // SAFETY: `len` bytes: in the frame, which the driver has taken when it returns, or in staging, which stays mapped
        // and is the guest's again when the transfer is over. The destination is this session's (checked).
        unsafe { self.driver.cuMemcpyHtoDAsync_v2(dst, from, len, stream.raw) }?;
        if staged { thread.transferring(stream.raw) } else { Ok(()) }
    }

    fn cuMemcpyDtoHAsync_v2(
        &self,
        thread: &mut Thread,
        src: CUdeviceptr,
        len: usize,
        to: Fill,
        stream: CUstream,
    ) -> CuResult<Filled> {
        let stream = self.stream(stream)?;
        self.not_capturing(stream.raw)?;
        if let Fill::Inline { len: room } = to
            && room == len as u64
            && let Some(bounce) = thread.bounce(len)?
        {
            // SAFETY: room for `len` bytes that is this copy's until it was waited for; the source is this session's (checked).
            let copied = unsafe { self.driver.cuMemcpyDtoHAsync_v2(bounce.cast(), src, len, stream.raw) };
            let copied = copied.and_then(|()| self.driver.cuStreamSynchronize(stream.raw).map(|_| ()));
            return taken_out(thread, bounce, len, copied);
        }
        let mut reply = Vec::new();
        let (to, staged) = place(self, thread, &mut reply, to, len as u64)?;
        // SAFETY: room for `len` bytes: pageable, which the driver has written when it returns, or in staging, which stays
        // mapped and is the guest's again when the transfer is over. The source is this session's (checked).
        unsafe { self.driver.cuMemcpyDtoHAsync_v2(to, src, len, stream.raw) }?;
        if staged {
            thread.transferring(stream.raw)?;
        }
        Ok(reply)
    }

    fn cuMemcpyDtoDAsync_v2(
        &self,
        _: &mut Thread,
        dst: CUdeviceptr,
        src: CUdeviceptr,
        len: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        let stream = self.stream(stream)?;
        // The general copy: either end may be registered host memory.
        // SAFETY: both ends are this session's (the dispatch has checked them).
        unsafe { self.driver.cuMemcpyAsync(dst, src, len, stream.raw) }
    }

    fn vgpuCopyIn(
        &self,
        thread: &mut Thread,
        shape: &CopyShape,
        bytes: Bulk<'_>,
        stream: CUstream,
    ) -> CuResult<()> {
        self.shape_in(thread, shape, &bytes, stream)
    }

    fn vgpuCopyOut(
        &self,
        thread: &mut Thread,
        shape: &CopyShape,
        to: Fill,
        stream: CUstream,
    ) -> CuResult<Filled> {
        self.shape_out(thread, shape, to, stream)
    }

    fn vgpuCopyBetween(&self, _: &mut Thread, shape: &CopyShape, stream: CUstream) -> CuResult<()> {
        self.shape_between(shape, stream)
    }

    fn vgpuCopyBatch(
        &self,
        _: &mut Thread,
        copies: &[BatchCopy],
        _: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        self.batch(copies, stream)
    }

    fn cuMemcpyPeer(
        &self,
        _: &mut Thread,
        dst: CUdeviceptr,
        dst_context: CUcontext,
        src: CUdeviceptr,
        src_context: CUcontext,
        len: usize,
    ) -> CuResult<()> {
        let (to, from) = (self.peer(dst_context)?, self.peer(src_context)?);
        // SAFETY: both ends are this session's (the dispatch has checked them).
        unsafe { self.driver.cuMemcpyPeer(dst, raw(&to), src, raw(&from), len) }
    }

    fn cuMemcpyPeerAsync(
        &self,
        _: &mut Thread,
        dst: CUdeviceptr,
        dst_context: CUcontext,
        src: CUdeviceptr,
        src_context: CUcontext,
        len: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        let stream = self.stream(stream)?;
        let (to, from) = (self.peer(dst_context)?, self.peer(src_context)?);
        // SAFETY: both ends are this session's (the dispatch has checked them).
        unsafe { self.driver.cuMemcpyPeerAsync(dst, raw(&to), src, raw(&from), len, stream.raw) }
    }

    fn vgpuArrayIn(
        &self,
        thread: &mut Thread,
        array: CUarray,
        offset: usize,
        bytes: Bulk<'_>,
        stream: CUstream,
    ) -> CuResult<()> {
        let (array, stream) = (self.array(array)?, self.stream(stream)?);
        let len = usize::try_from(bytes.len()).map_err(|_| CUresult::INVALID_VALUE)?;
        let (from, staged) = source(self, thread, &bytes, bytes.len())?;
        self.not_capturing(stream.raw)?;
        // SAFETY: `len` bytes: in the frame, which the driver has taken when it returns, or in staging, which stays mapped
        // and is waited for below.
        unsafe { self.driver.cuMemcpyHtoAAsync_v2(array.raw, offset, from, len, stream.raw) }?;
        if staged { self.driver.cuStreamSynchronize(stream.raw) } else { Ok(()) }
    }

    fn vgpuArrayOut(
        &self,
        thread: &mut Thread,
        array: CUarray,
        offset: usize,
        to: Fill,
        stream: CUstream,
    ) -> CuResult<Filled> {
        let (array, stream) = (self.array(array)?, self.stream(stream)?);
        let len = usize::try_from(to.len()).map_err(|_| CUresult::INVALID_VALUE)?;
        let mut reply = Vec::new();
        let (to, staged) = place(self, thread, &mut reply, to, to.len())?;
        self.not_capturing(stream.raw)?;
        // SAFETY: room for `len` bytes: pageable, which the driver has written when it returns, or in staging, which stays
        // mapped and is waited for below.
        unsafe { self.driver.cuMemcpyAtoHAsync_v2(to, array.raw, offset, len, stream.raw) }?;
        if staged {
            self.driver.cuStreamSynchronize(stream.raw)?;
        }
        Ok(reply)
    }

    fn vgpuArrayFromHost(
        &self,
        _: &mut Thread,
        array: CUarray,
        offset: usize,
        src: CUdeviceptr,
        len: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        let (array, stream) = (self.array(array)?, self.registered(src).and(self.stream(stream))?);
        let from = host_address(src).cast_const();
        // SAFETY: registered memory of this session's for all of its length (the dispatch has checked it).
        unsafe { self.driver.cuMemcpyHtoAAsync_v2(array.raw, offset, from, len, stream.raw) }
    }

    fn vgpuArrayToHost(
        &self,
        _: &mut Thread,
        dst: CUdeviceptr,
        array: CUarray,
        offset: usize,
        len: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        let (array, stream) = (self.array(array)?, self.registered(dst).and(self.stream(stream))?);
        // SAFETY: registered memory of this session's for all of its length (the dispatch has checked it).
        unsafe { self.driver.cuMemcpyAtoHAsync_v2(host_address(dst), array.raw, offset, len, stream.raw) }
    }

    fills! {
        cuMemsetD8_v2(value: u8, count: usize);
        cuMemsetD16_v2(value: u16, count: usize);
        cuMemsetD32_v2(value: u32, count: usize);
        cuMemsetD2D8_v2(pitch: usize, value: u8, width: usize, height: usize);
        cuMemsetD2D16_v2(pitch: usize, value: u16, width: usize, height: usize);
        cuMemsetD2D32_v2(pitch: usize, value: u32, width: usize, height: usize);
    }

    fills_in_a_stream! {
        cuMemsetD8Async(value: u8, count: usize);
        cuMemsetD16Async(value: u16, count: usize);
        cuMemsetD32Async(value: u32, count: usize);
        cuMemsetD2D8Async(pitch: usize, value: u8, width: usize, height: usize);
        cuMemsetD2D16Async(pitch: usize, value: u16, width: usize, height: usize);
        cuMemsetD2D32Async(pitch: usize, value: u32, width: usize, height: usize);
    }
}
