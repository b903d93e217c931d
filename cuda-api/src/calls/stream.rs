//! Streams and stream memory operations (CUDA Driver API, "Stream Management", "Stream Memory Operations").

use crate::types::*;

cuda_api_macros::calls! { stream;
    /// Makes a stream; the guest names it.
    0x0301 posted custom "guest-driver/libcuda/src/stream.rs" fn cuStreamCreate(phStream: *mut CUstream, Flags: u32)
        wire (stream: CUstream, flags: u32, priority: i32);
    /// Makes a stream with a priority.
    0x0302 posted custom "guest-driver/libcuda/src/stream.rs" over cuStreamCreate
        fn cuStreamCreateWithPriority(phStream: *mut CUstream, flags: u32, priority: i32);
    /// Ends a stream; its work is still done.
    0x0303 posted custom "guest-driver/libcuda/src/stream.rs" fn cuStreamDestroy_v2(hStream: CUstream) wire (stream: CUstream)
        also cuStreamDestroy;
    /// Waits for all work of a stream.
    0x0364 sync may_block custom "guest-driver/libcuda/src/waiting.rs" ptsz fn cuStreamSynchronize(hStream: CUstream)
        wire (hStream: CUstream);
    /// Whether all work of a stream is done.
    0x0365 sync custom "guest-driver/libcuda/src/waiting.rs" ptsz fn cuStreamQuery(hStream: CUstream) wire (hStream: CUstream);
    /// Makes a stream wait for an event.
    0x0306 posted ptsz fn cuStreamWaitEvent(handle hStream: CUstream, handle hEvent: CUevent, bits Flags: [1]);
    /// A stream's flags.
    0x0307 local "guest-driver/libcuda/src/stream.rs" ptsz fn cuStreamGetFlags(hStream: CUstream, flags: *mut u32);
    /// A stream's priority.
    0x0308 local "guest-driver/libcuda/src/stream.rs" ptsz fn cuStreamGetPriority(hStream: CUstream, priority: *mut i32);
    /// A stream's context.
    0x0309 local "guest-driver/libcuda/src/stream.rs" ptsz fn cuStreamGetCtx(hStream: CUstream, pctx: *mut CUcontext);
    /// A stream's number, unique in the process.
    0x030a local "guest-driver/libcuda/src/stream.rs" ptsz fn cuStreamGetId(hStream: CUstream, streamId: *mut u64);
    /// A stream's device.
    0x030b local "guest-driver/libcuda/src/stream.rs" ptsz fn cuStreamGetDevice(hStream: CUstream, device: *mut CUdevice);
    /// Whether a stream is being captured.
    0x030c local "guest-driver/libcuda/src/capture.rs" ptsz fn cuStreamIsCapturing(hStream: CUstream, captureStatus: *mut u32);
    /// A stream's attribute: its bytes come back.
    0x0310 sync custom "guest-driver/libcuda/src/stream_attribute.rs" ptsz
        fn cuStreamGetAttribute(hStream: CUstream, attr: u32, value_out: *mut core::ffi::c_void)
        wire (hStream: CUstream, attr: u32) -> (value: Vec<u8>);
    /// Sets a stream's attribute.
    0x0311 sync custom "guest-driver/libcuda/src/stream_attribute.rs" ptsz
        fn cuStreamSetAttribute(hStream: CUstream, attr: u32, value: *const core::ffi::c_void)
        wire (hStream: CUstream, attr: u32, bytes value);
    /// Gives a stream another's attributes.
    0x0312 sync custom "guest-driver/libcuda/src/stream_attribute.rs" ptsz
        fn cuStreamCopyAttributes(dst: CUstream, src: CUstream) wire (dst: CUstream, src: CUstream);
    /// Writes a word once the stream gets there.
    0x0320 posted ptsz fn cuStreamWriteValue32_v2(handle stream: CUstream, devout addr: [4], value: u32, bits flags: [1]);
    /// Writes a 64-bit word once the stream gets there.
    0x0321 posted ptsz fn cuStreamWriteValue64_v2(handle stream: CUstream, devout addr: [8], value: u64, bits flags: [1]);
    /// Makes a stream wait for a word.
    0x0322 posted ptsz fn cuStreamWaitValue32_v2(handle stream: CUstream, devin addr: [4], value: u32, bits flags: [3, 0x40000000]);
    /// Makes a stream wait for a 64-bit word.
    0x0323 posted ptsz fn cuStreamWaitValue64_v2(handle stream: CUstream, devin addr: [8], value: u64, bits flags: [3, 0x40000000]);
    /// Several of them, in order; each travels as four words: operation, address, value, flags.
    0x0324 sync custom "guest-driver/libcuda/src/stream_words.rs" ptsz
        fn cuStreamBatchMemOp_v2(stream: CUstream, count: u32, paramArray: *mut core::ffi::c_void, flags: u32)
        wire (stream: CUstream, bytes operations, flags: u32);

    /// Calls a function of the program's once the stream gets there; the stream waits for it. The guest names the function
    /// by a number, and keeps it for as long as the graph where the stream is being captured.
    0x0360 sync custom "guest-driver/libcuda/src/host_function.rs" ptsz
        fn cuLaunchHostFunc(hStream: CUstream, function: *mut core::ffi::c_void, userData: *mut core::ffi::c_void)
        wire (stream: CUstream, token: u64) -> (captured: bool);
    /// As cuLaunchHostFunc, with the stream's state for the function, which is called after a fault, too.
    0x0361 sync custom "guest-driver/libcuda/src/host_function.rs" ptsz
        fn cuStreamAddCallback(hStream: CUstream, callback: *mut core::ffi::c_void, userData: *mut core::ffi::c_void, flags: u32)
        wire (stream: CUstream, token: u64);
    /// The guest is done with a run of a function (0: with none) and waits for the next.
    0x0362 sync may_block internal fn vgpuNextHostFunction() wire (done: u64)
        -> (run: u64, token: u64, status: u32, gone: bool);

    /// The device writes the ring's completion word once the stream gets there: the guest looks at it, and no thread of the host
    /// waits for the stream. What comes of the stream's work is asked for if the word does not come.
    0x0363 posted internal fn vgpuSignal() wire (stream: CUstream, value: u64);

    // Refused: the first form of these operations.
    0x0382 refused "the driver refuses this first form too, unless its module was loaded with NVreg_EnableStreamMemOPs: see the _v2" ptsz fn cuStreamBatchMemOp;
    0x0387 refused "the driver refuses this first form too, unless its module was loaded with NVreg_EnableStreamMemOPs: see the _v2" ptsz fn cuStreamWaitValue32;
    0x0388 refused "the driver refuses this first form too, unless its module was loaded with NVreg_EnableStreamMemOPs: see the _v2" ptsz fn cuStreamWaitValue64;
    0x0389 refused "the driver refuses this first form too, unless its module was loaded with NVreg_EnableStreamMemOPs: see the _v2" ptsz fn cuStreamWriteValue32;
    0x038a refused "the driver refuses this first form too, unless its module was loaded with NVreg_EnableStreamMemOPs: see the _v2" ptsz fn cuStreamWriteValue64;
}
