//! What the host's devices do, from a process that reads them: the supervisor opens no library of the driver's, and waits for nobody.
//!
//! The process is started when somebody asks for the first time. Each question sets off a new reading where the last one is old, and is
//! answered with the last one; whoever wants the new one asks again. What the process says is decoded strictly and bounded.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cuda_api::live::{Readings, number};
use pci_layout::regs;

use crate::channel::{Answer, NoAnswer};
use crate::pool::Pool;
use crate::process::ReaderProcess;

/// A reading that is younger is as good as a new one.
const FRESH: Duration = Duration::from_millis(100);
/// A reading takes so long at most, the start of the driver's library included.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// After a failure nobody reads for so long.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Bytes of a reading at most.
const BYTES_MAX: u64 = 256 * 1024;

/// What is going on.
enum Stage {
    /// Nobody has asked yet.
    Idle,
    /// The process is being started.
    Starting(Receiver<std::io::Result<ReaderProcess>>),
    /// It reads, since then.
    Reading(ReaderProcess, Instant),
    /// It waits to be asked.
    Ready(ReaderProcess),
    /// It failed at that time.
    Failed(Instant),
    /// There is nothing to read with.
    Never,
}

/// The readings of one VM's devices.
pub(crate) struct Reader {
    state: Mutex<State>,
}

struct State {
    stage: Stage,
    last: Option<(Instant, Readings)>,
    /// What the host's processes had then of each device, by process number: not for guests, and so not among the readings.
    processes: Vec<BTreeMap<u32, u64>>,
}

impl Reader {
    /// For devices that can be read, or for others.
    pub(crate) fn new(readable: bool) -> Self {
        let stage = if readable { Stage::Idle } else { Stage::Never };
        Self { state: Mutex::new(State { stage, last: None, processes: Vec::new() }) }
    }

    /// The newest reading, and whether a newer one is on its way.
    pub(crate) fn look(&self, pool: &Pool, info: &[u8]) -> (Option<Readings>, bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = std::mem::replace(&mut state.stage, Stage::Never);
        state.stage = state.next(stage, pool, info);
        let pending = matches!(state.stage, Stage::Starting(_) | Stage::Reading(..));
        let last = state.last.as_ref().map(|(read, readings)| {
            let age_ms = u64::try_from(read.elapsed().as_millis()).unwrap_or(u64::MAX);
            Readings { age_ms, ..readings.clone() }
        });
        (last, pending)
    }

    /// What a process of this host had of each device at the last reading, contexts' own memory included; None where that is not known.
    pub(crate) fn process(&self, pid: u32) -> Vec<Option<u64>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.processes.iter().map(|device| device.get(&number::process(pid)).copied()).collect()
    }
}

impl State {
    fn next(&mut self, stage: Stage, pool: &Pool, info: &[u8]) -> Stage {
        match stage {
            Stage::Idle => Stage::Starting(pool.reader(info.to_vec())),
            Stage::Failed(at) if at.elapsed() >= RETRY_AFTER => Stage::Starting(pool.reader(info.to_vec())),
            Stage::Starting(started) => match started.try_recv() {
                Ok(Ok(process)) => Stage::Reading(process, Instant::now()),
                Ok(Err(error)) => failed(&error.to_string()),
                Err(TryRecvError::Empty) => Stage::Starting(started),
                Err(TryRecvError::Disconnected) => failed("it was not started"),
            },
            Stage::Reading(process, since) => match process.answer() {
                Ok(answer) => self.take(process, &answer),
                Err(NoAnswer::Late) if since.elapsed() < READ_LIMIT => Stage::Reading(process, since),
                Err(error) => failed(&error.to_string()),
            },
            Stage::Ready(process) => self.read_again(process),
            Stage::Failed(_) | Stage::Never => stage,
        }
    }

    fn read_again(&self, process: ReaderProcess) -> Stage {
        match &self.last {
            Some((read, _)) if read.elapsed() < FRESH => Stage::Ready(process),
            _ if process.ask() => Stage::Reading(process, Instant::now()),
            _ => failed("it has ended"),
        }
    }

    fn take(&mut self, process: ReaderProcess, answer: &Answer) -> Stage {
        if answer.error != regs::ERROR_NONE {
            log::info!("nobody reads what the devices do: the host's NVML cannot be used");
            return Stage::Never;
        }
        match read(&process, answer) {
            Ok(mut readings) => {
                self.processes = take_processes(&mut readings);
                self.last = Some((Instant::now(), readings));
                Stage::Ready(process)
            }
            Err(error) => failed(&error),
        }
    }
}

/// Takes out what is told of processes.
fn take_processes(readings: &mut Readings) -> Vec<BTreeMap<u32, u64>> {
    let of_device = |numbers: &mut BTreeMap<u32, u64>| {
        let (processes, rest) =
            std::mem::take(numbers).into_iter().partition(|(name, _)| number::is_process(*name));
        *numbers = rest;
        processes
    };
    readings.devices.iter_mut().map(of_device).collect()
}

fn failed(why: &str) -> Stage {
    log::warn!("the process that reads what the devices do: {why}");
    Stage::Failed(Instant::now())
}

fn read(process: &ReaderProcess, answer: &Answer) -> Result<Readings, String> {
    let len = answer.tail.first_chunk::<8>().map(|len| u64::from_le_bytes(*len));
    let len = len.filter(|len| *len <= BYTES_MAX).and_then(|len| usize::try_from(len).ok());
    let blob = process.read(len.ok_or("an answer without a length")?).map_err(|error| error.to_string())?;
    // It is read where its words are aligned.
    let mut words = vec![0u64; blob.len().div_ceil(8)];
    let bytes = zerocopy::IntoBytes::as_mut_bytes(words.as_mut_slice());
    let (bytes, _) = bytes.split_at_mut_checked(blob.len()).ok_or("no room")?;
    bytes.copy_from_slice(&blob);
    Readings::decode(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_may_read_has_nothing_of_processes() {
        let device =
            BTreeMap::from([(number::MEMORY_USED, 9), (number::process(7), 5), (number::peer(15, 5), 1)]);
        let mut readings = Readings { devices: vec![BTreeMap::new(), device], ..Readings::default() };
        let processes = take_processes(&mut readings);
        assert_eq!(processes, [BTreeMap::new(), BTreeMap::from([(number::process(7), 5)])]);
        let left: Vec<u32> = readings.devices.iter().flat_map(BTreeMap::keys).copied().collect();
        assert_eq!(left, [number::MEMORY_USED, number::peer(15, 5)]);
    }
}
