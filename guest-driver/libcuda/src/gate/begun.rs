//! A call in two halves, for what can be done between its sending and its reply.

use cuda_api::calls::entry::row::vgpuTakeOutput;
use cuda_api::wire::Wire as _;
use cuda_api::{CUresult, Call, CuResult};
use pci_layout::ring::FRAME_BULK;

use super::{Arguments, Lane, call_failure, tells_of_work};
use crate::managed::{variables, watch};
use crate::output;
use crate::waiting::Sent;

/// A call that was sent and has to be answered before the thread sends anything else.
#[must_use = "its reply has to be waited for"]
#[derive(Debug)]
pub struct Begun {
    ticket: u64,
    /// The worker was told of no context, since the thread's is none any more.
    stale: bool,
    managed: bool,
    may_block: bool,
}

impl Lane<'_> {
    /// Sends a bulk call whose answer has no data, as [`Lane::call`] does.
    ///
    /// # Errors
    /// The transport's failure.
    pub fn begin<C: Call>(&mut self, fields: &C::In<'_>) -> CuResult<Begun> {
        let managed = variables::exist();
        if managed {
            watch::called();
            variables::push();
        }
        let (process, number) = (self.process, self.number);
        let stale = number == 0 && self.context != 0;
        self.state.unsettled.sending();
        let ticket = process.session.next_ticket();
        self.state.sent = Sent { ticket, quiet: self.state.unsettled.others_are_quiet() };
        self.sends(None);
        self.ring()?
            .begin(C::ID, FRAME_BULK, number, ticket, |w| fields.put(&mut Arguments(w)))
            .map_err(|e| call_failure(&e))?;
        Ok(Begun {
            ticket,
            stale,
            managed: managed && (C::MAY_BLOCK || tells_of_work(C::ID)),
            may_block: C::MAY_BLOCK,
        })
    }

    /// Waits for the answer of a call that was begun.
    ///
    /// # Errors
    /// The call's CUresult, or the transport's failure.
    pub fn end(&mut self, begun: Begun) -> CuResult<()> {
        let outcome = self
            .ring()?
            .finish(begun.ticket, |result, _| match CUresult(result) {
                CUresult::SUCCESS => Ok(()),
                CUresult::INVALID_CONTEXT if begun.stale => Err(CUresult::CONTEXT_IS_DESTROYED),
                error => Err(error),
            })
            .map_err(|e| call_failure(&e))?;
        self.state.unsettled.waited();
        if begun.managed && outcome.is_ok() {
            variables::pull();
        }
        let sent = self.state.sent;
        let printed = self.process.session.printed_bytes();
        if begun.may_block && output::is_behind(printed) {
            output::bring(printed, || self.call_alone::<vgpuTakeOutput>(&(), false));
            self.state.sent = sent;
        }
        outcome
    }
}
