//! What changes while a VM runs, as the daemon tells it to whoever asks: which processes use the GPU and how much memory they have, and
//! what the host's NVML reads of the devices. A blob made by the supervisor and read by libnvidia-ml; between them it is opaque bytes.
//!
//! It is read in pieces, between which the supervisor may make a new one: its number stands at both ends, and a blob with two numbers is
//! read again. A worker's numbers are no more than a worker's word; whoever shows them bounds them by what the device has.

use std::collections::BTreeMap;

use crate::Malformed;
use crate::info::DEVICES_MAX;
use crate::wire::{Reader, Wire, take_all};

/// Version of this encoding.
pub const VERSION: u32 = 2;
/// Sessions at most.
const SESSIONS_MAX: usize = 1024;
/// Numbers of a device at most.
const NUMBERS_MAX: usize = 1024;
/// In place of a number of bytes: the executor does not know how much of a session's memory is on which device.
pub const UNKNOWN_BYTES: u64 = u64::MAX;

/// The names of a device's numbers.
pub mod number {
    /// Device memory in bytes, as NVML counts it: all of it, what is free, what anybody uses, what the driver keeps.
    pub const MEMORY_TOTAL: u32 = 1;
    /// See [`MEMORY_TOTAL`].
    pub const MEMORY_FREE: u32 = 2;
    /// See [`MEMORY_TOTAL`].
    pub const MEMORY_USED: u32 = 3;
    /// See [`MEMORY_TOTAL`].
    pub const MEMORY_RESERVED: u32 = 4;
    /// How much of the time kernels ran, and memory was read or written, in percent.
    pub const GPU_PERCENT: u32 = 5;
    /// See [`GPU_PERCENT`].
    pub const MEMORY_PERCENT: u32 = 6;
    /// In degrees Celsius.
    pub const TEMPERATURE: u32 = 7;
    /// What it draws, what it may draw, and what it may be told to draw, in milliwatts.
    pub const POWER_MW: u32 = 8;
    /// See [`POWER_MW`].
    pub const POWER_ENFORCED_MW: u32 = 9;
    /// See [`POWER_MW`].
    pub const POWER_LIMIT_MW: u32 = 10;
    /// Since the driver was loaded, in millijoules.
    pub const ENERGY_MJ: u32 = 11;
    /// The first of four clocks in MHz: graphics, multiprocessors, memory, video; as they are.
    pub const CLOCK_MHZ: u32 = 12;
    /// The same four at most.
    pub const CLOCK_MAX_MHZ: u32 = 16;
    /// 0 is the fastest.
    pub const PERFORMANCE_STATE: u32 = 20;
    /// Generation and lanes of the PCI link, as it is and at most.
    pub const PCIE_GENERATION: u32 = 21;
    /// See [`PCIE_GENERATION`].
    pub const PCIE_WIDTH: u32 = 22;
    /// See [`PCIE_GENERATION`].
    pub const PCIE_GENERATION_MAX: u32 = 23;
    /// See [`PCIE_GENERATION`].
    pub const PCIE_WIDTH_MAX: u32 = 24;
    /// In percent.
    pub const FAN_PERCENT: u32 = 25;
    /// In percent, and over how many microseconds.
    pub const ENCODER_PERCENT: u32 = 26;
    /// See [`ENCODER_PERCENT`].
    pub const ENCODER_US: u32 = 27;
    /// See [`ENCODER_PERCENT`].
    pub const DECODER_PERCENT: u32 = 28;
    /// See [`ENCODER_PERCENT`].
    pub const DECODER_US: u32 = 29;
    /// 1: the driver stays without clients.
    pub const PERSISTENCE: u32 = 30;
    /// nvmlBrandType_t.
    pub const BRAND: u32 = 31;
    /// PCI device and vendor, and those of the subsystem.
    pub const PCI_ID: u32 = 32;
    /// See [`PCI_ID`].
    pub const PCI_SUBSYSTEM: u32 = 33;

    /// Links of NVLink that a device has at most.
    pub const NVLINKS_MAX: u32 = 18;
    const NVLINK_FIRST: u32 = 0x100;
    const PEER_FIRST: u32 = 0x1000;

    /// What is known of one link of NVLink.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[repr(u32)]
    pub enum NvLink {
        /// 1: it is up.
        State,
        /// nvmlNvLinkCapability_t as bits.
        Capabilities,
        /// Its version.
        Version,
        /// The PCI address at its other end: domain, bus and device in 32, 24 and 8 bits.
        Remote,
        /// What is there (nvmlIntNvLinkDeviceType_t).
        RemoteKind,
    }

    /// The name of something of a link.
    pub const fn nvlink(link: u32, what: NvLink) -> u32 {
        NVLINK_FIRST.wrapping_add(link.wrapping_mul(8)).wrapping_add(what as u32)
    }

    /// The name of nvmlDeviceGetP2PStatus towards the device of an ordinal, for one of its indices (0 to 4), or of the topology level (5).
    pub const fn peer(ordinal: u32, index: u32) -> u32 {
        PEER_FIRST.wrapping_add(ordinal.wrapping_mul(8)).wrapping_add(index)
    }

    /// In [`peer`]: nvmlGpuTopologyLevel_t.
    pub const PEER_TOPOLOGY: u32 = 5;

    const PROCESS_FIRST: u32 = 0x4000_0000;

    /// The name of the device memory, in bytes, that a process of the host has, contexts' own included. For the daemon alone: a guest is
    /// not told of processes.
    pub const fn process(pid: u32) -> u32 {
        PROCESS_FIRST.wrapping_add(pid & 0x3fff_ffff)
    }

    /// It is such a name.
    pub const fn is_process(name: u32) -> bool {
        name >= PROCESS_FIRST
    }
}

/// A session: a process of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionUse {
    /// Its process id in the guest, by its own word.
    pub pid: u32,
    /// What it has allocated on each device, by ordinal; [`UNKNOWN_BYTES`] where that is not known.
    pub device_bytes: Vec<u64>,
}

/// A device's memory as the VM has it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// All that the VM may use: its quota, or all that the device has.
    pub total: u64,
    /// What its processes have allocated together. After the quota was lowered it may be more than `total`.
    pub used: u64,
}

/// What the host's NVML says of the devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readings {
    /// The release of the host's driver, e.g. `580.65.06`; empty where it is not known.
    pub release: String,
    /// How long ago it was read, in milliseconds.
    pub age_ms: u64,
    /// Numbers of each device, by ordinal; their names are those of [`crate::live::number`]. What is not in it could not be read.
    pub devices: Vec<BTreeMap<u32, u64>>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Live {
    /// Of this blob; another one has another number.
    pub number: u64,
    /// The devices' memory, by ordinal.
    pub memory: Vec<DeviceMemory>,
    /// Sessions that are open.
    pub sessions: Vec<SessionUse>,
    /// A newer reading is on its way: ask again soon.
    pub pending: bool,
    /// The newest reading there is; None where nobody reads (a device in software, a host without NVML).
    pub readings: Option<Readings>,
}

impl Live {
    /// The blob.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        VERSION.put(&mut out);
        self.number.put(&mut out);
        self.memory.len().put(&mut out);
        for memory in &self.memory {
            memory.total.put(&mut out);
            memory.used.put(&mut out);
        }
        self.sessions.len().put(&mut out);
        for session in &self.sessions {
            session.pid.put(&mut out);
            session.device_bytes.as_slice().put(&mut out);
        }
        self.pending.put(&mut out);
        self.readings.is_some().put(&mut out);
        if let Some(readings) = &self.readings {
            readings.put(&mut out);
        }
        self.number.put(&mut out);
        out
    }

    /// Reads a blob, which must start at an 8-byte aligned address.
    ///
    /// # Errors
    /// [`Malformed`] where it is none of this version's, or two halves of different ones.
    pub fn decode(blob: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(blob);
        let version = u32::take(&mut from)?;
        if version != VERSION {
            return Err(Malformed(format!("live information of version {version}, {VERSION} is known")));
        }
        let number = u64::take(&mut from)?;
        let devices = usize::take(&mut from)?;
        if devices > DEVICES_MAX {
            return Err(Malformed(format!("memory of {devices} devices")));
        }
        let memory = (0..devices)
            .map(|_| Ok(DeviceMemory { total: u64::take(&mut from)?, used: u64::take(&mut from)? }))
            .collect::<Result<_, Malformed>>()?;
        let count = usize::take(&mut from)?;
        if count > SESSIONS_MAX {
            return Err(Malformed(format!("{count} sessions")));
        }
        let sessions = (0..count).map(|_| SessionUse::take(&mut from)).collect::<Result<_, _>>()?;
        let pending = bool::take(&mut from)?;
        let readings = match bool::take(&mut from)? {
            true => Some(Readings::take(&mut from)?),
            false => None,
        };
        if u64::take(&mut from)? != number {
            return Err(Malformed("two halves of different blobs".into()));
        }
        take_all::<()>(&mut from)?;
        Ok(Live { number, memory, sessions, pending, readings })
    }
}

impl SessionUse {
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let pid = u32::take(from)?;
        let device_bytes = <&[u64]>::take(from)?.to_vec();
        if device_bytes.len() > DEVICES_MAX {
            return Err(Malformed(format!("a session on {} devices", device_bytes.len())));
        }
        Ok(Self { pid, device_bytes })
    }
}

impl Readings {
    /// As a blob of its own, from whoever reads to the supervisor.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Reads such a blob, which must start at an 8-byte aligned address.
    ///
    /// # Errors
    /// [`Malformed`] where it is none.
    pub fn decode(blob: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(blob);
        let readings = Self::take(&mut from)?;
        take_all::<()>(&mut from)?;
        Ok(readings)
    }

    fn put(&self, out: &mut Vec<u8>) {
        self.release.as_bytes().put(out);
        self.age_ms.put(out);
        self.devices.len().put(out);
        for device in &self.devices {
            let (names, values): (Vec<u32>, Vec<u64>) = device.iter().unzip();
            names.as_slice().put(out);
            values.as_slice().put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let release = String::from_utf8_lossy(<&[u8]>::take(from)?).into_owned();
        let age_ms = u64::take(from)?;
        let count = usize::take(from)?;
        if count > DEVICES_MAX {
            return Err(Malformed(format!("readings of {count} devices")));
        }
        let mut devices = Vec::with_capacity(count);
        for _ in 0..count {
            let (names, values) = (<&[u32]>::take(from)?, <&[u64]>::take(from)?);
            if names.len() != values.len() || names.len() > NUMBERS_MAX {
                return Err(Malformed(format!("{} names of {} numbers", names.len(), values.len())));
            }
            devices.push(names.iter().copied().zip(values.iter().copied()).collect());
        }
        Ok(Self { release, age_ms, devices })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned<T>(blob: &[u8], read: impl FnOnce(&[u8]) -> T) -> T {
        let words: Vec<u64> = blob
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_ne_bytes(word)
            })
            .collect();
        read(&zerocopy::IntoBytes::as_bytes(words.as_slice())[..blob.len()])
    }

    fn some() -> Live {
        Live {
            number: 7,
            sessions: vec![
                SessionUse { pid: 42, device_bytes: vec![1 << 30, UNKNOWN_BYTES] },
                SessionUse { pid: 43, device_bytes: Vec::new() },
            ],
            memory: vec![DeviceMemory { total: 8, used: 9 }, DeviceMemory { total: 1 << 40, used: 0 }],
            pending: true,
            readings: Some(Readings {
                release: "580.65.06".into(),
                age_ms: 90,
                devices: vec![BTreeMap::from([(1, 2), (3, 4)]), BTreeMap::new()],
            }),
        }
    }

    #[test]
    fn it_comes_back_as_it_was() {
        for live in [some(), Live::default(), Live { readings: None, ..some() }] {
            assert_eq!(aligned(&live.encode(), Live::decode), Ok(live));
        }
    }

    #[test]
    fn what_is_torn_cut_or_of_another_version_is_malformed() {
        let blob = some().encode();
        for len in 0..blob.len() {
            assert!(aligned(&blob[..len], Live::decode).is_err(), "{len} bytes");
        }
        let newer = Live { number: 8, ..some() }.encode();
        let torn = [&blob[..blob.len() / 16 * 8], &newer[blob.len() / 16 * 8..]].concat();
        assert!(aligned(&torn, Live::decode).is_err());
        assert!(aligned(&[&[9; 8], &blob[8..]].concat(), Live::decode).is_err());
    }
}
