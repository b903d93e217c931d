//! A warp: 32 threads in lockstep where their paths agree.
//!
//! Threads of a warp that stand at the same place form a *split*. One split runs at a time: that of the innermost
//! function activation, and among those the one with the lowest program counter, so that lanes which left a loop
//! early wait for the others behind it and join them. A split that spins would keep the others of its warp waiting
//! for ever; after [`PATIENCE`] quanta the split that waited longest runs instead.

use std::sync::atomic::{Ordering, fence};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::Fault;
use crate::run::block::Block;
use crate::run::code::{Barrier, Constant, Dynamic, Ins, NONE, Run, Together};
use crate::run::lanes::{Frame, Lanes, Row};
use crate::run::memory::{LocalStack, Port};
use crate::run::together::Brought;

/// Jumps back, calls and returns a warp makes before other warps and the cancel flag have their turn.
const QUANTUM: u32 = 512;
/// Quanta a split may spin while others of its warp are ready.
const PATIENCE: u32 = 16;
/// Nested calls.
const MAX_DEPTH: u32 = 1024;
/// Bytes of local memory of one thread, as compute capability 8.0 has it.
pub(crate) const MAX_LOCAL: u32 = 512 << 10;
/// Register rows of all activations of a warp (128 bytes each): bounds what recursion can take.
const MAX_ROWS: usize = 1 << 17;

/// Lanes at the same place.
#[derive(Clone, Copy)]
struct Split {
    frame: u32,
    pc: u32,
    mask: u32,
    wait: Wait,
    stamp: u64,
}

/// What a split waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Nothing,
    /// A barrier to leave this phase.
    Barrier(u8, u64),
    /// Other lanes of the warp to come to the same operation.
    Lanes(Together),
}

/// Why a warp stopped running.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Every thread has exited.
    Done,
    /// Every thread waits.
    Blocked,
    /// The quantum is over.
    Yield,
}

/// The threads of a warp.
pub(crate) struct Warp {
    index: u32,
    worker: u32,
    frames: Vec<Frame>,
    /// Frames to use again, by function.
    spare: Vec<Vec<u32>>,
    splits: Vec<Split>,
    alive: u32,
    local: LocalStack,
    stamp: u64,
    spent: u32,
    rows: usize,
    /// Instructions executed, counted per warp.
    pub(crate) steps: u64,
    /// Instructions executed, counted per thread.
    pub(crate) lane_steps: u64,
}

impl Warp {
    pub(crate) fn new(block: &Block<'_>, index: u32, worker: u32) -> Warp {
        Warp {
            index,
            worker,
            frames: Vec::new(),
            spare: vec![Vec::new(); block.program.functions.len()],
            splits: Vec::new(),
            alive: 0,
            local: LocalStack::default(),
            stamp: 0,
            spent: 0,
            rows: 0,
            steps: 0,
            lane_steps: 0,
        }
    }

    /// Puts the threads of a new block at the start of the kernel.
    pub(crate) fn start(&mut self, block: &Block<'_>) -> Result<(), Fault> {
        self.splits.clear();
        let threads = block.program.threads().saturating_sub(self.index * 32).min(32);
        self.alive = if threads == 32 { u32::MAX } else { (1 << threads) - 1 };
        let frame = self.enter(block, block.program.entry, self.alive, None, 0)?;
        self.frames[frame as usize].parent = frame;
        let need = block.program.functions[block.program.entry as usize].local_bytes;
        self.local.reserve(need as usize);
        self.push(frame, 0, self.alive, Wait::Nothing);
        Ok(())
    }

    fn push(&mut self, frame: u32, pc: u32, mask: u32, wait: Wait) {
        if mask != 0 {
            self.splits.push(Split { frame, pc, mask, wait, stamp: self.stamp });
        }
    }

    /// A frame for the lanes that enter a function.
    fn enter(
        &mut self,
        block: &Block<'_>,
        function: u32,
        mask: u32,
        caller: Option<(u32, u32)>,
        line: u32,
    ) -> Result<u32, Fault> {
        let f = &block.program.functions[function as usize];
        let mut fresh = false;
        let index = match self.spare[function as usize].pop() {
            Some(index) => index,
            None => {
                fresh = true;
                self.rows += f.rows as usize;
                if self.rows > MAX_ROWS && caller.is_some() {
                    return Err(Fault::StackOverflow { line });
                }
                let mut frame = Frame {
                    rows: vec![Row([0; 32]); f.rows as usize],
                    preds: vec![0; f.preds as usize],
                    carry: 0,
                    local_base: 0,
                    function,
                    parent: 0,
                    return_pc: 0,
                    live: 0,
                    depth: 0,
                };
                for &(row, constant) in &block.program.words[function as usize] {
                    match constant {
                        Constant::Word(v) => frame.words_mut::<u32>(row).fill(v),
                        Constant::Long(v) => frame.words_mut::<u64>(row).fill(v),
                        _ => {}
                    }
                }
                for &(p, v) in &f.constant_preds {
                    frame.preds[p as usize] = if v { u32::MAX } else { 0 };
                }
                self.frames.push(frame);
                (self.frames.len() - 1) as u32
            }
        };
        let (parent, return_pc, depth, local_base) = match caller {
            None => (index, 0, 0, 0),
            Some((frame, pc)) => {
                let up = &self.frames[frame as usize];
                let used = block.program.functions[up.function as usize].local_bytes;
                (frame, pc, up.depth + 1, (up.local_base + used).next_multiple_of(16))
            }
        };
        let need = local_base.saturating_add(f.local_bytes);
        if depth > MAX_DEPTH || need > MAX_LOCAL {
            return Err(Fault::StackOverflow { line });
        }
        let frame = &mut self.frames[index as usize];
        (frame.parent, frame.return_pc, frame.depth, frame.local_base) =
            (parent, return_pc, depth, local_base);
        frame.live = mask;
        block.program.fill_specials(frame, block.index, self.index, self.worker, fresh);
        Ok(index)
    }

    /// Takes lanes out of a frame; an empty frame is free for the next call.
    fn leave(&mut self, frame: u32, mask: u32) {
        let f = &mut self.frames[frame as usize];
        f.live &= !mask;
        if f.live == 0 {
            self.spare[f.function as usize].push(frame);
        }
    }

    /// Ends threads.
    fn exit(&mut self, block: &mut Block<'_>, mut frame: u32, mask: u32) {
        self.alive &= !mask;
        block.exit(mask.count_ones());
        loop {
            let parent = self.frames[frame as usize].parent;
            self.leave(frame, mask);
            if parent == frame {
                return;
            }
            frame = parent;
        }
    }

    /// Line of some instruction that waits.
    pub(crate) fn waiting_line(&self, block: &Block<'_>) -> Option<u32> {
        let s = self.splits.first()?;
        let function = self.frames[s.frame as usize].function;
        block.program.functions[function as usize].code.get(s.pc as usize).map(|i| i.line)
    }

    /// Chooses the split to run and takes it, with all that stand at the same place, out of the list.
    fn pick(&mut self, block: &Block<'_>) -> Option<(Split, u32)> {
        self.wake(block);
        if self.splits.iter().all(|s| s.wait != Wait::Nothing) {
            self.meet_all(block);
        }
        let fair = self.spent >= PATIENCE;
        let ready = |s: &&Split| s.wait == Wait::Nothing;
        let frames = &self.frames;
        let best = if fair {
            self.spent = 0;
            self.splits.iter().filter(ready).min_by_key(|s| s.stamp)
        } else {
            self.splits
                .iter()
                .filter(ready)
                .min_by_key(|s| (std::cmp::Reverse(frames[s.frame as usize].depth), s.frame, s.pc))
        };
        let mut chosen = *best?;
        let (mut limit, mut mask) = (u32::MAX, 0);
        self.splits.retain(|s| {
            if s.wait != Wait::Nothing || s.frame != chosen.frame {
                return true;
            }
            if s.pc == chosen.pc {
                mask |= s.mask;
                return false;
            }
            if s.pc > chosen.pc && !fair {
                limit = limit.min(s.pc);
            }
            true
        });
        chosen.mask = mask;
        self.stamp += 1;
        Some((chosen, limit))
    }

    /// Lets the splits go on whose barrier has opened.
    fn wake(&mut self, block: &Block<'_>) {
        for s in &mut self.splits {
            let Wait::Barrier(id, phase) = s.wait else { continue };
            let barrier = &block.barriers[usize::from(id)];
            if barrier.phase == phase {
                continue;
            }
            let frame = &mut self.frames[s.frame as usize];
            let i = &block.program.functions[frame.function as usize].code[s.pc as usize];
            let result = barrier.result;
            let whole = |v: bool| if v { u32::MAX } else { 0 };
            match i.run {
                Run::Barrier(Barrier::Popc) => {
                    for lane in Lanes(s.mask) {
                        frame.words_mut::<u32>(i.r[2])[lane] = result.count;
                    }
                }
                Run::Barrier(Barrier::And) => frame.set_pred(i.r[2], s.mask, whole(result.all)),
                Run::Barrier(Barrier::Or) => frame.set_pred(i.r[2], s.mask, whole(result.any)),
                _ => {}
            }
            s.wait = Wait::Nothing;
            s.pc += 1;
        }
    }

    /// Carries out the warp operations all of whose lanes have come.
    fn meet_all(&mut self, block: &Block<'_>) {
        let mut seen: Vec<Together> = Vec::new();
        for k in 0..self.splits.len() {
            if let Wait::Lanes(op) = self.splits[k].wait
                && !seen.contains(&op)
            {
                seen.push(op);
                self.meet(block, op);
            }
        }
    }

    fn meet(&mut self, block: &Block<'_>, op: Together) {
        let code =
            |f: &Frame, pc: u32| -> Ins { block.program.functions[f.function as usize].code[pc as usize] };
        let mut brought = Brought::new();
        let mut present = 0;
        for s in self.splits.iter().filter(|s| s.wait == Wait::Lanes(op)) {
            let frame = &self.frames[s.frame as usize];
            brought.gather(op, frame, &code(frame, s.pc), s.mask);
            present |= s.mask;
        }
        let complete = Lanes(present).filter(|&lane| {
            let wanted = brought.member[lane] & self.alive;
            let same = Lanes(present).filter(|&k| brought.member[k] == brought.member[lane]);
            wanted & !same.fold(0u32, |m, k| m | 1 << k) == 0
        });
        let ready = complete.fold(0u32, |m, lane| m | 1 << lane);
        for k in 0..self.splits.len() {
            let s = self.splits[k];
            let go = s.mask & ready;
            if s.wait != Wait::Lanes(op) || go == 0 {
                continue;
            }
            let frame = &mut self.frames[s.frame as usize];
            let i = code(frame, s.pc);
            brought.scatter(op, frame, &i, go, present);
            self.splits[k].mask &= !go;
            self.push(s.frame, s.pc + 1, go, Wait::Nothing);
        }
        self.splits.retain(|s| s.mask != 0);
    }

    /// Runs until every thread waits or has exited, or the quantum is over.
    pub(crate) fn run(&mut self, block: &mut Block<'_>, port: &mut Port<'_>) -> Result<Stop, Fault> {
        std::mem::swap(&mut self.local, &mut port.local);
        let outcome = self.run_splits(block, port);
        std::mem::swap(&mut self.local, &mut port.local);
        outcome
    }

    fn run_splits(&mut self, block: &mut Block<'_>, port: &mut Port<'_>) -> Result<Stop, Fault> {
        let mut budget = QUANTUM;
        loop {
            let Some((split, limit)) = self.pick(block) else {
                self.spent = 0;
                return Ok(if self.alive == 0 { Stop::Done } else { Stop::Blocked });
            };
            self.run_split(block, port, split, limit, &mut budget)?;
            if budget == 0 {
                let others = self.splits.iter().filter(|s| s.wait == Wait::Nothing).count() > 1;
                self.spent = if others { self.spent + 1 } else { 0 };
                return Ok(Stop::Yield);
            }
        }
    }

    /// Runs one split until it ends, waits, meets another or the budget is gone, and puts what is left of it back.
    fn run_split(
        &mut self,
        block: &mut Block<'_>,
        port: &mut Port<'_>,
        split: Split,
        mut limit: u32,
        budget: &mut u32,
    ) -> Result<(), Fault> {
        let Split { frame: frame_index, mut pc, mut mask, .. } = split;
        let program = block.program;
        let function = &program.functions[self.frames[frame_index as usize].function as usize];
        let code = function.code.as_slice();
        let dead = !self.alive;
        let (mut steps, mut lanes) = (0u64, mask.count_ones());
        let frame = &mut self.frames[frame_index as usize];
        // Leaves the loop with the lanes `mask` ready at `pc`.
        loop {
            if pc >= limit {
                break;
            }
            let i = &code[pc as usize];
            let m = match i.guard {
                NONE => mask,
                guard => {
                    let held = frame.preds[(guard >> 1) as usize];
                    mask & if guard & 1 == 1 { !held } else { held }
                }
            };
            steps += 1;
            if m == 0 {
                pc += 1;
                continue;
            }
            match i.run {
                Run::Alu(op) => {
                    op(frame, i, m | dead);
                    pc += 1;
                }
                Run::Access(op) => {
                    op(port, frame, i, m)?;
                    pc += 1;
                }
                Run::Branch => {
                    let target = i.r[0];
                    *budget -= u32::from(target <= pc);
                    if m == mask {
                        pc = target;
                    } else {
                        self.steps += steps;
                        self.lane_steps += std::mem::take(&mut steps) * u64::from(lanes);
                        let (low, high) = if target <= pc {
                            ((target, m), (pc + 1, mask & !m))
                        } else {
                            ((pc + 1, mask & !m), (target, m))
                        };
                        let stamp = self.stamp;
                        self.splits.push(Split {
                            frame: frame_index,
                            pc: high.0,
                            mask: high.1,
                            wait: Wait::Nothing,
                            stamp,
                        });
                        limit = limit.min(high.0);
                        (pc, mask) = low;
                        lanes = mask.count_ones();
                    }
                    if *budget == 0 {
                        break;
                    }
                }
                Run::Together(op) => {
                    let mut brought = Brought::new();
                    brought.gather(op, frame, i, m);
                    if Lanes(m).all(|lane| brought.member[lane] & !dead & !m == 0) {
                        brought.scatter(op, frame, i, m, m);
                        pc += 1;
                    } else {
                        self.push(frame_index, pc, m, Wait::Lanes(op));
                        self.meet(block, op);
                        mask &= !m;
                        pc += 1;
                        break;
                    }
                }
                Run::Read(what) => {
                    read(frame, i, m, what, program.began);
                    pc += 1;
                }
                Run::Fence => {
                    fence(Ordering::SeqCst);
                    pc += 1;
                }
                Run::Pause => {
                    std::thread::yield_now();
                    *budget = 0;
                    pc += 1;
                    break;
                }
                Run::Trap => return Err(Fault::Trap { line: i.line }),
                Run::Barrier(kind) => {
                    let wait = arrive(block, frame, i, m, kind)?;
                    if let Some(wait) = wait {
                        self.push(frame_index, pc, m, wait);
                        mask &= !m;
                        pc += 1;
                        break;
                    }
                    pc += 1;
                }
                Run::BranchIndexed => {
                    let table = &function.tables[i.imm as usize];
                    let mut rest = m;
                    while rest != 0 {
                        let index = frame.words::<u32>(i.r[0])[rest.trailing_zeros() as usize];
                        let Some(&target) = table.get(index as usize) else {
                            return Err(Fault::IllegalInstruction { line: i.line });
                        };
                        let row = frame.words::<u32>(i.r[0]);
                        let same = Lanes(rest).filter(|&k| row[k] == index).fold(0u32, |a, k| a | 1 << k);
                        rest &= !same;
                        let stamp = self.stamp;
                        self.splits.push(Split {
                            frame: frame_index,
                            pc: target,
                            mask: same,
                            wait: Wait::Nothing,
                            stamp,
                        });
                    }
                    *budget -= 1;
                    mask &= !m;
                    pc += 1;
                    break;
                }
                Run::Call => {
                    let site = &function.calls[i.imm as usize];
                    let callee = &program.functions[site.function as usize];
                    let from = frame.local_base;
                    let new = self.enter(block, site.function, m, Some((frame_index, pc + 1)), i.line)?;
                    let to = self.frames[new as usize].local_base;
                    port.local.reserve((to + callee.local_bytes) as usize);
                    for (a, p) in site.arguments.iter().zip(&callee.params) {
                        for lane in Lanes(m) {
                            port.local.copy(lane, from + a.offset, to + p.offset, p.size.min(a.size));
                        }
                    }
                    self.push(new, 0, m, Wait::Nothing);
                    *budget -= 1;
                    mask &= !m;
                    pc += 1;
                    break;
                }
                Run::Return | Run::Exit => {
                    let (parent, return_pc) = (frame.parent, frame.return_pc);
                    if matches!(i.run, Run::Exit) || parent == frame_index {
                        self.exit(block, frame_index, m);
                    } else {
                        let from = frame.local_base;
                        let up = &self.frames[parent as usize];
                        let (to, caller) = (up.local_base, &program.functions[up.function as usize]);
                        let site = &caller.calls[caller.code[return_pc as usize - 1].imm as usize];
                        for (r, a) in function.results.iter().zip(&site.results) {
                            for lane in Lanes(m) {
                                port.local.copy(lane, from + r.offset, to + a.offset, a.size.min(r.size));
                            }
                        }
                        self.leave(frame_index, m);
                        self.push(parent, return_pc, m, Wait::Nothing);
                        *budget -= 1;
                    }
                    mask &= !m;
                    pc += 1;
                    break;
                }
            }
        }
        self.steps += steps;
        self.lane_steps += steps * u64::from(lanes);
        self.push(frame_index, pc, mask, Wait::Nothing);
        Ok(())
    }
}

/// Counts lanes in at a barrier; what they wait for, unless they go on.
fn arrive(
    block: &mut Block<'_>,
    frame: &Frame,
    i: &Ins,
    m: u32,
    kind: Barrier,
) -> Result<Option<Wait>, Fault> {
    let illegal = Fault::IllegalInstruction { line: i.line };
    let uniform = |row: u32| -> Option<u32> {
        let words = frame.words::<u32>(row);
        let first = words[m.trailing_zeros() as usize];
        Lanes(m).all(|lane| words[lane] == first).then_some(first)
    };
    let id = uniform(i.r[0]).ok_or(illegal.clone())?;
    let count = if i.r[1] == NONE { 0 } else { uniform(i.r[1]).filter(|n| *n > 0).ok_or(illegal.clone())? };
    let Some(phase) = block.barriers.get(id as usize).map(|b| b.phase) else { return Err(illegal) };
    if count % 32 != 0 {
        return Err(illegal);
    }
    let held = match kind {
        Barrier::Popc | Barrier::And | Barrier::Or => {
            let p = frame.pred(i.r[3]);
            (if i.imm & 1 == 1 { !p } else { p }) & m
        }
        Barrier::Sync | Barrier::Arrive => 0,
    };
    if !block.arrive(id as usize, count, m.count_ones(), held.count_ones()) {
        return Err(illegal);
    }
    Ok((kind != Barrier::Arrive).then_some(Wait::Barrier(id as u8, phase)))
}

/// Values only known when the instruction runs. Clocks count nanoseconds.
fn read(frame: &mut Frame, i: &Ins, m: u32, what: Dynamic, began: std::time::Instant) {
    let clock = || began.elapsed().as_nanos() as u64;
    let nanos = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let address = u64::from(frame.local_base).wrapping_add(i.imm);
    let value = match what {
        Dynamic::ActiveMask => m.into(),
        Dynamic::Clock | Dynamic::Clock64 => clock(),
        Dynamic::ClockHigh => clock() >> 32,
        Dynamic::Nanos | Dynamic::Nanos64 => nanos(),
        Dynamic::NanosHigh => nanos() >> 32,
        Dynamic::Local32 | Dynamic::Local64 => address,
    };
    let wide = matches!(what, Dynamic::Clock64 | Dynamic::Nanos64 | Dynamic::Local64);
    for lane in Lanes(m) {
        if wide {
            frame.words_mut::<u64>(i.r[0])[lane] = value;
        } else {
            frame.words_mut::<u32>(i.r[0])[lane] = value as u32;
        }
    }
}
