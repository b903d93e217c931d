//! Whether NVML is in use, and what is known of the machine meanwhile.
//!
//! There are no locks: a forked child gets the parent's memory as it was at that moment, and a lock that another of the parent's threads
//! held would never open again there. What the daemon told is made once, published by its address and never taken back, so that who is
//! still reading it when NVML ends reads on.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use cuda_api::info::VmInfo;
use transport::OpenError;

use crate::answer::{Answer, Return};
use crate::machine::Machine;

/// How often NVML was started and not yet ended.
static STARTED: AtomicU32 = AtomicU32::new(0);
/// What the daemon told when it was last asked; null before that. Never freed.
static MACHINE: AtomicPtr<Machine> = AtomicPtr::new(std::ptr::null_mut());

/// nvmlInitWithFlags may be given these: without devices, without attaching to them, though some cannot be used. All of it is so here in
/// any case.
const FLAGS: u32 = 0b111;

fn last() -> Option<&'static Machine> {
    // SAFETY: null, or from `publish`, which leaks it.
    unsafe { MACHINE.load(Ordering::Acquire).as_ref() }
}

/// Makes `machine` what is known, unless it is known already: programs start and end NVML often, and the devices do not change
/// meanwhile, unless the daemon was started anew.
fn publish(machine: Machine) {
    if last() != Some(&machine) {
        MACHINE.store(Box::into_raw(Box::new(machine)), Ordering::Release);
    }
}

/// What NVML answers where the daemon cannot be asked.
fn failure(error: &OpenError) -> Return {
    match error {
        OpenError::PermissionDenied { .. } => Return::NO_PERMISSION,
        OpenError::AbiMismatch { .. } | OpenError::DriverMismatch | OpenError::FingerprintMismatch => {
            Return::LIB_RM_VERSION_MISMATCH
        }
        OpenError::Protocol(_) | OpenError::System { .. } => Return::UNKNOWN,
        _ => Return::DRIVER_NOT_LOADED,
    }
}

/// A blob where its words are aligned, as its reader wants it.
pub fn with_aligned<T>(blob: &[u8], read: impl FnOnce(&[u8]) -> T) -> T {
    let mut words = vec![0u64; blob.len().div_ceil(8)];
    let bytes = zerocopy::IntoBytes::as_mut_bytes(words.as_mut_slice());
    let (bytes, _) = bytes.split_at_mut(blob.len());
    bytes.copy_from_slice(blob);
    read(bytes)
}

fn ask() -> Answer<Machine> {
    let blob = transport::read_information().map_err(|error| {
        crate::log::say(|| format!("nvmlInit: {error}"));
        failure(&error)
    })?;
    let mut info = with_aligned(&blob, VmInfo::decode).map_err(|error| {
        crate::log::say(|| format!("nvmlInit: device information: {error}"));
        Return::LIB_RM_VERSION_MISMATCH
    })?;
    if let Some(at) = transport::pci_function() {
        info.place_at(at.domain.into(), at.bus.into(), at.device.into());
    }
    Ok(Machine::new(info))
}

/// nvmlInit, nvmlInit_v2 and nvmlInitWithFlags.
///
/// # Errors
/// DRIVER_NOT_LOADED where there is no daemon, NO_PERMISSION, LIB_RM_VERSION_MISMATCH, INVALID_ARGUMENT for unknown flags.
pub fn start(flags: u32) -> Answer {
    if flags & !FLAGS != 0 {
        return Err(Return::INVALID_ARGUMENT);
    }
    if STARTED.load(Ordering::Acquire) == 0 {
        publish(ask()?);
    }
    STARTED.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

/// nvmlShutdown.
///
/// # Errors
/// UNINITIALIZED where nobody has started it.
pub fn end() -> Answer {
    let less = |started: u32| started.checked_sub(1);
    STARTED
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
        .map_or(Err(Return::UNINITIALIZED), |_| Ok(()))
}

/// What is known, while NVML is in use.
///
/// # Errors
/// UNINITIALIZED before nvmlInit and after the last nvmlShutdown.
pub fn machine() -> Answer<&'static Machine> {
    if STARTED.load(Ordering::Acquire) == 0 {
        return Err(Return::UNINITIALIZED);
    }
    last().ok_or(Return::UNINITIALIZED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::two;

    #[test]
    fn it_is_counted_and_what_is_known_stays() {
        assert_eq!(end(), Err(Return::UNINITIALIZED));
        assert!(machine().is_err());
        publish(two());
        let before = MACHINE.load(Ordering::Acquire);
        publish(two());
        assert_eq!(MACHINE.load(Ordering::Acquire), before);
        STARTED.store(2, Ordering::Release);
        assert_eq!((end(), machine().map(|m| m.gpus.len())), (Ok(()), Ok(2)));
        assert_eq!((end(), machine().map(|m| m.gpus.len())), (Ok(()), Err(Return::UNINITIALIZED)));
        assert_eq!(start(8), Err(Return::INVALID_ARGUMENT));
    }
}
