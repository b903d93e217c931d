//! What guest processes may rely on: right results, order between threads, memory of their own, ends without harm to others.
//!
//! The checks are programs of `tests/programs` and what is to be seen of them from outside ([`checks`]). They run on this host
//! through the daemon's local socket, each with a daemon of its own, and in VMs ([`vms`]), all of them in one boot.

mod checks;
mod file_system;
mod vms;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::Result;
use harness::wheels::Toolkit;
use whole_stack::artifacts::Profile;
use whole_stack::place::Place;
use whole_stack::vm::Stack;

fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| Stack::build(Profile::Dev, Toolkit::Cuda13).unwrap_or_else(|e| panic!("{e:?}")))
}

/// One test at a time: some say how soon something is gone, which a guest beside them would spoil.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn on_this_host(check: fn(&Place) -> Result<()>) {
    let _alone = alone();
    let (daemon, local) = stack().start_local(&[]).unwrap();
    let place = Place::Local(daemon, local);
    check(&place).unwrap_or_else(|e| panic!("{e:?}"));
    let Place::Local(daemon, _) = place else { return };
    let totals = daemon.stop().unwrap();
    assert_eq!(totals.get("sessions_open"), Some(0), "{totals}");
}
