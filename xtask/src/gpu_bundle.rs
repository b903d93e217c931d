//! An archive for a machine that has a GPU and neither Rust nor a network: the daemon, the library, the test programs as source, and
//! the runner that compares them with NVIDIA's driver.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;
use harness::progress::step;
use harness::wheels::Toolkit;
use harness::{repository, store};
use serde_json::json;
use whole_stack::artifacts::{self, Profile};
use whole_stack::programs;

use crate::{llama, suites};

mod vm;

/// Make target/gpu-bundle and its archive: everything that a machine with a GPU needs to compare this library with NVIDIA's
///
/// There, `python3 run.py --out rows.jsonl` runs the programs natively and through libcuda.so.1 in turn; here, `cargo xtask gpu-merge
/// rows.jsonl` makes the tables of docs/compatibility.md and docs/performance.md from what it wrote.
#[derive(Args)]
pub(crate) struct GpuBundle {
    /// Without llama.cpp, which is fetched from npm
    #[arg(long)]
    no_llama: bool,
    /// Without the public test suites, whose packages are fetched with pip
    #[arg(long)]
    no_suites: bool,
    /// A checkout of github.com/NVIDIA/cuda-python at a release (v13.0.3 for CUDA 13.0), for its tests; numba-cuda's need none
    #[arg(long, value_name = "DIR")]
    cuda_python: Option<PathBuf>,
    /// Without QEMU and a guest, which are fetched from Debian: no rows in a VM
    #[arg(long)]
    no_vm: bool,
}

/// What the archive may have: it travels by ways that have a limit.
const MOST_BYTES: u64 = 60 << 20;
/// The C library of the machines that the daemon must run on.
const GLIBC: (u32, u32) = (2, 39);

impl GpuBundle {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let folder = store("gpu-bundle");
        let llama = if self.no_llama { None } else { llama() };
        let suites = if self.no_suites { None } else { suites(self.cuda_python.as_deref())? };
        let vm = if self.no_vm { None } else { vm() };
        let daemon = artifacts::daemon(Profile::Release)?;
        let libcuda = artifacts::libcuda(Profile::Release)?;
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        for part in ["bin", "lib", "include", "parity", "checks"] {
            fs::create_dir_all(folder.join(part))?;
        }
        strip(&daemon, &folder.join("bin/vhost-user-vgpu"))?;
        strip(&artifacts::vgpuctl(Profile::Release)?, &folder.join("bin/vgpuctl"))?;
        strip(&artifacts::smi(Profile::Release)?, &folder.join("bin/vgpu-smi"))?;
        for (loaded, linked) in [("libcuda.so.1", "libcuda.so"), ("libnvidia-ml.so.1", "libnvidia-ml.so")] {
            strip(&libcuda.join(loaded), &folder.join("lib").join(loaded))?;
            std::os::unix::fs::symlink(loaded, folder.join("lib").join(linked))?;
        }
        let newest = artifacts::newest_glibc(&fs::read(folder.join("bin/vhost-user-vgpu"))?);
        ensure!(
            newest <= GLIBC,
            "the daemon needs glibc {}.{}, which is too new for the machine",
            newest.0,
            newest.1
        );

        programs::kernel_headers(Toolkit::Cuda13, &folder.join("include"))?;
        fs::copy(repository().join("tests/programs/kernels.cu"), folder.join("include/kernels.cu"))?;
        copy(&repository().join("tests/gpu"), &folder)?;
        copy(&repository().join("tests/parity"), &folder.join("parity"))?;
        copy(&repository().join("tests/programs"), &folder.join("checks"))?;
        if let Some(archive) = llama {
            fs::copy(archive, folder.join("llama.tar.gz"))?;
        }
        if let Some(archive) = suites {
            fs::copy(archive, folder.join("suites.tar.xz"))?;
        }
        if let Some(archive) = vm {
            fs::copy(archive, folder.join("vm.tar.xz"))?;
        }
        fs::write(folder.join("manifest.json"), format!("{:#}\n", manifest()))?;

        let archive = store("gpu-bundle.tar.gz");
        let mut tar = Command::new("tar");
        tar.arg("czf").arg(&archive).arg("-C").arg(store("")).arg("gpu-bundle");
        ensure!(tar.status().context("tar does not start")?.success(), "tar failed");
        let (unpacked, packed) = (size(&folder)?, fs::metadata(&archive)?.len());
        ensure!(packed <= MOST_BYTES, "the bundle has {packed} bytes, more than {MOST_BYTES}");
        step(format_args!(
            "{}: {:.1} MiB, {:.1} MiB as a folder",
            archive.display(),
            mib(packed),
            mib(unpacked)
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// llama.cpp if it can be had: its row says what is missing otherwise.
fn llama() -> Option<PathBuf> {
    llama::archive().map_err(|error| eprintln!("without llama.cpp: {error:#}")).ok()
}

/// The test suites if they can be had. A checkout that was asked for has to be one.
fn suites(cuda_python: Option<&Path>) -> Result<Option<PathBuf>> {
    match suites::archive(cuda_python) {
        Err(error) if cuda_python.is_none() => {
            eprintln!("without the test suites: {error:#}");
            Ok(None)
        }
        archive => archive.map(Some),
    }
}

/// The VM if it can be had: its rows say what is missing otherwise.
fn vm() -> Option<PathBuf> {
    vm::archive().map_err(|error| eprintln!("without a VM: {error:#}")).ok()
}

#[expect(clippy::cast_precision_loss, reason = "for people, to a tenth")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What the results have to say of the code that they are of.
fn manifest() -> serde_json::Value {
    let git = |arguments: &[&str]| {
        let done = Command::new("git").args(arguments).current_dir(repository()).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    json!({
        "commit": git(&["rev-parse", "--short=12", "HEAD"]),
        "changed": git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty()),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn strip(from: &Path, to: &Path) -> Result<()> {
    let done = Command::new("strip").arg("-o").arg(to).arg(from).output();
    let done = done.context("strip does not start (Debian: apt-get install binutils)")?;
    ensure!(done.status.success(), "strip: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Copies a folder's files and folders, Python's leavings left out.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_name() == "__pycache__" {
            continue;
        }
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).with_context(|| format!("cannot copy {}", source.display()))?;
        }
    }
    Ok(())
}

fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let about = fs::symlink_metadata(&path)?;
        sum += if about.is_dir() { size(&path)? } else { about.len() };
    }
    Ok(sum)
}
