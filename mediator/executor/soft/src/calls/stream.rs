//! Streams and stream memory operations.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::stream::Host;
use cuda_api::types::*;

use crate::Soft;
use crate::soft::{Stream, Thread};
use crate::streams::Order;
use crate::transfer::{Until, Word};
use crate::work::{WaitValue, Work};

const NON_BLOCKING: u32 = 1;

fn aligned(address: u64, word: Word) -> CuResult<()> {
    if address.is_multiple_of(word.size()) { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}

impl Soft {
    fn write_value(
        &self,
        thread: &Thread,
        stream: CUstream,
        address: u64,
        word: Word,
        flags: u32,
    ) -> CuResult<()> {
        let (stream, _) = self.stream(thread, stream)?;
        // CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER promises less order than there is.
        if flags & !1 != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        aligned(address, word)?;
        self.device.run(stream, Work::WriteValue { address, word }, true)
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
        let until = match flags {
            0 => Until::GreaterOrEqual,
            1 => Until::Equal,
            2 => Until::And,
            3 => Until::Nor,
            _ => return Err(CUresult::INVALID_VALUE),
        };
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
        _priority: i32,
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
        self.streams.add(stream, Arc::new(Stream { id, context, order })).inspect_err(|_| {
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
