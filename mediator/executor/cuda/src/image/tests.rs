use cuda_api::account::counted_bytes;

use super::*;

fn fatbin(entries: &[(u32, u32)], payload: u64) -> Vec<u8> {
    let mut image = vec![0u8; 16];
    image[..4].copy_from_slice(&FATBIN_MAGIC.to_le_bytes());
    image[4] = 1;
    image[6] = 16;
    image[8..16].copy_from_slice(&payload.to_le_bytes());
    for (header, bytes) in entries {
        let mut entry = vec![0u8; 64.max(*header as usize) + *bytes as usize];
        entry[4..8].copy_from_slice(&header.to_le_bytes());
        entry[8..12].copy_from_slice(&bytes.to_le_bytes());
        image.extend_from_slice(&entry);
    }
    image
}

#[test]
fn a_fatbin_is_as_long_as_it_says() {
    let bad = Err(CUresult::INVALID_IMAGE);
    assert_eq!(check(&fatbin(&[(64, 8), (80, 16)], 72 + 96)), Ok(()));
    assert_eq!(check(&fatbin(&[(64, 8)], 73)), bad);
    assert_eq!(check(&fatbin(&[(64, 8), (64, 8)], 100)), bad);
    assert_eq!(check(&fatbin(&[(63, 9)], 72)), bad);
    assert_eq!(check(&fatbin(&[(64, 8)], u64::MAX)), bad);
    let mut image = fatbin(&[(64, 8)], 72);
    image[16 + 12] = 0xff;
    assert_eq!(check(&image), bad);
    image.truncate(40);
    assert_eq!(check(&image), bad);
}

#[test]
fn options_of_ptx_lie_in_the_entrys_header() {
    // As nvcc writes it: the place of the options at 64, an empty string at 72.
    let mut image = fatbin(&[(80, 8)], 88);
    image[16] = 1;
    image[16 + 20] = 64;
    image[16 + 64] = 72;
    assert_eq!(check(&image), Ok(()));
    for (at, value) in [(20, 0), (20, 76), (64, 80), (66, 1)] {
        let mut changed = image.clone();
        changed[16 + at] = value;
        assert_eq!(check(&changed), Err(CUresult::INVALID_IMAGE), "{at} {value}");
    }
}

#[test]
fn an_elf_file_that_points_outside_itself_is_refused() {
    let program = std::fs::read("/proc/self/exe").unwrap();
    assert_eq!(check(&program), Ok(()));
    let bad = Err(CUresult::INVALID_IMAGE);
    assert_eq!(check(&program[..program.len() - 1]), bad);
    assert_eq!(check(&program[..0x30]), bad);
    for field in [0x20, 0x28] {
        let mut changed = program.clone();
        changed[field..field + 8].copy_from_slice(&(u64::MAX - 8).to_le_bytes());
        assert_eq!(check(&changed), bad);
    }
    let mut changed = program.clone();
    let sections = usize::try_from(long(&program, 0x28).unwrap()).unwrap();
    // The second section's size.
    changed[sections + 0x40 + 0x20..][..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(check(&changed), bad);
}

#[test]
fn text_is_ptx_or_nothing() {
    assert_eq!(check(b"\n// a comment\n.version 8.0\n\0"), Ok(()));
    assert_eq!(check(b".version 8.0"), Ok(()));
    assert_eq!(check(b"garbage"), Err(CUresult::INVALID_IMAGE));
    assert_eq!(check(b""), Err(CUresult::INVALID_IMAGE));
}

/// What the driver would find at this address: the wrapper's fatbins, each by its first bytes.
fn found(given: &Given) -> Vec<u8> {
    // SAFETY: a wrapper, whose list NULL ends; each fatbin has at least one entry's header.
    unsafe {
        let wrapper = &*given.pointer().cast::<Wrapper>();
        assert_eq!((wrapper.magic, wrapper.version), (0x4662_43b1, 2));
        let list = (0..).map(|i| wrapper.list.add(i).read()).take_while(|part| !part.is_null());
        std::iter::once(wrapper.data).chain(list).map(|part| part.add(16 + 63).read()).collect()
    }
}

#[test]
fn several_fatbins_are_given_with_a_wrapper() {
    let fatbins: Vec<Vec<u8>> = (1..4)
        .map(|mark| {
            let mut fatbin = vec![0u8; 16 + 64 + 8];
            fatbin[..4].copy_from_slice(&FATBIN_MAGIC.to_le_bytes());
            fatbin[6] = 16;
            fatbin[8] = 64 + 8;
            (fatbin[16], fatbin[16 + 4], fatbin[16 + 8], fatbin[16 + 63]) = (2, 64, 8, mark);
            fatbin
        })
        .collect();
    let parts: Vec<&[u8]> = fatbins.iter().map(Vec::as_slice).collect();
    let packed = linked::pack(&parts, 1 << 20).unwrap();
    assert_eq!(check(&packed), Ok(()));
    assert_eq!(check(&packed[..packed.len() - 8]), Err(CUresult::INVALID_IMAGE));
    let mut damaged = packed.clone();
    let last = linked::parts(&packed).unwrap()[2].start;
    damaged[last + 16 + 8] = 9;
    assert_eq!(check(&damaged), Err(CUresult::INVALID_IMAGE));
    damaged[last] = 0;
    assert_eq!(check(&damaged), Err(CUresult::INVALID_IMAGE));

    let image = |bytes: &[u8]| {
        let mut image = Image::room(bytes.len());
        image.append(bytes).unwrap();
        image.given()
    };
    let given = image(&packed);
    assert_eq!(found(&given), [1, 2, 3]);
    // It may move.
    assert_eq!(found(&std::sync::Arc::new(given).kept().unwrap()), [1, 2, 3]);
    let one = image(&fatbins[0]);
    // SAFETY: the image's own first bytes.
    assert_eq!(unsafe { one.pointer().cast::<u32>().read() }, FATBIN_MAGIC);
    assert!(std::sync::Arc::new(one).kept().is_none());
}

#[test]
fn images_arrive_in_order_and_are_taken_once() {
    let mut images = Images::default();
    images.add(1, 0, 11, b".version").unwrap();
    assert!(images.take(1).is_err());
    images.add(1, 0, 11, b".version").unwrap();
    assert_eq!(images.add(1, 9, 11, b"x"), Err(CUresult::INVALID_VALUE));
    images.add(2, 0, 11, b".version").unwrap();
    images.add(2, 8, 11, b" 8\0").unwrap();
    let image = images.take(2).unwrap();
    assert_eq!(image.bytes(), b".version 8\0");
    assert_eq!(image.bytes().as_ptr() as usize % 8, 0);
    assert!(images.take(2).is_err());
    assert_eq!(images.add(3, 0, IMAGE_BYTES_MAX + 1, b"x"), Err(CUresult::INVALID_VALUE));
    assert_eq!(images.add(3, 0, 0, b""), Err(CUresult::INVALID_VALUE));
    for image in 0..3 {
        images.add(10 + image, 0, IMAGE_BYTES_MAX, b"x").unwrap();
    }
    assert_eq!(images.held.len(), 2);
}

/// An ELF object with one section of these bytes.
fn object(section: &[u8]) -> Vec<u8> {
    let mut image = vec![0u8; 0x40];
    image[..6].copy_from_slice(ELF_MAGIC);
    let sections = 0x40 + section.len() as u64;
    image[0x28..0x30].copy_from_slice(&sections.to_le_bytes());
    image[0x3a] = 0x40;
    image[0x3c] = 1;
    image.extend_from_slice(section);
    let mut header = [0u8; 0x40];
    header[4] = 1;
    header[0x18] = 0x40;
    header[0x20..0x28].copy_from_slice(&(section.len() as u64).to_le_bytes());
    image.extend_from_slice(&header);
    image
}

fn input(bytes: &[u8], kind: u32) -> CuResult<()> {
    let mut image = Image::room(bytes.len());
    image.append(bytes).unwrap();
    image.check_input(kind)
}

#[test]
fn inputs_of_the_linker_are_what_their_type_says() {
    let bad = Err(CUresult::INVALID_IMAGE);
    let good = fatbin(&[(64, 8)], 72);
    let broken = fatbin(&[(64, 8)], 73);
    for (kind, bytes) in
        [(1, b".version 8.0".to_vec()), (2, good.clone()), (0, object(b"x")), (3, object(b"x"))]
    {
        assert_eq!(input(&bytes, kind), Ok(()), "{kind}");
        assert_eq!(input(b"garbage", kind), bad, "{kind}");
    }
    assert_eq!(input(&good, 1), bad);
    assert_eq!(input(&good, 0), bad);
    assert_eq!(input(b".version 8.0", 5), Err(CUresult::NOT_SUPPORTED));
    let two = [&good[..], &[0; 4], &good, &[0; 4]].concat();
    assert_eq!(input(&object(&two), 3), Ok(()));
    assert_eq!(input(&object(&[&good[..], b"something else"].concat()), 3), bad);
    assert_eq!(input(&object(&[&good[..], &broken].concat()), 3), bad);
    assert_eq!(input(&object(&broken), 3), bad);
    assert_eq!(input(&object(b"x")[..0x40], 3), bad);
}

#[test]
fn archives_have_whole_objects() {
    let member = |name: &str, bytes: &[u8]| {
        let mut member =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, bytes.len()).into_bytes();
        member.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            member.push(b'\n');
        }
        member
    };
    let archive = |members: &[Vec<u8>]| [b"!<arch>\n".to_vec(), members.concat()].concat();
    let bad = Err(CUresult::INVALID_IMAGE);
    let good = member("a.o/", &object(&fatbin(&[(64, 8)], 72)));
    assert_eq!(input(&archive(&[member("/", b"abc"), good.clone(), good.clone()]), 4), Ok(()));
    assert_eq!(input(&archive(&[good.clone(), member("b.o/", &object(&fatbin(&[(64, 8)], 73)))]), 4), bad);
    assert_eq!(input(&archive(&[member("text", b"abc")]), 4), bad);
    let whole = archive(&[good]);
    assert_eq!(input(&whole[..whole.len() - 8], 4), bad);
    let mut long = whole.clone();
    long[8 + 48..8 + 58].copy_from_slice(b"9999999999");
    assert_eq!(input(&long, 4), bad);
}

#[test]
fn an_image_counts_what_a_device_takes_of_it() {
    let bytes = |image: &[u8], capability| footprint::device_bytes(image, capability, true);
    let counted = |code: usize, variables: u64| counted_bytes(code as u64) + counted_bytes(variables);
    let text = b".version 8.0\n";
    assert_eq!(bytes(text, 90), counted(text.len(), 0));

    // An object of machine code with a variable of 1 MiB that is zeros.
    let mut object = vec![0u8; 0x40 + 2 * 0x40];
    object[..6].copy_from_slice(ELF_MAGIC);
    object[0x28..0x30].copy_from_slice(&0x40u64.to_le_bytes());
    object[0x3a..0x3c].copy_from_slice(&0x40u16.to_le_bytes());
    object[0x3c..0x3e].copy_from_slice(&2u16.to_le_bytes());
    object[0x84..0x88].copy_from_slice(&SHT_NOBITS.to_le_bytes());
    object[0xa0..0xa8].copy_from_slice(&(1u64 << 20).to_le_bytes());
    let object_bytes = counted(object.len(), 1 << 20);
    assert_eq!(bytes(&object, 90), object_bytes);

    // Kind, capability, and bytes that come out of a compressed payload.
    let entry = |kind: u64, capability: u32, whole: u64, payload: &[u8]| {
        let mut entry = vec![0u8; 64];
        entry[..2].copy_from_slice(&kind.to_le_bytes()[..2]);
        entry[4..8].copy_from_slice(&64u32.to_le_bytes());
        entry[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        entry[16..20].copy_from_slice(&u32::from(whole != 0).to_le_bytes());
        entry[28..32].copy_from_slice(&capability.to_le_bytes());
        entry[56..64].copy_from_slice(&whole.to_le_bytes());
        [entry.as_slice(), payload].concat()
    };
    let entries = [
        entry(KIND_ELF, 80, 5000, &[0; 8]),
        entry(KIND_ELF, 90, 0, &object),
        entry(KIND_ELF, 100, 9 << 20, &[0; 8]),
        entry(KIND_PTX, 90, 7000, &[0; 8]),
    ];
    let mut image = fatbin(&[], entries.iter().map(|entry| entry.len() as u64).sum());
    image.extend(entries.concat());
    assert_eq!(bytes(&image, 90), object_bytes, "the code of its own major number");
    assert_eq!(bytes(&image, 86), counted(5000, 0));
    assert_eq!(bytes(&image, 120), counted(7000, 0), "nothing fits: the text is compiled");
    assert_eq!(bytes(&image, 70), 0);
    assert_eq!(bytes(&image[..20], 90), 0, "a damaged one has been refused before");
}

#[test]
fn variables_of_a_text_count_as_it_declares_them() {
    let bytes = |text: &str| {
        let image = format!(".version 8.0\n.target sm_80\n{text}");
        footprint::device_bytes(image.as_bytes(), 90, true) - counted_bytes(image.len() as u64)
    };
    let mib = 1u64 << 20;
    for (text, expected) in [
        (".visible .global .align 8 .b8 big[4194304];", 4 * mib),
        (".global .align 16 .v4 .f32 a[1024][256] = {1, 2}; .const .u64 b, c[511];", 6 * mib),
        (".global .attribute(.managed, .unified(19, 95)) .f64 x[64];", 512),
        (".extern .global .b8 elsewhere[4194304];", 0),
        (
            ".entry f(.param .u64 .ptr .global .align 1 p)\n{\n ld.global.u32 %r1, [%rd1];\n st.global .u32 [%rd1], 1;\n}",
            0,
        ),
        ("// .global .b8 x[4194304];\n", 0),
        (".global .b8 x[99999999999999999999];", 512),
        (".global .b64 x[9999999999999999999][99999];", u64::MAX),
    ] {
        let found = if expected == u64::MAX {
            footprint::device_bytes(format!(".version 8.0\n{text}").as_bytes(), 90, true)
        } else {
            bytes(text)
        };
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn variables_of_compressed_code_count_where_they_are_looked_for() {
    let text = ".version 8.0\n.target sm_80\n.global .b8 big[4194304];\n";
    let packed = lz4_flex::block::compress(text.as_bytes());
    let mut entry = vec![0u8; 64];
    entry[..2].copy_from_slice(&1u16.to_le_bytes());
    entry[4..8].copy_from_slice(&64u32.to_le_bytes());
    entry[8..16].copy_from_slice(&(packed.len() as u64).to_le_bytes());
    entry[16..20].copy_from_slice(&u32::try_from(packed.len()).unwrap().to_le_bytes());
    entry[28..32].copy_from_slice(&80u32.to_le_bytes());
    entry[40..48].copy_from_slice(&0x2000u64.to_le_bytes());
    entry[56..64].copy_from_slice(&(text.len() as u64).to_le_bytes());
    entry.extend(packed);
    let mut image = fatbin(&[], entry.len() as u64);
    image.extend(entry);
    let of = |variables| footprint::device_bytes(&image, 90, variables);
    assert_eq!((of(true), of(false)), (512 + (4 << 20), 512));
}
