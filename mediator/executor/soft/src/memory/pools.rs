//! Memory of pools. What is freed in a stream stays memory until the stream gets there, and the pool's after that: the pool gives it
//! out again, or gives it back when it is asked to.

use std::collections::BTreeMap;
use std::ops::Range;

use cuda_api::CuResult;
use cuda_api::access::DeviceAccess;
use cuda_api::host::Access;
use cuda_api::types::CUresult;

use super::{Allocation, Map, Memory, Purpose};
use crate::lock::{read, write};

/// Names a pool for the life of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolId(pub(crate) u64);

/// What a pool holds and held. Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Holds {
    /// Whose memory it gives.
    pub(crate) device: usize,
    /// How other devices may access it.
    pub(crate) access: DeviceAccess,
    /// How much it keeps for allocations to come.
    pub(crate) threshold: u64,
    /// How much it may have, 0 for no limit.
    pub(crate) most: u64,
    /// What is allocated.
    pub(crate) used: u64,
    /// What is memory.
    pub(crate) reserved: u64,
    /// The most that `used` has been since it was reset.
    pub(crate) used_high: u64,
    /// The most that `reserved` has been since it was reset.
    pub(crate) reserved_high: u64,
}

/// The pools' side of the map.
#[derive(Default)]
pub(super) struct Pools {
    /// A pool that is not here is ended and keeps nothing.
    holds: BTreeMap<PoolId, Holds>,
    /// Memory that nobody has.
    parked: Vec<(PoolId, u64, Allocation)>,
}

impl Pools {
    /// The device of a pool.
    pub(super) fn device(&self, pool: PoolId) -> CuResult<usize> {
        self.holds.get(&pool).map(|holds| holds.device).ok_or(CUresult::INVALID_VALUE)
    }

    /// Kernels of another device may write its memory, or read it: a pool gives both or nothing.
    pub(super) fn allows(&self, pool: PoolId, device: usize) -> bool {
        let by = self.holds.get(&pool).map_or(DeviceAccess::NONE, |holds| holds.access);
        by.allows(super::device_number(device), Access::Read)
    }

    fn took(&mut self, pool: PoolId, len: u64, fresh: bool) {
        if let Some(holds) = self.holds.get_mut(&pool) {
            holds.used = holds.used.saturating_add(len);
            if fresh {
                holds.reserved = holds.reserved.saturating_add(len);
            }
            holds.used_high = holds.used_high.max(holds.used);
            holds.reserved_high = holds.reserved_high.max(holds.reserved);
        }
    }
}

impl Map {
    /// Takes parked memory out until each pool that is meant keeps at most so much.
    fn unpark(&mut self, which: Option<PoolId>, keep: Option<u64>) -> Vec<(u64, Allocation)> {
        let Pools { holds, parked } = &mut self.pools;
        let mut gone = Vec::new();
        for (pool, start, allocation) in std::mem::take(parked) {
            let of = holds.get_mut(&pool);
            let limit = keep.unwrap_or_else(|| of.as_ref().map_or(0, |h| h.threshold));
            let left = of.as_ref().map_or(0, |h| h.reserved.saturating_sub(allocation.len));
            let meant = which.is_none_or(|which| which == pool);
            // At least as much as was asked for stays.
            if meant && (of.is_none() || left >= limit) {
                if let Some(holds) = of {
                    holds.reserved = left;
                }
                gone.push((start, allocation));
            } else {
                parked.push((pool, start, allocation));
            }
        }
        gone
    }
}

impl Memory {
    /// A new pool of a device's memory.
    pub(crate) fn add_pool(&self, pool: PoolId, device: usize, most: u64) {
        write(&self.map).pools.holds.insert(pool, Holds { device, most, ..Holds::default() });
    }

    /// A pool is ended: what it keeps goes, and later what is still allocated from it.
    pub(crate) fn end_pool(&self, pool: PoolId) {
        write(&self.map).pools.holds.remove(&pool);
        self.trim(Some(pool), None);
    }

    /// What a pool holds.
    pub(crate) fn holds(&self, pool: PoolId) -> CuResult<Holds> {
        read(&self.map).pools.holds.get(&pool).copied().ok_or(CUresult::INVALID_VALUE)
    }

    /// Changes what a pool keeps, or resets what it has been.
    pub(crate) fn change_holds(&self, pool: PoolId, change: impl FnOnce(&mut Holds)) -> CuResult<()> {
        write(&self.map).pools.holds.get_mut(&pool).map(change).ok_or(CUresult::INVALID_VALUE)
    }

    /// Memory from a pool: what it keeps of just this size, or new.
    pub(crate) fn allocate_pooled(&self, len: u64, avoid: Vec<Range<u64>>, pool: PoolId) -> CuResult<u64> {
        {
            let mut map = write(&self.map);
            let holds = map.pools.holds.get(&pool).ok_or(CUresult::INVALID_VALUE)?;
            if holds.most != 0 && holds.used.saturating_add(len) > holds.most {
                return Err(CUresult::OUT_OF_MEMORY);
            }
            let fits = |start: u64| {
                let end = start.saturating_add(len);
                !avoid.iter().any(|range| start < range.end && range.start < end)
            };
            let found =
                map.pools.parked.iter().position(|(of, at, a)| *of == pool && a.len == len && fits(*at));
            if let Some(index) = found {
                let (_, start, allocation) = map.pools.parked.swap_remove(index);
                map.allocations.insert(start, Allocation { ending: false, ..allocation });
                map.pools.took(pool, len, false);
                return Ok(start);
            }
        }
        let start = self.allocate(len, avoid, 0, Purpose::Pooled(pool))?;
        write(&self.map).pools.took(pool, len, true);
        Ok(start)
    }

    /// There is memory of a pool at exactly this address, and it is not being freed.
    pub(crate) fn is_pooled(&self, start: u64) -> bool {
        let pooled = |a: &Allocation| matches!(a.purpose, Purpose::Pooled(_)) && !a.ending;
        read(&self.map).allocations.get(&start).is_some_and(pooled)
    }

    /// A call frees memory of a pool: from now on no call finds it; what is in a stream already does.
    pub(crate) fn end_pooled(&self, start: u64) -> CuResult<()> {
        match write(&self.map).allocations.get_mut(&start) {
            Some(a) if matches!(a.purpose, Purpose::Pooled(_)) && !a.ending => {
                a.ending = true;
                Ok(())
            }
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    /// The stream has got to the free: the memory is the pool's again.
    pub(crate) fn park(&self, start: u64) {
        let mut map = write(&self.map);
        let Some(Purpose::Pooled(pool)) = map.allocations.get(&start).map(|a| a.purpose) else { return };
        let Some(allocation) = map.allocations.remove(&start) else { return };
        if let Some(holds) = map.pools.holds.get_mut(&pool) {
            holds.used = holds.used.saturating_sub(allocation.len);
        }
        map.pools.parked.push((pool, start, allocation));
    }

    /// Gives back what pools keep above `keep` bytes, or above their thresholds. While anybody uses memory nothing is given back:
    /// whoever found it before it was parked may still be at it, and waiting for kernels is not what the caller asked for.
    pub(crate) fn trim(&self, pool: Option<PoolId>, keep: Option<u64>) {
        if read(&self.map).pools.parked.is_empty() || !self.usage.idle() {
            return;
        }
        let gone = write(&self.map).unpark(pool, keep);
        self.give_back(gone);
    }

    /// Pools give back what they keep if a device has less room than this otherwise.
    pub(super) fn make_room(&self, device: usize, len: u64) {
        if read(&self.map).room(device) < len {
            self.trim(None, Some(0));
        }
    }
}
