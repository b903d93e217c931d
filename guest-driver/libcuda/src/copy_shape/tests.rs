use super::*;

fn shape(width: u64, height: u64, depth: u64) -> CopyShape {
    CopyShape { dst: bytes_end(), src: bytes_end(), width, height, depth, flags: 0 }
}

#[test]
fn pieces_cover_a_copy_once_and_fit() {
    for (width, height, depth, most) in [
        (10, 3, 2, 1000),
        (10, 3, 2, 60),
        (10, 3, 2, 59),
        (10, 3, 5, 64),
        (10, 7, 2, 32),
        (100, 3, 2, 32),
        (1, 1, 1, 16),
        (64, 1, 9, 128),
    ] {
        let mut seen = vec![0u8; (width * height * depth) as usize];
        for piece in Pieces::new(&shape(width, height, depth), most) {
            assert!(piece.bytes() <= most as u64, "{piece:?}");
            for z in piece.z..piece.z + piece.depth {
                for y in piece.y..piece.y + piece.height {
                    for x in piece.x..piece.x + piece.width {
                        seen[((z * height + y) * width + x) as usize] += 1;
                    }
                }
            }
        }
        assert!(seen.iter().all(|n| *n == 1), "{width} {height} {depth} in {most}");
    }
}

#[test]
fn rows_are_packed_and_unpacked_where_they_lie() {
    let memory: Vec<u8> = (0..240).collect();
    // Rows of 8 bytes, 5 of them in a slice; a copy that begins at (1, 2, 3).
    let end = CopyEnd { at: memory.as_ptr() as u64, pitch: 8, rows: 5, x: 1, y: 2, z: 3, ..bytes_end() };
    let piece = Piece { x: 1, y: 0, z: 0, width: 3, height: 2, depth: 2 };
    let mut packed = vec![0; 12];
    // SAFETY: the last row ends at ((4 * 5) + 3) * 8 + 5 = 189 bytes; twelve bytes are packed.
    unsafe { pack(&end, &piece, packed.as_mut_ptr()) };
    assert_eq!(packed, [138, 139, 140, 146, 147, 148, 178, 179, 180, 186, 187, 188]);
    let mut copy = vec![0u8; 240];
    let end = CopyEnd { at: copy.as_mut_ptr() as u64, ..end };
    // SAFETY: as above.
    unsafe { unpack(&end, &piece, packed.as_ptr()) };
    let written: Vec<u8> = copy.into_iter().filter(|b| *b != 0).collect();
    assert_eq!(written, packed);
}

#[test]
fn pitches_are_checked_as_cuda_does() {
    let end = |pitch, rows| CopyEnd { pitch, rows, x: 4, y: 1, ..bytes_end() };
    assert_eq!(check_rows(&end(20, 5), 16, 4, 2), Ok(false));
    for (pitch, rows, height, depth) in
        [(19, 5, 4, 2), (20, 4, 4, 2), (19, 0, 1, 1), (PITCH_MAX + 1, 5, 4, 1), (20, 4, 4, 1)]
    {
        assert_eq!(
            check_rows(&end(pitch, rows), 16, height, depth),
            Err(CUresult::INVALID_VALUE),
            "{pitch} {rows}"
        );
    }
    let first = CopyEnd { y: 0, ..end(0, 0) };
    assert_eq!(check_rows(&first, 16, 1, 1), Ok(false), "one row has no pitch");
    assert_eq!(check_rows(&end(PITCH_MAX + 1, 5), 16, 1, 1), Ok(false), "however large");
    assert_eq!(check_rows(&end(20, 0), 16, 4, 1), Ok(false), "one slice has no height");
    for (pitch, rows, height, depth) in [(0, 5, 4, 1), (0, 5, 1, 1), (20, 0, 4, 2), (0, 0, 1, 2)] {
        assert_eq!(check_rows(&end(pitch, rows), 16, height, depth), Ok(true), "{pitch} {rows}");
    }
}
