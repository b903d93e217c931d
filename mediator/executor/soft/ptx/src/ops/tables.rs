//! Macros that write down an operation once and compile it for every type it takes.

/// Picks the build of a function for the host's vector unit: the body is compiled twice where the host may have AVX2
/// and FMA, and the choice is made when the instruction is lowered.
macro_rules! alu_fn {
    (|$f:ident, $i:ident, $m:ident| $body:expr) => {{
        #[allow(clippy::redundant_closure_call)]
        fn plain($f: &mut $crate::run::lanes::Frame, $i: &$crate::run::code::Ins, $m: u32) {
            $body
        }
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma,popcnt,lzcnt,bmi1,bmi2")]
            unsafe fn vector($f: &mut $crate::run::lanes::Frame, $i: &$crate::run::code::Ins, $m: u32) {
                $body
            }
            fn checked(f: &mut $crate::run::lanes::Frame, i: &$crate::run::code::Ins, m: u32) {
                // SAFETY: chosen below only where `vector_unit` has found every feature that `vector` enables.
                unsafe { vector(f, i, m) }
            }
            if $crate::ops::tables::vector_unit() {
                checked as $crate::run::code::Alu
            } else {
                plain as $crate::run::code::Alu
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            plain as $crate::run::code::Alu
        }
    }};
}

/// The host has what `alu_fn` compiles for.
#[cfg(target_arch = "x86_64")]
pub(crate) fn vector_unit() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
}

/// `d = e(x)`
macro_rules! alu1 {
    ($a:ty => $d:ty, |$x:ident| $e:expr) => {
        alu_fn!(|f, i, m| $crate::run::lanes::unary::<$a, $d>(f, i, m, |$x| $e))
    };
}

/// `d = e(x, y)`
macro_rules! alu2 {
    ($a:ty, $b:ty => $d:ty, |$x:ident, $y:ident| $e:expr) => {
        alu_fn!(|f, i, m| $crate::run::lanes::binary::<$a, $b, $d>(f, i, m, |$x, $y| $e))
    };
}

/// `d = e(x, y, z)`
macro_rules! alu3 {
    ($a:ty, $b:ty, $c:ty => $d:ty, |$x:ident, $y:ident, $z:ident| $e:expr) => {
        alu_fn!(|f, i, m| $crate::run::lanes::ternary::<$a, $b, $c, $d>(f, i, m, |$x, $y, $z| $e))
    };
}

/// `Some(e)` with `T` the Rust type of an integer type of 16 to 64 bits, `None` for others.
macro_rules! by_int {
    ($ty:expr, $t:ident => $e:expr) => {
        match $ty {
            $crate::types::Ty::U16 => Some({
                type $t = u16;
                $e
            }),
            $crate::types::Ty::S16 => Some({
                type $t = i16;
                $e
            }),
            $crate::types::Ty::U32 => Some({
                type $t = u32;
                $e
            }),
            $crate::types::Ty::S32 => Some({
                type $t = i32;
                $e
            }),
            $crate::types::Ty::U64 => Some({
                type $t = u64;
                $e
            }),
            $crate::types::Ty::S64 => Some({
                type $t = i64;
                $e
            }),
            _ => None,
        }
    };
}

/// As `by_int`, with integers of 8 bits.
macro_rules! by_any_int {
    ($ty:expr, $t:ident => $e:expr) => {
        match $ty {
            $crate::types::Ty::U8 => Some({ type $t = u8; $e }),
            $crate::types::Ty::S8 => Some({ type $t = i8; $e }),
            other => by_int!(other, $t => $e),
        }
    };
}

/// As `by_int`, by width alone: unsigned Rust types for the bit types (and those that may stand for them).
macro_rules! by_bits {
    ($ty:expr, $t:ident => $e:expr) => {
        match $ty.bytes() {
            2 => Some({
                type $t = u16;
                $e
            }),
            4 => Some({
                type $t = u32;
                $e
            }),
            8 => Some({
                type $t = u64;
                $e
            }),
            _ => None,
        }
    };
}

/// `e` with two constants of type bool.
macro_rules! by_flags {
    ($a:expr, $b:expr, $x:ident, $y:ident => $e:expr) => {
        match ($a, $b) {
            (false, false) => {
                const $x: bool = false;
                const $y: bool = false;
                $e
            }
            (true, false) => {
                const $x: bool = true;
                const $y: bool = false;
                $e
            }
            (false, true) => {
                const $x: bool = false;
                const $y: bool = true;
                $e
            }
            (true, true) => {
                const $x: bool = true;
                const $y: bool = true;
                $e
            }
        }
    };
}
