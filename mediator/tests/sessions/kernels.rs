//! Kernels on the device in software: what becomes of those that run too long.

use std::time::{Duration, Instant};

use cuda_api::calls::{context, entry, launch, memory, module};
use cuda_api::types::*;
use cuda_api::wire::{Bulk, Reader, Wire, take_all};
use cuda_api::{Call, CuResult};
use mediator::{ExecutorKind, Settings, VmConfig, WakeKind};
use pci_layout::event::DEATH_TIMEOUT;
use pci_layout::ring::FRAME_WAIT;
use vgpu_ring::{FrameFields, SessionState, WaitFor};

use crate::guest::{Dead, Guest, GuestRing, start_vm};

/// The word by which this program knows that it is to be a worker with a device.
pub const REAL: &str = "real";

pub const TESTS: &[(&str, fn())] = &[
    ("an_endless_kernel_ends_its_session_and_no_other", an_endless_kernel_ends_its_session_and_no_other),
    (
        "a_limit_that_comes_later_holds_for_kernels_that_run",
        a_limit_that_comes_later_holds_for_kernels_that_run,
    ),
];

const PTX: &[u8] = b".version 8.0\n.target sm_80\n.address_size 64\n\
    .visible .entry endless()\n{\nagain:\n bra again;\n}\n.visible .entry short()\n{\n ret;\n}\n\0";

fn handle<H: Handle>(index: u32) -> H {
    H::from_raw(pack_handle(H::KIND, 1, index))
}

/// A guest thread with a context and two kernels.
struct Cuda<'a> {
    ring: GuestRing<'a>,
    context: u32,
}

impl<'a> Cuda<'a> {
    fn begin(guest: &'a Guest) -> Self {
        let mut cuda = Cuda { ring: guest.ring(0), context: 0 };
        let context: CUcontext = handle(1);
        cuda.call::<context::row::cuDevicePrimaryCtxRetain>((context, 0, 0)).expect("a context");
        cuda.context = (context.0 & 0xffff_ffff) as u32;
        cuda.call::<entry::row::vgpuImageData>((1, 0, PTX.len() as u64, Bulk::Inline(PTX)))
            .expect("an image");
        let (result, ..) =
            cuda.call::<module::row::cuModuleLoadDataEx>((handle(1), 1, &[], 0, 0)).expect("a module");
        assert_eq!(result, 0);
        for (index, name) in [(1, c"endless"), (2, c"short")] {
            cuda.call::<module::row::cuModuleGetFunction>((handle(index), handle(1), name))
                .expect("a function");
        }
        cuda
    }

    fn send<C: Call>(&mut self, flags: u32, fields: C::In<'_>) -> u64 {
        let mut frame = Vec::new();
        fields.put(&mut frame);
        let ticket = self.ring.guest.next_ticket();
        let mut writer = self.ring.producer.reserve().expect("there is space");
        writer.put(&frame);
        let fields = FrameFields { call: C::ID, flags, context: self.context, ticket };
        if writer.publish(fields).expect("the frame fits") {
            self.ring.guest.kick();
        }
        ticket
    }

    fn try_call<C: Call>(&mut self, fields: C::In<'_>) -> Result<CuResult<C::Out>, Dead> {
        let ticket = self.send::<C>(FRAME_WAIT, fields);
        self.ring.wait_for(WaitFor::Reply(ticket))?;
        let (result, reply) = self.ring.reply(ticket)?;
        if result != 0 {
            return Ok(Err(CUresult(result)));
        }
        Ok(Ok(take_all::<C::Out>(&mut Reader::new(&reply)).expect("a reply of the row's shape")))
    }

    fn call<C: Call>(&mut self, fields: C::In<'_>) -> CuResult<C::Out> {
        self.try_call::<C>(fields).expect("the session lives")
    }

    /// Function 1 is endless, function 2 is not.
    fn launch(&mut self, function: u32) {
        let fields = (handle(function), [1, 1, 1], [1, 1, 1], 0, CUstream(0), [].as_slice());
        self.send::<launch::row::cuLaunchKernel>(0, fields);
    }

    fn synchronize(&mut self) -> Result<CuResult<()>, Dead> {
        self.try_call::<context::row::cuCtxSynchronize>((CUcontext(0),))
    }
}

fn with_devices(config: &mut VmConfig) {
    config.program_args = vec![REAL.into()];
    config.executor = ExecutorKind::Soft;
}

fn an_endless_kernel_ends_its_session_and_no_other() {
    let limit = Duration::from_millis(400);
    let (vm, kernel) = start_vm(|config| {
        with_devices(config);
        config.settings.kernel_timeout = Some(limit);
    });
    let open =
        |id| Guest::open_with(&vm, &kernel, id, WakeKind::Event, |open| open.fingerprint = vm.fingerprint());
    let (late, other) = (open(0), open(1));
    let (mut a, mut b) = (Cuda::begin(&late), Cuda::begin(&other));
    let begin = Instant::now();
    a.launch(1);
    // Short kernels for longer than one may run are no long kernel.
    while begin.elapsed() < limit * 2 || kernel.deaths() == 0 {
        b.launch(2);
        assert_eq!(b.synchronize(), Ok(Ok(())));
        assert!(begin.elapsed() < crate::guest::PATIENCE, "it runs and runs");
    }
    assert_eq!(kernel.wait_for_death(0), Some(DEATH_TIMEOUT));
    assert_eq!(late.state(), SessionState::Dead(DEATH_TIMEOUT));
    assert_eq!(a.synchronize(), Err(Dead(DEATH_TIMEOUT)));
    assert!(begin.elapsed() >= limit);
    b.launch(2);
    assert_eq!(b.synchronize(), Ok(Ok(())));
    b.call::<memory::row::cuMemAlloc_v2>((4096, &[])).expect("memory");
    assert_eq!((kernel.deaths(), other.state()), (1, SessionState::Live));
    late.close().expect("closed");
}

fn a_limit_that_comes_later_holds_for_kernels_that_run() {
    let (vm, kernel) = start_vm(with_devices);
    let guest =
        Guest::open_with(&vm, &kernel, 0, WakeKind::Event, |open| open.fingerprint = vm.fingerprint());
    let mut cuda = Cuda::begin(&guest);
    cuda.launch(1);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((guest.state(), kernel.deaths()), (SessionState::Live, 0), "without a limit");
    let settings = Settings { kernel_timeout: Some(Duration::from_millis(100)), ..vm.settings() };
    vm.change_settings(settings).expect("good settings");
    assert_eq!(cuda.synchronize(), Err(Dead(DEATH_TIMEOUT)));
    assert_eq!(kernel.wait_for_death(0), Some(DEATH_TIMEOUT));
}
