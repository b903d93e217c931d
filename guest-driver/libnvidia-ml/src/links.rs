//! From device to device: what of one's memory the other reaches, and how far apart they are.

use std::ffi::c_uint;

use cuda_api::live::number::{self, PEER_TOPOLOGY};

use crate::answer::{Answer, Return, give};
use crate::live;
use crate::machine::{Gpu, Handle, Machine};

const CAPS_READ: u32 = 0;
const CAPS_WRITE: u32 = 1;
const CAPS_NVLINK: u32 = 2;
const CAPS_ATOMICS: u32 = 3;
const CAPS_PCI: u32 = 4;

const STATUS_OK: u32 = 0;
const STATUS_NOT_SUPPORTED: u32 = 5;
const STATUS_UNKNOWN: u32 = 6;

/// CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED as an index of [`cuda_api::info::Link::attributes`].
const NATIVE_ATOMICS: usize = 2;
/// On one board.
const TOPOLOGY_INTERNAL: u32 = 0;

/// nvmlDeviceGetP2PStatus: what cuDeviceCanAccessPeer and cuDeviceGetP2PAttribute say. A device reaches itself. By what the devices
/// are joined only the host's NVML knows: without it, that is unknown, not unsupported.
pub unsafe fn peer_status(
    machine: &Machine,
    gpu: &Gpu,
    other: Handle,
    caps: c_uint,
    status: *mut c_uint,
) -> Answer {
    let other = machine.gpu(other)?;
    let link = gpu.info.links.get(other.ordinal);
    let yes = |can: bool| if can { STATUS_OK } else { STATUS_NOT_SUPPORTED };
    let told = match caps {
        CAPS_READ | CAPS_WRITE | CAPS_ATOMICS if gpu.index == other.index => STATUS_OK,
        CAPS_READ | CAPS_WRITE => yes(link.is_some_and(|link| link.can_access)),
        CAPS_ATOMICS => yes(link.and_then(|link| link.attributes.get(NATIVE_ATOMICS)) == Some(&Ok(1))),
        CAPS_NVLINK | CAPS_PCI => match of_peer(gpu, other, caps) {
            Err(Return::NOT_SUPPORTED) => STATUS_UNKNOWN,
            known => known?,
        },
        _ => return Err(Return::INVALID_ARGUMENT),
    };
    // SAFETY: NVML's contract: room for the enumeration.
    unsafe { give(status, told) }
}

/// What the host's NVML says of one device towards another.
fn of_peer(gpu: &Gpu, other: &Gpu, index: u32) -> Answer<u32> {
    let ordinal = u32::try_from(other.ordinal).map_err(|_| Return::UNKNOWN)?;
    live::fixed(gpu, number::peer(ordinal, index))
}

/// nvmlDeviceGetTopologyCommonAncestor: a device and itself have their board in common; of others only the host's NVML knows.
pub unsafe fn common_ancestor(machine: &Machine, gpu: &Gpu, other: Handle, level: *mut c_uint) -> Answer {
    let other = machine.gpu(other)?;
    let told = if other.index == gpu.index { TOPOLOGY_INTERNAL } else { of_peer(gpu, other, PEER_TOPOLOGY)? };
    // SAFETY: NVML's contract: room for the enumeration.
    unsafe { give(level, told) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::two;

    #[test]
    fn what_a_device_reaches() {
        let machine = two();
        let ask = |from: usize, to: usize, caps| {
            let mut status = 99;
            let (gpu, other) = (&machine.gpus[from], machine.gpus[to].handle());
            // SAFETY: room for the status.
            unsafe { peer_status(&machine, gpu, other, caps, &raw mut status) }.map(|()| status)
        };
        for caps in [CAPS_READ, CAPS_WRITE] {
            assert_eq!(ask(0, 0, caps), Ok(STATUS_OK));
            assert_eq!(ask(1, 0, caps), Ok(STATUS_OK));
            assert_eq!(ask(0, 1, caps), Ok(STATUS_NOT_SUPPORTED));
        }
        assert_eq!(ask(1, 0, CAPS_ATOMICS), Ok(STATUS_NOT_SUPPORTED));
        assert_eq!(ask(1, 0, 5), Err(Return::INVALID_ARGUMENT));
    }
}
