//! The fields of `--query-gpu` and `--query-compute-apps`: their names, units, and where they come from.

use crate::nvml::{Answer, Clock, Code, Errors, Number, Process, Since, SystemText, Text};
use crate::pass::{Gpu, Pass};
use crate::words;

/// A field.
pub struct Field {
    /// Its names; the first heads the column.
    pub names: &'static [&'static str],
    /// The unit of its numbers.
    pub unit: Option<&'static str>,
    /// For `--help-query-gpu`.
    pub help: &'static str,
    /// Its value, without the unit.
    pub read: fn(&Row<'_>) -> Answer<String>,
}

/// What a row is of: a device during a look, or a process on it.
pub struct Row<'a> {
    pub pass: &'a Pass<'a>,
    pub gpu: &'a Gpu<'a>,
    pub process: Option<Process>,
}

/// A field that this library's NVML may not tell is a field all the same: it is `[N/A]` then.
macro_rules! fields {
    ($( $help:literal $unit:expr, [$($name:literal),+] = |$row:pat_param| $read:expr; )*) => {
        &[ $( Field { names: &[$($name),+], unit: $unit, help: $help, read: |$row| $read } ),* ]
    };
}

const MIB: Option<&str> = Some("MiB");
const PERCENT: Option<&str> = Some("%");
const WATTS: Option<&str> = Some("W");
const MHZ: Option<&str> = Some("MHz");

fn plain(gpu: &Gpu<'_>, what: Number) -> Answer<String> {
    gpu.number(what).map(|value| value.to_string())
}

fn watts(gpu: &Gpu<'_>, what: Number) -> Answer<String> {
    gpu.number(what).map(words::watts)
}

fn mode(gpu: &Gpu<'_>, what: Number) -> Answer<String> {
    gpu.number(what).map(words::enabled)
}

fn hexadecimal(gpu: &Gpu<'_>, what: Number, digits: usize) -> Answer<String> {
    gpu.number(what).map(|value| format!("0x{value:0digits$X}"))
}

fn memory(gpu: &Gpu<'_>, part: fn(crate::nvml::Memory) -> u64) -> Answer<String> {
    gpu.memory().map(|memory| words::mib(part(memory)).to_string())
}

fn reason(gpu: &Gpu<'_>, bit: u64) -> Answer<String> {
    let active = |reasons: u64| if reasons & bit != 0 { "Active" } else { "Not Active" };
    gpu.number(Number::EventReasons).map(|reasons| active(reasons).to_owned())
}

fn errors(gpu: &Gpu<'_>, kind: Errors, since: Since) -> Answer<String> {
    plain(gpu, Number::EccErrors(kind, since))
}

fn time(pass: &Pass<'_>) -> String {
    pass.now.strftime("%Y/%m/%d %H:%M:%S%.3f").to_string()
}

fn capability(gpu: &Gpu<'_>) -> Answer<String> {
    gpu.number(Number::Capability).map(|value| format!("{}.{}", value / 10, value % 10))
}

fn operation(gpu: &Gpu<'_>, what: Number) -> Answer<String> {
    const MODES: [&str; 3] = ["All On", "Compute", "Low Double Precision"];
    let name = |mode: u64| usize::try_from(mode).ok().and_then(|mode| MODES.get(mode));
    gpu.number(what).map(|mode| (*name(mode).unwrap_or(&"Unknown")).to_owned())
}

fn process(row: &Row<'_>) -> Answer<Process> {
    row.process.ok_or(Code::NOT_FOUND)
}

/// The fields of a device.
pub static GPU: &[Field] = fields! {
    "When the device was asked." None, ["timestamp"] = |row| Ok(time(row.pass));
    "Release of the host's driver." None, ["driver_version"] = |row| row.pass.nvml.system(SystemText::DriverVersion);
    "How many devices there are." None, ["count"] = |row| Ok(row.pass.count.to_string());
    "Name of the device." None, ["name", "gpu_name"] = |row| row.gpu.text(Text::Name);
    "Serial number of the card." None, ["serial", "gpu_serial"] = |row| row.gpu.text(Text::Serial);
    "UUID of the device." None, ["uuid", "gpu_uuid"] = |row| row.gpu.text(Text::Uuid);
    "PCI address as domain:bus:device.function." None, ["pci.bus_id", "gpu_bus_id"] = |row| row.gpu.text(Text::BusId);
    "PCI domain." None, ["pci.domain"] = |row| hexadecimal(row.gpu, Number::PciDomain, 4);
    "PCI bus." None, ["pci.bus"] = |row| hexadecimal(row.gpu, Number::PciBus, 2);
    "Device on the PCI bus." None, ["pci.device"] = |row| hexadecimal(row.gpu, Number::PciDevice, 2);
    "PCI device and vendor id." None, ["pci.device_id"] = |row| hexadecimal(row.gpu, Number::PciId, 8);
    "PCI subsystem id." None, ["pci.sub_device_id"] = |row| hexadecimal(row.gpu, Number::PciSubsystemId, 8);
    "Generation of the PCI link now." None, ["pcie.link.gen.current", "pcie.link.gen.gpucurrent"] = |row| plain(row.gpu, Number::PcieGeneration);
    "Highest generation of the PCI link." None, ["pcie.link.gen.max", "pcie.link.gen.gpumax"] = |row| plain(row.gpu, Number::PcieGenerationMax);
    "Lanes of the PCI link now." None, ["pcie.link.width.current"] = |row| plain(row.gpu, Number::PcieWidth);
    "Most lanes of the PCI link." None, ["pcie.link.width.max"] = |row| plain(row.gpu, Number::PcieWidthMax);
    "Index of the device." None, ["index"] = |row| Ok(row.gpu.index.to_string());
    "Whether a display is connected." None, ["display_mode", "display_attached"] = |row| mode(row.gpu, Number::DisplayMode);
    "Whether the device draws on a display." None, ["display_active"] = |row| mode(row.gpu, Number::DisplayActive);
    "Whether the host's driver stays loaded." None, ["persistence_mode"] = |row| mode(row.gpu, Number::Persistence);
    "Whether the driver accounts for processes." None, ["accounting.mode"] = |row| mode(row.gpu, Number::AccountingMode);
    "Driver model of Windows." None, ["driver_model.current"] = |_| Err(Code::NOT_SUPPORTED);
    "Driver model of Windows after a restart." None, ["driver_model.pending"] = |_| Err(Code::NOT_SUPPORTED);
    "Version of the card's firmware." None, ["vbios_version"] = |row| row.gpu.text(Text::Vbios);
    "Version of the card's inforom." None, ["inforom.img", "inforom.image"] = |row| row.gpu.text(Text::InforomImage);
    "Speed of the fan." PERCENT, ["fan.speed"] = |row| plain(row.gpu, Number::FanPercent);
    "Performance state, P0 (fastest) to P15." None, ["pstate"] = |row| row.gpu.number(Number::PerformanceState).map(|p| format!("P{p}"));
    "What keeps clocks down, as bits." None, ["clocks_event_reasons.active", "clocks_throttle_reasons.active"] = |row| hexadecimal(row.gpu, Number::EventReasons, 16);
    "Clocks are down: idle." None, ["clocks_event_reasons.gpu_idle", "clocks_throttle_reasons.gpu_idle"] = |row| reason(row.gpu, 0x1);
    "Clocks are down: set so." None, ["clocks_event_reasons.applications_clocks_setting", "clocks_throttle_reasons.applications_clocks_setting"] = |row| reason(row.gpu, 0x2);
    "Clocks are down: power limit." None, ["clocks_event_reasons.sw_power_cap", "clocks_throttle_reasons.sw_power_cap"] = |row| reason(row.gpu, 0x4);
    "Clocks are down: hardware." None, ["clocks_event_reasons.hw_slowdown", "clocks_throttle_reasons.hw_slowdown"] = |row| reason(row.gpu, 0x8);
    "Clocks are down: temperature, by hardware." None, ["clocks_event_reasons.hw_thermal_slowdown", "clocks_throttle_reasons.hw_thermal_slowdown"] = |row| reason(row.gpu, 0x40);
    "Clocks are down: power brake." None, ["clocks_event_reasons.hw_power_brake_slowdown", "clocks_throttle_reasons.hw_power_brake_slowdown"] = |row| reason(row.gpu, 0x80);
    "Clocks are down: temperature, by software." None, ["clocks_event_reasons.sw_thermal_slowdown", "clocks_throttle_reasons.sw_thermal_slowdown"] = |row| reason(row.gpu, 0x20);
    "Clocks are down: with others'." None, ["clocks_event_reasons.sync_boost", "clocks_throttle_reasons.sync_boost"] = |row| reason(row.gpu, 0x10);
    "All memory: the VM's share where it has one." MIB, ["memory.total"] = |row| memory(row.gpu, |m| m.total);
    "Memory that the driver keeps for itself." MIB, ["memory.reserved"] = |row| memory(row.gpu, |m| m.reserved);
    "Memory in use." MIB, ["memory.used"] = |row| memory(row.gpu, |m| m.used);
    "Memory that is free." MIB, ["memory.free"] = |row| memory(row.gpu, |m| m.free);
    "Who may compute." None, ["compute_mode"] = |row| row.gpu.number(Number::ComputeMode).map(words::compute_mode);
    "Compute capability." None, ["compute_cap"] = |row| capability(row.gpu);
    "Part of the time in which kernels ran." PERCENT, ["utilization.gpu"] = |row| plain(row.gpu, Number::GpuPercent);
    "Part of the time in which memory was used." PERCENT, ["utilization.memory"] = |row| plain(row.gpu, Number::MemoryPercent);
    "Load of the video encoder." PERCENT, ["utilization.encoder"] = |row| plain(row.gpu, Number::EncoderPercent);
    "Load of the video decoder." PERCENT, ["utilization.decoder"] = |row| plain(row.gpu, Number::DecoderPercent);
    "Whether errors in memory are corrected." None, ["ecc.mode.current"] = |row| mode(row.gpu, Number::EccCurrent);
    "The same after a restart." None, ["ecc.mode.pending"] = |row| mode(row.gpu, Number::EccPending);
    "Errors corrected since the driver was loaded." None, ["ecc.errors.corrected.volatile.total"] = |row| errors(row.gpu, Errors::Corrected, Since::Volatile);
    "Errors corrected in the card's life." None, ["ecc.errors.corrected.aggregate.total"] = |row| errors(row.gpu, Errors::Corrected, Since::Aggregate);
    "Errors not corrected since the driver was loaded." None, ["ecc.errors.uncorrected.volatile.total"] = |row| errors(row.gpu, Errors::Uncorrected, Since::Volatile);
    "Errors not corrected in the card's life." None, ["ecc.errors.uncorrected.aggregate.total"] = |row| errors(row.gpu, Errors::Uncorrected, Since::Aggregate);
    "Temperature of the GPU, in degrees C." None, ["temperature.gpu"] = |row| plain(row.gpu, Number::TemperatureC);
    "Temperature of the memory, in degrees C." None, ["temperature.memory"] = |row| plain(row.gpu, Number::MemoryTemperatureC);
    "Whether power is managed." None, ["power.management"] = |row| row.gpu.number(Number::PowerLimitMw).map(|_| words::enabled(1));
    "Power that the card draws." WATTS, ["power.draw"] = |row| watts(row.gpu, Number::PowerMw);
    "Limit of it, as set." WATTS, ["power.limit"] = |row| watts(row.gpu, Number::PowerLimitMw);
    "Limit of it, as it is kept." WATTS, ["enforced.power.limit"] = |row| watts(row.gpu, Number::PowerEnforcedMw);
    "Limit of it where none is set." WATTS, ["power.default_limit"] = |row| watts(row.gpu, Number::PowerDefaultMw);
    "Lowest limit that can be set." WATTS, ["power.min_limit"] = |row| watts(row.gpu, Number::PowerMinMw);
    "Highest limit that can be set." WATTS, ["power.max_limit"] = |row| watts(row.gpu, Number::PowerMaxMw);
    "Clock of graphics now." MHZ, ["clocks.current.graphics", "clocks.gr", "clocks.current.gr", "clocks.graphics"] = |row| plain(row.gpu, Number::ClockMhz(Clock::Graphics));
    "Clock of the multiprocessors now." MHZ, ["clocks.current.sm", "clocks.sm"] = |row| plain(row.gpu, Number::ClockMhz(Clock::Sm));
    "Clock of the memory now." MHZ, ["clocks.current.memory", "clocks.mem", "clocks.current.mem", "clocks.memory"] = |row| plain(row.gpu, Number::ClockMhz(Clock::Memory));
    "Clock of the video engines now." MHZ, ["clocks.current.video", "clocks.video"] = |row| plain(row.gpu, Number::ClockMhz(Clock::Video));
    "Clock of graphics as programs set it." MHZ, ["clocks.applications.graphics", "clocks.applications.gr"] = |row| plain(row.gpu, Number::ApplicationClockMhz(Clock::Graphics));
    "Clock of the memory as programs set it." MHZ, ["clocks.applications.memory", "clocks.applications.mem"] = |row| plain(row.gpu, Number::ApplicationClockMhz(Clock::Memory));
    "Clock of graphics where none is set." MHZ, ["clocks.default_applications.graphics", "clocks.default_applications.gr"] = |row| plain(row.gpu, Number::DefaultApplicationClockMhz(Clock::Graphics));
    "Clock of the memory where none is set." MHZ, ["clocks.default_applications.memory", "clocks.default_applications.mem"] = |row| plain(row.gpu, Number::DefaultApplicationClockMhz(Clock::Memory));
    "Highest clock of graphics." MHZ, ["clocks.max.graphics", "clocks.max.gr"] = |row| plain(row.gpu, Number::MaxClockMhz(Clock::Graphics));
    "Highest clock of the multiprocessors." MHZ, ["clocks.max.sm"] = |row| plain(row.gpu, Number::MaxClockMhz(Clock::Sm));
    "Highest clock of the memory." MHZ, ["clocks.max.memory", "clocks.max.mem"] = |row| plain(row.gpu, Number::MaxClockMhz(Clock::Memory));
    "Whether the device is divided." None, ["mig.mode.current"] = |row| mode(row.gpu, Number::MigCurrent);
    "The same after a restart." None, ["mig.mode.pending"] = |row| mode(row.gpu, Number::MigPending);
    "Operation mode of the device." None, ["gom.current"] = |row| operation(row.gpu, Number::OperationMode);
    "The same after a restart." None, ["gom.pending"] = |row| operation(row.gpu, Number::OperationModePending);
};

/// The fields of a process.
pub static APPS: &[Field] = fields! {
    "When the device was asked." None, ["timestamp"] = |row| Ok(time(row.pass));
    "Name of its device." None, ["gpu_name"] = |row| row.gpu.text(Text::Name);
    "PCI address of its device." None, ["gpu_bus_id"] = |row| row.gpu.text(Text::BusId);
    "Serial number of its device." None, ["gpu_serial"] = |row| row.gpu.text(Text::Serial);
    "UUID of its device." None, ["gpu_uuid"] = |row| row.gpu.text(Text::Uuid);
    "Its id in the VM." None, ["pid"] = |row| Ok(process(row)?.pid.to_string());
    "Its program." None, ["process_name", "name"] = |row| row.pass.nvml.process_name(process(row)?.pid);
    "What it has allocated." MIB, ["used_gpu_memory", "used_memory"] = |row| {
        process(row)?.bytes.map(|bytes| words::mib(bytes).to_string()).ok_or(Code::NOT_SUPPORTED)
    };
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_has_two_meanings() {
        fn check(fields: &[Field]) {
            let mut names: Vec<&str> = fields.iter().flat_map(|field| field.names).copied().collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
            assert!(fields.iter().all(|field| field.help.ends_with('.')));
        }
        check(GPU);
        check(APPS);
    }
}
