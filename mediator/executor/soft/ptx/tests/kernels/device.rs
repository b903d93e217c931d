//! A device for the tests: global memory, module loading, launches.

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use ptx::{Fault, GlobalMemory, LaunchConfig, LaunchStats, LinkedModule, Module, Range};

struct Allocation {
    base: u64,
    len: u64,
    words: Box<[UnsafeCell<u128>]>,
    writable: bool,
}

/// Global memory: each allocation ends where it ends, the next one is far away.
#[derive(Default)]
pub struct Memory {
    allocations: Vec<Allocation>,
}

// SAFETY: the words are only reached through the raw pointers `resolve` gives out, by atomics, and by `bytes` and
// `write`, which need the memory not to be shared with a running launch.
unsafe impl Sync for Memory {}

// SAFETY: an allocation lives as long as the memory and never moves.
unsafe impl GlobalMemory for Memory {
    fn resolve(&self, addr: u64) -> Option<Range> {
        let a = self.allocations.iter().find(|a| addr >= a.base && addr < a.base + a.len)?;
        Some(Range { base: a.base, len: a.len, host: a.words.as_ptr() as *mut u8, writable: a.writable })
    }
}

/// A value with a fixed layout.
pub trait Plain: Copy + 'static {}
macro_rules! plain { ($($t:ty)*) => { $(impl Plain for $t {})* }; }
plain!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

fn bytes_of<T: Plain>(v: &[T]) -> &[u8] {
    // SAFETY: Plain types are numbers: no padding, every byte initialised.
    unsafe { std::slice::from_raw_parts(v.as_ptr().cast(), size_of_val(v)) }
}

impl Memory {
    fn allocate(&mut self, len: usize, writable: bool) -> u64 {
        let base = 0x7f00_0000_0000 + ((self.allocations.len() as u64) << 32);
        let words = (0..len.div_ceil(16)).map(|_| UnsafeCell::new(0)).collect();
        self.allocations.push(Allocation { base, len: len as u64, words, writable });
        base
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let r = self.resolve(at).expect("mapped");
        assert!(at - r.base + bytes.len() as u64 <= r.len);
        // SAFETY: the range is checked above, and `&mut self` means that no launch runs.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), r.host.add((at - r.base) as usize), bytes.len())
        };
    }

    fn read<T: Plain + Default>(&self, at: u64, n: usize) -> Vec<T> {
        let r = self.resolve(at).expect("mapped");
        assert!(at - r.base + (n * size_of::<T>()) as u64 <= r.len);
        let mut out = vec![T::default(); n];
        // SAFETY: the range is checked above; the tests read between launches only.
        unsafe {
            std::ptr::copy_nonoverlapping(
                r.host.add((at - r.base) as usize),
                out.as_mut_ptr().cast::<u8>(),
                n * size_of::<T>(),
            )
        };
        out
    }
}

/// A module on a device.
pub struct Device {
    pub memory: Memory,
    pub module: LinkedModule,
    pub workers: usize,
    pub variables: HashMap<String, u64>,
    /// What threads have printed.
    pub printed: Mutex<Vec<u8>>,
}

/// One kernel argument.
pub struct Arg(Vec<u8>);

impl<T: Plain> From<T> for Arg {
    fn from(v: T) -> Arg {
        Arg(bytes_of(&[v]).to_vec())
    }
}

impl Arg {
    pub fn bytes(bytes: &[u8]) -> Arg {
        Arg(bytes.to_vec())
    }
}

/// Arguments of a launch.
#[macro_export]
macro_rules! args {
    ($($a:expr),* $(,)?) => { &[$($crate::device::Arg::from($a)),*] };
}

/// The text of a fixture.
pub fn fixture(name: &str) -> String {
    let path = format!("{}/tests/ptx/{name}.ptx", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("fixture")
}

impl Device {
    pub fn load(name: &str) -> Device {
        Device::with(&fixture(name))
    }

    pub fn with(text: &str) -> Device {
        let module = Module::parse(text).expect("parses");
        let mut memory = Memory::default();
        let variables: HashMap<String, u64> = module
            .globals()
            .map(|g| (g.name.clone(), memory.allocate((g.size as usize).max(1), true)))
            .collect();
        let module = module.link(&variables).expect("links");
        for (name, at) in &variables {
            let bytes = module.initial_bytes(name).expect("has initial bytes");
            memory.write(*at, &bytes);
        }
        Device { memory, module, workers: 2, variables, printed: Mutex::default() }
    }

    pub fn upload<T: Plain>(&mut self, v: &[T]) -> u64 {
        let at = self.memory.allocate(size_of_val(v), true);
        self.memory.write(at, bytes_of(v));
        at
    }

    pub fn upload_constant<T: Plain>(&mut self, v: &[T]) -> u64 {
        let at = self.upload(v);
        self.memory.allocations.last_mut().expect("just made").writable = false;
        at
    }

    pub fn zeros<T: Plain + Default>(&mut self, n: usize) -> u64 {
        self.upload(&vec![T::default(); n])
    }

    pub fn read<T: Plain + Default>(&self, at: u64, n: usize) -> Vec<T> {
        self.memory.read(at, n)
    }

    pub fn try_launch(
        &self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &[Arg],
        cancel: &AtomicBool,
    ) -> Result<LaunchStats, Fault> {
        let kernel = self.module.module().kernel(name).unwrap_or_else(|| panic!("no kernel {name}"));
        assert_eq!(kernel.params.len(), args.len(), "arguments of {name}");
        let mut params = vec![0u8; kernel.param_bytes() as usize];
        for (p, Arg(a)) in kernel.params.iter().zip(args) {
            assert_eq!(p.size as usize, a.len(), "argument size of {name}");
            params[p.offset as usize..][..a.len()].copy_from_slice(a);
        }
        self.module.launch(&LaunchConfig {
            kernel,
            grid,
            block,
            dynamic_shared_bytes: shared,
            params: &params,
            memory: &self.memory,
            workers: self.workers,
            cancel,
            print: &|text| self.printed.lock().expect("no panic").extend_from_slice(text),
        })
    }

    pub fn launch(&self, name: &str, grid: u32, block: u32, args: &[Arg]) -> LaunchStats {
        self.launch3(name, [grid, 1, 1], [block, 1, 1], 0, args)
    }

    pub fn launch3(
        &self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &[Arg],
    ) -> LaunchStats {
        self.try_launch(name, grid, block, shared, args, &AtomicBool::new(false))
            .unwrap_or_else(|f| panic!("{name}: {f}"))
    }

    pub fn fault(&self, name: &str, grid: u32, block: u32, args: &[Arg]) -> Fault {
        self.try_launch(name, [grid, 1, 1], [block, 1, 1], 0, args, &AtomicBool::new(false))
            .expect_err("the launch faults")
    }
}

/// Random numbers (xorshift64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A float in -range ..= range.
    pub fn float(&mut self, range: f64) -> f64 {
        ((self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0) * range
    }

    /// Bits with few or many significant ones.
    pub fn bits(&mut self) -> u64 {
        let v = self.next();
        match self.next() % 8 {
            0 => v & 0xff,
            1 => v | !0xffff,
            2 => 1 << (v & 63),
            3 => (v as i32) as i64 as u64,
            4 => v & 0xffff_ffff,
            _ => v,
        }
    }
}
