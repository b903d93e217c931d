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

    // Refused: this shape of copy is not carried.
    0x028c refused "this shape of copy is not carried" fn cuMemcpy2D;
    0x028d refused "this shape of copy is not carried" fn cuMemcpy2DAsync;
    0x028e refused "this shape of copy is not carried" ptsz fn cuMemcpy2DAsync_v2;
    0x028f refused "this shape of copy is not carried" fn cuMemcpy2DUnaligned;
    0x0290 refused "this shape of copy is not carried" ptds fn cuMemcpy2DUnaligned_v2;
    0x0291 refused "this shape of copy is not carried" ptds fn cuMemcpy2D_v2;
    0x0292 refused "this shape of copy is not carried" fn cuMemcpy3D;
    0x0293 refused "this shape of copy is not carried" fn cuMemcpy3DAsync;
    0x0294 refused "this shape of copy is not carried" ptsz fn cuMemcpy3DAsync_v2;
    0x0295 refused "this shape of copy is not carried" ptsz fn cuMemcpy3DBatchAsync;
    0x0296 refused "this shape of copy is not carried" ptsz fn cuMemcpy3DBatchAsync_v2;
    0x0297 refused "this shape of copy is not carried" ptds fn cuMemcpy3DPeer;
    0x0298 refused "this shape of copy is not carried" ptsz fn cuMemcpy3DPeerAsync;
    0x0299 refused "this shape of copy is not carried" ptds fn cuMemcpy3D_v2;
    0x029a refused "this shape of copy is not carried" ptsz fn cuMemcpyBatchAsync;
    0x029b refused "this shape of copy is not carried" ptsz fn cuMemcpyBatchAsync_v2;
    0x029c refused "this shape of copy is not carried" ptds fn cuMemcpyPeer;
    0x029d refused "this shape of copy is not carried" ptsz fn cuMemcpyPeerAsync;
}
