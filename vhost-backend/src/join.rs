//! Joins the device to the mediator: requests one way, events the other. Types of the one become types of the other
//! here and nowhere else.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Instant;

use mediator::{Events, ExecutorKind, StartError, Vm, VmConfig, WakeKind};
use pci_layout::control::MAP_READ_ONLY;
use pci_layout::regs;
use vgpu_device::{
    Device, DeviceConfig, Done, Front, Open, Piece, RegionId, RingId, RingPart, SessionError, SessionId,
    Sessions, Wake,
};

use crate::args::{Attachment, Config, Executor};
use crate::control::{self, Controls};
use crate::report::{Identity, report};
use crate::socket::Listener;
use crate::totals::{Totals, WorkTotals};

/// The mediator's VM as the device sees it.
struct Joined {
    /// None once it was shut down.
    vm: RwLock<Option<Arc<Vm>>>,
    /// What the workers had done when the VM was shut down.
    last: RwLock<WorkTotals>,
    /// What was known at the start, kept here so that it outlives the VM.
    info: Arc<[u8]>,
    capabilities: u32,
    device_count: u32,
    fingerprint: [u8; 16],
}

/// The way of events: the VM is started before its device exists.
#[derive(Default)]
struct ToDevice(OnceLock<Weak<Device>>);

impl ToDevice {
    fn with(&self, session: u32, event: impl FnOnce(&Device, SessionId)) {
        if let (Some(device), Some(session)) = (self.0.get().and_then(Weak::upgrade), SessionId::new(session))
        {
            event(&device, session);
        }
    }
}

impl Events for ToDevice {
    fn wake(&self, session: u32) {
        self.with(session, Device::wake);
    }

    fn died(&self, session: u32, reason: u32) {
        self.with(session, |device, session| device.died(session, reason));
    }
}

/// A VM's device with the mediator behind it.
pub struct Joint {
    /// The device.
    pub device: Arc<Device>,
    joined: Arc<Joined>,
}

impl Joint {
    /// Starts the mediator's VM and puts a device in front of it.
    ///
    /// # Errors
    /// No executor, or a host that lacks what every VM needs.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let pool = u8::try_from(config.chosen.pool).map_err(|_| StartError::Config("pool"))?;
        let events = Arc::new(ToDevice::default());
        let vm = Vm::start(vm_config(config), events.clone())?;
        let (asked, found) = (config.gpus.len(), usize::try_from(vm.device_count()).unwrap_or(usize::MAX));
        if asked != 0 && asked != found {
            return Err(StartError::Gpus { list: config.gpus.join(","), found });
        }
        let joined = Arc::new(Joined {
            info: vm.info(),
            capabilities: vm.capabilities(),
            device_count: vm.device_count(),
            fingerprint: vm.fingerprint(),
            vm: RwLock::new(Some(vm)),
            last: RwLock::new(WorkTotals::default()),
        });
        let front = match config.attachment {
            Attachment::Local(_) => Front::Sockets,
            Attachment::Socket(_) | Attachment::Descriptor(_) | Attachment::Function(..) => Front::Queues,
        };
        let device_config = DeviceConfig {
            front,
            vm_id: config.vm_id,
            pool,
            priority: config.chosen.settings.priority,
            vram_quota_bytes: config.chosen.settings.vram_bytes.unwrap_or(0),
            session_limit: SessionId::LIMIT,
        };
        let device = Device::new(&device_config, joined.clone());
        if events.0.set(Arc::downgrade(&device)).is_err() {
            log::error!("events lead to another device already");
        }
        Ok(Self { device, joined })
    }

    /// What the totals are read from, for other threads.
    pub fn totals(&self) -> impl Fn() -> Totals + Clone + Send + 'static {
        let (device, joined) = (self.device.clone(), self.joined.clone());
        move || {
            let work = match joined.vm() {
                Some(vm) => work_totals(&vm),
                None => *joined.last.read().unwrap_or_else(PoisonError::into_inner),
            };
            Totals { work, device: device.counters(), sessions_open: device.sessions_open() }
        }
    }

    /// Writes the profiles of open sessions, if the VM is profiled; for other threads.
    pub fn profiles(&self) -> impl Fn() + Send + 'static {
        let joined = self.joined.clone();
        move || {
            if let Some(vm) = joined.vm() {
                vm.write_profiles();
            }
        }
    }

    /// Suspends the VM, or resumes it where it is suspended, in a thread of its own; for other threads. The log says what came of it.
    pub fn toggle_suspend(&self) -> impl Fn() + Send + 'static {
        let joined = self.joined.clone();
        move || {
            let Some(vm) = joined.vm() else { return };
            // It takes seconds. A process that it starts ends with this thread.
            let toggle = move || match vm.suspended() {
                None => drop(vm.suspend()),
                Some(_) => drop(vm.resume_from_suspend()),
            };
            if let Err(error) = std::thread::Builder::new().name("suspend".into()).spawn(toggle) {
                log::error!("no thread to suspend the VM: {error}");
            }
        }
    }

    /// Answers on the VM's control socket, from threads of its own.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn answer_on(&self, listener: Arc<Listener>, config: &Config) -> std::io::Result<()> {
        let identity = Identity {
            vm_id: config.vm_id,
            name: config.chosen.name.clone(),
            pool: config.chosen.pool,
            attachment: match &config.attachment {
                Attachment::Socket(path) => format!("QEMU on {}", path.display()),
                Attachment::Descriptor(fd) => format!("QEMU on descriptor {fd}"),
                Attachment::Function(path, _) => format!("QEMU (vfio-user) on {}", path.display()),
                Attachment::Local(path) => format!("processes of this host on {}", path.display()),
            },
            socket: match &config.attachment {
                Attachment::Socket(path) | Attachment::Function(path, _) => {
                    Some(std::path::absolute(path)?.to_string_lossy().into_owned())
                }
                Attachment::Descriptor(_) | Attachment::Local(_) => None,
            },
            started: Instant::now(),
        };
        let (joined, device) = (self.joined.clone(), self.device.clone());
        let registers = self.device.clone();
        let controls = Controls {
            vm: Box::new(move || joined.vm()),
            report: Box::new(move |vm| report(&identity, vm.snapshot(), device.counters())),
            changed: Box::new(move |settings| {
                let quota = settings.vram_bytes.unwrap_or(0);
                registers.registers().set_share(settings.priority, quota);
            }),
            changing: Mutex::default(),
            sources: config.sources.clone(),
            at_start: config.chosen.clone(),
        };
        control::start(listener, controls)
    }

    /// Ends every session and tells the guests that it was us; whatever they ask for afterwards is refused.
    pub fn shut_down(&self) {
        self.joined.shut_down();
    }

    /// [`Self::shut_down`] for another thread.
    pub fn shutdown(&self) -> impl Fn() + Send + 'static {
        let joined = self.joined.clone();
        move || joined.shut_down()
    }
}

fn vm_config(config: &Config) -> VmConfig {
    let defaults = VmConfig::new(config.vm_id);
    VmConfig {
        pool: config.chosen.pool,
        settings: config.chosen.settings,
        state_dir: config.state_dir.clone(),
        executor: match config.executor {
            Executor::Auto => ExecutorKind::Auto,
            Executor::Cuda => ExecutorKind::Cuda,
            Executor::Soft => ExecutorKind::Soft,
        },
        soft_devices: config.soft_devices,
        visible_devices: match config.gpus[..] {
            [] => defaults.visible_devices,
            _ => Some(config.gpus.join(",")),
        },
        pci_order: !config.gpus.is_empty(),
        idle_workers: config.idle_workers.map(usize::from),
        profile: config.profile.clone(),
        ..defaults
    }
}

fn work_totals(vm: &Vm) -> WorkTotals {
    let totals = vm.totals();
    WorkTotals {
        calls: totals.calls,
        replies: totals.replies,
        parks: totals.parks,
        sessions_opened: totals.sessions_opened,
        sessions_closed: totals.sessions_closed,
        sessions_died: totals.sessions_died,
        posted_errors: totals.posted_errors,
        bytes_staged: totals.bytes_staged,
        gpu_ms: u64::try_from(totals.gpu_time.as_millis()).unwrap_or(u64::MAX),
        turn_wait_ms: u64::try_from(totals.turn_waits.total.as_millis()).unwrap_or(u64::MAX),
    }
}

impl Joined {
    fn vm(&self) -> Option<Arc<Vm>> {
        // One store.
        self.vm.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does something with the VM, or refuses it.
    fn with(&self, done: Done, operation: impl FnOnce(&Vm, mediator::Done)) {
        match self.vm() {
            Some(vm) => operation(&vm, Box::new(move |result| done(result.map_err(session_error)))),
            None => done(Err(SessionError::new(regs::ERROR_MEDIATOR_UNAVAILABLE))),
        }
    }

    fn shut_down(&self) {
        let Some(vm) = self.vm.write().unwrap_or_else(PoisonError::into_inner).take() else { return };
        vm.shut_down();
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = work_totals(&vm);
    }
}

fn session_error(error: mediator::SessionError) -> SessionError {
    // An error that is none would tell the guest that all is well.
    let code = if error.error == regs::ERROR_NONE { regs::ERROR_MEDIATOR_UNAVAILABLE } else { error.error };
    SessionError { error: code, cuda_result: error.cuda_result }
}

fn piece(piece: Piece) -> mediator::Piece {
    mediator::Piece { file: piece.file, offset: piece.offset, len: piece.len }
}

fn pieces(pieces: Vec<Piece>) -> Vec<mediator::Piece> {
    pieces.into_iter().map(piece).collect()
}

impl Sessions for Joined {
    fn info(&self) -> Arc<[u8]> {
        self.vm().map_or_else(|| Arc::clone(&self.info), |vm| vm.info())
    }

    fn live_info(&self, anew: bool) -> Arc<[u8]> {
        // A VM that was shut down has no sessions any more, and nobody reads its devices.
        self.vm().map_or_else(|| [].into(), |vm| vm.live_info(anew))
    }

    fn capabilities(&self) -> u32 {
        self.capabilities
    }

    fn device_count(&self) -> u32 {
        self.device_count
    }

    fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }

    fn open_session(&self, session: SessionId, open: Open, done: Done) {
        let Open { pid, uid, fingerprint, env, page, wake } = open;
        let wake = match wake {
            Wake::Event => WakeKind::Event,
            Wake::Futex => WakeKind::Futex,
        };
        let open = mediator::Open { pid, uid, fingerprint, env, page: piece(page), wake };
        self.with(done, |vm, done| vm.open_session(session.get(), open, done));
    }

    fn add_ring_part(
        &self,
        session: SessionId,
        ring: RingId,
        part: RingPart,
        len: u64,
        parts: Vec<Piece>,
        done: Done,
    ) {
        let parts = pieces(parts);
        self.with(done, |vm, done| {
            vm.add_ring_part(session.get(), ring.get(), part.wire(), len, parts, done);
        });
    }

    fn remove_ring(&self, session: SessionId, ring: RingId, done: Done) {
        self.with(done, |vm, done| vm.remove_ring(session.get(), ring.get(), done));
    }

    fn map_region(
        &self,
        session: SessionId,
        region: RegionId,
        read_only: bool,
        va: u64,
        len: u64,
        parts: Vec<Piece>,
        done: Done,
    ) {
        let flags = if read_only { MAP_READ_ONLY } else { 0 };
        let parts = pieces(parts);
        self.with(done, |vm, done| {
            vm.map_region(session.get(), region.get(), flags, va, len, parts, done);
        });
    }

    fn unmap_region(&self, session: SessionId, region: RegionId, done: Done) {
        self.with(done, |vm, done| vm.unmap_region(session.get(), region.get(), done));
    }

    fn close_session(&self, session: SessionId, done: Done) {
        match self.vm() {
            Some(_) => self.with(done, |vm, done| vm.close_session(session.get(), done)),
            // The shutdown has reaped it.
            None => done(Ok(())),
        }
    }

    fn kick_fd(&self, session: SessionId) -> Option<OwnedFd> {
        self.vm()?.kick_fd(session.get())
    }

    fn kick(&self, session: SessionId) {
        if let Some(vm) = self.vm() {
            vm.kick(session.get());
        }
    }

    fn stop(&self) {
        if let Some(vm) = self.vm() {
            vm.stop();
        }
    }

    fn resume(&self) {
        if let Some(vm) = self.vm() {
            vm.resume();
        }
    }

    fn reset(&self) {
        if let Some(vm) = self.vm() {
            vm.reset();
        }
    }
}
