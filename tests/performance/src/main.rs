//! What the ring alone costs its producer: frames posted through the transport crate to a running daemon, without libcuda's checks
//! around them. `cargo xtask bench` runs it; it prints lines `name TAB median TAB best TAB unit`.
//!
//! The daemon is the one that VGPU_SOCKET names. The frames are real calls (a context's limit is read, and the answer dropped), so
//! the worker's side of the ring is busy as it is with any posted call.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cuda_api::Call;
use cuda_api::calls::context::row;
use cuda_api::types::{CUcontext, Handle, HandleKind, pack_handle};
use cuda_api::wire::{Put, Wire};
use transport::{Device, FrameWriter, OpenParams, Ring, Session};

/// CU_LIMIT_STACK_SIZE.
const STACK_SIZE: u32 = 0;
/// Frames that fit the area several times over, so that no post waits for space.
const BATCH: usize = 800;
/// Batches measured.
const BATCHES: usize = 500;

struct Arguments<'a, 'b>(&'a mut FrameWriter<'b>);

impl Put for Arguments<'_, '_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.0.put(bytes);
    }
}

fn call<C: Call>(session: &Session, ring: &mut Ring, context: u32, fields: &C::In<'_>) -> Result<()> {
    let ticket = session.next_ticket();
    let result = ring
        .call(C::ID, 0, context, ticket, |w| fields.put(&mut Arguments(w)), |result, _| result)
        .with_context(|| C::NAME)?;
    ensure!(result == 0, "{}: {result}", C::NAME);
    Ok(())
}

fn main() -> Result<()> {
    let params = OpenParams { fingerprint: cuda_api::fingerprint(), env: b"" };
    let session = Device::open()?.open_session(&params)?;
    let mut ring = session.create_ring()?;
    let handle = pack_handle(HandleKind::Context, 1, 1);
    let context = u32::try_from(handle & 0xffff_ffff)?;
    call::<row::cuCtxCreate_v2>(&session, &mut ring, 0, &(CUcontext::from_raw(handle), 0, 0))?;

    let mut times = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let begin = Instant::now();
        for _ in 0..BATCH {
            ring.post(row::cuCtxGetLimit::ID, 0, context, session.next_ticket(), |w| {
                (STACK_SIZE,).put(&mut Arguments(w));
            })?;
        }
        times.push(begin.elapsed().as_secs_f64() * 1e6 / BATCH as f64);
        call::<row::cuCtxGetLimit>(&session, &mut ring, context, &(STACK_SIZE,))?;
    }
    ensure!(session.posted_errors() == 0, "{} posted calls failed", session.posted_errors());
    times.sort_by(f64::total_cmp);
    println!("raw ring post\t{:.4}\t{:.4}\tus", times[BATCHES / 2], times[0]);
    Ok(())
}
