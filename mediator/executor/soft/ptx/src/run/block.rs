//! What the warps of one block share: its barriers and its place in the grid.

use std::time::Instant;

use crate::run::code::{Constant, Function, Special};
use crate::run::lanes::Frame;

/// Barriers of a block.
pub(crate) const BARRIERS: usize = 16;

/// One barrier.
#[derive(Clone, Copy, Default)]
pub(crate) struct BarrierState {
    /// Grows each time the barrier opens; who waits compares.
    pub(crate) phase: u64,
    /// Threads that came in this phase.
    arrived: u32,
    /// Threads that must come; 0 = all that have not exited.
    expected: u32,
    /// Threads of this phase whose predicate held.
    held: u32,
    /// What the reduction of the last phase gave.
    pub(crate) result: Reduction,
}

/// Outcome of a barrier with reduction.
#[derive(Clone, Copy, Default)]
pub(crate) struct Reduction {
    pub(crate) count: u32,
    pub(crate) all: bool,
    pub(crate) any: bool,
}

/// State of the block that a worker runs.
pub(crate) struct Block<'a> {
    /// The launch.
    pub(crate) program: &'a Program<'a>,
    /// Index in the grid.
    pub(crate) index: [u32; 3],
    /// Barriers by number.
    pub(crate) barriers: [BarrierState; BARRIERS],
    /// Threads that have not exited.
    pub(crate) live: u32,
}

impl Block<'_> {
    /// Counts threads in. False where the barrier is used with two different counts at a time.
    pub(crate) fn arrive(&mut self, id: usize, expected: u32, threads: u32, held: u32) -> bool {
        let live = self.live;
        let Some(b) = self.barriers.get_mut(id) else { return false };
        if b.arrived > 0 && b.expected != expected {
            return false;
        }
        b.expected = expected;
        b.arrived += threads;
        b.held += held;
        b.open_if_full(live);
        true
    }

    /// Threads left the block: barriers that wait for all may open.
    pub(crate) fn exit(&mut self, threads: u32) {
        self.live -= threads;
        let live = self.live;
        for b in &mut self.barriers {
            if b.arrived > 0 {
                b.open_if_full(live);
            }
        }
    }
}

impl BarrierState {
    fn open_if_full(&mut self, live: u32) {
        let needed = if self.expected == 0 { live } else { self.expected };
        if self.arrived >= needed {
            self.result = Reduction { count: self.held, all: self.held == self.arrived, any: self.held > 0 };
            self.phase += 1;
            self.arrived = 0;
            self.held = 0;
        }
    }
}

/// A launch, as the workers see it.
pub(crate) struct Program<'a> {
    /// Functions of the module.
    pub(crate) functions: &'a [Function],
    /// Index of the kernel's function.
    pub(crate) entry: u32,
    /// Per function: constant rows with their values, special registers excepted.
    pub(crate) words: Vec<Vec<(u32, Constant)>>,
    /// Per function: rows of special registers.
    pub(crate) specials: Vec<Vec<(u32, Special)>>,
    /// Blocks along each axis.
    pub(crate) grid: [u32; 3],
    /// Threads along each axis.
    pub(crate) block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub(crate) dynamic_shared: u32,
    /// Bytes of shared memory in all.
    pub(crate) total_shared: u32,
    /// Number of the launch.
    pub(crate) grid_id: u64,
    /// When the launch began.
    pub(crate) began: Instant,
    /// Host threads, which a kernel sees as multiprocessors.
    pub(crate) workers: u32,
}

impl Program<'_> {
    /// Threads of a block.
    pub(crate) fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Fills the rows of special registers for a warp; in a frame that the warp used before only those that change
    /// from block to block.
    pub(crate) fn fill_specials(
        &self,
        frame: &mut Frame,
        block: [u32; 3],
        warp: u32,
        worker: u32,
        fresh: bool,
    ) {
        let Some(specials) = self.specials.get(frame.function as usize) else { return };
        for &(row, special) in specials {
            if let Special::Ctaid(axis) = special {
                frame.words_mut::<u32>(row).fill(block[usize::from(axis)]);
                continue;
            }
            if !fresh {
                continue;
            }
            if special == Special::GridId {
                frame.words_mut::<u64>(row).fill(self.grid_id);
                continue;
            }
            for (lane, word) in (0u32..).zip(frame.words_mut::<u32>(row)) {
                *word = self.special(special, warp, worker, lane);
            }
        }
    }

    fn special(&self, special: Special, warp: u32, worker: u32, lane: u32) -> u32 {
        let thread = warp * 32 + lane;
        let [x, y, _] = self.block;
        match special {
            Special::Tid(0) => thread % x,
            Special::Tid(1) => thread / x % y,
            Special::Tid(_) => thread / x / y,
            Special::Ntid(axis) => self.block[usize::from(axis)],
            Special::Nctaid(axis) => self.grid[usize::from(axis)],
            Special::LaneId => lane,
            Special::WarpId => warp,
            Special::NwarpId => self.threads().div_ceil(32),
            Special::SmId => worker,
            Special::NsmId => self.workers,
            Special::MaskEq => 1 << lane,
            Special::MaskLt => (1 << lane) - 1,
            Special::MaskLe => u32::MAX >> (31 - lane),
            Special::MaskGe => u32::MAX << lane,
            Special::MaskGt => !(u32::MAX >> (31 - lane)),
            Special::DynamicShared => self.dynamic_shared,
            Special::TotalShared => self.total_shared,
            // Filled by the caller.
            Special::GridId | Special::Ctaid(_) => 0,
        }
    }
}
