//! What NVRTC rarely emits, written by hand.

use ptx::Fault;

use crate::args;
use crate::device::Device;

/// A kernel `k(out)` whose body finds the address of its thread's 32-bit result in `%rd1`, the thread in `%r1`.
fn device(before: &str, body: &str) -> Device {
    Device::with(&format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n{before}\n.visible .entry k(.param .u64 out) {{
        .reg .b64 %rd<20>; .reg .b32 %r<30>; .reg .b16 %h<10>; .reg .pred %p<10>; .reg .f32 %f<10>;
        ld.param.u64 %rd1, [out]; cvta.to.global.u64 %rd1, %rd1;
        mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd1, %rd1, %rd2;
        {body}
        }}"
    ))
}

fn run(d: &mut Device, threads: u32) -> Vec<u32> {
    let out = d.zeros::<u32>(threads as usize);
    d.launch("k", 1, threads, args![out]);
    d.read(out, threads as usize)
}

#[test]
fn indexed_branches() {
    let body = "
        rem.u32 %r2, %r1, 5;
        targets: .branchtargets A, B, C, B, A;
        brx.idx %r2, targets;
        A: mov.u32 %r3, 10; bra.uni End;
        B: mov.u32 %r3, 20; bra.uni End;
        C: mov.u32 %r3, 30;
        End: st.global.u32 [%rd1], %r3; ret;";
    let mut d = device("", body);
    let expected: Vec<u32> = (0..50).map(|t| [10, 20, 30, 20, 10][t % 5]).collect();
    assert_eq!(run(&mut d, 50), expected);
    let mut d = device("", &body.replace("%r1, 5", "%r1, 6"));
    let out = d.zeros::<u32>(50);
    assert!(matches!(d.fault("k", 1, 50, args![out]), Fault::IllegalInstruction { .. }));
}

#[test]
fn scopes_and_guards() {
    let mut d = device("", "
        setp.lt.u32 %p1, %r1, 7;
        mov.u32 %r5, 1;
        { .reg .b32 %r5; .reg .pred %p1; setp.gt.u32 %p1, %r1, 3; mov.u32 %r5, 100; @%p1 bra Skip; mov.u32 %r6, 2; Skip: @%p1 mov.u32 %r6, 3; }
        { bra Skip; mov.u32 %r6, 77; Skip: }
        @!%p1 add.u32 %r6, %r6, %r5;
        st.global.u32 [%rd1], %r6;");
    let expected: Vec<u32> = (0..40).map(|t| if t > 3 { 3 } else { 2 } + u32::from(t >= 7)).collect();
    assert_eq!(run(&mut d, 40), expected);
}

#[test]
fn asynchronous_copies_are_done_at_once() {
    let mut d = device(
        ".global .align 16 .b32 data[8] = {1,2,3,4,5,6,7,8};\n.shared .align 16 .b8 s[64];",
        "
        mov.u64 %rd3, data; mov.u32 %r2, s;
        cp.async.cg.shared.global [%r2], [%rd3], 16;
        cp.async.ca.shared.global [%r2+16], [%rd3+16], 16, 6;
        cp.async.commit_group; cp.async.wait_group 0; bar.sync 0;
        shl.b32 %r3, %r1, 2; add.u32 %r3, %r3, %r2; ld.shared.u32 %r4, [%r3];
        st.global.u32 [%rd1], %r4;",
    );
    assert_eq!(run(&mut d, 8), [1, 2, 3, 4, 5, 6, 0, 0]);
}

#[test]
fn register_widths_convert_on_loads_and_stores() {
    let mut d = device(
        ".global .b8 data[4] = {0x80, 0x7f, 0xff, 0x01};",
        "
        cvt.u64.u32 %rd3, %r1; mov.u64 %rd4, data; add.s64 %rd4, %rd4, %rd3;
        ld.global.s8 %rd5, [%rd4]; ld.global.u8 %rd6, [%rd4]; ld.global.s8 %h1, [%rd4];
        add.s64 %rd7, %rd5, %rd6; st.global.u32 [%rd1], %rd7;
        cvt.s32.s16 %r2, %h1; shr.s64 %rd8, %rd5, 32; cvt.u32.u64 %r4, %rd8;
        setp.ne.s32 %p1, %r4, -1; setp.ge.and.s32 %p2|%p3, %r2, 0, !%p1;
        @%p2 st.global.u32 [%rd1], 999;",
    );
    let expected: Vec<u32> = [-128i32 + 128, 127 + 127, -1 + 255, 1 + 1].iter().map(|v| *v as u32).collect();
    assert_eq!(run(&mut d, 4), expected);
}

#[test]
fn waiting_lanes_of_other_branches_meet() {
    // Both sides of the branch execute their own shuffle; the lanes meet all the same.
    let mut d = device(
        "",
        "
        setp.lt.u32 %p1, %r1, 16;
        @%p1 bra Low;
        shfl.sync.idx.b32 %r2, %r1, 3, 31, 0xffffffff; bra.uni End;
        Low: shfl.sync.idx.b32 %r2, %r1, 20, 31, 0xffffffff;
        End: st.global.u32 [%rd1], %r2;",
    );
    let expected: Vec<u32> = (0..32).map(|t| if t < 16 { 20 } else { 3 }).collect();
    assert_eq!(run(&mut d, 32), expected);
    // Lane 5 has exited: the others do not wait for it.
    let mut d = device("", "
        setp.eq.u32 %p1, %r1, 5;
        @%p1 exit;
        vote.sync.ballot.b32 %r2, %p1, 0xffffffff; popc.b32 %r2, %r2; activemask.b32 %r3; add.u32 %r2, %r2, %r3;
        st.global.u32 [%rd1], %r2;");
    let expected: Vec<u32> = (0..32).map(|t| if t == 5 { 0 } else { !(1 << 5) }).collect();
    assert_eq!(run(&mut d, 32), expected);
}

#[test]
fn a_spinning_lane_does_not_starve_the_one_it_waits_for() {
    // Lane 0 spins at the lower address until lane 1, of the same warp, has stored.
    let mut d = device(
        ".shared .u32 flag;",
        "
        setp.ne.u32 %p1, %r1, 0;
        @%p1 bra Store;
        Spin: ld.volatile.shared.u32 %r2, [flag]; setp.eq.u32 %p2, %r2, 0; @%p2 bra Spin;
        bra.uni End;
        Store: mov.u32 %r2, 7; st.volatile.shared.u32 [flag], %r2;
        End: st.global.u32 [%rd1], %r2;",
    );
    assert_eq!(run(&mut d, 2), [7, 7]);
}

#[test]
fn space_confusion_faults() {
    let body = "cvta.local.u64 %rd3, 0; atom.add.u32 %r2, [%rd3], 1; st.global.u32 [%rd1], %r2;";
    let mut d = device("", body);
    let out = d.zeros::<u32>(1);
    assert!(matches!(d.fault("k", 1, 1, args![out]), Fault::InvalidAddressSpace { .. }));
    let mut d =
        device("", "mov.u64 %rd3, out; cvta.param.u64 %rd3, %rd3; ld.u64 %rd4, [%rd3]; st.u32 [%rd3], 1;");
    let out = d.zeros::<u32>(1);
    assert!(matches!(d.fault("k", 1, 1, args![out]), Fault::InvalidAddressSpace { .. }));
    let mut d = device(".shared .u32 s[4];", "mov.u64 %rd3, s; st.shared.u32 [%rd3+16], 1;");
    let out = d.zeros::<u32>(1);
    assert!(matches!(d.fault("k", 1, 1, args![out]), Fault::IllegalAddress { addr: 16, .. }));
}

#[test]
fn half_atomics_and_results_seen_by_lanes_in_order() {
    let mut d = device(
        ".global .align 4 .b32 sum = 0;",
        "
        mov.u64 %rd3, sum; mov.b32 %r2, 0x3c003c00;
        atom.global.add.noftz.f16x2 %r3, [%rd3], %r2;
        st.global.u32 [%rd1], %r3;",
    );
    let halves = [0u32, 0x3c00, 0x4000, 0x4200];
    assert_eq!(run(&mut d, 4), halves.map(|h| h << 16 | h));
}
