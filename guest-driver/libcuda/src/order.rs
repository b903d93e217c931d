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

/// A thread's part in [`UNSETTLED`]; given back at its end, before which the worker has issued everything.
#[derive(Debug, Default)]
pub struct Unsettled(bool);

impl Unsettled {
    /// A call with a place in the order is about to be posted. Said before it can be seen to have returned.
    #[inline]
    pub fn posted(&mut self) {
        if !self.0 {
            self.0 = true;
            UNSETTLED.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A call was waited for: all that this thread posted before has been issued.
    #[inline]
    pub fn waited(&mut self) {
        if self.0 {
            self.0 = false;
            UNSETTLED.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// No other thread has posted calls that this one's might have to follow.
    #[inline]
    pub fn alone(&self) -> bool {
        UNSETTLED.load(Ordering::Acquire) == u32::from(self.0)
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
    }
}
