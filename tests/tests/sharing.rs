//! Several VMs, each with a daemon of its own, that share one device: here the processors of this host.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

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

#[test]
fn equal_vms_have_equal_shares() {
    let folder = tempfile::tempdir().unwrap();
    let vms: Vec<_> = (1..=4).map(|vm| daemon(folder.path(), vm, &[])).collect();
    let tenants: Vec<_> =
        vms.iter().map(|(_, local)| Tenant::start(local, &["steps", "7", "20000", "2"])).collect();
    let used = || vms.iter().map(|(daemon, _)| gpu_ms(daemon)).collect::<Vec<_>>();
    let before = used();
    std::thread::sleep(Duration::from_secs(5));
    let used: Vec<f64> = used()
        .iter()
        .zip(before)
        .map(|(after, before)| f64::from(u32::try_from(after - before).unwrap()))
        .collect();
    // Each has compared its own results.
    tenants.into_iter().for_each(|tenant| drop(tenant.end()));
    // Jain's index: 1 where all are equal.
    let index = used.iter().sum::<f64>().powi(2) / (4.0 * used.iter().map(|ms| ms * ms).sum::<f64>());
    assert!(index > 0.95, "{index}: {used:?} ms");
}

/// What a daemon has open, and its processes; once nothing changes any more.
fn settled(daemon: &Daemon) -> (usize, usize) {
    let look = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
        (files, daemon.children().len())
    };
    let (mut last, mut since) = (look(), Instant::now());
    let begin = Instant::now();
    while since.elapsed() < Duration::from_secs(1) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{last:?}: it does not come to rest");
        std::thread::sleep(Duration::from_millis(50));
        let now = look();
        if now != last || daemon.totals().unwrap().get("sessions_open") != Some(0) {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// The long one is the row `sharing/soak` of `tests/gpu/run.py`.
#[test]
fn tenants_that_come_and_go_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let vms = [
        daemon(folder.path(), 1, &["--priority", "high"]),
        daemon(folder.path(), 2, &["--weight", "30"]),
        daemon(folder.path(), 3, &[]),
        daemon(folder.path(), 4, &["--vram", "64MiB"]),
    ];
    let before: Vec<_> = vms.iter().map(|(daemon, _)| settled(daemon)).collect();
    let mut random = hostile::Random::new(7);
    let (mut ended, mut killed) = (0, 0);
    let mut running: Vec<(Tenant, bool, Instant)> = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(8) || !running.is_empty() {
        if begin.elapsed() < Duration::from_secs(8) && running.len() < 4 {
            let (_, local) = &vms[random.pick(&[0, 1, 2, 3])];
            let (kind, elements) =
                (random.pick(&["steps", "flood", "latency"]), random.pick(&["2000", "20000"]));
            let tenant = Tenant::start(local, &[kind, "1", elements, "2"]);
            let ends = Instant::now() + Duration::from_millis(random.below(900));
            running.push((tenant, random.once_in(3), ends));
        }
        let due = running.iter().position(|(_, kill, ends)| *kill && Instant::now() > *ends);
        if let Some(at) = due {
            let (mut tenant, ..) = running.remove(at);
            tenant.child.kill().unwrap();
            tenant.child.wait().unwrap();
            killed += 1;
        } else if let Some(at) = running.iter().position(|(_, kill, _)| !*kill).filter(|_| running.len() == 4)
        {
            running.remove(at).0.end();
            ended += 1;
        } else if begin.elapsed() >= Duration::from_secs(8) && running.iter().all(|(_, kill, _)| !*kill) {
            running.drain(..).for_each(|(tenant, ..)| {
                tenant.end();
                ended += 1;
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{ended} have ended, {killed} were killed");
    assert!(ended >= 4 && killed >= 2, "{ended} {killed}");
    for ((daemon, _), (files, children)) in vms.iter().zip(before) {
        let (now, left) = settled(daemon);
        // A descriptor more or less is one that is kept for the next.
        assert!(now <= files + 4 && left <= children + 1, "{files} {now}, {children} {left}");
    }
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
