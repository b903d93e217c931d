//! The table is complete, and the page is of it.

use std::collections::BTreeSet;
use std::path::Path;

use nvidia_ml::answer::Return;
use nvidia_ml::table;

/// The names that NVIDIA's library of driver 580 exports.
const EXPORTS: &str = include_str!("exports-580.txt");

#[test]
fn every_symbol_of_driver_580_is_there_and_no_other() {
    let theirs: BTreeSet<&str> = EXPORTS.lines().collect();
    let ours: BTreeSet<&str> = table::rows().map(|row| row.name).collect();
    assert_eq!(theirs.difference(&ours).collect::<Vec<_>>(), Vec::<&&str>::new(), "missing");
    assert_eq!(ours.difference(&theirs).collect::<Vec<_>>(), Vec::<&&str>::new(), "too many");
    assert_eq!(table::rows().count(), theirs.len(), "some twice");
}

/// What changes something is not permitted, unless there is nothing to be changed.
#[test]
fn refusals_have_one_of_two_codes() {
    for row in table::rows() {
        let Some(code) = row.refusal else { continue };
        assert!([Return::NOT_SUPPORTED, Return::NO_PERMISSION].contains(&code), "{row:?}");
        let sets = row.name.starts_with("nvmlDeviceSet") || row.name.starts_with("nvmlDeviceReset");
        let of_a_vm = ["CpuAffinity", "Vgpu", "ConfCompute"].iter().any(|part| row.name.contains(part));
        assert!(!sets || of_a_vm || code == Return::NO_PERMISSION, "{row:?}");
    }
}

#[test]
fn the_page_is_fresh() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/nvml.md");
    let written = std::fs::read_to_string(page).unwrap_or_default();
    assert!(written == table::page(), "docs/nvml.md is old: run `cargo xtask calls --write`");
}
