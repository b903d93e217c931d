//! What the host tells a guest process about its devices before anything else: a blob made by the executor's probe and
//! read by libcuda. Between them it is opaque bytes (`READ_INFO` in `pci-layout`).

use crate::Malformed;
use crate::types::{CUresult, attribute};
use crate::wire::{Reader, Wire, take_all};

/// Version of this encoding; part of the table's fingerprint.
pub const VERSION: u32 = 2;
/// Devices at most.
pub const DEVICES_MAX: usize = 64;

/// A device attribute's value, or the CUresult that asking for it gives.
pub type AttributeValue = Result<i32, CUresult>;

/// CUdevice_P2PAttribute: performance rank, access, native atomics, arrays, partly native atomics.
pub const P2P_ATTRIBUTES: usize = 5;
/// CUatomicOperation has so many.
pub const ATOMIC_OPERATIONS: usize = 13;

/// What a device can do with another one's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// cuDeviceCanAccessPeer.
    pub can_access: bool,
    /// CUdevice_P2PAttribute by number, from 1; index 0 is the first.
    pub attributes: [AttributeValue; P2P_ATTRIBUTES],
    /// What cuDeviceGetP2PAtomicCapabilities says of each CUatomicOperation.
    pub atomics: [u32; ATOMIC_OPERATIONS],
}

impl Link {
    /// No way to the other device's memory but copies through the host's.
    pub const NONE: Link =
        Link { can_access: false, attributes: [Ok(0); P2P_ATTRIBUTES], atomics: [0; ATOMIC_OPERATIONS] };
}

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
    /// What it can do with each device's memory, by ordinal; its own entry says nothing.
    pub links: Vec<Link>,
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
    /// The VM's only device is at this PCI address, in the guest's own terms. With several devices nothing changes: they are one
    /// function to the guest, and each needs an address of its own.
    pub fn place_at(&mut self, domain: i32, bus: i32, device: i32) {
        let [only] = &mut self.devices[..] else { return };
        let address = [
            (attribute::PCI_DOMAIN_ID, domain),
            (attribute::PCI_BUS_ID, bus),
            (attribute::PCI_DEVICE_ID, device),
        ];
        for (number, value) in address {
            let place = usize::try_from(number).ok().and_then(|number| only.attributes.get_mut(number));
            if let Some(place) = place {
                *place = Ok(value);
            }
        }
    }
}

/// Values and results as they are encoded.
fn answers(values: &[i32], results: &[u32]) -> impl Iterator<Item = AttributeValue> {
    values.iter().zip(results).map(|(v, r)| if *r == 0 { Ok(*v) } else { Err(CUresult(*r)) })
}

fn link(from: &mut Reader<'_>) -> Result<Link, Malformed> {
    let can_access = u32::take(from)? != 0;
    let values = <&[i32]>::take(from)?;
    let results = <&[u32]>::take(from)?;
    let atomics = <&[u32]>::take(from)?;
    let wrong = || Malformed("a link of another size".into());
    let answers: Vec<AttributeValue> = answers(values, results).collect();
    Ok(Link {
        can_access,
        attributes: answers.try_into().map_err(|_| wrong())?,
        atomics: atomics.try_into().map_err(|_| wrong())?,
    })
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
            device.links.len().put(&mut out);
            for link in &device.links {
                let values = link.attributes.map(|a| a.unwrap_or(0));
                let results = link.attributes.map(|a| a.err().map_or(0, |e| e.0));
                u32::from(link.can_access).put(&mut out);
                values.as_slice().put(&mut out);
                results.as_slice().put(&mut out);
                link.atomics.as_slice().put(&mut out);
            }
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
            let attributes = answers(values, results).collect();
            let count = usize::take(&mut from)?;
            if count > DEVICES_MAX {
                return Err(Malformed(format!("links to {count} devices")));
            }
            let links = (0..count).map(|_| link(&mut from)).collect::<Result<_, _>>()?;
            devices.push(DeviceInfo { name, uuid, total_memory_bytes, attributes, links });
        }
        take_all::<()>(&mut from)?;
        Ok(VmInfo { driver_version, stream_priorities, devices })
    }
}
