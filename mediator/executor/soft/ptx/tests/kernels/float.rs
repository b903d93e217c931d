use crate::args;
use crate::device::{Device, Random};

#[test]
fn mandelbrot() {
    let mut d = Device::load("float");
    let (w, h, limit) = (50usize, 37usize, 200);
    let out = d.zeros::<i32>(w * h);
    d.launch3("mandelbrot", [7, 5, 1], [8, 8, 1], 0, args![w as i32, h as i32, limit, out]);
    let got = d.read::<i32>(out, w * h);
    let mut differences = 0;
    for (k, v) in got.iter().enumerate() {
        let (x, y) = ((k % w) as f64, (k / w) as f64);
        let (cr, ci) = (-2.0 + 3.0 * x / w as f64, -1.5 + 3.0 * y / h as f64);
        let (mut zr, mut zi, mut n) = (0.0f64, 0.0f64, 0);
        while n < limit && zr * zr + zi * zi <= 4.0 {
            (zr, zi) = (zr * zr - zi * zi + cr, 2.0 * zr * zi + ci);
            n += 1;
        }
        differences += usize::from(n != *v);
    }
    // The compiler fuses products and sums, which tips a few points at the edge.
    assert!(differences * 100 < w * h, "{differences} points differ");
}

fn close(name: &str, x: f64, got: f64, expected: f64, relative: f64, absolute: f64) {
    let fine = (got.is_nan() && expected.is_nan())
        || got == expected
        || (got - expected).abs() <= relative * expected.abs() + absolute;
    assert!(fine, "{name}({x:e}) = {got:e}, not {expected:e}");
}

#[test]
fn functions_of_single_precision() {
    let mut d = Device::load("float");
    let mut r = Random(12);
    let mut v: Vec<f32> = (0..500).map(|_| r.float(20.0) as f32).collect();
    v.extend([0.0, 1.0, -1.0, 0.5, 1e-3, -2.5, 3.5, 85.0, -85.0, 1e-30, f32::INFINITY, f32::NAN]);
    let (p, out) = (d.upload(&v), d.zeros::<f32>(v.len() * 24));
    d.launch("math32", 5, 128, args![p, out, v.len() as i32]);
    for (k, o) in d.read::<f32>(out, v.len() * 24).chunks(24).enumerate() {
        let (x, single) = (f64::from(v[k]), v[k]);
        let check = |i: usize, name: &str, expected: f64, relative: f64, absolute: f64| {
            let expected = f64::from(expected as f32);
            close(name, x, o[i].into(), expected, relative, absolute);
        };
        let ulp = f64::from(f32::EPSILON);
        check(0, "sin", x.sin(), 2.0 * ulp, 1e-38);
        check(1, "cos", x.cos(), 2.0 * ulp, 1e-38);
        check(2, "tan", x.tan(), 4.0 * ulp, 1e-38);
        check(3, "exp", x.exp(), 2.0 * ulp, 1e-37);
        check(4, "log", x.abs().ln(), 2.0 * ulp, 1e-38);
        check(5, "pow", x.abs().powf(f64::from(1.7f32)), 8.0 * ulp, 1e-38);
        check(6, "sqrt", x.abs().sqrt(), 0.0, 0.0);
        check(7, "rsqrt", 1.0 / x.abs().sqrt(), 2.0 * ulp, 0.0);
        check(9, "tanh", x.tanh(), 2.0 * ulp, 1e-38);
        check(10, "atan", x.atan(), 2.0 * ulp, 1e-38);
        check(11, "cbrt", x.cbrt(), 2.0 * ulp, 1e-38);
        check(12, "log2", x.abs().log2(), 2.0 * ulp, 1e-38);
        check(13, "exp2", x.exp2(), 2.0 * ulp, 1e-37);
        check(14, "fmod", f64::from(single % 0.37f32), 0.0, 0.0);
        assert_eq!([o[15], o[16], o[17], o[18]].map(f32::to_bits), {
            let nan = |v: f32| if v.is_nan() { 0x7fff_ffff } else { v.to_bits() };
            [single.floor(), single.ceil(), single.round_ties_even(), single.trunc()].map(nan)
        });
        check(19, "quotient", f64::from(single / 3.1f32), 0.0, 0.0);
        check(20, "fast sin", x.sin(), 0.0, 4e-7);
        check(21, "fast exp", x.exp(), 40.0 * ulp, 1e-37);
        // The slow path of the argument reduction, through local memory.
        check(22, "sin of a large angle", f64::from(single * 1e9f32).sin(), 4.0 * ulp, 1e-9);
        if x.abs() < 0.5 {
            check(8, "erf", 2.0 / std::f64::consts::PI.sqrt() * erf_series(x), 4.0 * ulp, 1e-38);
        }
        if x == 3.5 {
            check(23, "lgamma", 3.323_350_970_447_843f64.ln(), 4.0 * ulp, 0.0);
        }
    }
}

/// Integral of exp(-t²) from 0 to x.
fn erf_series(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..40 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum
}

#[test]
fn functions_of_double_precision() {
    let mut d = Device::load("float");
    let mut r = Random(13);
    let mut v: Vec<f64> = (0..500).map(|_| r.float(50.0)).collect();
    v.extend([0.0, 1.0, -1.0, 0.5, 1e-3, -2.5, 700.0, -700.0, 1e-300, f64::INFINITY, f64::NAN]);
    let (p, out) = (d.upload(&v), d.zeros::<f64>(v.len() * 16));
    d.launch("math64", 5, 128, args![p, out, v.len() as i32]);
    for (k, o) in d.read::<f64>(out, v.len() * 16).chunks(16).enumerate() {
        let x = v[k];
        let check = |i: usize, name: &str, expected: f64, relative: f64| {
            close(name, x, o[i], expected, relative * f64::EPSILON, 1e-300);
        };
        check(0, "sin", x.sin(), 4.0);
        check(1, "cos", x.cos(), 4.0);
        check(2, "exp", x.exp(), 4.0);
        check(3, "log", x.abs().ln(), 4.0);
        check(4, "pow", x.abs().powf(1.7), 8.0);
        check(5, "sqrt", x.abs().sqrt(), 0.0);
        check(6, "rsqrt", 1.0 / x.abs().sqrt(), 2.0);
        check(8, "tanh", x.tanh(), 4.0);
        check(9, "atan2", x.atan2(2.0), 4.0);
        check(10, "quotient", x / 3.1, 0.0);
        check(11, "fmod", x % 0.37, 0.0);
        check(12, "floor", x.floor(), 0.0);
        check(13, "fma", x.mul_add(x, 1.0), 0.0);
        check(15, "cbrt", x.cbrt(), 4.0);
        if x.abs() < 1.0 && x != 0.0 {
            check(7, "erf", 2.0 / std::f64::consts::PI.sqrt() * erf_series(x), 8.0);
        }
        if x.is_finite() {
            close("sin of a large angle", x, o[14], (x * 1e12).sin(), 4.0 * f64::EPSILON, 1e-300);
        }
    }
}

#[test]
fn conversions() {
    let mut d = Device::load("float");
    let mut r = Random(14);
    let n = 256;
    let odd = [0.5, 1.5, -2.5, 3e9, -3e9, 1e19, -1e19, 2e20, 0.99999, -0.3, 4294967296.0, 1e-40];
    let f: Vec<f32> = (0..n).map(|k| odd.get(k).map_or_else(|| r.float(1e5) as f32, |v| *v as f32)).collect();
    let g: Vec<f64> = (0..n).map(|k| odd.get(k).copied().unwrap_or_else(|| r.float(1e10))).collect();
    let s: Vec<i32> = (0..n).map(|_| r.bits() as i32).collect();
    let q: Vec<u64> = (0..n).map(|_| r.bits()).collect();
    let (pf, pg, ps, pq) = (d.upload(&f), d.upload(&g), d.upload(&s), d.upload(&q));
    let out = d.zeros::<i64>(n * 24);
    d.launch("converts", 1, n as u32, args![pf, pg, ps, pq, out]);
    for (k, o) in d.read::<i64>(out, n * 24).chunks(24).enumerate() {
        let (x, y, s, q) = (f[k], g[k], s[k], q[k]);
        let bits = |v: f32| i64::from(v.to_bits() as i32);
        let expected = [
            (x as i32).into(),
            (x as u32).into(),
            x as i64,
            x as u64 as i64,
            (x.round_ties_even() as i32).into(),
            (x.ceil() as i32).into(),
            (x.floor() as i32).into(),
            (y as i32).into(),
            (y as u32).into(),
            y as i64,
            y as u64 as i64,
            (y.round_ties_even() as i32).into(),
            y.floor() as i64,
            bits(s as f32),
            bits(s as u32 as f32),
            f64::from(s).to_bits() as i64,
            bits(q as f32),
            (q as i64 as f64).to_bits() as i64,
            bits(y as f32),
            f64::from(x).to_bits() as i64,
            (x as i32 as i16).into(),
            (x as i32 as u8).into(),
        ];
        assert_eq!(o[..22], expected, "{x:e} {y:e} {s} {q}");
        // Towards zero and upwards: the neighbours of the nearest value that lie on the right side.
        let toward_zero = f32::from_bits(o[22] as u32);
        assert!(f64::from(toward_zero).abs() <= f64::from(s).abs());
        assert!(s == 0 || f64::from(f32::from_bits(toward_zero.to_bits() + 1)).abs() > f64::from(s).abs());
        let up = f32::from_bits(o[23] as u32);
        let below =
            if up > 0.0 { f32::from_bits(up.to_bits() - 1) } else { f32::from_bits(up.to_bits() + 1) };
        assert!(f64::from(up) >= y && (y == 0.0 || f64::from(below) < y), "{y:e}: {up:e}");
    }
}

/// Whether `v` is what a directed mode gives for a true value that lies beside `nearest` in the direction of `error`.
fn directed(nearest: f64, error: f64, mode: char, next: fn(f64, bool) -> f64) -> f64 {
    let away = |up: bool| if (error > 0.0) == up && error != 0.0 { next(nearest, up) } else { nearest };
    match mode {
        'u' => away(true),
        'd' => away(false),
        // Towards zero: down for positive values, up for negative ones.
        _ => away(nearest < 0.0),
    }
}

fn next32(v: f64, up: bool) -> f64 {
    let bits = (v as f32).to_bits();
    let grows = (v > 0.0) == up;
    f32::from_bits(if grows { bits + 1 } else { bits - 1 }).into()
}

fn next64(v: f64, up: bool) -> f64 {
    let bits = v.to_bits();
    let grows = (v > 0.0) == up;
    f64::from_bits(if grows { bits + 1 } else { bits - 1 })
}

#[test]
fn rounding_modes_of_single_precision() {
    let mut d = Device::load("float");
    let mut r = Random(15);
    let n = 512;
    let mut value = || (r.float(1.0) * f64::powi(2.0, (r.next() % 20) as i32 - 10)) as f32;
    let a: Vec<f32> = (0..n).map(|_| value()).collect();
    let b: Vec<f32> = (0..n).map(|_| value()).collect();
    let (pa, pb, out) = (d.upload(&a), d.upload(&b), d.zeros::<f32>(n * 16));
    d.launch("rounding", 1, n as u32, args![pa, pb, out]);
    for (k, o) in d.read::<f32>(out, n * 16).chunks(16).enumerate() {
        let (x, y) = (f64::from(a[k]), f64::from(b[k]));
        // Sums and products of such values are exact in f64; for the others the f64 is near enough to tell the side.
        let from = |exact: f64, mode: char| {
            let nearest = f64::from(exact as f32);
            directed(nearest, exact - nearest, mode, next32) as f32
        };
        let (sum, product, quotient, fused) = (x + y, x * y, x / y, x.mul_add(y, x));
        let expected = [
            from(sum, 'z'),
            from(sum, 'u'),
            from(sum, 'd'),
            from(product, 'z'),
            from(product, 'u'),
            from(product, 'd'),
            from(quotient, 'z'),
            from(quotient, 'u'),
            from(quotient, 'd'),
            from(fused, 'z'),
            from(fused, 'u'),
            from(fused, 'd'),
            from(x.abs().sqrt(), 'z'),
            from(x.abs().sqrt(), 'u'),
            (x as f32).clamp(0.0, 1.0),
            from(1.0 / y, 'd'),
        ];
        assert_eq!(o, expected, "{x:e} {y:e}");
    }
}

#[test]
fn rounding_modes_of_double_precision() {
    let mut d = Device::load("float");
    let mut r = Random(16);
    let n = 512;
    let mut value = || r.float(1.0) * f64::powi(2.0, (r.next() % 40) as i32 - 20);
    let a: Vec<f64> = (0..n).map(|_| value()).collect();
    let b: Vec<f64> = (0..n).map(|_| value()).collect();
    let (pa, pb, out) = (d.upload(&a), d.upload(&b), d.zeros::<f64>(n * 12));
    d.launch("rounding64", 1, n as u32, args![pa, pb, out]);
    for (k, o) in d.read::<f64>(out, n * 12).chunks(12).enumerate() {
        let (x, y) = (a[k], b[k]);
        // Error terms: two-sum, and products through a fused multiply-add.
        let (sum, product) = (x + y, x * y);
        let back = sum - x;
        let sum_error = (x - (sum - back)) + (y - back);
        let product_error = x.mul_add(y, -product);
        let (quotient, root, inverse) = (x / y, x.abs().sqrt(), 1.0 / y);
        let quotient_error = (-quotient).mul_add(y, x) / y;
        let root_error = (-root).mul_add(root, x.abs());
        let inverse_error = (-inverse).mul_add(y, 1.0) / y;
        let expected = [
            directed(sum, sum_error, 'z', next64),
            directed(sum, sum_error, 'u', next64),
            directed(sum, sum_error, 'd', next64),
            directed(product, product_error, 'z', next64),
            directed(product, product_error, 'u', next64),
            directed(product, product_error, 'd', next64),
            directed(quotient, quotient_error, 'z', next64),
            directed(quotient, quotient_error, 'u', next64),
        ];
        assert_eq!(o[..8], expected, "{x:e} {y:e}");
        // x * y + x: the nearest value is one of the two neighbours that enclose the true one.
        let fused = x.mul_add(y, x);
        assert!(o[9] == fused || o[9] == next64(fused, true));
        assert!(o[8] == fused || o[8] == next64(fused, fused < 0.0));
        assert!(o[8] == o[9] || next64(o[8], true) == o[9] || fused < 0.0);
        assert_eq!(o[10], directed(root, root_error, 'd', next64));
        assert_eq!(o[11], directed(inverse, inverse_error, 'u', next64));
    }
}

/// The nearest f16, by search over all of them.
fn nearest_half(v: f64) -> (f64, u16) {
    let value = |bits: u16| {
        let (e, f) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
        if e == 0 { f * f64::powi(2.0, -24) } else { (1024.0 + f) * f64::powi(2.0, e - 25) }
    };
    // Below infinity; ties go to the even one.
    let best = (0..0x7c00u16)
        .min_by(|a, b| {
            let distance = |bits: u16| (value(bits) - v.abs()).abs();
            distance(*a).total_cmp(&distance(*b)).then((a & 1).cmp(&(b & 1)))
        })
        .expect("not empty");
    let magnitude = value(best);
    if v.is_sign_negative() { (-magnitude, best | 0x8000) } else { (magnitude, best) }
}

#[test]
fn half_precision() {
    let mut d = Device::load("float");
    let mut r = Random(17);
    let n = 64;
    let a: Vec<f32> =
        (0..n).map(|_| (r.float(1.0) * f64::powi(2.0, (r.next() % 30) as i32 - 20)) as f32).collect();
    let b: Vec<f32> = (0..n).map(|_| r.float(8.0) as f32).collect();
    let (pa, pb, out, bits) = (d.upload(&a), d.upload(&b), d.zeros::<f32>(n * 12), d.zeros::<u16>(n));
    d.launch("halves", 1, n as u32, args![pa, pb, out, bits]);
    let half = |v: f64| nearest_half(v).0;
    for (k, o) in d.read::<f32>(out, n * 12).chunks(12).enumerate() {
        let (x, y) = (half(a[k].into()), half(b[k].into()));
        // Exact in f64: products have 22 bits, and the operands are of similar size.
        let twice = half(x + half(x * x));
        let brain = {
            let (bits, rest) = (a[k].to_bits() & 0xffff_0000, a[k].to_bits() & 0xffff);
            let up = rest > 0x8000 || (rest == 0x8000 && bits & 0x1_0000 != 0);
            f32::from_bits(if up { bits + 0x1_0000 } else { bits })
        };
        let expected = [
            x,
            half(x + y),
            half(x * y),
            half(x.mul_add(y, x)),
            f64::from(u8::from(x < y)),
            -x,
            twice,
            half(y + half(y * y)),
            brain.into(),
        ];
        assert_eq!(o[..9].iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), expected, "{} {}", a[k], b[k]);
        let toward_zero = f64::from(o[9]);
        assert!(
            toward_zero.abs() <= f64::from(a[k]).abs() && (toward_zero - x).abs() <= x.abs() / 1024.0 + 6e-8
        );
        assert_eq!(f64::from(o[10]), x.round_ties_even());
        assert_eq!(f64::from(o[11]), half(k as f64 * 1001.0));
    }
    let got = d.read::<u16>(bits, n);
    for k in 0..n {
        assert_eq!(got[k], nearest_half(a[k].into()).1);
    }
}
