//! The process: its session, what it knows of the devices, what it has alive.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use cuda_api::info::{DeviceInfo, Link, VmInfo};
use cuda_api::types::{CUcontext, attribute};
use cuda_api::{CUresult, CuResult};
use pci_layout::event::{DEATH_SHUTDOWN, DEATH_TIMEOUT};
use pci_layout::regs;
use transport::{ControlError, Device, Kind, OpenError, OpenParams, Session, SessionState};

use crate::context::Primary;
use crate::host_memory::PinnedWindow;
use crate::objects::Objects;
use crate::ranges::Ranges;
use crate::reserve::Reservations;

/// Everything that the process shares.
pub struct Process {
    /// The session.
    pub session: Session,
    /// The devices, as CUDA_VISIBLE_DEVICES leaves them.
    pub info: VmInfo,
    /// The host's ordinal of each device.
    pub host_ordinals: Vec<i32>,
    /// Live handles.
    pub objects: Objects,
    /// Live addresses.
    pub ranges: Ranges,
    /// Device addresses that are reserved in this process.
    pub reservations: Reservations,
    /// Where pinned memory goes.
    pub pinned: Mutex<PinnedWindow>,
    /// The devices' primary contexts.
    pub primaries: Vec<Primary>,
    /// VGPU_STRICT=1: every call waits.
    pub strict: bool,
}

static PROCESS: OnceLock<Process> = OnceLock::new();
static OPENING: Mutex<()> = Mutex::new(());

/// This process was forked from one that had called cuInit.
pub fn is_forked_child() -> bool {
    transport::is_forked_child()
}

/// The process, once cuInit has succeeded.
///
/// # Errors
/// CUDA_ERROR_NOT_INITIALIZED before that, and in a forked child.
#[inline]
pub fn initialised() -> CuResult<&'static Process> {
    match PROCESS.get() {
        Some(process) if !is_forked_child() => Ok(process),
        _ => Err(CUresult::NOT_INITIALIZED),
    }
}

/// Opens the session; the second time it finds it open.
///
/// # Errors
/// What cuInit answers.
pub fn open() -> CuResult<&'static Process> {
    if is_forked_child() {
        return Err(CUresult::NOT_INITIALIZED);
    }
    let _opening = crate::objects::lock(&OPENING);
    if let Some(process) = PROCESS.get() {
        return Ok(process);
    }
    match connect() {
        Ok(process) => {
            // SAFETY: a function of this library, which is never unloaded (see build.rs). Where there is no room for it, a
            // session's death is answered as at any other time.
            let _ = unsafe { libc::atexit(ending) };
            Ok(PROCESS.get_or_init(|| process))
        }
        Err(Failure(result, why)) => {
            crate::log::say(|| format!("cuInit: {why} ({result})"));
            Err(result)
        }
    }
}

/// Why cuInit failed: what the caller sees and what the log says.
struct Failure(CUresult, String);

fn open_failure(error: &OpenError) -> Failure {
    let result = match error {
        OpenError::NotAnswering(_) | OpenError::Unavailable { .. } => CUresult::SYSTEM_NOT_READY,
        OpenError::Refused { cuda_result, .. } if *cuda_result != 0 => CUresult(*cuda_result),
        OpenError::Refused { error, .. } if *error == regs::ERROR_QUARANTINED => {
            let why = "this VM is quarantined: the host gives it no GPU until that time is over or its administrator ends it";
            return Failure(CUresult::NOT_PERMITTED, why.into());
        }
        OpenError::Refused { .. } => CUresult::SYSTEM_NOT_READY,
        OpenError::AbiMismatch { .. } | OpenError::FingerprintMismatch => CUresult::SYSTEM_DRIVER_MISMATCH,
        OpenError::ForkedChild => CUresult::NOT_INITIALIZED,
        OpenError::Protocol(_) | OpenError::System { .. } => CUresult::UNKNOWN,
        _ => CUresult::NO_DEVICE,
    };
    Failure(result, error.to_string())
}

fn connect() -> Result<Process, Failure> {
    let device = Device::open().map_err(|e| open_failure(&e))?;
    let blob = device.info().map_err(|e| open_failure(&e))?;
    // The blob is read where its words are aligned.
    let mut words = vec![0u64; blob.len().div_ceil(8)];
    let bytes = zerocopy::IntoBytes::as_mut_bytes(words.as_mut_slice());
    bytes[..blob.len()].copy_from_slice(&blob);
    let mut info = VmInfo::decode(&bytes[..blob.len()])
        .map_err(|e| Failure(CUresult::SYSTEM_DRIVER_MISMATCH, format!("device information: {e}")))?;
    if let Some(at) = transport::pci_function() {
        info.place_at(at.domain.into(), at.bus.into(), at.device.into());
    }
    let order = device_order(std::env::var_os(DEVICE_ORDER), &info.devices);
    let visible = visible_devices(std::env::var_os(VISIBLE_DEVICES), &info.devices, &order);
    info.devices = visible.iter().map(|i| seen(&info.devices[*i], &visible)).collect();
    if info.devices.is_empty() {
        return Err(Failure(CUresult::NO_DEVICE, "no device is visible".into()));
    }
    let kind = device.kind();
    if kind == Kind::Bar {
        crate::log::say(|| {
            "no /dev/vgpu: the PCI function is used without its driver, which is slower, and keeps this VM's programs not apart".into()
        });
    }
    if kind != Kind::Vm {
        // Foreign memory cannot be shared with the worker without the kernel module.
        for d in &mut info.devices {
            if let Some(value) = d.attributes.get_mut(attribute::HOST_REGISTER_SUPPORTED as usize) {
                *value = Ok(0);
            }
        }
    }
    let session = device
        .open_session(&OpenParams { fingerprint: cuda_api::fingerprint(), env: &environment() })
        .map_err(|e| open_failure(&e))?;
    let objects = Objects::default();
    let primaries = (0..info.devices.len() as i32)
        .map(|device| Primary::new(&objects, device))
        .collect::<CuResult<Vec<_>>>()
        .map_err(|e| Failure(e, "too many devices".into()))?;
    Ok(Process {
        session,
        host_ordinals: visible.iter().map(|i| *i as i32).collect(),
        info,
        objects,
        ranges: Ranges::default(),
        reservations: Reservations::default(),
        pinned: Mutex::new(PinnedWindow::default()),
        primaries,
        strict: std::env::var_os("VGPU_STRICT").is_some_and(|v| v == "1"),
    })
}

/// A device as it is known where these devices are seen, in this order.
fn seen(device: &DeviceInfo, visible: &[usize]) -> DeviceInfo {
    let link = |i: &usize| device.links.get(*i).cloned().unwrap_or(Link::NONE);
    DeviceInfo { links: visible.iter().map(link).collect(), ..device.clone() }
}

/// What a program says about the devices it wants to see, and in which order.
const VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";
const DEVICE_ORDER: &str = "CUDA_DEVICE_ORDER";

/// The environment that concerns the driver, as it is now: programs set it after they have started. The worker takes an
/// allowlist of it. Which devices there are is settled here: the worker keeps the list that this process was told of, so that a
/// device's number means the same on both sides.
fn environment() -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in std::env::vars_os() {
        let entry = [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat();
        if name.as_bytes().starts_with(b"CUDA_")
            && name != VISIBLE_DEVICES
            && name != DEVICE_ORDER
            && block.len() + entry.len() <= pci_layout::control::ENV_BYTES_MAX as usize
        {
            block.extend_from_slice(&entry);
        }
    }
    block
}

/// The devices as CUDA_DEVICE_ORDER wants them: the host's order, or by PCI address.
fn device_order(setting: Option<OsString>, devices: &[DeviceInfo]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..devices.len()).collect();
    if setting.is_some_and(|v| v == "PCI_BUS_ID") {
        order.sort_by_key(|i| {
            [attribute::PCI_DOMAIN_ID, attribute::PCI_BUS_ID, attribute::PCI_DEVICE_ID]
                .map(|a| devices[*i].attribute(a).unwrap_or(i32::MAX))
        });
    }
    order
}

/// Which devices CUDA_VISIBLE_DEVICES leaves of those in `order`: indices or UUID prefixes, up to the first that names nothing (CUDA C
/// Programming Guide, "CUDA Environment Variables").
fn visible_devices(setting: Option<OsString>, devices: &[DeviceInfo], order: &[usize]) -> Vec<usize> {
    let Some(setting) = setting else { return order.to_vec() };
    let mut visible = Vec::new();
    for word in setting.to_string_lossy().split(',') {
        let word = word.trim();
        let found = match word.parse::<usize>() {
            Ok(index) => order.get(index).copied(),
            Err(_) if word.starts_with("GPU-") => {
                let wanted = word.to_ascii_lowercase().replace("gpu-", "GPU-");
                let mut named =
                    order.iter().copied().filter(|i| uuid_text(&devices[*i].uuid).starts_with(&wanted));
                // A prefix that several devices have names none.
                named.next().filter(|_| named.next().is_none())
            }
            Err(_) => None,
        };
        match found {
            Some(index) if !visible.contains(&index) => visible.push(index),
            _ => break,
        }
    }
    visible
}

/// A UUID as text: `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|b| format!("{b:02x}")).collect();
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The process is ending: `exit` has come to what was there before cuInit.
static ENDING: AtomicBool = AtomicBool::new(false);

extern "C" fn ending() {
    ENDING.store(true, Ordering::Relaxed);
}

/// What a dead session answers. While the process ends, that is no news to its libraries, whose last calls release what is gone
/// already: they know this answer and say nothing.
#[cold]
pub fn death(reason: u32) -> CUresult {
    if ENDING.load(Ordering::Relaxed) {
        return CUresult::DEINITIALIZED;
    }
    match reason {
        DEATH_SHUTDOWN => CUresult::SYSTEM_NOT_READY,
        DEATH_TIMEOUT => CUresult::LAUNCH_TIMEOUT,
        _ => CUresult::UNKNOWN,
    }
}

/// What a refused control request answers.
pub fn control_failure(error: &ControlError) -> CUresult {
    match error {
        ControlError::Refused { error, cuda_result } => match *error {
            regs::ERROR_CUDA => CUresult(*cuda_result),
            regs::ERROR_QUEUE_FULL | regs::ERROR_TOO_LARGE => CUresult::OUT_OF_MEMORY,
            regs::ERROR_UNSUPPORTED => CUresult::NOT_SUPPORTED,
            _ => CUresult::INVALID_VALUE,
        },
        ControlError::Dead(reason) => death(*reason),
        ControlError::ForkedChild => CUresult::NOT_INITIALIZED,
        ControlError::NotShareable => CUresult::NOT_SUPPORTED,
        ControlError::Exhausted => CUresult::OUT_OF_MEMORY,
        ControlError::Timeout => CUresult::SYSTEM_NOT_READY,
        ControlError::Protocol(_) => CUresult::UNKNOWN,
        ControlError::System { .. } => CUresult::OPERATING_SYSTEM,
    }
}

impl Process {
    /// The session serves and no kernel has faulted.
    ///
    /// # Errors
    /// The sticky error, or what a dead session answers.
    #[inline]
    pub fn alive(&self) -> CuResult<()> {
        match self.session.state() {
            SessionState::Live => Ok(()),
            SessionState::Sticky(result) => Err(self.after_fault(result)),
            SessionState::Dead(reason) => Err(death(reason)),
            SessionState::Opening => Err(CUresult::SYSTEM_NOT_READY),
        }
    }

    /// What every call answers after a fault: its result, whichever device's context is current, until that device's primary
    /// context is reset, which ends the device's contexts for good. Inside a call that has a ring the current context is not to be
    /// had here: [`crate::gate::with_ring`] asks for it.
    #[cold]
    fn after_fault(&self, result: u32) -> CUresult {
        self.fault_in(crate::thread::current_context(), result)
    }

    #[cold]
    fn fault_in(&self, context: CUcontext, result: u32) -> CUresult {
        let reset = match self.objects.contexts.get(context.0) {
            Some(record) => usize::try_from(record.device)
                .ok()
                .and_then(|i| self.primaries.get(i))
                .is_some_and(Primary::is_reset_after_fault),
            None => self.primaries.iter().all(Primary::is_reset_after_fault),
        };
        if reset { CUresult::CONTEXT_IS_DESTROYED } else { CUresult(result) }
    }

    /// What a call with this context current answers in place of an error that may be a fault's.
    #[cold]
    pub fn failure_in(&self, context: CUcontext, error: CUresult) -> CUresult {
        match self.session.state() {
            SessionState::Sticky(result) if error == CUresult(result) => self.fault_in(context, result),
            _ => error,
        }
    }

    /// A kernel of the process has faulted.
    pub fn has_faulted(&self) -> bool {
        matches!(self.session.state(), SessionState::Sticky(_))
    }

    /// The devices that the process sees.
    pub fn devices(&self) -> &[DeviceInfo] {
        &self.info.devices
    }

    /// A device by ordinal.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_DEVICE.
    pub fn device(&self, ordinal: i32) -> CuResult<&DeviceInfo> {
        usize::try_from(ordinal).ok().and_then(|i| self.info.devices.get(i)).ok_or(CUresult::INVALID_DEVICE)
    }

    /// What a device can do with another one's memory.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_DEVICE.
    pub fn link(&self, from: i32, to: i32) -> CuResult<&Link> {
        self.device(to)?;
        let links = &self.device(from)?.links;
        Ok(usize::try_from(to).ok().and_then(|i| links.get(i)).unwrap_or(&Link::NONE))
    }

    /// The host's ordinal of a device.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_DEVICE.
    pub fn host_ordinal(&self, ordinal: i32) -> CuResult<i32> {
        usize::try_from(ordinal)
            .ok()
            .and_then(|i| self.host_ordinals.get(i))
            .copied()
            .ok_or(CUresult::INVALID_DEVICE)
    }

    /// The ordinal by which this process sees a device of the host's.
    pub fn guest_ordinal(&self, host: i32) -> Option<i32> {
        self.host_ordinals.iter().position(|ordinal| *ordinal == host).and_then(|at| i32::try_from(at).ok())
    }

    /// The handle of a device's primary context, without retaining it.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_DEVICE.
    pub fn primary_context(&self, ordinal: i32) -> CuResult<CUcontext> {
        usize::try_from(ordinal)
            .ok()
            .and_then(|i| self.primaries.get(i))
            .map(|p| p.handle)
            .ok_or(CUresult::INVALID_DEVICE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_devices_as_cuda_reads_them() {
        let device = |n: u8| DeviceInfo {
            name: String::new(),
            uuid: [n; 16],
            total_memory_bytes: 0,
            attributes: vec![],
            links: vec![],
        };
        let all = [device(1), device(2), device(0xab)];
        let see = |s: Option<&str>| visible_devices(s.map(OsString::from), &all, &[0, 1, 2]);
        assert_eq!(see(None), [0, 1, 2]);
        assert_eq!(see(Some("")), [] as [usize; 0]);
        assert_eq!(see(Some("-1")), [] as [usize; 0]);
        assert_eq!(see(Some("2,0")), [2, 0]);
        assert_eq!(see(Some("1,7,0")), [1]);
        assert_eq!(see(Some("1,1")), [1]);
        assert_eq!(see(Some("GPU-abababab")), [2]);
        assert_eq!(see(Some("GPU-ff")), [] as [usize; 0]);
        assert_eq!(see(Some("GPU-0")), [] as [usize; 0], "two begin so");
        assert_eq!(visible_devices(Some("0,GPU-02".into()), &all, &[2, 1, 0]), [2, 1]);
    }

    #[test]
    fn links_follow_the_devices_that_are_seen() {
        let link = |rank: i32| Link { attributes: [Ok(rank); 5], ..Link::NONE };
        let device = DeviceInfo {
            name: String::new(),
            uuid: [0; 16],
            total_memory_bytes: 0,
            attributes: vec![],
            links: vec![link(0), link(1), link(2)],
        };
        let ranks = |visible: &[usize]| -> Vec<i32> {
            seen(&device, visible).links.iter().map(|l| l.attributes[0].unwrap()).collect()
        };
        assert_eq!(ranks(&[2, 0]), [2, 0]);
        assert_eq!(ranks(&[1]), [1]);
    }

    #[test]
    fn devices_can_be_ordered_by_pci_address() {
        let device = |domain: i32, bus: i32| {
            let mut attributes = vec![Err(CUresult::INVALID_VALUE); 60];
            attributes[attribute::PCI_DOMAIN_ID as usize] = Ok(domain);
            attributes[attribute::PCI_BUS_ID as usize] = Ok(bus);
            attributes[attribute::PCI_DEVICE_ID as usize] = Ok(0);
            DeviceInfo {
                name: String::new(),
                uuid: [0; 16],
                total_memory_bytes: 0,
                attributes,
                links: vec![],
            }
        };
        let all = [device(0, 9), device(1, 1), device(0, 2)];
        assert_eq!(device_order(None, &all), [0, 1, 2]);
        assert_eq!(device_order(Some("FASTEST_FIRST".into()), &all), [0, 1, 2]);
        assert_eq!(device_order(Some("PCI_BUS_ID".into()), &all), [2, 0, 1]);
    }
}
