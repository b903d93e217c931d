//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

const LONG_ABOUT: &str = "\
Shows and runs the VMs that use this host's GPUs: one daemon (vhost-user-vgpu) each, found by the sockets in their state folder.

A VM is named by its number (--vm-id of its daemon) or by its name (--name, or the host's file).";

const AFTER_HELP: &str = "\
  vgpuctl list                              which VMs there are, what they have and use
  vgpuctl top                               who uses the GPU now
  vgpuctl set 7 weight=30 vram=24GiB        until the daemon ends, or the next reload
  vgpuctl reload                            every daemon reads /etc/vgpu/vgpu.toml again
  vgpuctl suspend 7; vgpuctl resume 7       device memory to host memory, and back
  vgpuctl rotate 7 8 9                      more device memory than there is: one of them at a time has the GPU
  vgpuctl reattach 7 --qmp /run/vm7.qmp     after the daemon of VM 7 was started anew

Exit status: 0 done; 1 refused or failed; 2 wrong arguments; 3 no daemon is there, or it does not answer; 4 there is no such VM.
Who may do all this: whoever may open the sockets in the state folder, which belong to the user that the daemons run as.";

/// The command line as it is written.
#[derive(Debug, Parser)]
#[command(name = "vgpuctl", version, about = "Shows and runs the VMs that use this host's GPUs", long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Arguments {
    /// Folder in which the daemons meet [default: /run/vgpu, or vgpu in $XDG_RUNTIME_DIR for an ordinary user who has one]
    #[arg(long, global = true, value_name = "DIR", env = "VGPU_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Write JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the VMs: a line for each
    List,
    /// Show all there is to know of a VM: its settings, devices and processes
    Show {
        /// Number or name
        vm: String,
    },
    /// Show who uses the GPU now, again and again: by VM and process
    Top(Top),
    /// Change settings of a VM at once: priority, weight, vram, calls-per-second, queue-depth, kernel-timeout, quarantine-after, -within, -for
    #[command(
        long_about = "Changes settings of a VM at once, all that are given or none of them. They hold until the daemon ends, or reads the host's file again (reload): what is to last belongs there.\n\nNames and values are those of the daemon's arguments and of the file: priority=low|medium|high, weight=1..100, vram=16GiB, calls-per-second=N, queue-depth=N, kernel-timeout=10s, quarantine-after=N, quarantine-within=60s, quarantine-for=10min. A limit is taken off by none (vram=none). A kernel-timeout holds for kernels that are launched from then on."
    )]
    Set {
        /// Number or name
        vm: String,
        /// What is set
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = setting)]
        settings: Vec<(String, String)>,
    },
    /// Refuse a VM new sessions; those that are open go on
    Quarantine {
        /// Number or name
        vm: String,
        /// For so long, e.g. 10min; without it until it is cleared
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        lasts: Option<Duration>,
    },
    /// End a VM's quarantine, and forget the faults that have led to it
    Clear {
        /// Number or name
        vm: String,
    },
    /// Have the daemons read the host's file again; what the arguments of a daemon say still wins over it
    Reload {
        /// Number or name; without it all VMs
        vm: Option<String>,
    },
    /// Take what a VM has of the GPU to host memory; its programs pause
    Suspend {
        /// Number or name
        vm: String,
    },
    /// Bring a suspended VM back
    Resume {
        /// Number or name
        vm: String,
    },
    /// Have VMs take turns with the whole of the GPU's memory: all but one of them are suspended at any time
    Rotate(Rotate),
    /// Put a VM's device back after its daemon has ended: takes it out of QEMU and puts it in again
    #[command(
        long_about = "Puts a VM's device back after its daemon has ended and another one was started: takes the device out of QEMU and puts it in again, on the socket of the daemon that serves the VM now. The VM goes on meanwhile. Programs that had the device have got an error; those that start afterwards work.\n\nThe device must have an id and be on a pcie-root-port, and QEMU a monitor for this (-qmp unix:PATH,server=on,wait=off)."
    )]
    Reattach(Reattach),
    /// Show what was done so far: calls by kind, copies, waits for the GPU, doorbells
    Stats {
        /// Number or name; without it all VMs
        vm: Option<String>,
    },
    /// Write all VMs' and GPUs' metrics for Prometheus: once, or to whoever asks for them over HTTP
    Metrics(Metrics),
}

/// How often, and how many times.
#[derive(Debug, Args)]
pub struct Top {
    /// Time between two looks
    #[arg(long, short, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// End after so many
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
}

/// Who takes turns, and for how long.
#[derive(Debug, Args)]
#[command(
    long_about = "Has VMs take turns with the GPU's memory, so that together they may use more of it than there is: one of them is on the GPU, the others are suspended. It runs until it is ended; then, also if it is killed, those that are suspended come back by themselves as soon as there is room for them.\n\nA turn is as long as --turn says, and at least --times times as long as it takes to move this VM off and the next one back. A VM that does nothing for --idle gives its turn up to one that did something in its last. A program that starts in a suspended VM waits for its turn, 30 s at most."
)]
pub struct Rotate {
    /// Numbers or names, two at least
    #[arg(required = true, num_args = 2.., value_name = "VM")]
    pub vms: Vec<String>,
    /// How long a turn is at least
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    pub turn: Duration,
    /// The same, as a multiple of the time that moving takes
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub times: u32,
    /// When a VM that does nothing gives its turn up
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub idle: Duration,
    /// End after so many turns
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
}

/// Which device, and how QEMU is reached.
#[derive(Debug, Args)]
pub struct Reattach {
    /// Number or name
    pub vm: String,
    /// Socket of QEMU's monitor (QMP)
    #[arg(long, value_name = "PATH")]
    pub qmp: PathBuf,
    /// Id of the device in QEMU; without it the only one of ours
    #[arg(long, value_name = "ID")]
    pub device: Option<String>,
}

/// Where they go. Nowhere in particular: to standard output, once.
#[derive(Debug, Args)]
pub struct Metrics {
    /// Answer HTTP requests on this unix socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Answer HTTP requests on this address, of the loopback interface only, e.g. 127.0.0.1:9836
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub listen: Option<SocketAddr>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "an address and a port are expected: 127.0.0.1:9836")?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("only the loopback interface is served: put a proxy that asks for a password in front of it"
            .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        let words = std::iter::once("vgpuctl").chain(line.split_whitespace());
        Arguments::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_are_understood() {
        let Command::Set { vm, settings } = parse("set web weight=30 vram=none").unwrap().command else {
            panic!()
        };
        assert_eq!((vm.as_str(), settings.len()), ("web", 2));
        assert_eq!(settings[1], ("vram".to_owned(), "none".to_owned()));
        let Command::Quarantine { lasts, .. } = parse("quarantine 7 --for 10min").unwrap().command else {
            panic!()
        };
        assert_eq!(lasts, Some(Duration::from_secs(600)));
        assert!(parse("list --json --state-dir /x").unwrap().json);
        assert!(matches!(parse("metrics --listen [::1]:9").unwrap().command, Command::Metrics(_)));
        assert!(matches!(parse("reattach 7 --qmp /q").unwrap().command, Command::Reattach(_)));
        for wrong in [
            "",
            "reattach 7",
            "set 7",
            "set 7 weight",
            "show",
            "metrics --listen 0.0.0.0:9",
            "quarantine 7 --for 10",
            "top -n x",
            "rotate 7",
            "rotate 7 8 --turn 3",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
