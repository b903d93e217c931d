//! The supervisor's pen for a session page.

use std::mem::offset_of;

use pci_layout::ring::{SESSION_DEAD, SessionPage};

use crate::Piece;

/// Says in the session page that the session is over. Written through the file, not a mapping: see the crate's page.
pub(crate) fn write_dead(page: &Piece, reason: u32) {
    let put = |offset: usize, value: u32| {
        let at = page.offset.wrapping_add(offset as u64);
        rustix::io::pwrite(&*page.file, &value.to_le_bytes(), at)
    };
    // The guest reads the state first and the reason after it, so they are written the other way round; two writes to
    // one file keep their order.
    let written = put(offset_of!(SessionPage, reason), reason)
        .and_then(|_| put(offset_of!(SessionPage, state), SESSION_DEAD));
    if let Err(error) = written {
        log::warn!("a session page cannot be written: {error}");
    }
}
