//! A VM's snapshot in the words of the control socket.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use cuda_api::live::{Readings, number};
use cuda_api::work;
use mediator::{SessionSnapshot, Snapshot, Totals};
use vgpu_control::{
    Counters, DeviceReport, Kind, Micros, ProcessReport, QuarantineReport, ReadingReport, SuspendReport,
    VmReport, Work,
};
use vgpu_device::CountersSnapshot;

use crate::named;

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) vm_id: u32,
    pub(crate) name: Option<String>,
    pub(crate) pool: char,
    pub(crate) attachment: String,
    pub(crate) socket: Option<String>,
    pub(crate) started: Instant,
}

/// The report.
pub(crate) fn report(identity: &Identity, snapshot: Snapshot, device: CountersSnapshot) -> VmReport {
    let Snapshot { settings, stopped, suspended, quarantine, devices, sessions, totals, readings } = snapshot;
    let readings = readings.as_ref();
    VmReport {
        version: vgpu_control::VERSION,
        vm: identity.vm_id,
        name: identity.name.clone(),
        pool: identity.pool,
        attachment: identity.attachment.clone(),
        socket: identity.socket.clone(),
        daemon_pid: std::process::id(),
        daemon_release: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_us: micros(identity.started.elapsed()),
        settings: named::texts(&settings).into_iter().map(|(name, text)| (name.to_owned(), text)).collect(),
        paused: stopped,
        suspended: suspended.map(|suspended| SuspendReport {
            since_s: since_1970(suspended.since),
            sessions: suspended.sessions,
            moved_bytes: suspended.moved_bytes,
        }),
        quarantine: quarantine.map(|quarantine| QuarantineReport {
            since_s: since_1970(quarantine.since),
            until_s: quarantine.until.map(since_1970),
            faults: quarantine.faults,
            by_hand: quarantine.by_hand,
        }),
        devices: devices
            .into_iter()
            .enumerate()
            .map(|(at, device)| DeviceReport {
                name: device.name,
                uuid: uuid(&device.uuid),
                total_bytes: device.total_bytes,
                used_bytes: device.used_bytes,
                reading: readings.and_then(|readings| reading(readings, at)),
            })
            .collect(),
        processes: sessions.iter().map(process).collect(),
        work: done(&totals),
        counters: Counters {
            sessions_opened: totals.sessions_opened,
            sessions_closed: totals.sessions_closed,
            sessions_died: totals.sessions_died,
            sessions_faulted: totals.sessions_faulted,
            requests: device.requests,
            request_errors: device.errors,
            doorbells: device.kicks.saturating_add(device.session_kicks),
            wakes: device.wakes,
            resets: device.resets,
        },
    }
}

fn process(session: &SessionSnapshot) -> ProcessReport {
    ProcessReport {
        session: session.session,
        guest_pid: session.guest_pid,
        worker_pid: session.worker_pid,
        age_us: micros(session.age),
        faulted: session.faulted,
        device_bytes: session.device_bytes.clone(),
        host_bytes: session.host_bytes.clone(),
        work: done(&session.totals),
    }
}

fn done(totals: &Totals) -> Work {
    let kinds = |names: &[&'static str], counts: &[u64]| {
        names
            .iter()
            .zip(counts)
            .map(|(name, count)| Kind { kind: (*name).to_owned(), count: *count })
            .collect()
    };
    Work {
        calls: kinds(&work::Work::ALL.map(work::Work::name), &totals.by_work),
        copied_bytes: kinds(&work::Direction::ALL.map(work::Direction::name), &totals.copied),
        replies: totals.replies,
        errors: totals.errors.saturating_add(totals.posted_errors),
        posted_errors: totals.posted_errors,
        gpu_us: micros(totals.gpu_time),
        turn_wait_us: micros(totals.turn_waits.total),
        turn_waits: totals.turn_waits.counts.to_vec(),
    }
}

fn reading(readings: &Readings, device: usize) -> Option<ReadingReport> {
    let numbers: &BTreeMap<u32, u64> = readings.devices.get(device)?;
    let number = |name: u32| numbers.get(&name).copied();
    Some(ReadingReport {
        age_ms: readings.age_ms,
        utilization_percent: number(number::GPU_PERCENT),
        memory_utilization_percent: number(number::MEMORY_PERCENT),
        memory_used_bytes: number(number::MEMORY_USED),
        memory_total_bytes: number(number::MEMORY_TOTAL),
        temperature_c: number(number::TEMPERATURE),
        power_mw: number(number::POWER_MW),
    })
}

fn micros(time: Duration) -> Micros {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// As nvidia-smi -L writes it.
fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::from("GPU-");
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_named() {
        let totals = Totals { by_work: [5, 0, 0, 0, 0, 1], copied: [0, 7, 0], ..Totals::default() };
        let work = done(&totals);
        assert_eq!(work.calls[0], Kind { kind: "launch".into(), count: 5 });
        assert_eq!(work.calls[5], Kind { kind: "other".into(), count: 1 });
        assert_eq!((work.all_calls(), work.all_copied_bytes()), (6, 7));
        assert_eq!(work.copied_bytes[1], Kind { kind: "down".into(), count: 7 });
    }

    #[test]
    fn readings_have_units_and_may_be_missing() {
        let device = BTreeMap::from([(number::TEMPERATURE, 41), (number::POWER_MW, 70_500)]);
        let readings = Readings { release: String::new(), age_ms: 3, devices: vec![device] };
        let told = reading(&readings, 0).unwrap();
        assert_eq!(
            (told.temperature_c, told.power_mw, told.utilization_percent),
            (Some(41), Some(70_500), None)
        );
        assert_eq!(reading(&readings, 1), None);
        assert_eq!(uuid(&[0xab; 16]), "GPU-abababab-abab-abab-abab-abababababab");
    }
}
