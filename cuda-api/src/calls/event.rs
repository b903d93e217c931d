//! Events (CUDA Driver API, "Event Management").

use crate::types::*;

cuda_api_macros::calls! { event;
    /// Makes an event; the guest names it.
    0x0401 posted fn cuEventCreate(new phEvent: CUevent, bits Flags: [7]);
    /// Ends an event.
    0x0402 posted fn cuEventDestroy_v2(free hEvent: CUevent) also cuEventDestroy;
    /// Records an event in a stream.
    0x0403 posted ptsz fn cuEventRecord(handle hEvent: CUevent, handle hStream: CUstream);
    /// Records an event in a stream, with flags.
    0x0404 posted ptsz fn cuEventRecordWithFlags(handle hEvent: CUevent, handle hStream: CUstream, bits flags: [1]);
    /// Whether an event is complete.
    0x0409 sync custom "guest-driver/libcuda/src/waiting.rs" fn cuEventQuery(hEvent: CUevent) wire (hEvent: CUevent);
    /// Waits for an event.
    0x040a sync may_block custom "guest-driver/libcuda/src/waiting.rs" fn cuEventSynchronize(hEvent: CUevent)
        wire (hEvent: CUevent);
    /// Milliseconds between two events.
    0x0407 sync custom "guest-driver/libcuda/src/event.rs"
        fn cuEventElapsedTime(pMilliseconds: *mut f32, hStart: CUevent, hEnd: CUevent)
        wire (hStart: CUevent, hEnd: CUevent) -> (milliseconds: f32);
    /// Milliseconds between two events, with the semantics of CUDA 12.8.
    0x040b sync custom "guest-driver/libcuda/src/event.rs"
        fn cuEventElapsedTime_v2(pMilliseconds: *mut f32, hStart: CUevent, hEnd: CUevent)
        wire (hStart: CUevent, hEnd: CUevent) -> (milliseconds: f32);
}
