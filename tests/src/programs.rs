//! The programs of `tests/programs`: CUDA C++ compiled to PTX by NVRTC, C compiled by gcc against NVIDIA's headers out of their
//! wheels, linked with the library under test by its ordinary name.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::nvrtc;
use harness::progress::step;
use harness::wheels::Toolkit;
use harness::{repository, store};

/// The virtual architecture of the kernels: the software executor's.
const ARCHITECTURE: &str = "compute_80";

/// The compiled programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The folder that holds them.
    pub folder: PathBuf,
    /// NVIDIA's runtime library that `runtime_api` is linked with.
    pub runtime_library: PathBuf,
}

impl Programs {
    /// A program's file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// PTX as a fatbin with one entry, as nvcc embeds it: header {magic, version 1, header bytes, payload bytes}, entry header
/// {kind 1 = PTX, version, header bytes, payload bytes, …, where the compiler's options are (none)}, text.
#[must_use]
pub fn fatbin(ptx: &str, architecture: u32) -> Vec<u8> {
    const ENTRY_HEADER: u32 = 80;
    /// Where in the header the options are described, and where their text would begin: the driver follows both.
    const OPTIONS: u32 = 64;
    const OPTIONS_TEXT: u32 = 72;
    /// 64-bit code for Linux.
    const FLAGS: u64 = 0x11;
    let mut text = ptx.as_bytes().to_vec();
    text.push(0);
    text.resize(text.len().next_multiple_of(8), 0);
    let len = u32::try_from(text.len()).expect("kernels are short");
    let mut entry = Vec::new();
    entry.extend(1u16.to_le_bytes());
    entry.extend(0x0101u16.to_le_bytes());
    for word in [ENTRY_HEADER, len, 0, 0, OPTIONS] {
        entry.extend(word.to_le_bytes());
    }
    entry.extend(0u16.to_le_bytes());
    entry.extend(8u16.to_le_bytes());
    for word in [architecture, 0, 0] {
        entry.extend(word.to_le_bytes());
    }
    for word in [FLAGS, 0, 0] {
        entry.extend(word.to_le_bytes());
    }
    assert_eq!(entry.len(), OPTIONS as usize);
    for word in [OPTIONS_TEXT, 0, 0, 0] {
        entry.extend(word.to_le_bytes());
    }
    assert_eq!(entry.len(), ENTRY_HEADER as usize);
    let mut bytes = Vec::new();
    bytes.extend(0xba55_ed50u32.to_le_bytes());
    bytes.extend(1u16.to_le_bytes());
    bytes.extend(16u16.to_le_bytes());
    bytes.extend((entry.len() as u64 + u64::from(len)).to_le_bytes());
    bytes.extend(entry);
    bytes.extend(text);
    bytes
}

fn c_array(name: &str, bytes: &[u8]) -> String {
    let mut text = format!("static const unsigned char {name}[] __attribute__((aligned(8))) = {{");
    for (i, byte) in bytes.iter().enumerate() {
        let _ = write!(text, "{}{byte},", if i % 32 == 0 { "\n" } else { "" });
    }
    text.push_str("\n};\n");
    text
}

/// Compiles every program with a release of CUDA.
///
/// # Errors
/// When something cannot be fetched, or does not compile.
pub fn build(toolkit: Toolkit, libcuda: &Path) -> Result<Programs> {
    let sources = repository().join("tests/programs");
    let folder = store("programs").join(format!("{toolkit:?}").to_lowercase());
    fs::create_dir_all(&folder)?;
    let _lock = harness::cache::lock(&folder.join("build"))?;
    kernel_headers(toolkit, &folder)?;

    let includes = toolkit.include_folders()?;
    let runtime_library = toolkit.runtime_library()?;
    let programs = Programs { folder, runtime_library };
    for entry in fs::read_dir(&sources)? {
        let source = entry?.path();
        // The others use what 12 brought to the driver's interface; of 11.8 its runtime is what programs still come with.
        let wanted = toolkit != Toolkit::Cuda11 || source.ends_with("runtime_api.c");
        if wanted && source.extension().is_some_and(|e| e == "c") {
            compile(&programs, &source, &includes, libcuda)?;
        }
    }
    Ok(programs)
}

/// Writes the kernels of `tests/programs/kernels.cu` as C headers into a folder: `kernels_ptx.h` and `kernels_fatbin.h`.
///
/// # Errors
/// As for [`build`].
pub fn kernel_headers(toolkit: Toolkit, folder: &Path) -> Result<()> {
    let kernels = fs::read_to_string(repository().join("tests/programs/kernels.cu"))?;
    let ptx = nvrtc::compile(toolkit, &kernels, ARCHITECTURE, &[])?;
    let mut terminated = ptx.clone().into_bytes();
    terminated.push(0);
    write_if_new(&folder.join("kernels_ptx.h"), &c_array("kernels_ptx", &terminated))?;
    write_if_new(&folder.join("kernels_fatbin.h"), &c_array("kernels_fatbin", &fatbin(&ptx, 80)))
}

fn write_if_new(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn compile(programs: &Programs, source: &Path, includes: &[PathBuf], libcuda: &Path) -> Result<()> {
    let name = source.file_stem().context("a source without a name")?.to_string_lossy().into_owned();
    step(format_args!("compiling {name}.c"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-g", "-Wall", "-Werror=implicit-function-declaration", "-pthread", "-o"])
        .arg(programs.path(&name))
        .arg(source)
        .arg("-I")
        .arg(&programs.folder)
        .arg("-I")
        .arg(repository().join("pci-layout/include"));
    for include in includes {
        // System headers: NVIDIA's are not ours to warn about.
        gcc.arg("-isystem").arg(include);
    }
    if name.starts_with("runtime") {
        gcc.arg(&programs.runtime_library);
    } else {
        gcc.arg("-L").arg(libcuda).arg("-lcuda");
    }
    gcc.args(["-lm", "-ldl", "-lrt"]);
    let output = gcc.output().context("gcc does not start (Debian: apt-get install gcc libc6-dev)")?;
    ensure!(output.status.success(), "{name}.c: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_fatbin_is_as_long_as_it_says() {
        let bytes = super::fatbin(".version 8.0\n", 80);
        let payload = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
        assert_eq!(bytes.len() as u64, 16 + payload);
    }
}
