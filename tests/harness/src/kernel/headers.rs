//! Building modules outside the kernel's tree, on a machine that may be older than the kernel's packages.
//!
//! The unpacked headers are made to work where they lie: their Makefile names its other half by its place in this tree, the
//! build's own tools (`modpost`, `objtool`, `fixdep`, …) become scripts that start the real ones through the C library that
//! their suite came with, and the compiler is this machine's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{Kernel, entry};
use crate::cache;
use crate::packages::Libraries;

/// Compiler features that the kernel's configuration found in the compiler that built it, and the flag that each stands for.
/// The ones that this machine's compiler lacks are taken out of the configuration.
const FEATURES: [(&str, &str); 1] = [("CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT", "-fmin-function-alignment=16")];

/// Builds the kernel module in `source` (a folder with a Kbuild or Makefile) for `kernel`. What the build makes goes to `out`;
/// `source` is not written to. Returns the modules' files.
///
/// # Errors
/// When the module does not compile, with the compiler's words; or there is no make or gcc.
pub fn build_module(kernel: &Kernel, source: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    let _turn = cache::lock(out)?;
    mirror(source, out)?;
    let headers = kernel.headers()?;
    let mut make = Command::new("make");
    make.arg("-C").arg(&headers).arg(format!("M={}", out.canonicalize()?.display())).arg("modules");
    // A make around us would hand its flags and job slots on.
    make.env_remove("MAKEFLAGS").env_remove("MFLAGS").env("LC_ALL", "C");
    let done = make.output().context("make does not start: apt-get install make gcc")?;
    if !done.status.success() {
        let said = [done.stdout, done.stderr].concat();
        bail!("building {} for {}:\n{}", source.display(), kernel.release, String::from_utf8_lossy(&said));
    }
    // Warnings.
    eprint!("{}", String::from_utf8_lossy(&done.stderr));
    let mut built: Vec<_> = fs::read_dir(out)?.flatten().map(|entry| entry.path()).collect();
    built.retain(|path| path.extension().is_some_and(|extension| extension == "ko"));
    built.sort();
    ensure!(!built.is_empty(), "{} made no module", source.display());
    Ok(built)
}

impl Kernel {
    /// The folder to run `make -C` in.
    ///
    /// # Errors
    /// When the kernel was unpacked without headers.
    pub fn headers(&self) -> Result<PathBuf> {
        let headers = self.root.join("usr/src").join(format!("linux-headers-{}", self.release));
        ensure!(
            headers.join("Makefile").exists(),
            "no headers of {} in {}",
            self.release,
            self.root.display()
        );
        Ok(headers)
    }
}

/// Makes the headers in `root` work from their later place `place`.
pub(super) fn settle(root: &Path, place: &Path) -> Result<()> {
    let source = root.join("usr/src");
    let headers = source.join(only_flavour(&source)?);
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile)?.replace("/usr/src/", &format!("{}/usr/src/", place.display()));
    fs::write(&makefile, text)?;

    // It names the exact compiler and tools of its suite; of its lines only these two say something about the kernel.
    let variables = headers.join(".kernelvariables");
    let text = fs::read_to_string(&variables)?;
    let kept = ["override ARCH =", "override KERNELRELEASE ="];
    let mut lines: Vec<_> = text.lines().filter(|line| kept.iter().any(|it| line.starts_with(it))).collect();
    ensure!(lines.len() == kept.len(), "unknown contents of {}:\n{text}", variables.display());
    lines.extend(["CC = gcc", "DEBIAN_KERNEL_NO_CC_VERSION_CHECK = y", ""]);
    fs::write(&variables, lines.join("\n"))?;

    // Only type information for the debugger (BTF) is made from it, by a program that need not be here.
    let _ = fs::remove_file(headers.join("vmlinux"));
    for (feature, flag) in FEATURES {
        if !compiler_knows(flag)? {
            without(&headers, feature)?;
        }
    }
    let tools = entry(&root.join("usr/lib"), "linux-kbuild-")?;
    wrap_programs(&root.join("usr/lib").join(tools), root, place)
}

/// `linux-headers-6.1.0-1-cloud-amd64`; its other half is `linux-headers-6.1.0-1-common`.
fn only_flavour(source: &Path) -> Result<String> {
    let names = fs::read_dir(source)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    super::only(names.filter(|name| !name.ends_with("-common")).collect(), "linux-headers-")
}

fn compiler_knows(flag: &str) -> Result<bool> {
    let mut compile = Command::new("gcc");
    compile.args([flag, "-Werror", "-S", "-x", "c", "-o", "/dev/null", "/dev/null"]);
    Ok(compile.output().context("gcc does not start: apt-get install gcc")?.status.success())
}

/// Takes an option out of the configuration as make and as C read it.
fn without(headers: &Path, option: &str) -> Result<()> {
    for (file, line) in [
        ("include/config/auto.conf", format!("{option}=y\n")),
        ("include/generated/autoconf.h", format!("#define {option} 1\n")),
    ] {
        let path = headers.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fs::write(&path, text.replace(&line, ""))?;
    }
    Ok(())
}

/// Puts a script in the place of each program in `dir`, which starts the program through the libraries of its suite.
fn wrap_programs(dir: &Path, root: &Path, place: &Path) -> Result<()> {
    let libraries = Libraries::of(&root.join("host"))?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            wrap_programs(&path, root, place)?;
            continue;
        }
        let bytes = fs::read(&path)?;
        if path.is_symlink()
            || !bytes.starts_with(b"\x7fELF")
            || fs::metadata(&path)?.permissions().mode() & 0o111 == 0
        {
            continue;
        }
        let real =
            path.with_file_name(format!("{}.elf", path.file_name().unwrap_or_default().to_string_lossy()));
        fs::rename(&path, &real)?;
        // modpost finds its other programs by the name that it was called by.
        let mut words: Vec<_> =
            libraries.run(&real).into_iter().map(|word| format!("'{}'", word.to_string_lossy())).collect();
        words.insert(1, "--argv0 \"$0\"".to_owned());
        let words = words.join(" ");
        let words = words.replace(&root.display().to_string(), &place.display().to_string());
        fs::write(&path, format!("#!/bin/sh\nexec {words} \"$@\"\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Makes `out` hold the files of `source`, so that the build writes there. A file that has not changed keeps its time, and make
/// builds only what is new.
fn mirror(source: &Path, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    for entry in fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))? {
        let from = entry?.path();
        let to = out.join(from.file_name().unwrap_or_default());
        if from.is_dir() {
            mirror(&from, &to)?;
        } else {
            let bytes = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
            if fs::read(&to).ok().as_ref() != Some(&bytes) {
                fs::write(&to, bytes)?;
            }
        }
    }
    Ok(())
}
