//! A session's part of its VM's suspend, on the session's thread.
//!
//! While the VM is suspended, what needs the driver waits here: a worker that is locked would not answer. That is the opening of sessions
//! and the removal of rings and regions (a region may be registered with the device, a ring's thread may be held up in front of a call).
//! Memory can be mapped, so that a guest's threads get as far as their next call. The session can be closed or die at any time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pci_layout::regs;
use zerocopy::FromBytes;

use super::{Next, Op, Session};
use crate::channel::{Answer, AtRest, OrderHeader, kind};
use crate::suspend::Held;

impl Session {
    /// The operation, unless it is one that waits until the VM goes on.
    pub(super) fn put_off(&mut self, op: Op) -> Option<Op> {
        if self.held.is_none() && matches!(op, Op::Open { .. }) && self.shared.suspension.holds_sessions() {
            log::info!("{} waits: the VM is suspended", self.name());
            self.held = Some(VecDeque::new());
        }
        match (&mut self.held, op) {
            (Some(waiting), op @ (Op::Open { .. } | Op::Unmap { .. })) => {
                waiting.push_back(op);
                None
            }
            // Of a session that is not open yet.
            (Some(waiting), op @ Op::Map { .. })
                if !waiting.is_empty() && self.control.worker.get().is_none() =>
            {
                waiting.push_back(op);
                None
            }
            (_, op) => Some(op),
        }
    }

    /// Brings the worker to rest. None: the session has none, or it is gone.
    ///
    /// # Errors
    /// Why it does not come to rest. It goes on then, but what has to wait waits for [`Session::go_on`] all the same.
    pub(super) fn suspend(&mut self) -> Result<Option<Held>, String> {
        self.held.get_or_insert_default();
        let Some(worker) = self.control.worker.get().cloned().filter(|_| !self.dead) else { return Ok(None) };
        let limits = &self.shared.config.limits;
        let header = OrderHeader {
            len: u64::try_from(limits.stop.as_micros()).unwrap_or(u64::MAX),
            ..OrderHeader::new(kind::SUSPEND)
        };
        let limit = self.shared.suspension.rest_limit(limits);
        match self.wait_for(&worker, header, &[], &[], limit) {
            Ok(Answer { error: regs::ERROR_NONE, tail, .. }) => {
                let (told, _) = AtRest::read_from_prefix(&tail).map_err(|_| "a short answer".to_owned())?;
                let guest_pid = self.control.opened.get().map_or(0, |(_, pid)| *pid);
                let worker = Arc::clone(&worker);
                Ok(Some(Held { session: self.id, guest_pid, worker, told, host_bytes: 0 }))
            }
            Ok(answer) => Err(String::from_utf8_lossy(&answer.tail).escape_debug().to_string()),
            // A worker that has ended is no obstacle, and one that does not answer will never be of use again.
            Err(error) => {
                self.lost(&error);
                Ok(None)
            }
        }
    }

    /// Has the worker let itself be looked into by others of its user, or not.
    pub(super) fn expose(&mut self, exposed: bool) {
        let header = OrderHeader { flags: u32::from(exposed), ..OrderHeader::new(kind::EXPOSE) };
        self.tell(header, "show itself");
    }

    /// The VM goes on: so does the worker, and what has waited is carried out.
    pub(super) fn go_on(&mut self) -> Next {
        self.tell(OrderHeader::new(kind::GO_ON), "go on");
        for op in self.held.take().unwrap_or_default() {
            if matches!(self.carry_out(op), Next::End) {
                return Next::End;
            }
        }
        Next::Go
    }

    fn tell(&mut self, header: OrderHeader, what: &str) {
        let limit: Duration = self.shared.config.limits.map;
        let is_there = !self.dead && self.control.worker.get().is_some();
        if is_there && self.ask(header, &[], &[], limit).is_err() {
            log::error!("{} did not {what}", self.name());
        }
    }
}
