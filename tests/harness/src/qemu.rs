//! Finds a QEMU and runs it.
//!
//! The system's own is taken if it serves. Otherwise the distribution's package is unpacked with everything that it depends
//! on and run through the dynamic loader that came with it: an older machine can run a newer QEMU so, and nothing is
//! installed.

mod line;
mod machine;
mod process;
mod qmp;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

pub use line::shell_line;
pub use machine::{Attachment, Chipset, Console, Machine, function};
pub use process::Process;
pub use qmp::Qmp;

use crate::packages::{Apt, Extent};

/// The generic vhost-user device: takes its virtio id and its number of queues as properties.
pub const GENERIC_DEVICE: &str = "vhost-user-test-device-pci";
/// The device that is a plain PCI function of ours.
pub const FUNCTION_DEVICE: &str = "vfio-user-pci";
/// The suite whose QEMU has [`GENERIC_DEVICE`] and [`FUNCTION_DEVICE`].
const NEWER_SUITE: &str = "trixie-backports";
/// The oldest version that the project supports.
const OLDEST: Version = Version(7, 2, 0);

/// Older versions emulate `cmpxchg16b` so that the flags are garbage afterwards, now and then: Linux 6.12 allocates memory with
/// it, and a quarter of its boots on 7.2 ended in a double fault. 7.2 was seen to fail and 11.1 to work.
const SOUND_CX16: Version = Version(10, 0, 0);

/// Major, minor and micro version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What a QEMU must be able to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Any supported version: the system's, or else the package of the suite that this machine runs.
    Any,
    /// One with the generic vhost-user device.
    GenericVhostUser,
    /// One with the plain PCI function.
    VfioUser,
    /// This program, which must be of a supported version.
    Program(PathBuf),
}

impl Want {
    /// The device that it must have.
    fn device(&self) -> Option<&'static str> {
        match self {
            Want::GenericVhostUser => Some(GENERIC_DEVICE),
            Want::VfioUser => Some(FUNCTION_DEVICE),
            Want::Any | Want::Program(_) => None,
        }
    }
}

/// A QEMU that starts.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The program and the arguments that always come first.
    start: Vec<OsString>,
    modules: Option<PathBuf>,
    version: Version,
    devices: Vec<String>,
}

impl Qemu {
    /// Finds a QEMU, or unpacks one.
    ///
    /// # Errors
    /// When there is none and none can be fetched, or the one named does not serve.
    pub fn find(want: &Want) -> Result<Self> {
        let found = match want {
            Want::Program(program) => Self::examine(vec![program.into()], None)?,
            Want::Any => match Self::system() {
                Some(qemu) => qemu,
                None => Self::unpacked(&Apt::running_suite()?)?,
            },
            Want::GenericVhostUser | Want::VfioUser => match Self::system() {
                Some(qemu) if want.device().is_none_or(|device| qemu.has_device(device)) => qemu,
                _ => Self::unpacked(NEWER_SUITE)?,
            },
        };
        ensure!(found.version >= OLDEST, "QEMU {} is older than {OLDEST}", found.version);
        if let Some(device) = want.device().filter(|device| !found.has_device(device)) {
            bail!("QEMU {} has no device {device}", found.version);
        }
        Ok(found)
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether `-device NAME` is known to it.
    #[must_use]
    pub fn has_device(&self, name: &str) -> bool {
        self.devices.iter().any(|device| device == name)
    }

    /// The CPU to emulate: all that it can, less what it cannot do well.
    pub(crate) fn cpu(&self) -> &'static str {
        if self.version < SOUND_CX16 { "max,cx16=off" } else { "max" }
    }

    /// A command that starts it, still without a machine.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut words = self.start.iter();
        let mut command =
            Command::new(words.next().map_or(std::ffi::OsStr::new("qemu-system-x86_64"), |word| word));
        command.args(words);
        if let Some(modules) = &self.modules {
            command.env("QEMU_MODULE_DIR", modules);
        }
        command
    }

    fn system() -> Option<Self> {
        Self::examine(vec!["qemu-system-x86_64".into()], None).ok().filter(|qemu| qemu.version >= OLDEST)
    }

    fn unpacked(suite: &str) -> Result<Self> {
        let root =
            Apt::unpack(suite, &format!("qemu-{suite}"), &["qemu-system-x86"], Extent::WithDependencies)?;
        let libraries = crate::packages::Libraries::of(&root)?;
        let mut start = libraries.run(&root.join("usr/bin/qemu-system-x86_64"));
        // The firmware's folder holds links to other packages' files that are absolute in some versions.
        for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            start.extend(["-L".into(), root.join(firmware).into()]);
        }
        Self::examine(start, Some(root.join("usr/lib/x86_64-linux-gnu/qemu")))
    }

    fn examine(start: Vec<OsString>, modules: Option<PathBuf>) -> Result<Self> {
        let mut qemu = Self { start, modules, version: Version(0, 0, 0), devices: Vec::new() };
        let said = qemu.ask(&["--version"])?;
        qemu.version = version_in(&said).with_context(|| format!("no version of QEMU in: {said}"))?;
        qemu.devices = devices_in(&qemu.ask(&["-device", "help"])?);
        Ok(qemu)
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let name = self.start.iter().find(|word| word.to_string_lossy().contains("qemu-system"));
        let name = name.map_or(Path::new("qemu"), Path::new).display();
        let done =
            self.command().args(arguments).output().with_context(|| format!("{name} does not start"))?;
        ensure!(
            done.status.success(),
            "{name} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

/// `QEMU emulator version 7.2.22 (Debian …)`
fn version_in(text: &str) -> Option<Version> {
    let number = text.split("version ").nth(1)?.split_whitespace().next()?;
    let mut parts = number.split('.').map(|part| part.parse().ok());
    Some(Version(parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// `name "vhost-user-fs-pci", bus PCI, desc …`
fn devices_in(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("name \"")?.split('"').next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let old = version_in("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright").unwrap();
        assert_eq!(old, Version(7, 2, 22));
        assert!(version_in("QEMU emulator version 11.1.3").unwrap() > old);
        assert_eq!(version_in("something else"), None);
    }

    #[test]
    fn devices_are_read() {
        let text =
            "Storage devices:\nname \"vhost-user-fs-pci\", bus PCI, alias \"x\"\nname \"e1000\", bus PCI\n";
        assert_eq!(devices_in(text), ["vhost-user-fs-pci", "e1000"]);
    }
}
