//! Which calls may pass calls of other threads that are stuck behind a full stream.
//!
//! CUDA promises an order between threads only where they share a stream or an event, or through the legacy default
//! stream. A call on a stream of the guest's making may therefore go first where its stream and event occur nowhere in
//! the stuck calls, and none of those is on the default stream (unless the call's stream is a non-blocking one).
//! Everything that is not known to be of that kind keeps its place.

use cuda_api::Call;
use cuda_api::calls::{copy, entry, event, launch, stream, virtual_memory};
use cuda_api::types::{CUevent, CUstream, Handle};
use cuda_api::wire::{Reader, take_all};

/// A call, as far as order goes.
enum Place {
    /// On a stream, with an event or not.
    Stream(CUstream, Option<CUevent>),
    /// On an event.
    Event(CUevent),
    /// On the legacy default stream.
    Legacy,
    /// Neither: it makes, ends or brings something.
    Object,
}

fn take<'a, C: Call>(fields: &'a [u8]) -> Option<C::In<'a>> {
    take_all::<C::In<'a>>(&mut Reader::new(fields)).ok()
}

/// Where a call stands; `None` for one of which nothing is known.
fn place(call: u32, fields: &[u8]) -> Option<Place> {
    macro_rules! on_stream {
        ($($chapter:ident $row:ident $pattern:pat => $found:expr;)+) => {
            match call {
                $( <$chapter::row::$row as Call>::ID => {
                    let $pattern = take::<$chapter::row::$row>(fields)?;
                    return Some($found);
                } )+
                _ => {}
            }
        };
    }
    on_stream! {
        launch cuLaunchKernel (_, _, _, _, s, _) => Place::Stream(s, None);
        launch cuLaunchKernelEx (_, _, _, _, s, _, _) => Place::Stream(s, None);
        stream cuStreamWriteValue32_v2 (s, ..) => Place::Stream(s, None);
        stream cuStreamWriteValue64_v2 (s, ..) => Place::Stream(s, None);
        stream cuStreamWaitValue32_v2 (s, ..) => Place::Stream(s, None);
        stream cuStreamWaitValue64_v2 (s, ..) => Place::Stream(s, None);
        stream cuStreamBatchMemOp_v2 (s, ..) => Place::Stream(s, None);
        stream cuStreamSynchronize (s,) => Place::Stream(s, None);
        stream cuStreamQuery (s,) => Place::Stream(s, None);
        stream vgpuSignal (s, _) => Place::Stream(s, None);
        stream cuLaunchHostFunc (s, _) => Place::Stream(s, None);
        stream cuStreamAddCallback (s, _) => Place::Stream(s, None);
        stream cuStreamWaitEvent (s, e, _) => Place::Stream(s, Some(e));
        event cuEventRecord (e, s) => Place::Stream(s, Some(e));
        event cuEventQuery (e,) => Place::Event(e);
        event cuEventSynchronize (e,) => Place::Event(e);
        copy cuMemcpyHtoDAsync_v2 (_, _, _, s) => Place::Stream(s, None);
        copy cuMemcpyDtoHAsync_v2 (_, _, _, s) => Place::Stream(s, None);
        copy cuMemcpyDtoDAsync_v2 (_, _, _, s) => Place::Stream(s, None);
        copy vgpuCopyIn (_, _, s) => Place::Stream(s, None);
        copy vgpuCopyOut (_, _, s) => Place::Stream(s, None);
        copy vgpuCopyBetween (_, s) => Place::Stream(s, None);
        copy cuMemsetD8Async (_, _, _, s) => Place::Stream(s, None);
        copy cuMemsetD16Async (_, _, _, s) => Place::Stream(s, None);
        copy cuMemsetD32Async (_, _, _, s) => Place::Stream(s, None);
        virtual_memory cuMemFreeAsync (_, s) => Place::Stream(s, None);
        copy cuMemcpyHtoD_v2 _ => Place::Legacy;
        copy cuMemcpyDtoD_v2 _ => Place::Legacy;
        copy cuMemsetD8_v2 _ => Place::Legacy;
        copy cuMemsetD16_v2 _ => Place::Legacy;
        copy cuMemsetD32_v2 _ => Place::Legacy;
        stream cuStreamCreate _ => Place::Object;
        stream cuStreamDestroy_v2 _ => Place::Object;
        event cuEventCreate _ => Place::Object;
        event cuEventDestroy_v2 _ => Place::Object;
        entry vgpuImageData _ => Place::Object;
    }
    None
}

fn made(stream: CUstream) -> bool {
    !CUstream::SPECIAL.contains(&stream.raw())
}

/// A handle occurs in a call's fields: every scalar is a word of 8 bytes.
fn occurs(handle: u64, fields: &[u8]) -> bool {
    fields.as_chunks::<8>().0.iter().any(|word| u64::from_le_bytes(*word) == handle)
}

pub(crate) fn may_overtake(
    call: u32,
    fields: &[u8],
    blocked: &[(u32, &[u8])],
    non_blocking: impl Fn(CUstream) -> bool,
) -> bool {
    // What is stuck may be stuck behind the very function that this call says is done.
    if call == stream::row::vgpuNextHostFunction::ID {
        return true;
    }
    let (stream, event) = match place(call, fields) {
        Some(Place::Stream(stream, event)) if made(stream) => (Some(stream), event),
        Some(Place::Event(event)) => (None, Some(event)),
        _ => return false,
    };
    let named: Vec<u64> = stream.map(Handle::raw).into_iter().chain(event.map(Handle::raw)).collect();
    blocked.iter().all(|(other, fields)| {
        let unordered = match place(*other, fields) {
            Some(Place::Stream(s, _)) => made(s) || stream.is_none_or(&non_blocking),
            Some(Place::Legacy) => stream.is_none_or(&non_blocking),
            Some(Place::Event(_) | Place::Object) => true,
            None => false,
        };
        unordered && !named.iter().any(|handle| occurs(*handle, fields))
    })
}
