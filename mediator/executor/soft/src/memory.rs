//! Everything a device address can mean: device memory, module variables, mapped physical memory and registered host memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use cuda_api::CuResult;
use cuda_api::account::Account;
use cuda_api::host::Access;
use cuda_api::types::CUresult;

use crate::lock::{read, write};
use crate::space::{GRANULE_BYTES, Space};
use crate::usage::{Usage, Use};
use crate::window::Window;

mod mappings;
mod pools;

pub(crate) use cuda_api::access::{ACCESS_READ, ACCESS_READ_WRITE};
use mappings::Mapping;
pub(crate) use pools::PoolId;
use pools::Pools;

/// Allocations of a session, variables included. Stops a guest from growing our tables without end.
const ALLOCATIONS_MAX: usize = 1 << 18;
/// Parts of pinned regions, and registrations.
const REGIONS_MAX: usize = 1 << 16;
/// A kernel that still uses a region after so long is ended: the region goes in any case.
const REGION_PATIENCE: Duration = Duration::from_secs(2);

/// Addresses of all devices, at most and, of each, at least. Bytes.
const WINDOW_BYTES_MAX: u64 = 512 << 30;
const WINDOW_BYTES_MIN: u64 = 40 << 30;

/// A device's number as the driver's interface has it.
pub(crate) fn device_number(device: usize) -> i32 {
    i32::try_from(device).unwrap_or(i32::MAX)
}

/// What an allocation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// cuMemAlloc's.
    Memory,
    /// An array's.
    Array,
    /// A module's `.global` variable.
    Variable,
    /// A module's managed variable: it belongs to no context.
    Managed,
    /// A module's `.const` variable: kernels do not write it.
    Constant,
    /// A pool's: it belongs to no context.
    Pooled(PoolId),
}

struct Allocation {
    len: u64,
    extent: Range<u64>,
    /// Whose memory it is.
    device: usize,
    context: u32,
    purpose: Purpose,
    /// A stream is on its way to free it.
    ending: bool,
}

struct Stretch {
    end: u64,
    writable: bool,
}

struct Map {
    /// Of each device.
    spaces: Vec<Space>,
    /// The device of each context.
    homes: BTreeMap<u32, usize>,
    /// Contexts whose kernels may reach the memory of another one: (who, whose).
    peers: BTreeSet<(u32, u32)>,
    allocations: BTreeMap<u64, Allocation>,
    /// Pinned guest memory that the worker has mapped, part by part.
    mapped: BTreeMap<u64, Stretch>,
    /// What of it is registered.
    registered: BTreeMap<u64, Stretch>,
    /// Addresses that were reserved: start → length.
    reserved: BTreeMap<u64, u64>,
    /// Physical memory at reserved addresses.
    mappings: BTreeMap<u64, Mapping>,
    pools: Pools,
}

/// Whose kernels follow an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Viewer {
    pub(crate) context: u32,
    pub(crate) device: usize,
}

/// A stretch of memory in use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// First address.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// Kernels may write it.
    pub(crate) writable: bool,
}

/// The memory of a session.
pub(crate) struct Memory {
    window: Window,
    map: RwLock<Map>,
    usage: Usage,
}

/// Leave to follow addresses: what it has resolved stays memory until it is dropped.
pub(crate) struct Accessor<'a> {
    memory: &'a Memory,
    using: Use<'a>,
}

impl Map {
    fn allocation(&self, address: u64) -> Option<(u64, &Allocation)> {
        let (start, allocation) = self.allocations.range(..=address).next_back()?;
        (address.wrapping_sub(*start) < allocation.len).then_some((*start, allocation))
    }

    fn registration(&self, address: u64) -> Option<(u64, &Stretch)> {
        let (start, stretch) = self.registered.range(..=address).next_back()?;
        (address < stretch.end).then_some((*start, stretch))
    }

    fn space(&mut self, device: usize) -> CuResult<&mut Space> {
        self.spaces.get_mut(device).ok_or(CUresult::INVALID_DEVICE)
    }

    fn room(&self, device: usize) -> u64 {
        self.spaces.get(device).map_or(0, Space::room)
    }

    /// The device of a context; one that is not known is the first's.
    fn home(&self, context: u32) -> usize {
        self.homes.get(&context).copied().unwrap_or(0)
    }

    /// Kernels of a context may access an allocation.
    fn is_open_to(&self, a: &Allocation, viewer: Viewer) -> bool {
        a.device == viewer.device
            || match a.purpose {
                Purpose::Pooled(pool) => self.pools.allows(pool, viewer.device),
                _ => self.peers.contains(&(viewer.context, a.context)),
            }
    }

    /// What lies at an address, for kernels of a context.
    fn find(&self, address: u64, viewer: Viewer) -> Option<(Found, bool)> {
        if let Some((start, a)) = self.allocation(address) {
            let writable = a.purpose != Purpose::Constant;
            return self.is_open_to(a, viewer).then_some((Found { start, len: a.len, writable }, false));
        }
        if let Some((start, m)) = self.mapping(address) {
            let writable = m.access.allows(device_number(viewer.device), Access::Write);
            let readable = m.access.allows(device_number(viewer.device), Access::Read);
            return readable.then_some((Found { start, len: m.len, writable }, false));
        }
        let (start, r) = self.registration(address)?;
        Some((Found { start, len: r.end.saturating_sub(start), writable: r.writable }, true))
    }

    /// The whole range lies in one allocation or registration.
    fn check(&self, start: u64, len: u64, access: Access) -> CuResult<Option<u64>> {
        let refused = CUresult::INVALID_VALUE;
        let end = start.checked_add(len).ok_or(refused)?;
        if let Some((base, a)) = self.allocation(start) {
            let inside = base.checked_add(a.len).is_some_and(|last| end <= last);
            return if inside { Ok(None) } else { Err(refused) };
        }
        if self.mapping(start).is_some() {
            return self.check_mappings(start, end, access).map(|()| None);
        }
        let (base, r) = self.registration(start).ok_or(refused)?;
        if end > r.end || (access == Access::Write && !r.writable) {
            return Err(refused);
        }
        Ok(Some(base))
    }
}

fn cut(map: &mut BTreeMap<u64, Stretch>, range: &Range<u64>) {
    let hit: Vec<u64> = map
        .range(..range.end)
        .filter(|(_, stretch)| stretch.end > range.start)
        .map(|(start, _)| *start)
        .collect();
    for start in hit {
        let Some(stretch) = map.remove(&start) else { continue };
        if start < range.start {
            map.insert(start, Stretch { end: range.start, writable: stretch.writable });
        }
        if stretch.end > range.end {
            map.insert(range.end, stretch);
        }
    }
}

impl Memory {
    /// A device with `limit` bytes of memory, a multiple of a granule.
    #[cfg(test)]
    pub(crate) fn new(limit: u64) -> io::Result<Self> {
        Self::of_devices(limit, 1, &(cuda_api::account::Alone::new(Some(limit)) as Arc<dyn Account>))
    }

    /// Devices with addresses for `limit` bytes of memory each, a multiple of a granule, and for as much as the account allows.
    pub(crate) fn of_devices(limit: u64, count: usize, account: &Arc<dyn Account>) -> io::Result<Self> {
        // Guards and holes take addresses, not memory.
        let count = (count as u64).max(1);
        let most = WINDOW_BYTES_MAX.checked_div(count).unwrap_or(0) & !GRANULE_BYTES.wrapping_sub(1);
        if limit > most {
            let text = format!("{count} devices with {limit} bytes of memory each");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let each = limit.saturating_mul(4).max(WINDOW_BYTES_MIN).min(most);
        let window = Window::reserve(each.saturating_mul(count))?;
        let first = window.range().start;
        let part = |n: u64| {
            let start = first.saturating_add(n.saturating_mul(each));
            start..start.saturating_add(each)
        };
        let map = Map {
            spaces: (0usize..)
                .zip(0..count)
                .map(|(device, n)| Space::new(part(n), account.clone(), device))
                .collect(),
            homes: BTreeMap::new(),
            peers: BTreeSet::new(),
            allocations: BTreeMap::new(),
            mapped: BTreeMap::new(),
            registered: BTreeMap::new(),
            reserved: BTreeMap::new(),
            mappings: BTreeMap::new(),
            pools: Pools::default(),
        };
        Ok(Memory { window, map: RwLock::new(map), usage: Usage::default() })
    }

    /// What this process has of a device, in bytes.
    pub(crate) fn held(&self, device: usize) -> u64 {
        read(&self.map).spaces.get(device).map_or(0, |space| space.account().held(device))
    }

    /// Free and total bytes of a device, for all processes of the VM.
    pub(crate) fn info(&self, device: usize) -> (u64, u64) {
        let map = read(&self.map);
        (map.room(device), map.spaces.get(device).map_or(0, Space::limit))
    }

    /// A context begins on a device.
    pub(crate) fn add_context(&self, context: u32, device: usize) {
        write(&self.map).homes.insert(context, device);
    }

    /// A context as its kernels follow addresses.
    pub(crate) fn viewer(&self, context: u32) -> Viewer {
        Viewer { context, device: read(&self.map).home(context) }
    }

    /// Kernels of a context may reach the memory of another one, or no longer.
    pub(crate) fn set_peer(&self, who: u32, whose: u32, enabled: bool) -> CuResult<()> {
        let mut map = write(&self.map);
        if enabled {
            if map.peers.insert((who, whose)) { Ok(()) } else { Err(CUresult::PEER_ACCESS_ALREADY_ENABLED) }
        } else if map.peers.remove(&(who, whose)) {
            Ok(())
        } else {
            Err(CUresult::PEER_ACCESS_NOT_ENABLED)
        }
    }

    /// What kernels of a context may do at an address (CUmemAccess_flags), and whose memory it is.
    pub(crate) fn reach(&self, address: u64, viewer: Viewer) -> CuResult<(i32, usize)> {
        let map = read(&self.map);
        let device = match (map.allocation(address), map.mapping(address)) {
            (Some((_, allocation)), _) => allocation.device,
            (_, Some((_, mapping))) => mapping.device,
            _ => viewer.device,
        };
        Ok(match map.find(address, viewer) {
            Some((found, _)) if found.writable => (ACCESS_READ_WRITE, device),
            Some(_) => (ACCESS_READ, device),
            None if map.allocation(address).is_some() || map.mapping(address).is_some() => (0, device),
            None => return Err(CUresult::INVALID_VALUE),
        })
    }

    /// The context that an allocation belongs to, if it is one's.
    pub(crate) fn context_at(&self, address: u64) -> Option<u32> {
        read(&self.map).allocation(address).map(|(_, a)| a.context).filter(|context| *context != 0)
    }

    pub(crate) fn allocate(
        &self,
        len: u64,
        mut avoid: Vec<Range<u64>>,
        context: u32,
        purpose: Purpose,
    ) -> CuResult<u64> {
        avoid.sort_by_key(|r| r.start);
        let device = match purpose {
            Purpose::Pooled(pool) => read(&self.map).pools.device(pool)?,
            _ => read(&self.map).home(context),
        };
        self.make_room(device, len.saturating_add(GRANULE_BYTES));
        let mut map = write(&self.map);
        if map.allocations.len() >= ALLOCATIONS_MAX {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        let placed = map.space(device)?.allocate(len, &avoid).ok_or(CUresult::OUT_OF_MEMORY)?;
        for range in &placed.fresh {
            if let Err(error) = self.window.commit(range) {
                log::warn!("no memory for {len} bytes: {error}");
                let idle = map.space(device)?.release(placed.start, len, placed.extent);
                self.decommit(&idle);
                return Err(CUresult::OUT_OF_MEMORY);
            }
        }
        let allocation = Allocation { len, extent: placed.extent, device, context, purpose, ending: false };
        map.allocations.insert(placed.start, allocation);
        Ok(placed.start)
    }

    /// There is an allocation of cuMemAlloc's at exactly this address.
    pub(crate) fn is_base(&self, start: u64) -> bool {
        read(&self.map).allocations.get(&start).is_some_and(|a| a.purpose == Purpose::Memory)
    }

    /// Frees allocations, once whoever still uses memory has ended.
    pub(crate) fn free(&self, starts: &[u64], purposes: &[Purpose]) -> CuResult<()> {
        let mut gone = Vec::new();
        {
            let mut map = write(&self.map);
            for start in starts {
                match map.allocations.get(start) {
                    Some(a) if purposes.contains(&a.purpose) => {
                        gone.extend(map.allocations.remove_entry(start))
                    }
                    _ => return Err(CUresult::INVALID_VALUE),
                }
            }
        }
        self.give_back(gone);
        Ok(())
    }

    /// Frees everything of a context.
    pub(crate) fn free_context(&self, context: u32) {
        let gone: Vec<(u64, Allocation)> = {
            let mut map = write(&self.map);
            map.homes.remove(&context);
            map.peers.retain(|(who, whose)| *who != context && *whose != context);
            map.allocations.extract_if(.., |_, a| a.context == context).collect()
        };
        self.give_back(gone);
    }

    fn give_back(&self, gone: Vec<(u64, Allocation)>) {
        if gone.is_empty() {
            return;
        }
        self.usage.wait_all();
        let mut map = write(&self.map);
        for (start, allocation) in gone {
            let Ok(space) = map.space(allocation.device) else { continue };
            let idle = space.release(start, allocation.len, allocation.extent);
            self.decommit(&idle);
        }
    }

    fn decommit(&self, ranges: &[Range<u64>]) {
        for range in ranges {
            if let Err(error) = self.window.decommit(range) {
                log::error!("cannot give back memory at {:#x}: {error}", range.start);
            }
        }
    }

    /// Pinned guest memory appeared.
    pub(crate) fn region_mapped(&self, start: u64, len: u64, writable: bool) {
        let mut map = write(&self.map);
        match start.checked_add(len) {
            Some(end) if len != 0 && map.mapped.len() < REGIONS_MAX => {
                cut(&mut map.mapped, &(start..end));
                map.mapped.insert(start, Stretch { end, writable });
            }
            _ => log::warn!("a region of {len} bytes at {start:#x} is not taken: it cannot be registered"),
        }
    }

    /// Pinned guest memory is about to go. `give_up` ends the kernels that do not let go of it.
    pub(crate) fn region_unmapping(&self, start: u64, len: u64, give_up: impl FnOnce()) {
        let range = start..start.saturating_add(len);
        let hit: Vec<u64> = {
            let mut map = write(&self.map);
            let map = &mut *map;
            let hit: Vec<u64> =
                map.registered.extract_if(..range.end, |_, r| r.end > range.start).map(|(s, _)| s).collect();
            cut(&mut map.mapped, &range);
            hit
        };
        if !self.usage.wait_touching(&hit, Instant::now().checked_add(REGION_PATIENCE)) {
            give_up();
            self.usage.wait_touching(&hit, None);
        }
    }

    /// cuMemHostRegister: the range is pinned, and none of it registered.
    pub(crate) fn register(&self, start: u64, len: u64, read_only: bool) -> CuResult<()> {
        let refused = CUresult::INVALID_VALUE;
        let end = start.checked_add(len).filter(|_| len != 0 && start != 0).ok_or(refused)?;
        let mut map = write(&self.map);
        if map.registered.range(..end).next_back().is_some_and(|(_, r)| r.end > start) {
            return Err(CUresult::HOST_MEMORY_ALREADY_REGISTERED);
        }
        if map.registered.len() >= REGIONS_MAX {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        let mut at = start;
        while at < end {
            let (_, part) =
                map.mapped.range(..=at).next_back().filter(|(_, part)| part.end > at).ok_or(refused)?;
            if !part.writable && !read_only {
                return Err(refused);
            }
            at = part.end;
        }
        map.registered.insert(start, Stretch { end, writable: !read_only });
        Ok(())
    }

    /// cuMemHostUnregister, by the address that was registered.
    pub(crate) fn unregister(&self, start: u64) -> CuResult<()> {
        if write(&self.map).registered.remove(&start).is_none() {
            return Err(CUresult::HOST_MEMORY_NOT_REGISTERED);
        }
        self.usage.wait_touching(&[start], None);
        Ok(())
    }

    pub(crate) fn is_registered(&self, start: u64) -> bool {
        read(&self.map).registered.contains_key(&start)
    }

    /// The full extent lies in one allocation or registered region that may be accessed so. Nothing is always fine.
    pub(crate) fn check(&self, start: u64, len: u64, access: Access) -> CuResult<()> {
        if len == 0 {
            return Ok(());
        }
        let map = read(&self.map);
        if map.allocation(start).is_some_and(|(_, a)| a.ending) {
            return Err(CUresult::INVALID_VALUE);
        }
        map.check(start, len, access).map(|_| ())
    }

    /// Waits until nobody uses memory who does now.
    pub(crate) fn wait_unused(&self) {
        self.usage.wait_all();
    }

    pub(crate) fn access(&self) -> Accessor<'_> {
        Accessor { memory: self, using: self.usage.enter() }
    }
}

impl Accessor<'_> {
    /// The host address of a range, which stays valid while this access lasts.
    pub(crate) fn range(&self, start: u64, len: u64, access: Access) -> CuResult<*mut u8> {
        if len == 0 {
            return Ok(std::ptr::NonNull::dangling().as_ptr());
        }
        let map = read(&self.memory.map);
        if let Some(region) = map.check(start, len, access)? {
            // Under the map's lock: who removes the region afterwards sees this.
            self.using.touched().add(region);
        }
        let start = usize::try_from(start).map_err(|_| CUresult::INVALID_VALUE)?;
        Ok(std::ptr::with_exposed_provenance_mut(start))
    }

    /// What lies at an address, for kernels of a context.
    pub(crate) fn find(&self, address: u64, viewer: Viewer) -> Option<Found> {
        let map = read(&self.memory.map);
        let (found, region) = map.find(address, viewer)?;
        if region {
            self.using.touched().add(found.start);
        }
        Some(found)
    }
}

#[cfg(test)]
#[path = "memory/tests.rs"]
mod tests;
