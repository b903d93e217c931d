//! What changes: asked of the daemon each time, over a connection of its own. A forked child asks as its parent does.
//!
//! The daemon waits for nobody: to a question about the host's devices it answers what was read last, and has them read again if that is
//! old. So whoever wants to know asks until the new reading is there.

use std::time::{Duration, Instant};

use cuda_api::live::{DeviceMemory, Live, Readings, SessionUse, UNKNOWN_BYTES};

use crate::answer::{Answer, Return};
use crate::machine::Gpu;
use crate::state::with_aligned;

/// How often a blob is asked for that comes in parts of two.
const TRIES: u32 = 8;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(2);
/// A reading so young is as good as a new one.
const YOUNG_MS: u64 = 250;
/// One so old says nothing of what a device does now.
const OLD_MS: u64 = 10_000;
/// For a new reading it is asked so long: the first one waits for a process that loads the driver's library.
const READING_LIMIT: Duration = Duration::from_secs(5);

/// What the daemon tells now.
///
/// # Errors
/// GPU_IS_LOST where it does not answer any more, UNKNOWN where it answers nonsense.
pub fn ask() -> Answer<Live> {
    for attempt in 0..TRIES {
        if attempt != 0 {
            std::thread::sleep(PAUSE);
        }
        let blob = transport::read_live_information().map_err(|error| {
            crate::log::say(|| format!("live information: {error}"));
            Return::GPU_IS_LOST
        })?;
        match with_aligned(&blob, Live::decode) {
            Ok(live) => return Ok(live),
            Err(error) => crate::log::say(|| format!("live information: {error}")),
        }
    }
    Err(Return::UNKNOWN)
}

/// Asks until what comes is good enough, or nothing better is to be had.
fn ask_until(good: impl Fn(&Readings) -> bool) -> Answer<Live> {
    let begin = Instant::now();
    loop {
        let live = ask()?;
        if !live.pending || live.readings.as_ref().is_some_and(&good) || begin.elapsed() > READING_LIMIT {
            return Ok(live);
        }
        std::thread::sleep(PAUSE);
    }
}

/// What the daemon tells now, with a reading that is not old, or none.
///
/// # Errors
/// As for [`ask`].
pub fn ask_fresh() -> Answer<Live> {
    let live = ask_until(|readings| readings.age_ms <= YOUNG_MS)?;
    Ok(Live { readings: live.readings.filter(|readings| readings.age_ms <= OLD_MS), ..live })
}

/// The last reading, however old: for what does not change while the driver is loaded. None where nobody reads.
///
/// # Errors
/// As for [`ask`].
pub fn readings() -> Answer<Option<Readings>> {
    Ok(ask_until(|_| true)?.readings)
}

/// A number of a reading.
pub fn number_of(readings: Option<&Readings>, gpu: &Gpu, name: u32) -> Option<u64> {
    readings?.devices.get(gpu.ordinal)?.get(&name).copied()
}

/// A number as it is now.
///
/// # Errors
/// NOT_SUPPORTED where it is not known, and as for [`ask`].
pub fn now<T: TryFrom<u64>>(gpu: &Gpu, name: u32) -> Answer<T> {
    let number = number_of(ask_fresh()?.readings.as_ref(), gpu, name).ok_or(Return::NOT_SUPPORTED)?;
    T::try_from(number).map_err(|_| Return::UNKNOWN)
}

/// A number that does not change.
///
/// # Errors
/// As for [`now`].
pub fn fixed<T: TryFrom<u64>>(gpu: &Gpu, name: u32) -> Answer<T> {
    let number = number_of(readings()?.as_ref(), gpu, name).ok_or(Return::NOT_SUPPORTED)?;
    T::try_from(number).map_err(|_| Return::UNKNOWN)
}

/// What a session has on a device, within what the device has; None where the daemon does not know.
pub fn bytes_on(session: &SessionUse, gpu: &Gpu) -> Option<u64> {
    match session.device_bytes.get(gpu.ordinal) {
        None | Some(&UNKNOWN_BYTES) => None,
        Some(bytes) => Some((*bytes).min(gpu.info.total_memory_bytes)),
    }
}

/// A device's memory as the VM has it; None where the daemon does not know it.
pub fn memory(live: &Live, gpu: &Gpu) -> Option<DeviceMemory> {
    live.memory.get(gpu.ordinal).copied()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::machine::tests::two;

    /// Two processes; the daemon does not know what the second one has on the device of ordinal 1.
    pub fn some() -> Live {
        let session = |pid, device_bytes| SessionUse { pid, device_bytes };
        Live {
            sessions: vec![session(10, vec![1 << 20, 0]), session(11, vec![u64::MAX - 1, UNKNOWN_BYTES])],
            ..Live::default()
        }
    }

    /// A reading of one number.
    pub fn readings(gpu: &Gpu, name: u32, value: u64) -> Readings {
        let mut devices = vec![std::collections::BTreeMap::new(); gpu.ordinal + 1];
        devices[gpu.ordinal].insert(name, value);
        Readings { devices, ..Readings::default() }
    }

    #[test]
    fn a_workers_word_is_bounded_by_what_the_device_has() {
        let machine = two();
        let (unknown, known) = (&machine.gpus[0], &machine.gpus[1]);
        assert_eq!((known.ordinal, unknown.ordinal), (0, 1));
        let all = some();
        let [first, second] = &all.sessions[..] else { panic!("two sessions") };
        assert_eq!(bytes_on(first, known), Some(1 << 20));
        assert_eq!(bytes_on(second, known), Some(known.info.total_memory_bytes));
        assert_eq!(bytes_on(second, unknown), None);
    }
}
