//! The bundle's VM: QEMU, the file system server and a guest in one archive, which the runner unpacks.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::guest::Boot;
use harness::kernel::{Kernel, Series};
use harness::progress::step;
use harness::{cache, carry, store};
use whole_stack::artifacts;

/// The guest's kernel.
const SERIES: Series = Series::V6_1;

/// Makes the archive. Its members begin with `vm/`; what they are says `harness::carry`.
pub(super) fn archive() -> Result<PathBuf> {
    let place = store("gpu-vm");
    let folder = place.join("vm");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    carry::programs(&folder)?;
    let module = artifacts::kernel_module(&Kernel::get(SERIES)?)?;
    // The driver comes first, so that virtiofs is offered only the file systems.
    Boot::new(SERIES).module_file(&module).modules(&["virtiofs"]).pack(&folder)?;
    // Packing takes its minutes.
    let packed = cache::folder(&place.join("packed"), &carry::fingerprint(&folder)?, |packed| {
        step("packing the VM");
        let mut tar = Command::new("tar");
        tar.arg("cJf").arg(packed.join("vm.tar.xz")).arg("-C").arg(&place).arg("vm");
        let done = tar.env("XZ_OPT", "--x86 --lzma2=preset=9").status().context("tar does not start")?;
        ensure!(done.success(), "tar failed (Debian: apt-get install xz-utils)");
        Ok(())
    })?;
    Ok(packed.join("vm.tar.xz"))
}
