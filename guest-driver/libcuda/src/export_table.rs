//! `cuGetExportTable`: the tables of functions without names through which NVIDIA's own libraries (cudart, cuBLAS, cuFFT,
//! CUPTI) talk to their driver. All of it is code of this library: a table cannot be forwarded. Which tables there are,
//! how long they are on driver 580 and what the served slots mean was observed; nothing here is NVIDIA's text.
//!
//! Served is what the runtime and the mathematics libraries call; the other slots answer CUDA_ERROR_NOT_SUPPORTED and,
//! under `VGPU_LOG`, say once which they are. Two tables exist without a served slot, because libraries want to find them:
//! cuBLASLt crashes without its own, and JAX refuses a driver without CUPTI's, though it never profiles. The other tables
//! of profilers, debuggers and graphics are unknown UUIDs here.

mod compiler;
mod layout;
mod slots;
mod tables;

use std::ffi::c_void;
use std::ptr::null;

use cuda_api::CUresult;
use cuda_api::types::CUuuid;

/// A table by its UUID, in memory order.
fn find(uuid: u128) -> Option<*const c_void> {
    Some(match uuid {
        0x6bd5fb6c_5bf4e74a_8987d939_12fd9df9 => tables::RUNTIME.address(),
        0x42d85a81_23f6cb47_8298f6e7_8a3aecdc => tables::TOOLS_TLS.address(),
        0xa094798c_2e742e74_93f20800_200c0a66 => tables::RUNTIME_HOOKS.address(),
        0xc693336e_1121df11_a8c368f3_55d89593 => tables::CONTEXT_STORAGE.address(),
        0xd4082055_bde6704b_8d34ba12_3c66e1f2 => tables::INTEGRITY.address(),
        0x263e8860_7cd26143_92f6bbd5_006dfa7e => tables::CONTEXT_CHECKS.address(),
        0x21318c60_97143248_8ca641ff_7324c8f2 => tables::TOOLS_CONTEXT.address(),
        0x6e163fbe_b958444d_835ce182_aff1991e => tables::TOOLS_MODULE.address(),
        0x1734dc26_800d4745_8726c0f1_e7dd8bca => tables::CUBLASLT.address(),
        0xda9151d3_3ae6cc41_a5c04f26_d533e328 => tables::COMPILER.address(),
        0x7cb63f9b_9ca48e42_a484beb6_6e6aed7f => tables::CUPTI.address(),
        _ => return None,
    })
}

/// A private table's address, the same for the life of the process, before `cuInit` too. An unknown UUID is an error and
/// gives NULL.
///
/// # Safety
/// `ppExportTable` is NULL or has room for a pointer, `pExportTableId` is NULL or points to 16 bytes.
pub unsafe fn cuGetExportTable(ppExportTable: *mut *const c_void, pExportTableId: *const CUuuid) -> CUresult {
    if ppExportTable.is_null() || pExportTableId.is_null() {
        return CUresult::INVALID_VALUE;
    }
    // SAFETY: not NULL (checked above), so 16 bytes by this function's contract; `CUuuid` needs no alignment.
    let uuid = u128::from_be_bytes(unsafe { pExportTableId.read_unaligned() }.bytes);
    let table = find(uuid);
    if table.is_none() {
        crate::log::say(|| format!("there is no export table {uuid:032x}"));
    }
    // SAFETY: not NULL (checked above); the caller gave room for a pointer.
    unsafe { ppExportTable.write(table.unwrap_or(null())) };
    if table.is_some() { CUresult::SUCCESS } else { CUresult::INVALID_VALUE }
}

#[cfg(test)]
mod tests;
