//! Who uses the GPU now: the difference between two looks.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::Instant;

use serde::Serialize;
use vgpu_control::{VmReport, Work};

use crate::arguments::Top;
use crate::{Failure, reports, show};

/// What somebody has done in a second, on the average.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
struct Rates {
    /// Of the time, on all devices together.
    gpu_percent: f64,
    calls: f64,
    launches: f64,
    copied_bytes: f64,
    /// Of the time, all threads together.
    turn_wait_percent: f64,
}

/// A VM or a process, for programs.
#[derive(Debug, Serialize)]
struct Line {
    vm: u32,
    name: Option<String>,
    state: &'static str,
    /// None: the VM as a whole.
    guest_pid: Option<u32>,
    device_bytes: Vec<Option<u64>>,
    #[serde(flatten)]
    rates: Rates,
}

/// Whose work it is: a VM's, or a worker's of it.
type Key = (u32, Option<i32>);

/// One look.
struct Look {
    at: Instant,
    vms: Vec<VmReport>,
}

impl Look {
    fn now(dir: &Path) -> Result<Self, Failure> {
        let vms = reports(dir)?;
        Ok(Self { at: Instant::now(), vms })
    }

    fn work(&self) -> HashMap<Key, &Work> {
        let mut all = HashMap::new();
        for vm in &self.vms {
            all.insert((vm.vm, None), &vm.work);
            all.extend(vm.processes.iter().map(|process| ((vm.vm, Some(process.worker_pid)), &process.work)));
        }
        all
    }
}

fn rates(before: Option<&Work>, after: &Work, seconds: f64) -> Rates {
    let nothing = Work::default();
    let before = before.unwrap_or(&nothing);
    let launches =
        |work: &Work| work.calls.iter().find(|kind| kind.kind == "launch").map_or(0, |kind| kind.count);
    // A daemon that was started anew counts from nothing.
    let rate = |value: fn(&Work) -> u64| value(after).saturating_sub(value(before)) as f64 / seconds;
    Rates {
        gpu_percent: rate(|work| work.gpu_us) / 1e4,
        calls: rate(Work::all_calls),
        launches: launches(after).saturating_sub(launches(before)) as f64 / seconds,
        copied_bytes: rate(Work::all_copied_bytes),
        turn_wait_percent: rate(|work| work.turn_wait_us) / 1e4,
    }
}

/// VMs, each with its processes; whoever uses most comes first.
fn lines(before: &Look, after: &Look) -> Vec<Line> {
    let seconds = after.at.duration_since(before.at).as_secs_f64().max(1e-3);
    let earlier = before.work();
    let of = |key: Key, work| rates(earlier.get(&key).copied(), work, seconds);
    let most_first = |a: &Line, b: &Line| b.rates.gpu_percent.total_cmp(&a.rates.gpu_percent);
    let mut vms: Vec<(Line, Vec<Line>)> = Vec::new();
    for vm in &after.vms {
        let line = |guest_pid, device_bytes, rates| Line {
            vm: vm.vm,
            name: vm.name.clone(),
            state: show::state(vm),
            guest_pid,
            device_bytes,
            rates,
        };
        let used = vm.devices.iter().map(|device| Some(device.used_bytes)).collect();
        let mut processes: Vec<Line> = (vm.processes.iter())
            .map(|process| {
                let rates = of((vm.vm, Some(process.worker_pid)), &process.work);
                line(Some(process.guest_pid), process.device_bytes.clone(), rates)
            })
            .collect();
        processes.sort_by(most_first);
        vms.push((line(None, used, of((vm.vm, None), &vm.work)), processes));
    }
    vms.sort_by(|(a, _), (b, _)| most_first(a, b));
    vms.into_iter().flat_map(|(vm, processes)| std::iter::once(vm).chain(processes)).collect()
}

/// Without its fraction.
#[allow(clippy::cast_possible_truncation)]
fn whole(value: f64) -> u64 {
    value as u64
}

fn table(lines: &[Line]) -> String {
    let head = ["VM", "NAME", "PID", "STATE", "GPU", "MEMORY", "CALLS/s", "LAUNCHES/s", "COPIED/s", "WAITS"];
    let mut table = show::table(&head, 4);
    for line in lines {
        let of_vm = line.guest_pid.is_none();
        let Rates { gpu_percent, calls, launches, copied_bytes, turn_wait_percent } = line.rates;
        table.add_row([
            if of_vm { line.vm.to_string() } else { String::new() },
            line.name.clone().filter(|_| of_vm).unwrap_or_default(),
            line.guest_pid.map_or_else(String::new, |pid| pid.to_string()),
            if of_vm { line.state.to_owned() } else { String::new() },
            format!("{gpu_percent:.1} %"),
            show::process_memory(&line.device_bytes),
            format!("{calls:.0}"),
            format!("{launches:.0}"),
            show::size(whole(copied_bytes)),
            format!("{turn_wait_percent:.1} %"),
        ]);
    }
    show::trimmed(&table)
}

/// Shows it until it is ended, or as often as asked.
pub(crate) fn run(dir: &Path, json: bool, options: &Top) -> Result<(), Failure> {
    let screen = !json && std::io::stdout().is_terminal();
    let mut before = Look::now(dir)?;
    let mut left = options.count;
    while left != Some(0) {
        thread::sleep(options.interval);
        let after = Look::now(dir)?;
        let lines = lines(&before, &after);
        let mut out = std::io::stdout().lock();
        if json {
            // A line for each look.
            let text = serde_json::to_string(&lines).map_err(|error| Failure::Refused(error.to_string()))?;
            writeln!(out, "{text}")?;
        } else {
            // Home, and the rest of the screen cleared: no flicker.
            let (home, clear) = if screen { ("\x1b[H", "\x1b[J") } else { ("", "") };
            writeln!(out, "{home}{clear}{}", table(&lines))?;
        }
        out.flush()?;
        before = after;
        left = left.map(|left| left.saturating_sub(1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::show::tests::example;

    #[test]
    fn what_was_done_between_two_looks_is_shown_by_vm_and_process() {
        let at = Instant::now();
        let mut idle = example();
        (idle.vm, idle.name, idle.processes) = (8, None, Vec::new());
        let before = Look { at, vms: vec![idle.clone(), example()] };
        let mut busy = example();
        busy.work.gpu_us += 1_000_000;
        busy.work.calls[0].count += 100;
        busy.processes[0].work.copied_bytes[0].count += 2 << 20;
        let after = Look { at: at + Duration::from_secs(2), vms: vec![idle, busy] };
        let lines = lines(&before, &after);
        assert_eq!(
            lines.iter().map(|line| (line.vm, line.guest_pid)).collect::<Vec<_>>(),
            [(7, None), (7, Some(1234)), (8, None)]
        );
        let rates = lines[0].rates;
        assert_eq!((rates.gpu_percent, rates.calls, rates.launches), (50.0, 50.0, 50.0));
        assert_eq!(lines[1].rates.copied_bytes, f64::from(1 << 20));
        assert_eq!(lines[2].rates, Rates::default());
        let text = table(&lines);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.lines().nth(1).unwrap().contains("50.0 %"), "{text}");
    }
}
