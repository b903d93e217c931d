//! What the host tells a guest process about its devices before anything else: a blob made by the executor's probe and
//! read by libcuda. Between them it is opaque bytes (`READ_INFO` in `pci-layout`).

use crate::Malformed;
use crate::types::CUresult;
use crate::wire::{Reader, Wire, take_all};

/// Version of this encoding; part of the table's fingerprint.
pub const VERSION: u32 = 1;
/// Devices at most.
pub const DEVICES_MAX: usize = 64;

/// A device attribute's value, or the CUresult that asking for it gives.
pub type AttributeValue = Result<i32, CUresult>;

/// A CUDA device as the guest is to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Name, as cuDeviceGetName gives it.
    pub name: String,
    /// UUID.
    pub uuid: [u8; 16],
    /// Memory in bytes, the quota applied.
    pub total_memory_bytes: u64,
    /// Attributes by number, from 1; index 0 is unused.
    pub attributes: Vec<AttributeValue>,
}

/// Everything that the guest learns at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmInfo {
    /// The driver version that the guest sees.
    pub driver_version: i32,
    /// Lowest and highest stream priority (cuCtxGetStreamPriorityRange).
    pub stream_priorities: (i32, i32),
    /// The devices by ordinal.
    pub devices: Vec<DeviceInfo>,
}

impl DeviceInfo {
    /// The attribute's value.
    ///
    /// # Errors
    /// What asking the driver for it gave; CUDA_ERROR_INVALID_VALUE for a number that it does not know.
    pub fn attribute(&self, number: i32) -> AttributeValue {
        usize::try_from(number)
            .ok()
            .filter(|n| *n > 0)
            .and_then(|n| self.attributes.get(n))
            .copied()
            .unwrap_or(Err(CUresult::INVALID_VALUE))
    }
}

impl VmInfo {
    /// The blob.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        VERSION.put(&mut out);
        self.driver_version.put(&mut out);
        self.stream_priorities.0.put(&mut out);
        self.stream_priorities.1.put(&mut out);
        self.devices.len().put(&mut out);
        for device in &self.devices {
            device.name.as_bytes().put(&mut out);
            device.uuid.as_slice().put(&mut out);
            device.total_memory_bytes.put(&mut out);
            let values: Vec<i32> = device.attributes.iter().map(|a| a.unwrap_or(0)).collect();
            let results: Vec<u32> = device.attributes.iter().map(|a| a.err().map_or(0, |e| e.0)).collect();
            values.as_slice().put(&mut out);
            results.as_slice().put(&mut out);
        }
        out
    }

    /// Reads a blob, which must start at an 8-byte aligned address.
    ///
    /// # Errors
    /// [`Malformed`] where it is none of this version's.
    pub fn decode(blob: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(blob);
        let version = u32::take(&mut from)?;
        if version != VERSION {
            return Err(Malformed(format!("device information of version {version}, {VERSION} is known")));
        }
        let driver_version = i32::take(&mut from)?;
        let stream_priorities = (i32::take(&mut from)?, i32::take(&mut from)?);
        let count = usize::take(&mut from)?;
        if count > DEVICES_MAX {
            return Err(Malformed(format!("{count} devices")));
        }
        let mut devices = Vec::with_capacity(count);
        for _ in 0..count {
            let name = String::from_utf8_lossy(<&[u8]>::take(&mut from)?).into_owned();
            let uuid = <&[u8]>::take(&mut from)?
                .try_into()
                .map_err(|_| Malformed("a UUID that is not 16 bytes".into()))?;
            let total_memory_bytes = u64::take(&mut from)?;
            let values = <&[i32]>::take(&mut from)?;
            let results = <&[u32]>::take(&mut from)?;
            let attributes = values
                .iter()
                .zip(results)
                .map(|(v, r)| if *r == 0 { Ok(*v) } else { Err(CUresult(*r)) })
                .collect();
            devices.push(DeviceInfo { name, uuid, total_memory_bytes, attributes });
        }
        take_all::<()>(&mut from)?;
        Ok(VmInfo { driver_version, stream_priorities, devices })
    }
}
