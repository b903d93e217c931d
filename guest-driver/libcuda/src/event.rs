//! What events do differently from their generic rows.

use cuda_api::CUresult;
use cuda_api::calls::event::row;
use cuda_api::guest::finish;
use cuda_api::types::CUevent;

use crate::gate;
use crate::process::initialised;

/// cuEventElapsedTime. Driver 580 answers CUDA_ERROR_INVALID_HANDLE where there is no room for the time.
pub unsafe fn cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        if milliseconds.is_null() {
            return Err(CUresult::INVALID_HANDLE);
        }
        process.objects.check(start)?;
        process.objects.check(end)?;
        let found = gate::call::<row::cuEventElapsedTime>((start, end))?;
        // SAFETY: not NULL; room for a float by CUDA's contract.
        unsafe { milliseconds.write(found) };
        Ok(())
    })())
}
