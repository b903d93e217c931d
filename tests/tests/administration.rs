//! What an administrator sees and does: vgpuctl, the host's file, metrics; with programs at work, on the device in software.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use harness::wheels::Toolkit;
use serde_json::Value;
use whole_stack::artifacts::{self, Profile};
use whole_stack::daemon::Daemon;
use whole_stack::local::Local;
use whole_stack::vm::Stack;

fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| Stack::build(Profile::Dev, Toolkit::Cuda13).unwrap_or_else(|e| panic!("{e:?}")))
}

/// A host: its state folder, its file, and vgpuctl.
struct Host {
    folder: tempfile::TempDir,
    vgpuctl: PathBuf,
}

impl Host {
    fn new() -> Self {
        let vgpuctl = artifacts::vgpuctl(Profile::Dev).unwrap_or_else(|e| panic!("{e:?}"));
        Self { folder: tempfile::tempdir().unwrap(), vgpuctl }
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("vgpu.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn daemon(&self, vm: u32, arguments: &[&str]) -> (Daemon, Local) {
        let (state_dir, vm) = (self.state_dir(), vm.to_string());
        let all = [&["--vm-id", &vm, "--state-dir", state_dir.to_str().unwrap()], arguments].concat();
        stack().start_local(&all).unwrap()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.vgpuctl);
        command.arg("--state-dir").arg(self.state_dir()).args(line.split_whitespace());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// What it prints, and it succeeds.
    fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{line}: {out}{err}");
        out
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{line} --json"))).unwrap()
    }

    /// Its exit status, and what it complains of.
    fn fails(&self, line: &str) -> (i32, String) {
        let output = self.run(line);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// Until a VM is as it should be.
    fn wait(&self, vm: u32, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let report = self.json(&format!("show {vm}"));
            if is(&report) {
                return report;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{what}: {report:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A program that works until it is told to end.
struct Tenant(Child, BufReader<std::process::ChildStdout>);

impl Tenant {
    fn start(local: &Local, seconds: &str) -> Self {
        let mut command = local.command("tenant", &["steps", seconds, "2000", "4"]);
        command.stdout(Stdio::piped());
        let mut child = harness::supervise::spawn(command).unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "begins\n");
        Self(child, out)
    }

    /// It has compared all its results.
    fn end(mut self) {
        let mut said = String::new();
        self.1.read_to_string(&mut said).unwrap();
        assert!(self.0.wait().unwrap().success(), "{said}");
    }
}

fn calls(report: &Value, kind: &str) -> u64 {
    let kinds = report["work"]["calls"].as_array().unwrap();
    kinds.iter().find(|entry| entry["kind"] == kind).unwrap()["count"].as_u64().unwrap()
}

#[test]
fn vms_and_their_processes_are_shown_while_they_work() {
    let host = Host::new();
    let (_one, local) = host.daemon(1, &["--name", "web", "--vram", "64MiB"]);
    let (_two, _) = host.daemon(2, &[]);
    let tenant = Tenant::start(&local, "5");
    let pid = u64::from(tenant.0.id());

    let report = host.wait(1, "a process that launches", |report| {
        report["processes"].as_array().unwrap().len() == 1 && calls(&report["processes"][0], "launch") > 0
    });
    let process = &report["processes"][0];
    assert_eq!(process["guest_pid"], pid);
    assert_eq!(process["device_bytes"][0], 2 << 20);
    assert_eq!(report["devices"][0]["used_bytes"], 2 << 20);
    assert_eq!(
        (&report["devices"][0]["total_bytes"], &report["settings"]["vram"]),
        (&(64 << 20).into(), &"64MiB".into())
    );

    let list = host.json("list");
    let vms = list.as_array().unwrap();
    assert_eq!(
        vms.iter().map(|vm| (&vm["vm"], &vm["name"])).collect::<Vec<_>>(),
        [(&1.into(), &"web".into()), (&2.into(), &Value::Null)]
    );
    let lines: Vec<String> = host.ok("list").lines().map(str::to_owned).collect();
    assert!(lines.len() == 3 && lines[0].starts_with("VM") && lines[1].contains("web"), "{lines:?}");
    assert!(host.ok("show web").contains(&format!("\n  {pid} ")));

    let top = host.json("top -n 1 --interval 1s");
    let of_process = top.as_array().unwrap().iter().find(|line| line["guest_pid"] == pid).unwrap();
    assert!(of_process["launches"].as_f64().unwrap() > 0.0, "{top:#}");
    assert!(of_process["gpu_percent"].as_f64().unwrap() > 0.0, "{top:#}");
    let busiest = &top[0];
    assert_eq!((&busiest["vm"], &busiest["guest_pid"]), (&1.into(), &Value::Null));
    tenant.end();

    // What it has done stays counted.
    let after =
        host.wait(1, "the process's end", |report| report["processes"].as_array().unwrap().is_empty());
    assert!(calls(&after, "launch") >= calls(&report, "launch"));
    assert_eq!(after["devices"][0]["used_bytes"], 0);
    assert!(host.ok("stats 1").lines().any(|line| line.trim().starts_with("calls: launch")));
}

#[test]
fn settings_change_at_once_and_the_file_is_read_again() {
    let host = Host::new();
    let path = host.file("[defaults]\nweight = 20\n[vm.7]\nname = 'web'\nkernel-timeout = '1h'\n");
    let (_daemon, local) = host.daemon(7, &["--config", path.to_str().unwrap(), "--priority", "high"]);
    let setting = |name: &str| host.json("show web")["settings"][name].clone();
    assert_eq!(
        (setting("weight"), setting("priority"), setting("kernel-timeout")),
        ("20".into(), "high".into(), "1h".into())
    );

    let tenant = Tenant::start(&local, "2");
    assert_eq!(host.ok("set web weight=30 vram=1GiB"), "VM 7: weight: 20 -> 30\nVM 7: vram: none -> 1GiB\n");
    assert_eq!(host.json("show 7")["devices"][0]["total_bytes"], 1 << 30);
    // All of it or nothing.
    let (status, said) = host.fails("set web weight=40 vram=lots");
    assert!(status == 1 && said.contains("vram: ") && said.contains("nothing was changed"), "{said}");
    let (status, said) = host.fails("set web wieght=40");
    assert!(status == 1 && said.contains("kernel-timeout"), "{said}");
    assert_eq!(setting("weight"), "30");

    host.file("[vm.7]\nname = 'web'\npool = 'B'\nweight = 50\npriority = 'low'\n");
    let said = host.ok("reload");
    for line in ["weight: 30 -> 50", "vram: 1GiB -> none", "kernel-timeout: 1h -> none", "pool: changes when"]
    {
        assert!(said.contains(line), "{line} in {said}");
    }
    // The argument still wins.
    assert!(!said.contains("priority"), "{said}");
    host.file("[vm.7]\nweight = 60\n\nvram = '16 parsecs'\n");
    let (status, said) = host.fails("reload 7");
    assert!(status == 1 && said.contains("vgpu.toml:4: vram: the unit is"), "{said}");
    assert_eq!(setting("weight"), "50");
    tenant.end();
}

#[test]
fn faults_lead_to_a_quarantine_that_an_administrator_ends() {
    let host = Host::new();
    let (daemon, local) = host.daemon(1, &["--quarantine-after", "1", "--quarantine-within", "1h"]);
    for _ in 0..2 {
        local.check("processes", &["fault", "unmapped"]).unwrap();
    }
    host.wait(1, "the quarantine", |report| report["quarantine"]["faults"] == 2);
    assert!(host.ok("list").contains("quarantined"));
    let refused = local.output("compute", &["released"]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("quarantine"), "{said}");
    assert!(daemon.log().iter().any(|line| line.contains("VM 1 is quarantined until it is cleared")));
    assert!(host.ok("clear 1").contains("has ended"));
    assert!(host.ok("clear 1").contains("there was no quarantine"));
    local.check("compute", &["released"]).unwrap();

    assert!(host.ok("quarantine 1 --for 1h").contains("for 1h"));
    assert!(host.json("show 1")["quarantine"]["by_hand"].as_bool().unwrap());
    assert!(!local.output("compute", &["released"]).unwrap().status.success());
    host.ok("clear 1");
    assert_eq!(host.json("show 1")["counters"]["sessions_faulted"], 2);
}

#[test]
fn a_kernel_that_runs_too_long_ends_its_process_alone() {
    let host = Host::new();
    let (_daemon, local) = host.daemon(1, &[]);
    // For what is launched from now on.
    host.ok("set 1 kernel-timeout=500ms");
    let endless = local.spawn("processes", &["spin"]).unwrap();
    let ended = whole_stack::local::finish(endless, Duration::from_secs(60)).unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned() + &String::from_utf8_lossy(&ended.stdout);
    assert!(!ended.status.success() && said.contains("702"), "{said}");
    // Half a second is what this one's kernel takes.
    host.ok("set 1 kernel-timeout=none");
    local.check("compute", &["released"]).unwrap();
    let report = host.wait(1, "its end", |report| report["processes"].as_array().unwrap().is_empty());
    assert_eq!(report["counters"]["sessions_faulted"], 1);
}

#[test]
fn vms_take_turns_with_the_whole_of_the_memory_and_come_back_when_that_ends() {
    let host = Host::new();
    let (_one, first) = host.daemon(1, &["--name", "one"]);
    let (_two, second) = host.daemon(2, &[]);
    let (status, said) = host.fails("rotate 1 one");
    assert!(status == 1 && said.contains("named twice"), "{said}");
    let off = |vm: u32| host.json(&format!("show {vm}"))["suspended"].is_object();
    let tenants = [Tenant::start(&first, "4"), Tenant::start(&second, "4")];

    let said = host.ok("rotate one 2 --turn 300ms --idle 10s -n 4 --json");
    let turns: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let order: Vec<_> = turns.iter().map(|turn| (turn["vm"].as_u64(), turn["next_vm"].as_u64())).collect();
    assert_eq!(order, [(Some(1), Some(2)), (Some(2), Some(1)), (Some(1), Some(2)), (Some(2), Some(1))]);
    for turn in &turns {
        assert!(turn["works"].as_bool().unwrap() && turn["turn_s"].as_f64().unwrap() >= 0.3, "{turn}");
    }
    host.wait(2, "its return", |report| report["suspended"].is_null());

    // Nobody is left behind when it is killed.
    let mut rotate = harness::supervise::spawn(host.command("rotate 1 2 --turn 1h --idle 1h")).unwrap();
    host.wait(2, "its suspend", |report| report["suspended"].is_object());
    assert!(!off(1));
    let before = calls(&host.json("show 2"), "launch");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(calls(&host.json("show 2"), "launch"), before);
    rotate.kill().unwrap();
    rotate.wait().unwrap();
    host.wait(2, "its return", |report| report["suspended"].is_null());
    tenants.into_iter().for_each(Tenant::end);

    // One that does nothing gives its turn up to one that may.
    let mut rotate = harness::supervise::spawn(host.command("rotate 1 2 --turn 1h --idle 200ms")).unwrap();
    host.wait(2, "its suspend", |report| report["suspended"].is_object());
    second.check("compute", &["released"]).unwrap();
    rotate.kill().unwrap();
    rotate.wait().unwrap();
    host.wait(1, "its return", |report| report["suspended"].is_null());
}

#[test]
fn a_vm_is_suspended_and_resumed_while_its_program_works() {
    let host = Host::new();
    let (_daemon, local) = host.daemon(1, &[]);
    let tenant = Tenant::start(&local, "2");
    assert!(host.ok("suspend 1").contains("suspended: 1 session(s)"));
    assert_eq!(host.json("show 1")["suspended"]["sessions"], 1);
    let (status, said) = host.fails("suspend 1");
    assert!(status == 1 && said.contains("VM 1: "), "{said}");
    let before = calls(&host.json("show 1"), "launch");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(calls(&host.json("show 1"), "launch"), before);
    host.ok("resume 1");
    tenant.end();
    assert!(calls(&host.json("show 1"), "launch") > before);
}

/// A request over HTTP, and its answer.
fn get(mut stream: impl Read + Write, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_are_written_and_served() {
    let host = Host::new();
    let (_daemon, local) = host.daemon(1, &["--name", "web"]);
    local.check("compute", &["released"]).unwrap();
    let value = |text: &str, series: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("{series} in\n{text}")).trim().parse().unwrap()
    };
    let text = host.ok("metrics");
    let launches = r#"vgpu_vm_calls_total{vm="1",name="web",kind="launch"}"#;
    assert!(value(&text, launches) > 0.0);
    assert!(value(&text, r#"vgpu_vm_copied_bytes_total{vm="1",name="web",direction="up"}"#) > 0.0);
    assert!(text.ends_with("# EOF\n"));

    let socket = host.folder.path().join("metrics.sock");
    let mut command = host.command("metrics --listen 127.0.0.1:0 --socket");
    command.arg(&socket).stderr(Stdio::piped());
    let mut server = harness::supervise::spawn(command).unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut after = |word: &str| {
        let line = lines.by_ref().find(|line| line.contains(word)).unwrap();
        line.rsplit_once(word).unwrap().1.to_owned()
    };
    assert_eq!(after("unix socket "), socket.display().to_string());
    let address = after("http://");
    let address = address.strip_suffix("/metrics").unwrap();
    for answer in [
        get(UnixStream::connect(&socket).unwrap(), "/metrics"),
        get(TcpStream::connect(address).unwrap(), "/metrics"),
    ] {
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("application/openmetrics-text"),
            "{answer}"
        );
        assert!(answer.contains(launches), "{answer}");
    }
    assert!(get(TcpStream::connect(address).unwrap(), "/else").starts_with("HTTP/1.1 404"));
    server.kill().unwrap();
    server.wait().unwrap();
    // What the dashboard asks for is there.
    let board = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vhost-backend/vgpuctl/grafana.json");
    let board: Value = serde_json::from_str(&std::fs::read_to_string(board).unwrap()).unwrap();
    let mut asked = 0;
    for target in
        board["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap())
    {
        let expression = target["expr"].as_str().unwrap();
        for name in expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            if name.starts_with("vgpu_") {
                let family = ["_total", "_bucket", "_sum", "_count"]
                    .iter()
                    .fold(name, |name, end| name.trim_end_matches(end));
                let known =
                    text.contains(&format!("# TYPE {name} ")) || text.contains(&format!("# TYPE {family} "));
                assert!(known, "{name} of the dashboard is no metric");
                asked += 1;
            }
        }
    }
    assert!(asked > 10);
}

#[test]
fn what_is_not_there_is_said_with_its_own_status() {
    let host = Host::new();
    let (status, said) = host.fails("list");
    assert!(status == 3 && said.contains("no daemon is running"), "{said}");
    let (daemon, _) = host.daemon(1, &["--name", "web"]);
    let (status, said) = host.fails("show wob");
    assert!(status == 4 && said.contains("1 (web)"), "{said}");
    assert_eq!(host.fails("set 1").0, 2);
    // A second VM of that number.
    let refused = stack().start_local(&["--vm-id", "1", "--state-dir", host.state_dir().to_str().unwrap()]);
    let said = format!("{:?}", refused.err().unwrap());
    assert!(said.contains("VM 1 has no place") && said.contains("another daemon listens"), "{said}");
    // One that was killed has left its socket.
    let pid = daemon.pid().to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    let begin = Instant::now();
    while host.fails("show 1").0 != 3 {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    let (_again, _) = host.daemon(1, &[]);
    assert_eq!(host.json("show 1")["name"], Value::Null);
}

#[test]
fn lines_that_are_no_requests_are_refused_and_hurt_nobody() {
    let host = Host::new();
    let (_daemon, _) = host.daemon(1, &[]);
    let path = host.state_dir().join("vm-1.ctl");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for line in [
        "",
        "{}",
        "no",
        r#"{"request":"format-disk"}"#,
        r#"{"request":"quarantine","seconds":-1}"#,
        r#"{"request":"quarantine","seconds":1e300}"#,
    ] {
        let mut stream = UnixStream::connect(&path).unwrap();
        writeln!(stream, "{line}").unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with(r#"{"answer":"refused""#), "{line}: {answer}");
    }
    let mut long = UnixStream::connect(&path).unwrap();
    // It may be closed before all of it was written.
    let _ = long.write_all(&vec![b'x'; 1 << 20]);
    // More connections than it serves at once.
    let many: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(&path).unwrap()).collect();
    drop(many);
    let begin = Instant::now();
    // It may not have noticed all of their ends yet.
    while host.run("show 1").status.code() != Some(0) {
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
}
