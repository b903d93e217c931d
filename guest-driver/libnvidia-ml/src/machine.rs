//! The VM's devices as NVML counts them: in the order of their PCI addresses, whatever CUDA_VISIBLE_DEVICES says.

use std::fmt::Write as _;

use cuda_api::info::{DeviceInfo, VmInfo};
use cuda_api::types::attribute;

use crate::answer::{Answer, Return};

/// A device's handle (nvmlDevice_t): the address of one of the bytes of [`HANDLES`].
pub type Handle = *const u8;

/// One byte for each device that there can be. What lies in it means nothing, its address is the device's handle; so a handle stays
/// what it is when a program ends NVML and starts it again.
static HANDLES: [u8; cuda_api::info::DEVICES_MAX] = [0; cuda_api::info::DEVICES_MAX];

/// A PCI address; the function is 0 for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    /// PCI domain.
    pub domain: u32,
    /// Bus.
    pub bus: u32,
    /// Device on the bus.
    pub device: u32,
}

/// A device.
#[derive(Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its number here.
    pub index: usize,
    /// Its number in the daemon's list, which [`cuda_api::info::DeviceInfo::links`] counts by.
    pub ordinal: usize,
    /// Where the host's driver has it.
    pub pci: PciAddress,
    /// What the daemon tells of it.
    pub info: DeviceInfo,
}

/// What the daemon told of the VM.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    /// The CUDA version of the driver, 1000 times the major number and 10 times the minor.
    pub cuda_version: i32,
    /// The devices by index.
    pub gpus: Vec<Gpu>,
}

impl PciAddress {
    /// `domain:bus:device.function` in hexadecimal with a domain of so many digits.
    pub fn text(self, domain_digits: usize) -> String {
        format!("{:0domain_digits$X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }

    /// Reads what [`PciAddress::text`] writes, in either case and with a domain of any length or none.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, function) = text.split_once('.').unwrap_or((text, "0"));
        let number = |part: &str| {
            // from_str_radix takes a sign, which no address has.
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u32::from_str_radix(part, 16).ok()).flatten()
        };
        if number(function)? != 0 {
            return None;
        }
        let parts: Vec<u32> = address.split(':').map(number).collect::<Option<_>>()?;
        match parts[..] {
            [domain, bus, device] => Some(Self { domain, bus, device }),
            [bus, device] => Some(Self { domain: 0, bus, device }),
            _ => None,
        }
    }
}

impl Gpu {
    /// An attribute that the driver has told, where it is not negative.
    pub fn attribute(&self, number: i32) -> Option<u32> {
        self.info.attribute(number).ok().and_then(|value| u32::try_from(value).ok())
    }

    /// An attribute of which 0 means that it is not known.
    ///
    /// # Errors
    /// NOT_SUPPORTED where it is not known.
    pub fn known(&self, number: i32) -> Answer<u32> {
        self.attribute(number).filter(|value| *value != 0).ok_or(Return::NOT_SUPPORTED)
    }

    /// Major and minor number of the compute capability.
    pub fn capability(&self) -> Option<(u32, u32)> {
        let number = |number| self.attribute(number);
        Some((number(attribute::COMPUTE_CAPABILITY_MAJOR)?, number(attribute::COMPUTE_CAPABILITY_MINOR)?))
    }

    /// The UUID as text.
    pub fn uuid_text(&self) -> String {
        let mut text = String::from("GPU");
        for (i, byte) in self.info.uuid.iter().enumerate() {
            if [0, 4, 6, 8, 10].contains(&i) {
                text.push('-');
            }
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        HANDLES.get(self.index).map_or(std::ptr::null(), |byte| &raw const *byte)
    }
}

impl Machine {
    /// Brings the devices into NVML's order. One without a PCI address cannot be found by it and comes last.
    pub fn new(info: VmInfo) -> Self {
        let pci = |device: &DeviceInfo| {
            let number = |n| device.attribute(n).ok().and_then(|value| u32::try_from(value).ok());
            Some(PciAddress {
                domain: number(attribute::PCI_DOMAIN_ID)?,
                bus: number(attribute::PCI_BUS_ID)?,
                device: number(attribute::PCI_DEVICE_ID)?,
            })
        };
        let nowhere = PciAddress { domain: u32::MAX, bus: 0, device: 0 };
        let mut gpus: Vec<Gpu> = info
            .devices
            .into_iter()
            .enumerate()
            .map(|(ordinal, info)| Gpu { index: 0, ordinal, pci: pci(&info).unwrap_or(nowhere), info })
            .collect();
        gpus.sort_by_key(|gpu| (gpu.pci, gpu.ordinal));
        gpus.iter_mut().enumerate().for_each(|(index, gpu)| gpu.index = index);
        Self { cuda_version: info.driver_version, gpus }
    }

    /// The device of a handle.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for anything that is none.
    pub fn gpu(&self, handle: Handle) -> Answer<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.handle() == handle).ok_or(Return::INVALID_ARGUMENT)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use cuda_api::info::Link;

    use super::*;

    /// A VM with two devices that CUDA counts the other way round; the first of them reaches the second.
    pub fn two() -> Machine {
        let device = |bus: i32, can_access| DeviceInfo {
            name: format!("NVIDIA Test {bus}"),
            uuid: *b"0123456789abcdef",
            total_memory_bytes: 1 << 34,
            attributes: (0..=attribute::LAST)
                .map(|number| {
                    Ok(match number {
                        attribute::PCI_BUS_ID => bus,
                        attribute::COMPUTE_CAPABILITY_MAJOR => 9,
                        attribute::MULTIPROCESSOR_COUNT => 132,
                        13 => 1_980_000,
                        _ => 0,
                    })
                })
                .collect(),
            links: vec![Link { can_access, ..Link::NONE }, Link { can_access, ..Link::NONE }],
        };
        let devices = vec![device(0xc1, true), device(0x1a, false)];
        Machine::new(VmInfo { driver_version: 13_000, stream_priorities: (0, 0), devices })
    }

    #[test]
    fn devices_are_counted_by_their_pci_addresses() {
        let machine = two();
        let seen: Vec<_> = machine.gpus.iter().map(|gpu| (gpu.index, gpu.ordinal, gpu.pci.text(8))).collect();
        assert_eq!(seen, [(0, 1, "00000000:1A:00.0".to_owned()), (1, 0, "00000000:C1:00.0".to_owned())]);
        assert_eq!(machine.gpus[1].uuid_text(), "GPU-30313233-3435-3637-3839-616263646566");
    }

    #[test]
    fn only_handles_of_devices_that_are_there_are_handles() {
        let machine = two();
        let handle = machine.gpus[1].handle();
        assert_eq!(machine.gpu(handle).map(|gpu| gpu.index), Ok(1));
        for wrong in [std::ptr::null(), handle.wrapping_add(1), handle.wrapping_add(1 << 20)] {
            assert_eq!(machine.gpu(wrong).map(|gpu| gpu.index), Err(Return::INVALID_ARGUMENT));
        }
    }

    #[test]
    fn pci_addresses() {
        let found = |text| PciAddress::parse(text).map(|a| (a.domain, a.bus, a.device));
        assert_eq!(found("0000:c1:00.0"), Some((0, 0xc1, 0)));
        assert_eq!(found("00000001:C1:1F.0"), Some((1, 0xc1, 31)));
        assert_eq!(found("c1:00"), Some((0, 0xc1, 0)));
        for wrong in ["", "c1", "c1:00.1", "0000:+1:00.0", "0:0:0:0", "no:pe"] {
            assert_eq!(found(wrong), None, "{wrong}");
        }
    }
}
