//! Rows of chosen fields: `--query-gpu` and `--query-compute-apps`.

use crate::failure::Failure;
use crate::fields::{self, Field, Row};
use crate::pass::Pass;
use crate::words;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    pub header: bool,
    pub units: bool,
}

impl Format {
    /// `csv`, with `noheader` and `nounits` in any order.
    ///
    /// # Errors
    /// For other words, and without `csv`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let (mut csv, mut format) = (false, Self { header: true, units: true });
        for word in text.split(',') {
            match word.trim() {
                "csv" => csv = true,
                "noheader" => format.header = false,
                "nounits" => format.units = false,
                other => {
                    return Err(Failure::usage(format!(
                        "--format: {other:?} is none of csv, noheader and nounits"
                    )));
                }
            }
        }
        if csv { Ok(format) } else { Err(Failure::usage("--format: csv is the only format there is")) }
    }
}

/// Fields that were asked for, of devices or of processes.
pub struct Query {
    fields: Vec<&'static Field>,
    of_processes: bool,
}

impl Query {
    /// Of devices.
    ///
    /// # Errors
    /// For a field that is none.
    pub fn gpus(text: &str) -> Result<Self, Failure> {
        Ok(Self { fields: find(text, fields::GPU)?, of_processes: false })
    }

    /// Of processes.
    ///
    /// # Errors
    /// As for [`Query::gpus`].
    pub fn apps(text: &str) -> Result<Self, Failure> {
        Ok(Self { fields: find(text, fields::APPS)?, of_processes: true })
    }

    /// The heading.
    pub fn header(&self, format: Format) -> String {
        let heading = |field: &&Field| {
            let name = field.names.first().copied().unwrap_or_default();
            match field.unit.filter(|_| format.units) {
                Some(unit) => format!("{name} [{unit}]"),
                None => name.to_owned(),
            }
        };
        self.fields.iter().map(heading).collect::<Vec<_>>().join(", ") + "\n"
    }

    fn row(&self, row: &Row<'_>, format: Format) -> String {
        let value = |field: &&Field| match (field.read)(row) {
            Ok(value) => match field.unit.filter(|_| format.units) {
                Some(unit) => format!("{value} {unit}"),
                None => words::printable(&value),
            },
            Err(code) => format!("[{}]", words::absent(code)),
        };
        self.fields.iter().map(value).collect::<Vec<_>>().join(", ") + "\n"
    }

    /// The rows of a look.
    ///
    /// # Errors
    /// Where the processes of a device are asked for and NVML fails; that it does not tell of them is no failure.
    pub fn rows(&self, pass: &Pass<'_>, format: Format) -> Result<String, Failure> {
        let mut text = String::new();
        for gpu in &pass.gpus {
            if !self.of_processes {
                text += &self.row(&Row { pass, gpu, process: None }, format);
                continue;
            }
            let processes = match gpu.processes() {
                Err(code) if code.is_absence() => Vec::new(),
                told => told?,
            };
            for process in processes {
                text += &self.row(&Row { pass, gpu, process: Some(process) }, format);
            }
        }
        Ok(text)
    }
}

fn find(text: &str, known: &'static [Field]) -> Result<Vec<&'static Field>, Failure> {
    let one = |name: &str| {
        let name = name.trim();
        let is = |field: &&Field| field.names.iter().any(|known| known.eq_ignore_ascii_case(name));
        known.iter().find(is).ok_or_else(|| Failure::invalid_field(name))
    };
    text.split(',').map(one).collect()
}

/// A list of fields for a person.
pub fn help(fields: &[Field]) -> String {
    let mut text = String::new();
    for field in fields {
        let names: Vec<String> = field.names.iter().map(|name| format!("\"{name}\"")).collect();
        let unit = field.unit.map(|unit| format!(" In {unit}.")).unwrap_or_default();
        text += &format!("{}\n{}{unit}\n\n", names.join(" or "), field.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvml::Code;
    use crate::nvml::recorded::{Recorded, h100, software};

    fn now() -> jiff::Zoned {
        "2026-03-10T08:59:32.1234+00:00[UTC]".parse().unwrap()
    }

    fn shown(machine: &Recorded, query: &Query, format: &str) -> String {
        let format = Format::parse(format).unwrap();
        let pass = Pass::begin(machine, &[], now()).unwrap();
        let header = if format.header { query.header(format) } else { String::new() };
        header + &query.rows(&pass, format).unwrap()
    }

    fn gpus(machine: &Recorded, fields: &str, format: &str) -> String {
        shown(machine, &Query::gpus(fields).unwrap(), format)
    }

    #[test]
    fn what_scripts_ask_for_is_written_as_they_know_it() {
        assert_eq!(
            gpus(&h100(), "name,driver_version,memory.total,power.draw,pstate,fan.speed", "csv"),
            "name, driver_version, memory.total [MiB], power.draw [W], pstate, fan.speed [%]\n\
             NVIDIA H100 80GB HBM3, 580.126.09, 81559 MiB, 71.53 W, P0, [N/A]\n"
        );
        assert_eq!(
            gpus(&h100(), "memory.used, memory.free,utilization.gpu,temperature.gpu", "csv,noheader,nounits"),
            "512, 81047, 97, 34\n"
        );
        assert_eq!(
            gpus(&h100(), "gpu_uuid,gpu_bus_id,clocks.sm,clocks.mem", "csv,nounits"),
            "uuid, pci.bus_id, clocks.current.sm, clocks.current.memory\n\
             GPU-f7b02328-d6fe-5b1f-9683-15041689bb03, 00000000:06:00.0, 1980, 2619\n"
        );
        assert_eq!(
            gpus(
                &h100(),
                "index,count,timestamp,pci.domain,pci.bus,pci.device,pci.device_id,pci.sub_device_id",
                "csv,noheader"
            ),
            "0, 1, 2026/03/10 08:59:32.123, 0x0000, 0x06, 0x00, 0x233010DE, 0x16C110DE\n"
        );
        assert_eq!(
            gpus(
                &h100(),
                "compute_mode,compute_cap,persistence_mode,ecc.mode.current,mig.mode.current,display_active,driver_model.current,serial",
                "csv,noheader"
            ),
            "Default, 9.0, Enabled, Enabled, Disabled, Disabled, [N/A], [N/A]\n"
        );
    }

    #[test]
    fn what_is_not_known_says_so() {
        assert_eq!(
            gpus(&software(), "utilization.gpu,temperature.gpu,power.draw,clocks.gr", "csv,noheader"),
            "[N/A], [N/A], [N/A], [N/A]\n"
        );
        let mut machine = h100();
        machine.devices[0].numbers.insert(crate::nvml::Number::FanPercent, Err(Code::NO_PERMISSION));
        assert_eq!(gpus(&machine, "fan.speed", "csv,noheader"), "[Insufficient Permissions]\n");
    }

    #[test]
    fn processes() {
        let query = Query::apps("pid,process_name,used_memory,gpu_uuid").unwrap();
        let header = "pid, process_name, used_gpu_memory [MiB], gpu_uuid\n";
        assert_eq!(
            shown(&h100(), &query, "csv"),
            format!("{header}1342, /usr/bin/python3, 512 MiB, GPU-f7b02328-d6fe-5b1f-9683-15041689bb03\n")
        );
        assert_eq!(shown(&software(), &query, "csv"), header);
        let mut gone = h100();
        gone.names.clear();
        gone.devices[0].processes = Ok(vec![crate::nvml::Process { pid: 7, bytes: None }]);
        let query = Query::apps("pid,name,used_memory").unwrap();
        assert_eq!(shown(&gone, &query, "csv,noheader"), "7, [N/A], [N/A]\n");
        gone.devices[0].processes = Err(Code::NOT_SUPPORTED);
        assert_eq!(shown(&gone, &query, "csv,noheader"), "");
        gone.devices[0].processes = Err(Code::GPU_IS_LOST);
        let pass = Pass::begin(&gone, &[], now()).unwrap();
        assert_eq!(query.rows(&pass, Format::parse("csv").unwrap()).unwrap_err().status, 15);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let failure = Query::gpus("name,cuda_version").err().unwrap();
        assert_eq!(failure.status, 2);
        assert_eq!(failure.words, "Field \"cuda_version\" is not a valid field to query.");
        assert_eq!(Query::apps("memory.total").err().map(|f| f.status), Some(2));
        for wrong in ["", "noheader", "xml", "csv,header"] {
            assert_eq!(Format::parse(wrong).err().map(|f| f.status), Some(2), "{wrong}");
        }
    }

    #[test]
    fn every_field_has_a_value_or_none() {
        let machine = h100();
        let pass = Pass::begin(&machine, &[], now()).unwrap();
        for field in fields::GPU {
            let told = (field.read)(&Row { pass: &pass, gpu: &pass.gpus[0], process: None });
            assert!(told.is_ok() || told == Err(Code::NOT_SUPPORTED), "{:?}: {told:?}", field.names);
        }
    }
}
