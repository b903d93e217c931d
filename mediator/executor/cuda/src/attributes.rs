//! What the guest is told about the devices: the driver's own answers, except where the honest answer in a VM is another.

use std::ffi::c_char;

use cuda_api::info::{
    ATOMIC_OPERATIONS, AttributeValue, DEVICES_MAX, DeviceInfo, Link, P2P_ATTRIBUTES, VmInfo,
};
use cuda_api::types::{CUresult, attribute};

use crate::driver::Driver;
use crate::{Config, Unavailable, dl};

const PAGEABLE_MEMORY_ACCESS: i32 = 88;
const CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM: i32 = 91;

/// What an attribute is in a VM, whatever the host's is; `None` where the host's is the answer.
fn in_a_vm(number: i32) -> Option<i32> {
    match number {
        // Managed memory (83) is pinned host memory: host and device may access it at once (89). It is not on the device (101).
        83 | 89 => Some(1),
        101 => Some(0),
        // Pageable memory (88, 100): the GPU cannot reach a guest process's memory that is not registered.
        88 | 100 => Some(0),
        // Native atomics to host memory over a link that the guest's memory does not have (86, 147).
        86 | 147 => Some(0),
        // Cooperative launch on several devices (96): on one it is an ordinary cooperative launch, without a grid of several devices. Flushing
        // remote writes (98) is refused by the table.
        96 | 98 => Some(0),
        // Handles that leave the process: Windows' (104, 105), fabric (128).
        104 | 105 | 128 => Some(0),
        // GPUDirect RDMA and DMA-BUF (110, 116 to 118, 124, 146): there is no peer device in the VM.
        110 | 116..=118 | 124 | 146 => Some(0),
        // Sparse and deferred arrays (112, 121) can be made, but no memory be mapped into them. Timeline semaphores (114): refused by the
        // table.
        112 | 114 | 121 => Some(0),
        // Pools that processes share (119), NUMA and host pools and their virtual memory (141 to 145): refused by the table.
        119 | 141..=145 => Some(0),
        // Function pointers of kernels (129), multicast (132), MPS (133), graphics (135, 138), decompression (136, 137).
        129 | 132 | 133 | 135..=138 => Some(0),
        // NUMA: no configuration (130), and the host's nodes (131, 134) mean nothing in the guest.
        130 => Some(0),
        131 | 134 => Some(-1),
        _ => None,
    }
}

/// An attribute as the guest is told it, from what the driver said.
fn told(number: i32, host: AttributeValue) -> AttributeValue {
    match (host, in_a_vm(number)) {
        // A number that an older host does not know stays unknown.
        (Ok(_), Some(value)) => Ok(value),
        (host, _) => host,
    }
}

/// Why a device with these attributes cannot be served.
fn refusal(attribute: impl Fn(i32) -> AttributeValue) -> Option<&'static str> {
    if attribute(PAGEABLE_MEMORY_ACCESS) != Ok(0) {
        return Some(
            "the GPU reads and writes any memory of a process (PAGEABLE_MEMORY_ACCESS), a worker's own included: turn \
             HMM off (uvm_disable_hmm=1 for the module nvidia_uvm)",
        );
    }
    if attribute(attribute::UNIFIED_ADDRESSING) != Ok(1) {
        return Some("it has no unified addressing");
    }
    if attribute(CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM) != Ok(1) {
        return Some("it gives registered host memory other addresses than the host's");
    }
    None
}

fn failed(call: &'static str) -> impl Fn(CUresult) -> Unavailable {
    move |result| Unavailable::Driver { call, result }
}

/// The driver of this process, initialised, and what it has. There is no context yet, and so no memory of a device in use.
pub struct Started {
    pub(crate) driver: &'static Driver,
    pub(crate) info: VmInfo,
    pub(crate) config: Config,
}

/// Loads and initialises the driver, and reads what it has. The driver starts threads, and has read the environment then.
///
/// # Errors
/// [`Unavailable`]: no driver, no device, or a device that cannot be served. Another attempt asks the driver again.
pub fn start(config: Config) -> Result<Started, Unavailable> {
    let driver = dl::driver()?;
    driver.cuInit(0).map_err(failed("cuInit"))?;
    let info = read(driver, config)?;
    Ok(Started { driver, info, config })
}

/// What the guest is told about the host's devices. A context is made and ended on the first of them.
///
/// # Errors
/// [`Unavailable`]: no driver, no device, or a device that cannot be served.
pub fn probe(config: Config) -> Result<VmInfo, Unavailable> {
    let Started { driver, mut info, .. } = start(config)?;
    let (device,) = driver.cuDeviceGet(0).map_err(failed("cuDeviceGet"))?;
    let (context,) = driver.cuDevicePrimaryCtxRetain(device).map_err(failed("cuDevicePrimaryCtxRetain"))?;
    let range = driver.cuCtxSetCurrent(context).and_then(|()| driver.cuCtxGetStreamPriorityRange());
    info.stream_priorities = range.map_err(failed("cuCtxGetStreamPriorityRange"))?;
    driver.cuDevicePrimaryCtxRelease_v2(device).map_err(failed("cuDevicePrimaryCtxRelease"))?;
    Ok(info)
}

fn read(driver: &Driver, config: Config) -> Result<VmInfo, Unavailable> {
    let (version,) = driver.cuDriverGetVersion().map_err(failed("cuDriverGetVersion"))?;
    let (count,) = driver.cuDeviceGetCount().map_err(failed("cuDeviceGetCount"))?;
    if count < 1 {
        return Err(Unavailable::Driver { call: "cuDeviceGetCount", result: CUresult::NO_DEVICE });
    }
    let most = i32::try_from(DEVICES_MAX).unwrap_or(i32::MAX);
    let ordinals = 0..count.min(most);
    let mut devices = ordinals
        .clone()
        .map(|ordinal| device(driver, ordinal, config))
        .collect::<Result<Vec<DeviceInfo>, _>>()?;
    for (from, device) in ordinals.clone().zip(&mut devices) {
        device.links = ordinals.clone().map(|to| link(driver, from, to)).collect::<Result<_, _>>()?;
    }
    Ok(VmInfo { driver_version: version.min(cuda_api::DRIVER_VERSION), stream_priorities: (0, 0), devices })
}

fn device(driver: &Driver, ordinal: i32, config: Config) -> Result<DeviceInfo, Unavailable> {
    let (device,) = driver.cuDeviceGet(ordinal).map_err(failed("cuDeviceGet"))?;
    let mut name = [0u8; 256];
    // SAFETY: room of the length that is given, which is less than the array's by the NUL that ends it.
    unsafe { driver.cuDeviceGetName(name.as_mut_ptr().cast::<c_char>(), 255, device) }
        .map_err(failed("cuDeviceGetName"))?;
    let name = name.split(|b| *b == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    let (uuid,) = driver.cuDeviceGetUuid_v2(device).map_err(failed("cuDeviceGetUuid"))?;
    let (total,) = driver.cuDeviceTotalMem_v2(device).map_err(failed("cuDeviceTotalMem"))?;
    let ask = |number| driver.cuDeviceGetAttribute(number, device).map(|(value,)| value);
    if let Some(reason) = refusal(ask) {
        return Err(Unavailable::Device { device: ordinal, name, reason });
    }
    let attributes = std::iter::once(Err(CUresult::INVALID_VALUE))
        .chain((1..=attribute::LAST).map(|number| told(number, ask(number))))
        .collect();
    let total = total as u64;
    Ok(DeviceInfo {
        name,
        uuid,
        total_memory_bytes: config.memory_bytes.map_or(total, |quota| quota.min(total)),
        attributes,
        links: Vec::new(),
    })
}

/// What a device can do with another one's memory, in the driver's words.
fn link(driver: &Driver, from: i32, to: i32) -> Result<Link, Unavailable> {
    if from == to {
        return Ok(Link::NONE);
    }
    let (can,) = driver.cuDeviceCanAccessPeer(from, to).map_err(failed("cuDeviceCanAccessPeer"))?;
    let mut number = 0u32;
    let attributes = [(); P2P_ATTRIBUTES].map(|()| {
        number = number.saturating_add(1);
        driver.cuDeviceGetP2PAttribute(number, from, to).map(|(value,)| value)
    });
    let mut operation = 0u32;
    let operations = [(); ATOMIC_OPERATIONS].map(|()| {
        let this = operation;
        operation = operation.saturating_add(1);
        this
    });
    let mut atomics = [0u32; ATOMIC_OPERATIONS];
    let count = u32::try_from(ATOMIC_OPERATIONS).unwrap_or(0);
    // SAFETY: both arrays have so many elements.
    let known = unsafe {
        driver.cuDeviceGetP2PAtomicCapabilities(atomics.as_mut_ptr(), operations.as_ptr(), count, from, to)
    };
    // Drivers of before CUDA 13 do not know the question: no operation is promised then.
    if known.is_err() {
        atomics = Link::NONE.atomics;
    }
    Ok(Link { can_access: can != 0, attributes, atomics })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vm_does_not_have_is_told_so() {
        for number in [86, 88, 100, 101, 104, 110, 116, 119, 124, 128, 132] {
            assert_eq!(told(number, Ok(1)), Ok(0), "attribute {number}");
        }
        for number in [131, 134] {
            assert_eq!(told(number, Ok(3)), Ok(-1), "attribute {number}");
        }
        // Managed memory is our own, whatever the host has.
        for number in [83, 89] {
            assert_eq!(told(number, Ok(0)), Ok(1), "attribute {number}");
        }
        for number in [1, 10, 16, 33, 41, 75, 76, 91, 95, 97, 99, 102, 103, 113, 115, 120, 122, 125, 127] {
            assert_eq!(told(number, Ok(17)), Ok(17), "attribute {number}");
        }
    }

    #[test]
    fn what_the_host_does_not_know_stays_unknown() {
        assert_eq!(told(147, Err(CUresult::INVALID_VALUE)), Err(CUresult::INVALID_VALUE));
        assert_eq!(told(92, Err(CUresult::NOT_SUPPORTED)), Err(CUresult::NOT_SUPPORTED));
    }

    #[test]
    fn a_device_that_reaches_every_memory_is_refused() {
        let h100 = |number| match number {
            PAGEABLE_MEMORY_ACCESS => Ok(0),
            _ => Ok(1),
        };
        assert_eq!(refusal(h100), None);
        let hmm = refusal(|_| Ok(1)).unwrap();
        assert!(hmm.contains("uvm_disable_hmm=1"), "{hmm}");
        let other = |number| if number == PAGEABLE_MEMORY_ACCESS { Err(CUresult::UNKNOWN) } else { Ok(1) };
        assert!(refusal(other).is_some());
        let moved =
            |number| if number == CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM { Ok(0) } else { h100(number) };
        assert!(refusal(moved).unwrap().contains("addresses"));
    }
}
