//! A package's files before they are packed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::succeed;

/// Scripts that dpkg runs.
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// A folder that becomes a package.
pub(crate) struct Tree {
    folder: PathBuf,
}

impl Tree {
    /// An empty one.
    pub(crate) fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        Ok(Self { folder })
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        let mut place = self.folder.clone();
        let mut parts = Path::new(path.trim_start_matches('/')).components().peekable();
        while let Some(part) = parts.next() {
            place.push(part);
            if parts.peek().is_some() && !place.exists() {
                fs::create_dir(&place)?;
                fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(place)
    }

    pub(crate) fn file(&self, path: &str, bytes: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let place = self.place(path)?;
        fs::write(&place, bytes).with_context(|| place.display().to_string())?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    pub(crate) fn link(&self, path: &str, target: &str) -> Result<()> {
        symlink(target, self.place(path)?)?;
        Ok(())
    }

    /// A folder that has no file yet.
    pub(crate) fn empty(&self, path: &str) -> Result<()> {
        self.place(&format!("{path}/x")).map(drop)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the package. `control` and the scripts are given as texts; what lies in /etc is the administrator's.
    pub(crate) fn pack(&self, control: &str, others: &[(&str, String)], to: &Path) -> Result<PathBuf> {
        let field = |name: &str| {
            let line = control.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.with_context(|| format!("the control file has no {name}"))
        };
        let name = format!("{}_{}_{}.deb", field("Package")?, field("Version")?, field("Architecture")?);
        let mut list = Command::new("find");
        list.current_dir(&self.folder).args([
            ".",
            "-type",
            "f",
            "-not",
            "-path",
            "./DEBIAN/*",
            "-printf",
            "%P\\n",
        ]);
        let files = String::from_utf8(succeed(&mut list, "find")?)?;
        let mut files: Vec<&str> = files.lines().collect();
        files.sort_unstable();
        let sums = succeed(Command::new("md5sum").current_dir(&self.folder).args(&files), "md5sum")?;
        let conffiles: String =
            files.iter().filter(|f| f.starts_with("etc/")).map(|f| format!("/{f}\n")).collect();
        self.file("DEBIAN/control", control, 0o644)?;
        self.file("DEBIAN/md5sums", sums, 0o644)?;
        if !conffiles.is_empty() {
            self.file("DEBIAN/conffiles", conffiles, 0o644)?;
        }
        for (name, text) in others {
            let mode = if SCRIPTS.contains(name) { 0o755 } else { 0o644 };
            self.file(&format!("DEBIAN/{name}"), text, mode)?;
        }
        let package = to.join(name);
        let mut build = Command::new("dpkg-deb");
        build.args(["--root-owner-group", "-Zxz", "--build"]).arg(&self.folder).arg(&package);
        // The same files at the same place are the same package.
        build.env("SOURCE_DATE_EPOCH", "1700000000");
        succeed(&mut build, "dpkg-deb (Debian: apt-get install dpkg)")?;
        Ok(package)
    }
}
