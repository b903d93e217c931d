//! Managed variables (`__managed__`). The driver has them in this process, where the CPU reads and writes them as the device does; the
//! guest has a copy at the same address and keeps it in line by vgpuManagedRead, vgpuManagedHashes and vgpuManagedWrite.
//!
//! They are used by CPU outside of any driver call, so they are taken out of the list before the driver may unmap them: before their
//! module or library is unloaded, and before any context ends.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::types::{CUresult, attribute, pointer_attribute};

use crate::Cuda;
use crate::context::Context;
use crate::driver::Raw;
use crate::lock::read;

/// Variables up to this many bytes stay in host memory. Longer ones are left to the driver, which moves what kernels use to the device:
/// that is worth more to them than a quick look at the bytes.
const KEPT_BYTES: u64 = 1 << 20;
/// CU_MEM_ADVISE_SET_PREFERRED_LOCATION and …_SET_ACCESSED_BY.
const PREFERRED_LOCATION: u32 = 3;
const ACCESSED_BY: u32 = 5;
/// CU_DEVICE_CPU.
const CPU: i32 = -1;

/// Managed variables of libraries that a context's end may take away: address, length, the library.
pub(crate) type Suspended = Vec<(u64, u64, Raw)>;

impl Cuda {
    /// The driver says that an address is managed memory.
    pub(crate) fn is_managed(&self, address: u64) -> bool {
        let mut managed = 0u64;
        let to = (&raw mut managed).cast();
        // SAFETY: room for more than the int that this attribute is.
        let asked = unsafe { self.driver.cuPointerGetAttribute(to, pointer_attribute::IS_MANAGED, address) };
        asked.is_ok() && managed != 0
    }

    /// The CPU may use managed memory while kernels run, on every device. Elsewhere a look at the wrong time would end this process.
    fn check_concurrent(&self) -> CuResult<()> {
        let (count,) = self.driver.cuDeviceGetCount()?;
        for ordinal in 0..count {
            let (device,) = self.driver.cuDeviceGet(ordinal)?;
            let (yes,) = self.driver.cuDeviceGetAttribute(attribute::CONCURRENT_MANAGED_ACCESS, device)?;
            if yes != 1 {
                self.warn_once(
                    "a __managed__ variable is refused: the device has no concurrent managed access",
                );
                return Err(CUresult::NOT_SUPPORTED);
            }
        }
        Ok(())
    }

    /// The guest has asked for a managed variable of a module, in a context, or of a library.
    pub(crate) fn add_managed(&self, at: u64, len: u64, owner: Raw, context: Option<u32>) -> CuResult<()> {
        self.check_concurrent()?;
        self.memory.add_managed(at, len, owner, context)?;
        // SAFETY: managed memory of the driver's, which the CPU may use at any time (just checked) until the driver unmaps it; it is
        // taken out of the list before that (`forget_managed`, `suspend_managed`).
        unsafe { self.managed.add(at, len) }?;
        self.keep_at_host(at, len);
        Ok(())
    }

    /// The guest's looks at a short variable do not move its page to and fro: it stays, and devices reach it over the bus.
    fn keep_at_host(&self, at: u64, len: u64) {
        let Ok(bytes) = usize::try_from(len) else { return };
        if len > KEPT_BYTES {
            return;
        }
        let devices = read(&self.contexts).all().into_iter().map(|context| context.device);
        for (advice, device) in
            std::iter::once((PREFERRED_LOCATION, CPU)).chain(devices.map(|d| (ACCESSED_BY, d)))
        {
            // SAFETY: managed memory of the driver's (the caller has asked); advice changes where it lies, not what it holds.
            if let Err(error) = unsafe { self.driver.cuMemAdvise(at, bytes, advice, device) } {
                log::debug!("advice {advice} for a managed variable: {error}");
            }
        }
    }

    /// A module or library is about to go.
    pub(crate) fn forget_managed(&self, owner: Raw) {
        for start in self.memory.remove_managed(owner) {
            self.managed.remove(start);
        }
    }

    /// A context is about to end: nobody uses managed variables that may go with it.
    pub(crate) fn suspend_managed(&self, context: &Arc<Context>) -> Suspended {
        self.memory.remove_managed_of(context.id, |start| {
            self.managed.remove(start);
        })
    }

    /// The context has ended: what is still managed memory may be used again.
    pub(crate) fn resume_managed(&self, suspended: Suspended) {
        for (at, len, owner) in suspended {
            let there = self.is_managed(at) && self.is_managed(at.saturating_add(len).saturating_sub(1));
            // A library that another thread has unloaded meanwhile has nothing there any more.
            if there && self.add_managed(at, len, owner, None).is_err() {
                log::warn!("a managed variable at {at:#x} is no longer kept in line");
            }
        }
    }
}
