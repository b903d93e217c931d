use super::*;

fn end(memory: &[u8], pitch: u64, height: u64, at: (u64, u64, u64)) -> graph_node::CopyEnd {
    graph_node::CopyEnd {
        x_bytes: at.0,
        y: at.1,
        z: at.2,
        memory_type: memory_type::HOST,
        host: memory.as_ptr() as u64,
        pitch,
        height,
        ..Default::default()
    }
}

/// What a function would do between a copy's source and destination, either of them without gaps.
fn run(rows: CopyShape, given: Copy3D, form: Form) {
    let copy = PageableCopy { given, form, rows: Some(rows), _shared: None, _before: None };
    // SAFETY: the tests' memory is as long as their copies say.
    unsafe { copy.run() };
}

#[test]
fn rows_go_up_without_gaps_and_come_down_again() {
    let memory: Vec<u8> = (0..240).collect();
    // Rows of 8 bytes, 5 of them in a slice; 2 x 2 rows of 3 bytes, from (2, 2, 3).
    let given = Copy3D {
        src: end(&memory, 8, 5, (2, 2, 3)),
        width_bytes: 3,
        height: 2,
        depth: 2,
        ..Default::default()
    };
    let mut packed = [0u8; 12];
    let (shared, device) = dense(packed.as_mut_ptr() as u64, &given);
    assert_eq!((device.pitch, device.height, device.memory_type), (3, 2, memory_type::HOST));
    let shape = |dst, src| CopyShape { dst, src, width: 3, height: 2, depth: 2, flags: 0 };
    run(shape(shared, host_end(&given.src, &given).unwrap()), given, Form::Up);
    assert_eq!(packed, [138, 139, 140, 146, 147, 148, 178, 179, 180, 186, 187, 188]);
    let mut copy = vec![0u8; 240];
    let given = Copy3D { dst: end(&copy, 8, 5, (2, 2, 3)), ..given };
    let dst = CopyEnd { at: copy.as_mut_ptr() as u64, ..host_end(&given.dst, &given).unwrap() };
    run(shape(dst, shared), given, Form::Down);
    for (i, byte) in copy.iter().enumerate() {
        assert!(*byte == 0 || *byte == i as u8, "{i}: {byte}");
    }
    assert_eq!(copy.iter().filter(|byte| **byte != 0).count(), 12);
}

#[test]
fn a_row_has_no_use_for_its_pitch() {
    let memory = [7u8; 16];
    let given = of_bytes((memory_type::DEVICE, 0x1000), (memory_type::HOST, memory.as_ptr() as u64), 16);
    for pitch in [0, 16, 100] {
        let src = graph_node::CopyEnd { pitch, ..given.src };
        let found = host_end(&src, &given).unwrap();
        let mut to = [0u8; 16];
        let (shared, _) = dense(to.as_mut_ptr() as u64, &given);
        let rows = CopyShape { dst: shared, src: found, width: 16, height: 1, depth: 1, flags: 0 };
        run(rows, given, Form::Up);
        assert_eq!(to, memory);
    }
    let long = of_bytes((memory_type::DEVICE, 0x1000), (memory_type::UNIFIED, 0x1000), PITCH_MAX + 1);
    assert_eq!((long.src.pitch, long.src.device, long.src.host), (0, 0x1000, 0));
    assert_eq!(dense(0x1000, &long).1.pitch, 0);
}

#[test]
fn shapes_that_memory_cannot_have_are_refused() {
    let memory = [0u8; 64];
    let copy = |width_bytes, height, depth| Copy3D { width_bytes, height, depth, ..Default::default() };
    for (pitch, height, at, size) in [
        // A pitch of less than a row; none, where there are more; a slice of less than its rows.
        (7, 2, (0, 0, 0), (8, 2, 1)),
        (0, 2, (0, 0, 0), (8, 2, 1)),
        (8, 1, (0, 1, 0), (8, 1, 2)),
        // Beyond 64 bits.
        (8, 2, (u64::MAX, 0, 0), (8, 2, 1)),
        (1 << 30, 2, (0, 0, u64::MAX / 2), (8, 2, 1)),
        (8, u64::MAX, (0, 0, 2), (8, 2, 1)),
    ] {
        let copy = copy(size.0, size.1, size.2);
        let found = host_end(&end(&memory, pitch, height, at), &copy);
        assert_eq!(found.err(), Some(CUresult::INVALID_VALUE), "{pitch} {height} {at:?} {size:?}");
    }
}
