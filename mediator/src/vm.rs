//! The mediator as a front sees it: one VM, its sessions by slot.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cuda_api::info::DEVICES_MAX;
use cuda_api::live::{Live, SessionUse};
use log_limit::{LogLimit, limited};
use pci_layout::{control, event, regs, ring};
use rustix::fs::MemfdFlags;
use zerocopy::FromBytes;

use crate::channel::{self, OrderHeader, ProbeAnswer, kind};
use crate::devices::Devices;
use crate::monitor::Monitor;
use crate::pieces::PieceList;
use crate::pool::Pool;
use crate::profile::{Profiles, Subject};
use crate::quarantine::{Now, Quarantine, Quarantines};
use crate::readings::Reader;
use crate::session::{Completion, Control, Op, STOP_SLACK, Session};
use crate::sharing::Tokens;
use crate::suspend::Suspension;
use crate::turns::{self, Turns};
use crate::vm_page::VmPage;
use crate::{Done, Events, Open, Piece, SessionError, Settings, StartError, Totals, VmConfig};

/// Longest information blob that a probe may make, in bytes.
pub const PROBE_INFO_BYTES_MAX: usize = 1024 * 1024;

/// Lines about sessions that begin, and as many about those that end, in a second.
const SESSION_LINES: u32 = 50;

/// What the probe said.
pub(crate) struct Probed {
    pub(crate) devices: Devices,
    capabilities: u32,
    device_count: u32,
    pub(crate) fingerprint: [u8; 16],
}

pub(crate) struct Entry {
    /// The guest process, by its own word.
    pid: u32,
    ops: Sender<Op>,
    pub(crate) control: Arc<Control>,
    thread: JoinHandle<()>,
}

/// The session table, and the totals of those that are no longer in it: under one lock, so that nothing is counted twice.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) open: HashMap<u32, Entry>,
    past: Totals,
}

/// The live information that was made last, and how many were.
#[derive(Default)]
struct LastLive {
    number: u64,
    blob: Arc<[u8]>,
}

/// What the sessions' threads share.
pub(crate) struct Shared {
    pub(crate) config: VmConfig,
    settings: Arc<RwLock<Settings>>,
    pub(crate) events: Arc<dyn Events>,
    pub(crate) probed: Probed,
    pub(crate) monitor: Monitor,
    pub(crate) pool: Pool,
    pub(crate) turns: Turns,
    pub(crate) page: Arc<VmPage>,
    /// What the sessions share.
    pub(crate) tokens: Arc<Tokens>,
    /// Where the VM is profiled.
    profiles: Option<Profiles>,
    table: Mutex<Table>,
    /// What the guest is told of its devices, as of now.
    info: Mutex<Arc<[u8]>>,
    live: Mutex<LastLive>,
    pub(crate) readings: Reader,
    quarantines: Quarantines,
    /// For what guests can bring about as often as they like.
    pub(crate) refusals: LogLimit,
    pub(crate) openings: LogLimit,
    pub(crate) endings: LogLimit,
    stopped: AtomicBool,
    pub(crate) suspension: Suspension,
    kicks: AtomicU64,
}

impl Shared {
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The VM's settings as they are now.
    pub(crate) fn settings(&self) -> Settings {
        // One store.
        *self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn count_opened(&self, control: &Control) {
        control.served.store(true, Ordering::Relaxed);
        let past = &mut self.table().past;
        past.sessions_opened = past.sessions_opened.saturating_add(1);
    }

    pub(crate) fn count_died(&self) {
        let past = &mut self.table().past;
        past.sessions_died = past.sessions_died.saturating_add(1);
    }

    /// A session has faulted. It counts once, whatever else happens to it.
    pub(crate) fn count_fault(&self, session: u32, control: &Control, what: &str) {
        if control.faulted.swap(true, Ordering::AcqRel) {
            return;
        }
        {
            let past = &mut self.table().past;
            past.sessions_faulted = past.sessions_faulted.saturating_add(1);
        }
        let (rule, vm) = (self.settings().quarantine, self.config.vm_id);
        if let Some(Quarantine { faults, .. }) = self.quarantines.fault(&rule, Now::read()) {
            let lasts = rule.lasts.map_or("until it is cleared".to_owned(), |lasts| format!("for {lasts:?}"));
            log::warn!(
                "VM {vm} is quarantined {lasts}: session {session} {what}, and with it {faults} sessions have faulted within {:?}",
                rule.within
            );
        }
    }

    /// Counts a fault of which the session's worker has told.
    pub(crate) fn look_for_fault(&self, session: u32, control: &Control) {
        let sticky = control.worker.get().map_or(0, |worker| worker.counters().sticky());
        if sticky != 0 {
            self.count_fault(session, control, &format!("has failed with CUresult {sticky}"));
        }
    }

    /// Writes what a session has taken so far, where the VM is profiled.
    pub(crate) fn write_profile(&self, session: u32, control: &Control) {
        let profile = control.worker.get().and_then(|worker| Some((worker.pid(), worker.profile()?)));
        if let (Some(profiles), Some((pid, profile)), Some((since, guest_pid))) =
            (&self.profiles, profile, control.opened.get())
        {
            let subject = Subject {
                vm: self.config.vm_id,
                session,
                guest_pid: *guest_pid,
                worker_pid: pid.as_raw_nonzero().get(),
                duration: since.elapsed(),
            };
            profiles.write(subject, profile);
        }
    }

    /// Whom the open sessions' threads are asked through.
    pub(crate) fn open_sessions(&self) -> Vec<(u32, Sender<Op>)> {
        self.table().open.iter().map(|(id, entry)| (*id, entry.ops.clone())).collect()
    }

    /// Frees a slot. False if it is no longer held by the session with this control.
    pub(crate) fn remove(&self, session: u32, control: &Arc<Control>) -> bool {
        let mut table = self.table();
        let ours = table.open.get(&session).is_some_and(|entry| Arc::ptr_eq(&entry.control, control));
        if ours && let Some(entry) = table.open.remove(&session) {
            table.past.add_past(&entry.control);
        }
        ours
    }
}

impl Totals {
    /// Takes over what the worker of a session that is over has counted.
    fn add_past(&mut self, control: &Control) {
        let served = control.served.load(Ordering::Relaxed);
        self.sessions_closed = self.sessions_closed.saturating_add(u64::from(served));
        self.add_live(control);
    }

    pub(crate) fn add_live(&mut self, control: &Control) {
        if let Some(worker) = control.worker.get() {
            worker.counters().add_to(self);
            let busy: Duration = worker.turns().busy(DEVICES_MAX).into_iter().sum();
            self.gpu_time = self.gpu_time.saturating_add(busy);
            self.turn_waits.add(worker.turns().waits());
        }
    }
}

/// The sessions of one VM. Dropping it ends them all ([`event::DEATH_SHUTDOWN`]).
pub struct Vm {
    pub(crate) shared: Arc<Shared>,
}

impl Vm {
    /// Probes the executor in a child process and gets ready to open sessions.
    ///
    /// # Errors
    /// [`StartError`]: bad settings, a host without pidfd or eventfd, or no usable executor.
    pub fn start(config: VmConfig, events: Arc<dyn Events>) -> Result<Arc<Self>, StartError> {
        if config.sessions_max == 0 || config.sessions_max > control::SESSIONS_MAX {
            return Err(StartError::Config("sessions_max"));
        }
        config.settings.check().map_err(StartError::Config)?;
        let soft = usize::try_from(config.soft_devices).unwrap_or(usize::MAX);
        if !(1..=executor_soft::DEVICES_MAX).contains(&soft) {
            return Err(StartError::Config("soft_devices"));
        }
        if config.visible_devices.as_ref().is_some_and(|list| list.len() > 1024 || list.contains('\0')) {
            return Err(StartError::Config("visible_devices"));
        }
        let host = |what| move |source| StartError::Host { what, source };
        let profiles = config.profile.as_deref().map(Profiles::new).transpose();
        let profiles = profiles.map_err(host("folder for profiles"))?;
        let monitor = Monitor::start(config.vm_id).map_err(host("monitor thread"))?;
        let page = VmPage::create(&config.settings).map_err(host("VM page"))?;
        let notifier = Arc::new(turns::notifier().map_err(host("eventfd"))?);
        let pool = Pool::start(config.clone(), Arc::clone(&page), Arc::clone(&notifier));
        let pool = pool.map_err(host("pool thread"))?;
        let probed = probe(&pool)?;
        let settings = Arc::new(RwLock::new(config.settings));
        let turns = take_part(&config, &probed, notifier, &settings)?;
        log::info!(
            "VM {}: {} device(s), capabilities {:#x}, {} bytes of information",
            config.vm_id,
            probed.device_count,
            probed.capabilities,
            probed.devices.blob().len()
        );
        let readings = Reader::new(probed.capabilities & regs::CAP_HARDWARE != 0);
        let quota = config.settings.vram_bytes;
        probed.devices.name_in(&page);
        page.set_quota(probed.devices.allowed(quota));
        let shown = probed.devices.shown(quota);
        let shared = Shared {
            settings,
            config,
            events,
            probed,
            monitor,
            pool,
            turns,
            page,
            tokens: Arc::default(),
            profiles,
            table: Mutex::default(),
            info: Mutex::new(shown),
            live: Mutex::default(),
            readings,
            quarantines: Quarantines::default(),
            refusals: LogLimit::default(),
            openings: LogLimit::new(SESSION_LINES),
            endings: LogLimit::new(SESSION_LINES),
            stopped: AtomicBool::new(false),
            suspension: Suspension::default(),
            kicks: AtomicU64::new(0),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }

    /// The device and VM information for READ_INFO, as the worker program made it, with as much memory as the quota leaves of each device
    /// now.
    pub fn info(&self) -> Arc<[u8]> {
        Arc::clone(&self.shared.info.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The `CAP_` bits.
    pub fn capabilities(&self) -> u32 {
        self.shared.probed.capabilities
    }

    /// CUDA devices that the VM sees.
    pub fn device_count(&self) -> u32 {
        self.shared.probed.device_count
    }

    /// Fingerprint of the call table; a session whose libcuda has another is refused.
    pub fn fingerprint(&self) -> [u8; 16] {
        self.shared.probed.fingerprint
    }

    /// What the VM's processes have and what its devices do, for READ_INFO: made `anew`, or as it was made last. Nobody is waited for: it
    /// is what workers and the devices' reader have said so far.
    pub fn live_info(&self, anew: bool) -> Arc<[u8]> {
        let made = anew.then(|| {
            let (readings, pending) =
                self.shared.readings.look(&self.shared.pool, self.shared.probed.devices.blob());
            let memory = self.shared.probed.devices.memory(&self.shared.page, self.settings().vram_bytes);
            Live { memory, sessions: self.sessions_in_use(), pending, readings, ..Live::default() }
        });
        let mut last = self.shared.live.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(made) = made {
            last.number = last.number.wrapping_add(1);
            last.blob = Live { number: last.number, ..made }.encode().into();
        }
        Arc::clone(&last.blob)
    }

    fn sessions_in_use(&self) -> Vec<SessionUse> {
        let devices = usize::try_from(self.shared.probed.device_count).unwrap_or(0);
        let table = self.shared.table();
        let serving = table.open.values().filter(|entry| entry.control.served.load(Ordering::Relaxed));
        serving
            .filter_map(|entry| {
                let device_bytes = entry.control.worker.get()?.counters().device_bytes(devices);
                Some(SessionUse { pid: entry.pid, device_bytes })
            })
            .collect()
    }

    /// Opens a session in a slot that the front has chosen. `done` is called when its worker serves.
    ///
    /// Errors: ERROR_QUARANTINED while the VM is quarantined, ERROR_INVALID_REQUEST for a slot out of range or taken, ERROR_QUEUE_FULL when `sessions_max` are open,
    /// ERROR_UNSUPPORTED for another call table, ERROR_TIMEOUT, ERROR_MEDIATOR_UNAVAILABLE, or what the executor says.
    pub fn open_session(&self, session: u32, open: Open, done: Done) {
        let done = Completion::new(done);
        if let Some(quarantine) = self.quarantined() {
            let (vm, pid) = (self.shared.config.vm_id, open.pid);
            let why = if quarantine.by_hand { "by an administrator" } else { "for its faults" };
            limited!(
                self.shared.refusals,
                warn,
                "VM {vm}: guest process {pid} gets no session: the VM is quarantined {why}"
            );
            return done.finish(Err(SessionError::new(regs::ERROR_QUARANTINED)));
        }
        if let Err((error, done)) = self.try_open(session, open, done) {
            done.finish(Err(SessionError::new(error)));
        }
    }

    fn try_open(&self, session: u32, open: Open, done: Completion) -> Result<(), (u32, Completion)> {
        let mut table = self.shared.table();
        if session >= control::SESSIONS_MAX || table.open.contains_key(&session) {
            return Err((regs::ERROR_INVALID_REQUEST, done));
        }
        if table.open.len() >= self.shared.config.sessions_max as usize {
            return Err((regs::ERROR_QUEUE_FULL, done));
        }
        let (ops, receiver) = channel();
        let pid = open.pid;
        let state = Arc::new(Control::default());
        let thread = Session::new(session, Arc::clone(&self.shared), Arc::clone(&state), ops.clone());
        let name = format!("vm{}-session{session}", self.shared.config.vm_id);
        let spawned = std::thread::Builder::new().name(name).spawn(move || thread.run(&receiver));
        match spawned {
            Ok(thread) => {
                // Cannot fail: the thread waits for it.
                let _ = ops.send(Op::Open { open: Box::new(open), done });
                table.open.insert(session, Entry { pid, ops, control: state, thread });
                Ok(())
            }
            Err(error) => {
                log::error!("no thread for session {session}: {error}");
                Err((regs::ERROR_MEDIATOR_UNAVAILABLE, done))
            }
        }
    }

    /// The session's kick descriptor, for a guest process of this host. It kicks by itself from now on: [`Vm::kick`]
    /// does nothing for this session any more. None while no worker runs.
    pub fn kick_fd(&self, session: u32) -> Option<OwnedFd> {
        let control = self.shared.table().open.get(&session).map(|entry| Arc::clone(&entry.control))?;
        let shared = control.worker.get()?.share_kick();
        shared.inspect_err(|error| log::error!("kick descriptor of session {session}: {error}")).ok()
    }

    /// Maps a part of a ring; PART_RING starts the ring's host thread. PART_STAGING comes after it.
    ///
    /// Errors: ERROR_INVALID_REQUEST for a ring out of range, a part twice or too early, unaligned pieces;
    /// ERROR_INVALID_LENGTH; ERROR_QUEUE_FULL when the worker has no mappings left.
    pub fn add_ring_part(
        &self,
        session: u32,
        ring: u32,
        part: u32,
        len: u64,
        pieces: Vec<Piece>,
        done: Done,
    ) {
        let right_len = match part {
            control::PART_RING => len == u64::from(ring::RING_BYTES),
            control::PART_STAGING => len <= u64::from(ring::STAGING_BYTES_MAX),
            _ => false,
        };
        let error = match (ring < ring::RINGS_MAX, part <= control::PART_STAGING, right_len) {
            (true, true, true) => None,
            (true, true, false) => Some(regs::ERROR_INVALID_LENGTH),
            _ => Some(regs::ERROR_INVALID_REQUEST),
        };
        let header = OrderHeader { index: ring, flags: part, len, ..OrderHeader::new(kind::ADD_RING_PART) };
        self.map(session, header, error, &pieces, done);
    }

    /// Ends a ring's host thread, after the frames that are in the ring, and unmaps its parts.
    ///
    /// Errors: ERROR_INVALID_REQUEST for a ring that does not exist. A worker that does not manage in time is killed,
    /// which ends the session, and then the answer is success: nothing is mapped any more.
    pub fn remove_ring(&self, session: u32, ring: u32, done: Done) {
        let header = OrderHeader { index: ring, ..OrderHeader::new(kind::REMOVE_RING) };
        self.send_ending(session, done, |done| Op::Unmap { header, done });
    }

    /// Maps guest memory at the address `va` it has in the guest process, or continues region `region` at its end.
    ///
    /// Errors: ERROR_INVALID_REQUEST for a region out of range, unknown flags, an address that is taken or impossible,
    /// a continuation that does not continue; ERROR_INVALID_LENGTH; ERROR_QUEUE_FULL when the worker has no mappings left.
    pub fn map_region(
        &self,
        session: u32,
        region: u32,
        flags: u32,
        va: u64,
        len: u64,
        pieces: Vec<Piece>,
        done: Done,
    ) {
        let valid = region < control::REGIONS_MAX && flags & !control::MAP_READ_ONLY == 0;
        let error = (!valid).then_some(regs::ERROR_INVALID_REQUEST);
        let header = OrderHeader { index: region, flags, va, len, ..OrderHeader::new(kind::MAP_REGION) };
        self.map(session, header, error, &pieces, done);
    }

    /// Takes a region back. Errors and limits as for [`Vm::remove_ring`].
    pub fn unmap_region(&self, session: u32, region: u32, done: Done) {
        let header = OrderHeader { index: region, ..OrderHeader::new(kind::UNMAP_REGION) };
        self.send_ending(session, done, |done| Op::Unmap { header, done });
    }

    /// Ends a session: asks its worker to end, kills it if it does not, reaps it, frees the slot.
    pub fn close_session(&self, session: u32, done: Done) {
        if let Some(entry) = self.shared.table().open.get(&session) {
            entry.control.closing.store(true, Ordering::Release);
        }
        self.send_ending(session, done, |done| Op::Close { done });
    }

    fn map(&self, session: u32, header: OrderHeader, error: Option<u32>, pieces: &[Piece], done: Done) {
        if let Some(error) = error {
            return done(Err(SessionError::new(error)));
        }
        match PieceList::new(pieces, header.len) {
            Ok(pieces) => self.send(session, done, |done| Op::Map { header, pieces, done }),
            Err(error) => done(Err(error)),
        }
    }

    fn send(&self, session: u32, done: Done, op: impl FnOnce(Completion) -> Op) {
        self.send_with(session, done, |done, _| op(Completion::new(done)));
    }

    fn send_ending(&self, session: u32, done: Done, op: impl FnOnce(Completion) -> Op) {
        self.send_with(session, done, |done, control| op(Completion::ending(done, control)));
    }

    fn send_with(&self, session: u32, done: Done, op: impl FnOnce(Done, Arc<Control>) -> Op) {
        let found = {
            let table = self.shared.table();
            table.open.get(&session).map(|entry| (entry.ops.clone(), Arc::clone(&entry.control)))
        };
        match found {
            // A thread that ends before it sees the operation drops it, which completes it.
            Some((ops, control)) => drop(ops.send(op(done, control))),
            None => done(Err(SessionError::new(regs::ERROR_INVALID_REQUEST))),
        }
    }

    /// A parked ring of the session may have frames.
    pub fn kick(&self, session: u32) {
        let table = self.shared.table();
        let worker = table.open.get(&session).and_then(|entry| entry.control.worker.get());
        if worker.is_some_and(|worker| worker.kick()) {
            self.shared.kicks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The VM is paused: no worker dispatches a further call. Returns when nothing changes guest memory any more: every
    /// worker is idle, or was killed and reaped because it did not become so within the stop limit. A front cannot tell a
    /// pause from a reset, after which that memory is another kernel's.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        let asked: Vec<_> = {
            let table = self.shared.table();
            let ask = |entry: &Entry| {
                let (quiet, answer) = channel();
                // An ended thread drops the operation.
                drop(entry.ops.send(Op::Stop { quiet }));
                (entry.control.clone(), answer)
            };
            table.open.values().map(ask).collect()
        };
        let limits = &self.shared.config.limits;
        let mut limit = limits.stop.saturating_add(STOP_SLACK.saturating_mul(2));
        if self.shared.suspension.is_changing() {
            // The sessions may be busy with that, for as long again.
            limit = limit.saturating_add(self.shared.suspension.rest_limit(limits));
        }
        let start = Instant::now();
        for (control, answer) in asked {
            // A thread that ends drops the sender; one that is busy with something else does not come to it in time.
            if let Err(RecvTimeoutError::Timeout) = answer.recv_timeout(limit.saturating_sub(start.elapsed()))
                && let Some(worker) = control.worker.get()
            {
                log::error!("worker {} is not told in time that the VM is stopped: killed", worker.pid());
                worker.child().kill_and_reap();
            }
        }
    }

    /// The VM goes on.
    pub fn resume(&self) {
        self.shared.stopped.store(false, Ordering::Release);
        // An ended thread drops the operation.
        self.shared.table().open.values().for_each(|entry| drop(entry.ops.send(Op::Resume)));
    }

    /// Kills and reaps every worker and empties the session table; returns when that is done. Guest memory is not
    /// written: after a reset it may be anything. Not to be called from a [`Done`] or an [`Events`] method, whose thread
    /// it would wait for.
    pub fn reset(&self) {
        self.end_all(None);
    }

    /// Ends every session for good and tells the guests that it was the daemon: their calls fail with
    /// [`event::DEATH_SHUTDOWN`]. The totals count what was done until the last of them ended.
    pub fn shut_down(&self) {
        self.end_all(Some(event::DEATH_SHUTDOWN));
    }

    fn end_all(&self, reason: Option<u32>) {
        let entries: Vec<Entry> = self.shared.table().open.drain().map(|(_, entry)| entry).collect();
        for entry in &entries {
            entry.control.abandon();
            drop(entry.ops.send(Op::Abandon { reason }));
        }
        for entry in entries {
            if entry.thread.join().is_err() {
                log::error!("a session's thread has panicked");
            }
            self.shared.table().past.add_past(&entry.control);
        }
    }

    /// Writes what each open session has taken so far, where the VM is profiled.
    pub fn write_profiles(&self) {
        let open: Vec<(u32, Arc<Control>)> = {
            let table = self.shared.table();
            table.open.iter().map(|(id, entry)| (*id, Arc::clone(&entry.control))).collect()
        };
        open.iter().for_each(|(id, control)| self.shared.write_profile(*id, control));
    }

    /// The VM's share and limits as they are now.
    pub fn settings(&self) -> Settings {
        self.shared.settings()
    }

    /// Changes them for all its sessions.
    ///
    /// # Errors
    /// The name of the first setting that is out of its range; then nothing is changed.
    pub fn change_settings(&self, settings: Settings) -> Result<(), &'static str> {
        settings.check()?;
        // Under the lock: of two changes the later one is what workers and guests are told.
        let mut current = self.shared.settings.write().unwrap_or_else(PoisonError::into_inner);
        *current = settings;
        let devices = &self.shared.probed.devices;
        self.shared.page.set_limits(&settings);
        self.shared.page.set_quota(devices.allowed(settings.vram_bytes));
        *self.shared.info.lock().unwrap_or_else(PoisonError::into_inner) = devices.shown(settings.vram_bytes);
        Ok(())
    }

    /// Refuses the VM new sessions for this time, or until [`Vm::clear_quarantine`]. Those that are open go on.
    pub fn quarantine(&self, lasts: Option<Duration>) {
        self.shared.quarantines.begin(lasts, Now::read());
        let lasts = lasts.map_or("until it is cleared".to_owned(), |lasts| format!("for {lasts:?}"));
        log::warn!("VM {} is quarantined {lasts} by an administrator", self.shared.config.vm_id);
    }

    /// Ends a quarantine, and forgets the faults that have led to it. False: there was none.
    pub fn clear_quarantine(&self) -> bool {
        let cleared = self.shared.quarantines.clear(Now::read());
        if cleared {
            log::info!("VM {} is quarantined no more", self.shared.config.vm_id);
        }
        cleared
    }

    /// The VM's quarantine, if there is one.
    pub fn quarantined(&self) -> Option<Quarantine> {
        let open: Vec<(u32, Arc<Control>)> = {
            let table = self.shared.table();
            table.open.iter().map(|(id, entry)| (*id, Arc::clone(&entry.control))).collect()
        };
        // Of sessions that have failed and go on.
        open.iter().for_each(|(id, control)| self.shared.look_for_fault(*id, control));
        self.shared.quarantines.current(Now::read())
    }

    /// What the VM's sessions have done so far.
    pub fn totals(&self) -> Totals {
        let table = self.shared.table();
        let mut totals = table.past;
        table.open.values().for_each(|entry| totals.add_live(&entry.control));
        totals.sessions_open = table.open.len() as u64;
        totals.kicks = self.shared.kicks.load(Ordering::Relaxed);
        totals
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Takes part in the turns of the VM's devices.
fn take_part(
    config: &VmConfig,
    probed: &Probed,
    notifier: Arc<OwnedFd>,
    settings: &Arc<RwLock<Settings>>,
) -> Result<Turns, StartError> {
    let folder = config.state_dir.as_deref();
    let ids = match probed.devices.uuids() {
        Some(ids) => ids,
        // To this crate it is opaque otherwise: only who shares devices has to know which they are.
        None if folder.is_none() => Vec::new(),
        None => return Err(StartError::Probe("the information about the devices cannot be read".to_owned())),
    };
    // Devices in software have the same processors for their work, whatever they are called.
    let shared = (probed.capabilities & regs::CAP_HARDWARE == 0).then_some("software");
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder)
            .map_err(|source| StartError::Host { what: "state folder", source })?;
    }
    let settings = Arc::clone(settings);
    Turns::start(config.vm_id, ids, shared, folder, notifier, settings)
        .map_err(|source| StartError::Host { what: "turns of the GPU", source })
}

fn probe(pool: &Pool) -> Result<Probed, StartError> {
    let failed = |text: String| StartError::Probe(text);
    let output = rustix::fs::memfd_create("vgpu-probe", MemfdFlags::CLOEXEC)
        .map_err(|error| StartError::Host { what: "memfd", source: error.into() })?;
    let theirs = output.as_fd().try_clone_to_owned();
    let theirs = theirs.map_err(|source| StartError::Host { what: "memfd", source })?;
    let answer = pool.probe(theirs).map_err(failed)?;
    if answer.error != regs::ERROR_NONE {
        return Err(failed(String::from_utf8_lossy(&answer.tail).into_owned()));
    }
    let (said, _) = ProbeAnswer::read_from_prefix(&answer.tail)
        .map_err(|_| failed("the probe's answer is too short".to_owned()))?;
    let len = usize::try_from(said.info_len).unwrap_or(usize::MAX);
    if len > PROBE_INFO_BYTES_MAX {
        return Err(failed(format!("{len} bytes of information")));
    }
    let mut info = vec![0; len];
    channel::read_exact_at(&output, &mut info).map_err(|error| failed(format!("information: {error}")))?;
    let ProbeAnswer { capabilities, device_count, fingerprint, .. } = said;
    let devices = Devices::new(info, capabilities & regs::CAP_HARDWARE != 0);
    Ok(Probed { devices, capabilities, device_count, fingerprint })
}
