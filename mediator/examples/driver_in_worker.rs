//! Whether the real driver is content with what a worker is: confined, in the legacy memory layout, with the pinned
//! window reserved and guest memory mapped into it. Needs a GPU; prints what each step answers.

#![allow(clippy::cast_possible_truncation, reason = "64-bit only")]

#[allow(dead_code)]
#[path = "../tests/sessions/echo.rs"]
mod echo;
#[allow(dead_code)]
#[path = "../tests/sessions/guest.rs"]
mod guest;

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::fmt::Write;
use std::ptr::null_mut;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use guest::{Guest, Memory, start_vm};
use libloading::{Library, Symbol};
use mediator::worker::{Probe, Role, SetupError, WorkerProgram, WorkerSetup};
use mediator::{CallHandler, Frame, Malformed, PINNED_WINDOW, StagingMemory, WakeKind};

const REGION_BYTES: u64 = 64 << 20;

/// Stores the address it is given at that address.
const PTX: &str = "
.version 7.0
.target sm_70
.address_size 64
.visible .entry store(.param .u64 where) {
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [where];
    st.global.u64 [%rd1], %rd1;
    ret;
}
\0";

fn main() {
    if Role::of_this_process().is_some() {
        env_logger::init();
        mediator::worker::main(Driver);
    }
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Futex);
    let mut ring = guest.ring(0);
    let pinned = Memory::at(Some(PINNED_WINDOW.start + (1 << 30)), REGION_BYTES, true);
    let elsewhere = Memory::at(Some(0x7e12_3456_7000), REGION_BYTES, false);
    for (region, memory) in [(0, &pinned), (1, &elsewhere)] {
        println!("region at {:#x}: mapped {:?}", memory.va(), guest.map(region, 0, memory));
        memory.word(8).store(0x1234_5678_9abc, Ordering::SeqCst);
        println!("{}", ring.text(1, &memory.va().to_le_bytes()));
        let stored = memory.word(0).load(Ordering::SeqCst);
        println!("the guest reads {stored:#x} where the kernel stored {:#x}\n", memory.va());
    }
    println!("{}", ring.text(2, &[]));
    println!("closed: {:?}", guest.close());
}

struct Driver;

impl WorkerProgram for Driver {
    type Handler = Calls;

    fn probe(self, _setup: &WorkerSetup) -> Result<Probe, SetupError> {
        Ok(Probe { fingerprint: echo::FINGERPRINT, ..Probe::default() })
    }

    fn open(self, _setup: WorkerSetup) -> Result<Calls, SetupError> {
        Ok(Calls)
    }
}

struct Calls;

impl CallHandler for Calls {
    type Thread = Option<Library>;

    fn ring_thread(&self, _ring: u32) -> Option<Library> {
        None
    }

    fn call(
        &self,
        driver: &mut Option<Library>,
        frame: Frame<'_>,
        _staging: Option<StagingMemory>,
        reply: &mut Vec<u8>,
    ) -> Result<u32, Malformed> {
        let text = if frame.call == 1 {
            let va = u64::from_le_bytes(frame.args[..8].try_into().expect("8 bytes"));
            use_region(driver, va).unwrap_or_else(|error| error.to_string())
        } else {
            std::fs::read_to_string("/proc/self/maps").expect("maps")
        };
        reply.extend_from_slice(&text.as_bytes()[..text.len().min(60_000)]);
        Ok(0)
    }

    fn may_overtake(&self, _frame: Frame<'_>, _blocked: &[Frame<'_>]) -> bool {
        false
    }
    fn region_mapped(&self, _va: u64, _len: u64, _writable: bool) {}
    fn region_unmapping(&self, _va: u64, _len: u64) {}
    fn sticky(&self) -> u32 {
        0
    }
    fn quiesce(&self, _limit: Duration) -> bool {
        true
    }
}

/// Registers the region, copies from it, and lets a kernel store into it.
fn use_region(driver: &mut Option<Library>, va: u64) -> Result<String, libloading::Error> {
    let mut text = String::new();
    let first = driver.is_none();
    let library = match driver {
        Some(library) => library,
        // SAFETY: the driver's own initialisers.
        None => driver.insert(unsafe { Library::new("libcuda.so.1") }?),
    };
    let address: *mut c_void = std::ptr::with_exposed_provenance_mut(va as usize);
    // SAFETY: the symbols have the types that CUDA documents, and get what CUDA documents.
    unsafe {
        if first {
            let start = Instant::now();
            let init: Symbol<unsafe extern "C" fn(c_uint) -> c_int> = library.get(b"cuInit")?;
            let _ = writeln!(text, "cuInit {} after {:?}", init(0), start.elapsed());
            let retain: Symbol<unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int> =
                library.get(b"cuDevicePrimaryCtxRetain")?;
            let set: Symbol<unsafe extern "C" fn(*mut c_void) -> c_int> = library.get(b"cuCtxSetCurrent")?;
            let mut context = null_mut();
            let retained = retain(&mut context, 0);
            let _ = writeln!(text, "context {retained}, {} after {:?}", set(context), start.elapsed());
        }
        let register: Symbol<unsafe extern "C" fn(*mut c_void, usize, c_uint) -> c_int> =
            library.get(b"cuMemHostRegister_v2")?;
        let pointer: Symbol<unsafe extern "C" fn(*mut u64, *mut c_void, c_uint) -> c_int> =
            library.get(b"cuMemHostGetDevicePointer_v2")?;
        let start = Instant::now();
        let registered = register(address, REGION_BYTES as usize, 3);
        let mut device = 0;
        let _ = write!(text, "register {registered} in {:?}, ", start.elapsed());
        let _ = writeln!(text, "device pointer {} {device:#x}", pointer(&mut device, address, 0));

        let alloc: Symbol<unsafe extern "C" fn(*mut u64, usize) -> c_int> = library.get(b"cuMemAlloc_v2")?;
        let up: Symbol<unsafe extern "C" fn(u64, *const c_void, usize) -> c_int> =
            library.get(b"cuMemcpyHtoD_v2")?;
        let down: Symbol<unsafe extern "C" fn(*mut c_void, u64, usize) -> c_int> =
            library.get(b"cuMemcpyDtoH_v2")?;
        let (mut memory, mut read) = (0, 0u64);
        let _ = write!(text, "alloc {} {memory:#x}, ", alloc(&mut memory, REGION_BYTES as usize));
        let _ = write!(text, "at {memory:#x}, up {}, ", up(memory, address, REGION_BYTES as usize));
        let _ = writeln!(text, "down {} {read:#x}", down((&raw mut read).cast(), memory + 8, 8));
        let _ = writeln!(text, "  read {read:#x}");

        let load: Symbol<unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> c_int> =
            library.get(b"cuModuleLoadData")?;
        let find: Symbol<unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> c_int> =
            library.get(b"cuModuleGetFunction")?;
        type Launch = unsafe extern "C" fn(
            *mut c_void,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            *mut c_void,
            *mut *mut c_void,
            *mut *mut c_void,
        ) -> c_int;
        let launch: Symbol<Launch> = library.get(b"cuLaunchKernel")?;
        let synchronize: Symbol<unsafe extern "C" fn() -> c_int> = library.get(b"cuCtxSynchronize")?;
        let (mut module, mut function) = (null_mut(), null_mut());
        let start = Instant::now();
        let _ = write!(text, "load {} in {:?}, ", load(&mut module, PTX.as_ptr().cast()), start.elapsed());
        let _ = write!(text, "find {}, ", find(&mut function, module, c"store".as_ptr()));
        let mut parameters = [(&raw mut device).cast::<c_void>()];
        let launched = launch(function, 1, 1, 1, 1, 1, 1, 0, null_mut(), parameters.as_mut_ptr(), null_mut());
        let _ = writeln!(text, "launch {launched}, synchronize {}", synchronize());

        let reserve: Symbol<unsafe extern "C" fn(*mut u64, usize, usize, u64, u64) -> c_int> =
            library.get(b"cuMemAddressReserve")?;
        for hint in [0u64, 0x1400_0000_0000, 0x1c00_0000_0000, 0x2000_0000_0000, 0x7000_0000_0000] {
            let mut got = 0;
            let reserved = reserve(&mut got, 64 << 20, 0, hint, 0);
            let _ = writeln!(text, "reserve at {hint:#x}: {reserved} {got:#x}");
        }
    }
    Ok(text)
}
