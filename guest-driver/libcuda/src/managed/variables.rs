//! Managed variables (`__managed__`). The host's driver puts them where it likes in the worker, so this process has memory of its own
//! at the same address, and the two are brought into line where CUDA orders host and device:
//!
//! - *push*: before a call that travels, what the program has changed is written to the worker;
//! - *pull*: after a call that has waited for the device, and after a query that found work done, what the device has changed is
//!   fetched ([`super::merge`] keeps what both sides have written apart, byte by byte);
//! - in between a thread does both, every millisecond as long as something happens ([`super::watch`]): a program that looks at a
//!   variable without any call sees what a running kernel writes, some milliseconds late.
//!
//! All this goes through a ring of its own, in calls that wait and that no other call holds up. So nothing that a push or pull is part
//! of can wait for itself, and the lock can be held meanwhile. A process without such variables pays one load for each call.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cuda_api::calls::virtual_memory::row;
use cuda_api::managed::{BYTES_MAX, HASHES_MAX, PIECE_BYTES, RANGES_MAX, put_run};
use cuda_api::{CUresult, Call, CuResult};
use transport::Ring;

use super::merge::Copy;
use crate::gate;
use crate::objects::lock;
use crate::process::Process;

const PAGE: u64 = pci_layout::PAGE_BYTES;
/// Bytes of runs after which a frame goes. The last run's page may come on top, with a head for every second byte.
const FRAME_BYTES: usize = 16 << 10;

/// A variable.
struct Variable {
    /// The module or library that it goes with.
    owner: u64,
    copy: Copy,
    /// The worker has it as well.
    kept: bool,
}

/// The way to the worker.
struct Line {
    ring: Ring,
    ticket: u64,
}

#[derive(Default)]
struct State {
    line: Option<Line>,
    variables: BTreeMap<u64, Variable>,
    /// How many variables a page has something of: the page is the program's as long as any has.
    pages: BTreeMap<u64, u32>,
}

static STATE: Mutex<State> =
    Mutex::new(State { line: None, variables: BTreeMap::new(), pages: BTreeMap::new() });
static EXIST: AtomicBool = AtomicBool::new(false);

/// A variable that is out of line because its module is being unloaded.
pub struct Suspended(Vec<(u64, Variable)>);

/// There is a managed variable.
#[inline]
pub fn exist() -> bool {
    EXIST.load(Ordering::Relaxed)
}

impl Line {
    fn call<C: Call>(&mut self, fields: C::In<'_>) -> CuResult<C::Out> {
        self.ticket += 1;
        gate::call_unordered::<C>(&mut self.ring, self.ticket, fields)
    }

    /// Fetches ranges, each of a piece at most, and hands their bytes out.
    fn fetch(&mut self, ranges: &[(u64, usize)], mut take: impl FnMut(u64, &[u8])) -> CuResult<()> {
        let mut rest = ranges;
        while !rest.is_empty() {
            let (mut frame, mut bytes, mut count) = (Vec::new(), 0, 0);
            for (at, len) in rest.iter().take(RANGES_MAX) {
                if bytes + len > BYTES_MAX {
                    break;
                }
                frame.extend_from_slice(&at.to_le_bytes());
                frame.extend_from_slice(&(*len as u64).to_le_bytes());
                bytes += len;
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            let got = self.call::<row::vgpuManagedRead>((&frame,))?;
            if got.len() != bytes || count == 0 {
                return Err(CUresult::UNKNOWN);
            }
            let mut left = &got[..];
            for (at, len) in now {
                let (piece, behind) = left.split_at(*len);
                take(*at, piece);
                left = behind;
            }
            rest = later;
        }
        Ok(())
    }
}

impl Variable {
    fn push(&mut self, line: &mut Line) -> CuResult<bool> {
        let (mut frame, mut moved) = (Vec::new(), false);
        self.copy.take_changes(|at, bytes| {
            put_run(&mut frame, at, bytes);
            moved = true;
            if frame.len() < FRAME_BYTES {
                return Ok(());
            }
            let outcome = line.call::<row::vgpuManagedWrite>((&frame,));
            frame.clear();
            outcome
        })?;
        if !frame.is_empty() {
            line.call::<row::vgpuManagedWrite>((&frame,))?;
        }
        Ok(moved)
    }

    /// Fetches what is new of a variable of any length.
    fn pull(&mut self, line: &mut Line, start: u64) -> CuResult<bool> {
        let len = self.copy.len();
        let mut stale = Vec::new();
        if len <= PIECE_BYTES {
            stale.push((start, len));
        } else {
            let pieces = len.div_ceil(PIECE_BYTES);
            for first in (0..pieces).step_by(HASHES_MAX) {
                let last = pieces.min(first + HASHES_MAX) - 1;
                let range = self.copy.piece(first).start..self.copy.piece(last).end;
                let at = start + range.start as u64;
                let hashes = line.call::<row::vgpuManagedHashes>((at, range.len() as u64))?;
                if hashes.len() != last - first + 1 {
                    return Err(CUresult::UNKNOWN);
                }
                for (piece, hash) in (first..).zip(hashes) {
                    if self.copy.hash(piece) != hash {
                        let range = self.copy.piece(piece);
                        stale.push((start + range.start as u64, range.len()));
                    }
                }
            }
        }
        let mut moved = false;
        line.fetch(&stale, |at, bytes| moved |= self.copy.merge(at, bytes))?;
        Ok(moved)
    }

    /// What became of a push or pull: true if something moved.
    fn settle(&mut self, start: u64, outcome: CuResult<bool>) -> bool {
        if outcome == Err(CUresult::INVALID_VALUE) {
            self.kept = false;
            crate::log::say(|| format!("the managed variable at {start:#x} is gone from the device"));
        }
        // Otherwise the session is over or has a sticky error, which the program's own calls answer.
        outcome.unwrap_or(false)
    }
}

impl State {
    fn push(&mut self) -> bool {
        let Some(line) = self.line.as_mut() else { return false };
        let mut moved = false;
        for (start, variable) in self.variables.iter_mut().filter(|(_, variable)| variable.kept) {
            let outcome = variable.push(line);
            moved |= variable.settle(*start, outcome);
        }
        moved
    }

    fn pull(&mut self) -> bool {
        let Some(line) = self.line.as_mut() else { return false };
        let short = |variable: &Variable| variable.copy.len() <= PIECE_BYTES;
        let mut moved = false;
        // The short ones together: most variables are a few bytes long.
        let together: Vec<(u64, usize)> = self
            .variables
            .iter()
            .filter(|(_, variable)| variable.kept && short(variable))
            .map(|(start, variable)| (*start, variable.copy.len()))
            .collect();
        let variables = &mut self.variables;
        let outcome = line.fetch(&together, |at, bytes| {
            if let Some(variable) = variables.get_mut(&at) {
                moved |= variable.copy.merge(at, bytes);
            }
        });
        let each = outcome == Err(CUresult::INVALID_VALUE);
        for (start, variable) in variables.iter_mut().filter(|(_, variable)| variable.kept) {
            // One of the short ones is gone: which?
            if each || !short(variable) {
                let outcome = variable.pull(line, *start);
                moved |= variable.settle(*start, outcome);
            }
        }
        moved
    }

    fn is_changed(&self) {
        EXIST.store(!self.variables.is_empty(), Ordering::Relaxed);
    }

    /// The worker has put a variable here: what it had here before is gone, and goes here, too.
    fn make_room(&mut self, process: &Process, start: u64, len: u64) -> CuResult<()> {
        let before = self.variables.range(..start + len).rev();
        let meets = before.take_while(|(at, variable)| *at + variable.copy.len() as u64 > start);
        let (kept, stale): (Vec<_>, Vec<_>) =
            meets.map(|(at, variable)| (*at, variable.kept)).partition(|(_, kept)| *kept);
        if !kept.is_empty() {
            crate::log::say(|| format!("a managed variable at {start:#x} lies where another one does"));
            return Err(CUresult::UNKNOWN);
        }
        stale.into_iter().for_each(|(at, _)| self.remove(process, at));
        Ok(())
    }

    fn remove(&mut self, process: &Process, start: u64) {
        if let Some(variable) = self.variables.remove(&start) {
            process.ranges.remove(start);
            self.end(process, start, &variable);
        }
        self.is_changed();
    }

    /// A variable's memory goes.
    fn end(&mut self, process: &Process, start: u64, variable: &Variable) {
        let len = variable.copy.len() as u64;
        self.close(process, start, len);
        process.reservations.release(start, len);
    }

    /// Gives the program the pages that a variable lies in.
    fn open(&mut self, process: &Process, start: u64, len: u64) -> CuResult<()> {
        for page in (start / PAGE * PAGE..start + len).step_by(PAGE as usize) {
            *self.pages.entry(page).or_insert(0) += 1;
        }
        let opened = process.reservations.open(start / PAGE * PAGE, (start + len).next_multiple_of(PAGE));
        opened.map_err(|error| {
            self.close(process, start, len);
            crate::log::say(|| format!("no memory for a managed variable at {start:#x}: {error}"));
            CUresult::OUT_OF_MEMORY
        })
    }

    /// Takes the pages away that only this variable lay in.
    fn close(&mut self, process: &Process, start: u64, len: u64) {
        let mut free: Vec<std::ops::Range<u64>> = Vec::new();
        for page in (start / PAGE * PAGE..start + len).step_by(PAGE as usize) {
            match self.pages.get_mut(&page) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    self.pages.remove(&page);
                    match free.last_mut() {
                        Some(run) if run.end == page => run.end += PAGE,
                        _ => free.push(page..page + PAGE),
                    }
                }
            }
        }
        for run in free {
            if let Err(error) = process.reservations.shut(run.start, run.end) {
                crate::log::say(|| format!("a managed variable's pages at {:#x} stay: {error}", run.start));
            }
        }
    }
}

/// Writes to the worker what the program has changed. True: something was.
#[cold]
pub fn push() -> bool {
    lock(&STATE).push()
}

/// Fetches from the worker what the device has changed. True: something was.
#[cold]
pub fn pull() -> bool {
    lock(&STATE).pull()
}

/// A variable of a module's or library's lies at an address: from now on it is memory of this process as well. It may be known.
///
/// # Errors
/// CUDA_ERROR_NOT_SUPPORTED where this process has memory of its own there, and why it cannot be fetched.
pub fn add(process: &'static Process, at: u64, len: usize, owner: u64) -> CuResult<()> {
    let bytes = len as u64;
    if bytes == 0 || at.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(PAGE)).is_none() {
        return Err(CUresult::UNKNOWN);
    }
    let mut state = lock(&STATE);
    let state = &mut *state;
    if state.line.is_none() {
        let ring = process.session.create_ring().map_err(|e| crate::process::control_failure(&e))?;
        state.line = Some(Line { ring, ticket: 0 });
    }
    let known = state.variables.get(&at).is_some_and(|v| v.owner == owner && v.copy.len() == len);
    if !known {
        state.make_room(process, at, bytes)?;
        process.reservations.hold(at, bytes).map_err(|_| {
            crate::log::say(|| {
                format!(
                    "a managed variable at {at:#x} is not supported: this process has memory of its own there"
                )
            });
            CUresult::NOT_SUPPORTED
        })?;
        let placed = state.open(process, at, bytes).and_then(|()| {
            // SAFETY: pages of this process's, just opened, which stay until `end` has taken the variable out.
            unsafe { Copy::new(at, len) }.inspect_err(|_| state.close(process, at, bytes))
        });
        let copy = placed.inspect_err(|_| process.reservations.release(at, bytes))?;
        state.variables.insert(at, Variable { owner, copy, kept: true });
    }
    let outcome = match (state.variables.get_mut(&at), state.line.as_mut()) {
        (Some(variable), Some(line)) => {
            variable.kept = true;
            variable.pull(line, at)
        }
        _ => Err(CUresult::UNKNOWN),
    };
    if let Err(error) = outcome {
        state.remove(process, at);
        return Err(error);
    }
    state.is_changed();
    super::watch::start(process);
    Ok(())
}

/// A module or library is about to go: its variables are left alone from now on.
pub fn suspend(owner: u64) -> Suspended {
    if !exist() {
        return Suspended(Vec::new());
    }
    let mut state = lock(&STATE);
    let gone = state.variables.extract_if(.., |_, variable| variable.owner == owner).collect();
    state.is_changed();
    Suspended(gone)
}

/// It has not gone after all.
pub fn resume(process: &'static Process, suspended: Suspended) {
    if suspended.0.is_empty() {
        return;
    }
    let mut state = lock(&STATE);
    state.variables.extend(suspended.0);
    state.is_changed();
    super::watch::start(process);
}

/// It has gone, and the memory with it.
pub fn end(process: &Process, suspended: Suspended) {
    if suspended.0.is_empty() {
        return;
    }
    let mut state = lock(&STATE);
    for (start, variable) in suspended.0 {
        state.end(process, start, &variable);
    }
}
