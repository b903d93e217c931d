//! Memory and events between the processes of one VM.
//!
//! The driver's handles stay between the workers and their supervisor; the guest has tokens (`cuda_api::sharing`). What is
//! opened enters the session's map with the length that its exporter's worker told the supervisor, as far as the driver
//! confirms it.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cuda_api::CuResult;
use cuda_api::calls::interop::Host;
use cuda_api::sharing::{Shared, Sharing, TOKEN_BYTES, Token, What};
use cuda_api::types::*;

use crate::Cuda;
use crate::driver::IpcHandle;
use crate::lock::lock;
use crate::objects::{Allocation, Event};
use crate::ranges::Avoid;
use crate::thread::Thread;

/// CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR.
const HANDLE_POSIX: u32 = 1;

/// What a session shares and has opened.
#[derive(Default)]
pub(crate) struct Ipc {
    sharing: Option<Arc<dyn Sharing>>,
    /// Tokens of the session's own allocations, by address.
    memory: Mutex<HashMap<u64, Token>>,
    /// Tokens of the session's own events, by the guest's handle.
    events: Mutex<HashMap<u64, Token>>,
    /// Tokens of the session's own physical memory, by the driver's handle.
    allocations: Mutex<HashMap<u64, Token>>,
    /// How often an address was opened, and in which context.
    opened: Mutex<HashMap<u64, (u32, u32)>>,
    /// Physical memory or an event of another process has been opened.
    imported: AtomicBool,
}

impl Ipc {
    pub(crate) fn new(sharing: Option<Arc<dyn Sharing>>) -> Self {
        Ipc { sharing, ..Ipc::default() }
    }

    pub(crate) fn sharing(&self) -> CuResult<&dyn Sharing> {
        self.sharing.as_deref().ok_or(CUresult::NOT_SUPPORTED)
    }

    /// The session has, or has had, something of another process's.
    pub(crate) fn has_foreign(&self) -> bool {
        self.imported.load(Ordering::Acquire) || !lock(&self.opened).is_empty()
    }

    fn withdraw(&self, tokens: impl IntoIterator<Item = Token>) {
        if let Some(sharing) = &self.sharing {
            tokens.into_iter().for_each(|token| sharing.withdraw(&token));
        }
    }

    /// The allocation at this address is about to go.
    pub(crate) fn forget_memory(&self, start: u64) {
        let token = lock(&self.memory).remove(&start);
        self.withdraw(token);
    }

    pub(crate) fn forget_allocation(&self, raw: u64) {
        let token = lock(&self.allocations).remove(&raw);
        self.withdraw(token);
    }

    pub(crate) fn forget_event(&self, event: CUevent) {
        let token = lock(&self.events).remove(&event.raw());
        self.withdraw(token);
    }

    /// A context ends: what was opened in it is closed with it, and what was shared of it goes.
    pub(crate) fn forget_context(&self, context: u32, is_there: impl Fn(u64) -> bool) {
        lock(&self.opened).retain(|_, (_, of)| *of != context);
        let gone: Vec<Token> =
            lock(&self.memory).extract_if(|start, _| !is_there(*start)).map(|(_, token)| token).collect();
        self.withdraw(gone);
    }
}

/// Addresses of this process that are taken while the driver looks for some.
struct Blockers(Vec<(*mut libc::c_void, usize)>);

impl Blockers {
    /// Takes the ranges, as far as they are free here.
    fn take(avoid: &Avoid) -> Self {
        let mut taken = Vec::new();
        for range in avoid.ranges() {
            let Ok(len) = usize::try_from(range.end.saturating_sub(range.start)) else { continue };
            let start = super::memory::host_address(range.start);
            let flags =
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
            // SAFETY: maps only where nothing is mapped; the memory is never accessed.
            let at = unsafe { libc::mmap(start, len, libc::PROT_NONE, flags, -1, 0) };
            if at != libc::MAP_FAILED {
                taken.push((at, len));
            }
        }
        Blockers(taken)
    }
}

impl Drop for Blockers {
    fn drop(&mut self) {
        for (at, len) in &self.0 {
            // SAFETY: mapped by `take` and known to nobody else.
            unsafe { libc::munmap(*at, *len) };
        }
    }
}

impl Cuda {
    /// As much of an opened range as the driver says there is.
    fn confirm_opened(&self, address: u64, len: u64) -> CuResult<()> {
        match self.driver.cuMemGetAddressRange_v2(address) {
            Ok((start, size)) => {
                let end = start.checked_add(size as u64).ok_or(CUresult::INVALID_VALUE)?;
                let wanted = address.checked_add(len).ok_or(CUresult::INVALID_VALUE)?;
                if start <= address && wanted <= end { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
            }
            Err(error) if error.is_sticky() => Err(error),
            Err(error) => {
                self.warn_once(&format!("the extent of another process's memory is not confirmed: {error}"));
                Ok(())
            }
        }
    }

    /// A token for physical memory: the driver's descriptor of it goes to the supervisor.
    pub(crate) fn export_allocation(&self, allocation: &Allocation) -> CuResult<CUipcHandle> {
        let mut tokens = lock(&self.ipc.allocations);
        if let Some(token) = tokens.get(&allocation.raw) {
            return Ok(CUipcHandle { bytes: *token });
        }
        let mut file: RawFd = -1;
        let to = (&raw mut file).cast();
        // SAFETY: a handle that is alive, and room for a descriptor.
        unsafe { self.driver.cuMemExportToShareableHandle(to, allocation.raw, HANDLE_POSIX, 0) }?;
        if file < 0 {
            return Err(CUresult::OPERATING_SYSTEM);
        }
        // SAFETY: made by the driver just now, for whoever exports.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        let (len, handle) = (allocation.size, [0; TOKEN_BYTES]);
        let shared = Shared { what: What::Allocation, len, handle, file: Some(file) };
        let token = self.ipc.sharing()?.share(shared)?;
        tokens.insert(allocation.raw, token);
        Ok(CUipcHandle { bytes: token })
    }

    /// Imports what a token stands for; the device that it lies on. It counts as its exporter's, not as this session's.
    pub(crate) fn import_allocation(
        &self,
        handle: CUmemGenericAllocationHandle,
        token: &CUipcHandle,
    ) -> CuResult<CUdevice> {
        self.allocations.check_free(handle)?;
        let Shared { len, file, .. } = self.ipc.sharing()?.open(What::Allocation, &token.bytes)?;
        let file = file.ok_or(CUresult::INVALID_VALUE)?;
        let number = usize::try_from(file.as_raw_fd()).map_err(|_| CUresult::OPERATING_SYSTEM)?;
        let descriptor = std::ptr::without_provenance_mut(number);
        // SAFETY: for this kind the address is a descriptor, which stays open meanwhile.
        let (raw,) = unsafe { self.driver.cuMemImportFromShareableHandle(descriptor, HANDLE_POSIX) }?;
        self.ipc.imported.store(true, Ordering::Release);
        let allocation = Arc::new(Allocation { driver: self.driver, raw, size: len, _hold: None });
        let mut prop = CUmemAllocationProp {
            kind: 0,
            requested_handle_types: 0,
            location: CUmemLocation { kind: 0, id: 0 },
            win32_handle_meta_data: 0,
            flags: [0; 8],
        };
        // SAFETY: a handle that is alive, and room for its properties.
        unsafe { self.driver.cuMemGetAllocationPropertiesFromHandle(&raw mut prop, raw) }?;
        self.allocations.add(handle, allocation)?;
        Ok(prop.location.id)
    }

    fn close_opened(&self, address: u64) -> CuResult<()> {
        // SAFETY: opened at this address, and closed as often as it was opened.
        unsafe { self.driver.cuIpcCloseMemHandle(address) }
    }
}

impl Host for Cuda {
    fn cuIpcGetMemHandle(&self, thread: &mut Thread, dptr: CUdeviceptr) -> CuResult<CUipcHandle> {
        thread.context()?;
        let (start, len) = self.memory.device_at(dptr)?;
        let mut tokens = lock(&self.ipc.memory);
        if let Some(token) = tokens.get(&start) {
            return Ok(CUipcHandle { bytes: *token });
        }
        // SAFETY: an allocation of this session's.
        let (handle,) = unsafe { self.driver.cuIpcGetMemHandle(start) }?;
        let shared = Shared { what: What::Memory, len, handle: handle.bytes(), file: None };
        let token = self.ipc.sharing()?.share(shared)?;
        tokens.insert(start, token);
        Ok(CUipcHandle { bytes: token })
    }

    fn cuIpcOpenMemHandle_v2(
        &self,
        thread: &mut Thread,
        token: &CUipcHandle,
        flags: u32,
        avoid: &[u8],
    ) -> CuResult<(CUdeviceptr, u64, bool)> {
        let context = thread.context()?.id;
        let avoid = Avoid::read(avoid)?;
        let shared = self.ipc.sharing()?.open(What::Memory, &token.bytes)?;
        let (handle, len) = (IpcHandle::new(shared.handle), shared.len);
        // One at a time: the driver gives the same address for what is open already, and counts.
        let mut opened = lock(&self.ipc.opened);
        let blockers = Blockers::take(&avoid);
        let (address,) = self.driver.cuIpcOpenMemHandle_v2(handle, flags)?;
        drop(blockers);
        if let Some((count, _)) = opened.get_mut(&address) {
            *count = count.saturating_add(1);
            return Ok((address, len, false));
        }
        let entered = if avoid.meets(address, len) {
            Err(CUresult::OUT_OF_MEMORY)
        } else {
            self.confirm_opened(address, len).and_then(|()| self.memory.add_imported(address, len, context))
        };
        match entered {
            Ok(()) => {
                opened.insert(address, (1, context));
                Ok((address, len, true))
            }
            Err(error) => {
                self.close_opened(address)?;
                Err(error)
            }
        }
    }

    fn cuIpcCloseMemHandle(&self, thread: &mut Thread, dptr: CUdeviceptr) -> CuResult<bool> {
        thread.context()?;
        let mut opened = lock(&self.ipc.opened);
        let (count, _) = opened.get_mut(&dptr).ok_or(CUresult::INVALID_VALUE)?;
        let last = *count <= 1;
        if last {
            self.memory.remove_imported(dptr)?;
            opened.remove(&dptr);
        } else {
            *count = count.saturating_sub(1);
        }
        self.close_opened(dptr)?;
        Ok(last)
    }

    fn cuIpcGetEventHandle(&self, _: &mut Thread, event: CUevent) -> CuResult<CUipcHandle> {
        let object = self.event(event)?;
        let mut tokens = lock(&self.ipc.events);
        if let Some(token) = tokens.get(&event.raw()) {
            return Ok(CUipcHandle { bytes: *token });
        }
        let (handle,) = self.driver.cuIpcGetEventHandle(object.raw)?;
        let shared = Shared { what: What::Event, len: 0, handle: handle.bytes(), file: None };
        let token = self.ipc.sharing()?.share(shared)?;
        tokens.insert(event.raw(), token);
        Ok(CUipcHandle { bytes: token })
    }

    fn cuIpcOpenEventHandle(&self, thread: &mut Thread, event: CUevent, token: &CUipcHandle) -> CuResult<()> {
        let context = thread.owner()?.clone();
        self.events.check_free(event)?;
        let shared = self.ipc.sharing()?.open(What::Event, &token.bytes)?;
        let (raw,) = self.driver.cuIpcOpenEventHandle(IpcHandle::new(shared.handle))?;
        self.ipc.imported.store(true, Ordering::Release);
        self.events.add(event, Arc::new(Event { raw, context }))
    }
}
