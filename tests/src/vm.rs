//! A guest with everything in place: the kernel module loaded, `libcuda.so.1` where the system looks for libraries, NVIDIA's
//! runtime library beside it, the test programs in `/opt/vgpu`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use harness::guest::{Boot, Guest, Output};
use harness::kernel::{Kernel, Series};
use harness::qemu::{Attachment, Want};
use harness::wheels::Toolkit;

use crate::artifacts::{self, Profile};
use crate::daemon::{Daemon, Listen};
use crate::local::Local;
use crate::programs::{self, Programs};

/// Where the guest's libraries are.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
/// Where the test programs are.
pub const PROGRAMS: &str = "/opt/vgpu";
/// Where the kernel module is.
pub const MODULE: &str = "/lib/modules/vgpu.ko";
/// The ordinary user that programs run as.
pub const USER: u32 = 1000;

/// Which of QEMU's devices carries ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// `vhost-user-fs-pci`, the default.
    Fs,
    /// `vhost-user-test-device-pci`, QEMU 11 or newer.
    Generic,
    /// `vfio-user-pci`, QEMU 10.1 or newer, and the daemon's vfio-user front.
    Function,
}

impl Attach {
    /// All.
    pub const ALL: [Self; 3] = [Self::Fs, Self::Generic, Self::Function];

    /// The QEMU that can do it.
    #[must_use]
    pub fn want(self) -> Want {
        match self {
            Attach::Fs => Want::Any,
            Attach::Generic => Want::GenericVhostUser,
            Attach::Function => Want::VfioUser,
        }
    }

    /// What a daemon has to be told for it.
    #[must_use]
    pub fn listen(self) -> Listen {
        match self {
            Attach::Fs | Attach::Generic => Listen::VhostUser,
            Attach::Function => Listen::VfioUser,
        }
    }

    /// The device on a daemon's socket.
    #[must_use]
    pub fn attachment(self, daemon: &Daemon) -> Attachment {
        match self {
            Attach::Fs => Attachment::fs(daemon.socket()),
            Attach::Generic => Attachment::generic(daemon.socket()),
            Attach::Function => Attachment::function(daemon.socket()),
        }
    }
}

/// Everything that is built, once.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The daemon.
    pub daemon: PathBuf,
    /// The folder of libcuda.so.1.
    pub libcuda: PathBuf,
    /// The test programs.
    pub programs: Programs,
}

impl Stack {
    /// Builds it.
    ///
    /// # Errors
    /// When something cannot be fetched or built.
    pub fn build(profile: Profile, toolkit: Toolkit) -> Result<Self> {
        let daemon = artifacts::daemon(profile)?;
        let libcuda = artifacts::libcuda(profile)?;
        let programs = programs::build(toolkit, &libcuda)?;
        Ok(Stack { daemon, libcuda, programs })
    }

    /// A daemon for QEMU, with the software executor.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_daemon(&self, arguments: &[&str]) -> Result<Daemon> {
        self.start_daemon_for(Attach::Fs, arguments)
    }

    /// A daemon for that device of QEMU's, with the software executor.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_daemon_for(&self, attach: Attach, arguments: &[&str]) -> Result<Daemon> {
        Daemon::start(&self.daemon, attach.listen(), &[&["--executor", "soft"], arguments].concat())
    }

    /// A daemon for processes of this host, with the software executor, and how they are run.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_local(&self, arguments: &[&str]) -> Result<(Daemon, Local)> {
        let daemon =
            Daemon::start(&self.daemon, Listen::Local, &[&["--executor", "soft"], arguments].concat())?;
        let local = Local {
            socket: daemon.socket().to_owned(),
            libcuda: self.libcuda.clone(),
            programs: self.programs.clone(),
        };
        Ok((daemon, local))
    }

    /// A guest that is to be booted with everything in place.
    ///
    /// # Errors
    /// When the kernel or the module cannot be had.
    pub fn guest(&self, series: Series, attach: Attach, daemon: &Daemon) -> Result<Boot> {
        let module = artifacts::kernel_module(&Kernel::get(series)?)?;
        let boot = self.system(series, attach)?;
        Ok(boot.attach(attach.attachment(daemon)).module_file(&module))
    }

    /// The same without a device, and with the module as the file [`MODULE`], not loaded.
    ///
    /// # Errors
    /// When the kernel or the module cannot be had.
    pub fn system(&self, series: Series, attach: Attach) -> Result<Boot> {
        let module = artifacts::kernel_module(&Kernel::get(series)?)?;
        let mut boot = Boot::new(series)
            .qemu(attach.want())
            .copy(MODULE, &module, 0o644)
            .program(&format!("{LIBRARIES}/libcuda.so.1"), &self.libcuda.join("libcuda.so.1"))
            .program(&format!("{LIBRARIES}/libnvidia-ml.so.1"), &self.libcuda.join("libnvidia-ml.so.1"))
            .image(|image| image.link(&format!("{LIBRARIES}/libcuda.so"), "libcuda.so.1"));
        let runtime = &self.programs.runtime_library;
        if let Some(name) = runtime.file_name() {
            boot = boot.program(&format!("{LIBRARIES}/{}", name.to_string_lossy()), runtime);
        }
        for entry in std::fs::read_dir(&self.programs.folder)? {
            let path = entry?.path();
            if path.extension().is_none() && path.is_file() && path.file_name().is_some_and(|n| n != "build")
            {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                boot = boot.program(&format!("{PROGRAMS}/{name}"), &path);
            }
        }
        Ok(boot)
    }

    /// A daemon and a booted guest.
    ///
    /// # Errors
    /// When either does not start.
    pub fn boot(&self, series: Series, attach: Attach) -> Result<Vm> {
        let daemon = self.start_daemon_for(attach, &[])?;
        let guest = self.guest(series, attach, &daemon)?.start()?;
        Ok(Vm { guest, daemon })
    }
}

/// A running VM and its daemon.
pub struct Vm {
    /// The guest; dropped first, so that the daemon sees it go.
    pub guest: Guest,
    /// The daemon.
    pub daemon: Daemon,
}

impl Vm {
    /// Runs a test program as the ordinary user.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let argv =
            std::iter::once(format!("{PROGRAMS}/{program}")).chain(arguments.iter().map(|a| (*a).to_owned()));
        self.guest.exec(argv).user(USER).env("VGPU_LOG", "1").timeout(Duration::from_secs(180)).output()
    }

    /// Runs a test program that must succeed; what it printed.
    ///
    /// # Errors
    /// When it fails; what it and the daemon said is part of the error.
    pub fn check(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.output(program, arguments)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(
            output.success(),
            "{program} {}: {:?}\n{out}{err}\nthe daemon's log:\n{}",
            arguments.join(" "),
            output.exit,
            self.daemon.log().join("\n")
        );
        Ok(out.into_owned())
    }
}
