use crate::args;
use crate::device::{Device, Random};

#[test]
fn sixty_four_bits() {
    let mut d = Device::load("integer");
    let mut r = Random(7);
    let n = 3000;
    let a: Vec<u64> = (0..n).map(|_| r.bits()).collect();
    let b: Vec<u64> = (0..n).map(|_| r.bits().max(1)).collect();
    let (pa, pb, po) = (d.upload(&a), d.upload(&b), d.zeros::<u64>(n * 20));
    d.launch("ints64", 24, 128, args![pa, pb, po, n as i32]);
    let got = d.read::<u64>(po, n * 20);
    for k in 0..n {
        let (x, y) = (a[k], b[k]);
        let (sx, sy) = (x as i64, y as i64);
        let s = (y & 63) as u32;
        let expected = [
            x.wrapping_mul(y),
            ((u128::from(x) * u128::from(y)) >> 64) as u64,
            ((i128::from(sx) * i128::from(sy)) >> 64) as u64,
            x / y,
            x % y,
            sx.wrapping_div(sy) as u64,
            sx.wrapping_rem(sy) as u64,
            x << s,
            x >> s,
            (sx >> s) as u64,
            x.count_ones().into(),
            x.leading_zeros().into(),
            x.reverse_bits(),
            if x == 0 { 0 } else { u64::from(x.trailing_zeros()) + 1 },
            u64::from(x < y),
            u64::from(sx < sy),
            sx.wrapping_abs() as u64,
            x.min(y),
            sx.max(sy) as u64,
            (x & !y) ^ (x | y),
        ];
        assert_eq!(got[k * 20..k * 20 + 20], expected, "{x:#x} {y:#x}");
    }
}

fn permute(x: u32, y: u32, s: u32) -> u32 {
    let bytes = [x.to_le_bytes(), y.to_le_bytes()].concat();
    u32::from_le_bytes(std::array::from_fn(|k| bytes[(s >> (4 * k) & 7) as usize]))
}

#[test]
fn thirty_two_bits() {
    let mut d = Device::load("integer");
    let mut r = Random(8);
    let n = 3000;
    let a: Vec<u32> = (0..n).map(|_| r.bits() as u32).collect();
    let b: Vec<u32> = (0..n).map(|_| (r.bits() as u32).max(1)).collect();
    let (pa, pb, po) = (d.upload(&a), d.upload(&b), d.zeros::<u32>(n * 32));
    d.launch("ints32", 24, 128, args![pa, pb, po, n as i32]);
    let got = d.read::<u32>(po, n * 32);
    let (low24, signed24) = (|v: u32| v & 0xff_ffff, |v: i32| v << 8 >> 8);
    for k in 0..n {
        let (x, y) = (a[k], b[k]);
        let (sx, sy) = (x as i32, y as i32);
        let dot = |signed: bool, z: i32| {
            (0..4).fold(z, |sum, k| {
                let (p, q) = ((x >> (8 * k)) as u8, (y >> (8 * k)) as u8);
                let (p, q) = if signed {
                    (i32::from(p as i8), i32::from(q as i8))
                } else {
                    (i32::from(p), i32::from(q))
                };
                sum.wrapping_add(p * q)
            })
        };
        let pair = (0..2).fold(3i32, |sum, k| {
            sum.wrapping_add(i32::from((x >> (16 * k)) as i16) * i32::from((y >> (8 * k)) as i8))
        });
        let both = u64::from(y) << 32 | u64::from(x);
        let expected = [
            x.wrapping_mul(y),
            ((u64::from(x) * u64::from(y)) >> 32) as u32,
            ((i64::from(sx) * i64::from(sy)) >> 32) as u32,
            x / y,
            x % y,
            sx.wrapping_div(sy) as u32,
            sx.wrapping_rem(sy) as u32,
            (both << (x & 31) >> 32) as u32,
            (both >> (y & 31)) as u32,
            (both << (x & 63).min(32) >> 32) as u32,
            permute(x, y, x ^ y),
            x.count_ones(),
            x.leading_zeros(),
            x.reverse_bits(),
            if x == 0 { 0 } else { x.trailing_zeros() + 1 },
            sx.abs_diff(sy).wrapping_add(5),
            signed24(sx).wrapping_mul(signed24(sy)) as u32,
            low24(x).wrapping_mul(low24(y)),
            dot(true, 9) as u32,
            dot(false, 9) as u32,
            sx.wrapping_abs() as u32,
            sx.min(sy) as u32,
            x.max(y),
            ((i64::from(sx) + i64::from(sy)) >> 1) as u32,
            x / 7,
            (sx % 13) as u32,
            (x >> 5) & 0xff,
            (x & 0xffff).wrapping_mul(y & 0xffff),
            (i32::from(sx as i16) >> 3) as u32,
            (i32::from(sx as i8) + i32::from(sy as i16)) as u32,
            pair as u32,
            (x & y) | (!x & !y & 0x1234_5678),
        ];
        assert_eq!(got[k * 32..k * 32 + 32], expected, "{x:#x} {y:#x}");
    }
}

#[test]
fn carry_chains() {
    let mut d = Device::load("integer");
    let mut r = Random(9);
    let a: Vec<u64> = (0..512).map(|_| r.bits()).collect();
    let b: Vec<u64> = (0..512).map(|_| r.bits()).collect();
    let (pa, pb, po) = (d.upload(&a), d.upload(&b), d.zeros::<u64>(256 * 6));
    d.launch("wide", 1, 256, args![pa, pb, po]);
    for (k, o) in d.read::<u64>(po, 256 * 6).chunks(6).enumerate() {
        let joined = |v: &[u64]| u128::from(v[2 * k]) << 64 | u128::from(v[2 * k + 1]);
        let (x, y) = (joined(&a), joined(&b));
        let parts = |v: u128| [(v >> 64) as u64, v as u64];
        let expected =
            [parts(x.wrapping_add(y)), parts(x.wrapping_sub(y)), parts(x.wrapping_mul(y))].concat();
        assert_eq!(o, expected);
    }
    let a: Vec<u32> = (0..192).map(|_| r.bits() as u32).collect();
    let b: Vec<u32> = (0..192).map(|_| r.bits() as u32).collect();
    let (pa, pb, po) = (d.upload(&a), d.upload(&b), d.zeros::<u32>(64 * 7));
    d.launch("carry", 1, 64, args![pa, pb, po]);
    for (k, o) in d.read::<u32>(po, 64 * 7).chunks(7).enumerate() {
        let triple = |v: &[u32]| (0..3).fold(0u128, |n, j| n | u128::from(v[3 * k + j]) << (32 * j));
        let double = |v: &[u32]| triple(v) as u64;
        let sum = triple(&a).wrapping_add(triple(&b));
        let difference = double(&a).wrapping_sub(double(&b));
        let product = u64::from(a[3 * k]) * u64::from(b[3 * k]) + u64::from(a[3 * k + 1]);
        let expected = [
            sum as u32,
            (sum >> 32) as u32,
            (sum >> 64) as u32,
            difference as u32,
            (difference >> 32) as u32,
            product as u32,
            (product >> 32) as u32,
        ];
        assert_eq!(o, expected);
    }
}

/// Bit by bit, as the instruction set's own description does it.
fn bfe(x: u32, pos: u32, len: u32, signed: bool) -> u32 {
    let sign = if !signed || len == 0 { 0 } else { x >> (pos + len - 1).min(31) & 1 };
    (0..32).fold(0, |d, i| {
        let bit = if i < len && pos + i <= 31 { x >> (pos + i) & 1 } else { sign };
        d | bit << i
    })
}

fn bfi(x: u32, y: u32, pos: u32, len: u32) -> u32 {
    (0..32).take_while(|i| *i < len && pos + i <= 31).fold(y, |f, i| {
        let at = 1 << (pos + i);
        if x >> i & 1 == 1 { f | at } else { f & !at }
    })
}

#[test]
fn bit_fields() {
    let mut d = Device::load("integer");
    let mut r = Random(10);
    let a: Vec<u32> = (0..1024).map(|k| if k == 0 { 0 } else { r.bits() as u32 }).collect();
    let b: Vec<u32> = (0..1024).map(|_| r.next() as u32).collect();
    let (pa, pb, po) = (d.upload(&a), d.upload(&b), d.zeros::<u32>(1024 * 6));
    d.launch("bitfields", 1, 1024, args![pa, pb, po]);
    for (k, o) in d.read::<u32>(po, 1024 * 6).chunks(6).enumerate() {
        let (x, pos, len) = (a[k], b[k] & 63, b[k] >> 8 & 63);
        let find = |v: u32| if v == 0 { u32::MAX } else { 31 - v.leading_zeros() };
        let signed = if (x as i32) < 0 { !x } else { x };
        let expected = [
            bfe(x, pos, len, false),
            bfe(x, pos, len, true),
            bfi(x, b[k], pos, len),
            find(x),
            find(signed),
            if x == 0 { u32::MAX } else { x.leading_zeros() },
        ];
        assert_eq!(o, expected, "{x:#x} {pos} {len}");
    }
}

#[test]
fn loops_and_switches() {
    let mut d = Device::load("integer");
    let v: Vec<u32> = (0..256).map(|k| k * 37 + 1).collect();
    let (p, out) = (d.upload(&v), d.zeros::<u32>(256));
    d.launch("collatz", 1, 256, args![p, out]);
    let length = |v: u32| {
        let (mut v, mut n) = (u64::from(v), 0);
        while v != 1 {
            v = if v & 1 == 1 { 3 * v + 1 } else { v / 2 };
            n += 1;
        }
        n
    };
    assert_eq!(d.read::<u32>(out, 256), v.iter().map(|x| length(*x)).collect::<Vec<u32>>());

    let v: Vec<i32> = (0..64).map(|k| k * 5 % 12 - 1).collect();
    let before: Vec<i32> = (0..67).map(|k| k * 3).collect();
    let (p, out) = (d.upload(&v), d.upload(&before));
    d.launch("switches", 1, 64, args![p, out]);
    let mut expected: Vec<i32> = (0..64)
        .map(|t| {
            let o = before[t];
            match v[t] {
                0 => o * 3,
                1 => v[t] - 17,
                2 => o.count_ones() as i32,
                3 => 1000 / (o + 1),
                4 => o ^ 0x55,
                5 => -o,
                6 => o << 3,
                7 => 99,
                8 => o % 7,
                _ => -1,
            }
        })
        .collect();
    expected.extend([1, 2, 3]);
    assert_eq!(d.read::<i32>(out, 67), expected);
}
