//! Replays the fuzzer's corpus on stable Rust: what once was found, or was given as a seed, stays sound.

#[path = "../fuzz/harness.rs"]
mod harness;

use std::collections::BTreeMap;
use std::path::Path;

use harness::Outcome;

#[test]
fn corpus_is_answered_message_by_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/control");
    let mut outcomes = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let outcome = harness::run(&std::fs::read(entry.path()).unwrap());
        outcomes.insert(entry.file_name().into_string().unwrap(), outcome);
    }
    // The seeds that must go deep, or they have lost their worth as seeds.
    assert_eq!(outcomes["whole_life"], Outcome { messages: 10, successes: 10 });
    assert_eq!(outcomes["held_and_reset"], Outcome { messages: 6, successes: 3 });
    assert!(outcomes["nonsense"].messages > 2 && outcomes["nonsense"].successes == 0);
}

#[test]
fn inputs_without_structure_are_answered_too() {
    for seed in 0u32..2000 {
        // A plain congruential generator: the same inputs on each run.
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let bytes: Vec<u8> =
            (0..seed % 700).map(|_| next() & if seed & 1 == 0 { 0x1f } else { 0xff }).collect();
        harness::run(&bytes);
    }
}
