//! What the fuzzers and the replay test of their corpora both do with an input.
//!
//! A frame's input is its wire id (4 bytes, little endian) and its arguments; it goes through the host's dispatch to an executor that
//! does nothing. Arguments reach it as a worker's do: a private, 8-byte aligned copy whose length is a multiple of 8.

use cuda_api::CuResult;
use cuda_api::calls;
use cuda_api::host::{Access, Base, dispatch};
use cuda_api::info::VmInfo;
use cuda_api::types::{CUdeviceptr, CUresult};
use zerocopy::IntoBytes;

/// An executor that does no call.
struct Nothing;

impl Base for Nothing {
    type Thread = ();

    /// Refuses what no address space has, so that rows with several ranges get past the first.
    fn check_range(&self, start: CUdeviceptr, len: u64, _: Access) -> CuResult<()> {
        match start.checked_add(len) {
            Some(end) if end < 1 << 47 => Ok(()),
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    fn unsupported(&self, name: &'static str) -> CUresult {
        assert!(!name.is_empty());
        CUresult::NOT_SUPPORTED
    }
}

macro_rules! does_nothing {
    ($($chapter:ident)*) => { $( impl calls::$chapter::Host for Nothing {} )* };
}
does_nothing! {
    launch copy stream event memory entry device context module library graph virtual_memory texture interop
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its fields are what its row says; the executor was asked, or a range was refused before.
    Taken,
    /// The session would end.
    Malformed,
}

/// Carries out a frame. Panics if a call that nobody does succeeds, or leaves bytes in the reply.
pub fn frame(data: &[u8]) -> Outcome {
    let Some((id, args)) = data.split_first_chunk::<4>() else { return Outcome::Malformed };
    let words: Vec<u64> = args
        .chunks(8)
        .map(|c| u64::from_le_bytes(std::array::from_fn(|i| c.get(i).copied().unwrap_or(0))))
        .collect();
    let mut reply = Vec::new();
    match dispatch(&Nothing, &mut (), u32::from_le_bytes(*id), words.as_bytes(), &mut reply) {
        Ok(result) => {
            assert_ne!(result, CUresult::SUCCESS);
            assert!(reply.is_empty());
            Outcome::Taken
        }
        Err(_) => Outcome::Malformed,
    }
}

/// Reads a blob; what is taken for one must survive being written again. True: it was taken.
pub fn vm_info(data: &[u8]) -> bool {
    let words: Vec<u64> = data
        .chunks(8)
        .map(|c| u64::from_le_bytes(std::array::from_fn(|i| c.get(i).copied().unwrap_or(0))))
        .collect();
    let Ok(info) = VmInfo::decode(words.as_bytes()) else { return false };
    let again = info.encode();
    let words: Vec<u64> =
        again.chunks_exact(8).map(|c| u64::from_le_bytes(std::array::from_fn(|i| c[i]))).collect();
    assert_eq!(VmInfo::decode(words.as_bytes()).as_ref(), Ok(&info));
    // Attributes are asked for by numbers from the application.
    for device in &info.devices {
        for number in [i32::MIN, -1, 0, 1, i32::MAX] {
            let _ = device.attribute(number);
        }
    }
    true
}
