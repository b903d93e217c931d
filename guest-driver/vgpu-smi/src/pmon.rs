//! `pmon`: the processes of the devices, again and again.

use crate::failure::Failure;
use crate::pass::Pass;
use crate::words;

/// A group of columns: their names, their units.
type Columns = &'static [(&'static str, &'static str)];

/// Shares of the device's time, which NVML does not tell of a VM's processes.
const LOAD: Columns = &[("sm", "%"), ("mem", "%"), ("enc", "%"), ("dec", "%"), ("jpg", "%"), ("ofa", "%")];
const MEMORY: Columns = &[("fb", "MB"), ("ccpm", "MB")];

/// Which columns are shown, in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select(Vec<char>);

impl Select {
    /// `u` for load, `m` for memory.
    ///
    /// # Errors
    /// For other letters.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let known = !text.is_empty() && text.chars().all(|letter| "um".contains(letter));
        if known {
            Ok(Self(text.chars().collect()))
        } else {
            Err(Failure::usage(format!("pmon -s: {text:?} has other letters than u (load) and m (memory)")))
        }
    }

    fn columns(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        self.0.iter().flat_map(|letter| if *letter == 'u' { LOAD } else { MEMORY })
    }

    /// Two lines.
    pub fn header(&self) -> String {
        let line = |begin: &str, pick: fn(&(&'static str, &'static str)) -> &'static str, end: &str| {
            let columns: String = self.columns().map(|column| format!("{:>7}", pick(column))).collect();
            format!("{begin}{columns}    {end}\n")
        };
        line("# gpu         pid   type", |c| c.0, "command")
            + &line("# Idx           #    C/G", |c| c.1, "name")
    }

    /// A row for each process, or one for a device that has none.
    ///
    /// # Errors
    /// Where NVML fails; that it does not tell of processes is no failure.
    pub fn rows(&self, pass: &Pass<'_>) -> Result<String, Failure> {
        let mut text = String::new();
        for gpu in &pass.gpus {
            let list = match gpu.processes() {
                Err(code) if code.is_absence() => Vec::new(),
                told => told?,
            };
            if list.is_empty() {
                text += &self.row(gpu.index, "-", "-", "-", "-", "-");
            }
            for process in list {
                let path = pass.nvml.process_name(process.pid).unwrap_or_else(|_| "-".to_owned());
                let name = words::printable(path.rsplit('/').next().unwrap_or(&path));
                let bytes = process.bytes.map_or_else(|| "-".to_owned(), |b| words::mib(b).to_string());
                text += &self.row(gpu.index, &process.pid.to_string(), "C", &bytes, "0", &name);
            }
        }
        Ok(text)
    }

    fn row(&self, gpu: u32, pid: &str, kind: &str, bytes: &str, protected: &str, name: &str) -> String {
        let value = |column: &(&str, &str)| match column.0 {
            "fb" => format!("{bytes:>7}"),
            "ccpm" => format!("{protected:>7}"),
            _ => format!("{:>7}", "-"),
        };
        let columns: String = self.columns().map(value).collect();
        format!("{gpu:>5}{pid:>11}{kind:>6}{columns}    {name}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvml::recorded::{h100, software};

    #[test]
    fn processes_and_devices_without() {
        let mut machine = h100();
        machine.devices.push(software().devices[0].clone());
        let pass = Pass::begin(&machine, &[], jiff::Zoned::now()).unwrap();
        let select = Select::parse("m").unwrap();
        assert_eq!(
            select.header(),
            "# gpu         pid   type     fb   ccpm    command\n# Idx           #    C/G     MB     MB    name\n"
        );
        assert_eq!(
            select.rows(&pass).unwrap(),
            "    0       1342     C    512      0    python3\n    1          -     -      -      -    -\n"
        );
        let both = Select::parse("um").unwrap();
        assert!(both.header().starts_with(
            "# gpu         pid   type     sm    mem    enc    dec    jpg    ofa     fb   ccpm    command\n"
        ));
        assert!(both.rows(&pass).unwrap().starts_with(
            "    0       1342     C      -      -      -      -      -      -    512      0    python3\n"
        ));
        for wrong in ["", "x", "ux"] {
            assert_eq!(Select::parse(wrong).unwrap_err().status, 2);
        }
    }
}
