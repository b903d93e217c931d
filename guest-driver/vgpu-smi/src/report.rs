//! `-q`: everything that is known, in sections.

use crate::failure::Failure;
use crate::nvml::{Answer, Clock, Errors, Number, Since, SystemText, Text};
use crate::pass::{Gpu, Pass};
use crate::words;

/// The column where values begin.
const COLUMN: usize = 42;

/// Parts of the report that `-d` chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Memory,
    Utilization,
    Ecc,
    Temperature,
    Power,
    Clock,
    Compute,
    Pids,
    Performance,
}

/// Their names.
const NAMES: [(&str, Section); 9] = [
    ("MEMORY", Section::Memory),
    ("UTILIZATION", Section::Utilization),
    ("ECC", Section::Ecc),
    ("TEMPERATURE", Section::Temperature),
    ("POWER", Section::Power),
    ("CLOCK", Section::Clock),
    ("COMPUTE", Section::Compute),
    ("PIDS", Section::Pids),
    ("PERFORMANCE", Section::Performance),
];

impl Section {
    /// A list, separated by commas.
    ///
    /// # Errors
    /// For a name that is none.
    pub fn parse(text: &str) -> Result<Vec<Self>, Failure> {
        let one = |name: &str| {
            let name = name.trim();
            NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, it)| *it).ok_or_else(
                || {
                    let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
                    Failure::usage(format!("-d: {name:?} is none of {}", known.join(", ")))
                },
            )
        };
        text.split(',').map(one).collect()
    }
}

/// The report as it grows.
struct Page(String);

impl Page {
    /// A heading.
    fn head(&mut self, level: usize, name: &str) {
        self.0 += &format!("{:1$}{name}\n", "", level * 4);
    }

    fn line(&mut self, level: usize, name: &str, value: &str) {
        let name = format!("{:1$}{name}", "", level * 4);
        self.0 += &format!("{name:<COLUMN$}: {value}\n");
    }

    fn text(&mut self, level: usize, name: &str, value: Answer<String>) {
        let value = words::or_absent(value, |text| words::printable(&text));
        self.line(level, name, &value);
    }
}

/// A device while it is written down.
struct Sheet<'a> {
    page: &'a mut Page,
    pass: &'a Pass<'a>,
    gpu: &'a Gpu<'a>,
}

impl Sheet<'_> {
    fn head(&mut self, level: usize, name: &str) {
        self.page.head(level, name);
    }

    fn number(&mut self, level: usize, name: &str, what: Number, write: fn(u64) -> String) {
        self.page.text(level, name, self.gpu.number(what).map(write));
    }

    fn memory(&mut self, name: &str, part: fn(crate::nvml::Memory) -> u64) {
        let value = self.gpu.memory().map(|memory| format!("{} MiB", words::mib(part(memory))));
        self.page.text(2, name, value);
    }

    fn words(&mut self, level: usize, name: &str, what: Text) {
        self.page.text(level, name, self.gpu.text(what));
    }

    fn identity(&mut self) {
        self.words(1, "Product Name", Text::Name);
        self.number(1, "Product Brand", Number::Brand, words::brand);
        self.number(1, "Product Architecture", Number::Architecture, words::architecture);
        self.number(1, "Display Mode", Number::DisplayMode, words::enabled);
        self.number(1, "Display Active", Number::DisplayActive, words::enabled);
        self.number(1, "Persistence Mode", Number::Persistence, words::enabled);
        self.head(1, "MIG Mode");
        self.number(2, "Current", Number::MigCurrent, words::enabled);
        self.number(2, "Pending", Number::MigPending, words::enabled);
        self.number(1, "Accounting Mode", Number::AccountingMode, words::enabled);
        self.words(1, "Serial Number", Text::Serial);
        self.words(1, "GPU UUID", Text::Uuid);
        self.number(1, "Minor Number", Number::Minor, |n| n.to_string());
        self.words(1, "VBIOS Version", Text::Vbios);
        self.number(1, "MultiGPU Board", Number::MultiGpuBoard, words::yes);
        self.words(1, "Board Part Number", Text::BoardPartNumber);
        self.head(1, "Inforom Version");
        self.words(2, "Image Version", Text::InforomImage);
        self.head(1, "PCI");
        self.number(2, "Bus", Number::PciBus, |n| format!("0x{n:02X}"));
        self.number(2, "Device", Number::PciDevice, |n| format!("0x{n:02X}"));
        self.number(2, "Domain", Number::PciDomain, |n| format!("0x{n:04X}"));
        self.number(2, "Device Id", Number::PciId, |n| format!("0x{n:08X}"));
        self.words(2, "Bus Id", Text::BusId);
        self.number(2, "Sub System Id", Number::PciSubsystemId, |n| format!("0x{n:08X}"));
        self.head(2, "GPU Link Info");
        self.head(3, "PCIe Generation");
        self.number(4, "Max", Number::PcieGenerationMax, |n| n.to_string());
        self.number(4, "Current", Number::PcieGeneration, |n| n.to_string());
        self.head(3, "Link Width");
        self.number(4, "Max", Number::PcieWidthMax, |n| format!("{n}x"));
        self.number(4, "Current", Number::PcieWidth, |n| format!("{n}x"));
        self.number(1, "Fan Speed", Number::FanPercent, percent);
    }

    fn section(&mut self, section: Section) {
        match section {
            Section::Performance => {
                self.number(1, "Performance State", Number::PerformanceState, |n| format!("P{n}"));
                self.number(1, "Clocks Event Reasons", Number::EventReasons, |n| format!("0x{n:016X}"));
            }
            Section::Memory => {
                self.head(1, "FB Memory Usage");
                self.memory("Total", |memory| memory.total);
                self.memory("Reserved", |memory| memory.reserved);
                self.memory("Used", |memory| memory.used);
                self.memory("Free", |memory| memory.free);
                self.head(1, "BAR1 Memory Usage");
                let mib = |bytes| format!("{} MiB", words::mib(bytes));
                self.number(2, "Total", Number::Bar1Total, mib);
                self.number(2, "Used", Number::Bar1Used, mib);
                self.number(2, "Free", Number::Bar1Free, mib);
            }
            Section::Compute => self.number(1, "Compute Mode", Number::ComputeMode, words::compute_mode),
            Section::Utilization => {
                self.head(1, "Utilization");
                self.number(2, "GPU", Number::GpuPercent, percent);
                self.number(2, "Memory", Number::MemoryPercent, percent);
                self.number(2, "Encoder", Number::EncoderPercent, percent);
                self.number(2, "Decoder", Number::DecoderPercent, percent);
            }
            Section::Ecc => self.ecc(),
            Section::Temperature => {
                self.head(1, "Temperature");
                self.number(2, "GPU Current Temp", Number::TemperatureC, |n| format!("{n} C"));
            }
            Section::Power => {
                let watts = |milliwatts| format!("{} W", words::watts(milliwatts));
                self.head(1, "GPU Power Readings");
                self.number(2, "Power Draw", Number::PowerMw, watts);
                self.number(2, "Current Power Limit", Number::PowerEnforcedMw, watts);
                self.number(2, "Requested Power Limit", Number::PowerLimitMw, watts);
                self.number(2, "Default Power Limit", Number::PowerDefaultMw, watts);
                self.number(2, "Min Power Limit", Number::PowerMinMw, watts);
                self.number(2, "Max Power Limit", Number::PowerMaxMw, watts);
            }
            Section::Clock => self.clocks(),
            Section::Pids => self.processes(),
        }
    }

    fn ecc(&mut self) {
        self.head(1, "ECC Mode");
        self.number(2, "Current", Number::EccCurrent, words::enabled);
        self.number(2, "Pending", Number::EccPending, words::enabled);
        self.head(1, "ECC Errors");
        for (name, since) in [("Volatile", Since::Volatile), ("Aggregate", Since::Aggregate)] {
            self.head(2, name);
            self.number(3, "Corrected", Number::EccErrors(Errors::Corrected, since), |n| n.to_string());
            self.number(3, "Uncorrected", Number::EccErrors(Errors::Uncorrected, since), |n| n.to_string());
        }
    }

    fn clocks(&mut self) {
        let mhz = |n| format!("{n} MHz");
        let all = [
            ("Graphics", Clock::Graphics),
            ("SM", Clock::Sm),
            ("Memory", Clock::Memory),
            ("Video", Clock::Video),
        ];
        self.head(1, "Clocks");
        for (name, clock) in all {
            self.number(2, name, Number::ClockMhz(clock), mhz);
        }
        self.head(1, "Applications Clocks");
        self.number(2, "Graphics", Number::ApplicationClockMhz(Clock::Graphics), mhz);
        self.number(2, "Memory", Number::ApplicationClockMhz(Clock::Memory), mhz);
        self.head(1, "Default Applications Clocks");
        self.number(2, "Graphics", Number::DefaultApplicationClockMhz(Clock::Graphics), mhz);
        self.number(2, "Memory", Number::DefaultApplicationClockMhz(Clock::Memory), mhz);
        self.head(1, "Max Clocks");
        for (name, clock) in all {
            self.number(2, name, Number::MaxClockMhz(clock), mhz);
        }
    }

    fn processes(&mut self) {
        let list = match self.gpu.processes() {
            Ok(list) if list.is_empty() => return self.page.line(1, "Processes", "None"),
            Ok(list) => list,
            Err(code) => return self.page.line(1, "Processes", words::absent(code)),
        };
        self.head(1, "Processes");
        for process in list {
            self.page.line(2, "GPU instance ID", "N/A");
            self.page.line(2, "Compute instance ID", "N/A");
            self.page.line(2, "Process ID", &process.pid.to_string());
            self.page.line(3, "Type", "C");
            self.page.text(3, "Name", self.pass.nvml.process_name(process.pid));
            let bytes = process.bytes.map_or_else(|| "N/A".to_owned(), |b| format!("{} MiB", words::mib(b)));
            self.page.line(3, "Used GPU Memory", &bytes);
        }
    }
}

fn percent(value: u64) -> String {
    format!("{value} %")
}

/// The report: of these sections, or of everything where there are none.
pub fn report(pass: &Pass<'_>, sections: &[Section]) -> String {
    const ALL: [Section; 9] = [
        Section::Performance,
        Section::Memory,
        Section::Compute,
        Section::Utilization,
        Section::Ecc,
        Section::Temperature,
        Section::Power,
        Section::Clock,
        Section::Pids,
    ];
    let mut page = Page("\n==============NVSMI LOG==============\n\n".to_owned());
    page.line(0, "Timestamp", &pass.now.strftime("%a %b %e %H:%M:%S %Y").to_string());
    page.text(0, "Driver Version", pass.nvml.system(SystemText::DriverVersion));
    page.text(0, "CUDA Version", pass.nvml.cuda_version().map(words::cuda_version));
    page.0.push('\n');
    page.line(0, "Attached GPUs", &pass.count.to_string());
    for gpu in &pass.gpus {
        let address = words::or_absent(gpu.text(Text::BusId), |text| text);
        page.head(0, &format!("GPU {address}"));
        let mut sheet = Sheet { page: &mut page, pass, gpu };
        if sections.is_empty() {
            sheet.identity();
        }
        for section in ALL {
            if sections.is_empty() || sections.contains(&section) {
                sheet.section(section);
            }
        }
        page.0.push('\n');
    }
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvml::recorded::{h100, software};

    fn now() -> jiff::Zoned {
        "2026-03-10T08:59:32+00:00[UTC]".parse().unwrap()
    }

    #[test]
    fn chosen_sections() {
        let machine = h100();
        let pass = Pass::begin(&machine, &[], now()).unwrap();
        let sections = Section::parse("memory,PIDS").unwrap();
        assert_eq!(
            report(&pass, &sections),
            "
==============NVSMI LOG==============

Timestamp                                 : Tue Mar 10 08:59:32 2026
Driver Version                            : 580.126.09
CUDA Version                              : 13.0

Attached GPUs                             : 1
GPU 00000000:06:00.0
    FB Memory Usage
        Total                             : 81559 MiB
        Reserved                          : 0 MiB
        Used                              : 512 MiB
        Free                              : 81047 MiB
    BAR1 Memory Usage
        Total                             : N/A
        Used                              : N/A
        Free                              : N/A
    Processes
        GPU instance ID                   : N/A
        Compute instance ID               : N/A
        Process ID                        : 1342
            Type                          : C
            Name                          : /usr/bin/python3
            Used GPU Memory               : 512 MiB

"
        );
        assert_eq!(Section::parse("MEMORY,SPEED").unwrap_err().status, 2);
    }

    #[test]
    fn everything() {
        let machine = h100();
        let pass = Pass::begin(&machine, &[], now()).unwrap();
        let text = report(&pass, &[]);
        for line in [
            "    Product Name                          : NVIDIA H100 80GB HBM3\n",
            "    Product Architecture                  : Hopper\n",
            "    Serial Number                         : N/A\n",
            "        Bus Id                            : 00000000:06:00.0\n",
            "        Device Id                         : 0x233010DE\n",
            "                Current                   : 16x\n",
            "    Performance State                     : P0\n",
            "        GPU Current Temp                  : 34 C\n",
            "        Power Draw                        : 71.53 W\n",
            "        SM                                : 1980 MHz\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let machine = software();
        let pass = Pass::begin(&machine, &[], now()).unwrap();
        let text = report(&pass, &[]);
        assert!(text.contains("        GPU Current Temp                  : N/A\n"), "{text}");
        assert!(text.contains("    Processes                             : None\n"), "{text}");
    }
}
