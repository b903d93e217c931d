//! The worker that the tests start: a handler whose calls say back what they saw.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use cuda_api::account::Account;
use cuda_api::info::{DeviceInfo, VmInfo};
use cuda_api::live::Readings;
use mediator::worker::{Action, Checkpointer, Probe, SetupError, StagedBytes, WorkerProgram, WorkerSetup};
use mediator::{CallHandler, ExecutorKind, Frame, Malformed, StagingMemory};
use pci_layout::regs;

/// Wire ids of the test's calls. Numbers in arguments and replies are little-endian u64.
pub mod call {
    /// Replies its arguments.
    pub const ECHO: u32 = 1;
    /// Answers the result in its arguments.
    pub const FAIL: u32 = 2;
    /// Adds its ticket to the log.
    pub const RECORD: u32 = 3;
    /// Adds its ticket to the log, then does not return before OPEN_GATE.
    pub const BLOCK: u32 = 4;
    /// Lets BLOCK return; may overtake it.
    pub const OPEN_GATE: u32 = 5;
    /// Replies the log.
    pub const READ_LOG: u32 = 6;
    /// Replies the number at an address.
    pub const LOAD: u32 = 7;
    /// Stores a number at an address.
    pub const STORE: u32 = 8;
    /// Never returns.
    pub const STUCK: u32 = 9;
    /// Is malformed.
    pub const MALFORMED: u32 = 10;
    /// Panics.
    pub const PANIC: u32 = 11;
    /// Adds one to every byte of the staging buffer; replies its length.
    pub const STAGING: u32 = 12;
    /// Replies the address of a new mapping.
    pub const FRESH_ADDRESS: u32 = 13;
    /// Replies the value of the variable that is named, or nothing.
    pub const ENV: u32 = 14;
    /// From now on every call answers the number in the arguments.
    pub const STICKY: u32 = 15;
    /// Replies what the handler heard of regions, as text.
    pub const REGIONS: u32 = 16;
    /// Sleeps for so many milliseconds, then as RECORD.
    pub const SLOW: u32 = 17;
    /// Replies more than a reply may be.
    pub const LONG_REPLY: u32 = 18;
    /// Replies what the process may do, as text.
    pub const PROCESS: u32 = 19;
    /// Replies the process id.
    pub const PID: u32 = 20;
    /// From now on regions cannot be let go of.
    pub const HOLD_REGIONS: u32 = 21;
    /// Replies which frames OPEN_GATE was asked to overtake.
    pub const OVERTAKEN: u32 = 22;
    /// Replies the ring that serves the call.
    pub const RING: u32 = 23;
    /// Replies the address of a number, HELD_ADDRESS itself, that is never freed.
    pub const HELD_ADDRESS: u32 = 25;
    /// Waits for something that only the guest can do, which it does not: until the VM is paused.
    pub const WAIT_FOR_GUEST: u32 = 26;
    /// As RECORD, then sleeps for so many milliseconds.
    pub const NAP: u32 = 24;
    /// Replies 1 if the worker was initialised ahead of the session.
    pub const INITIALISED: u32 = 29;
    /// Takes so many bytes of a device from the VM's account; replies 1 if that went well.
    pub const TAKE: u32 = 30;
    /// Replies what is left of a device in the VM's account.
    pub const LEFT: u32 = 31;
    /// From now on the session cannot be suspended.
    pub const SHARE: u32 = 33;
    /// From now on the device waits for the guest, or no more (0).
    pub const AWAIT_GUEST: u32 = 32;
    /// Returns, and is over when it is settled: after so many milliseconds, or with OPEN_GATE where that is 0. Then as RECORD.
    pub const BEGIN: u32 = 27;
    /// As BEGIN, and what it comes to is the number in the arguments.
    pub const BEGIN_IN_VAIN: u32 = 28;
}

/// Fingerprint that the probe tells.
pub const FINGERPRINT: [u8; 16] = *b"echo-fingerprint";
/// VMs from this number on have devices that can be read: three times, then the reader ends.
pub const READABLE: u32 = 80;
/// What the probe says of the devices: more than a message holds.
pub fn info() -> VmInfo {
    let device = |number: u8| DeviceInfo {
        name: char::from(b'a' + number).to_string().repeat(70_000),
        uuid: [number; 16],
        total_memory_bytes: mediator::executor::SOFT_MEMORY_BYTES,
        attributes: Vec::new(),
        links: Vec::new(),
    };
    VmInfo { driver_version: 13000, stream_priorities: (0, 0), devices: (0..3).map(device).collect() }
}

/// A VM that has a GPU, as far as the probe says.
pub const GPU_VM: u32 = 70;
/// One whose workers cannot be initialised ahead.
pub const BROKEN_GPU_VM: u32 = 71;

#[derive(Default)]
pub struct Echo {
    initialised: bool,
}

impl WorkerProgram for Echo {
    type Handler = EchoHandler;

    fn initialise(&mut self, setup: &WorkerSetup) -> Result<(), SetupError> {
        if setup.vm_id == BROKEN_GPU_VM {
            let reason = "asked for".to_owned();
            return Err(SetupError { error: regs::ERROR_CUDA, cuda_result: 999, reason });
        }
        // As a driver does.
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(3600)));
        self.initialised = true;
        Ok(())
    }

    fn probe(self, setup: &WorkerSetup) -> Result<Probe, SetupError> {
        if setup.executor == ExecutorKind::Cuda {
            let reason = "the echo has no GPU".to_owned();
            return Err(SetupError { error: regs::ERROR_MEDIATOR_UNAVAILABLE, cuda_result: 0, reason });
        }
        let info = info().encode();
        let on_gpu = [GPU_VM, BROKEN_GPU_VM].contains(&setup.vm_id) || setup.vm_id >= READABLE;
        let capabilities = regs::CAP_MAP_GUEST_PAGES | if on_gpu { regs::CAP_HARDWARE } else { 0 };
        Ok(Probe { info, capabilities, device_count: 3, fingerprint: FINGERPRINT })
    }

    fn reader(self, info: &[u8]) -> Option<Box<dyn FnMut() -> Vec<u8>>> {
        assert!(info == self::info().encode());
        let mut count = 0;
        Some(Box::new(move || {
            count += 1;
            if count == 4 {
                std::process::exit(1);
            }
            let devices = vec![BTreeMap::from([(7, count)])];
            Readings { release: "1.2".into(), age_ms: 0, devices }.encode()
        }))
    }

    fn checkpointer(self, info: &[u8]) -> Result<Box<dyn Checkpointer>, SetupError> {
        assert!(info == self::info().encode());
        let supervisor = rustix::process::getppid().expect("a supervisor").as_raw_nonzero().get();
        Ok(Box::new(Folder(Folder::of_supervisor(supervisor.unsigned_abs()))))
    }

    fn open(self, setup: WorkerSetup) -> Result<EchoHandler, SetupError> {
        if setup.pid == 666 {
            let reason = "user 666 is refused\n".to_owned();
            return Err(SetupError { error: regs::ERROR_CUDA, cuda_result: 100, reason });
        }
        if setup.pid == 667 {
            std::thread::sleep(Duration::from_secs(3600));
        }
        // Of this thread, the process's first.
        let death = rustix::process::parent_process_death_signal().unwrap();
        assert_eq!(death, Some(rustix::process::Signal::KILL));
        Ok(EchoHandler {
            staged: setup.staged,
            account: setup.account,
            initialised: self.initialised,
            ..EchoHandler::default()
        })
    }
}

#[derive(Default)]
pub struct EchoHandler {
    staged: Option<StagedBytes>,
    account: Option<Arc<dyn Account>>,
    initialised: bool,
    log: Mutex<Vec<u64>>,
    overtaken: Mutex<Vec<u64>>,
    regions: Mutex<String>,
    holds_regions: AtomicBool,
    gate: Mutex<bool>,
    gate_opened: Condvar,
    paused: Mutex<bool>,
    pause_changed: Condvar,
    awaits: AtomicBool,
    shares: AtomicBool,
    sticky: AtomicU32,
    calls: AtomicU64,
}

fn number(args: &[u8], at: usize) -> Result<u64, Malformed> {
    let bytes = args.get(at * 8..at * 8 + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_le_bytes).ok_or_else(|| Malformed("short arguments".to_owned()))
}

fn put_all(reply: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| reply.extend_from_slice(&number.to_le_bytes()));
}

/// What a ring's thread has to itself.
pub struct EchoThread {
    ring: u32,
    /// Tickets of what has begun, and for how long that takes.
    begun: Vec<u64>,
    /// How many are over.
    over: u64,
    pause: Duration,
    comes_to: u32,
}

impl EchoHandler {
    fn wait_for_gate(&self) {
        let mut open = self.gate.lock().unwrap();
        while !*open {
            open = self.gate_opened.wait(open).unwrap();
        }
    }
}

impl CallHandler for EchoHandler {
    type Thread = EchoThread;

    fn ring_thread(&self, ring: u32) -> EchoThread {
        EchoThread { ring, begun: Vec::new(), over: 0, pause: Duration::ZERO, comes_to: 0 }
    }

    fn is_unsettled(&self, thread: &EchoThread) -> bool {
        !thread.begun.is_empty()
    }

    fn settle(&self, thread: &mut EchoThread) -> u32 {
        if thread.pause.is_zero() && thread.comes_to == 0 {
            self.wait_for_gate();
        }
        std::thread::sleep(thread.pause);
        self.log.lock().unwrap().push(thread.begun.remove(0));
        thread.over += 1;
        std::mem::take(&mut thread.comes_to)
    }

    fn transfers(&self, thread: &EchoThread) -> (u64, u64) {
        (thread.over + thread.begun.len() as u64, thread.over)
    }

    fn call(
        &self,
        thread: &mut EchoThread,
        frame: Frame<'_>,
        staging: Option<StagingMemory>,
        reply: &mut Vec<u8>,
    ) -> Result<u32, Malformed> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match frame.call {
            call::ECHO => reply.extend_from_slice(frame.args),
            call::FAIL => return Ok(number(frame.args, 0)? as u32),
            call::RECORD => self.log.lock().unwrap().push(frame.ticket),
            call::BLOCK => {
                self.log.lock().unwrap().push(frame.ticket);
                self.wait_for_gate();
            }
            call::BEGIN => {
                thread.begun.push(frame.ticket);
                thread.pause = Duration::from_millis(number(frame.args, 0)?);
            }
            call::BEGIN_IN_VAIN => {
                thread.begun.push(frame.ticket);
                thread.comes_to = number(frame.args, 0)? as u32;
            }
            call::WAIT_FOR_GUEST => {
                let mut paused = self.paused.lock().unwrap();
                while !*paused {
                    paused = self.pause_changed.wait(paused).unwrap();
                }
            }
            call::OPEN_GATE => {
                *self.gate.lock().unwrap() = true;
                self.gate_opened.notify_all();
            }
            call::READ_LOG => put_all(reply, &self.log.lock().unwrap()),
            call::OVERTAKEN => put_all(reply, &self.overtaken.lock().unwrap()),
            call::LOAD => {
                let at = std::ptr::with_exposed_provenance_mut(number(frame.args, 0)? as usize);
                // SAFETY: the test names an aligned address in a region that it has mapped.
                put_all(reply, &[unsafe { AtomicU64::from_ptr(at) }.load(Ordering::SeqCst)]);
            }
            call::STORE => {
                let at = std::ptr::with_exposed_provenance_mut(number(frame.args, 0)? as usize);
                // SAFETY: as above.
                unsafe { AtomicU64::from_ptr(at) }.store(number(frame.args, 1)?, Ordering::SeqCst);
            }
            call::SHARE => self.shares.store(true, Ordering::SeqCst),
            call::AWAIT_GUEST => self.awaits.store(number(frame.args, 0)? != 0, Ordering::SeqCst),
            call::INITIALISED => put_all(reply, &[u64::from(self.initialised)]),
            call::TAKE => {
                let (device, bytes) = (number(frame.args, 0)? as usize, number(frame.args, 1)?);
                put_all(reply, &[u64::from(self.account.as_ref().unwrap().take(device, bytes))]);
            }
            call::LEFT => {
                let device = number(frame.args, 0)? as usize;
                put_all(reply, &[self.account.as_ref().unwrap().left(device).unwrap()]);
            }
            call::STUCK => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            call::MALFORMED => return Err(Malformed("asked for".to_owned())),
            call::PANIC => panic!("asked for"),
            call::STAGING => {
                let staging = staging.ok_or_else(|| Malformed("no staging buffer".to_owned()))?;
                for at in 0..staging.len() {
                    // SAFETY: inside the buffer, which only this call uses.
                    unsafe {
                        let byte = staging.as_ptr().add(at);
                        byte.write_volatile(byte.read_volatile().wrapping_add(1));
                    }
                }
                put_all(reply, &[staging.len() as u64]);
                self.staged.as_ref().unwrap().add(staging.len() as u64);
            }
            call::FRESH_ADDRESS => {
                // Large enough to get a mapping of its own.
                let memory: Vec<u8> = Vec::with_capacity(64 << 20);
                put_all(reply, &[memory.as_ptr() as u64]);
            }
            call::HELD_ADDRESS => {
                let held: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(call::HELD_ADDRESS.into())));
                put_all(reply, &[std::ptr::from_ref(held) as u64]);
            }
            call::ENV => {
                let name = String::from_utf8_lossy(frame.args).trim_end_matches('\0').to_owned();
                reply.extend_from_slice(std::env::var(name).unwrap_or_default().as_bytes());
            }
            call::STICKY => self.sticky.store(number(frame.args, 0)? as u32, Ordering::SeqCst),
            call::REGIONS => reply.extend_from_slice(self.regions.lock().unwrap().as_bytes()),
            call::SLOW => {
                std::thread::sleep(Duration::from_millis(number(frame.args, 0)?));
                self.log.lock().unwrap().push(frame.ticket);
            }
            call::NAP => {
                self.log.lock().unwrap().push(frame.ticket);
                std::thread::sleep(Duration::from_millis(number(frame.args, 0)?));
            }
            call::LONG_REPLY => reply.resize(pci_layout::ring::REPLY_AREA_BYTES as usize + 1, 0),
            call::PROCESS => reply.extend_from_slice(process().as_bytes()),
            call::PID => put_all(reply, &[u64::from(std::process::id())]),
            call::HOLD_REGIONS => self.holds_regions.store(true, Ordering::SeqCst),
            call::RING => put_all(reply, &[u64::from(thread.ring)]),
            other => return Err(Malformed(format!("call {other}"))),
        }
        Ok(0)
    }

    fn may_overtake(&self, frame: Frame<'_>, blocked: &[Frame<'_>]) -> bool {
        if frame.call != call::OPEN_GATE {
            return false;
        }
        let mut overtaken = self.overtaken.lock().unwrap();
        *overtaken = blocked.iter().flat_map(|frame| [frame.ticket, u64::from(frame.call)]).collect();
        true
    }

    fn region_mapped(&self, va: u64, len: u64, writable: bool) {
        let access = if writable { "rw" } else { "ro" };
        self.regions.lock().unwrap().push_str(&format!("+{va:x},{len:x},{access} "));
    }

    fn region_unmapping(&self, va: u64, len: u64) {
        while self.holds_regions.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_secs(1));
        }
        self.regions.lock().unwrap().push_str(&format!("-{va:x},{len:x} "));
    }

    fn pause(&self, paused: bool) {
        *self.paused.lock().unwrap() = paused;
        self.pause_changed.notify_all();
    }

    fn device_bytes(&self, tell: &mut dyn FnMut(usize, u64)) {
        tell(1, 4096);
    }

    fn sticky(&self) -> u32 {
        self.sticky.load(Ordering::SeqCst)
    }

    fn suspend_obstacle(&self) -> Option<&'static str> {
        self.shares.load(Ordering::SeqCst).then_some("it shares")
    }

    fn awaits_guest(&self) -> bool {
        self.awaits.load(Ordering::SeqCst)
    }

    fn quiesce(&self, _limit: Duration) -> bool {
        true
    }
}

/// What this process has and may do.
fn process() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default().to_owned()
    };
    let core = rustix::process::getrlimit(rustix::process::Resource::Core).maximum;
    let dumpable = rustix::process::dumpable_behavior().unwrap();
    let files: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let created = std::fs::File::create("/tmp/vgpu-worker-was-here").is_ok();
    let executed = std::process::Command::new("/bin/true").status().is_ok();
    format!(
        "nnp={} core={core:?} dumpable={dumpable:?} create={created} exec={executed} files={files:?}",
        field("NoNewPrivs:")
    )
}

/// CUprocessState.
pub const RUNNING: u32 = 0;
/// The same.
pub const LOCKED: u32 = 1;
/// The same.
pub const CHECKPOINTED: u32 = 2;
/// CUDA_ERROR_ILLEGAL_STATE.
const ILLEGAL_STATE: u32 = 401;

/// A driver that checkpoints: a folder of the supervisor's with a file for each process, which says its state. Steps and answers are those
/// of driver 580.
pub struct Folder(PathBuf);

impl Folder {
    /// A refusal that is none: the checkpointer ends.
    pub const DIES: u32 = u32::MAX;
    /// The file that says how many bytes of the device's are free, where it is known.
    pub const FREE: &str = "free";

    /// The folder of a supervisor's driver.
    pub fn of_supervisor(pid: u32) -> PathBuf {
        std::env::temp_dir().join(format!("vgpu-echo-driver-{pid}"))
    }

    /// The file that has the driver refuse something.
    pub fn refusal(folder: &Path, action: Action, pid: i32) -> PathBuf {
        folder.join(format!("{pid}-{action}"))
    }

    /// A process's state.
    pub fn state(folder: &Path, pid: i32) -> u32 {
        std::fs::read_to_string(folder.join(pid.to_string())).map_or(RUNNING, |text| text.parse().unwrap())
    }
}

impl Checkpointer for Folder {
    fn act(&mut self, action: Action, pid: i32, limit: Duration) -> Result<u32, u32> {
        if let Ok(result) = std::fs::read_to_string(Self::refusal(&self.0, action, pid)) {
            let result = result.parse().unwrap();
            if result == Self::DIES {
                std::process::exit(0);
            }
            return Err(result);
        }
        let state = Self::state(&self.0, pid);
        let (from, to) = match action {
            Action::State => return Ok(state),
            Action::Lock => (RUNNING, LOCKED),
            Action::Checkpoint => (LOCKED, CHECKPOINTED),
            Action::Restore => (CHECKPOINTED, LOCKED),
            Action::Unlock => (LOCKED, RUNNING),
        };
        if state != from {
            return Err(ILLEGAL_STATE);
        }
        assert!(action != Action::Lock || !limit.is_zero(), "a lock without a limit");
        std::fs::write(self.0.join(pid.to_string()), to.to_string()).unwrap();
        Ok(0)
    }

    fn free_bytes(&mut self) -> Option<u64> {
        std::fs::read_to_string(self.0.join(Self::FREE)).ok().map(|text| text.parse().unwrap())
    }
}
