//! Session slots that are free.

use std::sync::{Mutex, PoisonError};

use vgpu_device::SessionId;

/// The slots in use.
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: Mutex<Vec<bool>>,
}

impl Slots {
    /// Takes the lowest free slot; `None` when there is none.
    pub(super) fn take(&self) -> Option<SessionId> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.resize(SessionId::LIMIT as usize, false);
        let free = taken.iter().position(|taken| !taken)?;
        *taken.get_mut(free)? = true;
        u32::try_from(free).ok().and_then(SessionId::new)
    }

    /// Gives a slot back.
    pub(super) fn give_back(&self, slot: SessionId) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = taken.get_mut(slot.index()) {
            *taken = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_taken_once_and_the_lowest_free_first() {
        let slots = Slots::default();
        let all: Vec<u32> = std::iter::from_fn(|| slots.take()).map(SessionId::get).collect();
        assert_eq!(all, (0..SessionId::LIMIT).collect::<Vec<_>>());
        slots.give_back(SessionId::new(7).unwrap());
        slots.give_back(SessionId::new(5).unwrap());
        assert_eq!(slots.take(), SessionId::new(5));
        assert_eq!(slots.take(), SessionId::new(7));
        assert_eq!(slots.take(), None);
    }
}
