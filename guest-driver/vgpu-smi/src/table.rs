//! The table that people know: what the program shows without arguments. And `-L`.

use crate::nvml::{Code, Number, SystemText, Text};
use crate::pass::{Gpu, Pass};
use crate::words;

const EDGE: &str =
    "+-----------------------------------------------------------------------------------------+";
const RULE: &str =
    "+-----------------------------------------+------------------------+----------------------+";
const DOUBLE: &str =
    "|=========================================+========================+======================|";
const HEADING: &str = "\
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |";
const PROCESSES: &str = "\
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|";

/// Characters that a device's name and a process's have.
const NAME: usize = 27;
const PROGRAM: usize = 34;

/// By what name the program was started: it heads the table.
pub struct Title {
    /// `VGPU-SMI`, or `NVIDIA-SMI` where it was started under that name.
    pub name: &'static str,
    /// Its version: of the crate, or of the driver.
    pub version: String,
}

/// On or off in two words.
fn on(value: u64) -> String {
    if value == 0 { "Off" } else { "On" }.to_owned()
}

/// A value in a table of fixed width: `ERR!` where there is a reason to look into it.
fn cell(gpu: &Gpu<'_>, what: Number, write: impl FnOnce(u64) -> String) -> String {
    gpu.number(what).map_or_else(|code| short(code).to_owned(), write)
}

fn short(code: Code) -> &'static str {
    if code.is_absence() { "N/A" } else { "ERR!" }
}

/// Errors that were not corrected, or whether they are counted at all.
fn ecc(gpu: &Gpu<'_>) -> String {
    use crate::nvml::{Errors, Since};
    match gpu.number(Number::EccCurrent) {
        Ok(0) => "Off".to_owned(),
        Ok(_) => cell(gpu, Number::EccErrors(Errors::Uncorrected, Since::Volatile), |n| n.to_string()),
        Err(code) => short(code).to_owned(),
    }
}

fn compute_mode(value: u64) -> String {
    if value == 3 { "E. Process".to_owned() } else { words::compute_mode(value) }
}

fn device(gpu: &Gpu<'_>) -> String {
    let text = |what| gpu.text(what).map_or_else(|code| short(code).to_owned(), |t| words::printable(&t));
    let watts = |what| cell(gpu, what, |mw| format!("{}W", mw / 1000));
    let memory = gpu.memory();
    let mib = |part: fn(crate::nvml::Memory) -> u64| {
        memory.map_or_else(|code| short(code).to_owned(), |m| format!("{}MiB", words::mib(part(m))))
    };
    let first = format!(
        "| {:>3}  {:<31}{:<3} | {:>18} {:>3} | {:>20} |",
        gpu.index,
        words::cut_end(&text(Text::Name), NAME),
        cell(gpu, Number::Persistence, on),
        text(Text::BusId),
        cell(gpu, Number::DisplayActive, on),
        ecc(gpu),
    );
    let second = format!(
        "|{:>4}{:>6}{:>6}{:>16} / {:>5} |{:>11} / {:>9} |{:>8}{:>13} |",
        cell(gpu, Number::FanPercent, |n| format!("{n}%")),
        cell(gpu, Number::TemperatureC, |n| format!("{n}C")),
        cell(gpu, Number::PerformanceState, |n| format!("P{n}")),
        watts(Number::PowerMw),
        watts(Number::PowerEnforcedMw),
        mib(|m| m.used),
        mib(|m| m.total),
        cell(gpu, Number::GpuPercent, |n| format!("{n}%")),
        cell(gpu, Number::ComputeMode, compute_mode),
    );
    let third = format!("|{:41}|{:24}|{:>21} |", "", "", cell(gpu, Number::MigCurrent, words::enabled));
    format!("{first}\n{second}\n{third}\n{RULE}\n")
}

fn processes(pass: &Pass<'_>) -> String {
    let mut rows = String::new();
    for gpu in &pass.gpus {
        match gpu.processes() {
            Ok(list) => {
                for process in list {
                    let name = pass.nvml.process_name(process.pid);
                    let name = name
                        .map_or_else(|code| format!("[{}]", words::absent(code)), |n| words::printable(&n));
                    let bytes =
                        process.bytes.map_or_else(|| "N/A".to_owned(), |b| format!("{}MiB", words::mib(b)));
                    let name = words::cut_beginning(&name, PROGRAM);
                    rows += &format!(
                        "| {:>4}   N/A  N/A{:>16}{:>7}   {name:<36}{bytes:>10} |\n",
                        gpu.index, process.pid, "C"
                    );
                }
            }
            Err(code) => {
                let why = format!("  GPU {}: its processes are not told: {code}", gpu.index);
                rows += &format!("|{why:<89}|\n");
            }
        }
    }
    if rows.is_empty() {
        rows = format!("|{:<89}|\n", "  No running processes found");
    }
    format!("{EDGE}\n{PROCESSES}\n{rows}{EDGE}\n")
}

/// The table.
pub fn table(pass: &Pass<'_>, title: &Title) -> String {
    let driver = pass.nvml.system(SystemText::DriverVersion).unwrap_or_else(|code| short(code).to_owned());
    let cuda = pass.nvml.cuda_version().map_or_else(|code| short(code).to_owned(), words::cuda_version);
    let name = format!("{} {}", title.name, title.version);
    let mut text = format!(
        "{}       \n{EDGE}\n| {name:<34}Driver Version: {driver:<15}CUDA Version: {cuda:<9}|\n{RULE}\n{HEADING}\n{DOUBLE}\n",
        pass.now.strftime("%a %b %e %H:%M:%S %Y"),
    );
    for gpu in &pass.gpus {
        text += &device(gpu);
    }
    text + "\n" + &processes(pass)
}

/// `-L`: a line for each device.
pub fn list(pass: &Pass<'_>) -> String {
    let text = |gpu: &Gpu<'_>, what| {
        gpu.text(what).map_or_else(|code| words::absent(code).to_owned(), |text| words::printable(&text))
    };
    let line = |gpu: &Gpu<'_>| {
        format!("GPU {}: {} (UUID: {})\n", gpu.index, text(gpu, Text::Name), text(gpu, Text::Uuid))
    };
    pass.gpus.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvml::recorded::{h100, software};

    fn title() -> Title {
        Title { name: "VGPU-SMI", version: "0.1.0".to_owned() }
    }

    fn now() -> jiff::Zoned {
        "2026-03-10T08:59:32+00:00[UTC]".parse().unwrap()
    }

    #[test]
    fn the_table_of_a_gpu_that_computes() {
        let machine = h100();
        let pass = Pass::begin(&machine, &[], now()).unwrap();
        assert_eq!(
            table(&pass, &title()),
            "\
Tue Mar 10 08:59:32 2026       
+-----------------------------------------------------------------------------------------+
| VGPU-SMI 0.1.0                    Driver Version: 580.126.09     CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
|   0  NVIDIA H100 80GB HBM3          On  |   00000000:06:00.0 Off |                  N/A |
| N/A   34C    P0             71W /  700W |     512MiB /  81559MiB |     97%      Default |
|                                         |                        |             Disabled |
+-----------------------------------------+------------------------+----------------------+

+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|    0   N/A  N/A            1342      C   /usr/bin/python3                        512MiB |
+-----------------------------------------------------------------------------------------+
"
        );
    }

    #[test]
    fn every_line_is_as_wide_as_the_others_whatever_it_says() {
        let mut machine = software();
        machine.devices.push(h100().devices[0].clone());
        machine.devices[0].numbers.insert(Number::PowerMw, Err(Code::UNKNOWN));
        machine.devices[0].processes = Err(Code::NOT_SUPPORTED);
        machine.names.insert(1342, Ok(format!("/home/{}/python3", "x".repeat(90))));
        let pass = Pass::begin(&machine, &[], now()).unwrap();
        let text = table(&pass, &title());
        for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
            assert_eq!(line.chars().count(), EDGE.len(), "{line}");
        }
        assert!(
            text.contains("|   0  Software device with a n...") && text.contains("ERR! /   N/A |"),
            "{text}"
        );
        assert!(text.contains("GPU 0: its processes are not told: Not Supported"), "{text}");
        assert!(text.contains("xxx/python3"), "{text}");
        assert_eq!(
            list(&pass).lines().last(),
            Some("GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-f7b02328-d6fe-5b1f-9683-15041689bb03)")
        );
    }

    #[test]
    fn a_device_that_rests() {
        let machine = software();
        let pass = Pass::begin(&machine, &[], now()).unwrap();
        assert!(table(&pass, &title()).contains("|  No running processes found "));
    }
}
