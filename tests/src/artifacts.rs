//! The daemon, the guest's libraries and the kernel module, built from this repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::kernel::Kernel;
use harness::progress::step;
use harness::{cache, repository, store};

/// The C library that the guest library must load with.
pub const GLIBC: &str = "2.28";

/// How the Rust parts are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Profile {
    /// As the tests are built: quick to build.
    #[default]
    Dev,
    /// As users get it.
    Release,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Profile::Dev => "debug",
            Profile::Release => "release",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Profile::Dev => &[],
            Profile::Release => &["--release"],
        }
    }
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository());
    // A build inside a test run is a build of its own: it must not take the outer one's settings for its own.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST")
            || text.starts_with("CARGO_BIN_")
        {
            cargo.env_remove(&name);
        }
    }
    cargo
}

fn succeed(mut command: Command, what: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("{what}: it does not start"))?;
    ensure!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A program of the workspace. It is built as a part of the whole workspace, so that what it depends on has the features, and
/// is the very build, that the tests have.
fn program(name: &str, profile: Profile) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--workspace", "--bin", name]).args(profile.arguments());
    succeed(command, &format!("cargo build --bin {name}"))?;
    Ok(repository().join("target").join(profile.folder()).join(name))
}

/// The daemon `vhost-user-vgpu`.
///
/// # Errors
/// When it does not build; the compiler's messages are part of the error.
pub fn daemon(profile: Profile) -> Result<PathBuf> {
    step("building the daemon");
    program("vhost-user-vgpu", profile)
}

/// The administrator's program `vgpuctl`.
///
/// # Errors
/// As for [`daemon`].
pub fn vgpuctl(profile: Profile) -> Result<PathBuf> {
    step("building vgpuctl");
    program("vgpuctl", profile)
}

/// The program `hostile-guest`, which attacks the kernel module from within a VM.
///
/// # Errors
/// As for [`daemon`].
pub fn hostile_guest(profile: Profile) -> Result<PathBuf> {
    step("building hostile-guest");
    program("hostile-guest", profile)
}

/// The program `vgpu-smi`.
///
/// # Errors
/// As for [`daemon`].
pub fn smi(profile: Profile) -> Result<PathBuf> {
    step("building vgpu-smi");
    program("vgpu-smi", profile)
}

/// The guest's libraries: package, the file that the build makes, and the name by which programs link it. The name that they load it
/// by has `.1` at its end.
const LIBRARIES: [(&str, &str, &str); 2] =
    [("libcuda", "libcuda.so", "libcuda.so"), ("libnvidia-ml", "libnvidia_ml.so", "libnvidia-ml.so")];

/// `libcuda.so.1` and `libnvidia-ml.so.1`, in a folder of their own together with the names by which programs are linked to them. They
/// need no symbol newer than [`GLIBC`]: zig's linker, a Python package, brings the C library's symbols of every version.
///
/// # Errors
/// When they do not build, or the tools for it cannot be fetched.
pub fn libcuda(profile: Profile) -> Result<PathBuf> {
    let built = zigbuild(profile, &LIBRARIES.map(|(package, ..)| package))?;
    settle(profile, &built)
}

/// Puts the libraries into a folder of their own, by the names that they are loaded by.
fn settle(profile: Profile, built: &Path) -> Result<PathBuf> {
    let folder = store("libcuda").join(profile.folder());
    fs::create_dir_all(&folder)?;
    let _lock = cache::lock(&folder.join("libcuda.so.1"))?;
    for (_, file, linked) in LIBRARIES {
        let (loaded, fresh) = (format!("{linked}.1"), folder.join(format!("{linked}.1.new")));
        let from = built.join(file);
        fs::copy(&from, &fresh).with_context(|| format!("cannot copy {}", from.display()))?;
        fs::rename(&fresh, folder.join(&loaded))?;
        let link = folder.join(linked);
        if !link.exists() {
            std::os::unix::fs::symlink(&loaded, &link)?;
        }
    }
    Ok(folder)
}

/// What packages are made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The folder of the guest's libraries, by the names that they are loaded by.
    pub libraries: PathBuf,
    /// The daemon.
    pub daemon: PathBuf,
    /// The administrator's program.
    pub vgpuctl: PathBuf,
    /// The guest's.
    pub smi: PathBuf,
}

/// Libraries and programs that need no symbol newer than [`GLIBC`], to be installed anywhere.
///
/// # Errors
/// As for [`libcuda`].
pub fn release_parts(profile: Profile) -> Result<Parts> {
    // At once, so that the crates that they share are built once.
    let built = zigbuild(profile, &["libcuda", "libnvidia-ml", "vgpu-smi", "vhost-backend", "vgpuctl"])?;
    let libraries = settle(profile, &built)?;
    Ok(Parts {
        libraries,
        daemon: built.join("vhost-user-vgpu"),
        vgpuctl: built.join("vgpuctl"),
        smi: built.join("vgpu-smi"),
    })
}

/// Builds packages for [`GLIBC`]; the folder of what comes of it.
fn zigbuild(profile: Profile, packages: &[&str]) -> Result<PathBuf> {
    let tools = zig()?;
    step(format_args!("building {}", packages.join(", ")));
    let target = format!("x86_64-unknown-linux-gnu.{GLIBC}");
    let mut command = cargo();
    let path = std::env::join_paths(
        std::iter::once(tools.join("bin"))
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    command.env("PATH", path).args(["zigbuild", "--target", &target]).args(profile.arguments());
    for package in packages {
        command.args(["--package", package]);
    }
    succeed(command, &format!("cargo zigbuild of {}", packages.join(", ")))?;
    Ok(repository().join("target/x86_64-unknown-linux-gnu").join(profile.folder()))
}

/// cargo-zigbuild and zig, in a Python environment under target/.
fn zig() -> Result<PathBuf> {
    cache::folder(&store("zig"), "cargo-zigbuild", |folder| {
        step("fetching zig and cargo-zigbuild (Python packages)");
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(folder);
        succeed(make, "python3 -m venv (Debian: apt-get install python3-venv)")?;
        let mut install = Command::new(folder.join("bin/python3"));
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "cargo-zigbuild"]);
        succeed(install, "pip install cargo-zigbuild")
    })
}

/// The kernel module, built for a guest kernel.
///
/// # Errors
/// When it does not build, or builds with warnings.
pub fn kernel_module(kernel: &Kernel) -> Result<PathBuf> {
    step(format_args!("building vgpu.ko for {}", kernel.release));
    let sources = kernel_module_sources()?;
    let output = store("kmod").join(&kernel.release);
    fs::create_dir_all(&output)?;
    let _lock = cache::lock(&output.join("vgpu.ko"))?;
    let modules = harness::kernel::build_module(kernel, &sources, &output)?;
    modules
        .into_iter()
        .find(|m| m.file_name().is_some_and(|n| n == "vgpu.ko"))
        .context("the build made no vgpu.ko")
}

/// The module's sources and the generated headers, as one folder.
fn kernel_module_sources() -> Result<PathBuf> {
    Ok(repository().join("guest-driver/kmod"))
}

/// Whether a file is there.
///
/// # Errors
/// When it is not, by its name.
pub fn existing(path: &Path) -> Result<&Path> {
    ensure!(path.exists(), "{} is missing", path.display());
    Ok(path)
}

/// The newest version of glibc that a program asks for, from the names of the versions in it.
pub fn newest_glibc(program: &[u8]) -> (u32, u32) {
    const NAME: &[u8] = b"GLIBC_";
    let mut newest = (0, 0);
    for at in program.windows(NAME.len()).enumerate().filter(|(_, w)| *w == NAME).map(|(at, _)| at) {
        let text = program.get(at + NAME.len()..).unwrap_or_default();
        let text = text.split(|b| !b.is_ascii_digit() && *b != b'.').next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let mut numbers = text.split('.').map_while(|n| n.parse().ok());
        if let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) {
            newest = newest.max((major, minor));
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_newest_glibc_is_compared_by_number() {
        let program = b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.2.5\0";
        assert_eq!(super::newest_glibc(program), (2, 34));
        assert_eq!(super::newest_glibc(b"GLIBC_"), (0, 0));
    }
}
