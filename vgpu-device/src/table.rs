//! Which sessions, rings and regions exist. The table decides whether a request names something that is there; what
//! becomes of it is for [`crate::Sessions`] to say, later, and the table hears of it through [`Table::finish`].

use std::collections::HashMap;

use pci_layout::regs;

use crate::ids::{RegionId, RingId, SessionId};
use crate::request::Refusal;
use crate::sessions::RingPart;

/// An operation that was let through and is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Opening a session.
    Open,
    /// Adding a ring's part.
    AddPart(RingId, RingPart),
    /// Removing a ring.
    RemoveRing(RingId),
    /// Mapping a region's first part.
    MapFirst(RegionId),
    /// Mapping a later part.
    MapNext(RegionId),
    /// Unmapping a region.
    UnmapRegion(RegionId),
    /// Closing a session.
    Close,
}

/// Proof that an operation was let through, to be given back to [`Table::finish`].
#[derive(Debug)]
#[must_use = "an operation that is never finished stays under way in the table"]
pub struct Admitted {
    session: SessionId,
    operation: Operation,
    /// The table's epoch then: what belongs to an earlier one changes nothing any more.
    epoch: u64,
}

impl Admitted {
    /// The session it belongs to.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// What it is.
    pub fn operation(&self) -> Operation {
        self.operation
    }
}

/// The session table.
#[derive(Debug, Default)]
pub struct Table {
    sessions: HashMap<SessionId, Session>,
    epoch: u64,
}

#[derive(Debug)]
struct Session {
    state: State,
    rings: HashMap<RingId, Ring>,
    regions: HashMap<RegionId, Region>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    Dead,
    Closing,
}

#[derive(Debug, Default)]
struct Ring {
    staging: bool,
    removing: bool,
}

#[derive(Debug)]
struct Region {
    read_only: bool,
    /// Where the next part has to begin.
    end: u64,
    unmapping: bool,
}

const NO_SESSION: Refusal = Refusal { error: regs::ERROR_INVALID_REQUEST, why: "no such session" };
const NO_RING: Refusal = Refusal { error: regs::ERROR_INVALID_REQUEST, why: "no such ring" };
const NO_REGION: Refusal = Refusal { error: regs::ERROR_INVALID_REQUEST, why: "no such region" };

impl Table {
    /// Lets a session be opened.
    ///
    /// # Errors
    /// The slot is taken, or not below `limit`.
    pub fn open(&mut self, session: SessionId, limit: u32) -> Result<Admitted, Refusal> {
        if session.get() >= limit {
            return Err(Refusal {
                error: regs::ERROR_QUEUE_FULL,
                why: "slot not below the VM's session limit",
            });
        }
        if self.sessions.contains_key(&session) {
            return Err(Refusal::invalid("session slot is taken"));
        }
        let state = State::Opening;
        self.sessions.insert(session, Session { state, rings: HashMap::new(), regions: HashMap::new() });
        Ok(self.admit(session, Operation::Open))
    }

    /// Lets a ring's part be added.
    ///
    /// # Errors
    /// No such session; the part is there; staging before the ring itself.
    pub fn add_part(&mut self, session: SessionId, id: RingId, part: RingPart) -> Result<Admitted, Refusal> {
        let rings = &mut self.usable(session)?.rings;
        match (part, rings.get_mut(&id)) {
            (RingPart::Ring, None) => {
                rings.insert(id, Ring::default());
            }
            (RingPart::Ring, Some(_)) => return Err(Refusal::invalid("ring exists")),
            (RingPart::Staging, Some(Ring { removing: true, .. }) | None) => return Err(NO_RING),
            (RingPart::Staging, Some(Ring { staging: true, .. })) => {
                return Err(Refusal::invalid("ring has a staging buffer"));
            }
            (RingPart::Staging, Some(ring)) => ring.staging = true,
        }
        Ok(self.admit(session, Operation::AddPart(id, part)))
    }

    /// Lets a ring be removed.
    ///
    /// # Errors
    /// No such session or ring.
    pub fn remove_ring(&mut self, session: SessionId, id: RingId) -> Result<Admitted, Refusal> {
        match self.usable(session)?.rings.get_mut(&id) {
            Some(ring) if !ring.removing => ring.removing = true,
            _ => return Err(NO_RING),
        }
        Ok(self.admit(session, Operation::RemoveRing(id)))
    }

    /// Lets a region be mapped, or its next part.
    ///
    /// # Errors
    /// No such session; the part does not continue the region, or not with the same flags.
    pub fn map(
        &mut self,
        session: SessionId,
        id: RegionId,
        read_only: bool,
        va: u64,
        len: u64,
    ) -> Result<Admitted, Refusal> {
        let end =
            va.checked_add(len).ok_or(Refusal::invalid("region passes the end of the address space"))?;
        let regions = &mut self.usable(session)?.regions;
        let operation = match regions.get_mut(&id) {
            None => {
                regions.insert(id, Region { read_only, end, unmapping: false });
                Operation::MapFirst(id)
            }
            Some(region) if region.unmapping => return Err(Refusal::invalid("region is being unmapped")),
            Some(region) if region.end != va || region.read_only != read_only => {
                return Err(Refusal::invalid("part does not continue the region"));
            }
            Some(region) => {
                region.end = end;
                Operation::MapNext(id)
            }
        };
        Ok(self.admit(session, operation))
    }

    /// Lets a region be unmapped.
    ///
    /// # Errors
    /// No such session or region.
    pub fn unmap(&mut self, session: SessionId, id: RegionId) -> Result<Admitted, Refusal> {
        match self.usable(session)?.regions.get_mut(&id) {
            Some(region) if !region.unmapping => region.unmapping = true,
            _ => return Err(NO_REGION),
        }
        Ok(self.admit(session, Operation::UnmapRegion(id)))
    }

    /// Lets a session be closed.
    ///
    /// # Errors
    /// No such session, or it is being closed.
    pub fn close(&mut self, session: SessionId) -> Result<Admitted, Refusal> {
        match self.sessions.get_mut(&session) {
            Some(entry) if entry.state != State::Closing => entry.state = State::Closing,
            _ => return Err(NO_SESSION),
        }
        Ok(self.admit(session, Operation::Close))
    }

    /// Takes note of how an operation ended.
    pub fn finish(&mut self, admitted: &Admitted, succeeded: bool) {
        if admitted.epoch != self.epoch {
            return;
        }
        let id = admitted.session;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match (admitted.operation, succeeded) {
            (Operation::Open, true) if session.state == State::Opening => session.state = State::Open,
            // A close that came while the session was being opened decides about the slot.
            (Operation::Open, false) if session.state != State::Closing => {
                self.sessions.remove(&id);
            }
            (Operation::AddPart(ring, RingPart::Ring), false) => {
                session.rings.remove(&ring);
            }
            (Operation::AddPart(ring, RingPart::Staging), false) => {
                if let Some(ring) = session.rings.get_mut(&ring) {
                    ring.staging = false;
                }
            }
            (Operation::RemoveRing(ring), true) => {
                session.rings.remove(&ring);
            }
            (Operation::RemoveRing(ring), false) => {
                if let Some(ring) = session.rings.get_mut(&ring) {
                    ring.removing = false;
                }
            }
            (Operation::MapFirst(region), false) => {
                session.regions.remove(&region);
            }
            (Operation::UnmapRegion(region), true) => {
                session.regions.remove(&region);
            }
            (Operation::UnmapRegion(region), false) => {
                if let Some(region) = session.regions.get_mut(&region) {
                    region.unmapping = false;
                }
            }
            (Operation::Close, true) => {
                self.sessions.remove(&id);
            }
            // The worker may still map guest pages: the slot stays taken, and the guest may ask again.
            (Operation::Close, false) => session.state = State::Dead,
            (Operation::Open | Operation::AddPart(..) | Operation::MapFirst(_), _) => {}
            // A region that broke off in the middle stays until it is unmapped.
            (Operation::MapNext(_), _) => {}
        }
    }

    /// Takes note of a session's death.
    ///
    /// Gives whether it was alive until now (or being opened): only then the guest has to hear of it.
    pub fn died(&mut self, session: SessionId) -> bool {
        match self.sessions.get_mut(&session) {
            Some(entry) if matches!(entry.state, State::Opening | State::Open) => {
                entry.state = State::Dead;
                true
            }
            _ => false,
        }
    }

    /// Whether the slot is taken and its session neither dead nor being closed.
    pub fn is_live(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|entry| matches!(entry.state, State::Opening | State::Open))
    }

    /// Forgets everything. Operations that are still under way change nothing any more when they end.
    pub fn clear(&mut self) {
        self.sessions.clear();
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Number of slots taken.
    pub fn len(&self) -> u32 {
        u32::try_from(self.sessions.len()).unwrap_or(u32::MAX)
    }

    /// Whether no slot is taken.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    fn usable(&mut self, session: SessionId) -> Result<&mut Session, Refusal> {
        match self.sessions.get_mut(&session) {
            Some(entry) if matches!(entry.state, State::Open | State::Dead) => Ok(entry),
            _ => Err(NO_SESSION),
        }
    }

    fn admit(&self, session: SessionId, operation: Operation) -> Admitted {
        Admitted { session, operation, epoch: self.epoch }
    }
}
