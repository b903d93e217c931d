//! What a guest is made of, and its start.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::agent::Agent;
use super::{BOOT_LIMIT, Guest};
use crate::initramfs::Initramfs;
use crate::kernel::{Kernel, Series};
use crate::progress::step;
use crate::qemu::{Attachment, Chipset, Console, Machine, Qemu, Want, shell_line};
use crate::{cache, repository, store};

type ImageChange = Box<dyn FnOnce(&mut Initramfs) -> Result<()> + Send>;
type MachineChange = Box<dyn FnOnce(&mut Machine) + Send>;

/// A guest to boot.
#[must_use = "nothing boots before start, dry_run or shell is called"]
pub struct Boot {
    series: Series,
    qemu: Option<Want>,
    nodes: Vec<(String, u32)>,
    image: Vec<ImageChange>,
    machine: Vec<MachineChange>,
    attachments: Vec<Attachment>,
}

impl Boot {
    /// A guest with this kernel: 2 CPUs, 1 GiB, no device of ours, any QEMU that can attach what is asked for.
    pub fn new(series: Series) -> Self {
        let nodes = vec![("vgpu".to_owned(), 0o666)];
        let (image, machine, attachments) = (Vec::new(), Vec::new(), Vec::new());
        Self { series, qemu: None, nodes, image, machine, attachments }
    }

    /// On this QEMU.
    pub fn qemu(mut self, want: Want) -> Self {
        self.qemu = Some(want);
        self
    }

    /// With this device; its back end listens already.
    pub fn attach(mut self, attachment: Attachment) -> Self {
        self.attachments.push(attachment);
        self
    }

    /// With this file.
    pub fn file(self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32) -> Self {
        let (path, bytes) = (path.to_owned(), bytes.into());
        self.image(move |image| image.bytes(&path, bytes, mode))
    }

    /// With a copy of a file of this machine.
    pub fn copy(self, path: &str, source: &Path, mode: u32) -> Self {
        let (path, source) = (path.to_owned(), source.to_owned());
        self.image(move |image| image.copy(&path, &source, mode))
    }

    /// With a program or library of this machine and the libraries that it needs ([`Initramfs::program`]).
    pub fn program(self, path: &str, source: &Path) -> Self {
        let (path, source) = (path.to_owned(), source.to_owned());
        self.image(move |image| image.program(&path, &source, 0o755))
    }

    /// With these modules of the kernel, loaded at boot.
    pub fn modules(self, names: &'static [&'static str]) -> Self {
        self.image(move |image| image.modules(names))
    }

    /// With this module built for the kernel, loaded at boot.
    pub fn module_file(self, file: &Path) -> Self {
        let file = file.to_owned();
        self.image(move |image| image.module_file(&file))
    }

    /// With any other change of the root file system. Changes are made in the order in which they were asked for.
    pub fn image(mut self, change: impl FnOnce(&mut Initramfs) -> Result<()> + Send + 'static) -> Self {
        self.image.push(Box::new(change));
        self
    }

    /// With any other change of the machine.
    pub fn machine(mut self, change: impl FnOnce(&mut Machine) + Send + 'static) -> Self {
        self.machine.push(Box::new(change));
        self
    }

    /// Gives the node `/dev/<name>` these permissions when it appears. `vgpu` has 0666 from the start: a real system has the
    /// driver's udev rule for that, this guest has no udev.
    pub fn node(mut self, name: &str, mode: u32) -> Self {
        self.nodes.push((name.to_owned(), mode));
        self
    }

    /// Boots it and waits for its agent.
    ///
    /// # Errors
    /// When something cannot be fetched or built, QEMU refuses, or the guest does not come up in two minutes.
    pub fn start(self) -> Result<Guest> {
        let (qemu, machine, _image) = self.prepare(Console::File)?;
        let begin = Instant::now();
        let mut process = machine.start(&qemu)?;
        let port = process.await_socket("agent")?;
        let (agent, first) = Agent::connect(&port).map_err(|error| process.explain(error))?;
        // A guest that panics, or a QEMU that aborts, closes the port: then nobody waits in vain.
        let kernel = agent.hello(&first, begin + BOOT_LIMIT);
        let kernel = kernel.map_err(|error| process.explain(error.context("the guest did not come up")))?;
        agent.forget(first.id);
        let (booted_in, version) = (begin.elapsed(), qemu.version());
        let console = process.dir().join("console");
        let limit = BOOT_LIMIT;
        Ok(Guest { agent, process: Mutex::new(process), console, kernel, version, booted_in, limit })
    }

    /// Makes the root file system and returns the command line for a shell that starts this machine, with its console, sockets
    /// and root file system in `target/guest/dry-run`.
    ///
    /// # Errors
    /// When something cannot be fetched or built.
    pub fn dry_run(self) -> Result<String> {
        let (qemu, mut machine, image) = self.prepare(Console::File)?;
        let dir = store("guest").join("dry-run");
        std::fs::create_dir_all(&dir)?;
        machine.initrd = dir.join("initramfs");
        std::fs::copy(image.path(), &machine.initrd)?;
        Ok(shell_line(&machine.command(&qemu, &dir), " \\\n    "))
    }

    /// Boots it with its console on this terminal and a shell on it, and waits until that ends.
    ///
    /// # Errors
    /// When something cannot be fetched or built, or QEMU does not start.
    pub fn shell(self) -> Result<ExitStatus> {
        let with_shell = self.machine(|machine| machine.append.push_str(" vgpu.shell"));
        let (qemu, machine, _image) = with_shell.prepare(Console::Terminal)?;
        let dir = tempfile::Builder::new().prefix("vgpu-guest-").tempdir()?;
        let mut child =
            crate::supervise::spawn(machine.command(&qemu, dir.path())).context("QEMU does not start")?;
        child.wait().context("QEMU")
    }

    /// Writes the kernel and the root file system into a folder, as `vmlinuz` and `initramfs`, for a QEMU elsewhere: small, so
    /// without debug information. How the machine is to look is left to whoever starts that.
    ///
    /// # Errors
    /// When something cannot be fetched or built.
    pub fn pack(mut self, folder: &Path) -> Result<Kernel> {
        let (kernel, mut image) = self.root_file_system()?;
        image.strip()?;
        std::fs::copy(&kernel.image, folder.join("vmlinuz"))
            .with_context(|| format!("cannot copy {}", kernel.image.display()))?;
        image.write(&folder.join("initramfs"))?;
        Ok(kernel)
    }

    fn prepare(mut self, console: Console) -> Result<(Qemu, Machine, tempfile::NamedTempFile)> {
        let needed = self.attachments.iter().find_map(|attachment| match attachment {
            Attachment::Generic { .. } => Some(Want::GenericVhostUser),
            Attachment::Function { .. } => Some(Want::VfioUser),
            Attachment::Fs { .. } => None,
        });
        let want = self.qemu.take().or(needed).unwrap_or(Want::Any);
        let qemu = Qemu::find(&want)?;
        for attachment in &self.attachments {
            let device = attachment.device();
            ensure!(qemu.has_device(device), "QEMU {} has no device {device}", qemu.version());
        }
        let (kernel, image) = self.root_file_system()?;
        let file = tempfile::Builder::new().prefix("vgpu-initramfs-").tempfile()?;
        image.write(file.path())?;

        let mut machine = Machine::new(&kernel.image, file.path());
        machine.console = console;
        machine.attachments = self.attachments;
        for change in self.machine {
            change(&mut machine);
        }
        ensure!(!machine.hotplug || machine.chipset == Chipset::Q35, "root ports need the chipset q35");
        Ok((qemu, machine, file))
    }

    fn root_file_system(&mut self) -> Result<(Kernel, Initramfs)> {
        let kernel = Kernel::get(self.series)?;
        let mut image = Initramfs::new(&kernel)?;
        image.program("/usr/bin/guest-agent", agent_program()?, 0o755)?;
        let rules: String = self.nodes.iter().map(|(name, mode)| format!("{name} {mode:o}\n")).collect();
        image.bytes("/etc/device-nodes", rules.into_bytes(), 0o644)?;
        for change in std::mem::take(&mut self.image) {
            change(&mut image)?;
        }
        Ok((kernel, image))
    }
}

/// The guest agent, built from this repository once per process.
pub(crate) fn agent_program() -> Result<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PROGRAM.get_or_init(|| build_agent().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("cannot build the guest agent: {error}"))
}

fn build_agent() -> Result<PathBuf> {
    // A target folder of its own: a build elsewhere in the repository would make the boot wait.
    let target = store("guest").join("agent");
    let _turn = cache::lock(&target)?;
    if !target.exists() {
        step("building the guest agent");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "guest-agent",
        "--bin",
        "guest-agent",
        "--target-dir",
    ]);
    build.arg(&target).arg("--message-format=json-render-diagnostics").current_dir(repository());
    let done = build.output().context("cargo does not start")?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for line in String::from_utf8_lossy(&done.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(program) = message.get("executable").and_then(serde_json::Value::as_str) {
            return Ok(program.into());
        }
    }
    bail!("cargo named no program")
}
