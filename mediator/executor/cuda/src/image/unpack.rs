//! Compressed entries of fatbins.

use std::borrow::Cow;
use std::io::Read;

use super::Entry;

/// The entry's payload is a block of LZ4, or a frame of zstd.
pub(crate) const FLAG_LZ4: u64 = 0x2000;
pub(crate) const FLAG_ZSTD: u64 = 0x8000;

impl<'a> Entry<'a> {
    /// The entry's bytes; `None` where they cannot be told, or are more than `most`.
    pub(crate) fn unpack(&self, most: usize) -> Option<Cow<'a, [u8]>> {
        if self.flags & (FLAG_LZ4 | FLAG_ZSTD) == 0 {
            return Some(Cow::Borrowed(self.payload));
        }
        let packed = self.payload.get(..self.compressed)?;
        if self.whole > most {
            return None;
        }
        if self.flags & FLAG_LZ4 != 0 {
            // A block of LZ4 grows at most 255-fold: a larger claim is not allocated.
            if self.whole.div_ceil(255) > packed.len() {
                return None;
            }
            return lz4_flex::block::decompress(packed, self.whole).ok().map(Cow::Owned);
        }
        let mut whole = Vec::new();
        let decoder = ruzstd::decoding::StreamingDecoder::new(packed).ok()?;
        decoder.take((most as u64).saturating_add(1)).read_to_end(&mut whole).ok()?;
        (whole.len() == self.whole).then_some(Cow::Owned(whole))
    }
}
