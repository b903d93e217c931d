//! Boots a test guest.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use harness::guest::{Boot, Exit};
use harness::kernel::Series;
use harness::progress::step;
use harness::qemu::{Attachment, Want};

/// Boot a guest, and run a command or a shell in it
///
/// QEMU and the guest's kernel are fetched from this machine's own package sources the first time, unpacked under
/// target/guest, and not installed. The guest is emulated (TCG) and has no disk and no network.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask vm -- uname -a
  cargo xtask vm --kernel 6.12 --shell
  cargo xtask vm --module target/guest/kmod-6.1/vgpu.ko --attach fs --socket /tmp/vgpu.sock -- ls -l /dev/vgpu
  cargo xtask vm --attach generic --socket /tmp/vgpu.sock --dry-run")]
pub(crate) struct Vm {
    /// The guest's kernel: 6.1 (Debian 12) or 6.12 (Debian 13)
    #[arg(long, default_value = "6.1", value_name = "VERSION")]
    kernel: Series,

    /// How the device is put into the machine
    #[arg(
        long,
        value_enum,
        default_value = "none",
        requires_if("fs", "socket"),
        requires_if("generic", "socket"),
        requires_if("vfio-user", "socket")
    )]
    attach: Attach,

    /// The socket that the device's back end listens on already
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// `system` (7.2 or newer; unpacked where there is none), `newest` (one with the generic vhost-user device), or a path
    #[arg(long, value_name = "WHICH")]
    qemu: Option<String>,

    /// Load this kernel module at boot; may be given several times
    #[arg(long, value_name = "FILE")]
    module: Vec<PathBuf>,

    /// Put this program, with the libraries that it needs, into the guest's /usr/local/bin; may be given several times
    #[arg(long, value_name = "FILE")]
    program: Vec<PathBuf>,

    /// Guest RAM in MiB
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    memory: u32,

    /// Number of virtual CPUs
    #[arg(long, default_value_t = 2, value_name = "N")]
    cpus: u32,

    /// Run the command as this user; the guest's ordinary one is 1000
    #[arg(long, default_value_t = 0, value_name = "UID")]
    user: u32,

    /// Kill the command after this many seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,

    /// Give a shell on the guest's console; the guest ends with it
    #[arg(long, conflicts_with_all = ["dry_run", "command"])]
    shell: bool,

    /// Print a command line that starts the guest, and start nothing
    #[arg(long, conflicts_with = "command")]
    dry_run: bool,

    /// The command to run; its status is the task's
    #[arg(last = true, required_unless_present_any = ["shell", "dry_run"], value_name = "CMD")]
    command: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Attach {
    /// Not at all
    None,
    /// As vhost-user-fs-pci, which every QEMU from 7.2 on has
    Fs,
    /// As the generic vhost-user device
    Generic,
    /// As a plain PCI function, from a daemon with --front vfio-user
    VfioUser,
}

impl Vm {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let boot = self.boot()?;
        if self.dry_run {
            println!("{}", boot.dry_run()?);
            return Ok(ExitCode::SUCCESS);
        }
        if self.shell {
            step(format_args!("booting Linux {}", self.kernel));
            let status = boot.shell()?;
            return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        step(format_args!("booting Linux {}", self.kernel));
        let guest = boot.start()?;
        let up = guest.booted_in().as_secs_f64();
        step(format_args!("Linux {} on QEMU {}, up in {up:.1} s", guest.kernel(), guest.qemu_version()));
        let command = guest.exec(self.command.clone()).user(self.user);
        let output = command.timeout(Duration::from_secs(self.timeout)).output()?;
        std::io::stdout().write_all(&output.stdout)?;
        std::io::stderr().write_all(&output.stderr)?;
        step(format_args!("the command ended: {}", output.exit));
        guest.shutdown()?;
        Ok(match output.exit {
            Exit::Code(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
            Exit::Signal(signal) => ExitCode::from(u8::try_from(signal.saturating_add(128)).unwrap_or(1)),
        })
    }

    fn boot(&self) -> Result<Boot> {
        let (memory, cpus) = (self.memory, self.cpus);
        let mut boot = Boot::new(self.kernel).machine(move |machine| {
            machine.memory_mib = memory;
            machine.cpus = cpus;
        });
        if let Some(which) = &self.qemu {
            boot = boot.qemu(match which.as_str() {
                "system" => Want::Any,
                "newest" => Want::GenericVhostUser,
                path => Want::Program(path.into()),
            });
        }
        match (self.attach, &self.socket) {
            (Attach::None, None) => {}
            (Attach::Fs, Some(socket)) => boot = boot.attach(Attachment::fs(socket)),
            (Attach::Generic, Some(socket)) => boot = boot.attach(Attachment::generic(socket)),
            (Attach::VfioUser, Some(socket)) => boot = boot.attach(Attachment::function(socket)),
            (Attach::None, Some(_)) => {
                anyhow::bail!("--socket needs --attach fs, --attach generic or --attach vfio-user")
            }
            (Attach::Fs | Attach::Generic | Attach::VfioUser, None) => {
                anyhow::bail!("--attach needs --socket: where the back end listens")
            }
        }
        for module in &self.module {
            ensure!(module.is_file(), "{} is no file", module.display());
            boot = boot.module_file(module);
        }
        for program in &self.program {
            let name = program.file_name().context("a program without a name")?.to_string_lossy();
            boot = boot.program(&format!("/usr/local/bin/{name}"), program);
        }
        Ok(boot)
    }
}
