//! What a device does right now, as the host's NVML reads it.

use std::ffi::{c_int, c_uint};

use cuda_api::live::number;

use crate::answer::{Answer, Return, give, version, version_of};
use crate::live;
use crate::machine::{Gpu, Machine};

/// nvmlUtilization_t.
#[repr(C)]
pub struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

/// nvmlTemperature_t, version 1.
#[repr(C)]
pub struct Temperature {
    version: c_uint,
    sensor: c_uint,
    degrees: c_int,
}

/// The one sensor that NVML names.
const SENSOR_GPU: c_uint = 0;

/// Functions that give one number.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $ty:ty = $how:ident $number:ident;)*) => { $(
        $(#[$doc])*
        pub unsafe fn $name(_: &Machine, gpu: &Gpu, to: *mut $ty) -> Answer {
            if to.is_null() {
                return Err(Return::INVALID_ARGUMENT);
            }
            // SAFETY: NVML's contract: room for a number of that type.
            unsafe { give(to, live::$how(gpu, number::$number)?) }
        }
    )* };
}

numbers! {
    /// nvmlDeviceGetPowerUsage, in milliwatts.
    power: c_uint = now POWER_MW;
    /// nvmlDeviceGetEnforcedPowerLimit, in milliwatts.
    power_enforced: c_uint = now POWER_ENFORCED_MW;
    /// nvmlDeviceGetPowerManagementLimit, in milliwatts.
    power_limit: c_uint = now POWER_LIMIT_MW;
    /// nvmlDeviceGetTotalEnergyConsumption, in millijoules.
    energy: u64 = now ENERGY_MJ;
    /// nvmlDeviceGetPerformanceState and nvmlDeviceGetPowerState.
    performance_state: c_uint = now PERFORMANCE_STATE;
    /// nvmlDeviceGetFanSpeed, in percent.
    fan: c_uint = now FAN_PERCENT;
    /// nvmlDeviceGetPersistenceMode: the host's.
    persistence: c_uint = now PERSISTENCE;
    /// nvmlDeviceGetCurrPcieLinkGeneration: of the host's link.
    pcie_generation: c_uint = now PCIE_GENERATION;
    /// nvmlDeviceGetCurrPcieLinkWidth.
    pcie_width: c_uint = now PCIE_WIDTH;
    /// nvmlDeviceGetMaxPcieLinkGeneration.
    pcie_generation_max: c_uint = fixed PCIE_GENERATION_MAX;
    /// nvmlDeviceGetMaxPcieLinkWidth.
    pcie_width_max: c_uint = fixed PCIE_WIDTH_MAX;
}

/// nvmlDeviceGetUtilizationRates.
pub unsafe fn utilization(_: &Machine, gpu: &Gpu, to: *mut Utilization) -> Answer {
    if to.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    let live = live::ask_fresh()?;
    let percent = |name| {
        let number = live::number_of(live.readings.as_ref(), gpu, name).ok_or(Return::NOT_SUPPORTED)?;
        c_uint::try_from(number).map_err(|_| Return::UNKNOWN)
    };
    let told = Utilization { gpu: percent(number::GPU_PERCENT)?, memory: percent(number::MEMORY_PERCENT)? };
    // SAFETY: NVML's contract: room for the structure.
    unsafe { give(to, told) }
}

/// An engine's load in percent, and over how many microseconds.
unsafe fn engine(gpu: &Gpu, names: [u32; 2], percent: *mut c_uint, period_us: *mut c_uint) -> Answer {
    if percent.is_null() || period_us.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    let live = live::ask_fresh()?;
    let [load, over] = names.map(|name| {
        let number = live::number_of(live.readings.as_ref(), gpu, name).ok_or(Return::NOT_SUPPORTED)?;
        c_uint::try_from(number).map_err(|_| Return::UNKNOWN)
    });
    // SAFETY: NVML's contract: room for an unsigned int each.
    unsafe { give(percent, load?).and(give(period_us, over?)) }
}

/// nvmlDeviceGetEncoderUtilization.
pub unsafe fn encoder(_: &Machine, gpu: &Gpu, percent: *mut c_uint, period_us: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract is the same.
    unsafe { engine(gpu, [number::ENCODER_PERCENT, number::ENCODER_US], percent, period_us) }
}

/// nvmlDeviceGetDecoderUtilization.
pub unsafe fn decoder(_: &Machine, gpu: &Gpu, percent: *mut c_uint, period_us: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract is the same.
    unsafe { engine(gpu, [number::DECODER_PERCENT, number::DECODER_US], percent, period_us) }
}

/// nvmlDeviceGetTemperature, in degrees Celsius.
pub unsafe fn temperature(_: &Machine, gpu: &Gpu, sensor: c_uint, degrees: *mut c_uint) -> Answer {
    if sensor != SENSOR_GPU || degrees.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(degrees, live::now(gpu, number::TEMPERATURE)?) }
}

/// nvmlDeviceGetTemperatureV.
pub unsafe fn temperature_of(_: &Machine, gpu: &Gpu, to: *mut Temperature) -> Answer {
    // SAFETY: NVML's contract: a structure that begins with its version.
    let asked = unsafe { version_of(to) }?;
    if asked != version::<Temperature>(1) {
        return Err(Return::ARGUMENT_VERSION_MISMATCH);
    }
    // SAFETY: the caller said that it is a structure of this version.
    let Temperature { sensor, .. } = unsafe { to.read_unaligned() };
    if sensor != SENSOR_GPU {
        return Err(Return::INVALID_ARGUMENT);
    }
    let degrees = live::now(gpu, number::TEMPERATURE)?;
    // SAFETY: as above.
    unsafe { give(to, Temperature { version: asked, sensor, degrees }) }
}
