//! Events.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::event::Host;
use cuda_api::types::*;

use crate::Cuda;
use crate::objects::Event;
use crate::thread::Thread;

/// CU_EVENT_INTERPROCESS.
const INTERPROCESS: u32 = 4;
/// CU_EVENT_DISABLE_TIMING, without which no event can be shared.
const DISABLE_TIMING: u32 = 2;

impl Host for Cuda {
    fn cuEventCreate(&self, thread: &mut Thread, event: CUevent, flags: u32) -> CuResult<()> {
        if flags & (INTERPROCESS | DISABLE_TIMING) == INTERPROCESS {
            return Err(CUresult::INVALID_VALUE);
        }
        let context = thread.owner()?.clone();
        self.events.check_free(event)?;
        let (raw,) = self.driver.cuEventCreate(flags)?;
        self.events.add(event, Arc::new(Event { raw, context }))
    }

    fn cuEventDestroy_v2(&self, _: &mut Thread, event: CUevent) -> CuResult<()> {
        self.ipc.forget_event(event);
        self.events.remove(event).map(drop)
    }

    fn cuEventRecord(&self, _: &mut Thread, event: CUevent, stream: CUstream) -> CuResult<()> {
        let (event, stream) = (self.event(event)?, self.stream(stream)?);
        self.driver.cuEventRecord(event.raw, stream.raw)
    }

    fn cuEventRecordWithFlags(
        &self,
        _: &mut Thread,
        event: CUevent,
        stream: CUstream,
        flags: u32,
    ) -> CuResult<()> {
        let (event, stream) = (self.event(event)?, self.stream(stream)?);
        self.driver.cuEventRecordWithFlags(event.raw, stream.raw, flags)
    }

    fn cuEventQuery(&self, _: &mut Thread, event: CUevent) -> CuResult<()> {
        self.driver.cuEventQuery(self.event(event)?.raw)
    }

    fn cuEventSynchronize(&self, _: &mut Thread, event: CUevent) -> CuResult<()> {
        self.driver.cuEventSynchronize(self.event(event)?.raw)
    }

    fn cuEventElapsedTime(&self, _: &mut Thread, start: CUevent, end: CUevent) -> CuResult<f32> {
        let (start, end) = (self.event(start)?, self.event(end)?);
        self.driver.cuEventElapsedTime(start.raw, end.raw).map(|(milliseconds,)| milliseconds)
    }

    fn cuEventElapsedTime_v2(&self, _: &mut Thread, start: CUevent, end: CUevent) -> CuResult<f32> {
        let (start, end) = (self.event(start)?, self.event(end)?);
        self.driver.cuEventElapsedTime_v2(start.raw, end.raw).map(|(milliseconds,)| milliseconds)
    }
}
