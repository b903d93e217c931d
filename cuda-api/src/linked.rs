//! An image of several fat binaries: relocatable device code that nvcc has linked, with the parts that it was linked from. In a
//! program it is a wrapper of version 2, which names the linked fat binary and a list of the others; the driver takes the
//! linked one where it has code for the device, and links the others itself where it has none.
//!
//! On the way to the worker they are one image (all numbers little-endian):
//!
//! | bytes | what |
//! |---|---|
//! | 4 | "VGFL" |
//! | 4 | the number of fat binaries, the linked one among them, which comes first |
//! | 8 each | their lengths in bytes |
//! | | each in turn, with zeroes up to a multiple of 8 bytes |

use std::ops::Range;

/// The first bytes. No other image begins so.
pub const MAGIC: [u8; 4] = *b"VGFL";
/// Fat binaries in an image.
pub const PARTS_MAX: usize = 4096;

const HEADER_BYTES: usize = 8;
const LENGTH_BYTES: usize = 8;
const ALIGNMENT: usize = 8;

/// One image of these fat binaries, if it has at most `bytes_max` bytes.
#[must_use]
pub fn pack(parts: &[&[u8]], bytes_max: usize) -> Option<Vec<u8>> {
    let count = u32::try_from(parts.len()).ok().filter(|_| parts.len() <= PARTS_MAX)?;
    let mut total = parts.len().checked_mul(LENGTH_BYTES)?.checked_add(HEADER_BYTES)?;
    for part in parts {
        total = total.checked_add(part.len().checked_next_multiple_of(ALIGNMENT)?)?;
    }
    if total > bytes_max {
        return None;
    }
    let mut image = Vec::with_capacity(total);
    image.extend_from_slice(&MAGIC);
    image.extend_from_slice(&count.to_le_bytes());
    for part in parts {
        image.extend_from_slice(&(part.len() as u64).to_le_bytes());
    }
    for part in parts {
        image.extend_from_slice(part);
        image.resize(image.len().next_multiple_of(ALIGNMENT), 0);
    }
    Some(image)
}

/// Where in such an image the fat binaries are: each within it, none in another, all 8-byte aligned. None where it is no
/// such image, or not whole.
#[must_use]
pub fn parts(image: &[u8]) -> Option<Vec<Range<usize>>> {
    let rest = image.strip_prefix(&MAGIC)?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok().filter(|n| (1..=PARTS_MAX).contains(n))?;
    let lengths = rest.get(..count.checked_mul(LENGTH_BYTES)?)?;
    let mut at = HEADER_BYTES.checked_add(lengths.len())?;
    let mut parts = Vec::with_capacity(count);
    for length in lengths.as_chunks::<LENGTH_BYTES>().0 {
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let end = at.checked_add(length).filter(|end| *end <= image.len())?;
        parts.push(at..end);
        at = end.checked_next_multiple_of(ALIGNMENT)?;
    }
    (at == image.len()).then_some(parts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_found_again() {
        let given: [&[u8]; 3] = [b"linked", b"", b"a part of more than eight bytes"];
        let image = pack(&given, 1 << 20).unwrap();
        let found = parts(&image).unwrap();
        assert!(found.iter().all(|part| part.start.is_multiple_of(ALIGNMENT)));
        let found: Vec<_> = found.into_iter().map(|part| image.get(part).unwrap()).collect();
        assert_eq!(found, given);
        assert_eq!(pack(&given, image.len() - 1), None);
    }

    #[test]
    fn what_is_not_whole_is_none() {
        let image = pack(&[b"0123456789", b"abc"], 1 << 20).unwrap();
        for len in 0..image.len() {
            assert_eq!(parts(&image[..len]), None, "{len} bytes");
        }
        let mut longer = image.clone();
        longer.extend_from_slice(&[0; 8]);
        assert_eq!(parts(&longer), None);
        for count in [0, 1, 3, u32::MAX] {
            let mut wrong = image.clone();
            wrong[4..8].copy_from_slice(&count.to_le_bytes());
            assert_eq!(parts(&wrong), None, "{count} parts");
        }
        for length in [u64::MAX, u64::MAX - 20, 1 << 32, 40] {
            let mut wrong = image.clone();
            wrong[8..16].copy_from_slice(&length.to_le_bytes());
            assert_eq!(parts(&wrong), None, "a length of {length}");
        }
    }
}
