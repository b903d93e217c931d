//! Floating-point results in any rounding mode and format, from exact intermediate values.
//!
//! The host rounds to nearest; this is for the other modes and for the 16-bit formats. Slow and exact: a value is a
//! 256-bit mantissa with a sticky last bit.

use std::cmp::Ordering;

/// Rounding modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// `.rn`
    Nearest,
    /// `.rz`
    Zero,
    /// `.rm`
    Down,
    /// `.rp`
    Up,
}

impl Mode {
    /// As a number, for `Ins::imm`.
    pub(crate) fn code(self) -> u64 {
        self as u64
    }

    /// From the low two bits of `Ins::imm`.
    #[inline(always)]
    pub(crate) fn from_code(code: u64) -> Mode {
        match code & 3 {
            0 => Mode::Nearest,
            1 => Mode::Zero,
            2 => Mode::Down,
            _ => Mode::Up,
        }
    }
}

/// An IEEE-like binary format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Bits of the mantissa, the hidden one included.
    precision: u32,
    /// Exponent of the smallest normal number; the largest is `1 - min_exp`.
    min_exp: i32,
    /// The NaN that operations give.
    nan: u64,
}

pub(crate) const F16: Format = Format { precision: 11, min_exp: -14, nan: 0x7fff };
pub(crate) const BF16: Format = Format { precision: 8, min_exp: -126, nan: 0x7fff };
pub(crate) const F32: Format = Format { precision: 24, min_exp: -126, nan: 0x7fff_ffff };
pub(crate) const F64: Format = Format { precision: 53, min_exp: -1022, nan: 0xfff8_0000_0000_0000 };

/// 256 bits, high part first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wide(u128, u128);

impl Wide {
    fn is_zero(self) -> bool {
        self.0 == 0 && self.1 == 0
    }

    fn leading_zeros(self) -> u32 {
        if self.0 != 0 { self.0.leading_zeros() } else { 128 + self.1.leading_zeros() }
    }

    fn shl(self, n: u32) -> Wide {
        match n {
            0 => self,
            1..=127 => Wide(self.0 << n | self.1 >> (128 - n), self.1 << n),
            128..=255 => Wide(self.1 << (n - 128), 0),
            _ => Wide(0, 0),
        }
    }

    fn shr(self, n: u32) -> Wide {
        match n {
            0 => self,
            1..=127 => Wide(self.0 >> n, self.1 >> n | self.0 << (128 - n)),
            128..=255 => Wide(0, self.0 >> (n - 128)),
            _ => Wide(0, 0),
        }
    }

    /// Shifts right; lost ones make the last bit one.
    fn shr_sticky(self, n: u32) -> Wide {
        let kept = self.shr(n);
        let lost = kept.shl(n) != self;
        Wide(kept.0, kept.1 | u128::from(lost))
    }

    fn add(self, o: Wide) -> Wide {
        let (low, carry) = self.1.overflowing_add(o.1);
        Wide(self.0.wrapping_add(o.0).wrapping_add(u128::from(carry)), low)
    }

    fn sub(self, o: Wide) -> Wide {
        let (low, borrow) = self.1.overflowing_sub(o.1);
        Wide(self.0.wrapping_sub(o.0).wrapping_sub(u128::from(borrow)), low)
    }
}

/// `mantissa * 2^exp`, not zero, the top bit of the mantissa at [`TOP`].
#[derive(Clone, Copy)]
struct Real {
    negative: bool,
    mantissa: Wide,
    exp: i32,
}

/// Position of a normalised mantissa's top bit: room for a carry above, for two products below.
const TOP: u32 = 250;

impl Real {
    fn new(negative: bool, mantissa: Wide, exp: i32) -> Option<Real> {
        if mantissa.is_zero() {
            return None;
        }
        let top = 255 - mantissa.leading_zeros();
        let (mantissa, exp) = if top <= TOP {
            (mantissa.shl(TOP - top), exp - (TOP - top) as i32)
        } else {
            (mantissa.shr_sticky(top - TOP), exp + (top - TOP) as i32)
        };
        Some(Real { negative, mantissa, exp })
    }

    fn plus(self, o: Real) -> Option<Real> {
        let (big, small) =
            if (self.exp, self.mantissa) >= (o.exp, o.mantissa) { (self, o) } else { (o, self) };
        let shifted = small.mantissa.shr_sticky((big.exp - small.exp).unsigned_abs());
        let mantissa = if big.negative == small.negative {
            big.mantissa.add(shifted)
        } else {
            big.mantissa.sub(shifted)
        };
        Real::new(big.negative, mantissa, big.exp)
    }

    fn round(self, mode: Mode, format: &Format) -> u64 {
        let p = format.precision;
        let exponent = TOP as i32 + self.exp;
        let mut quantum = exponent.max(format.min_exp) - (p as i32 - 1);
        let shift = (quantum - self.exp).unsigned_abs();
        let kept = self.mantissa.shr(shift);
        let lost = if shift >= 256 { self.mantissa } else { self.mantissa.sub(kept.shl(shift)) };
        let half = if shift > 255 { Ordering::Less } else { lost.cmp(&Wide(0, 1).shl(shift - 1)) };
        let mut kept = kept.1 as u64;
        let up = match mode {
            Mode::Nearest => half == Ordering::Greater || (half == Ordering::Equal && kept & 1 == 1),
            Mode::Zero => false,
            Mode::Down => self.negative && !lost.is_zero(),
            Mode::Up => !self.negative && !lost.is_zero(),
        };
        kept += u64::from(up);
        if kept == 1 << p {
            kept >>= 1;
            quantum += 1;
        }
        let max_exp = 1 - format.min_exp;
        if quantum + p as i32 - 1 > max_exp && kept >> (p - 1) != 0 {
            let infinite = match mode {
                Mode::Nearest => true,
                Mode::Zero => false,
                Mode::Down => self.negative,
                Mode::Up => !self.negative,
            };
            return format.sign(self.negative) | (format.infinity() - u64::from(!infinite));
        }
        let field = if kept >> (p - 1) == 0 { 0 } else { (quantum + p as i32 - 1 + max_exp) as u64 };
        let fraction = kept & ((1 << (p - 1)) - 1);
        format.sign(self.negative) | field << (p - 1) | fraction
    }
}

impl Format {
    fn width(&self) -> u32 {
        // Exponents run from min_exp to 1 - min_exp: twice 1 - min_exp, plus the two special ones.
        self.precision + (2 * (1 - self.min_exp) as u32 + 2).trailing_zeros()
    }

    fn sign(&self, negative: bool) -> u64 {
        u64::from(negative) << (self.width() - 1)
    }

    fn infinity(&self) -> u64 {
        (2 * (1 - self.min_exp) as u64 + 1) << (self.precision - 1)
    }

    /// A host value that is zero, infinite or NaN.
    fn special(&self, v: f64) -> u64 {
        if v.is_nan() {
            // An f64 NaN keeps its payload.
            if self.precision == 53 { v.to_bits() | 1 << 51 } else { self.nan }
        } else {
            self.sign(v.is_sign_negative()) | if v == 0.0 { 0 } else { self.infinity() }
        }
    }
}

/// Mantissa and exponent of a finite value.
fn parts(v: f64) -> (bool, u64, i32) {
    let bits = v.to_bits();
    let field = (bits >> 52 & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    let (m, e) = if field == 0 { (fraction, -1074) } else { (fraction | 1 << 52, field - 1075) };
    (v.is_sign_negative(), m, e)
}

fn real(v: f64) -> Option<Real> {
    let (negative, m, e) = parts(v);
    Real::new(negative, Wide(0, m.into()), e)
}

fn product(a: f64, b: f64) -> Option<Real> {
    let ((na, ma, ea), (nb, mb, eb)) = (parts(a), parts(b));
    Real::new(na != nb, Wide(0, u128::from(ma) * u128::from(mb)), ea + eb)
}

/// `a * b + c`, rounded once.
pub(crate) fn fma(a: f64, b: f64, c: f64, mode: Mode, format: &Format) -> u64 {
    if !(a.is_finite() && b.is_finite() && c.is_finite()) {
        if let Some(nan) = [b, c, a].into_iter().find(|v| v.is_nan()) {
            return format.special(nan);
        }
        // Infinite operands: the sum of host product and addend is the special value, or NaN; a finite product
        // that overflows the host cannot meet an infinity of the other sign, as the addend is the infinity then.
        let p = if a.is_finite() && b.is_finite() { 0.0 } else { a * b };
        return format.special(p + c);
    }
    match (product(a, b), real(c)) {
        (None, None) => {
            let negative = (a.is_sign_negative() != b.is_sign_negative(), c.is_sign_negative());
            format.sign(if negative.0 == negative.1 { negative.0 } else { mode == Mode::Down })
        }
        (Some(p), None) => p.round(mode, format),
        (None, Some(c)) => c.round(mode, format),
        (Some(p), Some(c)) => match p.plus(c) {
            Some(sum) => sum.round(mode, format),
            None => format.sign(mode == Mode::Down),
        },
    }
}

/// `a + b`.
pub(crate) fn add(a: f64, b: f64, mode: Mode, format: &Format) -> u64 {
    fma(a, 1.0, b, mode, format)
}

/// `a * b`.
pub(crate) fn mul(a: f64, b: f64, mode: Mode, format: &Format) -> u64 {
    // A zero of the product's sign added leaves every value and sign as it is.
    let zero = if a.is_sign_negative() != b.is_sign_negative() { -0.0 } else { 0.0 };
    fma(a, b, zero, mode, format)
}

/// A value of the host format in another one.
pub(crate) fn convert(a: f64, mode: Mode, format: &Format) -> u64 {
    match real(a) {
        Some(r) if a.is_finite() => r.round(mode, format),
        _ => format.special(a),
    }
}

/// An integer.
pub(crate) fn from_int(v: i128, mode: Mode, format: &Format) -> u64 {
    Real::new(v < 0, Wide(0, v.unsigned_abs()), 0).map_or(0, |r| r.round(mode, format))
}

/// A host result near the true one, with the side on which the true one lies: `above` = larger in magnitude.
fn beside(approximate: f64, negative: bool, above: Ordering, mode: Mode, format: &Format) -> u64 {
    let (_, m, e) = parts(approximate);
    let m = u128::from(m) << 2;
    let m = match above {
        Ordering::Greater => m + 1,
        Ordering::Equal => m,
        Ordering::Less => m - 1,
    };
    Real::new(negative, Wide(0, m), e - 2).map_or(format.sign(negative), |r| r.round(mode, format))
}

/// `a / b`.
pub(crate) fn div(a: f64, b: f64, mode: Mode, format: &Format) -> u64 {
    let q = a / b;
    let negative = a.is_sign_negative() != b.is_sign_negative();
    if !a.is_finite() || !b.is_finite() || b == 0.0 || a == 0.0 || (q.is_infinite() && mode == Mode::Nearest)
    {
        return format.special(q);
    }
    let q = q.clamp(-f64::MAX, f64::MAX);
    // The remainder |a| - |q| |b| says on which side of |q| the quotient lies.
    let above = match (product(-q.abs(), b.abs()), real(a.abs())) {
        (Some(p), Some(a)) => match p.plus(a) {
            None => Ordering::Equal,
            Some(r) if r.negative => Ordering::Less,
            Some(_) => Ordering::Greater,
        },
        _ => Ordering::Greater,
    };
    beside(q, negative, above, mode, format)
}

/// Square root.
pub(crate) fn sqrt(a: f64, mode: Mode, format: &Format) -> u64 {
    let s = a.sqrt();
    if a <= 0.0 || !a.is_finite() {
        return format.special(s);
    }
    let above = match (product(-s, s), real(a)) {
        (Some(p), Some(a)) => match p.plus(a) {
            None => Ordering::Equal,
            Some(r) if r.negative => Ordering::Less,
            Some(_) => Ordering::Greater,
        },
        _ => Ordering::Equal,
    };
    beside(s, false, above, mode, format)
}

/// The value of an f16.
pub(crate) fn f16_value(bits: u16) -> f64 {
    let (field, fraction) = (bits >> 10 & 31, f64::from(bits & 0x3ff));
    let magnitude = match field {
        0 => fraction * f64::powi(2.0, -24),
        31 if bits & 0x3ff == 0 => f64::INFINITY,
        31 => f64::from_bits(0x7ff8_0000_0000_0000 | u64::from(bits & 0x3ff) << 42),
        _ => (fraction + 1024.0) * f64::powi(2.0, i32::from(field) - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// The value of a bf16.
pub(crate) fn bf16_value(bits: u16) -> f64 {
    f32::from_bits(u32::from(bits) << 16).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    fn value(seed: &mut u64) -> f64 {
        loop {
            let v = f64::from_bits(random(seed));
            if v.is_finite() {
                return if random(seed) & 1 == 0 { v } else { (random(seed) as i64 >> 20) as f64 };
            }
        }
    }

    #[test]
    fn nearest_agrees_with_the_host() {
        let mut seed = 0x1234_5678_9abc_def1;
        for _ in 0..20000 {
            let (a, b, c) = (value(&mut seed), value(&mut seed), value(&mut seed));
            assert_eq!(add(a, b, Mode::Nearest, &F64), (a + b).to_bits(), "{a} + {b}");
            assert_eq!(mul(a, b, Mode::Nearest, &F64), (a * b).to_bits(), "{a} * {b}");
            assert_eq!(fma(a, b, c, Mode::Nearest, &F64), a.mul_add(b, c).to_bits(), "{a} * {b} + {c}");
            assert_eq!(div(a, b, Mode::Nearest, &F64), (a / b).to_bits(), "{a} / {b}");
            assert_eq!(sqrt(a.abs(), Mode::Nearest, &F64), a.abs().sqrt().to_bits(), "sqrt {a}");
            assert_eq!(convert(a, Mode::Nearest, &F32), u64::from((a as f32).to_bits()), "f32 {a}");
            let (x, y) = (f32::from_bits(random(&mut seed) as u32), f32::from_bits(random(&mut seed) as u32));
            if !(x * y).is_nan() && !(x / y).is_nan() && !(x + y).is_nan() {
                assert_eq!(mul(x.into(), y.into(), Mode::Nearest, &F32), u64::from((x * y).to_bits()));
                assert_eq!(div(x.into(), y.into(), Mode::Nearest, &F32), u64::from((x / y).to_bits()));
                assert_eq!(add(x.into(), y.into(), Mode::Nearest, &F32), u64::from((x + y).to_bits()));
            }
        }
    }

    #[test]
    fn directed_modes_enclose_the_true_value() {
        let mut seed = 0x9876_5432_1234_5671;
        for _ in 0..20000 {
            let (a, b) = (value(&mut seed), value(&mut seed));
            for op in [add, mul, div] {
                let [n, z, d, u] = [Mode::Nearest, Mode::Zero, Mode::Down, Mode::Up]
                    .map(|m| f64::from_bits(op(a, b, m, &F64)));
                if n.is_nan() {
                    continue;
                }
                assert!(d <= n && n <= u && z.abs() <= n.abs());
                assert!(u == d || d.next_up() == u, "{a} {b}: {d} {u}");
                assert!(z == if n > 0.0 || (n == 0.0 && u > 0.0) { d } else { u });
            }
        }
    }

    #[test]
    fn known_directed_results() {
        let one = 1.0f64;
        assert_eq!(f64::from_bits(add(one, 1e-30, Mode::Up, &F64)), one.next_up());
        assert_eq!(f64::from_bits(add(one, -1e-30, Mode::Zero, &F64)), one.next_down());
        assert_eq!(f64::from_bits(mul(f64::MAX, 2.0, Mode::Zero, &F64)), f64::MAX);
        assert_eq!(f64::from_bits(mul(f64::MAX, -2.0, Mode::Up, &F64)), -f64::MAX);
        assert_eq!(f64::from_bits(mul(f64::MAX, 2.0, Mode::Up, &F64)), f64::INFINITY);
        assert_eq!(f64::from_bits(mul(5e-324, 0.25, Mode::Up, &F64)), 5e-324);
        assert_eq!(add(1.0, -1.0, Mode::Down, &F64), (-0.0f64).to_bits());
        assert_eq!(f32::from_bits(convert(0.1, Mode::Down, &F32) as u32), 0.1f32.next_down());
        assert_eq!(convert(65520.0, Mode::Nearest, &F16), 0x7c00);
        assert_eq!(convert(65519.0, Mode::Nearest, &F16), 0x7bff);
        assert_eq!(convert(-0.0, Mode::Nearest, &F16), 0x8000);
    }

    #[test]
    fn sixteen_bit_formats_round_trip() {
        for bits in 0..=u16::MAX {
            let v = f16_value(bits);
            if !v.is_nan() {
                assert_eq!(convert(v, Mode::Nearest, &F16), u64::from(bits));
            }
            let v = bf16_value(bits);
            if !v.is_nan() {
                assert_eq!(convert(v, Mode::Nearest, &BF16), u64::from(bits));
            }
        }
    }
}
