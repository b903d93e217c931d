//! What events do differently from their generic rows.

use cuda_api::calls::event::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::CUevent;
use cuda_api::{CUresult, Call, CuResult};

use crate::gate;
use crate::process::initialised;

/// # Safety
/// `milliseconds` is not NULL and has room for a float.
unsafe fn elapsed<C>(milliseconds: *mut f32, start: CUevent, end: CUevent) -> CuResult<()>
where
    C: for<'a> Call<In<'a> = (CUevent, CUevent), Out = f32>,
{
    let process = initialised()?;
    process.objects.check(start)?;
    process.objects.check(end)?;
    let found = gate::with_ring(|_, lane| lane.elapsed::<C>(start, end))?;
    // SAFETY: this function's contract.
    unsafe { milliseconds.write(found) };
    Ok(())
}

/// cuEventElapsedTime. Driver 580 answers CUDA_ERROR_INVALID_HANDLE where there is no room for the time.
pub unsafe fn cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent) -> CUresult {
    finish((|| {
        initialised()?.alive()?;
        if milliseconds.is_null() {
            return Err(CUresult::INVALID_HANDLE);
        }
        // SAFETY: not NULL; room for a float by CUDA's contract.
        unsafe { elapsed::<row::cuEventElapsedTime>(milliseconds, start, end) }
    })())
}

/// cuEventElapsedTime_v2.
pub unsafe fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: CUevent, end: CUevent) -> CUresult {
    finish((|| {
        initialised()?.alive()?;
        not_null(milliseconds)?;
        // SAFETY: as above.
        unsafe { elapsed::<row::cuEventElapsedTime_v2>(milliseconds, start, end) }
    })())
}
