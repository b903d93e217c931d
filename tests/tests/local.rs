//! The test programs against the daemon's local socket: the same library, daemon, worker and executor as in a VM, without one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use harness::wheels::Toolkit;
use serde_json::Value;
use whole_stack::artifacts::Profile;
use whole_stack::daemon::{Daemon, Listen};
use whole_stack::local::Local;
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

#[test]
fn a_profile_counts_each_call() {
    let stack = stack(Toolkit::Cuda13);
    let folder = tempfile::tempdir().unwrap();
    let (socket, profiles) = (folder.path().join("vgpu.sock"), folder.path().join("profiles"));
    // The log has each call as well.
    let arguments = ["--executor", "soft", "--vm-id", "5", "--profile", profiles.to_str().unwrap()];
    let filter = "info,mediator::executor=trace";
    let daemon = Daemon::start_logging(&stack.daemon, Listen::Local, &socket, &arguments, filter).unwrap();
    let local = Local { socket, libcuda: stack.libcuda.clone(), programs: stack.programs.clone() };
    local.check("driver_api", &[]).unwrap_or_else(|e| panic!("{e:?}\n{}", daemon.log_tail()));
    let opened = daemon.wait_for_log("opened: guest process", 0).unwrap();
    let process = opened.split("guest process ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    daemon.wait_for_log("session 0 closed", 0).unwrap();
    let traced = std::env::var_os("RUST_LOG").is_none();
    let mut logged: BTreeMap<String, u64> = BTreeMap::new();
    for line in daemon
        .log()
        .iter()
        .filter(|line| line.contains("mediator::executor] cu") || line.contains("mediator::executor] vgpu"))
    {
        let name = line.split("mediator::executor] ").nth(1).and_then(|said| said.split(' ').next()).unwrap();
        *logged.entry(name.to_owned()).or_default() += 1;
    }
    let totals = daemon.stop().unwrap();

    let path = profiles.join(format!("vm5-session0-{process}.json"));
    let profile: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((profile["vm"].as_u64(), profile["guest_pid"].to_string()), (Some(5), process.to_owned()));
    let calls = profile["calls"].as_array().unwrap();
    let number = |of: &Value, name: &str| of[name].as_u64().unwrap_or_else(|| panic!("{name} in {of}"));
    let counted: BTreeMap<String, u64> =
        calls.iter().map(|call| (call["name"].as_str().unwrap().to_owned(), number(call, "count"))).collect();
    assert_eq!(Some(counted.values().sum()), totals.get("calls"), "{profile}");
    if traced {
        assert_eq!(counted, logged);
    }
    assert!(counted["cuLaunchKernel"] > 0 && counted["cuMemAlloc_v2"] > 0, "{counted:?}");
    for call in calls {
        let (count, waited) = (number(call, "count"), number(call, "waited"));
        assert!(waited <= count && (call["name"] != "cuMemAlloc_v2" || waited == count), "{call}");
        let in_buckets =
            call["histogram_ns"].as_array().unwrap().iter().map(|pair| pair[1].as_u64().unwrap());
        assert_eq!(in_buckets.sum::<u64>(), count, "{call}");
        let us = |name: &str| call[name].as_f64().unwrap();
        assert!(us("mean_us") <= us("max_us") && us("max_us") <= us("total_us"), "{call}");
    }
    let totals_us: Vec<f64> = calls.iter().map(|call| call["total_us"].as_f64().unwrap()).collect();
    assert!(totals_us.is_sorted_by(|a, b| a >= b), "{totals_us:?}");
    let table = std::fs::read_to_string(path.with_extension("txt")).unwrap();
    assert!(table.contains("  cuLaunchKernel\n"), "{table}");
}

/// Processor time that a process has used, in milliseconds.
fn processor_ms(pid: u32) -> u64 {
    /// USER_HZ on every Linux that this runs on.
    const TICK_MS: u64 = 10;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // After the name, the state is 0, user time 11, system time 12.
    [11, 12].iter().map(|at| fields[*at].parse::<u64>().unwrap() * TICK_MS).sum()
}

/// A process whose session is open, and rests.
fn idle_process(local: &Local, arguments: &[&str]) -> Child {
    let mut command = local.command("bench", arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut guest = harness::supervise::spawn(command).unwrap();
    let mut said = String::new();
    BufReader::new(guest.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "idle\n");
    guest
}

#[test]
fn an_open_session_is_profiled_when_the_daemon_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let profiles = folder.path().to_str().unwrap();
    let (daemon, local) = stack(Toolkit::Cuda13).start_local(&["--profile", profiles]).unwrap();
    let mut guest = idle_process(&local, &["idle"]);
    let path = folder.path().join(format!("vm0-session0-{}.json", guest.id()));
    assert!(!path.exists());
    // Asked by the signal that the totals are asked for by; those come last.
    daemon.totals().unwrap();
    let profile: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let launch = profile["calls"].as_array().unwrap().iter().find(|call| call["name"] == "cuLaunchKernel");
    assert_eq!(launch.map(|call| call["count"].clone()), Some(1.into()), "{profile}");
    drop(guest.stdin.take());
    assert!(guest.wait().unwrap().success());
}

/// A session that does nothing takes a hundredth of a processor at most, on either side.
fn an_idle_session_rests(arguments: &[&str]) {
    let (daemon, local) = stack(Toolkit::Cuda13).start_local(&[]).unwrap();
    let mut guest = idle_process(&local, arguments);
    let opened = daemon.wait_for_log("opened: guest process", 0).unwrap();
    let worker = opened.rsplit("worker ").next().and_then(|pid| pid.trim().parse().ok()).unwrap();
    // Both sides look for more to do for a moment, and the pool starts a worker.
    std::thread::sleep(Duration::from_millis(500));
    let daemon_pid = u32::try_from(daemon.pid()).unwrap();
    let processes = [("guest", guest.id()), ("worker", worker), ("daemon", daemon_pid)];
    let before = processes.map(|(_, pid)| processor_ms(pid));
    std::thread::sleep(Duration::from_secs(2));
    for ((name, pid), before) in processes.iter().zip(before) {
        let used = processor_ms(*pid) - before;
        assert!(used <= 20, "{arguments:?}: the {name} has used {used} ms of a processor in 2 s");
    }
    drop(guest.stdin.take());
    assert!(guest.wait().unwrap().success());
    assert_eq!(daemon.stop().unwrap().get("posted_errors"), Some(0));
}

#[test]
fn an_idle_session_rests_with_and_without_threads_of_the_librarys_own() {
    an_idle_session_rests(&["idle"]);
    an_idle_session_rests(&["idle", "all"]);
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
