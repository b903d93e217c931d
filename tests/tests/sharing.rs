//! Several VMs, each with a daemon of its own, that share one device: here the processors of this host.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use harness::wheels::Toolkit;
use whole_stack::artifacts::Profile;
use whole_stack::daemon::Daemon;
use whole_stack::local::Local;
use whole_stack::vm::Stack;

fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| Stack::build(Profile::Dev, Toolkit::Cuda13).unwrap_or_else(|e| panic!("{e:?}")))
}

/// A VM's daemon, with other arguments than the others'.
fn daemon(folder: &Path, vm: u32, arguments: &[&str]) -> (Daemon, Local) {
    let (folder, vm) = (folder.to_str().unwrap(), vm.to_string());
    let all = [&["--vm-id", &vm, "--state-dir", folder], arguments].concat();
    stack().start_local(&all).unwrap()
}

/// A tenant's program that works for so long.
struct Tenant {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Tenant {
    /// Ready to work.
    fn start(local: &Local, arguments: &[&str]) -> Self {
        let mut command = local.command("tenant", arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = harness::supervise::spawn(command).unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "begins\n");
        Self { child, out }
    }

    /// What it says at its end, which is a good one.
    fn end(mut self) -> String {
        let mut said = String::new();
        self.out.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

fn gpu_ms(daemon: &Daemon) -> u64 {
    daemon.totals().unwrap().get("gpu_ms").unwrap()
}

#[test]
fn time_is_shared_by_weight_and_results_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let (light, to_light) = daemon(folder.path(), 1, &["--weight", "20"]);
    let (heavy, to_heavy) = daemon(folder.path(), 2, &["--weight", "80"]);
    let work = ["steps", "12", "20000", "2"];
    let tenants = [Tenant::start(&to_light, &work), Tenant::start(&to_heavy, &work)];
    let before = [gpu_ms(&light), gpu_ms(&heavy)];
    std::thread::sleep(Duration::from_secs(10));
    let after = [gpu_ms(&light), gpu_ms(&heavy)];
    let said = tenants.map(Tenant::end);
    let used = [after[0] - before[0], after[1] - before[1]];
    let share = 100 * used[0] / (used[0] + used[1]);
    assert!((14..=28).contains(&share), "{share} %: {used:?} ms, {said:?}");
}

/// Two that flood the device: percent of the device time that the first has in a while.
fn share_of_the_first(first: (&Daemon, &Local), second: (&Daemon, &Local)) -> u64 {
    let work = ["flood", "8", "20000", "2"];
    let tenants = [Tenant::start(first.1, &work), Tenant::start(second.1, &work)];
    let before = [gpu_ms(first.0), gpu_ms(second.0)];
    std::thread::sleep(Duration::from_secs(6));
    let after = [gpu_ms(first.0), gpu_ms(second.0)];
    for tenant in tenants {
        tenant.end();
    }
    let used = [after[0] - before[0], after[1] - before[1]];
    100 * used[0] / (used[0] + used[1])
}

#[test]
fn priority_comes_first_and_leaves_a_little() {
    let folder = tempfile::tempdir().unwrap();
    let (low, to_low) = daemon(folder.path(), 1, &["--priority", "low", "--weight", "100"]);
    let (high, to_high) = daemon(folder.path(), 2, &["--priority", "high", "--weight", "1"]);
    let share = share_of_the_first((&high, &to_high), (&low, &to_low));
    assert!((85..100).contains(&share), "{share} %");
}

/// What a daemon that misses its turn does to another one's tenant, while both want the device.
fn other_goes_on<T>(miss: impl FnOnce(Daemon) -> T) {
    let folder = tempfile::tempdir().unwrap();
    let (one, to_one) = daemon(folder.path(), 1, &[]);
    let (_two, to_two) = daemon(folder.path(), 2, &[]);
    let mut first = Tenant::start(&to_one, &["flood", "60", "20000", "2"]);
    let second = Tenant::start(&to_two, &["steps", "6", "20000", "2"]);
    std::thread::sleep(Duration::from_secs(1));
    let _one = miss(one);
    let said = second.end();
    let steps: u64 = said.split(' ').nth(1).and_then(|steps| steps.parse().ok()).unwrap();
    assert!(steps > 100, "{said}");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
}

#[test]
fn a_daemon_that_dies_in_its_turn_holds_nobody_up() {
    other_goes_on(|daemon| daemon.kill().unwrap());
}

#[test]
fn a_daemon_that_stops_in_its_turn_holds_nobody_up() {
    struct Stopped(Daemon);

    impl Stopped {
        fn signal(&self, name: &str) {
            let pid = self.0.pid().to_string();
            assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        }
    }

    impl Drop for Stopped {
        fn drop(&mut self) {
            self.signal("-CONT");
        }
    }

    other_goes_on(|daemon| {
        let stopped = Stopped(daemon);
        stopped.signal("-STOP");
        stopped
    });
}
