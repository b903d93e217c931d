//! Device memory. Of memory that processes outside of the VM use, the daemon does not tell.

use cuda_api::live::Live;

use crate::answer::{Answer, Return, give, version, version_of};
use crate::live;
use crate::machine::{Gpu, Machine};

/// nvmlMemory_t.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// nvmlMemory_v2_t.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryV2 {
    version: u32,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

/// What a device has, and what the VM's processes have of it.
///
/// # Errors
/// NOT_SUPPORTED where the daemon does not know what they have.
fn measure(live: &Live, gpu: &Gpu) -> Answer<Memory> {
    let total = gpu.info.total_memory_bytes;
    let used = live::used(live, gpu).ok_or(Return::NOT_SUPPORTED)?;
    Ok(Memory { total, free: total.saturating_sub(used), used })
}

/// nvmlDeviceGetMemoryInfo.
pub unsafe fn info(_: &Machine, gpu: &Gpu, memory: *mut Memory) -> Answer {
    if memory.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    // SAFETY: NVML's contract: room for the structure.
    unsafe { give(memory, measure(&live::ask()?, gpu)?) }
}

/// nvmlDeviceGetMemoryInfo_v2: nothing is known to be reserved.
pub unsafe fn info_v2(_: &Machine, gpu: &Gpu, memory: *mut MemoryV2) -> Answer {
    // SAFETY: NVML's contract: a structure that begins with its version.
    let asked = unsafe { version_of(memory) }?;
    if asked != version::<MemoryV2>(2) {
        return Err(Return::ARGUMENT_VERSION_MISMATCH);
    }
    let Memory { total, free, used } = measure(&live::ask()?, gpu)?;
    // SAFETY: the caller said that it is a structure of this version.
    unsafe { give(memory, MemoryV2 { version: asked, total, reserved: 0, free, used }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::tests::some;
    use crate::machine::tests::two;

    #[test]
    fn free_and_used_are_all_there_is() {
        assert_eq!((size_of::<Memory>(), size_of::<MemoryV2>()), (24, 40));
        let machine = two();
        let gpu = &machine.gpus[1];
        let total = gpu.info.total_memory_bytes;
        let one = Live { sessions: some().sessions[..1].to_vec(), ..Live::default() };
        assert_eq!(measure(&one, gpu), Ok(Memory { total, free: total - (1 << 20), used: 1 << 20 }));
        assert_eq!(measure(&some(), gpu), Ok(Memory { total, free: 0, used: total }));
        assert_eq!(measure(&some(), &machine.gpus[0]), Err(Return::NOT_SUPPORTED));
    }
}
