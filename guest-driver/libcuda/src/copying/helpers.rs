//! The threads that help.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::Work;

/// Threads that help at most: with the caller, enough for what a bus carries.
const HELPERS_MAX: usize = 4;
/// How long a helper looks for more before it sleeps.
const LOOK: Duration = Duration::from_micros(50);
/// On fewer processors a looking thread gives its own away between looks: whoever is waited for may need it.
const PROCESSORS_FEW: usize = 8;
/// Stack of a helper: it copies. A handler of the program's for memory faults may run on it, and the program's thread-local data lies
/// in it. Bytes.
const STACK_BYTES: usize = 1 << 20;

/// Copies to help with.
static WORK: Mutex<Vec<Arc<Work>>> = Mutex::new(Vec::new());
static CHANGED: Condvar = Condvar::new();
/// Grows whenever there is more to take.
static NEWS: AtomicU64 = AtomicU64::new(0);
/// Helpers that sleep, or are about to.
static SLEEPING: AtomicUsize = AtomicUsize::new(0);
/// How many helpers were started, once they were.
static STARTED: Mutex<Option<usize>> = Mutex::new(None);

fn work() -> MutexGuard<'static, Vec<Arc<Work>>> {
    WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Asks for help with a copy. False: there is nobody.
pub(super) fn join(with: &Arc<Work>) -> bool {
    if !started() {
        return false;
    }
    work().push(with.clone());
    true
}

/// No more help is wanted. What was taken may still be being copied.
pub(super) fn leave(with: &Arc<Work>) {
    work().retain(|other| !Arc::ptr_eq(other, with));
}

/// There is more to take.
pub(super) fn more() {
    NEWS.fetch_add(1, Ordering::SeqCst);
    // Either this sees the sleeper, or the sleeper sees the news: each says its own first (SeqCst).
    if SLEEPING.load(Ordering::SeqCst) != 0 {
        drop(work());
        CHANGED.notify_all();
    }
}

/// There are helpers. They are started by the first long copy of a thread that may use more than one processor, since they may run
/// where that thread may.
fn started() -> bool {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(helpers) = *started {
        return helpers != 0;
    }
    let wanted = HELPERS_MAX.min(processors().min(allowed()).saturating_sub(1));
    if wanted == 0 {
        return false;
    }
    let before = block_signals();
    let helpers = (0..wanted)
        .map_while(|i| {
            let thread = std::thread::Builder::new().name(format!("vgpu-copy-{i}")).stack_size(STACK_BYTES);
            thread
                .spawn(help)
                .inspect_err(|error| crate::log::say(|| format!("no thread for copies: {error}")))
                .ok()
        })
        .count();
    crate::host_function::restore_signals(&before);
    *started = Some(helpers);
    helpers != 0
}

/// Processors that the calling thread may use.
fn allowed() -> usize {
    // SAFETY: plain data, filled in by the call, which asks of the calling thread.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        match libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) {
            0 => usize::try_from(libc::CPU_COUNT(&set)).unwrap_or(1),
            // More processors than the set has room for.
            _ => usize::MAX,
        }
    }
}

/// The program's signals are for the program's threads; but for what a helper itself meets in the program's memory the program may have
/// a handler.
fn block_signals() -> libc::sigset_t {
    let before = crate::host_function::block_signals();
    // SAFETY: plain data, which the calls fill in; they change the calling thread's mask only.
    unsafe {
        let mut own = std::mem::zeroed();
        libc::sigemptyset(&raw mut own);
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            libc::sigaddset(&raw mut own, signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const own, std::ptr::null_mut());
    }
    before
}

/// A helper's work, for as long as the process lives.
fn help() {
    crate::thread::forbid_calls();
    loop {
        let news = NEWS.load(Ordering::SeqCst);
        let open = work().iter().find(|work| work.has_open()).cloned();
        match open {
            Some(work) => while work.copy_one() {},
            None => wait(news),
        }
    }
}

/// Returns when there are other news.
fn wait(news: u64) {
    let start = Instant::now();
    let few = processors() < PROCESSORS_FEW;
    while start.elapsed() < LOOK {
        for _ in 0..32 {
            if NEWS.load(Ordering::Relaxed) != news {
                return;
            }
            std::hint::spin_loop();
        }
        if few {
            std::thread::yield_now();
        }
    }
    let mut work = work();
    SLEEPING.fetch_add(1, Ordering::SeqCst);
    while NEWS.load(Ordering::SeqCst) == news {
        work = CHANGED.wait(work).unwrap_or_else(PoisonError::into_inner);
    }
    SLEEPING.fetch_sub(1, Ordering::SeqCst);
}
