//! JIT options: numbers pass, addresses do not; the logs are buffers of our own.

use std::ffi::c_void;

use cuda_api::CuResult;
use cuda_api::types::CUresult;

/// Bytes of a log at most, and what the daemon's own log wants to know of a failure.
const LOG_BYTES_MAX: usize = 16 << 10;
const ERROR_LOG_BYTES_MIN: usize = 2 << 10;
/// Options at most.
const OPTIONS_MAX: usize = 64;

/// CU_JIT_INFO_LOG_BUFFER, …_SIZE_BYTES, CU_JIT_ERROR_LOG_BUFFER, …_SIZE_BYTES.
const INFO_LOG: u32 = 3;
const INFO_LOG_BYTES: u32 = 4;
const ERROR_LOG: u32 = 5;
const ERROR_LOG_BYTES: u32 = 6;

/// The option's value is a number.
fn is_number(option: u32) -> bool {
    // Registers, threads; optimisation, target, fallback, debug and line information, cache mode …; link-time
    // optimisation and its arithmetic; unused variables, position-independent code, occupancy, split compilation.
    matches!(option, 0 | 1 | 7..=16 | 20..=24 | 29..=34)
}

/// Pairs of (option, value) as numbers and values.
type Pairs = (Vec<u32>, Vec<*mut c_void>);

/// Reads pairs of (option, value), 8 bytes each, of options that are numbers.
pub(crate) fn numbers(bytes: &[u8]) -> CuResult<Pairs> {
    let (words, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() || !words.len().is_multiple_of(2) || words.len() > OPTIONS_MAX {
        return Err(CUresult::INVALID_VALUE);
    }
    let (mut numbers, mut values) = Pairs::default();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    while let (Some(number), Some(value)) = (words.next(), words.next()) {
        let number = u32::try_from(number).map_err(|_| CUresult::INVALID_VALUE)?;
        if !is_number(number) {
            log::warn!("JIT option {number} is not supported");
            return Err(CUresult::NOT_SUPPORTED);
        }
        numbers.push(number);
        values.push(std::ptr::without_provenance_mut(
            usize::try_from(value).map_err(|_| CUresult::INVALID_VALUE)?,
        ));
    }
    Ok((numbers, values))
}

/// A load's options, as the driver wants them.
pub(crate) struct Options {
    numbers: Vec<u32>,
    values: Vec<*mut c_void>,
    info: Vec<u8>,
    error: Vec<u8>,
    info_room: usize,
    error_room: usize,
}

impl Options {
    /// Reads pairs of (option, value), 8 bytes each, and makes room for the logs.
    pub(crate) fn read(bytes: &[u8], info_room: u32, error_room: u32) -> CuResult<Self> {
        let (numbers, values) = numbers(bytes)?;
        let room = |bytes: u32| usize::try_from(bytes).unwrap_or(0).min(LOG_BYTES_MAX);
        let (info_room, error_room) = (room(info_room), room(error_room));
        let mut options = Options {
            numbers,
            values,
            info: vec![0; info_room],
            error: vec![0; error_room.max(ERROR_LOG_BYTES_MIN)],
            info_room,
            error_room,
        };
        if !options.info.is_empty() {
            let (at, len) = (options.info.as_mut_ptr().cast(), options.info.len());
            options.push(INFO_LOG, at);
            options.push(INFO_LOG_BYTES, std::ptr::without_provenance_mut(len));
        }
        let (at, len) = (options.error.as_mut_ptr().cast(), options.error.len());
        options.push(ERROR_LOG, at);
        options.push(ERROR_LOG_BYTES, std::ptr::without_provenance_mut(len));
        Ok(options)
    }

    fn push(&mut self, number: u32, value: *mut c_void) {
        self.numbers.push(number);
        self.values.push(value);
    }

    /// Count, numbers and values: valid while `self` is.
    pub(crate) fn arrays(&mut self) -> (u32, *mut u32, *mut *mut c_void) {
        let count = u32::try_from(self.numbers.len()).unwrap_or(0);
        (count, self.numbers.as_mut_ptr(), self.values.as_mut_ptr())
    }

    /// The logs, for the guest.
    pub(crate) fn logs(&self) -> (Vec<u8>, Vec<u8>) {
        let text = |log: &[u8]| log.split(|b| *b == 0).next().unwrap_or_default().to_vec();
        let (mut info, mut error) = (text(&self.info), text(&self.error));
        info.truncate(self.info_room);
        error.truncate(self.error_room);
        (info, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(u64, u64)]) -> Vec<u8> {
        pairs.iter().flat_map(|(a, b)| [a.to_le_bytes(), b.to_le_bytes()].concat()).collect()
    }

    #[test]
    fn numbers_pass_and_addresses_do_not() {
        let mut options = Options::read(&pairs(&[(7, 4), (0, 32)]), 100, 0).unwrap();
        assert_eq!(options.arrays().0, 6);
        assert_eq!(options.numbers, [7, 0, 3, 4, 5, 6]);
        for option in [2, 3, 4, 5, 6, 17, 18, 19, 25, 28, 35, 1 << 40] {
            assert!(Options::read(&pairs(&[(option, 1)]), 0, 0).is_err(), "{option}");
        }
        assert!(Options::read(&[0; 8], 0, 0).is_err());
        assert!(Options::read(&pairs(&[(7, 4); 33]), 0, 0).is_err());
    }

    #[test]
    fn logs_end_at_their_nul_and_at_the_guests_room() {
        let mut options = Options::read(&[], 8, 3).unwrap();
        options.info[..4].copy_from_slice(b"info");
        options.error[..6].copy_from_slice(b"error\n");
        let (info, error) = options.logs();
        assert_eq!((info.as_slice(), error.as_slice()), (&b"info"[..], &b"err"[..]));
    }
}
