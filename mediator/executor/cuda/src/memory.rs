//! What addresses are: the session's device allocations, module variables, mapped and registered ranges. A driver call
//! gets no address that is not in here.

use std::collections::{BTreeMap, HashMap};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use cuda_api::CuResult;
use cuda_api::access::DeviceAccess;
use cuda_api::account::counted_bytes;
use cuda_api::host::Access;
use cuda_api::types::CUresult;

use crate::driver::Raw;
use crate::lock::{read, write};

/// Ranges of a session.
const EXTENTS_MAX: usize = 1 << 20;
/// Pools give out whole multiples of so many bytes.
const POOL_UNIT_BYTES: u64 = 512;

/// What a range is. `B` is what backs a mapped one.
#[derive(Debug)]
pub(crate) enum Kind<B> {
    /// Device memory, in a context on a device.
    Device { context: u32, device: i32 },
    /// Another process's device memory, opened in a context.
    Imported { context: u32 },
    /// A variable of a module or library in a context, which goes with either.
    Variable { owner: Raw, context: u32 },
    /// A managed variable of a module (in a context) or library (in none), which goes with either. The CPU uses it as well.
    Managed { owner: Raw, context: Option<u32> },
    /// Registered host memory, in a context.
    Registered { read_only: bool },
    /// Physical memory mapped at reserved addresses. Accessible as far as cuMemSetAccess said.
    Mapped { access: DeviceAccess, _backing: B },
    /// Memory of a pool, until it is freed.
    Pooled { pool: Raw },
    /// Memory of a graph that was captured under this number: each of the graph's launches allocates it again, at this address. It stays in the map until the driver
    /// gives the address to something else; until then it is the driver's own reservation, and nothing else can lie there.
    Graph { capture: u64 },
}

/// What has given stream-ordered memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Giver {
    Pool(Raw),
    /// A graph that was captured under this number.
    Graph(u64),
}

/// What frees a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FreedKind {
    /// cuMemAlloc's.
    Device,
    /// A pool's.
    Pooled,
    /// A graph's.
    Graph,
}

#[derive(Debug)]
struct Extent<B> {
    len: u64,
    kind: Kind<B>,
}

impl<B> Extent<B> {
    fn allows(&self, access: Access) -> bool {
        match (&self.kind, access) {
            (Kind::Registered { read_only }, Access::Write) => !read_only,
            // Which device's access counts is the driver's to judge.
            (Kind::Mapped { access: by, .. }, access) => by.allows_any(access),
            _ => true,
        }
    }
}

struct Maps<B> {
    extents: BTreeMap<u64, Extent<B>>,
    /// Reserved addresses: start → length.
    reserved: BTreeMap<u64, u64>,
    /// Guest memory that the worker has mapped: start → (length, writable).
    regions: BTreeMap<u64, (u64, bool)>,
    /// How many bytes of each pool are allocated. The driver's own number (CU_MEMPOOL_ATTR_USED_MEM_CURRENT) does not go down for what
    /// cuMemFree frees (seen with 580.159).
    pooled: HashMap<Raw, u64>,
}

/// The session's addresses.
pub(crate) struct Memory<B> {
    maps: RwLock<Maps<B>>,
    graph_memory: AtomicBool,
}

/// The entry of a map of ranges that an address lies in, with its start.
fn at<V>(map: &BTreeMap<u64, V>, address: u64, len: impl Fn(&V) -> u64) -> Option<(u64, &V)> {
    let (start, value) = map.range(..=address).next_back()?;
    (address.checked_sub(*start)? < len(value)).then_some((*start, value))
}

/// Some entry meets `[start, end)`.
fn meets<V>(map: &BTreeMap<u64, V>, start: u64, end: u64, len: impl Fn(&V) -> u64) -> bool {
    map.range(..end).next_back().is_some_and(|(at, value)| at.saturating_add(len(value)) > start)
}

/// What an allocation takes of its pool.
fn pool_bytes(len: u64) -> u64 {
    len.checked_next_multiple_of(POOL_UNIT_BYTES).unwrap_or(len)
}

fn end_of(start: u64, len: u64) -> CuResult<u64> {
    start.checked_add(len).ok_or(CUresult::INVALID_VALUE)
}

impl<B> Memory<B> {
    pub(crate) fn new() -> Self {
        let maps = Maps {
            extents: BTreeMap::new(),
            reserved: BTreeMap::new(),
            regions: BTreeMap::new(),
            pooled: HashMap::new(),
        };
        Memory { maps: RwLock::new(maps), graph_memory: AtomicBool::new(false) }
    }

    /// The range lies in one allocation, variable or registered range, or in mappings that follow one another, and may be
    /// accessed so.
    pub(crate) fn check(&self, start: u64, len: u64, access: Access) -> CuResult<()> {
        let end = end_of(start, len)?;
        if len == 0 {
            return Ok(());
        }
        let maps = read(&self.maps);
        let mut at_address = start;
        loop {
            let (begins, extent) =
                at(&maps.extents, at_address, |e: &Extent<B>| e.len).ok_or(CUresult::INVALID_VALUE)?;
            if !extent.allows(access) {
                return Err(CUresult::INVALID_VALUE);
            }
            let ends = begins.saturating_add(extent.len);
            if end <= ends {
                return Ok(());
            }
            if !matches!(extent.kind, Kind::Mapped { .. }) {
                return Err(CUresult::INVALID_VALUE);
            }
            at_address = ends;
        }
    }

    /// The whole range is memory that the host uses as well, or not: `true` where it begins in registered memory or a managed variable.
    pub(crate) fn is_host(&self, address: u64) -> bool {
        let maps = read(&self.maps);
        at(&maps.extents, address, |e: &Extent<B>| e.len)
            .is_some_and(|(_, extent)| matches!(extent.kind, Kind::Registered { .. } | Kind::Managed { .. }))
    }

    fn add(&self, start: u64, len: u64, kind: Kind<B>) -> CuResult<()> {
        let end = end_of(start, len)?;
        let mut maps = write(&self.maps);
        if maps.extents.len() >= EXTENTS_MAX {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        if len == 0 || meets(&maps.extents, start, end, |e: &Extent<B>| e.len) {
            return Err(CUresult::INVALID_VALUE);
        }
        maps.extents.insert(start, Extent { len, kind });
        Ok(())
    }

    pub(crate) fn add_device(&self, start: u64, len: u64, context: u32, device: i32) -> CuResult<()> {
        self.add(start, len, Kind::Device { context, device })
    }

    /// Takes out device memory that starts here; its length and its device.
    pub(crate) fn remove_device(&self, start: u64) -> CuResult<(u64, i32)> {
        let mut maps = write(&self.maps);
        let found = match maps.extents.get(&start) {
            Some(Extent { len, kind: Kind::Device { device, .. } }) => (*len, *device),
            _ => return Err(CUresult::INVALID_VALUE),
        };
        maps.extents.remove(&start);
        Ok(found)
    }

    /// Memory that the driver's stream-ordered allocator gave. A graph that had something there has ended: the driver gives no
    /// address twice.
    pub(crate) fn add_pooled(&self, start: u64, len: u64, by: Giver) -> CuResult<()> {
        let end = end_of(start, len)?;
        {
            let mut maps = write(&self.maps);
            let stale: Vec<u64> = maps
                .extents
                .range(..end)
                .rev()
                .take_while(|(at, extent)| at.saturating_add(extent.len) > start)
                .filter(|(_, extent)| matches!(extent.kind, Kind::Graph { .. }))
                .map(|(at, _)| *at)
                .collect();
            for at in stale {
                maps.extents.remove(&at);
            }
        }
        match by {
            Giver::Graph(capture) => {
                self.graph_memory.store(true, Ordering::Release);
                self.add(start, len, Kind::Graph { capture })
            }
            Giver::Pool(pool) => {
                self.add(start, len, Kind::Pooled { pool })?;
                let mut maps = write(&self.maps);
                let bytes = maps.pooled.entry(pool).or_insert(0);
                *bytes = bytes.saturating_add(pool_bytes(len));
                Ok(())
            }
        }
    }

    /// How many bytes of a pool are allocated.
    pub(crate) fn pooled_bytes(&self, pool: Raw) -> u64 {
        read(&self.maps).pooled.get(&pool).copied().unwrap_or(0)
    }

    /// How many bytes at different addresses a capture has allocated: what its graph needs at most.
    pub(crate) fn graph_bytes(&self, capture: u64) -> u64 {
        let of = |extent: &Extent<B>| match extent.kind {
            Kind::Graph { capture: by } if capture == by => extent.len,
            _ => 0,
        };
        read(&self.maps).extents.values().map(of).fold(0, u64::saturating_add)
    }

    /// Some graph of the session has had memory of its own.
    pub(crate) fn has_graph_memory(&self) -> bool {
        self.graph_memory.load(Ordering::Acquire)
    }

    /// Takes out a pool's memory that starts here; its length and its pool.
    pub(crate) fn remove_pooled(&self, start: u64) -> CuResult<(u64, Raw)> {
        let mut maps = write(&self.maps);
        let (len, pool) = match maps.extents.get(&start) {
            Some(Extent { len, kind: Kind::Pooled { pool } }) => (*len, *pool),
            _ => return Err(CUresult::INVALID_VALUE),
        };
        maps.extents.remove(&start);
        if let Some(bytes) = maps.pooled.get_mut(&pool) {
            *bytes = bytes.saturating_sub(pool_bytes(len));
            if *bytes == 0 {
                maps.pooled.remove(&pool);
            }
        }
        Ok((len, pool))
    }

    /// What kind of memory that can be freed starts here.
    pub(crate) fn freed_kind(&self, start: u64) -> CuResult<FreedKind> {
        match read(&self.maps).extents.get(&start).map(|extent| &extent.kind) {
            Some(Kind::Device { .. }) => Ok(FreedKind::Device),
            Some(Kind::Pooled { .. }) => Ok(FreedKind::Pooled),
            Some(Kind::Graph { .. }) => Ok(FreedKind::Graph),
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    /// The address lies in a mapping.
    pub(crate) fn check_in_mapping(&self, address: u64) -> CuResult<()> {
        match at(&read(&self.maps).extents, address, |e: &Extent<B>| e.len) {
            Some((_, Extent { kind: Kind::Mapped { .. }, .. })) => Ok(()),
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    /// The device memory that an address lies in: start and length.
    pub(crate) fn device_at(&self, address: u64) -> CuResult<(u64, u64)> {
        match at(&read(&self.maps).extents, address, |e: &Extent<B>| e.len) {
            Some((start, Extent { len, kind: Kind::Device { .. } })) => Ok((start, *len)),
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    pub(crate) fn add_imported(&self, start: u64, len: u64, context: u32) -> CuResult<()> {
        self.add(start, len, Kind::Imported { context })
    }

    pub(crate) fn remove_imported(&self, start: u64) -> CuResult<()> {
        let mut maps = write(&self.maps);
        match maps.extents.get(&start) {
            Some(Extent { kind: Kind::Imported { .. }, .. }) => {
                maps.extents.remove(&start);
                Ok(())
            }
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    /// A context's device memory and variables are gone: how many bytes that counted.
    pub(crate) fn forget_context(&self, ended: u32) -> u64 {
        let mut bytes = 0u64;
        write(&self.maps).extents.retain(|_, extent| match extent.kind {
            Kind::Device { context, .. } if context == ended => {
                bytes = bytes.saturating_add(counted_bytes(extent.len));
                false
            }
            Kind::Variable { context, .. } | Kind::Imported { context } => context != ended,
            _ => true,
        });
        bytes
    }

    /// A variable; it may have been asked for before.
    pub(crate) fn add_variable(&self, start: u64, len: u64, owner: Raw, context: u32) -> CuResult<()> {
        let known = |extent: &Extent<B>| {
            extent.len == len && matches!(extent.kind, Kind::Variable { owner: of, .. } if of == owner)
        };
        if len == 0 || read(&self.maps).extents.get(&start).is_some_and(known) {
            return Ok(());
        }
        self.add(start, len, Kind::Variable { owner, context })
    }

    /// A managed variable; it may have been asked for before.
    pub(crate) fn add_managed(&self, start: u64, len: u64, owner: Raw, context: Option<u32>) -> CuResult<()> {
        let known = |extent: &Extent<B>| {
            extent.len == len && matches!(extent.kind, Kind::Managed { owner: of, .. } if of == owner)
        };
        if read(&self.maps).extents.get(&start).is_some_and(known) {
            return Ok(());
        }
        self.add(start, len, Kind::Managed { owner, context })
    }

    /// Takes out the managed variables that may go with a context: its modules' and all libraries', of which only the driver knows
    /// where it has them. The libraries' come back: address, length, owner.
    pub(crate) fn remove_managed_of(&self, ended: u32, mut gone: impl FnMut(u64)) -> Vec<(u64, u64, Raw)> {
        let mut of_libraries = Vec::new();
        write(&self.maps).extents.retain(|start, extent| match extent.kind {
            Kind::Managed { context: Some(context), .. } if context != ended => true,
            Kind::Managed { context, owner } => {
                gone(*start);
                if context.is_none() {
                    of_libraries.push((*start, extent.len, owner));
                }
                false
            }
            _ => true,
        });
        of_libraries
    }

    /// Takes out a module's or library's managed variables; where they are.
    pub(crate) fn remove_managed(&self, owner: Raw) -> Vec<u64> {
        let mut starts = Vec::new();
        write(&self.maps).extents.retain(|start, extent| {
            let its = matches!(extent.kind, Kind::Managed { owner: of, .. } if of == owner);
            if its {
                starts.push(*start);
            }
            !its
        });
        starts
    }

    pub(crate) fn forget_variables(&self, owner: Raw) {
        let gone =
            |extent: &Extent<B>| matches!(extent.kind, Kind::Variable { owner: of, .. } if of == owner);
        write(&self.maps).extents.retain(|_, extent| !gone(extent));
    }

    /// Guest memory is mapped in this process.
    pub(crate) fn add_region(&self, start: u64, len: u64, writable: bool) {
        write(&self.maps).regions.insert(start, (len, writable));
    }

    /// Guest memory is about to go: what of it is still registered.
    pub(crate) fn remove_region(&self, start: u64, len: u64) -> Vec<u64> {
        let end = start.saturating_add(len);
        let mut maps = write(&self.maps);
        maps.regions.retain(|at, _| *at < start || *at >= end);
        let registered: Vec<u64> = maps
            .extents
            .range(start..end)
            .filter(|(_, extent)| matches!(extent.kind, Kind::Registered { .. }))
            .map(|(at, _)| *at)
            .collect();
        for at in &registered {
            maps.extents.remove(at);
        }
        registered
    }

    /// The range is guest memory that is mapped here: whether all of it is writable.
    pub(crate) fn region(&self, start: u64, len: u64) -> CuResult<bool> {
        let end = end_of(start, len)?;
        let maps = read(&self.maps);
        let (mut address, mut writable) = (start, true);
        while address < end {
            let (begins, (len, may_write)) =
                at(&maps.regions, address, |(len, _)| *len).ok_or(CUresult::INVALID_VALUE)?;
            writable &= may_write;
            address = begins.saturating_add(*len);
        }
        Ok(writable)
    }

    pub(crate) fn add_registered(&self, start: u64, len: u64, read_only: bool) -> CuResult<()> {
        self.add(start, len, Kind::Registered { read_only })
    }

    pub(crate) fn remove_registered(&self, start: u64) -> CuResult<()> {
        let mut maps = write(&self.maps);
        match maps.extents.get(&start) {
            Some(Extent { kind: Kind::Registered { .. }, .. }) => {
                maps.extents.remove(&start);
                Ok(())
            }
            _ => Err(CUresult::HOST_MEMORY_NOT_REGISTERED),
        }
    }

    pub(crate) fn add_reserved(&self, start: u64, len: u64) -> CuResult<()> {
        let mut maps = write(&self.maps);
        if maps.reserved.len() >= EXTENTS_MAX {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        maps.reserved.insert(start, len);
        Ok(())
    }

    /// Exactly these addresses are reserved, with nothing mapped in them: they no longer are.
    pub(crate) fn remove_reserved(&self, start: u64, len: u64) -> CuResult<()> {
        let end = end_of(start, len)?;
        let mut maps = write(&self.maps);
        if maps.reserved.get(&start) != Some(&len) || meets(&maps.extents, start, end, |e: &Extent<B>| e.len)
        {
            return Err(CUresult::INVALID_VALUE);
        }
        maps.reserved.remove(&start);
        Ok(())
    }

    /// The range lies in one reservation.
    pub(crate) fn check_reserved(&self, start: u64, len: u64) -> CuResult<()> {
        let end = end_of(start, len)?;
        let maps = read(&self.maps);
        let (begins, whole) = at(&maps.reserved, start, |len| *len).ok_or(CUresult::INVALID_VALUE)?;
        if len != 0 && end <= begins.saturating_add(*whole) { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
    }

    /// Nothing lies in the range.
    pub(crate) fn check_empty(&self, start: u64, len: u64) -> CuResult<()> {
        let end = end_of(start, len)?;
        if meets(&read(&self.maps).extents, start, end, |e: &Extent<B>| e.len) {
            return Err(CUresult::INVALID_VALUE);
        }
        Ok(())
    }

    pub(crate) fn add_mapped(&self, start: u64, len: u64, backing: B) -> CuResult<()> {
        self.add(start, len, Kind::Mapped { access: DeviceAccess::NONE, _backing: backing })
    }

    /// The mappings in the range, which must be whole ones, are gone. What backed them comes back.
    pub(crate) fn remove_mapped(&self, start: u64, len: u64) -> Vec<B> {
        let end = start.saturating_add(len);
        let mut maps = write(&self.maps);
        let starts: Vec<u64> = maps
            .extents
            .range(start..end)
            .filter(|(_, extent)| matches!(extent.kind, Kind::Mapped { .. }))
            .map(|(at, _)| *at)
            .collect();
        starts
            .iter()
            .filter_map(|at| match maps.extents.remove(at)?.kind {
                Kind::Mapped { _backing, .. } => Some(_backing),
                _ => None,
            })
            .collect()
    }

    /// The range is covered by whole mappings.
    pub(crate) fn check_mapped(&self, start: u64, len: u64) -> CuResult<()> {
        let end = end_of(start, len)?;
        let maps = read(&self.maps);
        let mut address = start;
        while address < end {
            match maps.extents.get(&address) {
                Some(Extent { len, kind: Kind::Mapped { .. } }) => address = address.saturating_add(*len),
                _ => return Err(CUresult::INVALID_VALUE),
            }
        }
        if address == end && len != 0 { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
    }

    /// Nothing lies partly in the range and partly outside.
    pub(crate) fn check_uncut(&self, start: u64, len: u64) -> CuResult<()> {
        let end = end_of(start, len)?;
        let maps = read(&self.maps);
        let reaches = |found: Option<(&u64, &Extent<B>)>, past: u64| {
            found.is_some_and(|(at, extent)| at.saturating_add(extent.len) > past)
        };
        let cut = reaches(maps.extents.range(..start).next_back(), start)
            || reaches(maps.extents.range(start..end).next_back(), end);
        if cut { Err(CUresult::INVALID_VALUE) } else { Ok(()) }
    }

    /// How a device may access the mappings in the range.
    pub(crate) fn set_access(&self, start: u64, len: u64, device: i32, flags: i32) {
        let end = start.saturating_add(len);
        for (_, extent) in write(&self.maps).extents.range_mut(start..end) {
            if let Kind::Mapped { access, .. } = &mut extent.kind {
                *access = access.with(device, flags);
            }
        }
    }
}

#[cfg(test)]
#[path = "memory/tests.rs"]
mod tests;
