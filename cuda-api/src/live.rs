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
pub const VERSION: u32 = 1;
/// Sessions at most.
const SESSIONS_MAX: usize = 1024;
/// Numbers of a device at most.
const NUMBERS_MAX: usize = 1024;
/// In place of a number of bytes: the executor does not know how much of a session's memory is on which device.
pub const UNKNOWN_BYTES: u64 = u64::MAX;

/// A session: a process of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionUse {
    /// Its process id in the guest, by its own word.
    pub pid: u32,
    /// What it has allocated on each device, by ordinal; [`UNKNOWN_BYTES`] where that is not known.
    pub device_bytes: Vec<u64>,
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
        Ok(Live { number, sessions, pending, readings })
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
