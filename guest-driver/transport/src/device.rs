//! Finding the device, and asking it before any session is open.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pci_layout::control::INFO_LIVE;
use pci_layout::{ABI_VERSION, regs};

use crate::bar::{self, BarLink};
use crate::error::{ControlError, OpenError};
use crate::fork::{is_forked_child, remember_process};
use crate::function::{self, PciFunction};
use crate::local::LocalLink;
use crate::session::{OpenParams, Session};
use crate::vm::{self, VmLink};

/// Bytes of device information asked for at once.
const INFO_SLICE: u32 = 64 * 1024;
/// Longest device information taken. Stops a host that has gone mad from filling the process.
const INFO_MAX: usize = 16 << 20;

/// How the host is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/dev/vgpu`, in a VM.
    Vm,
    /// The daemon's local socket, without a VM.
    Local,
    /// The BARs of a plain PCI function, in a VM without the kernel module. Slower, and processes are not kept from each other's memory.
    Bar,
}

#[derive(Debug)]
pub(crate) enum Link {
    Vm(VmLink),
    Local(LocalLink),
    Bar(BarLink),
}

/// The device, open but without a session.
#[derive(Debug)]
pub struct Device {
    link: Link,
}

/// What the environment asks for.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Vm,
    Local(OsString),
    Bar(PathBuf),
}

fn choose(
    transport: Option<OsString>,
    socket: Option<OsString>,
    device_exists: impl FnOnce() -> bool,
    function: impl FnOnce(bool) -> Option<PathBuf>,
) -> Result<Choice, OpenError> {
    let socket = socket.filter(|path| !path.is_empty());
    match transport.as_deref().map(|name| name.to_string_lossy()).as_deref() {
        Some("vm") => Ok(Choice::Vm),
        Some("local") => socket.map(Choice::Local).ok_or(OpenError::NoSocket),
        Some("") | None => match socket {
            _ if device_exists() => Ok(Choice::Vm),
            Some(path) => Ok(Choice::Local(path)),
            None => function(true).map(Choice::Bar).ok_or(OpenError::NoDevice),
        },
        Some("bar") => function(false).map(Choice::Bar).ok_or(OpenError::NoDevice),
        Some(other) => Err(OpenError::BadSetting { value: other.to_owned() }),
    }
}

/// True where the environment comes from somebody with fewer rights than the process: set-user-id programs.
#[must_use]
pub fn environment_is_foreign() -> bool {
    // SAFETY: reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Reads the device and VM information over a connection of its own, which ends with the reading. Unlike a [`Device`] this
/// belongs to no process: a forked child may ask as well, since nothing of its parent's is touched.
///
/// # Errors
///
/// As for [`Device::open`] and [`Device::info`].
pub fn read_information() -> Result<Vec<u8>, OpenError> {
    Ok(Link::connect(Choice::of_environment()?)?.read_whole(0)?)
}

/// Reads what changes while the VM runs (INFO_LIVE), as [`read_information`] does. It may come in parts that do not belong together:
/// its reader finds out, and asks again.
///
/// # Errors
///
/// As for [`read_information`].
pub fn read_live_information() -> Result<Vec<u8>, OpenError> {
    Ok(Link::connect(Choice::of_environment()?)?.read_whole(INFO_LIVE)?)
}

/// Where the device is a PCI function of its own in this guest; `None` where something else carries it, or the host is reached by a socket.
#[must_use]
pub fn pci_function() -> Option<PciFunction> {
    match Choice::of_environment() {
        Ok(Choice::Vm) => function::find(Path::new("/")),
        Ok(Choice::Bar(folder)) => function::at(&folder),
        _ => None,
    }
}

impl Choice {
    fn of_environment() -> Result<Self, OpenError> {
        let variable = |name| if environment_is_foreign() { None } else { env::var_os(name) };
        // Without being told to, only a function that may be mapped is taken.
        let function = |usable| {
            let root = Path::new("/");
            if usable { bar::usable(root) } else { function::folder(root) }
        };
        let device_exists = || Path::new(vm::PATH).exists();
        choose(variable("VGPU_TRANSPORT"), variable("VGPU_SOCKET"), device_exists, function)
    }
}

impl Device {
    /// Opens the device that the environment names: VGPU_TRANSPORT, `/dev/vgpu`, VGPU_SOCKET, a plain PCI function
    /// that this process may map, in this order. In
    /// set-user-id programs the environment does not count.
    ///
    /// # Errors
    ///
    /// No device, no permission, or no daemon behind it.
    pub fn open() -> Result<Self, OpenError> {
        let choice = Choice::of_environment()?;
        remember_process()?;
        Ok(Self { link: Link::connect(choice)? })
    }

    /// Opens `/dev/vgpu`.
    ///
    /// # Errors
    ///
    /// As for [`Device::open`].
    pub fn open_vm() -> Result<Self, OpenError> {
        remember_process()?;
        Ok(Self { link: Link::Vm(VmLink::connect()?) })
    }

    /// Connects to the daemon's local socket at `path`.
    ///
    /// # Errors
    ///
    /// As for [`Device::open`].
    pub fn open_local(path: &Path) -> Result<Self, OpenError> {
        remember_process()?;
        Ok(Self { link: Link::Local(LocalLink::connect(path.as_os_str())?) })
    }

    /// How the host is reached.
    pub fn kind(&self) -> Kind {
        self.link.kind()
    }

    /// The device and VM information: a blob that only libcuda's own modules read.
    ///
    /// # Errors
    ///
    /// The daemon does not answer, or refuses.
    pub fn info(&self) -> Result<Vec<u8>, OpenError> {
        Ok(self.link.info()?)
    }

    /// The register block.
    ///
    /// # Errors
    ///
    /// The daemon does not answer, or refuses.
    pub fn regs(&self) -> Result<[u8; regs::BLOCK_BYTES as usize], OpenError> {
        Ok(self.link.regs()?)
    }

    /// Opens the process's session: returns when its worker runs.
    ///
    /// # Errors
    ///
    /// All of [`OpenError`].
    pub fn open_session(self, params: &OpenParams<'_>) -> Result<Session, OpenError> {
        let block = self.link.regs()?;
        let theirs = register(&block, regs::PROTOCOL_VER);
        if theirs != ABI_VERSION {
            return Err(OpenError::AbiMismatch { ours: ABI_VERSION, theirs });
        }
        let fingerprint = regs::TABLE_FINGERPRINT as usize;
        if block.get(fingerprint..fingerprint + params.fingerprint.len()) != Some(&params.fingerprint) {
            return Err(OpenError::FingerprintMismatch);
        }
        let opened = match &self.link {
            Link::Vm(link) => link.open(params)?,
            Link::Local(link) => link.open(params, register(&block, regs::CAPABILITIES))?,
            Link::Bar(link) => link.open(params, register(&block, regs::CAPABILITIES))?,
        };
        Ok(Session::new(self.link, opened))
    }
}

impl Link {
    fn connect(choice: Choice) -> Result<Self, OpenError> {
        match choice {
            Choice::Vm => VmLink::connect().map(Self::Vm),
            Choice::Local(path) => LocalLink::connect(&path).map(Self::Local),
            Choice::Bar(folder) => BarLink::connect(&folder).map(Self::Bar),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Vm(_) => Kind::Vm,
            Self::Local(_) => Kind::Local,
            Self::Bar(_) => Kind::Bar,
        }
    }

    pub(crate) fn regs(&self) -> Result<[u8; regs::BLOCK_BYTES as usize], ControlError> {
        if is_forked_child() {
            return Err(ControlError::ForkedChild);
        }
        match self {
            Self::Vm(link) => link.read_regs(),
            Self::Local(link) => link.read_regs(),
            Self::Bar(link) => link.read_regs(),
        }
    }

    pub(crate) fn info(&self) -> Result<Vec<u8>, ControlError> {
        if is_forked_child() {
            return Err(ControlError::ForkedChild);
        }
        self.read_whole(0)
    }

    /// Everything from `first` on.
    fn read_whole(&self, first: u32) -> Result<Vec<u8>, ControlError> {
        let mut info = Vec::new();
        loop {
            let offset = u32::try_from(info.len())
                .ok()
                .and_then(|read| first.checked_add(read))
                .ok_or(ControlError::Protocol("endless information"))?;
            let slice = match self {
                Self::Vm(link) => link.read_info(offset, INFO_SLICE)?,
                Self::Local(link) => link.read_info(offset, INFO_SLICE)?,
                Self::Bar(link) => link.read_info(offset, INFO_SLICE)?,
            };
            info.extend_from_slice(&slice);
            if slice.len() < INFO_SLICE as usize {
                return Ok(info);
            }
            if info.len() > INFO_MAX {
                return Err(ControlError::Protocol("endless information"));
            }
        }
    }
}

/// A 32-bit register of a block.
pub(crate) fn register(block: &[u8], offset: u32) -> u32 {
    block
        .get(offset as usize..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(transport: Option<&str>, socket: Option<&str>, device: bool) -> Result<Choice, OpenError> {
        choose(transport.map(Into::into), socket.map(Into::into), || device, |_| None)
    }

    #[test]
    fn a_function_comes_last_unless_it_is_asked_for() {
        let at = |transport: Option<&str>, socket: Option<&str>, device, may_map| {
            let folder = |usable: bool| (may_map || !usable).then(|| PathBuf::from("/f"));
            choose(transport.map(Into::into), socket.map(Into::into), || device, folder)
        };
        assert_eq!(at(None, None, false, true), Ok(Choice::Bar("/f".into())));
        assert_eq!(at(None, None, true, true), Ok(Choice::Vm));
        assert_eq!(at(None, Some("/s"), false, true), Ok(Choice::Local("/s".into())));
        assert_eq!(at(None, None, false, false), Err(OpenError::NoDevice));
        assert_eq!(at(Some("bar"), Some("/s"), true, false), Ok(Choice::Bar("/f".into())));
    }

    #[test]
    fn the_device_comes_before_the_socket_unless_told_otherwise() {
        assert_eq!(chosen(None, Some("/s"), true), Ok(Choice::Vm));
        assert_eq!(chosen(None, Some("/s"), false), Ok(Choice::Local("/s".into())));
        assert_eq!(chosen(Some("local"), Some("/s"), true), Ok(Choice::Local("/s".into())));
        assert_eq!(chosen(Some("vm"), Some("/s"), false), Ok(Choice::Vm));
    }

    #[test]
    fn what_leads_nowhere_says_so() {
        assert_eq!(chosen(None, None, false), Err(OpenError::NoDevice));
        assert_eq!(chosen(None, Some(""), false), Err(OpenError::NoDevice));
        assert_eq!(chosen(Some("local"), None, true), Err(OpenError::NoSocket));
        assert_eq!(chosen(Some("tcp"), None, true), Err(OpenError::BadSetting { value: "tcp".into() }));
    }
}
