//! Copies of any shape: rectangles and boxes of bytes in memory. As in `transfer`, ranges are resolved right before they
//! are followed.

use cuda_api::CuResult;
use cuda_api::host::Access;
use cuda_api::types::{CUresult, CopyEnd, CopyShape};

use crate::memory::Memory;

/// Rows in memory as the copies walk them: the first one's place, and the steps from row to row and from slice to slice.
struct Rows {
    first: *mut u8,
    pitch: usize,
    slice: usize,
}

/// The numbers of a copy that was found to be sound.
#[derive(Clone, Copy)]
struct Size {
    width: usize,
    height: usize,
    depth: usize,
}

fn number(value: u64) -> CuResult<usize> {
    usize::try_from(value).map_err(|_| CUresult::INVALID_VALUE)
}

fn size(shape: &CopyShape) -> CuResult<Size> {
    Ok(Size { width: number(shape.width)?, height: number(shape.height)?, depth: number(shape.depth)? })
}

/// An end's range. Its rows do not overlap, so that no more bytes are moved than there are.
pub(crate) fn extent(end: &CopyEnd, shape: &CopyShape) -> CuResult<(u64, u64)> {
    let overlap = (end.pitch < shape.width && (shape.height > 1 || shape.depth > 1))
        || (end.rows < shape.height && shape.depth > 1);
    if end.kind != CopyEnd::ADDRESS || overlap {
        return Err(CUresult::INVALID_VALUE);
    }
    end.extent(shape.width, shape.height, shape.depth)
}

/// The bytes of all rows.
pub(crate) fn bytes(shape: &CopyShape) -> CuResult<u64> {
    cuda_api::wire::product(&[shape.width, shape.height, shape.depth])
}

/// The caller holds the accessor that resolved `first`.
fn rows(first: *mut u8, end: &CopyEnd) -> CuResult<Rows> {
    let (pitch, rows) = (number(end.pitch)?, number(end.rows)?);
    // A pitch of one row, or a slice's height of one slice, may be anything; it is then never used.
    Ok(Rows { first, pitch, slice: pitch.wrapping_mul(rows) })
}

/// Rows without gaps.
fn packed(first: *mut u8, size: Size) -> Rows {
    Rows { first, pitch: size.width, slice: size.width.wrapping_mul(size.height) }
}

/// # Safety
/// Both walk valid memory for the size.
unsafe fn walk(to: &Rows, from: &Rows, size: Size) {
    for z in 0..size.depth {
        for y in 0..size.height {
            let at = |r: &Rows| {
                r.first.wrapping_add(z.wrapping_mul(r.slice).wrapping_add(y.wrapping_mul(r.pitch)))
            };
            // SAFETY: by this function's contract. Rows may overlap where the guest says so.
            unsafe { std::ptr::copy(at(from).cast_const(), at(to), size.width) };
        }
    }
}

/// Copies within what device addresses reach.
pub(crate) fn copy(memory: &Memory, shape: &CopyShape) -> CuResult<()> {
    let access = memory.access();
    let (to, len) = extent(&shape.dst, shape)?;
    let to = access.range(to, len, Access::Write)?;
    let (from, len) = extent(&shape.src, shape)?;
    let from = access.range(from, len, Access::Read)?;
    // SAFETY: both extents are valid while `access` lasts (`Accessor::range`), and hold every row.
    unsafe { walk(&rows(to, &shape.dst)?, &rows(from, &shape.src)?, size(shape)?) };
    Ok(())
}

/// Copies from rows without gaps.
///
/// # Safety
/// `from` is readable for all bytes of the shape ([`bytes`]).
pub(crate) unsafe fn copy_in(memory: &Memory, shape: &CopyShape, from: *const u8) -> CuResult<()> {
    let access = memory.access();
    let (to, len) = extent(&shape.dst, shape)?;
    let to = access.range(to, len, Access::Write)?;
    let size = size(shape)?;
    // SAFETY: the extent is valid while `access` lasts and holds every row; the source by this function's contract.
    unsafe { walk(&rows(to, &shape.dst)?, &packed(from.cast_mut(), size), size) };
    Ok(())
}

/// Copies to rows without gaps.
///
/// # Safety
/// `to` is writable for all bytes of the shape.
pub(crate) unsafe fn copy_out(memory: &Memory, shape: &CopyShape, to: *mut u8) -> CuResult<()> {
    let access = memory.access();
    let (from, len) = extent(&shape.src, shape)?;
    let from = access.range(from, len, Access::Read)?;
    let size = size(shape)?;
    // SAFETY: as in `copy_in`, the other way round.
    unsafe { walk(&packed(to, size), &rows(from, &shape.src)?, size) };
    Ok(())
}
