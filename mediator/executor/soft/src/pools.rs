//! Memory pools as calls see them. What they hold is memory's business (`memory/pools.rs`).

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::memory::{Memory, PoolId};

/// A pool.
pub(crate) struct Pool {
    pub(crate) id: PoolId,
    /// The device's own, which nobody ends.
    pub(crate) default: bool,
    /// CU_MEMPOOL_ATTR_REUSE_… (1 to 3): remembered. Memory is given out again in any case only once its stream has come to the free.
    pub(crate) reuse: [AtomicU32; 3],
}

impl Pool {
    fn new(id: u64, default: bool) -> Arc<Self> {
        Arc::new(Pool { id: PoolId(id), default, reuse: [const { AtomicU32::new(1) }; 3] })
    }
}

/// The pools that a device has without being asked, and names for others.
pub(crate) struct Pools {
    pub(crate) default: Arc<Pool>,
    /// What cuMemAllocAsync takes from.
    pub(crate) current: Arc<Pool>,
    next: u64,
}

impl Pools {
    pub(crate) fn new(memory: &Memory) -> Self {
        let default = Pool::new(0, true);
        memory.add_pool(default.id, 0);
        Pools { current: default.clone(), default, next: 1 }
    }

    /// A pool that may have `most` bytes, 0 for no limit.
    pub(crate) fn create(&mut self, memory: &Memory, most: u64) -> Arc<Pool> {
        let pool = Pool::new(self.next, false);
        self.next = self.next.wrapping_add(1);
        memory.add_pool(pool.id, most);
        pool
    }
}
