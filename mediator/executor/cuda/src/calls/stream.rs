//! Streams and stream memory operations.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::stream::Host;
use cuda_api::types::*;

use crate::Cuda;
use crate::objects::Stream;
use crate::thread::Thread;

/// CU_STREAM_NON_BLOCKING.
const NON_BLOCKING: u32 = 1;

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
        self.streams.add(stream, Arc::new(Stream { raw, context, non_blocking: flags & NON_BLOCKING != 0 }))
    }

    fn cuStreamDestroy_v2(&self, _: &mut Thread, stream: CUstream) -> CuResult<()> {
        self.streams.remove(stream).map(drop)
    }

    fn cuStreamSynchronize(&self, _: &mut Thread, stream: CUstream) -> CuResult<()> {
        self.driver.cuStreamSynchronize(self.stream(stream)?.raw)
    }

    fn cuStreamQuery(&self, _: &mut Thread, stream: CUstream) -> CuResult<()> {
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

    word_operations! {
        cuStreamWriteValue32_v2: u32;
        cuStreamWriteValue64_v2: u64;
        cuStreamWaitValue32_v2: u32;
        cuStreamWaitValue64_v2: u64;
    }
}
