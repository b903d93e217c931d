//! A hostile process in a VM, as root, on `/dev/vgpu`: while it plays, a well-behaved one of another user computes. The guest's
//! kernel has nothing to complain of, and the daemon lives.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use harness::kernel::Series;
use harness::wheels::Toolkit;
use whole_stack::artifacts::{self, Profile};
use whole_stack::vm::{Attach, PROGRAMS, Stack, USER, Vm};

/// Seconds that the hostile process plays, once as root and once as an ordinary user.
const SECONDS: u64 = 12;
/// The seed of its first family.
const SEED: u64 = 90;

/// What a kernel says when something is wrong with it. The driver's own refusals say none of these.
const COMPLAINTS: [&str; 12] = [
    "BUG:",
    "Oops",
    "WARNING:",
    "general protection",
    "unable to handle",
    "Call Trace",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "soft lockup",
    "rcu_sched",
    "Bad page",
];

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn hostile_process_in_a_vm_harms_nobody_but_itself() {
    harms_nobody(Attach::Fs);
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn hostile_process_behind_the_plain_function_harms_nobody_but_itself() {
    harms_nobody(Attach::Function);
}

fn harms_nobody(attach: Attach) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stack = Stack::build(Profile::Dev, Toolkit::Cuda13).unwrap_or_else(|e| panic!("{e:?}"));
    let hostile = artifacts::hostile_guest(Profile::Dev).unwrap_or_else(|e| panic!("{e:?}"));
    let daemon = stack.start_daemon_for(attach, &[]).unwrap();
    let boot = stack.guest(Series::V6_1, attach, &daemon).unwrap();
    let boot = boot.program(&format!("{PROGRAMS}/hostile-guest"), &hostile);
    let vm = Vm { guest: boot.start().unwrap_or_else(|e| panic!("{e:?}")), daemon };
    let (seed, seconds) = (setting("VGPU_HOSTILE_SEED", SEED), setting("VGPU_HOSTILE_SECONDS", SECONDS));
    let argv = [format!("{PROGRAMS}/hostile-guest"), seed.to_string(), seconds.to_string()];
    for user in [0, USER] {
        let run = vm.guest.exec(argv.clone()).user(user).timeout(Duration::from_secs(seconds + 240));
        let playing = run.spawn().unwrap();
        // Beside it, as long as it plays or twice.
        for round in 0..2 {
            let said = vm.check("driver_api", &[]).unwrap_or_else(|e| panic!("round {round}: {e:?}"));
            assert!(said.contains("driver API: all right"), "{said}");
        }
        let played = playing.wait().unwrap();
        print!("user {user}:\n{}", String::from_utf8_lossy(&played.stdout));
        let log = vm.daemon.log();
        let end = log[log.len().saturating_sub(40)..].join("\n");
        assert!(played.success(), "{played}\nthe daemon's log:\n{end}");
    }
    let messages = vm.guest.run("dmesg").output().unwrap().text();
    let complaints: Vec<&str> =
        messages.lines().filter(|line| COMPLAINTS.iter().any(|c| line.contains(c))).collect();
    assert!(
        complaints.is_empty(),
        "the guest's kernel complains:\n{}\nall of it:\n{messages}",
        complaints.join("\n")
    );
    let said = vm.check("driver_api", &[]).unwrap_or_else(|e| panic!("after all: {e:?}"));
    assert!(said.contains("driver API: all right"), "{said}");
    // Nothing is left behind: the module can be unloaded, which checks that no page is counted as held.
    vm.guest.run("rmmod vgpu").check().unwrap_or_else(|e| panic!("{e:?}"));
    let messages = vm.guest.run("dmesg | tail -n 5").output().unwrap().text();
    assert!(!messages.contains("still counted"), "{messages}");
    vm.guest.shutdown().unwrap();
    let crashed: Vec<String> = vm
        .daemon
        .log()
        .into_iter()
        .filter(|l| l.contains("panicked") || l.contains("Signal(") && !l.contains("Signal(9)"))
        .collect();
    assert!(crashed.is_empty(), "workers have crashed:\n{}", crashed.join("\n"));
    println!("{}", vm.daemon.stop().unwrap());
}
