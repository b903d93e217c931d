//! Blocks over host threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::error::Fault;
use crate::module::{Kernel, LinkedModule};
use crate::run::block::{Block, Program};
use crate::run::code::Constant;
use crate::run::memory::{GlobalMemory, Port};
use crate::run::warp::{Stop, Warp};

/// Most threads of a block.
const MAX_BLOCK_THREADS: u64 = 1024;
/// Most threads of a block along each axis.
const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
/// Most blocks of a grid along each axis.
const MAX_GRID: [u32; 3] = [0x7fff_ffff, 65535, 65535];
/// Shared memory of a block in bytes, as compute capability 8.0 has it.
pub const MAX_SHARED: u32 = 163 << 10;
/// Most host threads of a launch.
const MAX_WORKERS: usize = 1024;

/// Number of the last launch of this process, for `%gridid`.
static GRID_ID: AtomicU64 = AtomicU64::new(0);

/// A kernel launch.
pub struct LaunchConfig<'a> {
    /// The kernel, of the module that launches it.
    pub kernel: &'a Kernel,
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block along each axis.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared_bytes: u32,
    /// Parameters, packed as [`Kernel::params`] says.
    pub params: &'a [u8],
    /// Global memory.
    pub memory: &'a dyn GlobalMemory,
    /// Host threads. Each runs one block at a time, in the order of the grid (x fastest), so blocks that wait for one
    /// another make progress where all of them fit: where the grid has at most this many blocks, or where blocks
    /// wait only for blocks before them.
    pub workers: usize,
    /// Ends the launch soon after it becomes true.
    pub cancel: &'a AtomicBool,
    /// Hears what threads print (`vprintf`), at the end of the launch at the latest.
    pub print: &'a (dyn Fn(&[u8]) + Sync),
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaunchStats {
    /// Blocks run.
    pub blocks: u64,
    /// Instructions, counted once for all threads of a warp that ran it together.
    pub warp_instructions: u64,
    /// Instructions, counted for each thread.
    pub lane_instructions: u64,
}

impl LinkedModule {
    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// [`Fault::InvalidLaunch`] before anything ran; the first fault of a thread, after which the other blocks stop
    /// soon and memory holds what was stored until then; [`Fault::Cancelled`].
    pub fn launch(&self, config: &LaunchConfig<'_>) -> Result<LaunchStats, Fault> {
        let program = self.program(config)?;
        let [x, y, z] = config.grid.map(u64::from);
        let blocks = x * y * z;
        let workers = u64::from(program.workers).min(blocks) as u32;
        let next = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let outcome: Mutex<(LaunchStats, Option<Fault>)> = Mutex::default();
        let work = |worker: u32| {
            let run = Run { program: &program, config, next: &next, stop: &stop, blocks };
            let (stats, fault) = run.worker(worker);
            let mut all = outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all.0.blocks += stats.blocks;
            all.0.warp_instructions += stats.warp_instructions;
            all.0.lane_instructions += stats.lane_instructions;
            if let Some(fault) = fault {
                stop.store(true, Ordering::Relaxed);
                all.1.get_or_insert(fault);
            }
        };
        if workers == 1 {
            work(0);
        } else {
            std::thread::scope(|scope| {
                for worker in 0..workers {
                    scope.spawn(move || work(worker));
                }
            });
        }
        let (stats, fault) = outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        fault.map_or(Ok(stats), Err)
    }

    fn program<'a>(&'a self, config: &LaunchConfig<'_>) -> Result<Program<'a>, Fault> {
        let kernel = config.kernel;
        let invalid = |what: String| Err(Fault::InvalidLaunch { what });
        let threads: u64 = config.block.iter().map(|&n| u64::from(n)).product();
        if threads == 0
            || threads > MAX_BLOCK_THREADS
            || config.block.iter().zip(MAX_BLOCK).any(|(n, max)| *n > max)
        {
            return invalid(format!("block {:?}", config.block));
        }
        if config.grid.iter().zip(MAX_GRID).any(|(n, max)| *n == 0 || *n > max) {
            return invalid(format!("grid {:?}", config.grid));
        }
        if kernel.max_threads.is_some_and(|max| threads > u64::from(max)) {
            return invalid(format!(
                "{threads} threads in a block, .maxntid allows {:?}",
                kernel.max_threads
            ));
        }
        if kernel.required_threads.is_some_and(|needed| needed != config.block) {
            return invalid(format!("block {:?}, .reqntid is {:?}", config.block, kernel.required_threads));
        }
        let shared = kernel.static_shared_bytes.saturating_add(config.dynamic_shared_bytes);
        if shared > MAX_SHARED {
            return invalid(format!("{shared} bytes of shared memory"));
        }
        if config.params.len() < kernel.param_bytes() as usize {
            return invalid(format!("{} of {} parameter bytes", config.params.len(), kernel.param_bytes()));
        }
        let functions = self.functions();
        if functions.get(kernel.function as usize).is_none_or(|f| f.name != kernel.name) {
            return invalid(format!("kernel `{}` of another module", kernel.name));
        }
        let mut program = Program {
            functions,
            entry: kernel.function,
            words: Vec::with_capacity(functions.len()),
            specials: Vec::with_capacity(functions.len()),
            grid: config.grid,
            block: config.block,
            dynamic_shared: config.dynamic_shared_bytes,
            total_shared: shared,
            grid_id: GRID_ID.fetch_add(1, Ordering::Relaxed) + 1,
            began: Instant::now(),
            workers: config.workers.clamp(1, MAX_WORKERS) as u32,
        };
        for f in functions {
            let (mut words, mut specials) = (Vec::new(), Vec::new());
            for &(row, constant) in &f.constants {
                let (value, wide) = match constant {
                    Constant::Special(s) => {
                        specials.push((row, s));
                        continue;
                    }
                    Constant::Word(_) | Constant::Long(_) => {
                        words.push((row, constant));
                        continue;
                    }
                    Constant::Variable { index, offset, wide } => {
                        (self.address(index).wrapping_add(offset as u64), wide)
                    }
                    Constant::Shared { index, offset, wide } => {
                        // A shared variable the kernel cannot reach has no place; its functions never run.
                        let base = kernel.shared_offset(index).unwrap_or(0);
                        (u64::from(base).wrapping_add(offset as u64), wide)
                    }
                };
                words.push((row, if wide { Constant::Long(value) } else { Constant::Word(value as u32) }));
            }
            program.words.push(words);
            program.specials.push(specials);
        }
        Ok(program)
    }
}

/// One launch, seen by a worker.
struct Run<'a> {
    program: &'a Program<'a>,
    config: &'a LaunchConfig<'a>,
    next: &'a AtomicU64,
    stop: &'a AtomicBool,
    blocks: u64,
}

impl Run<'_> {
    fn worker(&self, worker: u32) -> (LaunchStats, Option<Fault>) {
        let program = self.program;
        let mut port = Port::new(self.config.memory, program.total_shared as usize, self.config.params);
        let mut block = Block { program, index: [0; 3], barriers: Default::default(), live: 0 };
        let warps = program.threads().div_ceil(32);
        let mut warps: Vec<Warp> = (0..warps).map(|k| Warp::new(&block, k, worker)).collect();
        let mut stats = LaunchStats::default();
        let mut fault = None;
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.blocks || self.stop.load(Ordering::Relaxed) {
                break;
            }
            let [x, y] = [u64::from(program.grid[0]), u64::from(program.grid[1])];
            block.index = [(index % x) as u32, (index / x % y) as u32, (index / x / y) as u32];
            if let Err(f) = self.block(&mut block, &mut port, &mut warps) {
                fault = f;
                break;
            }
            stats.blocks += 1;
        }
        if !port.printed.is_empty() {
            (self.config.print)(&port.printed);
        }
        for warp in &warps {
            stats.warp_instructions += warp.steps;
            stats.lane_instructions += warp.lane_steps;
        }
        (stats, fault)
    }

    /// Runs one block. An error without a fault means that another worker ended the launch.
    fn block(
        &self,
        block: &mut Block<'_>,
        port: &mut Port<'_>,
        warps: &mut [Warp],
    ) -> Result<(), Option<Fault>> {
        block.live = self.program.threads();
        block.barriers = Default::default();
        port.shared.clear();
        for warp in warps.iter_mut() {
            warp.start(block)?;
        }
        loop {
            let (mut done, mut ran) = (true, false);
            for warp in warps.iter_mut() {
                let before = warp.steps;
                let stop = warp.run(block, port)?;
                done &= stop == Stop::Done;
                ran |= warp.steps != before;
                if self.config.cancel.load(Ordering::Relaxed) {
                    return Err(Some(Fault::Cancelled));
                }
                if self.stop.load(Ordering::Relaxed) {
                    return Err(None);
                }
            }
            if done {
                return Ok(());
            }
            if !ran {
                let line = warps.iter().find_map(|w| w.waiting_line(block)).unwrap_or(0);
                return Err(Some(Fault::Deadlock { line }));
            }
        }
    }
}
