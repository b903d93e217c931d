//! The processes of this VM that use a device: its sessions, by their ids in the guest.

use std::ffi::c_uint;

use cuda_api::live::Live;

use crate::answer::{Answer, Return, give};
use crate::live;
use crate::machine::{Gpu, Machine};

/// nvmlProcessInfo_v1_t.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessV1 {
    pid: c_uint,
    bytes: u64,
}

/// nvmlProcessInfo_v2_t, which version 3 of the calls takes as well.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessV2 {
    pid: c_uint,
    bytes: u64,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// Of a device that is not divided.
const NO_INSTANCE: c_uint = c_uint::MAX;

/// Id and bytes of each process. A session is on every device of its VM as soon as it is open; where several devices are counted one by
/// one, only those with memory on this one are listed.
///
/// # Errors
/// NOT_SUPPORTED where the daemon does not know of each session what it has on this device.
fn list(live: &Live, gpu: &Gpu, devices: usize) -> Answer<Vec<(c_uint, u64)>> {
    let each = live.sessions.iter().map(|session| Some((session.pid, live::bytes_on(session, gpu)?)));
    let all: Vec<_> = each.collect::<Option<_>>().ok_or(Return::NOT_SUPPORTED)?;
    Ok(all.into_iter().filter(|(_, bytes)| devices == 1 || *bytes != 0).collect())
}

/// Writes a list into the room that there is, and its length.
///
/// # Errors
/// INVALID_ARGUMENT for NULL where there is something to write, INSUFFICIENT_SIZE where the list is longer than the room.
///
/// # Safety
/// `count` is NULL or points to the number of structures that `to` has room for.
unsafe fn give_list<T>(count: *mut c_uint, to: *mut T, list: &[T]) -> Answer
where
    T: Copy,
{
    if count.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    // SAFETY: not NULL; a number lies there by this function's contract.
    let room = unsafe { count.read_unaligned() } as usize;
    // SAFETY: as above.
    unsafe { give(count, c_uint::try_from(list.len()).map_err(|_| Return::UNKNOWN)?) }?;
    if list.len() > room {
        return Err(Return::INSUFFICIENT_SIZE);
    }
    if to.is_null() && !list.is_empty() {
        return Err(Return::INVALID_ARGUMENT);
    }
    for (i, entry) in list.iter().enumerate() {
        // SAFETY: i < list.len() <= room.
        unsafe { to.add(i).write_unaligned(*entry) };
    }
    Ok(())
}

/// nvmlDeviceGetComputeRunningProcesses.
pub unsafe fn compute_v1(machine: &Machine, gpu: &Gpu, count: *mut c_uint, to: *mut ProcessV1) -> Answer {
    let found = list(&live::ask()?, gpu, machine.gpus.len())?;
    let found: Vec<_> = found.into_iter().map(|(pid, bytes)| ProcessV1 { pid, bytes }).collect();
    // SAFETY: NVML's contract: the number of structures that there is room for.
    unsafe { give_list(count, to, &found) }
}

/// nvmlDeviceGetComputeRunningProcesses_v2 and _v3.
pub unsafe fn compute(machine: &Machine, gpu: &Gpu, count: *mut c_uint, to: *mut ProcessV2) -> Answer {
    let found = list(&live::ask()?, gpu, machine.gpus.len())?;
    let whole =
        |(pid, bytes)| ProcessV2 { pid, bytes, gpu_instance: NO_INSTANCE, compute_instance: NO_INSTANCE };
    let found: Vec<_> = found.into_iter().map(whole).collect();
    // SAFETY: as above.
    unsafe { give_list(count, to, &found) }
}

/// Processes that draw, or that use a device through MPS: a VM has none.
pub unsafe fn none(_: &Machine, _: &Gpu, count: *mut c_uint, _: *mut std::ffi::c_void) -> Answer {
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(count, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::tests::some;
    use crate::machine::tests::two;

    #[test]
    fn sessions_are_processes_where_their_memory_is_known() {
        assert_eq!((size_of::<ProcessV1>(), size_of::<ProcessV2>()), (16, 24));
        let machine = two();
        let total = machine.gpus[1].info.total_memory_bytes;
        assert_eq!(list(&some(), &machine.gpus[1], 2), Ok(vec![(10, 1 << 20), (11, total)]));
        assert_eq!(list(&some(), &machine.gpus[0], 2), Err(Return::NOT_SUPPORTED));
        let one = Live { sessions: some().sessions[..1].to_vec(), ..Live::default() };
        assert_eq!(list(&one, &machine.gpus[0], 2), Ok(vec![]));
        assert_eq!(list(&one, &machine.gpus[0], 1), Ok(vec![(10, 0)]));
    }

    #[test]
    fn a_list_that_does_not_fit_says_how_long_it_is() {
        let all = [1u64, 2, 3];
        let mut room = [0u64; 4];
        let ask = |mut count: c_uint, to: *mut u64| {
            // SAFETY: `to` is NULL, or has room for 4.
            (unsafe { give_list(&raw mut count, to, &all) }, count)
        };
        assert_eq!(ask(0, std::ptr::null_mut()), (Err(Return::INSUFFICIENT_SIZE), 3));
        assert_eq!(ask(2, room.as_mut_ptr()), (Err(Return::INSUFFICIENT_SIZE), 3));
        assert_eq!(ask(3, std::ptr::null_mut()), (Err(Return::INVALID_ARGUMENT), 3));
        assert_eq!(ask(4, room.as_mut_ptr()), (Ok(()), 3));
        assert_eq!(room, [1, 2, 3, 0]);
    }
}
