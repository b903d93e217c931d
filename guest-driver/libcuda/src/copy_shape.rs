//! Copies of any shape: rectangles and boxes, between memory, arrays and this process's own memory.
//!
//! Whatever the call, it becomes one [`CopyShape`]. An end that the worker knows (device memory, pinned memory, an array) is named
//! to it and checked for its whole extent. Pageable memory is the other kind: its rows are packed without gaps into frames or the
//! ring's staging buffer, in pieces that are boxes themselves, and unpacked on the other side.

use std::collections::VecDeque;

use cuda_api::calls::copy::row;
use cuda_api::calls::texture::row::cuArray3DGetDescriptor_v2;
use cuda_api::graph_node;
use cuda_api::guest::{finish, not_null};
use cuda_api::host::Access;
use cuda_api::types::{
    CUDA_MEMCPY2D, CUDA_MEMCPY3D, CUarray, CUcontext, CUstream, Copy2dEnd, Copy3dEnd, CopyEnd, CopyShape,
    STREAM_PER_THREAD, format_bytes, memory_type,
};
use cuda_api::wire::{Bulk, Fill};
use cuda_api::{CUresult, CuResult};

use crate::copy::ready;
use crate::gate::{self, Lane};
use crate::process::Process;
use crate::staging::{INLINE_LIMIT, STAGING_SLOTS};
use crate::thread;

/// CU_DEVICE_ATTRIBUTE_MAX_PITCH of every device. Bytes.
pub(crate) const PITCH_MAX: u64 = 0x7fff_ffff;
/// Rows are cut at multiples of this, the largest element of an array. Bytes.
const ELEMENT_BYTES_MAX: usize = 16;

/// What an end is found to be.
#[derive(Debug, Clone, Copy)]
struct End {
    /// Its kind is [`CopyEnd::BYTES`] where it is pageable memory, at its address in this process.
    end: CopyEnd,
    /// The CPU can access it, or it was said that copies of it are waited for.
    host_memory: bool,
    /// It says a place, but not all that the place depends on: see [`check_rows`].
    open: bool,
}

/// A part of a copy, at a place relative to the copy's begin. Bytes, rows, slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    x: u64,
    y: u64,
    z: u64,
    width: u64,
    height: u64,
    depth: u64,
}

impl Piece {
    fn bytes(&self) -> u64 {
        self.width * self.height * self.depth
    }
}

/// The pieces of a copy: whole slices where they fit, else whole rows, else parts of a row.
struct Pieces {
    size: (u64, u64, u64),
    most: u64,
    next: (u64, u64, u64),
}

impl Pieces {
    /// Pieces of at most so many bytes.
    fn new(shape: &CopyShape, most: usize) -> Self {
        Pieces { size: (shape.width, shape.height, shape.depth), most: most as u64, next: (0, 0, 0) }
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let (width, height, depth) = self.size;
        let (x, y, z) = self.next;
        if z == depth {
            return None;
        }
        let rows = self.most / width;
        let slices = rows / height;
        let piece = if rows == 0 {
            Piece { x, y, z, width: self.most.min(width - x), height: 1, depth: 1 }
        } else if slices == 0 {
            Piece { x, y, z, width, height: rows.min(height - y), depth: 1 }
        } else {
            Piece { x, y, z, width, height, depth: slices.min(depth - z) }
        };
        self.next = if x + piece.width < width {
            (x + piece.width, y, z)
        } else if y + piece.height < height {
            (0, y + piece.height, z)
        } else {
            (0, 0, z + piece.depth)
        };
        Some(piece)
    }
}

/// An end moved to where a piece begins.
fn moved(end: &CopyEnd, piece: &Piece) -> CopyEnd {
    CopyEnd { x: end.x + piece.x, y: end.y + piece.y, z: end.z + piece.z, ..*end }
}

/// Calls `each` with the address and the length of every row of a piece in memory; rows without gaps are one.
fn rows(end: &CopyEnd, piece: &Piece, mut each: impl FnMut(u64, usize)) {
    let (height, width) = if end.pitch == piece.width && piece.height > 1 {
        (1, piece.width * piece.height)
    } else {
        (piece.height, piece.width)
    };
    for z in 0..piece.depth {
        for y in 0..height {
            // No overflow: the copy's whole extent was computed with checks.
            let row = (end.z + piece.z + z) * end.rows + end.y + piece.y + y;
            each(end.at + row * end.pitch + end.x + piece.x, width as usize);
        }
    }
}

/// # Safety
/// The rows of the piece are readable; `to` has room for all its bytes.
unsafe fn pack(end: &CopyEnd, piece: &Piece, mut to: *mut u8) {
    rows(end, piece, |at, len| {
        // SAFETY: by this function's contract.
        unsafe {
            std::ptr::copy_nonoverlapping(at as *const u8, to, len);
            to = to.add(len);
        }
    });
}

/// # Safety
/// The rows of the piece are writable; `from` has all its bytes.
unsafe fn unpack(end: &CopyEnd, piece: &Piece, mut from: *const u8) {
    rows(end, piece, |at, len| {
        // SAFETY: by this function's contract.
        unsafe {
            std::ptr::copy_nonoverlapping(from, at as *mut u8, len);
            from = from.add(len);
        }
    });
}

fn bytes_end() -> CopyEnd {
    CopyEnd { kind: CopyEnd::BYTES, lod: 0, at: 0, pitch: 0, rows: 0, x: 0, y: 0, z: 0, context: 0 }
}

/// The rows of memory are apart as CUDA wants them. True: the pitch or the height of a slice is left open (0), although the copy has
/// a use for it. The driver takes that; where the rows lie then is not documented.
pub(crate) fn check_rows(end: &CopyEnd, width: u64, height: u64, depth: u64) -> CuResult<bool> {
    let refused = Err(CUresult::INVALID_VALUE);
    let row = end.x.checked_add(width).ok_or(CUresult::INVALID_VALUE)?;
    let slice = end.y.checked_add(height).ok_or(CUresult::INVALID_VALUE)?;
    let one_row = height == 1 && depth == 1;
    // A single row has no use for its pitch, however large.
    if (end.pitch != 0 && end.pitch < row) || (end.pitch > PITCH_MAX && !one_row) {
        return refused;
    }
    if end.rows != 0 && end.rows < slice {
        return refused;
    }
    let slices = depth > 1 || end.z != 0;
    Ok((end.pitch == 0 && (!one_row || end.y != 0 || end.z != 0)) || (end.rows == 0 && slices))
}

fn resolve(
    process: &Process,
    end: &Copy3dEnd,
    copy: &CUDA_MEMCPY3D,
    peer: bool,
    access: Access,
) -> CuResult<End> {
    let address = match end.memory_type {
        memory_type::HOST => end.host,
        memory_type::DEVICE | memory_type::UNIFIED => end.device,
        memory_type::ARRAY => end.array,
        _ => return Err(CUresult::INVALID_VALUE),
    };
    let context = if peer && end.memory_type != memory_type::HOST { end.context } else { 0 };
    if peer && end.memory_type != memory_type::HOST {
        process.objects.check(CUcontext(context))?;
    }
    let mut found = CopyEnd {
        kind: CopyEnd::ADDRESS,
        lod: u32::try_from(end.lod).map_err(|_| CUresult::INVALID_VALUE)?,
        at: address,
        pitch: end.pitch as u64,
        rows: end.rows as u64,
        x: end.x as u64,
        y: end.y as u64,
        z: end.z as u64,
        context,
    };
    if end.memory_type == memory_type::ARRAY {
        process.objects.check(CUarray(address))?;
        found.kind = CopyEnd::ARRAY;
        return Ok(End { end: found, host_memory: false, open: false });
    }
    let (width, height, depth) = (copy.width as u64, copy.height as u64, copy.depth as u64);
    if width == 0 || height == 0 || depth == 0 {
        return Ok(End { end: found, host_memory: false, open: false });
    }
    let open = check_rows(&found, width, height, depth)?;
    let (start, len) = found.extent(width, height, depth)?;
    start.checked_add(len).ok_or(CUresult::INVALID_VALUE)?;
    if height == 1 && depth == 1 && !open {
        // Only where it begins matters; no executor sees the pitch.
        let pitch = if width > PITCH_MAX { 0 } else { width };
        found = CopyEnd { at: start, x: 0, y: 0, z: 0, pitch, rows: 1, ..found };
    }
    match process.ranges.check_settling(start, len, access) {
        Ok(host_memory) => Ok(End { end: found, host_memory, open }),
        // Not the device's: the caller says that it is its own memory. Also where a host address is given and something of the
        // device's lies there, which the CPU could not read.
        Err(_)
            if end.memory_type != memory_type::DEVICE
                && process.ranges.find(start).is_none()
                && address != 0
                && !open =>
        {
            found.kind = CopyEnd::BYTES;
            Ok(End { end: found, host_memory: true, open })
        }
        Err(error) => Err(error),
    }
}

/// All of a copy lies in an array: where it goes in pieces, those after the first are not waited for.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE, as the driver says of the copy as a whole.
pub(crate) fn check_in_array(lane: &mut Lane<'_>, end: &CopyEnd, size: (u64, u64, u64)) -> CuResult<()> {
    let array = lane.call::<cuArray3DGetDescriptor_v2>(&(CUarray(end.at),), false)?;
    // Blocks of a compressed format and planes of a video format have sizes of their own.
    let Some(element) = format_bytes(array.format, array.num_channels) else { return Ok(()) };
    let fits = |begin: u64, len: u64, room: u64| begin.checked_add(len).is_some_and(|end| end <= room);
    let (width, height, depth) = size;
    let inside = fits(end.x, width, array.width.saturating_mul(element))
        && fits(end.y, height, array.height.max(1))
        && fits(end.z, depth, array.depth.max(1));
    let whole = end.x.is_multiple_of(element) && width.is_multiple_of(element);
    if inside && whole { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}

/// Sends the rows of pageable memory. `sure`: the driver takes the copy.
///
/// # Safety
/// The source's rows are readable.
unsafe fn send(lane: &mut Lane<'_>, shape: &CopyShape, sure: bool, stream: CUstream) -> CuResult<()> {
    let part = |piece: &Piece| CopyShape {
        dst: moved(&shape.dst, piece),
        src: bytes_end(),
        width: piece.width,
        height: piece.height,
        depth: piece.depth,
        flags: shape.flags,
    };
    let sure = sure && shape.dst.kind == CopyEnd::ADDRESS && shape.flags == 0;
    let whole = Piece { x: 0, y: 0, z: 0, width: shape.width, height: shape.height, depth: shape.depth };
    let total = shape.width.checked_mul(shape.height).and_then(|n| n.checked_mul(shape.depth));
    if total.is_some_and(|n| n <= INLINE_LIMIT as u64) {
        let mut bytes = vec![0; whole.bytes() as usize];
        // SAFETY: readable by this function's contract; room for all of it.
        unsafe { pack(&shape.src, &whole, bytes.as_mut_ptr()) };
        let fields = (&part(&whole), Bulk::Inline(&bytes), stream);
        return if sure {
            lane.post::<row::vgpuCopyIn>(&fields, false)
        } else {
            lane.call::<row::vgpuCopyIn>(&fields, false)
        };
    }
    if shape.dst.kind == CopyEnd::ARRAY {
        check_in_array(lane, &shape.dst, (shape.width, shape.height, shape.depth))?;
    }
    let most = lane.slot_bytes()? / ELEMENT_BYTES_MAX * ELEMENT_BYTES_MAX;
    for (i, piece) in Pieces::new(shape, most).enumerate() {
        let slot = lane.take_slot()?;
        // SAFETY: readable by this function's contract; a piece fits a slot, which no frame in flight uses.
        unsafe { pack(&shape.src, &piece, slot.at) };
        let staged = Bulk::Staged { offset: slot.offset, len: piece.bytes() };
        let fields = (&part(&piece), staged, stream);
        // What the driver refuses it refuses of the first piece as well, as a rule; of the others it comes out later.
        if sure || i != 0 {
            lane.post::<row::vgpuCopyIn>(&fields, true)?;
        } else {
            lane.call::<row::vgpuCopyIn>(&fields, true)?;
        }
        lane.slot_used(slot)?;
    }
    Ok(())
}

/// Fetches rows into pageable memory; the call has waited for the device.
///
/// # Safety
/// The destination's rows are writable.
unsafe fn fetch(lane: &mut Lane<'_>, shape: &CopyShape, stream: CUstream) -> CuResult<()> {
    let part = |piece: &Piece| CopyShape {
        dst: bytes_end(),
        src: moved(&shape.src, piece),
        width: piece.width,
        height: piece.height,
        depth: piece.depth,
        flags: shape.flags,
    };
    let whole = Piece { x: 0, y: 0, z: 0, width: shape.width, height: shape.height, depth: shape.depth };
    let total = shape.width.checked_mul(shape.height).and_then(|n| n.checked_mul(shape.depth));
    if let Some(len) = total.filter(|n| *n <= INLINE_LIMIT as u64) {
        let bytes = lane.call::<row::vgpuCopyOut>(&(&part(&whole), Fill::Inline { len }, stream), false)?;
        lane.deferred_error()?;
        if bytes.len() as u64 != len {
            return Err(CUresult::UNKNOWN);
        }
        // SAFETY: writable by this function's contract; as many bytes as the rows have.
        unsafe { unpack(&shape.dst, &whole, bytes.as_ptr()) };
        return Ok(());
    }
    let most = lane.slot_bytes()? / ELEMENT_BYTES_MAX * ELEMENT_BYTES_MAX;
    let mut pieces = Pieces::new(shape, most).peekable();
    let mut flying = VecDeque::with_capacity(STAGING_SLOTS);
    let mut outcome = Ok(());
    let mut last = None;
    loop {
        while outcome.is_ok() && flying.len() < STAGING_SLOTS {
            let Some(piece) = pieces.next() else { break };
            let slot = lane.take_slot()?;
            let fields = (&part(&piece), Fill::Staged { offset: slot.offset, len: piece.bytes() }, stream);
            outcome = if pieces.peek().is_none() {
                lane.begin::<row::vgpuCopyOut>(&fields).map(|begun| last = Some(begun))
            } else {
                lane.post::<row::vgpuCopyOut>(&fields, true)
            };
            lane.slot_used(slot)?;
            flying.push_back((slot, piece));
        }
        if let Err(error) = outcome {
            // A part that was posted before may have failed as well, and first: one error is enough.
            return Err(lane.deferred_error().err().unwrap_or(error));
        }
        let Some((slot, piece)) = flying.pop_front() else { break };
        let until = lane.state.staging_slots[slot.index];
        lane.ring()?.wait_bulk(until).map_err(|e| gate::call_failure(&e))?;
        // The last part's reply is there before its bytes are: it may say that there are none.
        if flying.is_empty()
            && let Some(begun) = last.take()
            && let Err(error) = lane.end(begun)
        {
            return Err(lane.deferred_error().err().unwrap_or(error));
        }
        // SAFETY: writable by this function's contract; the slot's bytes were filled and are not touched before it is taken again.
        unsafe { unpack(&shape.dst, &piece, slot.at) };
    }
    lane.deferred_error()
}

/// Between pageable memory and pageable memory.
///
/// # Safety
/// The rows are readable and writable.
pub(crate) unsafe fn within(shape: &CopyShape) {
    for z in 0..shape.depth {
        for y in 0..shape.height {
            // No overflow: both extents were computed with checks.
            let at = |e: &CopyEnd| e.at + ((e.z + z) * e.rows + e.y + y) * e.pitch + e.x;
            let (to, from) = (at(&shape.dst) as *mut u8, at(&shape.src) as *const u8);
            // SAFETY: by this function's contract.
            unsafe { std::ptr::copy(from, to, shape.width as usize) };
        }
    }
}

/// An end is memory of another device than the current context's.
fn elsewhere(lane: &Lane<'_>, end: &CopyEnd, access: Access) -> bool {
    end.kind == CopyEnd::ADDRESS && lane.is_elsewhere(end.at, access)
}

/// The copy as a graph's node has it.
fn as_node(copy: &CUDA_MEMCPY3D) -> graph_node::Copy3D {
    let end = |end: &Copy3dEnd| graph_node::CopyEnd {
        x_bytes: end.x as u64,
        y: end.y as u64,
        z: end.z as u64,
        lod: end.lod as u64,
        memory_type: end.memory_type,
        padding: 0,
        host: end.host,
        device: end.device,
        array: end.array,
        reserved: 0,
        pitch: end.pitch as u64,
        height: end.rows as u64,
    };
    graph_node::Copy3D {
        src: end(&copy.src),
        dst: end(&copy.dst),
        width_bytes: copy.width as u64,
        height: copy.height as u64,
        depth: copy.depth as u64,
    }
}

/// What sort of call a copy is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// The stream of a call that has one.
    pub(crate) stream: Option<CUstream>,
    /// It names its ends' contexts.
    pub(crate) peer: bool,
    /// It came in a batch.
    pub(crate) batch: bool,
}

/// A copy of any shape.
///
/// # Errors
/// What CUDA answers.
///
/// # Safety
/// Rows of host memory are what the caller says they are: CUDA's contract with it.
pub(crate) unsafe fn copy(copy: &CUDA_MEMCPY3D, manner: Manner) -> CuResult<()> {
    if let (Some(stream), false, false) = (manner.stream, manner.peer, manner.batch)
        && crate::capture::any()
        && crate::graph_pageable::captured(stream, &as_node(copy))?
    {
        return Ok(());
    }
    let stream = manner.stream.unwrap_or_else(thread::default_stream);
    let own_stream = stream == STREAM_PER_THREAD;
    let (shape, wait) = gate::with_ring(|process, lane| {
        ready(process, lane)?;
        process.objects.check(stream)?;
        let dst = resolve(process, &copy.dst, copy, manner.peer, Access::Write)?;
        let src = resolve(process, &copy.src, copy, manner.peer, Access::Read)?;
        let mut shape = CopyShape {
            dst: dst.end,
            src: src.end,
            width: copy.width as u64,
            height: copy.height as u64,
            depth: copy.depth as u64,
            flags: if manner.batch { CopyShape::OF_A_BATCH } else { 0 },
        };
        if shape.width == 0 || shape.height == 0 || shape.depth == 0 {
            return Ok((shape, false));
        }
        let open = dst.open || src.open;
        // The driver has to see such a copy as it is: cut in pieces, it would be another.
        if open && (dst.end.kind == CopyEnd::BYTES || src.end.kind == CopyEnd::BYTES) {
            let bytes = cuda_api::wire::product(&[shape.width, shape.height, shape.depth])?;
            if bytes > INLINE_LIMIT as u64 {
                return Err(CUresult::INVALID_VALUE);
            }
        }
        match (dst.end.kind, src.end.kind) {
            // Done below, once the stream is idle.
            (CopyEnd::BYTES, CopyEnd::BYTES) => return Ok((shape, true)),
            // SAFETY: this function's contract is the callee's.
            (_, CopyEnd::BYTES) => unsafe {
                let sure = !open && !elsewhere(lane, &dst.end, Access::Write);
                send(lane, &shape, sure, stream)
            }?,
            // SAFETY: this function's contract is the callee's.
            (CopyEnd::BYTES, _) => unsafe { fetch(lane, &shape, stream) }?,
            _ => {
                let between_contexts = dst.end.context != 0 && src.end.context != 0;
                if between_contexts && manner.stream.is_none() && !own_stream {
                    shape.flags |= CopyShape::SYNCHRONOUS;
                }
                let sure = dst.end.kind == CopyEnd::ADDRESS
                    && src.end.kind == CopyEnd::ADDRESS
                    && !between_contexts
                    && !elsewhere(lane, &dst.end, Access::Write)
                    && !elsewhere(lane, &src.end, Access::Read);
                if sure && !open && shape.flags == 0 {
                    lane.post::<row::vgpuCopyBetween>(&(&shape, stream), false)?;
                } else {
                    lane.call::<row::vgpuCopyBetween>(&(&shape, stream), false)?;
                }
            }
        }
        // A call without a stream is over when it returns, as far as the CPU can see: where it can see the destination, and where a
        // source that it may change is read only when the stream gets there. Staged bytes are staged; but a stream of its own
        // is not waited for by what this thread does next in the default one.
        let staged = src.end.kind == CopyEnd::BYTES;
        let wait = manner.stream.is_none()
            && (dst.host_memory || (src.host_memory && !staged) || (staged && own_stream));
        Ok((shape, wait && dst.end.kind != CopyEnd::BYTES))
    })?;
    if !wait {
        return Ok(());
    }
    gate::wait_for(stream)?;
    if shape.dst.kind == CopyEnd::BYTES && shape.src.kind == CopyEnd::BYTES {
        // SAFETY: by this function's contract.
        unsafe { within(&shape) };
    }
    Ok(())
}

/// A rectangle as a box of one slice.
fn of_2d(copy: &CUDA_MEMCPY2D) -> CUDA_MEMCPY3D {
    let end = |e: &Copy2dEnd| Copy3dEnd {
        x: e.x,
        y: e.y,
        z: 0,
        lod: 0,
        memory_type: e.memory_type,
        host: e.host,
        device: e.device,
        array: e.array,
        context: 0,
        pitch: e.pitch,
        rows: e.y.saturating_add(copy.height),
    };
    CUDA_MEMCPY3D {
        src: end(&copy.src),
        dst: end(&copy.dst),
        width: copy.width,
        height: copy.height,
        depth: 1,
    }
}

/// # Safety
/// `parameters` is what CUDA's documentation asks for, or NULL.
unsafe fn rectangle(parameters: *const CUDA_MEMCPY2D, stream: Option<CUstream>) -> CUresult {
    finish((|| {
        not_null(parameters.cast_mut())?;
        // SAFETY: not NULL; CUDA's contract with the caller.
        let parameters = unsafe { parameters.read_unaligned() };
        // SAFETY: CUDA's contract with the caller.
        unsafe { copy(&of_2d(&parameters), Manner { stream, ..Manner::default() }) }
    })())
}

/// # Safety
/// `parameters` is what CUDA's documentation asks for, or NULL.
unsafe fn cuboid(parameters: *const CUDA_MEMCPY3D, stream: Option<CUstream>, peer: bool) -> CUresult {
    finish((|| {
        not_null(parameters.cast_mut())?;
        // SAFETY: not NULL; CUDA's contract with the caller.
        let parameters = unsafe { parameters.read_unaligned() };
        // SAFETY: CUDA's contract with the caller.
        unsafe { copy(&parameters, Manner { stream, peer, batch: false }) }
    })())
}

/// cuMemcpy2D.
pub unsafe fn cuMemcpy2D_v2(parameters: *const CUDA_MEMCPY2D) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { rectangle(parameters, None) }
}

/// cuMemcpy2DUnaligned.
pub unsafe fn cuMemcpy2DUnaligned_v2(parameters: *const CUDA_MEMCPY2D) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { rectangle(parameters, None) }
}

/// cuMemcpy2DAsync.
pub unsafe fn cuMemcpy2DAsync_v2(parameters: *const CUDA_MEMCPY2D, stream: CUstream) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { rectangle(parameters, Some(stream)) }
}

/// cuMemcpy3D.
pub unsafe fn cuMemcpy3D_v2(parameters: *const CUDA_MEMCPY3D) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { cuboid(parameters, None, false) }
}

/// cuMemcpy3DAsync.
pub unsafe fn cuMemcpy3DAsync_v2(parameters: *const CUDA_MEMCPY3D, stream: CUstream) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { cuboid(parameters, Some(stream), false) }
}

/// cuMemcpy3DPeer.
pub unsafe fn cuMemcpy3DPeer(parameters: *const CUDA_MEMCPY3D) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { cuboid(parameters, None, true) }
}

/// cuMemcpy3DPeerAsync.
pub unsafe fn cuMemcpy3DPeerAsync(parameters: *const CUDA_MEMCPY3D, stream: CUstream) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { cuboid(parameters, Some(stream), true) }
}

#[cfg(test)]
#[path = "copy_shape/tests.rs"]
mod tests;
