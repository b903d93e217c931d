//! Answers that were recorded, for tests of what is made of them.

use std::collections::BTreeMap;

use super::{Answer, Clock, Code, Memory, Number, Nvml, Process, SystemText, Text};

/// A device's answers. What is not there is NOT_SUPPORTED.
#[derive(Debug, Clone)]
pub struct Device {
    pub numbers: BTreeMap<Number, Answer<u64>>,
    pub texts: BTreeMap<Text, String>,
    pub memory: Memory,
    pub processes: Answer<Vec<Process>>,
}

/// A machine's answers.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub devices: Vec<Device>,
    pub names: BTreeMap<u32, Answer<String>>,
}

/// What a VM saw of an H100 through driver 580, with one process.
pub fn h100() -> Recorded {
    use Number as N;
    let numbers = [
        (N::TemperatureC, 34),
        (N::PowerMw, 71_530),
        (N::PowerLimitMw, 700_000),
        (N::PowerEnforcedMw, 700_000),
        (N::PerformanceState, 0),
        (N::GpuPercent, 97),
        (N::MemoryPercent, 12),
        (N::EncoderPercent, 0),
        (N::DecoderPercent, 0),
        (N::ClockMhz(Clock::Graphics), 1980),
        (N::ClockMhz(Clock::Sm), 1980),
        (N::ClockMhz(Clock::Memory), 2619),
        (N::ClockMhz(Clock::Video), 1545),
        (N::MaxClockMhz(Clock::Graphics), 1980),
        (N::MaxClockMhz(Clock::Sm), 1980),
        (N::MaxClockMhz(Clock::Memory), 2619),
        (N::PcieGeneration, 5),
        (N::PcieWidth, 16),
        (N::PcieGenerationMax, 5),
        (N::PcieWidthMax, 16),
        (N::Persistence, 1),
        (N::ComputeMode, 0),
        (N::EccCurrent, 1),
        (N::EccPending, 1),
        (N::MigCurrent, 0),
        (N::MigPending, 0),
        (N::DisplayMode, 0),
        (N::DisplayActive, 0),
        (N::Capability, 90),
        (N::Minor, 0),
        (N::PciDomain, 0),
        (N::PciBus, 6),
        (N::PciDevice, 0),
        (N::PciId, 0x2330_10de),
        (N::PciSubsystemId, 0x16c1_10de),
        (N::Architecture, 9),
        (N::Brand, 14),
        (N::MultiGpuBoard, 0),
    ];
    let texts = [
        (Text::Name, "NVIDIA H100 80GB HBM3"),
        (Text::Uuid, "GPU-f7b02328-d6fe-5b1f-9683-15041689bb03"),
        (Text::BusId, "00000000:06:00.0"),
    ];
    let mib = |n: u64| n << 20;
    let memory = Memory { total: mib(81559), reserved: 0, free: mib(81047), used: mib(512) };
    let device = Device {
        numbers: numbers.into_iter().map(|(name, value)| (name, Ok(value))).collect(),
        texts: texts.into_iter().map(|(name, text)| (name, text.to_owned())).collect(),
        memory,
        processes: Ok(vec![Process { pid: 1342, bytes: Some(mib(512)) }]),
    };
    Recorded {
        devices: vec![device],
        names: [(1342, Ok("/usr/bin/python3".to_owned()))].into_iter().collect(),
    }
}

/// What a device in software tells: no load, no temperature.
pub fn software() -> Recorded {
    use Number as N;
    let told = [
        N::ComputeMode,
        N::MigCurrent,
        N::MigPending,
        N::DisplayMode,
        N::DisplayActive,
        N::Capability,
        N::Minor,
        N::PciDomain,
        N::PciBus,
        N::PciDevice,
    ];
    let mut machine = h100();
    let device = &mut machine.devices[0];
    device.numbers.retain(|name, _| told.contains(name));
    device.numbers.insert(N::Capability, Ok(80));
    device.texts.insert(Text::Name, "Software device with a name that is long".to_owned());
    device.processes = Ok(Vec::new());
    machine
}

impl Nvml for Recorded {
    fn system(&self, what: SystemText) -> Answer<String> {
        Ok(match what {
            SystemText::DriverVersion => "580.126.09",
            SystemText::NvmlVersion => "13.580.126.09",
        }
        .to_owned())
    }

    fn cuda_version(&self) -> Answer<u32> {
        Ok(13000)
    }

    fn count(&self) -> Answer<u32> {
        Ok(u32::try_from(self.devices.len()).expect("few"))
    }

    fn number(&self, gpu: u32, what: Number) -> Answer<u64> {
        self.devices[gpu as usize].numbers.get(&what).copied().unwrap_or(Err(Code::NOT_SUPPORTED))
    }

    fn text(&self, gpu: u32, what: Text) -> Answer<String> {
        self.devices[gpu as usize].texts.get(&what).cloned().ok_or(Code::NOT_SUPPORTED)
    }

    fn memory(&self, gpu: u32) -> Answer<Memory> {
        Ok(self.devices[gpu as usize].memory)
    }

    fn processes(&self, gpu: u32) -> Answer<Vec<Process>> {
        self.devices[gpu as usize].processes.clone()
    }

    fn process_name(&self, pid: u32) -> Answer<String> {
        self.names.get(&pid).cloned().unwrap_or(Err(Code::NOT_FOUND))
    }
}
