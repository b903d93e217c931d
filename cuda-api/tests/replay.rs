//! Replays the fuzzers' corpora on stable Rust, and a few thousand mutations of them: what once was found, or was given as a seed,
//! stays sound. `cargo test -p cuda-api --test replay -- --ignored` writes the seeds anew from the table's samples.

// The tests' own small numbers.
#![allow(clippy::cast_possible_truncation)]

#[path = "../fuzz/harness.rs"]
mod harness;

use std::path::PathBuf;

use cuda_api::Call;
use cuda_api::info::{DeviceInfo, Link, VmInfo};
use cuda_api::rows::Sample;
use cuda_api::types::CUresult;
use cuda_api::wire::Wire;
use harness::Outcome;

/// Rows of each chapter that give a seed.
const SEEDS_PER_CHAPTER: usize = 4;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<_> = std::fs::read_dir(corpus(target))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

fn seed<C: Call>() -> (String, Vec<u8>)
where
    C::In<'static>: Sample,
{
    let mut bytes = C::ID.to_le_bytes().to_vec();
    C::In::<'static>::sample(2).put(&mut bytes);
    (C::NAME.to_owned(), bytes)
}

macro_rules! seeds_of {
    ($chapter:ident; $($name:ident)*) => {
        mod $chapter {
            pub(super) fn seeds() -> Vec<(String, Vec<u8>)> {
                vec![$( super::seed::<cuda_api::calls::$chapter::row::$name>() ),*]
            }
        }
    };
}
cuda_api::for_each_row!(seeds_of);

fn all() -> [Vec<(String, Vec<u8>)>; 14] {
    [
        launch::seeds(),
        copy::seeds(),
        stream::seeds(),
        event::seeds(),
        memory::seeds(),
        entry::seeds(),
        device::seeds(),
        context::seeds(),
        module::seeds(),
        library::seeds(),
        graph::seeds(),
        virtual_memory::seeds(),
        texture::seeds(),
        interop::seeds(),
    ]
}

fn vm_infos() -> Vec<(String, Vec<u8>)> {
    let device = |n: u8| DeviceInfo {
        name: format!("device {n}"),
        uuid: [n; 16],
        total_memory_bytes: 1 << 30,
        attributes: vec![Ok(i32::from(n)), Err(CUresult::INVALID_VALUE), Ok(-1)],
        links: vec![Link::NONE; usize::from(n)],
    };
    let info = |devices: u8| VmInfo {
        driver_version: 13000,
        stream_priorities: (0, -5),
        devices: (0..devices).map(device).collect(),
    };
    [0, 1, 3].map(|n| (format!("devices_{n}"), info(n).encode())).to_vec()
}

#[test]
#[ignore = "writes the seeds"]
fn write_seeds() {
    let frames = all().into_iter().flat_map(|chapter| chapter.into_iter().take(SEEDS_PER_CHAPTER)).collect();
    for (target, seeds) in [("frame", frames), ("vm_info", vm_infos())] {
        std::fs::create_dir_all(corpus(target)).unwrap();
        for (name, bytes) in seeds {
            std::fs::write(corpus(target).join(name), bytes).unwrap();
        }
    }
}

/// A plain congruential generator: the same inputs on each run.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

fn mutate(bytes: &mut Vec<u8>, next: &mut impl FnMut() -> u64) {
    for _ in 0..=next() % 3 {
        let len = bytes.len() as u64;
        match next() % 5 {
            0 => bytes.truncate((next() % (len + 1)) as usize),
            1 => bytes.extend_from_slice(&next().to_le_bytes()),
            2 if len > 12 => {
                // A word, to an edge.
                let at = (4 + 8 * (next() % ((len - 4) / 8))) as usize;
                let edge = [0, 1, u64::MAX, 1 << 63, 0xffff_ffff, 1 << 32, 1 << 40][(next() % 7) as usize];
                bytes[at..at + 8].copy_from_slice(&edge.to_le_bytes());
            }
            _ if len > 0 => bytes[(next() % len) as usize] ^= 1 << (next() % 8),
            _ => {}
        }
    }
}

#[test]
fn every_rows_own_frame_is_taken() {
    for (name, bytes) in all().into_iter().flatten() {
        assert_eq!(harness::frame(&bytes), Outcome::Taken, "{name}");
    }
}

#[test]
fn corpus_of_frames() {
    let inputs = inputs("frame");
    assert!(inputs.len() >= 40, "the corpus is gone");
    let (mut taken, mut malformed) = (0, 0);
    for (seed, (_, bytes)) in (1..).zip(&inputs) {
        harness::frame(bytes);
        let mut next = numbers(seed);
        for _ in 0..200 {
            let mut bytes = bytes.clone();
            mutate(&mut bytes, &mut next);
            match harness::frame(&bytes) {
                Outcome::Taken => taken += 1,
                Outcome::Malformed => malformed += 1,
            }
        }
    }
    // Mutations that all fare alike test one line only.
    assert!(taken > 500 && malformed > 500, "{taken} taken, {malformed} malformed");
}

#[test]
fn frames_without_structure() {
    for seed in 0..3000 {
        let mut next = numbers(seed);
        let len = next() % 200;
        harness::frame(&(0..len).map(|_| (next() & 0xff) as u8).collect::<Vec<_>>());
    }
}

#[test]
fn corpus_of_information() {
    let inputs = inputs("vm_info");
    assert!(inputs.len() >= 3, "the corpus is gone");
    let mut taken = 0;
    for (seed, (name, bytes)) in (1..).zip(&inputs) {
        if name.starts_with("devices_") {
            assert!(harness::vm_info(bytes), "{name}");
        }
        let mut next = numbers(seed);
        for _ in 0..1500 {
            let mut bytes = bytes.clone();
            mutate(&mut bytes, &mut next);
            taken += u32::from(harness::vm_info(&bytes));
        }
    }
    assert!(taken > 50, "{taken} taken");
}
