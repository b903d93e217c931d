//! Answers that stay: what the driver works out from a function and numbers (occupancy) is the same each time, until something that it
//! depends on is set. Each thread remembers a few of them.

use std::sync::atomic::{AtomicU64, Ordering};

use cuda_api::Call;
use cuda_api::calls::{context, launch, library};
use cuda_api::wire::{Put, Reader, Wire};

use crate::process::Process;

/// Answers that a thread remembers.
pub const REMEMBERED: usize = 16;
/// Bytes of a question and of its answer that are remembered at most.
const QUESTION_BYTES: usize = 96;
const ANSWER_BYTES: usize = 16;

/// Grows when something is set on which an answer may depend.
static SETTINGS: AtomicU64 = AtomicU64::new(0);

/// Whether a row's answers stay.
pub const fn stay(id: u32) -> bool {
    matches!(
        id,
        <launch::row::cuOccupancyMaxActiveBlocksPerMultiprocessor as Call>::ID
            | <launch::row::cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags as Call>::ID
            | <launch::row::cuOccupancyAvailableDynamicSMemPerBlock as Call>::ID
            | <launch::row::cuOccupancyMaxActiveClusters as Call>::ID
            | <launch::row::cuOccupancyMaxPotentialClusterSize as Call>::ID
    )
}

/// Whether a row sets something on which they depend.
pub const fn change(id: u32) -> bool {
    matches!(
        id,
        <launch::row::cuFuncSetAttribute as Call>::ID
            | <launch::row::cuFuncSetCacheConfig as Call>::ID
            | <launch::row::cuFuncSetSharedMemConfig as Call>::ID
            | <library::row::cuKernelSetAttribute as Call>::ID
            | <library::row::cuKernelSetCacheConfig as Call>::ID
            | <context::row::cuCtxSetCacheConfig as Call>::ID
            | <context::row::cuCtxSetSharedMemConfig as Call>::ID
            | <context::row::cuCtxSetLimit as Call>::ID
    )
}

/// A row that [`change`]s answers has been carried out.
pub fn changed() {
    SETTINGS.fetch_add(1, Ordering::AcqRel);
}

/// What the answers of a moment depend on.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Moment {
    context: u64,
    settings: u64,
    functions: u64,
    kernels: u64,
}

impl Moment {
    fn now(process: &Process, context: u64) -> Self {
        Moment {
            context,
            settings: SETTINGS.load(Ordering::Acquire),
            functions: process.objects.functions.epoch(),
            kernels: process.objects.kernels.epoch(),
        }
    }
}

/// Bytes up to a limit.
#[derive(Clone, Copy)]
struct Short<const N: usize> {
    bytes: [u8; N],
    len: usize,
    fits: bool,
}

impl<const N: usize> Short<N> {
    fn of(what: &impl Encode) -> Self {
        let mut short = Short { bytes: [0; N], len: 0, fits: true };
        what.encode(&mut short);
        short
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<const N: usize> Put for Short<N> {
    fn put(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.fits = false,
        }
    }
}

/// What can be put.
trait Encode {
    fn encode<const N: usize>(&self, to: &mut Short<N>);
}

impl<'a, W: Wire<'a>> Encode for W {
    fn encode<const N: usize>(&self, to: &mut Short<N>) {
        self.put(to);
    }
}

/// A question, of which the answer may be known.
pub struct Question {
    id: u32,
    moment: Moment,
    fields: Short<QUESTION_BYTES>,
}

/// An answer that is remembered.
pub struct Answer {
    question: Question,
    answer: Short<ANSWER_BYTES>,
}

impl Question {
    /// The question that a call is.
    pub fn of<C: Call>(process: &Process, context: u64, fields: &C::In<'_>) -> Self {
        Question { id: C::ID, moment: Moment::now(process, context), fields: Short::of(fields) }
    }

    fn is(&self, other: &Question) -> bool {
        self.id == other.id && self.moment == other.moment && self.fields.get() == other.fields.get()
    }

    fn place(&self) -> usize {
        let mixed = self.fields.get().chunks(8).fold(u64::from(self.id), |sum, part| {
            let word = part.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
            (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
        });
        mixed as usize % REMEMBERED
    }

    /// Its answer, if it is remembered.
    pub fn answered<C: Call>(&self, known: &[Option<Answer>; REMEMBERED]) -> Option<C::Out> {
        let answer = known.get(self.place())?.as_ref().filter(|known| known.question.is(self))?;
        C::Out::take(&mut Reader::new(answer.answer.get())).ok()
    }

    /// Its answer is remembered from now on, unless something was set meanwhile.
    pub fn remember<C: Call>(
        self,
        process: &Process,
        known: &mut [Option<Answer>; REMEMBERED],
        answer: &C::Out,
    ) {
        let answer = Short::of(answer);
        let still = Moment::now(process, self.moment.context) == self.moment;
        if self.fields.fits
            && answer.fits
            && still
            && let Some(place) = known.get_mut(self.place())
        {
            *place = Some(Answer { question: self, answer });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stays_or_changes() {
        for row in cuda_api::all_calls() {
            assert!(!(stay(row.id) && change(row.id)), "{}", row.name);
        }
        assert!(stay(<launch::row::cuOccupancyMaxActiveBlocksPerMultiprocessor as Call>::ID));
        assert!(change(<launch::row::cuFuncSetAttribute as Call>::ID));
    }

    #[test]
    fn what_does_not_fit_is_not_kept() {
        let mut short = Short::<4> { bytes: [0; 4], len: 0, fits: true };
        short.put(&[1, 2, 3]);
        assert_eq!((short.get(), short.fits), (&[1, 2, 3][..], true));
        short.put(&[4, 5]);
        assert!(!short.fits);
    }
}
