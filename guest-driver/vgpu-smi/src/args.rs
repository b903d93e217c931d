//! The command line. nvidia-smi has long options with one dash (`-lms`, `-pm`): they are sorted out before clap sees the rest.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::failure::{Failure, STATUS_USAGE};
use crate::pmon::Select;
use crate::query::{Format, Query};
use crate::report::Section;

const LONG_ABOUT: &str = "\
Shows the GPUs of this VM, and what is wrong where there are none.

It asks NVML (libnvidia-ml.so.1), as nvidia-smi and every monitor does, and has nvidia-smi's options and formats as far as they only \
look. Without arguments it shows a table of the GPUs and of the VM's processes on them.";

const AFTER_HELP: &str = "\
Examples:
  vgpu-smi                                              the table
  vgpu-smi -L                                           a line for each GPU
  vgpu-smi -l 5                                         the table every 5 s
  vgpu-smi --query-gpu=name,memory.used,utilization.gpu --format=csv,noheader,nounits
  vgpu-smi --query-compute-apps=pid,process_name,used_memory --format=csv
  vgpu-smi -q -d MEMORY,PIDS -i 0
  vgpu-smi pmon -c 1
  vgpu-smi doctor                                       looks for what is wrong, step by step

What changes the GPU (-pm, -pl, -ac, -lgc, -r, …) is refused: it is the host's.

Exit status, as nvidia-smi's: 0 for success, 2 wrong arguments, 3 not available in a VM, 4 not permitted, 6 no such device, 9 no vGPU \
device or no daemon behind it, 12 libnvidia-ml.so.1 not found, 13 it lacks a function, 15 the GPU is lost, 18 versions do not match, \
255 other errors. doctor: 0 where all is well, else 1.
Environment: VGPU_TRANSPORT, VGPU_SOCKET and VGPU_LOG, as for CUDA programs.";

#[derive(Debug, Parser)]
#[command(
    name = "vgpu-smi",
    about = "Shows the GPUs of this VM",
    long_about = LONG_ABOUT,
    after_long_help = AFTER_HELP,
    disable_version_flag = true,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    /// List the GPUs with their UUIDs
    #[arg(short = 'L', long = "list-gpus", group = "what")]
    list: bool,
    /// Everything that is known of the GPUs, in sections
    #[arg(short = 'q', long = "query", group = "what")]
    query: bool,
    /// With -q: only these sections: MEMORY, UTILIZATION, ECC, TEMPERATURE, POWER, CLOCK, COMPUTE, PIDS, PERFORMANCE
    #[arg(short = 'd', long = "display", value_name = "SECTIONS", requires = "query")]
    display: Option<String>,
    /// Chosen fields of the GPUs; needs --format
    #[arg(long, value_name = "FIELDS", group = "what", requires = "format")]
    query_gpu: Option<String>,
    /// Chosen fields of the VM's processes on the GPUs; needs --format
    #[arg(long, alias = "query-apps", value_name = "FIELDS", group = "what", requires = "format")]
    query_compute_apps: Option<String>,
    /// Format of the chosen fields: csv, and with it noheader, nounits
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The table's content as JSON
    #[arg(long, group = "what")]
    json: bool,
    /// The fields of --query-gpu
    #[arg(long, group = "what")]
    help_query_gpu: bool,
    /// The fields of --query-compute-apps
    #[arg(long, group = "what")]
    help_query_compute_apps: bool,
    /// The versions of this program, NVML and the driver
    #[arg(long, group = "what")]
    version: bool,
    /// Only these GPUs: indices, UUIDs or PCI addresses, separated by commas
    #[arg(short = 'i', long = "id", value_name = "IDS", value_delimiter = ',')]
    id: Vec<String>,
    /// Again every so many seconds
    #[arg(short = 'l', long = "loop", value_name = "SEC", num_args = 0..=1, default_missing_value = "5")]
    seconds: Option<u64>,
    /// Again every so many milliseconds; also written -lms
    #[arg(long = "loop-ms", value_name = "MS", conflicts_with = "seconds")]
    milliseconds: Option<u64>,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// The VM's processes on the GPUs, a row each, again and again
    Pmon {
        /// How often; without it until the program is ended
        #[arg(short = 'c', long = "count", value_name = "COUNT")]
        count: Option<u64>,
        /// Seconds between
        #[arg(short = 'd', long = "delay", value_name = "SEC", default_value_t = 1)]
        delay: u64,
        /// Columns: u for load (which is not told of a VM's processes), m for memory
        #[arg(short = 's', long = "select", value_name = "um", default_value = "u")]
        select: String,
        /// Only these GPUs, as for the table
        #[arg(short = 'i', long = "id", value_name = "IDS", value_delimiter = ',')]
        id: Vec<String>,
    },
    /// Looks, step by step, for what stands between programs and the GPU, and says what to do
    Doctor {
        /// The steps as JSON
        #[arg(long)]
        json: bool,
    },
    /// A part of the doctor in a process of its own
    #[command(hide = true)]
    DoctorPart {
        /// Its name
        part: String,
    },
}

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// Between two times; None: once.
    pub every: Option<Duration>,
    /// So many times; None: until the program is ended.
    pub times: Option<u64>,
}

/// What is shown of a look.
pub enum View {
    Table,
    List,
    Json,
    Version,
    Report(Vec<Section>),
    Rows(Query, Format),
    Pmon(Select),
}

/// What the program is to do.
pub enum Command {
    /// Print this.
    Print(String),
    /// clap's own words: help, or what is wrong.
    Words(Box<clap::Error>),
    Show {
        view: View,
        ids: Vec<String>,
        repeat: Repeat,
    },
    Doctor {
        json: bool,
    },
    DoctorPart(String),
}

/// What changes the GPU: short and long names.
const REFUSED: &[&str] = &[
    "-pm",
    "--persistence-mode",
    "-e",
    "--ecc-config",
    "-p",
    "--reset-ecc-errors",
    "-c",
    "--compute-mode",
    "--gom",
    "-dm",
    "--driver-model",
    "-fdm",
    "--force-driver-model",
    "-r",
    "--gpu-reset",
    "-vm",
    "--virt-mode",
    "-lgc",
    "--lock-gpu-clocks",
    "-lgcs",
    "--lock-gpu-clocks-soft",
    "-lmc",
    "--lock-memory-clocks",
    "-lmcd",
    "--lock-memory-clocks-deferred",
    "-rgc",
    "--reset-gpu-clocks",
    "-rmc",
    "--reset-memory-clocks",
    "-rmcd",
    "--reset-memory-clocks-deferred",
    "-ac",
    "--applications-clocks",
    "-rac",
    "--reset-applications-clocks",
    "-acp",
    "--applications-clocks-permission",
    "-pl",
    "--power-limit",
    "-sc",
    "--scope",
    "-cc",
    "--cuda-clocks",
    "-am",
    "--accounting-mode",
    "-caa",
    "--clear-accounted-apps",
    "--auto-boost-default",
    "--auto-boost-default-force",
    "--auto-boost-permission",
    "-mig",
    "--multi-instance-gpu",
    "-gtt",
    "--gpu-target-temp",
    "-den",
    "--dram-encryption",
    "--set-hostname",
    "drain",
    "mig",
    "boost-slider",
    "power-hint",
    "power-smoothing",
    "power-profiles",
];

/// What nvidia-smi has and this program has not, and what there is instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("-x", "--json gives the table's content to programs"),
    ("--xml-format", "--json gives the table's content to programs"),
    ("-B", "no device is left out"),
    ("--list-excluded-gpus", "no device is left out"),
    ("-u", "there are no units"),
    ("--unit", "there are no units"),
    ("--query-accounted-apps", "the host does not account for a VM's processes"),
    ("--query-supported-clocks", "clocks are the host's"),
    ("--query-retired-pages", "the state of the memory is the host's"),
    ("--query-remapped-rows", "the state of the memory is the host's"),
    ("topo", "how the host's devices lie to each other is not told; `docs/nvml.md` has what NVML answers"),
    ("nvlink", "counters and settings of NVLink are the host's"),
    ("dmon", "-l, or --query-gpu with -l, repeats what is asked"),
    ("daemon", "-l repeats what is asked"),
    ("replay", "-l repeats what is asked"),
    ("clocks", "clocks are the host's"),
    ("encodersessions", "video is not carried to the GPU"),
    ("fbcsessions", "video is not carried to the GPU"),
    ("vgpu", "the VM has no VMs"),
    ("c2c", "the host's links are the host's"),
    ("conf-compute", "confidential computing does not reach through a worker"),
    ("gpm", "counters of the GPU's engines are the host's"),
    ("pci", "counters of the PCI link are the host's"),
];

/// An option's name without its value.
fn name_of(argument: &str) -> &str {
    argument.split_once('=').map_or(argument, |(name, _)| name)
}

/// Sorts out what clap does not: refusals, and `-lms`.
fn sort_out(arguments: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let mut sorted = Vec::with_capacity(arguments.len());
    let mut given = arguments.into_iter();
    sorted.extend(given.next());
    // A subcommand has options of its own.
    let mut in_main = true;
    for (at, argument) in given.enumerate() {
        let text = argument.to_string_lossy().into_owned();
        let name = name_of(&text);
        if at == 0 && ["pmon", "doctor", "doctor-part", "help"].contains(&name) {
            in_main = false;
        }
        if in_main {
            // A word is a subcommand only where it comes first.
            let counts = name.starts_with('-') || at == 0;
            if counts && REFUSED.contains(&name) {
                return Err(Failure::refused(name));
            }
            if let Some((what, instead)) = ELSEWHERE.iter().find(|(what, _)| counts && *what == name) {
                return Err(Failure::not_available(what, instead));
            }
            if let Some(value) = text.strip_prefix("-lms") {
                sorted.push("--loop-ms".into());
                if let Some(value) = value.strip_prefix('=') {
                    sorted.push(value.into());
                }
                continue;
            }
        }
        sorted.push(argument);
    }
    Ok(sorted)
}

/// The command line as clap has it, for manuals and completions.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Reads the command line; its first word is the program's name.
///
/// # Errors
/// What is refused, and what clap does not check.
pub fn parse(arguments: Vec<OsString>) -> Result<Command, Failure> {
    let cli = match Cli::try_parse_from(sort_out(arguments)?) {
        Ok(cli) => cli,
        Err(error) => return Ok(Command::Words(Box::new(error))),
    };
    let once = Repeat { every: None, times: None };
    match cli.command {
        Some(Sub::Doctor { json }) => return Ok(Command::Doctor { json }),
        Some(Sub::DoctorPart { part }) => return Ok(Command::DoctorPart(part)),
        Some(Sub::Pmon { count, delay, select, id }) => {
            let every = Some(Duration::from_secs(interval(delay, "pmon -d")?));
            let (view, repeat) = (View::Pmon(Select::parse(&select)?), Repeat { every, times: count });
            return Ok(Command::Show { view, ids: id, repeat });
        }
        None => {}
    }
    if cli.help_query_gpu {
        return Ok(Command::Print(crate::query::help(crate::fields::GPU)));
    }
    if cli.help_query_compute_apps {
        return Ok(Command::Print(crate::query::help(crate::fields::APPS)));
    }
    let format = cli.format.as_deref().map(Format::parse).transpose()?;
    let view = match (&cli.query_gpu, &cli.query_compute_apps, format) {
        (Some(fields), _, Some(format)) => View::Rows(Query::gpus(fields)?, format),
        (_, Some(fields), Some(format)) => View::Rows(Query::apps(fields)?, format),
        (None, None, Some(_)) => {
            return Err(Failure::usage("--format needs --query-gpu or --query-compute-apps"));
        }
        _ if cli.list => View::List,
        _ if cli.json => View::Json,
        _ if cli.version => View::Version,
        _ if cli.query => {
            View::Report(cli.display.as_deref().map(Section::parse).transpose()?.unwrap_or_default())
        }
        _ => View::Table,
    };
    let every = match (cli.seconds, cli.milliseconds) {
        (Some(seconds), _) => Some(Duration::from_secs(interval(seconds, "-l")?)),
        (None, Some(ms)) => Some(Duration::from_millis(interval(ms, "-lms")?)),
        (None, None) => None,
    };
    Ok(Command::Show { view, ids: cli.id, repeat: Repeat { every, ..once } })
}

fn interval(value: u64, option: &str) -> Result<u64, Failure> {
    if value == 0 {
        Err(Failure::usage(format!("{option}: 0 is no time between two looks")))
    } else {
        Ok(value)
    }
}

/// The exit status of clap's words.
pub fn status_of(error: &clap::Error) -> u8 {
    if error.use_stderr() { STATUS_USAGE } else { 0 }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn read(line: &str) -> Result<Command, Failure> {
        parse(std::iter::once("vgpu-smi").chain(line.split_whitespace()).map(OsString::from).collect())
    }

    /// The interval in milliseconds, and the devices.
    fn shown(line: &str) -> (View, Option<u128>, Vec<String>) {
        match read(line) {
            Ok(Command::Show { view, ids, repeat }) => (view, repeat.every.map(|d| d.as_millis()), ids),
            Ok(Command::Words(error)) => panic!("{line}: {error}"),
            Ok(_) => panic!("{line}: something else"),
            Err(failure) => panic!("{line}: {failure}"),
        }
    }

    #[test]
    fn clap_finds_nothing_wrong_with_it() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_forms_that_scripts_use() {
        assert!(matches!(shown(""), (View::Table, None, ids) if ids.is_empty()));
        assert!(matches!(shown("-L"), (View::List, None, _)));
        assert!(matches!(shown("--list-gpus"), (View::List, None, _)));
        assert!(matches!(shown("-l"), (View::Table, Some(5000), _)));
        assert!(matches!(shown("-l 2"), (View::Table, Some(2000), _)));
        assert!(matches!(shown("--loop=2"), (View::Table, Some(2000), _)));
        assert!(matches!(shown("-lms 100"), (View::Table, Some(100), _)));
        assert!(matches!(shown("-lms=100"), (View::Table, Some(100), _)));
        assert!(matches!(shown("--loop-ms=100 -i 0,1"), (View::Table, Some(100), ids) if ids == ["0", "1"]));
        assert!(matches!(shown("--id=GPU-1 -q -d MEMORY,PIDS"), (View::Report(s), None, ids)
            if s == [Section::Memory, Section::Pids] && ids == ["GPU-1"]));
        let query = "--query-gpu=name,memory.total --format=csv,noheader,nounits";
        assert!(matches!(shown(query), (View::Rows(_, Format { header: false, units: false }), None, _)));
        let query = "--query-gpu name --format csv -lms 50";
        assert!(matches!(shown(query), (View::Rows(_, Format { header: true, units: true }), Some(50), _)));
        assert!(matches!(shown("--query-compute-apps=pid --format=csv"), (View::Rows(..), None, _)));
        assert!(matches!(shown("pmon -c 1 -d 2 -s um"), (View::Pmon(_), Some(2000), _)));
        assert!(matches!(read("pmon -c 3"), Ok(Command::Show { repeat: Repeat { times: Some(3), .. }, .. })));
        assert!(matches!(read("doctor --json"), Ok(Command::Doctor { json: true })));
        assert!(
            matches!(read("--help-query-gpu"), Ok(Command::Print(text)) if text.contains("\"memory.total\"\n"))
        );
        assert!(matches!(read("-h"), Ok(Command::Words(e)) if status_of(&e) == 0));
    }

    #[test]
    fn what_changes_the_gpu_is_refused_by_its_name() {
        for line in [
            "-pm 1",
            "-i 0 -pl 300",
            "--power-limit=300",
            "-r",
            "-ac 2619,1980",
            "-lgc 1980",
            "-mig 1",
            "-e 0",
            "mig -cgi 9",
        ] {
            let failure = read(line).err().unwrap_or_else(|| panic!("{line} is not refused"));
            assert_eq!(failure.status, 4, "{line}");
            assert!(failure.words.ends_with("the VM may not change the host's GPU"), "{failure}");
        }
        for line in ["-q -x", "topo -m", "dmon", "--query-supported-clocks=mem"] {
            assert_eq!(read(line).err().map(|f| f.status), Some(3), "{line}");
        }
        // pmon's own options have the same letters.
        assert!(read("pmon -c 1 -d 1").is_ok());
    }

    #[test]
    fn what_is_wrong_ends_with_2() {
        for line in [
            "-l 0",
            "--query-gpu=nonsense --format=csv",
            "--format=csv",
            "--query-gpu=name --format=xml",
            "-q -d NONSENSE",
            "pmon -s x",
        ] {
            assert_eq!(read(line).err().map(|f| f.status), Some(2), "{line}");
        }
        for line in ["--nonsense", "-L -q", "--query-gpu=name", "-d MEMORY", "nonsense", "-l x", "-L pmon"] {
            assert!(matches!(read(line), Ok(Command::Words(e)) if status_of(&e) == 2), "{line}");
        }
    }
}
