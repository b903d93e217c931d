//! What the host's NVML says of the VM's devices: read in a process of its own, which has no session, no memory of a guest's and no
//! context on any device. Nothing is changed: of NVML's functions only those are looked up that read.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_uint};
use std::fmt::Write as _;

use cuda_api::info::{DeviceInfo, VmInfo};
use cuda_api::live::Readings;
use cuda_api::live::number::{self, NVLINKS_MAX, NvLink, PEER_TOPOLOGY};
use libloading::os::unix::Library;

use crate::dl;

/// nvmlDevice_t.
type Handle = *mut std::ffi::c_void;
/// nvmlReturn_t; 0 is success.
type Return = c_uint;

/// Capabilities of a link (nvmlNvLinkCapability_t) that there are, and indices of nvmlDeviceGetP2PStatus.
const LINK_CAPABILITIES: u32 = 6;
const PEER_INDICES: u32 = 5;
/// The temperature's sensor.
const SENSOR_GPU: c_uint = 0;

/// nvmlMemory_v2_t.
#[repr(C)]
#[derive(Default)]
struct MemoryV2 {
    version: c_uint,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

/// Its size, and 2 in the highest byte.
const MEMORY_V2: c_uint = 40 | 2 << 24;
const _: () = assert!(size_of::<MemoryV2>() == 40);

/// nvmlProcessInfo_t.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProcessInfo {
    pid: c_uint,
    used: u64,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

const _: () = assert!(size_of::<ProcessInfo>() == 24);
/// Processes of a device that are read. Where there are more, none is: with all else they are to be no more numbers than a reading may have.
const PROCESSES_MAX: usize = 512;
/// NVML_VALUE_NOT_AVAILABLE.
const NOT_AVAILABLE: u64 = u64::MAX;

/// nvmlPciInfo_t.
#[repr(C)]
struct PciInfo {
    legacy_address: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    id: c_uint,
    subsystem: c_uint,
    address: [c_char; 32],
}

const _: () = assert!(size_of::<PciInfo>() == 68);

/// A device that is read.
struct Gpu {
    handle: Handle,
    /// What does not change while the driver is loaded.
    fixed: BTreeMap<u32, u64>,
}

/// The host's NVML, in use.
pub struct Nvml {
    library: Library,
    release: String,
    /// By ordinal; None where NVML does not know the device (a part of a divided one).
    gpus: Vec<Option<Gpu>>,
}

/// A function of the library by its name and type, called. None where there is no such function, or where it fails.
macro_rules! call {
    ($library:expr, $name:ident($($ty:ty),*), $($value:expr),*) => {{
        let name = concat!(stringify!($name), "\0");
        // SAFETY: NVML's own type of this function, by its documentation.
        match unsafe { $library.get::<unsafe extern "C" fn($($ty),*) -> Return>(name.as_bytes()) } {
            // SAFETY: handles are NVML's own, and what is written are locals of the types that it documents.
            Ok(function) => (unsafe { function($($value),*) } == 0).then_some(()),
            Err(_) => None,
        }
    }};
}

impl Nvml {
    /// Opens the host's NVML and finds the devices that a VM was told of.
    ///
    /// # Errors
    /// Why it cannot be used, in words.
    pub fn open(info: &VmInfo) -> Result<Self, String> {
        Self::with(dl::nvml().map_err(|error| error.to_string())?, info)
    }

    fn with(library: Library, info: &VmInfo) -> Result<Self, String> {
        call!(library, nvmlInit_v2(),).ok_or("nvmlInit_v2 fails")?;
        let mut release = [0; 80];
        let told = call!(library, nvmlSystemGetDriverVersion(*mut c_char, c_uint), release.as_mut_ptr(), 79);
        let release = told.map(|()| text(&release)).unwrap_or_default();
        let gpus = info.devices.iter().map(|device| find(&library, device)).collect();
        let mut nvml = Self { library, release, gpus };
        nvml.read_fixed();
        Ok(nvml)
    }

    /// Reads all that changes.
    pub fn read(&self) -> Readings {
        let devices =
            self.gpus.iter().map(|gpu| gpu.as_ref().map(|gpu| self.read_gpu(gpu)).unwrap_or_default());
        Readings { release: self.release.clone(), age_ms: 0, devices: devices.collect() }
    }

    fn read_fixed(&mut self) {
        let handles: Vec<Option<Handle>> =
            self.gpus.iter().map(|gpu| gpu.as_ref().map(|gpu| gpu.handle)).collect();
        let library = &self.library;
        for (own, gpu) in self.gpus.iter_mut().enumerate() {
            let Some(gpu) = gpu else { continue };
            for (ordinal, other) in (0u32..).zip(&handles) {
                let Some(other) = other.filter(|_| handles.get(own).is_some_and(|h| h != other)) else {
                    continue;
                };
                read_peer(library, gpu, other, ordinal);
            }
            read_card(library, gpu);
            for link in 0..NVLINKS_MAX {
                read_link(library, gpu, link);
            }
        }
    }

    fn read_gpu(&self, gpu: &Gpu) -> BTreeMap<u32, u64> {
        let mut found = gpu.fixed.clone();
        let library = &self.library;
        let handle = gpu.handle;
        let mut memory = MemoryV2 { version: MEMORY_V2, ..MemoryV2::default() };
        if call!(library, nvmlDeviceGetMemoryInfo_v2(Handle, *mut MemoryV2), handle, &raw mut memory)
            .is_some()
        {
            found.insert(number::MEMORY_TOTAL, memory.total);
            found.insert(number::MEMORY_FREE, memory.free);
            found.insert(number::MEMORY_USED, memory.used);
            found.insert(number::MEMORY_RESERVED, memory.reserved);
        }
        let mut rates = [0; 2];
        if call!(library, nvmlDeviceGetUtilizationRates(Handle, *mut [c_uint; 2]), handle, &raw mut rates)
            .is_some()
        {
            found.insert(number::GPU_PERCENT, rates[0].into());
            found.insert(number::MEMORY_PERCENT, rates[1].into());
        }
        let mut value: c_uint = 0;
        let to = &raw mut value;
        if call!(library, nvmlDeviceGetTemperature(Handle, c_uint, *mut c_uint), handle, SENSOR_GPU, to)
            .is_some()
        {
            found.insert(number::TEMPERATURE, value.into());
        }
        macro_rules! plain {
            ($($function:ident = $name:ident;)*) => { $(
                if call!(library, $function(Handle, *mut c_uint), handle, to).is_some() {
                    found.insert(number::$name, value.into());
                }
            )* };
        }
        plain! {
            nvmlDeviceGetPowerUsage = POWER_MW;
            nvmlDeviceGetEnforcedPowerLimit = POWER_ENFORCED_MW;
            nvmlDeviceGetPowerManagementLimit = POWER_LIMIT_MW;
            nvmlDeviceGetPerformanceState = PERFORMANCE_STATE;
            nvmlDeviceGetCurrPcieLinkGeneration = PCIE_GENERATION;
            nvmlDeviceGetCurrPcieLinkWidth = PCIE_WIDTH;
            nvmlDeviceGetFanSpeed = FAN_PERCENT;
            nvmlDeviceGetPersistenceMode = PERSISTENCE;
        }
        for kind in 0..4u32 {
            if call!(library, nvmlDeviceGetClockInfo(Handle, c_uint, *mut c_uint), handle, kind, to).is_some()
            {
                found.insert(number::CLOCK_MHZ.wrapping_add(kind), value.into());
            }
        }
        let mut period: c_uint = 0;
        let over = &raw mut period;
        if call!(library, nvmlDeviceGetEncoderUtilization(Handle, *mut c_uint, *mut c_uint), handle, to, over)
            .is_some()
        {
            found.insert(number::ENCODER_PERCENT, value.into());
            found.insert(number::ENCODER_US, period.into());
        }
        if call!(library, nvmlDeviceGetDecoderUtilization(Handle, *mut c_uint, *mut c_uint), handle, to, over)
            .is_some()
        {
            found.insert(number::DECODER_PERCENT, value.into());
            found.insert(number::DECODER_US, period.into());
        }
        let mut energy = 0u64;
        if call!(library, nvmlDeviceGetTotalEnergyConsumption(Handle, *mut u64), handle, &raw mut energy)
            .is_some()
        {
            found.insert(number::ENERGY_MJ, energy);
        }
        self.read_processes(handle, &mut found);
        // Links go down and come up while machines run.
        for link in 0..NVLINKS_MAX {
            if call!(library, nvmlDeviceGetNvLinkState(Handle, c_uint, *mut c_uint), handle, link, to)
                .is_some()
            {
                found.insert(number::nvlink(link, NvLink::State), value.into());
            }
        }
        found
    }
}

impl Nvml {
    /// What each process has of a device, by its number on this host.
    fn read_processes(&self, handle: Handle, found: &mut BTreeMap<u32, u64>) {
        let library = &self.library;
        let mut count = 0;
        let mut list =
            vec![ProcessInfo { pid: 0, used: 0, gpu_instance: 0, compute_instance: 0 }; PROCESSES_MAX];
        if let Ok(room) = c_uint::try_from(list.len()) {
            count = room;
        }
        let read = call!(
            library,
            nvmlDeviceGetComputeRunningProcesses_v3(Handle, *mut c_uint, *mut ProcessInfo),
            handle,
            &raw mut count,
            list.as_mut_ptr()
        );
        if read.is_none() {
            return;
        }
        let told = list.iter().take(usize::try_from(count).unwrap_or(0));
        for process in told.filter(|process| process.used != NOT_AVAILABLE) {
            found.insert(number::process(process.pid), process.used);
        }
    }
}

/// The device of the same UUID.
fn find(library: &Library, device: &DeviceInfo) -> Option<Gpu> {
    let uuid = CString::new(uuid_text(&device.uuid)).ok()?;
    let mut handle: Handle = std::ptr::null_mut();
    let to = &raw mut handle;
    call!(library, nvmlDeviceGetHandleByUUID(*const c_char, *mut Handle), uuid.as_ptr(), to)?;
    Some(Gpu { handle, fixed: BTreeMap::new() })
}

fn read_card(library: &Library, gpu: &mut Gpu) {
    let handle = gpu.handle;
    let mut value: c_uint = 0;
    let to = &raw mut value;
    macro_rules! plain {
        ($($function:ident = $name:ident;)*) => { $(
            if call!(library, $function(Handle, *mut c_uint), handle, to).is_some() {
                gpu.fixed.insert(number::$name, value.into());
            }
        )* };
    }
    plain! {
        nvmlDeviceGetBrand = BRAND;
        nvmlDeviceGetMaxPcieLinkGeneration = PCIE_GENERATION_MAX;
        nvmlDeviceGetMaxPcieLinkWidth = PCIE_WIDTH_MAX;
    }
    for kind in 0..4u32 {
        if call!(library, nvmlDeviceGetMaxClockInfo(Handle, c_uint, *mut c_uint), handle, kind, to).is_some()
        {
            gpu.fixed.insert(number::CLOCK_MAX_MHZ.wrapping_add(kind), value.into());
        }
    }
    let mut pci = NO_PCI;
    if call!(library, nvmlDeviceGetPciInfo_v3(Handle, *mut PciInfo), handle, &raw mut pci).is_some() {
        gpu.fixed.insert(number::PCI_ID, pci.id.into());
        gpu.fixed.insert(number::PCI_SUBSYSTEM, pci.subsystem.into());
    }
}

/// What is known of a device before it is asked for.
const NO_PCI: PciInfo =
    PciInfo { legacy_address: [0; 16], domain: 0, bus: 0, device: 0, id: 0, subsystem: 0, address: [0; 32] };

fn read_peer(library: &Library, gpu: &mut Gpu, other: Handle, ordinal: u32) {
    let handle = gpu.handle;
    let mut value: c_uint = 0;
    let to = &raw mut value;
    for index in 0..PEER_INDICES {
        let asked = call!(
            library,
            nvmlDeviceGetP2PStatus(Handle, Handle, c_uint, *mut c_uint),
            handle,
            other,
            index,
            to
        );
        if asked.is_some() {
            gpu.fixed.insert(number::peer(ordinal, index), value.into());
        }
    }
    if call!(library, nvmlDeviceGetTopologyCommonAncestor(Handle, Handle, *mut c_uint), handle, other, to)
        .is_some()
    {
        gpu.fixed.insert(number::peer(ordinal, PEER_TOPOLOGY), value.into());
    }
}

fn read_link(library: &Library, gpu: &mut Gpu, link: c_uint) {
    let handle = gpu.handle;
    let mut value: c_uint = 0;
    let to = &raw mut value;
    let mut capabilities = None;
    for capability in 0..LINK_CAPABILITIES {
        let asked = call!(
            library,
            nvmlDeviceGetNvLinkCapability(Handle, c_uint, c_uint, *mut c_uint),
            handle,
            link,
            capability,
            to
        );
        if asked.is_some() {
            let bit = u64::from(value != 0).wrapping_shl(capability);
            capabilities = Some(capabilities.unwrap_or(0) | bit);
        }
    }
    let Some(capabilities) = capabilities else { return };
    gpu.fixed.insert(number::nvlink(link, NvLink::Capabilities), capabilities);
    if call!(library, nvmlDeviceGetNvLinkVersion(Handle, c_uint, *mut c_uint), handle, link, to).is_some() {
        gpu.fixed.insert(number::nvlink(link, NvLink::Version), value.into());
    }
    if call!(library, nvmlDeviceGetNvLinkRemoteDeviceType(Handle, c_uint, *mut c_uint), handle, link, to)
        .is_some()
    {
        gpu.fixed.insert(number::nvlink(link, NvLink::RemoteKind), value.into());
    }
    let mut pci = NO_PCI;
    let asked = call!(
        library,
        nvmlDeviceGetNvLinkRemotePciInfo_v2(Handle, c_uint, *mut PciInfo),
        handle,
        link,
        &raw mut pci
    );
    if asked.is_some() {
        let address = u64::from(pci.domain).wrapping_shl(32) | u64::from(pci.bus & 0xff_ffff).wrapping_shl(8);
        gpu.fixed.insert(number::nvlink(link, NvLink::Remote), address | u64::from(pci.device & 0xff));
    }
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::from("GPU");
    for (i, byte) in uuid.iter().enumerate() {
        let separator = if [0, 4, 6, 8, 10].contains(&i) { "-" } else { "" };
        // Writing to a String does not fail.
        let _ = write!(text, "{separator}{byte:02x}");
    }
    text
}

fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().take_while(|c| **c != 0).map(|c| c.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
