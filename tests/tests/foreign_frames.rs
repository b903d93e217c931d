//! Frames that libcuda would not send: device ranges that are not the session's. The library checks them before it sends anything;
//! here they are sent without it, so that it is the worker who refuses them.

use std::collections::BTreeSet;

use cuda_api::calls::context::row as contexts;
use cuda_api::calls::copy::row as copies;
use cuda_api::calls::memory::row as memory;
use cuda_api::calls::stream::row as streams;
use cuda_api::calls::texture::row as textures;
use cuda_api::types::{CUarray, CUcontext, CUstream, HandleKind, pack_handle};
use cuda_api::wire::{Bulk, Fill, Reader, Wire};
use cuda_api::{CUresult, Call};
use harness::wheels::Toolkit;
use transport::{Device, OpenParams, Ring, Session};
use whole_stack::artifacts::Profile;
use whole_stack::daemon::Daemon;
use whole_stack::place::Place;
use whole_stack::vm::Stack;

const BYTES: u64 = 4096;
const STREAM: CUstream = CUstream(0);

/// A guest process's end of a session: this process's.
struct Guest {
    session: Session,
    ring: Ring,
    /// The number by which frames name the current context; 0 = none.
    context: u32,
}

impl Guest {
    fn open(daemon: &Daemon) -> Self {
        let device = Device::open_local(daemon.socket()).unwrap();
        let session =
            device.open_session(&OpenParams { fingerprint: cuda_api::fingerprint(), env: &[] }).unwrap();
        let ring = session.create_ring().unwrap();
        let mut guest = Guest { session, ring, context: 0 };
        let context = guest.whole_context();
        guest.call::<contexts::cuDevicePrimaryCtxRetain>((context, 0, 0)).unwrap();
        guest.context = u32::try_from(context.0 & 0xffff_ffff).unwrap();
        guest
    }

    /// The primary context's handle.
    fn whole_context(&self) -> CUcontext {
        CUcontext(pack_handle(HandleKind::Context, 1, 1))
    }

    /// Sends a call's frame and waits for its reply.
    fn call<C: Call>(&mut self, fields: C::In<'_>) -> Result<C::Out, CUresult> {
        let mut frame = Vec::new();
        fields.put(&mut frame);
        let (context, ticket) = (self.context, self.session.next_ticket());
        let answer = self.ring.call(
            C::ID,
            0,
            context,
            ticket,
            |writer| writer.put(&frame),
            |result, data| match result {
                0 => Ok(C::Out::take(&mut Reader::new(data.bytes())).unwrap()),
                error => Err(CUresult(error)),
            },
        );
        answer.unwrap_or_else(|e| panic!("{}: the session is over: {e}", C::NAME))
    }

    /// Sends a call's frame and does not wait.
    fn post<C: Call>(&mut self, fields: C::In<'_>) {
        let mut frame = Vec::new();
        fields.put(&mut frame);
        let (context, ticket) = (self.context, self.session.next_ticket());
        self.ring.post(C::ID, 0, context, ticket, |writer| writer.put(&frame)).unwrap();
    }
}

/// The names of the rows that were refused.
struct Refusals<'a> {
    guest: &'a mut Guest,
    made: BTreeSet<&'static str>,
    good: u64,
}

impl Refusals<'_> {
    fn refused<C: Call>(&mut self, fields: C::In<'_>, at: u64, len: u64) {
        self.made.insert(C::NAME);
        let answer = self.guest.call::<C>(fields).map(|_| ());
        assert_eq!(answer, Err(CUresult::INVALID_VALUE), "{} at {at:#x}, {len:#x} bytes", C::NAME);
    }

    /// Every call with a range, on this one.
    fn everything(&mut self, at: u64, len: u64) {
        let (n, good) = (usize::try_from(len).unwrap(), self.good);
        let (halves, words) = (n.div_ceil(2), n.div_ceil(4));
        let (bulk, fill) = (Bulk::Staged { offset: 0, len }, Fill::Staged { offset: 0, len });
        self.refused::<copies::cuMemcpyHtoD_v2>((at, n, bulk), at, len);
        self.refused::<copies::cuMemcpyHtoDAsync_v2>((at, n, bulk, STREAM), at, len);
        self.refused::<copies::cuMemcpyDtoH_v2>((at, n, fill), at, len);
        self.refused::<copies::cuMemcpyDtoHAsync_v2>((at, n, fill, STREAM), at, len);
        self.refused::<copies::cuMemcpyDtoD_v2>((at, good, n), at, len);
        self.refused::<copies::cuMemcpyDtoD_v2>((good, at, n), at, len);
        self.refused::<copies::cuMemcpyDtoDAsync_v2>((at, good, n, STREAM), at, len);
        self.refused::<copies::cuMemcpyDtoDAsync_v2>((good, at, n, STREAM), at, len);
        // The ranges are looked at before the array, of which there is none.
        let (array, context) = (CUarray(pack_handle(HandleKind::Array, 1, 1)), self.guest.whole_context());
        self.refused::<copies::cuMemcpyPeer>((at, context, good, context, n), at, len);
        self.refused::<copies::cuMemcpyPeer>((good, context, at, context, n), at, len);
        self.refused::<copies::cuMemcpyPeerAsync>((at, context, good, context, n, STREAM), at, len);
        self.refused::<copies::cuMemcpyPeerAsync>((good, context, at, context, n, STREAM), at, len);
        self.refused::<textures::cuMemcpyAtoD_v2>((at, array, 0, n), at, len);
        self.refused::<textures::cuMemcpyDtoA_v2>((array, 0, at, n), at, len);
        self.refused::<copies::vgpuArrayFromHost>((array, 0, at, n, STREAM), at, len);
        self.refused::<copies::vgpuArrayToHost>((at, array, 0, n, STREAM), at, len);
        self.refused::<copies::cuMemsetD8_v2>((at, 0, n), at, len);
        self.refused::<copies::cuMemsetD8Async>((at, 0, n, STREAM), at, len);
        self.refused::<copies::cuMemsetD16_v2>((at, 0, halves), at, len);
        self.refused::<copies::cuMemsetD16Async>((at, 0, halves, STREAM), at, len);
        self.refused::<copies::cuMemsetD32_v2>((at, 0, words), at, len);
        self.refused::<copies::cuMemsetD32Async>((at, 0, words, STREAM), at, len);
        self.refused::<copies::cuMemsetD2D8_v2>((at, n, 0, n, 1), at, len);
        self.refused::<copies::cuMemsetD2D8Async>((at, n, 0, n, 1, STREAM), at, len);
        self.refused::<copies::cuMemsetD2D16_v2>((at, n, 0, halves, 1), at, len);
        self.refused::<copies::cuMemsetD2D16Async>((at, n, 0, halves, 1, STREAM), at, len);
        self.refused::<copies::cuMemsetD2D32_v2>((at, n, 0, words, 1), at, len);
        self.refused::<copies::cuMemsetD2D32Async>((at, n, 0, words, 1, STREAM), at, len);
    }

    /// Every call on one word.
    fn words(&mut self, at: u64) {
        self.refused::<streams::cuStreamWriteValue32_v2>((STREAM, at, 0, 0), at, 4);
        self.refused::<streams::cuStreamWriteValue64_v2>((STREAM, at, 0, 0), at, 8);
        self.refused::<streams::cuStreamWaitValue32_v2>((STREAM, at, 0, 0), at, 4);
        self.refused::<streams::cuStreamWaitValue64_v2>((STREAM, at, 0, 0), at, 8);
    }
}

macro_rules! rows_with_ranges {
    ($chapter:ident; $($name:ident)*) => {
        #[allow(unused)]
        fn $chapter(found: &mut BTreeSet<&'static str>) {
            $(if <cuda_api::calls::$chapter::row::$name as Call>::DEVICE_RANGES > 0 {
                found.insert(stringify!($name));
            })*
        }
    };
}
mod rows {
    use super::{BTreeSet, Call};
    cuda_api::for_each_row!(rows_with_ranges);

    /// Every row that takes a device range, in whatever chapter.
    pub fn with_ranges() -> BTreeSet<&'static str> {
        let mut found = BTreeSet::new();
        for chapter in [
            launch,
            copy,
            stream,
            event,
            memory,
            entry,
            device,
            context,
            module,
            library,
            graph,
            virtual_memory,
            texture,
            interop,
        ] {
            chapter(&mut found);
        }
        found
    }
}

/// Where the worker's own memory begins and ends, mapping by mapping.
fn mappings(worker: i32) -> Vec<(u64, u64)> {
    let maps = std::fs::read_to_string(format!("/proc/{worker}/maps")).unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let ends = maps.lines().filter_map(|line| line.split(' ').next()?.split_once('-'));
    ends.map(|(start, end)| (number(start), number(end))).collect()
}

#[test]
fn the_worker_refuses_every_range_that_is_not_the_sessions() {
    let stack = Stack::build(Profile::Dev, Toolkit::Cuda13).unwrap_or_else(|e| panic!("{e:?}"));
    let (daemon, local) = stack.start_local(&[]).unwrap();
    let place = Place::Local(daemon, local);
    let mut guest = Guest::open(place.daemon());
    let worker = place.worker_of(i32::try_from(std::process::id()).unwrap()).unwrap();

    let len = usize::try_from(BYTES).unwrap();
    let gone = guest.call::<memory::cuMemAlloc_v2>((len, &[])).unwrap();
    let good = guest.call::<memory::cuMemAlloc_v2>((len, &[])).unwrap();
    guest.call::<memory::cuMemFree_v2>((gone,)).unwrap();
    guest.call::<copies::cuMemsetD8_v2>((good, 0x5a, len)).unwrap();

    let own = mappings(worker);
    assert!(own.len() > 20, "{own:?}");
    let mut refusals = Refusals { guest: &mut guest, made: BTreeSet::new(), good };
    // Of the worker's own: the first bytes and the last ones of each mapping, except where the session's memory lies.
    for (start, end) in own {
        for at in [start, end - 64] {
            if !(good - 64..good + BYTES).contains(&at) {
                refusals.everything(at, 64);
                refusals.words(at);
            }
        }
    }
    for at in [0, 8, gone, good + BYTES, u64::MAX - 7, 1 << 63] {
        refusals.everything(at, 8);
        refusals.words(at);
    }
    for (at, len) in [
        (good, BYTES + 1),
        (good - 1, 2),
        (good + BYTES - 1, 2),
        (good + 8, BYTES),
        (good, u64::MAX - 8),
        (good, 1 << 63),
        (good, good.wrapping_neg() + 16),
        (u64::MAX, 64),
    ] {
        refusals.everything(at, len);
    }
    // Half of the word lies outside.
    refusals.refused::<streams::cuStreamWriteValue64_v2>(
        (STREAM, good + BYTES - 4, 0, 0),
        good + BYTES - 4,
        8,
    );
    refusals.refused::<streams::cuStreamWaitValue64_v2>(
        (STREAM, good + BYTES - 4, 0, 0),
        good + BYTES - 4,
        8,
    );
    // Products of more than 64 bits, and rows that go down.
    let huge = (1usize << 62) + 4;
    refusals.refused::<copies::cuMemsetD32_v2>((good, 0, huge), good, 0);
    refusals.refused::<copies::cuMemsetD16_v2>((good, 0, (1 << 63) + 8), good, 0);
    refusals.refused::<copies::cuMemsetD2D32_v2>((good, 64, 0, huge, 1), good, 0);
    refusals.refused::<copies::cuMemsetD2D8_v2>((good, 1 << 32, 0, 8, (1 << 32) + 1), good, 0);
    refusals.refused::<copies::cuMemsetD2D8_v2>((good, usize::MAX, 0, 8, 2), good, 0);
    let made = refusals.made;
    let missing: Vec<_> = rows::with_ranges().into_iter().filter(|name| !made.contains(name)).collect();
    assert!(missing.is_empty(), "not sent with foreign ranges: {missing:?}");

    // Not to be freed, and not to be registered: no page of the guest's was mapped there.
    for at in [gone, good + 8, good + BYTES] {
        assert_eq!(guest.call::<memory::cuMemFree_v2>((at,)), Err(CUresult::INVALID_VALUE), "{at:#x}");
    }
    for (start, _) in mappings(worker) {
        assert!(
            guest.call::<memory::cuMemHostRegister_v2>((start, 4096, 0)).is_err(),
            "{start:#x} is registered"
        );
        assert!(guest.call::<memory::cuMemHostUnregister>((start,)).is_err(), "{start:#x} is unregistered");
    }

    // A posted one fails as well, and says so once.
    assert_eq!(guest.session.posted_errors(), 0);
    guest.post::<copies::cuMemsetD8_v2>((good + 1, 0, len));
    // Nothing of all this has changed anything; and what is the session's works.
    let bytes = guest.call::<copies::cuMemcpyDtoH_v2>((good, len, Fill::Inline { len: BYTES })).unwrap();
    assert!(bytes.len() == len && bytes.iter().all(|b| *b == 0x5a), "{bytes:x?}");
    assert_eq!(guest.session.posted_errors(), 1);
    let name = <copies::cuMemsetD8_v2 as Call>::ID;
    assert_eq!(guest.ring.take_async_error(), Some((CUresult::INVALID_VALUE.0, name)));
    assert_eq!(guest.ring.take_async_error(), None);
    guest.call::<copies::cuMemcpyHtoD_v2>((good + BYTES - 8, 8, Bulk::Inline(&[7; 8]))).unwrap();
    guest.call::<copies::cuMemcpyDtoD_v2>((good, good + BYTES - 8, 8)).unwrap();
    let bytes = guest.call::<copies::cuMemcpyDtoH_v2>((good, 16, Fill::Inline { len: 16 })).unwrap();
    assert_eq!((&bytes[..8], &bytes[8..16]), ([7; 8].as_slice(), [0x5a; 8].as_slice()));
}
