//! What changes: asked of the daemon each time, over a connection of its own. A forked child asks as its parent does.

use std::time::Duration;

use cuda_api::live::{Live, SessionUse, UNKNOWN_BYTES};

use crate::answer::{Answer, Return};
use crate::machine::Gpu;
use crate::state::with_aligned;

/// How often a blob is asked for that comes in parts of two.
const TRIES: u32 = 8;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(2);

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

/// What a session has on a device, within what the device has; None where the daemon does not know.
pub fn bytes_on(session: &SessionUse, gpu: &Gpu) -> Option<u64> {
    match session.device_bytes.get(gpu.ordinal) {
        None | Some(&UNKNOWN_BYTES) => None,
        Some(bytes) => Some((*bytes).min(gpu.info.total_memory_bytes)),
    }
}

/// The bytes of the VM's processes on a device; None where the daemon does not know them of each.
pub fn used(live: &Live, gpu: &Gpu) -> Option<u64> {
    let sum =
        live.sessions.iter().try_fold(0u64, |sum, session| Some(sum.saturating_add(bytes_on(session, gpu)?)));
    sum.map(|sum| sum.min(gpu.info.total_memory_bytes))
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

    #[test]
    fn a_workers_word_is_bounded_by_what_the_device_has() {
        let machine = two();
        let (unknown, known) = (&machine.gpus[0], &machine.gpus[1]);
        assert_eq!((known.ordinal, unknown.ordinal), (0, 1));
        assert_eq!(used(&some(), known), Some(known.info.total_memory_bytes));
        assert_eq!(used(&some(), unknown), None);
        assert_eq!(used(&Live::default(), unknown), Some(0));
    }
}
