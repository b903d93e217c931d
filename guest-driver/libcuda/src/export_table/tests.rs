//! The tables' shapes against those of driver 580, as an H100 showed them, and the slots that need no context.

use std::collections::HashSet;
use std::ptr::null_mut;

use super::layout::Table;
use super::*;

/// UUID, words (the size word included), slots that are NULL.
const SHAPES: [(&str, u128, usize, &[usize]); 10] = [
    ("CUDART", 0x6bd5fb6c_5bf4e74a_8987d939_12fd9df9, 13, &[10]),
    ("TOOLS_TLS", 0x42d85a81_23f6cb47_8298f6e7_8a3aecdc, 3, &[]),
    ("RTHOOKS", 0xa094798c_2e742e74_93f20800_200c0a66, 7, &[]),
    ("INTEGRITY", 0xd4082055_bde6704b_8d34ba12_3c66e1f2, 3, &[]),
    ("CONTEXT_CHECKS", 0x263e8860_7cd26143_92f6bbd5_006dfa7e, 15, &[]),
    ("TOOLSCTX", 0x21318c60_97143248_8ca641ff_7324c8f2, 93, &[91]),
    ("TOOLSMOD", 0x6e163fbe_b958444d_835ce182_aff1991e, 99, &[93]),
    ("1734DC26", 0x1734dc26_800d4745_8726c0f1_e7dd8bca, 11, &[]),
    ("NVRTC", 0xda9151d3_3ae6cc41_a5c04f26_d533e328, 7, &[]),
    ("CUPTI", 0x7cb63f9b_9ca48e42_a484beb6_6e6aed7f, 67, &[36, 37]),
];
const CLS: u128 = 0xc693336e_1121df11_a8c368f3_55d89593;

fn ask(uuid: u128) -> (CUresult, *const c_void) {
    let mut table = std::ptr::dangling::<u64>().cast();
    let id = CUuuid { bytes: uuid.to_be_bytes() };
    // SAFETY: room for a pointer, and 16 bytes.
    let code = unsafe { cuGetExportTable(&mut table, &id) };
    (code, table)
}

fn words(uuid: u128, count: usize) -> Vec<usize> {
    let (code, table) = ask(uuid);
    assert_eq!(code, CUresult::SUCCESS);
    // SAFETY: the table has so many words, as its first says, and lives for good.
    unsafe { std::slice::from_raw_parts(table.cast::<usize>(), count) }.to_vec()
}

#[test]
fn the_tables_have_the_shapes_of_driver_580() {
    for (name, uuid, count, null) in SHAPES {
        let words_of_it = words(uuid, 1)[0] / 8;
        assert_eq!(words_of_it, count, "{name}");
        let words = words(uuid, count);
        let absent: Vec<usize> = (1..count).filter(|n| words[*n] == 0).collect();
        assert_eq!(absent, null, "{name}");
    }
    let storage = words(CLS, 4);
    assert!(storage[..3].iter().all(|w| *w > 0x1000), "no size, three functions");
    assert_eq!(storage[3], 0);
}

#[test]
fn no_two_slots_are_the_same_function() {
    let mut seen = HashSet::new();
    let mut functions = 0;
    for (_, uuid, count, _) in SHAPES {
        for word in &words(uuid, count)[1..] {
            functions += usize::from(*word != 0);
            assert!(*word == 0 || seen.insert(*word));
        }
    }
    // 580's: 11 + 2 + 6 + 2 + 14 + 91 + 97 + 10 + 6 + 64.
    assert_eq!(functions, 303);
}

#[test]
fn a_table_stays_where_it_is() {
    for (_, uuid, ..) in SHAPES {
        assert_eq!(ask(uuid), ask(uuid));
    }
}

#[test]
fn an_unknown_uuid_is_an_error_and_null() {
    for uuid in [0, 0xf8cff951_21468b4e_b9e2fb46_9e7c0dd9, 0x195bcbf4_d67d024a_acc51d29_cea631ae] {
        assert_eq!(ask(uuid), (CUresult::INVALID_VALUE, null()));
    }
}

#[test]
fn null_arguments_are_refused() {
    let mut table = null();
    let id = CUuuid { bytes: [0; 16] };
    // SAFETY: NULL is allowed.
    unsafe {
        assert_eq!(cuGetExportTable(null_mut(), &id), CUresult::INVALID_VALUE);
        assert_eq!(cuGetExportTable(&mut table, null()), CUresult::INVALID_VALUE);
    }
}

type Slot = unsafe extern "C" fn(u64, u64, u64, u64) -> CUresult;

fn slot<const WORDS: usize>(table: &'static Table<WORDS>, slot: usize) -> Slot {
    let word = usize::try_from(table.0[slot].value()).unwrap();
    assert_ne!(word, 0);
    // SAFETY: the word is a function that returns a CUresult and takes at most four words.
    unsafe { std::mem::transmute::<usize, Slot>(word) }
}

#[test]
fn a_slot_that_is_not_served_says_so() {
    for function in [
        slot(&tables::RUNTIME, 1),
        slot(&tables::TOOLS_CONTEXT, 92),
        slot(&tables::TOOLS_MODULE, 5),
        slot(&tables::CUPTI, 66),
    ] {
        // SAFETY: it looks at no argument.
        assert_eq!(unsafe { function(0, 0, 0, 0) }, CUresult::NOT_SUPPORTED);
    }
}

#[test]
fn no_tool_subscribes_to_anything() {
    for (number, count) in [(2, 1024), (6, 14)] {
        let (mut buffer, mut entries) = (null::<u8>(), 0_usize);
        let results = ((&raw mut buffer).addr() as u64, (&raw mut entries).addr() as u64);
        // SAFETY: two results with room.
        let code = unsafe { slot(&tables::RUNTIME_HOOKS, number)(results.0, results.1, 0, 0) };
        assert_eq!((code, entries), (CUresult::SUCCESS, count));
        // SAFETY: at least 8 bytes an entry, for good.
        assert!(unsafe { std::slice::from_raw_parts(buffer, count * 8) }.iter().all(|b| *b == 0));
    }
}

#[test]
fn before_cu_init_what_asks_for_state_is_refused_and_writes_nothing() {
    let mut word = 0x55_u64;
    let out = (&raw mut word).addr() as u64;
    for (function, arguments) in [
        (slot(&tables::RUNTIME, 2), [out, 0, 0]),
        (slot(&tables::TOOLS_TLS, 2), [out, 0, 0]),
        (slot(&tables::CONTEXT_STORAGE, 0), [0, 64, 1]),
        (slot(&tables::CONTEXT_STORAGE, 1), [0, 64, 0]),
        (slot(&tables::CONTEXT_STORAGE, 2), [out, 0, 64]),
        (slot(&tables::INTEGRITY, 1), [13002, 1, out]),
        (slot(&tables::TOOLS_CONTEXT, 3), [16, out, 0]),
        (slot(&tables::TOOLS_CONTEXT, 4), [0, out, 0]),
    ] {
        // SAFETY: results with room.
        let code = unsafe { function(arguments[0], arguments[1], arguments[2], 0) };
        assert_eq!((code, word), (CUresult::NOT_INITIALIZED, 0x55));
    }
    // SAFETY: takes nothing.
    assert_eq!(unsafe { slot(&tables::CONTEXT_CHECKS, 3)(0, 0, 0, 0) }, CUresult::SUCCESS);
}
