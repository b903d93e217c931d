//! A small root file system for a test guest, as a cpio archive that the kernel unpacks into memory.
//!
//! It holds busybox, the kernel modules that the guest loads at boot, the guest agent, an ordinary user `user` (uid 1000) and
//! what the caller adds. Programs built on this machine bring their shared libraries and dynamic loader along.

mod archive;
pub(crate) mod programs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::kernel::Kernel;
use crate::packages::{Apt, Extent};

/// What runs first in the guest.
const INIT: &str = include_str!("initramfs/init.sh");
/// Modules for the bus and for the agent's port. A kernel may have them built in.
const MODULES: [&str; 2] = ["virtio_pci", "virtio_console"];

/// One name in the archive.
#[derive(Clone, Debug)]
enum Entry {
    Folder { mode: u32 },
    Link { target: String },
    Bytes { bytes: Vec<u8>, mode: u32 },
    Copy { source: PathBuf, mode: u32 },
}

/// A root file system in the making.
#[derive(Clone, Debug)]
pub struct Initramfs {
    entries: BTreeMap<String, Entry>,
    modules: Vec<String>,
    kernel: Kernel,
}

impl Initramfs {
    /// One for this kernel, with what every guest has.
    ///
    /// # Errors
    /// When busybox or a module cannot be got.
    pub fn new(kernel: &Kernel) -> Result<Self> {
        let mut image = Self { entries: BTreeMap::new(), modules: Vec::new(), kernel: kernel.clone() };
        for name in [
            "bin", "dev", "etc", "lib", "lib64", "mnt", "proc", "root", "sys", "usr", "usr/bin", "home",
            "var",
        ] {
            image.entries.insert(name.to_owned(), Entry::Folder { mode: 0o755 });
        }
        image.entries.insert("home/user".to_owned(), Entry::Folder { mode: 0o777 });
        image.entries.insert("tmp".to_owned(), Entry::Folder { mode: 0o1777 });
        image.entries.insert("sbin".to_owned(), Entry::Link { target: "bin".to_owned() });
        image.busybox()?;
        image.bytes("/init", INIT.as_bytes().to_vec(), 0o755)?;
        image.bytes(
            "/etc/passwd",
            b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n".to_vec(),
            0o644,
        )?;
        image.bytes("/etc/group", b"root:x:0:\nuser:x:1000:\n".to_vec(), 0o644)?;
        image.bytes("/etc/hosts", b"127.0.0.1 localhost\n".to_vec(), 0o644)?;
        image.modules(&MODULES)?;
        Ok(image)
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When the path is not absolute.
    pub fn bytes(&mut self, path: &str, bytes: Vec<u8>, mode: u32) -> Result<()> {
        self.insert(path, Entry::Bytes { bytes, mode })
    }

    /// Adds a copy of a file of this machine.
    ///
    /// # Errors
    /// When the path is not absolute, or there is no such file.
    pub fn copy(&mut self, path: &str, source: &Path, mode: u32) -> Result<()> {
        ensure!(source.is_file(), "{} is no file", source.display());
        self.insert(path, Entry::Copy { source: source.to_owned(), mode })
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When the path is not absolute.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.insert(path, Entry::Link { target: target.to_owned() })
    }

    /// Adds an ELF program or library of this machine, and the libraries that it needs at the paths where it finds them.
    ///
    /// Libraries that this machine lacks must have been added before, under their own names: a program linked with
    /// libcuda.so.1 finds the one that the test brings.
    ///
    /// # Errors
    /// When it is no dynamic or static ELF file of this machine, or lacks a library.
    pub fn program(&mut self, path: &str, source: &Path, mode: u32) -> Result<()> {
        self.copy(path, source, mode)?;
        for library in programs::libraries_of(source)? {
            match library {
                programs::Library::Found { name, source } => {
                    if !self.has_file_named(&name) {
                        self.copy(&programs::place_in_guest(&name, &source), &source, 0o755)?;
                    }
                }
                programs::Library::Missing { name } => ensure!(
                    self.has_file_named(&name),
                    "{} needs {name}, which this machine does not have: add it to the guest first",
                    source.display()
                ),
            }
        }
        Ok(())
    }

    /// Adds modules of the kernel and what they need; the guest loads them at boot, in the order in which they were added.
    ///
    /// # Errors
    /// When the kernel lacks one.
    pub fn modules(&mut self, names: &[&str]) -> Result<()> {
        for (name, bytes) in self.kernel.modules()?.with_dependencies(names)? {
            if !self.modules.contains(&name) {
                self.bytes(&format!("/lib/modules/{name}.ko"), bytes, 0o644)?;
                self.modules.push(name);
            }
        }
        Ok(())
    }

    /// Adds a module built for this kernel; the guest loads it at boot, after those that are there already.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn module_file(&mut self, file: &Path) -> Result<()> {
        let name = file.file_stem().context("a module without a name")?.to_string_lossy().into_owned();
        self.copy(&format!("/lib/modules/{name}.ko"), file, 0o644)?;
        self.modules.push(name);
        Ok(())
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When a file cannot be read or the archive cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut image = self.clone();
        let list: String = self.modules.iter().map(|name| format!("{name}\n")).collect();
        image.bytes("/etc/modules", list.into_bytes(), 0o644)?;
        archive::write(&image.entries, path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Takes what only a debugger reads out of the programs, libraries and modules that are copied from this machine.
    ///
    /// # Errors
    /// When a file cannot be read, or there is no `strip`.
    pub fn strip(&mut self) -> Result<()> {
        for (name, entry) in &mut self.entries {
            let Entry::Copy { source, mode } = entry else { continue };
            if !std::fs::read(&source).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")) {
                continue;
            }
            // The kernel loads a module by its symbols.
            let what = if Path::new(name).extension().is_some_and(|it| it == "ko") {
                "--strip-debug"
            } else {
                "--strip-all"
            };
            let file = tempfile::NamedTempFile::new()?;
            let done = Command::new("strip").arg(what).arg("-o").arg(file.path()).arg(&source).output();
            let done = done.context("strip does not start (Debian: apt-get install binutils)")?;
            ensure!(done.status.success(), "strip: {}", String::from_utf8_lossy(&done.stderr));
            *entry = Entry::Bytes { bytes: std::fs::read(file.path())?, mode: *mode };
        }
        Ok(())
    }

    fn has_file_named(&self, name: &str) -> bool {
        self.entries.keys().any(|path| path.rsplit('/').next() == Some(name))
    }

    fn insert(&mut self, path: &str, entry: Entry) -> Result<()> {
        let path = path.strip_prefix('/').with_context(|| format!("{path} is not absolute"))?;
        let mut parent = Path::new(path).parent();
        while let Some(folder) = parent.filter(|folder| !folder.as_os_str().is_empty()) {
            let folder_entry = Entry::Folder { mode: 0o755 };
            self.entries.entry(folder.to_string_lossy().into_owned()).or_insert(folder_entry);
            parent = folder.parent();
        }
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    fn busybox(&mut self) -> Result<()> {
        let suite = Apt::running_suite()?;
        let root = Apt::unpack(&suite, "busybox", &["busybox-static"], Extent::Alone)?;
        let places = ["bin/busybox", "usr/bin/busybox"].map(|place| root.join(place));
        let program = places.iter().find(|place| place.exists()).context("no busybox in its package")?;
        let list = Command::new(program).arg("--list").output().context("busybox does not start")?;
        self.copy("/bin/busybox", program, 0o755)?;
        for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|applet| *applet != "busybox") {
            self.link(&format!("/bin/{applet}"), "busybox")?;
        }
        Ok(())
    }
}
