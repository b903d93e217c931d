//! Managed variables (`__managed__`): what of them travels, and the worker's list of them.
//!
//! The driver puts such a variable where it likes in the worker. The guest has memory of its own at the same address, and the two are
//! brought into line at the calls that order host and device: what the program has changed goes to the worker as [runs](put_run) of
//! bytes, what the device has changed comes back as the bytes of ranges. Long variables are compared by hashes of their pieces first.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::CuResult;
use crate::types::CUresult;
use crate::wire::INLINE_BYTES_MAX;

/// Bytes that one hash stands for.
pub const PIECE_BYTES: usize = 16 << 10;
/// Hashes in one reply at most: what fits a ring's reply area with room to spare.
pub const HASHES_MAX: usize = 4096;
/// Bytes in one reply, and in one frame's runs, at most.
pub const BYTES_MAX: usize = INLINE_BYTES_MAX;
/// Ranges in one frame at most.
pub const RANGES_MAX: usize = 1024;
/// Managed variables of a session. Stops a guest from growing the worker's list without end.
const VARIABLES_MAX: usize = 1 << 16;
/// Bytes of a run beside its own: address and length.
pub const RUN_HEAD_BYTES: usize = 16;

/// A piece's hash. Two pieces that differ have the same one by an accident of 1 in 2^64.
pub fn hash(piece: &[u8]) -> u64 {
    let whole = blake3::hash(piece);
    whole.as_bytes().first_chunk::<8>().map_or(0, |head| u64::from_le_bytes(*head))
}

/// Appends a run of bytes that goes to an address.
pub fn put_run(runs: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    runs.extend_from_slice(&at.to_le_bytes());
    runs.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    runs.extend_from_slice(bytes);
}

/// Takes the next run off the front. `None`: there is none left.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE where what is left is no run.
pub fn take_run<'a>(runs: &mut &'a [u8]) -> CuResult<Option<(u64, &'a [u8])>> {
    if runs.is_empty() {
        return Ok(None);
    }
    let (at, rest) = runs.split_first_chunk::<8>().ok_or(CUresult::INVALID_VALUE)?;
    let (len, rest) = rest.split_first_chunk::<8>().ok_or(CUresult::INVALID_VALUE)?;
    let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| CUresult::INVALID_VALUE)?;
    let (bytes, rest) = rest.split_at_checked(len).ok_or(CUresult::INVALID_VALUE)?;
    *runs = rest;
    Ok(Some((u64::from_le_bytes(*at), bytes)))
}

/// An address as one of this process's.
fn pointer(at: u64) -> *mut u8 {
    // Addresses are 64 bits wide wherever CUDA runs.
    #[allow(clippy::cast_possible_truncation)]
    std::ptr::with_exposed_provenance_mut(at as usize)
}

/// Reads memory that others may write meanwhile, in words where it is aligned.
///
/// # Safety
/// The range is readable memory of this process while the call runs.
pub unsafe fn load(mut at: u64, mut to: &mut [u8]) {
    while !to.is_empty() {
        let step = if at.is_multiple_of(8) && to.len() >= 8 { 8 } else { 1 };
        let Some((head, rest)) = to.split_at_mut_checked(step) else { return };
        if let Ok(head) = <&mut [u8; 8]>::try_from(&mut *head) {
            // SAFETY: inside the range, aligned (looked at above), and reached by others as memory that changes any time.
            *head = unsafe { AtomicU64::from_ptr(pointer(at).cast()) }.load(Ordering::Relaxed).to_ne_bytes();
        } else if let [byte] = head {
            // SAFETY: as above.
            *byte = unsafe { AtomicU8::from_ptr(pointer(at)) }.load(Ordering::Relaxed);
        }
        to = rest;
        at = at.wrapping_add(step as u64);
    }
}

/// Writes memory that others may use meanwhile, in the largest aligned words that the bytes make.
///
/// # Safety
/// The range is writable memory of this process while the call runs.
unsafe fn store(mut at: u64, mut from: &[u8]) {
    while !from.is_empty() {
        let fits = |n: usize| from.len() >= n && at.is_multiple_of(n as u64);
        let step = [8, 4, 2].into_iter().find(|n| fits(*n)).unwrap_or(1);
        let Some((head, rest)) = from.split_at_checked(step) else { return };
        let to = pointer(at);
        // SAFETY: inside the range, aligned to the word's size (`fits`), and reached by others as memory that changes any time.
        unsafe {
            match *head {
                [a, b, c, d, e, f, g, h] => AtomicU64::from_ptr(to.cast())
                    .store(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), Ordering::Relaxed),
                [a, b, c, d] => {
                    AtomicU32::from_ptr(to.cast()).store(u32::from_ne_bytes([a, b, c, d]), Ordering::Relaxed)
                }
                [a, b] => {
                    AtomicU16::from_ptr(to.cast()).store(u16::from_ne_bytes([a, b]), Ordering::Relaxed);
                }
                [a] => AtomicU8::from_ptr(to).store(a, Ordering::Relaxed),
                _ => {}
            }
        }
        from = rest;
        at = at.wrapping_add(step as u64);
    }
}

/// The managed variables that a session has asked for: first address and length. Nothing of what the guest names is touched that does
/// not lie in one of them.
#[derive(Debug, Default)]
pub struct ManagedVariables {
    // Held for reading while the memory is used: who takes a variable out afterwards knows that nobody uses it any more.
    variables: RwLock<BTreeMap<u64, u64>>,
}

/// The range lies in one variable.
fn check(variables: &BTreeMap<u64, u64>, start: u64, len: u64) -> CuResult<()> {
    let refused = CUresult::INVALID_VALUE;
    let (at, size) = variables.range(..=start).next_back().ok_or(refused)?;
    let end = start.checked_sub(*at).and_then(|offset| offset.checked_add(len)).ok_or(refused)?;
    if end <= *size { Ok(()) } else { Err(refused) }
}

impl ManagedVariables {
    /// Adds a variable; it may be there already.
    ///
    /// # Errors
    /// CUDA_ERROR_OUT_OF_MEMORY where there are too many, CUDA_ERROR_INVALID_VALUE where it meets another.
    ///
    /// # Safety
    /// `len` bytes at `start` are memory that this process's CPU may read and write, until [`ManagedVariables::remove`] has returned.
    pub unsafe fn add(&self, start: u64, len: u64) -> CuResult<()> {
        let end = start.checked_add(len).filter(|_| len != 0).ok_or(CUresult::INVALID_VALUE)?;
        let mut variables = self.variables.write().unwrap_or_else(PoisonError::into_inner);
        if variables.get(&start) == Some(&len) {
            return Ok(());
        }
        let before = variables.range(..end).next_back();
        if before.is_some_and(|(at, size)| at.saturating_add(*size) > start) {
            return Err(CUresult::INVALID_VALUE);
        }
        if variables.len() >= VARIABLES_MAX {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        variables.insert(start, len);
        Ok(())
    }

    /// Takes a variable out; its length if there was one.
    pub fn remove(&self, start: u64) -> Option<u64> {
        self.variables.write().unwrap_or_else(PoisonError::into_inner).remove(&start)
    }

    /// vgpuManagedRead: the bytes of ranges, one after the other.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE for what is no list of ranges, lies in no variable, or fits no reply.
    pub fn read(&self, ranges: &[u8]) -> CuResult<Vec<u8>> {
        let (pairs, rest) = ranges.as_chunks::<16>();
        if !rest.is_empty() || pairs.len() > RANGES_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        let variables = self.variables.read().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::new();
        for pair in pairs {
            let (words, _) = pair.as_chunks::<8>();
            let [start, len] = words else { return Err(CUresult::INVALID_VALUE) };
            let (start, len) = (u64::from_le_bytes(*start), u64::from_le_bytes(*len));
            check(&variables, start, len)?;
            let len = usize::try_from(len).map_err(|_| CUresult::INVALID_VALUE)?;
            let begin = bytes.len();
            let end =
                begin.checked_add(len).filter(|end| *end <= BYTES_MAX).ok_or(CUresult::INVALID_VALUE)?;
            bytes.resize(end, 0);
            // SAFETY: in a variable (checked), which stays while the list is held (the contract of `add`).
            unsafe { load(start, bytes.get_mut(begin..end).ok_or(CUresult::INVALID_VALUE)?) };
        }
        Ok(bytes)
    }

    /// vgpuManagedHashes.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE for a range that lies in no variable, or has too many pieces.
    pub fn hashes(&self, start: u64, len: u64) -> CuResult<Vec<u64>> {
        let variables = self.variables.read().unwrap_or_else(PoisonError::into_inner);
        check(&variables, start, len)?;
        let len = usize::try_from(len).map_err(|_| CUresult::INVALID_VALUE)?;
        let count = len.div_ceil(PIECE_BYTES);
        if count > HASHES_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        let mut hashes = Vec::with_capacity(count);
        let (mut piece, mut at, mut left) = (vec![0; PIECE_BYTES.min(len)], start, len);
        while left != 0 {
            let part = piece.get_mut(..left.min(PIECE_BYTES)).ok_or(CUresult::INVALID_VALUE)?;
            // SAFETY: as in `read`.
            unsafe { load(at, part) };
            hashes.push(hash(part));
            at = at.wrapping_add(part.len() as u64);
            left = left.saturating_sub(part.len());
        }
        Ok(hashes)
    }

    /// vgpuManagedWrite.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE where some run is none or lies in no variable; then nothing is written.
    pub fn write(&self, runs: &[u8]) -> CuResult<()> {
        let variables = self.variables.read().unwrap_or_else(PoisonError::into_inner);
        let mut left = runs;
        while let Some((at, bytes)) = take_run(&mut left)? {
            check(&variables, at, bytes.len() as u64)?;
        }
        let mut left = runs;
        while let Some((at, bytes)) = take_run(&mut left)? {
            // SAFETY: as in `read`: the first pass has checked it under the same lock.
            unsafe { store(at, bytes) };
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)] // a test's
#[allow(clippy::cast_possible_truncation)] // of numbers that are chosen here
mod tests {
    use super::*;

    const REFUSED: CuResult<()> = Err(CUresult::INVALID_VALUE);

    fn ranges(list: &[(u64, u64)]) -> Vec<u8> {
        list.iter().flat_map(|(at, len)| [at.to_le_bytes(), len.to_le_bytes()].concat()).collect()
    }

    fn runs(list: &[(u64, &[u8])]) -> Vec<u8> {
        let mut runs = Vec::new();
        list.iter().for_each(|(at, bytes)| put_run(&mut runs, *at, bytes));
        runs
    }

    #[test]
    fn bytes_go_in_and_out_at_every_offset() {
        let mut memory = vec![0u64; 8];
        let start = memory.as_mut_ptr().expose_provenance() as u64;
        let list = ManagedVariables::default();
        // SAFETY: the vector outlives the list.
        unsafe { list.add(start, 64) }.unwrap();
        for offset in 0..20u64 {
            for len in 0..20u64 {
                let bytes: Vec<u8> = (0..len).map(|i| (offset * 7 + len + i + 1) as u8).collect();
                list.write(&runs(&[(start, &[0; 64]), (start + offset, &bytes)])).unwrap();
                let mut expected = [0; 64];
                expected[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                let read = list.read(&ranges(&[(start + offset, len), (start, 64)])).unwrap();
                assert_eq!(read, [&bytes[..], &expected[..]].concat(), "{len} bytes at {offset}");
            }
        }
    }

    #[test]
    fn what_lies_in_no_variable_is_refused() {
        let mut memory = vec![0u64; 8];
        let start = memory.as_mut_ptr().expose_provenance() as u64;
        let list = ManagedVariables::default();
        assert_eq!(list.read(&ranges(&[(start, 1)])).map(drop), REFUSED);
        // SAFETY: the vector outlives the list.
        unsafe {
            list.add(start, 16).unwrap();
            list.add(start + 16, 16).unwrap();
            list.add(start, 16).unwrap();
            for (at, len) in [(start, 17), (start + 8, 4), (start + 31, 8), (start - 1, 2), (start + 40, 0)] {
                assert_eq!(list.add(at, len), REFUSED);
            }
            assert_eq!(list.add(u64::MAX, 2), REFUSED);
        }
        // Over the seam of two, before, behind, around the end of the address space.
        for (at, len) in [
            (start + 8, 16),
            (start - 1, 1),
            (start + 32, 1),
            (start, u64::MAX),
            (start + 1, u64::MAX),
            (0, 8),
        ] {
            assert_eq!(list.read(&ranges(&[(at, len)])).map(drop), REFUSED);
            assert_eq!(list.hashes(at, len).map(drop), REFUSED);
        }
        // One bad run: nothing of the frame is done.
        assert_eq!(list.write(&runs(&[(start, &[1; 4]), (start + 30, &[1; 4])])), REFUSED);
        assert_eq!(list.read(&ranges(&[(start, 4)])), Ok(vec![0; 4]));
        assert_eq!(list.write(&runs(&[(start, &[1; 4])])[..19]), REFUSED);
        assert_eq!(list.write(&[1; 15]), REFUSED);
        assert_eq!(list.read(&[0; 17]).map(drop), REFUSED);
        assert_eq!(list.remove(start), Some(16));
        assert_eq!(list.write(&runs(&[(start, &[1; 4])])), REFUSED);
    }

    #[test]
    fn more_than_a_reply_carries_is_refused() {
        let mut memory = vec![0u64; (BYTES_MAX + 8) / 8];
        let start = memory.as_mut_ptr().expose_provenance() as u64;
        let list = ManagedVariables::default();
        // SAFETY: the vector outlives the list.
        unsafe { list.add(start, BYTES_MAX as u64 + 8) }.unwrap();
        assert_eq!(list.read(&ranges(&[(start, BYTES_MAX as u64)])).map(|b| b.len()), Ok(BYTES_MAX));
        assert_eq!(list.read(&ranges(&[(start, BYTES_MAX as u64), (start, 1)])).map(drop), REFUSED);
        assert_eq!(list.read(&ranges(&[(start, 1); RANGES_MAX + 1])).map(drop), REFUSED);
        let hashes = list.hashes(start, BYTES_MAX as u64 + 8).unwrap();
        assert_eq!(hashes, [hash(&[0; PIECE_BYTES]), hash(&[0; PIECE_BYTES]), hash(&[0; 8])]);
    }
}
