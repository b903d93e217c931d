//! Device memory that the program has freed and may want again: small allocations, which the driver, too, keeps and gives out again without
//! asking the system. The worker still has them; to the program they are gone.
//!
//! cuMemFree waits for the context's work. What comes in here is therefore in nobody's use, and can be given out at once. Whoever could
//! see that memory is held gets it back first: a question for free memory, an allocation that fails, the context's end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cuda_api::calls::memory::row::cuMemFree_v2;
use cuda_api::types::CUcontext;
use cuda_api::{CUresult, CuResult};

use crate::gate::Lane;
use crate::objects::lock;
use crate::process::Process;
use crate::ranges::{Range, RangeKind};

/// Bytes of an allocation at most. Larger ones have pages of their own, which the driver gives back to the system.
const BYTES_MAX: u64 = 1 << 20;
/// Allocations that are kept.
const KEPT_MAX: usize = 8;

static KEPT: Mutex<Vec<Range>> = Mutex::new(Vec::new());
/// How many there are, without the lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Another process may have opened some memory of this one: what is freed is freed.
static SHARED: AtomicBool = AtomicBool::new(false);

/// Memory of the process is about to be shared with others.
pub fn keep_no_more() {
    SHARED.store(true, Ordering::Relaxed);
}

/// Whether some memory is kept.
#[inline]
pub fn any() -> bool {
    COUNT.load(Ordering::Relaxed) != 0
}

/// A range of this kind is kept once nobody uses it.
pub fn may_keep(range: &Range) -> bool {
    range.kind == RangeKind::Device
        && range.len <= BYTES_MAX
        && !SHARED.load(Ordering::Relaxed)
        && COUNT.load(Ordering::Relaxed) < KEPT_MAX
}

/// A range that nobody uses any more, taken out of the process's list, is kept. False: free it.
pub fn keep(range: &Range) -> bool {
    if !may_keep(range) {
        return false;
    }
    let mut kept = lock(&KEPT);
    if kept.len() >= KEPT_MAX {
        return false;
    }
    kept.push(*range);
    COUNT.store(kept.len(), Ordering::Relaxed);
    true
}

/// Memory of exactly this length in a context.
pub fn again(context: CUcontext, device: i32, len: u64) -> Option<u64> {
    if !any() {
        return None;
    }
    let mut kept = lock(&KEPT);
    let fits = |range: &Range| range.len == len && range.context == context.0 && range.device == device;
    let found = kept.iter().rposition(fits)?;
    let range = kept.swap_remove(found);
    COUNT.store(kept.len(), Ordering::Relaxed);
    Some(range.start)
}

fn take(of: impl Fn(&Range) -> bool) -> Vec<Range> {
    let mut kept = lock(&KEPT);
    let (gone, left) = kept.drain(..).partition(of);
    *kept = left;
    COUNT.store(kept.len(), Ordering::Relaxed);
    gone
}

/// Gives everything back to the worker.
///
/// # Errors
/// The transport's failure.
#[cold]
pub fn flush(process: &Process, lane: &mut Lane<'_>) -> CuResult<()> {
    for range in take(|_| true) {
        match lane.call_alone::<cuMemFree_v2>(&(range.start,), false) {
            Ok(()) => process.reservations.release(range.start, range.len),
            Err(error @ (CUresult::OPERATING_SYSTEM | CUresult::UNKNOWN)) => return Err(error),
            // It goes with the session.
            Err(error) => crate::log::say(|| format!("freed memory is not taken back: {error}")),
        }
    }
    Ok(())
}

/// A context has ended, and its memory with it.
pub fn context_destroyed(process: &Process, context: CUcontext) {
    for range in take(|range| range.context == context.0) {
        process.reservations.release(range.start, range.len);
    }
}
