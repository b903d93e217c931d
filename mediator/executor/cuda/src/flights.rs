//! Transfers between staging and the device that were issued and not waited for: the next is issued while one is on its way.

use std::collections::VecDeque;
use std::sync::Arc;

use cuda_api::CuResult;

use crate::context::Context;
use crate::driver::{Driver, Raw};
use crate::objects::Event;

/// Transfers that are not waited for, at most. One is on its way and one is ready: more would only let the guest wait longer for its
/// part of staging.
const FLIGHTS_MAX: usize = 2;
/// CU_EVENT_DISABLE_TIMING.
const EVENT_WITHOUT_TIMING: u32 = 2;

/// A ring's transfers, in their order.
#[derive(Default)]
pub(crate) struct Flights {
    flying: VecDeque<Event>,
    /// Events for the next ones.
    spare: Vec<Event>,
    begun: u64,
    over: u64,
}

impl Flights {
    /// A transfer was issued in a stream, with `context` current. When this returns it may be under way, and few others.
    pub(crate) fn begin(&mut self, driver: &Driver, context: &Arc<Context>, stream: Raw) -> CuResult<()> {
        let Ok(event) = self.recorded(driver, context, stream) else {
            // A stream of another context, or a driver without resources: this one is waited for at once.
            return driver.cuStreamSynchronize(stream);
        };
        self.flying.push_back(event);
        self.begun = self.begun.saturating_add(1);
        let mut outcome = Ok(());
        while self.flying.len() > FLIGHTS_MAX {
            outcome = outcome.and(self.land(driver));
        }
        outcome
    }

    fn recorded(&mut self, driver: &Driver, context: &Arc<Context>, stream: Raw) -> CuResult<Event> {
        self.spare.retain(|event| Arc::ptr_eq(&event.context, context) && context.alive());
        let event = match self.spare.pop() {
            Some(event) => event,
            None => {
                let (raw,) = driver.cuEventCreate(EVENT_WITHOUT_TIMING)?;
                Event { raw, context: context.clone() }
            }
        };
        driver.cuEventRecord(event.raw, stream)?;
        Ok(event)
    }

    /// Some are under way, as far as anybody has looked.
    pub(crate) fn any(&self) -> bool {
        !self.flying.is_empty()
    }

    /// Waits for the earliest. Whatever it has come to, it is over: a context that is gone and a device that is lost transfer nothing any
    /// more.
    pub(crate) fn land(&mut self, driver: &Driver) -> CuResult<()> {
        let Some(event) = self.flying.pop_front() else { return Ok(()) };
        let outcome = driver.cuEventSynchronize(event.raw);
        self.over = self.over.saturating_add(1);
        self.spare.push(event);
        outcome
    }

    /// How many have begun, and how many of them are over.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.begun, self.over)
    }
}
