//! The daemons of a host, by the sockets in their state folder.

use std::io;
use std::path::{Path, PathBuf};

use crate::messages::{Answer, Request, VmReport};
use crate::{AskError, Connection, socket_path};

/// A socket of a VM's daemon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the VM.
    pub vm: u32,
    /// Its path.
    pub path: PathBuf,
}

/// A daemon that answers.
#[derive(Debug)]
pub struct Found {
    /// Where.
    pub place: Place,
    /// For further questions.
    pub connection: Connection,
    /// What it says of its VM.
    pub report: VmReport,
}

/// Why a VM's daemon cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// No daemon has a socket in the folder, or there is no folder.
    #[error("no daemon is running (there is none in {dir})")]
    NoDaemon {
        /// The folder.
        dir: PathBuf,
    },
    /// There are daemons, but none for this VM.
    #[error("there is no VM {vm}; there are {known}")]
    UnknownVm {
        /// The number or name that was asked for.
        vm: String,
        /// Those that are there.
        known: String,
    },
    /// The folder cannot be read.
    #[error("{dir} cannot be read: {source}")]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It does not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// The sockets in a state folder, by VM.
fn places(dir: &Path) -> Result<Vec<Place>, FindError> {
    let folder = |source| FindError::Folder { dir: dir.into(), source };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(folder)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(folder)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("vm-")?.strip_suffix(".ctl"));
        if let Some(vm) = number.and_then(|number| number.parse().ok()) {
            found.push(Place { vm, path: socket_path(dir, vm) });
        }
    }
    found.sort();
    Ok(found)
}

fn open(place: Place) -> Result<Found, AskError> {
    let mut connection = Connection::open(&place.path)?;
    match connection.ask(&Request::Show)? {
        Answer::Vm(report) => Ok(Found { place, connection, report: *report }),
        Answer::Refused { reason } => Err(AskError::Refused { path: place.path, reason }),
        Answer::Done { .. } => Err(AskError::NotUnderstood { path: place.path, what: "no report".into() }),
    }
}

/// All daemons in a state folder, by VM; for those that do not answer, why. A socket that a killed daemon has left is not one.
///
/// # Errors
/// [`FindError::NoDaemon`], [`FindError::Folder`].
pub fn all(dir: &Path) -> Result<(Vec<Found>, Vec<AskError>), FindError> {
    let (mut found, mut silent) = (Vec::new(), Vec::new());
    for place in places(dir)? {
        match open(place) {
            Ok(daemon) => found.push(daemon),
            Err(AskError::NotThere { .. }) => {}
            Err(error) => silent.push(error),
        }
    }
    if found.is_empty() && silent.is_empty() {
        return Err(FindError::NoDaemon { dir: dir.into() });
    }
    Ok((found, silent))
}

/// The daemon of a VM, by the VM's number or name.
///
/// # Errors
/// [`FindError`].
pub fn find(dir: &Path, vm: &str) -> Result<Found, FindError> {
    if let Ok(number) = vm.parse::<u32>()
        && let Some(place) = places(dir)?.into_iter().find(|place| place.vm == number)
    {
        return Ok(open(place)?);
    }
    let (mut found, silent) = all(dir)?;
    let known: Vec<String> = found.iter().map(|daemon| in_words(&daemon.report)).collect();
    match found.iter().position(|daemon| daemon.report.name.as_deref() == Some(vm)) {
        Some(at) => Ok(found.swap_remove(at)),
        // It may be one of those.
        None if !silent.is_empty() => Err(silent
            .into_iter()
            .next()
            .map_or_else(|| FindError::NoDaemon { dir: dir.into() }, FindError::Ask)),
        None => Err(FindError::UnknownVm { vm: vm.into(), known: known.join(", ") }),
    }
}

fn in_words(report: &VmReport) -> String {
    report.name.as_ref().map_or_else(|| report.vm.to_string(), |name| format!("{} ({name})", report.vm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_of_daemons_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["vm-12.ctl", "vm-3.ctl", "vm-x.ctl", "gpu-1", "vm-3.sock"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found: Vec<u32> = places(folder.path()).unwrap().iter().map(|place| place.vm).collect();
        assert_eq!(found, [3, 12]);
        assert!(matches!(all(folder.path()), Err(FindError::NoDaemon { .. })));
        assert!(matches!(find(folder.path(), "3"), Err(FindError::Ask(AskError::NotThere { .. }))));
        assert!(matches!(find(folder.path(), "4"), Err(FindError::NoDaemon { .. })));
        assert!(places(&folder.path().join("nothing")).unwrap().is_empty());
    }
}
