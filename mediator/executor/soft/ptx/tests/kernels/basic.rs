use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ptx::Fault;

use crate::args;
use crate::device::{Arg, Device, Random};

/// Every kernel of the file runs optimised and unoptimised.
fn both(test: impl Fn(Device)) {
    test(Device::load("basic"));
    test(Device::load("basic.debug"));
}

#[test]
fn vector_addition() {
    both(|mut d| {
        let mut r = Random(1);
        let n = 1003;
        let a: Vec<f32> = (0..n).map(|_| r.float(10.0) as f32).collect();
        let b: Vec<f32> = (0..n).map(|_| r.float(10.0) as f32).collect();
        let (pa, pb, pc) = (d.upload_constant(&a), d.upload_constant(&b), d.zeros::<f32>(n));
        let stats = d.launch("vecadd", 8, 128, args![pa, pb, pc, n as i32]);
        let expected: Vec<f32> = a.iter().zip(&b).map(|(x, y)| x + y).collect();
        assert_eq!(d.read::<f32>(pc, n), expected);
        assert_eq!(stats.blocks, 8);
        assert!(
            stats.lane_instructions > 1003 * 10 && stats.warp_instructions * 32 >= stats.lane_instructions
        );
    });
}

#[test]
fn threads_print() {
    let mut d = Device::load("prints");
    let p = d.upload(&[5i32, -6, 7]);
    d.launch("chatty", 1, 3, args![p]);
    assert_eq!(*d.printed.lock().expect("no panic"), b"5\n-6\n7\n");
}

#[test]
fn saxpy_with_a_grid_stride() {
    both(|mut d| {
        let mut r = Random(2);
        let n = 5000;
        let x: Vec<f32> = (0..n).map(|_| r.float(10.0) as f32).collect();
        let y: Vec<f32> = (0..n).map(|_| r.float(10.0) as f32).collect();
        let (px, py) = (d.upload(&x), d.upload(&y));
        d.launch("saxpy", 3, 96, args![2.5f32, px, py, n as i32]);
        let got = d.read::<f32>(py, n);
        for k in 0..n {
            // Optimised code fuses the product and the sum.
            let (fused, split) = (2.5f32.mul_add(x[k], y[k]), 2.5 * x[k] + y[k]);
            assert!(got[k] == fused || got[k] == split, "{k}: {} for {fused}", got[k]);
        }
    });
}

fn pod() -> Vec<u8> {
    let mut p = vec![0u8; 48];
    p[0] = -7i8 as u8;
    p[8..16].copy_from_slice(&1.25f64.to_le_bytes());
    for (k, s) in [100i16, -200, 300].iter().enumerate() {
        p[16 + 2 * k..18 + 2 * k].copy_from_slice(&s.to_le_bytes());
    }
    p[24..28].copy_from_slice(&(-99999i32).to_le_bytes());
    for (k, f) in [1.0f32, 2.0, 3.0, 4.5].iter().enumerate() {
        p[32 + 4 * k..36 + 4 * k].copy_from_slice(&f.to_le_bytes());
    }
    p
}

#[test]
fn structures_by_value() {
    both(|mut d| {
        let out = d.zeros::<f64>(11);
        d.launch("by_value", 1, 1, &[Arg::bytes(&pod()), Arg::from(200u8), Arg::from(out)]);
        let expected = [-7.0, 1.25, 100.0, -200.0, 300.0, -99999.0, 1.0, 2.0, 3.0, 4.5, 200.0];
        assert_eq!(d.read::<f64>(out, 11), expected);
        let out = d.zeros::<f64>(5);
        d.launch("by_value_indexed", 1, 5, &[Arg::bytes(&pod()), Arg::from(1i32), Arg::from(out)]);
        assert_eq!(d.read::<f64>(out, 5), [-200.0, 300.0, 100.0, -200.0, 300.0]);
    });
}

#[test]
fn parameters_are_laid_out_as_the_abi_packs_them() {
    let d = Device::load("basic");
    let k = d.module.module().kernel("by_value").expect("kernel");
    let layout: Vec<_> = k.params.iter().map(|p| (p.offset, p.size, p.align)).collect();
    assert_eq!(layout, [(0, 48, 16), (48, 1, 1), (56, 8, 8)]);
    assert_eq!(k.param_bytes(), 64);
}

#[test]
fn three_dimensional_grids() {
    both(|mut d| {
        let (grid, block) = ([3u32, 2, 4], [5u32, 3, 2]);
        let (w, h, z) = (15, 6, 8);
        let out = d.zeros::<u32>((w * h * z) as usize);
        d.launch3("grid3", grid, block, 0, args![out]);
        let got = d.read::<u32>(out, (w * h * z) as usize);
        for (k, v) in got.iter().enumerate() {
            let k = k as u32;
            assert_eq!(*v, (k % w) | ((k / w % h) << 8) | ((k / w / h) << 16));
        }
    });
}

#[test]
fn vectors_and_narrow_types() {
    both(|mut d| {
        let a: Vec<f32> = (0..40).map(|k| k as f32).collect();
        let (pa, pb) = (d.upload(&a), d.zeros::<f32>(40));
        d.launch("copy4", 1, 32, args![pa, pb, 10i32]);
        let expected: Vec<f32> = (0..40)
            .map(|k| match k % 4 {
                0 => k as f32 + 1.0,
                3 => k as f32 * 2.0,
                _ => k as f32,
            })
            .collect();
        assert_eq!(d.read::<f32>(pb, 40), expected);
        let a: Vec<i8> = (0..32).map(|k| (k * 8 - 128) as i8).collect();
        let b: Vec<u8> = (0..32).map(|k| (k * 8) as u8).collect();
        let s: Vec<i16> = (0..32).map(|k| (k * 2000 - 32000) as i16).collect();
        let (pa, pb, ps, po) = (d.upload(&a), d.upload(&b), d.upload(&s), d.zeros::<i32>(32));
        d.launch("bytes", 1, 32, args![pa, pb, ps, po]);
        let expected: Vec<i32> =
            (0..32).map(|k| i32::from(a[k]) * 3 + i32::from(b[k]) - i32::from(s[k])).collect();
        assert_eq!(d.read::<i32>(po, 32), expected);
    });
}

#[test]
fn stray_accesses_fault() {
    both(|mut d| {
        let p = d.zeros::<i32>(4);
        d.launch("store_past", 1, 1, args![p, 3i64]);
        assert_eq!(d.read::<i32>(p, 4), [0, 0, 0, 7]);
        for off in [4i64, -1, 1 << 40] {
            let addr = p.wrapping_add((off * 4) as u64);
            assert!(matches!(d.fault("store_past", 1, 1, args![p, off]),
                Fault::IllegalAddress { addr: a, line } if a == addr && line > 0));
        }
        assert!(matches!(
            d.fault("store_past", 1, 1, args![0u64, 0i64]),
            Fault::IllegalAddress { addr: 0, .. }
        ));
        let c = d.upload_constant(&[1i32; 4]);
        assert!(matches!(d.fault("store_past", 1, 1, args![c, 0i64]), Fault::IllegalAddress { .. }));
        let out = d.zeros::<i32>(1);
        let addr = p + 1;
        assert!(matches!(d.fault("load_odd", 4, 64, args![p, out]),
            Fault::MisalignedAddress { addr: a, .. } if a == addr));
    });
}

#[test]
fn a_fault_of_one_block_ends_the_launch() {
    let mut d = Device::load("basic");
    // Thread 0 of the grid finds the end; block 1, on the other worker, spins until the fault ends the launch.
    let flag = d.zeros::<i32>(1);
    assert!(matches!(d.fault("handoff", 2, 1, args![flag, 16u64]), Fault::IllegalAddress { addr: 16, .. }));
}

#[test]
fn traps() {
    both(|mut d| {
        let p = d.upload(&[1i32, 2, 3, 4]);
        d.launch("trap_if", 1, 4, args![p]);
        let p = d.upload(&[1i32, 5, 3, 4]);
        assert!(matches!(d.fault("trap_if", 1, 4, args![p]), Fault::Trap { line } if line > 0));
    });
}

#[test]
fn endless_loops_are_cancelled() {
    both(|mut d| {
        for name in ["forever", "forever_blind"] {
            let p = d.zeros::<i32>(8);
            let cancel = AtomicBool::new(false);
            let (d, cancel) = (&d, &cancel);
            std::thread::scope(|scope| {
                let launch = scope.spawn(move || {
                    (d.try_launch(name, [4, 1, 1], [64, 1, 1], 0, args![p], cancel), Instant::now())
                });
                std::thread::sleep(Duration::from_millis(50));
                assert!(!launch.is_finished());
                let set = Instant::now();
                cancel.store(true, Ordering::Relaxed);
                let (outcome, ended) = launch.join().expect("no panic");
                assert_eq!(outcome, Err(Fault::Cancelled));
                assert!(ended.duration_since(set) < Duration::from_millis(500));
            });
        }
    });
}

#[test]
fn launch_bounds() {
    both(|mut d| {
        let k = d.module.module().kernel("bounded").expect("kernel").clone();
        assert_eq!(
            (k.max_threads, k.min_blocks_per_multiprocessor, k.required_threads),
            (Some(128), Some(2), None)
        );
        let p = d.zeros::<i32>(256);
        d.launch("bounded", 1, 128, args![p]);
        assert!(matches!(d.fault("bounded", 1, 129, args![p]), Fault::InvalidLaunch { .. }));
        assert!(matches!(d.fault("vecadd", 1, 1025, args![p, p, p, 0i32]), Fault::InvalidLaunch { .. }));
        assert!(matches!(d.fault("vecadd", 0, 1, args![p, p, p, 0i32]), Fault::InvalidLaunch { .. }));
    });
}

#[test]
fn blocks_hand_over_through_global_memory() {
    both(|mut d| {
        let (flag, out) = (d.zeros::<i32>(1), d.zeros::<i32>(2));
        d.launch("handoff", 2, 1, args![flag, out]);
        assert_eq!(d.read::<i32>(out, 2), [42, 43]);
    });
}

#[test]
fn special_registers() {
    both(|mut d| {
        let out = d.zeros::<u32>(6 * 70);
        d.launch("specials", 1, 70, args![out]);
        for (t, o) in (0u32..).zip(d.read::<u32>(out, 6 * 70).chunks(6)) {
            let lane = t % 32;
            assert_eq!(o, [lane, t / 32, 1 << lane, (1 << lane) - 1, u32::MAX << lane, 1]);
        }
    });
}
