//! Memory pools, and what they take of the VM's account of device memory.
//!
//! A pool is charged for what it has reserved, not for what is allocated from it: memory that was freed in a stream stays the
//! pool's until the device is done with it, and longer where its release threshold says so. Where there is a quota, a pool that the
//! guest has ended is kept until it holds nothing any more: what it holds would be nobody's otherwise. Where there is none, the driver
//! is not asked what pools hold; a quota that comes later counts them from then on.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use cuda_api::CuResult;
use cuda_api::account::Account;
use cuda_api::types::CUresult;

use crate::Cuda;
use crate::driver::{Driver, Raw};
use crate::lock::lock;

/// CU_MEMPOOL_ATTR_RELEASE_THRESHOLD and …_RESERVED_MEM_CURRENT.
const RELEASE_THRESHOLD: u32 = 4;
const RESERVED_CURRENT: u32 = 5;
/// CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT.
const GRAPHS_RESERVED_CURRENT: u32 = 2;

/// Something that holds device memory for allocations to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reserve {
    /// A pool, of a device.
    Pool(Raw, i32),
    /// A device's memory for graphs.
    Graphs(i32),
}

impl Reserve {
    fn device(self) -> i32 {
        match self {
            Self::Pool(_, device) | Self::Graphs(device) => device,
        }
    }
}

/// What is charged for.
#[derive(Default)]
pub(crate) struct Charges {
    bytes: HashMap<Reserve, u64>,
    /// Pools that the guest has ended.
    ended: Vec<(Raw, i32)>,
}

impl Charges {
    /// Pools that are ended and not gone.
    pub(crate) fn ended(&self) -> usize {
        self.ended.len()
    }
}

/// A pool.
pub(crate) struct Pool {
    pub(crate) driver: &'static Driver,
    pub(crate) raw: Raw,
    pub(crate) device: i32,
    /// The device's default pool, which is the driver's own.
    pub(crate) default: bool,
    /// Where it goes when it is ended, if there is a quota to be kept.
    pub(crate) charges: Arc<Mutex<Charges>>,
    /// Which says so.
    pub(crate) account: Arc<dyn Account>,
    pub(crate) counted_as: usize,
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.default || self.driver.sticky() != 0 {
            return;
        }
        let mut charges = lock(&self.charges);
        let is_charged =
            charges.bytes.get(&Reserve::Pool(self.raw, self.device)).is_some_and(|bytes| *bytes != 0);
        if is_charged || self.account.quota(self.counted_as).is_some() {
            if let Err(error) = set_attribute(self.driver, self.raw, RELEASE_THRESHOLD, 0) {
                log::debug!("an ended pool keeps its release threshold: {error}");
            }
            charges.ended.push((self.raw, self.device));
        } else {
            charges.bytes.remove(&Reserve::Pool(self.raw, self.device));
            // The driver has logged what it answered.
            let _ = self.driver.cuMemPoolDestroy(self.raw);
        }
    }
}

/// An attribute of a pool: 32-bit ones are the low half.
pub(crate) fn attribute(driver: &Driver, pool: Raw, number: u32) -> CuResult<u64> {
    let mut value = 0u64;
    let to: *mut c_void = (&raw mut value).cast();
    // SAFETY: a local of 8 bytes, the widest that an attribute is.
    unsafe { driver.cuMemPoolGetAttribute(pool, number, to) }?;
    Ok(value)
}

pub(crate) fn set_attribute(driver: &Driver, pool: Raw, number: u32, value: u64) -> CuResult<()> {
    let mut value = value;
    let from: *mut c_void = (&raw mut value).cast();
    // SAFETY: a local of 8 bytes, little endian: a 32-bit attribute is its low half.
    unsafe { driver.cuMemPoolSetAttribute(pool, number, from) }
}

fn reserved(driver: &Driver, of: Reserve) -> CuResult<u64> {
    match of {
        Reserve::Pool(pool, _) => attribute(driver, pool, RESERVED_CURRENT),
        Reserve::Graphs(device) => {
            let mut value = 0u64;
            let to: *mut c_void = (&raw mut value).cast();
            // SAFETY: a local of 8 bytes, as every graph memory attribute is wide.
            unsafe { driver.cuDeviceGetGraphMemAttribute(device, GRAPHS_RESERVED_CURRENT, to) }?;
            Ok(value)
        }
    }
}

impl Cuda {
    /// How many bytes of a reserve's device the VM has left; `None`: there is no quota to keep.
    fn left(&self, of: Reserve) -> Option<u64> {
        self.account.left(self.counted_as(of.device()))
    }

    fn over(&self, of: Reserve) -> bool {
        let device = self.counted_as(of.device());
        self.account.quota(device).is_some_and(|quota| self.account.used(device) > quota)
    }

    fn has_quota(&self, of: Reserve) -> bool {
        self.account.quota(self.counted_as(of.device())).is_some()
    }

    /// Charges for what a reserve holds now.
    fn settle(&self, charges: &mut Charges, of: Reserve) {
        let Ok(now) = reserved(self.driver, of) else { return };
        let before = charges.bytes.insert(of, now).unwrap_or(0);
        if now >= before {
            self.account.add(self.counted_as(of.device()), now.saturating_sub(before));
        } else {
            self.give_back(of.device(), before.saturating_sub(now));
        }
    }

    /// Charges for what all reserves hold now; with `trim`, after they have given back what they can.
    pub(crate) fn settle_reserves(&self, trim: bool) {
        let mut charges = lock(&self.charges);
        let known: Vec<Reserve> = charges.bytes.keys().copied().filter(|of| self.has_quota(*of)).collect();
        for of in known {
            if trim {
                // What it cannot give back it keeps.
                let _ = match of {
                    Reserve::Pool(pool, _) => self.driver.cuMemPoolTrimTo(pool, 0),
                    Reserve::Graphs(device) => self.driver.cuDeviceGraphMemTrim(device),
                };
            }
            self.settle(&mut charges, of);
        }
        let ended = std::mem::take(&mut charges.ended);
        for (pool, device) in ended {
            let of = Reserve::Pool(pool, device);
            let _ = self.driver.cuMemPoolTrimTo(pool, 0);
            self.settle(&mut charges, of);
            if charges.bytes.get(&of) == Some(&0) {
                charges.bytes.remove(&of);
                // The driver has logged what it answered.
                let _ = self.driver.cuMemPoolDestroy(pool);
            } else {
                charges.ended.push((pool, device));
            }
        }
    }

    /// The VM's account has room for so many bytes more in a reserve, which may have some of them already.
    pub(crate) fn check_room(&self, of: Reserve, len: u64) -> CuResult<()> {
        let fits = || {
            let unused = match of {
                Reserve::Pool(pool, _) => {
                    reserved(self.driver, of).unwrap_or(0).saturating_sub(self.memory.pooled_bytes(pool))
                }
                // What graphs have already serves this one, too: they take turns, or the launch is refused.
                Reserve::Graphs(_) => reserved(self.driver, of).unwrap_or(0),
            };
            self.left(of).is_none_or(|left| len <= left.saturating_add(unused))
        };
        if !self.has_quota(of) || fits() {
            return Ok(());
        }
        self.settle_reserves(true);
        if fits() { Ok(()) } else { Err(CUresult::OUT_OF_MEMORY) }
    }

    /// Charges for an allocation that a reserve has made. It is refused where the VM has more than its quota then.
    pub(crate) fn charge_reserve(&self, of: Reserve) -> CuResult<()> {
        if !self.has_quota(of) {
            // Remembered, for a quota that comes later.
            lock(&self.charges).bytes.entry(of).or_insert(0);
            return Ok(());
        }
        self.settle(&mut lock(&self.charges), of);
        if self.over(of) {
            self.settle_reserves(true);
        }
        if self.over(of) { Err(CUresult::OUT_OF_MEMORY) } else { Ok(()) }
    }

    /// Launches a graph in a context of a device. Its memory is charged for when it has it: while the VM has more than its quota, no
    /// graph that could take more is launched.
    pub(crate) fn launch_charged(&self, device: i32, launch: impl FnOnce() -> CuResult<()>) -> CuResult<()> {
        let of = Reserve::Graphs(device);
        if !self.has_quota(of) || !self.memory.has_graph_memory() {
            return launch();
        }
        if self.over(of) {
            self.settle_reserves(true);
        }
        if self.over(of) {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        launch()?;
        self.settle_reserves(false);
        Ok(())
    }
}
