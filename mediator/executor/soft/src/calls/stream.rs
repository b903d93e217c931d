//! Streams and stream memory operations.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::stream::Host;
use cuda_api::host::{Access, Base};
use cuda_api::host_functions::Next;
use cuda_api::types::*;

use crate::Soft;
use crate::calls::stream_attribute::Attributes;
use crate::soft::{Stream, Thread};
use crate::streams::Order;
use crate::transfer::{Until, Word};
use crate::work::{HostCall, Signal, WaitValue, Work};

const NON_BLOCKING: u32 = 1;
/// Operations of one call at most (CUDA Driver API, cuStreamBatchMemOp).
const BATCH_MAX: usize = 256;

fn aligned(address: u64, word: Word) -> CuResult<()> {
    if address.is_multiple_of(word.size()) { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}

impl Soft {
    /// An operation of a batch; `carry_out` false only looks whether it can be.
    fn batch_operation(
        &self,
        thread: &Thread,
        stream: CUstream,
        words: [u64; 4],
        carry_out: bool,
    ) -> CuResult<()> {
        let [kind, address, value, flags] = words;
        let flags = u32::try_from(flags).map_err(|_| CUresult::INVALID_VALUE)?;
        let narrow = || u32::try_from(value).map(Word::Narrow).map_err(|_| CUresult::INVALID_VALUE);
        let (word, access) = match kind {
            1 => (narrow()?, Access::Read),
            2 => (narrow()?, Access::Write),
            4 => (Word::Wide(value), Access::Read),
            5 => (Word::Wide(value), Access::Write),
            // A barrier: operations here are in order and whole.
            6 if flags <= 1 => return Ok(()),
            3 => return Err(self.unsupported("cuStreamBatchMemOp: flushing remote writes")),
            _ => return Err(CUresult::INVALID_VALUE),
        };
        self.check_range(address, word.size(), access)?;
        aligned(address, word)?;
        match (access, carry_out) {
            (Access::Read, false) => Self::until(flags).map(|_| ()),
            (Access::Write, false) => Self::check_write_flags(flags),
            (Access::Read, true) => self.wait_value(thread, stream, address, word, flags),
            (Access::Write, true) => self.write_value(thread, stream, address, word, flags),
        }
    }

    fn until(flags: u32) -> CuResult<Until> {
        match flags {
            0 => Ok(Until::GreaterOrEqual),
            1 => Ok(Until::Equal),
            2 => Ok(Until::And),
            3 => Ok(Until::Nor),
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    fn check_write_flags(flags: u32) -> CuResult<()> {
        // CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER promises less order than there is.
        if flags & !1 == 0 { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
    }

    fn write_value(
        &self,
        thread: &Thread,
        stream: CUstream,
        address: u64,
        word: Word,
        flags: u32,
    ) -> CuResult<()> {
        let (stream, _) = self.stream(thread, stream)?;
        Self::check_write_flags(flags)?;
        aligned(address, word)?;
        self.device.run(stream, Work::WriteValue { address, word }, true)
    }

    fn host_call(&self, thread: &Thread, stream: CUstream, call: HostCall) -> CuResult<()> {
        let (stream, _) = self.stream(thread, stream)?;
        self.device.submit(stream, Work::Host(call), &[]).map(|_| ())
    }

    fn wait_value(
        &self,
        thread: &Thread,
        stream: CUstream,
        address: u64,
        word: Word,
        flags: u32,
    ) -> CuResult<()> {
        let (stream, _) = self.stream(thread, stream)?;
        let until = Self::until(flags)?;
        aligned(address, word)?;
        self.device.submit(stream, Work::WaitValue(WaitValue { address, word, until }), &[]).map(|_| ())
    }
}

impl Host for Soft {
    fn cuStreamCreate(
        &self,
        thread: &mut Thread,
        stream: CUstream,
        flags: u32,
        priority: i32,
    ) -> CuResult<()> {
        let context = self.context(thread)?.id;
        let order = match flags {
            0 => Order::Blocking,
            NON_BLOCKING => Order::NonBlocking,
            _ => return Err(CUresult::INVALID_VALUE),
        };
        let id = self
            .device
            .with_streams(|s| s.add_stream(context, order))
            .ok_or(CUresult::CONTEXT_IS_DESTROYED)?;
        self.streams
            .add(
                stream,
                Arc::new(Stream { id, context, order, attributes: Attributes::new(priority).into() }),
            )
            .inspect_err(|_| {
                self.device.with_streams(|s| s.detach(id));
            })
    }

    fn cuStreamDestroy_v2(&self, _: &mut Thread, stream: CUstream) -> CuResult<()> {
        let stream = self.streams.remove(stream)?;
        self.device.with_streams(|s| s.detach(stream.id));
        Ok(())
    }

    fn cuStreamSynchronize(&self, thread: &mut Thread, stream: CUstream) -> CuResult<()> {
        let (stream, _) = self.stream(thread, stream)?;
        let ends = self.device.with_streams(|s| s.ends(stream));
        self.device.wait(&ends, None)?;
        self.device.memory.trim(None, None);
        Ok(())
    }

    fn cuStreamQuery(&self, thread: &mut Thread, stream: CUstream) -> CuResult<()> {
        let (stream, _) = self.stream(thread, stream)?;
        self.device.alive()?;
        if self.device.with_streams(|s| s.ends(stream)).is_empty() {
            Ok(())
        } else {
            Err(CUresult::NOT_READY)
        }
    }

    fn cuStreamWaitEvent(
        &self,
        thread: &mut Thread,
        stream: CUstream,
        event: CUevent,
        flags: u32,
    ) -> CuResult<()> {
        // CU_EVENT_WAIT_EXTERNAL means something in a capture only.
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let (stream, _) = self.stream(thread, stream)?;
        match self.events.get(event)?.point() {
            Some(point) if !self.device.reached(&point) => {
                self.device.submit(stream, Work::Nothing, &[point]).map(|_| ())
            }
            _ => self.device.alive(),
        }
    }

    fn cuStreamGetAttribute(
        &self,
        thread: &mut Thread,
        stream: CUstream,
        attribute: u32,
    ) -> CuResult<Vec<u8>> {
        self.attribute(thread, stream, attribute)
    }

    fn cuStreamSetAttribute(
        &self,
        thread: &mut Thread,
        stream: CUstream,
        attribute: u32,
        value: &[u8],
    ) -> CuResult<()> {
        self.set_attribute(thread, stream, attribute, value)
    }

    fn cuStreamCopyAttributes(&self, thread: &mut Thread, to: CUstream, from: CUstream) -> CuResult<()> {
        self.copy_attributes(thread, to, from)
    }

    fn cuStreamBatchMemOp_v2(
        &self,
        thread: &mut Thread,
        stream: CUstream,
        operations: &[u8],
        flags: u32,
    ) -> CuResult<()> {
        let (words, rest) = operations.as_chunks::<8>();
        let (operations, odd) = words.as_chunks::<4>();
        if flags != 0 || !rest.is_empty() || !odd.is_empty() || operations.len() > BATCH_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        self.stream(thread, stream)?;
        // None is begun where one of them cannot be carried out.
        for carry_out in [false, true] {
            for words in operations {
                self.batch_operation(thread, stream, words.map(u64::from_le_bytes), carry_out)?;
            }
        }
        Ok(())
    }

    fn cuLaunchHostFunc(&self, thread: &mut Thread, stream: CUstream, token: u64) -> CuResult<bool> {
        self.host_call(thread, stream, HostCall { token, is_callback: false })?;
        Ok(false)
    }

    fn cuStreamAddCallback(&self, thread: &mut Thread, stream: CUstream, token: u64) -> CuResult<()> {
        self.host_call(thread, stream, HostCall { token, is_callback: true })
    }

    fn vgpuSignal(&self, thread: &mut Thread, stream: CUstream, value: u64) -> CuResult<()> {
        let Some(completion) = self.completion.clone() else { return Err(self.unsupported("vgpuSignal")) };
        // Who cannot be told this way asks for the stream, and hears what is wrong with it.
        let Ok((stream, _)) = self.stream(thread, stream) else { return Ok(()) };
        let signal = Signal { completion, ring: thread.ring, value };
        self.device.submit(stream, Work::Signal(signal), &[]).map(|_| ())
    }

    fn vgpuNextHostFunction(&self, _: &mut Thread, done: u64) -> CuResult<(u64, u64, u32, bool)> {
        let Next { run, token, status, gone } = self.device.functions.next(done);
        Ok((run, token, status, gone))
    }

    fn cuStreamWriteValue32_v2(
        &self,
        thread: &mut Thread,
        stream: CUstream,
        address: CUdeviceptr,
        value: u32,
        flags: u32,
    ) -> CuResult<()> {
        self.write_value(thread, stream, address, Word::Narrow(value), flags)
    }

    fn cuStreamWriteValue64_v2(
        &self,
        thread: &mut Thread,
        stream: CUstream,
        address: CUdeviceptr,
        value: u64,
        flags: u32,
    ) -> CuResult<()> {
        self.write_value(thread, stream, address, Word::Wide(value), flags)
    }

    fn cuStreamWaitValue32_v2(
        &self,
        thread: &mut Thread,
        stream: CUstream,
        address: CUdeviceptr,
        value: u32,
        flags: u32,
    ) -> CuResult<()> {
        self.wait_value(thread, stream, address, Word::Narrow(value), flags)
    }

    fn cuStreamWaitValue64_v2(
        &self,
        thread: &mut Thread,
        stream: CUstream,
        address: CUdeviceptr,
        value: u64,
        flags: u32,
    ) -> CuResult<()> {
        self.wait_value(thread, stream, address, Word::Wide(value), flags)
    }
}
