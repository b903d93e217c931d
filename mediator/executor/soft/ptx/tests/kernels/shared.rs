use ptx::Fault;

use crate::args;
use crate::device::{Device, Random};

fn both(test: impl Fn(Device)) {
    test(Device::load("shared"));
    test(Device::load("shared.debug"));
}

#[test]
fn tiled_matrix_products() {
    both(|mut d| {
        let mut r = Random(3);
        let n = 48usize;
        let a: Vec<f32> = (0..n * n).map(|_| (r.next() % 9) as f32 - 4.0).collect();
        let b: Vec<f32> = (0..n * n).map(|_| (r.next() % 9) as f32 - 4.0).collect();
        let (pa, pb) = (d.upload(&a), d.upload(&b));
        // Small integers: every order of summation gives the same.
        let expected: Vec<f32> =
            (0..n * n).map(|k| (0..n).map(|j| a[k / n * n + j] * b[j * n + k % n]).sum()).collect();
        for (name, dynamic) in [("matmul_static", 0), ("matmul_dynamic", 2048)] {
            let pc = d.zeros::<f32>(n * n);
            let kernel = d.module.module().kernel(name).expect("kernel").clone();
            assert_eq!(kernel.uses_dynamic_shared, dynamic > 0);
            assert_eq!(kernel.static_shared_bytes, 2048 - dynamic);
            d.launch3(name, [3, 3, 1], [16, 16, 1], dynamic, args![pa, pb, pc, n as i32]);
            assert_eq!(d.read::<f32>(pc, n * n), expected);
        }
        let pc = d.zeros::<f32>(n * n);
        let short = d.try_launch(
            "matmul_dynamic",
            [3, 3, 1],
            [16, 16, 1],
            1024,
            args![pa, pb, pc, n as i32],
            &Default::default(),
        );
        assert!(matches!(short, Err(Fault::IllegalAddress { .. })));
    });
}

#[test]
fn reduction_and_histogram() {
    both(|mut d| {
        let mut r = Random(4);
        let v: Vec<i32> = (0..10_000).map(|_| r.next() as i32 >> 12).collect();
        let p = d.upload(&v);
        for block in [32, 96, 250, 1024] {
            let total = d.zeros::<i32>(1);
            if block % 32 == 0 {
                d.launch("reduce", 5, block, args![p, v.len() as i32, total]);
                assert_eq!(d.read::<i32>(total, 1), [v.iter().sum::<i32>()]);
            }
        }
        let bytes: Vec<u8> = (0..5000).map(|_| (r.next() & r.next()) as u8).collect();
        let (p, out) = (d.upload(&bytes), d.zeros::<u32>(256));
        d.launch("histogram", 4, 100, args![p, bytes.len() as i32, out]);
        let mut expected = vec![0u32; 256];
        bytes.iter().for_each(|b| expected[usize::from(*b)] += 1);
        assert_eq!(d.read::<u32>(out, 256), expected);
    });
}

#[test]
fn prefix_sums() {
    both(|mut d| {
        let v: Vec<i32> = (0..700).map(|k| k * 7 % 31 - 9).collect();
        let (p, out) = (d.upload(&v), d.zeros::<i32>(700));
        d.launch3("scan", [1; 3], [777, 1, 1], 777 * 4, args![p, out, 700i32]);
        let expected: Vec<i32> = v
            .iter()
            .scan(0, |s, x| {
                *s += x;
                Some(*s)
            })
            .collect();
        assert_eq!(d.read::<i32>(out, 700), expected);
    });
}

#[test]
fn shuffles_and_votes() {
    both(|mut d| {
        let mut r = Random(5);
        let v: Vec<i32> = (0..64).map(|_| r.next() as i32 >> 14).collect();
        let (p, out) = (d.upload(&v), d.zeros::<i32>(64 * 12));
        d.launch("shuffles", 1, 64, args![p, out]);
        let got = d.read::<i32>(out, 64 * 12);
        for t in 0..64usize {
            let (base, l) = (t & !31, t & 31);
            let w = &v[base..base + 32];
            let odd: Vec<usize> = (0..32).filter(|&k| w[k] & 1 == 1).collect();
            let expected = [
                w[5],
                w[(l & !7) | (t + 3) & 7],
                if l >= 2 { w[l - 2] } else { w[l] },
                if l % 16 + 3 < 16 { w[l + 3] } else { w[l] },
                w[l ^ 9],
                if l % 4 >= 1 { w[l - 1] } else { w[l] },
                odd.iter().fold(0, |m, k| m | 1 << k),
                i32::from(w.contains(&v[3])),
                1,
                w.iter().sum(),
                *w.iter().max().expect("32 values"),
                if w[l] & 1 == 1 { odd.len() as i32 * 1000 + (w[odd[0]] & 511) } else { 0 },
            ];
            assert_eq!(got[t * 12..t * 12 + 12], expected, "thread {t}");
        }
        let v: Vec<i32> = (0..64).map(|k| if k < 32 { 7 } else { k % 5 }).collect();
        let (p, out) = (d.upload(&v), d.zeros::<u32>(64 * 3));
        d.launch("matches", 1, 64, args![p, out]);
        for (t, o) in d.read::<u32>(out, 64 * 3).chunks(3).enumerate() {
            let any = (0..32).filter(|k| v[(t & 32) + k] == v[t]).fold(0u32, |m, k| m | 1 << k);
            assert_eq!(o, if t < 32 { [any, u32::MAX, 1] } else { [any, 0, 0] });
        }
    });
}

#[test]
fn barriers_with_reductions_and_exited_threads() {
    both(|mut d| {
        let v: Vec<i32> = (0..100).map(|k| k * 5 % 13 + 2).collect();
        let (p, out) = (d.upload(&v), d.zeros::<i32>(300));
        d.launch("barrier_votes", 1, 100, args![p, out]);
        let odd = v.iter().filter(|x| **x & 1 == 1).count() as i32;
        let all = i32::from(v.iter().all(|x| x & 2 != 0));
        for o in d.read::<i32>(out, 300).chunks(3) {
            assert_eq!([o[0], i32::from(o[1] != 0), o[2]], [odd, all, 0]);
        }
        let mut v = vec![2i32; 100];
        v[77] = 12345 | 2;
        let (p, out) = (d.upload(&v), d.zeros::<i32>(300));
        d.launch("barrier_votes", 1, 100, args![p, out]);
        for o in d.read::<i32>(out, 300).chunks(3) {
            assert_eq!(
                o.iter().map(|x| i32::from(*x != 0)).collect::<Vec<_>>(),
                [i32::from(12347 & 1 == 1), 1, i32::from(12347 == 12345)]
            );
        }
        let out = d.zeros::<i32>(200);
        d.launch("early_exit", 1, 200, args![out, 133i32]);
        let expected: Vec<i32> = (0..200).map(|t| if t < 133 { 132 - t } else { 0 }).collect();
        assert_eq!(d.read::<i32>(out, 200), expected);
        let out = d.zeros::<i32>(64);
        d.launch("named_barriers", 1, 128, args![out]);
        let expected: Vec<i32> = (0..64).map(|t| (63 - t) * (63 - t)).collect();
        assert_eq!(d.read::<i32>(out, 64), expected);
        // Half of the threads that barrier 1 counts never come.
        assert!(matches!(d.fault("named_barriers", 1, 96, args![out]), Fault::Deadlock { .. }));
    });
}

#[test]
fn atomics_of_every_kind() {
    both(|mut d| {
        let mut r = Random(6);
        let (grid, block) = (7u32, 64u32);
        let n = (grid * block) as usize;
        let v: Vec<i32> = (0..n).map(|_| r.next() as i32).collect();
        let u = d.upload(&[0u32, u32::MAX, 0, u32::MAX, 0, 0, 5, 50, 0, 1]);
        let s = d.upload(&[i32::MAX, i32::MIN, 0]);
        let q = d.upload(&[0u64, 0, 7]);
        let (f, g, p) = (d.zeros::<f32>(1), d.zeros::<f64>(1), d.upload(&v));
        d.launch("atomics", grid, block, args![u, s, q, f, g, p]);
        let w: Vec<u32> = v.iter().map(|x| *x as u32).collect();
        let fold = |start: u32, op: fn(u32, u32) -> u32| (0..n).fold(start, |a, _| op(a, 0));
        let expected = [
            w.iter().fold(0u32, |a, x| a.wrapping_add(*x)),
            *w.iter().min().expect("values"),
            *w.iter().max().expect("values"),
            w.iter().fold(u32::MAX, |a, x| a & (x | 0xf0f0_0000)),
            w.iter().fold(0, |a, x| a | 1 << (x & 31)),
            w.iter().fold(0, |a, x| a ^ x),
            fold(5, |a, _| if a >= 99 { 0 } else { a + 1 }),
            fold(50, |a, _| if a == 0 || a > 100 { 100 } else { a - 1 }),
            3 * n as u32,
            77,
        ];
        assert_eq!(d.read::<u32>(u, 10), expected);
        let sum = v.iter().fold(0i32, |a, x| a.wrapping_sub(*x));
        assert_eq!(d.read::<i32>(s, 3), [*v.iter().min().expect("v"), *v.iter().max().expect("v"), sum]);
        let q0 = v.iter().fold(0u64, |a, x| a.wrapping_add(i64::from(*x) as u64));
        let q1 = v.iter().map(|x| (i64::from(*x) as u64).wrapping_mul(0x1_0000_0001)).max().expect("v");
        assert_eq!(d.read::<u64>(q, 3), [q0, q1, 7 + 5 * n as u64]);
        assert_eq!(d.read::<f32>(f, 1), [n as f32]);
        assert_eq!(d.read::<f64>(g, 1), [n as f64 / 2.0]);
    });
}

#[test]
fn generic_addresses_of_three_spaces() {
    both(|mut d| {
        let g = d.upload(&[100i32, 101, 102, 103]);
        for pick in 0..3i32 {
            let out = d.zeros::<i32>(64);
            d.launch("generic_space", 1, 32, args![g, out, pick]);
            let got = d.read::<i32>(out, 64);
            for t in 0..32usize {
                let k = (t & 3) as i32;
                let value = match pick {
                    0 => 100 + k,
                    1 if t == 0 => 32,
                    1 => 2 * k,
                    _ => 2 + k,
                };
                assert_eq!(got[2 * t], value, "space {pick}, thread {t}");
                assert_eq!(got[2 * t + 1], 1 << pick);
            }
        }
    });
}

#[test]
fn lanes_of_a_warp_may_hold_a_lock() {
    both(|mut d| {
        let (lock, counter) = (d.zeros::<i32>(1), d.zeros::<i32>(1));
        d.launch("spinlock", 3, 64, args![lock, counter]);
        assert_eq!(d.read::<i32>(counter, 1), [192]);
    });
}
