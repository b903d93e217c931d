//! Loads, stores and atomics.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::error::Fault;
use crate::run::code::{Ins, NONE};
use crate::run::lanes::{ALL, Frame, Lane, Lanes};
use crate::run::memory::{LOCAL_WINDOW, Place, Port, SPACE_SHIFT, addresses, space};

/// A lane type as it lies in memory.
pub(crate) trait Cell: Lane {
    /// Bytes.
    const SIZE: u64;
    /// # Safety
    /// `p` is valid for SIZE bytes and aligned to it.
    unsafe fn load(p: *mut u8) -> Self;
    /// # Safety
    /// `p` is valid for writes of SIZE bytes and aligned to it.
    unsafe fn store(self, p: *mut u8);
    /// Replaces the value if it still is `old`; else says what it is.
    /// # Safety
    /// As `store`.
    unsafe fn exchange(p: *mut u8, old: Self, new: Self) -> Result<(), Self>;
}

macro_rules! cells {
    ($($t:ty, $atomic:ident, $bits:ty, |$a:ident| $from:expr, |$b:ident| $into:expr;)*) => {$(
        impl Cell for $t {
            const SIZE: u64 = size_of::<$t>() as u64;
            #[inline(always)]
            unsafe fn load(p: *mut u8) -> Self {
                // SAFETY: the caller's promise is the contract of from_ptr; concurrent accesses are atomic too.
                let $a: $bits = unsafe { $atomic::from_ptr(p.cast()) }.load(Ordering::Relaxed);
                $from
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut u8) {
                let $b = self;
                let bits: $bits = $into;
                // SAFETY: as in `load`.
                unsafe { $atomic::from_ptr(p.cast()) }.store(bits, Ordering::Relaxed);
            }
            #[inline(always)]
            unsafe fn exchange(p: *mut u8, old: Self, new: Self) -> Result<(), Self> {
                let old: $bits = { let $b = old; $into };
                let new: $bits = { let $b = new; $into };
                // SAFETY: as in `load`.
                let cell = unsafe { $atomic::from_ptr(p.cast()) };
                match cell.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => Ok(()),
                    Err($a) => Err($from),
                }
            }
        }
    )*};
}

cells! {
    u8, AtomicU8, u8, |a| a, |b| b;
    i8, AtomicU8, u8, |a| a as i8, |b| b as u8;
    u16, AtomicU16, u16, |a| a, |b| b;
    i16, AtomicU16, u16, |a| a as i16, |b| b as u16;
    u32, AtomicU32, u32, |a| a, |b| b;
    i32, AtomicU32, u32, |a| a as i32, |b| b as u32;
    f32, AtomicU32, u32, |a| f32::from_bits(a), |b| b.to_bits();
    u64, AtomicU64, u64, |a| a, |b| b;
    i64, AtomicU64, u64, |a| a as i64, |b| b as u64;
    f64, AtomicU64, u64, |a| f64::from_bits(a), |b| b.to_bits();
}

/// Lane k accesses `size` bytes right behind lane k - 1.
#[inline(always)]
fn contiguous(addrs: &[u64; 32], size: u64) -> bool {
    let mut same = true;
    for (k, a) in addrs.iter().enumerate() {
        same &= *a == addrs[0].wrapping_add(k as u64 * size);
    }
    same
}

/// `ld`: `r0`…`r3` destinations (or [`NONE`]), `N` of them.
pub(crate) fn load<T: Cell, const SPACE: u8, const N: usize>(
    port: &mut Port<'_>,
    f: &mut Frame,
    i: &Ins,
    mask: u32,
) -> Result<(), Fault> {
    let len = T::SIZE * N as u64;
    let addrs = addresses(f, i);
    if N == 1
        && mask == ALL
        && (SPACE == space::GLOBAL || SPACE == space::SHARED)
        && addrs[0] & (len - 1) == 0
        && contiguous(&addrs, len)
        && let Ok(place) = port.span::<SPACE>(i, 0, addrs[0], len * 32, false)
    {
        let row = f.words_mut::<T::W>(i.r[0]);
        for (lane, word) in row.iter_mut().enumerate() {
            // SAFETY: `span` has checked 32 elements from `host` on; aligned as the first address is.
            *word = unsafe { T::load(place.host.add(lane * T::SIZE as usize)) }.into_word();
        }
        return Ok(());
    }
    for lane in Lanes(mask) {
        let place = port.locate::<SPACE>(i, lane, addrs[lane], len, false)?;
        for k in 0..N {
            if i.r[k] != NONE {
                // SAFETY: `locate` has checked N elements from `host` on, and their alignment.
                let v = unsafe { T::load(place.host.add(k * T::SIZE as usize)) };
                f.words_mut::<T::W>(i.r[k])[lane] = v.into_word();
            }
        }
    }
    Ok(())
}

/// `st`: `r0`…`r3` sources, `N` of them.
pub(crate) fn store<T: Cell, const SPACE: u8, const N: usize>(
    port: &mut Port<'_>,
    f: &mut Frame,
    i: &Ins,
    mask: u32,
) -> Result<(), Fault> {
    let len = T::SIZE * N as u64;
    let addrs = addresses(f, i);
    if N == 1
        && mask == ALL
        && (SPACE == space::GLOBAL || SPACE == space::SHARED)
        && addrs[0] & (len - 1) == 0
        && contiguous(&addrs, len)
        && let Ok(place) = port.span::<SPACE>(i, 0, addrs[0], len * 32, true)
    {
        let row = f.words::<T::W>(i.r[0]);
        for (lane, word) in row.iter().enumerate() {
            // SAFETY: `span` has checked 32 elements from `host` on; aligned as the first address is.
            unsafe { T::from_word(*word).store(place.host.add(lane * T::SIZE as usize)) };
        }
        return Ok(());
    }
    for lane in Lanes(mask) {
        let place = port.locate::<SPACE>(i, lane, addrs[lane], len, true)?;
        for k in 0..N {
            let v = T::from_word(f.words::<T::W>(i.r[k])[lane]);
            // SAFETY: `locate` has checked N elements from `host` on, and their alignment.
            unsafe { v.store(place.host.add(k * T::SIZE as usize)) };
        }
    }
    Ok(())
}

/// `atom`, `red`: `r0` destination or [`NONE`], `r1` and `r2` operands; `op(old, b, c)` is the new value, and is told
/// whether the place is global memory.
#[inline(always)]
pub(crate) fn atomic<T: Cell>(
    port: &mut Port<'_>,
    f: &mut Frame,
    i: &Ins,
    mask: u32,
    op: impl Fn(T, T, T, bool) -> T,
) -> Result<(), Fault> {
    let addrs = addresses(f, i);
    for lane in Lanes(mask) {
        if (i.r[5] >> SPACE_SHIFT) & 7 == u32::from(space::GENERIC) && addrs[lane] >> 32 == LOCAL_WINDOW >> 32
        {
            return Err(Fault::InvalidAddressSpace { addr: addrs[lane], line: i.line });
        }
        let place: Place = port.locate_in(i, lane, addrs[lane], T::SIZE, true)?;
        let b = T::from_word(f.words::<T::W>(i.r[1])[lane]);
        let c = if i.r[2] == NONE { b } else { T::from_word(f.words::<T::W>(i.r[2])[lane]) };
        // SAFETY: `locate_in` has checked SIZE bytes at `host` for writing, and their alignment.
        let mut old = unsafe { T::load(place.host) };
        if place.global {
            loop {
                // SAFETY: as above.
                match unsafe { T::exchange(place.host, old, op(old, b, c, true)) } {
                    Ok(()) => break,
                    Err(seen) => old = seen,
                }
            }
        } else {
            // SAFETY: as above; the place belongs to this host thread.
            unsafe { op(old, b, c, false).store(place.host) };
        }
        if i.r[0] != NONE {
            f.words_mut::<T::W>(i.r[0])[lane] = old.into_word();
        }
    }
    Ok(())
}

/// `cp.async`: `r4` shared destination, `r0` row of the global source address, `r1` row of the number of source bytes
/// or [`NONE`], `r2` bytes to write, `r3` bytes added to the source address. Copies at once, which the weak ordering of the instruction allows.
pub(crate) fn copy_async(port: &mut Port<'_>, f: &mut Frame, i: &Ins, mask: u32) -> Result<(), Fault> {
    let addrs = addresses(f, i);
    let len = u64::from(i.r[2]);
    for lane in Lanes(mask) {
        let from = f.words::<u64>(i.r[0])[lane].wrapping_add(i64::from(i.r[3] as i32) as u64);
        let wanted = if i.r[1] == NONE { len } else { u64::from(f.words::<u32>(i.r[1])[lane]).min(len) };
        let to = port.locate::<{ space::SHARED }>(i, lane, addrs[lane], len, true)?;
        if from & (len - 1) != 0 {
            return Err(Fault::MisalignedAddress { addr: from, line: i.line });
        }
        let source = if wanted == 0 {
            None
        } else {
            Some(port.span::<{ space::GLOBAL }>(i, lane, from, wanted, false)?)
        };
        for k in 0..len as usize {
            let byte = match source {
                // SAFETY: `span` has checked `wanted` bytes at `host`.
                Some(s) if (k as u64) < wanted => unsafe { u8::load(s.host.add(k)) },
                _ => 0,
            };
            // SAFETY: `locate` has checked `len` bytes at `host` for writing.
            unsafe { byte.store(to.host.add(k)) };
        }
    }
    Ok(())
}
