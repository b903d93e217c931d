//! The test programs against the daemon's local socket: the same library, daemon, worker and executor as in a VM, without one.

use std::sync::OnceLock;

use harness::wheels::Toolkit;
use whole_stack::artifacts::Profile;
use whole_stack::vm::Stack;

fn stack(toolkit: Toolkit) -> &'static Stack {
    static STACKS: [OnceLock<Stack>; 3] = [const { OnceLock::new() }; 3];
    let place = match toolkit {
        Toolkit::Cuda11 => &STACKS[0],
        Toolkit::Cuda12 => &STACKS[1],
        Toolkit::Cuda13 => &STACKS[2],
    };
    place.get_or_init(|| Stack::build(Profile::Dev, toolkit).unwrap_or_else(|e| panic!("{e:?}")))
}

#[test]
fn the_driver_api_computes_right() {
    let (daemon, local) = stack(Toolkit::Cuda13).start_local(&[]).unwrap();
    let said =
        local.check("driver_api", &[]).unwrap_or_else(|e| panic!("{e:?}\n{}", daemon.log().join("\n")));
    assert!(said.contains("driver API: all right"), "{said}");
    let totals = daemon.stop().unwrap();
    assert!(totals.get("calls") > Some(20), "{totals}");
    assert_eq!(totals.get("posted_errors"), Some(0), "{totals}");
}

/// A program of a release, with its own runtime library or with that of another release of the same major number.
fn the_runtime_computes_right(toolkit: Toolkit, version: Option<&str>) {
    let (daemon, mut local) = stack(toolkit).start_local(&[]).unwrap();
    if let Some(version) = version {
        local.programs.runtime_library =
            toolkit.runtime_library_of(version).unwrap_or_else(|e| panic!("{e:?}"));
    }
    let said =
        local.check("runtime_api", &[]).unwrap_or_else(|e| panic!("{e:?}\n{}", daemon.log().join("\n")));
    assert!(said.contains("runtime API: all right"), "{said}");
    // That it was this library, and no other of the machine.
    let asked = version.map(|v| v.trim_end_matches(".*"));
    assert!(asked.is_none_or(|v| said.contains(&format!("runtime API {v} on"))), "{said}");
    assert_eq!(daemon.stop().unwrap().get("posted_errors"), Some(0));
}

#[test]
fn nvidias_runtime_11_computes_right() {
    the_runtime_computes_right(Toolkit::Cuda11, None);
}

#[test]
fn nvidias_runtime_12_computes_right() {
    the_runtime_computes_right(Toolkit::Cuda12, None);
    for version in ["12.1.*", "12.9.*"] {
        the_runtime_computes_right(Toolkit::Cuda12, Some(version));
    }
}

#[test]
fn nvidias_runtime_13_computes_right() {
    the_runtime_computes_right(Toolkit::Cuda13, None);
    the_runtime_computes_right(Toolkit::Cuda13, Some("13.5.*"));
}
