//! Whether kernels may print (`printf` is a call of `vprintf`). The driver brings what they have printed when somebody waits for them by
//! one of its own calls, so a guest may look at completion words only where no kernel prints.
//!
//! Images are searched for the name in a thread of their own, since most are compressed; until one has been searched, it may print.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use cuda_api::completion::Completion;
use cuda_api::linked;

use crate::image::{Entry, FATBIN_MAGIC, Given, KIND_ELF, KIND_PTX, entries, word};
use crate::lock::lock;

/// What a kernel that prints calls.
const NAME: &[u8] = b"vprintf";
/// Bytes of images that wait to be searched; more are taken for printing.
const WAITING_BYTES_MAX: u64 = 1 << 30;
/// Bytes of an entry once it is decompressed; a larger one is taken for printing.
const ENTRY_BYTES_MAX: usize = 512 << 20;

/// What is known of the images of a session.
pub(crate) struct Prints {
    completion: Option<Arc<dyn Completion>>,
    /// Major numbers of the devices' compute capabilities.
    majors: Vec<u32>,
    state: Arc<State>,
    searcher: Mutex<Option<Sender<Arc<Given>>>>,
}

#[derive(Default)]
struct State {
    waiting_bytes: AtomicU64,
    found: AtomicBool,
}

impl Prints {
    pub(crate) fn new(completion: Option<Arc<dyn Completion>>, majors: Vec<u32>) -> Self {
        Prints { completion, majors, state: Arc::default(), searcher: Mutex::default() }
    }

    /// An image is about to be loaded.
    pub(crate) fn look_at(&self, image: &Arc<Given>) {
        let Some(completion) = &self.completion else { return };
        if self.state.found.load(Ordering::Acquire) {
            return;
        }
        let bytes = image.len() as u64;
        let before = self.state.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        // After it was counted: see `search_all`.
        completion.set_may_print(true);
        let sent = before.saturating_add(bytes) <= WAITING_BYTES_MAX && self.send(image, completion);
        if !sent {
            self.state.found.store(true, Ordering::Release);
        }
    }

    fn send(&self, image: &Arc<Given>, completion: &Arc<dyn Completion>) -> bool {
        let mut searcher = lock(&self.searcher);
        if searcher.is_none() {
            let (sender, receiver) = channel();
            let (state, completion, majors) =
                (Arc::clone(&self.state), Arc::clone(completion), self.majors.clone());
            let search = move || search_all(&receiver, &state, &*completion, &majors);
            if let Err(error) = std::thread::Builder::new().name("prints".to_owned()).spawn(search) {
                log::warn!("no thread to search images for printf: waits are slower ({error})");
                return false;
            }
            *searcher = Some(sender);
        }
        searcher.as_ref().is_some_and(|sender| sender.send(Arc::clone(image)).is_ok())
    }
}

fn search_all(images: &Receiver<Arc<Given>>, state: &State, completion: &dyn Completion, majors: &[u32]) {
    for image in images {
        if !state.found.load(Ordering::Acquire) && may_print(image.bytes(), majors) {
            log::debug!("an image of {} bytes prints", image.len());
            state.found.store(true, Ordering::Release);
        }
        let bytes = image.len() as u64;
        drop(image);
        // Who brings an image counts it and then says that it may print: either that comes after this, or it is counted below.
        if state.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel) == bytes
            && !state.found.load(Ordering::Acquire)
        {
            completion.set_may_print(false);
            // Not `found`: it is set by this thread alone, or for good.
            if state.waiting_bytes.load(Ordering::Acquire) != 0 {
                completion.set_may_print(true);
            }
        }
    }
}

/// Whether what the driver takes from an image names the function.
fn may_print(image: &[u8], majors: &[u32]) -> bool {
    if image.starts_with(&linked::MAGIC) {
        let parts = linked::parts(image).unwrap_or_default();
        return parts.into_iter().any(|part| image.get(part).is_none_or(|part| fatbin_prints(part, majors)));
    }
    if word(image, 0) == Some(FATBIN_MAGIC) { fatbin_prints(image, majors) } else { names(image) }
}

fn names(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, NAME).is_some()
}

fn fatbin_prints(fatbin: &[u8], majors: &[u32]) -> bool {
    let Some(entries) = entries(fatbin) else { return true };
    let major = |entry: &Entry<'_>| entry.capability.checked_div(10).unwrap_or(0);
    majors.iter().any(|device| {
        let fits = |entry: &&Entry<'_>| entry.kind == KIND_ELF && major(entry) == *device;
        let code: Vec<&Entry<'_>> = entries.iter().filter(fits).collect();
        let searched: Vec<&Entry<'_>> = match code.is_empty() {
            // The driver compiles PTX where there is no machine code; anything that is neither is searched as well.
            true => entries.iter().filter(|entry| entry.kind != KIND_ELF).collect(),
            false => entries.iter().filter(|e| fits(e) || !matches!(e.kind, KIND_ELF | KIND_PTX)).collect(),
        };
        searched.into_iter().any(|entry| entry.unpack(ENTRY_BYTES_MAX).is_none_or(|bytes| names(&bytes)))
    })
}

#[cfg(test)]
#[path = "prints/tests.rs"]
mod tests;
