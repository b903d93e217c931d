//! The VM's devices as the probe found them, and how much memory of theirs the VM is shown: what its quota leaves of each.

use std::sync::Arc;

use cuda_api::info::VmInfo;
use cuda_api::live::DeviceMemory;

use crate::executor::SOFT_MEMORY_BYTES;
use crate::vm_page::VmPage;

/// Memory of a device in software comes in pieces of so many bytes.
const SOFT_GRANULE_BYTES: u64 = 2 << 20;

/// The devices.
pub(crate) struct Devices {
    /// The probe's blob, where it is one that can be read.
    info: Option<VmInfo>,
    blob: Arc<[u8]>,
    hardware: bool,
}

impl Devices {
    /// From the probe's blob.
    pub(crate) fn new(blob: Vec<u8>, hardware: bool) -> Self {
        let info = crate::executor::decode_info(&blob);
        Self { info, blob: blob.into(), hardware }
    }

    /// The probe's blob.
    pub(crate) fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The devices' UUIDs, by ordinal; None where they cannot be read.
    pub(crate) fn uuids(&self) -> Option<Vec<[u8; 16]>> {
        self.info.as_ref().map(|info| info.devices.iter().map(|device| device.uuid).collect())
    }

    /// The devices' names and UUIDs, by ordinal; none where they cannot be read.
    pub(crate) fn names(&self) -> Vec<(String, [u8; 16])> {
        let devices = self.info.iter().flat_map(|info| info.devices.iter());
        devices.map(|device| (device.name.clone(), device.uuid)).collect()
    }

    /// Says in the VM page which device is which.
    pub(crate) fn name_in(&self, page: &VmPage) {
        for (number, device) in self.info.iter().flat_map(|info| info.devices.iter()).enumerate() {
            page.set_uuid(number, &device.uuid);
        }
    }

    /// What the account allows, for a quota of the settings. A device in software is made of host memory, and has so much of it as it is
    /// given.
    pub(crate) fn allowed(&self, quota: Option<u64>) -> Option<u64> {
        if self.hardware { quota } else { Some(quota.unwrap_or(SOFT_MEMORY_BYTES)) }
    }

    fn total(&self, has: u64, quota: Option<u64>) -> u64 {
        if self.hardware {
            return quota.map_or(has, |quota| quota.min(has));
        }
        let given = quota.unwrap_or(SOFT_MEMORY_BYTES);
        given.saturating_sub(given.rem_euclid(SOFT_GRANULE_BYTES))
    }

    /// The blob for the guest, under a quota of the settings.
    pub(crate) fn shown(&self, quota: Option<u64>) -> Arc<[u8]> {
        let Some(info) = &self.info else { return Arc::clone(&self.blob) };
        let mut info = info.clone();
        for device in &mut info.devices {
            device.total_memory_bytes = self.total(device.total_memory_bytes, quota);
        }
        info.encode().into()
    }

    /// What the VM has of each device's memory, and uses of it.
    pub(crate) fn memory(&self, page: &VmPage, quota: Option<u64>) -> Vec<DeviceMemory> {
        let devices = self.info.iter().flat_map(|info| info.devices.iter()).enumerate();
        devices
            .map(|(number, device)| DeviceMemory {
                total: self.total(device.total_memory_bytes, quota),
                used: page.used(number),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use cuda_api::info::DeviceInfo;

    use super::*;

    fn devices(has: u64, hardware: bool) -> Devices {
        let device = DeviceInfo {
            name: "a device".into(),
            uuid: [7; 16],
            total_memory_bytes: has,
            attributes: Vec::new(),
            links: Vec::new(),
        };
        let info = VmInfo { driver_version: 1, stream_priorities: (0, 0), devices: vec![device] };
        Devices::new(info.encode(), hardware)
    }

    fn shown(devices: &Devices, quota: Option<u64>) -> u64 {
        let blob = devices.shown(quota);
        crate::executor::decode_info(&blob).expect("a blob").devices[0].total_memory_bytes
    }

    #[test]
    fn a_gpu_is_shown_as_large_as_the_quota_and_never_larger_than_it_is() {
        let gpu = devices(80 << 30, true);
        assert_eq!((shown(&gpu, None), gpu.allowed(None)), (80 << 30, None));
        assert_eq!((shown(&gpu, Some(16 << 30)), gpu.allowed(Some(16 << 30))), (16 << 30, Some(16 << 30)));
        assert_eq!(shown(&gpu, Some(1 << 40)), 80 << 30);
    }

    #[test]
    fn a_device_in_software_is_as_large_as_it_is_given() {
        let soft = devices(1 << 30, false);
        assert_eq!((shown(&soft, None), soft.allowed(None)), (SOFT_MEMORY_BYTES, Some(SOFT_MEMORY_BYTES)));
        assert_eq!(shown(&soft, Some((8 << 30) + 1)), 8 << 30);
    }

    #[test]
    fn what_is_no_blob_is_shown_as_it_is() {
        let other = Devices::new(vec![1, 2, 3], true);
        assert_eq!(*other.shown(Some(1)), [1, 2, 3]);
        let page = VmPage::create(&crate::Settings::default()).expect("a page");
        assert!(other.memory(&page, None).is_empty());
    }
}
