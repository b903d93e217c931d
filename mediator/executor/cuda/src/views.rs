//! Texture and surface objects by their numbers. The numbers are the driver's, which kernels get as parameters; it counts them
//! from the start in each context. A number that a guest makes up reaches what its own session's worker has in the context,
//! or nothing.

use std::collections::HashMap;
use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::types::CUresult;

use crate::objects::View;

/// Objects of a session.
const VIEWS_MAX: usize = 1 << 18;
/// The driver's numbers are indices of descriptors. One as large as this may be an address of this process, and is not given out.
const NUMBER_END: u64 = 1 << 32;

/// What an object is known by: its context, whether it is a surface object, its number.
type Key = (u32, bool, u64);

/// The objects of a session.
#[derive(Default)]
pub(crate) struct Views(HashMap<Key, Arc<View>>);

impl Views {
    /// There is room for another one.
    pub(crate) fn check_room(&self) -> CuResult<()> {
        if self.0.len() < VIEWS_MAX { Ok(()) } else { Err(CUresult::OUT_OF_MEMORY) }
    }

    /// A new object. Where it cannot be given out it comes back, to be dropped without the lock.
    pub(crate) fn add(&mut self, view: Arc<View>) -> Result<u64, Arc<View>> {
        let number = view.raw;
        if number >= NUMBER_END || self.0.len() >= VIEWS_MAX {
            return Err(view);
        }
        self.0.insert((view.context.id, view.surface, number), view);
        Ok(number)
    }

    pub(crate) fn get(&self, context: u32, surface: bool, number: u64) -> CuResult<Arc<View>> {
        self.0.get(&(context, surface, number)).cloned().ok_or(CUresult::INVALID_VALUE)
    }

    pub(crate) fn remove(&mut self, context: u32, surface: bool, number: u64) -> CuResult<Arc<View>> {
        self.0.remove(&(context, surface, number)).ok_or(CUresult::INVALID_VALUE)
    }

    /// Takes out what belongs to a context.
    pub(crate) fn remove_of(&mut self, context: u32) -> Vec<Arc<View>> {
        self.0.extract_if(|(of, ..), _| *of == context).map(|(_, view)| view).collect()
    }
}
