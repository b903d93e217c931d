//! The linker, for one text: there is nothing to link it with. The linked image is the text.

use std::sync::Mutex;

use cuda_api::CuResult;
use cuda_api::types::CUresult;
use cuda_api::wire::INLINE_BYTES_MAX;

use crate::Soft;
use crate::lock::lock;
use crate::program::{Refusal, parse};

/// CU_JIT_INPUT_PTX and CU_JIT_INPUT_FATBINARY.
const INPUT_PTX: u32 = 1;
const INPUT_FATBIN: u32 = 2;

/// A link.
pub(crate) struct Link {
    pub(crate) context: u32,
    /// Room for the error log, in bytes.
    pub(crate) error_room: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was added.
    text: Option<String>,
    complete: bool,
}

impl Link {
    pub(crate) fn new(context: u32, error_room: u32) -> Self {
        Link { context, error_room, state: Mutex::default() }
    }

    pub(crate) fn add(&self, soft: &Soft, kind: u32, image: u64) -> Result<(), Refusal> {
        let refusal =
            |result, log: &str| Refusal { result, log: format!("the software executor's linker: {log}") };
        let mut state = lock(&self.state);
        if state.complete {
            return Err(CUresult::INVALID_VALUE.into());
        }
        if kind != INPUT_PTX && kind != INPUT_FATBIN {
            return Err(refusal(CUresult::NO_BINARY_FOR_GPU, "it takes PTX"));
        }
        if state.text.is_some() {
            return Err(refusal(CUresult::NOT_SUPPORTED, "it takes one input"));
        }
        let text = lock(&soft.images).text(image)?;
        parse(&text)?;
        state.text = Some(text);
        Ok(())
    }

    /// The linked image's bytes: the text's, and the NUL that ends it.
    pub(crate) fn complete(&self) -> CuResult<u64> {
        let mut state = lock(&self.state);
        let text = state.text.as_ref().ok_or(CUresult::INVALID_IMAGE)?;
        let bytes = (text.len() as u64).saturating_add(1);
        state.complete = true;
        Ok(bytes)
    }

    /// A piece of it.
    pub(crate) fn image(&self, offset: u64) -> CuResult<Vec<u8>> {
        let state = lock(&self.state);
        let text = state.text.as_ref().filter(|_| state.complete).ok_or(CUresult::INVALID_VALUE)?;
        let offset = usize::try_from(offset).map_err(|_| CUresult::INVALID_VALUE)?;
        let rest = text.as_bytes().get(offset..).ok_or(CUresult::INVALID_VALUE)?;
        Ok(rest.iter().copied().chain(std::iter::once(0)).take(INLINE_BYTES_MAX).collect())
    }
}
