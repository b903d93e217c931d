//! A kernel's modules: which file holds which, and what each needs.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

/// The loadable modules and the built-in ones of one kernel.
#[derive(Clone, Debug)]
pub struct Modules {
    files: HashMap<String, PathBuf>,
    built_in: Vec<String>,
}

impl Modules {
    /// Lists the modules in `dir` (`…/lib/modules/<release>`).
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn of(dir: &Path) -> Result<Self> {
        let list = dir.join("modules.builtin");
        let list = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        let built_in = list.lines().map(|line| module_name(Path::new(line))).collect();
        let mut files = HashMap::new();
        let mut folders = vec![dir.join("kernel")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.to_string_lossy().contains(".ko") {
                    files.insert(module_name(&path), path);
                }
            }
        }
        Ok(Self { files, built_in })
    }

    /// Whether this kernel has the module, built in or loadable.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.built_in.iter().any(|it| it == name)
    }

    /// The modules to load for `names`, in an order in which each finds what it needs: names and uncompressed contents.
    /// Built-in ones are left out.
    ///
    /// # Errors
    /// When this kernel lacks one of them.
    pub fn with_dependencies(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut order = Vec::new();
        for name in names {
            self.add(name, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        let name = name.replace('-', "_");
        if order.iter().any(|(there, _)| *there == name) || self.built_in.contains(&name) {
            return Ok(());
        }
        let path = self.files.get(&name).with_context(|| format!("this kernel has no module {name}"))?;
        let bytes = uncompressed(path).with_context(|| format!("cannot read {}", path.display()))?;
        for needed in depends(&bytes).with_context(|| format!("no module in {}", path.display()))? {
            self.add(&needed, order)?;
        }
        order.push((name, bytes));
        Ok(())
    }
}

fn module_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split(".ko").next().unwrap_or_default().replace('-', "_")
}

fn uncompressed(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path)?;
    let mut plain = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return Ok(bytes),
        Some("xz") => lzma_rs::xz_decompress(&mut bytes.as_slice(), &mut plain)?,
        Some("zst") => {
            std::io::copy(&mut ruzstd::decoding::StreamingDecoder::new(bytes.as_slice())?, &mut plain)?;
        }
        _ => bail!("an unknown compression"),
    }
    Ok(plain)
}

/// The line `depends=a,b` among the NUL-separated ones of the section .modinfo.
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file.section_by_name(".modinfo").context("no section .modinfo")?;
    let text = String::from_utf8_lossy(section.data()?).into_owned();
    let line = text.split('\0').find_map(|line| line.strip_prefix("depends=")).unwrap_or_default();
    Ok(line.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}
