//! The internal code that a function is lowered to.

use crate::error::Fault;
use crate::run::lanes::Frame;
use crate::run::memory::Port;

/// A register slot or predicate that an instruction does not have.
pub(crate) const NONE: u32 = u32::MAX;

/// An operation on registers alone. Cannot fail; the mask may contain lanes that have exited.
pub(crate) type Alu = fn(&mut Frame, &Ins, u32);
/// An operation that reaches memory.
pub(crate) type Access = fn(&mut Port<'_>, &mut Frame, &Ins, u32) -> Result<(), Fault>;

/// One lowered instruction.
#[derive(Clone, Copy)]
pub(crate) struct Ins {
    /// What to do.
    pub(crate) run: Run,
    /// Predicate index times two, plus one where the predicate is negated; [`NONE`] for always.
    pub(crate) guard: u32,
    /// Register rows, predicate indices or branch targets, as the operation says.
    pub(crate) r: [u32; 6],
    /// Immediate: byte offset, mode bits, table index.
    pub(crate) imm: u64,
    /// Line in the PTX text.
    pub(crate) line: u32,
}

/// What an instruction does.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// Registers only.
    Alu(Alu),
    /// Memory.
    Access(Access),
    /// `r0` = target.
    Branch,
    /// `r0` = row of the index, `imm` = table of the function.
    BranchIndexed,
    /// `imm` = call site of the function.
    Call,
    /// Back to the caller; in an entry function the end of the thread.
    Return,
    /// End of the thread.
    Exit,
    /// Ends the launch with an error.
    Trap,
    /// Barrier of the block.
    Barrier(Barrier),
    /// Needs other lanes of the warp: `r0` destination row, `r1` destination predicate, `r2`… sources, `r5` lane mask row.
    Together(Together),
    /// `r0` = destination row: a value only known when it runs.
    Read(Dynamic),
    /// Host memory fence.
    Fence,
    /// Lets other warps run.
    Pause,
}

/// What a barrier gives back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Barrier {
    /// Wait. `r0` = row of the barrier number, `r1` = row of the thread count or [`NONE`].
    Sync,
    /// Count in without waiting.
    Arrive,
    /// Wait; `r2` = destination row, `r3` = source predicate, `imm` bit 0 = source negated.
    Popc,
    /// Wait; `r2` = destination predicate.
    And,
    /// Wait; `r2` = destination predicate.
    Or,
}

/// Warp operations that wait for the lanes of a mask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Together {
    /// `bar.warp.sync`.
    Sync,
    /// `shfl`: `r2` value, `r3` lane or delta, `r4` clamp and segment mask.
    Shuffle(Shuffle),
    /// `vote`: `r2` source predicate, `imm` bit 0 = negated.
    Vote(Vote),
    /// `match`: `r2` value.
    Match {
        /// All lanes must agree (`.all`), else each lane gets its equals.
        all: bool,
        /// 64-bit value.
        wide: bool,
    },
    /// `redux`: `r2` value.
    Reduce(Reduce),
}

/// Modes of `shfl`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shuffle {
    /// From a lower lane.
    Up,
    /// From a higher lane.
    Down,
    /// From the lane with some bits flipped.
    Butterfly,
    /// From a named lane.
    Index,
}

/// Modes of `vote`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Vote {
    /// True for all.
    All,
    /// True for any.
    Any,
    /// The same for all.
    Uniform,
    /// A mask of those for which it is true.
    Ballot,
}

/// Operations of `redux`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Reduce {
    Add,
    And,
    Or,
    Xor,
    MinU,
    MaxU,
    MinS,
    MaxS,
}

/// Values read at run time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dynamic {
    /// Lanes that execute this instruction together.
    ActiveMask,
    /// Low word of the clock.
    Clock,
    /// High word of the clock.
    ClockHigh,
    /// Clock, 64 bits.
    Clock64,
    /// Nanoseconds, low word.
    Nanos,
    /// Nanoseconds, high word.
    NanosHigh,
    /// Nanoseconds.
    Nanos64,
    /// Address of a local variable: activation base plus `imm`, 32-bit destination.
    Local32,
    /// The same, 64-bit destination.
    Local64,
}

/// A value that fills a constant row when a launch starts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Constant {
    /// A literal of 32 bits.
    Word(u32),
    /// A literal of 64 bits.
    Long(u64),
    /// Address of a module variable plus an offset; `wide` = 64-bit row.
    Variable {
        /// Index in the module's variables.
        index: u32,
        /// Bytes added.
        offset: i64,
        /// 64-bit row.
        wide: bool,
    },
    /// Shared-window offset of a shared variable plus an offset.
    Shared {
        /// Index in the module's shared variables.
        index: u32,
        /// Bytes added.
        offset: i64,
        /// 64-bit row.
        wide: bool,
    },
    /// A special register that stays the same while a block runs.
    Special(Special),
}

impl Constant {
    /// Rows the constant takes.
    pub(crate) fn rows(self) -> u32 {
        match self {
            Constant::Word(_) => 1,
            Constant::Long(_) => 2,
            Constant::Variable { wide, .. } | Constant::Shared { wide, .. } => 1 + u32::from(wide),
            Constant::Special(s) => 1 + u32::from(s == Special::GridId),
        }
    }
}

/// Special registers that stay the same while a block runs. Axes are 0 to 2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NwarpId,
    SmId,
    NsmId,
    GridId,
    MaskEq,
    MaskLe,
    MaskLt,
    MaskGe,
    MaskGt,
    DynamicShared,
    TotalShared,
}

/// A variable of a call: where it lies in the caller's local memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Offset in the activation's local memory, bytes.
    pub(crate) offset: u32,
    /// Bytes.
    pub(crate) size: u32,
}

/// One `call`.
#[derive(Clone, Debug)]
pub(crate) struct CallSite {
    /// Index of the called function.
    pub(crate) function: u32,
    /// What the caller passes.
    pub(crate) arguments: Vec<Slot>,
    /// Where results go.
    pub(crate) results: Vec<Slot>,
}

/// A lowered function.
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// Instructions; the last one ends the thread or returns.
    pub(crate) code: Vec<Ins>,
    /// Register rows, constants included.
    pub(crate) rows: u32,
    /// Predicates, constants included.
    pub(crate) preds: u32,
    /// Constant rows.
    pub(crate) constants: Vec<(u32, Constant)>,
    /// Constant predicates.
    pub(crate) constant_preds: Vec<(u32, bool)>,
    /// Bytes of local memory of one activation and one thread, call variables included.
    pub(crate) local_bytes: u32,
    /// Parameters (device functions).
    pub(crate) params: Vec<Slot>,
    /// Results (device functions).
    pub(crate) results: Vec<Slot>,
    /// Call sites.
    pub(crate) calls: Vec<CallSite>,
    /// Targets of indexed branches.
    pub(crate) tables: Vec<Vec<u32>>,
    /// Shared variables named in the function.
    pub(crate) shared: Vec<u32>,
}
