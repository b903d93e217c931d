//! The disk of a whole Debian, made of its packages: systemd, udev, a kernel with its own initramfs, and what builds modules for it.
//!
//! mmdebstrap makes the root file system, with this machine's apt sources, and mkfs.ext4 the disk. The packages' scripts run in it, which
//! is why this needs root; it changes nothing outside of `target/guest`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::kernel::Series;
use crate::packages::{Apt, Extent};
use crate::progress::step;
use crate::{cache, guest, store};

/// What is in it beside the essential packages.
const PACKAGES: [&str; 12] = [
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "procps",
    "initramfs-tools",
    "linux-image-cloud-amd64",
    "linux-headers-cloud-amd64",
    "dkms",
    "gcc",
    "make",
];
/// Left out: nothing that runs reads them.
const LEFT_OUT: [&str; 2] = ["path-exclude=/usr/share/man/*", "path-exclude=/usr/share/locale/*"];
/// The size of the disk, most of which is a hole.
const SIZE: &str = "4G";

/// The agent, as a service of the system.
const AGENT: &str = "\
[Unit]
Description=Test agent
After=multi-user.target

[Service]
ExecStart=/usr/bin/guest-agent
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
";

/// A disk that boots.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The disk's file.
    pub image: PathBuf,
    /// Its kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
}

impl Disk {
    /// Makes the disk of the Debian that has this kernel, once. It has an ordinary user of the number 1000.
    ///
    /// # Errors
    /// Without root, or when something cannot be fetched or made.
    pub fn debian(series: Series) -> Result<Self> {
        let suite = series.suite();
        // A newer agent is a newer disk.
        let agent = guest::agent_program()?;
        let key =
            format!("{} {LEFT_OUT:?} {SIZE} {AGENT} {}", PACKAGES.join(" "), blake3::hash(&fs::read(agent)?));
        let folder = cache::folder(&store("guest").join(format!("system-{suite}")), &key, |partial| {
            ensure!(
                rustix::process::geteuid().is_root(),
                "a root file system is made by running its packages' scripts in it: run this as root"
            );
            let root = partial.join("root");
            bootstrap(suite, &root)?;
            settle(&root, agent)?;
            for name in ["vmlinuz", "initrd.img"] {
                let from = newest(&root.join("boot"), &format!("{name}-"))?;
                fs::copy(&from, partial.join(name))
                    .with_context(|| format!("cannot copy {}", from.display()))?;
            }
            step(format_args!("making the disk of {suite}"));
            let mut mkfs = Command::new("mkfs.ext4");
            mkfs.args(["-q", "-F", "-d"]).arg(&root).arg(partial.join("disk")).arg(SIZE);
            succeed(mkfs)?;
            Ok(fs::remove_dir_all(&root)?)
        })?;
        let [image, kernel, initrd] = ["disk", "vmlinuz", "initrd.img"].map(|name| folder.join(name));
        Ok(Self { image, kernel, initrd })
    }
}

fn bootstrap(suite: &str, root: &Path) -> Result<()> {
    let tool =
        Apt::unpack(&Apt::running_suite()?, "mmdebstrap", &["mmdebstrap"], Extent::Alone)?.join("usr/bin");
    step(format_args!("making a root file system of {suite} (mmdebstrap)"));
    let mut make = Command::new(tool.join("mmdebstrap"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    make.env("PATH", std::env::join_paths(std::iter::once(tool).chain(std::env::split_paths(&path)))?);
    make.args(["--quiet", "--mode=root", "--variant=minbase", "--format=directory"]);
    make.arg(format!("--include={}", PACKAGES.join(",")));
    for option in LEFT_OUT.iter().chain(&["force-unsafe-io"]) {
        make.arg(format!("--dpkgopt={option}"));
    }
    make.arg(suite).arg(root).arg(Apt::open(suite)?.sources());
    succeed(make)
}

/// Makes it a system of its own, with the agent in it.
fn settle(root: &Path, agent: &Path) -> Result<()> {
    let write = |path: &str, text: &str| {
        fs::write(root.join(path), text).with_context(|| format!("cannot write /{path} of the new system"))
    };
    write("etc/hostname", "guest\n")?;
    write("etc/machine-id", "")?;
    write("etc/device-nodes", "")?;
    write("etc/systemd/system/guest-agent.service", AGENT)?;
    let program = root.join("usr/bin/guest-agent");
    fs::copy(agent, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    for words in [
        &["systemctl", "enable", "guest-agent.service"][..],
        &["useradd", "--create-home", "--uid", "1000", "user"],
    ] {
        let mut chroot = Command::new("chroot");
        chroot.arg(root).args(words);
        succeed(chroot)?;
    }
    Ok(())
}

/// The file in `folder` that begins with `prefix`; of several the last by name.
fn newest(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    found.sort();
    found.pop().with_context(|| format!("no {prefix}… in {}", folder.display()))
}

fn succeed(mut command: Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.env("LC_ALL", "C").output().with_context(|| format!("{program} does not start"))?;
    if !done.status.success() {
        bail!("{program}: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
