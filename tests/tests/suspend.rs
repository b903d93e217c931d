//! A VM is suspended and resumed beside programs that know nothing of it.

use std::sync::OnceLock;
use std::time::Duration;

use harness::wheels::Toolkit;
use whole_stack::artifacts::Profile;
use whole_stack::local::{Local, finish};
use whole_stack::vm::Stack;

/// For a program whose VM is suspended again and again, on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);

fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| Stack::build(Profile::Dev, Toolkit::Cuda13).unwrap_or_else(|e| panic!("{e:?}")))
}

/// Runs a program to its good end.
fn check(local: &Local, program: &str, arguments: &[&str]) {
    let output = finish(local.spawn(program, arguments).unwrap(), PATIENCE).unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

#[test]
fn programs_see_nothing_but_pauses() {
    let (daemon, local) = stack().start_local(&[]).unwrap();
    let programs: [(&str, &[&str]); 5] = [
        ("driver_api", &[]),
        ("compute", &["rounds", "5", "150"]),
        ("threads", &["events"]),
        ("copies", &["capture"]),
        ("waiting", &["results"]),
    ];
    let mut suspends = 0;
    std::thread::scope(|scope| {
        let running = programs.map(|(program, arguments)| {
            let local = &local;
            scope.spawn(move || check(local, program, arguments))
        });
        while running.iter().any(|program| !program.is_finished()) {
            let said = daemon.toggle_suspend().unwrap();
            assert!(
                said.contains(" is suspended: ") && said.contains(" 0 MiB of device memory moved"),
                "{said}"
            );
            let calls = |daemon: &whole_stack::daemon::Daemon| daemon.totals().unwrap().get("calls").unwrap();
            let before = calls(&daemon);
            std::thread::sleep(Duration::from_millis(30));
            assert_eq!(calls(&daemon), before, "a call was carried out");
            let said = daemon.toggle_suspend().unwrap();
            assert!(said.contains(" goes on after its suspend: "), "{said}");
            suspends += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert!(suspends > 2, "{suspends}");
    let totals = daemon.stop().unwrap();
    assert_eq!((totals.get("posted_errors"), totals.get("sessions_died")), (Some(0), Some(0)), "{totals}");
}

#[test]
fn a_program_that_starts_while_suspended_waits() {
    let (daemon, local) = stack().start_local(&[]).unwrap();
    daemon.toggle_suspend().unwrap();
    let mut child = local.spawn("driver_api", &[]).unwrap();
    daemon.wait_for_log("session 0 waits: the VM is suspended", 0).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    assert_eq!(daemon.totals().unwrap().get("sessions_opened"), Some(0));
    // One that does not wait for that long is forgotten.
    let mut other = local.spawn("driver_api", &[]).unwrap();
    daemon.wait_for_log("session 1 waits: the VM is suspended", 0).unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    daemon.toggle_suspend().unwrap();
    let output = finish(child, PATIENCE).unwrap();
    assert!(output.status.success(), "{output:?}");
    let totals = daemon.stop().unwrap();
    assert_eq!((totals.get("sessions_died"), totals.get("posted_errors")), (Some(0), Some(0)), "{totals}");
}

/// A suspended daemon ends as any other does.
#[test]
fn a_suspended_daemon_ends_when_it_is_asked() {
    let (daemon, local) = stack().start_local(&[]).unwrap();
    let child = local.spawn("compute", &["until", "3"]).unwrap();
    daemon.wait_for_log("opened: guest process", 0).unwrap();
    daemon.toggle_suspend().unwrap();
    let workers = daemon.children();
    let totals = daemon.stop().unwrap();
    assert_eq!(totals.get("sessions_open"), Some(0), "{totals}");
    let output = finish(child, PATIENCE).unwrap();
    assert!(!output.status.success(), "its session is over: {output:?}");
    assert!(workers.iter().all(|worker| !std::path::Path::new(&format!("/proc/{worker}")).exists()));
}
