//! Device memory. All of it is the VM's quota, or the device's; what is free is what the host's NVML says, but no more than the VM's
//! processes have left. cuMemGetInfo says the same.

use cuda_api::live::{Live, number};

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

/// What a device has, and what is left of it.
///
/// # Errors
/// NOT_SUPPORTED where nobody knows.
fn measure(live: &Live, gpu: &Gpu) -> Answer<Memory> {
    let of_vm = live::memory(live, gpu);
    let total = of_vm.map_or(gpu.info.total_memory_bytes, |of_vm| of_vm.total);
    let left = of_vm.map(|of_vm| total.saturating_sub(of_vm.used));
    let free = live::number_of(live.readings.as_ref(), gpu, number::MEMORY_FREE);
    let free = match (left, free) {
        (Some(left), Some(free)) => left.min(free),
        (Some(known), None) | (None, Some(known)) => known.min(total),
        (None, None) => return Err(Return::NOT_SUPPORTED),
    };
    Ok(Memory { total, free, used: total.saturating_sub(free) })
}

/// nvmlDeviceGetMemoryInfo.
pub unsafe fn info(_: &Machine, gpu: &Gpu, memory: *mut Memory) -> Answer {
    if memory.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    // SAFETY: NVML's contract: room for the structure.
    unsafe { give(memory, measure(&live::ask_fresh()?, gpu)?) }
}

/// nvmlDeviceGetMemoryInfo_v2: nothing is known to be reserved.
pub unsafe fn info_v2(_: &Machine, gpu: &Gpu, memory: *mut MemoryV2) -> Answer {
    // SAFETY: NVML's contract: a structure that begins with its version.
    let asked = unsafe { version_of(memory) }?;
    if asked != version::<MemoryV2>(2) {
        return Err(Return::ARGUMENT_VERSION_MISMATCH);
    }
    let Memory { total, free, used } = measure(&live::ask_fresh()?, gpu)?;
    // SAFETY: the caller said that it is a structure of this version.
    unsafe { give(memory, MemoryV2 { version: asked, total, reserved: 0, free, used }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cuda_api::live::DeviceMemory;

    use crate::live::tests::readings;
    use crate::machine::tests::two;

    #[test]
    fn free_and_used_are_all_there_is() {
        assert_eq!((size_of::<Memory>(), size_of::<MemoryV2>()), (24, 40));
        let machine = two();
        let gpu = &machine.gpus[1];
        let total = gpu.info.total_memory_bytes;
        let with = |total, used| {
            let nothing = DeviceMemory { total: 0, used: 0 };
            let mut memory = vec![nothing; gpu.ordinal + 1];
            memory[gpu.ordinal] = DeviceMemory { total, used };
            Live { memory, ..Live::default() }
        };
        let one = with(total, 1 << 20);
        assert_eq!(measure(&one, gpu), Ok(Memory { total, free: total - (1 << 20), used: 1 << 20 }));
        assert_eq!(measure(&with(total, u64::MAX), gpu), Ok(Memory { total, free: 0, used: total }));
        assert_eq!(measure(&Live::default(), gpu), Err(Return::NOT_SUPPORTED));
        // The quota was changed since the program started.
        assert_eq!(measure(&with(1 << 20, 0), gpu), Ok(Memory { total: 1 << 20, free: 1 << 20, used: 0 }));

        // What others use is not free either; what is free of more than the VM's share is not the VM's.
        let reading = |free| Some(readings(gpu, number::MEMORY_FREE, free));
        let free = |live: &Live, reading| {
            measure(&Live { readings: reading, ..live.clone() }, gpu).map(|memory| memory.free)
        };
        assert_eq!(free(&one, reading(1 << 10)), Ok(1 << 10));
        assert_eq!(free(&one, reading(u64::MAX)), Ok(total - (1 << 20)));
        assert_eq!(free(&with(total, 0), reading(u64::MAX)), Ok(total));
        assert_eq!(free(&Live::default(), reading(1 << 10)), Ok(1 << 10));
    }
}
