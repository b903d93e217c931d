//! Events.

use std::sync::{Arc, Mutex};

use cuda_api::CuResult;
use cuda_api::calls::event::Host;
use cuda_api::types::*;

use crate::Soft;
use crate::gate::Mark;
use crate::lock::lock;
use crate::soft::Thread;
use crate::streams::Point;

const BLOCKING_SYNC: u32 = 1;
const DISABLE_TIMING: u32 = 2;

/// An event: what it recorded last.
pub(crate) struct Event {
    pub(crate) context: u32,
    timing: bool,
    recorded: Mutex<Option<(Point, Arc<Mark>)>>,
}

impl Event {
    /// The place in its stream that it stands for, as of now.
    pub(crate) fn point(&self) -> Option<Point> {
        lock(&self.recorded).as_ref().map(|(point, _)| *point)
    }

    fn mark(&self) -> CuResult<Arc<Mark>> {
        let recorded = lock(&self.recorded);
        let (_, mark) = recorded.as_ref().filter(|_| self.timing).ok_or(CUresult::INVALID_HANDLE)?;
        Ok(mark.clone())
    }
}

impl Soft {
    fn record(&self, thread: &Thread, event: CUevent, stream: CUstream) -> CuResult<()> {
        let event = self.events.get(event)?;
        let (stream, context) = self.stream(thread, stream)?;
        if context != event.context {
            return Err(CUresult::INVALID_HANDLE);
        }
        let mark = Arc::new(Mark::default());
        // Held meanwhile, so that of two recordings the later one stays.
        let mut recorded = lock(&event.recorded);
        let point = self.device.mark(stream, &mark)?;
        *recorded = Some((point, mark));
        Ok(())
    }

    fn elapsed(&self, start: CUevent, end: CUevent) -> CuResult<f32> {
        let (start, end) = (self.events.get(start)?.mark()?, self.events.get(end)?.mark()?);
        let (Some(start), Some(end)) = (start.reached(), end.reached()) else {
            return Err(CUresult::NOT_READY);
        };
        // Negative where the end came first, as with the real driver.
        let span =
            |a: std::time::Instant, b: std::time::Instant| b.saturating_duration_since(a).as_secs_f32() * 1e3;
        Ok(if end >= start { span(start, end) } else { -span(end, start) })
    }
}

impl Host for Soft {
    fn cuEventCreate(&self, thread: &mut Thread, event: CUevent, flags: u32) -> CuResult<()> {
        let context = self.context(thread)?.id;
        match flags {
            f if f & !(BLOCKING_SYNC | DISABLE_TIMING) == 0 => {}
            // What is shared between processes has no time.
            f if f & !7 == 0 && f & DISABLE_TIMING != 0 => {
                self.warn_once("cuEventCreate: no events between processes");
                return Err(CUresult::NOT_SUPPORTED);
            }
            _ => return Err(CUresult::INVALID_VALUE),
        }
        let timing = flags & DISABLE_TIMING == 0;
        self.events.add(event, Arc::new(Event { context, timing, recorded: Mutex::default() }))
    }

    fn cuEventDestroy_v2(&self, _: &mut Thread, event: CUevent) -> CuResult<()> {
        self.events.remove(event).map(|_| ())
    }

    fn cuEventRecord(&self, thread: &mut Thread, event: CUevent, stream: CUstream) -> CuResult<()> {
        self.record(thread, event, stream)
    }

    fn cuEventRecordWithFlags(
        &self,
        thread: &mut Thread,
        event: CUevent,
        stream: CUstream,
        flags: u32,
    ) -> CuResult<()> {
        // CU_EVENT_RECORD_EXTERNAL means something in a capture only.
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        self.record(thread, event, stream)
    }

    fn cuEventQuery(&self, _: &mut Thread, event: CUevent) -> CuResult<()> {
        match self.events.get(event)?.point() {
            Some(point) if !self.device.reached(&point) => Err(CUresult::NOT_READY),
            _ => self.device.alive(),
        }
    }

    fn cuEventSynchronize(&self, _: &mut Thread, event: CUevent) -> CuResult<()> {
        let point = self.events.get(event)?.point();
        self.device.wait(point.as_slice(), None).map(|_| ())
    }

    fn cuEventElapsedTime(&self, _: &mut Thread, start: CUevent, end: CUevent) -> CuResult<f32> {
        self.elapsed(start, end)
    }

    fn cuEventElapsedTime_v2(&self, _: &mut Thread, start: CUevent, end: CUevent) -> CuResult<f32> {
        self.elapsed(start, end)
    }
}
