//! Copies and fills (CUDA Driver API, "Memory Management"). A copy longer than a frame or a staging chunk travels as several
//! frames of the same row, in order.

use crate::types::*;

cuda_api_macros::calls! { copy;
    /// Host to device. Returns once the bytes are staged.
    0x0201 posted custom "guest-driver/libcuda/src/copy.rs" ptds
        fn cuMemcpyHtoD_v2(dstDevice: CUdeviceptr, srcHost: *const core::ffi::c_void, ByteCount: usize)
        wire (devout dst: [len], len: usize, bulk bytes);
    /// Device to host.
    0x0202 sync may_block custom "guest-driver/libcuda/src/copy.rs" ptds
        fn cuMemcpyDtoH_v2(dstHost: *mut core::ffi::c_void, srcDevice: CUdeviceptr, ByteCount: usize)
        wire (devin src: [len], len: usize, fill to) -> (fill bytes);
    /// Device to device; both ends may also be registered host memory.
    0x0203 posted ptds fn cuMemcpyDtoD_v2(devout dstDevice: [ByteCount], devin srcDevice: [ByteCount], ByteCount: usize);
    /// Host to device in a stream. From pageable memory it returns once the bytes are staged.
    0x0204 posted custom "guest-driver/libcuda/src/copy.rs" ptsz
        fn cuMemcpyHtoDAsync_v2(dstDevice: CUdeviceptr, srcHost: *const core::ffi::c_void, ByteCount: usize, hStream: CUstream)
        wire (devout dst: [len], len: usize, bulk bytes, hStream: CUstream);
    /// Device to host in a stream. To pageable memory it waits.
    0x0205 sync may_block custom "guest-driver/libcuda/src/copy.rs" ptsz
        fn cuMemcpyDtoHAsync_v2(dstHost: *mut core::ffi::c_void, srcDevice: CUdeviceptr, ByteCount: usize, hStream: CUstream)
        wire (devin src: [len], len: usize, fill to, hStream: CUstream) -> (fill bytes);
    /// Device to device in a stream; both ends may also be registered host memory.
    0x0206 posted ptsz fn cuMemcpyDtoDAsync_v2(devout dstDevice: [ByteCount], devin srcDevice: [ByteCount], ByteCount: usize,
        handle hStream: CUstream);
    /// Between any two ends: the addresses say which copy it is.
    0x0207 sync custom "guest-driver/libcuda/src/copy.rs" over cuMemcpyDtoD_v2 ptds
        fn cuMemcpy(dst: CUdeviceptr, src: CUdeviceptr, ByteCount: usize);
    /// Between any two ends in a stream.
    0x0208 sync custom "guest-driver/libcuda/src/copy.rs" over cuMemcpyDtoDAsync_v2 ptsz
        fn cuMemcpyAsync(dst: CUdeviceptr, src: CUdeviceptr, ByteCount: usize, hStream: CUstream);

    /// Fills bytes.
    0x0220 posted ptds fn cuMemsetD8_v2(devout dstDevice: [N], uc: u8, N: usize);
    /// Fills 16-bit words.
    0x0221 posted ptds fn cuMemsetD16_v2(devout dstDevice: [N * 2], us: u16, N: usize);
    /// Fills 32-bit words.
    0x0222 posted ptds fn cuMemsetD32_v2(devout dstDevice: [N * 4], ui: u32, N: usize);
    /// Fills bytes in a stream.
    0x0223 posted ptsz fn cuMemsetD8Async(devout dstDevice: [N], uc: u8, N: usize, handle hStream: CUstream);
    /// Fills 16-bit words in a stream.
    0x0224 posted ptsz fn cuMemsetD16Async(devout dstDevice: [N * 2], us: u16, N: usize, handle hStream: CUstream);
    /// Fills 32-bit words in a stream.
    0x0225 posted ptsz fn cuMemsetD32Async(devout dstDevice: [N * 4], ui: u32, N: usize, handle hStream: CUstream);
    /// Fills a rectangle of bytes.
    0x0226 posted ptds fn cuMemsetD2D8_v2(devout dstDevice: [rows(dstPitch, Width, Height)], dstPitch: usize, uc: u8, Width: usize,
        Height: usize);
    /// Fills a rectangle of 16-bit words.
    0x0227 posted ptds fn cuMemsetD2D16_v2(devout dstDevice: [rows(dstPitch, Width * 2, Height)], dstPitch: usize, us: u16, Width: usize,
        Height: usize);
    /// Fills a rectangle of 32-bit words.
    0x0228 posted ptds fn cuMemsetD2D32_v2(devout dstDevice: [rows(dstPitch, Width * 4, Height)], dstPitch: usize, ui: u32, Width: usize,
        Height: usize);
    /// Fills a rectangle of bytes in a stream.
    0x0229 posted ptsz fn cuMemsetD2D8Async(devout dstDevice: [rows(dstPitch, Width, Height)], dstPitch: usize, uc: u8, Width: usize,
        Height: usize, handle hStream: CUstream);
    /// Fills a rectangle of 16-bit words in a stream.
    0x022a posted ptsz fn cuMemsetD2D16Async(devout dstDevice: [rows(dstPitch, Width * 2, Height)], dstPitch: usize, us: u16,
        Width: usize, Height: usize, handle hStream: CUstream);
    /// Fills a rectangle of 32-bit words in a stream.
    0x022b posted ptsz fn cuMemsetD2D32Async(devout dstDevice: [rows(dstPitch, Width * 4, Height)], dstPitch: usize, ui: u32,
        Width: usize, Height: usize, handle hStream: CUstream);

    /// Bytes into memory or an array: a part of a copy of any shape. The source's rows follow one another without gaps.
    0x0230 posted internal fn vgpuCopyIn() wire (in shape: CopyShape, bulk bytes, hStream: CUstream);
    /// Bytes out of memory or an array: a part of a copy of any shape. The destination's rows follow one another without gaps.
    0x0231 sync may_block internal fn vgpuCopyOut() wire (in shape: CopyShape, fill to, hStream: CUstream) -> (fill bytes);
    /// A copy of any shape between two ends that the worker knows.
    0x0232 posted internal fn vgpuCopyBetween() wire (in shape: CopyShape, hStream: CUstream);
    /// Copies in no order between ends that the worker knows. The executor checks their ranges itself.
    0x0233 posted internal fn vgpuCopyBatch() wire (in copies: [BatchCopy; count], count: usize, hStream: CUstream);
    /// Bytes into a 1D array.
    0x0234 posted internal fn vgpuArrayIn() wire (hArray: CUarray, offset: usize, bulk bytes, hStream: CUstream);
    /// Bytes out of a 1D array.
    0x0235 sync may_block internal fn vgpuArrayOut() wire (hArray: CUarray, offset: usize, fill to, hStream: CUstream) -> (fill bytes);
    /// Registered host memory into a 1D array.
    0x0236 posted internal fn vgpuArrayFromHost() wire (hArray: CUarray, offset: usize, devin src: [len], len: usize, hStream: CUstream);
    /// A 1D array into registered host memory.
    0x0237 posted internal fn vgpuArrayToHost() wire (devout dst: [len], hArray: CUarray, offset: usize, len: usize, hStream: CUstream);

    /// A rectangle, between any two ends.
    0x0240 sync custom "guest-driver/libcuda/src/copy_shape.rs" over vgpuCopyBetween ptds fn cuMemcpy2D_v2(pCopy: *const CUDA_MEMCPY2D);
    /// A rectangle of any pitch. No device of the last decade needs it.
    0x0241 sync custom "guest-driver/libcuda/src/copy_shape.rs" over vgpuCopyBetween ptds
        fn cuMemcpy2DUnaligned_v2(pCopy: *const CUDA_MEMCPY2D);
    /// A rectangle in a stream.
    0x0242 sync custom "guest-driver/libcuda/src/copy_shape.rs" over vgpuCopyBetween ptsz
        fn cuMemcpy2DAsync_v2(pCopy: *const CUDA_MEMCPY2D, hStream: CUstream);
    /// A box, between any two ends.
    0x0243 sync custom "guest-driver/libcuda/src/copy_shape.rs" over vgpuCopyBetween ptds fn cuMemcpy3D_v2(pCopy: *const CUDA_MEMCPY3D);
    /// A box in a stream.
    0x0244 sync custom "guest-driver/libcuda/src/copy_shape.rs" over vgpuCopyBetween ptsz
        fn cuMemcpy3DAsync_v2(pCopy: *const CUDA_MEMCPY3D, hStream: CUstream);
    /// A box between contexts.
    0x0245 sync custom "guest-driver/libcuda/src/copy_shape.rs" over vgpuCopyBetween ptds fn cuMemcpy3DPeer(pCopy: *const CUDA_MEMCPY3D);
    /// A box between contexts, in a stream.
    0x0246 sync custom "guest-driver/libcuda/src/copy_shape.rs" over vgpuCopyBetween ptsz
        fn cuMemcpy3DPeerAsync(pCopy: *const CUDA_MEMCPY3D, hStream: CUstream);
    /// Between contexts.
    0x0247 sync ptds fn cuMemcpyPeer(devout dstDevice: [ByteCount], handle dstContext: CUcontext, devin srcDevice: [ByteCount],
        handle srcContext: CUcontext, ByteCount: usize);
    /// Between contexts, in a stream.
    0x0248 sync ptsz fn cuMemcpyPeerAsync(devout dstDevice: [ByteCount], handle dstContext: CUcontext, devin srcDevice: [ByteCount],
        handle srcContext: CUcontext, ByteCount: usize, handle hStream: CUstream);
    /// Copies in no order, as of CUDA 12.8.
    0x0249 sync custom "guest-driver/libcuda/src/copy_batch.rs" over vgpuCopyBatch ptsz
        fn cuMemcpyBatchAsync(dsts: *const CUdeviceptr, srcs: *const CUdeviceptr, sizes: *const usize, count: usize,
            attrs: *const CUmemcpyAttributes, attrsIdxs: *const usize, numAttrs: usize, failIdx: *mut usize, hStream: CUstream);
    /// Copies in no order.
    0x024a sync custom "guest-driver/libcuda/src/copy_batch.rs" over vgpuCopyBatch ptsz
        fn cuMemcpyBatchAsync_v2(dsts: *const CUdeviceptr, srcs: *const CUdeviceptr, sizes: *const usize, count: usize,
            attrs: *const CUmemcpyAttributes, attrsIdxs: *const usize, numAttrs: usize, hStream: CUstream);
    /// Boxes in no order, as of CUDA 12.8. They are carried out one after another.
    0x024b sync custom "guest-driver/libcuda/src/copy_batch.rs" over vgpuCopyBetween ptsz
        fn cuMemcpy3DBatchAsync(numOps: usize, opList: *const CUDA_MEMCPY3D_BATCH_OP, failIdx: *mut usize, flags: u64, hStream: CUstream);
    /// Boxes in no order. They are carried out one after another.
    0x024c sync custom "guest-driver/libcuda/src/copy_batch.rs" over vgpuCopyBetween ptsz
        fn cuMemcpy3DBatchAsync_v2(numOps: usize, opList: *const CUDA_MEMCPY3D_BATCH_OP, flags: u64, hStream: CUstream);

    // Refused: the 32-bit interface of before CUDA 3.2: programs of this century call its _v2.
    0x0280 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyDtoD;
    0x0281 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyDtoDAsync;
    0x0282 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyDtoH;
    0x0283 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyDtoHAsync;
    0x0284 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyHtoD;
    0x0285 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyHtoDAsync;
    0x0286 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemsetD16;
    0x0287 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemsetD2D16;
    0x0288 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemsetD2D32;
    0x0289 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemsetD2D8;
    0x028a refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemsetD32;
    0x028b refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemsetD8;
    0x028c refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpy2D;
    0x028d refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpy2DAsync;
    0x028f refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpy2DUnaligned;
    0x0292 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpy3D;
    0x0293 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpy3DAsync;
}
