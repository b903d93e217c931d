//! NVLink, as the host's NVML tells of it. NCCL finds its way between GPUs by this. A link to a GPU that the VM does not have is none of
//! the VM's: of such a link nothing is told.

use std::ffi::c_uint;

use cuda_api::live::Readings;
use cuda_api::live::number::{self, NVLINKS_MAX, NvLink};

use crate::answer::{Answer, Return, give, text_array};
use crate::identity::{PciInfo, PciInfoV2};
use crate::live;
use crate::machine::{Gpu, Machine, PciAddress};

/// nvmlNvLinkCapability_t has so many.
const CAPABILITIES: u32 = 6;
/// nvmlIntNvLinkDeviceType_t: a GPU is at the other end.
const REMOTE_GPU: u64 = 0;

/// A link that there is and that is the VM's.
struct Link {
    readings: Option<Readings>,
    number: u32,
}

impl Link {
    /// Finds it.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a number that no link has, NOT_SUPPORTED where nothing is told of it.
    fn find(machine: &Machine, gpu: &Gpu, number: c_uint) -> Answer<Self> {
        if number >= NVLINKS_MAX {
            return Err(Return::INVALID_ARGUMENT);
        }
        let link = Self { readings: live::readings()?, number };
        if link.is_of(machine, gpu) { Ok(link) } else { Err(Return::NOT_SUPPORTED) }
    }

    fn is_of(&self, machine: &Machine, gpu: &Gpu) -> bool {
        let remote = self.get(gpu, NvLink::Remote).map(address_of);
        let ours = |address| machine.gpus.iter().any(|gpu| gpu.pci == address);
        self.get(gpu, NvLink::Capabilities).is_some()
            && (self.get(gpu, NvLink::RemoteKind) != Some(REMOTE_GPU) || remote.is_some_and(ours))
    }

    fn get(&self, gpu: &Gpu, what: NvLink) -> Option<u64> {
        live::number_of(self.readings.as_ref(), gpu, number::nvlink(self.number, what))
    }

    fn known(&self, gpu: &Gpu, what: NvLink) -> Answer<c_uint> {
        let number = self.get(gpu, what).ok_or(Return::NOT_SUPPORTED)?;
        c_uint::try_from(number).map_err(|_| Return::UNKNOWN)
    }
}

/// An address as readings have it.
#[allow(clippy::cast_possible_truncation, reason = "32, 24 and 8 bits of 64")]
fn address_of(number: u64) -> PciAddress {
    PciAddress {
        domain: (number >> 32) as u32,
        bus: (number >> 8) as u32 & 0xff_ffff,
        device: number as u32 & 0xff,
    }
}

/// How many links of a device are the VM's.
///
/// # Errors
/// NOT_SUPPORTED where nothing is told of any.
pub fn count(machine: &Machine, gpu: &Gpu) -> Answer<u32> {
    let mut link = Link { readings: live::readings()?, number: 0 };
    let mut found = 0;
    for number in 0..NVLINKS_MAX {
        link.number = number;
        found += u32::from(link.is_of(machine, gpu));
    }
    if found == 0 { Err(Return::NOT_SUPPORTED) } else { Ok(found) }
}

/// Whether a link is up.
///
/// # Errors
/// As for [`Link::find`].
pub fn is_up(machine: &Machine, gpu: &Gpu, number: c_uint) -> Answer<c_uint> {
    Link::find(machine, gpu, number)?.known(gpu, NvLink::State)
}

/// nvmlDeviceGetNvLinkState.
pub unsafe fn state(machine: &Machine, gpu: &Gpu, number: c_uint, up: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for the enumeration.
    unsafe { give(up, is_up(machine, gpu, number)?) }
}

/// nvmlDeviceGetNvLinkVersion.
pub unsafe fn version(machine: &Machine, gpu: &Gpu, number: c_uint, version: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(version, Link::find(machine, gpu, number)?.known(gpu, NvLink::Version)?) }
}

/// nvmlDeviceGetNvLinkCapability.
pub unsafe fn capability(
    machine: &Machine,
    gpu: &Gpu,
    number: c_uint,
    capability: c_uint,
    has: *mut c_uint,
) -> Answer {
    if capability >= CAPABILITIES {
        return Err(Return::INVALID_ARGUMENT);
    }
    let all = Link::find(machine, gpu, number)?.known(gpu, NvLink::Capabilities)?;
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(has, all >> capability & 1) }
}

/// nvmlDeviceGetNvLinkRemoteDeviceType.
pub unsafe fn remote_kind(machine: &Machine, gpu: &Gpu, number: c_uint, kind: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for the enumeration.
    unsafe { give(kind, Link::find(machine, gpu, number)?.known(gpu, NvLink::RemoteKind)?) }
}

fn remote(machine: &Machine, gpu: &Gpu, number: c_uint) -> Answer<PciAddress> {
    let link = Link::find(machine, gpu, number)?;
    link.get(gpu, NvLink::Remote).map(address_of).ok_or(Return::NOT_SUPPORTED)
}

/// nvmlDeviceGetNvLinkRemotePciInfo, in the structure of its time.
pub unsafe fn remote_pci_v1(machine: &Machine, gpu: &Gpu, number: c_uint, pci: *mut PciInfoV2) -> Answer {
    // SAFETY: NVML's contract: room for the structure.
    unsafe { give(pci, PciInfoV2::of(remote(machine, gpu, number)?, 0, 0)) }
}

/// nvmlDeviceGetNvLinkRemotePciInfo_v2.
pub unsafe fn remote_pci(machine: &Machine, gpu: &Gpu, number: c_uint, pci: *mut PciInfo) -> Answer {
    let address = remote(machine, gpu, number)?;
    let told = PciInfo { first: PciInfoV2::of(address, 0, 0), address: text_array(&address.text(8)) };
    // SAFETY: NVML's contract: room for the structure.
    unsafe { give(pci, told) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::two;

    #[test]
    fn a_link_to_a_gpu_of_others_is_none() {
        let machine = two();
        let gpu = &machine.gpus[1];
        let link = |kind, remote| {
            let numbers = [(NvLink::Capabilities, 1), (NvLink::RemoteKind, kind), (NvLink::Remote, remote)];
            let device = numbers.map(|(what, value)| (number::nvlink(3, what), value)).into_iter().collect();
            Link { readings: Some(Readings { devices: vec![device], ..Readings::default() }), number: 3 }
        };
        // The other device of the VM, one that it does not have, a switch.
        assert!(link(0, 0x1a00).is_of(&machine, gpu));
        assert!(!link(0, 0x1b00).is_of(&machine, gpu));
        assert!(link(2, 0x0001_0000_1b00).is_of(&machine, gpu));
        assert!(!Link { number: 4, ..link(0, 0x1a00) }.is_of(&machine, gpu));
        assert_eq!(address_of(0x0001_0000_1b03), PciAddress { domain: 0x1, bus: 0x1b, device: 3 });
    }
}
