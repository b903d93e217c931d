//! What is asked and answered. Times are in the units that the fields' names say, sizes in bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A question, or something to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What is there and what has been done: [`Answer::Vm`].
    Show,
    /// Changes settings, by their names, until the next [`Request::Reload`] or the daemon's end: all of them or none.
    Set {
        /// Names and values, as in the host's file.
        settings: BTreeMap<String, String>,
    },
    /// Refuses new sessions.
    Quarantine {
        /// For so long; None: until [`Request::Clear`].
        seconds: Option<f64>,
    },
    /// Ends a quarantine, and forgets the faults that have led to it.
    Clear,
    /// Reads the host's file again.
    Reload,
    /// Takes what the VM has of the GPU to host memory.
    Suspend {
        /// The VM comes back by itself, as soon as there is room for it, when this connection ends: for programs that have VMs take turns.
        #[serde(default, skip_serializing_if = "is_false")]
        while_connected: bool,
    },
    /// Brings it back.
    Resume,
}

impl Request {
    /// It may take minutes.
    pub(crate) fn is_long(&self) -> bool {
        matches!(self, Self::Suspend { .. } | Self::Resume)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(value: &bool) -> bool {
    !value
}

/// What a daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The VM.
    Vm(Box<VmReport>),
    /// It was done.
    Done {
        /// What was done, for people: a line each.
        lines: Vec<String>,
    },
    /// It was not done, and nothing was changed.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

/// A length of time in microseconds.
pub type Micros = u64;

/// A VM as its daemon sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmReport {
    /// Version of the messages: [`crate::VERSION`].
    pub version: u32,
    /// Number of the VM.
    pub vm: u32,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its pool, a letter.
    pub pool: char,
    /// Where it is attached: a socket's path, or a descriptor.
    pub attachment: String,
    /// The socket that QEMU connects to, where it has a path.
    #[serde(default)]
    pub socket: Option<String>,
    /// The daemon's process.
    pub daemon_pid: u32,
    /// The daemon's release.
    pub daemon_release: String,
    /// For how long it has served.
    pub uptime_us: Micros,
    /// Its settings by name, as the host's file has them.
    pub settings: BTreeMap<String, String>,
    /// The VM is paused by its manager: no call is carried out.
    pub paused: bool,
    /// It is suspended.
    pub suspended: Option<SuspendReport>,
    /// It is refused new sessions.
    pub quarantine: Option<QuarantineReport>,
    /// Its devices, by ordinal.
    pub devices: Vec<DeviceReport>,
    /// Its processes that have a session.
    pub processes: Vec<ProcessReport>,
    /// What all of them have done, those that are over included.
    pub work: Work,
    /// What came through the device.
    pub counters: Counters,
}

/// A suspend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SuspendReport {
    /// Since then, in seconds since 1970.
    pub since_s: u64,
    /// Sessions that were at work.
    pub sessions: u32,
    /// Device memory that was moved to host memory.
    pub moved_bytes: u64,
}

/// A quarantine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuarantineReport {
    /// Since then, in seconds since 1970.
    pub since_s: u64,
    /// Until then; None: until it is cleared.
    pub until_s: Option<u64>,
    /// Faults that have led to it.
    pub faults: u32,
    /// It was an administrator's wish.
    pub by_hand: bool,
}

/// A device of a VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// What it is called.
    pub name: String,
    /// `GPU-…`.
    pub uuid: String,
    /// All memory that the VM may use there.
    pub total_bytes: u64,
    /// What its processes have allocated there.
    pub used_bytes: u64,
    /// What the host reads of the whole device, whoever uses it; None where nobody reads it.
    pub reading: Option<ReadingReport>,
}

/// What the host's NVML says of a device. None: it does not say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReadingReport {
    /// How long ago it was read.
    pub age_ms: u64,
    /// Percent of the time for which kernels ran.
    pub utilization_percent: Option<u64>,
    /// Percent of the time for which memory was read or written.
    pub memory_utilization_percent: Option<u64>,
    /// Memory that anybody uses.
    pub memory_used_bytes: Option<u64>,
    /// All memory.
    pub memory_total_bytes: Option<u64>,
    /// In degrees Celsius.
    pub temperature_c: Option<u64>,
    /// In milliwatts.
    pub power_mw: Option<u64>,
}

/// A process of the guest that has a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// Slot of the session.
    pub session: u32,
    /// Process id in the guest, by its own word.
    pub guest_pid: u32,
    /// Its worker on this host.
    pub worker_pid: i32,
    /// Since it was opened.
    pub age_us: Micros,
    /// Its calls answer with an error, since a fault.
    pub faulted: bool,
    /// What it has allocated on each device, by ordinal; None where that is not known.
    pub device_bytes: Vec<Option<u64>>,
    /// What the host's NVML says that it has of each device: that, and what the driver needs for its contexts and code. None, or no element
    /// at all, where that is not known.
    #[serde(default)]
    pub host_bytes: Vec<Option<u64>>,
    /// What it has done.
    pub work: Work,
}

/// A kind of call, or a direction of copies, with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// Its name.
    pub kind: String,
    /// Calls, or bytes.
    pub count: u64,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// CUDA calls carried out, by kind: launch, copy, memory, wait, code, other.
    pub calls: Vec<Kind>,
    /// Bytes copied, by direction: up, down (pageable host memory), between (what the worker reaches by itself).
    pub copied_bytes: Vec<Kind>,
    /// Calls whose answer somebody has waited for.
    pub replies: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Of these, such as nobody waited for.
    pub posted_errors: u64,
    /// For how long devices have had unfinished work, added up.
    pub gpu_us: Micros,
    /// For how long calls have waited for their VM's turn on a device.
    pub turn_wait_us: Micros,
    /// How many of them have waited for 0, 2, 4, 8 … microseconds or longer, but not for the next.
    pub turn_waits: Vec<u64>,
}

impl Work {
    /// All calls.
    pub fn all_calls(&self) -> u64 {
        self.calls.iter().fold(0, |sum, kind| sum.saturating_add(kind.count))
    }

    /// All bytes copied.
    pub fn all_copied_bytes(&self) -> u64 {
        self.copied_bytes.iter().fold(0, |sum, kind| sum.saturating_add(kind.count))
    }
}

/// What came through the device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Sessions closed.
    pub sessions_closed: u64,
    /// Sessions that died by themselves.
    pub sessions_died: u64,
    /// Sessions that have faulted.
    pub sessions_faulted: u64,
    /// Requests of the guest's driver.
    pub requests: u64,
    /// Those that were refused.
    pub request_errors: u64,
    /// Doorbells: the guest has left the virtual processor for each of them.
    pub doorbells: u64,
    /// Guest threads woken by an interrupt.
    pub wakes: u64,
    /// Resets of the device.
    pub resets: u64,
}
