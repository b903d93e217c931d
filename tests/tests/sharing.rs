//! Several VMs, each with a daemon of its own, that share one device: here the processors of this host.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::OnceLock;

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
    std::thread::sleep(std::time::Duration::from_secs(10));
    let after = [gpu_ms(&light), gpu_ms(&heavy)];
    let said = tenants.map(Tenant::end);
    let used = [after[0] - before[0], after[1] - before[1]];
    let share = 100 * used[0] / (used[0] + used[1]);
    assert!((14..=28).contains(&share), "{share} %: {used:?} ms, {said:?}");
}
