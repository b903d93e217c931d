//! The quota of device memory (`--vram`) as the processes of a VM share it, on the device in software.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use harness::wheels::Toolkit;
use whole_stack::artifacts::Profile;
use whole_stack::local::Local;
use whole_stack::vm::Stack;

fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| Stack::build(Profile::Dev, Toolkit::Cuda13).unwrap_or_else(|e| panic!("{e:?}")))
}

/// A process that does what it is told.
struct Process {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Process {
    fn start(local: &Local) -> Self {
        let mut command = local.command("quota", &[]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = harness::supervise::spawn(command).unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from }
    }

    fn ask(&mut self, what: &str) -> String {
        writeln!(self.to.as_mut().unwrap(), "{what}").unwrap();
        let mut said = String::new();
        self.from.read_line(&mut said).unwrap();
        said.trim_end().to_owned()
    }

    fn end(mut self) {
        drop(self.to.take());
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What every interface says where so much is left of 64 MiB.
fn left(mib: u32) -> String {
    format!("cuda {mib} 64 device 64 nvml {mib} 64")
}

/// Asks until so much is left.
fn wait_until_left(process: &mut Process, mib: u32) {
    let begin = Instant::now();
    loop {
        let said = process.ask("numbers");
        if said == left(mib) {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{said}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_processes_share_one_quota_and_are_told_the_same() {
    let (daemon, local) = stack().start_local(&["--vram", "64MiB"]).unwrap();
    let (mut a, mut b) = (Process::start(&local), Process::start(&local));
    assert_eq!((a.ask("numbers"), b.ask("numbers")), (left(64), left(64)));
    assert_eq!(a.ask("take 40"), "took");
    assert_eq!((a.ask("numbers"), b.ask("numbers")), (left(24), left(24)));
    assert_eq!((b.ask("take 26"), b.ask("take 24")), ("out of memory".to_owned(), "took".to_owned()));
    assert_eq!((a.ask("take 2"), a.ask("numbers")), ("out of memory".to_owned(), left(0)));
    // An orderly end gives back as well as a sudden one.
    b.end();
    wait_until_left(&mut a, 24);
    let mut c = Process::start(&local);
    assert_eq!((c.ask("take 24"), a.ask("numbers")), ("took".to_owned(), left(0)));
    a.kill();
    wait_until_left(&mut c, 40);
    assert_eq!(c.ask("take 40"), "took");
    c.kill();
    let mut d = Process::start(&local);
    wait_until_left(&mut d, 64);
    d.end();
    assert_eq!(daemon.stop().unwrap().get("posted_errors"), Some(0));
}

#[test]
fn every_kind_of_memory_counts() {
    let (daemon, local) = stack().start_local(&["--vram", "64MiB"]).unwrap();
    let (mut a, mut b) = (Process::start(&local), Process::start(&local));
    assert_eq!(a.ask("take 24"), "took");
    for kind in ["plain", "async", "pool", "virtual", "array", "array3d", "mipmap", "module"] {
        assert_eq!(b.ask(&format!("fill {kind}")), "filled 10", "{kind}");
        assert_eq!((a.ask("numbers"), b.ask("numbers")), (left(40), left(40)), "{kind}");
    }
    // What the library keeps of freed memory does not stand in its own process's way.
    assert_eq!((b.ask("keep"), b.ask("take 40")), ("kept".to_owned(), "took".to_owned()));
    assert_eq!(a.ask("take 2"), "out of memory");
    a.end();
    b.end();
    assert_eq!(daemon.stop().unwrap().get("posted_errors"), Some(0));
}
