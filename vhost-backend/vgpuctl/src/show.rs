//! Reports as tables and lines for people.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use vgpu_control::{Micros, ReadingReport, VmReport, Work};

/// A table without lines; all columns but the first `left` stand to the right.
pub(crate) fn table(head: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if at >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(shift, _)| bytes >> shift != 0);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(shift, unit)| format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
    )
}

/// A time for people, to the millisecond at most.
pub(crate) fn time(micros: Micros) -> String {
    let seconds = micros / 1_000_000;
    match seconds {
        0 => format!("{:.1} ms", micros as f64 / 1e3),
        1..60 => format!("{:.1} s", micros as f64 / 1e6),
        _ => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// In one word.
pub(crate) fn state(vm: &VmReport) -> &'static str {
    match vm {
        VmReport { quarantine: Some(_), .. } => "quarantined",
        VmReport { suspended: Some(_), .. } => "suspended",
        VmReport { paused: true, .. } => "paused",
        _ => "serving",
    }
}

pub(crate) fn memory(vm: &VmReport) -> String {
    let of = |device: &vgpu_control::DeviceReport| {
        format!("{} / {}", size(device.used_bytes), size(device.total_bytes))
    };
    vm.devices.iter().map(of).collect::<Vec<_>>().join(", ")
}

fn setting<'a>(vm: &'a VmReport, name: &str) -> &'a str {
    vm.settings.get(name).map_or("-", String::as_str)
}

/// A line for each VM.
pub(crate) fn list(vms: &[VmReport]) -> String {
    let head =
        ["VM", "NAME", "STATE", "POOL", "PRIORITY", "WEIGHT", "PROCESSES", "MEMORY", "GPU TIME", "CALLS"];
    let mut table = table(&head, 5);
    for vm in vms {
        table.add_row([
            vm.vm.to_string(),
            or_dash(vm.name.as_ref()),
            state(vm).to_owned(),
            vm.pool.to_string(),
            setting(vm, "priority").to_owned(),
            setting(vm, "weight").to_owned(),
            vm.processes.len().to_string(),
            memory(vm),
            time(vm.work.gpu_us),
            vm.work.all_calls().to_string(),
        ]);
    }
    trimmed(&table)
}

/// Lines without the spaces at their ends.
pub(crate) fn trimmed(table: &Table) -> String {
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// All there is to know of one.
pub(crate) fn vm(vm: &VmReport) -> String {
    let mut text = format!("VM {}", vm.vm);
    text.extend(vm.name.iter().map(|name| format!(" ({name})")));
    text.push_str(&format!(": {}\n", state(vm)));
    if let Some(quarantine) = &vm.quarantine {
        let why = if quarantine.by_hand { "by an administrator" } else { "for its faults" };
        let faults = quarantine.faults;
        let until = match quarantine.until_s {
            Some(until) => format!("for {} more", time(seconds_until(until).saturating_mul(1_000_000))),
            None => "until vgpuctl clear".to_owned(),
        };
        text.push_str(&format!("  quarantined {why}, {until}; {faults} fault(s)\n"));
    }
    if let Some(suspended) = &vm.suspended {
        let moved = size(suspended.moved_bytes);
        text.push_str(&format!("  suspended: {} session(s), {moved} in host memory\n", suspended.sessions));
    }
    text.push_str(&format!("  pool {}, serves {}\n", vm.pool, vm.attachment));
    let uptime = time(vm.uptime_us);
    text.push_str(&format!(
        "  daemon: process {}, release {}, up {uptime}\n",
        vm.daemon_pid, vm.daemon_release
    ));
    text.push_str("\nSettings\n");
    for (name, value) in &vm.settings {
        text.push_str(&format!("  {name:<18} {value}\n"));
    }
    text.push_str("\nDevices\n");
    let head = ["", "NAME", "UUID", "USED", "OF", "GPU", "TEMPERATURE", "POWER"];
    let mut devices = table(&head, 3);
    for (at, device) in vm.devices.iter().enumerate() {
        let reading = device.reading.clone().unwrap_or_default();
        let ReadingReport { utilization_percent, temperature_c, power_mw, .. } = reading;
        devices.add_row([
            format!("  {at}"),
            device.name.clone(),
            device.uuid.clone(),
            size(device.used_bytes),
            size(device.total_bytes),
            or_dash(utilization_percent.map(|percent| format!("{percent} %"))),
            or_dash(temperature_c.map(|degrees| format!("{degrees} C"))),
            or_dash(power_mw.map(|milliwatts| format!("{} W", milliwatts / 1000))),
        ]);
    }
    text.push_str(&trimmed(&devices));
    text.push_str("\nProcesses\n");
    let head = ["  PID", "WORKER", "AGE", "MEMORY", "WITH CONTEXTS", "GPU TIME", "CALLS", "COPIED", ""];
    let mut processes = table(&head, 1);
    for process in &vm.processes {
        processes.add_row([
            format!("  {}", process.guest_pid),
            process.worker_pid.to_string(),
            time(process.age_us),
            process_memory(&process.device_bytes),
            host_memory(&process.host_bytes),
            time(process.work.gpu_us),
            process.work.all_calls().to_string(),
            size(process.work.all_copied_bytes()),
            if process.faulted { "faulted".to_owned() } else { String::new() },
        ]);
    }
    text.push_str(&trimmed(&processes));
    text
}

/// Over all devices; a dash where one does not know.
pub(crate) fn process_memory(bytes: &[Option<u64>]) -> String {
    or_dash(bytes.iter().copied().sum::<Option<u64>>().map(size))
}

/// Over those devices of which it is known; a dash where it is of none.
fn host_memory(bytes: &[Option<u64>]) -> String {
    let known: Vec<u64> = bytes.iter().copied().flatten().collect();
    or_dash(known.iter().copied().reduce(u64::saturating_add).map(size))
}

fn seconds_until(time: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    time.saturating_sub(now.map_or(0, |now| now.as_secs()))
}

/// What was done so far.
pub(crate) fn stats(vm: &VmReport) -> String {
    let mut text = format!("VM {}", vm.vm);
    text.extend(vm.name.iter().map(|name| format!(" ({name})")));
    text.push('\n');
    let Work { calls, copied_bytes, replies, errors, posted_errors, gpu_us, turn_wait_us, turn_waits } =
        &vm.work;
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<32} {value:>14}\n"));
    for kind in calls {
        line(&format!("calls: {}", kind.kind), kind.count.to_string());
    }
    for kind in copied_bytes {
        line(&format!("copied: {}", kind.kind), size(kind.count));
    }
    line("answers waited for", replies.to_string());
    line("calls that failed", errors.to_string());
    line("  that nobody waited for", posted_errors.to_string());
    line("GPU time", time(*gpu_us));
    line("waits for the GPU", time(*turn_wait_us));
    for (at, count) in turn_waits.iter().enumerate().filter(|(_, count)| **count != 0) {
        let from = if at == 0 { 0 } else { 1u64 << at.min(63) };
        line(&format!("  from {}", time(from)), count.to_string());
    }
    let counters = &vm.counters;
    for (name, count) in [
        ("sessions opened", counters.sessions_opened),
        ("sessions closed", counters.sessions_closed),
        ("sessions died", counters.sessions_died),
        ("sessions faulted", counters.sessions_faulted),
        ("requests of the driver", counters.requests),
        ("requests refused", counters.request_errors),
        ("doorbells", counters.doorbells),
        ("interrupts", counters.wakes),
        ("resets", counters.resets),
    ] {
        line(name, count.to_string());
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use vgpu_control::{Counters, DeviceReport, Kind, ProcessReport, QuarantineReport};

    /// A VM that has everything.
    pub(crate) fn example() -> VmReport {
        let calls =
            |count| vec![Kind { kind: "launch".into(), count }, Kind { kind: "copy".into(), count: 2 }];
        let work = |count| Work {
            calls: calls(count),
            copied_bytes: vec![Kind { kind: "up".into(), count: 3 << 20 }],
            gpu_us: 1_500_000,
            turn_wait_us: 2500,
            turn_waits: vec![0, 4, 1],
            ..Work::default()
        };
        VmReport {
            version: vgpu_control::VERSION,
            vm: 7,
            name: Some("web".into()),
            pool: 'A',
            attachment: "QEMU on /run/vgpu/7.sock".into(),
            socket: Some("/run/vgpu/7.sock".into()),
            daemon_pid: 41,
            daemon_release: "0.1.0".into(),
            uptime_us: 90_000_000,
            settings: [("priority".to_owned(), "high".to_owned()), ("weight".to_owned(), "30".to_owned())]
                .into(),
            paused: false,
            suspended: None,
            quarantine: Some(QuarantineReport { since_s: 1, until_s: None, faults: 6, by_hand: false }),
            devices: vec![DeviceReport {
                name: "NVIDIA H100".into(),
                uuid: "GPU-1".into(),
                total_bytes: 16 << 30,
                used_bytes: 1 << 30,
                reading: Some(ReadingReport {
                    power_mw: Some(70_500),
                    temperature_c: Some(41),
                    utilization_percent: Some(12),
                    ..ReadingReport::default()
                }),
            }],
            processes: vec![ProcessReport {
                session: 3,
                guest_pid: 1234,
                worker_pid: 99,
                age_us: 2_000_000,
                faulted: true,
                device_bytes: vec![Some(1 << 30)],
                host_bytes: vec![Some(3 << 29), None],
                work: work(5),
            }],
            work: work(8),
            counters: Counters { doorbells: 17, ..Counters::default() },
        }
    }

    #[test]
    fn a_vm_is_one_line_of_the_list() {
        let text = list(&[example()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words[..6], ["7", "web", "quarantined", "A", "high", "30"], "{text}");
        assert!(lines[1].contains("1.0 GiB / 16.0 GiB") && lines[1].contains("1.5 s"), "{text}");
    }

    #[test]
    fn all_of_a_vm_is_shown() {
        let text = vm(&example());
        for part in [
            "VM 7 (web): quarantined\n",
            "until vgpuctl clear; 6 fault(s)",
            "weight             30",
            "NVIDIA H100",
            "41 C",
            "70 W",
            "1234",
            "faulted",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(text.lines().all(|line| !line.ends_with(' ')), "{text:?}");
    }

    #[test]
    fn what_was_done_is_counted() {
        let text = stats(&example());
        let line =
            |name: &str| text.lines().find(|line| line.trim().starts_with(name)).expect(name).to_owned();
        assert!(line("calls: launch").ends_with(" 8"));
        assert!(line("copied: up").ends_with("3.0 MiB"));
        assert!(line("doorbells").ends_with(" 17"));
        assert!(line("from 0.0 ms").ends_with(" 4"), "{text}");
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!((size(0), size(1023), size(1536)), ("0 B".into(), "1023 B".into(), "1.5 KiB".into()));
        assert_eq!(
            (time(1500), time(1_500_000), time(90_000_000)),
            ("1.5 ms".into(), "1.5 s".into(), "1m 30s".into())
        );
        assert_eq!(
            (process_memory(&[Some(1), None]), process_memory(&[Some(1 << 20), Some(1 << 20)])),
            ("-".into(), "2.0 MiB".into())
        );
    }
}
