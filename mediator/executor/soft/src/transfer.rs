//! Moving bytes: copies, fills and single words. Ranges are resolved here, right before they are followed, so that an
//! operation that waited in a stream meets the memory as it is then.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use cuda_api::CuResult;
use cuda_api::host::Access;
use cuda_api::types::CUresult;

use crate::memory::Memory;

/// The value that a fill repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Bytes.
    Bytes(u8),
    /// 16-bit words.
    Halves(u16),
    /// 32-bit words.
    Words(u32),
}

impl Pattern {
    pub(crate) fn size(self) -> u64 {
        match self {
            Pattern::Bytes(_) => 1,
            Pattern::Halves(_) => 2,
            Pattern::Words(_) => 4,
        }
    }

    /// One page full of it.
    fn page(self) -> [u8; 4096] {
        let mut page = [0; 4096];
        match self {
            Pattern::Bytes(b) => page.fill(b),
            Pattern::Halves(h) => page.chunks_exact_mut(2).for_each(|c| c.copy_from_slice(&h.to_le_bytes())),
            Pattern::Words(w) => page.chunks_exact_mut(4).for_each(|c| c.copy_from_slice(&w.to_le_bytes())),
        }
        page
    }
}

/// A fill of `height` rows of `width` elements that start `pitch` bytes apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fill {
    pub(crate) start: u64,
    pub(crate) pitch: u64,
    pub(crate) pattern: Pattern,
    pub(crate) width: u64,
    pub(crate) height: u64,
}

impl Fill {
    /// Bytes from the first to the last.
    pub(crate) fn extent(&self) -> CuResult<u64> {
        cuda_api::wire::rows(self.pitch, self.row()?, self.height)
    }

    fn row(&self) -> CuResult<u64> {
        self.width.checked_mul(self.pattern.size()).ok_or(CUresult::INVALID_VALUE)
    }

    /// CUDA wants elements aligned and rows that do not overlap.
    pub(crate) fn check(&self) -> CuResult<()> {
        let size = self.pattern.size();
        let aligned =
            self.start.is_multiple_of(size) && (self.height <= 1 || self.pitch.is_multiple_of(size));
        if !aligned || (self.height > 1 && self.pitch < self.row()?) {
            return Err(CUresult::INVALID_VALUE);
        }
        self.extent().map(|_| ())
    }
}

fn length(len: u64) -> CuResult<usize> {
    usize::try_from(len).map_err(|_| CUresult::INVALID_VALUE)
}

/// Copies from memory that is not the device's: a frame, a private copy, a staging buffer.
///
/// # Safety
/// `from` is readable for `len` bytes. Others may write there meanwhile: what arrives then is unspecified, nothing more.
pub(crate) unsafe fn copy_in(memory: &Memory, to: u64, from: *const u8, len: u64) -> CuResult<()> {
    let access = memory.access();
    let to = access.range(to, len, Access::Write)?;
    // SAFETY: `to` is valid for `len` bytes while `access` lasts (`Accessor::range`), `from` by this function's contract.
    unsafe { std::ptr::copy(from, to, length(len)?) };
    Ok(())
}

/// Copies to memory that is not the device's.
///
/// # Safety
/// `to` is writable for `len` bytes.
pub(crate) unsafe fn copy_out(memory: &Memory, to: *mut u8, from: u64, len: u64) -> CuResult<()> {
    let access = memory.access();
    let from = access.range(from, len, Access::Read)?;
    // SAFETY: as in `copy_in`, the other way round.
    unsafe { std::ptr::copy(from, to, length(len)?) };
    Ok(())
}

/// Copies within what device addresses reach. The ranges may overlap.
pub(crate) fn copy(memory: &Memory, to: u64, from: u64, len: u64) -> CuResult<()> {
    let access = memory.access();
    let to = access.range(to, len, Access::Write)?;
    let from = access.range(from, len, Access::Read)?;
    // SAFETY: both are valid for `len` bytes while `access` lasts (`Accessor::range`).
    unsafe { std::ptr::copy(from, to, length(len)?) };
    Ok(())
}

/// Fills.
pub(crate) fn fill(memory: &Memory, fill: &Fill) -> CuResult<()> {
    let access = memory.access();
    let row = length(fill.row()?)?;
    if row == 0 || fill.height == 0 {
        return Ok(());
    }
    let start = access.range(fill.start, fill.extent()?, Access::Write)?;
    let page = fill.pattern.page();
    let pitch = if fill.height > 1 { length(fill.pitch)? } else { row };
    // Rows without gaps are one row.
    let (row, height) = match row.checked_mul(length(fill.height)?) {
        Some(all) if pitch == row => (all, 1),
        _ => (row, fill.height),
    };
    for y in 0..length(height)? {
        let mut at = start.wrapping_add(y.wrapping_mul(pitch));
        let mut left = row;
        while left != 0 {
            let n = left.min(page.len());
            // SAFETY: `extent` bytes from `start` are valid while `access` lasts, and `at + n` ends within row `y`.
            unsafe { std::ptr::copy_nonoverlapping(page.as_ptr(), at, n) };
            at = at.wrapping_add(n);
            left = left.saturating_sub(n);
        }
    }
    Ok(())
}

/// A word of a stream memory operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// 32 bits.
    Narrow(u32),
    /// 64 bits.
    Wide(u64),
}

impl Word {
    pub(crate) fn size(self) -> u64 {
        match self {
            Word::Narrow(_) => 4,
            Word::Wide(_) => 8,
        }
    }
}

/// When a wait for a word is over (CUstreamWaitValue_flags).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// `(signed)(*addr - value) >= 0`.
    GreaterOrEqual,
    /// `*addr == value`.
    Equal,
    /// `*addr & value != 0`.
    And,
    /// `~(*addr | value) != 0`.
    Nor,
}

/// Stores a word after everything that this thread did before.
pub(crate) fn store(memory: &Memory, address: u64, word: Word) -> CuResult<()> {
    let access = memory.access();
    let at = access.range(address, word.size(), Access::Write)?;
    match word {
        // SAFETY: valid for the word's size while `access` lasts, aligned (checked when the call was made), and reached
        // by everybody else through atomics or machine stores of other processes.
        Word::Narrow(value) => unsafe { AtomicU32::from_ptr(at.cast()) }.store(value, Ordering::SeqCst),
        // SAFETY: as above.
        Word::Wide(value) => unsafe { AtomicU64::from_ptr(at.cast()) }.store(value, Ordering::SeqCst),
    }
    Ok(())
}

/// Whether the word at an address meets the condition.
pub(crate) fn met(memory: &Memory, address: u64, word: Word, until: Until) -> CuResult<bool> {
    let access = memory.access();
    let at = access.range(address, word.size(), Access::Read)?;
    Ok(match word {
        Word::Narrow(value) => {
            // SAFETY: as in `store`.
            let now = unsafe { AtomicU32::from_ptr(at.cast()) }.load(Ordering::SeqCst);
            match until {
                Until::GreaterOrEqual => now.wrapping_sub(value).cast_signed() >= 0,
                Until::Equal => now == value,
                Until::And => now & value != 0,
                Until::Nor => !(now | value) != 0,
            }
        }
        Word::Wide(value) => {
            // SAFETY: as in `store`.
            let now = unsafe { AtomicU64::from_ptr(at.cast()) }.load(Ordering::SeqCst);
            match until {
                Until::GreaterOrEqual => now.wrapping_sub(value).cast_signed() >= 0,
                Until::Equal => now == value,
                Until::And => now & value != 0,
                Until::Nor => !(now | value) != 0,
            }
        }
    })
}
