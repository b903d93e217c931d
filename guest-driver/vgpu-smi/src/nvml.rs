//! What is asked of NVML, and what comes back. [`Nvml`] is small, so that tests can answer with what real devices said.

use std::fmt;

pub mod library;
#[cfg(test)]
pub mod recorded;

/// nvmlReturn_t, success left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

/// What NVML answers.
pub type Answer<T> = Result<T, Code>;

impl Code {
    pub const NOT_SUPPORTED: Code = Code(3);
    pub const NO_PERMISSION: Code = Code(4);
    pub const NOT_FOUND: Code = Code(6);
    pub const INSUFFICIENT_SIZE: Code = Code(7);
    pub const DRIVER_NOT_LOADED: Code = Code(9);
    pub const LIBRARY_NOT_FOUND: Code = Code(12);
    pub const FUNCTION_NOT_FOUND: Code = Code(13);
    pub const GPU_IS_LOST: Code = Code(15);
    pub const VERSION_MISMATCH: Code = Code(18);
    pub const UNKNOWN: Code = Code(999);

    /// Nobody knows it: what a table has no number for.
    pub fn is_absence(self) -> bool {
        matches!(self, Self::NOT_SUPPORTED | Self::NOT_FOUND | Self::FUNCTION_NOT_FOUND)
    }

    /// The exit status of a program that fails with it: the code itself, 255 for what does not fit.
    pub fn status(self) -> u8 {
        u8::try_from(self.0).unwrap_or(255)
    }

    /// NVML's words.
    pub fn words(self) -> &'static str {
        match self.0 {
            1 => "Uninitialized",
            2 => "Invalid Argument",
            3 => "Not Supported",
            4 => "Insufficient Permissions",
            6 => "Not Found",
            9 => "Driver Not Loaded",
            10 => "Timeout",
            12 => "NVML Shared Library Not Found",
            13 => "Function Not Found",
            15 => "GPU is lost",
            17 => "GPU access blocked by the operating system",
            18 => "Driver/library version mismatch",
            _ => "Unknown Error",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// nvmlClockType_t.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clock {
    Graphics = 0,
    Sm = 1,
    Memory = 2,
    Video = 3,
}

/// nvmlMemoryErrorType_t.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errors {
    Corrected = 0,
    Uncorrected = 1,
}

/// nvmlEccCounterType_t.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Since {
    /// The driver was loaded.
    Volatile = 0,
    /// The card was made.
    Aggregate = 1,
}

/// A number of a device. Units are in the names; what has none is an enumeration of NVML's or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Number {
    TemperatureC,
    MemoryTemperatureC,
    FanPercent,
    PowerMw,
    PowerLimitMw,
    PowerEnforcedMw,
    PowerDefaultMw,
    PowerMinMw,
    PowerMaxMw,
    PerformanceState,
    GpuPercent,
    MemoryPercent,
    EncoderPercent,
    DecoderPercent,
    ClockMhz(Clock),
    MaxClockMhz(Clock),
    ApplicationClockMhz(Clock),
    DefaultApplicationClockMhz(Clock),
    EventReasons,
    PcieGeneration,
    PcieWidth,
    PcieGenerationMax,
    PcieWidthMax,
    Persistence,
    ComputeMode,
    EccCurrent,
    EccPending,
    EccErrors(Errors, Since),
    OperationMode,
    OperationModePending,
    MigCurrent,
    MigPending,
    DisplayMode,
    DisplayActive,
    /// Ten times the major number, and the minor.
    Capability,
    Minor,
    PciDomain,
    PciBus,
    PciDevice,
    /// Device in the high half, vendor in the low one.
    PciId,
    PciSubsystemId,
    Architecture,
    Brand,
    MultiGpuBoard,
    AccountingMode,
    Bar1Total,
    Bar1Used,
    Bar1Free,
}

/// A text of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Text {
    Name,
    Uuid,
    BusId,
    Serial,
    Vbios,
    BoardPartNumber,
    InforomImage,
}

/// A text of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SystemText {
    DriverVersion,
    NvmlVersion,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    pub reserved: u64,
    pub free: u64,
    pub used: u64,
}

/// A process that computes on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// None where NVML does not know.
    pub bytes: Option<u64>,
}

/// What this program asks.
pub trait Nvml {
    /// Of the machine.
    fn system(&self, what: SystemText) -> Answer<String>;
    /// 1000 times the major number and 10 times the minor.
    fn cuda_version(&self) -> Answer<u32>;
    /// How many devices there are.
    fn count(&self) -> Answer<u32>;
    /// A number of the device with that index.
    fn number(&self, gpu: u32, what: Number) -> Answer<u64>;
    /// A text of it.
    fn text(&self, gpu: u32, what: Text) -> Answer<String>;
    /// Its memory, all of one moment.
    fn memory(&self, gpu: u32) -> Answer<Memory>;
    /// The processes on it.
    fn processes(&self, gpu: u32) -> Answer<Vec<Process>>;
    /// A process's program.
    fn process_name(&self, pid: u32) -> Answer<String>;
}
