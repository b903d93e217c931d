//! NVIDIA's redistributable libraries and headers, as Python wheels.
//!
//! A wheel is a zip archive; pip finds and downloads it, and it is unpacked under `target/wheels`. No Python package is
//! installed. The wheels are under NVIDIA's licence: they are for building and testing on this machine and are never
//! committed or packaged.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::progress::step;
use crate::{cache, store};

/// What a wheel may be built for. pip takes exactly the tags that it is given, not the older ones that they imply.
const PLATFORMS: [&str; 5] = [
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
];

/// Unpacks the newest wheel of `name` whose version matches `version` (`13.0.*`) into `target/wheels`, once. Returns the folder.
///
/// # Errors
/// When there is no pip, no network, or no such wheel.
pub fn get(name: &str, version: &str) -> Result<PathBuf> {
    let folder = format!("{name}-{}", version.trim_end_matches(".*"));
    cache::folder(&store("wheels").join(folder), version, |dir| fetch(name, version, &[], dir))
}

/// Unpacks such a wheel for a Python of the version `python` (`3.12`) into the folder `dir`, beside what is there.
///
/// # Errors
/// As [`get`].
pub fn unpack(name: &str, version: &str, python: &str, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    fetch(name, version, &["--python-version", python], dir)
}

fn fetch(name: &str, version: &str, arguments: &[&str], dir: &Path) -> Result<()> {
    step(format_args!("fetching the wheel {name} {version}"));
    let place = tempfile::tempdir_in(dir)?;
    let mut download = pip()?;
    download.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
    for platform in PLATFORMS {
        download.args(["--platform", platform]);
    }
    download.args(arguments).arg("--dest").arg(place.path()).arg(format!("{name}=={version}"));
    run(download)
        .with_context(|| format!("cannot fetch the wheel {name} {version} (is there a network?)"))?;
    let wheel = fs::read_dir(place.path())?.next().context("pip fetched nothing")??.path();
    let mut archive = zip::ZipArchive::new(File::open(&wheel)?)?;
    archive.extract(dir).with_context(|| format!("cannot unpack {}", wheel.display()))
}

/// A release of CUDA, as wheels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Toolkit {
    /// 11.8.
    Cuda11,
    /// 12.8.
    Cuda12,
    /// 13.0.
    Cuda13,
}

/// Where the wheels of a release have what. From 13 on they share one folder, and their names have no release in them.
struct Layout {
    version: &'static str,
    runtime: (&'static str, &'static str),
    compiler: (&'static str, &'static str),
    /// What `cuda_runtime_api.h` includes is in a wheel of its own (13) or with the compiler driver (before).
    more_headers: (&'static str, &'static str),
    runtime_library: &'static str,
    compiler_libraries: [&'static str; 2],
}

impl Toolkit {
    const fn layout(self) -> Layout {
        match self {
            Self::Cuda11 => Layout {
                version: "11.8.*",
                runtime: ("nvidia-cuda-runtime-cu11", "nvidia/cuda_runtime"),
                compiler: ("nvidia-cuda-nvrtc-cu11", "nvidia/cuda_nvrtc"),
                more_headers: ("nvidia-cuda-nvcc-cu11", "nvidia/cuda_nvcc"),
                runtime_library: "libcudart.so.11.0",
                compiler_libraries: ["libnvrtc.so.11.2", "libnvrtc-builtins.so.11.8"],
            },
            Self::Cuda12 => Layout {
                version: "12.8.*",
                runtime: ("nvidia-cuda-runtime-cu12", "nvidia/cuda_runtime"),
                compiler: ("nvidia-cuda-nvrtc-cu12", "nvidia/cuda_nvrtc"),
                more_headers: ("nvidia-cuda-nvcc-cu12", "nvidia/cuda_nvcc"),
                runtime_library: "libcudart.so.12",
                compiler_libraries: ["libnvrtc.so.12", "libnvrtc-builtins.so.12.8"],
            },
            Self::Cuda13 => Layout {
                version: "13.0.*",
                runtime: ("nvidia-cuda-runtime", "nvidia/cu13"),
                compiler: ("nvidia-cuda-nvrtc", "nvidia/cu13"),
                more_headers: ("nvidia-cuda-crt", "nvidia/cu13"),
                runtime_library: "libcudart.so.13",
                compiler_libraries: ["libnvrtc.so.13", "libnvrtc-builtins.so.13.0"],
            },
        }
    }

    /// `libcudart.so.11.0`, `libcudart.so.12` or `libcudart.so.13`.
    ///
    /// # Errors
    /// As [`get`].
    pub fn runtime_library(self) -> Result<PathBuf> {
        self.runtime_library_of(self.layout().version)
    }

    /// The same of another release with the same major number, e.g. `12.4.*`.
    ///
    /// # Errors
    /// As [`get`].
    pub fn runtime_library_of(self, version: &str) -> Result<PathBuf> {
        let Layout { runtime: (wheel, folder), runtime_library, .. } = self.layout();
        existing(get(wheel, version)?.join(folder).join("lib").join(runtime_library))
    }

    /// `libnvrtc.so.…`, and the library of built-in headers that it loads by name.
    ///
    /// # Errors
    /// As [`get`].
    pub fn compiler_libraries(self) -> Result<[PathBuf; 2]> {
        let Layout { version, compiler: (wheel, folder), compiler_libraries, .. } = self.layout();
        let dir = get(wheel, version)?.join(folder).join("lib");
        let [library, builtins] = compiler_libraries.map(|name| dir.join(name));
        Ok([existing(library)?, existing(builtins)?])
    }

    /// The folders to give a C compiler with `-I` for cuda.h and `cuda_runtime_api.h`.
    ///
    /// # Errors
    /// As [`get`].
    pub fn include_folders(self) -> Result<Vec<PathBuf>> {
        let Layout { version, runtime, more_headers, .. } = self.layout();
        let folder =
            |(wheel, folder): (&str, &str)| existing(get(wheel, version)?.join(folder).join("include"));
        [runtime, more_headers].into_iter().map(folder).collect()
    }
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    ensure!(path.exists(), "the wheel does not have {}", path.display());
    Ok(path)
}

/// The system's pip, or one in a virtual environment under `target/wheels`.
fn pip() -> Result<Command> {
    let with = |python: OsString| {
        let mut command = Command::new(python);
        command.args(["-m", "pip"]);
        command
    };
    let works = |mut pip: Command| pip.arg("--version").output().is_ok_and(|done| done.status.success());
    if works(with("python3".into())) {
        return Ok(with("python3".into()));
    }
    let place = store("wheels").join("python");
    let own = place.join("bin/python3").into_os_string();
    let _turn = cache::lock(&place)?;
    if !works(with(own.clone())) {
        step("making a virtual environment with pip");
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&place);
        run(venv).context("python3 has no pip: apt-get install python3-pip")?;
        ensure!(works(with(own.clone())), "python3 has no pip: apt-get install python3-pip");
    }
    Ok(with(own))
}

fn run(mut command: Command) -> Result<()> {
    let Output { status, stderr, .. } =
        command.output().context("python3 does not start: apt-get install python3")?;
    let said = String::from_utf8_lossy(&stderr).into_owned();
    let last =
        said.lines().rev().take(4).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("; ");
    ensure!(status.success(), "{last}");
    Ok(())
}
