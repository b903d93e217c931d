//! Replays what driver 580 answered on an H100: every base name, flag and version at once (by a checksum over the rows of
//! the measurement), and the answers whose form matters in full.

use std::ffi::CString;
use std::fmt::Write;
use std::ptr::{dangling_mut, null_mut};

use super::table::TABLE;
use super::*;

/// Names that the library exports, or seems to, and that the driver does not look up.
const UNKNOWN: [&str; 10] = [
    "cuEGLApiInit",
    "cuMemGetAttribute",
    "cudbgApiAttach",
    "cudbgApiDetach",
    "cudbgApiInit",
    "cudbgGetAPI",
    "cudbgGetAPIVersion",
    "cudbgMain",
    "cudbgReportDriverApiError",
    "cudbgReportDriverInternalError",
];

/// Every version at which some answer changes.
const VERSIONS: [i32; 39] = [
    1000, 2000, 2010, 2020, 2030, 3000, 3010, 3020, 4000, 4010, 4020, 5000, 5050, 6000, 6050, 7000, 8000,
    9000, 9020, 10000, 10010, 10020, 11000, 11010, 11020, 11030, 11040, 11060, 11070, 12000, 12010, 12020,
    12030, 12040, 12050, 12060, 12080, 12090, 13000,
];

/// What tools/proc_address_table.py prints for the measurement.
const MEASURED_ROWS: usize = 3151;
const MEASURED_FNV1A: u64 = 0x080f_072e_209d_9478;

fn fnv1a(data: &[u8]) -> u64 {
    data.iter()
        .fold(0xcbf2_9ce4_8422_2325, |value, byte| (value ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Result code, pointer and status of the second version; `(77, untouched)` before the call.
fn ask_v2(name: &str, version: i32, flags: u64) -> (u32, *mut c_void, u32) {
    let name = CString::new(name).unwrap();
    let (mut pointer, mut status) = (untouched(), 77);
    // SAFETY: a C string, and room for both results.
    let code = unsafe { cuGetProcAddress_v2(name.as_ptr(), &mut pointer, version, flags, &mut status) };
    (code.0, pointer, status)
}

/// Result code and pointer of the first version.
fn ask_v1(name: &str, version: i32, flags: u64) -> (u32, *mut c_void) {
    let name = CString::new(name).unwrap();
    let mut pointer = untouched();
    // SAFETY: a C string, and room for the result.
    let code = unsafe { cuGetProcAddress(name.as_ptr(), &mut pointer, version, flags) };
    (code.0, pointer)
}

fn untouched() -> *mut c_void {
    dangling_mut::<u64>().cast()
}

fn exported(symbol: &str) -> *mut c_void {
    crate::exports::address(symbol).unwrap_or_else(|| panic!("{symbol} is not exported"))
}

#[test]
fn the_table_is_sorted_and_its_variants_ascend() {
    assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
    for (name, plain, per_thread) in TABLE {
        assert!(!plain.is_empty(), "{name}");
        assert!(plain.is_sorted_by(|a, b| a.0 < b.0), "{name}");
        assert!(per_thread.is_sorted_by(|a, b| a.0 < b.0), "{name}");
        assert!(
            plain.iter().chain(*per_thread).all(|v| name.len() + v.1.len() <= SYMBOL_BYTES_MAX),
            "{name}"
        );
    }
}

#[test]
fn every_symbol_is_exported_at_an_address_of_its_own() {
    let mut seen = std::collections::HashMap::new();
    for (name, plain, per_thread) in TABLE {
        for (_, suffix) in plain.iter().chain(*per_thread) {
            let symbol = format!("{name}{suffix}");
            let address = super::address((name, suffix));
            assert!(address.is_some(), "{symbol} is not exported");
            let before = seen.insert(address, symbol.clone());
            assert!(before.as_ref().is_none_or(|b| *b == symbol), "{symbol} lies where {before:?} lies");
        }
    }
    assert_eq!(seen.len(), 671);
}

#[test]
fn every_measured_answer_is_given_again() {
    let mut names: Vec<&str> = TABLE.iter().map(|entry| entry.0).chain(UNKNOWN).collect();
    names.sort_unstable();
    let mut rows = String::new();
    for name in names {
        for flags in 0..=2 {
            let mut before = None;
            for version in VERSIONS {
                let (code, pointer, status) = ask_v2(name, version, flags);
                let symbol = match look_up(name.as_bytes(), version, flags) {
                    Ok((base, suffix)) => format!("{base}{suffix}"),
                    Err(_) => "NULL".into(),
                };
                let expected = if symbol == "NULL" { null_mut() } else { exported(&symbol) };
                assert_eq!(pointer, expected, "{name} {version} {flags}");
                let answer = (code, status, symbol);
                if before.as_ref() != Some(&answer) {
                    let (code, status, symbol) = &answer;
                    writeln!(rows, "{name}\t{flags}\t{version}\t{code}\t{status}\t{symbol}").unwrap();
                    before = Some(answer);
                }
            }
        }
    }
    assert_eq!(rows.lines().count(), MEASURED_ROWS);
    assert_eq!(fnv1a(rows.as_bytes()), MEASURED_FNV1A);
}

#[test]
fn a_name_means_the_newest_variant_that_the_version_knows() {
    for (name, version, flags, symbol) in [
        ("cuMemAlloc", 2000, 0, "cuMemAlloc"),
        ("cuMemAlloc", 13000, 0, "cuMemAlloc_v2"),
        ("cuMemAlloc", 12000, 2, "cuMemAlloc_v2"),
        ("cuMemAlloc", -1, 0, "cuMemAlloc_v2"),
        ("cuGetProcAddress", 11030, 0, "cuGetProcAddress"),
        ("cuGetProcAddress", 12000, 0, "cuGetProcAddress_v2"),
        ("cuLaunchKernel", 12000, 0, "cuLaunchKernel"),
        ("cuLaunchKernel", 12000, 1, "cuLaunchKernel"),
        ("cuLaunchKernel", 12000, 2, "cuLaunchKernel_ptsz"),
        ("cuLaunchKernel", 12000, 3, "cuLaunchKernel_ptsz"),
        ("cuMemcpy", 12000, 2, "cuMemcpy_ptds"),
        ("cuEventQuery", 12000, 2, "cuEventQuery"),
        ("cuCtxDestroy", 3020, 0, "cuCtxDestroy"),
        ("cuCtxDestroy", 4000, 0, "cuCtxDestroy_v2"),
        ("cuCtxCreate", 3010, 0, "cuCtxCreate"),
        ("cuCtxCreate", 3020, 0, "cuCtxCreate_v2"),
        ("cuCtxCreate", 12040, 0, "cuCtxCreate_v3"),
        ("cuCtxCreate", 12050, 0, "cuCtxCreate_v4"),
        ("cuCtxGetDevice", 12080, 0, "cuCtxGetDevice"),
        ("cuCtxGetDevice", 13000, 0, "cuCtxGetDevice_v2"),
        ("cuCtxSynchronize", 13000, 0, "cuCtxSynchronize_v2"),
        ("cuMemcpyBatchAsync", 12080, 0, "cuMemcpyBatchAsync"),
        ("cuMemcpyBatchAsync", 13000, 0, "cuMemcpyBatchAsync_v2"),
        ("cuStreamGetCaptureInfo", 12000, 0, "cuStreamGetCaptureInfo_v2"),
        ("cuStreamGetCaptureInfo", 12080, 2, "cuStreamGetCaptureInfo_v3_ptsz"),
        ("cuDeviceGetUuid", 11000, 0, "cuDeviceGetUuid"),
        ("cuDeviceGetUuid", 12000, 0, "cuDeviceGetUuid_v2"),
        ("cuGraphInstantiate", 11000, 0, "cuGraphInstantiate_v2"),
    ] {
        assert_eq!(ask_v2(name, version, flags), (0, exported(symbol), 0), "{name} {version} {flags}");
        assert_eq!(ask_v1(name, version, flags), (0, exported(symbol)), "{name} {version} {flags}");
    }
}

#[test]
fn a_name_that_is_not_found_is_null_with_a_status_or_error_500() {
    for (name, version, status) in [
        ("cuNoSuchFunction", 13000, 1),
        ("strlen", 12000, 1),
        ("", 0, 1),
        ("", 12000, 1),
        ("cuMemAlloc_v2", 12000, 1),
        ("cuLaunchKernel_ptsz", 12000, 1),
        ("cuGetProcAddress_v2", 12000, 1),
        ("cuMemAlloc", 1000, 2),
        ("cuMemAlloc", 0, 2),
        ("cuGetProcAddress", 11000, 2),
        ("cuMemcpyBatchAsync", 12000, 2),
    ] {
        assert_eq!(ask_v2(name, version, 0), (0, null_mut(), status), "{name} {version}");
        assert_eq!(ask_v1(name, version, 0), (500, untouched()), "{name} {version}");
    }
}

#[test]
fn bad_arguments_are_refused_and_nothing_is_written() {
    for (name, version, flags) in [
        ("cuNoSuchFunction", 13010, 0),
        ("cuMemAlloc", 13010, 0),
        ("cuMemAlloc", i32::MAX, 0),
        ("cuLaunchKernel", 12000, 4),
        ("cuLaunchKernel", 12000, u64::MAX),
    ] {
        assert_eq!(ask_v2(name, version, flags), (1, untouched(), 77), "{name} {version} {flags}");
        assert_eq!(ask_v1(name, version, flags), (1, untouched()), "{name} {version} {flags}");
    }
}

#[test]
fn null_arguments_are_refused_except_for_the_status() {
    let (name, mut pointer, mut status) = (c"cuMemAlloc".as_ptr(), untouched(), 77);
    // SAFETY: NULL is allowed everywhere; what is not NULL has room.
    unsafe {
        assert_eq!(cuGetProcAddress(std::ptr::null(), &mut pointer, 12000, 0), CUresult::INVALID_VALUE);
        assert_eq!(cuGetProcAddress(name, null_mut(), 12000, 0), CUresult::INVALID_VALUE);
        assert_eq!(
            cuGetProcAddress_v2(std::ptr::null(), &mut pointer, 12000, 0, &mut status),
            CUresult::INVALID_VALUE
        );
        assert_eq!(cuGetProcAddress_v2(name, null_mut(), 12000, 0, &mut status), CUresult::INVALID_VALUE);
        assert_eq!((pointer, status), (untouched(), 77));
        assert_eq!(cuGetProcAddress_v2(name, &mut pointer, 12000, 0, null_mut()), CUresult::SUCCESS);
    }
    assert_eq!(pointer, exported("cuMemAlloc_v2"));
}
