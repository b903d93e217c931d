//! Which posted calls need no place in the order between threads.
//!
//! The worker carries posted calls of different rings out in the order of their tickets, one at a time: a thread waits for
//! another at every call. Work in a stream that one thread alone uses needs none of that. CUDA orders it after work of other
//! threads only through what they share, and that is known here: such work goes without its turn
//! ([`FRAME_UNORDERED`](pci_layout::ring::FRAME_UNORDERED)) as long as
//!
//! - the stream is of the program's making, and the thread that used it last is this one ([`Use`]); and
//! - no other thread has posted anything but such work since it last waited for a call ([`Unsettled`]): whatever it
//!   posted before that wait has been issued.
//!
//! Calls that another thread's must follow (an event recorded, an object made, a copy in the default stream) are never of that
//! kind, so the first of them brings the order back for everybody.

use std::sync::atomic::{AtomicU32, Ordering};

/// Threads that have posted calls which have a place in the order, and have waited for none since.
static UNSETTLED: AtomicU32 = AtomicU32::new(0);

/// Threads that are inside a call that travels, or have posted any and waited for none since.
static ACTIVE: AtomicU32 = AtomicU32::new(0);

/// How a thread finds a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It used it last.
    Own,
    /// Nobody has used it yet.
    Fresh,
    /// Another thread used it last.
    Others,
}

/// A thread's part in [`UNSETTLED`] and [`ACTIVE`]; given back at its end, before which the worker has issued everything.
#[derive(Debug, Default)]
pub struct Unsettled {
    posted: bool,
    active: bool,
}

impl Unsettled {
    /// A call is about to take its ticket.
    #[inline]
    pub fn sending(&mut self) {
        if !self.active {
            self.active = true;
            ACTIVE.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A call with a place in the order is about to be posted. Said before it can be seen to have returned.
    #[inline]
    pub fn posted(&mut self) {
        if !self.posted {
            self.posted = true;
            UNSETTLED.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A call was waited for: all that this thread posted before has been issued.
    #[inline]
    pub fn waited(&mut self) {
        if self.posted {
            self.posted = false;
            UNSETTLED.fetch_sub(1, Ordering::SeqCst);
        }
        if self.active {
            self.active = false;
            ACTIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// No other thread has posted calls that this one's might have to follow.
    #[inline]
    pub fn alone(&self) -> bool {
        UNSETTLED.load(Ordering::Acquire) == u32::from(self.posted)
    }

    /// No other thread has a call under way that may not have been issued. Asked after a ticket was taken, it speaks for all calls with
    /// smaller ones: a thread says that it is sending before it takes its own.
    #[inline]
    pub fn others_are_quiet(&self) -> bool {
        ACTIVE.load(Ordering::SeqCst) == u32::from(self.active)
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.waited();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_that_has_posted_unsettles_the_others() {
        let (mut first, mut second) = (Unsettled::default(), Unsettled::default());
        assert!(first.alone() && second.alone());
        first.posted();
        first.posted();
        assert!(first.alone() && !second.alone());
        second.posted();
        assert!(!first.alone() && !second.alone());
        first.waited();
        first.waited();
        assert!(!first.alone() && second.alone());
        drop(second);
        assert!(first.alone());
        // The same for calls of any kind. In one test, since the counts are the process's.
        let (mut first, mut second) = (Unsettled::default(), Unsettled::default());
        first.sending();
        first.sending();
        assert!(first.others_are_quiet() && !second.others_are_quiet());
        second.sending();
        assert!(!first.others_are_quiet());
        second.waited();
        assert!(first.others_are_quiet() && !second.others_are_quiet());
        drop(first);
        assert!(second.others_are_quiet());
    }
}
