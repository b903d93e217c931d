//! Three versions of a managed variable, brought together byte by byte: the program's (memory of this process), the device's (memory of
//! the worker), and what both last agreed on (the copy here). Who differs from the copy has written; where both have, the program's
//! byte stays and goes to the worker with the next push.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use cuda_api::managed::{PIECE_BYTES, hash, load};
use cuda_api::{CUresult, CuResult};

/// Bytes that are compared at a time.
const STEP_BYTES: usize = 4096;

/// What both sides last agreed on.
pub struct Copy {
    start: u64,
    bytes: Vec<u8>,
    /// Hashes of its pieces, where they are known.
    hashes: Vec<Option<u64>>,
}

/// Where `now` differs from `then`.
fn runs(now: &[u8], then: &[u8], mut put: impl FnMut(Range<usize>)) {
    let mut at = 0;
    let differs = |i: usize| now[i] != then[i];
    while at < now.len() {
        if !differs(at) {
            at += 1;
            continue;
        }
        let begin = at;
        while at < now.len() && differs(at) {
            at += 1;
        }
        put(begin..at);
    }
}

/// A word of all three versions.
fn merged(ours: u64, then: u64, theirs: u64) -> u64 {
    if ours == then {
        return theirs;
    }
    let (ours, then, theirs) = (ours.to_ne_bytes(), then.to_ne_bytes(), theirs.to_ne_bytes());
    u64::from_ne_bytes(std::array::from_fn(|i| if ours[i] == then[i] { theirs[i] } else { ours[i] }))
}

impl Copy {
    /// A copy of what the program has at `start` now.
    ///
    /// # Errors
    /// CUDA_ERROR_OUT_OF_MEMORY.
    ///
    /// # Safety
    /// Here and as long as the copy is used, `len` bytes at `start` are readable and writable, and so are the words of 8 bytes that they
    /// lie in.
    pub unsafe fn new(start: u64, len: usize) -> CuResult<Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| CUresult::OUT_OF_MEMORY)?;
        bytes.resize(len, 0);
        // SAFETY: by this function's contract.
        unsafe { load(start, &mut bytes) };
        Ok(Copy { start, bytes, hashes: vec![None; len.div_ceil(PIECE_BYTES)] })
    }

    /// The variable's length.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What the program has changed, as addresses and bytes; from now on that is agreed.
    ///
    /// # Errors
    /// `put`'s; then the rest is not looked at.
    pub fn take_changes(&mut self, mut put: impl FnMut(u64, &[u8]) -> CuResult<()>) -> CuResult<()> {
        let mut now = [0; STEP_BYTES];
        for offset in (0..self.bytes.len()).step_by(STEP_BYTES) {
            let then = offset..self.bytes.len().min(offset + STEP_BYTES);
            let at = self.start + offset as u64;
            let here = std::ptr::with_exposed_provenance(at as usize);
            // SAFETY: as many bytes of the variable (the contract of `new`) and of the copy. Another thread may write the variable
            // meanwhile: what it finds then is either version.
            let same =
                unsafe { libc::memcmp(here, self.bytes[then.clone()].as_ptr().cast(), then.len()) } == 0;
            if same {
                continue;
            }
            let now = &mut now[..then.len()];
            // SAFETY: inside the variable.
            unsafe { load(at, now) };
            let mut outcome = Ok(());
            runs(now, &self.bytes[then.clone()], |run| {
                if outcome.is_ok() {
                    outcome = put(at + run.start as u64, &now[run]);
                }
            });
            outcome?;
            self.bytes[then].copy_from_slice(now);
            self.hashes[offset / PIECE_BYTES] = None;
        }
        Ok(())
    }

    /// Takes what the device has at an address inside the variable, and gives the program what of it is new. True: something is.
    pub fn merge(&mut self, at: u64, theirs: &[u8]) -> bool {
        let Some(begin) = at.checked_sub(self.start).map(|offset| offset as usize) else { return false };
        let Some(then) = self.bytes.get_mut(begin..begin + theirs.len()) else { return false };
        if then == theirs {
            return false;
        }
        let (mut done, len) = (0, theirs.len());
        while done < len {
            // The word that the next byte lies in. What of it is none of the range's counts as unchanged.
            let (word, first) = ((at + done as u64) & !7, ((at + done as u64) & 7) as usize);
            let count = (8 - first).min(len - done);
            let (old, new) = (&then[done..done + count], &theirs[done..done + count]);
            if old != new {
                let place = |bytes: &[u8]| {
                    let mut word = [0; 8];
                    word[first..first + count].copy_from_slice(bytes);
                    u64::from_ne_bytes(word)
                };
                put_word(word, place(old), place(new), place(&[0xff; 8][..count]));
            }
            done += count;
        }
        then.copy_from_slice(theirs);
        self.hashes[begin / PIECE_BYTES..=(begin + len - 1) / PIECE_BYTES].fill(None);
        true
    }

    /// The hash of a piece.
    pub fn hash(&mut self, piece: usize) -> u64 {
        let range = self.piece(piece);
        *self.hashes[piece].get_or_insert_with(|| hash(&self.bytes[range]))
    }

    /// Where in the variable a piece lies.
    pub fn piece(&self, piece: usize) -> Range<usize> {
        piece * PIECE_BYTES..self.bytes.len().min((piece + 1) * PIECE_BYTES)
    }
}

/// Merges into a word of the program's; `mask` has the bits that count. Whatever another thread writes meanwhile is not lost.
fn put_word(at: u64, then: u64, theirs: u64, mask: u64) {
    // SAFETY: aligned, and a word that the variable lies in (the contract of `Copy::new`; `Copy::merge` stays inside the variable).
    let word = unsafe { AtomicU64::from_ptr(std::ptr::with_exposed_provenance_mut(at as usize)) };
    let mut ours = word.load(Ordering::Relaxed);
    loop {
        let new = (ours & !mask) | (merged(ours & mask, then, theirs) & mask);
        if new == ours {
            return;
        }
        match word.compare_exchange_weak(ours, new, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => ours = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A variable of the program's in the middle of other memory, and its copy.
    struct Place {
        words: Vec<u64>,
        at: u64,
        copy: Copy,
    }

    fn place(offset: usize, len: usize) -> Place {
        let mut words = vec![0u64; len.div_ceil(8) + 4];
        let at = words.as_mut_ptr().expose_provenance() as u64 + offset as u64;
        // SAFETY: inside the vector, which lives as long as the copy.
        let copy = unsafe { Copy::new(at, len) }.unwrap();
        Place { words, at, copy }
    }

    impl Place {
        fn write(&mut self, at: usize, bytes: &[u8]) {
            let start = self.words.as_mut_ptr().cast::<u8>();
            let offset = self.at as usize - start as usize + at;
            assert!(offset + bytes.len() <= self.words.len() * 8);
            // SAFETY: inside the vector (just looked at).
            unsafe { start.add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }

        fn read(&mut self) -> Vec<u8> {
            let mut bytes = vec![0; self.copy.len()];
            // SAFETY: the variable.
            unsafe { load(self.at, &mut bytes) };
            bytes
        }

        fn changes(&mut self) -> Vec<(u64, Vec<u8>)> {
            let mut found = Vec::new();
            let start = self.at;
            self.copy
                .take_changes(|at, bytes| {
                    found.push((at - start, bytes.to_vec()));
                    Ok(())
                })
                .unwrap();
            found
        }
    }

    #[test]
    fn only_what_the_program_has_changed_is_taken_and_once() {
        for offset in 8..16 {
            let mut p = place(offset, 10_000);
            assert!(p.changes().is_empty());
            p.write(0, &[1]);
            p.write(7, &[1, 2, 0, 4]);
            p.write(4094, &[5; 4]);
            p.write(9_999, &[9]);
            let expected = [
                (0, vec![1]),
                (7, vec![1, 2]),
                (10, vec![4]),
                (4094, vec![5, 5]),
                (4096, vec![5, 5]),
                (9_999, vec![9]),
            ];
            assert_eq!(p.changes(), expected);
            assert!(p.changes().is_empty());
            p.write(10, &[0]);
            assert_eq!(p.changes(), [(10, vec![0])]);
        }
    }

    #[test]
    fn what_was_not_sent_is_sent_again() {
        let mut p = place(8, 64);
        p.write(3, &[3]);
        assert_eq!(p.copy.take_changes(|_, _| Err(CUresult::UNKNOWN)), Err(CUresult::UNKNOWN));
        assert_eq!(p.changes(), [(3, vec![3])]);
    }

    #[test]
    fn both_sides_keep_their_bytes() {
        for offset in 8..16 {
            for begin in 0..12 {
                for len in 1..20 {
                    let mut p = place(offset, 40);
                    // The program has written every third byte, and what lies around the variable.
                    p.write(40, &[0xee; 4]);
                    (0..40).step_by(3).for_each(|i| p.write(i, &[100 + i as u8]));
                    let theirs: Vec<u8> = (begin..begin + len).map(|i| 1 + i as u8).collect();
                    assert!(p.copy.merge(p.at + begin as u64, &theirs));
                    let expected: Vec<u8> = (0..40)
                        .map(|i| match i {
                            i if i % 3 == 0 => 100 + i as u8,
                            i if (begin..begin + len).contains(&i) => 1 + i as u8,
                            _ => 0,
                        })
                        .collect();
                    assert_eq!(p.read(), expected, "{len} bytes at {begin}, variable at {offset}");
                    // What both have written is the program's, and goes to the device next.
                    let sent: Vec<u64> = p.changes().iter().map(|(at, _)| *at).collect();
                    assert_eq!(sent, (0..40).step_by(3).collect::<Vec<u64>>());
                    assert!(!p.copy.merge(p.at, &p.copy.bytes.clone()));
                    let mut around = [0; 4];
                    // SAFETY: in the vector behind the variable.
                    unsafe { load(p.at + 40, &mut around) };
                    assert_eq!(around, [0xee; 4]);
                }
            }
        }
    }

    #[test]
    fn the_devices_word_is_taken_whatever_the_program_reads() {
        let mut p = place(8, 8);
        for value in [1u64, 2, 1 << 40, 0] {
            assert!(p.copy.merge(p.at, &value.to_ne_bytes()));
            assert_eq!((p.read(), p.changes()), (value.to_ne_bytes().to_vec(), vec![]));
        }
        assert!(!p.copy.merge(p.at, &[0; 8]));
        assert!(!p.copy.merge(p.at + 1, &[0; 8]), "not past the end");
        assert!(!p.copy.merge(p.at - 1, &[0; 1]), "not before the beginning");
    }

    #[test]
    fn hashes_follow_the_copy() {
        let mut p = place(8, PIECE_BYTES + 10);
        assert_eq!((p.copy.hash(0), p.copy.hash(1)), (hash(&[0; PIECE_BYTES]), hash(&[0; 10])));
        p.write(PIECE_BYTES + 9, &[1]);
        p.changes();
        let mut tail = [0; 10];
        tail[9] = 1;
        assert_eq!(p.copy.hash(1), hash(&tail));
        assert!(p.copy.merge(p.at + PIECE_BYTES as u64 - 1, &[7, 7]));
        tail[0] = 7;
        let mut head = [0; PIECE_BYTES];
        head[PIECE_BYTES - 1] = 7;
        assert_eq!((p.copy.hash(0), p.copy.hash(1)), (hash(&head), hash(&tail)));
    }
}
