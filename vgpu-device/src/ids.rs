//! Numbers chosen by the guest, as types that only a checked number becomes.

use std::fmt;

use pci_layout::{control, ring};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $limit:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// How many there can be; every number is below it.
            pub const LIMIT: u32 = $limit;

            /// The number as an id, if it is below [`Self::LIMIT`].
            pub fn new(number: u32) -> Option<Self> {
                (number < Self::LIMIT).then_some(Self(number))
            }

            /// The number.
            pub fn get(self) -> u32 {
                self.0
            }

            /// The number as an index into an array of [`Self::LIMIT`] entries.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A session slot.
    SessionId, control::SESSIONS_MAX
}
id! {
    /// A ring of a session.
    RingId, ring::RINGS_MAX
}
id! {
    /// A pinned region of a session.
    RegionId, control::REGIONS_MAX
}
