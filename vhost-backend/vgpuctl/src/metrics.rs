//! Reports as Prometheus has them (OpenMetrics text): <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::collections::BTreeMap;
use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use vgpu_control::{DeviceReport, Kind, ProcessReport, ReadingReport, VmReport, Work};

/// What the text is, for HTTP.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A series' labels.
type Labels = Vec<(&'static str, String)>;

/// The metrics of these VMs, and of the devices that they use.
pub(crate) fn text(vms: Vec<VmReport>, silent: usize) -> String {
    let mut registry = Registry::with_prefix("vgpu");
    registry.register_collector(Box::new(Host { vms, silent }));
    let mut text = String::new();
    // Only a writer can fail, and a string does not.
    let _ = text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Host {
    vms: Vec<VmReport>,
    silent: usize,
}

/// The numbers of one metric.
enum Values<'a> {
    Gauge(Vec<(Labels, f64)>),
    Counter(Vec<(Labels, f64)>),
    Waits(Vec<(Labels, &'a Work)>),
}

fn of_vm(vm: &VmReport) -> Labels {
    vec![("vm", vm.vm.to_string()), ("name", vm.name.clone().unwrap_or_default())]
}

fn with(mut labels: Labels, name: &'static str, value: &str) -> Labels {
    labels.push((name, value.to_owned()));
    labels
}

/// Counts up to 2^53 are exact.
fn number(count: u64) -> f64 {
    count as f64
}

fn seconds(micros: u64) -> f64 {
    number(micros) / 1e6
}

fn truth(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

impl Host {
    fn vms(&self, value: impl Fn(&VmReport) -> f64) -> Vec<(Labels, f64)> {
        self.vms.iter().map(|vm| (of_vm(vm), value(vm))).collect()
    }

    /// Whose work: each VM's in all, and that of its processes now.
    fn work(&self, of_processes: bool) -> Vec<(Labels, &Work)> {
        let mut all = Vec::new();
        for vm in &self.vms {
            if !of_processes {
                all.push((of_vm(vm), &vm.work));
                continue;
            }
            for process in &vm.processes {
                let labels = with(of_vm(vm), "pid", &process.guest_pid.to_string());
                all.push((with(labels, "worker", &process.worker_pid.to_string()), &process.work));
            }
        }
        all
    }

    fn devices(&self, value: impl Fn(&DeviceReport) -> u64) -> Vec<(Labels, f64)> {
        let each = self.vms.iter().flat_map(|vm| vm.devices.iter().map(move |device| (vm, device)));
        each.map(|(vm, device)| (with(of_vm(vm), "gpu", &device.uuid), number(value(device)))).collect()
    }

    /// Of each device once, however many VMs use it: the newest reading.
    fn readings(&self, value: impl Fn(&ReadingReport) -> Option<f64>) -> Vec<(Labels, f64)> {
        let mut newest: BTreeMap<&str, (&DeviceReport, &ReadingReport)> = BTreeMap::new();
        for device in self.vms.iter().flat_map(|vm| &vm.devices) {
            if let Some(reading) = &device.reading
                && newest.get(device.uuid.as_str()).is_none_or(|(_, other)| reading.age_ms < other.age_ms)
            {
                newest.insert(&device.uuid, (device, reading));
            }
        }
        let each = newest.into_values().filter_map(|(device, reading)| Some((device, value(reading)?)));
        each.map(|(device, value)| {
            (vec![("gpu", device.uuid.clone()), ("model", device.name.clone())], value)
        })
        .collect()
    }

    fn metrics(&self) -> Vec<(&'static str, &'static str, Values<'_>)> {
        let kinds = |of_processes, label, of: fn(&Work) -> &Vec<Kind>| {
            let each = self.work(of_processes).into_iter();
            each.flat_map(|(labels, work)| {
                of(work).iter().map(move |kind| (with(labels.clone(), label, &kind.kind), number(kind.count)))
            })
            .collect()
        };
        let by_kind = |of_processes| kinds(of_processes, "kind", |work| &work.calls);
        let by_direction = |of_processes| kinds(of_processes, "direction", |work| &work.copied_bytes);
        let work = |of_processes, value: fn(&Work) -> f64| {
            self.work(of_processes).into_iter().map(|(labels, work)| (labels, value(work))).collect()
        };
        let of_processes = |bytes: fn(&ProcessReport) -> Option<u64>| {
            (self.vms.iter())
                .flat_map(|vm| vm.processes.iter().map(move |process| (vm, process)))
                .filter_map(|(vm, process)| {
                    let labels = with(of_vm(vm), "pid", &process.guest_pid.to_string());
                    Some((with(labels, "worker", &process.worker_pid.to_string()), number(bytes(process)?)))
                })
                .collect()
        };
        let allocated = |process: &ProcessReport| process.device_bytes.iter().copied().sum::<Option<u64>>();
        let with_contexts = |process: &ProcessReport| {
            process.host_bytes.iter().copied().flatten().reduce(u64::saturating_add)
        };
        let weight =
            |vm: &VmReport| vm.settings.get("weight").and_then(|weight| weight.parse().ok()).unwrap_or(0.0);
        use Values::{Counter, Gauge, Waits};
        vec![
            (
                "silent_daemons",
                "Daemons that have a socket and do not answer",
                Gauge(vec![(Vec::new(), number(self.silent as u64))]),
            ),
            (
                "vm_uptime_seconds",
                "For how long the VM's daemon has served",
                Gauge(self.vms(|vm| seconds(vm.uptime_us))),
            ),
            ("vm_weight", "Share of the GPU's time under contention", Gauge(self.vms(weight))),
            ("vm_paused", "1 while the VM is paused by its manager", Gauge(self.vms(|vm| truth(vm.paused)))),
            (
                "vm_suspended",
                "1 while the VM is suspended",
                Gauge(self.vms(|vm| truth(vm.suspended.is_some()))),
            ),
            (
                "vm_quarantined",
                "1 while the VM is refused new sessions",
                Gauge(self.vms(|vm| truth(vm.quarantine.is_some()))),
            ),
            (
                "vm_processes",
                "Processes that have a session",
                Gauge(self.vms(|vm| number(vm.processes.len() as u64))),
            ),
            (
                "vm_memory_used_bytes",
                "Device memory that the VM's processes have allocated",
                Gauge(self.devices(|device| device.used_bytes)),
            ),
            (
                "vm_memory_limit_bytes",
                "Device memory that the VM may use",
                Gauge(self.devices(|device| device.total_bytes)),
            ),
            ("vm_calls", "CUDA calls carried out", Counter(by_kind(false))),
            (
                "vm_call_errors",
                "CUDA calls that have failed",
                Counter(work(false, |work| number(work.errors))),
            ),
            ("vm_copied_bytes", "Bytes copied", Counter(by_direction(false))),
            (
                "vm_gpu_seconds",
                "For how long devices have had unfinished work of the VM",
                Counter(work(false, |work| seconds(work.gpu_us))),
            ),
            (
                "vm_turn_wait_seconds",
                "How long calls have waited for the VM's turn on a device",
                Waits(self.work(false)),
            ),
            (
                "vm_sessions_opened",
                "Sessions opened",
                Counter(self.vms(|vm| number(vm.counters.sessions_opened))),
            ),
            (
                "vm_sessions_died",
                "Sessions that have died by themselves",
                Counter(self.vms(|vm| number(vm.counters.sessions_died))),
            ),
            (
                "vm_faults",
                "Sessions that have faulted",
                Counter(self.vms(|vm| number(vm.counters.sessions_faulted))),
            ),
            (
                "vm_requests",
                "Requests of the guest's driver",
                Counter(self.vms(|vm| number(vm.counters.requests))),
            ),
            (
                "vm_request_errors",
                "Requests that were refused",
                Counter(self.vms(|vm| number(vm.counters.request_errors))),
            ),
            ("vm_doorbells", "Doorbells rung", Counter(self.vms(|vm| number(vm.counters.doorbells)))),
            ("vm_interrupts", "Guest threads woken", Counter(self.vms(|vm| number(vm.counters.wakes)))),
            ("process_calls", "CUDA calls carried out", Counter(by_kind(true))),
            (
                "process_call_errors",
                "CUDA calls that have failed",
                Counter(work(true, |work| number(work.errors))),
            ),
            ("process_copied_bytes", "Bytes copied", Counter(by_direction(true))),
            (
                "process_gpu_seconds",
                "For how long devices have had unfinished work of the process",
                Counter(work(true, |work| seconds(work.gpu_us))),
            ),
            (
                "process_turn_wait_seconds",
                "How long its calls have waited for the VM's turn",
                Counter(work(true, |work| seconds(work.turn_wait_us))),
            ),
            ("process_memory_bytes", "Device memory that it has allocated", Gauge(of_processes(allocated))),
            (
                "process_memory_with_contexts_bytes",
                "Device memory of its worker, by the host's NVML: what it has allocated, and what the driver needs for its contexts and code",
                Gauge(of_processes(with_contexts)),
            ),
            (
                "gpu_utilization_ratio",
                "Part of the time for which kernels ran, of anybody",
                Gauge(self.readings(|r| Some(number(r.utilization_percent?) / 100.0))),
            ),
            (
                "gpu_memory_used_bytes",
                "Device memory that anybody uses",
                Gauge(self.readings(|r| r.memory_used_bytes.map(number))),
            ),
            (
                "gpu_memory_total_bytes",
                "All device memory",
                Gauge(self.readings(|r| r.memory_total_bytes.map(number))),
            ),
            (
                "gpu_temperature_celsius",
                "Its temperature",
                Gauge(self.readings(|r| r.temperature_c.map(number))),
            ),
            (
                "gpu_power_watts",
                "What it draws",
                Gauge(self.readings(|r| Some(number(r.power_mw?) / 1000.0))),
            ),
        ]
    }
}

/// The histogram's buckets: counts of what was at least 0, 2, 4 … µs become counts of what was at most 2, 4 … µs.
fn buckets(waits: &[u64]) -> Vec<(f64, u64)> {
    let last = waits.len().saturating_sub(1);
    let bound = |at: usize| if at == last { f64::MAX } else { seconds(2u64 << at.min(62)) };
    waits.iter().enumerate().map(|(at, count)| (bound(at), *count)).collect()
}

impl Collector for Host {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for (name, help, values) in self.metrics() {
            let kind = match values {
                Values::Gauge(_) => MetricType::Gauge,
                Values::Counter(_) => MetricType::Counter,
                Values::Waits(_) => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            let each = |metric: &mut MetricEncoder<'_>, labels: &Labels, value: f64, counts: bool| {
                if labels.is_empty() {
                    return metric.encode_gauge(&value);
                }
                let mut series = metric.encode_family(labels)?;
                if counts {
                    series.encode_counter::<NoLabelSet, _, u64>(&value, None)
                } else {
                    series.encode_gauge(&value)
                }
            };
            match values {
                Values::Gauge(all) => {
                    all.iter().try_for_each(|(labels, value)| each(&mut metric, labels, *value, false))?;
                }
                Values::Counter(all) => {
                    all.iter().try_for_each(|(labels, value)| each(&mut metric, labels, *value, true))?;
                }
                Values::Waits(all) => {
                    for (labels, work) in all {
                        let count =
                            work.turn_waits.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
                        let (sum, buckets) = (seconds(work.turn_wait_us), buckets(&work.turn_waits));
                        metric
                            .encode_family(&labels)?
                            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::tests::example;

    #[test]
    fn each_number_has_its_labels() {
        let mut other = example();
        (other.vm, other.name) = (8, None);
        let text = text(vec![example(), other], 1);
        for line in [
            "# TYPE vgpu_vm_calls counter",
            "vgpu_silent_daemons 1.0",
            r#"vgpu_vm_calls_total{vm="7",name="web",kind="launch"} 8.0"#,
            r#"vgpu_vm_copied_bytes_total{vm="7",name="web",direction="up"} 3145728.0"#,
            r#"vgpu_vm_gpu_seconds_total{vm="8",name=""} 1.5"#,
            r#"vgpu_vm_memory_used_bytes{vm="7",name="web",gpu="GPU-1"} 1073741824.0"#,
            r#"vgpu_vm_quarantined{vm="7",name="web"} 1.0"#,
            r#"vgpu_vm_doorbells_total{vm="7",name="web"} 17.0"#,
            r#"vgpu_process_calls_total{vm="7",name="web",pid="1234",worker="99",kind="launch"} 5.0"#,
            r#"vgpu_gpu_power_watts{gpu="GPU-1",model="NVIDIA H100"} 70.5"#,
            r#"vgpu_gpu_utilization_ratio{gpu="GPU-1",model="NVIDIA H100"} 0.12"#,
            r#"vgpu_vm_turn_wait_seconds_count{vm="7",name="web"} 5"#,
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
        }
        // A device that two VMs use is read once.
        assert_eq!(text.matches("vgpu_gpu_power_watts{").count(), 1);
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn waits_become_buckets_that_add_up() {
        assert_eq!(buckets(&[3, 0, 1, 2]), [(2e-6, 3), (4e-6, 0), (8e-6, 1), (f64::MAX, 2)]);
        let text = text(vec![example()], 0);
        let bucket = |le: &str| {
            let start = format!(r#"vgpu_vm_turn_wait_seconds_bucket{{le="{le}",vm="7",name="web"}} "#);
            text.lines()
                .find_map(|line| line.strip_prefix(&start))
                .unwrap_or_else(|| panic!("{le}:\n{text}"))
                .to_owned()
        };
        assert_eq!(
            (bucket("0.000002"), bucket("0.000004"), bucket("+Inf")),
            ("0".into(), "4".into(), "5".into())
        );
    }
}
