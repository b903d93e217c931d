//! The worker's part of a suspend: to come to rest in the middle of whatever its guest does, and to go on.
//!
//! The guest is not stopped meanwhile, other than in a pause: it may have asked for something that can only end with its help.
//! What the device waits for then (a host function that the guest is running, a capture that it has begun) is let come to its end: the
//! gate opens again for a moment, as often as the limit allows.

use std::time::{Duration, Instant};

use pci_layout::regs;

use super::gate::Reason;
use super::ring::State;
use super::rings::Rings;
use crate::CallHandler;
use crate::channel::AtRest;

/// Why a session does not come to rest.
pub(super) const CALL: &str = "a call does not return";
/// The same.
pub(super) const DEVICE: &str = "the device does not become idle";
const GUEST: &str = "the device waits for a host function, or something is being captured";

/// How long the gate opens for what only the guest can bring to its end.
const OPENING: Duration = Duration::from_millis(5);
/// How long the device is waited for at a time before it is asked whether it waits for the guest.
const SLICE: Duration = Duration::from_millis(500);

/// Closes the gate and waits until nothing goes on behind it. What is told then; after an error it goes on.
pub(super) fn rest<H: CallHandler>(
    state: &State<H>,
    rings: &Rings,
    limit: Duration,
) -> Result<AtRest, (u32, String)> {
    let at_rest = state.gate.is_closed();
    let refused = |why: &str| (regs::ERROR_UNSUPPORTED, why.to_owned());
    if at_rest {
        // Paused, and therefore idle.
        state.gate.close(Reason::Suspended);
    } else if let Err(why) = come_to_rest(state, rings, limit) {
        go_on(state, Reason::Suspended);
        return Err((regs::ERROR_TIMEOUT, why.to_owned()));
    }
    // At rest, so that it stays as it is.
    if let Some(why) = state.handler.suspend_obstacle() {
        go_on(state, Reason::Suspended);
        return Err(refused(why));
    }
    state.turns.rest(true);
    let mut bytes = 0u64;
    state.handler.device_bytes(&mut |_, more| bytes = bytes.saturating_add(more));
    Ok(AtRest { device_bytes: bytes, sticky: state.handler.sticky(), reserved: 0 })
}

fn come_to_rest<H: CallHandler>(
    state: &State<H>,
    rings: &Rings,
    limit: Duration,
) -> Result<(), &'static str> {
    let start = Instant::now();
    let deadline = start.checked_add(limit).unwrap_or(start);
    let left = || limit.saturating_sub(start.elapsed());
    loop {
        state.gate.close(Reason::Suspended);
        // After the gate: a call that waits for the guest comes back, and its ring's thread stays outside.
        state.handler.pause(true);
        if !rings.wait_idle(deadline) {
            return Err(CALL);
        }
        // While it waits for nobody, it is only busy.
        while !state.handler.awaits_guest() {
            if state.handler.quiesce(left().min(SLICE)) {
                return Ok(());
            }
            if left().is_zero() {
                return Err(DEVICE);
            }
        }
        if left().is_zero() {
            return Err(GUEST);
        }
        go_on(state, Reason::Suspended);
        std::thread::sleep(OPENING);
    }
}

/// Takes a reason away. If it was the last one, calls are carried out again.
pub(super) fn go_on<H: CallHandler>(state: &State<H>, reason: Reason) {
    let other = if reason == Reason::Paused { Reason::Suspended } else { Reason::Paused };
    if !state.gate.is_closed_for(other) {
        state.handler.pause(false);
        state.turns.rest(false);
    }
    state.gate.open(reason);
}
