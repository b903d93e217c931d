//! Memory pools as calls see them. What they hold is memory's business (`memory/pools.rs`).

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use cuda_api::CuResult;
use cuda_api::types::CUresult;

use crate::memory::{Memory, PoolId};

/// A pool.
pub(crate) struct Pool {
    pub(crate) id: PoolId,
    /// The device that it gives memory of.
    pub(crate) device: usize,
    /// The device's own, which nobody ends.
    pub(crate) default: bool,
    /// CU_MEMPOOL_ATTR_REUSE_… (1 to 3): remembered. Memory is given out again in any case only once its stream has come to the free.
    pub(crate) reuse: [AtomicU32; 3],
}

/// The pools that a device has without being asked.
pub(crate) struct DevicePools {
    pub(crate) default: Arc<Pool>,
    /// What cuMemAllocAsync takes from.
    pub(crate) current: Arc<Pool>,
}

/// Those of all devices, and names for others.
pub(crate) struct Pools {
    devices: Vec<DevicePools>,
    next: u64,
}

impl Pools {
    pub(crate) fn new(memory: &Memory, devices: usize) -> Self {
        let mut pools = Pools { devices: Vec::new(), next: 0 };
        for device in 0..devices {
            let default = pools.make(memory, device, true, 0);
            pools.devices.push(DevicePools { current: default.clone(), default });
        }
        pools
    }

    /// A device's.
    pub(crate) fn of(&mut self, device: usize) -> CuResult<&mut DevicePools> {
        self.devices.get_mut(device).ok_or(CUresult::INVALID_DEVICE)
    }

    /// A pool of a device that may have `most` bytes, 0 for no limit.
    pub(crate) fn create(&mut self, memory: &Memory, device: usize, most: u64) -> Arc<Pool> {
        self.make(memory, device, false, most)
    }

    fn make(&mut self, memory: &Memory, device: usize, default: bool, most: u64) -> Arc<Pool> {
        let id = PoolId(self.next);
        self.next = self.next.wrapping_add(1);
        memory.add_pool(id, device, most);
        Arc::new(Pool { id, device, default, reuse: [const { AtomicU32::new(1) }; 3] })
    }
}
