//! A VM at one moment: for whoever watches it or runs it. Nobody is waited for, and nothing of a guest's data is in it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cuda_api::live::{Readings, UNKNOWN_BYTES};

use crate::readings::Reader;
use crate::session::Control;
use crate::vm::Shared;
use crate::{Quarantine, Settings, Suspended, Totals, Vm};

/// One device, as the VM has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSnapshot {
    /// What it is called.
    pub name: String,
    /// Which one it is.
    pub uuid: [u8; 16],
    /// All memory that the VM may use there, in bytes: its quota, or what the device has.
    pub total_bytes: u64,
    /// What its processes have allocated, in bytes.
    pub used_bytes: u64,
}

/// One session: a process of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSnapshot {
    /// Its slot.
    pub session: u32,
    /// Process id in the guest, by its own word.
    pub guest_pid: u32,
    /// Process id of its worker on this host.
    pub worker_pid: i32,
    /// Since it was opened.
    pub age: Duration,
    /// It has faulted: its calls answer with an error.
    pub faulted: bool,
    /// What it has allocated on each device, in bytes; `None` where the executor does not know.
    pub device_bytes: Vec<Option<u64>>,
    /// What the host's NVML says that its worker has of each device: that, and what the driver needs for its contexts and code. None, or no
    /// element at all, where that is not known.
    pub host_bytes: Vec<Option<u64>>,
    /// What it has done. The numbers of sessions are 0.
    pub totals: Totals,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its settings.
    pub settings: Settings,
    /// It is paused: no call is carried out.
    pub stopped: bool,
    /// It is suspended.
    pub suspended: Option<Suspended>,
    /// It is refused new sessions.
    pub quarantine: Option<Quarantine>,
    /// Its devices, by ordinal.
    pub devices: Vec<DeviceSnapshot>,
    /// Its sessions that serve, by slot.
    pub sessions: Vec<SessionSnapshot>,
    /// What all sessions have done, those that are over included.
    pub totals: Totals,
    /// The newest reading of the devices there is; None where nobody reads.
    pub readings: Option<Readings>,
}

impl Vm {
    /// The VM as it is now. Asked for again after 0.2 s, it has newer readings.
    pub fn snapshot(&self) -> Snapshot {
        let shared = &self.shared;
        // First: it counts what sessions have to say of faults.
        let quarantine = self.quarantined();
        let settings = self.settings();
        let (readings, _) = shared.readings.look(&shared.pool, shared.probed.devices.blob());
        let sessions = sessions(shared);
        Snapshot {
            settings,
            stopped: shared.is_stopped(),
            suspended: self.suspended(),
            quarantine,
            devices: devices(shared, &settings),
            sessions,
            totals: self.totals(),
            readings,
        }
    }
}

fn devices(shared: &Shared, settings: &Settings) -> Vec<DeviceSnapshot> {
    let known = &shared.probed.devices;
    let memory = known.memory(&shared.page, settings.vram_bytes);
    let named = known.names().into_iter().zip(memory);
    named
        .map(|((name, uuid), memory)| DeviceSnapshot {
            name,
            uuid,
            total_bytes: memory.total,
            used_bytes: memory.used,
        })
        .collect()
}

fn sessions(shared: &Shared) -> Vec<SessionSnapshot> {
    let devices = shared.probed.devices.names().len();
    let mut sessions: Vec<_> = {
        let table = shared.table();
        table
            .open
            .iter()
            .filter_map(|(slot, entry)| session(*slot, &entry.control, devices, &shared.readings))
            .collect()
    };
    sessions.sort_by_key(|session| session.session);
    sessions
}

fn session(slot: u32, control: &Control, devices: usize, readings: &Reader) -> Option<SessionSnapshot> {
    let (worker, (opened, guest_pid)) = (control.worker.get()?, control.opened.get()?);
    let mut totals = Totals::default();
    totals.add_live(control);
    let bytes = worker.counters().device_bytes(devices);
    Some(SessionSnapshot {
        session: slot,
        guest_pid: *guest_pid,
        worker_pid: worker.pid().as_raw_nonzero().get(),
        host_bytes: readings.process(worker.pid().as_raw_nonzero().get().unsigned_abs()),
        age: opened.elapsed(),
        faulted: control.faulted.load(Ordering::Relaxed),
        device_bytes: bytes.into_iter().map(|bytes| (bytes != UNKNOWN_BYTES).then_some(bytes)).collect(),
        totals,
    })
}
