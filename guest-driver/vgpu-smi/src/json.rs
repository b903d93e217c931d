//! The table's content as JSON. Units are in the names; what is not known is null.

use serde_json::{Value, json};

use crate::nvml::{Answer, Clock, Number, SystemText, Text};
use crate::pass::{Gpu, Pass};
use crate::words;

fn value<T: Into<Value>>(answer: Answer<T>) -> Value {
    answer.map_or(Value::Null, Into::into)
}

fn watts(answer: Answer<u64>) -> Value {
    #[allow(clippy::cast_precision_loss, reason = "no card draws so much")]
    answer.map_or(Value::Null, |milliwatts| json!(milliwatts as f64 / 1000.0))
}

fn is(answer: Answer<u64>) -> Value {
    answer.map_or(Value::Null, |value| json!(value != 0))
}

fn gpu(gpu: &Gpu<'_>) -> Value {
    let memory = |part: fn(crate::nvml::Memory) -> u64| value(gpu.memory().map(part));
    let clock = |clock| value(gpu.number(Number::ClockMhz(clock)));
    json!({
        "index": gpu.index,
        "name": value(gpu.text(Text::Name)),
        "uuid": value(gpu.text(Text::Uuid)),
        "bus_id": value(gpu.text(Text::BusId)),
        "compute_capability": value(gpu.number(Number::Capability).map(|c| format!("{}.{}", c / 10, c % 10))),
        "persistence": is(gpu.number(Number::Persistence)),
        "display_active": is(gpu.number(Number::DisplayActive)),
        "ecc": is(gpu.number(Number::EccCurrent)),
        "mig": is(gpu.number(Number::MigCurrent)),
        "compute_mode": value(gpu.number(Number::ComputeMode).map(words::compute_mode)),
        "performance_state": value(gpu.number(Number::PerformanceState)),
        "fan_percent": value(gpu.number(Number::FanPercent)),
        "temperature_c": value(gpu.number(Number::TemperatureC)),
        "power_w": watts(gpu.number(Number::PowerMw)),
        "power_limit_w": watts(gpu.number(Number::PowerEnforcedMw)),
        "memory_total_bytes": memory(|m| m.total),
        "memory_used_bytes": memory(|m| m.used),
        "memory_free_bytes": memory(|m| m.free),
        "utilization_gpu_percent": value(gpu.number(Number::GpuPercent)),
        "utilization_memory_percent": value(gpu.number(Number::MemoryPercent)),
        "clock_sm_mhz": clock(Clock::Sm),
        "clock_memory_mhz": clock(Clock::Memory),
    })
}

/// The document, on one line, so that `-l` gives a line each time.
pub fn document(pass: &Pass<'_>) -> String {
    let mut processes = Vec::new();
    let mut untold = Vec::new();
    for gpu in &pass.gpus {
        match gpu.processes() {
            Ok(list) => processes.extend(list.into_iter().map(|process| {
                json!({
                    "gpu": gpu.index,
                    "pid": process.pid,
                    "type": "C",
                    "name": value(pass.nvml.process_name(process.pid)),
                    "memory_bytes": process.bytes,
                })
            })),
            Err(_) => untold.push(gpu.index),
        }
    }
    let document = json!({
        "timestamp": pass.now.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
        "driver_version": value(pass.nvml.system(SystemText::DriverVersion)),
        "cuda_version": value(pass.nvml.cuda_version().map(words::cuda_version)),
        "gpus": pass.gpus.iter().map(gpu).collect::<Vec<_>>(),
        "processes": processes,
        "processes_not_told_of_gpus": untold,
    });
    document.to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvml::recorded::{h100, software};

    #[test]
    fn numbers_are_numbers_and_the_unknown_is_null() {
        let mut machine = h100();
        machine.devices.push(software().devices[0].clone());
        let pass = Pass::begin(&machine, &[], jiff::Zoned::now()).unwrap();
        let text = document(&pass);
        assert_eq!(text.lines().count(), 1);
        let it: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(it["driver_version"], "580.126.09");
        assert_eq!(it["gpus"][0]["memory_used_bytes"], 512 << 20);
        assert_eq!(it["gpus"][0]["power_w"], 71.53);
        assert_eq!(it["gpus"][0]["persistence"], true);
        assert_eq!(it["gpus"][1]["temperature_c"], Value::Null);
        assert_eq!(it["processes"][0]["name"], "/usr/bin/python3");
        assert_eq!(it["processes_not_told_of_gpus"], json!([]));
    }
}
