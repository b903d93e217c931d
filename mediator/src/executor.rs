//! The executors, joined to the worker: [`cuda_api`]'s dispatch under a [`CallHandler`], and the choice between executors.

use std::time::Duration;

use cuda_api::host::{Executor, StagingView};
use executor_soft::{Soft, SoftConfig};
use pci_layout::regs;

use crate::worker::{Probe, SetupError, WorkerProgram, WorkerSetup};
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
        if let Err(error) = self.0.enter(thread, frame.context, staging) {
            return Ok(error.0);
        }
        let result = cuda_api::host::dispatch(&self.0, thread, frame.call, frame.args, reply)
            .map_err(|error| Malformed(error.0))?;
        if log::log_enabled!(log::Level::Trace) {
            log::trace!("{} -> {result}", cuda_api::call_name(frame.call));
        }
        Ok(result.0)
    }

    fn may_overtake(&self, frame: Frame<'_>, blocked: &[Frame<'_>]) -> bool {
        let blocked: Vec<(u32, &[u8])> = blocked.iter().map(|f| (f.call, f.args)).collect();
        self.0.may_overtake(frame.call, frame.args, &blocked)
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

    fn quiesce(&self, limit: Duration) -> bool {
        self.0.quiesce(limit)
    }
}

/// The worker program of the daemon: makes the executor that the VM was given.
#[derive(Debug, Clone, Copy, Default)]
pub struct Program;

fn soft(setup: &WorkerSetup) -> Result<Soft, SetupError> {
    match setup.executor {
        ExecutorKind::Soft => {}
        ExecutorKind::Auto => log::debug!("no GPU executor in this build: the software executor serves"),
        ExecutorKind::Cuda => {
            return Err(SetupError {
                error: regs::ERROR_UNSUPPORTED,
                cuda_result: 0,
                reason: "this build has no GPU executor: start the daemon with --executor soft".to_owned(),
            });
        }
    }
    let mut uuid = *b"vgpu-soft\0\0\0\0\0\0\0";
    for (to, from) in uuid.iter_mut().skip(12).zip(setup.vm_id.to_be_bytes()) {
        *to = from;
    }
    let config = SoftConfig {
        memory_bytes: setup.vram_bytes.unwrap_or(SOFT_MEMORY_BYTES),
        uuid,
        ..SoftConfig::default()
    };
    Soft::new(config).map_err(|error| SetupError {
        error: regs::ERROR_MEDIATOR_UNAVAILABLE,
        cuda_result: 0,
        reason: format!("the software device: {error}"),
    })
}

impl WorkerProgram for Program {
    type Handler = Driven<Soft>;

    fn probe(self, setup: &WorkerSetup) -> Result<Probe, SetupError> {
        let info = soft(setup)?.vm_info();
        Ok(Probe {
            device_count: u32::try_from(info.devices.len()).unwrap_or(0),
            info: info.encode(),
            capabilities: regs::CAP_MAP_GUEST_PAGES,
            fingerprint: cuda_api::fingerprint(),
        })
    }

    fn open(self, setup: WorkerSetup) -> Result<Self::Handler, SetupError> {
        soft(&setup).map(Driven)
    }
}
