//! Turns: how VMs that want the same GPU at the same time share it.
//!
//! As long as one VM wants a GPU, its work passes freely. As soon as two do, they take turns of up to 30 ms, one VM at a time, in
//! proportion to their weights (`turns/policy.rs`). The daemons of a host agree on whose turn it is through a file for each GPU
//! (`turns/table.rs`); each tells its workers by a page (`turns/page.rs`), in which the workers also say whether they have or want work.
//! No kernel is split: when a turn ends, the workers' gates close, and the turn goes on to the next VM when what was begun is over, or after
//! [`DRAIN_LIMIT_NS`]. So that this does not take long, a worker in its turn keeps little unfinished (`worker/turns.rs`).
//!
//! What is not given a turn is what gives the GPU nothing to do: allocations, queries, waits.
//!
//! A VM with several GPUs has a turn on each by itself: kernels on two of them that wait for each other may have to wait until both turns
//! come together, which the limit sees to.

mod page;
mod policy;
mod table;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

pub(crate) use page::{TurnPage, WAIT_BUCKETS, gate};
use policy::Tenant;
pub(crate) use policy::UNFINISHED_MIN_NS;
use table::{LEASE_NS, Locked, Table};

use crate::Settings;
use crate::process::WorkerProcess;

/// Turns are given out until so long after two VMs have wanted a GPU at once.
const CONTENDED_NS: u64 = 200_000_000;
/// What was begun in a turn has so long to come to its end before the next turn begins.
const DRAIN_LIMIT_NS: u64 = 60_000_000;
/// How often a holder looks whether its turn is over while others wait.
const LOOK_NS: u64 = 1_000_000;
/// How often a daemon that waits for its turn looks after the holder's lease, and one that cannot get the lock tries again.
const LEASE_LOOK_NS: u64 = 50_000_000;

/// The host's monotonic clock, in nanoseconds: the same for all its processes.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// The descriptor by which a VM's workers wake the thread that sees to its turns.
pub(crate) fn notifier() -> std::io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Wakes that thread.
pub(crate) fn notify(notifier: impl AsFd) {
    // Full is as good: it is being woken.
    let _ = rustix::io::write(notifier, &1u64.to_ne_bytes());
}

/// One GPU of the VM.
struct Device {
    /// The VM's place among those that share it; None: it is not shared.
    table: Option<Table>,
    gate: u32,
    turn: u32,
    /// Since when the turn has not been charged for.
    charged_ns: u64,
    /// When the turn began.
    opened_ns: u64,
    /// The gate was closed then, and what was begun is not over.
    closing_ns: Option<u64>,
    /// In the turn, since when there is nothing to do.
    idle_ns: Option<u64>,
    /// The lock could not be had since then.
    stuck_ns: Option<u64>,
}

struct State {
    workers: Vec<Arc<WorkerProcess>>,
    devices: Vec<Device>,
}

struct Inner {
    ids: Vec<[u8; 16]>,
    state: Mutex<State>,
    notifier: Arc<OwnedFd>,
    stop: AtomicBool,
}

/// A VM's turns on its GPUs.
pub(crate) struct Turns {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

/// What a GPU is called in the state folder.
fn file_name(id: &[u8; 16], shared: Option<&str>) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("turns-{}", shared.unwrap_or(&hex))
}

impl Turns {
    /// Takes part in the turns of the devices with these UUIDs, in `folder`, where there is one. `shared` is a name for them all where they
    /// are one and the same in truth.
    ///
    /// # Errors
    /// The folder or a file in it cannot be used, or no thread be started.
    pub(crate) fn start(
        vm_id: u32,
        ids: Vec<[u8; 16]>,
        shared: Option<&str>,
        folder: Option<&Path>,
        notifier: Arc<OwnedFd>,
        settings: Arc<RwLock<Settings>>,
    ) -> std::io::Result<Self> {
        let mut devices = Vec::new();
        for (at, id) in ids.iter().enumerate() {
            let first = shared.is_none() || at == 0;
            let join = |folder: &Path| {
                let name = file_name(id, shared);
                Table::join(folder, &name, vm_id).map_err(|error| {
                    std::io::Error::new(error.kind(), format!("{}: {error}", folder.join(&name).display()))
                })
            };
            devices.push(Device {
                table: folder.filter(|_| first).map(join).transpose()?,
                gate: gate::FREE,
                turn: 0,
                charged_ns: 0,
                opened_ns: 0,
                closing_ns: None,
                idle_ns: None,
                stuck_ns: None,
            });
        }
        let is_shared = devices.iter().any(|device| device.table.is_some());
        let state = Mutex::new(State { workers: Vec::new(), devices });
        let inner = Arc::new(Inner { ids, state, notifier, stop: AtomicBool::new(false) });
        let thread = if is_shared {
            let inner = Arc::clone(&inner);
            let run = move || inner.run(vm_id, &settings);
            Some(std::thread::Builder::new().name(format!("vm{vm_id}-turns")).spawn(run)?)
        } else {
            None
        };
        Ok(Self { inner, thread })
    }

    /// A worker is about to serve: it hears of its gates.
    pub(crate) fn attach(&self, worker: &Arc<WorkerProcess>) {
        let mut state = self.inner.lock();
        worker.turns().set_ids(&self.inner.ids);
        for (at, device) in state.devices.iter().enumerate() {
            worker.turns().set_gate(at, device.gate, device.turn);
        }
        state.workers.push(Arc::clone(worker));
    }

    /// A worker is gone.
    pub(crate) fn detach(&self, worker: &Arc<WorkerProcess>) {
        self.inner.lock().workers.retain(|other| !Arc::ptr_eq(other, worker));
        notify(&self.inner.notifier);
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Release);
        notify(&self.inner.notifier);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that sees to a VM's turns has panicked");
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, vm_id: u32, settings: &RwLock<Settings>) {
        while !self.stop.load(Ordering::Acquire) {
            let _ = rustix::io::read(&self.notifier, &mut [0; 8]);
            // One store.
            let settings = *settings.read().unwrap_or_else(PoisonError::into_inner);
            let mut next: Option<u64> = None;
            let mut fifos = Vec::new();
            let now = now_ns();
            {
                let State { workers, devices } = &mut *self.lock();
                for (at, device) in devices.iter_mut().enumerate() {
                    let Some(table) = device.table.take() else { continue };
                    table.clear();
                    let soon = device.step(&table, now, at, workers, &settings, vm_id);
                    next = soon.into_iter().chain(next).min();
                    fifos.extend(table.woken().try_clone_to_owned());
                    device.table = Some(table);
                }
            }
            let limit = next.map(|at| at.saturating_sub(now_ns()));
            let limit = limit.map(|ns| Timespec {
                tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
            });
            let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(&self.notifier, PollFlags::IN)];
            fds.extend(fifos.iter().map(|fifo| PollFd::new(fifo, PollFlags::IN)));
            // Whatever it answers, everything is looked at again.
            let _ = rustix::event::poll(&mut fds, limit.as_ref());
        }
    }
}

/// How much work may be unfinished in the turn, in nanoseconds of the device.
fn set_unfinished(at: usize, workers: &[Arc<WorkerProcess>], ns: u64) {
    for worker in workers {
        if let Some(device) = worker.turns().device(at) {
            device.unfinished_ns.store(ns, Ordering::Relaxed);
        }
    }
}

impl Device {
    fn set_gate(&mut self, at: usize, workers: &[Arc<WorkerProcess>], gate: u32) {
        self.gate = gate;
        self.turn = self.turn.wrapping_add(1);
        workers.iter().for_each(|worker| worker.turns().set_gate(at, gate, self.turn));
    }

    /// Looks what is to be done about this device, and does it. When to look again at the latest, if nobody wakes us before.
    fn step(
        &mut self,
        table: &Table,
        now: u64,
        at: usize,
        workers: &[Arc<WorkerProcess>],
        settings: &Settings,
        vm_id: u32,
    ) -> Option<u64> {
        let of = |worker: &Arc<WorkerProcess>, look: &dyn Fn(&page::DeviceTurn) -> bool| {
            worker.turns().device(at).is_some_and(look)
        };
        let active = workers.iter().any(|w| of(w, &|d| d.active.load(Ordering::SeqCst) != 0));
        let Some(mut shared) = table.lock() else { return Some(self.without_the_lock(now, at, workers)) };
        self.stuck_ns = None;
        let me = self.enter(&mut shared, now, active, settings);
        let wanting = shared.wanting();
        if active && !wanting.is_empty() {
            let begins = shared.contended_until() <= now;
            shared.set_contended_until(now.saturating_add(CONTENDED_NS));
            if begins {
                log::debug!("VM {vm_id}: turns begin on device {at}");
                shared.wake_all();
            }
        }
        let contended_until = shared.contended_until();
        if contended_until <= now {
            self.set_free(&mut shared, now, at, workers);
            return None;
        }
        let mut next = contended_until;
        match self.gate {
            gate::OPEN if shared.is_mine() => {
                shared.hear(now);
                let had = now.saturating_sub(self.opened_ns);
                // What was paid for already is in the virtual time.
                let unpaid = now.saturating_sub(self.charged_ns);
                let waited_for = !active && {
                    let since = *self.idle_ns.get_or_insert(now);
                    now.saturating_sub(since) < policy::EXPECTED_NS
                        && policy::is_expected(&me, unpaid, &wanting)
                };
                if active {
                    self.idle_ns = None;
                }
                if wanting.is_empty() {
                    self.charge(&mut shared, now);
                    let me = Tenant { waiting_since_ns: now, ..shared.me() };
                    shared.advance_clock(me.virtual_ns);
                    shared.enter(me, active);
                } else if (!active && !waited_for) || self.is_over(now, &me, had, unpaid, &wanting) {
                    self.close(now, at, workers);
                } else {
                    let ns = policy::unfinished_ns(&me, had, &wanting, shared.highest_priority());
                    set_unfinished(at, workers, ns);
                    next = next.min(now.saturating_add(LOOK_NS));
                }
            }
            // Not, or no longer: the lease has expired.
            gate::OPEN | gate::FREE => {
                if self.gate == gate::FREE {
                    (self.opened_ns, self.charged_ns) = (now, now);
                }
                self.close(now, at, workers);
            }
            _ => {}
        }
        if let Some(since) = self.closing_ns {
            let drained = workers.iter().all(|w| of(w, &|d| d.drained.load(Ordering::SeqCst) == self.turn));
            let late = now.saturating_sub(since) >= DRAIN_LIMIT_NS;
            if drained || late {
                self.closing_ns = None;
                self.charge(&mut shared, now);
                let ended = Tenant { waiting_since_ns: now, ..shared.me() };
                shared.enter(ended, active);
                if shared.is_mine() {
                    shared.set_holder(None, now);
                }
            } else {
                shared.hear_if_mine(now);
                next = next.min(since.saturating_add(DRAIN_LIMIT_NS));
            }
        }
        self.hand_out(&mut shared, now, active);
        if shared.is_mine() && self.gate != gate::OPEN && self.closing_ns.is_none() {
            (self.opened_ns, self.charged_ns, self.idle_ns) = (now, now, None);
            let clock = shared.me().virtual_ns;
            shared.advance_clock(clock);
            shared.hear(now);
            set_unfinished(at, workers, policy::unfinished_ns(&me, 0, &wanting, shared.highest_priority()));
            self.set_gate(at, workers, gate::OPEN);
            next = next.min(now.saturating_add(LOOK_NS));
        } else if active && !shared.is_mine() {
            next = next.min(now.saturating_add(LEASE_LOOK_NS));
        }
        Some(next)
    }

    /// Enters into the table what this VM is and wants.
    fn enter(&mut self, shared: &mut Locked<'_>, now: u64, active: bool, settings: &Settings) -> Tenant {
        let was = shared.me();
        let mut me = Tenant { weight: settings.weight, priority: settings.priority, ..was };
        let comes_back = shared.enter(me, active);
        if comes_back && self.gate != gate::OPEN {
            me.virtual_ns = policy::on_return(me.virtual_ns, me.weight, shared.clock());
            me.waiting_since_ns = now;
            shared.enter(me, active);
            if let Some(holder) = shared.holder() {
                shared.wake(holder);
            }
        }
        me
    }

    fn is_over(&self, now: u64, me: &Tenant, had: u64, unpaid: u64, wanting: &[Tenant]) -> bool {
        // The time since the turn began counts for its least length, what is not paid for the share.
        let paid = policy::per_weight(had.saturating_sub(unpaid), me.weight);
        let at_start = Tenant { virtual_ns: me.virtual_ns.saturating_sub(paid), ..*me };
        policy::is_over(now, &at_start, had, wanting)
    }

    fn close(&mut self, now: u64, at: usize, workers: &[Arc<WorkerProcess>]) {
        self.closing_ns = Some(now);
        self.set_gate(at, workers, gate::CLOSED);
    }

    /// Has the VM pay for the device time since it last did.
    fn charge(&mut self, shared: &mut Locked<'_>, now: u64) {
        let had = now.saturating_sub(self.charged_ns);
        self.charged_ns = now;
        let me = shared.me();
        shared.pay(me.after(had), had);
    }

    /// Nobody contends for the device any more.
    fn set_free(&mut self, shared: &mut Locked<'_>, now: u64, at: usize, workers: &[Arc<WorkerProcess>]) {
        if self.gate == gate::FREE {
            return;
        }
        if self.gate == gate::OPEN || self.closing_ns.is_some() {
            self.charge(shared, now);
        }
        self.closing_ns = None;
        if shared.is_mine() {
            shared.set_holder(None, now);
        }
        self.set_gate(at, workers, gate::FREE);
    }

    /// Where it is nobody's turn, decides whose it is.
    fn hand_out(&self, shared: &mut Locked<'_>, now: u64, active: bool) {
        shared.expire(now);
        while shared.holder().is_none() {
            let mut wanting = shared.wanting();
            // While the last turn's work is being waited for, another one is not begun.
            if active && self.closing_ns.is_none() {
                wanting.push(shared.me());
            }
            let Some(next) = policy::next(now, &wanting) else { return };
            if !shared.forget_if_dead(next.slot) {
                shared.set_holder(Some(next.slot), now);
                shared.wake(next.slot);
            }
        }
    }

    /// Some daemon keeps the lock: stopped in the wrong moment, perhaps. Everybody works on, but for a while nobody has turns.
    fn without_the_lock(&mut self, now: u64, at: usize, workers: &[Arc<WorkerProcess>]) -> u64 {
        let since = *self.stuck_ns.get_or_insert(now);
        if now.saturating_sub(since) >= LEASE_NS && self.gate != gate::FREE {
            log::warn!(
                "the turns of device {at} cannot be agreed on: their file is locked by a daemon that does not go on"
            );
            self.closing_ns = None;
            self.set_gate(at, workers, gate::FREE);
        }
        now.saturating_add(LEASE_LOOK_NS)
    }
}

/// How long calls of a session have waited for a turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GateWaits {
    /// In all.
    pub total: Duration,
    /// How many for at least 0, 2, 4, 8 … microseconds, but less than the next.
    pub counts: [u64; WAIT_BUCKETS],
}

impl GateWaits {
    /// Adds those of another session.
    pub(crate) fn add(&mut self, other: Self) {
        self.total = self.total.saturating_add(other.total);
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
    }
}
