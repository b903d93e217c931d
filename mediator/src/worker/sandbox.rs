//! What a worker cannot do, although it runs as the daemon's user.
//!
//! | kept from it | by |
//! |---|---|
//! | new privileges through exec | `PR_SET_NO_NEW_PRIVS` |
//! | core dumps, being traced by others of its user | `PR_SET_DUMPABLE` 0 (but while it is checkpointed, see [`expose`]), `RLIMIT_CORE` 0 (set by the supervisor) |
//! | exec; making, writing, renaming and removing files, except device nodes, files in /dev/shm, its own /proc entries and the driver's compute cache | Landlock |
//! | TCP; signals to processes outside | Landlock, where the kernel has it (ABI 4; 6) |
//!
//! Missing: a system call filter, which needs the list of what the driver calls (the place for it is the end of
//! [`confine`]); a user id of the VM's own, which needs one to be set up on the host; reading is not restricted, since
//! where a host keeps its driver's libraries is not known here; limits on memory outside the GPU.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::fs::{Mode, OFlags};
use rustix::process::DumpableBehavior;

/// The newest Landlock whose rules are meant here; older kernels enforce what they know of it.
const LANDLOCK: ABI = ABI::V6;

/// For workers and probes alike.
pub(super) fn drop_privileges() -> std::io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Lets other processes of this user look into this one, or not. The driver comes to a process that it checkpoints through files in
/// /proc that are only root's otherwise.
pub(super) fn expose(exposed: bool) -> std::io::Result<()> {
    let behaviour = if exposed { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    Ok(rustix::process::set_dumpable_behavior(behaviour)?)
}

/// What is executed from now on has no more than this process.
pub(super) fn no_new_privileges() -> Result<(), String> {
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("no_new_privs: {error}"))
}

/// For workers only, before anything of the guest's is seen. A probe stays free to start the driver's own loader.
pub(super) fn confine() -> Result<(), String> {
    // Landlock's crate does it too, but not on a kernel without Landlock.
    no_new_privileges()?;
    let status = restrict().map_err(|error| format!("Landlock: {error}"))?;
    match status {
        RulesetStatus::NotEnforced => {
            log::warn!("this kernel has no Landlock: workers can write the daemon's files")
        }
        other => log::debug!("Landlock: {other:?}"),
    }
    Ok(())
}

fn restrict() -> Result<RulesetStatus, landlock::RulesetError> {
    let write = AccessFs::from_write(LANDLOCK);
    // Without IoctlDev: it would deny ioctls on the device nodes that the driver opens.
    let handled = (write | AccessFs::Execute) & !AccessFs::IoctlDev;
    let mut rules = Ruleset::default()
        .handle_access(handled)?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::Signal)?
        .create()?;
    let files: BitFlags<AccessFs> = AccessFs::WriteFile.into();
    // The driver names its threads through /proc, by opening with O_TRUNC, and fails cuInit (304) if it may not.
    let own_access = AccessFs::WriteFile | AccessFs::Truncate;
    if let Ok(own) = rustix::fs::open("/proc/self", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        rules = rules.add_rule(PathBeneath::new(OWN_PROC.get_or_init(|| own).as_fd(), own_access))?;
    }
    // Events between processes: the driver makes files in shared memory for them.
    let shared = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
    let allowed = [(PathBuf::from("/dev"), files), (PathBuf::from("/dev/shm"), shared)]
        .into_iter()
        .chain(cache().map(|path| (path, handled & write)));
    for (path, access) in allowed {
        match PathFd::new(&path) {
            Ok(parent) => rules = rules.add_rule(PathBeneath::new(parent, access))?,
            Err(error) => log::debug!("{}: {error}", path.display()),
        }
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// The worker's own directory in /proc, for as long as the process lives. Held open because Landlock's rules are about
/// inodes, and the kernel makes a new one for a /proc directory that nobody holds.
static OWN_PROC: OnceLock<OwnedFd> = OnceLock::new();

/// Where the driver keeps what it compiled. Workers that share it trust each other's entries: the daemons of VMs that
/// must not should have a CUDA_CACHE_PATH each. It makes the directory itself only where it may, so it has to exist.
fn cache() -> Option<PathBuf> {
    let named = std::env::var_os("CUDA_CACHE_PATH").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".nv")))
}
