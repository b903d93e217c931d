//! The atomics that the protocol runs on: the machine's, or loom's when it is modelled.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Declares the words of a shared structure once: as atomics at an offset of mapped memory, or, under loom, as fields
/// of a model that the ends share.
macro_rules! shared_words {
    ($memory:ident, $model:ident { $( $(#[doc = $doc:literal])+ $name:ident : $word:ident at $offset:expr; )+ }) => {
        #[cfg(loom)]
        pub(crate) struct $model { $( $name: $crate::atomics::$word, )+ }

        #[cfg(loom)]
        const _: &[usize] = &[ $( $offset as usize ),+ ];

        #[cfg(loom)]
        impl $model {
            pub(crate) fn new() -> Self {
                Self { $( $name: $crate::atomics::$word::new(0), )+ }
            }
        }

        impl $memory {
            $(
                $(#[doc = $doc])+
                #[inline]
                pub(crate) fn $name(&self) -> &$crate::atomics::$word {
                    #[cfg(not(loom))]
                    {
                        const OFFSET: usize = $offset as usize;
                        // SAFETY: the unsafe constructor promises memory longer than any of these offsets, page aligned
                        // and mapped while `self` lives; other processes reach it by atomics as well.
                        unsafe { $crate::atomics::$word::from_ptr(self.base().add(OFFSET).cast()) }
                    }
                    #[cfg(loom)]
                    {
                        &self.model.$name
                    }
                }
            )+
        }
    };
}

pub(crate) use shared_words;
