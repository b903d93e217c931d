//! Clocks, in MHz.

use std::ffi::c_uint;

use cuda_api::live::number;

use crate::answer::{Answer, Return, give};
use crate::live;
use crate::machine::{Gpu, Machine};

/// Attributes of CUDA: the highest rates, in kHz.
const CLOCK_RATE: i32 = 13;
const MEMORY_CLOCK_RATE: i32 = 36;

const GRAPHICS: u32 = 0;
const MULTIPROCESSORS: u32 = 1;
const MEMORY: u32 = 2;
const VIDEO: u32 = 3;

/// nvmlDeviceGetClockInfo: the clock as the host's NVML reads it.
pub unsafe fn current(_: &Machine, gpu: &Gpu, kind: c_uint, mhz: *mut c_uint) -> Answer {
    if kind > VIDEO || mhz.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(mhz, live::now(gpu, number::CLOCK_MHZ + kind)?) }
}

/// nvmlDeviceGetMaxClockInfo, from what CUDA says of the device. Of video engines it says nothing: that is for the host's NVML.
pub unsafe fn highest(_: &Machine, gpu: &Gpu, kind: c_uint, mhz: *mut c_uint) -> Answer {
    let attribute = match kind {
        GRAPHICS | MULTIPROCESSORS => CLOCK_RATE,
        MEMORY => MEMORY_CLOCK_RATE,
        // SAFETY: NVML's contract: room for an unsigned int.
        VIDEO => return unsafe { give(mhz, live::fixed(gpu, number::CLOCK_MAX_MHZ + VIDEO)?) },
        _ => return Err(Return::INVALID_ARGUMENT),
    };
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(mhz, gpu.known(attribute)? / 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::two;

    #[test]
    fn the_highest_clocks() {
        let machine = two();
        let ask = |kind| {
            let mut mhz = 0;
            // SAFETY: room for the number.
            unsafe { highest(&machine, &machine.gpus[0], kind, &raw mut mhz) }.map(|()| mhz)
        };
        assert_eq!((ask(GRAPHICS), ask(MULTIPROCESSORS)), (Ok(1980), Ok(1980)));
        assert_eq!(ask(MEMORY), Err(Return::NOT_SUPPORTED));
        assert_eq!(ask(4), Err(Return::INVALID_ARGUMENT));
    }
}
