//! What holds for every row: frames and replies survive the wire, nothing shorter or longer is taken for one, ids and names are
//! unique and locked, and the exported names are exactly driver 580's.

use std::collections::HashMap;

use cuda_api::rows::{Sample, exports, lock_text};
use cuda_api::wire::{Reader, Wire, take_all};
use cuda_api::{Call, Class};

/// 8-byte aligned bytes, as the worker's private copy of a frame is.
fn aligned(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks(8)
        .map(|c| u64::from_le_bytes(std::array::from_fn(|i| c.get(i).copied().unwrap_or(0))))
        .collect()
}

fn view(words: &[u64], len: usize) -> &'static [u8] {
    // Leaked, so that borrowed fields can have any lifetime: this is a test.
    let leaked: &'static [u64] = Vec::leak(words.to_vec());
    &zerocopy::IntoBytes::as_bytes(leaked)[..len]
}

fn survives<T: Wire<'static> + Sample>(name: &str) {
    for seed in 0..20 {
        let mut bytes = Vec::new();
        T::sample(seed).put(&mut bytes);
        assert_eq!(bytes.len() % 8, 0, "{name}: frames are multiples of 8 bytes");
        let words = aligned(&bytes);
        let read: T = take_all(&mut Reader::new(view(&words, bytes.len())))
            .unwrap_or_else(|e| panic!("{name}: its own frame is refused: {e}"));
        let mut again = Vec::new();
        read.put(&mut again);
        assert_eq!(bytes, again, "{name}: another frame came out");
        for short in (0..bytes.len()).step_by(8) {
            assert!(
                take_all::<T>(&mut Reader::new(view(&words, short))).is_err(),
                "{name}: {short} of {} bytes are taken for a frame",
                bytes.len()
            );
        }
        let mut long = words.clone();
        long.push(0);
        assert!(
            take_all::<T>(&mut Reader::new(view(&long, bytes.len() + 8))).is_err(),
            "{name}: 8 bytes too many are taken for a frame"
        );
    }
}

macro_rules! check_each {
    ($chapter:ident; $($name:ident)*) => {
        mod $chapter {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[test]
                #[allow(non_snake_case)]
                fn $name() {
                    survives::<<cuda_api::calls::$chapter::row::$name as Call>::In<'static>>(stringify!($name));
                    survives::<<cuda_api::calls::$chapter::row::$name as Call>::Out>(stringify!($name));
                }
            )*
        }
    };
}
cuda_api::for_each_row!(check_each);

#[test]
fn ids_and_names_are_unique() {
    let mut ids = HashMap::new();
    for row in cuda_api::all_calls() {
        if let Some(other) = ids.insert(row.id, row.name) {
            panic!("{} and {other} have the id {:#06x}", row.name, row.id);
        }
    }
    let mut names = HashMap::new();
    for export in exports() {
        assert!(names.insert(export.name, ()).is_none(), "{} is exported twice", export.name);
    }
}

#[test]
fn the_exported_names_are_driver_580s() {
    let listed: Vec<&str> = include_str!("exports-580.txt").lines().collect();
    let ours: Vec<&str> = exports().iter().map(|e| e.name).collect();
    let missing: Vec<_> = listed.iter().filter(|n| !ours.contains(n)).collect();
    let extra: Vec<_> = ours.iter().filter(|n| !listed.contains(n)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, extra {extra:?}");
    assert_eq!(ours.len(), 682);
}

#[test]
fn locked_ids_stay() {
    let lock = include_str!("../wire.lock");
    let now = lock_text(lock).unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(lock, now, "new rows, or some that have gone: run `cargo xtask calls --write`");
    // Rows of these ids have gone, and were known to libraries that are out there.
    for retired in ["0x0b02", "0x0b11", "0x0c03", "0x0c04", "0x0c05", "0x0c06", "0x0c07", "0x0c08"] {
        let line = lock.lines().find(|line| line.starts_with(retired));
        assert!(line.is_some_and(|line| line.ends_with(" retired")), "{retired}: {line:?}");
    }
}

#[test]
fn refused_rows_say_why_and_custom_files_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for row in cuda_api::all_calls() {
        assert_eq!(row.class == Class::Refused, row.reason.is_some(), "{}", row.name);
        if let Some(file) = row.custom {
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert!(text.contains(&format!("fn {}(", row.name)), "{file} has no {}", row.name);
        }
        if let Some(over) = row.over {
            assert!(
                cuda_api::all_calls().any(|r| r.name == over && r.over.is_none()),
                "{} over {over}",
                row.name
            );
        }
    }
}

#[test]
fn the_fingerprint_depends_on_the_rows() {
    let fingerprint = cuda_api::fingerprint();
    assert_ne!(fingerprint, [0; 16]);
    assert_eq!(fingerprint, cuda_api::fingerprint());
}

#[test]
fn device_information_survives() {
    use cuda_api::info::{DeviceInfo, Link, VmInfo};
    let info = VmInfo {
        driver_version: 13000,
        stream_priorities: (0, -5),
        devices: vec![DeviceInfo {
            name: "a device".into(),
            uuid: [7; 16],
            total_memory_bytes: 1 << 33,
            attributes: vec![Err(cuda_api::CUresult::INVALID_VALUE), Ok(1024), Ok(-1)],
            links: vec![
                Link::NONE,
                Link {
                    can_access: true,
                    attributes: [Ok(-3), Ok(1), Ok(1), Err(cuda_api::CUresult::INVALID_VALUE), Ok(0)],
                    atomics: [5; cuda_api::info::ATOMIC_OPERATIONS],
                },
            ],
        }],
    };
    let blob = info.encode();
    let words = aligned(&blob);
    assert_eq!(VmInfo::decode(view(&words, blob.len())).unwrap(), info);
    for short in (0..blob.len()).step_by(8) {
        assert!(VmInfo::decode(view(&words, short)).is_err());
    }
}
