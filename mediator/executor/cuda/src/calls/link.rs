//! The linker. What is added is checked for its extent like a load's image; the linked image is the driver's, and goes to the guest in
//! pieces.

use std::ffi::CStr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use cuda_api::CuResult;
use cuda_api::types::*;
use cuda_api::wire::INLINE_BYTES_MAX;

use crate::Cuda;
use crate::calls::module::Loaded;
use crate::jit::{self, Options};
use crate::lock::lock;
use crate::objects::Link;
use crate::thread::Thread;

/// What a completion answers: the outcome, the image's bytes, and the logs.
pub(crate) type Linked = (u32, u64, Vec<u8>, Vec<u8>);

/// Inputs of a link at most.
const INPUTS_MAX: u32 = 4096;

/// A link's state.
pub(crate) struct State {
    /// The options and logs that it was begun with: the driver writes the logs as long as the link lives.
    options: Options,
    inputs: u32,
    /// Where the driver has the linked image, and its length.
    linked: Option<(usize, usize)>,
}

// SAFETY: of what is in it, only the addresses of the options' own buffers keep it from being Send. They are used by the driver,
// in one call at a time (the mutex around it).
unsafe impl Send for State {}

impl Cuda {
    pub(crate) fn link_create(
        &self,
        thread: &Thread,
        state: CUlinkState,
        options: &[u8],
        info_room: u32,
        error_room: u32,
    ) -> CuResult<()> {
        let context = thread.owner()?.clone();
        self.links.check_free(state)?;
        let mut options = Options::read(options, info_room, error_room)?;
        let (count, numbers, values) = options.arrays();
        // SAFETY: arrays and logs of `options`, which the link keeps: it ends before them (`Link`'s own drop comes first).
        let (raw,) = unsafe { self.driver.cuLinkCreate_v2(count, numbers, values) }?;
        let made = State { options, inputs: 0, linked: None };
        self.links.add(state, Arc::new(Link { raw, context, state: Mutex::new(made) }))
    }

    fn link(&self, state: CUlinkState) -> CuResult<Arc<Link>> {
        let link = self.links.get(state)?;
        if link.context.alive() { Ok(link) } else { Err(CUresult::INVALID_HANDLE) }
    }

    pub(crate) fn link_add(
        &self,
        state: CUlinkState,
        kind: u32,
        image: u64,
        name: &CStr,
        options: &[u8],
    ) -> CuResult<Loaded> {
        let image = lock(&self.images).take(image)?;
        let link = self.link(state)?;
        let mut state = lock(&link.state);
        image.check_input(kind).inspect_err(|error| {
            self.warn_once(&format!("an input of the linker is refused (type {kind}): {error}"));
        })?;
        if state.linked.is_some() || state.inputs >= INPUTS_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        let (mut numbers, mut values) = jit::numbers(options)?;
        let count = u32::try_from(numbers.len()).map_err(|_| CUresult::INVALID_VALUE)?;
        let (numbers, values) = match count {
            0 => (std::ptr::null_mut(), std::ptr::null_mut()),
            _ => (numbers.as_mut_ptr(), values.as_mut_ptr()),
        };
        let begun = Instant::now();
        let (at, len) = (image.bytes().as_ptr().cast_mut().cast(), image.bytes().len());
        // SAFETY: an input that lies within its own bytes (checked), of which the driver keeps no reference; a NUL-terminated
        // name; arrays of `count` options.
        let outcome = unsafe {
            self.driver.cuLinkAddData_v2(link.raw, kind, at, len, name.as_ptr(), count, numbers, values)
        };
        state.inputs = state.inputs.saturating_add(1);
        Ok(self.loaded(outcome, &state.options, image.bytes().len(), begun))
    }

    pub(crate) fn link_complete(&self, state: CUlinkState) -> CuResult<Linked> {
        let link = self.link(state)?;
        let mut state = lock(&link.state);
        if state.linked.is_some() {
            return Err(CUresult::INVALID_VALUE);
        }
        let outcome = self.driver.cuLinkComplete(link.raw);
        let (info, error) = state.options.logs();
        match outcome {
            Ok((at, len)) if at != 0 && len != 0 => {
                state.linked = Some((at, len));
                Ok((0, len as u64, info, error))
            }
            Ok(_) => Err(CUresult::UNKNOWN),
            Err(result) => {
                self.warn_once(&format!("a link fails ({result})"));
                Ok((result.0, 0, info, error))
            }
        }
    }

    pub(crate) fn linked_image(&self, state: CUlinkState, offset: u64) -> CuResult<Vec<u8>> {
        let link = self.link(state)?;
        let (at, len) = lock(&link.state).linked.ok_or(CUresult::INVALID_VALUE)?;
        let offset = usize::try_from(offset).map_err(|_| CUresult::INVALID_VALUE)?;
        let left = len.checked_sub(offset).ok_or(CUresult::INVALID_VALUE)?;
        let from = at.checked_add(offset).ok_or(CUresult::INVALID_VALUE)?;
        // SAFETY: the driver's image of `len` bytes, which lives as long as the link that `link` keeps; the piece lies in it.
        let piece = unsafe {
            std::slice::from_raw_parts(
                std::ptr::with_exposed_provenance::<u8>(from),
                left.min(INLINE_BYTES_MAX),
            )
        };
        Ok(piece.to_vec())
    }
}
