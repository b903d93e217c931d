//! Streams and stream memory operations.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::stream::Host;
use cuda_api::host::{Access, Base};
use cuda_api::types::*;

use crate::Cuda;
use crate::driver::{AttributeValue, BatchOperation};
use crate::objects::{Stream, Uses};
use crate::thread::Thread;

/// CU_STREAM_NON_BLOCKING.
const NON_BLOCKING: u32 = 1;

/// Operations of one call at most (CUDA Driver API, cuStreamBatchMemOp).
const BATCH_MAX: usize = 256;

/// What an attribute of a stream holds.
enum AttributeKind {
    /// Numbers, so many bytes of them.
    Numbers(usize),
    /// An address, a length and numbers (CUaccessPolicyWindow).
    Window,
}

fn attribute_kind(attribute: u32) -> CuResult<AttributeKind> {
    match attribute {
        1 => Ok(AttributeKind::Window),
        // Synchronisation policy, priority, memory synchronisation domain, NVLink-centric scheduling.
        3 | 8 | 10 | 16 => Ok(AttributeKind::Numbers(4)),
        // The map of those domains.
        9 => Ok(AttributeKind::Numbers(2)),
        _ => Err(CUresult::INVALID_VALUE),
    }
}

fn value_bytes(value: &AttributeValue, count: usize) -> Vec<u8> {
    value.iter().flat_map(|word| word.to_ne_bytes()).take(count).collect()
}

macro_rules! word_operations {
    ($($name:ident: $word:ty;)+) => { $(
        fn $name(
            &self,
            _: &mut Thread,
            stream: CUstream,
            address: CUdeviceptr,
            value: $word,
            flags: u32,
        ) -> CuResult<()> {
            let stream = self.stream(stream)?;
            // SAFETY: the word lies in memory of this session's (the dispatch has checked it).
            unsafe { self.driver.$name(stream.raw, address, value, flags) }
        }
    )+ };
}

/// Bytes of a CUaccessPolicyWindow.
const WINDOW_BYTES: usize = 32;

impl Cuda {
    /// The operations of a batch as the driver takes them, each with its word checked.
    fn stream_batch(&self, operations: &[u8]) -> CuResult<Vec<BatchOperation>> {
        let (words, rest) = operations.as_chunks::<8>();
        let (operations, odd) = words.as_chunks::<4>();
        if !rest.is_empty() || !odd.is_empty() || operations.len() > BATCH_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        operations
            .iter()
            .map(|words| {
                let [kind, address, value, flags] = words.map(u64::from_le_bytes);
                let flags = u32::try_from(flags).map(u64::from).map_err(|_| CUresult::INVALID_VALUE)?;
                let (len, access) = match kind {
                    1 => (4, Access::Read),
                    2 => (4, Access::Write),
                    4 => (8, Access::Read),
                    5 => (8, Access::Write),
                    // Flushing remote writes and barriers have no word, and their flags behind the kind.
                    3 | 6 => return Ok([kind | flags.wrapping_shl(32), 0, 0, 0, 0, 0]),
                    _ => return Err(CUresult::INVALID_VALUE),
                };
                self.check_range(address, len, access)?;
                Ok([kind, address, value, flags, 0, 0])
            })
            .collect()
    }
}

impl Host for Cuda {
    fn cuStreamCreate(
        &self,
        thread: &mut Thread,
        stream: CUstream,
        flags: u32,
        priority: i32,
    ) -> CuResult<()> {
        let context = thread.context()?.clone();
        self.streams.check_free(stream)?;
        let (raw,) = self.driver.cuStreamCreateWithPriority(flags, priority)?;
        self.streams.add(
            stream,
            Arc::new(Stream { raw, context, non_blocking: flags & NON_BLOCKING != 0, uses: Uses::default() }),
        )
    }

    fn cuStreamDestroy_v2(&self, _: &mut Thread, stream: CUstream) -> CuResult<()> {
        self.streams.remove(stream).map(drop)
    }

    fn cuStreamSynchronize(&self, _: &mut Thread, stream: CUstream) -> CuResult<()> {
        self.driver.cuStreamSynchronize(self.stream(stream)?.raw)
    }

    fn cuStreamQuery(&self, _: &mut Thread, stream: CUstream) -> CuResult<()> {
        if self.is_told_done(stream) {
            return Ok(());
        }
        self.driver.cuStreamQuery(self.stream(stream)?.raw)
    }

    fn cuStreamWaitEvent(
        &self,
        _: &mut Thread,
        stream: CUstream,
        event: CUevent,
        flags: u32,
    ) -> CuResult<()> {
        let (stream, event) = (self.stream(stream)?, self.event(event)?);
        self.driver.cuStreamWaitEvent(stream.raw, event.raw, flags)
    }

    fn cuStreamGetAttribute(&self, _: &mut Thread, stream: CUstream, attribute: u32) -> CuResult<Vec<u8>> {
        let kind = attribute_kind(attribute)?;
        let stream = self.stream(stream)?;
        let mut value: AttributeValue = [0; 8];
        // SAFETY: a local of the size of the largest value.
        unsafe { self.driver.cuStreamGetAttribute(stream.raw, attribute, &raw mut value) }?;
        Ok(match kind {
            AttributeKind::Numbers(count) => value_bytes(&value, count),
            // The window's address is one of the guest's, or 0: nobody else sets it.
            AttributeKind::Window => value_bytes(&value, WINDOW_BYTES),
        })
    }

    fn cuStreamSetAttribute(
        &self,
        _: &mut Thread,
        stream: CUstream,
        attribute: u32,
        bytes: &[u8],
    ) -> CuResult<()> {
        let kind = attribute_kind(attribute)?;
        let stream = self.stream(stream)?;
        let mut value: AttributeValue = [0; 8];
        let expected = match kind {
            AttributeKind::Numbers(count) => count,
            AttributeKind::Window => WINDOW_BYTES,
        };
        if bytes.len() != expected {
            return Err(CUresult::INVALID_VALUE);
        }
        for (to, from) in value.iter_mut().zip(bytes.chunks(8)) {
            let mut word = [0u8; 8];
            word.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            *to = u64::from_ne_bytes(word);
        }
        if let (AttributeKind::Window, [address, len, ..]) = (kind, &mut value) {
            match *len {
                // No window: its address says nothing.
                0 => *address = 0,
                len => self.check_range(*address, len, Access::Read)?,
            }
        }
        // SAFETY: a local of the size of the largest value; an address in it is the start of a range of this session's.
        unsafe { self.driver.cuStreamSetAttribute(stream.raw, attribute, &raw const value) }
    }

    fn cuStreamCopyAttributes(&self, _: &mut Thread, to: CUstream, from: CUstream) -> CuResult<()> {
        let (to, from) = (self.stream(to)?, self.stream(from)?);
        self.driver.cuStreamCopyAttributes(to.raw, from.raw)
    }

    fn cuStreamBatchMemOp_v2(
        &self,
        _: &mut Thread,
        stream: CUstream,
        operations: &[u8],
        flags: u32,
    ) -> CuResult<()> {
        let stream = self.stream(stream)?;
        let mut params = self.stream_batch(operations)?;
        let count = u32::try_from(params.len()).map_err(|_| CUresult::INVALID_VALUE)?;
        // SAFETY: `count` operations, whose words lie in memory of this session's (checked).
        unsafe { self.driver.cuStreamBatchMemOp_v2(stream.raw, count, params.as_mut_ptr(), flags) }
    }

    fn cuLaunchHostFunc(&self, _: &mut Thread, stream: CUstream, token: u64) -> CuResult<bool> {
        self.launch_host_function(stream, token)
    }

    fn cuStreamAddCallback(&self, _: &mut Thread, stream: CUstream, token: u64) -> CuResult<()> {
        self.add_callback(stream, token)
    }

    fn vgpuSignal(&self, thread: &mut Thread, stream: CUstream, value: u64) -> CuResult<()> {
        self.signal(thread, stream, value)
    }

    fn vgpuNextHostFunction(&self, _: &mut Thread, done: u64) -> CuResult<(u64, u64, u32, bool)> {
        Ok(self.next_host_function(done))
    }

    word_operations! {
        cuStreamWriteValue32_v2: u32;
        cuStreamWriteValue64_v2: u64;
        cuStreamWaitValue32_v2: u32;
        cuStreamWaitValue64_v2: u64;
    }
}
