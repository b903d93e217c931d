//! A guest thread in a few lines: frames are encoded as libcuda encodes them and carried out as a worker does.
#![allow(dead_code)] // not every test uses all of it

use std::sync::Arc;
use std::time::{Duration, Instant};

use cuda_api::calls::{context, copy, entry, event, memory, stream};
use cuda_api::host::{Executor, StagingView};
use cuda_api::types::*;
use cuda_api::wire::{Bulk, Fill, Reader, Wire, take_all};
use cuda_api::{Call, CuResult};
use executor_soft::{Soft, SoftConfig, Thread};

pub const MIB: usize = 1 << 20;

/// A guest thread with a staging buffer of 4 MiB.
pub struct Guest {
    pub soft: Arc<Soft>,
    pub thread: Thread,
    pub context: CUcontext,
    pub staging: Vec<u8>,
}

pub fn handle<H: Handle>(index: u32) -> H {
    H::from_raw(pack_handle(H::KIND, 1, index))
}

pub fn device(memory_mib: u64) -> Arc<Soft> {
    let config = SoftConfig { memory_bytes: memory_mib << 20, cores: 4, ..SoftConfig::default() };
    Arc::new(Soft::new(config).unwrap())
}

/// A session with its primary context current.
pub fn session(memory_mib: u64) -> Guest {
    let mut guest = Guest::new(device(memory_mib), 0);
    guest.context = handle(1);
    let made = guest.bare::<context::row::cuDevicePrimaryCtxRetain>(0, (handle(1), 0, 0));
    assert_eq!(made, Ok(()));
    guest
}

impl Guest {
    pub fn new(soft: Arc<Soft>, ring: u32) -> Guest {
        let thread = soft.new_thread(ring);
        Guest { soft, thread, context: CUcontext(0), staging: vec![0; 4 * MIB] }
    }

    /// Another thread of the same process, with the same context current.
    pub fn sibling(&self, ring: u32) -> Guest {
        Guest { context: self.context, ..Guest::new(self.soft.clone(), ring) }
    }

    pub fn bare<C: Call>(&mut self, context: u32, fields: C::In<'_>) -> CuResult<C::Out> {
        let mut frame = Vec::new();
        fields.put(&mut frame);
        self.raw::<C>(context, &frame)
    }

    pub fn raw<C: Call>(&mut self, context: u32, frame: &[u8]) -> CuResult<C::Out> {
        // SAFETY: the buffer lives as long as the call.
        let view = unsafe { StagingView::new(self.staging.as_mut_ptr(), self.staging.len() as u64) };
        self.soft.enter(&mut self.thread, context, Some(view))?;
        let mut reply = Vec::new();
        let result = cuda_api::host::dispatch(&*self.soft, &mut self.thread, C::ID, frame, &mut reply)
            .expect("well-formed");
        if result != CUresult::SUCCESS {
            assert!(reply.is_empty());
            return Err(result);
        }
        Ok(take_all::<C::Out>(&mut Reader::new(&reply)).expect("a reply of the row's shape"))
    }

    pub fn call<C: Call>(&mut self, fields: C::In<'_>) -> CuResult<C::Out> {
        self.bare::<C>((self.context.0 & 0xffff_ffff) as u32, fields)
    }

    pub fn alloc(&mut self, len: usize) -> CuResult<u64> {
        self.call::<memory::row::cuMemAlloc_v2>((len, &[]))
    }

    pub fn free(&mut self, address: u64) -> CuResult<()> {
        self.call::<memory::row::cuMemFree_v2>((address,))
    }

    /// Free bytes.
    pub fn left(&mut self) -> usize {
        self.call::<memory::row::cuMemGetInfo_v2>(()).unwrap().0
    }

    /// Host to device, inline or through staging by size.
    pub fn put(&mut self, to: u64, bytes: &[u8]) -> CuResult<()> {
        if bytes.len() <= 4096 {
            return self.call::<copy::row::cuMemcpyHtoD_v2>((to, bytes.len(), Bulk::Inline(bytes)));
        }
        self.staging[64..64 + bytes.len()].copy_from_slice(bytes);
        let bulk = Bulk::Staged { offset: 64, len: bytes.len() as u64 };
        self.call::<copy::row::cuMemcpyHtoD_v2>((to, bytes.len(), bulk))
    }

    pub fn put_async(&mut self, to: u64, bytes: &[u8], stream: CUstream) -> CuResult<()> {
        self.call::<copy::row::cuMemcpyHtoDAsync_v2>((to, bytes.len(), Bulk::Inline(bytes), stream))
    }

    pub fn get(&mut self, from: u64, len: usize) -> CuResult<Vec<u8>> {
        if len <= 4096 {
            return self.call::<copy::row::cuMemcpyDtoH_v2>((from, len, Fill::Inline { len: len as u64 }));
        }
        let fill = Fill::Staged { offset: 128, len: len as u64 };
        self.call::<copy::row::cuMemcpyDtoH_v2>((from, len, fill))?;
        Ok(self.staging[128..128 + len].to_vec())
    }

    pub fn get_async(&mut self, from: u64, len: usize, stream: CUstream) -> CuResult<Vec<u8>> {
        self.call::<copy::row::cuMemcpyDtoHAsync_v2>((from, len, Fill::Inline { len: len as u64 }, stream))
    }

    pub fn word(&mut self, from: u64) -> u32 {
        u32::from_le_bytes(self.get(from, 4).unwrap().try_into().unwrap())
    }

    /// Reads a word in a stream that nothing else is in.
    pub fn peek(&mut self, from: u64, stream: CUstream) -> u32 {
        u32::from_le_bytes(self.get_async(from, 4, stream).unwrap().try_into().unwrap())
    }

    /// A stream; flag 1 makes it non-blocking.
    pub fn stream(&mut self, index: u32, flags: u32) -> CUstream {
        self.call::<stream::row::cuStreamCreate>((handle(index), flags, 0)).unwrap();
        handle(index)
    }

    pub fn write32(&mut self, stream: CUstream, address: u64, value: u32) -> CuResult<()> {
        self.call::<stream::row::cuStreamWriteValue32_v2>((stream, address, value, 0))
    }

    /// Waits until the word is equal.
    pub fn wait32(&mut self, stream: CUstream, address: u64, value: u32) -> CuResult<()> {
        self.call::<stream::row::cuStreamWaitValue32_v2>((stream, address, value, 1))
    }

    pub fn sync(&mut self, stream: CUstream) -> CuResult<()> {
        self.call::<stream::row::cuStreamSynchronize>((stream,))
    }

    pub fn query(&mut self, stream: CUstream) -> CuResult<()> {
        self.call::<stream::row::cuStreamQuery>((stream,))
    }

    pub fn event(&mut self, index: u32, flags: u32) -> CUevent {
        self.call::<event::row::cuEventCreate>((handle(index), flags)).unwrap();
        handle(index)
    }

    pub fn record(&mut self, event: CUevent, stream: CUstream) -> CuResult<()> {
        self.call::<event::row::cuEventRecord>((event, stream))
    }

    /// Sends an image in pieces.
    pub fn image(&mut self, image: u64, bytes: &[u8]) -> CuResult<()> {
        for (i, piece) in bytes.chunks(4096).enumerate() {
            let fields = (image, i as u64 * 4096, bytes.len() as u64, Bulk::Inline(piece));
            self.call::<entry::row::vgpuImageData>(fields)?;
        }
        Ok(())
    }
}

/// Waits for a condition, at most ten seconds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Shared memory as a worker maps it.
pub struct Pinned {
    pub address: u64,
    pub len: usize,
}

impl Pinned {
    pub fn new(len: usize) -> Pinned {
        // SAFETY: a new anonymous mapping.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED);
        Pinned { address: at.expose_provenance() as u64, len }
    }

    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len);
        // SAFETY: inside the mapping, which lives until this is dropped.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer().add(at), bytes.len()) };
    }

    pub fn read(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= self.len);
        let mut bytes = vec![0; len];
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(self.pointer().add(at), bytes.as_mut_ptr(), len) };
        bytes
    }

    fn pointer(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(usize::try_from(self.address).unwrap())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`.
        unsafe { libc::munmap(self.pointer().cast(), self.len) };
    }
}
