//! Error log management: the log is this library's own. What it has to say (what is refused, what goes wrong, which call has answered
//! which error) is kept here whether or not it is shown on stderr, the newest of it, and handed to whoever has registered for it. The
//! lines are in driver 580's form; the host driver's log stays with the host.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::{Mutex, TryLockError};
use std::time::{SystemTime, UNIX_EPOCH};

use cuda_api::guest::{finish, not_null};
use cuda_api::{CUresult, CuResult};

use crate::objects::lock;

/// Bytes of messages that are kept (CUDA Driver API, cuLogsDumpToMemory).
const LOG_BYTES_MAX: usize = 25600;
/// Functions registered at once.
const CALLBACKS_MAX: usize = 1024;
/// CU_LOG_LEVEL_ERROR.
const LEVEL_ERROR: u32 = 0;
/// CU_LOG_LEVEL_WARNING: the call itself says whether it failed.
const LEVEL_WARNING: u32 = 1;
/// What a copy begins with that leaves older messages out.
const TRUNCATED: &str = "[older messages are left out]\n";

/// CUlogsCallback.
type Callback = unsafe extern "C" fn(data: *mut c_void, level: u32, message: *mut c_char, len: usize);

#[derive(Clone, Copy)]
struct Registered {
    id: usize,
    call: Callback,
    data: *mut c_void,
}
// SAFETY: an address that only the program's own function gets, as it asked.
unsafe impl Send for Registered {}

#[derive(Default)]
struct Log {
    /// Each ends with a newline.
    messages: VecDeque<String>,
    bytes: usize,
    /// How many were dropped: the number of the first that is kept.
    dropped: u32,
    callbacks: Vec<Registered>,
    last_id: usize,
}

static LOG: Mutex<Log> =
    Mutex::new(Log { messages: VecDeque::new(), bytes: 0, dropped: 0, callbacks: Vec::new(), last_id: 0 });

impl Log {
    fn add(&mut self, message: &str) {
        let line = format!("{message}\n");
        self.bytes += line.len();
        self.messages.push_back(line);
        while self.bytes > LOG_BYTES_MAX {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes -= oldest.len();
            self.dropped = self.dropped.wrapping_add(1);
        }
    }

    /// Keeps a message; those who are to be told come back.
    fn note(&mut self, level: u32, message: &str) -> Vec<Registered> {
        self.add(&line(level, message));
        self.callbacks.clone()
    }

    fn end(&self) -> u32 {
        self.dropped.wrapping_add(self.messages.len() as u32)
    }

    /// The messages from one on (`None`: all that are kept), and whether some before those are gone.
    fn from(&self, first: Option<u32>) -> (impl DoubleEndedIterator<Item = &str> + Clone, bool) {
        let skip = first.map_or(0, |first| first.wrapping_sub(self.dropped) as i32);
        let kept = self.messages.iter().map(String::as_str).skip(usize::try_from(skip).unwrap_or(0));
        (kept, skip < 0)
    }

    /// As much of the newest as fits `room` bytes with a NUL; nothing where not even one message does.
    fn text(&self, first: Option<u32>, room: usize) -> CuResult<String> {
        let (messages, gone) = self.from(first);
        if messages.clone().next().is_none() {
            return Ok(String::new());
        }
        let room = room.checked_sub(1).ok_or(CUresult::INVALID_VALUE)?;
        let total: usize = messages.clone().map(str::len).sum();
        if !gone && total <= room {
            return Ok(messages.collect());
        }
        let room = room.checked_sub(TRUNCATED.len()).ok_or(CUresult::INVALID_VALUE)?;
        let mut newest = Vec::new();
        let mut used = 0;
        for message in messages.rev() {
            if used + message.len() > room {
                break;
            }
            used += message.len();
            newest.push(message);
        }
        if newest.is_empty() {
            return Err(CUresult::INVALID_VALUE);
        }
        newest.push(TRUNCATED);
        Ok(newest.into_iter().rev().collect())
    }
}

/// A line as driver 580 writes it: the time of day, the thread, who speaks, how bad it is.
fn line(level: u32, message: &str) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = libc::time_t::try_from(since.as_secs()).unwrap_or(0);
    // SAFETY: a structure of numbers and a pointer, which is read nowhere.
    let mut day: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: two locals; the call that answers by its own storage is another one.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut day) };
    // SAFETY: no arguments; the number names the calling thread.
    let thread = unsafe { libc::pthread_self() };
    let letter = if level == LEVEL_ERROR { 'E' } else { 'W' };
    format!(
        "[{:02}:{:02}:{:02}.{:03}][{thread}][CUDA][{letter}] {message}",
        day.tm_hour,
        day.tm_min,
        day.tm_sec,
        since.subsec_millis()
    )
}

/// A call has answered an error. CUDA_ERROR_NOT_READY is none: programs ask until it goes.
#[cold]
pub fn returned(name: &'static str, result: CUresult) {
    if result == CUresult::NOT_READY {
        return;
    }
    let error = result.name().and_then(|error| error.to_str().ok()).unwrap_or("an unknown error");
    let message = format!("Returning {} ({error}) from {name}", result.0);
    // In the child of a fork the lock may be held for good by a thread that is not there: whoever finds it held says nothing.
    let callbacks = match LOG.try_lock() {
        Ok(mut log) => log.note(LEVEL_ERROR, &message),
        Err(TryLockError::Poisoned(log)) => log.into_inner().note(LEVEL_ERROR, &message),
        Err(TryLockError::WouldBlock) => return,
    };
    tell(callbacks, LEVEL_ERROR, &message);
}

/// Keeps a message and hands it to those who have registered.
pub fn note(message: &str) {
    let callbacks = lock(&LOG).note(LEVEL_WARNING, message);
    tell(callbacks, LEVEL_WARNING, message);
}

fn tell(callbacks: Vec<Registered>, level: u32, message: &str) {
    if callbacks.is_empty() {
        return;
    }
    let Ok(text) = CString::new(message) else { return };
    let len = text.as_bytes().len();
    for registered in callbacks {
        let mut copy = text.as_bytes_with_nul().to_vec();
        // SAFETY: a function of the program's, called as CUDA says, without a lock held. It gets a copy that is its own meanwhile.
        unsafe { (registered.call)(registered.data, level, copy.as_mut_ptr().cast(), len) };
    }
}

/// cuLogsRegisterCallback.
pub unsafe fn cuLogsRegisterCallback(
    callback: *const c_void,
    data: *mut c_void,
    to: *mut *mut c_void,
) -> CUresult {
    // SAFETY: NULL or a CUlogsCallback by CUDA's contract; both are a pointer's size.
    let callback = unsafe { std::mem::transmute::<*const c_void, Option<Callback>>(callback) };
    let Some(call) = callback else { return CUresult::INVALID_VALUE };
    let mut log = lock(&LOG);
    if log.callbacks.len() >= CALLBACKS_MAX {
        return CUresult::OUT_OF_MEMORY;
    }
    log.last_id += 1;
    let id = log.last_id;
    log.callbacks.push(Registered { id, call, data });
    if !to.is_null() {
        // SAFETY: not NULL; room for a handle by CUDA's contract. The handle is a number.
        unsafe { to.write(std::ptr::without_provenance_mut(id)) };
    }
    CUresult::SUCCESS
}

/// cuLogsUnregisterCallback.
pub unsafe fn cuLogsUnregisterCallback(callback: *mut c_void) -> CUresult {
    let mut log = lock(&LOG);
    let before = log.callbacks.len();
    log.callbacks.retain(|registered| registered.id != callback.addr());
    if log.callbacks.len() == before { CUresult::INVALID_VALUE } else { CUresult::SUCCESS }
}

/// cuLogsCurrent.
/// Driver 580 does not look at the flags, which are to be 0, but for those of the copy to memory.
pub unsafe fn cuLogsCurrent(to: *mut u32, _flags: u32) -> CUresult {
    finish((|| {
        not_null(to)?;
        // SAFETY: not NULL; room for an iterator by CUDA's contract.
        unsafe { to.write(lock(&LOG).end()) };
        Ok(())
    })())
}

/// Reads and advances an iterator, which may be NULL.
///
/// # Safety
/// `iterator` is NULL or points to one.
unsafe fn dump(iterator: *mut u32, room: usize) -> CuResult<String> {
    let log = lock(&LOG);
    // SAFETY: by this function's contract.
    let first = unsafe { iterator.as_ref() }.copied();
    // It counts messages, and may be so old that its number has come around again: the half before the end is behind.
    if first.is_some_and(|first| (first.wrapping_sub(log.end()) as i32) > 0) {
        return Err(CUresult::INVALID_VALUE);
    }
    let text = log.text(first, room)?;
    // SAFETY: by this function's contract.
    if let Some(iterator) = unsafe { iterator.as_mut() } {
        *iterator = log.end();
    }
    Ok(text)
}

/// cuLogsDumpToFile.
pub unsafe fn cuLogsDumpToFile(iterator: *mut u32, path: *const c_char, _flags: u32) -> CUresult {
    use std::os::unix::ffi::OsStrExt as _;
    finish((|| {
        not_null(path.cast_mut())?;
        // SAFETY: not NULL; NUL-terminated by CUDA's contract.
        let path = std::ffi::OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes());
        let mut file = std::fs::File::create(path).map_err(|_| CUresult::INVALID_VALUE)?;
        // SAFETY: CUDA's contract with the caller.
        let text = unsafe { dump(iterator, usize::MAX) }?;
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(|_| CUresult::OPERATING_SYSTEM)
    })())
}

/// cuLogsDumpToMemory.
pub unsafe fn cuLogsDumpToMemory(
    iterator: *mut u32,
    buffer: *mut c_char,
    size: *mut usize,
    flags: u32,
) -> CUresult {
    finish((|| {
        not_null(buffer)?;
        not_null(size)?;
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: not NULL; CUDA's contract with the caller.
        let text = unsafe { dump(iterator, size.read()) }.inspect_err(|_| {
            // SAFETY: as above.
            unsafe { size.write(0) }
        })?;
        // SAFETY: not NULL; the text and its NUL fit the size that the caller gave. Where there is no text, nothing is written.
        unsafe {
            if text.is_empty() {
                size.write(0);
                return Ok(());
            }
            buffer.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
            buffer.add(text.len()).write(0);
            size.write(text.len());
        }
        Ok(())
    })())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_messages_are_kept_and_copied() {
        let mut log = Log::default();
        assert_eq!((log.end(), log.text(None, 1)), (0, Ok(String::new())));
        assert_eq!(log.text(None, 0), Ok(String::new()));
        log.add("first");
        let after_first = log.end();
        log.add("second");
        assert_eq!(log.text(None, 100), Ok("first\nsecond\n".into()));
        assert_eq!(log.text(Some(after_first), 100), Ok("second\n".into()));
        assert_eq!(log.text(Some(log.end()), 100), Ok(String::new()));
        let room = TRUNCATED.len() + "second\n".len() + 1;
        assert_eq!(log.text(None, 14), Ok("first\nsecond\n".into()));
        log.add(&"x".repeat(40));
        assert_eq!(log.text(None, room), Err(CUresult::INVALID_VALUE), "the newest does not fit");
        for _ in 0..2000 {
            log.add("a message of some length");
        }
        assert!(log.bytes <= LOG_BYTES_MAX);
        assert!(log.text(Some(after_first), usize::MAX).unwrap().starts_with(TRUNCATED));
    }
}
