//! The demonstration: CUDA programs in a VM that has no GPU, end to end.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use harness::kernel::Series;
use harness::progress::step;
use harness::qemu::{Qemu, Want};
use harness::wheels::Toolkit;
use whole_stack::artifacts::Profile;
use whole_stack::vm::{Attach, PROGRAMS, Stack, Vm};

/// Run CUDA programs in a VM without a GPU, through the daemon's software executor
///
/// Fetches what is missing (QEMU, a guest kernel and its headers, NVIDIA's compiler and runtime libraries, all into target/), builds
/// the daemon, libcuda.so.1, the kernel module and the programs, boots the guest, and runs the programs in it as an ordinary user:
/// one on the driver API, one on NVIDIA's unmodified libcudart. Ends with status 0 only if every result was right.
#[derive(Args)]
pub(crate) struct Demo {
    /// The guest's kernel
    #[arg(long, value_enum, default_value_t = Guest::Debian12)]
    guest: Guest,
    /// QEMU's device that carries ours
    #[arg(long, value_enum, default_value_t = Carrier::Auto)]
    attach: Carrier,
    /// A prompt in the guest instead of the programs (they are in /opt/vgpu); the shell's end switches the guest off
    #[arg(long)]
    shell: bool,
    /// Build the Rust parts as users get them: slower to build, faster to run
    #[arg(long)]
    release: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Guest {
    /// Linux 6.1
    Debian12,
    /// Linux 6.12
    Debian13,
}

#[derive(Clone, Copy, ValueEnum)]
enum Carrier {
    /// What the QEMU at hand offers, the first of these that it does
    Auto,
    /// vhost-user-fs-pci: any QEMU from 7.2 on
    Fs,
    /// vhost-user-test-device-pci: QEMU 11 and newer
    Generic,
}

impl Demo {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let series = match self.guest {
            Guest::Debian12 => Series::V6_1,
            Guest::Debian13 => Series::V6_12,
        };
        let attach = match self.attach {
            Carrier::Auto if Qemu::find(&Want::Any)?.has_device("vhost-user-fs-pci") => Attach::Fs,
            Carrier::Auto => Attach::Generic,
            Carrier::Fs => Attach::Fs,
            Carrier::Generic => Attach::Generic,
        };
        let profile = if self.release { Profile::Release } else { Profile::Dev };
        let stack = Stack::build(profile, Toolkit::Cuda13)?;
        step("starting the daemon");
        let daemon = stack.start_daemon(&["--vm-id", "1"])?;
        let boot = stack.guest(series, attach, &daemon)?;
        if self.shell {
            step(format_args!("booting the guest; the programs are in {PROGRAMS}"));
            let status = boot.shell()?;
            ensure!(status.success(), "QEMU ended with {status}");
            println!("{}", daemon.stop()?);
            return Ok(ExitCode::SUCCESS);
        }
        step("booting the guest");
        let guest = boot.start()?;
        step(format_args!(
            "Linux {} on QEMU {} is up after {:.1} s, vgpu.ko is loaded",
            guest.kernel(),
            guest.qemu_version(),
            guest.booted_in().as_secs_f32()
        ));
        let vm = Vm { guest, daemon };
        println!("{}", vm.guest.run("ls -l /dev/vgpu").output()?.text());
        for (title, program) in
            [("the driver API", "driver_api"), ("NVIDIA's libcudart, unmodified", "runtime_api")]
        {
            step(format_args!("running a program on {title}, as an ordinary user"));
            print!("{}", vm.check(program, &[])?);
        }
        step("switching the guest off");
        vm.guest.shutdown().context("the guest does not go off")?;
        let totals = vm.daemon.stop()?;
        println!("calls processed by the daemon: {}", totals.get("calls").unwrap_or(0));
        println!("{totals}");
        ensure!(totals.get("calls").is_some_and(|calls| calls > 0), "the daemon has processed no call");
        ensure!(totals.get("posted_errors") == Some(0), "posted calls have failed");
        step("all of it was right");
        Ok(ExitCode::SUCCESS)
    }
}
