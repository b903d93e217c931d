//! The control queue, as the guest's kernel may misuse it: against the real daemon, over its vhost-user socket.

mod chains;
mod machine;
mod requests;
mod virtqueue;

use std::path::Path;

use anyhow::{Result, ensure};
use pci_layout::control::{READ_REGS, SESSIONS_MAX};
use pci_layout::regs;

use crate::local::Until;
use crate::{Random, Tally};

pub use machine::Machine;

/// A family of cases.
pub type Family = fn(&Path, &mut Random, Until) -> Result<Tally>;

/// Every family, with its name and its share of the time.
pub const FAMILIES: &[(&str, u32, Family)] = &[
    ("descriptor chains", 3, chains::chains),
    ("chains that loop", 1, chains::loops),
    ("rings that change under the daemon's eyes", 2, chains::moving),
    ("event buffers", 1, chains::events),
    ("requests", 3, requests::requests),
    ("sessions over strange memory", 2, requests::sessions),
    ("config space", 1, requests::config),
];

/// A proper driver after all that: says HELLO, reads the registers, opens a session and closes it.
///
/// # Errors
/// When any of that is not as it should be.
pub fn proper_boot(path: &Path, nonce: u64) -> Result<()> {
    let mut machine = Machine::start(path)?;
    let hello = machine.hello(nonce)?;
    ensure!(hello.error == regs::ERROR_NONE && hello.body.len() == 16, "HELLO: {hello:?}");
    let block = machine.ask(READ_REGS, 0, &[])?;
    ensure!(block.body.len() == regs::BLOCK_BYTES as usize, "READ_REGS: {block:?}");
    for session in [0, SESSIONS_MAX - 1] {
        let opened = machine.open(session)?;
        ensure!(opened.error == regs::ERROR_NONE, "OPEN_SESSION: {opened:?}");
    }
    for session in [0, SESSIONS_MAX - 1] {
        let closed = machine.close(session)?;
        ensure!(closed.error == regs::ERROR_NONE, "CLOSE_SESSION: {closed:?}");
    }
    Ok(())
}
