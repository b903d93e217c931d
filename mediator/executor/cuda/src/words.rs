//! Completion words: the device writes into the session page that a stream has come to a point, and the guest's thread, which looks at
//! it, knows as soon as the driver's own wait would.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cuda_api::CuResult;
use cuda_api::completion::Completion;
use cuda_api::types::{CUresult, CUstream};

use crate::Cuda;
use crate::context::Context;
use crate::lock::lock;
use crate::thread::Thread;

/// CU_MEMHOSTREGISTER_PORTABLE.
const REGISTER_PORTABLE: u32 = 1;
/// CU_STREAM_WRITE_VALUE_DEFAULT: what the stream did before is seen by who sees the word.
const WRITE_DEFAULT: u32 = 0;

/// The session's words, as the driver knows them.
pub(crate) struct Words {
    completion: Option<Arc<dyn Completion>>,
    registered: Mutex<Registered>,
}

#[derive(Default)]
struct Registered {
    /// The context in which the page is registered; with its end the registration ends.
    context: Option<Arc<Context>>,
    /// It was registered once: the guest takes words for granted, and what goes wrong later is no error of its calls.
    ever: bool,
}

impl Words {
    pub(crate) fn new(completion: Option<Arc<dyn Completion>>) -> Self {
        Words { completion, registered: Mutex::default() }
    }

    /// A ring's word says `value`. The guest's word for it would do as well: it is about what the guest itself is told.
    pub(crate) fn says(&self, ring: u32, value: u64) -> bool {
        let Some(word) = self.completion.as_ref().and_then(|completion| completion.word(ring)) else {
            return false;
        };
        // SAFETY: a word of the session page (`Completion::word`), mapped as long as this process, reached through atomics only.
        unsafe { AtomicU64::from_ptr(word.as_ptr()) }.load(Ordering::Acquire) == value
    }
}

impl Cuda {
    /// Has the word of the thread's ring written once the stream gets there. After the first time this does not fail: a guest to whom
    /// no word comes asks for the stream.
    pub(crate) fn signal(&self, thread: &Thread, stream: CUstream, value: u64) -> CuResult<()> {
        let Some(completion) = &self.words.completion else { return Err(CUresult::NOT_SUPPORTED) };
        let word = completion.word(thread.ring).ok_or(CUresult::NOT_SUPPORTED)?;
        if !self.registered_words(thread, &**completion)? {
            return Ok(());
        }
        let Ok(stream) = self.stream(stream) else { return Ok(()) };
        let address = word.as_ptr().expose_provenance() as u64;
        // SAFETY: a word of the session page (`Completion::word`), registered above, that stays mapped as long as this process.
        let written =
            unsafe { self.driver.cuStreamWriteValue64_v2(stream.raw, address, value, WRITE_DEFAULT) };
        match written {
            Ok(()) => stream.signalled(thread.ring, value),
            Err(error) => log::debug!("no completion word: {error}"),
        }
        Ok(())
    }

    /// Whether the driver knows the session page.
    fn registered_words(&self, thread: &Thread, completion: &dyn Completion) -> CuResult<bool> {
        let mut registered = lock(&self.words.registered);
        if registered.context.as_ref().is_some_and(|context| context.alive()) {
            return Ok(true);
        }
        let context = thread.owner()?.clone();
        let (page, len) = completion.page();
        // SAFETY: the worker keeps the page mapped until the process ends.
        match unsafe { self.driver.cuMemHostRegister_v2(page.as_ptr().cast(), len, REGISTER_PORTABLE) } {
            Ok(()) => {
                *registered = Registered { context: Some(context), ever: true };
                Ok(true)
            }
            Err(error) => {
                log::warn!("the session page cannot be registered, waits are slower: {error}");
                if registered.ever { Ok(false) } else { Err(CUresult::NOT_SUPPORTED) }
            }
        }
    }
}
