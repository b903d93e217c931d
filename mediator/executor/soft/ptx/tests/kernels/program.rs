use ptx::Fault;

use crate::args;
use crate::device::{Device, Random};

fn both(test: impl Fn(Device)) {
    test(Device::load("program"));
    test(Device::load("program.debug"));
}

#[test]
fn variables_and_their_initial_values() {
    both(|mut d| {
        let out = d.zeros::<f64>(32 * 6);
        d.launch("globals", 1, 32, args![out]);
        let coeff = [1.5, -2.25, 3.0, 0.5, -1.0];
        let blob = [1.0, 2.0, 3.0, 250.0, 5.0, 0.0, 0.0];
        let message = b"soft\0";
        for (i, o) in d.read::<f64>(out, 32 * 6).chunks(6).enumerate() {
            let expected = [
                coeff[i % 5],
                if i == 0 { 41.0 } else { 0.0 },
                blob[i % 7],
                12.0 + (i % 4) as f64,
                f64::from(message[i % 5]),
                13.0 + (i % 3) as f64,
            ];
            assert_eq!(o, expected, "thread {i}");
        }
        assert_eq!(d.module.initial_bytes("blob"), Some(vec![1, 2, 3, 250, 5, 0, 0]));
        let at = |name: &str| d.variables[name];
        assert_eq!(d.read::<i32>(at("counter"), 1), [42]);
        assert_eq!(d.read::<f64>(at("table"), 4), [0.5, 1.5, 2.5, 3.5]);
        assert_eq!(d.read::<u64>(at("third"), 1), [at("values") + 8]);
    });
}

#[test]
fn device_functions() {
    both(|mut d| {
        let out = d.zeros::<f64>(96 * 7);
        d.launch("calls", 1, 96, args![out]);
        let fib = |n: usize| (0..n).fold((0.0, 1.0), |(a, b), _| (b, a + b)).0;
        for (i, o) in d.read::<f64>(out, 96 * 7).chunks(7).enumerate() {
            let (x, k) = (i as f64, i as f64 - 2.0);
            let expected = [
                fib(i % 12),
                (x + 0.5) * k,
                x * 10.0 - k,
                3.0 + k,
                2.0 + k,
                1.0 + k,
                x + if i % 2 == 1 { 5.0 } else { -5.0 },
            ];
            assert_eq!(o, expected, "thread {i}");
        }
    });
}

#[test]
fn endless_recursion_overflows_the_stack() {
    both(|mut d| {
        let p = d.zeros::<i32>(1);
        assert!(matches!(d.fault("deep", 1, 32, args![p]), Fault::StackOverflow { line } if line > 0));
    });
}

#[test]
fn local_arrays() {
    both(|mut d| {
        let mut r = Random(11);
        let v: Vec<i32> = (0..97).map(|_| r.next() as i32 >> 20).collect();
        let n = 23usize;
        let (p, out) = (d.upload(&v), d.zeros::<i32>(70 * n));
        d.launch("local_array", 1, 70, args![p, out, n as i32]);
        for (t, o) in d.read::<i32>(out, 70 * n).chunks(n).enumerate() {
            let mut expected: Vec<i32> = (0..n).map(|i| v[(t * 7 + i) % 97]).collect();
            expected.sort_unstable();
            assert_eq!(o, expected);
        }
    });
}

#[test]
fn templates() {
    both(|mut d| {
        let (p, q) = (d.zeros::<i32>(40), d.zeros::<f64>(40));
        d.launch("_Z4fillIiEvPT_S0_", 1, 40, args![p, 7i32]);
        d.launch("_Z4fillIdEvPT_S0_", 1, 40, args![q, 0.5f64]);
        assert_eq!(d.read::<i32>(p, 40), (7..47).collect::<Vec<i32>>());
        assert_eq!(d.read::<f64>(q, 40), (0..40).map(|k| f64::from(k) + 0.5).collect::<Vec<f64>>());
    });
}

#[test]
fn divergent_loops() {
    both(|mut d| {
        let v: Vec<i32> = (0..128).map(|k| k * 11 % 40 - 3).collect();
        let (p, out) = (d.upload(&v), d.zeros::<i32>(128));
        d.launch("divergent", 1, 128, args![p, out]);
        let expected: Vec<i32> = v
            .iter()
            .map(|&v| {
                let mut r = 0i32;
                for i in 0..v {
                    if i % 3 == 0 {
                        r += i;
                        if r > 100 {
                            break;
                        }
                    } else if i % 3 == 1 {
                        continue;
                    } else {
                        for j in 0..i % 5 {
                            r ^= j + v;
                        }
                    }
                    r += 2;
                }
                r
            })
            .collect();
        assert_eq!(d.read::<i32>(out, 128), expected);
    });
}
