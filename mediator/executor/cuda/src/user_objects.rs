//! User objects: what a guest's destructor is called for, and who holds references to it.
//!
//! The driver destroys an object with its last reference, and its handle with it, and does not check a handle that it is
//! given. So the references that the guest has are counted here, its own and those of graphs that it names, and a call that
//! goes beyond them is refused. References that copies and executable graphs hold are the driver's business.

use std::sync::{Arc, Mutex, Weak};

use cuda_api::CuResult;
use cuda_api::types::CUresult;

use crate::driver::{Driver, Raw};
use crate::graphs::Graph;
use crate::lock::lock;

/// CU_GRAPH_USER_OBJECT_MOVE.
const MOVE: u32 = 1;

#[derive(Default)]
struct Counts {
    own: u64,
    graphs: Vec<(Weak<Graph>, u64)>,
}

/// An object of the guest's. The lock is held over the driver's call, so that the last reference does not go meanwhile.
pub(crate) struct UserObject {
    driver: &'static Driver,
    raw: Raw,
    counts: Mutex<Counts>,
}

impl UserObject {
    pub(crate) fn new(driver: &'static Driver, raw: Raw, count: u32) -> Self {
        let counts = Counts { own: u64::from(count), ..Counts::default() };
        UserObject { driver, raw, counts: Mutex::new(counts) }
    }

    /// Somebody known here has a reference.
    fn is_held(counts: &mut Counts) -> bool {
        counts.graphs.retain(|(graph, held)| *held != 0 && graph.strong_count() != 0);
        counts.own != 0 || !counts.graphs.is_empty()
    }

    fn held(&self) -> CuResult<std::sync::MutexGuard<'_, Counts>> {
        let mut counts = lock(&self.counts);
        if Self::is_held(&mut counts) { Ok(counts) } else { Err(CUresult::INVALID_VALUE) }
    }

    pub(crate) fn retain(&self, count: u32) -> CuResult<()> {
        let mut counts = self.held()?;
        self.driver.cuUserObjectRetain(self.raw, count)?;
        counts.own = counts.own.saturating_add(u64::from(count));
        Ok(())
    }

    pub(crate) fn release(&self, count: u32) -> CuResult<()> {
        let mut counts = self.held()?;
        let own = counts.own.checked_sub(u64::from(count)).ok_or(CUresult::INVALID_VALUE)?;
        self.driver.cuUserObjectRelease(self.raw, count)?;
        counts.own = own;
        Ok(())
    }

    pub(crate) fn retain_in(&self, graph: &Arc<Graph>, count: u32, flags: u32) -> CuResult<()> {
        let mut counts = self.held()?;
        let moved = if flags & MOVE != 0 { u64::from(count) } else { 0 };
        let own = counts.own.checked_sub(moved).ok_or(CUresult::INVALID_VALUE)?;
        self.driver.cuGraphRetainUserObject(graph.raw, self.raw, count, flags)?;
        counts.own = own;
        let count = u64::from(count);
        match counts.graphs.iter_mut().find(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(graph))) {
            Some((_, held)) => *held = held.saturating_add(count),
            None => counts.graphs.push((Arc::downgrade(graph), count)),
        }
        Ok(())
    }

    pub(crate) fn release_in(&self, graph: &Arc<Graph>, count: u32) -> CuResult<()> {
        let mut counts = self.held()?;
        let held = counts
            .graphs
            .iter_mut()
            .find(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(graph)))
            .map(|(_, held)| held)
            .ok_or(CUresult::INVALID_VALUE)?;
        let left = held.checked_sub(u64::from(count)).ok_or(CUresult::INVALID_VALUE)?;
        self.driver.cuGraphReleaseUserObject(graph.raw, self.raw, count)?;
        *held = left;
        Ok(())
    }

    /// Nobody known here has a reference: the handle is not to be used any more.
    pub(crate) fn is_over(&self) -> bool {
        !Self::is_held(&mut lock(&self.counts))
    }
}
