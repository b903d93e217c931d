//! Does the daemon answer, does it speak our language, does it give this process a worker?

use std::time::{Duration, Instant};

use pci_layout::regs;
use rustix::io::Errno;
use transport::{Device, OpenError, OpenParams};

use super::Finding;

/// Round trips, of which the quickest counts: the first one finds the daemon asleep.
const ROUND_TRIPS: u32 = 8;

/// What an `ERROR_` value means for this VM, and what to do.
fn refusal(error: u32) -> (String, String) {
    let (why, todo) = match error {
        regs::ERROR_QUARANTINED => (
            "this VM is quarantined: too many of its sessions have faulted, or the host's administrator says so",
            "wait until it is over, or ask the host's administrator to end it; the daemon's log names the faults",
        ),
        regs::ERROR_QUEUE_FULL => (
            "this VM has as many sessions as it may: each program that uses the GPU has one",
            "end some of them (vgpu-smi lists them)",
        ),
        regs::ERROR_MEDIATOR_UNAVAILABLE => (
            "the daemon has no worker for this process: no GPU, its driver does not start, or the daemon is ending",
            "see the daemon's log on the host; there nvidia-smi must list the GPU",
        ),
        regs::ERROR_TIMEOUT => (
            "the worker did not start in time",
            "see the daemon's log on the host, and whether the host is overloaded or its driver hangs",
        ),
        regs::ERROR_RATE_LIMITED => {
            ("the VM's rate limit is reached", "wait, or ask the host's administrator for a higher limit")
        }
        regs::ERROR_CUDA => ("CUDA fails on the host", "see the daemon's log on the host"),
        regs::ERROR_INVALID_POOL => {
            ("the VM's pool does not exist", "ask the host's administrator: --pool of the daemon")
        }
        regs::ERROR_INVALID_REQUEST
        | regs::ERROR_UNSUPPORTED
        | regs::ERROR_INVALID_LENGTH
        | regs::ERROR_TOO_LARGE => (
            "the daemon does not understand this guest",
            "install the same release in the guest and on the host",
        ),
        _ => (
            "the daemon refuses for a reason that this release does not know",
            "see the daemon's log on the host",
        ),
    };
    (format!("{why} (device error {error})"), todo.to_owned())
}

/// Why a device could not be opened, and what to do.
fn judge(error: &OpenError, in_vm: bool) -> Finding {
    let release = env!("CARGO_PKG_VERSION");
    let (why, todo) = match error {
        OpenError::Refused { error, .. } | OpenError::Unavailable { error } => refusal(*error),
        OpenError::NotAnswering(errno) if in_vm => {
            let greeting = if *errno == Errno::AGAIN { ": it has not greeted the kernel module" } else { "" };
            (
                format!("the daemon on the host does not answer{greeting} ({errno})"),
                "on the host: vhost-user-vgpu must have been started before the VM, its log says what it waits for, and QEMU needs memory with share=on; after the daemon was ended the device must be plugged anew or the VM restarted (docs/attachments.md)".to_owned(),
            )
        }
        OpenError::NotAnswering(errno) => (
            format!("the daemon does not answer ({errno})"),
            "see its log, and start it again".to_owned(),
        ),
        OpenError::AbiMismatch { ours, theirs } => {
            let older = if ours < theirs { "the guest's packages are" } else { "the host's daemon is" };
            (
                format!("version mismatch: the guest speaks protocol {ours}, the daemon {theirs}"),
                format!("{older} the older one: upgrade that (this program is of release {release})"),
            )
        }
        OpenError::DriverMismatch => (
            "version mismatch: the kernel module speaks another protocol version than the daemon".to_owned(),
            "the kernel's log (dmesg | grep vgpu) names both: upgrade the older one; after a new module: modprobe -r vgpu, modprobe vgpu".to_owned(),
        ),
        OpenError::FingerprintMismatch => (
            format!("version mismatch: this guest (release {release}) and the daemon have different tables of calls"),
            format!("install the same release in both: on the host vhost-user-vgpu --version tells the daemon's; if it is newer than {release}, upgrade the guest's packages, else the daemon"),
        ),
        other => (other.to_string(), "see the daemon's log on the host".to_owned()),
    };
    Finding::Failed { why, todo }
}

/// A register.
fn register(block: &[u8], offset: u32) -> u32 {
    let bytes = block.get(offset as usize..).and_then(|rest| rest.first_chunk::<4>());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The daemon's quota of device memory, in bytes; 0 = none.
fn quota(block: &[u8]) -> u64 {
    u64::from(register(block, regs::VRAM_QUOTA)) | u64::from(register(block, regs::VRAM_QUOTA + 4)) << 32
}

/// A time as a person writes it.
fn shown(time: Duration) -> String {
    if time < Duration::from_millis(1) {
        format!("{} µs", time.as_micros())
    } else {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    }
}

fn words(block: &[u8], round_trip: Duration, opened: Duration) -> String {
    let hardware = register(block, regs::CAPABILITIES) & regs::CAP_HARDWARE != 0;
    let executor = if hardware { "the host's GPU" } else { "a device in software" };
    let quota = match quota(block) {
        0 => "no quota of memory".to_owned(),
        bytes => format!("a quota of {} MiB", bytes >> 20),
    };
    format!(
        "VM {}: {executor}, {} device(s), {quota}; a round trip takes {}, a session {}",
        register(block, regs::VM_ID),
        register(block, regs::DEVICE_COUNT),
        shown(round_trip),
        shown(opened),
    )
}

fn ask() -> Result<String, OpenError> {
    let device = Device::open()?;
    let mut quickest = Duration::MAX;
    let mut block = device.regs()?;
    for _ in 0..ROUND_TRIPS {
        let begin = Instant::now();
        block = device.regs()?;
        quickest = quickest.min(begin.elapsed());
    }
    let begin = Instant::now();
    let session = device.open_session(&OpenParams { fingerprint: cuda_api::fingerprint(), env: &[] })?;
    let opened = begin.elapsed();
    drop(session);
    Ok(words(&block, quickest, opened))
}

/// The step.
pub fn check(in_vm: bool) -> Finding {
    ask().map_or_else(|error| judge(&error, in_vm), Finding::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(error: &OpenError, in_vm: bool) -> (String, String) {
        match judge(error, in_vm) {
            Finding::Failed { why, todo } => (why, todo),
            Finding::Ok(said) => panic!("{said}"),
        }
    }

    #[test]
    fn every_error_of_the_device_has_words_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for error in [3, 4, 5, 6, 7, 10, 11] {
            let (why, _) = refusal(error);
            assert!(why.ends_with(&format!("(device error {error})")));
            assert!(seen.insert(why.split('(').next().unwrap().to_owned()), "{why}");
        }
        let (why, todo) =
            failed(&OpenError::Refused { error: regs::ERROR_QUARANTINED, cuda_result: 0 }, true);
        assert!(why.contains("quarantined") && todo.contains("administrator"), "{why}");
    }

    #[test]
    fn the_older_side_is_the_one_to_upgrade() {
        let (_, todo) = failed(&OpenError::AbiMismatch { ours: 1, theirs: 2 }, true);
        assert!(todo.starts_with("the guest's packages"), "{todo}");
        let (_, todo) = failed(&OpenError::AbiMismatch { ours: 2, theirs: 1 }, true);
        assert!(todo.starts_with("the host's daemon"), "{todo}");
    }

    #[test]
    fn a_daemon_that_is_not_there() {
        let (why, todo) = failed(&OpenError::NotAnswering(Errno::AGAIN), true);
        assert!(why.contains("has not greeted") && todo.contains("share=on"), "{why}");
        let (_, todo) = failed(&OpenError::NotAnswering(Errno::CONNRESET), false);
        assert!(!todo.contains("share=on"), "{todo}");
    }

    #[test]
    fn registers_are_read() {
        let mut block = [0u8; regs::BLOCK_BYTES as usize];
        block[regs::VM_ID as usize] = 7;
        block[regs::DEVICE_COUNT as usize] = 2;
        block[regs::CAPABILITIES as usize] = regs::CAP_HARDWARE.to_le_bytes()[0];
        block[regs::VRAM_QUOTA as usize + 4] = 4;
        assert_eq!(
            words(&block, Duration::from_micros(35), Duration::from_micros(12_340)),
            "VM 7: the host's GPU, 2 device(s), a quota of 16384 MiB; a round trip takes 35 µs, a session 12.3 ms"
        );
    }
}
