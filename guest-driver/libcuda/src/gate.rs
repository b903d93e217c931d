//! How a row's frame gets onto the calling thread's ring, and its reply back.

mod begun;

use std::sync::atomic::{AtomicU8, Ordering};

use cuda_api::calls::entry::row::vgpuTakeOutput;
use cuda_api::calls::event::row::{cuEventQuery, cuEventSynchronize};
use cuda_api::calls::memory::row::cuMemGetInfo_v2;
use cuda_api::calls::stream::row::{cuStreamQuery, cuStreamSynchronize};
use cuda_api::guest::{Guest, Reach};
use cuda_api::host::Access;
use cuda_api::types::{
    CUcontext, CUdevice, CUdeviceptr, CUevent, CUstream, Handle, STREAM_LEGACY, attribute,
};
use cuda_api::wire::{Put, Reader, Wire};
use cuda_api::{CUresult, Call, CuResult};
use pci_layout::ring::{FRAME_BULK, FRAME_UNORDERED};
use transport::{CallError, FrameWriter, ReplyData, Ring};

use crate::answers::{self, Question};
use crate::freed;
use crate::managed::{variables, watch};
use crate::order::Use;
use crate::output;
use crate::process::{Process, initialised};
use crate::thread::{self, ThreadState};
use crate::waiting::Sent;

pub use begun::Begun;

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

/// What a thread remembers of its current context, as long as no context of the process ends or begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// The context's handle, 0 = none.
    context: u64,
    /// The contexts' epoch in which this was so; `None`: never.
    epoch: Option<u64>,
    /// The number by which a frame names the context. A context that is gone, or a primary context that is not retained (the
    /// runtime makes it current before it retains it), is named 0: the worker has none.
    number: u32,
    /// The context that modules loaded in it belong to ([`crate::context::owner`]).
    pub owner: u64,
    /// Its device's ordinal.
    pub device: i32,
    /// Its device's largest grid and block.
    pub limits: Limits,
}

/// The largest grid and block of a device.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads.
    pub block: [u32; 3],
}

impl Place {
    /// The epoch was read first: what changes while this looks makes it outdated at once.
    #[cold]
    fn look(process: &Process, context: u64, epoch: u64) -> Self {
        let mut place = Place { context, epoch: Some(epoch), ..Place::default() };
        let Some(record) = process.objects.contexts.get(context) else { return place };
        place.owner = crate::context::owner(CUcontext(context)).0;
        place.device = record.device;
        let primary = usize::try_from(record.device).ok().and_then(|i| process.primaries.get(i));
        if record.primary && !primary.is_some_and(crate::context::Primary::is_active) {
            return place;
        }
        place.number = (context & 0xffff_ffff) as u32;
        if let Ok(device) = process.device(record.device) {
            let limits = |first: i32| {
                [first, first + 1, first + 2]
                    .map(|a| device.attribute(a).ok().and_then(|v| u32::try_from(v).ok()).unwrap_or(0))
            };
            place.limits =
                Limits { grid: limits(attribute::MAX_GRID_DIM_X), block: limits(attribute::MAX_BLOCK_DIM_X) };
        }
        place
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
            if state.forbidden {
                return Err(CUresult::NOT_PERMITTED);
            }
            state.ring =
                Some(process.session.create_ring().map_err(|e| crate::process::control_failure(&e))?);
        }
        let context = state.contexts.last().map_or(0, |c| c.0);
        let epoch = process.objects.contexts.epoch();
        if state.place.context != context || state.place.epoch != Some(epoch) {
            state.place = Place::look(process, context, epoch);
        }
        let number = state.place.number;
        let mut lane = Lane { process, context, number, state };
        work(process, &mut lane).map_err(|error| process.failure_in(CUcontext(lane.context), error))
    })
    // A call from inside a call of the same thread: a signal handler's.
    .unwrap_or(Err(CUresult::NOT_PERMITTED))
}

/// An error of an earlier posted call of this thread comes out here, once.
///
/// Only where nothing has happened yet (the entry of a call that travels), or nothing is left that would have to be undone
/// (the end of one that waited for the device's work): in the middle of a call it would be taken for that call's own.
///
/// # Errors
/// The earlier call's.
#[inline]
pub fn deferred_error() -> CuResult<()> {
    match thread::take_async_error() {
        None => Ok(()),
        Some((result, call)) => Err(deferred(result, call)),
    }
}

#[cold]
fn deferred(result: u32, call: u32) -> CUresult {
    if call == thread::FORBIDDEN {
        return CUresult(result);
    }
    crate::log::say(|| {
        format!("{}, posted earlier, failed: {}", cuda_api::call_name(call), CUresult(result))
    });
    CUresult(result)
}

/// Rows by wire id, and in each a bit by the call's flags: whether this session's executor has carried such a call out. The first one
/// waits, posted or not, so that an executor that does not have it says so at once.
static CARRIED: [AtomicU8; ROWS] = [const { AtomicU8::new(0) }; ROWS];
/// One more than the highest wire id that a chapter can have.
const ROWS: usize = 1 << 12;

/// The calling thread with its ring.
pub struct Lane<'a> {
    process: &'static Process,
    /// The current context's handle, 0 = none.
    pub context: u64,
    /// The number by which frames name it: see [`Place`].
    number: u32,
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

    /// As [`deferred_error`], inside [`with_ring`].
    ///
    /// # Errors
    /// The earlier call's.
    #[inline]
    pub fn deferred_error(&mut self) -> CuResult<()> {
        match self.ring()?.take_async_error() {
            None => Ok(()),
            Some((result, call)) => Err(deferred(result, call)),
        }
    }

    /// Sends a call and waits for its reply.
    ///
    /// # Errors
    /// The call's CUresult, or the transport's failure.
    pub fn call<C: Call>(&mut self, fields: &C::In<'_>, bulk: bool) -> CuResult<C::Out> {
        let question = const { answers::stay(C::ID) }
            .then(|| Question::of::<C>(self.process, self.context, fields))
            // While a stream is captured the driver refuses some of them.
            .filter(|_| !crate::capture::any());
        if let Some(answer) = question.as_ref().and_then(|q| q.answered::<C>(&self.state.answers)) {
            return Ok(answer);
        }
        let managed = variables::exist();
        if managed {
            watch::called();
            variables::push();
        }
        // Freeing is not for the midst of a capture.
        let may_flush = freed::any() && !crate::capture::any();
        if may_flush && C::ID == <cuMemGetInfo_v2 as Call>::ID {
            freed::flush(self.process, self)?;
        }
        let mut outcome = self.call_alone::<C>(fields, bulk);
        if !bulk && may_flush && matches!(outcome, Err(CUresult::OUT_OF_MEMORY)) {
            freed::flush(self.process, self)?;
            outcome = self.call_alone::<C>(fields, bulk);
        }
        if const { answers::change(C::ID) } {
            answers::changed();
        }
        if let (Some(question), Ok(answer)) = (question, &outcome) {
            question.remember::<C>(self.process, &mut self.state.answers, answer);
        }
        let sent = self.state.sent;
        if managed && (C::MAY_BLOCK || tells_of_work(C::ID)) && outcome.is_ok() {
            variables::pull();
        }
        // The driver may have printed what kernels print.
        let printed = self.process.session.printed_bytes();
        if C::MAY_BLOCK && output::is_behind(printed) {
            output::bring(printed, || self.call_alone::<vgpuTakeOutput>(&(), false));
            // What is known is known as of the call itself.
            self.state.sent = sent;
        }
        outcome
    }

    /// The process.
    pub fn process(&self) -> &'static Process {
        self.process
    }

    /// Sends a call and waits for its reply, and for nothing that comes with it.
    ///
    /// # Errors
    /// As for [`Lane::call`].
    pub fn call_alone<C: Call>(&mut self, fields: &C::In<'_>, bulk: bool) -> CuResult<C::Out> {
        let (process, number) = (self.process, self.number);
        self.state.unsettled.sending();
        let ticket = process.session.next_ticket();
        self.state.sent = Sent { ticket, quiet: self.state.unsettled.others_are_quiet() };
        self.sends(None);
        let stale = number == 0 && self.context != 0;
        let flags = if bulk { FRAME_BULK } else { 0 };
        let outcome = self
            .ring()?
            .call(
                C::ID,
                flags,
                number,
                ticket,
                |w| fields.put(&mut Arguments(w)),
                |result, data| match reply::<C>(result, data) {
                    // The worker was told of no context, since the thread's is none any more.
                    Err(CUresult::INVALID_CONTEXT) if stale => Err(CUresult::CONTEXT_IS_DESTROYED),
                    outcome => outcome,
                },
            )
            .map_err(|e| call_failure(&e))?;
        self.state.unsettled.waited();
        outcome
    }

    /// As [`Lane::post_variant`], of a row without flags.
    ///
    /// # Errors
    /// As for that.
    #[inline]
    pub fn post<C: Call>(&mut self, fields: &C::In<'_>, bulk: bool) -> CuResult<()> {
        self.post_variant::<C>(fields, bulk, 0)
    }

    /// Sends a call that is known to be valid, without waiting; its outputs, if it has any, do not come back. It waits all the
    /// same where the row has never been carried out with these flags, while something is captured ([`crate::capture`]), and under
    /// VGPU_STRICT=1.
    ///
    /// # Errors
    /// The transport's failure; the call's own CUresult where it waits.
    #[inline]
    fn post_variant<C: Call>(&mut self, fields: &C::In<'_>, bulk: bool, variant: u32) -> CuResult<()> {
        self.post_flagged::<C>(fields, if bulk { FRAME_BULK } else { 0 }, variant)
    }

    /// As [`Lane::post`], for work in a stream: it goes without its turn where no other thread's calls can matter to it
    /// ([`crate::order`]).
    ///
    /// # Errors
    /// As for that.
    #[inline]
    pub fn post_in<C: Call>(&mut self, stream: CUstream, fields: &C::In<'_>) -> CuResult<()> {
        let thread = self.ring()?.index().wrapping_add(1);
        let made = !CUstream::SPECIAL.contains(&stream.0);
        let user = if made { self.process.objects.streams.claim(stream.0, thread) } else { Use::Others };
        let unordered = match user {
            Use::Own => self.state.unsettled.alone(),
            // Once for each stream: having waited, the thread is settled, and others need not look at it.
            Use::Fresh => return self.call::<C>(fields, false).map(|_| ()),
            Use::Others => false,
        };
        self.post_counted::<C>(fields, if unordered { FRAME_UNORDERED } else { 0 }, 0, Some(stream))
    }

    #[inline]
    fn sends(&mut self, stream: Option<CUstream>) {
        if let Some(since) = &mut self.state.since {
            since.sends(stream);
        }
    }

    #[inline]
    fn post_flagged<C: Call>(&mut self, fields: &C::In<'_>, flags: u32, variant: u32) -> CuResult<()> {
        self.post_counted::<C>(fields, flags, variant, None)
    }

    #[inline]
    fn post_counted<C: Call>(
        &mut self,
        fields: &C::In<'_>,
        flags: u32,
        variant: u32,
        stream: Option<CUstream>,
    ) -> CuResult<()> {
        const { assert!((C::ID as usize) < ROWS) };
        let bulk = flags & FRAME_BULK != 0;
        let carried = &CARRIED[C::ID as usize];
        // Flags with more than three bits have no bit of their own: such a call waits each time.
        let bit = 1u8.checked_shl(variant).unwrap_or(0);
        let strict = self.process.strict && !bulk;
        if carried.load(Ordering::Relaxed) & bit == 0 || crate::capture::any() || strict {
            self.call::<C>(fields, bulk)?;
            carried.fetch_or(bit, Ordering::Relaxed);
            return Ok(());
        }
        if variables::exist() {
            watch::called();
            variables::push();
        }
        self.state.unsettled.sending();
        if flags & FRAME_UNORDERED == 0 {
            self.state.unsettled.posted();
        }
        self.sends(stream);
        self.send::<C>(flags, self.process.session.next_ticket(), fields)
    }

    /// Posts a call for a stream that an executor is known to carry out, with its order number in it, which comes back.
    ///
    /// # Errors
    /// The transport's failure.
    pub fn send_posted<C: Call>(
        &mut self,
        flags: u32,
        stream: CUstream,
        fields: impl FnOnce(u64) -> C::In<'static>,
    ) -> CuResult<u64> {
        self.state.unsettled.sending();
        if flags & FRAME_UNORDERED == 0 {
            self.state.unsettled.posted();
        }
        let ticket = self.process.session.next_ticket();
        let quiet = self.state.unsettled.others_are_quiet();
        self.sends(Some(stream));
        self.send::<C>(flags, ticket, &fields(ticket))?;
        self.state.sent.quiet = quiet;
        Ok(ticket)
    }

    #[inline]
    fn send<C: Call>(&mut self, flags: u32, ticket: u64, fields: &C::In<'_>) -> CuResult<()> {
        let number = self.number;
        self.state.sent.ticket = ticket;
        self.ring()?
            .post(C::ID, flags, number, ticket, |w| fields.put(&mut Arguments(w)))
            .map_err(|e| call_failure(&e))
    }

    /// As [`Lane::post`] where the call is `sure` to be taken; else the driver's answer is waited for.
    ///
    /// # Errors
    /// As for those.
    #[inline]
    pub fn post_if<C: Call<Out = ()>>(&mut self, sure: bool, fields: &C::In<'_>, bulk: bool) -> CuResult<()> {
        if sure { self.post::<C>(fields, bulk) } else { self.call::<C>(fields, bulk) }
    }

    /// What lies at an address is another device's than the current context's ([`crate::ranges::Ranges::is_elsewhere`]).
    #[inline]
    pub fn is_elsewhere(&self, address: u64, access: Access) -> bool {
        let (process, device) = (self.process, self.state.place.device);
        process.devices().len() > 1 && process.ranges.is_elsewhere(address, device, access)
    }

    /// There is a current context.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_CONTEXT; CUDA_ERROR_CONTEXT_IS_DESTROYED where the current one is gone, or a primary context that
    /// nobody retains.
    #[inline]
    pub fn needs_context(&self) -> CuResult<()> {
        match (self.number, self.context) {
            (0, 0) => Err(CUresult::INVALID_CONTEXT),
            (0, _) => Err(CUresult::CONTEXT_IS_DESTROYED),
            _ => Ok(()),
        }
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

/// Sends a call in a ring that is no thread's of the program's and waits, whatever else the process has under way: also after a
/// fault. `ticket` is above all earlier ones of the ring.
///
/// # Errors
/// The call's CUresult, or the transport's failure.
pub fn call_apart<C: Call>(ring: &mut Ring, ticket: u64, fields: C::In<'_>) -> CuResult<C::Out> {
    ring.call(C::ID, 0, 0, ticket, |w| fields.put(&mut Arguments(w)), reply::<C>)
        .map_err(|e| call_failure(&e))?
}

/// As [`call_apart`], and the call waits for no call of another ring.
///
/// # Errors
/// As for that.
pub fn call_unordered<C: Call>(ring: &mut Ring, ticket: u64, fields: C::In<'_>) -> CuResult<C::Out> {
    ring.call(C::ID, FRAME_UNORDERED, 0, ticket, |w| fields.put(&mut Arguments(w)), reply::<C>)
        .map_err(|e| call_failure(&e))?
}

fn reply<C: Call>(result: u32, data: &mut ReplyData<'_>) -> CuResult<C::Out> {
    match CUresult(result) {
        CUresult::SUCCESS => {}
        error => return Err(error),
    }
    C::Out::take(&mut Reader::new(data.bytes())).map_err(|e| {
        crate::log::say(|| format!("{}: reply: {e}", C::NAME));
        CUresult::UNKNOWN
    })
}

/// As [`call`], in a context that need not be the thread's own.
///
/// # Errors
/// As for [`Lane::call`].
pub fn call_in<C: Call>(context: CUcontext, fields: C::In<'_>) -> CuResult<C::Out> {
    with_ring(|process, lane| {
        process.alive()?;
        lane.context = context.0;
        lane.number = Place::look(process, context.0, process.objects.contexts.epoch()).number;
        lane.call::<C>(&fields, false)
    })
}

/// Posts a call that is known to be valid: for hand-written halves. Without a context the driver would refuse, or not: its answer
/// is waited for.
///
/// # Errors
/// As for [`Lane::post`].
#[inline]
pub fn post<C: Call>(fields: C::In<'_>) -> CuResult<()> {
    post_variant::<C>(fields, 0)
}

#[inline]
fn post_variant<C: Call>(fields: C::In<'_>, variant: u32) -> CuResult<()> {
    with_ring(|process, lane| {
        process.alive()?;
        if lane.needs_context().is_ok() {
            lane.post_variant::<C>(&fields, false, variant)
        } else {
            lane.call::<C>(&fields, false).map(|_| ())
        }
    })
}

/// Waits for a stream's work; what of it this thread posted in vain comes out here.
///
/// # Errors
/// cuStreamSynchronize's, or an earlier posted call's.
#[inline]
pub fn wait_for(stream: CUstream) -> CuResult<()> {
    with_ring(|process, lane| {
        process.alive()?;
        lane.wait_for_stream(stream)
    })
}

/// The rows whose success says that work is done.
const fn tells_of_work(id: u32) -> bool {
    matches!(
        id,
        <cuStreamSynchronize as Call>::ID
            | <cuStreamQuery as Call>::ID
            | <cuEventSynchronize as Call>::ID
            | <cuEventQuery as Call>::ID
    )
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
    fn post<C: Call<Out = ()>>(&self, fields: C::In<'_>, variant: u32) -> CuResult<()> {
        post_variant::<C>(fields, variant)
    }

    fn post_and_settle<C: Call<Out = ()>>(&self, fields: C::In<'_>) -> CuResult<()> {
        post::<C>(fields)?;
        // The rows that have no stream work in the legacy one, whichever variant was called.
        wait_for(STREAM_LEGACY)
    }

    #[inline]
    fn check_handle<H: Handle>(&self, handle: H) -> CuResult<()> {
        initialised()?.objects.check(handle)
    }

    fn new_handle<H: Handle>(&self) -> CuResult<H> {
        initialised()?.objects.insert_plain(crate::context::owner(thread::current_context()).0)
    }

    fn forget<H: Handle>(&self, handle: H) {
        if let Ok(process) = initialised() {
            process.objects.remove_plain(handle);
        }
    }

    #[inline]
    fn check_range(&self, start: CUdeviceptr, len: u64, access: Access) -> CuResult<Reach> {
        let process = initialised()?;
        let settles = process.ranges.check_settling(start, len, access)?;
        let elsewhere = process.devices().len() > 1 && len != 0 && {
            let device = crate::context::device_of(thread::current_context()).unwrap_or(-1);
            process.ranges.is_elsewhere(start, device, access)
        };
        Ok(Reach { settles, elsewhere })
    }

    #[inline]
    fn is_of_one_context(&self, event: CUevent, stream: CUstream) -> bool {
        initialised().is_ok_and(|process| process.objects.is_of_one_context(event, stream))
    }

    #[inline]
    fn recorded(&self, event: CUevent, stream: CUstream) {
        crate::waiting::recorded(event, stream);
    }

    fn recorded_in_a_context(&self, event: CUevent) {
        crate::waiting::recorded_in_a_context(event);
    }

    fn host_device(&self, device: CUdevice) -> CuResult<CUdevice> {
        initialised()?.host_ordinal(device)
    }
}
