//! The executors, joined to the worker: [`cuda_api`]'s dispatch under a [`CallHandler`], and the choice between executors.

use std::sync::Arc;
use std::time::Duration;

use cuda_api::host::{Executor, StagingView};
use cuda_api::info::VmInfo;
use cuda_api::live::number;
use cuda_api::work::{Direction, Work, copied, work_of};
use executor_cuda::{Cuda, Services, Unavailable};
use executor_soft::{Soft, SoftConfig};
use pci_layout::regs;

use crate::worker::{Action, Checkpointer, Probe, SetupError, WorkerProgram, WorkerSetup};
use crate::{CallHandler, ExecutorKind, Frame, Malformed, StagingMemory};

/// VRAM that a software device shows where the VM has no quota, in bytes.
pub const SOFT_MEMORY_BYTES: u64 = 4 << 30;

/// An executor behind the worker's rings.
pub struct Driven<E>(E);

impl<E: Executor> CallHandler for Driven<E>
where
    E::Thread: Send,
{
    type Thread = E::Thread;

    fn ring_thread(&self, ring: u32) -> E::Thread {
        self.0.new_thread(ring)
    }

    fn call(
        &self,
        thread: &mut E::Thread,
        frame: Frame<'_>,
        staging: Option<StagingMemory>,
        reply: &mut Vec<u8>,
    ) -> Result<u32, Malformed> {
        // SAFETY: the worker keeps a ring's staging buffer mapped until the ring's thread, which is this one, has ended.
        let staging = staging.map(|s| unsafe { StagingView::new(s.as_ptr(), s.len() as u64) });
        if let Err(error) = self.0.enter(thread, frame.context, staging)
            && !cuda_api::host::outlives_a_fault(frame.call)
        {
            return Ok(error.0);
        }
        let result = cuda_api::host::dispatch(&self.0, thread, frame.call, frame.args, reply)
            .map_err(|error| Malformed(error.0))?;
        if log::log_enabled!(log::Level::Trace) {
            log::trace!("{} -> {result}", cuda_api::call_name(frame.call));
        }
        Ok(result.0)
    }

    fn is_unsettled(&self, thread: &E::Thread) -> bool {
        self.0.is_unsettled(thread)
    }

    fn settle(&self, thread: &mut E::Thread) -> u32 {
        self.0.settle(thread).err().map_or(0, |error| error.0)
    }

    fn transfers(&self, thread: &E::Thread) -> (u64, u64) {
        self.0.transfers(thread)
    }

    fn may_overtake(&self, frame: Frame<'_>, blocked: &[Frame<'_>]) -> bool {
        let blocked: Vec<(u32, &[u8])> = blocked.iter().map(|f| (f.call, f.args)).collect();
        self.0.may_overtake(frame.call, frame.args, &blocked)
    }

    fn device_ids(&self) -> Vec<[u8; 16]> {
        self.0.vm_info().devices.iter().map(|device| device.uuid).collect()
    }

    #[inline]
    fn works_on(&self, thread: &E::Thread, call: u32, context: u32) -> Option<usize> {
        cuda_api::gives_work(call).then(|| self.0.device_of(thread, context))
    }

    #[inline]
    fn work(&self, frame: Frame<'_>) -> (Work, Option<(Direction, u64)>) {
        account(frame)
    }

    fn is_busy(&self, device: usize) -> bool {
        self.0.is_busy(device)
    }

    fn mark(&self, device: usize) -> Option<u64> {
        self.0.mark(device)
    }

    fn passed(&self, device: usize, mark: u64) -> bool {
        self.0.passed(device, mark)
    }

    fn region_mapped(&self, va: u64, len: u64, writable: bool) {
        self.0.region_mapped(va, len, writable);
    }

    fn region_unmapping(&self, va: u64, len: u64) {
        self.0.region_unmapping(va, len);
    }

    fn sticky(&self) -> u32 {
        self.0.sticky()
    }

    fn device_bytes(&self, tell: &mut dyn FnMut(usize, u64)) {
        self.0.device_bytes(tell);
    }

    fn may_print(&self, call: u32) -> bool {
        cuda_api::may_block(call)
    }

    fn pause(&self, paused: bool) {
        self.0.pause(paused);
    }

    fn watch_launches(&self, on: bool) {
        self.0.watch_launches(on);
    }

    fn longest_launch(&self) -> Duration {
        self.0.longest_launch()
    }

    fn suspend_obstacle(&self) -> Option<&'static str> {
        self.0.suspend_obstacle()
    }

    fn awaits_guest(&self) -> bool {
        self.0.awaits_guest()
    }

    fn quiesce(&self, limit: Duration) -> bool {
        self.0.quiesce(limit)
    }
}

/// The executor of a worker, whichever the VM was given.
pub enum Either {
    /// A real GPU.
    Cuda(Box<Driven<Cuda>>),
    /// The CPU device.
    Soft(Box<Driven<Soft>>),
}

/// A ring's thread in the worker's executor.
pub enum EitherThread {
    /// A real GPU.
    Cuda(executor_cuda::Thread),
    /// The CPU device.
    Soft(executor_soft::Thread),
}

/// The same for every executor.
#[inline]
fn account(frame: Frame<'_>) -> (Work, Option<(Direction, u64)>) {
    let work = work_of(frame.call);
    (work, (work == Work::Copy).then(|| copied(frame.call, frame.args)).flatten())
}

impl CallHandler for Either {
    type Thread = EitherThread;

    #[inline]
    fn work(&self, frame: Frame<'_>) -> (Work, Option<(Direction, u64)>) {
        account(frame)
    }

    fn ring_thread(&self, ring: u32) -> EitherThread {
        match self {
            Self::Cuda(driven) => EitherThread::Cuda(driven.ring_thread(ring)),
            Self::Soft(driven) => EitherThread::Soft(driven.ring_thread(ring)),
        }
    }

    #[inline]
    fn call(
        &self,
        thread: &mut EitherThread,
        frame: Frame<'_>,
        staging: Option<StagingMemory>,
        reply: &mut Vec<u8>,
    ) -> Result<u32, Malformed> {
        match (self, thread) {
            (Self::Cuda(driven), EitherThread::Cuda(thread)) => driven.call(thread, frame, staging, reply),
            (Self::Soft(driven), EitherThread::Soft(thread)) => driven.call(thread, frame, staging, reply),
            _ => Err(Malformed("a thread of another executor".to_owned())),
        }
    }

    fn is_unsettled(&self, thread: &EitherThread) -> bool {
        match (self, thread) {
            (Self::Cuda(driven), EitherThread::Cuda(thread)) => driven.is_unsettled(thread),
            (Self::Soft(driven), EitherThread::Soft(thread)) => driven.is_unsettled(thread),
            _ => false,
        }
    }

    fn settle(&self, thread: &mut EitherThread) -> u32 {
        match (self, thread) {
            (Self::Cuda(driven), EitherThread::Cuda(thread)) => driven.settle(thread),
            (Self::Soft(driven), EitherThread::Soft(thread)) => driven.settle(thread),
            _ => 0,
        }
    }

    fn transfers(&self, thread: &EitherThread) -> (u64, u64) {
        match (self, thread) {
            (Self::Cuda(driven), EitherThread::Cuda(thread)) => driven.transfers(thread),
            (Self::Soft(driven), EitherThread::Soft(thread)) => driven.transfers(thread),
            _ => (0, 0),
        }
    }

    fn may_overtake(&self, frame: Frame<'_>, blocked: &[Frame<'_>]) -> bool {
        match self {
            Self::Cuda(driven) => driven.may_overtake(frame, blocked),
            Self::Soft(driven) => driven.may_overtake(frame, blocked),
        }
    }

    fn device_ids(&self) -> Vec<[u8; 16]> {
        match self {
            Self::Cuda(driven) => driven.device_ids(),
            Self::Soft(driven) => driven.device_ids(),
        }
    }

    #[inline]
    fn works_on(&self, thread: &EitherThread, call: u32, context: u32) -> Option<usize> {
        match (self, thread) {
            (Self::Cuda(driven), EitherThread::Cuda(thread)) => driven.works_on(thread, call, context),
            (Self::Soft(driven), EitherThread::Soft(thread)) => driven.works_on(thread, call, context),
            _ => None,
        }
    }

    fn is_busy(&self, device: usize) -> bool {
        match self {
            Self::Cuda(driven) => driven.is_busy(device),
            Self::Soft(driven) => driven.is_busy(device),
        }
    }

    fn mark(&self, device: usize) -> Option<u64> {
        match self {
            Self::Cuda(driven) => driven.mark(device),
            Self::Soft(driven) => driven.mark(device),
        }
    }

    fn passed(&self, device: usize, mark: u64) -> bool {
        match self {
            Self::Cuda(driven) => driven.passed(device, mark),
            Self::Soft(driven) => driven.passed(device, mark),
        }
    }

    fn region_mapped(&self, va: u64, len: u64, writable: bool) {
        match self {
            Self::Cuda(driven) => driven.region_mapped(va, len, writable),
            Self::Soft(driven) => driven.region_mapped(va, len, writable),
        }
    }

    fn region_unmapping(&self, va: u64, len: u64) {
        match self {
            Self::Cuda(driven) => driven.region_unmapping(va, len),
            Self::Soft(driven) => driven.region_unmapping(va, len),
        }
    }

    fn device_bytes(&self, tell: &mut dyn FnMut(usize, u64)) {
        match self {
            Self::Cuda(driven) => driven.device_bytes(tell),
            Self::Soft(driven) => driven.device_bytes(tell),
        }
    }

    fn sticky(&self) -> u32 {
        match self {
            Self::Cuda(driven) => driven.sticky(),
            Self::Soft(driven) => driven.sticky(),
        }
    }

    fn may_print(&self, call: u32) -> bool {
        cuda_api::may_block(call)
    }

    fn pause(&self, paused: bool) {
        match self {
            Self::Cuda(driven) => driven.pause(paused),
            Self::Soft(driven) => driven.pause(paused),
        }
    }

    fn watch_launches(&self, on: bool) {
        match self {
            Self::Cuda(driven) => driven.watch_launches(on),
            Self::Soft(driven) => driven.watch_launches(on),
        }
    }

    fn longest_launch(&self) -> Duration {
        match self {
            Self::Cuda(driven) => driven.longest_launch(),
            Self::Soft(driven) => driven.longest_launch(),
        }
    }

    fn suspend_obstacle(&self) -> Option<&'static str> {
        match self {
            Self::Cuda(driven) => driven.suspend_obstacle(),
            Self::Soft(driven) => driven.suspend_obstacle(),
        }
    }

    fn awaits_guest(&self) -> bool {
        match self {
            Self::Cuda(driven) => driven.awaits_guest(),
            Self::Soft(driven) => driven.awaits_guest(),
        }
    }

    fn quiesce(&self, limit: Duration) -> bool {
        match self {
            Self::Cuda(driven) => driven.quiesce(limit),
            Self::Soft(driven) => driven.quiesce(limit),
        }
    }
}

/// The worker program of the daemon: makes the executor that the VM was given.
#[derive(Default)]
pub struct Program {
    /// The GPU's driver, where it was initialised ahead of the session.
    started: Option<executor_cuda::Started>,
}

fn soft(setup: &WorkerSetup) -> Result<Soft, SetupError> {
    let mut uuid = *b"vgpu-soft\0\0\0\0\0\0\0";
    for (to, from) in uuid.iter_mut().skip(12).zip(setup.vm_id.to_be_bytes()) {
        *to = from;
    }
    let config = SoftConfig {
        devices: usize::try_from(setup.soft_devices).unwrap_or(1),
        memory_bytes: setup.vram_bytes.unwrap_or(SOFT_MEMORY_BYTES),
        uuid,
        ..SoftConfig::default()
    };
    let made = match &setup.account {
        Some(account) => Soft::on(config, Arc::clone(account)),
        None => Soft::new(config),
    };
    let made = made.map(|soft| match &setup.output {
        Some(output) => soft.with_output(Arc::clone(output)),
        None => soft,
    });
    let made = made.map(|soft| match &setup.completion {
        Some(completion) => soft.with_completion(Arc::clone(completion)),
        None => soft,
    });
    made.map_err(|error| SetupError {
        error: regs::ERROR_MEDIATOR_UNAVAILABLE,
        cuda_result: 0,
        reason: format!("the software device: {error}"),
    })
}

/// What the GPU gives, or None where the software device serves instead: Auto falls to it where there is no driver or no
/// device, not where a GPU is there and fails.
fn on_gpu<T>(
    setup: &WorkerSetup,
    gpu: impl FnOnce(executor_cuda::Config) -> Result<T, Unavailable>,
) -> Result<Option<T>, SetupError> {
    if setup.executor == ExecutorKind::Soft {
        return Ok(None);
    }
    let unavailable = match gpu(executor_cuda::Config { memory_bytes: setup.vram_bytes }) {
        Ok(made) => return Ok(Some(made)),
        Err(unavailable) => unavailable,
    };
    let nothing_there = match &unavailable {
        Unavailable::Load(_) => true,
        Unavailable::Driver { result, .. } => *result == cuda_api::CUresult::NO_DEVICE,
        Unavailable::Device { .. } => false,
    };
    if setup.executor == ExecutorKind::Auto && nothing_there {
        log::info!("no GPU ({unavailable}): the software executor serves");
        return Ok(None);
    }
    Err(match &unavailable {
        Unavailable::Driver { result, .. } => {
            SetupError { error: regs::ERROR_CUDA, cuda_result: result.0, reason: unavailable.to_string() }
        }
        _ => SetupError { error: regs::ERROR_UNSUPPORTED, cuda_result: 0, reason: unavailable.to_string() },
    })
}

/// Reads a probe's blob. None: it is not one of this program's.
pub(crate) fn decode_info(blob: &[u8]) -> Option<VmInfo> {
    // It is read where its words are aligned.
    let mut words = vec![0u64; blob.len().div_ceil(8)];
    let bytes = zerocopy::IntoBytes::as_mut_bytes(words.as_mut_slice());
    let (bytes, _) = bytes.split_at_mut_checked(blob.len())?;
    bytes.copy_from_slice(blob);
    VmInfo::decode(bytes).ok()
}

fn probed(info: &VmInfo, capabilities: u32) -> Probe {
    Probe {
        device_count: u32::try_from(info.devices.len()).unwrap_or(0),
        info: info.encode(),
        capabilities: regs::CAP_MAP_GUEST_PAGES | capabilities,
        fingerprint: cuda_api::fingerprint(),
    }
}

impl WorkerProgram for Program {
    type Handler = Either;

    fn prepare(&mut self, executor: ExecutorKind) {
        if executor != ExecutorKind::Soft
            && let Err(error) = executor_cuda::preload()
        {
            // The probe has said so already; the session hears it when it opens.
            log::debug!("no driver: {error}");
        }
    }

    fn initialise(&mut self, setup: &WorkerSetup) -> Result<(), SetupError> {
        self.started = on_gpu(setup, executor_cuda::start)?;
        Ok(())
    }

    fn probe(self, setup: &WorkerSetup) -> Result<Probe, SetupError> {
        // A GPU as large as it is: what the VM is shown of it is the supervisor's to say.
        match on_gpu(setup, |_| executor_cuda::probe(executor_cuda::Config::default()))? {
            Some(info) => Ok(probed(&info, regs::CAP_HARDWARE)),
            None => Ok(probed(&soft(setup)?.vm_info(), 0)),
        }
    }

    fn reader(self, info: &[u8]) -> Option<Box<dyn FnMut() -> Vec<u8>>> {
        let nvml = nvml(info)?;
        Some(Box::new(move || nvml.read().encode()))
    }

    fn checkpointer(self, info: &[u8]) -> Result<Box<dyn Checkpointer>, SetupError> {
        match executor_cuda::Checkpoint::open() {
            Ok(driver) => Ok(Box::new(DriverCheckpoint { driver, info: info.to_vec() })),
            Err(error) => {
                let reason = error.to_string();
                Err(SetupError { error: regs::ERROR_UNSUPPORTED, cuda_result: 0, reason })
            }
        }
    }

    fn open(self, setup: WorkerSetup) -> Result<Self::Handler, SetupError> {
        let staged = setup.staged.clone();
        let gpu = |config| {
            let started = self.started.map_or_else(|| executor_cuda::start(config), Ok)?;
            let staged =
                staged.map(|staged| Box::new(move |bytes| staged.add(bytes)) as executor_cuda::Staged);
            let (sharing, output) = (setup.sharing.clone(), setup.output.clone());
            let (account, completion) = (setup.account.clone(), setup.completion.clone());
            Ok(Cuda::new(started, Services { account, staged, sharing, output, completion }))
        };
        match on_gpu(&setup, gpu)? {
            Some(cuda) => Ok(Either::Cuda(Box::new(Driven(cuda)))),
            None => soft(&setup).map(|soft| Either::Soft(Box::new(Driven(soft)))),
        }
    }
}

/// The host's NVML, for the devices in a probe's blob; None where it cannot be used.
fn nvml(info: &[u8]) -> Option<executor_cuda::Nvml> {
    let opened = decode_info(info).ok_or_else(|| "the blob cannot be read".to_owned());
    let opened = opened.and_then(|info| executor_cuda::Nvml::open(&info));
    opened.inspect_err(|error| log::info!("the host's NVML: {error}")).ok()
}

/// NVIDIA's driver, as what takes processes off its GPUs.
struct DriverCheckpoint {
    driver: executor_cuda::Checkpoint,
    info: Vec<u8>,
}

impl Checkpointer for DriverCheckpoint {
    fn act(&mut self, action: Action, pid: i32, limit: Duration) -> Result<u32, u32> {
        let done = match action {
            Action::Lock => self.driver.lock(pid, limit).map(|()| 0),
            Action::Checkpoint => self.driver.checkpoint(pid).map(|()| 0),
            Action::Restore => self.driver.restore(pid).map(|()| 0),
            Action::Unlock => self.driver.unlock(pid).map(|()| 0),
            Action::State => self.driver.state(pid),
        };
        done.map_err(|result| result.0)
    }

    fn free_bytes(&mut self) -> Option<u64> {
        let devices = nvml(&self.info)?.read().devices;
        devices.iter().map(|device| device.get(&number::MEMORY_FREE).copied()).sum()
    }
}
