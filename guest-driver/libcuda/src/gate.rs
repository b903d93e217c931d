//! How a row's frame gets onto the calling thread's ring, and its reply back.

use cuda_api::guest::Guest;
use cuda_api::host::Access;
use cuda_api::types::{CUdeviceptr, Handle};
use cuda_api::wire::{Put, Reader, Wire};
use cuda_api::{CUresult, Call, CuResult};
use pci_layout::ring::FRAME_BULK;
use transport::{CallError, FrameWriter, Ring};

use crate::process::{Process, initialised};
use crate::thread::{self, ThreadState};

/// The way to the host, as the table's stubs see it.
#[derive(Debug, Clone, Copy)]
pub struct Gate;

/// A frame's arguments go straight into the ring.
struct Arguments<'a, 'b>(&'a mut FrameWriter<'b>);

impl Put for Arguments<'_, '_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.0.put(bytes);
    }
}

/// What a failed transfer answers.
#[cold]
pub fn call_failure(error: &CallError) -> CUresult {
    match error {
        CallError::Dead(reason) => crate::process::death(*reason),
        CallError::ForkedChild => CUresult::NOT_INITIALIZED,
        CallError::FrameTooLong => CUresult::INVALID_VALUE,
        CallError::System(_) => CUresult::OPERATING_SYSTEM,
    }
}

/// Runs `work` with the calling thread's ring, which is made if it has none.
///
/// # Errors
/// What `work` answers, or why there is no ring.
#[inline]
pub fn with_ring<R>(work: impl FnOnce(&'static Process, &mut Lane<'_>) -> CuResult<R>) -> CuResult<R> {
    let process = initialised()?;
    thread::with(|state| {
        if state.ring.is_none() {
            state.ring =
                Some(process.session.create_ring().map_err(|e| crate::process::control_failure(&e))?);
        }
        let context = state.contexts.last().map_or(0, |c| c.0);
        let mut lane = Lane { process, context, state };
        work(process, &mut lane)
    })
    // A call from inside a call of the same thread: a signal handler's.
    .unwrap_or(Err(CUresult::NOT_PERMITTED))
}

/// The calling thread with its ring.
pub struct Lane<'a> {
    process: &'static Process,
    /// The current context's handle, 0 = none.
    pub context: u64,
    /// The thread.
    pub state: &'a mut ThreadState,
}

impl Lane<'_> {
    /// The ring.
    ///
    /// # Errors
    /// Never: `with_ring` made it.
    #[inline]
    pub fn ring(&mut self) -> CuResult<&mut Ring> {
        self.state.ring.as_mut().ok_or(CUresult::UNKNOWN)
    }

    /// The number by which a frame names the current context. A context that is gone, or a primary context that is not retained
    /// (the runtime makes it current before it retains it), is named 0: the worker has none.
    #[inline]
    fn context_number(&self) -> u32 {
        let inactive = |p: &crate::context::Primary| p.handle.0 == self.context && !p.is_active();
        if self.context != 0
            && self.process.objects.contexts.is_live(self.context)
            && !self.process.primaries.iter().any(inactive)
        {
            (self.context & 0xffff_ffff) as u32
        } else {
            0
        }
    }

    /// An error of an earlier posted call of this thread comes out here, once.
    #[inline]
    fn deferred_error(&mut self) -> CuResult<()> {
        match self.ring()?.take_async_error() {
            None => Ok(()),
            Some((result, call)) => {
                crate::log::say(|| {
                    format!("{}, posted earlier, failed: {}", cuda_api::call_name(call), CUresult(result))
                });
                Err(CUresult(result))
            }
        }
    }

    /// Sends a call and waits for its reply.
    ///
    /// # Errors
    /// The call's CUresult, an earlier posted call's, or the transport's failure.
    pub fn call<C: Call>(&mut self, fields: &C::In<'_>, bulk: bool) -> CuResult<C::Out> {
        self.deferred_error()?;
        let (process, context) = (self.process, self.context_number());
        let flags = if bulk { FRAME_BULK } else { 0 };
        self.ring()?
            .call(
                C::ID,
                flags,
                context,
                process.session.next_ticket(),
                |w| fields.put(&mut Arguments(w)),
                |result, data| {
                    if result != 0 {
                        return Err(CUresult(result));
                    }
                    let mut reader = Reader::new(data.bytes());
                    C::Out::take(&mut reader).map_err(|e| {
                        crate::log::say(|| format!("{}: reply: {e}", C::NAME));
                        CUresult::UNKNOWN
                    })
                },
            )
            .map_err(|e| call_failure(&e))?
    }

    /// Sends a call that is known to be valid, without waiting; its outputs, if it has any, do not come back.
    ///
    /// # Errors
    /// An earlier posted call's CUresult, or the transport's failure.
    #[inline]
    pub fn post<C: Call>(&mut self, fields: &C::In<'_>, bulk: bool) -> CuResult<()> {
        if self.process.strict && !bulk {
            return self.call::<C>(fields, bulk).map(|_| ());
        }
        self.deferred_error()?;
        let (process, context) = (self.process, self.context_number());
        let flags = if bulk { FRAME_BULK } else { 0 };
        self.ring()?
            .post(C::ID, flags, context, process.session.next_ticket(), |w| fields.put(&mut Arguments(w)))
            .map_err(|e| call_failure(&e))
    }

    /// There is a current context.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_CONTEXT.
    #[inline]
    pub fn needs_context(&self) -> CuResult<()> {
        if self.context_number() != 0 { Ok(()) } else { Err(CUresult::INVALID_CONTEXT) }
    }
}

/// Sends a call and waits: for hand-written halves.
///
/// # Errors
/// As for [`Lane::call`].
pub fn call<C: Call>(fields: C::In<'_>) -> CuResult<C::Out> {
    with_ring(|process, lane| {
        process.alive()?;
        lane.call::<C>(&fields, false)
    })
}

/// Posts a call that is known to be valid: for hand-written halves.
///
/// # Errors
/// As for [`Lane::post`].
#[inline]
pub fn post<C: Call>(fields: C::In<'_>) -> CuResult<()> {
    with_ring(|process, lane| {
        process.alive()?;
        lane.needs_context()?;
        lane.post::<C>(&fields, false)
    })
}

impl Guest for Gate {
    #[inline]
    fn ready(&self) -> CuResult<()> {
        initialised()?.alive()
    }

    fn call<C: Call>(&self, fields: C::In<'_>) -> CuResult<C::Out> {
        with_ring(|_, lane| lane.call::<C>(&fields, false))
    }

    #[inline]
    fn post<C: Call<Out = ()>>(&self, fields: C::In<'_>) -> CuResult<()> {
        with_ring(|_, lane| {
            // Without a context the driver would refuse, or not: its answer is waited for.
            if lane.needs_context().is_err() {
                lane.call::<C>(&fields, false)
            } else {
                lane.post::<C>(&fields, false)
            }
        })
    }

    #[inline]
    fn check_handle<H: Handle>(&self, handle: H) -> CuResult<()> {
        initialised()?.objects.check(handle)
    }

    fn new_handle<H: Handle>(&self) -> CuResult<H> {
        initialised()?.objects.insert_plain(thread::current_context().0)
    }

    fn forget<H: Handle>(&self, handle: H) {
        if let Ok(process) = initialised() {
            process.objects.remove_plain(handle);
        }
    }

    #[inline]
    fn check_range(&self, start: CUdeviceptr, len: u64, access: Access) -> CuResult<()> {
        initialised()?.ranges.check(start, len, access)
    }
}
