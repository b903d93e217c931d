//! A context's settings beside those that travel by generic rows: flags, execution affinity, its users' count, and peers.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use cuda_api::calls::context::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::CUcontext;
use cuda_api::{CUresult, CuResult};

use crate::context;
use crate::gate;
use crate::process::initialised;

/// cuCtxSetFlags.
pub unsafe fn cuCtxSetFlags(flags: u32) -> CUresult {
    finish((|| {
        let process = initialised()?;
        let ctx = context::current()?;
        context::check_flags(flags)?;
        gate::call::<row::cuCtxSetFlags>((flags,))?;
        context::set_flags(process, ctx, flags)
    })())
}

/// CUexecAffinityParam: a type and, for CU_EXEC_AFFINITY_TYPE_SM_COUNT, a number.
#[repr(C)]
struct ExecAffinity {
    kind: u32,
    multiprocessors: u32,
}

/// cuCtxGetExecAffinity.
pub unsafe fn cuCtxGetExecAffinity(to: *mut c_void, kind: u32) -> CUresult {
    finish((|| {
        initialised()?;
        not_null(to)?;
        let multiprocessors = gate::call::<row::cuCtxGetExecAffinity>((kind,))?;
        // SAFETY: not NULL; a CUexecAffinityParam by CUDA's contract.
        unsafe { to.cast::<ExecAffinity>().write_unaligned(ExecAffinity { kind, multiprocessors }) };
        Ok(())
    })())
}

/// cuCtxAttach.
pub unsafe fn cuCtxAttach(pctx: *mut CUcontext, flags: u32) -> CUresult {
    finish((|| {
        initialised()?;
        not_null(pctx)?;
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let ctx = context::current()?;
        let record = context::record(ctx)?;
        if !record.is_plain() {
            return Err(CUresult::INVALID_CONTEXT);
        }
        record.users.fetch_add(1, Ordering::AcqRel);
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { pctx.write(ctx) };
        Ok(())
    })())
}

/// cuCtxDetach: the context has to be the current one.
pub unsafe fn cuCtxDetach(ctx: CUcontext) -> CUresult {
    finish((|| {
        initialised()?;
        let record = context::record(ctx)?;
        if ctx != context::current()? || !record.is_plain() {
            return Err(CUresult::INVALID_CONTEXT);
        }
        let more = |users: u32| users.checked_sub(1).filter(|left| *left != 0);
        match record.users.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(()),
            Err(_) => context::destroy(ctx),
        }
    })())
}

/// A context, and one is current. True: they are two devices'. Driver 580 does not mind that they are one's: no device has access to
/// itself to give.
fn check_peer(peer: CUcontext) -> CuResult<bool> {
    let process = initialised()?;
    let own = context::device_of(context::current()?)?;
    let other = context::record(peer)?.device;
    process.alive()?;
    Ok(own != other)
}

/// cuCtxEnablePeerAccess: what the driver says of two devices.
pub unsafe fn cuCtxEnablePeerAccess(peer: CUcontext, flags: u32) -> CUresult {
    finish((|| {
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        if !check_peer(peer)? {
            return Err(CUresult::PEER_ACCESS_UNSUPPORTED);
        }
        gate::call::<row::cuCtxEnablePeerAccess>((peer, flags))
    })())
}

/// cuCtxDisablePeerAccess.
pub unsafe fn cuCtxDisablePeerAccess(peer: CUcontext) -> CUresult {
    finish((|| {
        if !check_peer(peer)? {
            return Err(CUresult::PEER_ACCESS_NOT_ENABLED);
        }
        gate::call::<row::cuCtxDisablePeerAccess>((peer,))
    })())
}
