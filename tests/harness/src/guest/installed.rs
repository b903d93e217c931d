//! Boots a guest from the disk of a whole system.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Guest;
use super::agent::Agent;
use crate::qemu::{Machine, Qemu, Want};
use crate::system::Disk;

/// How long a system may take from the start of QEMU to its agent's first word.
const LIMIT: Duration = Duration::from_secs(600);

impl Guest {
    /// Boots the system of a disk; what it writes there is gone with QEMU. The agent starts when the system is up.
    ///
    /// # Errors
    /// When QEMU refuses, or the guest does not come up in ten minutes.
    pub fn installed(disk: &Disk, want: &Want, change: impl FnOnce(&mut Machine)) -> Result<Self> {
        let qemu = Qemu::find(want)?;
        let mut machine = Machine::new(&disk.kernel, &disk.initrd);
        machine.append = "root=/dev/vda rw".to_owned();
        let image = disk.image.display();
        machine.extra = vec!["-drive".to_owned(), format!("file={image},format=raw,if=virtio,snapshot=on")];
        change(&mut machine);
        let begin = Instant::now();
        let mut process = machine.start(&qemu)?;
        let port = process.await_socket("agent")?;
        let (agent, first) = Agent::connect(&port).map_err(|error| process.explain(error))?;
        let kernel = agent.hello(&first, begin + LIMIT);
        let kernel = kernel.map_err(|error| process.explain(error.context("the system did not come up")))?;
        agent.forget(first.id);
        let (booted_in, version) = (begin.elapsed(), qemu.version());
        let console = process.dir().join("console");
        Ok(Self { agent, process: Mutex::new(process), console, kernel, version, booted_in, limit: LIMIT })
    }
}
