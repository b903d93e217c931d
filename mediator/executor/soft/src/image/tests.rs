#![allow(clippy::cast_possible_truncation)] // of sizes that are chosen here

use super::*;

const PTX: &str = "//\n.version 8.0\n.target sm_80\n.address_size 64\n";

/// An entry of a fatbin.
fn packed(kind: u16, capability: u32, flags: u64, whole: usize, payload: &[u8]) -> Vec<u8> {
    let mut padded = payload.to_vec();
    padded.resize(payload.len().next_multiple_of(8), 0);
    let mut entry = Vec::new();
    entry.extend_from_slice(&kind.to_le_bytes());
    entry.extend_from_slice(&0x0101u16.to_le_bytes());
    entry.extend_from_slice(&64u32.to_le_bytes());
    entry.extend_from_slice(&(padded.len() as u32).to_le_bytes());
    entry.extend_from_slice(&0u32.to_le_bytes());
    entry.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    entry.extend_from_slice(&[0; 8]);
    entry.extend_from_slice(&capability.to_le_bytes());
    entry.extend_from_slice(&[0; 8]);
    entry.extend_from_slice(&flags.to_le_bytes());
    entry.extend_from_slice(&0u64.to_le_bytes());
    entry.extend_from_slice(&(whole as u64).to_le_bytes());
    entry.extend_from_slice(&padded);
    entry
}

fn fatbin_of(entries: &[Vec<u8>]) -> Vec<u8> {
    let body = entries.concat();
    let mut image = Vec::new();
    image.extend_from_slice(&FATBIN_MAGIC.to_le_bytes());
    image.extend_from_slice(&1u16.to_le_bytes());
    image.extend_from_slice(&16u16.to_le_bytes());
    image.extend_from_slice(&(body.len() as u64).to_le_bytes());
    image.extend_from_slice(&body);
    image
}

fn plain(capability: u32, note: &str) -> Vec<u8> {
    let text = format!("//{note}{PTX}\0\0");
    packed(KIND_PTX, capability, 0x11, 0, text.as_bytes())
}

fn result(image: &[u8]) -> CUresult {
    text(image).expect_err("refused").result
}

#[test]
fn ptx_is_found_by_its_beginning() {
    for ok in [PTX, " \n\t.version 7.0\n", "/* x */.version 7.0"] {
        assert_eq!(text(ok.as_bytes()).unwrap(), ok);
        assert_eq!(text(&[ok.as_bytes(), b"\0\0junk"].concat()).unwrap(), ok);
    }
    for bad in [&b""[..], b"hello", b"\0", b"//\xff\xff", b"\x50\xed\x55"] {
        assert_eq!(result(bad), CUresult::INVALID_IMAGE);
    }
    assert_eq!(result(b"\x7fELF\x02\x01\x01"), CUresult::NO_BINARY_FOR_GPU);
}

#[test]
fn the_newest_ptx_that_fits_is_taken() {
    let image = fatbin_of(&[
        packed(KIND_ELF, 80, 0, 0, b"\x7fELF"),
        plain(52, "a"),
        plain(80, "b"),
        plain(90, "c"),
        plain(75, "d"),
    ]);
    assert!(text(&image).unwrap().starts_with("//b"));
    assert_eq!(result(&fatbin_of(&[plain(90, "c")])), CUresult::NO_BINARY_FOR_GPU);
    assert_eq!(result(&fatbin_of(&[packed(KIND_ELF, 80, 0, 0, b"x")])), CUresult::NO_BINARY_FOR_GPU);
    assert_eq!(result(&fatbin_of(&[])), CUresult::NO_BINARY_FOR_GPU);
}

#[test]
fn compressed_ptx_is_unpacked() {
    let long = format!("{PTX}{}", "// padding that repeats\n".repeat(400));
    let lz4 = lz4_flex::block::compress(long.as_bytes());
    let zstd =
        ruzstd::encoding::compress_to_vec(long.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
    assert!(lz4.len() < long.len() / 2);
    for (flag, bytes) in [(FLAG_LZ4, &lz4), (FLAG_ZSTD, &zstd)] {
        let image = fatbin_of(&[packed(KIND_PTX, 80, flag | 0x11, long.len(), bytes)]);
        assert_eq!(text(&image).unwrap(), long);
        for wrong in [long.len() - 1, long.len() + 1, 0, usize::MAX, TEXT_BYTES_MAX + 1, TEXT_BYTES_MAX] {
            let image = fatbin_of(&[packed(KIND_PTX, 80, flag, wrong, bytes)]);
            if let Ok(found) = text(&image) {
                // LZ4's own check is for at most so many bytes.
                assert!(flag == FLAG_LZ4 && wrong >= long.len() && found == long, "claimed {wrong}");
            }
        }
    }
}

#[test]
fn every_prefix_of_a_fatbin_and_every_length_is_survived() {
    let image = fatbin_of(&[plain(52, "a"), plain(80, "b")]);
    for end in 0..image.len() {
        assert!(text(&image[..end]).is_err(), "{end} bytes");
    }
    for at in 4..80 {
        for value in [0u8, 1, 0x7f, 0xff] {
            let mut damaged = image.clone();
            damaged[at] = value;
            let _ = text(&damaged);
            damaged[at..at + 4].fill(value);
            let _ = text(&damaged);
        }
    }
}

#[test]
fn images_arrive_in_order_and_are_bounded() {
    let mut images = Images::default();
    let refused = Err(CUresult::INVALID_VALUE);
    assert_eq!(images.add(1, 0, 0, b""), refused);
    assert_eq!(images.add(1, 0, IMAGE_BYTES_MAX + 1, b"x"), refused);
    assert_eq!(images.add(1, 0, 2, b"xyz"), refused);
    assert_eq!(images.add(1, u64::MAX, 2, b"xyz"), refused);
    assert_eq!(images.add(1, 2, 4, b"x"), refused);
    let (head, tail) = PTX.as_bytes().split_at(20);
    let total = PTX.len() as u64;
    images.add(1, 0, total, head).unwrap();
    assert!(images.text(1).is_err(), "not complete");
    assert_eq!(images.add(1, 19, total, tail), refused);
    assert_eq!(images.add(1, 20, total, tail), refused, "the damaged one is gone");
    images.add(1, 0, total, head).unwrap();
    images.add(1, 20, total, tail).unwrap();
    assert_eq!(images.text(1).unwrap(), PTX);
    assert_eq!(images.text(1).unwrap(), PTX, "it can be loaded again");
    // Two claims of the largest size: the complete one makes room, incomplete ones do not.
    images.add(2, 0, IMAGE_BYTES_MAX, b"x").unwrap();
    images.add(3, 0, IMAGE_BYTES_MAX, b"x").unwrap();
    assert!(images.text(1).is_err());
    assert_eq!(images.add(4, 0, 100, b"x"), Err(CUresult::OUT_OF_MEMORY));
}
