//! Frames as the host sees them: found, checked, copied out.

use pci_layout::ring::{
    FRAME_ALIGN, FRAME_AREA_BYTES, FRAME_BULK, FRAME_BYTES_MAX, FRAME_PAD, FRAME_UNORDERED, FRAME_WAIT,
    FrameHeader,
};

use crate::{FRAME_HEADER_BYTES, RingMemory};

/// What a guest did that no rule-abiding guest does. The session it belongs to ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// `head` moved back behind a position that was seen or consumed before.
    #[error("head {head:#x} lies behind position {position:#x}")]
    HeadRanBack {
        /// The value read.
        head: u64,
        /// Where the host is.
        position: u64,
    },
    /// `head` claims more bytes than the frame area has.
    #[error("head {head:#x} is more than the frame area ahead of tail {tail:#x}")]
    HeadRanAway {
        /// The value read.
        head: u64,
        /// What the host has consumed.
        tail: u64,
    },
    /// `head` is not a multiple of the frame alignment.
    #[error("head {head:#x} is not a multiple of {FRAME_ALIGN}")]
    HeadUnaligned {
        /// The value read.
        head: u64,
    },
    /// A frame's length is impossible: unaligned, shorter than its header, longer than a frame may be, than what is
    /// published, or than what is left of the area; or a pad that does not end at the end of the area.
    #[error("frame length {len} at {position:#x}, with {published} bytes published")]
    BadLength {
        /// The length read.
        len: u32,
        /// Where the frame starts.
        position: u64,
        /// Bytes published from there.
        published: u64,
    },
    /// A frame has flags that do not exist or do not go together.
    #[error("frame flags {flags:#x} at {position:#x}")]
    BadFlags {
        /// The flags read.
        flags: u32,
        /// Where the frame starts.
        position: u64,
    },
    /// A frame's ticket is 0 or not above the one before it in the same ring.
    #[error("ticket {ticket} follows {previous} at {position:#x}")]
    TicketNotRising {
        /// The ticket read.
        ticket: u64,
        /// The ring's last ticket.
        previous: u64,
        /// Where the frame starts.
        position: u64,
    },
}

/// What the header of the next frame says. A checked copy: the guest cannot change it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Front {
    /// Process-wide order number.
    pub ticket: u64,
    /// Wire id of the call.
    pub call: u32,
    /// `FRAME_` bits, only known ones, never FRAME_PAD.
    pub flags: u32,
    /// Number of the calling thread's current context, 0 = none.
    pub context: u32,
    /// Bytes of arguments, fill-up zeros included.
    pub args_len: u32,
}

impl Front {
    /// True if the guest waits for the reply; false if the call is posted.
    pub fn waits(&self) -> bool {
        self.flags & FRAME_WAIT != 0
    }

    /// True if the call uses the staging buffer.
    pub fn is_bulk(&self) -> bool {
        self.flags & FRAME_BULK != 0
    }
}

/// A frame, copied out of guest memory.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Wire id of the call.
    pub call: u32,
    /// `FRAME_` bits.
    pub flags: u32,
    /// Number of the calling thread's current context, 0 = none.
    pub context: u32,
    /// Process-wide order number.
    pub ticket: u64,
    /// The arguments, with up to 7 zero bytes of fill-up at the end.
    pub args: &'a [u8],
}

impl Frame<'_> {
    /// True if the guest waits for the reply; false if the call is posted.
    pub fn waits(&self) -> bool {
        self.flags & FRAME_WAIT != 0
    }

    /// True if the call uses the staging buffer.
    pub fn is_bulk(&self) -> bool {
        self.flags & FRAME_BULK != 0
    }
}

/// The bits of a position that are its offset in the frame area.
const OFFSET_MASK: u64 = FRAME_AREA_BYTES as u64 - 1;
/// The bits that no position and no frame length has.
const UNALIGNED: u64 = FRAME_ALIGN as u64 - 1;
/// The frame header's length as frames tell theirs.
#[allow(clippy::cast_possible_truncation, reason = "24")]
const HEADER_LEN: u32 = FRAME_HEADER_BYTES as u32;
/// Longest arguments, in bytes.
const ARGS_MAX: usize = FRAME_BYTES_MAX as usize - FRAME_HEADER_BYTES;

/// The host's private copy of one frame's arguments. Its size is ours, not the guest's; one is reused for all frames.
pub struct FrameBuffer {
    /// Words, so that arguments start 8-byte aligned.
    words: Box<[u64]>,
}

impl FrameBuffer {
    /// Room for the longest frame.
    pub fn new() -> Self {
        Self { words: vec![0; ARGS_MAX.div_ceil(size_of::<u64>())].into_boxed_slice() }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = size_of_val(&*self.words);
        // SAFETY: the same private memory as bytes, of the same length; every byte of a u64 is initialised.
        unsafe { core::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), len) }
    }

    /// Copies the arguments of `found` out of the ring and joins them with the header that was checked before.
    pub(crate) fn fill(&mut self, memory: &RingMemory, found: &Found) -> Result<Frame<'_>, RingError> {
        let Front { ticket, call, flags, context, args_len } = found.front;
        let offset = area_offset(found.position).saturating_add(FRAME_HEADER_BYTES);
        // Neither fails for what `find` has found; if they did, an error is what we want, not a panic.
        let impossible = RingError::BadLength { len: args_len, position: found.position, published: 0 };
        let args = self.bytes_mut().get_mut(..args_len as usize).ok_or(impossible)?;
        if !memory.read_frames(offset, args) {
            return Err(impossible);
        }
        Ok(Frame { call, flags, context, ticket, args })
    }
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for FrameBuffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FrameBuffer").finish_non_exhaustive()
    }
}

/// A frame found in the ring: where it starts, where the next one does, and its checked header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) next: u64,
    pub(crate) front: Front,
}

/// Offset in the frame area of a position: always below the area's length.
#[allow(clippy::cast_possible_truncation, reason = "masked to the area's length")]
pub(crate) fn area_offset(position: u64) -> usize {
    (position & OFFSET_MASK) as usize
}

/// Checks a `head` that was read against the consumer's position.
pub(crate) fn check_head(head: u64, seen: u64, tail: u64) -> Result<(), RingError> {
    if head < seen {
        return Err(RingError::HeadRanBack { head, position: seen });
    }
    match head.checked_sub(tail) {
        Some(ahead) if ahead <= u64::from(FRAME_AREA_BYTES) => {}
        _ => return Err(RingError::HeadRanAway { head, tail }),
    }
    if head & UNALIGNED != 0 {
        return Err(RingError::HeadUnaligned { head });
    }
    Ok(())
}

/// Finds the first frame between `position` and `head`, both multiples of the frame alignment and at most the area
/// apart; skips padding. Reads the header once.
pub(crate) fn find(
    memory: &RingMemory,
    position: u64,
    head: u64,
    last_ticket: u64,
) -> Result<Option<Found>, RingError> {
    let start = position;
    let mut position = position;
    // After padding the offset is 0, where padding is refused: two rounds at most.
    loop {
        let published = head.saturating_sub(position);
        if published == 0 && position == start {
            return Ok(None);
        }
        let offset = area_offset(position);
        let rest = (FRAME_AREA_BYTES as usize).saturating_sub(offset) as u64;
        let bad_length = |len: u32| RingError::BadLength { len, position, published };
        if rest < FRAME_HEADER_BYTES as u64 {
            if published < rest {
                return Err(bad_length(0));
            }
            position = position.saturating_add(rest);
            continue;
        }
        let mut bytes = [0; FRAME_HEADER_BYTES];
        // Padding is published together with the frame it makes room for: nothing after it is an error too.
        if published < FRAME_HEADER_BYTES as u64 || !memory.read_frames(offset, &mut bytes) {
            return Err(bad_length(0));
        }
        let FrameHeader { len, call, flags, context, ticket } = header_of(bytes);
        if u64::from(len) > published.min(rest) {
            return Err(bad_length(len));
        }
        if flags & FRAME_PAD != 0 {
            if flags != FRAME_PAD {
                return Err(RingError::BadFlags { flags, position });
            }
            if u64::from(len) != rest || offset == 0 {
                return Err(bad_length(len));
            }
            position = position.saturating_add(rest);
            continue;
        }
        if flags & !(FRAME_WAIT | FRAME_BULK | FRAME_UNORDERED) != 0 {
            return Err(RingError::BadFlags { flags, position });
        }
        let args_len = match len.checked_sub(HEADER_LEN) {
            Some(args_len) if u64::from(len) & UNALIGNED == 0 && len <= FRAME_BYTES_MAX => args_len,
            _ => return Err(bad_length(len)),
        };
        if ticket <= last_ticket {
            return Err(RingError::TicketNotRising { ticket, previous: last_ticket, position });
        }
        let front = Front { ticket, call, flags, context, args_len };
        return Ok(Some(Found { position, next: position.saturating_add(u64::from(len)), front }));
    }
}

/// The header in `bytes`, in the order of its fields.
fn header_of(bytes: [u8; FRAME_HEADER_BYTES]) -> FrameHeader {
    zerocopy::transmute!(bytes)
}
