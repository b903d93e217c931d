//! Stream attributes: hints to a GPU, which a program may read back. Nothing here is any different for them.

use cuda_api::CuResult;
use cuda_api::host::{Access, Base};
use cuda_api::types::{CUresult, CUstream, Handle};

use crate::Soft;
use crate::lock::lock;
use crate::soft::Thread;

/// CUlaunchAttributeID, of those that a stream has.
const ACCESS_POLICY_WINDOW: u32 = 1;
const SYNCHRONIZATION_POLICY: u32 = 3;
const PRIORITY: u32 = 8;
const MEM_SYNC_DOMAIN_MAP: u32 = 9;
const MEM_SYNC_DOMAIN: u32 = 10;

/// Bytes of a CUaccessPolicyWindow: an address, a length, and three words.
const WINDOW_BYTES: usize = 32;

/// A stream's attributes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    window: [u8; WINDOW_BYTES],
    /// CUsynchronizationPolicy.
    policy: u32,
    priority: i32,
    domains: [u8; 2],
    domain: u32,
}

impl Attributes {
    pub(crate) fn new(priority: i32) -> Self {
        // CU_SYNC_POLICY_AUTO; the two domains stand for themselves, as far as there are several.
        Attributes { window: [0; WINDOW_BYTES], policy: 1, priority, domains: [0, 0], domain: 0 }
    }
}

fn word(value: &[u8]) -> CuResult<u32> {
    value.try_into().map(u32::from_ne_bytes).map_err(|_| CUresult::INVALID_VALUE)
}

fn long(value: &[u8], at: usize) -> CuResult<u64> {
    let bytes = at.checked_add(8).and_then(|end| value.get(at..end)).ok_or(CUresult::INVALID_VALUE)?;
    bytes.try_into().map(u64::from_ne_bytes).map_err(|_| CUresult::INVALID_VALUE)
}

impl Soft {
    pub(crate) fn attribute(&self, thread: &Thread, stream: CUstream, attribute: u32) -> CuResult<Vec<u8>> {
        self.stream(thread, stream)?;
        // The default streams have none of their own.
        let found = self.streams.get(stream).map_or(Attributes::new(0), |s| *lock(&s.attributes));
        match attribute {
            ACCESS_POLICY_WINDOW => Ok(found.window.to_vec()),
            SYNCHRONIZATION_POLICY => Ok(found.policy.to_ne_bytes().to_vec()),
            PRIORITY => Ok(found.priority.to_ne_bytes().to_vec()),
            MEM_SYNC_DOMAIN_MAP => Ok(found.domains.to_vec()),
            MEM_SYNC_DOMAIN => Ok(found.domain.to_ne_bytes().to_vec()),
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    pub(crate) fn set_attribute(
        &self,
        thread: &Thread,
        stream: CUstream,
        attribute: u32,
        value: &[u8],
    ) -> CuResult<()> {
        self.stream(thread, stream)?;
        if CUstream::SPECIAL.contains(&stream.raw()) {
            return Err(self.unsupported("cuStreamSetAttribute of a default stream"));
        }
        let stream = self.streams.get(stream)?;
        let mut attributes = lock(&stream.attributes);
        match attribute {
            ACCESS_POLICY_WINDOW => {
                let window = value.try_into().map_err(|_| CUresult::INVALID_VALUE)?;
                let len = long(value, 8)?;
                // CUaccessProperty: normal, streaming, persisting; what misses does not persist.
                let [hit, miss] = [long(value, 16)?.wrapping_shr(32), long(value, 24)? & 0xffff_ffff];
                let ratio =
                    value.get(16..20).ok_or(CUresult::INVALID_VALUE).and_then(word).map(f32::from_bits)?;
                if !(0.0..=1.0).contains(&ratio) || hit > 2 || miss > 1 {
                    return Err(CUresult::INVALID_VALUE);
                }
                if len != 0 {
                    self.check_range(long(value, 0)?, len, Access::Read)?;
                }
                attributes.window = window;
            }
            SYNCHRONIZATION_POLICY => {
                attributes.policy =
                    Some(word(value)?).filter(|p| (1..=4).contains(p)).ok_or(CUresult::INVALID_VALUE)?;
            }
            PRIORITY => {
                let (low, high) = self.priorities();
                attributes.priority = word(value)?.cast_signed().clamp(high.min(low), low.max(high));
            }
            MEM_SYNC_DOMAIN_MAP => {
                // There is one domain.
                attributes.domains =
                    value.try_into().ok().filter(|d| *d == [0, 0]).ok_or(CUresult::INVALID_VALUE)?;
            }
            MEM_SYNC_DOMAIN => {
                attributes.domain = Some(word(value)?).filter(|d| *d <= 1).ok_or(CUresult::INVALID_VALUE)?;
            }
            _ => return Err(CUresult::INVALID_VALUE),
        }
        Ok(())
    }

    pub(crate) fn copy_attributes(&self, thread: &Thread, to: CUstream, from: CUstream) -> CuResult<()> {
        self.stream(thread, to)?;
        self.stream(thread, from)?;
        if [to, from].iter().any(|stream| CUstream::SPECIAL.contains(&stream.raw())) {
            return Err(self.unsupported("cuStreamCopyAttributes of a default stream"));
        }
        let (to, from) = (self.streams.get(to)?, self.streams.get(from)?);
        let copied = *lock(&from.attributes);
        *lock(&to.attributes) = copied;
        Ok(())
    }
}
