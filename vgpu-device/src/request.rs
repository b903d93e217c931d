//! The parser of control messages: bytes in, a typed request or a refusal out. It looks at nothing but the bytes;
//! whether the session, ring or region exists is the table's business.

use pci_layout::control::{self, Run};
use pci_layout::{PAGE_BYTES, regs, ring};
use zerocopy::FromBytes;

use crate::ids::{RegionId, RingId, SessionId};
use crate::sessions::RingPart;

/// Largest part of the information blob that one READ_INFO carries, in bytes.
pub const INFO_BYTES_MAX: u32 = 64 * 1024;
/// One past the highest user address (x86-64, four page table levels). Stops a region that no process can have.
const USER_ADDRESS_END: u64 = 1 << 47;
/// Longest memory one MAP_REGION message may carry, in bytes. Stops sums that come near the end of the address space.
const REGION_PART_BYTES_MAX: u64 = 1 << 40;

/// Why a request is refused before anybody has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// One of the `ERROR_` values.
    pub error: u32,
    /// The reason for the log.
    pub why: &'static str,
}

impl Refusal {
    pub(crate) fn invalid(why: &'static str) -> Self {
        Self { error: regs::ERROR_INVALID_REQUEST, why }
    }

    pub(crate) fn length(why: &'static str) -> Self {
        Self { error: regs::ERROR_INVALID_LENGTH, why }
    }

    pub(crate) fn unsupported(why: &'static str) -> Self {
        Self { error: regs::ERROR_UNSUPPORTED, why }
    }

    pub(crate) fn too_large(why: &'static str) -> Self {
        Self { error: regs::ERROR_TOO_LARGE, why }
    }
}

/// A request whose every number is within its bounds.
#[derive(Debug, Clone)]
pub enum Request {
    /// The driver has bound the device.
    Hello {
        /// The driver's [`pci_layout::ABI_VERSION`].
        abi_version: u32,
        /// Another value than before means another boot.
        boot_nonce: u64,
        /// Page aligned address of the pending bitmap.
        pending_gpa: u64,
    },
    /// Read the register block.
    ReadRegs,
    /// Read part of the information blob.
    ReadInfo {
        /// First byte.
        offset: u32,
        /// Bytes, at most [`INFO_BYTES_MAX`].
        len: u32,
    },
    /// Open a session.
    OpenSession {
        /// Its slot.
        session: SessionId,
        /// libcuda's [`pci_layout::ABI_VERSION`].
        abi_version: u32,
        /// Process id, for logs.
        pid: u32,
        /// User id, for logs.
        uid: u32,
        /// Call table fingerprint.
        fingerprint: [u8; 16],
        /// Page aligned address of the session page.
        page_gpa: u64,
        /// NUL-terminated `NAME=value` strings.
        env: Vec<u8>,
    },
    /// Give a ring its memory or its staging buffer.
    AddRingPart {
        /// Session slot.
        session: SessionId,
        /// The ring.
        ring: RingId,
        /// Which memory.
        part: RingPart,
        /// Length in bytes, the sum of the runs.
        len: u64,
        /// Page runs, in order.
        runs: Vec<Run>,
    },
    /// Remove a ring.
    RemoveRing {
        /// Session slot.
        session: SessionId,
        /// The ring.
        ring: RingId,
    },
    /// Map pinned memory, or the next part of it.
    MapRegion {
        /// Session slot.
        session: SessionId,
        /// The region.
        region: RegionId,
        /// The worker may only read it.
        read_only: bool,
        /// Address in the guest process.
        va: u64,
        /// Length in bytes, the sum of the runs.
        len: u64,
        /// Page runs, in order.
        runs: Vec<Run>,
    },
    /// Unmap a region.
    UnmapRegion {
        /// Session slot.
        session: SessionId,
        /// The region.
        region: RegionId,
    },
    /// Close a session.
    CloseSession {
        /// Session slot.
        session: SessionId,
    },
}

/// The request id of a message, if it is long enough to have one: an answer names it also where the rest makes no sense.
pub fn request_id(bytes: &[u8]) -> Option<u32> {
    control::RequestHeader::read_from_prefix(bytes).ok().map(|(header, _)| header.request_id)
}

impl Request {
    /// Parses a message. `bytes` is the whole of it, copied out of guest memory once.
    ///
    /// # Errors
    /// With `ERROR_TOO_LARGE`, `ERROR_INVALID_LENGTH` or `ERROR_INVALID_REQUEST`, as the guest will see it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > control::REQUEST_BYTES_MAX as usize {
            return Err(Refusal::too_large("message longer than REQUEST_BYTES_MAX"));
        }
        let (header, rest) = control::RequestHeader::read_from_prefix(bytes)
            .map_err(|_| Refusal::length("shorter than a request header"))?;
        if header.reserved != 0 {
            return Err(Refusal::invalid("reserved field of the header is not 0"));
        }
        match header.kind {
            control::HELLO => Self::hello(header.session, rest),
            control::READ_REGS => {
                without_session(header.session)?;
                nothing_after(rest)?;
                Ok(Self::ReadRegs)
            }
            control::READ_INFO => {
                without_session(header.session)?;
                let (body, rest) = body::<control::ReadInfo>(rest)?;
                nothing_after(rest)?;
                if body.len > INFO_BYTES_MAX {
                    return Err(Refusal::too_large("more than 64 KiB of information wanted"));
                }
                Ok(Self::ReadInfo { offset: body.offset, len: body.len })
            }
            control::OPEN_SESSION => Self::open_session(session(header.session)?, rest),
            control::ADD_RING_PART => Self::add_ring_part(session(header.session)?, rest),
            control::REMOVE_RING => {
                let session = session(header.session)?;
                let (body, rest) = body::<control::RingRef>(rest)?;
                nothing_after(rest)?;
                reserved_is_zero(body.reserved.into())?;
                Ok(Self::RemoveRing { session, ring: ring_id(body.ring)? })
            }
            control::MAP_REGION => Self::map_region(session(header.session)?, rest),
            control::UNMAP_REGION => {
                let session = session(header.session)?;
                let (body, rest) = body::<control::RegionRef>(rest)?;
                nothing_after(rest)?;
                reserved_is_zero(body.reserved.into())?;
                Ok(Self::UnmapRegion { session, region: region_id(body.region)? })
            }
            control::CLOSE_SESSION => {
                let session = session(header.session)?;
                let (body, rest) = body::<control::SessionRef>(rest)?;
                nothing_after(rest)?;
                reserved_is_zero(body.reserved)?;
                Ok(Self::CloseSession { session })
            }
            _ => Err(Refusal::invalid("unknown request type")),
        }
    }

    fn hello(session: u32, rest: &[u8]) -> Result<Self, Refusal> {
        without_session(session)?;
        let (body, rest) = body::<control::Hello>(rest)?;
        nothing_after(rest)?;
        reserved_is_zero(body.reserved.into())?;
        page_aligned(body.pending_gpa, "pending page is not page aligned")?;
        Ok(Self::Hello {
            abi_version: body.abi_version,
            boot_nonce: body.boot_nonce,
            pending_gpa: body.pending_gpa,
        })
    }

    fn open_session(session: SessionId, rest: &[u8]) -> Result<Self, Refusal> {
        let (body, env) = body::<control::OpenSession>(rest)?;
        if body.env_len > control::ENV_BYTES_MAX {
            return Err(Refusal::too_large("environment longer than ENV_BYTES_MAX"));
        }
        if env.len() != body.env_len as usize {
            return Err(Refusal::length("environment length does not fit the message"));
        }
        env_is_strings(env)?;
        page_aligned(body.page_gpa, "session page is not page aligned")?;
        Ok(Self::OpenSession {
            session,
            abi_version: body.abi_version,
            pid: body.pid,
            uid: body.uid,
            fingerprint: body.fingerprint,
            page_gpa: body.page_gpa,
            env: env.to_vec(),
        })
    }

    fn add_ring_part(session: SessionId, rest: &[u8]) -> Result<Self, Refusal> {
        let (body, rest) = body::<control::AddRingPart>(rest)?;
        reserved_is_zero(body.reserved.into())?;
        let part = match body.part {
            control::PART_RING => RingPart::Ring,
            control::PART_STAGING => RingPart::Staging,
            _ => return Err(Refusal::invalid("unknown ring part")),
        };
        let limit = match part {
            RingPart::Ring if body.len != u64::from(ring::RING_BYTES) => {
                return Err(Refusal::length("a ring's memory is RING_BYTES long"));
            }
            RingPart::Ring => u64::from(ring::RING_BYTES),
            RingPart::Staging => u64::from(ring::STAGING_BYTES_MAX),
        };
        let runs = runs(rest, body.run_count, body.len, limit)?;
        Ok(Self::AddRingPart { session, ring: ring_id(body.ring)?, part, len: body.len, runs })
    }

    fn map_region(session: SessionId, rest: &[u8]) -> Result<Self, Refusal> {
        let (body, rest) = body::<control::MapRegion>(rest)?;
        reserved_is_zero(body.reserved.into())?;
        if body.flags & !control::MAP_READ_ONLY != 0 {
            return Err(Refusal::invalid("unknown map flag"));
        }
        page_aligned(body.va, "region address is not page aligned")?;
        let runs = runs(rest, body.run_count, body.len, REGION_PART_BYTES_MAX)?;
        match body.va.checked_add(body.len) {
            Some(end) if body.va != 0 && end <= USER_ADDRESS_END => {}
            _ => return Err(Refusal::invalid("region is not in the user's address space")),
        }
        Ok(Self::MapRegion {
            session,
            region: region_id(body.region)?,
            read_only: body.flags & control::MAP_READ_ONLY != 0,
            va: body.va,
            len: body.len,
            runs,
        })
    }
}

fn body<T: FromBytes>(bytes: &[u8]) -> Result<(T, &[u8]), Refusal> {
    T::read_from_prefix(bytes).map_err(|_| Refusal::length("shorter than the body of its type"))
}

fn nothing_after(rest: &[u8]) -> Result<(), Refusal> {
    if rest.is_empty() { Ok(()) } else { Err(Refusal::length("bytes after the body")) }
}

fn without_session(session: u32) -> Result<(), Refusal> {
    if session == 0 { Ok(()) } else { Err(Refusal::invalid("a session named where the type has none")) }
}

fn reserved_is_zero(value: u64) -> Result<(), Refusal> {
    if value == 0 { Ok(()) } else { Err(Refusal::invalid("reserved field is not 0")) }
}

fn is_page_multiple(value: u64) -> bool {
    const { assert!(PAGE_BYTES.is_power_of_two()) };
    value & const { PAGE_BYTES - 1 } == 0
}

fn page_aligned(value: u64, why: &'static str) -> Result<(), Refusal> {
    if is_page_multiple(value) { Ok(()) } else { Err(Refusal::invalid(why)) }
}

fn session(number: u32) -> Result<SessionId, Refusal> {
    SessionId::new(number).ok_or(Refusal::invalid("session slot not below SESSIONS_MAX"))
}

fn ring_id(number: u32) -> Result<RingId, Refusal> {
    RingId::new(number).ok_or(Refusal::invalid("ring not below RINGS_MAX"))
}

fn region_id(number: u32) -> Result<RegionId, Refusal> {
    RegionId::new(number).ok_or(Refusal::invalid("region not below REGIONS_MAX"))
}

/// The environment block is empty, or strings that each end in NUL and have a name before a `=`.
fn env_is_strings(env: &[u8]) -> Result<(), Refusal> {
    let Some((last, strings)) = env.split_last() else { return Ok(()) };
    if *last != 0 {
        return Err(Refusal::invalid("environment does not end in NUL"));
    }
    let named = |entry: &[u8]| entry.iter().position(|byte| *byte == b'=').is_some_and(|at| at > 0);
    if strings.split(|byte| *byte == 0).all(named) {
        Ok(())
    } else {
        Err(Refusal::invalid("environment entry without a name"))
    }
}

/// The runs after a body: `count` of them and nothing else, each page aligned, together `len` long, at most `limit`.
fn runs(bytes: &[u8], count: u32, len: u64, limit: u64) -> Result<Vec<Run>, Refusal> {
    if count == 0 {
        return Err(Refusal::length("no page runs"));
    }
    if count > control::RUNS_MAX {
        return Err(Refusal::too_large("more page runs than RUNS_MAX"));
    }
    if len == 0 || len > limit {
        return Err(Refusal::length("length out of its bounds"));
    }
    let (runs, rest) = copied_runs(bytes, count)?;
    nothing_after(rest)?;
    let mut sum = 0u64;
    for run in &runs {
        if run.len == 0 || !is_page_multiple(run.len) || !is_page_multiple(run.gpa) {
            return Err(Refusal::invalid("page run is empty or not page aligned"));
        }
        if run.gpa.checked_add(run.len).is_none() {
            return Err(Refusal::invalid("page run passes the end of the address space"));
        }
        sum = sum.checked_add(run.len).ok_or(Refusal::length("page runs longer than any memory"))?;
    }
    if sum != len {
        return Err(Refusal::length("page runs do not add up to the length"));
    }
    Ok(runs)
}

/// The first `count` runs; memory is reserved only for what the message really holds.
fn copied_runs(mut bytes: &[u8], count: u32) -> Result<(Vec<Run>, &[u8]), Refusal> {
    let size = size_of::<Run>();
    if bytes.len().checked_div(size).is_none_or(|runs| runs < count as usize) {
        return Err(Refusal::length("fewer page runs than announced"));
    }
    let mut runs = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (run, rest) = body::<Run>(bytes)?;
        runs.push(run);
        bytes = rest;
    }
    Ok((runs, bytes))
}
