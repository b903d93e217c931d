//! What the device has done so far, for the totals lines and the tests.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($( $(#[doc = $doc:literal])+ $name:ident ),+ $(,)?) => {
        /// Counters that grow from the device's start on.
        #[derive(Debug, Default)]
        pub struct Counters { $( $(#[doc = $doc])+ pub(crate) $name: Counter ),+ }

        /// The counters' values at one time.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct CountersSnapshot { $( $(#[doc = $doc])+ pub $name: u64 ),+ }

        impl Counters {
            /// The values now.
            pub fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $( $name: self.$name.get() ),+ }
            }
        }
    };
}

counters! {
    /// Control requests taken in.
    requests,
    /// Answers given; equals `requests` when nothing is outstanding.
    answers,
    /// Answers with an error.
    errors,
    /// Requests whose permit was dropped unanswered: a fault of ours, answered all the same.
    dropped,
    /// Kicks of the control queue.
    kicks,
    /// Kicks passed on to a session.
    session_kicks,
    /// Wake events asked for.
    wakes,
    /// Wake events that joined one still queued.
    wakes_coalesced,
    /// Sessions that died without being closed.
    deaths,
    /// Events handed to the front.
    events,
    /// Resets: of the device, by a new boot nonce, by the front going away.
    resets,
}

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The value.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
