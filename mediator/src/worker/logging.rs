//! The worker's log: each line, those for debugging not counted, says whose it is, and a guest cannot fill it, with one worker or with many one after the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use log::{Level, LevelFilter, Log, Metadata, Record};
use log_limit::LogLimit;

use crate::vm_page::WorkerPage;

/// Lines that a worker may write in a second, those for debugging not counted.
const LINES: u32 = 20;

/// Whose process this is.
static SUBJECT: OnceLock<String> = OnceLock::new();
/// Which counts the lines of all workers of the VM.
static PAGE: OnceLock<Arc<WorkerPage>> = OnceLock::new();
/// What comes now is the reason of the process's end: what the worker has said before holds it not back.
static LAST_WORDS: AtomicBool = AtomicBool::new(false);

struct OfWorker {
    to: Box<dyn Log>,
    limit: LogLimit,
}

/// Writes the process's log through `to`, up to `level`: what a worker logs is of a session, and much of it is the guest's doing. To be
/// called before [`crate::worker::main`], in place of making `to` the log itself.
pub fn start_log(to: Box<dyn Log>, level: LevelFilter) {
    // A log that is there already stays.
    if log::set_boxed_logger(Box::new(OfWorker { to, limit: LogLimit::new(LINES) })).is_ok() {
        log::set_max_level(level);
    }
}

/// From now on lines count with those of the VM's other workers.
pub(super) fn count_in(page: Arc<WorkerPage>) {
    // Once: a worker has one VM.
    let _ = PAGE.set(page);
}

/// From now on lines are of this session.
pub(super) fn name_session(vm: u32, session: u32, process: u32) {
    // Once: a worker has one session.
    let _ = SUBJECT.set(format!("VM {vm} session {session} (guest process {process}): "));
}

/// The next line says why the process ends.
pub(super) fn last_words() {
    LAST_WORDS.store(true, Ordering::Relaxed);
}

impl OfWorker {
    fn pass(&self) -> Option<u64> {
        let held = if LAST_WORDS.load(Ordering::Relaxed) { 0 } else { self.limit.pass()? };
        let of_others = PAGE.get().map_or(Some(0), |page| page.pass_line())?;
        Some(held.saturating_add(of_others))
    }
}

impl Log for OfWorker {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.to.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.to.enabled(record.metadata()) {
            return;
        }
        // Whoever asks for these wants all of them, as they are.
        if record.level() > Level::Info {
            return self.to.log(record);
        }
        let Some(held) = self.pass() else { return };
        let subject = SUBJECT.get().map_or("", String::as_str);
        let text = record.args();
        let write = |args: std::fmt::Arguments<'_>| {
            let line = Record::builder()
                .metadata(record.metadata().clone())
                .args(args)
                .module_path(record.module_path())
                .file(record.file())
                .line(record.line())
                .build();
            self.to.log(&line);
        };
        if held == 0 {
            write(format_args!("{subject}{text}"));
        } else {
            write(format_args!("{subject}{text} ({held} lines held back)"));
        }
    }

    fn flush(&self) {
        self.to.flush();
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl Log for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= Level::Debug
        }

        fn log(&self, record: &Record<'_>) {
            self.0.lock().expect("lock").push(format!("{} {}", record.target(), record.args()));
        }

        fn flush(&self) {}
    }

    #[test]
    fn a_guest_does_not_fill_it_and_debugging_is_not_cut() {
        let kept = Kept::default();
        let log = OfWorker { to: Box::new(kept.clone()), limit: LogLimit::new(3) };
        let write = |level, text: &str| {
            log.log(&Record::builder().level(level).target("here").args(format_args!("{text}")).build());
        };
        (0..10).for_each(|_| write(Level::Error, "again"));
        (0..10).for_each(|_| write(Level::Debug, "in detail"));
        write(Level::Trace, "nobody wants it");
        let lines = kept.0.lock().expect("lock").clone();
        assert_eq!(lines.iter().filter(|line| line.ends_with("again")).count(), 3);
        assert_eq!(lines.iter().filter(|line| line.ends_with("in detail")).count(), 10);
        assert_eq!((lines.len(), lines[0].starts_with("here ")), (13, true), "{lines:?}");
    }
}
