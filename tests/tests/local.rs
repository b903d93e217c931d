//! The test programs against the daemon's local socket: the same library, daemon, worker and executor as in a VM, without one.

use std::sync::OnceLock;

use harness::wheels::Toolkit;
use whole_stack::artifacts::Profile;
use whole_stack::vm::Stack;

fn stack(toolkit: Toolkit) -> &'static Stack {
    static STACKS: [OnceLock<Stack>; 2] = [const { OnceLock::new() }; 2];
    STACKS[usize::from(toolkit == Toolkit::Cuda12)]
        .get_or_init(|| Stack::build(Profile::Dev, toolkit).unwrap_or_else(|e| panic!("{e:?}")))
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

#[test]
fn nvidias_runtime_13_computes_right() {
    let (daemon, local) = stack(Toolkit::Cuda13).start_local(&[]).unwrap();
    let said =
        local.check("runtime_api", &[]).unwrap_or_else(|e| panic!("{e:?}\n{}", daemon.log().join("\n")));
    assert!(said.contains("runtime API: all right"), "{said}");
    assert_eq!(daemon.stop().unwrap().get("posted_errors"), Some(0));
}

#[test]
fn nvidias_runtime_12_computes_right() {
    let (daemon, local) = stack(Toolkit::Cuda12).start_local(&[]).unwrap();
    let said =
        local.check("runtime_api", &[]).unwrap_or_else(|e| panic!("{e:?}\n{}", daemon.log().join("\n")));
    assert!(said.contains("runtime API: all right"), "{said}");
    assert_eq!(daemon.stop().unwrap().get("posted_errors"), Some(0));
}
