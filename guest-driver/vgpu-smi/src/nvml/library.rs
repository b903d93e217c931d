//! NVML as it is found under its ordinary name: `libnvidia-ml.so.1` by the dynamic loader, ours or NVIDIA's. Every function is looked up
//! when it is asked; one that an older library lacks is FUNCTION_NOT_FOUND.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};

use libloading::Library;

use super::{Answer, Clock, Code, Memory, Number, Nvml, Process, SystemText, Text};

/// The name by which every program loads it.
pub const NAME: &str = "libnvidia-ml.so.1";

/// nvmlDevice_t.
type Handle = *mut c_void;

/// Longest text that is asked for, in bytes.
const TEXT_BYTES: c_uint = 256;
/// A list of processes that grows while it is asked for is asked for so often.
const LIST_TRIES: u32 = 8;
/// The one sensor that NVML names.
const SENSOR_GPU: c_uint = 0;

/// nvmlPciInfo_t.
#[repr(C)]
struct PciInfo {
    legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    device_id: c_uint,
    subsystem_id: c_uint,
    address: [c_char; 32],
}

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

/// nvmlMemory_t and nvmlBAR1Memory_t: total, free and used; the latter has free before used as well.
type Three = [u64; 3];

/// nvmlProcessInfo_v2_t.
#[repr(C)]
#[derive(Clone, Default)]
struct ProcessV2 {
    pid: c_uint,
    bytes: u64,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// nvmlFieldValue_t; the value is a union, of which an unsigned int lies at its beginning.
#[repr(C)]
#[derive(Default)]
struct FieldValue {
    field: c_uint,
    scope: c_uint,
    timestamp_us: i64,
    latency_us: i64,
    kind: c_uint,
    result: c_uint,
    value: [c_uint; 2],
}

/// The field of the memory's temperature.
const FIELD_MEMORY_TEMPERATURE: c_uint = 82;

/// NVML's word for a number of bytes that it does not know.
const UNKNOWN_BYTES: u64 = u64::MAX;

/// NVML, started; it is ended when this is dropped.
pub struct Loaded {
    library: Library,
}

/// The library is there, or why not.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The dynamic loader's words.
    #[error("{0}")]
    NotFound(String),
    /// What nvmlInit answered.
    #[error("{0}")]
    Init(Code),
}

/// Turns a result into an answer.
fn answer(result: c_uint) -> Answer<()> {
    if result == 0 { Ok(()) } else { Err(Code(result)) }
}

/// A text that NVML has written, up to its NUL.
fn text_of(bytes: &[u8]) -> Answer<String> {
    let text = CStr::from_bytes_until_nul(bytes).map_err(|_| Code::UNKNOWN)?;
    Ok(text.to_string_lossy().into_owned())
}

impl Loaded {
    /// Loads and starts it.
    ///
    /// # Errors
    /// Where there is none, or it does not start.
    pub fn load() -> Result<Self, LoadError> {
        // SAFETY: a library of the system, loaded as every program that uses NVML loads it.
        let library = unsafe { Library::new(OsStr::new(NAME)) }
            .map_err(|e| LoadError::NotFound(crate::doctor::origin::words_of(&e)))?;
        let this = Self { library };
        this.init().map_err(LoadError::Init)?;
        Ok(this)
    }

    /// A function by its name.
    ///
    /// # Safety
    /// `F` is the function's type in NVML's header.
    unsafe fn function<F: Copy>(&self, name: &str) -> Answer<F> {
        // SAFETY: by this function's contract.
        unsafe { self.library.get::<F>(name) }.map(|symbol| *symbol).map_err(|_| Code::FUNCTION_NOT_FOUND)
    }

    fn init(&self) -> Answer<()> {
        // SAFETY: the type of nvmlInit_v2 in NVML's header; no arguments.
        answer(unsafe { self.function::<unsafe extern "C" fn() -> c_uint>("nvmlInit_v2")?() })
    }

    /// Where the loader has found a function's library.
    pub fn path(&self) -> Option<String> {
        // SAFETY: only its address is taken.
        let address = unsafe { self.function::<*const c_void>("nvmlInit_v2") }.ok()?;
        crate::doctor::origin::file_of(address)
    }

    fn handle(&self, gpu: u32) -> Answer<Handle> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the type in NVML's header; room for a handle.
        answer(unsafe {
            self.function::<unsafe extern "C" fn(c_uint, *mut Handle) -> c_uint>(
                "nvmlDeviceGetHandleByIndex_v2",
            )?(gpu, &raw mut handle)
        })?;
        Ok(handle)
    }

    /// What `name(device, &mut value)` writes.
    ///
    /// # Safety
    /// That is the function's shape in NVML's header.
    unsafe fn value<T: Default>(&self, name: &str, gpu: u32) -> Answer<T> {
        // SAFETY: whatever the function is given it writes.
        unsafe { self.filled(name, gpu, T::default()) }
    }

    /// The same with a structure that says its version.
    ///
    /// # Safety
    /// As for [`Loaded::value`].
    unsafe fn filled<T>(&self, name: &str, gpu: u32, mut value: T) -> Answer<T> {
        let handle = self.handle(gpu)?;
        // SAFETY: by this function's contract.
        answer(unsafe {
            self.function::<unsafe extern "C" fn(Handle, *mut T) -> c_uint>(name)?(handle, &raw mut value)
        })?;
        Ok(value)
    }

    /// What `name(device, which, &mut value)` writes.
    ///
    /// # Safety
    /// As for [`Loaded::value`].
    unsafe fn of(&self, name: &str, gpu: u32, which: c_uint) -> Answer<u64> {
        let (handle, mut value) = (self.handle(gpu)?, 0);
        // SAFETY: by this function's contract.
        answer(unsafe {
            self.function::<unsafe extern "C" fn(Handle, c_uint, *mut c_uint) -> c_uint>(name)?(
                handle,
                which,
                &raw mut value,
            )
        })?;
        Ok(value.into())
    }

    /// What `name(device, &mut first, &mut second)` writes.
    ///
    /// # Safety
    /// As for [`Loaded::value`].
    unsafe fn pair(&self, name: &str, gpu: u32) -> Answer<[u64; 2]> {
        let (handle, mut first, mut second) = (self.handle(gpu)?, 0, 0);
        // SAFETY: by this function's contract.
        answer(unsafe {
            self.function::<unsafe extern "C" fn(Handle, *mut c_uint, *mut c_uint) -> c_uint>(name)?(
                handle,
                &raw mut first,
                &raw mut second,
            )
        })?;
        Ok([first.into(), second.into()])
    }

    fn pci(&self, gpu: u32) -> Answer<PciInfo> {
        // SAFETY: integers and texts: zeros are a value.
        let empty: PciInfo = unsafe { std::mem::zeroed() };
        // SAFETY: the function's shape in NVML's header.
        unsafe { self.filled("nvmlDeviceGetPciInfo_v3", gpu, empty) }
    }

    fn errors(&self, gpu: u32, kind: c_uint, since: c_uint) -> Answer<u64> {
        type Ask = unsafe extern "C" fn(Handle, c_uint, c_uint, *mut u64) -> c_uint;
        let (handle, mut count) = (self.handle(gpu)?, 0);
        // SAFETY: the type in NVML's header; room for a number.
        answer(unsafe {
            self.function::<Ask>("nvmlDeviceGetTotalEccErrors")?(handle, kind, since, &raw mut count)
        })?;
        Ok(count)
    }

    fn field(&self, gpu: u32, field: c_uint) -> Answer<u64> {
        type Ask = unsafe extern "C" fn(Handle, c_int, *mut FieldValue) -> c_uint;
        let (handle, mut value) = (self.handle(gpu)?, FieldValue { field, ..FieldValue::default() });
        // SAFETY: the type in NVML's header; room for one value.
        answer(unsafe { self.function::<Ask>("nvmlDeviceGetFieldValues")?(handle, 1, &raw mut value) })?;
        answer(value.result)?;
        Ok(value.value[0].into())
    }

    /// A plain unsigned int of a device.
    fn plain(&self, name: &str, gpu: u32) -> Answer<u64> {
        // SAFETY: `number` names only functions of that shape.
        unsafe { self.value::<c_uint>(name, gpu) }.map(u64::from)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: the type in NVML's header; it was started, once.
        let _ = unsafe { self.function::<unsafe extern "C" fn() -> c_uint>("nvmlShutdown").map(|end| end()) };
    }
}

impl Nvml for Loaded {
    fn system(&self, what: SystemText) -> Answer<String> {
        let name = match what {
            SystemText::DriverVersion => "nvmlSystemGetDriverVersion",
            SystemText::NvmlVersion => "nvmlSystemGetNVMLVersion",
        };
        let mut bytes = [0u8; TEXT_BYTES as usize];
        // SAFETY: the type in NVML's header; room for so many bytes.
        answer(unsafe {
            self.function::<unsafe extern "C" fn(*mut c_char, c_uint) -> c_uint>(name)?(
                bytes.as_mut_ptr().cast(),
                TEXT_BYTES,
            )
        })?;
        text_of(&bytes)
    }

    fn cuda_version(&self) -> Answer<u32> {
        let mut version: c_int = 0;
        // SAFETY: the type in NVML's header; room for an int.
        answer(unsafe {
            self.function::<unsafe extern "C" fn(*mut c_int) -> c_uint>("nvmlSystemGetCudaDriverVersion_v2")?(
                &raw mut version,
            )
        })?;
        u32::try_from(version).map_err(|_| Code::UNKNOWN)
    }

    fn count(&self) -> Answer<u32> {
        let mut count = 0;
        // SAFETY: the type in NVML's header; room for an unsigned int.
        answer(unsafe {
            self.function::<unsafe extern "C" fn(*mut c_uint) -> c_uint>("nvmlDeviceGetCount_v2")?(
                &raw mut count,
            )
        })?;
        Ok(count)
    }

    fn number(&self, gpu: u32, what: Number) -> Answer<u64> {
        let clock = |name, clock: Clock| {
            // SAFETY: NVML's functions of clocks take a clock and give an unsigned int.
            unsafe { self.of(name, gpu, clock as c_uint) }
        };
        // SAFETY: these functions have the shapes that they are asked by, in NVML's header.
        unsafe {
            match what {
                Number::TemperatureC => self.of("nvmlDeviceGetTemperature", gpu, SENSOR_GPU),
                Number::MemoryTemperatureC => self.field(gpu, FIELD_MEMORY_TEMPERATURE),
                Number::FanPercent => self.plain("nvmlDeviceGetFanSpeed", gpu),
                Number::PowerMw => self.plain("nvmlDeviceGetPowerUsage", gpu),
                Number::PowerLimitMw => self.plain("nvmlDeviceGetPowerManagementLimit", gpu),
                Number::PowerEnforcedMw => self.plain("nvmlDeviceGetEnforcedPowerLimit", gpu),
                Number::PowerDefaultMw => self.plain("nvmlDeviceGetPowerManagementDefaultLimit", gpu),
                Number::PowerMinMw => Ok(self.pair("nvmlDeviceGetPowerManagementLimitConstraints", gpu)?[0]),
                Number::PowerMaxMw => Ok(self.pair("nvmlDeviceGetPowerManagementLimitConstraints", gpu)?[1]),
                Number::PerformanceState => self.plain("nvmlDeviceGetPerformanceState", gpu),
                Number::GpuPercent => {
                    Ok(self.value::<[c_uint; 2]>("nvmlDeviceGetUtilizationRates", gpu)?[0].into())
                }
                Number::MemoryPercent => {
                    Ok(self.value::<[c_uint; 2]>("nvmlDeviceGetUtilizationRates", gpu)?[1].into())
                }
                Number::EncoderPercent => Ok(self.pair("nvmlDeviceGetEncoderUtilization", gpu)?[0]),
                Number::DecoderPercent => Ok(self.pair("nvmlDeviceGetDecoderUtilization", gpu)?[0]),
                Number::ClockMhz(which) => clock("nvmlDeviceGetClockInfo", which),
                Number::MaxClockMhz(which) => clock("nvmlDeviceGetMaxClockInfo", which),
                Number::ApplicationClockMhz(which) => clock("nvmlDeviceGetApplicationsClock", which),
                Number::DefaultApplicationClockMhz(which) => {
                    clock("nvmlDeviceGetDefaultApplicationsClock", which)
                }
                Number::EventReasons => self.value("nvmlDeviceGetCurrentClocksThrottleReasons", gpu),
                Number::PcieGeneration => self.plain("nvmlDeviceGetCurrPcieLinkGeneration", gpu),
                Number::PcieWidth => self.plain("nvmlDeviceGetCurrPcieLinkWidth", gpu),
                Number::PcieGenerationMax => self.plain("nvmlDeviceGetMaxPcieLinkGeneration", gpu),
                Number::PcieWidthMax => self.plain("nvmlDeviceGetMaxPcieLinkWidth", gpu),
                Number::Persistence => self.plain("nvmlDeviceGetPersistenceMode", gpu),
                Number::ComputeMode => self.plain("nvmlDeviceGetComputeMode", gpu),
                Number::EccCurrent => Ok(self.pair("nvmlDeviceGetEccMode", gpu)?[0]),
                Number::EccPending => Ok(self.pair("nvmlDeviceGetEccMode", gpu)?[1]),
                Number::EccErrors(kind, since) => self.errors(gpu, kind as c_uint, since as c_uint),
                Number::OperationMode => Ok(self.pair("nvmlDeviceGetGpuOperationMode", gpu)?[0]),
                Number::OperationModePending => Ok(self.pair("nvmlDeviceGetGpuOperationMode", gpu)?[1]),
                Number::MigCurrent => Ok(self.pair("nvmlDeviceGetMigMode", gpu)?[0]),
                Number::MigPending => Ok(self.pair("nvmlDeviceGetMigMode", gpu)?[1]),
                Number::DisplayMode => self.plain("nvmlDeviceGetDisplayMode", gpu),
                Number::DisplayActive => self.plain("nvmlDeviceGetDisplayActive", gpu),
                Number::Capability => {
                    let [major, minor] = self.pair("nvmlDeviceGetCudaComputeCapability", gpu)?;
                    Ok(major * 10 + minor)
                }
                Number::Minor => self.plain("nvmlDeviceGetMinorNumber", gpu),
                Number::PciDomain => Ok(self.pci(gpu)?.domain.into()),
                Number::PciBus => Ok(self.pci(gpu)?.bus.into()),
                Number::PciDevice => Ok(self.pci(gpu)?.device.into()),
                Number::PciId => known(self.pci(gpu)?.device_id),
                Number::PciSubsystemId => known(self.pci(gpu)?.subsystem_id),
                Number::Architecture => self.plain("nvmlDeviceGetArchitecture", gpu),
                Number::Brand => self.plain("nvmlDeviceGetBrand", gpu),
                Number::MultiGpuBoard => self.plain("nvmlDeviceGetMultiGpuBoard", gpu),
                Number::AccountingMode => self.plain("nvmlDeviceGetAccountingMode", gpu),
                Number::Bar1Total => Ok(self.value::<Three>("nvmlDeviceGetBAR1MemoryInfo", gpu)?[0]),
                Number::Bar1Free => Ok(self.value::<Three>("nvmlDeviceGetBAR1MemoryInfo", gpu)?[1]),
                Number::Bar1Used => Ok(self.value::<Three>("nvmlDeviceGetBAR1MemoryInfo", gpu)?[2]),
            }
        }
    }

    fn text(&self, gpu: u32, what: Text) -> Answer<String> {
        type Ask = unsafe extern "C" fn(Handle, *mut c_char, c_uint) -> c_uint;
        let name = match what {
            Text::BusId => {
                let bytes = self.pci(gpu)?.address.map(c_char::cast_unsigned);
                return text_of(&bytes);
            }
            Text::Name => "nvmlDeviceGetName",
            Text::Uuid => "nvmlDeviceGetUUID",
            Text::Serial => "nvmlDeviceGetSerial",
            Text::Vbios => "nvmlDeviceGetVbiosVersion",
            Text::BoardPartNumber => "nvmlDeviceGetBoardPartNumber",
            Text::InforomImage => "nvmlDeviceGetInforomImageVersion",
        };
        let (handle, mut bytes) = (self.handle(gpu)?, [0u8; TEXT_BYTES as usize]);
        // SAFETY: the type in NVML's header; room for so many bytes.
        answer(unsafe { self.function::<Ask>(name)?(handle, bytes.as_mut_ptr().cast(), TEXT_BYTES) })?;
        text_of(&bytes)
    }

    fn memory(&self, gpu: u32) -> Answer<Memory> {
        /// Of its size, version 2.
        #[allow(clippy::cast_possible_truncation, reason = "40 bytes")]
        const VERSION: c_uint = size_of::<MemoryV2>() as c_uint | 2 << 24;
        let asked = MemoryV2 { version: VERSION, ..MemoryV2::default() };
        // SAFETY: the function's shape in NVML's header, with the version that goes with the structure.
        match unsafe { self.filled("nvmlDeviceGetMemoryInfo_v2", gpu, asked) } {
            Ok(MemoryV2 { total, reserved, free, used, .. }) => Ok(Memory { total, reserved, free, used }),
            Err(Code::FUNCTION_NOT_FOUND) => {
                // SAFETY: the function's shape in NVML's header.
                let [total, free, used] = unsafe { self.value::<Three>("nvmlDeviceGetMemoryInfo", gpu) }?;
                Ok(Memory { total, reserved: 0, free, used })
            }
            Err(code) => Err(code),
        }
    }

    fn processes(&self, gpu: u32) -> Answer<Vec<Process>> {
        type Ask = unsafe extern "C" fn(Handle, *mut c_uint, *mut ProcessV2) -> c_uint;
        let handle = self.handle(gpu)?;
        // SAFETY: the type in NVML's header.
        let ask = unsafe { self.function::<Ask>("nvmlDeviceGetComputeRunningProcesses_v3") }?;
        let mut list: Vec<ProcessV2> = Vec::new();
        for _ in 0..LIST_TRIES {
            let mut count = c_uint::try_from(list.len()).map_err(|_| Code::UNKNOWN)?;
            // SAFETY: room for `count` structures.
            match answer(unsafe { ask(handle, &raw mut count, list.as_mut_ptr()) }) {
                Ok(()) => {
                    list.truncate(count as usize);
                    let bytes = |bytes| (bytes != UNKNOWN_BYTES).then_some(bytes);
                    return Ok(list.iter().map(|p| Process { pid: p.pid, bytes: bytes(p.bytes) }).collect());
                }
                // More may have come until it is asked again.
                Err(Code::INSUFFICIENT_SIZE) => list.resize(count as usize + 8, ProcessV2::default()),
                Err(code) => return Err(code),
            }
        }
        Err(Code::INSUFFICIENT_SIZE)
    }

    fn process_name(&self, pid: u32) -> Answer<String> {
        type Ask = unsafe extern "C" fn(c_uint, *mut c_char, c_uint) -> c_uint;
        const NAME_BYTES: c_uint = 4096;
        let mut bytes = vec![0u8; NAME_BYTES as usize];
        // SAFETY: the type in NVML's header; room for so many bytes.
        answer(unsafe {
            self.function::<Ask>("nvmlSystemGetProcessName")?(pid, bytes.as_mut_ptr().cast(), NAME_BYTES)
        })?;
        text_of(&bytes)
    }
}

/// An id of which 0 means that nobody knows it.
fn known(id: c_uint) -> Answer<u64> {
    if id == 0 { Err(Code::NOT_SUPPORTED) } else { Ok(id.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_layout_of_nvmls_header() {
        assert_eq!((size_of::<PciInfo>(), size_of::<MemoryV2>()), (68, 40));
        assert_eq!((size_of::<ProcessV2>(), size_of::<FieldValue>()), (24, 40));
    }

    #[test]
    fn a_text_ends_at_its_nul() {
        assert_eq!(text_of(b"H100\0\0junk").as_deref(), Ok("H100"));
        assert_eq!(text_of(b"no end"), Err(Code::UNKNOWN));
    }
}
