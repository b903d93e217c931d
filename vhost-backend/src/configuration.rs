//! The host's file: what VMs get where the daemon's arguments do not say otherwise. TOML, the same file for all daemons of a host.
//!
//! ```toml
//! state-dir = "/run/vgpu"
//!
//! [defaults]
//! weight = 10
//! kernel-timeout = "30s"
//!
//! [pools.A]
//! gpus = ["0"]
//!
//! [vm.7]
//! name = "build"
//! pool = "A"
//! vram = "16GiB"
//! ```
//!
//! For one VM the arguments of its daemon win over its own table, that over `[defaults]`, and that over what is built in. Whatever the
//! file has that is not known, or cannot be, is an error with its line, wherever in the file it stands: also in another VM's table.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use mediator::Settings;
use serde::Deserialize;
use toml::{Spanned, Value};

use crate::named;

/// Where the file is looked for when no argument names one.
pub const PATH: &str = "/etc/vgpu/vgpu.toml";

/// Longest file, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// Longest name of a VM, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The pools that are there without a file.
const POOLS: [char; 2] = ['A', 'B'];

/// Why the file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    path: PathBuf,
    /// From 1; None: it is about the file as a whole.
    line: Option<usize>,
    what: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for FileError {}

/// What the daemon's arguments say, and where the rest is read from: kept, so that it can be read again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The host's file, where an argument names one; None: [`PATH`], if it is there when it is read.
    pub file: Option<PathBuf>,
    /// Number of the VM.
    pub vm_id: u32,
    /// Settings that arguments set, by name: they were read once, so that [`named::apply`] takes them.
    pub settings: Vec<(&'static str, String)>,
    /// The VM's name.
    pub name: Option<String>,
    /// Its pool.
    pub pool: Option<char>,
    /// Its GPUs; empty: not said.
    pub gpus: Vec<String>,
}

/// What holds for one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its settings.
    pub settings: Settings,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its pool, an upper case ASCII letter.
    pub pool: char,
    /// The GPUs it gets, by index in PCI order or by UUID; empty: all of the host.
    pub gpus: Vec<String>,
    /// The folder that daemons share, where the file names one.
    pub state_dir: Option<PathBuf>,
}

/// One table of settings.
type Table = BTreeMap<String, Spanned<Value>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    state_dir: Option<PathBuf>,
    #[serde(default)]
    defaults: Table,
    #[serde(default)]
    pools: BTreeMap<String, Spanned<Pool>>,
    #[serde(default)]
    vm: BTreeMap<String, Spanned<Table>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pool {
    #[serde(default)]
    gpus: Vec<Spanned<String>>,
}

impl Sources {
    /// Reads the file, if there is one, and says what holds for the VM.
    ///
    /// # Errors
    /// The file cannot be read, or something in it cannot be.
    pub fn read(&self) -> Result<Chosen, FileError> {
        self.read_or(Path::new(PATH))
    }

    fn read_or(&self, usual: &Path) -> Result<Chosen, FileError> {
        match &self.file {
            Some(path) => self.choose(path, &contents(path)?),
            None if usual.exists() => self.choose(usual, &contents(usual)?),
            None => self.choose(usual, ""),
        }
    }

    fn choose(&self, path: &Path, text: &str) -> Result<Chosen, FileError> {
        let at = |span: std::ops::Range<usize>, what: String| {
            let before = text.get(..span.start).unwrap_or(text);
            let line = before.bytes().filter(|byte| *byte == b'\n').count().saturating_add(1);
            FileError { path: path.into(), line: Some(line), what }
        };
        let file: File = toml::from_str(text).map_err(|error| match error.span() {
            Some(span) => at(span, error.message().to_owned()),
            None => FileError { path: path.into(), line: None, what: error.message().to_owned() },
        })?;
        let mut pools = BTreeMap::new();
        for (name, table) in &file.pools {
            let letter =
                pool_letter(name).map_err(|what| at(table.span(), format!("pools.{name}: {what}")))?;
            for name in &table.as_ref().gpus {
                gpu_name(name.as_ref()).map_err(|what| at(name.span(), what))?;
            }
            pools.insert(letter, table.as_ref().gpus.iter().map(|gpu| gpu.as_ref().clone()).collect());
        }
        let place = |span, what| at(span, what);
        let mut chosen = Entry::default();
        chosen.take(&file.defaults, &pools, false, &place)?;
        // Of the others as well: who writes nonsense for one VM hears of it when any daemon reads the file.
        let mut names: BTreeMap<String, &str> = BTreeMap::new();
        let mut own = None;
        for (number, table) in &file.vm {
            let id: u32 = number
                .parse()
                .map_err(|_| at(table.span(), format!("vm.{number}: the number of a VM is expected")))?;
            let mut entry = chosen.clone();
            entry.take(table.as_ref(), &pools, true, &place)?;
            if let Some(name) = &entry.name
                && let Some(other) = names.insert(name.clone(), number)
            {
                return Err(at(table.span(), format!("vm.{number} has the name {name}, as vm.{other} has")));
            }
            if id == self.vm_id {
                own = Some(entry);
            }
        }
        let Entry { mut settings, name, pool } = own.unwrap_or(chosen);
        let whole = |what: String| FileError { path: path.into(), line: None, what };
        for (name, text) in &self.settings {
            named::apply(&mut settings, name, text).map_err(|what| whole(format!("--{name}: {what}")))?;
        }
        settings.check().map_err(|name| whole(format!("setting {name} is out of range")))?;
        let pool = self.pool.or(pool).unwrap_or('A');
        let gpus = self.gpus_of(pool, &pools).map_err(whole)?;
        Ok(Chosen { settings, name: self.name.clone().or(name), pool, gpus, state_dir: file.state_dir })
    }

    /// The GPUs that the VM gets of its pool.
    fn gpus_of(&self, pool: char, pools: &BTreeMap<char, Vec<String>>) -> Result<Vec<String>, String> {
        let of_pool: &[String] = match pools.get(&pool) {
            Some(gpus) => gpus,
            None if POOLS.contains(&pool) => &[],
            None => return Err(format!("there is no pool {pool}: describe it as [pools.{pool}]")),
        };
        if of_pool.is_empty() || self.gpus.is_empty() {
            return Ok(if self.gpus.is_empty() { of_pool.to_vec() } else { self.gpus.clone() });
        }
        match self.gpus.iter().find(|gpu| !of_pool.contains(gpu)) {
            None => Ok(self.gpus.clone()),
            Some(gpu) => Err(format!(
                "--gpu names {gpu}, but pool {pool} has {} only; call a GPU by the same name in both",
                of_pool.join(", ")
            )),
        }
    }
}

/// What tables have said so far.
#[derive(Debug, Clone, Default)]
struct Entry {
    settings: Settings,
    name: Option<String>,
    pool: Option<char>,
}

impl Entry {
    fn take(
        &mut self,
        table: &Table,
        pools: &BTreeMap<char, Vec<String>>,
        of_vm: bool,
        at: &impl Fn(std::ops::Range<usize>, String) -> FileError,
    ) -> Result<(), FileError> {
        for (key, value) in table {
            let wrong = |what: String| at(value.span(), format!("{key}: {what}"));
            let text = match value.as_ref() {
                Value::String(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                _ => return Err(wrong("a string or a whole number is expected".into())),
            };
            match key.as_str() {
                "name" if of_vm => self.name = Some(vm_name(&text).map_err(wrong)?),
                "pool" => {
                    let pool = pool_letter(&text).map_err(wrong)?;
                    if !pools.contains_key(&pool) && !POOLS.contains(&pool) {
                        return Err(wrong(format!("there is no pool {pool}: describe it as [pools.{pool}]")));
                    }
                    self.pool = Some(pool);
                }
                _ => named::apply(&mut self.settings, key, &text).map_err(wrong)?,
            }
        }
        Ok(())
    }
}

fn contents(path: &Path) -> Result<String, FileError> {
    use std::io::Read;
    let wrong = |what: String| FileError { path: path.into(), line: None, what };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    file.take(BYTES_MAX.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(wrong(format!("more than {BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// A pool's letter.
///
/// # Errors
/// What a pool is.
pub fn pool_letter(text: &str) -> Result<char, String> {
    match text.as_bytes() {
        [letter] if letter.is_ascii_uppercase() => Ok(char::from(*letter)),
        _ => Err("a pool is one letter from A to Z".into()),
    }
}

/// GPUs of one host, at most.
const GPUS_MAX: u32 = 64;

/// A GPU: an index, or a UUID as nvidia-smi -L writes it.
///
/// # Errors
/// What a GPU is.
pub fn gpu_name(text: &str) -> Result<String, String> {
    let index =
        text.parse::<u32>().is_ok_and(|index| index < GPUS_MAX) && text.bytes().all(|b| b.is_ascii_digit());
    let uuid = text.strip_prefix("GPU-").is_some_and(|rest| {
        (8..=36).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
    });
    if index || uuid {
        Ok(text.to_owned())
    } else {
        Err("a GPU is an index or a UUID (nvidia-smi -L lists both)".into())
    }
}

/// A VM's name. One of digits alone would be taken for a number.
///
/// # Errors
/// What a name is.
pub fn vm_name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let right = (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.bytes().all(|b| b.is_ascii_digit());
    if right {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a name has up to {NAME_BYTES_MAX} letters, digits, '.', '_' and '-', and not digits alone"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn vm(vm_id: u32) -> Sources {
        Sources { vm_id, ..Sources::default() }
    }

    fn choose(sources: &Sources, text: &str) -> Result<Chosen, String> {
        sources.choose(Path::new("vgpu.toml"), text).map_err(|error| error.to_string())
    }

    const FILE: &str = r#"
state-dir = "/run/vgpu"

[defaults]
weight = 20
kernel-timeout = "30s"

[pools.A]
gpus = ["0", "GPU-8f6b3b1a-1c2d-3e4f-5a6b-7c8d9e0f1a2b"]

[pools.C]
gpus = ["2"]

[vm.7]
name = "build"
pool = "C"
weight = 30
vram = "16GiB"

[vm.8]
kernel-timeout = "none"
"#;

    #[test]
    fn arguments_win_over_the_vm_and_that_over_defaults() {
        let seven = choose(&vm(7), FILE).unwrap();
        assert_eq!((seven.settings.weight, seven.settings.vram_bytes), (30, Some(16 << 30)));
        assert_eq!(seven.settings.kernel_timeout, Some(Duration::from_secs(30)));
        assert_eq!(
            (seven.name.as_deref(), seven.pool, seven.gpus),
            (Some("build"), 'C', vec!["2".to_owned()])
        );
        assert_eq!(seven.state_dir, Some("/run/vgpu".into()));
        let eight = choose(&vm(8), FILE).unwrap();
        assert_eq!((eight.settings.weight, eight.settings.kernel_timeout, eight.pool), (20, None, 'A'));
        assert_eq!(eight.gpus.len(), 2);
        let other = choose(&vm(9), FILE).unwrap();
        assert_eq!((other.settings.weight, other.name), (20, None));
        let arguments = Sources {
            settings: vec![("weight", "99".into())],
            name: Some("mine".into()),
            pool: Some('B'),
            ..vm(7)
        };
        let chosen = choose(&arguments, FILE).unwrap();
        assert_eq!((chosen.settings.weight, chosen.name.as_deref(), chosen.pool), (99, Some("mine"), 'B'));
        assert!(chosen.gpus.is_empty());
        let nothing = choose(&vm(0), "").unwrap();
        assert_eq!((nothing.settings, nothing.pool), (Settings::default(), 'A'));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, word) in [
            ("[defaults]\nweight = 0\n", 2, "1 to 100"),
            ("[defaults]\n\nwieght = 5\n", 3, "kernel-timeout"),
            ("[defaults]\nname = \"x\"\n", 2, "no setting"),
            ("[vm.7]\nvram = 16.5\n", 2, "whole number"),
            ("[vm.8]\nvram = \"16XiB\"\n", 2, "TiB"),
            ("[vm.seven]\nweight = 1\n", 1, "number of a VM"),
            ("[vm.7]\npool = \"D\"\n", 2, "[pools.D]"),
            ("[vm.7]\nname = \"12\"\n", 2, "digits alone"),
            ("[vm.7]\nname = \"a\"\n[vm.8]\nname = \"a\"\n", 3, "vm.7"),
            ("[pools.AB]\ngpus = []\n", 1, "one letter"),
            ("[pools.A]\ngpus = [\"0\",\n \"card\"]\n", 3, "nvidia-smi -L"),
            ("\n[pols.A]\n", 2, "pols"),
            ("[defaults\n", 1, ""),
        ] {
            let error = choose(&vm(7), text).unwrap_err();
            assert!(error.starts_with(&format!("vgpu.toml:{line}: ")), "{text}: {error}");
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_vm_gets_gpus_of_its_pool_only() {
        let gpu = |gpu: &str| Sources { gpus: vec![gpu.to_owned()], ..vm(8) };
        assert_eq!(choose(&gpu("0"), FILE).unwrap().gpus, ["0"]);
        assert!(choose(&gpu("1"), FILE).unwrap_err().contains("pool A"));
        assert_eq!(choose(&gpu("1"), "").unwrap().gpus, ["1"]);
        let pool = |pool| Sources { pool: Some(pool), ..vm(8) };
        assert!(choose(&pool('D'), FILE).unwrap_err().contains("[pools.D]"));
        assert!(choose(&pool('B'), "").is_ok());
    }

    #[test]
    fn a_file_is_read_from_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vgpu.toml");
        let sources = Sources { file: Some(path.clone()), ..vm(7) };
        assert!(sources.read().unwrap_err().to_string().contains("No such file"));
        std::fs::write(&path, FILE).unwrap();
        assert_eq!(sources.read().unwrap().settings.weight, 30);
        // The usual one need not be there, and may come later.
        assert_eq!(vm(7).read_or(&folder.path().join("none")).unwrap().settings, Settings::default());
        assert_eq!(vm(7).read_or(&path).unwrap().settings.weight, 30);
        std::fs::write(&path, " ".repeat(usize::try_from(BYTES_MAX).unwrap() + 1)).unwrap();
        assert!(sources.read().unwrap_err().to_string().contains("more than"));
    }
}
