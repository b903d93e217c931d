//! How many instructions a second the interpreter executes: `cargo run --release -p ptx --example ptx_speed`.

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use ptx::{GlobalMemory, LaunchConfig, LinkedModule, Module, Range};

/// Device address of the memory.
const BASE: u64 = 0x7000_0000_0000;
/// Bytes of the memory.
const SIZE: usize = 64 << 20;

/// One stretch of memory, split between the buffers of a kernel.
struct Memory(Box<[UnsafeCell<u128>]>);

// SAFETY: the cells are reached through `resolve` only, by the atomics of the interpreter.
unsafe impl Sync for Memory {}

// SAFETY: the box is not moved or freed while a launch borrows it.
unsafe impl GlobalMemory for Memory {
    fn resolve(&self, _addr: u64) -> Option<Range> {
        Some(Range { base: BASE, len: SIZE as u64, host: self.0.as_ptr() as *mut u8, writable: true })
    }
}

/// Module, kernel, grid, block, arguments.
type Run<'a> = (&'a LinkedModule, &'a str, [u32; 3], [u32; 3], Vec<Vec<u8>>);

fn load(text: &str) -> LinkedModule {
    let module = Module::parse(text).expect("the fixture parses");
    let variables: HashMap<String, u64> = module.globals().map(|g| (g.name.clone(), BASE)).collect();
    module.link(&variables).expect("every variable has an address")
}

fn main() {
    let memory = Memory((0..SIZE / 16).map(|_| UnsafeCell::new(0)).collect());
    let basic = load(include_str!("../tests/ptx/basic.ptx"));
    let shared = load(include_str!("../tests/ptx/shared.ptx"));
    let float = load(include_str!("../tests/ptx/float.ptx"));
    let integer = load(include_str!("../tests/ptx/integer.ptx"));
    let buffer = |k: u64| (BASE + k * (16 << 20)).to_le_bytes().to_vec();
    let int = |v: i32| v.to_le_bytes().to_vec();
    let (a, b, c) = (buffer(0), buffer(1), buffer(2));
    let runs: [Run<'_>; 5] = [
        (&basic, "vecadd", [16384, 1, 1], [256, 1, 1], vec![a.clone(), b.clone(), c.clone(), int(4 << 20)]),
        (
            &basic,
            "saxpy",
            [64, 1, 1],
            [256, 1, 1],
            vec![1.5f32.to_le_bytes().to_vec(), a.clone(), b.clone(), int(4 << 20)],
        ),
        (&shared, "matmul_static", [16, 16, 1], [16, 16, 1], vec![a.clone(), b.clone(), c.clone(), int(256)]),
        (&float, "mandelbrot", [64, 64, 1], [8, 8, 1], vec![int(512), int(512), int(500), c.clone()]),
        (&integer, "ints32", [512, 1, 1], [256, 1, 1], vec![a, b, c, int(131_072)]),
    ];
    for workers in [1, std::thread::available_parallelism().map_or(1, usize::from)] {
        for (module, name, grid, block, arguments) in &runs {
            let kernel = module.module().kernel(name).expect("the kernel is in the fixture");
            let mut params = vec![0u8; kernel.param_bytes() as usize];
            for (p, v) in kernel.params.iter().zip(arguments) {
                params[p.offset as usize..][..v.len()].copy_from_slice(v);
            }
            let began = Instant::now();
            let stats = module
                .launch(&LaunchConfig {
                    kernel,
                    grid: *grid,
                    block: *block,
                    dynamic_shared_bytes: 0,
                    params: &params,
                    memory: &memory,
                    workers,
                    cancel: &AtomicBool::new(false),
                    print: &|_| {},
                })
                .expect("the launch succeeds");
            let seconds = began.elapsed().as_secs_f64();
            println!(
                "{name:14} {workers} threads: {:7.1} M thread-instructions/s, {:5.1} M warp-instructions/s, {:.1} lanes each, {seconds:.3} s",
                stats.lane_instructions as f64 / seconds / 1e6,
                stats.warp_instructions as f64 / seconds / 1e6,
                stats.lane_instructions as f64 / stats.warp_instructions as f64,
            );
        }
    }
}
